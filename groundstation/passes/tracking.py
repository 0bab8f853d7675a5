"""The tracking loop: from the predicted path and what the mount reads back to the next pair of rates.

Pure: it is told the time and the reading, and it answers with rates. It rests on a model of the mount, which
turns at the rates it was sent, each taking effect one latency after it was sent. From that the loop knows
where the mount will stand when the next command acts, so latency does not destabilise it, and it asks for
the rate that brings the mount onto the path at the end of the interval in which the command will act. A
reading corrects the model by as much as its own uncertainty allows: the readings of a world that runs ten
times too fast carry a time error of many arcseconds, and following them would shake the mount.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundstation.clock import NS_PER_S
from groundstation.instruments import MountCapabilities, MountReading
from groundstation.passes.mount_model import AxisModel, ModelNoise
from groundstation.passes.prediction import PredictedPath

_ARCSEC_PER_DEG = 3600.0
_FULL_TURN_ARCSEC = 360.0 * _ARCSEC_PER_DEG
_WORTH_MENTIONING = 0.01  # weight of a reading


class RateCommand(NamedTuple):
    """Rates within the mount's limits and on its quantum, and what the reading said.

    The errors are path minus reading at the reading's own time, azimuth as seen on the sky (times cosine of
    elevation); NaN without a reading. `used`: the reading had a say in the rates, be it 1 % or all.
    """

    azimuth_arcsec_s: float
    elevation_arcsec_s: float
    error_azimuth_arcsec: float
    error_elevation_arcsec: float
    used: bool


class TrackingLoop:
    """One pass's loop. Call `command` about every `period_s`; the period may vary, the loop measures it.

    `gain` is the share of the expected error that one interval removes. Angles, rates and times are the
    world's. The loop never asks for more than the capabilities allow.
    """

    def __init__(
        self,
        path: PredictedPath,
        capabilities: MountCapabilities,
        period_s: float,
        gain: float = 0.6,
        noise: ModelNoise | None = None,
    ) -> None:
        self._path = path
        self._capabilities = capabilities
        self._nominal_period_s = self._period_s = period_s
        self._gain = gain
        self._noise = noise or ModelNoise()
        self._axes: tuple[AxisModel, AxisModel] | None = None
        self._last_s: float | None = None

    def command(self, now_utc_ns: int, reading: MountReading | None) -> RateCommand:
        """The rates to send at `now_utc_ns`; `reading` is the newest one, None when there is no new one."""
        now_s = self._seconds(now_utc_ns)
        elapsed_s = self._measure_period(now_s)
        axes = self._axes = self._axes or self._models(now_s)
        used = reading is not None and self._correct(axes, reading)
        rates = [self._send(index, axis, now_s, elapsed_s) for index, axis in enumerate(axes)]
        error = (math.nan, math.nan) if reading is None else sky_error_arcsec(self._path, reading)
        return RateCommand(rates[0], rates[1], *error, used)

    def _models(self, now_s: float) -> tuple[AxisModel, AxisModel]:
        latency_s = self._capabilities.command_latency_s
        azimuth, elevation = (AxisModel(p, now_s, latency_s, self._noise) for p in self._targets(now_s))
        return azimuth, elevation

    def _correct(self, axes: tuple[AxisModel, AxisModel], reading: MountReading) -> bool:
        """Show the reading to both models; says whether it counted for anything."""
        time_s = self._seconds(reading.utc_ns)
        azimuth = reading.azimuth_deg * _ARCSEC_PER_DEG
        azimuth += _FULL_TURN_ARCSEC * round((axes[0].predict(time_s) - azimuth) / _FULL_TURN_ARCSEC)
        angles = (azimuth, reading.elevation_deg * _ARCSEC_PER_DEG)
        weights = [axis.correct(angle, time_s, reading.uncertainty_s) for axis, angle in zip(axes, angles, strict=True)]
        return min(weights) >= _WORTH_MENTIONING

    def _send(self, index: int, axis: AxisModel, now_s: float, elapsed_s: float) -> float:
        """The rate that takes an axis from where it will be to the path while the command acts."""
        acceleration = self._capabilities.max_acceleration_deg_s2 * _ARCSEC_PER_DEG
        acts_s = now_s + axis.latency_s
        here, there = self._targets(acts_s)[index], self._targets(acts_s + self._period_s)[index]
        error = here - axis.predict(acts_s)
        # Far from the path: no faster than the mount can still brake when it gets there.
        brakeable = 0.7 * math.sqrt(2.0 * acceleration * abs(error))
        catch_up = math.copysign(min(self._gain * abs(error) / self._period_s, brakeable), error)
        wanted = (there - here) / self._period_s + catch_up - axis.rate_bias
        rate = limited_rate(wanted, axis.commanded, elapsed_s, self._capabilities)
        # A ramp from one rate to the next covers as much as a step at the ramp's middle.
        ramp_s = abs(rate - axis.commanded) / acceleration
        axis.add_command(acts_s + ramp_s / 2.0, rate)
        return rate

    def _measure_period(self, now_s: float) -> float:
        """Time since the last command; keeps the running guess of how long the next one will act."""
        nominal_s = self._nominal_period_s
        elapsed_s = nominal_s if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        self._period_s += 0.5 * (min(max(elapsed_s, 0.2 * nominal_s), 5.0 * nominal_s) - self._period_s)
        return elapsed_s

    def _targets(self, time_s: float) -> tuple[float, float]:
        """The path's azimuth and elevation in arcseconds."""
        azimuth, elevation = self._path.at(int(self._path.utc_ns[0]) + round(time_s * NS_PER_S))
        return float(azimuth) * _ARCSEC_PER_DEG, float(elevation) * _ARCSEC_PER_DEG

    def _seconds(self, utc_ns: int) -> float:
        return (utc_ns - int(self._path.utc_ns[0])) / NS_PER_S


def sky_error_arcsec(path: PredictedPath, reading: MountReading) -> tuple[float, float]:
    """Path minus reading at the time of the reading: azimuth as seen on the sky, and elevation."""
    azimuth, elevation = path.at(reading.utc_ns)
    across = math.cos(math.radians(float(elevation)))
    azimuth_error = math.remainder(float(azimuth) - reading.azimuth_deg, 360.0) * across
    return azimuth_error * _ARCSEC_PER_DEG, (float(elevation) - reading.elevation_deg) * _ARCSEC_PER_DEG


def limited_rate(wanted: float, previous: float, elapsed_s: float, capabilities: MountCapabilities) -> float:
    """The rate nearest to `wanted` that a mount can take up `elapsed_s` after `previous`; all in arcsec/s.

    Never beyond the rate limit, never further from `previous` than the acceleration limit allows, and on the
    rate quantum; where no multiple of the quantum lies in reach, the previous rate stays.
    """
    fastest = capabilities.max_rate_deg_s * _ARCSEC_PER_DEG
    reach = capabilities.max_acceleration_deg_s2 * _ARCSEC_PER_DEG * elapsed_s
    low, high = max(previous - reach, -fastest), min(previous + reach, fastest)
    rate = min(max(wanted, low), high)
    quantum = capabilities.rate_quantum_arcsec_s
    if quantum <= 0.0:
        return rate
    steps = min(max(round(rate / quantum), math.ceil(low / quantum)), math.floor(high / quantum))
    return steps * quantum if low <= steps * quantum <= high else previous


def pointing_error_arcsec(
    azimuth1_deg: ArrayLike, elevation1_deg: ArrayLike, azimuth2_deg: ArrayLike, elevation2_deg: ArrayLike
) -> NDArray[np.float64]:
    """Great-circle separation of two directions, in the arguments' common shape; exact when small."""
    azimuth1, elevation1, azimuth2, elevation2 = (
        np.radians(np.asarray(angle, dtype=np.float64))
        for angle in (azimuth1_deg, elevation1_deg, azimuth2_deg, elevation2_deg)
    )
    haversine = (
        np.sin((elevation2 - elevation1) / 2.0) ** 2
        + np.cos(elevation1) * np.cos(elevation2) * np.sin((azimuth2 - azimuth1) / 2.0) ** 2
    )
    separation = 2.0 * np.arcsin(np.sqrt(np.minimum(haversine, 1.0)))
    return np.asarray(np.degrees(separation) * _ARCSEC_PER_DEG, dtype=np.float64)
