"""Streaming tallies of one channel's tags by phase within a period, or by time since a reference.

Each has `feed(block)` and counts that are exact after every feed, whatever the cuts; none keeps tags. Both work in
whole numbers: where a device's ticks fall on the edges of bins, rounding would throw them to one side or the other.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from groundstation.core.histograms import PhaseHistogram
from groundstation.core.tags import TagBlock

Int64s = NDArray[np.int64]


def phase_tally(channel: int, period_ps: Fraction, bins: int) -> "PhaseTally | PhaseHistogram":
    """Counts by phase: exactly while the period's numbers fit, else to 1e-3 ps, which is then not seen: the edges of
    the bins do not fall on ticks. Phase 0 is the recording's zero."""
    fits = period_ps.numerator * max(period_ps.denominator, bins) < 1 << 62
    return PhaseTally(channel, period_ps, bins) if fits else PhaseHistogram(channel, period_ps, bins)


class PhaseTally:
    """Tags of one channel by their time modulo a period, in whole numbers: `counts` (bins,)."""

    def __init__(self, channel: int, period_ps: Fraction, bins: int) -> None:
        """Numerator times bins and numerator times denominator must be below 2^62."""
        self._channel = channel
        self._turns, self._parts = period_ps.numerator, period_ps.denominator
        self.counts = np.zeros(bins, np.int64)

    def feed(self, block: TagBlock) -> None:
        """Count them: a period of p / q ps is p ticks of 1 / q ps, and p ps are q periods."""
        time_ps = block.time_ps[block.channel == self._channel]
        ticks = time_ps % self._turns * self._parts % self._turns
        self.counts += np.bincount(ticks * self.counts.size // self._turns, minlength=self.counts.size)


class DelayTally:
    """Tags of one channel by the time since the latest tag of a reference, which may be the channel itself.

    `counts` (bins + 1,): the last one holds later tags; `unreferenced`: tags before the first of the reference. Of
    equal times the reference counts as earlier when it comes earlier in the stream.
    """

    def __init__(self, channel: int, reference: int, bin_ps: int, bins: int) -> None:
        self._channel, self._reference, self._bin_ps = channel, reference, bin_ps
        self._latest_ps: int | None = None
        self.counts = np.zeros(bins + 1, np.int64)
        self.unreferenced = 0
        self.shortest_ps: int | None = None

    def feed(self, block: TagBlock) -> None:
        """Count them."""
        is_reference = block.channel == self._reference
        if self._channel != self._reference:
            wanted = np.flatnonzero(is_reference | (block.channel == self._channel))
            block, is_reference = TagBlock(block.time_ps[wanted], block.channel[wanted]), is_reference[wanted]
        if block.time_ps.size == 0:
            return
        begins = np.flatnonzero(is_reference)
        tags = np.flatnonzero(block.channel == self._channel)
        # How many tags of the reference come before each tag: the tag itself is none of them.
        before = np.cumsum(is_reference)[tags] - is_reference[tags]
        latest = np.concatenate(([self._latest_ps or 0], block.time_ps[begins]))
        since = block.time_ps[tags] - latest[before]
        if self._latest_ps is None:
            since = since[before > 0]
            self.unreferenced += tags.size - since.size
        if since.size:
            shortest = int(since.min())
            self.shortest_ps = shortest if self.shortest_ps is None else min(shortest, self.shortest_ps)
        bins = np.minimum(since // self._bin_ps, self.counts.size - 1)
        self.counts += np.bincount(bins, minlength=self.counts.size)
        if begins.size:
            self._latest_ps = int(block.time_ps[begins[-1]])
