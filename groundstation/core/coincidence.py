"""Coincidences: which pairs of tags count, in two sorted arrays or along one merged stream. See docs/tags.md."""

from collections.abc import Collection, Sequence
from itertools import chain
from operator import index as as_integer
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.overlap import OverlappingPieces, Piece
from groundstation.core.tags import TagBlock
from groundstation.core.window_search import Found, in_order, pairs_within

Which = Literal["all", "nearest", "one_to_one"]

_WIDEST_PS = 1 << 60


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
    kept = [choice.of(found, a_ps, b_ps) for found in pairs_within(a_ps, b_ps, reach_ps)]
    if not kept:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate([found.a for found in kept]), np.concatenate([found.b for found in kept])


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
        keep = np.flatnonzero(found.b > self._last_b - first)
        keep = keep[_greedy(found.a[keep], found.b[keep])]
        if keep.size:
            self._last_b = int(found.b[keep[-1]]) + first
        return Found(found.a[keep], found.b[keep])


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


def _greedy(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the pairs that greedy pairing in time order takes; `a`, `b` ordered by a and then b.

    A pair that shares no tag with its neighbours in this order is taken. The others form chains, each of neighbours
    sharing tags, and are few while the window is narrower than the spacing of the tags: they are taken one by one.
    """
    shared = (a[1:] == a[:-1]) | (b[1:] <= b[:-1])
    alone = np.ones(a.size, bool)
    alone[1:] &= ~shared
    alone[:-1] &= ~shared
    chains = np.flatnonzero(~alone)
    alone[chains[_greedy_one_by_one(a[chains].tolist(), b[chains].tolist())]] = True
    return np.flatnonzero(alone)


def _greedy_one_by_one(a: list[int], b: list[int]) -> list[int]:
    last_a, last_b, taken = -1, -1, []
    for position, (one, other) in enumerate(zip(a, b, strict=True)):
        if one != last_a and other > last_b:
            last_a, last_b = one, other
            taken.append(position)
    return taken


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
