"""The EasyComm II driver against the published specification and public logs of controllers, over a real pty.

`AZ-184.5 EL-180.0` and `VESatNOGS-v2.2` with a line `RPRT 0` behind it are what SatNOGS controllers sent.
"""

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Wait, reply, scripted_pty

from drivers.mount_easycomm import connect, go_to, parse_position, parse_version
from groundstation.clock import SystemClock
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
VERSION = (Expect(b"VE\n"), reply(b"VESatNOGS-v2.2\n RPRT 0\n"))


def asks(*pieces):
    return (Expect(b"AZ EL\n"), reply(*pieces, pause_s=0.02))


IDENTIFY = (*VERSION, *asks(b"AZ0.0 EL0.0\n"))


def connected(address, **settings):
    return connect(address, CLOCK, {"timeout_s": 0.4, **settings})


def test_it_goes_and_arrives_as_its_positions_tell_and_whatever_answers_a_command_is_passed_over() -> None:
    steps = (
        *IDENTIFY,
        Expect(b"AZ350.0 EL20.2\n"),
        Expect(b"VE\n"),
        reply(b"AZ0.0 EL0.0\n", b"VESatNOGS-v2.2\n RPRT 0\n"),  # this firmware answers a command, too
        *asks(b"AZ-8.0 EL18.0\n"),
        *asks(b"AZ-10.0 EL20.1\n"),
        *asks(b"AZ-10.0 EL20.2\n"),
        Expect(b"SA SE\n"),
        *VERSION,
        *asks(b"AZ-10.0 EL20.2\n"),
    )
    with scripted_pty(*steps) as address:
        mount = connected(address, rests_after_s=1e-9)
        assert mount.capabilities.follows == "positions"
        mount.go_to(-10.0, 20.2)
        assert mount.is_slewing()
        assert mount.is_slewing()  # near, but still moving
        assert not mount.is_slewing()
        assert not mount.is_slewing()
        mount.stop()
        mount.close()


@pytest.mark.parametrize(
    "pieces", [(b"AZ-184.5 EL12.3\n",), (b"AZ-18", b"4.5 EL1", b"2.3 \r\n"), (b"AZ-184.5\n", b"EL12.3\n")]
)
def test_a_position_is_understood_in_all_its_forms(pieces) -> None:
    with scripted_pty(*IDENTIFY, *asks(*pieces)) as address:
        mount = connected(address)
        before_ns = CLOCK.utc_ns()
        reading = mount.read_position()
        assert (reading.azimuth_deg, reading.elevation_deg) == (175.5, 12.3)
        assert before_ns <= reading.utc_ns - reading.uncertainty_s * 1e9
        mount.close()


def test_an_echo_is_no_answer() -> None:
    steps = (Expect(b"VE\n"), reply(b"VE\nVE2\n"), Expect(b"AZ EL\n"), reply(b"AZ EL\nAZ1.0 EL2.0\n"))
    with scripted_pty(*steps) as address:
        mount = connected(address)
        mount.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    late = threading.Event()
    steps = (*IDENTIFY, Expect(b"AZ EL\n"), Wait(late), reply(b"AZ77.0 EL7.0\n"), *VERSION, *asks(b"AZ1.0 EL2.0\n"))
    with scripted_pty(*steps) as address:
        mount = connected(address)
        threading.Timer(0.6, late.set).start()
        assert mount.read_position().azimuth_deg == 1.0
        mount.close()


def test_an_alarm_is_told_once_and_nothing_is_out_of_step_after_it() -> None:
    steps = (*IDENTIFY, *asks(b"ALmotor hot\nAZ9.0 EL9.0\n"), *VERSION, *asks(b"AZ1.0 EL2.0\n"))
    with scripted_pty(*steps) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match="raises an alarm: b'motor hot'"):
            mount.read_position()
        assert mount.read_position().azimuth_deg == 1.0
        mount.close()


def test_a_rotator_that_rests_short_of_its_target_is_a_fault() -> None:
    moves = (Expect(b"AZ30.0 EL20.0\n"), *VERSION, *asks(b"AZ5.0 EL5.0\n"), *asks(b"AZ5.1 EL5.0\n"))
    with scripted_pty(*IDENTIFY, *moves) as address:
        mount = connected(address, rests_after_s=1e-9)
        mount.go_to(30.0, 20.0)
        assert mount.is_slewing()
        with pytest.raises(InstrumentFault, match=r"rests at azimuth 5\.1 deg, elevation 5 deg, but was sent to 30"):
            mount.is_slewing()
        mount.close()


def test_what_it_cannot_do_is_refused_before_anything_is_sent() -> None:
    with scripted_pty(*IDENTIFY) as address:
        mount = connected(address, elevation_deg=[0.0, 60.0])
        for place in ((0.0, -1.0), (0.0, 61.0), (float("nan"), 45.0), (0.0, float("nan"))):
            with pytest.raises(BadInput, match=r"elevation is limited to 0\.\.60"):
                mount.go_to(*place)
        with pytest.raises(InstrumentFault, match="no rates"):
            mount.set_rates(1.0, 1.0)
        mount.close()


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ((Expect(b"VE\n"), Expect(b"VE\n")), TransportTimeout),
        ((*VERSION, *asks(b"AZ=070EL=000\n"), *VERSION, *asks(b"AZ=070EL=000\n")), WrongInstrument),
        ((Expect(b"VE\n"), HangUp()), TransportLost),
    ],
)
def test_what_is_no_easycomm_rotator_is_not_connected_to(steps, error) -> None:
    with scripted_pty(*steps) as address, pytest.raises(error):
        connected(address)


def test_another_version_later_is_another_rotator() -> None:
    with scripted_pty(*IDENTIFY, Expect(b"VE\n"), reply(b"VEother\n"), *asks(b"AZ0.0 EL0.0\n")) as address:
        mount = connected(address)
        with pytest.raises(WrongInstrument, match=r'now answers as version "other", it was "SatNOGS-v2\.2"'):
            mount.identify()
        mount.close()


@given(st.floats(0.0, 359.9), st.floats(-90.0, 90.0))
def test_a_command_reads_back_as_the_place_to_a_tenth_of_a_degree(azimuth, elevation) -> None:
    assert parse_position(go_to(azimuth, elevation)) == pytest.approx((azimuth, elevation), abs=0.0501)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_value_or_an_error_of_the_wire(data) -> None:
    for parse in (parse_position, parse_version):
        with contextlib.suppress(WireError):
            parse(data)
