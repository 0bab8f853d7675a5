"""Coincidences of a pass over tags, with what chance gives: of two channels pair by pair, of several as patterns."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.coincidence import MergedPairs, TagPairs, Which
from groundstation.core.patterns import Pattern, PatternCoincidences
from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.exploration.shifted import (
    SLOTS,
    ChancePairs,
    Look,
    Selection,
    ShiftedCompany,
    Windows,
    looks_of_chance,
)

Int64s = NDArray[np.int64]


class Level(NamedTuple):
    """What chance gives, and its standard error."""

    mean: float
    error: float


class FoundPairs(NamedTuple):
    """`time_ps` (n,) of the tag of a and `delay_ps` (n,) of each pair, and how many pairs chance gives."""

    time_ps: Int64s
    delay_ps: Int64s
    accidentals: Level


class FoundPattern(NamedTuple):
    """`time_ps` (n,) of the tags of the reference; what chance gives when all channels are independent, and when one
    is; of each two channels (by their places among required and vetoed ones) the count and what chance gives."""

    time_ps: Int64s
    accidentals: Level
    one_random: list[Level]
    twofold: list[tuple[int, int, int, Level]]


def find_pairs(blocks: Iterable[TagBlock], a: int, b: int, where: Windows, which: Which, title: str) -> FoundPairs:
    """All the pairs of a pass; `title` names it where its tags are too crowded. Raises BadInput."""
    selection = Selection((a, b), where.reach_ps, title)
    chosen, chance = MergedPairs(a, b, where.half_window_ps, which), ChancePairs(a, b, where)
    kept: list[TagPairs] = []
    for block in blocks:
        for piece in selection.pieces(block):
            kept.append(chosen.feed(piece))
            chance.feed(piece)
    kept.append(chosen.finish())
    chance.finish()
    times, delays = ([getattr(found, name) for found in kept] for name in ("time_a_ps", "delay_ps"))
    return FoundPairs(np.concatenate(times), np.concatenate(delays), _level(chance.count))


def find_pattern(
    blocks: Iterable[TagBlock], required: Sequence[int], veto: Sequence[int], where: Windows, title: str
) -> FoundPattern:
    """The tags of a pass that make the pattern, and the tables about it. Raises BadInput as `find_pairs`."""
    channels = (*required, *veto)
    selection = Selection(channels, where.reach_ps, title)
    pattern = PatternCoincidences(
        channels, where.half_window_ps, [Pattern(tuple(required), tuple(veto))], with_indices=True
    )
    times = _Times(where.half_window_ps)
    chance = looks_of_chance(len(required) - 1, len(veto))
    of_pattern = [*chance.apart, *(look for looks in chance.alone for look in looks)]
    company = [
        ShiftedCompany(own, channels[place + 1 :], where, _of_two(len(channels) - place - 1) + of_pattern * (not place))
        for place, own in enumerate(channels[:-1])
    ]
    kept: list[Int64s] = []
    for block in blocks:
        for piece in selection.pieces(block):
            kept.append(times.at(pattern.feed(piece).place, piece))
            for search in company:
                search.feed(piece)
    kept.append(times.at(pattern.finish().place, EMPTY_BLOCK))
    for search in company:
        search.finish()
    shifts = len(SLOTS)
    sums = [search.counts.reshape(-1, shifts).sum(axis=1).tolist() for search in company]
    of_whole = [_level(count) for count in sums[0][len(channels) - 1 :]]
    twofold = [
        (i, j, pattern.count(Pattern((channels[i], channels[j]))), _level(sums[i][j - i - 1]))
        for i, j in combinations(range(len(channels)), 2)
    ]
    return FoundPattern(np.concatenate(kept), of_whole[0], of_whole[1:], twofold)


def _of_two(others: int) -> list[Look]:
    """Each other channel alone with the reference, in every shifted window."""
    return [Look(((row, slot),)) for row in range(others) for slot in SLOTS]


def _level(count: int) -> Level:
    """The mean over the shifted windows, with the counting error of one where there is none."""
    return Level(count / len(SLOTS), max(count, 1) ** 0.5 / len(SLOTS))


class _Times:
    """The times of tags by their places in a stream, for as long as a pattern may still ask for them."""

    def __init__(self, half_window_ps: int) -> None:
        self._half_window_ps = half_window_ps
        self._time_ps = EMPTY_BLOCK.time_ps
        self._first = 0

    def at(self, place: Int64s, piece: TagBlock) -> Int64s:
        """Those of places decided by `piece`."""
        time_ps = np.concatenate((self._time_ps, piece.time_ps))
        found = time_ps[place - self._first]
        undecided = int(time_ps.searchsorted(time_ps[-1] - self._half_window_ps)) if time_ps.size else 0
        self._time_ps, self._first = time_ps[undecided:].copy(), self._first + undecided
        return found
