"""The rotctld driver against what Hamlib 4.5.4's daemon with its dummy rotator answered, over a real socket."""

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Script, Wait, reply, serving

from drivers.mount_rotctld import Limits, connect, parse_position, parse_report, parse_state, parse_values, request
from groundstation.clock import SystemClock
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
STATE = (
    b"dump_state:\nrotctld Protocol Ver: 1\nRotor Model: 1\nMinimum Azimuth: -180.000000\nMaximum Azimuth: 450.000000\n"
    b"Minimum Elevation: 0.000000\nMaximum Elevation: 90.000000\nSouth Zero: 0\nrot_type=AzEl\ndone\nRPRT 0\n"
)
IDENTIFY = (
    Expect(b"+\\dump_state\n"),
    reply(STATE),
    Expect(b"+\\get_info\n"),
    reply(b"get_info:\nInfo: Dummy rotator\nRPRT 0\n"),
)
RESYNCHRONISE = (Expect(b"+\\dump_state\n"), reply(STATE))


def asks(position, *pieces):
    return (Expect(b"+\\get_pos\n"), reply(*(pieces or (answer(*position),)), pause_s=0.02))


def answer(azimuth, elevation):
    return b"get_pos:\nAzimuth: %.2f\nElevation: %.2f\nRPRT 0\n" % (azimuth, elevation)


def far_end(*scripts):
    """One script for each connection."""

    def talk(steps):
        def play(line):
            script = Script(list(steps))
            script.play(line)
            assert not script.failures, script.failures
            assert script.done == len(steps), f"unused: {steps[script.done :]}"

        return play

    return serving(*(talk(steps) for steps in scripts))


def connected(address, **settings):
    return connect(address, CLOCK, {"timeout_s": 0.4, **settings})


def test_a_rotator_goes_and_arrives_as_its_positions_tell() -> None:
    steps = (
        *IDENTIFY,
        *asks((350.0, 0.0)),
        Expect(b"+\\set_pos 370.00 20.00\n"),
        reply(b"set_pos: 370 20\nRPRT 0\n"),
        *asks((352.0, 2.0)),
        *asks((369.8, 19.9)),
        *asks((369.8, 19.9)),
        Expect(b"+\\stop\n"),
        reply(b"stop:\nRPRT 0\n"),
    )
    with far_end(steps) as address:
        mount = connected(address, rests_after_s=1e-9)
        assert mount.capabilities.follows == "positions"
        mount.go_to(10.0, 20.0)  # by the nearest turn that its limits allow
        assert mount.is_slewing()
        assert mount.is_slewing()  # near, but it may still be braking
        assert not mount.is_slewing()
        assert not mount.is_slewing()
        mount.stop()
        mount.close()


def test_a_rotator_that_rests_short_of_its_target_is_a_fault() -> None:
    steps = (*IDENTIFY, *asks((0, 0)), Expect(b"+\\set_pos 30.00 20.00\n"), reply(b"set_pos: 30 20\nRPRT 0\n"))
    with far_end((*steps, *asks((5.0, 5.0)), *asks((5.0, 5.01)))) as address:
        mount = connected(address, settling_s=1e-6)
        mount.go_to(30.0, 20.0)
        assert mount.is_slewing()
        with pytest.raises(InstrumentFault, match=r"rests at azimuth 5 deg, elevation 5\.01 deg, but was sent to 30"):
            mount.is_slewing()
        mount.close()


def test_a_split_answer_is_whole_and_its_time_is_between_question_and_answer() -> None:
    with far_end((*IDENTIFY, *asks(None, b"get_pos:\nAzi", b"muth: 1.50\nEleva", b"tion: 2.25\nRPRT 0\n"))) as address:
        mount = connected(address)
        before_ns = CLOCK.utc_ns()
        reading = mount.read_position()
        assert (reading.azimuth_deg, reading.elevation_deg) == (1.5, 2.25)
        assert before_ns <= reading.utc_ns - reading.uncertainty_s * 1e9
        assert reading.uncertainty_s >= 0.02
        mount.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    late = threading.Event()
    steps = (
        *IDENTIFY,
        Expect(b"+\\get_pos\n"),
        Wait(late),
        reply(answer(77.0, 7.0)),
        Expect(b"+\\dump_state\n"),
        reply(STATE),
        *asks((1.0, 2.0)),
    )
    with far_end(steps) as address:
        mount = connected(address)
        threading.Timer(0.6, late.set).start()
        assert mount.read_position().azimuth_deg == 1.0
        mount.close()


def test_a_position_is_not_commanded_twice_when_rotctld_is_silent() -> None:
    steps = (*IDENTIFY, *asks((0, 0)), Expect(b"+\\set_pos 30.00 20.00\n"))
    with far_end(steps) as address:
        mount = connected(address)
        with pytest.raises(TransportTimeout):
            mount.go_to(30.0, 20.0)
        mount.close()


def test_a_refusal_carries_hamlibs_reason() -> None:
    steps = (*IDENTIFY, Expect(b"+\\stop\n"), reply(b"stop:\nRPRT -6\n"))
    with far_end(steps) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match=r"refused stop: it cannot reach its rotator \(RPRT -6\)"):
            mount.stop()
        mount.close()


def test_a_lost_link_is_made_again_and_proves_that_it_is_the_same_rotator() -> None:
    first = (*IDENTIFY, HangUp())
    second = (*RESYNCHRONISE, *IDENTIFY, *asks((3.0, 4.0)))
    with far_end(first, second) as address:
        mount = connected(address)
        with pytest.raises(GroundStationError):
            mount.read_position()
        assert mount.read_position().elevation_deg == 4.0
        mount.close()


def test_outside_the_limits_nothing_is_sent() -> None:
    with far_end((*IDENTIFY, *asks((0.0, 0.0)))) as address:
        mount = connected(address)
        with pytest.raises(BadInput, match=r"limited to 0\.\.90"):
            mount.go_to(0.0, 91.0)
        with pytest.raises(InstrumentFault, match="no rates"):
            mount.set_rates(1.0, 0.0)
        assert mount.read_position().azimuth_deg == 0.0
        mount.close()


def test_another_rotator_than_expected_is_the_wrong_instrument() -> None:
    with far_end(IDENTIFY) as address, pytest.raises(WrongInstrument, match='set "expected_model" = 1'):
        connected(address, expected_model=202)


def test_a_turn_is_chosen_inside_the_limits() -> None:
    dummy = Limits((-180.0, 450.0))
    assert dummy.reach(350.0, 9.0) == -10.0
    assert dummy.reach(10.0, 350.0) == 370.0
    assert Limits((0.0, 180.0)).reach(270.0, 0.0) is None
    assert Limits().reach(-10.0, 0.0) == 350.0


def test_requests_and_answers_are_those_of_hamlib() -> None:
    assert request("set_pos", 120.5, 45.25) == b"+\\set_pos 120.50 45.25\n"
    assert parse_report(b"RPRT -11") == -11
    assert parse_report(b"Azimuth: 1") is None
    assert parse_position([b"get_pos:", b"Azimuth: 0.01", b"Elevation: 0.02"]) == (0.01, 0.02)
    model, limits = parse_state(STATE.splitlines()[:-1])
    assert (model, limits) == ("1", Limits((-180.0, 450.0), (0.0, 90.0)))
    assert parse_state([b"dump_state:", b"Rotor Model: 7"])[1] == Limits()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"set_pos: 1 2", b"Azimuth: 0.01", b"Elevation: 0.02"],
        [b"get_pos:", b"Azimuth: 0.01"],
        [b"get_pos:", b"Azimuth: nan", b"Elevation: 0.02"],
        [b"get_pos:", b"Azimuth: 1e3", b"Elevation: 0.02"],
        [b"get_pos:", b"Azimuth: 9999.0", b"Elevation: 0.02"],
    ],
)
def test_what_is_no_position_is_a_wire_error(lines) -> None:
    with pytest.raises(WireError):
        parse_position(lines)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_arbitrary_lines_raise_only_our_errors(lines) -> None:
    for parse in (parse_position, parse_state, lambda found: parse_values("get_info", found)):
        with contextlib.suppress(WireError):
            parse(lines)
    assert all(parse_report(line) is None or line.startswith(b"RPRT") for line in lines)
