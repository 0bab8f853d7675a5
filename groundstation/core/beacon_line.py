"""The beacon's clock as a line for each run of pulses, straight from the times of its tags.

For a beacon of constant spacing whose tags may be missing, doubled or spurious. Pulses are numbered from the first
that fits; each `pulses_per_line` of them, counted by number and not by tag, get one line by least squares, so nothing
depends on how the tags arrive. Where too few pulses support a line there is none. After a gap the count goes on while
the line before still tells the pulses apart; otherwise a new numbering begins, and says so. Absolute numbers,
curvature and time of flight are the business of `synchronisation`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: A tag further from the line than this many standard deviations (by the median, which outliers cannot move) is not
#: the pulse.
_OUTLIER_SIGMA = 5.5
_ROUNDS = 6
#: Pulses are told apart while nothing moves them by more than this share of their spacing.
_UNMISTAKABLE = 0.25
_LONGEST_LINE_PS = 1 << 49
_EARLIEST_PS = -(1 << 63)


class BeaconLine(NamedTuple):
    """The clock of all tags before `stop_ps` and not before the stop of the line before it.

    Pulse number n arrives at zero_ps + fraction_ps + period_ps (n - first); zero_ps is a whole tag time. `numbering`
    says which count of pulses n belongs to, 1 or more: numbers of different counts cannot be compared. `used` tags
    made the line and `rejected` did not; `rms_ps` is the scatter of the used ones. With period_ps 0 there is no clock
    for this time.
    """

    stop_ps: int
    first: int
    zero_ps: int
    fraction_ps: float
    period_ps: float
    numbering: int
    used: int
    rejected: int
    rms_ps: float

    def arrival_ps(self, number: float) -> int:
        """The first whole tag time not before the arrival of a pulse, or of a place between two."""
        return self.zero_ps + math.ceil(self.fraction_ps + self.period_ps * (number - self.first))


class BeaconTracker:
    """Turns beacon tags into lines: `feed` returns those that no later tag can change, `finish` the rest."""

    def __init__(
        self,
        period_ps: int,
        pulses_per_line: int = 500,
        tolerance_ps: float = 4_000.0,
        rate_tolerance: float = 1e-4,
    ) -> None:
        """`period_ps`: nominal spacing, true to `rate_tolerance`; `tolerance_ps`: jitter of a pulse plus what the
        clock may wander off its line until the end of the next. ValueError if these leave the count in doubt."""
        drift = pulses_per_line * rate_tolerance
        if pulses_per_line * period_ps > _LONGEST_LINE_PS:
            raise ValueError(
                f"a line of {pulses_per_line} beacon pulses every {period_ps} ps is longer than 2^49 ps, ten minutes"
            )
        if period_ps < 1 or pulses_per_line < 4 or max(2 * drift, tolerance_ps / period_ps) > _UNMISTAKABLE:
            raise ValueError(
                "a line needs 4 beacon pulses or more, a rate known to an eighth of their spacing over all of them "
                f"and a tolerance below a quarter of it: found spacing {period_ps} ps, {pulses_per_line} pulses, "
                f"rate known to {rate_tolerance:g}, tolerance {tolerance_ps:g} ps"
            )
        self._nominal_ps = period_ps
        self._count = pulses_per_line
        self._tolerance_ps = tolerance_ps
        self._fewest = max(3, pulses_per_line // 4)
        self._numbers = np.arange(pulses_per_line, dtype=np.float64)
        self._pending = np.empty(0, np.int64)
        self._stop_ps = _EARLIEST_PS
        self._line: BeaconLine | None = None
        self._next = 0
        self._numbering = 0

    def feed(self, beacon_ps: NDArray[np.int64], seen_ps: int) -> list[BeaconLine]:
        """`beacon_ps` (n,): further beacon tags in order; `seen_ps`: no tag before this time is still to come."""
        self._pending = np.concatenate((self._pending, beacon_ps))
        lines = []
        while (line := self._take(seen_ps)) is not None:
            lines.append(line)
        if self._line is None and not self._pending.size and seen_ps - self._nominal_ps > self._stop_ps:
            lines.append(self._no_clock(seen_ps - self._nominal_ps))
        return lines

    def finish(self) -> list[BeaconLine]:
        """The lines that remain; tags after the last have no clock."""
        lines = []
        while self._pending.size and (line := self._take(None)) is not None:
            lines.append(line)
        return lines

    def _take(self, seen_ps: int | None) -> BeaconLine | None:
        if self._line is not None:
            return self._follow(self._line, seen_ps)
        return self._acquire(seen_ps) if self._pending.size else None

    def _acquire(self, seen_ps: int | None) -> BeaconLine | None:
        """Begin a numbering with the first pending tag, if it and most of the tags after it agree on one phase."""
        zero_ps, nominal_ps = int(self._pending[0]), self._nominal_ps
        if self._stop_ps < zero_ps - nominal_ps // 2:
            return self._no_clock(zero_ps - nominal_ps // 2)
        end_ps = zero_ps + self._count * nominal_ps - nominal_ps // 2
        if seen_ps is not None and seen_ps < end_ps + nominal_ps:
            return None
        since = self._pending[: np.searchsorted(self._pending, end_ps)] - zero_ps
        agree = np.flatnonzero(_agrees_on_phase(since, nominal_ps))
        if agree.size < max(min(self._fewest, 3), since.size / 2):
            return self._no_clock(zero_ps + self._count // 2 * nominal_ps)
        if agree[0] > 0:
            return self._no_clock(int(self._pending[agree[0]]) - nominal_ps // 2)
        number = np.rint(since[agree] / nominal_ps)
        line = self._fit(zero_ps, 0, number, since[agree].astype(np.float64), since.size)
        if line is None:
            return self._no_clock(zero_ps + self._count // 2 * nominal_ps)
        self._numbering += 1
        return self._accept(line)

    def _follow(self, last: BeaconLine, seen_ps: int | None) -> BeaconLine | None:
        """The next line, from the tags close to where the last line expects the pulses."""
        end_ps = last.arrival_ps(self._next + self._count - 0.5)
        if seen_ps is not None and seen_ps < end_ps + self._nominal_ps // 2:
            return None
        tags = self._pending[: self._pending.searchsorted(end_ps)]
        lines_ago = (self._next - last.first) // self._count
        tolerance_ps = self._tolerance_ps * lines_ago**2
        zero_ps = last.arrival_ps(self._next)
        local = (tags - zero_ps).astype(np.float64)
        if tags.size == self._count and _largest(local - self._numbers * last.period_ps) <= tolerance_ps:
            number = self._numbers  # nothing missing, nothing more
        else:
            number = np.rint(local / last.period_ps)
            near = np.flatnonzero(np.abs(local - number * last.period_ps) <= tolerance_ps)
            near = near[np.diff(number[near], prepend=-1) > 0]  # of a doubled pulse the first
            number, local = number[near], local[near]
        line = self._fit(zero_ps, self._next, number, local, tags.size)
        if line is not None:
            return self._accept(line)
        if seen_ps is None and number.size and lines_ago == 1:  # the last pulses of all are too few for a line
            self._next += self._count
            self._drop_before(end_ps)
            return last._replace(stop_ps=end_ps, used=number.size, rejected=tags.size - number.size)
        self._next += self._count
        if self._tolerance_ps * (lines_ago + 1) ** 2 > _UNMISTAKABLE * self._nominal_ps:
            self._line = None
        return self._no_clock(end_ps)

    def _fit(
        self, zero_ps: int, first: int, number: NDArray[np.float64], local: NDArray[np.float64], tags: int
    ) -> BeaconLine | None:
        """Least squares of `local` (n,) ps since zero_ps over `number` (n,) since `first`, without outliers."""
        for _ in range(_ROUNDS):
            if number.size < self._fewest or number[-1] - number[0] < self._fewest - 1:
                return None
            middle = float(np.add.reduce(number)) / number.size
            arm = number - middle
            centre = float(np.add.reduce(local)) / local.size
            period = float(arm @ local) / float(arm @ arm)
            residual = local - (centre + period * arm)
            off = np.abs(residual - _median(residual))
            limit = _OUTLIER_SIGMA * max(1.4826 * _median(off), 1.0)
            if float(np.maximum.reduce(off)) <= limit:
                rms = math.sqrt(float(residual @ residual) / residual.size)
                line = BeaconLine(
                    0, first, zero_ps, centre - period * middle, period, self._numbering, number.size,
                    tags - number.size, rms,
                )  # fmt: skip
                return line._replace(stop_ps=line.arrival_ps(first + self._count - 0.5))
            keep = off <= limit
            number, local = number[keep], local[keep]
        return None

    def _accept(self, line: BeaconLine) -> BeaconLine:
        line = line._replace(numbering=self._numbering)
        self._line = line
        self._next = line.first + self._count
        self._drop_before(line.stop_ps)
        return line

    def _no_clock(self, stop_ps: int) -> BeaconLine:
        rejected = self._drop_before(stop_ps)
        return BeaconLine(stop_ps, 0, 0, 0.0, 0.0, self._numbering, 0, rejected, math.nan)

    def _drop_before(self, stop_ps: int) -> int:
        """Lines end here; how many tags were pending until here."""
        done = int(self._pending.searchsorted(stop_ps))
        self._pending = self._pending[done:]
        self._stop_ps = stop_ps
        return done


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.maximum.reduce(np.abs(values)))


def _median(values: NDArray[np.float64]) -> float:
    """The upper of two middle ones, to seven digits: float32 is partitioned four times as fast as float64."""
    ordered = values.astype(np.float32)
    ordered.partition(values.size // 2)
    return float(ordered[values.size // 2])


def _agrees_on_phase(since_ps: NDArray[np.int64], period_ps: int) -> NDArray[np.bool_]:
    """Which of the tags (n,) lie within an eighth of a period of the phase most of them have."""
    phase = np.mod(since_ps, period_ps)
    counts = np.bincount(phase * 16 // period_ps, minlength=16)
    centre = (int(np.argmax(counts + np.roll(counts, -1))) + 1) * period_ps // 16
    distance = np.mod(phase - centre + period_ps // 2, period_ps) - period_ps // 2
    agrees: NDArray[np.bool_] = np.abs(distance) <= period_ps // 8
    return agrees
