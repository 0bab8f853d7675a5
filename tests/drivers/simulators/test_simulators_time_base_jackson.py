"""The GPSDO's simulator, spoken to in the words of the Jackson Labs manuals."""

import json
import re

import pytest

from drivers.simulators.time_base_jackson import Oscillator

LOSS = json.dumps({"special": ["gps_loss"]})


@pytest.fixture
def begin(start, fast_clock):
    """A simulator in a world so many times faster; gives a line's `ask_line`, made to return the bare text."""

    def begin_one(*options, speed=1.0, faults="{}"):
        line = start("time_base_jackson", "--pty", "--clock", fast_clock(speed), "--faults", faults, *options).line()

        def ask(command):
            return line.ask_line(f"{command}\r\n".encode()).removesuffix("\r\n")

        ask.line = line
        return ask

    return begin_one


def test_a_locked_device_answers_in_the_forms_of_the_recording(begin):
    ask = begin()
    assert ask("*IDN?") == "Jackson Labs, LN Rb GPSDO (PRE), Firmware Rev 1.17"
    assert ask("SYNC:LOCKED?") == "1"
    assert ask("SYNC:HEALTH?") == "0x0"
    assert ask("SYNC:HOLD:DUR?") == "0,0"
    assert re.fullmatch(r"-?\d\.\d{3}E-\d\d", ask("SYNC:TINT?"))
    assert abs(float(ask("SYNC:TINT?"))) < 2e-8
    assert re.fullmatch(r"\d\.\d\dE-1\d", ask("SYNC:FEE?"))
    assert ask("PTIM:DATE?") == "2016,12,19"
    assert re.fullmatch(r"16,49,\d+", ask("PTIM:TIME?"))
    assert re.fullmatch(r"16:49:\d\d", ask("PTIM:TIME:STR?"))
    assert ask("SYST:ERR?") == '+0,"No error"'


def test_leap_seconds_are_those_of_the_worlds_date(begin):
    """GPS was 17 s ahead in 2016, and a leap second was to come at its end (IERS bulletin C 52)."""
    ask = begin()
    assert ask("PTIM:LEAP:ACC?") == "17"
    assert ask("PTIM:LEAP:PEND?") == "1"
    assert ask("PTIM:LEAP:DUR?") == "61"


def test_headers_come_in_short_or_long_form_and_any_case(begin):
    ask = begin()
    for header in ("SYNC:LOCK?", "sync:locked?", ":SYNChronization:LOCKed?", "Synchronization:lock?"):
        assert ask(header) == "1"
    for header in ("SYN:LOCK?", "SYNC:LOC?", "SYNC:LOCK", "SYNCH:LOCK?"):
        assert ask(header) == "Command Error"


def test_sync_tells_all_at_once(begin):
    ask = begin()
    told = [ask("SYNC?"), *(ask.line.read_line().decode().removesuffix("\r\n") for _ in range(11))]
    assert "1PPS LOCK STATUS  : 1" in told
    assert "HOLDOVER STATE: NONE" in told
    assert "LAST HOLDOVER DURATION : 0,0" in told
    assert told[-1] == "HEALTH STATUS : 0x0"
    assert [ask("PTIM?"), *(ask.line.read_line().decode() for _ in range(4))][0] == "DATE :2016,12,19"


def test_errors_wait_in_a_queue_that_overflows(begin):
    ask = begin()
    assert ask("BLAH?") == "Command Error"
    assert ask("SYST:COMM:SER:ECHO") == "Command Error"
    assert ask("SYST:COMM:SER:ECHO MAYBE") == "Command Error"
    assert [ask("SYST:ERR?") for _ in range(4)] == [
        '-113,"Undefined header"',
        '-109,"Missing parameter"',
        '-224,"Illegal parameter value"',
        '+0,"No error"',
    ]
    for _ in range(30):
        ask("BLAH?")
    codes = []
    while (error := ask("SYST:ERR?")) != '+0,"No error"':
        codes.append(int(error.split(",")[0]))
    assert codes == [-113] * 9 + [-350]
    ask("BLAH?")
    ask.line.write(b"*CLS\r\n")
    assert ask("SYST:ERR?") == '+0,"No error"'


@pytest.mark.slow
def test_it_warms_up_and_then_locks(begin, eventually):
    ask = begin("--age-s", 0, "--warm-up-s", 60, speed=100)
    assert ask("SYNC:LOCK?") == "0"
    assert int(ask("SYNC:HEALTH?"), 16) & 0x8  # run-time below 300 s
    eventually(lambda: ask("SYNC:LOCK?") == "1")
    eventually(lambda: ask("SYNC:HEALTH?") == "0x0")


@pytest.mark.slow
def test_without_gps_it_coasts_and_the_interval_is_stale(begin, eventually):
    ask = begin("--gps-loss-after-s", 100, "--gps-loss-for-s", 300, speed=150, faults=LOSS)
    assert ask("SYNC:LOCK?") == "1"
    eventually(lambda: ask("SYNC:HOLD:DUR?").endswith(",1"))
    assert ask("SYNC:LOCK?") == "0"
    assert ask("GPS:SAT:TRA:COUN?") == "0"
    assert ask("SYNC:TINT?") == "Command Error"
    assert ask("SYST:ERR?") == '-230,"Data corrupt or stale"'
    first_s = int(ask("SYNC:HOLD:DUR?").split(",")[0])
    eventually(lambda: int(ask("SYNC:HOLD:DUR?").split(",")[0]) > first_s)
    eventually(lambda: int(ask("SYNC:HEALTH?"), 16) & 0x10 != 0)  # holdover above 60 s
    eventually(lambda: ask("SYNC:LOCK?") == "1", timeout_s=10.0)
    seconds, state = ask("SYNC:HOLD:DUR?").split(",")
    assert int(seconds) == pytest.approx(300, abs=3)
    assert state == "0"


def test_holdover_can_be_forced_while_the_interval_still_tells_the_drift(begin, eventually):
    ask = begin(speed=1000)
    ask.line.write(b"SYNC:HOLD:INIT\r\n")
    assert ask("SYNC:LOCK?") == "0"
    assert ask("SYNC:HOLD:DUR?").endswith(",1")
    eventually(lambda: abs(float(ask("SYNC:TINT?"))) > 5e-8, timeout_s=30.0)
    ask.line.write(b"SYNC:HOLD:REC:INIT\r\n")
    eventually(lambda: ask("SYNC:LOCK?") == "1")
    eventually(lambda: abs(float(ask("SYNC:TINT?"))) < 2e-8)


def test_echo_and_prompt_can_be_switched_off(begin):
    """As the public clients of the FireFly meet it."""
    ask = begin(faults=json.dumps({"special": ["prompt"]}))
    assert ask("SYNC:LOCK?") == "SYNC:LOCK?"
    assert ask.line.read_line() == b"1\r\n"
    assert ask.line.read(7) == b"scpi > "
    ask.line.write(b"SYST:COMM:SER:ECHO OFF\r\n")
    assert ask.line.read(31) == b"SYST:COMM:SER:ECHO OFF\r\nscpi > "
    ask.line.write(b"SYST:COMM:SER:PRO OFF\r\n")
    assert ask("SYNC:LOCK?") == "1"


def test_a_trace_line_may_come_unasked(begin):
    ask = begin(faults=json.dumps({"unsolicited_every": 1}))
    trace = ask("SYNC:LOCK?").split()
    assert trace[0] == "16-12-19"
    assert trace[7:] == ["6", "0x0"]
    assert ask.line.read_line() == b"1\r\n"


def test_another_model_says_so(begin):
    assert "Jackson" not in begin(faults=json.dumps({"wrong_model": True}))("*IDN?")


def test_the_drift_without_gps_is_frequency_and_aging():
    oscillator = Oscillator(86_400, 180, (100, 1e9), 1)
    oscillator.advance(99.0)
    assert oscillator.locked
    oscillator.advance(100.0 + 10_000.0)
    assert not oscillator.locked
    # 3e-11 and 2e-15 per second over 10^4 s: 300 ns and 100 ns
    assert oscillator.phase_ns == pytest.approx(400.0, abs=20.0)
    assert oscillator.health() == 0x14  # the manuals' own example of phase and holdover, LC_XO manual, page 35
