"""Histograms of single channels along a stream: rates over time, arrival phase of a period, time between clicks.

Integers add up, and what is rounded is rounded per tag, so cutting the stream elsewhere changes nothing.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.correlation import Correlation, DelayHistogram
from groundstation.core.tags import TagBlock, require_sorted

_PIECE = 1 << 16
#: Phases are counted from the last multiple of 2^40 ps (1.1 s): float64 keeps what is left to 1e-4 ps.
_ANCHOR_BITS = 40


class RateRows(NamedTuple):
    """Tags per bin of time and channel, bins without tags left out: `bin` (k,) int64, ascending, holds the times
    bin * bin_ps <= t < (bin + 1) * bin_ps; `counts` (k, channels) int64."""

    bin: NDArray[np.int64]
    counts: NDArray[np.int64]


class ChannelRates:
    """Counts the tags of each channel in bins of time. A bin comes out once a later tag has been seen, so the memory
    is that of the block fed."""

    def __init__(self, bin_ps: int, channels: int) -> None:
        """`channels`: the channels are 0 to channels - 1, 256 at most."""
        if bin_ps < 1 or not 1 <= channels <= 256:
            raise ValueError(f"rates need bins of 1 ps or more and 1 to 256 channels, not {bin_ps} and {channels}")
        self._bin_ps = bin_ps
        self._channels = channels
        self._last_ps: int | None = None
        self._open = RateRows(np.empty(0, np.int64), np.empty((0, channels), np.int64))

    def feed(self, block: TagBlock) -> RateRows:
        """The bins now complete; UnsortedTags or, for a channel that was not declared, ValueError."""
        require_sorted(block.time_ps, self._last_ps)
        if block.time_ps.size == 0:
            return RateRows(self._open.bin[:0], self._open.counts[:0])
        if block.channel.max() >= self._channels:
            raise ValueError(f"a tag is on channel {block.channel.max()}, but only {self._channels} were declared")
        self._last_ps = int(block.time_ps[-1])
        parts = [slice(start, start + _PIECE) for start in range(0, block.time_ps.size, _PIECE)]
        rows = _joined([self._open, *(self._rows(block.time_ps[part], block.channel[part]) for part in parts)])
        self._open = RateRows(rows.bin[-1:], rows.counts[-1:])
        return RateRows(rows.bin[:-1], rows.counts[:-1])

    def finish(self) -> RateRows:
        """The last bin."""
        rows, self._open = self._open, RateRows(self._open.bin[:0], self._open.counts[:0])
        return rows

    def _rows(self, time_ps: NDArray[np.int64], channel: NDArray[np.uint8]) -> RateRows:
        number = time_ps // self._bin_ps
        new = np.flatnonzero(number[1:] != number[:-1]) + 1
        row = np.zeros(number.size, np.int64)
        row[new] = 1
        np.cumsum(row, out=row)
        np.multiply(row, self._channels, out=row)
        np.add(row, channel, out=row)
        counts = np.bincount(row, minlength=(new.size + 1) * self._channels).reshape(-1, self._channels)
        return RateRows(number[np.concatenate(([0], new))], counts)


def _joined(parts: list[RateRows]) -> RateRows:
    """Neighbours in order; a bin that two of them share becomes one."""
    number = np.concatenate([part.bin for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    first = np.flatnonzero(np.concatenate(([True], number[1:] != number[:-1])))
    return RateRows(number[first], np.add.reduceat(counts, first))


class PhaseHistogram:
    """Where in a period the tags of a channel fall: `counts` (bins,) int64, bin k from k / bins of the period on.

    The period may be a fraction of picoseconds. Phase 0 is at time 0. A tag within 1e-3 ps of the edge of a bin may
    be counted in either, but always in the same.
    """

    def __init__(self, channel: int, period_ps: Fraction | int, bins: int) -> None:
        self._period_ps = Fraction(period_ps)
        if self._period_ps <= 0 or bins < 1:
            raise ValueError(f"a phase needs a period above 0 and a bin or more, not {period_ps} ps and {bins}")
        self._channel = channel
        self._last_ps: int | None = None
        self.counts = np.zeros(bins, np.int64)

    def feed(self, block: TagBlock) -> None:
        """Count the channel's tags; UnsortedTags when the block does not continue the stream."""
        require_sorted(block.time_ps, self._last_ps)
        if block.time_ps.size:
            self._last_ps = int(block.time_ps[-1])
        for start in range(0, block.time_ps.size, _PIECE):
            channel = block.channel[start : start + _PIECE]
            time = block.time_ps[start : start + _PIECE][np.flatnonzero(channel == self._channel)]
            while time.size:
                anchor = int(time[0]) >> _ANCHOR_BITS
                stop = int(np.searchsorted(time, (anchor + 1) << _ANCHOR_BITS))
                self._count(time[:stop], anchor << _ANCHOR_BITS)
                time = time[stop:]

    def finish(self) -> NDArray[np.int64]:
        """The counts; nothing is pending."""
        return self.counts

    def _count(self, time_ps: NDArray[np.int64], anchor_ps: int) -> None:
        turn = (time_ps - anchor_ps).astype(np.float64)
        turn += float(anchor_ps % self._period_ps)
        turn /= float(self._period_ps)
        turn -= np.floor(turn)
        turn *= self.counts.size
        number = np.minimum(turn.astype(np.int64), self.counts.size - 1)
        self.counts += np.bincount(number, minlength=self.counts.size)


class IntervalHistogram:
    """The time from each click of a channel to the next: bins of bin_ps from 0 to range_ps, longer ones left out."""

    def __init__(self, channel: int, range_ps: int, bin_ps: int) -> None:
        self._pairs = Correlation(channel, channel, range_ps, bin_ps, "start_stop")

    def feed(self, block: TagBlock) -> None:
        """Count the intervals that end in the block; UnsortedTags when it does not continue the stream."""
        self._pairs.feed(block)

    def finish(self) -> DelayHistogram:
        """The histogram; no interval is pending."""
        return self._pairs.histogram

    @property
    def histogram(self) -> DelayHistogram:
        """The intervals so far."""
        return self._pairs.histogram

    @property
    def longer(self) -> int:
        """Intervals of range_ps and more."""
        return max(0, self._pairs.tags_a - 1) - int(self._pairs.histogram.counts.sum())
