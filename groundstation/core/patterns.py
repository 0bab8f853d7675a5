"""N-fold coincidences with anti-coincidence: which channels clicked around each tag, and a table of patterns over that.

For every tag the set of channels seen within the window is one byte. Counting (channel, set) once answers every
pattern, also those thought of later; nothing is searched per pattern.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.coincidence import largest_delay
from groundstation.core.overlap import OverlappingPieces, Piece
from groundstation.core.tags import TagBlock

_MOST_CHANNELS = 8  # a set of channels is one byte


class Pattern(NamedTuple):
    """A tag of the first `required` channel counts when each other required channel has a tag within the window
    around it, and no `vetoed` channel has one."""

    required: tuple[int, ...]
    vetoed: tuple[int, ...] = ()


class PatternIndices(NamedTuple):
    """Tags that made a pattern: `pattern`, its row in the table; `place`, that of the tag in the stream. In the
    order of the stream, and of the table where one tag makes several."""

    pattern: NDArray[np.int64]
    place: NDArray[np.int64]


class PatternCoincidences:
    """Counts of patterns of up to eight channels along one merged stream, cut anyhow.

    `feed` and `finish` give the tags that made patterns when `with_indices`, else nothing; `counts` and `singles`
    hold what is decided so far: a tag is once the stream has gone half a window beyond it.
    Benchmark: tests/benchmarks/bench_coincidence.py (W8).
    """

    def __init__(
        self,
        channels: Sequence[int],
        half_window_ps: int,
        patterns: Iterable[Pattern],
        strict: bool = False,
        with_indices: bool = False,
    ) -> None:
        """Raises ValueError for more than eight channels, or a pattern that names others or contradicts itself."""
        if not 1 <= len(set(channels)) == len(channels) <= _MOST_CHANNELS:
            raise ValueError(f"channels are {list(channels)}: give one to {_MOST_CHANNELS} different ones")
        self.patterns = tuple(Pattern(tuple(required), tuple(vetoed)) for required, vetoed in patterns)
        for pattern in self.patterns:
            _check(pattern, channels)
        self._channels = tuple(channels)
        self._reach_ps = largest_delay(half_window_ps, strict)
        self._bit = np.zeros(256, np.uint8)
        self._bit[list(channels)] = 1 << np.arange(len(channels))
        self._row = np.full(256, len(channels), np.int64)  # in the tally; channels that nobody asked for share the last
        self._row[list(channels)] = np.arange(len(channels))
        self._pieces = OverlappingPieces(self._reach_ps)
        self._tally = np.zeros((len(channels) + 1, 256), np.int64)  # [own channel, set of channels around]
        self._with_indices = with_indices

    def feed(self, block: TagBlock) -> PatternIndices:
        """Take in a block. Raises UnsortedTags."""
        return _joined([self._take(piece) for piece in self._pieces.of(block)])

    def finish(self) -> PatternIndices:
        """Decide the remaining tags."""
        return self._take(self._pieces.rest())

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each pattern was made, in the order of the table."""
        return np.array([self.count(pattern) for pattern in self.patterns], np.int64)

    @property
    def singles(self) -> NDArray[np.int64]:
        """Tags per channel, in the order of `channels`, with or without company."""
        return np.array([self.count(Pattern((channel,))) for channel in self._channels], np.int64)

    def count(self, pattern: Pattern) -> int:
        """How often any pattern of these channels was made, named beforehand or not. Raises ValueError."""
        _check(pattern, self._channels)
        return int(self._tally[self._row[pattern.required[0]]][self._made_by(pattern)].sum())

    def _made_by(self, pattern: Pattern) -> NDArray[np.bool_]:
        """For each of the 256 sets of channels, whether it makes the pattern."""
        required = int(np.bitwise_or.reduce(self._bit[list(pattern.required)]))
        vetoed = int(np.bitwise_or.reduce(self._bit[list(pattern.vetoed)], initial=0))
        sets = np.arange(256)
        makes: NDArray[np.bool_] = (sets & (required | vetoed)) == required
        return makes

    def _take(self, piece: Piece) -> PatternIndices:
        begin, end = piece.begin - piece.first, piece.end - piece.first
        time, channel = piece.block
        company = _with_company(time, self._reach_ps)
        own = channel.take(company)
        around = _sets(time.take(company), self._bit.take(own), self._reach_ps)
        start, stop = company.searchsorted((begin, end))
        company, own, around = company[start:stop], own[start:stop], around[start:stop]
        singles = np.array([np.count_nonzero(channel[begin:end] == number) for number in self._channels])
        self._count(own, around, singles)
        if not self._with_indices:
            return _joined([])
        made = [self._made(row, channel[begin:end], company - begin, own, around) for row in range(len(self.patterns))]
        joined = _joined(made)
        order = np.argsort(joined.place, kind="stable")
        return PatternIndices(joined.pattern[order], joined.place[order] + piece.begin)

    def _count(self, own: NDArray[np.uint8], around: NDArray[np.uint8], singles: NDArray[np.int64]) -> None:
        """Count tags in company by their set; the others, most of all, have a set of one."""
        row = self._row.take(own)
        counted = np.bincount(row << 8 | around, minlength=self._tally.size).reshape(self._tally.shape)
        self._tally += counted
        rows = np.arange(len(self._channels))
        self._tally[rows, 1 << rows] += singles - counted[:-1].sum(axis=1)

    def _made(
        self,
        row: int,
        channel: NDArray[np.uint8],
        company: NDArray[np.int64],
        own: NDArray[np.uint8],
        around: NDArray[np.uint8],
    ) -> PatternIndices:
        """The tags, as places in `channel`, that make one pattern; tags not in `company` are alone."""
        pattern = self.patterns[row]
        of_channel = own == pattern.required[0]
        index = company[self._made_by(pattern).take(around) & of_channel]
        if len(pattern.required) == 1:
            alone = channel == pattern.required[0]
            alone[company] = False
            index = np.concatenate((alone.nonzero()[0], index))
        return PatternIndices(np.full(index.size, row), index)


def _check(pattern: Pattern, channels: Sequence[int]) -> None:
    named = (*pattern.required, *pattern.vetoed)
    if not pattern.required:
        raise ValueError("a pattern requires no channel: name at least one, whose tags are counted")
    if len(set(named)) != len(named) or not set(named) <= set(channels):
        raise ValueError(f"{pattern} does not fit: each channel once, and only of {list(channels)}")


def _with_company(time: NDArray[np.int64], reach_ps: int) -> NDArray[np.int64]:
    """The places of tags that have another tag within the window, of whatever channel."""
    near = np.zeros(time.size + 1, bool)
    if time.size:
        near[1:-1] = (time[1:] - time[:-1]).view(np.uint64) <= reach_ps
    near[:-1] |= near[1:]
    return near[:-1].nonzero()[0]


def _sets(time: NDArray[np.int64], own: NDArray[np.uint8], reach_ps: int) -> NDArray[np.uint8]:
    """For each tag the channels within the window, its own among them.

    `time` leaves out tags without company, which changes no difference that counts. All neighbours at one distance in
    the order of the stream are compared at once; where few are near they are compared by place.
    """
    around = own.copy()
    lag, near = 1, np.empty(0, np.int64)
    while lag < time.size:
        flag = (time[lag:] - time[:-lag]).view(np.uint64) <= reach_ps
        around[:-lag] |= own[lag:] * flag
        around[lag:] |= own[:-lag] * flag
        near, lag = flag.nonzero()[0], lag + 1
        if near.size < time.size >> 3:
            break
    while near.size:
        near = near[: near.searchsorted(time.size - lag)]
        near = near[(time.take(near + lag) - time.take(near)).view(np.uint64) <= reach_ps]
        around[near] |= own.take(near + lag)
        around[near + lag] |= own.take(near)
        lag += 1
    return around


def _joined(parts: list[PatternIndices]) -> PatternIndices:
    if not parts:
        return PatternIndices(np.empty(0, np.int64), np.empty(0, np.int64))
    return PatternIndices(*(np.concatenate(column) for column in zip(*parts, strict=True)))
