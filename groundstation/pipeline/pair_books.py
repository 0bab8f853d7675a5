"""Counts the coincidences of two stations once their clock is known. Sums only, window by window of station A."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.coincidence import pairs
from groundstation.core.entanglement import joint_counts, sift_pairs, squash
from groundstation.core.pair_clock import PairClock
from groundstation.core.timebase import PS_PER_S
from groundstation.pipeline.pair_result import PairSettings, SiftedSide

_NEVER_PS = -(1 << 62)


class CommonClicks(NamedTuple):
    """Clicks of one station in order, (n,) each: on the common time, by detector, and on the recording's time."""

    common_ps: NDArray[np.int64]
    detector: NDArray[np.uint8]
    time_ps: NDArray[np.int64]

    def at(self, rows: slice | NDArray[np.int64]) -> "CommonClicks":
        """Some of them."""
        return CommonClicks(self.common_ps[rows], self.detector[rows], self.time_ps[rows])

    def between(self, start_ps: int, stop_ps: int) -> "CommonClicks":
        """Those with start <= common time < stop."""
        low, high = np.searchsorted(self.common_ps, [start_ps, stop_ps])
        return self.at(slice(int(low), int(high)))

    def joined(self, more: "CommonClicks") -> "CommonClicks":
        """These and later ones."""
        if more.common_ps.size == 0:
            return self
        return CommonClicks(
            np.concatenate((self.common_ps, more.common_ps)),
            np.concatenate((self.detector, more.detector)),
            np.concatenate((self.time_ps, more.time_ps)),
        )


NO_CLICKS = CommonClicks(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))


@dataclass(frozen=True)
class Window:
    """A stretch of A's common time with one clock, and what of it must not count, (start, stop) each."""

    start_ps: int
    stop_ps: int
    clock: PairClock
    excluded_ps: tuple[tuple[int, int], ...] = ()


class PairBooks:
    """The integers that two recordings add up to."""

    def __init__(self, settings: PairSettings, expected: NDArray[np.float64], keys: tuple[int, int]) -> None:
        """`expected` (2, 2): which bases belong together, see `expected_correlations`; `keys`: each station's own for
        the random outcomes of double clicks, see `squash`."""
        self._settings = settings
        self._expected = expected
        self._keys = keys
        self.bin_ps = max(settings.half_window_ps // 10, 1)
        self._half_bins = settings.histogram_half_windows * settings.half_window_ps // self.bin_ps
        self._last_b_ps = _NEVER_PS
        self.counts = np.zeros((4, 4), np.int64)
        self.accidental_counts = np.zeros((4, 4), np.int64)
        self.shifts = 2 * settings.shifts_each_way
        self.singles = np.zeros((2, 4), np.int64)
        self.double_clicks = np.zeros(2, np.int64)
        self.histogram = np.zeros(2 * self._half_bins + 1, np.int64)
        self.analysed_ps = 0
        self.per_second: dict[int, int] = {}
        self._sifted: tuple[list[SiftedSide], list[SiftedSide]] = ([], [])

    @property
    def reach_ps(self) -> int:
        """How far outside a window B's clicks are looked at."""
        settings = self._settings
        return settings.shift_ps * settings.shifts_each_way + self._half_bins * self.bin_ps + settings.half_window_ps

    def add(self, window: Window, a: CommonClicks, b: CommonClicks) -> None:
        """Count a window: `a` its clicks of A, `b` those of B from `reach_ps` before it to `reach_ps` after it."""
        b_ps = window.clock.to_a(b.common_ps)
        inside_a = np.flatnonzero(_live(a.common_ps, window))
        a = a.at(inside_a)
        live_b = _live(b_ps, window)
        around = live_b | (b_ps < window.start_ps) | (b_ps >= window.stop_ps)
        self.singles[0] += np.bincount(a.detector, minlength=4)
        self.singles[1] += np.bincount(b.detector[live_b], minlength=4)
        self.analysed_ps += window.stop_ps - window.start_ps - _overlap(window)
        keep = np.flatnonzero(around)
        b, b_ps = b.at(keep), b_ps[keep]
        a, b = self._squashed(0, a, a.common_ps, window), self._squashed(1, b, b_ps, window)
        self._count(a, b, b_ps)
        self._count_accidentals(a, b, b_ps)

    def _squashed(self, side: int, clicks: CommonClicks, time_ps: NDArray[np.int64], window: Window) -> CommonClicks:
        """The same clicks, each with the outcome that counts."""
        outcome = squash(time_ps, clicks.detector, self._settings.half_window_ps, clicks.time_ps, self._keys[side])
        self.double_clicks[side] += np.count_nonzero(outcome.double & _live(time_ps, window))
        return clicks._replace(detector=outcome.channel)

    def _count(self, a: CommonClicks, b: CommonClicks, b_ps: NDArray[np.int64]) -> None:
        reach = self._half_bins * self.bin_ps + (self.bin_ps - 1) // 2
        near_a, near_b = pairs(a.common_ps, b_ps, reach)
        delay = b_ps[near_b] - a.common_ps[near_a]
        place = np.clip((delay + reach) // self.bin_ps, 0, self.histogram.size - 1)
        self.histogram += np.bincount(place, minlength=self.histogram.size)
        unused = int(np.searchsorted(b.common_ps, self._last_b_ps, side="right"))  # no click counts in two windows
        which_a, which_b = pairs(a.common_ps, b_ps[unused:], self._settings.half_window_ps, "one_to_one")
        if which_a.size == 0:
            return
        which_b = which_b + unused
        self._last_b_ps = int(b.common_ps[which_b[-1]])
        self.counts += joint_counts(a.detector[which_a], b.detector[which_b])
        seconds, found = np.unique(a.common_ps[which_a] // PS_PER_S, return_counts=True)
        for second, count in zip(seconds.tolist(), found.tolist(), strict=True):
            self.per_second[second] = self.per_second.get(second, 0) + count
        sifted = sift_pairs(a.detector[which_a], b.detector[which_b], self._expected)
        position = sifted.position
        self._sifted[0].append(SiftedSide(a.time_ps[which_a[position]], sifted.basis, sifted.bit_a))
        self._sifted[1].append(SiftedSide(b.time_ps[which_b[position]], sifted.basis, sifted.bit_b))

    def _count_accidentals(self, a: CommonClicks, b: CommonClicks, b_ps: NDArray[np.int64]) -> None:
        steps = range(-self._settings.shifts_each_way, self._settings.shifts_each_way + 1)
        for shift in (step * self._settings.shift_ps for step in steps if step):
            which_a, which_b = pairs(a.common_ps, b_ps + shift, self._settings.half_window_ps, "one_to_one")
            self.accidental_counts += joint_counts(a.detector[which_a], b.detector[which_b])

    def sifted(self) -> tuple[SiftedSide, SiftedSide]:
        """Both sides' sifted keys so far, row by row of the same pairs."""
        a, b = (_joined(side) for side in self._sifted)
        return a, b


def _joined(parts: list[SiftedSide]) -> SiftedSide:
    none = SiftedSide(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint8))
    whole = [none, *parts]
    return SiftedSide(
        np.concatenate([part.time_ps for part in whole]),
        np.concatenate([part.basis for part in whole]),
        np.concatenate([part.bit for part in whole]),
    )


def _live(time_ps: NDArray[np.int64], window: Window) -> NDArray[np.bool_]:
    """Which times lie in the window and not beside a gap."""
    live = (time_ps >= window.start_ps) & (time_ps < window.stop_ps)
    for start, stop in window.excluded_ps:
        live &= (time_ps < start) | (time_ps >= stop)
    return live


def _overlap(window: Window) -> int:
    """How much of the window is excluded; the intervals may overlap one another."""
    covered, reached = 0, window.start_ps
    for start, stop in sorted(window.excluded_ps):
        first, last = max(start, reached), min(stop, window.stop_ps)
        if last > first:
            covered, reached = covered + last - first, last
    return covered


def excluded_time_ps(window: Window) -> int:
    """How much of a window does not count."""
    return _overlap(window)
