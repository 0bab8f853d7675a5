"""Blocks of tags: two parallel arrays in time order, and the map from what a tagger reports to channels."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: The logical channels, in the order of their numbers in a recording.
CHANNELS = ("H", "V", "D", "A", "sync", "pps")
CHANNEL_NUMBER = {name: number for number, name in enumerate(CHANNELS)}
DETECTORS = CHANNELS[:4]

_CHECKED_AT_ONCE = 1 << 15


class TagBlock(NamedTuple):
    """A run of tags: `time_ps` (n,) int64 since the recording's zero, not decreasing; `channel` (n,) uint8."""

    time_ps: NDArray[np.int64]
    channel: NDArray[np.uint8]


EMPTY_BLOCK = TagBlock(np.empty(0, np.int64), np.empty(0, np.uint8))


class UnsortedTags(ValueError):
    """Times that step backwards were given where a sorted run of tags is needed."""


def require_sorted(time_ps: NDArray[np.int64], after_ps: int | None = None, first: int = 0) -> None:
    """Refuse times that step backwards; equal times are in order.

    `time_ps` (n,) int64; `after_ps`: the last time of the run before, when this one continues it; `first`: place of
    `time_ps[0]` in the whole, for the message. Any int64 will do, since times are compared and never subtracted.
    Raises UnsortedTags with the place and the size of the first step.
    """
    if time_ps.size and after_ps is not None and time_ps[0] < after_ps:
        raise _unsorted(first, after_ps - int(time_ps[0]))
    for start in range(1, time_ps.size, _CHECKED_AT_ONCE):
        stop = min(start + _CHECKED_AT_ONCE, time_ps.size)
        backwards = time_ps[start:stop] < time_ps[start - 1 : stop - 1]
        if backwards.any():
            index = start + int(backwards.argmax())
            raise _unsorted(first + index, int(time_ps[index - 1]) - int(time_ps[index]))


def _unsorted(place: int, step_ps: int) -> UnsortedTags:
    before = f"tag {place - 1}" if place else "the last tag of the block before"
    return UnsortedTags(f"tags must be sorted: tag {place} is {step_ps:,} ps before {before}; sort or merge first")


def concatenate(blocks: list[TagBlock]) -> TagBlock:
    """One block of several, in the order given."""
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        return EMPTY_BLOCK
    return TagBlock(np.concatenate([b.time_ps for b in blocks]), np.concatenate([b.channel for b in blocks]))


class PatternMap:
    """From a tagger's input patterns to logical channels.

    A channel may be wired to one input or to several at once (a beacon photodiode split over inputs 1 and 2
    shows as the pattern 0b0011). An event with more inputs than one channel's pattern is a simultaneous event
    of several channels: it is taken apart greedily, patterns of most inputs first, so `0b0111` is the beacon
    and a click on input 3. Inputs that no channel claims are counted as unmapped.
    """

    def __init__(self, patterns: Mapping[str, int]) -> None:
        """`patterns`: logical channel name -> set of inputs (bit 0 = input 1), 1 to 255."""
        by_size = sorted(patterns.items(), key=lambda item: -item[1].bit_count())
        self._members = np.zeros((256, len(CHANNELS)), dtype=bool)
        self._unmapped = np.zeros(256, dtype=bool)
        for pattern in range(256):
            rest = pattern
            for name, wired in by_size:
                if rest & wired == wired:
                    self._members[pattern, CHANNEL_NUMBER[name]] = True
                    rest &= ~wired
            self._unmapped[pattern] = rest != 0
        counts = self._members.sum(axis=1)
        self._single = np.where(counts == 1, self._members.argmax(axis=1), 255).astype(np.uint8)

    def apply(self, time_ps: NDArray[np.int64], pattern: NDArray[np.uint8]) -> tuple[TagBlock, int]:
        """The tags of a run of events, and how many events had an input that belongs to no channel."""
        unmapped = int(np.count_nonzero(self._unmapped[pattern]))
        channel = self._single[pattern]
        odd = np.flatnonzero(channel == 255)
        if odd.size == 0:
            return TagBlock(time_ps, channel), unmapped
        rows, extra = np.nonzero(self._members[pattern[odd]])
        keep = np.flatnonzero(channel != 255)
        position = np.concatenate((keep, odd[rows]))
        channel = np.concatenate((channel[keep], extra.astype(np.uint8)))
        order = np.argsort(position, kind="stable")
        return TagBlock(time_ps[position[order]], channel[order]), unmapped
