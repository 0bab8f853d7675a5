"""How a mount is made to follow the path: by rates, by a trajectory of its own, or by position after position."""

import math
from typing import Protocol, cast

import numpy as np

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput
from groundstation.instruments import Mount, MountReading, TrajectoryMount
from groundstation.passes.prediction import PredictedPath
from groundstation.passes.tracking import RateCommand, TrackingLoop, sky_error_arcsec

_POINT_EVERY_S = 1.0  # of a trajectory: between such points the path is straight to 0.1"
_BEFORE_S, _AFTER_S = 5.0, 5.0  # a trajectory begins before the first photon and ends after the last
#: A live correction is the mean of so many good readings, and only errors that small are no slew.
_READINGS_PER_CORRECTION = 8
_FOLLOWS_WITHIN_ARCSEC = 1800.0


class Following(Protocol):
    """One way of following; the flight calls these in its own thread."""

    def load(self) -> None:
        """Tell the mount beforehand what it can be told: it is still at rest."""

    def begin(self) -> None:
        """Start to follow, also anew after an outage in which the mount may have been stopped."""

    def turn(self, now_utc_ns: int, reading: MountReading, good: bool) -> RateCommand:
        """Once in every period; `good`: the reading's time is known well enough to tell a pointing error."""


def following_of(mount: Mount, path: PredictedPath, start_utc_ns: int, stop_utc_ns: int, period_s: float) -> Following:
    """The way this mount follows a path. BadInput for one that cannot."""
    match mount.capabilities.follows:
        case "rates":
            return ByRates(mount, path, period_s)
        case "trajectory":
            return ByTrajectory(cast(TrajectoryMount, mount), path, start_utc_ns, stop_utc_ns)
        case "positions":
            return ByPositions(mount, path, period_s)
    raise BadInput(
        "this mount can point but not follow a satellite: its protocol has neither free rates nor trajectories; "
        "fly the pass with another mount"
    )


class ByRates:
    """The station's own loop: it reads the encoders and commands rates."""

    def __init__(self, mount: Mount, path: PredictedPath, period_s: float) -> None:
        self._mount, self._path, self._period_s = mount, path, period_s
        self.begin()

    def load(self) -> None:
        pass

    def begin(self) -> None:
        self._loop = TrackingLoop(self._path, self._mount.capabilities, self._period_s)

    def turn(self, now_utc_ns: int, reading: MountReading, good: bool) -> RateCommand:
        command = self._loop.command(now_utc_ns, reading)
        self._mount.set_rates(command.azimuth_arcsec_s, command.elevation_arcsec_s)
        return command


class ByTrajectory:
    """The mount interpolates the path by its own clock; the station corrects its time and its axes as it goes."""

    def __init__(self, mount: TrajectoryMount, path: PredictedPath, start_utc_ns: int, stop_utc_ns: int) -> None:
        self._mount, self._path = mount, path
        first = max(start_utc_ns - round(_BEFORE_S * NS_PER_S), int(path.utc_ns[0]))
        last = min(stop_utc_ns + round(_AFTER_S * NS_PER_S), int(path.utc_ns[-1]))
        count = math.ceil((last - first) / NS_PER_S / _POINT_EVERY_S) + 1
        self._points_utc_ns = np.linspace(first, last, count).astype(np.int64)
        self._ahead_s = 0.0
        self._across_arcsec = np.zeros(2)
        self._errors: list[tuple[float, float, float]] = []

    def load(self) -> None:
        azimuth, elevation = self._path.at(self._points_utc_ns)
        self._mount.load_trajectory(self._points_utc_ns, azimuth, elevation)

    def begin(self) -> None:
        self._errors.clear()
        self._mount.start_trajectory()

    def turn(self, now_utc_ns: int, reading: MountReading, good: bool) -> RateCommand:
        azimuth_rate, elevation_rate = (3600.0 * float(rate) for rate in self._path.rates_at(now_utc_ns))
        error_azimuth, error_elevation = sky_error_arcsec(self._path, reading)
        if good and math.hypot(error_azimuth, error_elevation) < _FOLLOWS_WITHIN_ARCSEC:
            self._errors.append(self._split(reading, error_azimuth, error_elevation))
            if len(self._errors) == _READINGS_PER_CORRECTION:
                self._correct()
        return RateCommand(azimuth_rate, elevation_rate, error_azimuth, error_elevation, good)

    def _split(self, reading: MountReading, error_azimuth: float, error_elevation: float) -> tuple[float, float, float]:
        """The error as seconds behind on the path, and what is left of it on both axes (arcsec)."""
        cosine = math.cos(math.radians(reading.elevation_deg))
        azimuth_rate, elevation_rate = (3600.0 * float(rate) for rate in self._path.rates_at(reading.utc_ns))
        across_rate = azimuth_rate * cosine
        speed_squared = across_rate**2 + elevation_rate**2
        behind_s = (error_azimuth * across_rate + error_elevation * elevation_rate) / speed_squared
        left_azimuth = (error_azimuth - behind_s * across_rate) / max(cosine, 0.05)
        return behind_s, left_azimuth, error_elevation - behind_s * elevation_rate

    def _correct(self) -> None:
        behind_s, *left = np.mean(self._errors, axis=0)
        self._errors.clear()
        self._ahead_s += 0.5 * float(behind_s)
        self._across_arcsec += 0.5 * np.asarray(left)
        self._mount.set_time_offset_s(self._ahead_s)
        self._mount.set_axis_offsets_arcsec(*self._across_arcsec.tolist())


class ByPositions:
    """A rotator that only goes to places: it is sent to where the path will be one period later."""

    def __init__(self, mount: Mount, path: PredictedPath, period_s: float) -> None:
        self._mount, self._path = mount, path
        self._lead_ns = round((period_s + mount.capabilities.command_latency_s) * NS_PER_S)

    def load(self) -> None:
        pass

    def begin(self) -> None:
        pass

    def turn(self, now_utc_ns: int, reading: MountReading, good: bool) -> RateCommand:
        azimuth, elevation = self._path.at(now_utc_ns + self._lead_ns)
        self._mount.go_to(float(azimuth) % 360.0, float(elevation))
        azimuth_rate, elevation_rate = (3600.0 * float(rate) for rate in self._path.rates_at(now_utc_ns))
        return RateCommand(azimuth_rate, elevation_rate, *sky_error_arcsec(self._path, reading), good)
