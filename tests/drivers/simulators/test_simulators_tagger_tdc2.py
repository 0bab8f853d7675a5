"""The time tagger's simulator: the words of the a1 format, the events of the world, other people's parser."""

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
