"""The Alpaca dialect, its mount and its dome, against the wire of alpyca 3.1.3 and the rules of the API."""

import json
import threading

import pytest
from http_script import Script, alpaca, scripted_http, without_client
from hypothesis import given
from hypothesis import strategies as st

from drivers import dome_alpaca, mount_alpaca
from drivers.alpaca import AlpacaDevice, AlpacaFault, as_boolean, as_number, parse_answer
from drivers.dome_alpaca import parse_shutter
from drivers.mount_alpaca import RateRange, allowed, parse_axis_rates
from drivers.transport import HttpReply, open_http
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument

CLOCK = SystemClock()
NAMED = [
    ("GET name", alpaca("ASCOM telescope")),
    ("GET driverversion", alpaca("6.6")),
    ("GET interfaceversion", alpaca(3)),
    ("GET connected", alpaca(True)),
]
RATES = [{"Maximum": 6.0, "Minimum": 0.0}]  # as alpyca receives them
MOUNT = [
    *NAMED,
    ("GET alignmentmode", alpaca(0)),
    ("GET canmoveaxis Axis=0", alpaca(True)),
    ("GET canmoveaxis Axis=1", alpaca(True)),
    ("GET axisrates Axis=0", alpaca(RATES)),
    ("GET axisrates Axis=1", alpaca([{"Maximum": 4.0, "Minimum": 0.1}])),
    ("GET canslewaltazasync", alpaca(True)),
    ("GET cansettracking", alpaca(True)),
]
READY = [
    ("GET atpark", alpaca(True)),
    ("PUT unpark", alpaca()),
    ("GET tracking", alpaca(True)),
    ("PUT tracking Tracking=False", alpaca()),
    ("GET tracking", alpaca(False)),
]


def far_end(*steps):
    return scripted_http(Script(list(steps), shown=without_client))


def test_a_rate_is_the_put_of_alpyca_and_only_the_first_motion_unparks() -> None:
    steps = [
        *READY,
        ("PUT moveaxis Axis=0 Rate=0.5", alpaca()),
        ("PUT moveaxis Axis=1 Rate=-0.25", alpaca()),
        ("PUT moveaxis Axis=0 Rate=0", alpaca()),
        ("PUT moveaxis Axis=1 Rate=0", alpaca()),
    ]
    with far_end(*MOUNT, *steps) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        assert mount.capabilities.follows == "rates"
        assert mount.capabilities.max_rate_deg_s == 4.0
        mount.set_rates(1800.0, -900.0)
        with pytest.raises(BadInput, match=r"azimuth rates of 0 to 6 deg/s, not 7"):
            mount.set_rates(7 * 3600.0, 0.0)
        with pytest.raises(BadInput, match=r"elevation rates of 0\.1 to 4"):
            mount.set_rates(0.0, 0.05 * 3600.0)
        mount.set_rates(0.0, 0.0)


def test_a_slew_ends_when_slewing_says_so_and_stop_reaches_both_axes() -> None:
    steps = [
        *READY,
        ("PUT slewtoaltazasync Azimuth=120 Altitude=45.5", alpaca()),
        ("GET slewing", alpaca(True)),
        ("GET slewing", alpaca(False)),
        ("PUT abortslew", alpaca(error=0x400, message="not here")),
        ("PUT moveaxis Axis=0 Rate=0", alpaca()),
        ("PUT moveaxis Axis=1 Rate=0", alpaca()),
        ("PUT tracking Tracking=False", alpaca()),
    ]
    with far_end(*MOUNT, *steps) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        mount.go_to(480.0, 45.5)
        assert mount.is_slewing()
        assert not mount.is_slewing()
        with pytest.raises(InstrumentFault, match="not here"):
            mount.stop()


def test_azimuth_is_taken_for_the_moment_of_the_elevation_also_across_north() -> None:
    steps = [("GET azimuth", alpaca(359.9)), ("GET altitude", alpaca(30.0)), ("GET azimuth", alpaca(0.1))]
    with far_end(*MOUNT, *steps) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        before_ns = CLOCK.utc_ns()
        reading = mount.read_position()
        assert before_ns < reading.utc_ns < CLOCK.utc_ns()
        assert reading.elevation_deg == 30.0
        assert abs((reading.azimuth_deg + 180.0) % 360.0 - 180.0) < 0.1
        assert 0.0 < reading.uncertainty_s < 1.0


def test_an_equatorial_mount_is_refused_with_a_sentence() -> None:
    steps = [*NAMED, ("GET alignmentmode", alpaca(2))]
    with far_end(*steps) as address, pytest.raises(WrongInstrument, match="is a German equatorial mount; this station"):
        mount_alpaca.connect(address, CLOCK, {})


def test_a_mount_with_fixed_rates_only_follows_by_positions() -> None:
    steps = [list(step) for step in MOUNT]
    steps[-3][1] = alpaca([{"Maximum": 1.0, "Minimum": 1.0}])
    with far_end(*map(tuple, steps)) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        assert mount.capabilities.follows == "positions"
        with pytest.raises(InstrumentFault, match="send it positions"):
            mount.set_rates(0.0, 0.0)


def test_a_server_that_was_restarted_is_connected_again_and_asked_again() -> None:
    again = [*NAMED[:3], ("GET connected", alpaca(False)), ("PUT connected Connected=True", alpaca()), NAMED[3]]
    lost = alpaca(error=0x407, message="Not connected")
    steps = [("GET slewing", lost), *again, ("GET slewing", alpaca(False))]
    with far_end(*MOUNT, *steps) as address:
        assert not mount_alpaca.connect(address, CLOCK, {}).is_slewing()


def test_another_device_after_that_is_the_wrong_instrument() -> None:
    lost = alpaca(error=0x407, message="Not connected")
    other = [("GET name", alpaca("Rotator")), *NAMED[1:3]]
    with far_end(*MOUNT, ("GET slewing", lost), *other) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        with pytest.raises(WrongInstrument, match="now answers as Rotator"):
            mount.is_slewing()


def test_an_answer_to_another_transaction_is_asked_again_and_then_a_wire_error() -> None:
    steps = [("GET slewing", alpaca(True, off_by=1)), ("GET slewing", alpaca(True, off_by=-1))]
    with far_end(*MOUNT, *steps) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        with pytest.raises(WireError, match="another question's"):
            mount.is_slewing()


def test_a_command_is_never_repeated() -> None:
    steps = [*READY, ("PUT slewtoaltazasync Azimuth=1 Altitude=2", alpaca(off_by=1))]
    with far_end(*MOUNT, *steps) as address:
        mount = mount_alpaca.connect(address, CLOCK, {})
        with pytest.raises(WireError):
            mount.go_to(1.0, 2.0)


def test_threads_never_get_each_others_answers() -> None:
    def answer(request):
        return alpaca({"azimuth": 10.0, "altitude": 20.0}[request.path.rsplit("/", 1)[1]])(request)

    wrong: list[float] = []
    with scripted_http(Script([(None, answer)] * 60)) as address:
        device = AlpacaDevice(open_http(address, timeout_s=5.0), "telescope", 0, 1)

        def ask(method, value):
            wrong.extend(v for _ in range(30) if (v := device.get(method, as_number)) != value)

        threads = [threading.Thread(target=ask, args=pair) for pair in (("azimuth", 10.0), ("altitude", 20.0))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_dome_turns_and_opens() -> None:
    steps = [
        ("GET azimuth", alpaca(12.5)),
        ("GET cansetazimuth", alpaca(True)),
        ("GET slaved", alpaca(True)),
        ("PUT slaved Slaved=False", alpaca()),
        ("PUT slewtoazimuth Azimuth=350.000000", alpaca()),
        ("GET slewing", alpaca(True)),
        ("GET shutterstatus", alpaca(1)),
        ("PUT openshutter", alpaca()),
        ("GET shutterstatus", alpaca(2)),
        ("PUT closeshutter", alpaca()),
        ("PUT abortslew", alpaca()),
        ("GET cansetazimuth", alpaca(False)),
    ]
    with far_end(*NAMED, *steps) as address:
        dome = dome_alpaca.connect(address, CLOCK, {})
        assert dome.azimuth_deg() == 12.5
        dome.go_to(-10.0)
        assert dome.is_moving()
        assert dome.shutter() == "closed"
        dome.open_shutter()
        assert dome.shutter() == "opening"
        dome.close_shutter()
        dome.stop()
        with pytest.raises(InstrumentFault, match="cannot be turned"):
            dome.go_to(1.0)


def test_a_dome_without_slaving_needs_none() -> None:
    steps = [
        ("GET cansetazimuth", alpaca(True)),
        ("GET slaved", alpaca(error=0x400, message="not implemented")),
        ("PUT slewtoazimuth Azimuth=1.000000", alpaca()),
    ]
    with far_end(*NAMED, *steps) as address:
        dome_alpaca.connect(address, CLOCK, {}).go_to(1.0)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (HttpReply(400, b"Axis is missing"), InstrumentFault, "Axis is missing"),
        (HttpReply(404, b"gone"), WireError, "HTTP 404"),
        (HttpReply(500, b"stack"), InstrumentFault, "HTTP 500"),
        (HttpReply(200, b"<html>"), WireError, "is not the JSON"),
        (HttpReply(200, b"[1]"), WireError, "not an ASCOM Alpaca answer"),
        (HttpReply(200, b'{"ClientTransactionID": 5, "Value": NaN}'), WireError, "is not the JSON"),
        (HttpReply(200, b'{"ClientTransactionID": 5, "Value": 1}'), WireError, "ErrorNumber None"),
        (HttpReply(200, b'{"Value": 1, "ErrorNumber": 0}'), WireError, "transaction None"),
    ],
)
def test_what_is_no_answer_is_said_in_words(reply, error, words) -> None:
    with pytest.raises(error, match=words):
        parse_answer(reply, 5)


def test_an_error_of_the_device_keeps_its_number() -> None:
    text = {"ClientTransactionID": 5, "ErrorNumber": 0x401, "ErrorMessage": "Azimuth out of range"}
    with pytest.raises(AlpacaFault, match=r"error 0x401\): Azimuth out of range") as caught:
        parse_answer(HttpReply(200, json.dumps(text).encode()), 5)
    assert caught.value.number == 0x401


def test_axis_rates_are_ranges() -> None:
    ranges = parse_axis_rates([{"Maximum": 6.0, "Minimum": 3}, {"Maximum": 1.0, "Minimum": 0.0}])
    assert ranges == (RateRange(0.0, 1.0), RateRange(3.0, 6.0))
    assert [allowed(rate, ranges) for rate in (0.0, -1.0, 2.0, 3.0, 6.1)] == [True, True, False, True, False]
    for wrong in (5, [5], [{"Maximum": 1.0}], [{"Maximum": 1.0, "Minimum": 2.0}], [{"Maximum": True, "Minimum": 0}]):
        with pytest.raises(WireError):
            parse_axis_rates(wrong)


@given(st.binary(max_size=60) | st.builds(lambda v: json.dumps(v).encode(), st.dictionaries(st.text(), st.integers())))
def test_arbitrary_answers_raise_only_our_errors(data) -> None:
    try:
        value = parse_answer(HttpReply(200, data), 5)
        for parse in (as_number, as_boolean, parse_shutter, parse_axis_rates):
            parse(value)
    except GroundStationError:
        pass
