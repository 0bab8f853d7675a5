"""Which passes a station sees, and the path that the mount follows through one of them.

Passes are found by sampling, bisection and the question "is it up now?" at the start, so that one in progress
is not lost. Their numbers are geometric, as in published tables; the path is the direction of received light.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundstation.clock import NS_PER_S, utc_text
from groundstation.errors import BadInput
from groundstation.passes.orbit import Orbit
from groundstation.passes.sun import sun_elevation_deg, sunlit

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_SAMPLE_NS = 10 * NS_PER_S
_MARGIN_NS = 1800 * NS_PER_S  # searched before the start and after the stop: longer than a low orbit's pass
_KINEMATICS_STEP_NS = NS_PER_S // 10
_KNOT_NS = NS_PER_S
_NS_PER_DAY = 86_400 * NS_PER_S
_COLUMNS = ("utc_ns", "azimuth_deg", "elevation_deg", "range_km", "time_of_flight_s")


@dataclass(frozen=True)
class PassPoint:
    """One moment of a pass; azimuth in [0, 360), geometric and unrefracted."""

    utc_ns: int
    azimuth_deg: float
    elevation_deg: float
    range_km: float


@dataclass(frozen=True)
class PassPrediction:
    """One pass above `min_elevation_deg`.

    `rise` and `set` are true crossings of that elevation even when they lie outside the interval searched;
    only where the satellite is up for half an hour more are they clipped, which the two flags say.
    """

    min_elevation_deg: float
    rise: PassPoint
    culmination: PassPoint
    set: PassPoint
    rise_is_clipped: bool
    set_is_clipped: bool
    min_range_km: float
    peak_azimuth_rate_deg_s: float
    peak_elevation_rate_deg_s: float
    peak_azimuth_acceleration_deg_s2: float
    peak_elevation_acceleration_deg_s2: float
    sun_elevation_deg: float  # the last three at culmination
    sunlit: bool
    element_age_days: float

    @property
    def max_elevation_deg(self) -> float:
        return self.culmination.elevation_deg

    @property
    def duration_s(self) -> float:
        return (self.set.utc_ns - self.rise.utc_ns) / NS_PER_S


def find_passes(
    orbit: Orbit, start_utc_ns: int, stop_utc_ns: int, min_elevation_deg: float = 10.0
) -> list[PassPrediction]:
    """Every pass of which some part lies between start and stop, in order of time.

    Raises BadInput when stop is not after start or the elements cannot be propagated that far.
    """
    if stop_utc_ns <= start_utc_ns:
        raise BadInput(
            f"passes are searched from {utc_text(start_utc_ns, 0)} to {utc_text(stop_utc_ns, 0)}:"
            " the end must be after the start"
        )
    times = np.arange(start_utc_ns - _MARGIN_NS, stop_utc_ns + _MARGIN_NS + _SAMPLE_NS, _SAMPLE_NS, dtype=np.int64)

    def height(utc_ns: Times) -> Floats:
        return orbit.geometric(utc_ns).elevation_deg - min_elevation_deg

    # A grazing pass may rise and set between two samples, so every maximum becomes a sample of its own.
    times = np.union1d(times, _maxima(height, times))
    up = height(times) > 0.0
    changes = np.flatnonzero(up[1:] != up[:-1])
    crossings = _bisect(height, times[changes], times[changes + 1])
    ends = np.concatenate((times[:1][up[:1]], crossings, times[-1:][up[-1:]]))
    return [
        _predict(orbit, int(rise), int(down), min_elevation_deg, (rise == times[0], down == times[-1]))
        for rise, down in ends.reshape(-1, 2)
        if down >= start_utc_ns and rise <= stop_utc_ns
    ]


def window_within(orbit: Orbit, prediction: PassPrediction, max_range_km: float) -> tuple[int, int]:
    """First and last moment (UTC ns, to a microsecond) of the pass with a range of at most `max_range_km`.

    Raises BadInput when the satellite never comes that close during the pass.
    """
    times = _times(prediction.rise.utc_ns, prediction.set.utc_ns, _KNOT_NS)

    def closeness(utc_ns: Times) -> Floats:
        return max_range_km - orbit.geometric(utc_ns).range_km

    times = np.union1d(times, _maxima(closeness, times))
    near = np.flatnonzero(closeness(times) >= 0.0)
    if not near.size:
        raise BadInput(
            f"the pass of {utc_text(prediction.culmination.utc_ns, 0)} comes no closer than"
            f" {prediction.min_range_km:.1f} km, but a range of at most {max_range_km:g} km is asked for;"
            " choose another pass or a larger range"
        )
    first, last = near[0], near[-1]
    inside = times[[first, last]]
    outside = times[[max(first - 1, 0), min(last + 1, times.size - 1)]]
    start, stop = _bisect(closeness, outside, inside)
    return int(start), int(stop)


@dataclass(frozen=True)
class PredictedPath:
    """The path of one pass as knots, each (n,): what is written down before the start and followed.

    `azimuth_deg` is continuous (it may leave 0..360) and `elevation_deg` is where received light comes from;
    `range_km` is geometric, `time_of_flight_s` that of the light received at `utc_ns`. Before its first and
    after its last knot the path stands still.
    """

    utc_ns: Times
    azimuth_deg: Floats
    elevation_deg: Floats
    range_km: Floats
    time_of_flight_s: Floats

    def at(self, utc_ns: ArrayLike) -> tuple[Floats, Floats]:
        """Azimuth (in this path's turns) and elevation, both in the shape of `utc_ns`.

        The unit vector is interpolated, because near the zenith azimuth itself is no smooth function: within
        0.001 arcsec on an 84 degree pass, against 0.14 for a spline through azimuth (14 at 88 degrees).
        """
        seconds = self._seconds(utc_ns)
        east, north, up = np.moveaxis(self._direction(seconds), -1, 0)
        near = np.interp(seconds, self._knot_s, self.azimuth_deg)
        azimuth = np.degrees(np.arctan2(east, north))
        azimuth += 360.0 * np.round((near - azimuth) / 360.0)
        return azimuth, np.degrees(np.arctan2(up, np.hypot(east, north)))

    def rates_at(self, utc_ns: ArrayLike) -> tuple[Floats, Floats]:
        """Azimuth and elevation rate in deg/s, both in the shape of `utc_ns`; zero outside the path."""
        seconds = self._seconds(utc_ns)
        east, north, up = np.moveaxis(self._direction(seconds), -1, 0)
        d_east, d_north, d_up = np.moveaxis(self._direction(seconds, 1), -1, 0)
        level2 = east**2 + north**2
        azimuth_rate = np.degrees((d_east * north - east * d_north) / level2)
        level_rate = (east * d_east + north * d_north) / np.sqrt(level2)
        elevation_rate = np.degrees((d_up * np.sqrt(level2) - up * level_rate) / (level2 + up**2))
        moving = (np.asarray(utc_ns) >= self.utc_ns[0]) & (np.asarray(utc_ns) <= self.utc_ns[-1])
        return np.where(moving, azimuth_rate, 0.0), np.where(moving, elevation_rate, 0.0)

    def turned_by(self, turns: int) -> "PredictedPath":
        """The same path with azimuths larger by so many full turns."""
        return replace(self, azimuth_deg=self.azimuth_deg + 360.0 * turns)

    def table(self) -> dict[str, NDArray[np.generic]]:
        """The knots by column name, for the recording."""
        return {name: getattr(self, name) for name in _COLUMNS}

    @classmethod
    def from_table(cls, table: Mapping[str, ArrayLike]) -> "PredictedPath":
        """The path back from `table()`; raises BadInput when a column is missing or of another length."""
        missing = [name for name in _COLUMNS if name not in table]
        if missing:
            raise BadInput(f"the table of a predicted path lacks the column {missing[0]}")
        columns = [np.asarray(table[name], dtype=np.float64) for name in _COLUMNS[1:]]
        utc_ns = np.asarray(table["utc_ns"], dtype=np.int64)
        if utc_ns.size < 4 or any(column.shape != utc_ns.shape for column in columns):
            lengths = ", ".join(str(np.size(table[name])) for name in _COLUMNS)
            raise BadInput(f"the columns of a predicted path have {lengths} rows, expected 4 or more of each")
        return cls(utc_ns, *columns)

    @cached_property
    def _knot_s(self) -> Floats:
        return np.asarray((self.utc_ns - self.utc_ns[0]) / NS_PER_S, dtype=np.float64)

    @cached_property
    def _direction(self) -> "CubicSpline[np.float64]":
        from scipy.interpolate import CubicSpline  # here: a recorder that starts again must not wait for it

        azimuth, elevation = np.radians(self.azimuth_deg), np.radians(self.elevation_deg)
        level = np.cos(elevation)
        vectors = np.stack((level * np.sin(azimuth), level * np.cos(azimuth), np.sin(elevation)), axis=-1)
        return CubicSpline(self._knot_s, vectors)

    def _seconds(self, utc_ns: ArrayLike) -> Floats:
        since = np.clip(np.asarray(utc_ns, dtype=np.int64), self.utc_ns[0], self.utc_ns[-1]) - self.utc_ns[0]
        return np.asarray(since / NS_PER_S)


def predict_path(orbit: Orbit, start_utc_ns: int, stop_utc_ns: int) -> PredictedPath:
    """The path with knots every second, from start to the first knot at or after stop (4 knots at least).

    Its azimuth starts in [0, 360) and is continuous from there (`fit_azimuth` chooses the turn).
    """
    count = max(4, -(-(stop_utc_ns - start_utc_ns) // _KNOT_NS) + 1)
    times = start_utc_ns + _KNOT_NS * np.arange(count, dtype=np.int64)
    light = orbit.received(times)
    azimuth = np.unwrap(light.azimuth_deg, period=360.0)
    return PredictedPath(times, azimuth, light.elevation_deg, orbit.geometric(times).range_km, light.time_of_flight_s)


def fit_azimuth(path: PredictedPath, azimuth_limits_deg: tuple[float, float] = (-270.0, 540.0)) -> PredictedPath:
    """The path in the turn that leaves most room to both azimuth limits, chosen once for the whole pass.

    Raises BadInput when it fits in no turn.
    """
    low, high = azimuth_limits_deg
    first, last = float(path.azimuth_deg.min()), float(path.azimuth_deg.max())
    turns = round(((low + high) - (first + last)) / 720.0)
    if first + 360.0 * turns < low or last + 360.0 * turns > high:
        raise BadInput(
            f"the pass needs azimuths from {first + 360 * turns:.1f} to {last + 360 * turns:.1f} deg,"
            f" the mount is limited to {low:g}..{high:g}; choose another pass or widen the limits"
        )
    return path.turned_by(turns)


def check_mount_can_follow(path: PredictedPath, max_rate_deg_s: float, max_acceleration_deg_s2: float) -> list[str]:
    """What the mount cannot do on this path, a sentence each; empty when it can follow everywhere."""
    times = _times(int(path.utc_ns[0]), int(path.utc_ns[-1]), _KINEMATICS_STEP_NS)
    step_s = _KINEMATICS_STEP_NS / NS_PER_S
    sentences = []
    for axis, rate in zip(("azimuth", "elevation"), path.rates_at(times), strict=True):
        acceleration = np.gradient(rate, step_s)
        for what, values, limit, unit in (
            ("rate", np.abs(rate), max_rate_deg_s, "deg/s"),
            ("acceleration", np.abs(acceleration), max_acceleration_deg_s2, "deg/s2"),
        ):
            if values.max() > limit:
                beyond_s = np.count_nonzero(values > limit) * step_s
                peak = utc_text(int(times[values.argmax()]), 0)
                sentences.append(
                    f"the {axis} {what} reaches {values.max():.2f} {unit}, the mount allows {limit:g}:"
                    f" it falls behind at {peak}, where the path asks for too much during {beyond_s:.1f} s"
                )
    return sentences


def _predict(
    orbit: Orbit, rise_ns: int, set_ns: int, min_elevation_deg: float, clipped: tuple[bool, bool]
) -> PassPrediction:
    times = _times(rise_ns, set_ns, _KINEMATICS_STEP_NS)
    look = orbit.geometric(times)
    highest = _peak(lambda t: orbit.geometric(t).elevation_deg, times, look.elevation_deg)
    closest = _peak(lambda t: -orbit.geometric(t).range_km, times, -look.range_km)
    rise, culmination, down, nearest = _points(orbit, np.array([rise_ns, highest, set_ns, closest]))
    seconds = (times - times[0]) / NS_PER_S
    azimuth_rate = np.gradient(np.unwrap(look.azimuth_deg, period=360.0), seconds)
    elevation_rate = np.gradient(look.elevation_deg, seconds)
    return PassPrediction(
        min_elevation_deg=min_elevation_deg,
        rise=rise,
        culmination=culmination,
        set=down,
        rise_is_clipped=bool(clipped[0]),
        set_is_clipped=bool(clipped[1]),
        min_range_km=nearest.range_km,
        peak_azimuth_rate_deg_s=float(np.abs(azimuth_rate).max()),
        peak_elevation_rate_deg_s=float(np.abs(elevation_rate).max()),
        peak_azimuth_acceleration_deg_s2=float(np.abs(np.gradient(azimuth_rate, seconds)).max()),
        peak_elevation_acceleration_deg_s2=float(np.abs(np.gradient(elevation_rate, seconds)).max()),
        sun_elevation_deg=float(sun_elevation_deg(orbit.site, highest)[0]),
        sunlit=bool(sunlit(orbit, highest)[0]),
        element_age_days=(highest - orbit.elements.epoch_utc_ns) / _NS_PER_DAY,
    )


def _points(orbit: Orbit, times: Times) -> list[PassPoint]:
    look = zip(*orbit.geometric(times), strict=True)
    return [PassPoint(int(t), *map(float, angles)) for t, angles in zip(times, look, strict=True)]


def _times(start_ns: int, stop_ns: int, step_ns: int) -> Times:
    """Evenly from start to stop, both included, about `step_ns` apart: 3 to 20001 times."""
    steps = min(max(round((stop_ns - start_ns) / step_ns), 2), 20_000)
    return start_ns + (stop_ns - start_ns) * np.arange(steps + 1, dtype=np.int64) // steps


def _peak(function: Callable[[Times], Floats], times: Times, values: Floats) -> int:
    """When the function is largest, to some ns, near the largest of its `values` at `times`."""
    best = int(values.argmax())
    low, high = max(best - 1, 0), min(best + 1, times.size - 1)
    return int(_zoom(function, times[[low]], times[[high]])[0])


def _maxima(function: Callable[[Times], Floats], times: Times) -> Times:
    """All local maxima of the function between the first and the last of `times` (m,)."""
    values = function(times)
    middle = np.flatnonzero((values[1:-1] >= values[:-2]) & (values[1:-1] > values[2:])) + 1
    return _zoom(function, times[middle - 1], times[middle + 1])


def _zoom(function: Callable[[Times], Floats], low: Times, high: Times) -> Times:
    """The maxima (m,) inside the brackets: cut each in 20, keep the best two parts, repeat."""
    rows, cuts = np.arange(low.size), 20
    for _ in range(9):  # 20 s / 10^9
        grid = low[:, None] + (high - low)[:, None] * np.arange(cuts + 1) // cuts
        best = function(grid.ravel()).reshape(grid.shape).argmax(axis=1)
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, cuts)]
    return (low + high) // 2


def _bisect(function: Callable[[Times], Floats], before: Times, after: Times) -> Times:
    """Where the function changes sign between `before` and `after` (m,), to 1 ns on the side of `after`."""
    positive = function(before) > 0.0
    while np.abs(after - before).max(initial=0) > 1:
        middle = (before + after) // 2
        same = (function(middle) > 0.0) == positive
        before, after = np.where(same, middle, before), np.where(same, after, middle)
    return after
