"""Where the Sun stands: is the sky dark at the station, is the satellite lit. Needs no ephemeris file."""

import erfa
import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundstation.passes.orbit import Orbit, Site

Floats = NDArray[np.float64]
_EARTH_RADIUS_KM = 6378.137
_NS_PER_DAY = 86_400_000_000_000
_DAYS_1970_TO_J2000 = 10_957.5


def sun_direction(utc_ns: ArrayLike) -> Floats:
    """Unit vector (3, n) to the Sun, equator and equinox of date.

    The low-precision formula of the Astronomical Almanac, within 0.013 degrees from 2016 to 2029.
    """
    days = np.atleast_1d(np.asarray(utc_ns, dtype=np.int64)) / _NS_PER_DAY - _DAYS_1970_TO_J2000
    mean_anomaly = np.radians(357.528 + 0.9856003 * days)
    mean_longitude_deg = 280.460 + 0.9856474 * days
    longitude = np.radians(mean_longitude_deg + 1.915 * np.sin(mean_anomaly) + 0.020 * np.sin(2.0 * mean_anomaly))
    obliquity = np.radians(23.439 - 4e-7 * days)
    sin_longitude = np.sin(longitude)
    return np.stack((np.cos(longitude), np.cos(obliquity) * sin_longitude, np.sin(obliquity) * sin_longitude))


def sun_elevation_deg(site: Site, utc_ns: ArrayLike) -> Floats:
    """The Sun's elevation (n,) at the site, unrefracted; UT1 = UTC is good enough here."""
    times = np.atleast_1d(np.asarray(utc_ns, dtype=np.int64))
    days, rest_ns = np.divmod(times, _NS_PER_DAY)
    local = erfa.gmst82(days + 2_440_587.5, rest_ns / _NS_PER_DAY) + np.radians(site.longitude_deg)
    x, y, z = sun_direction(times)
    latitude = np.radians(site.latitude_deg)
    sine = np.cos(latitude) * (np.cos(local) * x + np.sin(local) * y) + np.sin(latitude) * z
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))), dtype=np.float64)


def sunlit(orbit: Orbit, utc_ns: ArrayLike) -> NDArray[np.bool_]:
    """Whether the centre of the Sun is seen from the satellite (n,): up to 3 s from umbra or penumbra."""
    position = orbit.inertial_km(utc_ns)
    distance = np.sqrt((position**2).sum(axis=0))
    towards_sun = (position * sun_direction(utc_ns)).sum(axis=0)
    across = np.sqrt(np.maximum(distance**2 - towards_sun**2, 0.0))
    return np.asarray((towards_sun > 0.0) | (across > _EARTH_RADIUS_KM))
