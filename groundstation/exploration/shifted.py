"""Chance coincidences, counted in windows that are shifted beyond all true ones, in one search for all shifts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.coincidence import MergedPairs, TagPairs
from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.errors import BadInput
from groundstation.exploration.quantities import PS_PER_S, time_text

#: Shifted windows on each side, and their default distance in full windows.
SHIFTS = 5
SHIFT_WINDOWS = 10
#: By how many shifts a channel may be away.
SLOTS = tuple(slot for slot in range(-SHIFTS, SHIFTS + 1) if slot)
_WIDEST_PS = 1 << 60
#: More tags than this within all the windows of one tag: their pairs would fill the memory, and mean nothing.
_CROWD = 256
_FEW, _PIECE, _SMALL_PIECE = 16, 1 << 16, 1 << 12


class Windows(NamedTuple):
    """A window |t_b - t_a - slot * shift_ps| <= half_window_ps for each slot from -SHIFTS to SHIFTS; they are apart."""

    half_window_ps: int
    shift_ps: int

    @property
    def reach_ps(self) -> int:
        """The largest delay in any of them."""
        return SHIFTS * self.shift_ps + self.half_window_ps

    def slots(self, delay_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot in whose window a delay lies (n,), out of range if in none."""
        slot = (delay_ps + self.shift_ps // 2) // self.shift_ps
        inside = np.abs(delay_ps - slot * self.shift_ps) <= self.half_window_ps
        return np.where(inside, slot, SHIFTS + 1)


def windows(half_window_ps: int, shift_ps: int | None) -> Windows:
    """Windows that fit, by default SHIFT_WINDOWS full windows from each other. Raises BadInput."""
    shift_ps = SHIFT_WINDOWS * (2 * half_window_ps + 1) if shift_ps is None else shift_ps
    if shift_ps <= 2 * half_window_ps:
        raise BadInput(
            f"shift_ps is {shift_ps:,}; shifted windows must lie beyond the full window of {2 * half_window_ps:,}"
        )
    found = Windows(half_window_ps, shift_ps)
    if found.reach_ps > _WIDEST_PS:
        raise BadInput(
            f"half_window_ps is {half_window_ps:,}; its shifted windows reach ±{found.reach_ps:,} ps, more than 2^60; "
            "take a narrower window"
        )
    return found


class Selection:
    """The tags of some channels in pieces in which a search for pairs finds a bounded number of them."""

    def __init__(self, channels: Sequence[int], reach_ps: int, title: str) -> None:
        self._wanted = np.zeros(256, bool)
        self._wanted[list(channels)] = True
        self._reach_ps, self._title = reach_ps, title
        self._tail_ps = EMPTY_BLOCK.time_ps

    def pieces(self, block: TagBlock) -> Iterator[TagBlock]:
        """Raises BadInput where the tags are too many for the window."""
        wanted = np.flatnonzero(self._wanted[block.channel])
        time_ps, channel = block.time_ps[wanted], block.channel[wanted]
        run_ps = np.concatenate((self._tail_ps, time_ps))
        crowded = np.flatnonzero(_spans(run_ps, _CROWD) <= 2 * self._reach_ps)
        if crowded.size:
            raise BadInput(
                f"{self._title} has more than {_CROWD} tags of these channels within {time_text(2 * self._reach_ps)} "
                f"(the window and its shifted ones) at {run_ps[crowded[0]] / PS_PER_S:.6g} s; take a narrower window"
            )
        self._tail_ps = run_ps[-_CROWD:].copy()
        many = bool((_spans(run_ps, _FEW) <= 2 * self._reach_ps).any())
        step = _SMALL_PIECE if many else _PIECE
        for start in range(0, time_ps.size, step):
            yield TagBlock(time_ps[start : start + step], channel[start : start + step])


def _spans(time_ps: NDArray[np.int64], tags: int) -> NDArray[np.uint64]:
    """The time from each tag to the one so many tags later, which may be 2^63 ps."""
    return (time_ps[tags:] - time_ps[: max(time_ps.size - tags, 0)]).view(np.uint64)


class ChancePairs:
    """How many pairs of a and b there are in all shifted windows together: `count`."""

    def __init__(self, a: int, b: int, where: Windows) -> None:
        self._windows = where
        self._search = MergedPairs(a, b, where.reach_ps)
        self.count = 0

    def feed(self, block: TagBlock) -> None:
        """Take in tags."""
        self._take(self._search.feed(block))

    def finish(self) -> None:
        """Decide the last tags."""
        self._take(self._search.finish())

    def _take(self, found: TagPairs) -> None:
        slot = self._windows.slots(found.delay_ps)
        self.count += int(np.count_nonzero((slot != 0) & (slot <= SHIFTS)))


class Look(NamedTuple):
    """Where to look for other channels around a tag of the reference: (place in `others`, slot) of each that is
    required there, and of each that must not be there."""

    required: tuple[tuple[int, int], ...]
    vetoed: tuple[tuple[int, int], ...] = ()


class ShiftedCompany:
    """Tags of a reference channel with the company that each of some looks asks for: `counts` (looks,)."""

    def __init__(self, reference: int, others: Sequence[int], where: Windows, looks: Sequence[Look]) -> None:
        self._windows, self._looks = where, looks
        self._search = MergedPairs(reference, tuple(others), where.reach_ps)
        self._others = len(others)
        self._row = np.zeros(256, np.int64)
        self._row[list(others)] = np.arange(len(others))
        self.counts = np.zeros(len(looks), np.int64)

    def feed(self, block: TagBlock) -> None:
        """Take in tags."""
        self._take(self._search.feed(block))

    def finish(self) -> None:
        """Decide the last tags."""
        self._take(self._search.finish())

    def _take(self, found: TagPairs) -> None:
        """All pairs of a tag of the reference come at once."""
        slot = self._windows.slots(found.delay_ps)
        inside = np.flatnonzero(slot <= SHIFTS)
        own = found.index_a[inside]
        new = np.ones(own.size, bool)
        np.not_equal(own[1:], own[:-1], out=new[1:])
        tag = np.cumsum(new) - 1
        has = np.zeros((self._others, len(SLOTS) + 1, int(np.count_nonzero(new))), bool)
        has[self._row[found.channel_b[inside]], slot[inside], tag] = True  # slots below 0 count from the end
        for number, look in enumerate(self._looks):
            meets = np.logical_and.reduce([has[place] for place in look.required])
            for place in look.vetoed:
                meets &= ~has[place]
            self.counts[number] += np.count_nonzero(meets)


class Chance(NamedTuple):
    """Looks that only chance meets: `apart`, every required channel in a slot of its own; `alone`, for each required
    channel (the reference first) only this one shifted against the rest. One look for each slot."""

    apart: list[Look]
    alone: list[list[Look]]


def looks_of_chance(others: int, vetoed: int = 0) -> Chance:
    """For `others` required channels beside the reference. Vetoed channels, the last of the others, stay with it."""
    required = range(others)
    veto = tuple((others + number, 0) for number in range(vetoed))
    apart = [tuple((row, SLOTS[(turn + row) % len(SLOTS)]) for row in required) for turn in range(len(SLOTS))]
    alone = [[tuple((row, slot) for row in required) for slot in SLOTS]]
    alone += [[tuple((row, slot * (row == only)) for row in required) for slot in SLOTS] for only in required]
    return Chance([Look(look, veto) for look in apart], [[Look(look, veto) for look in looks] for looks in alone])
