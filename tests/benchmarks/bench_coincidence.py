"""How fast pairs, patterns and merging are, in tags per second and in units of numpy's own copy, beside rivals.

Run as `python tests/benchmarks/bench_coincidence.py`. Rows of numba and pytimetag appear where they are installed.
Every row does the same work on the same arrays, in turns with the others so that all see the same machine, each time
after an untimed run of the same so that its memory is in place; the figure is CPU time, median of seven, on one core.
"x copy" is that time per tag over the time per element of `np.copyto` of ten million int64 in the same process: it
moves far less with the load of the machine than tags per second do.

What it decided: for two separate streams the table of buckets (core/window_search.py) takes 7 to 9 x copy where the
merge by a stable sort, kept here as `pairs_by_merging`, takes 11 to 16: a merge guesses once per tag which stream comes
next, and is wrong half of the time. Of chunks of 2^14 to 2^17 tags with 2 to 16 buckets to a tag, 2^16 with 8 was best,
with numbers of 32 bits in the buckets; packing time and place into one entry of 64 bits saves a gather and costs twice
the cache.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from groundstation.core.coincidence import MergedPairs, merged_pairs, pairs
from groundstation.core.filters import DeadTimeFilter, DelayCompensation
from groundstation.core.merging import merge
from groundstation.core.patterns import Pattern, PatternCoincidences
from groundstation.core.tags import TagBlock

SPAN_PS = 10 * 10**12
HALF_WINDOW_PS = 1000
TWO_FOLD = [Pattern((i, j)) for i in range(8) for j in range(i + 1, 8)]


class Row(NamedTuple):
    """One measured way to do a work: CPU seconds per run, tags, and what it found."""

    name: str
    seconds: float
    copy_seconds: float
    tags: int
    found: int

    @property
    def mtags_per_s(self) -> float:
        return self.tags / self.seconds / 1e6

    @property
    def copies(self) -> float:
        return self.seconds / self.copy_seconds


def two_streams(seed=20, count=5_000_000):
    """A and B of W1: a fifth of A's tags have a partner in B, 300 ps apart (rms); all else is uniform over 10 s."""
    rng = np.random.default_rng(seed)
    a = np.sort(rng.integers(0, SPAN_PS, count), kind="stable")
    partners = count // 5
    jitter = np.rint(rng.normal(0, 300, partners)).astype(np.int64)
    b = np.concatenate((rng.choice(a, partners, replace=False) + jitter, rng.integers(0, SPAN_PS, count - partners)))
    return a, np.sort(b, kind="stable")


def merged_stream(a, b):
    """W1m: channels 0 and 1 of one stream."""
    return merge([TagBlock(a, np.zeros(a.size, np.uint8)), TagBlock(b, np.ones(b.size, np.uint8))])


def eight_channels(seed=8, events=400_000, noise=1_050_000):
    """W8: ten million tags on eight channels; each of 400,000 events is seen by every channel with probability 1/2."""
    rng = np.random.default_rng(seed)
    event = rng.integers(0, SPAN_PS, events)
    blocks = []
    for channel in range(8):
        seen = event[rng.random(events) < 0.5]
        seen = seen + np.rint(rng.normal(0, 300, seen.size)).astype(np.int64)
        time_ps = np.sort(np.concatenate((seen, rng.integers(0, SPAN_PS, noise))), kind="stable")
        blocks.append(TagBlock(time_ps, np.full(time_ps.size, channel, np.uint8)))
    return blocks


def pairs_by_merging(a, b, half_window_ps, chunk=1 << 15):
    """The rival: each chunk of both streams packed as time and index, merged by a stable sort, neighbours compared."""
    found = []
    starts = np.arange(0, a.size, chunk)
    low = np.searchsorted(b, a[starts] - half_window_ps)
    high = np.searchsorted(b, a[np.minimum(starts + chunk, a.size) - 1] + half_window_ps, side="right")
    largest = chunk + int((high - low).max())
    packed, step, place = np.empty(largest, np.int64), np.empty(largest, np.int64), np.arange(largest)
    for start, first, end in zip(starts.tolist(), low.tolist(), high.tolist(), strict=True):
        one, other = a[start : start + chunk], b[first:end]
        size, bits = one.size + other.size, (one.size + other.size).bit_length()
        both = packed[:size]
        zero = min(int(one[0]), int(other[0]) if other.size else int(one[0]))
        np.subtract(one, zero, out=both[: one.size])
        np.subtract(other, zero, out=both[one.size :])
        np.left_shift(both, bits, out=both)
        np.bitwise_or(both, place[:size], out=both)
        both.sort(kind="stable")
        near = np.flatnonzero(np.subtract(both[1:], both[:-1], out=step[: size - 1]) < (half_window_ps + 1) << bits)
        lag, mask = 1, (1 << bits) - 1
        while near.size:
            near = near[near + lag < size]
            early, late = both[near], both[near + lag]
            close = (late >> bits) - (early >> bits) <= half_window_ps
            i, j = early & mask, late & mask
            mixed = close & ((i < one.size) != (j < one.size))
            i, j = i[mixed], j[mixed]
            found.append((np.minimum(i, j) + start, np.maximum(i, j) - one.size + first))
            near, lag = near[close], lag + 1
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def with_numba():
    """A two-pointer loop compiled by numba, or None where it is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    @numba.njit
    def loop(a, b, half_window_ps, index_a, index_b):
        count = low = 0
        for i in range(a.size):
            while low < b.size and b[low] < a[i] - half_window_ps:
                low += 1
            j = low
            while j < b.size and b[j] <= a[i] + half_window_ps:
                index_a[count], index_b[count] = i, j
                count += 1
                j += 1
        return count

    def run(a, b, half_window_ps):
        index_a, index_b = np.empty(a.size, np.int64), np.empty(a.size, np.int64)
        count = loop(a, b, half_window_ps, index_a, index_b)
        return index_a[:count], index_b[:count]

    run(np.arange(4), np.arange(4), 0)
    return run


def with_pytimetag(a, b, half_window_ps):
    """pytimetag's histogram over the window (it counts, and gives no indices), or None where it is not installed."""
    if importlib.util.find_spec("pytimetag") is None:
        return None
    from pytimetag import DataBlock, HistogramAnalyser

    analyser = HistogramAnalyser(2)
    settings = {"Sync": 0, "Signals": [1], "ViewStart": -half_window_ps, "ViewStop": half_window_ps}
    analyser.turnOn({**settings, "BinCount": 20, "Divide": 1})
    block = DataBlock.create([a, b], 0, 0, SPAN_PS)
    return lambda: int(np.sum(analyser.dataIncome(block)["Histograms"][0]))


def measure(works: dict[str, tuple[int, Callable[[], int]]], repetitions: int = 7) -> list[Row]:
    """Run each work (tags, function that returns what it found) in turns; medians."""
    source = np.arange(10_000_000)
    target = np.empty_like(source)
    spent: dict[str, list[float]] = {name: [] for name in works}
    copying, found = [], {}
    for name, (_, work) in works.items():
        found[name] = work()
    for _ in range(repetitions):
        for name, (_, work) in works.items():
            work()
            begin = time.process_time()
            np.copyto(target, source)
            middle = time.process_time()
            work()
            spent[name].append(time.process_time() - middle)
            copying.append(middle - begin)
    copy_seconds = float(np.median(copying)) / source.size
    return [
        Row(name, float(np.median(spent[name])), copy_seconds * tags, tags, found[name])
        for name, (tags, _) in works.items()
    ]


def pair_works(a, b):
    """Two separate streams (W1) and the same merged (W1m)."""
    both, count = merged_stream(a, b), a.size + b.size

    def stage():
        pairs_along = MergedPairs(0, 1, HALF_WINDOW_PS)
        return pairs_along.feed(both).index_a.size + pairs_along.finish().index_a.size

    works = {
        "W1  pairs": (count, lambda: pairs(a, b, HALF_WINDOW_PS)[0].size),
        "W1  pairs, nearest": (count, lambda: pairs(a, b, HALF_WINDOW_PS, "nearest")[0].size),
        "W1  pairs, one to one": (count, lambda: pairs(a, b, HALF_WINDOW_PS, "one_to_one")[0].size),
        "W1  rival: merge by stable sort": (count, lambda: pairs_by_merging(a, b, HALF_WINDOW_PS)[0].size),
        "W1m merged_pairs": (count, lambda: merged_pairs(both, 0, 1, HALF_WINDOW_PS)[0].size),
        "W1m MergedPairs, times and channels too": (count, stage),
    }
    two_pointers, histogram = with_numba(), with_pytimetag(a, b, HALF_WINDOW_PS)
    if two_pointers is not None:
        works["W1  numba, two pointers"] = (count, lambda: two_pointers(a, b, HALF_WINDOW_PS)[0].size)
    if histogram is not None:
        works["W1  pytimetag, histogram only"] = (count, histogram)
    return works


def dense_works(count=500_000, spacing_ps=1000):
    """A million tags with ten others in every window: greedy pairing is one long chain."""
    rng = np.random.default_rng(10)
    a, b = (np.cumsum(rng.integers(0, 2 * spacing_ps, count)) for _ in range(2))
    half_window_ps = 10 * spacing_ps
    return {
        "    dense one to one, window 10 x spacing": (
            2 * count,
            lambda: pairs(a, b, half_window_ps, "one_to_one")[0].size,
        )
    }


def stream_works(blocks):
    """Patterns over eight channels, merging, filters."""
    stream = merge(blocks)
    count = stream.time_ps.size

    def patterns():
        stage = PatternCoincidences(range(8), HALF_WINDOW_PS, TWO_FOLD)
        stage.feed(stream)
        stage.finish()
        return int(stage.counts.sum())

    def compensated():
        stage = DelayCompensation({channel: 700 * channel for channel in range(8)})
        return stage.feed(stream).time_ps.size + stage.finish().time_ps.size

    two = [merge(blocks[:4]), merge(blocks[4:])]
    dead_times = dict.fromkeys(range(8), 50_000)
    return {
        "W8  28 patterns of 8 channels": (count, patterns),
        "    merge of 2 streams": (count, lambda: merge(two).time_ps.size),
        "    merge of 8 streams": (count, lambda: merge(blocks).time_ps.size),
        "    dead time of 50 ns, 8 channels": (count, lambda: DeadTimeFilter(dead_times).feed(stream).time_ps.size),
        "    delays of 8 channels": (count, compensated),
    }


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = measure(pair_works(*two_streams())) + measure(dense_works()) + measure(stream_works(eight_channels()))
    lines = [f"{row.name:42s} {row.mtags_per_s:6.0f} Mtags/s {row.copies:6.1f} x copy {row.found:12,d}" for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
