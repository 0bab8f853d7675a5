"""How the simulated telescope moves: two axes with limits on rate, acceleration and elevation.

A command takes effect one command latency after it was received. Hence the motion is settled up to that far
into the future, and its uniformly accelerated pieces can be given out (`motions`) before they begin.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from groundstation.simulation.blackboard import Motion
from groundstation.simulation.parameters import MountParameters

Axis = Literal["azimuth", "elevation"]

ELEVATION_LIMITS_DEG = (-5.0, 95.0)
_NS_PER_S = 1_000_000_000
_ARCSEC_PER_DEG = 3600.0
_ENCODER_COUNTS = 1 << 24  # per turn: the NexStar motor controllers report 24 bits
_REMEMBERED = 256  # pieces per axis: the last seconds of tracking


class Piece(NamedTuple):
    """From `utc_ns` on: position, rate and acceleration of one axis (degrees, seconds)."""

    utc_ns: int
    position_deg: float
    rate_deg_s: float
    acceleration_deg_s2: float

    def at(self, utc_ns: int) -> tuple[float, float]:
        """Position and rate at a moment of this piece."""
        t = (utc_ns - self.utc_ns) / _NS_PER_S
        rate = self.rate_deg_s + self.acceleration_deg_s2 * t
        return self.position_deg + t * (self.rate_deg_s + 0.5 * self.acceleration_deg_s2 * t), rate


class _Leg(NamedTuple):
    """A change of rate at constant acceleration, or a cruise of given duration."""

    duration_s: float
    acceleration_deg_s2: float


class AxisMotion:
    """One axis: its past and planned pieces, the last of which holds for ever."""

    def __init__(self, utc_ns: int, position_deg: float, limits_deg: tuple[float, float], acceleration: float):
        self.limits_deg = limits_deg
        self.pieces = [Piece(utc_ns, position_deg, 0.0, 0.0)]
        self._acceleration = acceleration
        self._arrival_ns: int | None = None

    def state(self, utc_ns: int) -> tuple[float, float]:
        """True position (deg) and rate (deg/s)."""
        return self.piece(utc_ns).at(utc_ns)

    def piece(self, utc_ns: int) -> Piece:
        """The piece that holds at a moment."""
        return next((p for p in reversed(self.pieces) if p.utc_ns <= utc_ns), self.pieces[0])

    def slews(self, utc_ns: int) -> bool:
        """True from the moment a goto is planned until it has arrived."""
        return self._arrival_ns is not None and utc_ns < self._arrival_ns

    def turn(self, rate_deg_s: float, from_ns: int) -> None:
        """Change to a rate and keep it; an axis with limits comes to rest at them."""
        position, rate = self.state(from_ns)
        if rate_deg_s == 0.0:
            self._plan(from_ns, self._change(rate, 0.0), rest_deg=None)
            return
        limit = self.limits_deg[rate_deg_s > 0.0]
        if math.isinf(limit):
            self._plan(from_ns, self._change(rate, rate_deg_s), rest_deg=None, final_rate=rate_deg_s)
        else:
            self._plan(from_ns, self._travel(position, rate, limit, abs(rate_deg_s)), rest_deg=limit)

    def go_to(self, target_deg: float, max_rate_deg_s: float, from_ns: int) -> None:
        """Move to a target (held inside the limits) in the least time and rest there."""
        target_deg = min(max(target_deg, self.limits_deg[0]), self.limits_deg[1])
        position, rate = self.state(from_ns)
        self._plan(from_ns, self._travel(position, rate, target_deg, max_rate_deg_s), rest_deg=target_deg)
        self._arrival_ns = self.pieces[-1].utc_ns

    def forget(self, before_ns: int) -> None:
        """Drop all but the latest of the pieces that ended before a moment."""
        spare = sum(piece.utc_ns < before_ns for piece in self.pieces) - _REMEMBERED
        del self.pieces[: max(0, spare)]

    def _change(self, rate: float, to_rate: float) -> list[_Leg]:
        if rate == to_rate:
            return []
        return [_Leg(abs(to_rate - rate) / self._acceleration, math.copysign(self._acceleration, to_rate - rate))]

    def _travel(self, position: float, rate: float, target: float, max_rate: float) -> list[_Leg]:
        """Trapezoid from a moving start to rest at the target.

        With w the cruising speed towards the target, the two ramps of acceleration a cover
        (w^2 - rate^2)/2a + w^2/2a of the distance.
        """
        a = self._acceleration
        distance_to_stop = rate * abs(rate) / (2 * a)
        to_go = target - position
        if abs(to_go - distance_to_stop) < 1e-12:
            return self._change(rate, 0.0)
        towards = math.copysign(1.0, to_go - distance_to_stop)
        cruise = towards * min(max_rate, math.sqrt(max(0.0, towards * a * to_go + rate * rate / 2)))
        first = self._change(rate, cruise)
        covered = sum((cruise * cruise - rate * rate) / (2 * leg.acceleration_deg_s2) for leg in first)
        covered += cruise * abs(cruise) / (2 * a)
        cruise_s = max(0.0, (to_go - covered) / cruise) if cruise else 0.0
        return [*first, _Leg(cruise_s, 0.0), *self._change(cruise, 0.0)]

    def _plan(self, from_ns: int, legs: list[_Leg], rest_deg: float | None, final_rate: float = 0.0) -> None:
        """Replace everything from `from_ns` on by the legs and what follows them for ever."""
        position, rate = self.state(from_ns)
        self._arrival_ns = None
        self.pieces = [piece for piece in self.pieces if piece.utc_ns < from_ns]
        start_s = 0.0
        for leg in legs:
            # A piece begins at a whole nanosecond; what the leg has done by then is in its first position.
            begin_ns = from_ns + math.ceil(start_s * _NS_PER_S)
            late_s = (begin_ns - from_ns) / _NS_PER_S - start_s
            a = leg.acceleration_deg_s2
            self.pieces.append(Piece(begin_ns, position + late_s * (rate + 0.5 * a * late_s), rate + a * late_s, a))
            position += leg.duration_s * (rate + 0.5 * a * leg.duration_s)
            rate += a * leg.duration_s
            start_s += leg.duration_s
        begin_ns = from_ns + math.ceil(start_s * _NS_PER_S)
        self.pieces.append(Piece(begin_ns, position if rest_deg is None else rest_deg, final_rate, 0.0))


class MountDynamics:
    """The two axes of a mount. Every moment is world time, UTC in ns; commands come in the order of time."""

    def __init__(self, parameters: MountParameters, utc_ns: int, seed: int = 0) -> None:
        """At rest at its park position at `utc_ns`; `seed` is that of the encoder noise."""
        self.parameters = parameters
        self.azimuth = AxisMotion(
            utc_ns, parameters.park_azimuth_deg, (-math.inf, math.inf), parameters.max_acceleration_deg_s2
        )
        self.elevation = AxisMotion(
            utc_ns, parameters.park_elevation_deg, ELEVATION_LIMITS_DEG, parameters.max_acceleration_deg_s2
        )
        self._latency_ns = round(parameters.command_latency_s * _NS_PER_S)
        self._random = np.random.default_rng(seed)
        self._given_to_ns = -1
        self._latest_ns = utc_ns

    def set_rate(self, axis: Axis, rate_arcsec_s: float, received_utc_ns: int) -> None:
        """Turn an axis for ever at a rate, rounded to the quantum and capped at the mount's limit."""
        quantum = self.parameters.rate_quantum_arcsec_s
        rate_deg_s = round(rate_arcsec_s / quantum) * quantum / _ARCSEC_PER_DEG
        limit = self.parameters.max_rate_deg_s
        self._axis(axis).turn(min(max(rate_deg_s, -limit), limit), self._effect_ns(received_utc_ns))

    def go_to(self, axis: Axis, target_deg: float, received_utc_ns: int, max_rate_deg_s: float | None = None) -> None:
        """Move an axis to an angle and rest there; azimuth takes the shorter way round."""
        effect_ns = self._effect_ns(received_utc_ns)
        if axis == "azimuth":
            now_deg = self.azimuth.state(effect_ns)[0]
            target_deg = now_deg + (target_deg - now_deg + 180.0) % 360.0 - 180.0
        limit = self.parameters.max_rate_deg_s
        self._axis(axis).go_to(target_deg, min(max_rate_deg_s or limit, limit), effect_ns)

    def cancel_goto(self, received_utc_ns: int) -> None:
        """Stop the axes that are on their way to a target; an axis under a rate command keeps it."""
        effect_ns = self._effect_ns(received_utc_ns)
        for axis in (self.azimuth, self.elevation):
            if axis.slews(effect_ns):
                axis.turn(0.0, effect_ns)

    def stop(self, received_utc_ns: int) -> None:
        """Bring both axes to rest."""
        for axis in (self.azimuth, self.elevation):
            axis.turn(0.0, self._effect_ns(received_utc_ns))

    def is_slewing(self, axis: Axis, utc_ns: int) -> bool:
        """Whether a goto of this axis is under way (true from its reception on)."""
        return self._axis(axis).slews(utc_ns)

    def pointing_deg(self, utc_ns: int) -> tuple[float, float]:
        """Where the telescope really points: azimuth (may exceed 360) and elevation; only of late."""
        return self.azimuth.state(utc_ns)[0], self.elevation.state(utc_ns)[0]

    def encoder(self, axis: Axis, utc_ns: int) -> int:
        """What the encoder reads: 24 bits of a turn (floor), of the true angle with the encoder's noise."""
        noise = self._random.normal(0.0, self.parameters.encoder_noise_rms_arcsec) / _ARCSEC_PER_DEG
        angle = self._axis(axis).state(utc_ns)[0] + noise
        return math.floor(angle / 360.0 * _ENCODER_COUNTS) % _ENCODER_COUNTS

    def motions(self, now_utc_ns: int) -> Iterator[Motion]:
        """The pieces not given before that begin before any command still to come can take effect."""
        until_ns = self._effect_ns(now_utc_ns)
        starts = {p.utc_ns for axis in (self.azimuth, self.elevation) for p in axis.pieces}
        for start_ns in sorted(s for s in starts if self._given_to_ns <= s <= until_ns):
            yield self._motion(start_ns)
        self._given_to_ns = until_ns
        for axis in (self.azimuth, self.elevation):
            axis.forget(now_utc_ns)

    def next_motions_utc_ns(self) -> int | None:
        """When `motions` will have something new unless a command comes; None: not without one."""
        starts = (p.utc_ns for axis in (self.azimuth, self.elevation) for p in axis.pieces)
        return min((s - self._latency_ns for s in starts if s > self._given_to_ns), default=None)

    def _motion(self, utc_ns: int) -> Motion:
        azimuth, elevation = (axis.piece(utc_ns) for axis in (self.azimuth, self.elevation))
        (az, az_rate), (el, el_rate) = azimuth.at(utc_ns), elevation.at(utc_ns)
        return Motion(utc_ns, az, el, az_rate, el_rate, azimuth.acceleration_deg_s2, elevation.acceleration_deg_s2)

    def _axis(self, axis: Axis) -> AxisMotion:
        return self.azimuth if axis == "azimuth" else self.elevation

    def _effect_ns(self, received_utc_ns: int) -> int:
        self._latest_ns = max(self._latest_ns, received_utc_ns)  # the system's clock may be set back
        return self._latest_ns + self._latency_ns
