"""The 10Micron driver against the vendor's text as INDI quotes it, MountWizzard4's replies, mikefsq/lx200's tests."""

import contextlib
import math
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from faulty_proxy import FaultyProxy, eventually, simulator
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, Step, reply, scripted_pty

from drivers.mount_10micron import TenMicronMount, connect
from drivers.tenmicron import (
    element_set,
    julian_date,
    offset_command,
    parse_accepted,
    parse_info,
    parse_julian_date,
    parse_pass,
    reply_class,
    resampled,
    target_azimuth,
    target_elevation,
)
from groundstation.clock import SimulatedClock, SystemClock, monotonic_ns
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument

CLOCK = SystemClock()
SECOND_NS = 1_000_000_000
IDENTIFY: tuple[Step, ...] = (
    Expect(b":U2#:GVP#"),
    reply(b"10micron AZ2000 HPS#"),
    Expect(b":GVN#"),
    reply(b"3.1.4#"),
)
STOPPED = "19.44591,+88.0032,W,002.9803,+48.0032,2458352.10403639,1,0"


def connected(address: str, **settings: object) -> TenMicronMount:
    mount = connect(address, CLOCK, {"timeout_s": 1.0, **settings})
    assert isinstance(mount, TenMicronMount)
    return mount


def info(state: int, slewing: int = 0, direction: str = "002.9803,+48.0032", date: str = "2458352.10403639") -> Step:
    return reply(f"19.44591,+88.0032,W,{direction},{date},{state},{slewing}#".encode())


# --- The protocol, against published vectors


def test_julian_dates_are_those_that_the_vendor_gives_around_the_leap_second_of_2015() -> None:
    """Quoted in the vendor's text on :GJD2#."""
    for text, date in (
        ("2015-06-30T23:59:59", "2457204.49998843"),
        ("2015-06-30T23:59:59.500", "2457204.49999421"),
        ("2015-07-01T00:00:00", "2457204.50000000"),
        ("2015-07-01T00:00:00.500", "2457204.50000579"),
    ):
        utc_ns = round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) * 1_000_000
        assert julian_date(utc_ns) == date
        assert abs(parse_julian_date(date)[0] - utc_ns) <= 432_000
    assert parse_julian_date("2457204.50000579L")[1]


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_julian_date_is_the_nearest_of_its_grid(utc_ns: int) -> None:
    exact = Decimal(utc_ns) / (86_400 * SECOND_NS) + Decimal("2440587.5")
    assert abs(Decimal(julian_date(utc_ns)) - exact) <= Decimal("5e-9")
    back_ns, leap = parse_julian_date(julian_date(utc_ns))
    assert abs(back_ns - utc_ns) <= 432_000
    assert julian_date(back_ns) == julian_date(utc_ns)
    assert not leap


def test_commands_are_answered_by_nothing_one_character_or_text_as_mountwizzard4_lists_them() -> None:
    for command in ("U2", "STOP", "PO", "hP", "Q", "RT9", "Suaf0", "RC2"):
        assert reply_class(command) == "none"
    for command in ("Sa+45*00:00.0", "Sz120*00:00.0", "MA", "MS", "MSap", "Guaf", "SRTMP+010.0", "GTsid"):
        assert reply_class(command) == "character"
    for command in ("Ginfo", "GVP", "TLES", "TLESCK", "TRNEW2459580.50000000", "TRADD1.0,2.0", "TRP", "TROFFCLR"):
        assert reply_class(command) == "text"


def test_the_status_is_read_by_position_and_may_have_more_fields() -> None:
    for text in (STOPPED, STOPPED + ",7,anything"):
        found = parse_info(text)
        assert (found.azimuth_deg, found.elevation_deg) == (2.9803, 48.0032)
        assert found.utc_ns == parse_julian_date("2458352.10403639")[0]
        assert (found.state, found.slewing) == (1, False)


def test_a_status_that_lost_or_doubled_a_byte_of_its_direction_is_no_other_direction() -> None:
    first, last = STOPPED.index(",W,") + 3, STOPPED.index(",2458352") + 17
    for at in range(first, last):
        for spoiled in (STOPPED[:at] + STOPPED[at + 1 :], STOPPED[: at + 1] + STOPPED[at:]):
            with pytest.raises(WireError):
                parse_info(spoiled)


def test_targets_are_written_in_degrees_minutes_and_seconds() -> None:
    assert target_elevation(45.5) == "Sa+45*30:00.0"
    assert target_elevation(-0.25) == "Sa-00*15:00.0"
    assert target_elevation(89.999_999) == "Sa+90*00:00.0"
    assert target_azimuth(120.123_4) == "Sz120*07:24.2"
    assert target_azimuth(-0.000_001) == "Sz000*00:00.0"


def test_an_element_set_is_escaped_as_the_vendor_says() -> None:
    line1 = "1 23455U 94089A   97320.90946019  .00000140  00000-0  10191-3 0  2621"
    line2 = "2 23455  99.0090 272.6745 0008546 223.1686 136.8816 14.11711747148495"
    assert element_set("NOAA 14", line1, line2) == f"TLEL0NOAA 14$0a{line1}$0a{line2}"
    assert element_set("A#$", line1, line2).startswith("TLEL0A$23$24$0a1 23455U")
    for broken in ((line1[:-1], line2), (line2, line1), (line1, line2[:-1] + "é")):
        with pytest.raises(BadInput, match="element set"):
            element_set("NOAA 14", *broken)


def test_offsets_are_written_as_in_the_go_clients_tests() -> None:
    assert offset_command(2, -300.5) == "TROFFSET2,-0300.5"
    assert offset_command(1, 5.0) == "TROFFSET1,+0005.0"


def test_a_pass_is_two_dates_and_a_flag() -> None:
    found = parse_pass("2459580.60000000,2459580.61000000,F")
    assert found.flips
    assert found.end_utc_ns - found.start_utc_ns == 864 * SECOND_NS
    for text in ("E", "N"):
        with pytest.raises(InstrumentFault, match="no pass"):
            parse_pass(text)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_one_of_our_errors(text: str) -> None:
    for parse in (parse_info, parse_pass, parse_julian_date, parse_accepted):
        with contextlib.suppress(GroundStationError):
            parse(text)


def test_a_path_is_put_on_the_mounts_grid_of_seconds() -> None:
    times = 1_482_166_000_123_456_789 + np.arange(0, 60) * 700_000_000
    seconds = (times - times[0]) / 1e9
    start_ns, points = resampled(times, 350.0 + 0.5 * seconds, 20.0 + 0.1 * seconds)
    assert parse_julian_date(julian_date(start_ns))[0] == start_ns  # nothing is lost on the wire
    assert 0 <= start_ns - times[0] < 864_000
    assert len(points) == 42
    late_s = (start_ns - times[0]) / 1e9
    for k, point in enumerate(points):
        azimuth, elevation = (float(angle) for angle in point.split(","))
        assert math.remainder(azimuth - 350.0 - 0.5 * (k + late_s), 360.0) == pytest.approx(0.0, abs=6e-6)
        assert elevation == pytest.approx(20.0 + 0.1 * (k + late_s), abs=6e-6)


@pytest.mark.parametrize("seconds", [[0], [0, 0], [1, 0], [0, 0.5], [0, 901]])
def test_a_path_that_the_mount_cannot_take_is_bad_input(seconds: list[float]) -> None:
    times = np.array([round(s * 1e9) for s in seconds], dtype=np.int64)
    with pytest.raises(BadInput):
        resampled(times, np.zeros(len(times)), np.zeros(len(times)))


# --- The driver, against transcripts


def test_connecting_asks_for_product_and_firmware() -> None:
    with scripted_pty(*IDENTIFY) as address:
        mount = connected(address)
        assert mount.capabilities.follows == "trajectory"
        mount.close()


def test_another_lx200_mount_is_the_wrong_instrument() -> None:
    steps = (Expect(b":U2#:GVP#"), reply(b"LX200 Classic#"), Expect(b":GVN#"), reply(b"4.2g#"))
    with scripted_pty(*steps) as address, pytest.raises(WrongInstrument, match="10micron"):
        connected(address)


def test_old_firmware_is_refused_in_words() -> None:
    steps = (*IDENTIFY[:3], reply(b"2.13.8#"))
    with scripted_pty(*steps) as address, pytest.raises(InstrumentFault, match=r"2\.14\.9.*2\.13\.8"):
        connected(address)


def test_a_position_is_timed_by_the_link() -> None:
    with scripted_pty(*IDENTIFY, Expect(b":Ginfo#"), info(7)) as address:
        mount = connected(address)
        before = CLOCK.utc_ns()
        reading = mount.read_position()
        assert before <= reading.utc_ns <= CLOCK.utc_ns()
        assert 0.0 < reading.uncertainty_s < 1.0
        assert (reading.azimuth_deg, reading.elevation_deg) == (2.9803, 48.0032)
        mount.close()


def test_a_disciplined_clock_gives_the_time_to_one_digit_more_than_it_is_known() -> None:
    clock = SimulatedClock(parse_julian_date("2458352.10403639")[0], monotonic_ns(), 1e-6)
    ahead = info(7, date="2458352.10404639")
    with scripted_pty(*IDENTIFY, Expect(b":Ginfo#"), info(7), Expect(b":Ginfo#"), ahead) as address:
        mount = connect(address, clock, {"timeout_s": 1.0, "clock_uncertainty_s": 0.001})
        reading = mount.read_position()
        assert reading.utc_ns == clock.t0_utc_ns
        assert reading.uncertainty_s == pytest.approx(0.001864)
        with pytest.raises(InstrumentFault, match=r"clock is 0\.864 s ahead"):
            mount.read_position()
        mount.close()


def test_a_go_to_sets_both_angles_slews_and_sees_it_begin() -> None:
    steps = (
        *(Expect(b":Ginfo#"), info(5), Expect(b":PO#:Sa+45*00:00.0#"), reply(b"1")),
        *(Expect(b":Sz120*00:00.0#"), reply(b"1"), Expect(b":MA#"), reply(b"0"), Expect(b":Ginfo#"), info(6, 1)),
        *(Expect(b":Ginfo#"), info(6, 1)),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address)
        mount.go_to(120.0, 45.0)
        assert mount.is_slewing()
        mount.close()


def test_a_refused_slew_is_told_in_the_mounts_words() -> None:
    steps = (
        *(
            Expect(b":Ginfo#"),
            info(7),
            Expect(b":Sa-45*00:00.0#"),
            reply(b"1"),
            Expect(b":Sz120*00:00.0#"),
            reply(b"1"),
        ),
        *(Expect(b":MA#"), reply(b"1Object Below", b" Horizon #", pause_s=0.02)),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match=r"Object Below Horizon$"):
            mount.go_to(120.0, -45.0)
        mount.close()


@pytest.mark.parametrize(("state", "words"), [(8, "too cold"), (11, "user's OK"), (99, "error")])
def test_a_mount_that_cannot_move_says_why(state: int, words: str) -> None:
    with scripted_pty(*IDENTIFY, Expect(b":Ginfo#"), info(state)) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match=words):
            mount.go_to(120.0, 45.0)
        mount.close()


@pytest.mark.parametrize("moving", [(), (10,), (2, 6), (6, 6, 6)])
def test_stopping_goes_on_until_the_mount_says_that_it_stands(moving: tuple[int, ...]) -> None:
    steps = [step for state in (*moving, 1) for step in (Expect(b":STOP#:Ginfo#"), info(state))]
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address)
        mount.stop()
        mount.close()


class LosesFirstStop(FaultyProxy):
    """The first `:STOP#` does not arrive."""

    lost = 0

    def _pass_on(self, sink: socket.socket, data: bytes, to_client: bool) -> None:
        if not to_client and not self.lost and b":STOP#" in data:
            self.lost, data = 1, data.replace(b":STOP#", b"", 1)
        super()._pass_on(sink, data, to_client)


@pytest.fixture
def fast() -> SimulatedClock:
    """Ten times the wall."""
    return SimulatedClock(parse_julian_date("2458352.10403639")[0], time.monotonic_ns(), 10.0)


@contextlib.contextmanager
def slewing(clock: SimulatedClock, address: str, then: str) -> Iterator[TenMicronMount]:
    """A mount on its long way to a direction, or back to its park position."""
    mount = connect(address, clock, {"timeout_s": 0.5})
    assert isinstance(mount, TenMicronMount)
    with contextlib.closing(mount):
        mount.go_to(170.0, 80.0)
        eventually(lambda: mount.read_position().azimuth_deg > 60.0)
        if then == "park":
            mount.park()
            eventually(lambda: mount.read_position().azimuth_deg < 55.0)
        yield mount


def assert_stands(mount: TenMicronMount) -> None:
    first = mount.read_position()
    time.sleep(0.2)
    second = mount.read_position()
    assert (first.azimuth_deg, first.elevation_deg) == pytest.approx(
        (second.azimuth_deg, second.elevation_deg), abs=0.001
    )
    assert not mount.is_slewing()


@pytest.mark.parametrize("then", ["go on", "park"])
def test_a_stop_that_is_lost_on_the_way_is_repeated_until_the_mount_stands(fast: SimulatedClock, then: str) -> None:
    with simulator("mount_10micron", "--clock", fast.text()) as target:
        proxy = LosesFirstStop(target)
        with contextlib.closing(proxy), slewing(fast, proxy.address, then) as mount:
            mount.stop()
            assert_stands(mount)
            assert proxy.lost


def test_a_stop_during_a_slew_returns_when_the_mount_stands(fast: SimulatedClock) -> None:
    with simulator("mount_10micron", "--clock", fast.text()) as address, slewing(fast, address, "go on") as mount:
        mount.stop()
        assert_stands(mount)


def test_a_mount_that_does_not_obey_the_stop_is_a_fault_within_the_time_that_it_may_brake(fast: SimulatedClock) -> None:
    deaf = ("--clock", fast.text(), "--faults", '{"special": ["deaf_to_stop"]}')
    with simulator("mount_10micron", *deaf) as address, slewing(fast, address, "go on") as mount:
        began_ns = fast.utc_ns()
        with pytest.raises(InstrumentFault, match=r"^the mount was told to stop and is still slewing.*stop key$"):
            mount.stop()
        braking_s, timeout_s = 2 * 12.0 / 5.0, 0.5 * fast.speed
        assert braking_s + timeout_s <= (fast.utc_ns() - began_ns) / SECOND_NS < braking_s + timeout_s + 5.0


def test_rates_are_refused_with_the_reason() -> None:
    with scripted_pty(*IDENTIFY) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match="trajectory of its own"):
            mount.set_rates(1.0, 1.0)
        mount.close()


def test_a_trajectory_is_sent_point_by_point_and_every_reply_counts() -> None:
    start_ns = parse_julian_date("2459580.50000000")[0]
    times = start_ns + np.arange(3) * SECOND_NS
    points = b":TRADD180.00000,30.00000#:TRADD181.00000,30.50000#:TRADD182.00000,31.00000#"
    begin = (Expect(b":TRNEW2459580.50000000#"), reply(b"V#"), Expect(points))
    good = (reply(b"1#2", b"#3#", pause_s=0.01), Expect(b":TRP#"), reply(b"2459580.50000000,2459580.50002315,#"))
    with scripted_pty(*IDENTIFY, *begin, *good, *begin, reply(b"1#E#3#")) as address:
        mount = connected(address)
        path = (times, np.array([180.0, 181.0, 182.0]), np.array([30.0, 30.5, 31.0]))
        mount.load_trajectory(*path)
        with pytest.raises(InstrumentFault, match=r"point 2 of 3: 181\.00000,30\.50000"):
            mount.load_trajectory(*path)
        mount.close()


def test_a_lost_point_begins_the_trajectory_anew() -> None:
    times = parse_julian_date("2459580.50000000")[0] + np.arange(2) * SECOND_NS
    begin = (
        Expect(b":TRNEW2459580.50000000#"),
        reply(b"V#"),
        Expect(b":TRADD1.00000,30.00000#:TRADD2.00000,30.00000#"),
    )
    steps = (*begin, reply(b"1#1#"), Expect(b":U2#:GVP#"), IDENTIFY[1], *begin, reply(b"1#2#"))
    end = (Expect(b":TRP#"), reply(b"2459580.50000000,2459580.50001157,#"))
    with scripted_pty(*IDENTIFY, *steps, *end) as address:
        mount = connected(address)
        mount.load_trajectory(times, np.array([1.0, 2.0]), np.array([30.0, 30.0]))
        mount.close()


def test_an_element_set_is_loaded_predicted_and_followed() -> None:
    line1 = "1 23455U 94089A   97320.90946019  .00000140  00000-0  10191-3 0  2621"
    line2 = "2 23455  99.0090 272.6745 0008546 223.1686 136.8816 14.11711747148495"
    clock = SimulatedClock(parse_julian_date("2458352.10403639")[0], monotonic_ns(), 1e-6)
    steps = (
        *(Expect(f":TLEL0NOAA 14$0a{line1}$0a{line2}#".encode()), reply(b"V#"), Expect(b":Ginfo#"), info(7)),
        *(Expect(b":TLEP2458352.10403639,60#"), reply(b"2458352.11000000,2458352.12000000,#")),
        *(Expect(b":TLES#"), reply(b"V#"), Expect(b":TLESCK#"), reply(b"V#"), Expect(b":TLESCK#"), reply(b"T#")),
        *(Expect(b":TROFFSET4,-0250.0#"), reply(b"V#"), Expect(b":TROFFSET1,+0010.0#"), reply(b"V#")),
        *(Expect(b":TROFFSET2,-0020.5#"), reply(b"V#"), Expect(b":TROFFCLR#"), reply(b"E#")),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connect(address, clock, {"timeout_s": 1.0})
        assert isinstance(mount, TenMicronMount)
        mount.load_elements("NOAA 14", line1, line2)
        mount.start_trajectory()
        assert mount.following()
        mount.set_time_offset_s(-0.25)
        mount.set_axis_offsets_arcsec(10.0, -20.5)
        with pytest.raises(InstrumentFault, match="only while it follows"):
            mount.clear_offsets()
        for offset_s in (1.1, -1.1, math.nan):
            with pytest.raises(BadInput, match="beyond"):
                mount.set_time_offset_s(offset_s)
        mount.close()


def test_a_mount_whose_axes_are_no_azimuth_and_elevation_takes_no_offsets_in_them() -> None:
    steps = (Expect(b":U2#:GVP#"), reply(b"10micron GM2000 HPS#"), *IDENTIFY[2:])
    with scripted_pty(*steps) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match="axes_are_azimuth_elevation"):
            mount.set_axis_offsets_arcsec(1.0, 1.0)
        mount.close()


def test_after_a_late_answer_the_mount_is_asked_who_it_is_before_anything_else() -> None:
    steps = (Expect(b":Ginfo#"), Expect(b":U2#:GVP#"), reply(STOPPED.encode() + b"#10micron AZ2000 HPS#"))
    with scripted_pty(*IDENTIFY, *steps, Expect(b":Ginfo#"), info(7, direction="120.0000,-01.5000")) as address:
        mount = connected(address, timeout_s=0.3)
        reading = mount.read_position()
        assert (reading.azimuth_deg, reading.elevation_deg) == (120.0, -1.5)
        mount.close()
