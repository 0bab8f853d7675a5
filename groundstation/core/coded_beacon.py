"""A beacon whose pulses say which ones they are: numbered from the pattern alone, whatever UTC is known to.

A plain beacon of 10 kHz is numbered by UTC and the time of flight, which must be known to half a spacing (50 us).
Here each pulse is sent late by 0, 1, 2 or 3 steps, as a keyed random code of its number tells. A few hundred
pulses then fit one number only, among tens of thousands; and where they do not, no number is given.
(Aperiodic synchronisation pulses: patent CN111327365A, Liao et al.; the code here is our own.)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from groundstation.core.keyed_random import philox4x32
from groundstation.core.refusal import ClockRefused
from groundstation.core.tags import require_sorted
from groundstation.core.timebase import PS_PER_S

_STREAM_CODE = 7
#: Pulses of the first look: long enough to single out a number, short enough for a straight line.
_LOOK_PULSES = 1_000
_FEWEST_PULSES = 100
_PHASE_BINS_PER_STEP = 10
#: How far the right number must stand out of chance, and the next best stay behind it.
_SURE_SIGMAS = 8.0
_AHEAD = 0.6
_GROWTH = 2.0
#: In every so many tags at a position of the train, this share must be at the position that the code says.
_STRETCH = 100
_FOLLOWS = 0.6


@dataclass(frozen=True)
class CodedBeacon:
    """Pulse n leaves at n x period + code(n) x step, code(n) in 0..positions-1, keyed by `key` (64 bits)."""

    period_ps: int
    key: int
    step_ps: int = 2_000_000
    positions: int = 4

    def __post_init__(self) -> None:
        if not (2 <= self.positions <= 256 and self.step_ps > 0 and self.positions * self.step_ps < self.period_ps):
            raise ValueError(
                f"a coded beacon needs 2 to 256 positions that fit into its period, but {self.positions} positions of "
                f"{self.step_ps} ps do not fit into {self.period_ps} ps"
            )

    def code(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position (n,) of pulses by their number (n,), any sign."""
        words = philox4x32(number.astype(np.int64).view(np.uint64), self.key, _STREAM_CODE)
        position: NDArray[np.int64] = (words[0] % np.uint32(self.positions)).astype(np.int64)
        return position

    def emission_ps(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """When pulses (n,) leave by the transmitter's clock."""
        return number * self.period_ps + self.code(number) * self.step_ps


class NumberedBeacon(NamedTuple):
    """Tags with their numbers. `number` (n,) of the pulse nearest to each tag; `is_pulse` (n,) whether the tag is
    that pulse. A pulse emitted at e is seen at e + offset + frequency offset x (e - reference) + drift / 2 x ...;
    `scatter_ps` 1 sigma of one pulse, `significance` of the numbering in sigmas and `runner_up` of the next best."""

    number: NDArray[np.int64]
    is_pulse: NDArray[np.bool_]
    offset_ps: int
    frequency_offset: float
    drift_per_s: float
    reference_ps: int
    scatter_ps: float
    significance: float
    runner_up: float


class _Train(NamedTuple):
    """Pulse k (counted from any one) is seen in position 0 at start + k period + bend k^2 / 2."""

    start_ps: float
    period_ps: float
    bend_ps: float
    scatter_ps: float


def number_beacon(
    tag_ps: NDArray[np.int64],
    beacon: CodedBeacon,
    *,
    expected_offset_ps: int = 0,
    max_offset_s: float = 1.0,
    max_frequency_offset: float = 4e-5,
) -> NumberedBeacon:
    """The absolute numbers of the beacon's tags (n,), sorted int64 ps, from 0.05 s to some seconds of them.

    The offset (clock and path: seen less emitted) is searched within `expected_offset_ps` +- `max_offset_s`,
    the rate within +-`max_frequency_offset`. Stands a third of the pulses lost and a third as many spurious tags.
    Raises ClockRefused when the pattern does not single out one number, and UnsortedTags.
    """
    require_sorted(tag_ps)
    if tag_ps.size < _FEWEST_PULSES:
        raise ClockRefused(f"numbering needs {_FEWEST_PULSES} beacon tags at least, but there are {tag_ps.size}")
    origin, local = _first_look(tag_ps, beacon)
    train = _find_train(local, beacon, max_frequency_offset)
    pulse, position = _decode(local, train, beacon)
    expected = (origin + round(train.start_ps) - expected_offset_ps) // beacon.period_ps
    reach = int(max_offset_s * PS_PER_S / beacon.period_ps) + 1
    first, significance, runner_up = _match(pulse, position, beacon, expected, reach)
    if significance < _SURE_SIGMAS or runner_up > _AHEAD * significance:
        raise ClockRefused(
            f"the beacon's pattern does not single out one number among {2 * reach + 1}: the best stands out by "
            f"{significance:.1f} sigma ({_SURE_SIGMAS:g} needed), the next by {runner_up:.1f}; check the key, or give "
            "more tags"
        )
    return _follow(tag_ps, beacon, origin, train, first, (significance, runner_up))


def _first_look(tag_ps: NDArray[np.int64], beacon: CodedBeacon) -> tuple[int, NDArray[np.float64]]:
    """The part of the tags with most of them per look: its first time, and times (n,) since then."""
    length = _LOOK_PULSES * beacon.period_ps
    last = np.searchsorted(tag_ps, np.minimum(tag_ps, np.iinfo(np.int64).max - length) + length)
    start = int(np.argmax(last - np.arange(tag_ps.size)))
    chosen = tag_ps[start : last[start]]
    return int(chosen[0]), (chosen - chosen[0]).astype(np.float64)


def _find_train(local: NDArray[np.float64], beacon: CodedBeacon, max_frequency_offset: float) -> _Train:
    """Period and phase: folded at the right period, the tags gather in as many teeth as there are positions."""
    bins = -(-beacon.period_ps // beacon.step_ps) * _PHASE_BINS_PER_STEP
    width = beacon.period_ps / bins
    span = max(float(local[-1]), 1.0)
    count = int(np.ceil(max_frequency_offset * span / (width / 2)))
    best = (-1, 0.0, 0)
    for k in range(-count, count + 1):
        period = beacon.period_ps * (1 + max_frequency_offset * k / max(count, 1))
        phase = np.floor(np.mod(local, period) / period * bins).astype(np.int64) % bins
        counts = np.bincount(phase, minlength=bins)
        pairs = counts + np.roll(counts, -1)  # a tooth may straddle two bins
        comb = np.zeros(bins, np.int64)
        for j in range(beacon.positions):
            comb += np.roll(pairs, -round(j * beacon.step_ps / width))
        peak = int(np.argmax(comb))
        if comb[peak] > best[0]:
            best = (int(comb[peak]), period, peak)
    _, period, peak = best
    train = _Train((peak + 1) * width, period, 0.0, width)
    for _ in range(4):
        pulse, position = _decode(local, train, beacon)
        near = position >= 0
        if int(near.sum()) < _FEWEST_PULSES // 2:
            break
        train = _refined(local[near], pulse[near], position[near], train, beacon, bend=False)
    return train


def _decode(
    local: NDArray[np.float64], train: _Train, beacon: CodedBeacon
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pulse (n,) counted from the train's first, and position (n,) or -1 where the tag is in none of them."""
    early = beacon.period_ps * (1 - (beacon.positions - 1) * beacon.step_ps / beacon.period_ps) / 2
    pulse = np.floor((local - train.start_ps + early) / train.period_ps).astype(np.int64)
    for _ in range(2):
        start = train.start_ps + pulse * train.period_ps + 0.5 * train.bend_ps * pulse.astype(np.float64) ** 2
        pulse += np.floor((local - start + early) / train.period_ps).astype(np.int64)
    start = train.start_ps + pulse * train.period_ps + 0.5 * train.bend_ps * pulse.astype(np.float64) ** 2
    late = (local - start) / _seen_step_ps(train, beacon)
    position = np.rint(late).astype(np.int64)
    tolerance = min(max(5 * train.scatter_ps, 2_000.0) / beacon.step_ps, 0.4)
    inside = (position >= 0) & (position < beacon.positions) & (np.abs(late - position) <= tolerance)
    return pulse, np.where(inside, position, -1)


def _seen_step_ps(train: _Train, beacon: CodedBeacon) -> float:
    """A step as it is seen, stretched like the period (0.1 ns at 44 ppm)."""
    return beacon.step_ps * train.period_ps / beacon.period_ps


def _refined(
    local: NDArray[np.float64],
    pulse: NDArray[np.int64],
    position: NDArray[np.int64],
    train: _Train,
    beacon: CodedBeacon,
    bend: bool,
) -> _Train:
    """Least squares through decoded pulses (n,), without the strays."""
    late = local - position * _seen_step_ps(train, beacon)
    scale = float(np.abs(pulse).max()) or 1.0
    x = pulse / scale
    keep = np.arange(x.size)
    basis = np.vander(x, 3 if bend else 2, increasing=True)
    for _ in range(8):
        expected = train.start_ps + train.period_ps * pulse
        solution = np.linalg.lstsq(basis[keep], (late - expected)[keep], rcond=None)[0]
        residual = np.abs(late - expected - basis @ solution)
        scatter = max(float(np.median(residual[keep])) * 1.4826, 1.0)
        closer = np.flatnonzero(residual <= 4 * scatter)
        if closer.size == keep.size or closer.size < 10:
            break
        keep = closer
    bent = 2 * float(solution[2]) / scale**2 if bend else 0.0
    start, period = train.start_ps + float(solution[0]), train.period_ps + float(solution[1]) / scale
    return _Train(start, period, bent, scatter)


def _match(
    pulse: NDArray[np.int64], position: NDArray[np.int64], beacon: CodedBeacon, expected: int, reach: int
) -> tuple[int, float, float]:
    """Number of the train's pulse 0, its significance and that of the next best, of 2 x reach + 1 numbers.

    For every candidate the agreements of code and tags are counted, all at once by correlation. By chance one in
    `positions` agrees.
    """
    used = position >= 0
    pulse, position = pulse[used], position[used]
    if pulse.size == 0:
        return expected, 0.0, 0.0
    low, high = int(pulse.min()), int(pulse.max())
    code = beacon.code(np.arange(expected - reach + low, expected + reach + high + 1, dtype=np.int64))
    size = scipy.fft.next_fast_len(code.size, real=True)
    agreed = np.zeros(size)
    for value in range(beacon.positions):
        tags = np.bincount(pulse[position == value] - low, minlength=high - low + 1).astype(np.float64)
        spectrum = np.conj(scipy.fft.rfft(tags, size)) * scipy.fft.rfft((code == value).astype(np.float64), size)
        agreed += scipy.fft.irfft(spectrum, size)
    chance = 1 / beacon.positions
    deviation = np.sqrt(pulse.size * chance * (1 - chance))
    sigmas = (agreed[: 2 * reach + 1] - pulse.size * chance) / deviation
    best = int(np.argmax(sigmas))
    others = np.delete(sigmas, best)
    return expected - reach + best, float(sigmas[best]), float(others.max()) if others.size else 0.0


def _follow(
    tag_ps: NDArray[np.int64],
    beacon: CodedBeacon,
    origin: int,
    train: _Train,
    first: int,
    sure: tuple[float, float],
) -> NumberedBeacon:
    """Number all tags: the fit grows from the first look to both ends, bending as it must."""
    local_all = tag_ps - origin
    reach = _LOOK_PULSES * beacon.period_ps
    start, stop, farthest = 0, reach, int(max(abs(int(local_all[0])), abs(int(local_all[-1]))))
    while True:
        chosen = local_all[(local_all >= start) & (local_all <= stop)].astype(np.float64)
        pulse, position = _decode(chosen, train, beacon)
        right = (position >= 0) & (position == beacon.code(pulse + first))
        if int(right.sum()) < _FEWEST_PULSES // 2 or right.sum() < 0.5 * (position >= 0).sum():
            raise ClockRefused(
                f"the beacon was numbered in one place, but {(stop - start) * 1e-12:.2f} s around it only "
                f"{int(right.sum())} of {int((position >= 0).sum())} tags follow its pattern"
            )
        train = _refined(chosen[right], pulse[right], position[right], train._replace(bend_ps=0.0), beacon, bend=True)
        if start <= -farthest and stop >= farthest:
            break
        extra = int((stop - start) * (_GROWTH - 1) / 2)
        start, stop = max(start - extra, -farthest), min(stop + extra, farthest)
    pulse, position = _decode(local_all.astype(np.float64), train, beacon)
    number = pulse + first
    is_pulse = (position >= 0) & (position == beacon.code(number))
    _require_pattern_throughout(local_all[position >= 0], is_pulse[position >= 0])
    return _numbered(beacon, origin, train, first, number, is_pulse, sure)


def _require_pattern_throughout(local: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
    """Refuse when among the tags in a position (n,) there is a stretch that does not follow the code."""
    stretches = max(right.size // _STRETCH, 1)
    for part in np.array_split(np.arange(right.size), stretches):
        if right[part].mean() < _FOLLOWS:
            raise ClockRefused(
                f"the beacon was numbered in one place, but {local[part[0]] * 1e-12:.2f} s from there only "
                f"{int(right[part].sum())} of {part.size} tags follow its pattern: number the parts apart"
            )


def _numbered(
    beacon: CodedBeacon,
    origin: int,
    train: _Train,
    first: int,
    number: NDArray[np.int64],
    is_pulse: NDArray[np.bool_],
    sure: tuple[float, float],
) -> NumberedBeacon:
    """The train in terms of the transmitter's clock, around the middle of the numbered pulses."""
    middle = (int(number[is_pulse].min()) + int(number[is_pulse].max())) // 2
    k = middle - first
    # start + k (period - nominal) is small; the large parts stay integers.
    excess = train.period_ps - beacon.period_ps
    seen_less_grid = train.start_ps + k * excess + 0.5 * train.bend_ps * k * k
    offset = origin - first * beacon.period_ps + round(seen_less_grid)
    return NumberedBeacon(
        number=number,
        is_pulse=is_pulse,
        offset_ps=offset,
        frequency_offset=(excess + train.bend_ps * k) / beacon.period_ps,
        drift_per_s=train.bend_ps / beacon.period_ps**2 * PS_PER_S,
        reference_ps=middle * beacon.period_ps,
        scatter_ps=train.scatter_ps,
        significance=sure[0],
        runner_up=sure[1],
    )
