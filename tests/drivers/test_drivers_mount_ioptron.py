"""The iOptron driver against the vendor's command language 3.10 and the replies that work with INDI's driver."""

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, Step, Wait, reply, scripted_pty

from drivers.mount_ioptron import (
    IoptronMount,
    connect,
    parse_done,
    parse_firmware,
    parse_limit,
    parse_model,
    parse_position,
    parse_system_status,
    parse_time,
    set_time,
    target_altitude,
    target_azimuth,
)
from groundstation.clock import SystemClock, parse_utc
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument

CLOCK = SystemClock()
IDENTIFY: tuple[Step, ...] = (
    Expect(b":MountInfo#"),
    reply(b"5035"),
    Expect(b":FW1#"),
    reply(b"210105210105#"),
)


def connected(address: str, **settings: object) -> IoptronMount:
    mount = connect(address, CLOCK, {"timeout_s": 1.0, **settings})
    assert isinstance(mount, IoptronMount)
    return mount


def status(system: int) -> Step:
    return reply(b"+05893200497519992%d0521#" % system)


# --- The protocol


def test_angles_travel_in_hundredths_of_an_arcsecond() -> None:
    assert target_altitude(45.0) == ":Sa+16200000#"
    assert target_altitude(-0.5) == ":Sa-00180000#"
    assert target_azimuth(120.5, 0.0) == ":Sz043380000#"
    assert parse_position(b"+16200000043380000#") == (120.5, 45.0)
    assert parse_position(b"-32400000129600000#") == (0.0, -90.0)


def test_azimuth_0_is_never_sent_for_some_firmware_runs_away_there() -> None:
    assert target_azimuth(0.0, 10.0) == target_azimuth(360.0, 180.0) == ":Sz000000001#"
    assert target_azimuth(0.0, 350.0) == target_azimuth(-1e-9, 180.1) == ":Sz129599999#"


def test_time_is_milliseconds_since_noon_of_2000() -> None:
    utc_ns = parse_utc("2000-01-02T12:00:00.001Z")
    assert set_time(utc_ns) == ":SUT0000086400001#"
    assert parse_time(b"+48000000086400001#") == utc_ns


def test_the_status_is_the_18th_digit_of_the_reply_that_works_with_indi() -> None:
    assert parse_system_status(b"+0589320049751999210521#") == 1


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_one_of_our_errors(data: bytes) -> None:
    for parse in (
        parse_model,
        parse_system_status,
        parse_position,
        parse_time,
        parse_firmware,
        parse_limit,
        parse_done,
    ):
        with contextlib.suppress(GroundStationError):
            parse(data)


@given(st.integers(-32_400_000, 32_400_000), st.integers(0, 129_599_999), st.integers(0, 18))
def test_a_position_that_lost_or_doubled_a_byte_is_no_other_position(altitude: int, azimuth: int, at: int) -> None:
    text = b"%+09d%09d#" % (altitude, azimuth)
    assert parse_position(text) == (azimuth / 360_000, altitude / 360_000)
    for spoiled in (text[:at] + text[at + 1 :], text[: at + 1] + text[at:]):
        if spoiled.count(b"#") == 1:
            with pytest.raises(WireError):
                parse_position(spoiled)


# --- The driver


def test_connecting_asks_for_model_and_firmware() -> None:
    with scripted_pty(*IDENTIFY) as address:
        mount = connected(address)
        assert mount.capabilities.follows == "nothing"
        with pytest.raises(InstrumentFault, match="fixed speeds"):
            mount.set_rates(1.0, 1.0)
        mount.close()


def test_a_doubled_byte_makes_no_other_model() -> None:
    steps = (Expect(b":MountInfo#"), reply(b"50355"), Expect(b":MountInfo#"), reply(b"5035"))  # in step, then again
    with scripted_pty(*steps, *IDENTIFY) as address:
        connected(address).close()


def test_another_model_than_the_one_meant_is_the_wrong_instrument() -> None:
    with scripted_pty(*IDENTIFY) as address, pytest.raises(WrongInstrument, match=r"5035.*expected 0120"):
        connected(address, expected_model="0120")


def test_an_equatorial_mount_is_refused_unless_it_is_named() -> None:
    steps = (Expect(b":MountInfo#"), reply(b"0120"), *IDENTIFY[2:])
    with scripted_pty(*steps) as address, pytest.raises(WrongInstrument, match="expected_model"):
        connected(address)
    with scripted_pty(*steps) as address:
        connected(address, expected_model="0120").close()


def test_settings_are_read_back_when_connecting() -> None:
    steps = (Expect(b":SAL-01#"), reply(b"1"), Expect(b":GAL#"), reply(b"+00#"))
    with scripted_pty(*IDENTIFY, *steps) as address, pytest.raises(InstrumentFault, match="reads back 0 deg"):
        connected(address, altitude_limit_deg=-1)


def test_a_go_to_unparks_and_slews_to_altitude_and_azimuth() -> None:
    steps = (
        *(Expect(b":GLS#"), status(6), Expect(b":MP0#"), reply(b"1")),
        *(Expect(b":GAC#"), reply(b"+00000000072000000#"), Expect(b":Sa+16200000#"), reply(b"1")),
        *(Expect(b":Sz129599999#"), reply(b"1"), Expect(b":MSS#"), reply(b"1"), Expect(b":GLS#"), status(2)),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address)
        mount.go_to(0.0, 45.0)
        assert mount.is_slewing()
        mount.close()


def test_a_refused_slew_names_the_altitude_limit() -> None:
    steps = (
        *(Expect(b":GLS#"), status(0), Expect(b":GAC#"), reply(b"+00000000036000000#")),
        *(Expect(b":Sa-01800000#"), reply(b"1"), Expect(b":Sz036000000#"), reply(b"1"), Expect(b":MSS#"), reply(b"0")),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match="altitude limit"):
            mount.go_to(100.0, -5.0)
        with pytest.raises(BadInput):
            mount.go_to(100.0, 91.0)
        mount.close()


def test_stopping_ends_slew_arrows_and_tracking_and_sees_the_mount_at_rest() -> None:
    steps = [step for c in (b":Q#", b":qR#", b":qD#", b":ST0#") for step in (Expect(c), reply(b"1"))]
    with scripted_pty(*IDENTIFY, *steps, Expect(b":GLS#"), status(2), Expect(b":GLS#"), status(0)) as address:
        mount = connected(address)
        mount.stop()
        mount.close()


def test_an_arrow_has_no_answer() -> None:
    with scripted_pty(*IDENTIFY, Expect(b":SR5#"), reply(b"1"), Expect(b":mn#")) as address:
        mount = connected(address)
        mount.move("n", 5)
        with pytest.raises(BadInput):
            mount.move("n", 10)
        mount.close()


def test_a_position_is_timed_within_the_exchange() -> None:
    with scripted_pty(*IDENTIFY, Expect(b":GAC#"), reply(b"+16200000", b"043380000#", pause_s=0.01)) as address:
        mount = connected(address)
        before = CLOCK.utc_ns()
        reading = mount.read_position()
        assert (reading.azimuth_deg, reading.elevation_deg) == (120.5, 45.0)
        half_ns = reading.uncertainty_s * 1e9
        assert before <= reading.utc_ns - half_ns <= reading.utc_ns + half_ns <= CLOCK.utc_ns()
        mount.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    late = threading.Event()
    steps = (
        *(Expect(b":GAC#"), Expect(b":MountInfo#"), Wait(late), reply(b"+16200000043380000#5035")),
        *(Expect(b":GAC#"), reply(b"+00000000000000000#")),
    )
    with scripted_pty(*IDENTIFY, *steps) as address:
        mount = connected(address, timeout_s=0.5)
        threading.Timer(0.55, late.set).start()
        assert mount.read_position().azimuth_deg == 0.0
        mount.close()
