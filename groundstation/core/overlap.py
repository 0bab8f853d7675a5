"""Cut a stream of tags into pieces that overlap, so that each tag is seen once with all its neighbours."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import EMPTY_BLOCK, TagBlock, concatenate, require_sorted

_PIECE = 1 << 18  # tags worked on at once: long enough that calls cost little, short enough for the cache


class Piece(NamedTuple):
    """A run of tags; `first`: place of its first tag in the whole stream. For each tag from `begin` to `end` (places
    in the stream), and for no other that an earlier piece had, all tags within the reach are in this piece."""

    block: TagBlock
    first: int
    begin: int
    end: int


class OverlappingPieces:
    """The pieces of a stream for a stage that looks `reach_ps` to both sides of a tag; keeps only what it needs.

    Raises UnsortedTags for times that step backwards, within a block or from one to the next.
    """

    def __init__(self, reach_ps: int) -> None:
        self._reach_ps = reach_ps
        self._tail = EMPTY_BLOCK
        self._first = 0  # place of the tail's first tag
        self._begin = 0

    def of(self, block: TagBlock) -> Iterator[Piece]:
        """The pieces that `block` completes. To be used up before the next block comes."""
        if block.time_ps.size == 0:
            return
        last = self._tail.time_ps[-1:]
        if last.size and block.time_ps[0] < last[0]:
            require_sorted(block.time_ps, int(last[0]), self._first + self._tail.time_ps.size)
        start = 0
        while start < block.time_ps.size:
            stop = min(start + max(_PIECE, 2 * self._tail.time_ps.size), block.time_ps.size)
            size = self._tail.time_ps.size
            if size <= start:  # the tail is part of this block: look at it there instead of copying
                run = TagBlock(block.time_ps[start - size : stop], block.channel[start - size : stop])
            else:
                run = concatenate([self._tail, TagBlock(block.time_ps[start:stop], block.channel[start:stop])])
            _refuse_unsorted(run.time_ps, self._first)
            yield self._piece(run)
            start = stop
        self._tail = TagBlock(self._tail.time_ps.copy(), self._tail.channel.copy())

    def rest(self) -> Piece:
        """The last piece, when no further block comes."""
        piece = Piece(self._tail, self._first, self._begin, self._first + self._tail.time_ps.size)
        self._tail, self._first, self._begin = EMPTY_BLOCK, piece.end, piece.end
        return piece

    def _piece(self, run: TagBlock) -> Piece:
        time = run.time_ps
        end = int(time.searchsorted(time[-1] - self._reach_ps))
        piece = Piece(run, self._first, self._begin, self._first + end)
        kept = int(time.searchsorted(time[end] - self._reach_ps))
        self._tail = TagBlock(time[kept:], run.channel[kept:])
        self._first, self._begin = self._first + kept, piece.end
        return piece


def _refuse_unsorted(time_ps: NDArray[np.int64], first: int) -> None:
    """Count from the beginning of the stream in the message."""
    if (time_ps[1:] < time_ps[:-1]).any():
        require_sorted(time_ps, first=first)
