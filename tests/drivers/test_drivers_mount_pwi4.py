"""The PWI4 driver against the requests of PlaneWave's own client and of `pwi`, on a real loopback socket."""

import contextlib
import dataclasses

import numpy as np
import pytest
from http_script import Script, scripted_http
from hypothesis import given
from hypothesis import strategies as st

from drivers.mount_pwi4 import connect
from drivers.pwi4 import flag, julian_date, number, parse_position, parse_reply, parse_timestamp
from drivers.transport import HttpReply
from groundstation.clock import SystemClock, parse_utc, utc_text
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument

CLOCK = SystemClock()
STATUS = {
    "pwi4.version": "4.0.11 beta 9",
    "site.latitude_degs": "40.4",
    "mount.is_connected": "true",
    "mount.is_slewing": "false",
    "mount.is_tracking": "false",
    "mount.azimuth_degs": "120.5",
    "mount.altitude_degs": "45.25",
    "mount.axis0.is_enabled": "true",
    "mount.axis1.is_enabled": "true",
}
READY = [
    ("GET /status", 0),
    ("GET /mount/connect", 0),
    ("GET /status", 0),
    ("GET /mount/enable axis=0", 0),
    ("GET /status", 0),
    ("GET /mount/enable axis=1", 0),
    ("GET /status", 0),
]


def body(**changes: str | None) -> tuple[int, bytes]:
    """A status; a key that is None is left out. Dots are written as `__`."""
    keys = STATUS | {key.replace("__", "."): value for key, value in changes.items()}
    return 200, "".join(f"{key}={value}\n" for key, value in keys.items() if value is not None).encode()


def script(*steps):
    ready = [(line, body()) for line, _ in READY]
    return Script([*ready, *steps])


def test_connecting_reaches_the_mount_and_enables_both_axes() -> None:
    with scripted_http(script()) as address:
        mount = connect(address, CLOCK, {})
        assert mount.capabilities.follows == "trajectory"
        mount.close()


def test_something_else_behind_http_is_the_wrong_instrument() -> None:
    for answer in ((200, b"<html>hello</html>"), (404, b"no"), (200, b"a.b=c\n")):
        steps = [(None, answer)] * (1 if answer[1].startswith(b"a.b") else 2)
        with scripted_http(Script(steps)) as address, pytest.raises(WrongInstrument, match=r"PWI4|pwi4"):
            connect(address, CLOCK, {})


def test_a_slew_is_the_request_of_the_vendors_client() -> None:
    steps = script(
        ("GET /mount/goto_alt_az alt_degs=45.0000000 az_degs=350.0000000", body(mount__is_slewing="true")),
        ("GET /status", body(mount__is_slewing="true")),
        ("GET /status", body()),
        ("GET /mount/stop", body()),
        ("GET /mount/tracking_off", body()),
        ("GET /mount/park", body()),
    )
    with scripted_http(steps) as address:
        mount = connect(address, CLOCK, {})
        mount.go_to(-10.0, 45.0)
        assert mount.is_slewing()
        assert not mount.is_slewing()
        mount.stop()
        mount.park()
        with pytest.raises(BadInput, match="elevation 91"):
            mount.go_to(0.0, 91.0)
        with pytest.raises(InstrumentFault, match="no free rates"):
            mount.set_rates(1.0, 1.0)


def test_a_position_without_a_time_is_of_the_middle_of_the_exchange() -> None:
    with scripted_http(script(("GET /status", body()))) as address:
        mount = connect(address, CLOCK, {})
        before_ns = CLOCK.utc_ns()
        reading = mount.read_position()
        assert (reading.azimuth_deg, reading.elevation_deg) == (120.5, 45.25)
        assert before_ns <= reading.utc_ns <= CLOCK.utc_ns()
        assert 0.0 < reading.uncertainty_s < 1.0


def test_a_position_with_a_time_is_of_that_time() -> None:
    def now(request):
        return body(mount__timestamp_utc=utc_text(CLOCK.utc_ns())[:-1].replace("T", " "))

    late = body(mount__timestamp_utc="2016-01-01 00:00:00.123")
    with scripted_http(script(("GET /status", now), ("GET /status", late))) as address:
        mount = connect(address, CLOCK, {})
        before_ns = CLOCK.utc_ns()
        reading = mount.read_position()
        assert before_ns - 1_000_000 <= reading.utc_ns <= CLOCK.utc_ns() + 1_000_000
        assert reading.uncertainty_s == pytest.approx(0.0055)  # half a digit and the clock of its computer
        with pytest.raises(InstrumentFault, match="set the clock"):
            mount.read_position()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (body(mount__azimuth_degs=None), WireError, "there is no position"),
        (body(mount__altitude_degs="nan"), WireError, "a number was expected"),
        (body(mount__is_connected="false"), InstrumentFault, "not connected to its mount"),
        (body(mount__is_connected="maybe"), WireError, "true or false"),
        ((500, b"crash"), InstrumentFault, "HTTP 500"),
        ((404, b"what?"), WireError, "does not know"),
        ((400, b"missing"), InstrumentFault, "refused"),
    ],
)
def test_what_is_no_position_is_never_taken_for_one(answer, error, words) -> None:
    with scripted_http(script(("GET /status", answer), *[("GET /status", answer)] * (answer[0] == 404))) as address:
        mount = connect(address, CLOCK, {})
        with pytest.raises(error, match=words):
            mount.read_position()


def test_a_path_travels_as_in_pwi_with_ten_decimals_of_the_julian_day() -> None:
    start_ns = parse_utc("2026-01-01T12:00:00Z")  # JD 2461042.0
    points = "2461042.0000000000,359.0000000,30.0000000\n2461042.0000115741,1.0000000,31.0000000"
    steps = script(
        ("GET /mount/custom_path/new type=altaz", body()),
        (f"POST /mount/custom_path/add_point_list data={points}", body()),
        ("GET /mount/offset path_reset=0 axis0_reset=0 axis1_reset=0", body()),
        ("GET /mount/custom_path/apply", body()),
    )
    with scripted_http(steps) as address:
        mount = connect(address, CLOCK, {})
        with pytest.raises(BadInput, match="nothing was loaded"):
            _start_without_offsets(mount)
        mount.load_trajectory(np.array([start_ns, start_ns + 10**9]), np.array([359.0, 361.0]), np.array([30.0, 31.0]))
        mount.start_trajectory()
        with pytest.raises(BadInput, match="ascend"):
            mount.load_trajectory(np.array([2, 1]), np.zeros(2), np.zeros(2))


def _start_without_offsets(mount):
    """What start_trajectory says when nothing was loaded, without its requests."""
    mount._clear_offsets = lambda: None
    try:
        mount.start_trajectory()
    finally:
        del mount._clear_offsets


def test_an_element_set_is_followed_at_once() -> None:
    line1 = "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993"
    line2 = "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063"
    steps = script(
        ("GET /mount/offset path_reset=0 axis0_reset=0 axis1_reset=0", body()),
        (f"GET /mount/follow_tle line1=MICIUS line2={line1} line3={line2}", body()),
    )
    with scripted_http(steps) as address:
        mount = connect(address, CLOCK, {})
        with pytest.raises(BadInput, match="damaged"):
            mount.load_elements("MICIUS", line1[:-1], line2)
        mount.load_elements("MICIUS", line1, line2)
        mount.start_trajectory()


def test_a_time_offset_is_the_way_along_the_path_and_axis_offsets_are_seen_in_the_status() -> None:
    """At 60 deg elevation an azimuth rate of 1 deg/s is half a degree along the sky: 0.2 s are 360 arcsec."""
    totals: dict[str, str] = {}

    def set_offset(request):
        totals.update(request.query)
        return body()

    def status(request):
        total = totals.get("path_set_total_arcsec", "0")
        return body(mount__offsets__path_arcsec__total=total, mount__offsets__axis0_arcsec__total="12.0")

    steps = script(
        ("GET /mount/custom_path/new type=altaz", body()),
        (None, body()),
        (None, set_offset),
        ("GET /status", status),
        ("GET /mount/offset axis0_set_total_arcsec=12.0000", set_offset),
        ("GET /status", status),
        ("GET /mount/offset axis1_set_total_arcsec=-3.0000", set_offset),
        ("GET /status", status),
    )
    with scripted_http(steps) as address:
        mount = connect(address, CLOCK, {})
        times = CLOCK.utc_ns() + np.arange(-60, 60) * 10**9
        mount.load_trajectory(times, np.arange(120.0), np.full(120, 60.0))
        mount.set_time_offset_s(0.2)
        assert float(totals["path_set_total_arcsec"]) == pytest.approx(0.2 * 3600 * 0.5, abs=0.1)
        assert float(totals["path_set_rate_arcsec_per_sec"]) == pytest.approx(0.0, abs=0.1)
        mount.set_axis_offsets_arcsec(12.0, -3.0)
        with pytest.raises(BadInput, match="beyond"):
            mount.set_axis_offsets_arcsec(1e5, 0.0)


def test_an_offset_that_does_not_show_is_a_fault() -> None:
    @dataclasses.dataclass(frozen=True)
    class Fast(SystemClock):
        speed: float = 20.0

    steps = script((None, body()), ("GET /status", body(mount__offsets__axis0_arcsec__total="0")))
    steps.for_ever = True
    with scripted_http(steps) as address:
        mount = connect(address, Fast(), {})
        with pytest.raises(InstrumentFault, match="did not take an axis0 offset"):
            mount.set_axis_offsets_arcsec(12.0, 0.0)


def test_a_julian_day_is_that_of_the_almanac() -> None:
    assert julian_date(parse_utc("2000-01-01T12:00:00Z")) == "2451545.0000000000"
    assert julian_date(parse_utc("2026-01-01T00:00:00Z")) == "2461041.5000000000"
    assert julian_date(parse_utc("1970-01-01T00:00:00Z") - 1) == "2440587.5000000000"


def test_a_timestamp_has_the_precision_of_its_digits() -> None:
    assert parse_timestamp("2026-01-01 00:00:00.123") == (parse_utc("2026-01-01T00:00:00.123Z"), 1_000_000)
    assert parse_timestamp("2026-01-01 00:00:00") == (parse_utc("2026-01-01T00:00:00Z"), 1_000_000_000)


@given(st.integers(100, 599), st.binary(max_size=80))
def test_arbitrary_answers_are_a_status_or_one_of_our_errors(code, data) -> None:
    with contextlib.suppress(GroundStationError):
        status = parse_reply(HttpReply(code, data))
        parse_position(status)
        flag(status, "mount.is_slewing")
        number(status, "mount.azimuth_degs")


@given(st.text(max_size=40))
def test_arbitrary_times_are_a_time_or_a_wire_error(text) -> None:
    with contextlib.suppress(WireError):
        parse_timestamp(text)
