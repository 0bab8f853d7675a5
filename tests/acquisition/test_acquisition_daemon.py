"""From a tagger's blocks to acknowledged segments: nothing lost, nothing invented, everything accounted for."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.acquisition.daemon import Acquisition
from groundstation.core.tags import CHANNELS
from groundstation.errors import TransportLost, WireError
from groundstation.instruments import PatternBlock
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter

PS = 10**12
START_UTC_NS = 1_482_166_140_000_000_000
#: As in config/simulated.toml, and one in which nothing is wired to input 4.
WIRED = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000, "sync": 0b0011, "pps": 0b1100}
THREE_INPUTS = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b10000, "sync": 0b0011, "pps": 0b100000}


class FakeTagger:
    """Gives out blocks, then nothing; or raises an error in the place of a block."""

    resolution_ps = 1000 / 256

    def __init__(self, blocks):
        self._blocks = list(blocks)
        self._latest_ps = -1
        self.exhausted = False
        self.may_read = lambda: True

    def read(self, timeout_s):
        deadline = time.monotonic() + 10.0
        while not self.may_read():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        if not self._blocks:
            self.exhausted = True
            return PatternBlock(np.empty(0, np.int64), np.empty(0, np.uint8), self._latest_ps, None)
        block = self._blocks.pop(0)
        if isinstance(block, Exception):
            raise block
        self._latest_ps = block.latest_ps
        return block


class WorldClock:
    """The host's clock, right after every read: it follows the device's time."""

    speed = 1.0

    def __init__(self, tagger, device_zero_ps, late_s=0.002):
        self._tagger, self._device_zero_ps, self._late_s = tagger, device_zero_ps, late_s

    def utc_ns(self):
        return START_UTC_NS + (self._tagger._latest_ps - self._device_zero_ps) // 1000 + round(self._late_s * 1e9)


def block_of(time_ps, pattern, missed=None, notes=(), latest_ps=None):
    time_ps, pattern = np.asarray(time_ps, np.int64), np.asarray(pattern, np.uint8)
    latest_ps = latest_ps if latest_ps is not None else int(time_ps[-1]) if time_ps.size else -1
    return PatternBlock(time_ps, pattern, latest_ps, missed, tuple(notes))


def events(count, first_ps=4321 * PS + 77, seed=1):
    """Ascending device times on the tagger's grid of 1000/256 ps, and any pattern of four inputs."""
    random = np.random.default_rng(seed)
    ticks = first_ps * 32 // 125 + np.cumsum(random.integers(0, 100_000, count))
    return ticks * 125 // 32, random.integers(1, 16, count).astype(np.uint8)


def cut(time_ps, pattern, sizes):
    """Blocks of these sizes over and over."""
    blocks, done = [], 0
    while done < len(time_ps):
        for size in sizes:
            part = slice(done, done + size)
            if time_ps[part].size:
                blocks.append(block_of(time_ps[part], pattern[part]))
            done += size
    return blocks


@pytest.fixture
def acquire(tmp_path):
    """Record blocks; returns what can be read back, the statuses and what was raised."""
    numbers = iter(range(1_000_000))

    def acquire_blocks(blocks, patterns=WIRED, commit_interval_s=0.0, device_zero_ps=4321 * PS, in_step=False):
        directory = tmp_path / f"recording{next(numbers)}"
        run_id = create_recording(directory, {"mode": "live"})
        tagger, statuses, raised = FakeTagger(blocks), [], None
        with StreamWriter(directory, "tags", run_id) as writer:
            clock = WorldClock(tagger, device_zero_ps)
            acquisition = Acquisition(tagger, patterns, writer, clock, commit_interval_s, 1e-6)
            if in_step:  # the next block comes when the one before has its segment
                segments = directory / "tags"
                tagger.may_read = lambda: len(list(segments.glob("*.h5"))) == len(blocks) - len(tagger._blocks)
            try:
                acquisition.run(lambda: tagger.exhausted, statuses.append)
            except (TransportLost, WireError) as error:
                raised = error
            acknowledged = writer.acknowledged
        return read_back(directory, statuses, raised, acknowledged)

    return acquire_blocks


def read_back(directory, statuses, raised, acknowledged):
    reader = open_recording(directory).stream("tags")
    segments = reader.poll(10**6)
    columns = {
        name: np.concatenate([empty, *(s.tables["tags"][name] for s in segments)])
        for name, empty in (("time_ps", np.empty(0, np.int64)), ("channel", np.empty(0, np.uint8)))
    }
    order = ("start_ps", "stop_ps", "missed", "cause")
    told = [[segment.tables["gaps"][name] for name in order] for segment in segments if "gaps" in segment.tables]
    gaps = [row for columns_of_gaps in told for row in zip(*columns_of_gaps, strict=True)]
    return SimpleNamespace(
        segments=segments, notes=[s.notes for s in segments], statuses=statuses, raised=raised,
        complete=reader.complete, acknowledged=acknowledged.get("tags", 0), gaps=gaps, **columns,
    )  # fmt: skip


def mapped_one_by_one(time_ps, pattern, patterns):
    """The map of patterns to channels, written as slowly as its definition: most inputs first, then the rest."""
    tags, unmapped = [], 0
    by_size = sorted(patterns.items(), key=lambda item: -item[1].bit_count())
    for at, inputs in zip(time_ps.tolist(), pattern.tolist(), strict=True):
        found = []
        for name, wired in by_size:
            if inputs & wired == wired:
                found.append(CHANNELS.index(name))
                inputs &= ~wired
        tags += [(at, channel) for channel in sorted(found)]
        unmapped += inputs != 0
    return tags, unmapped


@pytest.mark.parametrize("patterns", [WIRED, THREE_INPUTS])
def test_every_tag_is_read_back_exactly_as_the_device_gave_it(acquire, patterns):
    time_ps, pattern = events(3_000)
    done = acquire(cut(time_ps, pattern, [1, 50, 7, 400]), patterns)
    zero_ps = done.notes[-1]["zero_device_ps"]
    expected, _ = mapped_one_by_one(time_ps, pattern, patterns)
    assert list(zip((done.time_ps + zero_ps).tolist(), done.channel.tolist(), strict=True)) == expected
    assert done.complete


def test_the_zero_lies_on_a_grid_on_which_rounding_to_picoseconds_does_not_move(acquire):
    """32 ticks are 125 ps exactly: floor((t - zero) x 125 / 32) = floor(t x 125 / 32) - zero."""
    for first_ps in (4321 * PS, 4321 * PS + 1, 999_999_999_961, 2**60):
        done = acquire([block_of([first_ps, first_ps + 10], [1, 2])])
        zero_ps = done.notes[-1]["zero_device_ps"]
        assert zero_ps % 125 == 0
        assert 0 <= first_ps - PS - zero_ps < 125
        assert np.all(done.time_ps > 0)


def test_a_stream_that_begins_with_time_and_no_event_has_its_zero_there(acquire):
    dummy = block_of([], [], latest_ps=5 * PS)
    done = acquire([dummy, block_of([8 * PS], [1])])
    assert done.notes[-1]["zero_device_ps"] == 4 * PS
    assert done.time_ps.tolist() == [4 * PS]


def test_every_segment_carries_the_ledger_up_to_itself_and_it_balances(acquire):
    time_ps, pattern = events(2_000)
    done = acquire(cut(time_ps, pattern, [100]), THREE_INPUTS)
    tags, unmapped = mapped_one_by_one(time_ps, pattern, THREE_INPUTS)
    assert unmapped > 500
    rows = 0
    for segment in done.segments:
        rows += segment.rows["tags"]
        ledger = segment.notes["ledger"]
        assert ledger["recorded"] == rows
        assert ledger["seen"] == ledger["recorded"] + sum(ledger["dropped"].values())
        assert ledger["missed"] is None
    assert (rows, ledger["dropped"]) == (len(tags), {"input without a channel": unmapped})


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any), seed=st.integers(0, 5))
def test_how_the_device_is_read_changes_nothing(tmp_path_factory, sizes, seed):
    time_ps, pattern = events(200, seed=seed)
    numbered = tmp_path_factory.mktemp("cut")
    results = []
    for name, blocks in (("whole", cut(time_ps, pattern, [200])), ("cut", cut(time_ps, pattern, sizes))):
        run_id = create_recording(numbered / name, {})
        tagger = FakeTagger(blocks)
        with StreamWriter(numbered / name, "tags", run_id) as writer:
            clock = WorldClock(tagger, 4321 * PS)
            Acquisition(tagger, WIRED, writer, clock, 0.0, 1e-6).run(lambda t=tagger: t.exhausted, lambda _: None)
        done = read_back(numbered / name, [], None, {})
        last = done.notes[-1]
        results.append((done.time_ps.tolist(), done.channel.tolist(), last["zero_device_ps"], last["ledger"]))
    assert results[0] == results[1]


def test_a_lost_link_leaves_all_that_was_read_and_no_end(acquire):
    time_ps, pattern = events(500)
    blocks = cut(time_ps, pattern, [50])
    done = acquire([*blocks, TransportLost("unplugged")], commit_interval_s=3600.0)
    assert isinstance(done.raised, TransportLost)
    assert done.acknowledged == done.time_ps.size == len(mapped_one_by_one(time_ps, pattern, WIRED)[0])
    assert not done.segments[-1].end
    assert not done.complete


def test_a_device_that_restarts_its_clock_costs_nothing_that_was_read_before(acquire):
    time_ps, pattern = events(500)
    done = acquire([*cut(time_ps, pattern, [50]), WireError("went back")], commit_interval_s=3600.0)
    assert isinstance(done.raised, WireError)
    assert done.acknowledged == len(mapped_one_by_one(time_ps, pattern, WIRED)[0])
    assert not done.complete


def test_tags_wait_for_the_commit_interval_and_no_longer(acquire):
    time_ps, pattern = events(500)
    blocks = cut(time_ps, pattern, [10])
    assert len(acquire(blocks, commit_interval_s=3600.0).segments) <= 2  # the first at once, the rest at the end
    one_by_one = acquire(blocks, commit_interval_s=0.0, in_step=True).segments
    assert [segment.rows["tags"] > 0 for segment in one_by_one] == [*[True] * len(blocks), False]


def test_a_tagger_that_never_said_anything_leaves_an_orderly_empty_stream(acquire):
    done = acquire([block_of([], [])])
    assert done.complete
    assert done.time_ps.size == 0
    assert done.notes == [{"zero_device_ps": None, "latest_ps": 0, "host_utc_ns": 0, "ledger": done.notes[0]["ledger"]}]
    assert done.notes[0]["ledger"] == {"seen": 0, "recorded": 0, "dropped": {}, "missed": None}


def test_what_the_hardware_says_it_missed_is_counted_and_is_a_gap(acquire):
    first, second, third = (block_of([t * PS], [1], missed=m) for t, m in ((10, 0), (11, 42), (12, 0)))
    done = acquire([first, second, third])
    zero_ps = done.notes[-1]["zero_device_ps"]
    assert done.notes[-1]["ledger"]["missed"] == 42
    assert done.gaps == [(10 * PS - zero_ps, 11 * PS - zero_ps, 42, b"lost by the tagger")]


def test_what_the_decoder_had_to_repair_is_a_gap_with_its_reason(acquire):
    notes = ("dropped words whose times go back or jump (16 bytes before word 70)",)
    blocks = [block_of([10 * PS], [1]), block_of([11 * PS, 12 * PS], [1, 2], notes=notes), block_of([13 * PS], [1])]
    done = acquire(blocks)
    zero_ps = done.notes[-1]["zero_device_ps"]
    assert done.gaps == [(10 * PS - zero_ps, 12 * PS - zero_ps, -1, notes[0].encode())]


def test_a_gap_is_published_no_later_than_the_first_tag_behind_its_start(acquire):
    """Else an analysis that follows would have used what a replay leaves out."""
    blocks = [block_of([(10 + n) * PS], [1], notes=("repaired",) if n in (3, 4) else ()) for n in range(8)]
    done = acquire(blocks, in_step=True)
    seen_to_ps = 0
    for segment in done.segments:
        for start_ps in segment.tables.get("gaps", {}).get("start_ps", []):
            assert start_ps >= seen_to_ps
        seen_to_ps = int(segment.tables["tags"]["time_ps"][-1]) if segment.rows["tags"] else seen_to_ps
    assert len(done.gaps) == 2


def a_few_seconds(with_pps=True, seconds=4, block_s=0.05, device_zero_ps=4321 * PS):
    """Blocks of 50 ms with a click each, and the 1PPS on inputs 3 and 4 at whole seconds."""
    blocks = []
    for number in range(round(seconds / block_s)):
        start_ps = device_zero_ps + round(number * block_s * PS)
        time_ps, pattern = [start_ps + 1_000], [1]
        if with_pps and number % round(1 / block_s) == 0:
            time_ps, pattern = [start_ps, *time_ps], [0b1100, *pattern]
        blocks.append(block_of(time_ps, pattern, latest_ps=start_ps + round(block_s * PS) - 1))
    return blocks


def test_the_first_pulse_gets_its_utc_second_and_every_later_segment_says_so(acquire):
    done = acquire(a_few_seconds(seconds=25))
    labelled = ["utc_label" in notes for notes in done.notes]
    assert labelled == sorted(labelled)
    assert labelled[-1]
    label = done.notes[-1]["utc_label"]
    assert label == {"time_ps": PS, "utc_ns": START_UTC_NS, "uncertainty_s": 1e-6}
    assert all(notes["utc_label"] == label for notes, has in zip(done.notes, labelled, strict=True) if has)


def test_without_a_pulse_there_is_no_label(acquire):
    done = acquire(a_few_seconds(with_pps=False))
    assert not any("utc_label" in notes for notes in done.notes)
    assert not done.statuses[-1].read_until_utc_ns


def test_the_operator_sees_rates_and_totals(acquire):
    done = acquire(a_few_seconds(seconds=3))
    last = done.statuses[-1]
    assert last.tags == 63
    assert last.dropped == 0
    assert set(last.counts_hz) == set(CHANNELS)
    assert max(status.counts_hz["H"] for status in done.statuses) == pytest.approx(20, rel=0.1)
    assert 0 <= last.acknowledge_p50_s <= last.acknowledge_p99_s <= last.acknowledge_s < 60
