"""The servo of a mount that follows something by itself: the stars, a satellite, a path of points.

Twenty times a second (world time) it gives both axes the rate that takes them to where the target will be next; far
from it, the rate from which they can still brake.
"""

import math
from collections.abc import Callable

from drivers.simulators.program import Loop
from drivers.simulators.telescope import Telescope
from groundstation.clock import NS_PER_S
from groundstation.simulation.mount import Axis

_PERIOD_S = 0.05  # free
_BRAKING = 0.7  # free: of the acceleration that the axes have, what an approach counts on

Target = Callable[[int], tuple[float, float]]
"""Azimuth (any turn) and elevation in degrees at a moment (UTC ns)."""


class Follower:
    """Moves a telescope after a target until it is released."""

    def __init__(self, telescope: Telescope, loop: Loop) -> None:
        self._telescope, self._loop = telescope, loop
        self._target: Target | None = None
        self._turn = 0  # of `follow`, so that an old chain of steps ends
        self._last_ns = 0

    @property
    def follows(self) -> bool:
        return self._target is not None

    def follow(self, target: Target) -> None:
        """Begin, or go on with another target."""
        self._target = target
        self._turn += 1
        self._last_ns = self._loop.clock.utc_ns() - round(_PERIOD_S * NS_PER_S)
        self._step(self._turn)

    def release(self) -> None:
        """Leave the axes to others; they keep their last rates."""
        self._target = None

    def error_deg(self, utc_ns: int) -> float:
        """The larger of both axes' distances from the target; 0 without one."""
        if self._target is None:
            return 0.0
        here, there = self._telescope.axes.pointing_deg(utc_ns), self._target(utc_ns)
        return max(abs(_nearest(there[0] - here[0])), abs(there[1] - here[1]))

    def _step(self, turn: int) -> None:
        if self._target is None or turn != self._turn:
            return
        parameters, axes = self._telescope.parameters, self._telescope.axes
        now_ns = self._loop.clock.utc_ns()
        step_ns = max(now_ns - self._last_ns, round(_PERIOD_S * NS_PER_S))  # a busy machine comes late
        self._last_ns = now_ns
        effect_ns = now_ns + round(parameters.command_latency_s * NS_PER_S)
        step_s = step_ns / NS_PER_S
        here = axes.pointing_deg(effect_ns)
        there, later = self._target(effect_ns), self._target(effect_ns + step_ns)
        names: tuple[Axis, Axis] = ("azimuth", "elevation")
        for index, axis in enumerate(names):
            own_rate = _nearest(later[index] - there[index]) / step_s
            error = _nearest(there[index] - here[index])
            braking = math.sqrt(2.0 * _BRAKING * parameters.max_acceleration_deg_s2 * abs(error))
            approach = math.copysign(min(abs(error) / step_s, braking, parameters.max_rate_deg_s), error)
            axes.set_rate(axis, (own_rate + approach) * 3600.0, now_ns)
        self._telescope.publish()
        self._loop.at(now_ns + round(_PERIOD_S * NS_PER_S), lambda: self._step(turn))


def _nearest(angle_deg: float) -> float:
    """The same angle between -180 and 180."""
    return (angle_deg + 180.0) % 360.0 - 180.0
