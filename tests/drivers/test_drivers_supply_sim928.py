"""The SIM928 driver against the exchanges of the QCoDeS driver, on a pseudo-terminal."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Reply, reply, scripted_pty, serving

from drivers.supply_sim928 import connect, fetch, parse_overloads, parse_slots, to_module
from groundstation.clock import SimulatedClock, monotonic_ns
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

MAINFRAME = b"Stanford_Research_Systems,SIM900,s/n152741,ver3.6\n"
SOURCE = "Stanford_Research_Systems,SIM928,s/n003001,ver2.2"
OTHER = "Stanford_Research_Systems,SIM970,s/n000970,ver2.5"


def clock():
    return SimulatedClock(0, monotonic_ns(), 100.0)


def block(text):
    """What GETN? answers: the module's line with its own end, and the end of the mainframe's answer."""
    return b"#3%03d%b\n" % (len(text), text)


def asked(slot, question, answer, end=b"\n"):
    return (
        Expect(f'SNDT {slot},"{question}"\nGETN? {slot},128\n'.encode()),
        reply(block(answer.encode() + end)),
    )


START = (
    Expect(b"*IDN?\n"),
    reply(MAINFRAME),
    Expect(b"*DCL\nFLSH\nSRST\nCTCR?\n"),
    reply(b"26\n"),  # slots 1, 3 and 4: the mask is shifted by one
    *asked(1, "*IDN?", OTHER, b"\r\n"),
    *asked(3, "*IDN?", SOURCE, b"\r\n"),  # CR LF until TERM LF has come
    *asked(4, "*IDN?", SOURCE),
    Expect(b'SNDT 3,"TERM LF"\nSNDT 4,"TERM LF"\n'),
)


@contextlib.contextmanager
def connected(*steps, **settings):
    with scripted_pty(*START, *steps) as address:
        supply = connect(address, clock(), {"timeout_s": 1.0, **settings})
        yield supply
        supply.close()
        supply.close()


def test_the_texts_are_those_of_the_qcodes_driver():
    assert to_module(3, "VOLT 1.500") == b'SNDT 3,"VOLT 1.500"\n'
    assert fetch(3) == b"GETN? 3,128\n"
    assert parse_slots(b"26") == (1, 3, 4)
    assert parse_slots(b"+1023") == tuple(range(1, 10))
    assert parse_overloads(b"0") == ()
    assert parse_overloads(b"12") == ("battery switched", "battery fault")


@given(st.binary(max_size=20))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(line):
    for parse in (parse_slots, parse_overloads):
        with contextlib.suppress(WireError):
            parse(line)


def test_the_sources_are_found_by_slot_and_a_voltage_is_set_and_read_back():
    with connected(
        Expect(b'SNDT 3,"VOLT 1.500"\n'),
        *asked(3, "VOLT?", "+00.0000"),
        *asked(3, "VOLT?", "+1.5000"),
        *asked(4, "EXON?", "0"),
        Expect(b'SNDT 4,"OPON"\n'),
        *asked(4, "EXON?", "1"),
        *asked(4, "OVSR?", "9"),
    ) as supply:
        assert supply.outputs == (3, 4)
        supply.set_voltage_v(3, 1.5)
        assert not supply.is_on(4)
        supply.switch(4, True)
        assert supply.troubles(4) == ("current overload", "battery fault")


def test_an_answer_that_the_module_has_not_finished_is_fetched_in_parts():
    with connected(
        Expect(b'SNDT 3,"VOLT?"\nGETN? 3,128\n'),
        reply(b"#3000\n"),
        Expect(fetch(3)),
        Reply((b"#3003+", b"1.\n"), 0.02),
        Expect(fetch(3)),
        reply(block(b"250")),
        Expect(fetch(3)),
        reply(b"#3001\n\n"),
    ) as supply:
        assert supply.voltage_v(3) == 1.25


@pytest.mark.parametrize(
    "spoiled",
    [
        (reply(b"#3007+1.2345\n\n"), Expect(fetch(3)), reply(b"#3000\n")),  # a byte too many: its end comes as the rest
        (reply(b"#3008+1.500\n\n"),),  # a byte too few: it takes the end with it
        (reply(b"#3x07+1.500\n\n"),),
        (reply(b"+1.500\n"),),
    ],
)
def test_a_block_of_another_length_than_it_says_is_asked_for_again(spoiled):
    with connected(
        Expect(b'SNDT 3,"VOLT?"\nGETN? 3,128\n'),
        *spoiled,
        Expect(b"FLSH\n*IDN?\n"),
        reply(MAINFRAME),
        *asked(3, "VOLT?", "+1.500"),
        timeout_s=0.3,
    ) as supply:
        assert supply.voltage_v(3) == 1.5


def test_a_late_answer_is_not_taken_for_the_next_one():
    with connected(
        Expect(b'SNDT 3,"VOLT?"\nGETN? 3,128\n'),
        Expect(b"FLSH\n*IDN?\n"),
        reply(block(b"+9.999\n"), MAINFRAME),
        *asked(3, "VOLT?", "+1.500"),
        timeout_s=0.3,
    ) as supply:
        assert supply.voltage_v(3) == 1.5


class Modules:
    """A mainframe whose module in slot 2 takes voltages up to 10 V only; `voltages` are all that it was told."""

    def __init__(self):
        self.voltages = []

    def talk(self, line):
        line.connection.settimeout(5.0)
        self.volt, on, answer, event, received = 0.0, "0", b"", 0, b""
        while data := line.connection.recv(4096):
            *commands, received = (received + data).split(b"\n")
            for command in commands:
                text = command.decode()
                if text == "*IDN?":
                    line.send(MAINFRAME)
                elif text == "CTCR?":
                    line.send(b"4\n")
                elif text.startswith("GETN?"):
                    line.send(block(answer))
                    answer = b""
                elif found := re.fullmatch(r'SNDT 2,"VOLT (.+)"', text):
                    self.voltages.append(float(found[1]))
                    event = 0 if abs(self.voltages[-1]) <= 10.0 else 16
                    self.volt = self.volt if event else self.voltages[-1]
                elif found := re.fullmatch(r'SNDT 2,"OP(ON|OF)"', text):
                    on = "1" if found[1] == "ON" else "0"
                elif found := re.fullmatch(r'SNDT 2,"(.+\?)"', text):
                    answers = {
                        "*IDN?": SOURCE, "VOLT?": f"{self.volt:+.3f}", "EXON?": on, "*ESR?": str(event), "LEXE?": "1"
                    }  # fmt: skip
                    answer = answers[found[1]].encode() + b"\n"


@contextlib.contextmanager
def modules(**settings):
    far_end = Modules()
    with serving(far_end.talk) as address:
        supply = connect(address, clock(), settings)
        yield supply, far_end
        supply.close()


def test_a_voltage_that_the_module_refuses_is_a_fault_with_its_reason():
    fault = pytest.raises(InstrumentFault, match=r"slot 2 refused 12.0.*reads back 0.0.*illegal value")
    with modules() as (supply, _), fault:
        supply.set_voltage_v(2, 12.0)


def test_a_ramp_goes_all_the_way_in_small_steps():
    with modules(ramp_v_s=2.0) as (supply, far_end):
        supply.set_voltage_v(2, 4.0)
        assert supply.voltage_v(2) == 4.0
        up = far_end.voltages[:]
        supply.set_voltage_v(2, -4.0)
    down = far_end.voltages[len(up) :]
    assert len(up) > 4
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert (up[-1], down[-1]) == (4.0, -4.0)
    assert all(-4.0 <= voltage <= 4.0 for voltage in far_end.voltages)


def test_a_reset_takes_the_bias_away_gives_it_back_and_counts():
    with modules(dark_hz=10.0) as (supply, far_end):
        supply.set_voltage_v(2, 0.75)
        supply.switch(2, True)
        supply.reset(2, lambda integration_s: 20)
        assert far_end.voltages == [0.75, 0.0, 0.75]
        asked_s = []
        with pytest.raises(InstrumentFault, match=r"slot 2 stays silent at 0.75 V"):
            supply.reset(2, lambda integration_s: asked_s.append(integration_s) or 0)
        assert asked_s == [pytest.approx(1.38155, abs=1e-5)]  # exp(-10 Hz x 1.38155 s) = 1e-6


def test_a_bias_that_could_not_be_given_back_is_not_taken_away():
    with modules(max_voltage_v=1.0) as (supply, far_end):
        supply.switch(2, True)
        far_end.volt = 2.0  # somebody's, before
        with pytest.raises(BadInput, match="nothing was set"):
            supply.reset(2, lambda integration_s: 20)
        assert far_end.voltages == []


def test_a_wire_is_latched_when_biased_and_silent_for_longer_than_chance_allows():
    with modules(dark_hz=10.0, latch_bias_v=0.5) as (supply, _):
        supply.set_voltage_v(2, 0.75)
        assert not supply.latched(2, 0, 2.0)  # switched off
        supply.switch(2, True)
        assert supply.latched(2, 0, 2.0)
        assert not supply.latched(2, 1, 2.0)
        with pytest.raises(BadInput, match=r"count for at least 1\.38 s"):
            supply.latched(2, 0, 1.0)
        supply.set_voltage_v(2, 0.4)
        assert not supply.latched(2, 0, 2.0)  # biased too little
        with pytest.raises(InstrumentFault, match="no bias to cycle"):
            supply.reset(2, lambda integration_s: 1)


def test_nothing_is_sent_for_a_value_that_is_none_or_beyond_the_limit():
    with connected(max_voltage_v=5.0) as supply:
        for refused in (
            lambda: supply.set_voltage_v(3, 5.001),
            lambda: supply.set_voltage_v(3, -5.001),
            lambda: supply.set_voltage_v(3, float("nan")),
            lambda: supply.set_voltage_v(1, 1.0),
        ):
            with pytest.raises(BadInput):
                refused()


def test_another_instrument_no_source_silence_and_hang_up_have_their_errors():
    ask, idn = Expect(b"*IDN?\n"), reply(MAINFRAME)
    with (
        scripted_pty(ask, reply(b"KEYSIGHT,E36312A,1,1\n")) as address,
        pytest.raises(WrongInstrument, match="E36312A"),
    ):
        connect(address, clock(), {})
    empty = (Expect(b"*DCL\nFLSH\nSRST\nCTCR?\n"), reply(b"2\n"), *asked(1, "*IDN?", OTHER))
    with scripted_pty(ask, idn, *empty) as address, pytest.raises(WrongInstrument, match=r"1: .*SIM970"):
        connect(address, clock(), {})
    with scripted_pty(ask, idn, *empty[:2]) as address, pytest.raises(WrongInstrument, match="slots"):
        connect(address, clock(), {"slots": [2]})
    with scripted_pty(Expect(b"*IDN?\nFLSH\n*IDN?\n")) as address, pytest.raises(TransportTimeout):
        connect(address, clock(), {"timeout_s": 0.1})
    with scripted_pty(ask, HangUp()) as address, pytest.raises(TransportLost):
        connect(address, clock(), {})


def test_settings_that_cannot_be_used_are_named():
    for settings, key in (
        ({"ramp": 1}, "ramp_v_s"),
        ({"ramp_v_s": -1.0}, "ramp_v_s"),
        ({"slots": [0]}, "slots"),
        ({"dark_hz": 0.0}, "dark count rate"),
        ({"reset_off_s": 0.0}, "reset_off_s"),
    ):
        with pytest.raises(BadInput, match=key):
            connect("serial:/dev/no-such-line", clock(), settings)
