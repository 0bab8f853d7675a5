"""The satellite as the station's light sees it: exact time of flight, range and direction over one pass."""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from groundstation.passes.orbit import Orbit
from groundstation.simulation.parameters import ClockParameters

_KNOT_S = 0.5
PS_PER_S = 1_000_000_000_000
Floats = NDArray[np.floating]


class Sky:
    """Splines through the orbit. Times are seconds or picoseconds since `zero_utc_ns`."""

    def __init__(self, orbit: Orbit, zero_utc_ns: int, start_utc_ns: int, stop_utc_ns: int) -> None:
        utc_ns = np.arange(start_utc_ns - 10**9, stop_utc_ns + 2 * 10**9, round(_KNOT_S * 1e9))
        seconds = (utc_ns - zero_utc_ns) * 1e-9
        look, received = orbit.geometric(utc_ns), orbit.received(utc_ns)
        self._flight_ps = CubicSpline(seconds, orbit.emitted(utc_ns) * PS_PER_S)
        self._range_km = CubicSpline(seconds, look.range_km)
        azimuth = np.unwrap(received.azimuth_deg, period=360.0)
        self._direction_deg = CubicSpline(seconds, np.stack((azimuth, received.elevation_deg), axis=1))

    def flight_ps(self, emitted_s: Floats) -> Floats:
        """Time of flight of light emitted at these times (n,)."""
        return np.asarray(self._flight_ps(emitted_s))

    def emitted_ps(self, received_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """When light that arrives at these times (n,) was emitted; good to well below a picosecond."""
        flight = self.flight_ps(received_ps * 1e-12 - 0.003)
        for _ in range(2):  # the time of flight changes by 2e-5 per second
            flight = self.flight_ps((received_ps - flight) * 1e-12)
        return received_ps - np.rint(flight).astype(np.int64)

    def range_km(self, received_s: Floats) -> Floats:
        """Geometric range (n,)."""
        return np.asarray(self._range_km(received_s))

    def direction_deg(self, received_s: Floats) -> tuple[Floats, Floats]:
        """Azimuth (unwrapped) and elevation from which the light arrives (n,)."""
        both = self._direction_deg(received_s)
        return both[:, 0], both[:, 1]


class SatelliteClock:
    """The transmitter's clock against UTC: reads offset + frequency t + drift t^2 / 2 too much."""

    def __init__(self, clocks: ClockParameters) -> None:
        self._offset_ps = clocks.satellite_offset_s * PS_PER_S
        self._frequency = clocks.satellite_frequency_offset
        self._drift_per_s = clocks.satellite_frequency_drift_per_s

    def error_ps(self, seconds: Floats) -> Floats:
        """Reading minus UTC (n,) at these seconds since the epoch."""
        rate = self._frequency + 0.5 * self._drift_per_s * seconds
        return np.asarray(self._offset_ps + rate * seconds * PS_PER_S)


class SteadySky:
    """A sky for the laboratory: a satellite that stands still at one range, straight above."""

    def __init__(self, range_km: float = 700.0) -> None:
        self._range_km = range_km
        self._flight_ps = range_km / 299_792.458 * PS_PER_S

    def flight_ps(self, emitted_s: Floats) -> Floats:
        return np.full(emitted_s.shape, self._flight_ps)

    def emitted_ps(self, received_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        return received_ps - round(self._flight_ps)

    def range_km(self, received_s: Floats) -> Floats:
        return np.full(received_s.shape, self._range_km)

    def direction_deg(self, received_s: Floats) -> tuple[Floats, Floats]:
        return np.zeros(received_s.shape), np.full(received_s.shape, 90.0)
