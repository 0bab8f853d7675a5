"""The TDC1's simulator: its commands and words as the reference has them, the world's truth, the vendor's client."""

import time

import numpy as np
import pytest

from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording

TURN = 1 << 27


@pytest.fixture(scope="module")
def program(start_shared):
    """A TDC1 in a world ten times faster than the wall."""
    return start_shared("tagger_tdc1", "--pty", "--clock", f"1482166140000000000:{time.monotonic_ns()}:10.0")


@pytest.fixture
def line(program):
    line = program.line()
    line.write(b"abort;*RST;\r\n")
    while line.read(65536, 0.2):
        pass
    return line


def words_of(line, n, timeout_s=10.0):
    data = line.read(4 * n, timeout_s)
    assert len(data) == 4 * n
    return np.frombuffer(data, "<u4").astype(np.int64)


def unwrapped(words):
    """The reference's rule: any word, dummy included, whose time is less than the one before adds 2^27 ticks."""
    ticks = words >> 5
    return ticks + TURN * np.cumsum(np.diff(ticks, prepend=0) < 0)


def test_commands_end_with_semicolon_cr_or_lf_in_any_case(line):
    line.write(b"mode?;MODE?\nMode?\r\n")
    assert [line.read_line() for _ in range(3)] == [b"0\r\n"] * 3
    line.write(b"\r\n;;\n")
    assert line.read(1, 0.1) == b""


def test_it_says_that_it_is_a_tdc1(line):
    assert "TDC1" in line.ask_line(b"*IDN?\r\n")
    line.write(b"HELP;")
    assert b"counts?" in line.read(4096, 0.3)


@pytest.mark.parametrize(("mode", "number"), [("singles", "0"), ("pairs", "1"), ("timestamp", "3")])
def test_the_mode_is_read_back_as_its_number(line, mode, number):
    assert line.ask_line(f"{mode};MODE?;".encode()) == f"{number}\r\n"


@pytest.mark.parametrize(("set_ms", "told"), [("1", 1), ("32767", 32767), ("32768", -32768), ("65535", -1)])
def test_time_is_told_as_a_signed_16_bit_number(line, set_ms, told):
    assert int(line.ask_line(f"time {set_ms};time?;".encode())) == told


def test_the_older_drivers_time_without_a_space_is_understood(line):
    assert int(line.ask_line(b"TIME900;time?\r\n")) == 900


@pytest.mark.parametrize(("command", "level_v"), [("NEG -0.3", -0.3), ("POS 1.2", 1.2), ("NEG 0.7", -0.7)])
def test_the_first_word_of_the_level_is_a_voltage(line, command, level_v):
    assert float(line.ask_line(f"{command};LEVEL?;".encode()).split()[0]) == pytest.approx(level_v)


def test_the_reference_clock_is_chosen_and_read_back(line):
    assert line.ask_line(b"REFCLK 2;REFCLK?;") == "2\r\n"
    assert line.ask_line(b"ECLOCK?;") == "1\r\n"


def test_an_unknown_command_gets_a_line_of_text(line):
    for command in (b"nonsense;", b"time 99999;", b"REFCLK 3;", b"\xff\xfe;", b"two words;"):
        assert "nknown" in line.ask_line(command)


def test_singles_are_four_integers_and_pairs_are_eight(line):
    line.write(b"singles;time 1000;counts?\r\n")
    singles = [int(n) for n in line.read_line().split()]
    assert len(singles) == 4
    assert min(singles) > 100
    line.write(b"pairs;counts?\r\n")
    pairs = [int(n) for n in line.read_line().split()]
    assert len(pairs) == 8
    # The laboratory's beacon is on inputs 1 and 2 together, its 1PPS on 3 and 4: no pair of two the device counts.
    assert max(pairs[4:]) < 100


def test_the_stream_begins_at_0_tells_the_time_and_ends_after_it(line):
    line.write(b"INPKT;NIM;time 900;timestamp;counts?\r\n")
    data = b""
    while part := line.read(1 << 20, 0.5):
        data += part
    assert len(data) % 4 == 0
    words = np.frombuffer(data, "<u4").astype(np.int64)
    ticks = unwrapped(words)
    assert 0 <= ticks[0] < 50e6 / 2
    assert ticks[-1] == 450_000_000, "the last word is a dummy at the end of the 900 ms"
    assert ticks[-1] // TURN == 3
    events = words[(words & 0x10) == 0]
    assert np.median(np.diff(ticks[(words & 0x1F) == 0b0011])) * 2 == pytest.approx(100_000, abs=10)
    assert set(np.unique(events & 0xF)) >= {0b0001, 0b0010, 0b0100, 0b1000, 0b0011}


def test_dummies_come_at_every_rollover_and_every_100_ms(line):
    line.write(b"INPKT;time 0;timestamp;counts?;")
    words = words_of(line, 60_000)
    line.write(b"abort\r\n")
    ticks = unwrapped(words)
    assert np.all(np.diff(ticks) >= 0)
    dummy = (words & 0x10) != 0
    assert np.all(words[dummy] & 0xF == 0)
    assert np.diff(ticks[dummy]).max() * 2e-9 <= 0.1
    turns = ticks[-1] // TURN
    assert turns >= 3
    # usbcount_class.py takes a dummy at 7920 ns for the sign of a rollover.
    assert np.isin(np.arange(1, turns) * TURN + 7920 // 2, ticks[dummy]).all()


def test_after_abort_the_device_is_silent_and_obeys(line):
    line.write(b"INPKT;time 0;timestamp;counts?;")
    words_of(line, 1000)
    line.write(b"abort;")
    while line.read(65536, 0.2):
        pass
    assert line.ask_line(b"MODE?;") == "3\r\n"


def test_the_truth_has_the_time_that_the_words_tell(start, tmp_path, fast_clock):
    directory = tmp_path / "recording"
    create_recording(directory, {"mode": "simulation"})
    program = start("tagger_tdc1", "--pty", "--truth", directory, "--clock", fast_clock(10))
    line = program.line()
    line.write(b"INPKT;time 0;timestamp;counts?;")
    words = words_of(line, 40_000)
    program.end()
    reader, segments = open_recording(directory).stream("truth"), []
    while not reader.ended:
        segments += reader.poll()
    device_ps = np.concatenate([s.tables["clicks"]["device_ps"] for s in segments])
    clicks = unwrapped(words)[np.isin(words & 0x1F, (1, 2, 4, 8))]
    assert np.isin(clicks * 2000, device_ps).all()
    assert device_ps.min() >= 0


def test_a_slip_loses_two_bytes_and_a_silence_lasts_longer_than_a_turn(start, fast_clock):
    program = start("tagger_tdc1", "--pty", "--clock", fast_clock(20), "--faults", '{"special": ["slip"]}')
    line = program.line()
    line.write(b"time 1000;timestamp;counts?;")
    data = b""
    while part := line.read(1 << 20, 0.5):
        data += part
    assert len(data) % 4 == 2
    program = start("tagger_tdc1", "--pty", "--clock", fast_clock(20), "--faults", '{"special": ["missing_dummies"]}')
    line = program.line()
    line.write(b"time 0;timestamp;counts?;")
    ticks = unwrapped(words_of(line, 100_000))
    beacons = 1e-4 / 2e-9
    assert ticks[-1] < 5.2e9 / 2 - 0.268e9 / 2, "the silence hides two turns of the counter, so time seems to stand"
    assert np.diff(ticks).max() < 1000 * beacons
