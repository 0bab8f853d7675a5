"""The simulated SIM900 mainframe, asked as the QCoDeS driver asks it."""

import json
import time

import pytest


class Mainframe:
    def __init__(self, end):
        self._end = end

    def write(self, text):
        self._end.write(text.encode() + b"\n")

    def read_line(self):
        data = b""
        while not data.endswith(b"\n"):
            byte = self._end.read(1)
            assert byte, f"only {data!r} came"
            data += byte
        return data

    def ask(self, text):
        self.write(text)
        return self.read_line()

    def ask_module(self, slot, text, wait_s=0.1):
        """Exactly the bytes of the module, with its terminator; the mainframe's own LF must follow."""
        self.write(f'SNDT {slot},"{text}"')
        time.sleep(wait_s)
        self.write(f"GETN? {slot},128")
        head = self._end.read(5)
        assert head[:2] == b"#3"
        data = self._end.read(int(head[2:]))
        assert self._end.read(1) == b"\n"
        return data

    def nothing_comes(self):
        return self._end.read(1, timeout_s=0.05) == b""


@pytest.fixture
def mainframe(start):
    return lambda *options: Mainframe(start("supply_sim928", *options).line())


def test_slots_are_bits_shifted_by_one(mainframe):
    sim = mainframe("--slots", "1,2,4")
    assert b"SIM900" in sim.ask("*IDN?")
    assert int(sim.ask("CTCR?")) == 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8


def test_a_module_answers_through_its_slot_with_its_own_terminator(mainframe):
    sim = mainframe()
    assert sim.ask_module(1, "*IDN?") == b"Stanford Research Systems,SIM928,s/n003001,ver1.1\r\n"
    sim.write('SNDT 1,"TERM LF"')
    assert sim.ask_module(1, "*IDN?").endswith(b"ver1.1\n")
    assert sim.ask_module(1, "TERM?") == b"2\n"
    assert b"SIM970" in sim.ask_module(8, "*IDN?")
    assert sim.ask_module(9, "*IDN?") == b""
    sim.write("SRST")
    assert sim.ask_module(1, "TERM?", wait_s=0.2) == b"3\r\n"


def test_the_answer_takes_its_time_on_the_modules_own_line(mainframe, fast_clock):
    sim = mainframe("--clock", fast_clock(0.2))
    assert sim.ask_module(1, "*IDN?", wait_s=0.0) == b""
    time.sleep(0.4)
    assert int(sim.ask("NINP? 1")) == len(b"Stanford Research Systems,SIM928,s/n003001,ver1.1\r\n")
    sim.write("FLSH")
    assert sim.ask("NINP? 1") == b"0\n"


def test_voltages_are_set_to_a_millivolt_and_read_back(mainframe):
    sim = mainframe()
    sim.write('SNDT 2,"VOLT 1.2344"')
    assert float(sim.ask_module(2, "VOLT?")) == 1.234
    assert float(sim.ask_module(1, "VOLT?")) == 0.0
    sim.write('SNDT 2,"VOLT -20;OPON"')
    assert sim.ask_module(2, "VOLT?;EXON?") == b"-20.000\r\n1\r\n"
    sim.write('SNDT 2,"OPOF"')
    assert sim.ask_module(2, "EXON?") == b"0\r\n"


def test_a_refused_command_shows_in_the_status_once(mainframe):
    sim = mainframe()
    assert int(sim.ask_module(1, "*ESR?")) == 0x80  # power on
    for command, esr, which, code in [
        ("VOLT 20.5", 0x10, "LEXE?", 1),
        ("TERM XY", 0x10, "LEXE?", 2),
        ("VOLTS 1", 0x20, "LCME?", 2),
        ("OPON?", 0x20, "LCME?", 3),
        ("VOLT", 0x20, "LCME?", 5),
        ("VOLT 1 2", 0x20, "LCME?", 6),
        ("VOLT abc", 0x20, "LCME?", 9),
    ]:
        sim.write(f'SNDT 1,"{command}"')
        answers = sim.ask_module(1, f"*ESR?;{which};{which};*ESR?;VOLT?")
        assert answers == b"%d\r\n%d\r\n0\r\n0\r\n+0.000\r\n" % (esr, code), command


def test_a_short_circuit_shows_in_the_overload_status(mainframe):
    sim = mainframe("--load-ohm", 100)
    assert sim.ask_module(1, "VOLT 5;OPON") == b""  # and it has settled
    assert sim.ask_module(1, "OVCR?") == b"1\r\n"
    assert sim.ask_module(1, "VOLT 0.5") == b""  # and it has settled
    assert sim.ask_module(1, "OVCR?;OVSR?;OVSR?") == b"0\r\n1\r\n0\r\n"


def test_batteries_swap_with_the_hours(mainframe, fast_clock):
    sim = mainframe("--clock", fast_clock(1_000_000))
    seen, deadline = set(), time.monotonic() + 3.0
    while len(seen) < 2 and time.monotonic() < deadline:
        seen.add(sim.ask_module(1, "BATS?", wait_s=0.0).split(b",")[0] == b"1")
    assert seen == {True, False}


def test_a_stale_buffer_is_read_first_until_it_is_flushed(mainframe):
    sim = mainframe("--faults", json.dumps({"special": ["stale_buffer"]}))
    assert sim.ask_module(1, "VOLT?") == b"+19.999\r\n+0.000\r\n"
    sim.write("FLSH")
    assert sim.ask_module(2, "VOLT?") == b"+0.000\r\n"


def test_what_the_mainframe_does_not_know_gets_no_answer(mainframe):
    sim = mainframe("--faults", json.dumps({"wrong_model": True}))
    for nonsense in ("NONSENSE?", 'SNDT 1,"', "GETN? 1", "SNDT 1,VOLT 5", ""):
        sim.write(nonsense)
    assert sim.nothing_comes()
    assert b"SIM922" in sim.ask_module(1, "*IDN?")
    assert float(sim.ask_module(1, "VOLT?")) == 0.0
