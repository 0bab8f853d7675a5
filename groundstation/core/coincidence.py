"""Coincidences: which pairs of tags count, in two sorted arrays or along one merged stream. See docs/tags.md."""

from collections.abc import Collection, Sequence
from itertools import chain
from operator import index as as_integer
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.greedy import taken
from groundstation.core.overlap import OverlappingPieces, Piece
from groundstation.core.tags import TagBlock
from groundstation.core.window_search import Found, in_order, pairs_within, windows_within

Which = Literal["all", "nearest", "one_to_one"]

_WIDEST_PS = 1 << 60
_ROOM = 1 << 20  # pairs; memory that is asked for and not written to costs nothing


def pairs(
    a_ps: NDArray[np.int64],
    b_ps: NDArray[np.int64],
    half_window_ps: int,
    which: Which = "all",
    strict: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The coincidences of two sorted arrays as two index arrays, ordered by A's index and then by B's.

    A pair counts when |b - a| <= `half_window_ps` (`strict`: <); `which` is defined in docs/tags.md. Times are int64
    picoseconds within +-2^62. Raises UnsortedTags, and ValueError for a window that cannot be used.
    Benchmark: tests/benchmarks/bench_coincidence.py (W1).
    """
    reach_ps = largest_delay(half_window_ps, strict)
    choice = Choice(which)
    kept = _Growing()
    if which == "one_to_one":
        last_b = -1
        for near, first, last in windows_within(a_ps, b_ps, reach_ps):
            taker, b = taken(first, last, last_b)
            kept.add(Found(near.take(taker), b))
            last_b = int(b[-1]) if b.size else last_b
    else:
        for found in pairs_within(a_ps, b_ps, reach_ps):
            kept.add(choice.of(found, a_ps, b_ps))
    return kept.filled()


class _Growing:
    """Pairs put one after the other, in arrays that grow by doubling: they are not kept twice until the end."""

    def __init__(self) -> None:
        self._places = np.empty((2, _ROOM), np.int64)
        self._count = 0

    def add(self, found: Found) -> None:
        start, self._count = self._count, self._count + found.a.size
        if self._count > self._places.shape[1]:
            roomier = np.empty((2, 2 * self._count), np.int64)
            roomier[:, :start] = self._places[:, :start]
            self._places = roomier
        self._places[0, start : self._count] = found.a
        self._places[1, start : self._count] = found.b

    def filled(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._places[0, : self._count], self._places[1, : self._count]


def largest_delay(half_window_ps: int, strict: bool) -> int:
    """The largest |dt| that still counts. Raises ValueError for a window that cannot be used."""
    if not strict <= as_integer(half_window_ps) <= _WIDEST_PS:
        raise ValueError(
            f"half_window_ps is {half_window_ps:,}, expected {int(strict)} to 2^60: give half of the total width"
        )
    return as_integer(half_window_ps) - strict


class Choice:
    """Which of all pairs are given, chunk by chunk in A's order; every chunk holds all pairs of its tags of A."""

    def __init__(self, which: Which) -> None:
        """Raises ValueError unless `which` names a rule of docs/tags.md."""
        if which not in ("all", "nearest", "one_to_one"):
            raise ValueError(f'which is "{which}": expected "all", "nearest" or "one_to_one"')
        self._which = which
        self._last_b = -1  # one_to_one gives rising places in B, so the last one tells which are taken

    def of(self, found: Found, a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], first: int = 0) -> Found:
        """The chosen ones of `found`, in the same order; its places count in arrays that begin at place `first`."""
        if self._which == "all" or found.a.size == 0:
            return found
        if self._which == "nearest":
            return _nearest(found, a_ps, b_ps)
        chosen = _one_to_one(found, self._last_b - first)
        if chosen.a.size:
            self._last_b = int(chosen.b[-1]) + first
        return chosen


def _nearest(found: Found, a_ps: NDArray[np.int64], b_ps: NDArray[np.int64]) -> Found:
    """For each tag of A its nearest of B; of two equally near ones the earlier."""
    new = found.a[1:] != found.a[:-1]
    if new.all():
        return found
    shared = np.zeros(found.a.size, bool)
    shared[1:] |= ~new
    shared[:-1] |= ~new
    several = np.flatnonzero(shared)
    a, b = found.a[several], found.b[several]
    first = np.flatnonzero(np.concatenate(([True], a[1:] != a[:-1])))
    distance = np.abs(b_ps[b] - a_ps[a])
    least = np.minimum.reduceat(distance, first)
    best = np.flatnonzero(distance == np.repeat(least, np.diff(first, append=a.size)))
    best = best[np.concatenate(([True], a[best[1:]] != a[best[:-1]]))]
    shared[several[best]] = False
    keep = np.flatnonzero(~shared)
    return Found(found.a[keep], found.b[keep])


def _one_to_one(found: Found, last_b: int) -> Found:
    """Of all pairs those that greedy pairing in time order takes, after it took `last_b` of B. Numbers of tags of B
    count those in any window only, so that they have no gaps whatever other channels are in between."""
    place = np.zeros(int(found.b.max()) + 1, bool)
    place[found.b] = True
    b = place.nonzero()[0]
    number = place.cumsum()
    begin = np.flatnonzero(np.concatenate(([True], found.a[1:] != found.a[:-1])))
    end = np.append(begin[1:], found.a.size) - 1
    before = int(b.searchsorted(last_b, side="right"))
    taker, own = taken(number[found.b[begin]], number[found.b[end]], before)
    return Found(found.a[begin[taker]], b[own - 1])


class TagPairs(NamedTuple):
    """Pairs found along a stream, ordered by the tag of A and then by that of B: one entry per pair.

    `index_a`, `index_b`: places in the whole stream, all channels counted; `time_a_ps`; `delay_ps` = t_b - t_a.
    """

    index_a: NDArray[np.int64]
    index_b: NDArray[np.int64]
    time_a_ps: NDArray[np.int64]
    delay_ps: NDArray[np.int64]
    channel_a: NDArray[np.uint8]
    channel_b: NDArray[np.uint8]


class MergedPairs:
    """The coincidences of channel (or channels) A with B along one merged stream, cut anyhow.

    A tag of A is decided when the stream has gone half a window beyond it, so `feed` gives the pairs of all tags of
    A decided by then and `finish` the rest. Tags of other channels are ignored. Memory: a window and a piece.
    Benchmark: tests/benchmarks/bench_coincidence.py (W1m).
    """

    def __init__(
        self,
        channel_a: int | Collection[int],
        channel_b: int | Collection[int],
        half_window_ps: int,
        which: Which = "all",
        strict: bool = False,
    ) -> None:
        """Raises ValueError for a window that cannot be used, or a channel on both sides."""
        reach_ps = largest_delay(half_window_ps, strict)
        self._neighbours = Neighbours(reach_ps, channel_a, channel_b)
        self._choice = Choice(which)
        self._pieces = OverlappingPieces(reach_ps)

    def feed(self, block: TagBlock) -> TagPairs:
        """The pairs decided by `block`. Raises UnsortedTags."""
        return _joined([self._pairs(piece) for piece in self._pieces.of(block)])

    def finish(self) -> TagPairs:
        """The remaining pairs."""
        return self._pairs(self._pieces.rest())

    def _pairs(self, piece: Piece) -> TagPairs:
        time, channel = piece.block
        found = self._neighbours.of(piece)
        a, b = self._choice.of(found, time, time, piece.first)
        time_a = time.take(a)
        return TagPairs(
            a + piece.first, b + piece.first, time_a, time.take(b) - time_a, channel.take(a), channel.take(b)
        )


def merged_pairs(
    block: TagBlock, channel_a: int | Collection[int], channel_b: int | Collection[int], half_window_ps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of A and B in one whole merged stream, as two arrays of places in it; else like MergedPairs.

    Benchmark: tests/benchmarks/bench_coincidence.py (W1m).
    """
    reach_ps = largest_delay(half_window_ps, strict=False)
    neighbours, pieces = Neighbours(reach_ps, channel_a, channel_b), OverlappingPieces(reach_ps)
    parts = []
    for piece in chain(pieces.of(block), (pieces.rest() for _ in range(1))):
        a, b = neighbours.of(piece)
        parts.append(Found(a + piece.first, b + piece.first))
    return np.concatenate([part.a for part in parts]), np.concatenate([part.b for part in parts])


class Neighbours:
    """All pairs of A and B in the pieces of a merged stream.

    Differences of neighbours and flags of one byte leave few tags to be looked at; these go on to the neighbours of
    their neighbours for as long as the window reaches. A tag of another channel in between does not end the search.
    """

    def __init__(self, reach_ps: int, channel_a: int | Collection[int], channel_b: int | Collection[int]) -> None:
        """Raises ValueError for a channel on both sides, or a side without one."""
        self._reach_ps = reach_ps
        self._a, self._b = _channels(channel_a), _channels(channel_b)
        if set(self._a) & set(self._b) or not self._a or not self._b:
            raise ValueError(f"A is {self._a} and B is {self._b}: give each at least one channel, and none to both")
        self._step = np.empty(0, np.int64)
        self._near = np.empty(0, bool)

    def of(self, piece: Piece) -> Found:
        """The pairs of the piece's own tags of A, as places in the piece."""
        found = self._all(piece.block.time_ps, piece.block.channel)
        start, stop = found.a.searchsorted((piece.begin - piece.first, piece.end - piece.first))
        return Found(found.a[start:stop], found.b[start:stop])

    def _all(self, time: NDArray[np.int64], channel: NDArray[np.uint8]) -> Found:
        near = self._near_next(time)
        is_a, is_b = _is_one_of(channel, self._a), _is_one_of(channel, self._b)
        wanted = is_a[:-1] & is_b[1:]
        wanted |= is_b[:-1] & is_a[1:]
        wanted &= near
        place = wanted.nonzero()[0]
        step = is_a.take(place)
        parts = [Found(place + ~step, place + step)]
        place, lag = (near[1:] & near[:-1]).nonzero()[0], 2
        while place.size:
            place = place[: place.searchsorted(time.size - lag)]
            place = place[(time.take(place + lag) - time.take(place)).view(np.uint64) <= self._reach_ps]
            forth = place[is_a.take(place) & is_b.take(place + lag)]
            back = place[is_b.take(place) & is_a.take(place + lag)]
            parts += [Found(forth, forth + lag), Found(back + lag, back)]
            lag += 1
        return in_order(parts)

    def _near_next(self, time: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the next tag lies within the window, in a buffer that lives until the next call."""
        count = max(time.size - 1, 0)
        if self._near.size < count:
            self._step, self._near = np.empty(count, np.int64), np.empty(count, bool)
        step = np.subtract(time[1:], time[:-1], out=self._step[:count])
        return np.less_equal(step.view(np.uint64), self._reach_ps, out=self._near[:count])


def _channels(given: int | Collection[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(sorted(set(given)))


def _is_one_of(channel: NDArray[np.uint8], wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    flag: NDArray[np.bool_] = channel == wanted[0]
    for number in wanted[1:]:
        flag |= channel == number
    return flag


def _joined(parts: list[TagPairs]) -> TagPairs:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        times, channels = np.empty(0, np.int64), np.empty(0, np.uint8)
        return TagPairs(times, times, times, times, channels, channels)
    return TagPairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Accidentals(NamedTuple):
    """Chance coincidences, from pairs counted with B shifted: `counts` per shift, their mean and its standard error."""

    counts: NDArray[np.int64]
    mean: float
    standard_error: float


def accidentals(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], half_window_ps: int, shifts_ps: Sequence[int]
) -> Accidentals:
    """How many of the pairs within the window are chance, from windows where no true pair can be.

    `shifts_ps`: delays subtracted from B, each well beyond window, jitter and any correlation of the source, and small
    against the time over which the rates change. The standard error is the counting error of the sum, by Poisson.
    Raises ValueError without shifts or for one inside the window, and UnsortedTags.
    """
    if not shifts_ps or min(abs(shift) for shift in shifts_ps) <= 2 * half_window_ps:
        raise ValueError(
            f"shifts_ps is {list(shifts_ps)}: give at least one, all beyond the window of {2 * half_window_ps:,} ps"
        )
    reach_ps = largest_delay(half_window_ps, strict=False)
    counts = [sum(found.a.size for found in pairs_within(a_ps, b_ps - shift, reach_ps)) for shift in shifts_ps]
    return Accidentals(np.array(counts), sum(counts) / len(counts), max(sum(counts), 1) ** 0.5 / len(counts))
