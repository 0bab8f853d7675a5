"""Buffers of the Swabian library's tag stream to blocks of patterns, with what was lost in them; without any I/O.

Sources: the Time Tagger manual, "Time-tag streaming" (format of a tag); libtcspc `swabian_tag_event` (numbers of the
tag types).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivers.patterns import Bits, Joiner, Times
from groundstation.errors import WireError
from groundstation.instruments import PatternBlock

_TAG, _ERROR, _OVERFLOW_BEGIN, _OVERFLOW_END, _MISSED = range(5)
_OVERFLOW_NOTE = "the tagger's buffer overflowed"
_ERROR_NOTE = "the tagger reports an error of its time base or its data"


class StreamDecoder:
    """Buffers of the library's tag stream to blocks; a block that is not whole is one of its own.

    `inputs`: the channel of each bit of a pattern. An overflow, from its begin to its end, becomes one block (or more,
    where buffers end), so that the loss has its true place in time; its count is what the tagger says it missed.
    """

    def __init__(self, inputs: tuple[int, ...], join_ps: int) -> None:
        order = np.argsort(inputs)
        self._channels: NDArray[np.int32] = np.array(inputs, np.int32)[order]
        self._bits: Bits = (1 << order).astype(np.uint8)
        self._joiner = Joiner(join_ps)
        self._overflow = False
        self._missed = 0
        self._notes: set[str] = set()
        self._last_ps = 0
        self.latest_ps = -1
        """Up to when the events so far are complete."""

    def feed(
        self, time_ps: ArrayLike, channel: ArrayLike, kind: ArrayLike, missed: ArrayLike, now_ps: int, full: bool
    ) -> list[PatternBlock]:
        """Decode one buffer: (n,) each; `now_ps` the stream's time when it was taken, `full`: it had no more room.

        Raises WireError when the times go back, since nothing can be placed any more.
        """
        times, kinds = np.asarray(time_ps, np.int64), np.asarray(kind, np.uint8)
        channels, counts = np.asarray(channel, np.int32), np.asarray(missed, np.int64)
        if not times.size == kinds.size == channels.size == counts.size:
            raise WireError("the library's buffer has arrays of unequal lengths")
        if times.size:
            self._check_order(times)
        if full:
            self._notes.add("the library's buffer was full")
        latest_ps = max(now_ps, self._last_ps, self.latest_ps)
        pieces, start = [], 0
        for index in np.flatnonzero(kinds != _TAG).tolist():
            what = int(kinds[index])
            if what == _OVERFLOW_BEGIN and not self._overflow:
                pieces.append(self._piece(times, channels, kinds, slice(start, index), int(times[index])))
                self._overflow, start = True, index
            elif what == _OVERFLOW_END:
                self._overflow = True  # also when its begin was never seen
                pieces.append(self._piece(times, channels, kinds, slice(start, index), int(times[index])))
                self._overflow, start = False, index
            elif what == _MISSED:
                self._missed += int(counts[index])
            elif what == _ERROR:
                self._notes.add(_ERROR_NOTE)
            elif what > _MISSED:
                self._notes.add(f"the library reports a tag of unknown type {what}")
        pieces.append(self._piece(times, channels, kinds, slice(start, times.size), latest_ps))
        return pieces

    def _check_order(self, times: Times) -> None:
        before_ps, self._last_ps = self._last_ps, int(times[-1])
        if times[0] < before_ps or (times[1:] < times[:-1]).any():
            raise WireError(
                "the times of the tagger go back: it was restarted, or its 64 bits rolled over after 107 days; "
                "connect again and begin a new recording"
            )

    def _piece(
        self, times: Times, channels: NDArray[np.int32], kinds: NDArray[np.uint8], part: slice, latest_ps: int
    ) -> PatternBlock:
        """A run of tags as one block, with what was lost in it."""
        where = np.searchsorted(self._channels, channels[part])
        where[where == self._channels.size] = 0
        ours = (self._channels[where] == channels[part]) & (kinds[part] == _TAG)
        time_ps, patterns, complete_ps = self._joiner.feed(times[part][ours], self._bits[where[ours]], latest_ps)
        self.latest_ps = max(self.latest_ps, complete_ps)
        missed, notes = self._missed, {*self._notes, _OVERFLOW_NOTE} if self._overflow else self._notes
        self._missed, self._notes = 0, set()
        unknown = bool(notes) and missed == 0
        return PatternBlock(
            time_ps, patterns, self.latest_ps, None if unknown else missed, tuple(sorted(notes)) if notes else ()
        )
