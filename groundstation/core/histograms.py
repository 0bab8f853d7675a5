"""Histograms of single channels along a stream: rates over time, arrival phase of a period, time since a reference.

All are exact integers, so cutting the stream elsewhere changes nothing.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.correlation import DelayHistogram
from groundstation.core.tags import TagBlock, require_sorted

_PIECE = 1 << 16
#: Phases in floating point are counted from the last multiple of 2^40 ps (1.1 s): float64 keeps what is left well.
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

    The period may be a fraction of picoseconds; phase 0 is at time 0. Every tag is in the bin where exact fractions
    put it: a device's ticks fall on the edges of bins, from where rounding would throw them to one side or the other.
    """

    def __init__(self, channel: int, period_ps: Fraction | int, bins: int) -> None:
        period = Fraction(period_ps)
        if period <= 0 or bins < 1:
            raise ValueError(f"a phase needs a period above 0 and a bin or more, not {period_ps} ps and {bins}")
        self._channel = channel
        self._period_ps = period
        self._fits = period.numerator * max(period.denominator, bins) < 1 << 62
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
            self._count(self._in_integers(time)) if self._fits else self._count_by_anchors(time)

    def finish(self) -> NDArray[np.int64]:
        """The counts; nothing is pending."""
        return self.counts

    def _count(self, number: NDArray[np.int64]) -> None:
        self.counts += np.bincount(number, minlength=self.counts.size)

    def _in_integers(self, time_ps: NDArray[Any]) -> NDArray[Any]:
        """The bin of each tag: a period of p / q ps is p ticks of 1 / q ps, and p ps are q periods."""
        period, parts = self._period_ps.numerator, self._period_ps.denominator
        ticks: NDArray[Any] = time_ps - time_ps // period * period  # faster than the remainder
        if parts > 1:
            ticks *= parts
            ticks -= ticks // period * period
        ticks *= self.counts.size
        ticks //= period
        return ticks

    def _count_by_anchors(self, time_ps: NDArray[np.int64]) -> None:
        while time_ps.size:
            anchor = int(time_ps[0]) >> _ANCHOR_BITS
            stop = int(np.searchsorted(time_ps, (anchor + 1) << _ANCHOR_BITS))
            self._count(self._in_floats(time_ps[:stop], anchor << _ANCHOR_BITS))
            time_ps = time_ps[stop:]

    def _in_floats(self, time_ps: NDArray[np.int64], anchor_ps: int) -> NDArray[np.int64]:
        """The bin of each tag where 64 bits are too few: in floating point, and the doubtful ones in long integers."""
        period = float(self._period_ps)
        place = (time_ps - anchor_ps).astype(np.float64)
        place += float(anchor_ps % self._period_ps)
        place /= period
        place -= np.floor(place)
        place *= self.counts.size
        number = place.astype(np.int64)
        # Four roundings, each of 2^-53 of what was then the largest number, with room to spare.
        error = self.counts.size * ((1 << _ANCHOR_BITS) / period + 1) * 2.0**-49
        doubtful = np.flatnonzero(np.abs(place - np.rint(place)) <= error)
        number[doubtful] = self._in_integers(time_ps[doubtful].astype(object)).astype(np.int64)
        return number


class IntervalHistogram:
    """The time of each tag of a channel since the latest one of a reference: by default since the channel's own.

    Bins of bin_ps from 0 to range_ps, longer times left out. Of equal times the reference counts as earlier where it
    comes earlier in the stream. `counts` (bins,) int64; `longer`: times of range_ps and more; `unreferenced`: tags
    before the first of the reference; `shortest_ps`: the smallest time, None before the first.
    """

    def __init__(self, channel: int, range_ps: int, bin_ps: int, reference: int | None = None) -> None:
        if bin_ps < 1 or range_ps < bin_ps or range_ps % bin_ps:
            raise ValueError(
                f"range_ps must be a whole number of bins, at least one: found range_ps = {range_ps}, bin_ps = {bin_ps}"
            )
        self._channel = channel
        self._reference = channel if reference is None else reference
        self._bin_ps = bin_ps
        self._tally = np.zeros(range_ps // bin_ps + 1, np.int64)  # the last one holds what is longer
        self._latest_ps: int | None = None
        self._last_ps: int | None = None
        self.unreferenced = 0
        self.shortest_ps: int | None = None

    def feed(self, block: TagBlock) -> None:
        """Count the times that end in the block; UnsortedTags when it does not continue the stream."""
        require_sorted(block.time_ps, self._last_ps)
        if block.time_ps.size:
            self._last_ps = int(block.time_ps[-1])
        for start in range(0, block.time_ps.size, _PIECE):
            self._count(block.time_ps[start : start + _PIECE], block.channel[start : start + _PIECE])

    def finish(self) -> DelayHistogram:
        """The histogram; no time is pending."""
        return self.histogram

    @property
    def counts(self) -> NDArray[np.int64]:
        """Tags by time since the reference (bins,)."""
        return self._tally[:-1]

    @property
    def longer(self) -> int:
        """Times of range_ps and more."""
        return int(self._tally[-1])

    @property
    def histogram(self) -> DelayHistogram:
        """The times so far."""
        return DelayHistogram(self.counts.copy(), 0, self._bin_ps)

    def _count(self, time_ps: NDArray[np.int64], channel: NDArray[np.uint8]) -> None:
        if self._reference == self._channel:
            tags_ps = time_ps[np.flatnonzero(channel == self._channel)]
            before = np.arange(tags_ps.size)
            references_ps = tags_ps
        else:
            references = np.flatnonzero(channel == self._reference)
            tags = np.flatnonzero(channel == self._channel)
            before = references.searchsorted(tags)
            tags_ps, references_ps = time_ps[tags], time_ps[references]
        if self._latest_ps is None:
            early = int(before.searchsorted(1))
            self.unreferenced += early
            before, tags_ps = before[early:], tags_ps[early:]
        latest_ps = np.concatenate(([self._latest_ps or 0], references_ps))
        since_ps = (tags_ps - latest_ps[before]).view(np.uint64)  # up to 2^63, from -2^62 to 2^62
        if since_ps.size:
            shortest_ps = int(since_ps.min())
            self.shortest_ps = shortest_ps if self.shortest_ps is None else min(shortest_ps, self.shortest_ps)
            number = np.minimum(since_ps // np.uint64(self._bin_ps), np.uint64(self._tally.size - 1))
            self._tally += np.bincount(number.view(np.int64), minlength=self._tally.size)
        if references_ps.size:
            self._latest_ps = int(references_ps[-1])
