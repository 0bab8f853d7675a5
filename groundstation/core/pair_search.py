"""Where in two seconds of offset and some ppm of frequency two stations' tags belong together, found blindly.

Coarse bins and an FFT give the offset to microseconds. One peak of a correlation with a million lags proves
little (the largest of a million noise values is already 5 sigma), so peaks are only candidates here: each is
looked at again in fine bins, where a true one grows tenfold and a false one vanishes, and then in tags that had
no part in finding it. Cheap searches come first; longer and finer ones follow only while nothing is found.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from groundstation.core.pair_lines import (
    Curve,
    Differences,
    Fit,
    Line,
    between,
    bin_width_ps,
    differences,
    fit_curve,
    strongest_line,
)
from groundstation.core.refusal import ClockRefused
from groundstation.core.timebase import PS_PER_S

#: Length of stream A in seconds and bits of the bin's width in ps, from cheap to sensitive: with x = length / width,
#: c pairs per second stand out by c sqrt(x / (rate A x rate B)) sigmas. Timed by tests/benchmarks/bench_pair_clock.py.
_LADDER = ((4, 24), (4, 22), (8, 22), (8, 21), (8, 20))
#: Where the finest bins would leave fewer lags than this to each side, only the direct search is made.
_FEWEST_LAGS = 8
_MOST_BINS = 5_500_000
_MOST_WORK = 2.5e8  # bins x slopes
#: Lengths in seconds for the direct search, which takes over when there are few enough pairs to look at them all.
_DIRECT_S = (2, 8, 32, 128)
_MOST_DIRECT_PAIRS = 2e6
_DIRECT_LINES = 3
_PAIRS_OF_A_LOOK = 3e5
_MOST_PAIRS_OF_A_LOOK = 6e6
_FEWEST_TAGS = 20
_FINEST_PS = 4_000.0
_CANDIDATE_SIGMAS = 4.6
_MOST_CANDIDATES = 64
#: One look at a candidate tries up to 1e6 lines; with 1e3 candidates noise reaches 6.1 sigma once.
_LINE_SIGMAS = 7.5
_SECOND_SLICE_SIGMAS = 5.0
#: A second line this strong, compared with the first, makes the answer ambiguous.
_AMBIGUOUS = 0.7
_NOISE_BINS = 4_096
_SMOOTH_BINS = 65
_BLOCK = 65_536
#: Bins of one piece of A: the fastest slope smears it over this many bins, but FFTs stay within these sizes.
_SMEARED_BINS = 0.5
_SHORTEST_PIECE, _LONGEST_PIECE = 1 << 12, 1 << 17
#: Lags of one block, however short A is.
_FEWEST_AT_ONCE = 1 << 14
#: Within this time before and after its middle, no orbit bends a line by more than a bin of the finest look.
_STRAIGHT_PS = 0.09 * PS_PER_S


class Box(NamedTuple):
    """Curves to look among: around `curve`, +-half width at its reference, +-half slope; tags of A from `start_ps`
    to `stop_ps`. `sigmas`: why it is worth a look."""

    curve: Curve
    half_width_ps: float
    half_slope: float
    start_ps: int
    stop_ps: int
    sigmas: float


class Anchor(NamedTuple):
    """A proven piece of the clock: its fit over reference +- `half_span_ps` and how sure it is."""

    fit: Fit
    half_span_ps: float
    sigmas: float


class _Streams(NamedTuple):
    a_ps: NDArray[np.int64]
    b_ps: NDArray[np.int64]
    max_offset_ps: int
    max_slope: float

    def rates(self, start_ps: int, stop_ps: int, around_ps: int) -> tuple[float, float]:
        """Tags per ps of both streams, while A runs from start to stop and B, `around_ps` more on each side."""
        a = between(self.a_ps, start_ps, stop_ps).size / max(stop_ps - start_ps, 1)
        low = max(start_ps - around_ps, int(self.b_ps[0]))
        high = min(stop_ps + around_ps, int(self.b_ps[-1]) + 1)
        return a, between(self.b_ps, low, high).size / max(high - low, 1)


def search(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], max_offset_ps: int, max_slope: float) -> Anchor:
    """The one place where both streams belong together.

    Raises ClockRefused when no offset stands out, when several do, or when the streams do not overlap.
    """
    streams = _Streams(a_ps, b_ps, max_offset_ps, max_slope)
    if min(a_ps.size, b_ps.size) < _FEWEST_TAGS:
        raise ClockRefused(
            f"a clock needs at least {_FEWEST_TAGS} tags of each station, but there are {a_ps.size} and {b_ps.size}"
        )
    first = max(int(a_ps[0]), int(b_ps[0]) - max_offset_ps)
    last = min(int(a_ps[-1]), int(b_ps[-1]) + max_offset_ps)
    if last <= first:
        raise ClockRefused(
            f"the recordings of the two stations do not overlap for any offset within +-{max_offset_ps * 1e-12:g} s"
        )
    for boxes in _steps(streams, first, last):
        found: list[Anchor] = []
        weakest = 0.0
        for box in boxes:
            if box.sigmas < weakest:
                break
            if not any(_belongs_to(box, anchor) for anchor in found):
                anchor = _prove(streams, box)
                if anchor is not None:
                    found.append(anchor)
                    weakest = max(weakest, _AMBIGUOUS * box.sigmas)
        if found:
            return _the_one(found, max_offset_ps, max_slope)
    raise ClockRefused(
        f"no offset within +-{max_offset_ps * 1e-12:g} s and +-{max_slope * 1e6:g} ppm stands out of the accidental "
        f"coincidences of {a_ps.size} and {b_ps.size} tags: check that the stations looked at the same source, "
        "or give more tags or a narrower range"
    )


def _the_one(found: list[Anchor], max_offset_ps: int, max_slope: float) -> Anchor:
    """The anchor that is clearly the strongest and lies within the range asked for."""
    found.sort(key=lambda anchor: -anchor.sigmas)
    best = found[0]
    others = [(anchor.fit.curve.offset_ps, anchor.sigmas) for anchor in found[1:]]
    if others and others[0][1] > _AMBIGUOUS * best.sigmas:
        raise ClockRefused(
            f"offsets of {best.fit.curve.offset_ps:,} ps and {others[0][0]:,} ps explain the coincidences alike "
            f"({best.sigmas:.1f} and {others[0][1]:.1f} sigma): a periodic signal in both streams is no clock"
        )
    curve = best.fit.curve
    if abs(curve.offset_ps) > max_offset_ps or abs(curve.slope) > 1.01 * max_slope:
        raise ClockRefused(
            f"the coincidences lie at an offset of {curve.offset_ps:,} ps and {curve.slope * 1e6:.3f} ppm, outside "
            f"the range of +-{max_offset_ps:,} ps and +-{max_slope * 1e6:g} ppm that was searched: widen it"
        )
    return best


def _belongs_to(box: Box, anchor: Anchor) -> bool:
    """Whether a candidate is only the smeared image of a line already proven."""
    there = anchor.fit.curve.moved_to(box.curve.reference_ps)
    smear = abs(box.curve.slope - there.slope) * (box.stop_ps - box.start_ps)
    return abs(box.curve.offset_ps - there.offset_ps) <= 3 * box.half_width_ps + smear


def _steps(streams: _Streams, first: int, last: int) -> Iterator[list[Box]]:
    """The candidates of each step of the search, strongest first, from cheap steps to dear ones."""
    narrow = streams.max_offset_ps < _FEWEST_LAGS << min(bits for _, bits in _LADDER)
    tried: set[tuple[int, int]] = set()
    for seconds in _DIRECT_S:
        start, stop = _best_slice(streams, first, last, seconds)
        rate_a, rate_b = streams.rates(start, stop, streams.max_offset_ps)
        dear = rate_a * rate_b * 2 * streams.max_offset_ps * (stop - start) > _MOST_DIRECT_PAIRS
        if (start, stop) in tried or (dear and (tried or not narrow)):
            break
        tried.add((start, stop))
        yield _direct(streams, start, stop)
    if narrow:  # bins as wide as the whole range tell nothing
        return
    done = set()
    for step, (seconds, bits) in enumerate(_LADDER):
        length = min(seconds * PS_PER_S, last - first + 1)
        reach = max(streams.max_offset_ps, (_NOISE_BINS // 2) << bits)
        bins = (length + 2 * reach) >> bits
        slopes = 1 + 2 * int(np.ceil(streams.max_slope * length / 2 ** (bits + 1)))
        if bins > _MOST_BINS or bins * slopes > _MOST_WORK or (length, bits) in done:
            continue
        done.add((length, bits))
        best, _ = _best_slice(streams, first, last, seconds)
        # The pairs may be elsewhere than the most tags: the cheapest step looks at both ends too.
        for start in dict.fromkeys((best, first, last + 1 - length) if step == 0 else (best,)):
            yield _coarse(streams, start, start + length, bits, slopes, reach)


def _best_slice(streams: _Streams, first: int, last: int, seconds: int) -> tuple[int, int]:
    """The slice of A of this length in which both streams have most tags."""
    length = min(seconds * PS_PER_S, last - first + 1)
    starts = [first + (last + 1 - first - length) * k // 8 for k in range(9)]
    margin = streams.max_offset_ps

    def promise(start: int) -> tuple[int, int]:
        tags_a = between(streams.a_ps, start, start + length).size
        tags_b = between(streams.b_ps, start - margin, start + length + margin).size
        return tags_a * tags_b, -abs(2 * start + length - first - last)

    best = max(starts, key=promise)
    return best, best + length


def _direct(streams: _Streams, start: int, stop: int) -> list[Box]:
    """The strongest few lines among all pairs within the range: over a short time, in which any line is straight,
    and over a long one."""
    whole = Box(Curve((start + stop) // 2, 0, 0.0), float(streams.max_offset_ps), streams.max_slope, start, stop, 0.0)
    quarter = (stop - start) / 4
    boxes = []
    for longest in dict.fromkeys((min(quarter, _STRAIGHT_PS), quarter)):
        pairs, half_span, width = _pairs_of_a_look(
            streams, whole.curve, whole.half_width_ps, whole.half_slope, longest, whole
        )
        middle, reach = whole.curve.reference_ps, int(2 * half_span)
        for _ in range(_DIRECT_LINES):
            line = strongest_line(pairs, whole.half_width_ps, whole.half_slope, half_span, width)
            if line is None:
                break
            curve = whole.curve.corrected(line.offset_ps, line.slope)
            half_slope = 2 * width / half_span
            boxes.append(Box(curve, 2 * line.width_ps, half_slope, middle - reach, middle + reach, line.sigmas))
            away = np.abs(pairs.ps - line.offset_ps - line.slope * pairs.local_ps)
            others = np.flatnonzero(away > 2 * line.width_ps)
            pairs = Differences(pairs.local_ps[others], pairs.ps[others])
    return sorted(boxes, key=lambda box: -box.sigmas)


def _coarse(streams: _Streams, start: int, stop: int, bits: int, slopes: int, reach: int) -> list[Box]:
    """Candidates from the cross-correlation of the slice, in bins of 2^bits ps, for each of a row of slopes.

    A is cut into pieces so short that no slope smears them. Each is correlated once, and for every slope these
    correlations are added, shifted by what the slope has moved each piece: blocks of lags, so that all stays small.
    """
    width = float(1 << bits)
    step = 2 * streams.max_slope / max(slopes - 1, 1)
    counts_a = _centred(between(streams.a_ps, start, stop) - start, bits)
    counts_b = _centred(between(streams.b_ps, start - reach, stop + reach) - (start - reach), bits)
    length = min(
        counts_a.size, _LONGEST_PIECE, max(int(_SMEARED_BINS / max(streams.max_slope, 1e-30)), _SHORTEST_PIECE)
    )
    first_bin = np.arange(0, counts_a.size, length)
    from_middle = first_bin + (length - (stop - start) / width) / 2
    margin = slopes // 2 + 1
    lags = (2 * reach >> bits) + 1
    size = scipy.fft.next_fast_len(length + min(max(length, _FEWEST_AT_ONCE), lags) + 2 * margin, real=True)
    at_once = size - length - 2 * margin + 1
    spectra = [np.conjugate(scipy.fft.rfft(counts_a[first : first + length], size)) for first in first_bin]
    candidates: list[tuple[float, int, float]] = []
    edges = np.linspace(0, lags - 1, -(-(lags - 1) // (at_once - 1)) + 1).astype(np.int64).tolist()
    for lag, last_lag in pairwise(edges):  # the lag between two blocks is seen twice: a peak may straddle two lags
        wide = last_lag - lag + 1
        moved = np.zeros((first_bin.size, 2, wide + 2 * margin), np.float32)  # by whole bins, and half a bin further
        for row, first, spectrum in zip(moved, (first_bin + (lag - margin)).tolist(), spectra, strict=True):
            product = scipy.fft.rfft(counts_b[max(first, 0) : max(first + size, 0)], size)
            product *= spectrum
            before = max(-first, 0)
            halves = scipy.fft.irfft(product, 2 * size, overwrite_x=True).reshape(-1, 2).T
            row[:, before:] = halves[:, : row.shape[1] - before]
        for k in range(slopes):
            slope = (k - slopes // 2) * step
            shift = np.rint(2 * slope * from_middle).astype(np.int64) + 2 * margin
            correlation = np.zeros(wide, np.float32)
            for row, begin in zip(moved, shift.tolist(), strict=True):
                correlation += row[begin & 1, begin >> 1 : (begin >> 1) + wide]
            for sigmas, place in _peaks(correlation):
                candidates.append((sigmas, round((lag + place) * width) - reach, slope))
    candidates.sort(reverse=True)
    middle = (start + stop) // 2
    half_slope = step if slopes > 1 else streams.max_slope
    return [
        Box(Curve(middle, offset, slope), 1.5 * width, half_slope, start, stop, sigmas)
        for sigmas, offset, slope in candidates[:_MOST_CANDIDATES]
        if abs(offset) <= streams.max_offset_ps + 2 * width
    ]


def _centred(local_ps: NDArray[np.int64], bits: int) -> NDArray[np.float32]:
    """Counts per bin of sorted tags (n,) >= 0, less their mean over the stream's own support, so that a finite
    overlap leaves no triangle; counted in blocks that stay in the cache."""
    if local_ps.size == 0:
        return np.zeros(1, np.float32)
    counts = np.zeros((int(local_ps[-1]) >> bits) + 1, np.float32)
    for start in range(0, local_ps.size, _BLOCK):
        number = local_ps[start : start + _BLOCK] >> bits
        first = int(number[0])
        part = np.bincount(number - first)
        counts[first : first + part.size] += part
    support = int(local_ps[0]) >> bits
    counts[support:] -= np.float32(local_ps.size / (counts.size - support))
    return counts


def _peaks(correlation: NDArray[np.float32]) -> list[tuple[float, float]]:
    """(sigmas, lag in bins) of what stands out of the noise of its surroundings.

    Rates and overlap change with the lag, and both stations see the same scintillation, so a running mean is taken
    off and the noise is measured in blocks of lags. A peak that straddles two bins is seen in their sum.
    """
    found: list[tuple[float, float]] = []
    correlation = correlation - scipy.ndimage.uniform_filter1d(correlation, _SMOOTH_BINS, mode="nearest")
    blocks = max(correlation.size // _NOISE_BINS, 1)
    for block in np.array_split(np.arange(correlation.size), blocks):
        values = correlation[block[0] : block[-1] + 2].astype(np.float64)
        values -= values.mean()
        deviation = values.std()
        if deviation == 0:
            continue
        values /= deviation
        both = (values[1:] + values[:-1]) * np.sqrt(0.5)
        found += [(float(values[k]), float(block[0] + k)) for k in np.flatnonzero(values > _CANDIDATE_SIGMAS)]
        found += [(float(both[k]), float(block[0] + k + 0.5)) for k in np.flatnonzero(both > _CANDIDATE_SIGMAS)]
    return _without_neighbours(found)


def _without_neighbours(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for sigmas, lag in sorted(found, reverse=True)[:_MOST_CANDIDATES]:
        if all(abs(lag - other) > 1.1 for _, other in kept):
            kept.append((sigmas, lag))
    return kept


def _prove(streams: _Streams, box: Box) -> Anchor | None:
    """The line of a candidate: over so short a time that it is straight if there are pairs enough, else longer."""
    length = (box.stop_ps - box.start_ps) / 4
    proven = _prove_over(streams, box, min(length, _STRAIGHT_PS))
    if proven is None and _affordable_half_span(streams, box, box.half_width_ps) > _STRAIGHT_PS < length:
        proven = _prove_over(streams, box, length)
    return proven


def _prove_over(streams: _Streams, box: Box, longest: float) -> Anchor | None:
    """Look at a candidate in ever finer bins, and at last in tags that had no part in finding it."""
    curve, half_width, half_slope = box.curve, box.half_width_ps, box.half_slope
    start = max(box.start_ps, int(streams.b_ps[0]) - curve.offset_ps - int(half_width))
    stop = min(box.stop_ps, int(streams.b_ps[-1]) - curve.offset_ps + int(half_width))
    if stop <= start:
        return None
    curve = curve.moved_to((start + stop) // 2)
    for _ in range(6):
        look = _look(streams, curve, half_width, half_slope, min(longest, (stop - start) / 4), box)
        if look is None:
            return None
        line, half_span, width = look
        curve = curve.corrected(line.offset_ps, line.slope)
        if width <= 2 * _FINEST_PS:
            return _confirm(streams, curve, line, half_span, width) if line.sigmas >= _LINE_SIGMAS else None
        half_width, half_slope = 2 * line.width_ps, 2 * width / half_span
    return None


def _look(
    streams: _Streams, curve: Curve, half_width: float, half_slope: float, longest: float, box: Box
) -> tuple[Line, float, float] | None:
    """The strongest line within a box: line, half span, width of bins."""
    pairs, half_span, width = _pairs_of_a_look(streams, curve, half_width, half_slope, longest, box)
    line = strongest_line(pairs, half_width, half_slope, half_span, width)
    return None if line is None else (line, half_span, width)


def _pairs_of_a_look(
    streams: _Streams, curve: Curve, half_width: float, half_slope: float, longest: float, box: Box
) -> tuple[Differences, float, float]:
    """Pairs within a box, over as long a time as affordable: differences, half span, width of bins."""
    half_span = min(longest, _affordable_half_span(streams, box, half_width))
    width = bin_width_ps(half_width, half_slope, half_span, _FINEST_PS)
    middle = curve.reference_ps
    a_ps = between(streams.a_ps, middle - int(half_span), middle + int(half_span) + 1)
    reach = half_width + half_slope * half_span + 2 * width
    return differences(a_ps, streams.b_ps, curve, reach), half_span, width


def _affordable_half_span(streams: _Streams, box: Box, half_width: float) -> float:
    """Over how long a time the pairs within a half width may be looked at one by one."""
    rate_a, rate_b = streams.rates(box.start_ps, box.stop_ps, streams.max_offset_ps)
    per_ps = max(rate_a * rate_b * 2 * half_width, 1e-30)
    # A look pays if length over bin width is at least four times that of the search before it.
    needed = 4 * (box.stop_ps - box.start_ps) * _FINEST_PS / (half_width / 1.5)
    return max(_PAIRS_OF_A_LOOK, min(needed * per_ps, _MOST_PAIRS_OF_A_LOOK)) / per_ps / 2


def _confirm(streams: _Streams, curve: Curve, line: Line, half_span: float, width: float) -> Anchor | None:
    """Whether the line goes on in the tags just before and after those that it was found in; if so, its fit."""
    middle, near, far = curve.reference_ps, int(half_span), int(2 * half_span)
    parts = [(middle - far, middle - near - 1), (middle + near + 2, middle + far)]
    a_ps = np.concatenate([between(streams.a_ps, *part) for part in parts])
    box = 2 * line.width_ps + 2 * width
    pairs = differences(a_ps, streams.b_ps, curve, 10 * box)
    again = strongest_line(pairs, box, 2 * width / half_span, 2 * half_span, width)
    if again is None or again.sigmas < _SECOND_SLICE_SIGMAS:
        return None
    pairs = differences(between(streams.a_ps, middle - far, middle + far), streams.b_ps, curve, 2 * box)
    fitted = fit_curve(pairs, curve, 2 * box, line.width_ps)
    if fitted is None or fitted.sigmas < _LINE_SIGMAS:
        return None
    return Anchor(fitted, float(far), line.sigmas)
