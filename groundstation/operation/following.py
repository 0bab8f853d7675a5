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
#: A live correction is the mean of so many readings whose times are known so well, and only errors that small are no
#: slew.
_CORRECTING_TO_ARCSEC = 5.0
_READINGS_PER_CORRECTION = 8
_FOLLOWS_WITHIN_ARCSEC = 1800.0
#: A rotator: the share of each reading's error that is corrected, of an error up to this (a turn that came late says
#: nothing about the others), and the most that may come together of it.
_POSITION_GAIN = 0.1
_LEARNS_FROM_S, _LEARNS_FROM_ARCSEC = 0.05, 100.0
_MOST_AHEAD_S, _MOST_ACROSS_ARCSEC = 1.0, 1800.0

CANNOT_FOLLOW = (
    "this mount can point but not follow a satellite: its protocol has neither free rates nor trajectories; "
    "fly the pass with another mount"
)


class Following(Protocol):
    """One way of following; the flight calls these in its own thread.

    `reading_good_to_arcsec`: a reading tells the pointing error when its time is known this well, as an angle along
    the path. `too_large_arcsec`: an error above this is an alarm when it lasts.
    """

    reading_good_to_arcsec: float
    too_large_arcsec: float

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
    raise BadInput(CANNOT_FOLLOW)


class ByRates:
    """The station's own loop: it reads the encoders and commands rates."""

    reading_good_to_arcsec, too_large_arcsec = 5.0, 30.0

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
    """The mount interpolates the path by its own clock; the station corrects its time and its axes as it goes.

    Its readings carry the time of that clock, which is known to some milliseconds.
    """

    reading_good_to_arcsec, too_large_arcsec = 20.0, 30.0

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
        speed_arcsec_s = math.hypot(azimuth_rate * math.cos(math.radians(reading.elevation_deg)), elevation_rate)
        good &= reading.uncertainty_s * speed_arcsec_s <= _CORRECTING_TO_ARCSEC
        if good and math.hypot(error_azimuth, error_elevation) < _FOLLOWS_WITHIN_ARCSEC:
            self._errors.append(_split(self._path, reading, error_azimuth, error_elevation))
            if len(self._errors) == _READINGS_PER_CORRECTION:
                self._correct()
        return RateCommand(azimuth_rate, elevation_rate, error_azimuth, error_elevation, good)

    def _correct(self) -> None:
        behind_s, *left = np.mean(self._errors, axis=0)
        self._errors.clear()
        self._ahead_s += 0.5 * float(behind_s)
        self._across_arcsec += 0.5 * np.asarray(left)
        self._mount.set_time_offset_s(self._ahead_s)
        self._mount.set_axis_offsets_arcsec(*self._across_arcsec.tolist())


class ByPositions:
    """A rotator that only goes to places: it is sent to where the path will be one period later.

    How far it lags behind that (it brakes before each place) is learnt from its readings, coarse as they are: what is
    wrong with their times is less than what is corrected. Such rotators are made for beams of degrees.
    """

    reading_good_to_arcsec, too_large_arcsec = 300.0, 1800.0

    def __init__(self, mount: Mount, path: PredictedPath, period_s: float) -> None:
        self._mount, self._path, self._nominal_period_s = mount, path, period_s
        self.begin()

    def load(self) -> None:
        pass

    def begin(self) -> None:
        self._period_s = self._nominal_period_s
        self._last_utc_ns: int | None = None
        self._ahead_s = 0.0
        self._across_arcsec = np.zeros(2)

    def turn(self, now_utc_ns: int, reading: MountReading, good: bool) -> RateCommand:
        self._measure_period(now_utc_ns)
        errors = sky_error_arcsec(self._path, reading)
        if math.hypot(*errors) < _FOLLOWS_WITHIN_ARCSEC:
            self._learn(*_split(self._path, reading, *errors))
        lead_s = self._period_s + self._mount.capabilities.command_latency_s + self._ahead_s
        azimuth, elevation = self._path.at(now_utc_ns + round(lead_s * NS_PER_S))
        azimuth, elevation = np.array((float(azimuth), float(elevation))) + self._across_arcsec / 3600.0
        self._mount.go_to(float(azimuth) % 360.0, float(elevation))
        azimuth_rate, elevation_rate = (3600.0 * float(rate) for rate in self._path.rates_at(now_utc_ns))
        return RateCommand(azimuth_rate, elevation_rate, *errors, good)

    def _measure_period(self, now_utc_ns: int) -> None:
        """In a world that runs fast, or behind a slow wire, a turn takes longer than it should."""
        if self._last_utc_ns is not None:
            elapsed_s = (now_utc_ns - self._last_utc_ns) / NS_PER_S
            longest_s = 10.0 * self._nominal_period_s
            self._period_s += 0.5 * (min(max(elapsed_s, 0.0), longest_s) - self._period_s)
        self._last_utc_ns = now_utc_ns

    def _learn(self, behind_s: float, left_azimuth: float, left_elevation: float) -> None:
        ahead_s = self._ahead_s + _POSITION_GAIN * _limited(behind_s, _LEARNS_FROM_S)
        self._ahead_s = _limited(ahead_s, _MOST_AHEAD_S)
        for axis, left_arcsec in enumerate((left_azimuth, left_elevation)):
            across = self._across_arcsec[axis] + _POSITION_GAIN * _limited(left_arcsec, _LEARNS_FROM_ARCSEC)
            self._across_arcsec[axis] = _limited(across, _MOST_ACROSS_ARCSEC)


def _limited(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _split(
    path: PredictedPath, reading: MountReading, error_azimuth: float, error_elevation: float
) -> tuple[float, float, float]:
    """The error as seconds behind on the path, and what is left of it on both axes (arcsec)."""
    cosine = math.cos(math.radians(reading.elevation_deg))
    azimuth_rate, elevation_rate = (3600.0 * float(rate) for rate in path.rates_at(reading.utc_ns))
    across_rate = azimuth_rate * cosine
    speed_squared = across_rate**2 + elevation_rate**2
    behind_s = (error_azimuth * across_rate + error_elevation * elevation_rate) / speed_squared
    left_azimuth = (error_azimuth - behind_s * across_rate) / max(cosine, 0.05)
    return behind_s, left_azimuth, error_elevation - behind_s * elevation_rate
