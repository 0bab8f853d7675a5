"""The time tagger's simulator: the words of the a1 format, the events of the world, other people's parser."""

import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from fpfind.lib.constants import TSRES
from fpfind.lib.parse_timestamps import read_a1

from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording

WORDS_PER_READ = 1 << 16


def read_words(connection: socket.socket, n: int) -> np.ndarray:
    data = b""
    while len(data) < 8 * n:
        received = connection.recv(WORDS_PER_READ)
        assert received, "the stream ended"
        data += received
    return np.frombuffer(data[: 8 * n], "<u8")


@pytest.fixture(scope="module")
def words(start_shared) -> np.ndarray:
    """A few seconds of the laboratory's world, twenty times faster than the wall."""
    program = start_shared("tagger_tdc2", "--clock", f"1482166140000000000:{time.monotonic_ns()}:20.0")
    with program.connect() as connection:
        return read_words(connection, 120_000)


def test_times_never_go_back_and_dummies_tell_how_far_time_has_come(words):
    ticks = words >> np.uint64(10)
    assert np.all(np.diff(ticks.astype(np.int64)) >= 0)
    dummies = ticks[(words & np.uint64(0x10)) != 0].astype(np.int64)
    assert np.median(np.diff(dummies)) / 256e9 == pytest.approx(0.05, rel=1e-3)
    assert not np.any(words & np.uint64(0x3E0)), "reserved bits are zero"
    assert not np.any(words == 0)


def test_beacon_and_1pps_come_as_patterns_of_their_own_at_their_rates(words):
    events = words[(words & np.uint64(0x10)) == 0]
    pattern, seconds = events & np.uint64(0xF), (events >> np.uint64(10)).astype(np.float64) / 256e9
    beacon = seconds[pattern == 0b0011]
    assert np.median(np.diff(beacon)) == pytest.approx(1e-4, abs=2e-9)
    pulses = seconds[pattern == 0b1100]
    assert np.allclose(np.diff(pulses), 1.0, atol=1e-7)
    for detector in (0b0001, 0b0010, 0b0100, 0b1000):
        assert np.count_nonzero(pattern == detector) > 1000


def test_fpfind_reads_the_same_events_from_the_stream(words, tmp_path):
    """fpfind is an independent parser of the a1 format."""
    file = tmp_path / "events.a1"
    file.write_bytes(words.tobytes())
    times, patterns = read_a1(file, resolution=TSRES.PS4, fractional=False, ignore_rollover=True)
    events = words[(words & np.uint64(0x10)) == 0]
    assert np.array_equal(times.astype(np.uint64), events >> np.uint64(10))
    assert np.array_equal(patterns & 0xF, (events & np.uint64(0xF)).astype(np.uint32))


def test_there_is_one_reader_and_the_newest_one_is_served(start):
    """A reader that lost its cable looks connected for a long time; the one that comes back must not wait for it."""
    program = start("tagger_tdc2")
    with program.connect() as first:
        read_words(first, 10)
        with program.connect() as second:
            read_words(second, 10)
            while first.recv(WORDS_PER_READ):
                pass  # what was on its way, then the end


def test_the_truth_stream_is_ended_when_the_simulator_is(start, tmp_path, fast_clock):
    directory = tmp_path / "recording"
    create_recording(directory, {"mode": "simulation"})
    program = start("tagger_tdc2", "--truth", directory, "--clock", fast_clock(20))
    with program.connect() as connection:
        words = read_words(connection, 30_000)
    program.end()
    reader = open_recording(directory).stream("truth")
    segments = []
    while not reader.ended:
        segments += reader.poll()
    assert reader.complete
    device_ps = np.concatenate([s.tables["clicks"]["device_ps"] for s in segments])
    patterns = words & np.uint64(0x1F)
    clicks = words[np.isin(patterns, (1, 2, 4, 8))]
    assert np.isin((clicks >> np.uint64(10)).astype(np.int64) * 125 // 32, device_ps).all()
    assert set(segments[0].tables) == {"clicks", "tallies", "pointing"}


def test_a_port_in_use_is_refused_in_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = subprocess.run(
            [sys.executable, "-m", "drivers.simulators.tagger_tdc2", "--address", f"tcp://127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert outcome.returncode == 2
    assert f"port {port}" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def read_until_s(connection: socket.socket, seconds: float) -> np.ndarray:
    """Words of that many seconds of the tagger's time."""
    data, words = b"", np.empty(0, np.uint64)
    while (
        len(words) < 2
        or (int(words[-1] >> np.uint64(10)) - int(words[0] >> np.uint64(10))) % (1 << 54) < seconds * 256e9
    ):
        received = connection.recv(WORDS_PER_READ)
        assert received, "the stream ended"
        data += received
        words = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
    return words


def faulty(start, fast_clock, fault):
    return start("tagger_tdc2", "--clock", fast_clock(20), "--faults", json.dumps({"special": [fault]})).connect()


def test_the_counter_can_be_made_to_wrap_around_soon(start, fast_clock):
    with faulty(start, fast_clock, "rollover") as connection:
        ticks = (read_until_s(connection, 4.0) >> np.uint64(10)).astype(np.int64)
    steps = np.diff(ticks)
    assert np.flatnonzero(steps < 0).size == 1
    assert (1 << 54) - ticks[0] == pytest.approx(3 * 256e9, rel=0.05)
    assert np.all(steps % (1 << 54) < 1e9)


def test_void_words_and_missing_dummies_can_be_had(start, fast_clock):
    with faulty(start, fast_clock, "void_words") as connection:
        words = read_words(connection, 20_000)
    assert np.count_nonzero(words == 0) == pytest.approx(200, rel=0.1)
    with faulty(start, fast_clock, "missing_dummies") as connection:
        assert not np.any(read_words(connection, 20_000) & np.uint64(0x10))


def test_a_slip_takes_two_bytes_out_of_the_stream(start, fast_clock):
    with faulty(start, fast_clock, "slip") as connection:
        words = read_words(connection, 40_000)
    first_wrong = int(np.argmax(np.abs(np.diff((words >> np.uint64(10)).astype(np.int64))) > 1 << 40))
    assert first_wrong > 0
    rest = np.frombuffer(words.tobytes()[8 * first_wrong + 14 : -2], "<u8")[:1000]
    assert np.all(np.diff((rest >> np.uint64(10)).astype(np.int64)) >= 0)


def reader(*options):
    """The simulator in place of `readevents7`."""
    return [sys.executable, "-m", "drivers.simulators.tagger_tdc2", "--reader", *options]


def test_as_the_reader_program_it_writes_the_stream_to_stdout():
    outcome = subprocess.run(
        reader("-a", "1", "-t", "768,768,768,768", "-b", "0,0,0", "-c", "3", "-q", "5000", "-A"),
        capture_output=True,
        timeout=30,
    )
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    words = np.frombuffer(outcome.stdout, "<u8")
    assert len(words) == 5000
    now = time.time_ns() * 256 % (1 << 54)  # -A: Unix time modulo 2^54, in 1/256 ns
    assert (now - int(words[-1] >> np.uint64(10))) % (1 << 54) < 20 * 256e9


def test_a_skew_shifts_the_events_of_one_input_only():
    settings = ("--clock", f"1482166140000000000:{time.monotonic_ns()}:1.0")
    skewed = np.frombuffer(
        subprocess.run(
            reader("-a", "1", "-D", "-256,0,0,0", "-q", "4000", *settings), capture_output=True, timeout=30
        ).stdout,
        "<u8",
    )
    ticks, pattern = (skewed >> np.uint64(10)).astype(np.int64), skewed & np.uint64(0xF)
    assert len(ticks) == 4000
    # 1 ns earlier, but still in the place of the original: now and then the times go back, and only before input 1.
    back = np.flatnonzero(np.diff(ticks) < 0) + 1
    assert np.all(pattern[back] == 1)
    assert ticks[0] < 0.1 * 256e9, "the reader program resets the counter"


def test_the_reader_program_ends_when_nobody_reads():
    process = subprocess.Popen(reader("-a", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(800)) == 800
    process.stdout.close()
    assert process.wait(timeout=10) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("-a", "0"), "-a 1 only"),
        (("-a", "1", "-t", "5000"), "Threshold parameter out of range"),
        (("-a", "1", "-t", "1,2"), "Threshold parameter out of range"),
        (("-a", "1", "-c", "32"), "Coincidence value out of range"),
        (("-a", "1", "-D", "1,2"), "wrong skew format"),
    ],
)
def test_the_reader_programs_options_are_checked(options, complaint):
    outcome = subprocess.run(reader(*options), capture_output=True, text=True, timeout=30)
    assert outcome.returncode != 0
    assert complaint in outcome.stderr
    assert outcome.stderr.count("\n") == 1
