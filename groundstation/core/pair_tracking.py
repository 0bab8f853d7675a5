"""Follows the clock of two stations through a pass, window by window, while both streams still grow.

What the last windows know of offset, frequency and drift is carried forward, less sure with every second (a
Kalman filter whose noise is the change of drift along an orbit), and sharpened by the pairs of the next window.
Windows are anchored on station A's time, so the result does not depend on how the streams were cut.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.pair_clock import PairClock, PredictedDelay, clock_of
from groundstation.core.pair_lines import Fit, between, bin_width_ps, differences, fit_curve, strongest_line
from groundstation.core.tags import require_sorted
from groundstation.core.timebase import PS_PER_S

#: Pairs of one window must stand out this far, or the window has no clock.
_SURE_SIGMAS = 5.0
#: Where the clock could be anywhere within more than this, it is lost.
_WIDEST_PS = 20e6
_MOST_PAIRS_LOOKED_AT = 2_000_000
_EMPTY = np.empty(0, np.int64)


class TrackedWindow(NamedTuple):
    """One window of station A's time, [start, stop): its clock, or None and the reason in `sentence`."""

    number: int
    start_ps: int
    stop_ps: int
    clock: PairClock | None
    sentence: str


class PairClockTracker:
    """Feed both streams as they come; each call returns the windows that this has completed."""

    def __init__(
        self,
        clock: PairClock,
        *,
        window_ps: int = PS_PER_S,
        predicted_delay: PredictedDelay | None = None,
        drift_change: float = 1e-8,
        forget_after_s: float = 30.0,
    ) -> None:
        """`clock`: where to begin, from `find_pair_clock` with the same `predicted_delay`.

        `drift_change`: how much the drift may change per second in one second (1 sigma, 1/s); 1e-8 covers a
        low orbit without prediction, 1e-11 does when the predicted path is removed and both clocks are good.
        `forget_after_s`: after so long without a sure window nothing more is claimed.
        """
        if window_ps <= 0 or drift_change <= 0 or forget_after_s <= 0:
            raise ValueError(
                f"a tracker needs positive window_ps, drift_change and forget_after_s, but got {window_ps}, "
                f"{drift_change} and {forget_after_s}"
            )
        self._window_ps = window_ps
        self._delay = predicted_delay
        self._noise = (drift_change * PS_PER_S) ** 2
        self._forget_after_s = forget_after_s
        self._state = _state_of(clock)
        self._sure_at_ps: int = min(max(clock.reference_ps, clock.start_ps), clock.stop_ps)
        self._a, self._b = _EMPTY, _EMPTY
        self._next: int | None = None
        self._last_b_ps: int | None = None
        self._lost = self._over = False

    def feed(self, a_ps: NDArray[np.int64], b_ps: NDArray[np.int64]) -> list[TrackedWindow]:
        """Further tags of A (n,) and B (m,), each sorted and not before those fed earlier; both may be empty."""
        self._a = _appended(self._a, a_ps)
        self._b = _appended(self._b, b_ps)
        if b_ps.size:
            self._last_b_ps = int(b_ps[-1])
        done = []
        while self._a.size and self._complete():
            done.append(self._close_window())
        return done

    def finish(self) -> list[TrackedWindow]:
        """The windows that remain, up to the last tag of A; what both stations have of a window is used."""
        done = []
        if self._next is None and self._a.size:
            self._next = int(self._a[0]) // self._window_ps
        self._over = True
        while self._next is not None and self._a.size and int(self._a[-1]) >= self._next * self._window_ps:
            done.append(self._close_window())
        return done

    def _complete(self) -> bool:
        """Whether both streams have passed the end of the next window."""
        if self._next is None:
            self._next = int(self._a[0]) // self._window_ps
        stop = (self._next + 1) * self._window_ps
        if int(self._a[-1]) < stop or self._b.size == 0:
            return False
        expected = int(self._state.curve.apply(self._delayed(np.array([stop])))[0])
        return int(self._b[-1]) > expected + 2 * _WIDEST_PS

    def _delayed(self, a_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        return a_ps if self._delay is None else a_ps + self._delay(a_ps)

    def _close_window(self) -> TrackedWindow:
        assert self._next is not None
        number, start, stop = self._next, self._next * self._window_ps, (self._next + 1) * self._window_ps
        raw = between(self._a, start, stop)
        edges = self._delayed(np.array([start, stop]))
        begin, end = int(edges[0]), int(edges[1])
        clock, sentence = self._fit(self._delayed(raw), begin, self._recorded_until(begin, end))
        self._a = self._a[raw.size :].copy()
        self._next = number + 1
        if self._lost and self._a.size:  # nothing more will be claimed: do not walk through an empty week
            self._next = max(self._next, int(self._a[0]) // self._window_ps)
        used = int(self._state.curve.apply(edges[1:])[0]) - 2 * int(_WIDEST_PS)
        self._b = self._b[int(np.searchsorted(self._b, used)) :].copy()
        return TrackedWindow(number, start, stop, clock, sentence)

    def _recorded_until(self, start: int, stop: int) -> int:
        """The end of a window, or of what both stations have of it when nothing more will come."""
        if not self._over or not self._a.size or self._last_b_ps is None:
            return stop
        b_end = int(clock_of(self._state, start, stop).to_a(np.array([self._last_b_ps]))[0])
        a_end = int(self._delayed(self._a[-1:])[0])
        recorded = min(a_end, b_end) + 1
        return stop if stop - recorded < (stop - start) // 16 else recorded

    def _fit(self, a_ps: NDArray[np.int64], start: int, stop: int) -> tuple[PairClock | None, str]:
        if stop <= start:
            return None, "station B had ended before this window"
        a_ps = between(a_ps, start, stop)
        middle, half_s = (start + stop) // 2, (stop - start) / 2 * 1e-12
        predicted = self._predicted(middle)
        silent_s = (middle - self._sure_at_ps) * 1e-12
        half_width = 8 * predicted.scatter_ps + 5 * predicted.uncertainty_ps(half_s)
        self._lost = abs(silent_s) > self._forget_after_s or half_width > _WIDEST_PS
        if self._lost:
            return None, f"the clock was lost {silent_s:.1f} s ago: find it anew"
        self._state = predicted
        b_start, b_stop = (int(edge) for edge in predicted.curve.apply(np.array([start, stop])))
        b_ps = between(self._b, b_start - int(half_width), b_stop + int(half_width) + 1)
        pairs = differences(_affordable(a_ps, b_ps, half_width), b_ps, predicted.curve, half_width)
        offset, slope = (5 * float(np.sqrt(predicted.covariance[k, k])) for k in (0, 1))
        width = bin_width_ps(offset, slope * 1e-12, half_s * 1e12, 2 * predicted.scatter_ps)
        line = strongest_line(pairs, offset + predicted.scatter_ps, slope * 1e-12, half_s * 1e12, width)
        if line is None or line.sigmas < _SURE_SIGMAS:
            return None, "the pairs of this window do not stand out of the accidental ones"
        prior = np.linalg.inv(predicted.covariance).astype(np.float64)
        begin = (line.offset_ps, line.slope)
        fit = fit_curve(pairs, predicted.curve, half_width, predicted.scatter_ps, prior, begin)
        if fit is None or fit.sigmas < _SURE_SIGMAS:
            return None, "the pairs of this window do not lie on one line"
        # The width of the line changes slowly; a few pairs must not decide it.
        weight = fit.pairs / (fit.pairs + 100)
        scatter = float(np.sqrt(weight * fit.scatter_ps**2 + (1 - weight) * predicted.scatter_ps**2))
        self._state, self._sure_at_ps = fit._replace(scatter_ps=scatter), middle
        uncertainty = fit.uncertainty_ps(half_s)
        if uncertainty > scatter:
            return None, f"the clock is only known to {uncertainty:.0f} ps, worse than the {scatter:.0f} ps of one pair"
        return clock_of(fit, start, stop), "followed"

    def _predicted(self, middle_ps: int) -> Fit:
        """The state carried to another time."""
        curve = self._state.curve.moved_to(middle_ps)
        t = (middle_ps - self._state.curve.reference_ps) * 1e-12
        carry = np.array([[1.0, t, t * t / 2], [0.0, 1.0, t], [0.0, 0.0, 1.0]])
        t = abs(t)
        noise = np.array([[t**5 / 20, t**4 / 8, t**3 / 6], [t**4 / 8, t**3 / 3, t * t / 2], [t**3 / 6, t * t / 2, t]])
        covariance = carry @ self._state.covariance @ carry.T + self._noise * noise
        return self._state._replace(curve=curve, covariance=covariance)


def _state_of(clock: PairClock) -> Fit:
    """What a found clock knows; its drift as well as so many pairs over that span can tell."""
    span_s = max((clock.stop_ps - clock.start_ps) * 1e-12, 1e-3)
    deviations = [
        max(clock.offset_uncertainty_ps, 1.0),
        max(clock.frequency_uncertainty * PS_PER_S, 1e-3),
        27 * max(clock.offset_uncertainty_ps, 1.0) / span_s**2,  # least squares of a quadratic, n even points
    ]
    covariance = np.diag(np.square(deviations))
    return Fit(clock.curve, covariance, clock.jitter_ps, float(clock.pairs_used), clock.significance)


def _appended(kept: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    require_sorted(more, int(kept[-1]) if kept.size else None)
    return np.concatenate((kept, more)) if more.size else kept


def _affordable(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], half_width_ps: float) -> NDArray[np.int64]:
    """All tags, or every n-th where the window to look in has grown so wide that there would be too many pairs."""
    if b_ps.size == 0:
        return a_ps
    density = b_ps.size / (int(b_ps[-1]) - int(b_ps[0]) + 1)
    every = int(a_ps.size * min(density * 2 * half_width_ps, b_ps.size) / _MOST_PAIRS_LOOKED_AT) + 1
    return a_ps[::every]
