"""What a simulated mount follows by itself: passes that it computes from an element set, and paths of points.

Directions are geometric: without refraction and light time, at UT1 = UTC.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from groundstation.clock import NS_PER_S
from groundstation.passes.orbit import Orbit
from groundstation.passes.prediction import find_passes

_MINUTE_NS = 60 * NS_PER_S
_KNOT_NS = NS_PER_S // 2
_NS_PER_DAY = 86_400 * NS_PER_S
_JD_1970 = Decimal("2440587.5")
_HORIZON_DEG = 0.0  # free: where a transit begins


class SkyPath:
    """Azimuth (continuous) and elevation as smooth functions of time; at rest before and after."""

    def __init__(self, utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]):
        """Knots (n,), n >= 2."""
        self._start_ns, self._stop_ns = int(utc_ns[0]), int(utc_ns[-1])
        angles = np.stack((np.unwrap(azimuth_deg, period=360.0), elevation_deg), axis=1)
        self._spline = CubicSpline((utc_ns - utc_ns[0]) / NS_PER_S, angles)

    @classmethod
    def of_points(cls, start_ns: int, points: Sequence[tuple[float, float]]) -> "SkyPath":
        """Points (azimuth, elevation) a second apart."""
        azimuth, elevation = np.array(points).T
        return cls(start_ns + np.arange(len(points), dtype=np.int64) * NS_PER_S, azimuth, elevation)

    def at(self, utc_ns: int) -> tuple[float, float]:
        """Azimuth and elevation in degrees."""
        within_ns = min(max(utc_ns, self._start_ns), self._stop_ns) - self._start_ns
        azimuth, elevation = self._spline(within_ns / NS_PER_S)
        return float(azimuth), float(elevation)


class Transit(NamedTuple):
    """What the mount can be told to follow."""

    start_ns: int
    stop_ns: int
    path: SkyPath


def satellite_pass(orbit: Orbit, from_ns: int, minutes: int) -> Transit | None:
    """The first pass of which some part lies in the minutes from then on. Raises BadInput (elements too old)."""
    passes = find_passes(orbit, from_ns, from_ns + minutes * _MINUTE_NS, _HORIZON_DEG)
    if not passes:
        return None
    start_ns, stop_ns = passes[0].rise.utc_ns, passes[0].set.utc_ns
    times = np.arange(start_ns, stop_ns + _KNOT_NS, _KNOT_NS, dtype=np.int64)
    look = orbit.geometric(times)
    return Transit(start_ns, stop_ns, SkyPath(times, look.azimuth_deg, look.elevation_deg))


def julian(utc_ns: int) -> str:
    """Julian day with eight decimals (0.9 ms), as the mount writes it."""
    return f"{Decimal(utc_ns) / _NS_PER_DAY + _JD_1970:.8f}"


def utc_of(julian_day: str) -> int:
    """UTC nanoseconds of a Julian day in decimals."""
    return round((Decimal(julian_day) - _JD_1970) * _NS_PER_DAY)
