"""Two taggers as one: the offset between their clocks, merging against a plain model, drift, two real streams."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import tagger_tdc2
from groundstation.acquisition.two_taggers import (
    CommonSignal,
    TwoTaggers,
    clock_offset_ps,
    common_signal,
    connect_two,
    split_settings,
)
from groundstation.clock import clock_from_text
from groundstation.core.tags import CHANNELS
from groundstation.errors import BadInput, InstrumentFault, WireError
from groundstation.instruments import Identity, PatternBlock
from groundstation.recording.reader import open_recording

PS_PER_S = 10**12
COMMON = CommonSignal(first_pattern=0b1000, second_pattern=0b0100, tolerance_ps=100)


class Played:
    """A tagger that gives blocks from a list, then nothing more."""

    resolution_ps = 4.0

    def __init__(self, blocks, model="A"):
        self._blocks, self._model = list(blocks), model
        self._latest_ps = -1
        self.closed = 0

    def identify(self):
        return Identity(self._model, "1", "7")

    def read(self, timeout_s):
        if self._blocks:
            block = self._blocks.pop(0)
            self._latest_ps = block.latest_ps
            return block
        return PatternBlock(np.empty(0, np.int64), np.empty(0, np.uint8), self._latest_ps, 0)

    def close(self):
        self.closed += 1


def block(events, latest_ps, missed=0, notes=()):
    times, patterns = zip(*events, strict=True) if events else ((), ())
    return PatternBlock(np.array(times, np.int64), np.array(patterns, np.uint8), latest_ps, missed, notes)


def read_all(taggers, reads):
    blocks = [taggers.read(0.0) for _ in range(reads)]
    events = [e for b in blocks for e in zip(b.time_ps.tolist(), b.pattern.tolist(), strict=True)]
    return events, blocks


# The offset.


def pulses(count, period_ps=PS_PER_S, jitter_ps=0, seed=1):
    rng = np.random.default_rng(seed)
    return 5 * PS_PER_S + np.arange(count) * period_ps + rng.integers(-jitter_ps, jitter_ps + 1, count)


@given(st.integers(-(10**17), 10**17), st.integers(-(10**11) * 3, 10**11 * 3), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_offset_is_found_among_missing_and_added_pulses(offset_ps, guess_error_ps, seed):
    rng = np.random.default_rng(seed)
    common = pulses(30)
    first = np.sort(np.append(np.delete(common, rng.integers(1, 29)), rng.integers(common[0], common[-1], 3)))
    noise_ps = rng.integers(-20, 21, 29)
    second = np.sort(
        np.append(np.delete(common, rng.integers(1, 29)) + offset_ps + noise_ps, common[5] + offset_ps + 777)
    )
    found = clock_offset_ps(first, second, offset_ps + guess_error_ps, 4 * 10**11, 100)
    assert abs(found - offset_ps) <= 20


def test_a_periodic_signal_is_ambiguous_when_more_than_a_period_is_looked_at():
    beacon = pulses(200, 100_000_000)
    with pytest.raises(InstrumentFault, match=r"ambiguous: 200 pulses .* agree on one and 199 on another"):
        clock_offset_ps(beacon, beacon + 12345, 12345, 10**9, 100)
    assert clock_offset_ps(beacon, beacon + 12345, 0, 40_000_000, 100) == 12345


def test_jitter_that_both_see_singles_out_the_pulse():
    beacon = np.sort(pulses(200, 100_000_000, jitter_ps=50_000))
    assert clock_offset_ps(beacon, beacon + 12345, 0, 10**9, 100) == 12345


def test_a_noisy_signal_and_one_that_is_not_common_are_refused():
    noisy = pulses(30, jitter_ps=3000, seed=1), pulses(30, jitter_ps=3000, seed=2)
    with pytest.raises(InstrumentFault, match=r"pulses of the common signal agree to 100 ps"):
        clock_offset_ps(*noisy, 0, 4 * 10**11, 100)
    with pytest.raises(InstrumentFault, match="only 0 pulses"):
        clock_offset_ps(pulses(30), pulses(30) + PS_PER_S // 2, 0, 4 * 10**11, 100)
    with pytest.raises(InstrumentFault, match="only 4 pulses"):
        clock_offset_ps(pulses(4), pulses(4), 0, 4 * 10**11, 100)


# Merging.


streams = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 15)), max_size=40).map(sorted)


@given(streams, streams, st.integers(-2000, 2000), st.lists(st.integers(0, 5000), max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_both_come_in_time_order_as_far_as_both_have_come(first, second, offset_ps, cuts, data):
    """Against a model of one event at a time, whatever the pieces in which they come."""
    ends = [sorted({*data.draw(st.permutations(cuts)), *data.draw(st.just(cuts)), 6000}) for _ in range(2)]
    shifted = [(t + 3000 + offset_ps, p) for t, p in second]
    played = []
    for events, edges in (([(t + 3000, p) for t, p in first], ends[0]), (shifted, ends[1])):
        base = 3000 + (offset_ps if events is shifted else 0)
        blocks, start = [], -(10**9)
        for edge in edges:
            blocks.append(block([e for e in events if start <= e[0] < edge + base], edge + base))
            start = edge + base
        played.append(Played(blocks))
    got, blocks = read_all(TwoTaggers(*played, COMMON, offset_ps), max(map(len, ends)))
    wanted = [(t + 3000, p) for t, p in first]
    wanted += [(t + 3000, (p & 0b1011) << 4) for t, p in second if p & 0b1011]
    assert sorted(got) == sorted(wanted)
    assert [t for t, _ in got] == sorted(t for t, _ in got)
    seen = -1
    for one in blocks:
        assert all(seen <= t < one.latest_ps for t in one.time_ps)
        seen = one.latest_ps


def test_notes_losses_and_identities_of_both_are_kept():
    first = Played([block([], 10, 3, ("slipped",)), block([], 20, 0)], "A")
    second = Played([block([], 10, None, ("silent",)), block([], 20, None)], "B")
    taggers = TwoTaggers(first, second, COMMON, 0)
    assert taggers.identify() == Identity("A + B", "1 + 1", "7 + 7")
    one, other = taggers.read(0.0), taggers.read(0.0)
    assert (one.missed, one.notes) == (3, ("slipped", "second tagger: silent"))
    assert (other.missed, other.notes, other.latest_ps) == (None, (), 20)
    taggers.close()
    assert (first.closed, second.closed) == (1, 1)


def test_nothing_is_known_until_both_are_heard():
    taggers = TwoTaggers(Played([block([(5, 1)], 10)]), Played([block([], -1), block([], 9)]), COMMON, 0)
    assert taggers.read(0.0).latest_ps == -1
    later = taggers.read(0.0)
    assert (later.time_ps.tolist(), later.latest_ps) == ([5], 9)


def test_a_tagger_whose_times_go_back_is_a_wire_error():
    first = Played([block([], 100), block([(50, 1)], 110)])
    taggers = TwoTaggers(first, Played([block([], 100)]), COMMON, 0)
    taggers.read(0.0)
    with pytest.raises(WireError, match="tagger 1 gave times that go back"):
        taggers.read(0.0)


def test_clocks_that_drift_apart_are_noted_until_they_agree_again():
    """A second clock 1e-9 fast from the 10th second on: 100 ps are passed within the next second."""
    seconds = [k * PS_PER_S for k in range(1, 41)]
    fast = [t + max(0, t - 10 * PS_PER_S) // 10**9 if t < 30 * PS_PER_S else t for t in seconds]
    first = Played([block([(t, 0b1000)], t + 10**6) for t in seconds])
    second = Played([block([(t, 0b0100)], t + 10**6) for t in fast])
    events, blocks = read_all(TwoTaggers(first, second, COMMON, 0), 40)
    assert [t for t, _ in events] == seconds, "the second tagger's copy is left out"
    noted = [k + 1 for k, one in enumerate(blocks) if any("share a reference clock" in note for note in one.notes)]
    assert noted
    assert 10 < noted[0] <= 20
    assert noted[-1] <= 35


def test_a_common_signal_that_stays_away_leaves_the_second_clock_unproven():
    first = Played([block([(k * PS_PER_S, 0b1000)], k * PS_PER_S + 1000) for k in range(1, 8)])
    second = Played([block([], k * PS_PER_S + 1000) for k in range(1, 8)])
    _, blocks = read_all(TwoTaggers(first, second, COMMON, 0), 7)
    assert any("unproven" in note for one in blocks for note in one.notes)


# Settings, and two real streams.


def test_the_second_taggers_table_is_parted():
    common, rest = split_settings({"common_inputs": [3], "timeout_s": 2.0})
    assert (common.common_inputs, common.common_channel, rest) == ((3,), "pps", {"timeout_s": 2.0})
    assert common_signal(common, {"pps": 0b1100}) == CommonSignal(0b1100, 0b0100, 5000)
    for patterns in ({}, {"pps": 0b10000}):
        with pytest.raises(BadInput, match="common_channel"):
            common_signal(common, patterns)
    for wrong in ({}, {"common_inputs": [5]}, {"common_inputs": 3}, {"common_inputs": [1], "common_tolerance_ps": 0}):
        with pytest.raises(BadInput, match="common_"):
            split_settings(wrong)


@pytest.fixture
def two_simulators():
    """Two TDC2 in one world ten times faster than the wall, whose counters differ."""
    clock = f"1482166140000000000:{time.monotonic_ns()}:10.0"
    programs, addresses = [], []
    for faults in ({}, {"special": ["rollover"]}):
        command = [sys.executable, "-m", "drivers.simulators.tagger_tdc2", "--clock", clock]
        command += ["--faults", json.dumps(faults)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True))
        addresses.append(json.loads(programs[-1].stdout.readline())["address"])
    yield clock_from_text(clock), addresses
    for program in programs:
        program.terminate()
        program.communicate(timeout=10)


@pytest.mark.slow
def test_two_real_streams_become_one_across_a_rollover_of_the_second(two_simulators):
    clock, addresses = two_simulators
    common = CommonSignal(0b1100, 0b1100, 5000)
    connects = [lambda a=address: tagger_tdc2.connect(a, clock, {}) for address in addresses]
    taggers = connect_two(*connects, common, clock.speed, 60.0)
    try:
        blocks = []
        while not blocks or blocks[-1].latest_ps - blocks[0].latest_ps < 20 * PS_PER_S:
            blocks.append(taggers.read(0.1))
            assert blocks[-1].notes == ()
    finally:
        taggers.close()
    times = np.concatenate([one.time_ps for one in blocks])
    patterns = np.concatenate([one.pattern for one in blocks])
    assert np.all(np.diff(times) >= 0)
    assert not np.any(patterns == 0b1100 << 4)
    pps = times[patterns == 0b1100]
    assert np.all(np.abs(np.diff(pps) - PS_PER_S) < 10_000_000)
    # Both see the same light: every click comes twice, once of each tagger, a tick apart at the most.
    for pattern in (0b0001, 0b0011):
        first, second = times[patterns == pattern], times[patterns == pattern << 4]
        assert abs(first.size - second.size) <= 2
        n = min(first.size, second.size) - 4
        # Either stream may have begun a click earlier.
        shifts = ((0, 0), (0, 1), (1, 0))
        assert any(np.all(np.abs(second[b : b + n] - first[a : a + n]) <= 8) for a, b in shifts)


def test_two_streams_without_a_common_signal_are_refused_in_time(two_simulators):
    clock, addresses = two_simulators
    connects = [lambda a=address: tagger_tdc2.connect(a, clock, {}) for address in addresses]
    with pytest.raises(InstrumentFault, match="check that it is wired to both"):
        connect_two(*connects, CommonSignal(0b1100, 0b1111, 5000), clock.speed, 10.0)


@pytest.mark.slow
def test_acquire_records_channels_of_both_taggers(tmp_path):
    """The detector A is plugged into input 8, the fourth of the second tagger."""
    config = Path("config/simulated.toml").read_text()
    assert config.count("A = { inputs = [4]") == 1
    config = config.replace("A = { inputs = [4]", "A = { inputs = [8]")
    config += """
[instruments.tagger_2]
driver = "tagger_tdc2"
address = "tcp://127.0.0.1:0"
simulate = true
settings = { common_inputs = [3, 4] }
"""
    (tmp_path / "station.toml").write_text(config)
    command = [sys.executable, "-m", "groundstation.cli", "acquire", "--config", str(tmp_path / "station.toml")]
    command += ["--output", str(tmp_path / "tags"), "--duration", "3"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.count("S-Fifteen TDC2") == 2
    reader, counts = open_recording(tmp_path / "tags").stream("tags"), np.zeros(len(CHANNELS), np.int64)
    while not reader.ended:
        for segment in reader.poll():
            counts += np.bincount(segment.tables["tags"]["channel"], minlength=len(CHANNELS))
    by_name = dict(zip(CHANNELS, counts.tolist(), strict=True))
    assert by_name["A"] == pytest.approx(by_name["H"], rel=0.5)
    assert by_name["pps"] >= 8
