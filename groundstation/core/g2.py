"""The second-order correlation g2 from a delay histogram: by rates for continuous light, by side peaks for pulsed.

Standard errors are those of counting: exact for Poissonian clicks, too small where the source blinks or the rate
drifts, which for pulses shows in the scatter of the side peaks and is then taken from there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.correlation import DelayHistogram

Floats = NDArray[np.float64]


class G2(NamedTuple):
    """`value` (n,) with `standard_error` (n,) at `delay_ps` (n,); 1 is chance."""

    delay_ps: Floats
    value: Floats
    standard_error: Floats


class PulsedG2(NamedTuple):
    """One entry per peak: `pulse` (n,) how many pulses apart; `counts` (n,) its area; `value` (n,) the area in units
    of the mean side peak, with `standard_error` (n,). `at_zero` and `at_zero_error`: the peak that tells."""

    pulse: NDArray[np.int64]
    counts: NDArray[np.int64]
    value: Floats
    standard_error: Floats
    at_zero: float
    at_zero_error: float


def g2_continuous(histogram: DelayHistogram, tags_a: int, tags_b: int, duration_ps: int) -> G2:
    """Divide by what independent streams of these rates would give: N_a N_b / T^2 (T - |delay|) bin.

    The error of a bin without counts is that of one count. Raises ValueError without tags, or for delays as long as
    the recording.
    """
    delay = histogram.centres_ps
    if min(tags_a, tags_b) < 1 or duration_ps <= float(np.abs(delay).max(initial=0.0)):
        raise ValueError(
            f"rates need tags on both channels over more time than the longest delay: found {tags_a} and {tags_b} "
            f"tags in {duration_ps} ps"
        )
    rates = (tags_a / duration_ps) * (tags_b / duration_ps)
    chance = rates * histogram.bin_ps * (duration_ps - np.abs(delay))
    error = np.sqrt(np.maximum(histogram.counts, 1)) / chance
    return G2(delay, histogram.counts / chance, error)


def g2_pulsed(histogram: DelayHistogram, period_ps: float, half_peak_ps: float, zero_ps: float = 0.0) -> PulsedG2:
    """Areas of the peaks every `period_ps` around `zero_ps` (the delay between the channels), each over the same
    number of bins, nearest to +-half_peak_ps; only peaks wholly inside the histogram.

    The error of a value holds that of the mean side peak: by counting, or by their scatter where that is larger.
    Raises ValueError when a peak is empty of bins, overlaps the next, or no side peak has counts.
    """
    width = round(2 * half_peak_ps / histogram.bin_ps)
    if width < 1 or 2 * half_peak_ps > period_ps:
        raise ValueError(
            f"half_peak_ps must be between half a bin ({histogram.bin_ps / 2:g}) and half a period "
            f"({period_ps / 2:g}), found {half_peak_ps:g}"
        )
    first_ps = histogram.first_edge_ps + half_peak_ps - zero_ps
    last_ps = histogram.first_edge_ps + histogram.bin_ps * histogram.counts.size - half_peak_ps - zero_ps
    pulse = np.arange(np.ceil(first_ps / period_ps), np.floor(last_ps / period_ps) + 1).astype(np.int64)
    start = np.rint((zero_ps + pulse * period_ps - half_peak_ps - histogram.first_edge_ps) / histogram.bin_ps)
    inside = (start >= 0) & (start + width <= histogram.counts.size)
    pulse, begin = pulse[inside], start[inside].astype(np.int64)
    total = np.concatenate(([0], np.cumsum(histogram.counts)))
    counts = total[begin + width] - total[begin]
    side = counts[pulse != 0]
    if side.size == 0 or side.sum() == 0 or side.size == counts.size:
        raise ValueError(
            f"g2 needs the peak at zero and counts in a side peak: found {side.size} side peaks with {side.sum()} "
            f"counts for a period of {period_ps:g} ps; give the histogram a longer range"
        )
    mean = float(side.mean())
    spread = float(side.var(ddof=1)) if side.size > 1 else 0.0
    mean_error = np.sqrt(max(mean, spread) / side.size)
    value = counts / mean
    error = np.sqrt(np.maximum(counts, 1) + (value * mean_error) ** 2) / mean
    zero = int(np.flatnonzero(pulse == 0)[0])
    return PulsedG2(pulse, counts, value, error, float(value[zero]), float(error[zero]))
