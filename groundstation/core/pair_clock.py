"""One clock for two stations that share entangled pairs, from nothing but the tags of their detectors.

Photons of a pair arrive together, apart from a constant and slowly drifting difference of the two clocks and
paths. `find_pair_clock` finds it without any foreknowledge, `PairClockTracker` follows it through a pass. Both
would rather give no clock than a wrong one (`pair_search` says how that is decided).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.pair_lines import NOTHING_KNOWN, Curve, Differences, Fit, between, differences, fit_curve
from groundstation.core.pair_rivals import strongest_rival
from groundstation.core.pair_search import Anchor, search
from groundstation.core.refusal import ClockRefused
from groundstation.core.tags import require_sorted
from groundstation.core.timebase import PS_PER_S

__all__ = ["ClockRefused", "PairClock", "PredictedDelay", "clock_of", "find_pair_clock"]

#: Predicted path and clock difference in ps, station B less station A, at times (n,) of A.
PredictedDelay = Callable[[NDArray[np.int64]], NDArray[np.int64]]

_GROWTH = 2.5
#: A fit looks at this many slices of A, spread evenly, with at most so many tags and about so many true pairs.
_SLICES = 32
_MOST_TAGS_OF_A_FIT = 1_000_000
_PAIRS_OF_A_STEP = 1_000
_PAIRS_OF_THE_LAST_STEP = 10_000
#: A step has failed when the share of tags that are in pairs falls to this part of what it was.
_LOST_SHARE = 0.3
_SURE_SIGMAS = 5.0
#: A curve may miss the middle of the line by this part of the line's width.
_BIAS = 0.1
#: How often the search moves on to a stronger line nearby.
_MOVES = 3


@dataclass(frozen=True)
class PairClock:
    """What station B's clock shows when station A's shows t: t + offset + frequency offset x (t - reference) + ...

    `offset_ps` at `reference_ps` (on A), `frequency_offset` of B against A there, `drift_per_s` its change per
    second (0 unless it is significant). `significance` in sigmas over accidental pairs; `jitter_ps` 1 sigma of
    the time difference of one pair; `pairs_used` in the fit. It holds between `start_ps` and `stop_ps` on A and
    is an extrapolation elsewhere; `offset_uncertainty_ps` (at the reference) and `frequency_uncertainty`, 1 sigma.
    """

    offset_ps: int
    frequency_offset: float
    reference_ps: int
    significance: float
    jitter_ps: float
    pairs_used: int
    drift_per_s: float = 0.0
    start_ps: int = 0
    stop_ps: int = 0
    offset_uncertainty_ps: float = 0.0
    frequency_uncertainty: float = 0.0

    @property
    def curve(self) -> Curve:
        """The bare map from A to B."""
        return Curve(self.reference_ps, self.offset_ps, self.frequency_offset, self.drift_per_s)

    def to_b(self, a_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times of A (n,) as B's clock shows them (n,), to 1 ps."""
        return self.curve.apply(np.asarray(a_ps, np.int64))

    def to_a(self, b_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times of B (n,) as A's clock shows them (n,), to 1 ps: the inverse of `to_b`."""
        unshifted = np.asarray(b_ps, np.int64) - self.offset_ps
        curve = Curve(self.reference_ps, 0, self.frequency_offset, self.drift_per_s)
        time = unshifted
        for _ in range(4):  # each round gains the five digits of the frequency offset
            time = unshifted - (curve.apply(time) - time)
        return time

    def inverse(self) -> "PairClock":
        """The clock with the stations' roles exchanged; exact but for drift^2 (picoseconds over tens of seconds)."""
        stretch = 1 + self.frequency_offset
        start, stop = self.to_b(np.array([self.start_ps, self.stop_ps]))
        return PairClock(
            offset_ps=-self.offset_ps,
            frequency_offset=-self.frequency_offset / stretch,
            reference_ps=self.reference_ps + self.offset_ps,
            significance=self.significance,
            jitter_ps=self.jitter_ps,
            pairs_used=self.pairs_used,
            drift_per_s=-self.drift_per_s / stretch**3,
            start_ps=int(start),
            stop_ps=int(stop),
            offset_uncertainty_ps=self.offset_uncertainty_ps,
            frequency_uncertainty=self.frequency_uncertainty,
        )


def find_pair_clock(
    a_ps: NDArray[np.int64],
    b_ps: NDArray[np.int64],
    *,
    max_offset_s: float = 1.0,
    max_frequency_offset: float = 1e-5,
    predicted_delay: PredictedDelay | None = None,
) -> PairClock:
    """The clock of station B against station A, from the tags of both (n,) and (m,), sorted, int64 ps.

    Offsets up to +-`max_offset_s` and frequency offsets up to +-`max_frequency_offset` are searched; narrower
    ranges are searched faster and deeper. With `predicted_delay` the clock holds between a + predicted_delay(a)
    and b: use it where the paths change by more than the range (two downlinks: 44 ppm). The fit covers as much
    of the streams as a quadratic describes.

    Raises ClockRefused when no offset stands out, when several do, or when the true one lies outside the range,
    and UnsortedTags. After fpfind (S-Fifteen) and C. Ho et al., New J. Phys. 11, 045011 (2009), but for the
    proof of each candidate in fine bins. Measured by tests/benchmarks/bench_pair_clock.py.
    """
    if not 0 < max_offset_s <= 1e6 or not 0 <= max_frequency_offset <= 1e-3:
        raise ValueError(
            f"the range of the search must be within 1e6 s and 1e-3, but +-{max_offset_s} s and "
            f"+-{max_frequency_offset} were asked for"
        )
    require_sorted(a_ps)
    require_sorted(b_ps)
    if predicted_delay is not None and a_ps.size:
        a_ps = a_ps + predicted_delay(a_ps)
        require_sorted(a_ps)
    anchor = search(a_ps, b_ps, round(max_offset_s * PS_PER_S), max_frequency_offset)
    return _the_only_one(a_ps, b_ps, anchor)


def _the_only_one(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], anchor: Anchor) -> PairClock:
    """The clock of an anchor, or of the stronger neighbour that it turns out to have; refused if two are alike."""
    for move in range(_MOVES):
        clock = _grow(a_ps, b_ps, anchor)
        inside = between(a_ps, clock.start_ps, clock.stop_ps + 1)
        share = anchor.fit.pairs / max(between(a_ps, *_span(anchor)).size, 1)
        rival = strongest_rival(inside, b_ps, clock.curve, clock.jitter_ps, share)
        if rival is None:
            return clock
        if rival.other <= rival.own or move == _MOVES - 1:
            raise ClockRefused(
                f"{rival.own} coincidences lie at an offset of {clock.offset_ps:,} ps and {rival.other} at one "
                f"{rival.distance_ps:,.0f} ps away, which cannot be told apart: remove the delays of the channels; a "
                "periodic signal in both streams is no clock"
            )
        anchor = anchor._replace(fit=anchor.fit._replace(curve=anchor.fit.curve.corrected(rival.distance_ps, 0.0)))
    raise AssertionError("every round of the loop returns, raises or moves on")


def _span(anchor: Anchor) -> tuple[int, int]:
    middle = anchor.fit.curve.reference_ps
    return middle - int(anchor.half_span_ps), middle + int(anchor.half_span_ps)


def _grow(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], anchor: Anchor) -> PairClock:
    """Extend a proven piece over the streams, step by step, as far as one quadratic describes them."""
    fit, curve = anchor.fit, anchor.fit.curve
    first = max(int(a_ps[0]), int(b_ps[0]) - curve.offset_ps)
    last = min(int(a_ps[-1]), int(b_ps[-1]) - curve.offset_ps)
    start, stop = max(_span(anchor)[0], first), min(_span(anchor)[1], last)
    share = fit.pairs / max(between(a_ps, start, stop).size, 1)
    scatter, spans = fit.scatter_ps, [(start, stop)]
    while (start, stop) != (first, last):
        reach = int((stop - start) * (_GROWTH - 1) / 2) + 1
        wider = max(first, start - reach), min(last, stop + reach)
        sample = _sample(a_ps, b_ps, fit, wider, _PAIRS_OF_A_STEP / share)
        step = sample.fit(scatter)
        if step is None or step.scatter_ps > 1.5 * scatter + 10 or not sample.holds(step, _LOST_SHARE * share):
            break
        fit, (start, stop), share = step, wider, step.pairs / sample.tags_ps.size
        scatter = min(scatter, step.scatter_ps)
        spans.append(wider)
    for span in reversed(spans):  # the last fit sees finer deviations than the steps did
        sample = _sample(a_ps, b_ps, fit, span, _PAIRS_OF_THE_LAST_STEP / share)
        final = sample.fit(scatter)
        if final is None or not (sample.holds(final, _LOST_SHARE * share) or span == spans[0]):
            continue
        if abs(final.curve.drift_per_s) < _SURE_SIGMAS * 1e-12 * float(np.sqrt(final.covariance[2, 2])):
            final = sample.fit_straight(scatter) or final
        return clock_of(final, *span)
    return clock_of(anchor.fit, *spans[0])


class _Sample(NamedTuple):
    """Differences to a curve, of some of A's tags (n,)."""

    tags_ps: NDArray[np.int64]
    pairs: Differences
    curve: Curve
    half_width_ps: float

    def fit(self, scatter_ps: float) -> Fit | None:
        fitted = fit_curve(self.pairs, self.curve, self.half_width_ps, scatter_ps)
        return fitted if fitted is not None and fitted.sigmas >= _SURE_SIGMAS else None

    def fit_straight(self, scatter_ps: float) -> Fit | None:
        """The fit of a curve without drift."""
        bend = 0.5e-12 * self.curve.drift_per_s * self.pairs.local_ps**2
        straight, curve = self.pairs._replace(ps=self.pairs.ps + bend), self.curve._replace(drift_per_s=0.0)
        no_drift = NOTHING_KNOWN + np.diag([0.0, 0.0, 1e12])
        fitted = fit_curve(straight, curve, self.half_width_ps, scatter_ps, no_drift)
        return None if fitted is None else fitted._replace(curve=fitted.curve._replace(drift_per_s=0.0))

    def holds(self, fit: Fit, least_share: float) -> bool:
        """Whether in every eighth of the span that share of the tags has its pair on the fitted curve, unbiased.

        A curve that leaves the line loses its pairs. (So it does in a fade: there the clock is not known.)
        """
        bend = fit.curve.moved_to(self.curve.reference_ps)
        slope, drift = bend.slope - self.curve.slope, bend.drift_per_s - self.curve.drift_per_s
        local = self.pairs.local_ps
        away = self.pairs.ps - (bend.offset_ps - self.curve.offset_ps) - local * (slope + 0.5e-12 * drift * local)
        near = np.flatnonzero(np.abs(away) <= 2 * fit.scatter_ps)
        when = (self.tags_ps - self.curve.reference_ps).astype(np.float64)
        first, length = float(when[0]), max(float(when[-1] - when[0]), 1.0)

        def eighth(moment: NDArray[np.float64]) -> NDArray[np.int64]:
            return np.clip(((moment - first) * (8 / length)).astype(np.int64), 0, 7)

        tags = np.bincount(eighth(when), minlength=8)
        places = eighth(local)
        pairs = np.bincount(places[near], minlength=8)
        deviation = np.bincount(places[near], away[near], minlength=8)
        others = np.bincount(places, minlength=8) - pairs
        background = others * min(2 * fit.scatter_ps / self.half_width_ps, 0.5)
        expected = least_share * tags
        enough = pairs - background >= expected - 3 * np.sqrt(expected + background)
        bias = np.abs(deviation) / np.maximum(pairs, 1)
        unbiased = bias <= fit.scatter_ps * (6 / np.sqrt(np.maximum(pairs, 1)) + _BIAS)
        return bool(np.all(enough & unbiased))


def _sample(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], known: Fit, span: tuple[int, int], tags: float
) -> _Sample:
    """Differences to a known fit over a span, in slices of A that hold about so many tags together."""
    curve = known.curve.moved_to(sum(span) // 2)
    away_s = max(abs(edge - known.curve.reference_ps) for edge in span) * 1e-12
    half_width = 8 * known.scatter_ps + 5 * known.uncertainty_ps(away_s)
    chosen = _slices(a_ps, span, tags)
    pieces = [differences(piece, b_ps, curve, half_width) for piece in chosen]
    pairs = Differences(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))
    return _Sample(np.concatenate(chosen), pairs, curve, half_width)


def _slices(a_ps: NDArray[np.int64], span: tuple[int, int], tags: float) -> list[NDArray[np.int64]]:
    """Slices of A, evenly spread over a span and reaching to its ends, with so many tags together."""
    inside = between(a_ps, span[0], span[1] + 1)
    if inside.size <= tags:
        return [inside]
    length = max(int(min(tags, _MOST_TAGS_OF_A_FIT)) // _SLICES, 1)
    starts = np.linspace(0, max(inside.size - length, 0), _SLICES).astype(np.int64)
    return [inside[start : start + length] for start in np.unique(starts)]


def clock_of(fit: Fit, start: int, stop: int) -> PairClock:
    """The clock that a fit over a span of A's time gives."""
    return PairClock(
        offset_ps=fit.curve.offset_ps,
        frequency_offset=fit.curve.slope,
        reference_ps=fit.curve.reference_ps,
        significance=fit.sigmas,
        jitter_ps=fit.scatter_ps,
        pairs_used=round(fit.pairs),
        drift_per_s=fit.curve.drift_per_s,
        start_ps=start,
        stop_ps=stop,
        offset_uncertainty_ps=float(np.sqrt(fit.covariance[0, 0])),
        frequency_uncertainty=float(np.sqrt(fit.covariance[1, 1])) * 1e-12,
    )
