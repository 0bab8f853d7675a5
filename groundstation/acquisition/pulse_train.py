"""The 1PPS on the tagger's clock: when it comes and how long the tagger takes for a second.

Some of what looks like a pulse is none (two detectors that click at once on the inputs of the pulse), and the
tagger's own oscillator may be 50 ppm off, so a pulse is believed that others confirm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundstation.core.timebase import PS_PER_S

#: The tagger's oscillator is no worse than this, of a second.
_OSCILLATOR = 1e-4
#: Pulses are compared with others at most so far away: at random, one pair in 600 looks like a second apart.
_COMPARED_S = 8
#: So many must agree.
_PULSES_NEEDED = 3
#: Pulses that are farther than this from where the others put them are none.
_JITTER_PS = 10_000_000
#: The jitter of a GPS receiver's pulse, for telling a deviation of the oscillator from chance.
_USUAL_JITTER_PS = 100_000.0


@dataclass(frozen=True)
class PulseTrain:
    """A pulse at `last_ps` and every `period_ps` before and after it."""

    last_ps: int
    period_ps: float

    def nearest_ps(self, time_ps: int) -> int:
        """The pulse that is expected nearest to a time."""
        return self.last_ps + round(round((time_ps - self.last_ps) / self.period_ps) * self.period_ps)

    def off_ps(self, time_ps: int) -> int:
        """How long after the nearest pulse (negative: before)."""
        return time_ps - self.nearest_ps(time_ps)


def find_train(pulse_ps: Sequence[int]) -> PulseTrain | None:
    """The train to which most of these times (sorted) belong; None when no three are whole seconds apart."""
    if len(pulse_ps) < _PULSES_NEEDED:
        return None
    origin_ps = pulse_ps[-1]
    times = np.unique(np.array(pulse_ps, np.int64) - origin_ps)
    apart = times[:, None] - times
    seconds = np.rint(apart / PS_PER_S)
    in_step = (np.abs(apart - seconds * PS_PER_S) <= _OSCILLATOR * np.abs(apart)) & (seconds != 0)
    in_step &= np.abs(seconds) <= _COMPARED_S
    partners = in_step.sum(axis=1)
    best = int(len(times) - 1 - np.argmax(partners[::-1]))  # the latest of several
    if partners[best] + 1 < _PULSES_NEEDED:
        return None
    neighbours = times[in_step[best] | (np.arange(len(times)) == best)]
    steps = np.diff(neighbours)
    steps = steps[steps > PS_PER_S // 2]
    period_ps = float(np.median(steps / np.rint(steps / PS_PER_S)))
    number = np.rint((neighbours - times[best]) / period_ps)
    phase = neighbours - times[best] - number * period_ps
    kept = np.abs(phase - np.median(phase)) <= _JITTER_PS
    number, phase = number[kept], phase[kept]
    if len(number) < _PULSES_NEEDED:
        return None
    period_ps += float(np.polyfit(number, phase, 1)[0])
    chance_ps = 3.0 * _USUAL_JITTER_PS * 12**0.5 / len(number) ** 1.5
    if abs(period_ps - PS_PER_S) < chance_ps:
        period_ps = float(PS_PER_S)
    at = neighbours[kept]
    last_ps = float(np.median(at - (number - number[-1]) * period_ps))
    return PulseTrain(origin_ps + round(last_ps), period_ps)
