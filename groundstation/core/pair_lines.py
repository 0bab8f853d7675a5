"""Straight and slowly bending lines in the time differences of two streams: the common tool of the pair clocks.

Against the time of stream A, the differences of true pairs lie on a thin line (offset, slope, a little curvature)
and those of accidental pairs fill the plane evenly. Here a line is found in a box of offsets and slopes, judged
against the Poisson noise of the plane, and fitted to a fraction of its width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.refusal import ClockRefused

#: The density of the grid of offsets and slopes is chosen so that one search adds about this many numbers.
_GRID_WORK = 6e6
#: A line is looked for at several widths, since the jitter is not known: these many bins.
_WIDTHS = (1, 2, 4, 8)
#: Inverse covariance of a curve before anything is known, but that no two clocks or orbits bend by over 1e-6 per s.
NOTHING_KNOWN = np.diag([0.0, 0.0, 1e-12])
_MOST_PAIRS = 20_000_000
_INT64 = np.iinfo(np.int64)


class Curve(NamedTuple):
    """Where stream B sees a moment t of stream A: t + offset + slope (t - reference) + drift (t - reference)^2 / 2."""

    reference_ps: int
    offset_ps: int
    slope: float
    drift_per_s: float = 0.0

    def apply(self, time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times of A (n,) as B sees them (n,); the large parts are added in int64, only the correction is rounded."""
        local = (time_ps - self.reference_ps).astype(np.float64)
        local *= self.slope + 0.5e-12 * self.drift_per_s * local
        return time_ps + (np.rint(local).astype(np.int64) + self.offset_ps)

    def moved_to(self, reference_ps: int) -> "Curve":
        """The same curve, written around another reference."""
        local = float(reference_ps - self.reference_ps)
        offset = self.offset_ps + round(local * (self.slope + 0.5e-12 * self.drift_per_s * local))
        return Curve(reference_ps, offset, self.slope + 1e-12 * self.drift_per_s * local, self.drift_per_s)

    def corrected(self, offset_ps: float, slope: float, drift_per_s: float = 0.0) -> "Curve":
        """This curve plus a small correction."""
        offset = self.offset_ps + round(offset_ps)
        return Curve(self.reference_ps, offset, self.slope + slope, self.drift_per_s + drift_per_s)


class Differences(NamedTuple):
    """Pairs near a curve: `local_ps` (n,) time of A since the curve's reference; `ps` (n,) B less the curve."""

    local_ps: NDArray[np.float64]
    ps: NDArray[np.float64]


class Line(NamedTuple):
    """The strongest line of a box, against the curve of the box: `width_ps` the width it stands out best at and
    `sigmas` its significance."""

    offset_ps: float
    slope: float
    width_ps: float
    sigmas: float


class Fit(NamedTuple):
    """A fitted curve: `covariance` (3, 3) of (offset in ps, slope in ps/s, drift in ps/s^2), `scatter_ps` of one
    pair (1 sigma), `pairs` on the curve and `sigmas` above the accidental ones."""

    curve: Curve
    covariance: NDArray[np.float64]
    scatter_ps: float
    pairs: float
    sigmas: float

    def uncertainty_ps(self, seconds: float) -> float:
        """1 sigma of the curve that long before or after its reference, the worse of both."""
        basis = np.array([[1.0, sign * seconds, seconds**2 / 2] for sign in (-1, 1)])
        return float(np.sqrt(np.max(np.einsum("ij,jk,ik->i", basis, self.covariance, basis))))


def between(time_ps: NDArray[np.int64], start_ps: int, stop_ps: int) -> NDArray[np.int64]:
    """The sorted tags with start <= t < stop, as a view."""
    edges = np.array([min(max(edge, _INT64.min), _INT64.max) for edge in (start_ps, stop_ps)])
    low, high = np.searchsorted(time_ps, edges)
    return time_ps[low:high]


def differences(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], curve: Curve, half_width_ps: float) -> Differences:
    """All pairs with |b - curve(a)| <= half width, of sorted streams (n,) and (m,).

    Raises ClockRefused when there are more than 2e7: only tags that come in bunches make so many.
    """
    half = int(half_width_ps)
    expected = curve.apply(a_ps)
    candidate = np.searchsorted(b_ps, expected - half)
    tag = np.arange(a_ps.size)
    tags, found = [], []
    total = 0
    while tag.size:
        in_range = np.flatnonzero(candidate < b_ps.size)
        difference = b_ps[candidate[in_range]] - expected[tag[in_range]]
        keep = np.flatnonzero(difference <= half)
        tag, candidate = tag[in_range[keep]], candidate[in_range[keep]] + 1
        total += tag.size
        if total > _MOST_PAIRS:
            raise ClockRefused(
                f"{a_ps.size} tags of one station have over {_MOST_PAIRS:,} partners within {half:,} ps at the other: "
                "tags that come in bunches are no light of a pair source"
            )
        tags.append(tag)
        found.append(difference[keep])
    if not tags:
        return Differences(np.empty(0), np.empty(0))
    local = a_ps[np.concatenate(tags)] - curve.reference_ps
    return Differences(local.astype(np.float64), np.concatenate(found).astype(np.float64))


def sigmas_above(count: float, expected: float) -> float:
    """How far a count lies above its Poisson expectation, in sigmas (signed root of the likelihood ratio)."""
    expected = max(expected, 1e-9)
    if count <= expected:
        return 0.0
    return float(np.sqrt(2 * (count * np.log(count / expected) - (count - expected))))


def bin_width_ps(half_width_ps: float, half_slope: float, half_span_ps: float, finest_ps: float) -> float:
    """The width of bins that keeps the search of a box affordable, not below `finest_ps`."""
    sweep = half_slope * half_span_ps
    return max(finest_ps, float((8 * sweep**2 * half_width_ps / _GRID_WORK) ** (1 / 3)), 2 * half_width_ps / 1e6)


def strongest_line(
    pairs: Differences, half_width_ps: float, half_slope: float, half_span_ps: float, width_ps: float
) -> Line | None:
    """The line that holds most pairs, with |offset| <= half width and |slope| <= half slope, over +-half span.

    `pairs` must reach out to half width + half slope x half span, so that no line leaves them. The time is cut
    into rows, each row is a histogram, and for each slope the rows are shifted and added. None without pairs.
    """
    steps = int(np.ceil(half_slope * half_span_ps / width_ps))
    rows = max(2 * steps, 1)
    margin = steps + 1
    bins = int(np.ceil(2 * half_width_ps / width_ps)) + 2
    columns = bins + 2 * margin
    column = np.floor(pairs.ps / width_ps).astype(np.int64) + columns // 2
    row = np.floor((pairs.local_ps + half_span_ps) * (rows / (2 * half_span_ps))).astype(np.int64)
    inside = np.flatnonzero((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
    if inside.size == 0:
        return None
    counts = np.bincount(row[inside] * columns + column[inside], minlength=rows * columns)
    plane = counts.astype(np.float32).reshape(rows, columns)
    middle = (np.arange(rows) + 0.5) / rows * 2 - 1  # of a row, in half spans
    expected = inside.size / columns
    best = Line(0.0, 0.0, width_ps, -1.0)
    for step in range(-steps, steps + 1):
        shift = np.rint(step * middle).astype(np.int64) + margin
        profile = np.zeros(bins, np.float32)
        for k in range(rows):
            profile += plane[k, shift[k] : shift[k] + bins]
        sigmas, start, wide = _highest(profile, expected)
        if sigmas > best.sigmas:
            offset = (start + wide / 2 + margin - columns // 2) * width_ps
            best = Line(offset, step * width_ps / half_span_ps, wide * width_ps, sigmas)
    return best


def _highest(profile: NDArray[np.float32], expected: float) -> tuple[float, int, int]:
    """Significance, first bin and number of bins of the most significant run of bins."""
    best = (-1.0, 0, 1)
    total = np.concatenate((np.zeros(1), np.cumsum(profile, dtype=np.float64)))
    for wide in _WIDTHS:
        if wide > profile.size:
            break
        run = total[wide:] - total[:-wide]
        start = int(np.argmax(run))
        sigmas = sigmas_above(float(run[start]), wide * expected)
        if sigmas > best[0]:
            best = (sigmas, start, wide)
    return best


def fit_curve(
    pairs: Differences,
    curve: Curve,
    half_width_ps: float,
    scatter_ps: float,
    prior: NDArray[np.float64] = NOTHING_KNOWN,
    start: tuple[float, float] = (0.0, 0.0),
) -> Fit | None:
    """The curve through the pairs, by expectation maximisation of a Gaussian line on an even background.

    `pairs` are differences to `curve` within +-half width; `scatter_ps` a first guess of the line's width;
    `prior` (3, 3) the inverse covariance of what `curve` says of (offset in ps, slope in ps/s, drift in ps/s^2);
    `start`: where to begin, (offset in ps, slope) against `curve`. None when no line is left or it is not
    determined.
    """
    if pairs.ps.size == 0:
        return None
    seconds = pairs.local_ps * 1e-12
    reach = max(float(np.abs(seconds).max()), 1e-9)
    scale = np.array([1.0, 1 / reach, 2 / reach**2])  # unknowns of order one for the solver
    x = seconds / reach
    scaled_prior = prior * np.outer(scale, scale)
    theta = np.array([start[0], start[1] * 1e12 * reach, 0.0])
    share, sigma = 0.5, scatter_ps
    for _ in range(60):
        residual = pairs.ps - (theta[0] + x * (theta[1] + x * theta[2]))
        line = np.exp(residual * residual * (-0.5 / sigma**2)) * (share / (sigma * np.sqrt(2 * np.pi)))
        weight = line / (line + (1 - share) / (2 * half_width_ps) + 1e-300)
        on_line = float(weight.sum())
        if on_line < 2:
            return None
        before = sigma
        # A few pairs say little about the width: the first guess counts as three.
        variance = (float((weight * residual * residual).sum()) + 3 * scatter_ps**2) / (on_line + 3)
        sigma = max(float(np.sqrt(variance)), 1.0)
        share = min(on_line / residual.size, 1 - 1e-9)
        moments, targets = _moments(x, weight, pairs.ps)
        information = moments / sigma**2 + scaled_prior
        size = np.sqrt(np.diag(information))
        if not size.all() or np.linalg.cond(information / np.outer(size, size)) > 1e10:
            return None
        theta = np.linalg.solve(information, targets / sigma**2)
        if abs(sigma - before) < 1e-3 * sigma:
            break
    covariance: NDArray[np.float64] = np.asarray(np.linalg.inv(information) * np.outer(scale, scale), np.float64)
    residual = np.abs(pairs.ps - (theta[0] + x * (theta[1] + x * theta[2])))
    background = (1 - share) * residual.size / (2 * half_width_ps)
    sigmas = sigmas_above(float(np.count_nonzero(residual <= 1.5 * sigma)), 3 * sigma * background)
    offset, slope, drift = (float(value) for value in theta * scale)
    return Fit(curve.corrected(offset, slope * 1e-12, drift * 1e-12), covariance, sigma, on_line, sigmas)


def _moments(
    x: NDArray[np.float64], weight: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of weight x^(j + k), (3, 3), and of weight y x^j, (3,): plain sums, for which no pool of threads wakes."""
    powers, targets = [], []
    term = weight
    for power in range(5):
        powers.append(float(term.sum()))
        if power < 3:
            targets.append(float((term * y).sum()))
        term = term * x
    return np.array([powers[k : k + 3] for k in range(3)]), np.array(targets)
