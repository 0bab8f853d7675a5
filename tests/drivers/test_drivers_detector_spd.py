"""The SPD driver against the command table of the vendor's client, on a pseudo-terminal."""

import contextlib
import threading
import time

import pytest
from faulty_proxy import eventually, simulator
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Reply, SocketLine, Step, Wait, reply, scripted_pty, serving

from drivers.detector_spd import command, connect, parse_counts, parse_identity, parse_number, parse_switch
from groundstation.clock import SimulatedClock, SystemClock
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
IDENTITY = b"S-Fifteen Instruments,SPD,1234,2.1\r\n"
IDENTIFY: tuple[Step, ...] = (Expect(b"*IDN?\r\n"), reply(IDENTITY))


def test_commands_are_those_of_the_vendors_client() -> None:
    assert command("hvolt", 210.5) == b"hvolt 210.5\r\n"
    assert command("threshvolt", -0.025) == b"threshvolt -0.025\r\n"
    assert command("time", 100.0) == b"time 100\r\n"
    assert command("settemp", 1e-5) == b"settemp 0.00001\r\n"


@given(st.binary(max_size=30))
def test_any_line_is_understood_or_refused_as_a_wire_error(line: bytes) -> None:
    for parse in (parse_identity, parse_number, parse_switch, parse_counts):
        with contextlib.suppress(WireError):
            parse(line)


def test_identity_bias_threshold_temperature_and_counts() -> None:
    with scripted_pty(
        *IDENTIFY,
        *IDENTIFY,
        Expect(b"hvolt?\r\n"),
        reply(b"208.", b"91\r\n", pause_s=0.02),
        Expect(b"hvolt?\r\n"),
        reply(b"208.91\r\n"),
        Expect(b"threshvolt?\r\n"),
        reply(b"0.11\r\n"),  # a digit too many
        Expect(b"threshvolt?\r\n"),
        reply(b"0.1\r\n"),
        Expect(b"threshvolt?\r\n"),
        reply(b"0.1\r\n"),
        Expect(b"temp?\r\n"),
        reply(b"-19.97\r\n"),
        Expect(b"settemp?\r\n"),
        reply(b"20\r\n"),
        Expect(b"settemp?\r\n"),
        reply(b"-20\r\n"),
        Expect(b"settemp?\r\n"),
        reply(b"-20\r\n"),
        Expect(b"time 100\r\ntime?\r\n"),
        reply(b"100\r\n"),
        Expect(b"counts?\r\n"),
        reply(b"4711\r\n"),
    ) as address:
        detector = connect(address, CLOCK, {})
        identity = detector.identify()
        assert (identity.model, identity.serial, identity.firmware) == ("S-Fifteen Instruments SPD", "1234", "2.1")
        assert detector.bias_v() == 208.91
        assert detector.threshold_v() == 0.1
        assert detector.temperature_c() == -19.97
        assert detector.temperature_setpoint_c() == -20.0
        assert detector.counts(0.1) == 4711
        detector.close()
        detector.close()


def test_a_setting_is_read_back_until_it_is_reached() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"hvolt 210\r\nhvolt?\r\n"),
        reply(b"150.0\r\n"),
        Expect(b"hvolt?\r\n"),
        reply(b"209.9\r\n"),
    ) as address:
        detector = connect(address, CLOCK, {})
        detector.set_bias_v(210.0)
        detector.close()


def test_a_setting_that_does_not_read_back_is_a_fault_that_names_both_values() -> None:
    def keep_the_threshold(line: SocketLine) -> None:
        line.connection.settimeout(10.0)
        while data := line.connection.recv(4096):
            answers = {b"*IDN?": IDENTITY, b"threshvolt?": b"0.1\r\n"}
            line.connection.sendall(b"".join(answers.get(text, b"") for text in data.split(b"\r\n")))

    clock = SimulatedClock(0, time.monotonic_ns(), 1000.0)  # settling takes world time
    with serving(keep_the_threshold) as address:
        detector = connect(address, clock, {})
        with pytest.raises(InstrumentFault, match=r"threshvolt 9 V.*0\.1 V"):
            detector.set_threshold_v(9.0)
        detector.close()


def test_the_cooling_is_switched_and_read_back_twice() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"loop 1\r\nloop?\r\n"),
        reply(b"1\r\n"),
        Expect(b"loop?\r\n"),
        reply(b"1\r\n"),
        Expect(b"loop 0\r\nloop?\r\n"),
        reply(b"0\r\n"),
        Expect(b"loop?\r\n"),
        reply(b"1\r\n"),
        Expect(b"loop?\r\n"),
        reply(b"1\r\n"),
    ) as address:
        detector = connect(address, CLOCK, {})
        detector.switch_cooling(True)
        with pytest.raises(InstrumentFault, match="did not switch its cooling off"):
            detector.switch_cooling(False)
        detector.close()


def test_the_diode_is_cold_only_while_it_is_cooled() -> None:
    clock = SimulatedClock(1_482_166_140_000_000_000, time.monotonic_ns(), 100.0)
    with (
        simulator("detector_spd", "--clock", clock.text()) as address,
        contextlib.closing(connect(address, clock, {})) as detector,
    ):
        detector.switch_cooling(False)
        detector.set_temperature_setpoint_c(-15.0)
        assert not detector.is_cooling()
        assert detector.temperature_setpoint_c() == -15.0
        eventually(lambda: detector.temperature_c() > 19.9)
        detector.switch_cooling(True)
        assert detector.is_cooling()
        eventually(lambda: detector.temperature_c() < -14.9)


def test_nothing_is_sent_for_a_value_that_is_none_or_above_the_stations_limit() -> None:
    with scripted_pty(*IDENTIFY) as address:
        detector = connect(address, CLOCK, {"max_bias_v": 220})
        for refused in (lambda: detector.set_bias_v(220.5), lambda: detector.set_bias_v(float("nan"))):
            with pytest.raises(BadInput):
                refused()
        with pytest.raises(BadInput, match="integration"):
            detector.counts(0.0)
        detector.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    late = threading.Event()
    with scripted_pty(
        *IDENTIFY,
        Expect(b"time 1\r\ntime?\r\n"),
        reply(b"1\r\n"),
        Expect(b"counts?\r\n"),
        Wait(late),
        Reply((b"999\r\n",)),
        Expect(b"*IDN?\r\n"),
        reply(IDENTITY),
        Expect(b"temp?\r\n"),
        reply(b"-20.0\r\n"),
    ) as address:
        detector = connect(address, CLOCK, {"timeout_s": 0.2})
        with pytest.raises(TransportTimeout):
            detector.counts(0.001)
        late.set()
        assert detector.temperature_c() == -20.0
        detector.close()


def test_a_garbled_answer_is_asked_for_once_more() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"temp?\r\n"),
        reply(b"-2\xff.0\r\n"),
        *IDENTIFY,
        Expect(b"temp?\r\n"),
        reply(b"-20.0\r\n"),
    ) as address:
        detector = connect(address, CLOCK, {})
        assert detector.temperature_c() == -20.0
        detector.close()


def test_silence_hang_up_and_another_model_each_have_their_error() -> None:
    with scripted_pty(Expect(b"*IDN?\r\n*IDN?\r\n")) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.1})
    with scripted_pty(Expect(b"*IDN?\r\n"), HangUp()) as address, pytest.raises(TransportLost):
        connect(address, CLOCK, {})
    other = reply(b"QO Instruments,TDC1,7\r\n")
    with (
        scripted_pty(Expect(b"*IDN?\r\n"), other, Expect(b"*IDN?\r\n"), other) as address,
        pytest.raises(WrongInstrument, match="TDC1"),
    ):
        connect(address, CLOCK, {"timeout_s": 0.2})


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(BadInput, match='nearest valid key is "max_bias_v"'):
        connect("serial:/dev/no-such-line", CLOCK, {"max_bias": 220})
