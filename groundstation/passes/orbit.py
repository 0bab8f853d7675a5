"""Where the satellite stands as seen from the station, and how long its light travels.

SGP4 (WGS72, the constants that element sets are made for) gives the position in TEME; sidereal time GMST82
at UT1 and polar motion turn it to the Earth; the station's WGS84 position is subtracted. UT1 and polar motion
are explicit arguments, no network is asked for them; taking UT1 = UTC costs 38 arcsec on a 48 degree pass.
Vallado et al., "Revisiting Spacetrack Report #3", AIAA 2006-6753, appendix C.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import erfa
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sgp4.api import SGP4_ERRORS, WGS72, Satrec

from groundstation.clock import utc_text
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet

SPEED_OF_LIGHT_KM_S = 299_792.458
_NS_PER_DAY = 86_400_000_000_000
_S_PER_DAY = 86_400.0
_JD_1970 = 2_440_587.5
_EARTH_ROTATION_RAD_S = 7.292115e-5
_WGS84 = 1  # erfa's number of the ellipsoid
#: Each step shrinks the error by v/c < 3e-5, so three steps from the geometric range leave < 1e-15 s.
_LIGHT_TIME_STEPS = 3

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


@dataclass(frozen=True)
class Site:
    """The station on the WGS84 ellipsoid."""

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float


@dataclass(frozen=True)
class EarthOrientation:
    """What no formula predicts of the Earth's rotation: UT1-UTC and the pole, with their date and source."""

    ut1_minus_utc_s: float
    x_arcsec: float
    y_arcsec: float
    as_of: str
    source: str


class Look(NamedTuple):
    """Satellite and station at the same instant, each (n,); azimuth in [0, 360), north over east."""

    azimuth_deg: Floats
    elevation_deg: Floats
    range_km: Floats


class Received(NamedTuple):
    """Light as it arrives, each (n,): where it comes from and how long it travelled."""

    azimuth_deg: Floats
    elevation_deg: Floats
    time_of_flight_s: Floats


@dataclass(frozen=True)
class Orbit:
    """A satellite's path seen from a site. `time_error_s`: the true satellite is early on it by this much.

    All times are int64 nanoseconds since 1970 (UTC), shape (n,) or a single one, which counts as n = 1.
    Nothing here is refracted. Raises BadInput when the elements cannot be propagated to a time asked for.
    """

    elements: ElementSet
    site: Site
    earth_orientation: EarthOrientation
    time_error_s: float = 0.0

    def geometric(self, utc_ns: ArrayLike) -> Look:
        """Direction and range between simultaneous positions: what published tables of passes contain."""
        east, north, up = self._line_of_sight_km(utc_ns)
        return Look(*_direction_deg(east, north, up), _length(east, north, up))

    def received(self, utc_ns: ArrayLike) -> Received:
        """Direction and time of flight of the light that arrives at `utc_ns`.

        The satellite at emission and the station at reception are joined by a straight line in the inertial
        frame of the Earth's centre. The direction includes the aberration by the station's own motion with
        the rotating Earth (0.24 arcsec east at 40 degrees latitude); the Earth's motion around the Sun is
        shared by both ends and has no effect. Not included: refraction, the air's delay (some ns) and the
        gravitational delay (some ps).
        """
        times = _times(utc_ns)
        east, north, up = self._line_of_sight_km(times)
        for _ in range(_LIGHT_TIME_STEPS):
            flight_s = _length(east, north, up) / SPEED_OF_LIGHT_KM_S
            east, north, up = self._line_of_sight_km(times, satellite_later_s=-flight_s)
        flight_s = _length(east, north, up) / SPEED_OF_LIGHT_KM_S
        direction = _direction_deg(east + self._station_speed_km_s * flight_s, north, up)
        return Received(*direction, flight_s)

    def emitted(self, utc_ns: ArrayLike) -> Floats:
        """Time of flight in seconds of the light that leaves the satellite at `utc_ns` for the station."""
        times = _times(utc_ns)
        flight_s = _length(*self._line_of_sight_km(times)) / SPEED_OF_LIGHT_KM_S
        for _ in range(_LIGHT_TIME_STEPS):
            flight_s = _length(*self._line_of_sight_km(times, earth_later_s=flight_s)) / SPEED_OF_LIGHT_KM_S
        return flight_s

    def inertial_km(self, utc_ns: ArrayLike, later_s: Floats | float = 0.0) -> Floats:
        """Position (3, n) at `utc_ns + later_s` in TEME: true equator, mean equinox of date."""
        days, fraction = _julian(_times(utc_ns), later_s + self.time_error_s)
        error, position, _ = self._satellite.sgp4_array(days, fraction)
        if error.any():
            first = int(np.flatnonzero(error)[0])
            reason = SGP4_ERRORS.get(int(error[first]), "the orbit cannot be propagated")
            raise BadInput(
                f'the element set "{self.elements.name}" gives no position at'
                f" {utc_text(int(_times(utc_ns)[first]))}: {reason}; take one whose epoch is closer"
            )
        return np.ascontiguousarray(position.T, dtype=np.float64)

    def _line_of_sight_km(
        self, utc_ns: ArrayLike, satellite_later_s: Floats | float = 0.0, earth_later_s: Floats | float = 0.0
    ) -> tuple[Floats, Floats, Floats]:
        """East, north and up (n,) from the station to the satellite, each end at its own time."""
        x, y, z = self.inertial_km(utc_ns, satellite_later_s)
        days, fraction = _julian(_times(utc_ns), earth_later_s + self.earth_orientation.ut1_minus_utc_s)
        angle = erfa.gmst82(days, fraction)
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.stack((cos * x + sin * y, cos * y - sin * x, z))
        east, north, up = self._to_horizon @ turned - self._station_in_horizon_km[:, None]
        return east, north, up

    @cached_property
    def _satellite(self) -> Satrec:
        return Satrec.twoline2rv(self.elements.line1, self.elements.line2, WGS72)

    @cached_property
    def _station_km(self) -> Floats:
        site = self.site
        position_m = erfa.gd2gc(_WGS84, np.radians(site.longitude_deg), np.radians(site.latitude_deg), site.altitude_m)
        return np.asarray(position_m, dtype=np.float64) / 1000.0

    @cached_property
    def _station_speed_km_s(self) -> float:
        """How fast the Earth's rotation carries the station to the east."""
        return float(_EARTH_ROTATION_RAD_S * np.hypot(self._station_km[0], self._station_km[1]))

    @cached_property
    def _horizon_axes(self) -> Floats:
        """Rows: east, north and up at the station in Earth-fixed coordinates."""
        longitude, latitude = np.radians(self.site.longitude_deg), np.radians(self.site.latitude_deg)
        cos_lon, sin_lon, cos_lat, sin_lat = _cos_sin(longitude) + _cos_sin(latitude)
        return np.array(
            [
                [-sin_lon, cos_lon, 0.0],
                [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
                [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
            ]
        )

    @cached_property
    def _to_horizon(self) -> Floats:
        """From the Earth turned by sidereal time, by polar motion, to east, north and up."""
        pole = np.radians(np.array([self.earth_orientation.x_arcsec, self.earth_orientation.y_arcsec]) / 3600.0)
        polar_motion = erfa.pom00(pole[0], pole[1], 0.0)  # the third angle stays below 1e-5 arcsec
        return np.asarray(self._horizon_axes @ polar_motion, dtype=np.float64)

    @cached_property
    def _station_in_horizon_km(self) -> Floats:
        return np.asarray(self._horizon_axes @ self._station_km, dtype=np.float64)


def _times(utc_ns: ArrayLike) -> Times:
    return np.atleast_1d(np.asarray(utc_ns, dtype=np.int64))


def _julian(utc_ns: Times, later_s: Floats | float) -> tuple[Floats, Floats]:
    """Julian day and fraction apart: in one number they would be quantised to 40 microseconds."""
    days, rest_ns = np.divmod(utc_ns, _NS_PER_DAY)
    fraction = rest_ns / _NS_PER_DAY + later_s / _S_PER_DAY
    return days + _JD_1970, np.asarray(fraction, dtype=np.float64)


def _cos_sin(angle_rad: float) -> tuple[float, float]:
    return float(np.cos(angle_rad)), float(np.sin(angle_rad))


def _length(east: Floats, north: Floats, up: Floats) -> Floats:
    return np.sqrt(east**2 + north**2 + up**2)


def _direction_deg(east: Floats, north: Floats, up: Floats) -> tuple[Floats, Floats]:
    azimuth = np.degrees(np.arctan2(east, north)) % 360.0
    return azimuth, np.degrees(np.arctan2(up, np.hypot(east, north)))
