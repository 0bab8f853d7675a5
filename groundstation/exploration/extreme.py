"""Which bin of a histogram stands out, and whether chance would do the same."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr, pdtrc

#: Bins to each side of an extreme bin that do not count as background: a peak is wider than a bin.
_PEAK_BINS = 10
#: An extreme bin stands out when chance gives it less often than this, over all bins.
_CHANCE = 1e-4


class Extreme(NamedTuple):
    """The bin that is least likely by chance, high or low.

    `bin`: its number; `counts` in it; `background`: the mean of the bins away from it, NaN without any; `stands_out`:
    chance gives such a bin less often than once in ten thousand histograms; `alone`: no bin away from it does so too.
    """

    bin: int
    counts: int
    background: float
    stands_out: bool
    alone: bool

    @property
    def words(self) -> str:
        """How to call it before "at"."""
        high = self.counts >= self.background
        if self.alone:
            return "peak" if high else "dip"
        return "highest of several peaks" if high else "deepest of several dips"


def most_extreme(counts: NDArray[np.int64]) -> Extreme:
    """Look at the highest and the lowest bin of `counts` (n,), by Poisson statistics about the mean of the others."""
    (_, highest), (_, lowest) = sides = [_judged(counts, int(counts.argmax())), _judged(counts, int(counts.argmin()))]
    return highest if sides[0][0] <= sides[1][0] else lowest


def _judged(counts: NDArray[np.int64], number: int) -> tuple[float, Extreme]:
    """How often a histogram has such a bin by chance, and what to say of it."""
    near = slice(max(0, number - _PEAK_BINS), number + _PEAK_BINS + 1)
    away = np.delete(counts, near)
    count = int(counts[number])
    if away.size == 0:
        return 1.0, Extreme(number, count, float("nan"), False, True)
    background = float(away.mean())
    # Nothing anywhere else says little when there are few bins: less than one count in all is not ruled out.
    mean = max(background, 1.0 / away.size)
    high = count >= background
    chance = _chance(count, mean, high) * counts.size
    rival = _chance(int(away.max() if high else away.min()), mean, high) * counts.size
    return chance, Extreme(number, count, background, chance < _CHANCE, rival >= _CHANCE)


def _chance(count: int, mean: float, high: bool) -> float:
    """The probability of at least (or at most) `count` where `mean` is expected."""
    if high:
        return float(pdtrc(count - 1, mean)) if count else 1.0
    return float(pdtr(count, mean))
