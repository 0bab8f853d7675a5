"""What the tracking loop believes of one axis of the mount, corrected by every reading as far as it deserves.

A Kalman filter of three numbers: the position, how much faster the axis turns than it is told, and how much
later commands act than the mount's description says. The last one matters most: a delay that is off by 5 ms
is 18 arcsec in mid-pass, and in a world that runs ten times too fast it is half a millisecond of the host.
It learns from what was really sent, limits included, so it cannot wind up.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_REMEMBERED_S = 10.0  # world time for which past commands are kept, for readings that come late
_POSITION, _BIAS, _DELAY = 0, 1, 2


@dataclass(frozen=True)
class ModelNoise:
    """How the filter weighs what it knows; the defaults hold for encoders with arcsecond noise."""

    reading_arcsec: float = 0.5
    #: Uncertainties before the first reading. The position's is a full turn.
    initial_bias_arcsec_s: float = 2.0
    initial_delay_s: float = 0.02
    #: How fast the truth is trusted to drift away from the model.
    position_arcsec_per_sqrt_s: float = 0.3
    bias_arcsec_s_per_sqrt_s: float = 0.1
    delay_s_per_sqrt_s: float = 0.0005
    #: What lies beyond is a broken mount and not a property of it.
    largest_bias_arcsec_s: float = 30.0
    largest_delay_s: float = 0.2
    #: A reading this many standard deviations off is garbled, unless the next ones say so too.
    outlier_sigmas: float = 6.0
    outliers_believed: int = 3


class _Command(NamedTuple):
    effective_s: float
    rate: float


class AxisModel:
    """One axis in arcseconds and seconds. `position`: where it is taken to be before the first reading."""

    def __init__(self, position: float, known_s: float, latency_s: float, noise: ModelNoise) -> None:
        self._state = np.array([position, 0.0, 0.0])
        self._covariance = np.diag([1.3e6, noise.initial_bias_arcsec_s, noise.initial_delay_s]) ** 2
        self._known_s = known_s
        self._latency_s = latency_s
        self._noise = noise
        self._outliers = 0
        self._timing_s = 0.0
        #: Oldest first; the axis stands still before the loop begins.
        self._commands = deque([_Command(-math.inf, 0.0)])

    @property
    def commanded(self) -> float:
        """The rate of the latest command, in arcsec/s."""
        return self._commands[-1].rate

    @property
    def rate_bias(self) -> float:
        """How much faster than told the axis turns, in arcsec/s."""
        return float(self._state[_BIAS])

    @property
    def latency_s(self) -> float:
        """From sending a command to its effect, as learnt so far."""
        return max(0.0, self._latency_s + float(self._state[_DELAY]))

    def add_command(self, effective_s: float, rate: float) -> None:
        """A rate that was sent and will hold from `effective_s` on."""
        self._commands.append(_Command(max(effective_s, self._commands[-1].effective_s), rate))

    def rate_at(self, time_s: float) -> float:
        """The commanded rate that is in effect at a time, in arcsec/s."""
        return next(command.rate for command in reversed(self._commands) if command.effective_s <= time_s)

    def predict(self, time_s: float) -> float:
        """The position at a time before or after the one at which it is known."""
        start_s, stop_s = sorted((self._known_s, time_s))
        travel = self.rate_bias * (stop_s - start_s)
        until_s = stop_s
        for effective_s, rate in reversed(self._commands):
            since_s = max(effective_s, start_s)
            if since_s < until_s:
                travel += rate * (until_s - since_s)
                until_s = since_s
        return float(self._state[_POSITION]) + (travel if time_s >= self._known_s else -travel)

    def correct(self, reading: float, time_s: float, uncertainty_s: float) -> float:
        """Learn from a reading of the position; returns the weight in 0..1 that it was given."""
        self._timing_s = uncertainty_s
        self._advance(time_s)
        noise = self._noise
        blur = uncertainty_s * self.rate_at(time_s)
        surprise = reading - self._state[_POSITION]
        variance = self._covariance[_POSITION, _POSITION] + noise.reading_arcsec**2 + blur**2
        if abs(surprise) > noise.outlier_sigmas * math.sqrt(variance):
            self._outliers += 1
            if self._outliers < noise.outliers_believed:
                return 0.0
            self._covariance[_POSITION, _POSITION] += surprise**2  # the position is lost, the rest is not
            variance += surprise**2
        self._outliers = 0
        gain = self._covariance[:, _POSITION] / variance
        self._state += gain * surprise
        self._covariance -= np.outer(gain, self._covariance[_POSITION])
        largest = (noise.largest_bias_arcsec_s, noise.largest_delay_s)
        self._state[_BIAS:] = np.clip(self._state[_BIAS:], np.negative(largest), largest)
        return float(gain[_POSITION])

    def _advance(self, time_s: float) -> None:
        """Carry state and uncertainty to the time of a reading (back in time: the state only)."""
        position, elapsed_s = self.predict(time_s), time_s - self._known_s
        if elapsed_s > 0.0:
            changes = self._rate_changes(self._known_s, time_s)
            step = np.eye(3)
            step[_POSITION, _BIAS:] = elapsed_s, -changes.sum()
            noise = self._noise
            walk = np.array(
                [noise.position_arcsec_per_sqrt_s, noise.bias_arcsec_s_per_sqrt_s, noise.delay_s_per_sqrt_s]
            )
            self._covariance = step @ self._covariance @ step.T + np.diag(walk**2 * elapsed_s)
            self._covariance[_POSITION, _POSITION] += self._timing_s**2 * (changes**2).sum()
        self._state[_POSITION], self._known_s = position, time_s
        while len(self._commands) > 1 and self._commands[1].effective_s <= time_s - _REMEMBERED_S:
            self._commands.popleft()

    def _rate_changes(self, after_s: float, until_s: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The steps in rate that took effect in an interval, in arcsec/s."""
        return np.array(
            [
                now.rate - before.rate
                for before, now in pairwise(self._commands)
                if after_s < now.effective_s <= until_s
            ],
            dtype=np.float64,
        )
