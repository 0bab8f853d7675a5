"""Whether a line of pairs is the only one around: light that pulses shows a line at every period, and one is no clock.

A line found by its significance alone may be any tooth of such a comb. So its pairs are counted against those at
every other delay of the neighbourhood, and the clock stands only when no other delay can have as many. (Combs of
wider spacing show as several candidates of the coarse search.)
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.pair_lines import Curve, between, differences

_REACH_PS = 250e6
#: Pairs on the line to count: a few decide nearly always; more where another delay comes close.
_PAIRS = (100, 1_000)
_MOST_PAIRS_LOOKED_AT = 2e7
_PAIRS_AT_ONCE = 2e5
#: Bins per window; the finer, the less a rival between two bins is underrated.
_BINS = 4
_FINEST_OF_REACH = 1e-6
#: A rival is too weak when its count lies this many sigmas below that of the line.
_SURE_SIGMAS = 4.5


class Rival(NamedTuple):
    """The delay with the most pairs apart from the line's own: how far from it, and both counts."""

    distance_ps: float
    own: int
    other: int


def strongest_rival(
    a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], curve: Curve, scatter_ps: float, share: float
) -> Rival | None:
    """The rival of a line that may hold as many pairs as it, or None.

    `a_ps` (n,): tags over which the curve holds; `b_ps` (m,) all of B; `scatter_ps` 1 sigma of the line; `share`
    of A's tags that have a pair on it.
    """
    rival = None
    for wanted in _PAIRS:
        rival = _counted(a_ps, b_ps, curve, scatter_ps, min(a_ps.size, int(wanted / max(share, 1e-9)) + 1))
        if _sigmas_below(rival.other, rival.own) >= _SURE_SIGMAS:
            return None
    return rival


def _counted(a_ps: NDArray[np.int64], b_ps: NDArray[np.int64], curve: Curve, scatter_ps: float, tags: int) -> Rival:
    """Own and strongest other count, over so many tags around the curve's reference."""
    middle = int(np.searchsorted(a_ps, curve.reference_ps))
    first = min(max(middle - tags // 2, 0), a_ps.size - tags)
    chosen = a_ps[first : first + tags]
    stretch = int(chosen[-1]) - int(chosen[0]) + 1
    seen = between(b_ps, int(chosen[0]) + curve.offset_ps, int(chosen[-1]) + curve.offset_ps + 1).size
    density = max(seen / stretch, 1 / stretch)
    window = 3 * scatter_ps
    reach = max(min(_REACH_PS, _MOST_PAIRS_LOOKED_AT / (2 * tags * density)), 10 * window)
    width = max(window / _BINS, reach * _FINEST_OF_REACH)
    half = int(reach / width)
    counts = np.zeros(2 * half, np.int32)
    for piece in _pieces(chosen, max(int(_PAIRS_AT_ONCE / (2 * reach * density)), 1)):
        apart = differences(piece, b_ps, curve, reach).ps / width + half
        counts += np.bincount(np.clip(apart, 0, 2 * half - 1).astype(np.int32), minlength=2 * half)
    counts[[0, -1]] = 0  # what was clipped
    total = np.concatenate((np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)))
    held = total[_BINS:] - total[:-_BINS]
    place = half - _BINS // 2
    own = int(held[place])
    held[place - 2 * _BINS : place + 2 * _BINS + 1] = -1
    best = int(np.argmax(held))
    return Rival((best - place) * width, own, int(held[best]))


def _pieces(tags: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, tags.size, length):
        yield tags[start : start + length]


def _sigmas_below(count: int, expected: int) -> float:
    """How far a count lies below a Poisson expectation (signed root of the likelihood ratio)."""
    if count >= expected:
        return 0.0
    logarithm = count * np.log(count / expected) if count else 0.0
    return float(np.sqrt(2 * (logarithm - count + expected)))
