"""From the horizon to the equator of date or of J2000 and back, for mounts that speak of right ascension.

To the equator of date by geometry only: no refraction, no aberration, UT1 = UTC (at most 15 arcsec of right ascension).
"""

import math
from typing import NamedTuple

import erfa
import numpy as np

from groundstation.passes.orbit import Site

_NS_PER_DAY = 86_400_000_000_000
_JD_1970 = 2_440_587.5


class Horizon(NamedTuple):
    """A place on Earth; longitude east."""

    latitude_deg: float
    longitude_deg: float

    def sidereal_deg(self, utc_ns: int) -> float:
        """Local mean sidereal time as an angle, 0 to 360."""
        days, rest_ns = divmod(utc_ns, _NS_PER_DAY)
        greenwich = float(erfa.gmst82(days + _JD_1970, rest_ns / _NS_PER_DAY))
        return (math.degrees(greenwich) + self.longitude_deg) % 360.0

    def to_equator(self, azimuth_deg: float, elevation_deg: float, utc_ns: int) -> tuple[float, float]:
        """Right ascension (0 to 360 deg) and declination."""
        hour_angle, declination = self._turned(azimuth_deg, elevation_deg)
        return (self.sidereal_deg(utc_ns) - hour_angle) % 360.0, declination

    def to_horizon(self, right_ascension_deg: float, declination_deg: float, utc_ns: int) -> tuple[float, float]:
        """Azimuth (0 to 360 deg, north over east) and elevation."""
        azimuth, elevation = self._turned(self.sidereal_deg(utc_ns) - right_ascension_deg, declination_deg)
        return azimuth % 360.0, elevation

    def _turned(self, angle_deg: float, height_deg: float) -> tuple[float, float]:
        """Azimuth and elevation to hour angle and declination; the way back is the same formula."""
        angle, height, latitude = map(math.radians, (angle_deg, height_deg, self.latitude_deg))
        sine = math.sin(height) * math.sin(latitude) + math.cos(height) * math.cos(latitude) * math.cos(angle)
        east = -math.sin(angle) * math.cos(height)
        north = math.sin(height) * math.cos(latitude) - math.cos(height) * math.sin(latitude) * math.cos(angle)
        return math.degrees(math.atan2(east, north)), math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def from_j2000(site: Site, ascension_deg: float, declination_deg: float, utc_ns: int) -> tuple[float, float]:
    """Azimuth and elevation without refraction."""
    star = np.radians((ascension_deg, declination_deg))
    azimuth, zenith, *_ = erfa.atco13(*star, 0.0, 0.0, 0.0, 0.0, *_observer(site, utc_ns))
    return math.degrees(float(azimuth)), 90.0 - math.degrees(float(zenith))


def to_j2000(site: Site, azimuth_deg: float, elevation_deg: float, utc_ns: int) -> tuple[float, float]:
    """Right ascension (0 to 360 deg) and declination."""
    azimuth, zenith = np.radians((azimuth_deg, 90.0 - elevation_deg))
    ascension, declination = erfa.atoc13("A", azimuth, zenith, *_observer(site, utc_ns))
    return math.degrees(float(ascension)) % 360.0, math.degrees(float(declination))


def _observer(site: Site, utc_ns: int) -> tuple[float, ...]:
    """What erfa wants to know of time, place and air (none)."""
    days, rest_ns = divmod(utc_ns, _NS_PER_DAY)
    place = np.radians((site.longitude_deg, site.latitude_deg))
    return (days + _JD_1970, rest_ns / _NS_PER_DAY, 0.0, *place, site.altitude_m, *(0.0,) * 5, 0.5)
