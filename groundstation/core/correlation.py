"""Histograms of the delay between two channels: of two sorted streams, or of one merged stream as it grows.

The pairs are found by `delay_search`, without a search per tag. Measured by tests/benchmarks/compare.py (W3).
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.delay_search import FAR, PIECE, SPAN_PS, Walk, tiles
from groundstation.core.tags import EMPTY_BLOCK, TagBlock, concatenate, require_sorted
from groundstation.core.window_search import Buckets

_LARGEST_RANGE_PS = 1 << 56

Int64s = NDArray[np.int64]


class DelayHistogram(NamedTuple):
    """Counts by delay: `counts[k]` (n,) int64 holds the delays d with
    first_edge_ps + k bin_ps <= d < first_edge_ps + (k + 1) bin_ps, in integers."""

    counts: Int64s
    first_edge_ps: int
    bin_ps: int

    @property
    def edges_ps(self) -> Int64s:
        """The n + 1 edges of the bins."""
        return self.first_edge_ps + self.bin_ps * np.arange(self.counts.size + 1, dtype=np.int64)

    @property
    def centres_ps(self) -> NDArray[np.float64]:
        """The middle between the edges of each bin (n,); the delays inside are whole picoseconds."""
        centres: NDArray[np.float64] = self.edges_ps[:-1] + np.float64(0.5 * self.bin_ps)
        return centres


def correlate(a_ps: Int64s, b_ps: Int64s, half_range_ps: int, bin_ps: int) -> DelayHistogram:
    """Histogram of t_b - t_a over all pairs of two sorted streams, (n,) and (m,) int64 of any size.

    The bins run from -half_range_ps (included) to +half_range_ps (excluded); half_range_ps is a whole number of
    bins, so that 0 begins a bin. Equal arrays give every tag paired with itself: see `autocorrelate`. The cost is
    proportional to tags plus pairs, the memory to neither. Raises UnsortedTags, and ValueError for the bins.
    """
    _check_bins(half_range_ps, bin_ps)
    counts = np.zeros(2 * half_range_ps // bin_ps + 1, np.int64)

    def add(distance: Int64s) -> None:
        """Distances a - b; those beyond the range go to one more bin at the end."""
        np.subtract(half_range_ps, distance, out=distance)
        np.floor_divide(distance, bin_ps, out=distance)
        unsigned = distance.view(np.uint64)
        np.minimum(unsigned, counts.size - 1, out=unsigned)
        counts[:] += np.bincount(distance, minlength=counts.size)

    walk = Walk(add, counts.size)
    buckets = Buckets(half_range_ps, min(PIECE, max(a_ps.size, 1)), min(2 * PIECE, max(b_ps.size, 1)))

    def search(distance: Int64s, place: Int64s) -> None:
        np.add(distance, half_range_ps, out=distance)
        buckets.search(place, distance)
        np.subtract(distance, half_range_ps, out=distance)

    for a, b in tiles(a_ps, b_ps, half_range_ps):
        if not buckets.load(b[1:]):
            require_sorted(b_ps)
        reach_ps = int(a[-1]) - int(a[0]) + 2 * half_range_ps
        if b.size * 2 * half_range_ps > a.size * reach_ps:  # fewer tags of a than partners for each
            low, high = b.searchsorted(a - half_range_ps), b.searchsorted(a + half_range_ps)
            walk.one_by_one(a, b, low, high)
        else:
            _, place, distance = buckets.named(a, b[1:])
            np.subtract(distance, half_range_ps, out=distance)
            walk.back(distance, place, buckets.steps, half_range_ps, search)
    walk.flush()
    return DelayHistogram(counts[:-1], -half_range_ps, bin_ps)


def autocorrelate(time_ps: Int64s, half_range_ps: int, bin_ps: int) -> DelayHistogram:
    """Histogram of t_j - t_i over all ordered pairs of different tags i, j of one sorted stream (n,)."""
    stage = Correlation(0, 0, half_range_ps, bin_ps)
    stage.feed(TagBlock(time_ps, np.zeros(time_ps.size, np.uint8)))
    return stage.histogram


class Correlation:
    """The delays from channel a to channel b of a merged stream; one channel with itself when both are the same.

    `which`: "all" counts every pair, with bins from -half_range_ps to +half_range_ps as in `correlate`;
    "start_stop" counts a tag of b only when the tag before it, of these two channels, is of a: bins from 0 to
    half_range_ps, tags of equal time in the order of the stream. `histogram` is exact after every feed and does
    not depend on how the stream is cut. Memory: the tags of the last half_range_ps.
    """

    def __init__(
        self,
        channel_a: int,
        channel_b: int,
        half_range_ps: int,
        bin_ps: int,
        which: Literal["all", "start_stop"] = "all",
    ) -> None:
        _check_bins(half_range_ps, bin_ps)
        if which not in ("all", "start_stop"):
            raise ValueError(f"which pairs to count must be 'all' or 'start_stop', not {which!r}")
        self._channels = (channel_a, channel_b)
        self._half_range_ps = half_range_ps
        self._bin_ps = bin_ps
        self._which = which
        self._table = np.zeros(4 * (half_range_ps // bin_ps + 2), np.int64)
        self._walk = Walk(self._add, self._table.size)
        self._tail = EMPTY_BLOCK
        self._packed = np.empty(0, np.int64)
        self._steps = np.empty(0, np.int64)
        self.tags_a = 0
        self.tags_b = 0
        self.first_ps: int | None = None
        self.last_ps: int | None = None

    def feed(self, block: TagBlock) -> None:
        """Count the pairs whose later tag is in the block, which continues the stream; UnsortedTags if not."""
        require_sorted(block.time_ps, self.last_ps)
        if block.time_ps.size == 0:
            return
        for start in range(0, block.time_ps.size, PIECE):
            part = slice(start, start + PIECE)
            self._select(block.time_ps[part], block.channel[part])
        self._walk.flush()
        self.first_ps = int(block.time_ps[0]) if self.first_ps is None else self.first_ps
        self.last_ps = int(block.time_ps[-1])

    def finish(self) -> DelayHistogram:
        """The histogram; no pair is pending."""
        return self.histogram

    @property
    def histogram(self) -> DelayHistogram:
        """The pairs counted so far."""
        bins = self._half_range_ps // self._bin_ps
        table = self._table.reshape(-1, 4)
        forward = table[1 : bins + 1, 0 if self._channels[0] == self._channels[1] else 1]
        if self._which == "start_stop":
            return DelayHistogram(forward.copy(), 0, self._bin_ps)
        counts = np.zeros(2 * bins, np.int64)
        counts[bins:] = forward
        counts[bins] += table[0, 3]
        counts[:bins] += table[bins:0:-1, 3]
        return DelayHistogram(counts, -self._half_range_ps, self._bin_ps)

    @property
    def duration_ps(self) -> int:
        """From the first to the last tag of any channel."""
        return 0 if self.first_ps is None or self.last_ps is None else self.last_ps - self.first_ps

    def _select(self, time_ps: Int64s, channel: NDArray[np.uint8]) -> None:
        """Keep the two channels (code 0 is a, code 1 is b), and cut where a piece would span too much."""
        is_a, is_b = channel == self._channels[0], channel == self._channels[1]
        count_a, count_b = int(np.count_nonzero(is_a)), int(np.count_nonzero(is_b))
        self.tags_a += count_a
        self.tags_b += count_b
        same = self._channels[0] == self._channels[1]
        code = np.zeros(channel.size, np.uint8) if same else is_b.view(np.uint8)
        if count_a + (not same) * count_b < channel.size:
            wanted = np.flatnonzero(is_a | is_b)
            time_ps, code = time_ps[wanted], code[wanted]
        while time_ps.size:
            limit = int(time_ps[0]) + SPAN_PS
            stop = time_ps.size if int(time_ps[-1]) <= limit else int(np.searchsorted(time_ps, limit, side="right"))
            self._count(time_ps[:stop], code[:stop])
            time_ps, code = time_ps[stop:], code[stop:]

    def _count(self, time_ps: Int64s, code: NDArray[np.uint8]) -> None:
        """Pair each tag with those before it.

        Times are packed as 4 t + code: a difference of packed times is 4 dt for tags of one channel, 4 dt + 1
        from a to b and 4 dt - 1 from b to a, so the pairs need no look at the channels.
        """
        reach_ps = max(int(time_ps[0]) - self._half_range_ps, -(2**63))
        first = int(np.searchsorted(self._tail.time_ps, reach_ps))
        if self._which == "start_stop":
            first = max(0, self._tail.time_ps.size - 1)
        old = self._tail.time_ps.size - first
        if old and int(time_ps[-1]) - int(self._tail.time_ps[first]) > 2 * SPAN_PS:
            first, old = self._tail.time_ps.size, 0
        size = old + time_ps.size
        if size > self._packed.size:
            self._packed, self._steps = np.empty(2 * size, np.int64), np.empty(2 * size, np.int64)
        packed, steps = self._packed[:size], self._steps[:size]
        base_ps = self._tail.time_ps[first] if old else time_ps[0]
        np.subtract(self._tail.time_ps[first:], base_ps, out=packed[:old])
        np.subtract(time_ps, base_ps, out=packed[old:])
        np.left_shift(packed, 2, out=packed)
        np.add(packed[:old], self._tail.channel[first:], out=packed[:old])
        np.add(packed[old:], code, out=packed[old:])
        np.subtract(packed[1:], packed[:-1], out=steps[1:])
        steps[0] = FAR
        limit = 4 * self._half_range_ps + 1
        later = np.flatnonzero(steps[old:] <= limit)
        later += old
        if self._which == "start_stop":
            self._walk.emit(steps[later])
        elif size - int(packed.searchsorted(packed[-1] - limit)) > later.size:  # fewer tags than partners for each
            self._walk.one_by_one(packed[later], packed, packed.searchsorted(packed[later] - limit), later)
        else:
            self._walk.back(steps[later], later - 1, steps, limit)
        self._keep(time_ps, code, first)

    def _keep(self, time_ps: Int64s, code: NDArray[np.uint8], first: int) -> None:
        """Hold the tags with which a later tag can still pair."""
        if self._which == "start_stop":
            begin = time_ps.size - 1
        else:
            begin = int(np.searchsorted(time_ps, int(time_ps[-1]) - self._half_range_ps))
        fresh = TagBlock(time_ps[begin:].copy(), code[begin:].copy())
        old = TagBlock(self._tail.time_ps[first:], self._tail.channel[first:])
        self._tail = fresh if begin else concatenate([old, fresh])

    def _add(self, packed: Int64s) -> None:
        """Tally by bin and kind of pair; pairs of one channel count forwards and backwards."""
        if self._channels[0] == self._channels[1]:
            self._tally(packed - 1)
        self._tally(packed)

    def _tally(self, packed: Int64s) -> None:
        """Row 1 + floor(packed / 4 bins), column the kind. Rounding 4 dt - 1 down finds the bin of -dt."""
        kind = packed & 3
        np.floor_divide(packed, 4 * self._bin_ps, out=packed)
        np.add(packed, 1, out=packed)
        np.left_shift(packed, 2, out=packed)
        np.add(packed, kind, out=packed)
        self._table += np.bincount(packed, minlength=self._table.size)


def _check_bins(half_range_ps: int, bin_ps: int) -> None:
    if bin_ps < 1 or half_range_ps < bin_ps or half_range_ps % bin_ps or half_range_ps > _LARGEST_RANGE_PS:
        raise ValueError(
            f"half_range_ps must be a whole number of bins, at least one and at most 2^56 ps: "
            f"found half_range_ps = {half_range_ps}, bin_ps = {bin_ps}"
        )
