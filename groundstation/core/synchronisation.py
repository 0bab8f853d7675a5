"""The transmitter's clock from its beacon pulses: numbered absolutely, followed through the pass.

Emission times (see `timebase`) of the beacon lie near n x period, off by an offset that collects both clocks
and the error of the prediction. The offset is found once, without ambiguity or not at all, and then followed
by a quadratic over each window of a fixed number of pulses. Windows are anchored on beacon numbers, so the
result does not depend on how the tags were cut into blocks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.timebase import PS_PER_S

#: A pulse further than this from the clock of the window before is spurious.
_TOLERANCE_PS = 4_000.0
#: A window is used only if its clock is known this well (1 sigma) at its worst edge; the gate is 1,000 ps.
_EDGE_UNCERTAINTY_PS = 300.0
_ACQUISITION_BIN_PS = 1_000_000
_FEWEST_TO_ACQUIRE = 20
#: Powers of u at both ends of a window.
_EDGES = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
#: A clock older than this predicts nothing: numbering begins anew.
_FORGET_AFTER_S = 5.0


class ClockFit(NamedTuple):
    """The transmitter's clock over one window: offset(u) = c0 + c1 u + c2 u^2 in ps, u = -1..1 over the window."""

    c0: float
    c1: float
    c2: float
    edge_uncertainty_ps: float
    pulses_used: int
    pulses_rejected: int
    residual_square_sum_ps2: float


class BeaconSolution(NamedTuple):
    """The outcome of the first acquisition: the offset, or why none is given."""

    offset_ps: float | None
    sentence: str


def acquire_offset(emitted_ps: NDArray[np.int64], period_ps: int, uncertainty_ps: float) -> BeaconSolution:
    """The offset of a beacon train against its grid, if the a-priori uncertainty singles one out.

    `emitted_ps` (n,): emission times of the pulses of one window; `uncertainty_ps`: how far UTC, the predicted
    time of flight and the transmitter's clock may be off together. Offsets that differ by a period number the
    pulses differently, so the uncertainty must be less than half a period and the offset must lie within it.
    """
    known = f"UTC and the predicted time of flight are known to {uncertainty_ps * 1e-6:.3g} us together"
    if 2 * uncertainty_ps >= period_ps:
        spacing = f"the beacon pulses are {period_ps * 1e-6:.3g} us apart"
        return BeaconSolution(None, f"{known} and {spacing}: the number of a pulse is ambiguous")
    phase = np.mod(emitted_ps, period_ps)
    bins = -(-period_ps // _ACQUISITION_BIN_PS)
    counts = np.bincount(phase // _ACQUISITION_BIN_PS, minlength=bins)
    peak = int(np.argmax(counts + np.roll(counts, -1)))
    centre = (peak + 1) * _ACQUISITION_BIN_PS
    distance = np.mod(phase - centre + period_ps // 2, period_ps) - period_ps // 2
    near = distance[np.abs(distance) <= _ACQUISITION_BIN_PS]
    if near.size < _FEWEST_TO_ACQUIRE or near.size < 0.5 * emitted_ps.size:
        return BeaconSolution(None, f"only {near.size} of {emitted_ps.size} beacon tags agree on one phase")
    offset = centre + float(np.median(near))
    offset -= period_ps * round(offset / period_ps)
    if abs(offset) > uncertainty_ps:
        return BeaconSolution(None, f"{known}, but the beacon is {offset * 1e-6:.3g} us away from where it should be")
    return BeaconSolution(offset, "numbered")


class WindowedClock:
    """What every clock that is followed from window to window has: windows of one length, the last fit, and why the
    latest window got none."""

    def __init__(self, window_ps: int) -> None:
        self._window_ps = window_ps
        self._last: tuple[int, ClockFit] | None = None
        self.refusal = ""

    @property
    def window_ps(self) -> int:
        """Length of a window in emission time."""
        return self._window_ps

    def centre_ps(self, window: int) -> int:
        """Emission time of the middle of a window."""
        return window * self._window_ps + self._window_ps // 2


class BeaconClock(WindowedClock):
    """Follows the transmitter's clock by its beacon. Feed windows in order, empty ones included."""

    def __init__(self, period_ps: int, window_pulses: int, uncertainty_ps: float) -> None:
        super().__init__(period_ps * window_pulses)
        self._period_ps = period_ps
        self._uncertainty_ps = uncertainty_ps

    def fit(self, window: int, emitted_ps: NDArray[np.int64]) -> ClockFit | None:
        """The clock over window number `window` from its beacon tags (n,); None when it cannot be trusted."""
        centre = self.centre_ps(window)
        u = (emitted_ps - centre) / (self._window_ps / 2)
        prediction = self._predict(window, emitted_ps, u)
        if prediction is None:
            return None
        expected, tolerance = prediction
        # A window begins with a pulse of the grid; each tag belongs to the pulse expected nearest to it.
        since_ps = emitted_ps - window * self._window_ps
        pulse = np.rint((since_ps - expected) / self._period_ps).astype(np.int64)
        offset = (since_ps - pulse * self._period_ps).astype(np.float64)
        fitted = _robust_quadratic(u, offset, expected, tolerance)
        if fitted is None or fitted.edge_uncertainty_ps > _EDGE_UNCERTAINTY_PS:
            return None
        self._last = (window, fitted)
        return fitted

    def _predict(
        self, window: int, emitted_ps: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float] | None:
        """Expected offset of each pulse (n,) in ps and how far a true pulse may be from it.

        From one window to the next the last clock is extrapolated. After a fade it still says which number a
        pulse has (curvature of 358 ns/s^2 makes 1.6 us in 3 s), but not to nanoseconds: the offset from it is
        searched for as at the beginning.
        """
        expected = np.zeros(u.shape)
        if self._last is not None and (window - self._last[0]) * self._window_ps <= _FORGET_AFTER_S * PS_PER_S:
            ago, fit = window - self._last[0], self._last[1]
            slope = fit.c1 + 2 * fit.c2  # per unit of u at the end of the last window
            expected = fit.c0 + fit.c1 + fit.c2 + slope * (u + 2 * ago - 1)
            if ago == 1:
                return expected, _TOLERANCE_PS
        unexpected_ps = emitted_ps - np.rint(expected).astype(np.int64)
        solution = acquire_offset(unexpected_ps, self._period_ps, self._uncertainty_ps)
        if solution.offset_ps is None:
            if emitted_ps.size >= _FEWEST_TO_ACQUIRE:
                self.refusal = solution.sentence
            return None
        self.refusal = ""
        return expected + solution.offset_ps, float(_ACQUISITION_BIN_PS)


def _robust_quadratic(
    u: NDArray[np.float64], offset: NDArray[np.float64], expected: NDArray[np.float64], tolerance_ps: float
) -> ClockFit | None:
    """Least squares of 1, u, u^2, cutting outliers at shrinking distances from the fit."""
    powers = np.vander(u, 3, increasing=True)
    model: NDArray[np.floating] = expected
    limit = tolerance_ps
    while True:
        inside = np.flatnonzero(np.abs(offset - model) <= limit)
        if inside.size < 30:
            return None
        used, observed = powers[inside], offset[inside]
        reference = median(observed)
        normal = used.T @ used
        if ill_conditioned(normal, 1e8):
            return None  # all pulses in one corner of the window
        coefficients = np.linalg.solve(normal, used.T @ (observed - reference))
        coefficients[0] += reference
        residual = observed - used @ coefficients
        scatter = median(np.abs(residual)) * 1.4826 + 1.0
        next_limit = max(4 * scatter, 50.0)
        if next_limit >= 0.9 * limit:
            return fit_of(coefficients, normal, residual, u.size)
        model = powers @ coefficients
        limit = next_limit


def fit_of(
    coefficients: NDArray[np.floating], normal: NDArray[np.floating], residual: NDArray[np.floating], tags: int
) -> ClockFit:
    """The clock of a least-squares quadratic (3,) with its normal matrix (3, 3), from the residuals (n,) in ps of those
    of all `tags` that were used."""
    square_sum = float(np.sum(residual**2))
    covariance = np.linalg.inv(normal) * (square_sum / residual.size)
    variances = np.einsum("ij,jk,ik->i", _EDGES, covariance, _EDGES)
    c0, c1, c2 = coefficients.tolist()
    used = int(residual.size)
    return ClockFit(c0, c1, c2, float(np.sqrt(variances.max())), used, tags - used, square_sum)


def ill_conditioned(normal: NDArray[np.floating], limit: float) -> bool:
    """Whether the condition number of a symmetric matrix is above a limit."""
    smallest, *_, largest = np.linalg.eigvalsh(normal).tolist()
    return bool(smallest * limit < largest)


def median(values: NDArray[np.floating]) -> float:
    """As np.median, which takes four times as long on a thousand."""
    middle = values.size // 2
    ordered = np.partition(values, (middle - 1, middle) if values.size % 2 == 0 else middle)
    return float(ordered[middle] if values.size % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
