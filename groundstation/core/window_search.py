"""Which tags of two sorted runs lie within a window of each other.

Nothing is merged. B's tags are written into a table by their coarse time, A's tags look themselves up: two sequential
sweeps over arrays that stay in cache, without a comparison per tag that the processor would have to guess. That is why
it beats the merge by a stable sort, which tests/benchmarks/bench_coincidence.py keeps as a rival.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import require_sorted

_CHUNK = 1 << 16  # tags of one stream worked on at once
_BUCKETS_PER_TAG = 8  # few hold two tags; more of them no longer fit the cache
_WALK = 3  # steps back inside a bucket before a binary search is cheaper
_FEW = 64  # pairs that are cheaper to insert than to sort
_LONGEST_PS = 1 << 61  # span of a chunk whose differences stay inside int64
_FAR_PS = 1 << 62  # beyond any window, and what is negative comes back inside int64


class Found(NamedTuple):
    """Pairs as places in A and in B, by A's order and then B's."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]


NOTHING_FOUND = Found(np.empty(0, np.int64), np.empty(0, np.int64))


def pairs_within(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], reach_ps: int) -> Iterator[Found]:
    """All pairs with |b - a| <= `reach_ps` (0 to 2^60), chunk by chunk in A's order; all pairs of a tag of A in one.

    Times are int64 within +-2^62. Raises UnsortedTags, at the latest at the end.
    """
    for start, first, a, b, buckets in _chunks(a_ps, b_ps, reach_ps):
        found = _pairs(buckets, a, b, reach_ps)
        yield Found(np.add(found.a, start, out=found.a), np.add(found.b, first - 1, out=found.b))


def windows_within(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], reach_ps: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """The same without naming every pair: tags of A that have any, and for each the first and the last of B."""
    for start, place, a, b, buckets in _chunks(a_ps, b_ps, reach_ps):
        near, first, last = _windows(buckets, a, b, reach_ps)
        yield near + start, first + (place - 1), last + (place - 1)


def _chunks(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], reach_ps: int
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64], "Buckets"]]:
    """Parts of A, each with the part of B that its windows reach; where both begin. B's part is in the buckets."""
    if a_ps.size == 0 or b_ps.size == 0:
        require_sorted(a_ps)
        require_sorted(b_ps)
        return
    cuts, low, high = _cut(a_ps, b_ps, reach_ps)
    buckets = Buckets(reach_ps, int(np.diff(cuts).max()), max(1, int((high - low).max())))
    checked = 0
    edges = zip(cuts[:-1].tolist(), cuts[1:].tolist(), low.tolist(), high.tolist(), strict=True)
    for start, stop, first, end in edges:
        _refuse_unsorted(a_ps, max(start - 1, 0), stop)
        _refuse_unsorted(b_ps, max(checked - 1, 0), min(first + 1, b_ps.size))
        checked = max(checked, end)
        if end > first:
            if not buckets.load(b_ps[first:end]):
                require_sorted(b_ps)
            yield start, first, a_ps[start:stop], b_ps[first:end], buckets
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


class Buckets:
    """A table of B's tags by their coarse time, and the buffers of one search through chunk after chunk.

    A bucket keeps the number of its last tag of B and is at least as wide as a window, so the last tag in a window
    that ends in one bucket is named there or in the one before, or comes shortly before the one named. Where windows
    are narrow the few tags at the end of a bucket are also named in the next, and one look is enough. Numbers rise
    from chunk to chunk: those of earlier chunks are known by being small, and nothing needs to be emptied.
    """

    def __init__(self, reach_ps: int, largest_a: int, largest_b: int) -> None:
        """For chunks up to `largest_a` and `largest_b` tags."""
        narrow = np.int32 if largest_b < 1 << 30 else np.int64  # half the cache
        self._last_number = (1 << 31) - 1 if largest_b < 1 << 30 else (1 << 63) - 1
        self._reach_ps = reach_ps
        self._named = np.zeros(max(4, _BUCKETS_PER_TAG << (largest_a - 1).bit_length()), narrow)
        self._place, self._number = np.arange(1, largest_b + 1, dtype=narrow), np.empty(largest_b, narrow)
        self._earlier = 0  # the largest number that an earlier chunk can have given
        self._b = np.full(largest_b + 1, -1)  # place 0 is before all
        self._step = np.full(largest_b + 1, _FAR_PS)
        self._size = 0
        self._a, self._key = np.empty(largest_a, np.int64), np.empty(max(largest_a, largest_b), np.int64)
        self._found, self._found_before = np.empty(largest_a, narrow), np.empty(largest_a, narrow)
        self._flag = np.empty(self._key.size, bool)

    @property
    def steps(self) -> NDArray[np.int64]:
        """For places 0, 1, ... of the chunk's part of B, the time since the place before; far for the first."""
        return self._step[: self._size + 1]

    def load(self, b: NDArray[np.int64]) -> bool:
        """Take B's part of a chunk, which holds all windows of A's part. Whether it is sorted."""
        self._size = b.size
        return bool(np.subtract(b[1:], b[:-1], out=self._step[2 : b.size + 1]).min(initial=0) >= 0)

    def last(
        self, a: NDArray[np.int64], b: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Which tags of A have one of B in their window, the place of the last (from 1), and how far it is before the
        end of the window: 0 to 2 reach. `a` and `b` span less than 2^61; `b` is loaded."""
        near, place, before = self.named(a, b)
        self._step_back(place, before)
        inside = (before <= 2 * self._reach_ps).nonzero()[0]
        if inside.size < near.size:
            near, place, before = near.take(inside), place.take(inside), before.take(inside)
        return near, place, before

    def named(
        self, a: NDArray[np.int64], b: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The same of all tags of A with anything in their buckets: less than 0 for a tag of B after the window, which
        may hide one inside, more than 2 reach for one before it."""
        wide_ps = 2 * self._reach_ps
        span_ps = int(a[-1]) - int(a[0]) + wide_ps
        bits = max(wide_ps.bit_length(), (span_ps // (self._named.size - 3)).bit_length())
        zero_ps = int(a[0]) - self._reach_ps - (1 << bits)
        one_look = wide_ps << 2 <= 1 << bits
        self._write(b, zero_ps, bits, one_look)
        found = self._look_up(a, zero_ps, bits, one_look)
        self._earlier += b.size
        return found

    def search(self, place: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Where the place comes after the window, put the last that does not, or place 0, which is far before it."""
        late = (before < 0).nonzero()[0]
        if late.size == 0:
            return
        time, at = self._b[: self._size + 1], place.take(late)
        end = time.take(at) + before.take(late)
        at = np.searchsorted(time, end, side="right") - 1
        place[late], before[late] = at, np.where(at > 0, end - time.take(at), _FAR_PS)

    def _write(self, b: NDArray[np.int64], zero_ps: int, bits: int, one_look: bool) -> None:
        """Leave in each bucket the number of its last tag: the last one written stays."""
        if self._earlier > self._last_number - b.size:
            self._named.fill(0)
            self._earlier = 0
        number = np.add(self._place[: b.size], self._earlier, out=self._number[: b.size])
        time = np.subtract(b, zero_ps, out=self._b[1 : b.size + 1])
        if one_look:
            in_bucket = np.bitwise_and(time, (1 << bits) - 1, out=self._key[: b.size])
            at_end = np.greater_equal(in_bucket, (1 << bits) - 2 * self._reach_ps, out=self._flag[: b.size])
            twice = at_end.nonzero()[0]
            self._named[(time.take(twice) >> bits) + 1] = number.take(twice)
        self._named[np.right_shift(time, bits, out=self._key[: b.size])] = number

    def _look_up(
        self, a: NDArray[np.int64], zero_ps: int, bits: int, one_look: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Tags of A with anything in their buckets; the last place there, and its time before the window's end."""
        end = np.subtract(a, zero_ps - self._reach_ps, out=self._a[: a.size])
        key = np.right_shift(end, bits, out=self._key[: a.size])
        found = self._named.take(key, out=self._found[: a.size], mode="wrap")
        if not one_look:
            before = self._named.take(np.subtract(key, 1, out=key), out=self._found_before[: a.size], mode="wrap")
            np.maximum(found, before, out=found)
        near = np.greater(found, self._earlier, out=self._flag[: a.size]).nonzero()[0]
        place = np.subtract(found.take(near), self._earlier, dtype=np.int64)
        return near, place, end.take(near) - self._b.take(place, mode="wrap")

    def _step_back(self, place: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Where the bucket's last tag comes after the window go back to the last one that does not."""
        late = (before < 0).nonzero()[0]
        at, distance = place.take(late), before.take(late)
        for _ in range(_WALK):
            if late.size == 0:
                return
            distance += self._step.take(at, mode="wrap")
            at -= 1
            place[late], before[late] = at, distance
            still = (distance < 0).nonzero()[0]
            late, at, distance = late.take(still), at.take(still), distance.take(still)
        self.search(place, before)


def _pairs(buckets: Buckets, a: NDArray[np.int64], b: NDArray[np.int64], reach_ps: int) -> Found:
    """All pairs of one chunk; `b` is loaded. Places in B count from 1."""
    if int(a[-1]) - int(a[0]) + 2 * reach_ps >= _LONGEST_PS:
        return _one_by_one(a, b, reach_ps)
    near, place, before = buckets.last(a, b)
    parts = [Found(near, place)]
    while near.size:
        before = before + buckets.steps.take(place)
        inside = (before <= 2 * reach_ps).nonzero()[0]
        near, place, before = near.take(inside), place.take(inside) - 1, before.take(inside)
        parts.append(Found(near, place))
    return in_order(parts)


def _windows(
    buckets: Buckets, a: NDArray[np.int64], b: NDArray[np.int64], reach_ps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tags of A with a pair, the first and the last place of B in their window; `b` is loaded, places count from 1."""
    if int(a[-1]) - int(a[0]) + 2 * reach_ps >= _LONGEST_PS:
        first, last = b.searchsorted(a - reach_ps) + 1, b.searchsorted(a + reach_ps, side="right")
        near = (first <= last).nonzero()[0]
        return near, first.take(near), last.take(near)
    near, last, before = buckets.last(a, b)
    several = (before + buckets.steps.take(last) <= 2 * reach_ps).nonzero()[0]
    first = last.copy()
    first[several] = b.searchsorted(a.take(near.take(several)) - reach_ps) + 1
    return near, first, last


def _one_by_one(a: NDArray[np.int64], b: NDArray[np.int64], reach_ps: int) -> Found:
    """The same by binary search; places in B count from 1 here too."""
    low, high = b.searchsorted(a - reach_ps), b.searchsorted(a + reach_ps, side="right")
    count = high - low
    near = np.repeat(np.arange(a.size), count)
    place = np.arange(1, near.size + 1) + np.repeat(low - (count.cumsum() - count), count)
    return Found(near, place)


def in_order(parts: list[Found]) -> Found:
    """The pairs by A and then B; each part is so already. Places are below 2^31."""
    parts = [part for part in parts if part.a.size]
    if len(parts) < 2:
        return parts[0] if parts else NOTHING_FOUND
    if sum(part.a.size for part in parts[1:]) <= _FEW < parts[0].a.size:
        return _inserted(parts[0], in_order(parts[1:]))
    bits = max(int(part.b.max()) for part in parts).bit_length()
    packed = np.concatenate([part.a << bits | part.b for part in parts])
    packed.sort(kind="stable")
    return Found(packed >> bits, packed & ((1 << bits) - 1))


def _inserted(pairs: Found, few: Found) -> Found:
    """`few` more pairs among many, by copying what lies between them."""
    at = pairs.a.searchsorted(few.a)
    while True:
        before = (pairs.a.take(at, mode="clip") == few.a) & (pairs.b.take(at, mode="clip") < few.b)
        before &= at < pairs.a.size
        if not before.any():
            break
        at += before
    edges = [0, *at.tolist(), pairs.a.size]
    pieces = []
    for position, (start, stop) in enumerate(pairwise(edges)):
        pieces += [(pairs, start, stop), (few, position, position + 1)]
    return Found(
        np.concatenate([part.a[start:stop] for part, start, stop in pieces]),
        np.concatenate([part.b[start:stop] for part, start, stop in pieces]),
    )


def _refuse_unsorted(time_ps: NDArray[np.int64], start: int, stop: int) -> None:
    """Check one part while it is in cache; if it fails, name the first step of the whole."""
    if np.less(time_ps[start + 1 : stop], time_ps[start : max(stop - 1, start)]).any():
        require_sorted(time_ps)
