"""Which tags of two sorted runs lie within a window of each other.

Nothing is merged. B's tags are written into a table by their coarse time, A's tags look themselves up: two sequential
sweeps over arrays that stay in cache, without a comparison per tag that the processor would have to guess. That is why
it beats the merge by a stable sort, which tests/benchmarks/bench_coincidence.py keeps as a rival.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import require_sorted

_CHUNK = 1 << 16  # tags of one stream worked on at once
_BUCKETS = 1 << 18  # four per tag of a full chunk: few hold two tags
_WALK = 3  # steps back inside a bucket before a binary search is cheaper


class Found(NamedTuple):
    """Pairs as places in A and in B, by A's order and then B's."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]


NOTHING_FOUND = Found(np.empty(0, np.int64), np.empty(0, np.int64))


def pairs_within(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], reach_ps: int) -> Iterator[Found]:
    """All pairs with |b - a| <= `reach_ps` (0 to 2^60), chunk by chunk in A's order; all pairs of a tag of A in one.

    Times are int64 within +-2^62. Raises UnsortedTags, at the latest at the end.
    """
    if a_ps.size == 0 or b_ps.size == 0:
        require_sorted(a_ps)
        require_sorted(b_ps)
        return
    cuts, low, high = _cut(a_ps, b_ps, reach_ps)
    table = _Table(reach_ps, int(np.diff(cuts).max()), max(1, int((high - low).max())))
    checked = 0
    edges = zip(cuts[:-1].tolist(), cuts[1:].tolist(), low.tolist(), high.tolist(), strict=True)
    for start, stop, first, end in edges:
        _refuse_unsorted(a_ps, max(start - 1, 0), stop)
        _refuse_unsorted(b_ps, max(checked - 1, 0), end)
        checked = max(checked, end)
        if end > first:
            found = table.find(a_ps[start:stop], b_ps[first:end])
            yield Found(np.add(found.a, start, out=found.a), np.add(found.b, first, out=found.b))
    _refuse_unsorted(b_ps, max(checked - 1, 0), b_ps.size)


def _cut(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], reach_ps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Edges of the chunks in A, and for each chunk where its part of B begins and ends.

    A chunk holds at most _CHUNK tags of A and, apart from the windows at its ends, about twice that of B.
    """
    cuts = np.append(np.arange(0, a_ps.size, _CHUNK), a_ps.size)
    part_of_b = np.diff(np.searchsorted(b_ps, a_ps[cuts[:-1]]), append=b_ps.size)
    finer = np.searchsorted(a_ps, b_ps[_CHUNK::_CHUNK])
    finer = finer[part_of_b[np.searchsorted(cuts, np.maximum(finer, 1)) - 1] > 2 * _CHUNK]
    cuts = np.unique(np.concatenate((cuts, finer)))
    low = np.searchsorted(b_ps, a_ps[cuts[:-1]] - reach_ps)
    high = np.searchsorted(b_ps, a_ps[cuts[1:] - 1] + reach_ps, side="right")
    return cuts, low, high


class _Table:
    """The buckets and the buffers of one search, for chunks up to `largest_a` and `largest_b` tags.

    An entry is the end of a window of B and the place of its tag, packed as `(b + reach) << bits | place`, so that
    one gather and one subtraction give A's tags both. The shift drops the high bits of the time; entries are compared
    with tags up to 2^62 >> bits picoseconds later only, and the table is emptied before they grow older than that.
    """

    def __init__(self, reach_ps: int, largest_a: int, largest_b: int) -> None:
        self._reach_ps = reach_ps
        self._bits = largest_b.bit_length()
        self._bucket = np.empty(_BUCKETS, np.int64)
        self._emptied_ps: int | None = None
        self._places = np.arange(largest_b) + (reach_ps << self._bits if reach_ps < _longest(self._bits) else 0)
        self._b = np.empty((2, largest_b), np.int64)
        self._b_flag = np.empty(largest_b, bool)
        self._a = np.empty((2, largest_a), np.int64)
        self._a_flag = np.empty(largest_a, bool)

    def find(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Found:
        """All pairs of one chunk; `b` holds the windows of `a` and nothing beyond."""
        reach_ps, bits = self._reach_ps, self._bits
        zero_ps = int(a[0]) - 2 * reach_ps
        span_ps = int(a[-1]) + 2 * reach_ps - zero_ps
        if span_ps >= _longest(bits):  # less than some thousand tags a second, or a window of seconds
            after = np.searchsorted(b, a + reach_ps, side="right")
            return in_order(_earlier(a, b, np.arange(a.size), after, reach_ps))
        if self._emptied_ps is None or int(a[-1]) + 2 * reach_ps - self._emptied_ps >= _longest(bits):
            self._emptied_ps = zero_ps
            self._bucket.fill(_wrapped((zero_ps - 1) << bits))
        bucket_bits = max((2 * reach_ps).bit_length(), (span_ps // _BUCKETS).bit_length())
        self._write(b, zero_ps, bucket_bits)
        near, key = self._look_up(a, zero_ps, bucket_bits)
        return self._settle(a, b, near, key)

    def _write(self, b: NDArray[np.int64], zero_ps: int, bucket_bits: int) -> None:
        """Leave in each bucket that B's windows touch the last tag to do so.

        A window is no wider than a bucket, so it touches one or two. Where several tags share a bucket the last one
        written stays: upper ends first, since whoever ends in a bucket comes before whoever begins there.
        """
        entry, start = self._b[:, : b.size]
        two = self._b_flag[: b.size]
        size = 1 << bucket_bits
        np.subtract(b, zero_ps + self._reach_ps, out=start)
        np.bitwise_and(start, size - 1, out=entry)
        np.greater_equal(entry, size - 2 * self._reach_ps, out=two)
        np.right_shift(start, bucket_bits, out=start)
        np.left_shift(b, self._bits, out=entry)
        np.add(entry, self._places[: b.size], out=entry)
        both = two.nonzero()[0]
        self._bucket[start.take(both) + 1] = entry.take(both)
        self._bucket[start] = entry

    def _look_up(
        self, a: NDArray[np.int64], zero_ps: int, bucket_bits: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tags of A that may have a pair; for each `(b - a + reach) << bits | place` of the last tag in its bucket."""
        entry, key = self._a[:, : a.size]
        may = self._a_flag[: a.size]
        np.subtract(a, zero_ps, out=key)
        np.right_shift(key, bucket_bits, out=key)
        self._bucket.take(key, out=entry, mode="clip")
        np.left_shift(a, self._bits, out=key)
        np.subtract(entry, key, out=key)
        latest = ((1 << bucket_bits) + 2 * self._reach_ps + 1) << self._bits
        np.less(key.view(np.uint64), np.uint64(latest), out=may)
        near = may.nonzero()[0]
        return near, key.take(near)

    def _settle(
        self, a: NDArray[np.int64], b: NDArray[np.int64], near: NDArray[np.int64], key: NDArray[np.int64]
    ) -> Found:
        """The pairs of the tags in question. Most have one and the table named it; the others are looked at again."""
        reach_ps = self._reach_ps
        place = key & ((1 << self._bits) - 1)
        late = key >= (2 * reach_ps + 1) << self._bits  # the last tag of the bucket comes after the window
        time = a.take(near)
        before = b.take(place - 1, mode="clip") - time
        again = ((before >= -reach_ps) & (place > 0)).nonzero()[0]
        if again.size:
            hidden = again[late[again]]
            place[hidden] = _last_in_window(b, time[hidden], place[hidden] - 1, reach_ps)
            late[hidden] = (b.take(place[hidden], mode="clip") < time[hidden] - reach_ps) | (place[hidden] < 0)
        inside = (~late).nonzero()[0]
        first = Found(near.take(inside), place.take(inside))
        again = again[~late[again]]
        return in_order([first, *_earlier(a, b, near[again], place[again], reach_ps)])


def _longest(bits: int) -> int:
    """The time that still fits beside a place of so many bits."""
    return 1 << (62 - bits)


def _wrapped(number: int) -> int:
    """The low 64 bits as a signed integer, as an int64 would keep them."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _last_in_window(
    b: NDArray[np.int64], time: NDArray[np.int64], place: NDArray[np.int64], reach_ps: int
) -> NDArray[np.int64]:
    """The place of the last tag of B at or before `time + reach_ps`, which is `place` or shortly before; -1: none."""
    late = (b.take(place, mode="clip") - time > reach_ps).nonzero()[0]
    for _ in range(_WALK):
        if late.size == 0:
            return place
        place[late] -= 1
        late = late[(b.take(place[late], mode="clip") - time[late] > reach_ps) & (place[late] >= 0)]
    place[late] = np.searchsorted(b, time[late] + reach_ps, side="right") - 1
    return place


def _earlier(
    a: NDArray[np.int64], b: NDArray[np.int64], near: NDArray[np.int64], place: NDArray[np.int64], reach_ps: int
) -> list[Found]:
    """The pairs of tags of A with tags of B before `place`, back to the beginning of each window."""
    parts = []
    while near.size:
        place = place - 1
        inside = ((b.take(place, mode="clip") >= a.take(near) - reach_ps) & (place >= 0)).nonzero()[0]
        near, place = near.take(inside), place.take(inside)
        parts.append(Found(near, place))
    return parts


def in_order(parts: list[Found]) -> Found:
    """The pairs by A and then B; each part is in A's order already. Places are below 2^31."""
    parts = [part for part in parts if part.a.size]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NOTHING_FOUND
    bits = max(int(part.b.max()) for part in parts).bit_length()
    packed = np.concatenate([part.a << bits | part.b for part in parts])
    packed.sort(kind="stable")
    return Found(packed >> bits, packed & ((1 << bits) - 1))


def _refuse_unsorted(time_ps: NDArray[np.int64], start: int, stop: int) -> None:
    """Check one part while it is in cache; if it fails, name the first step of the whole."""
    if np.less(time_ps[start + 1 : stop], time_ps[start : max(stop - 1, start)]).any():
        require_sorted(time_ps)
