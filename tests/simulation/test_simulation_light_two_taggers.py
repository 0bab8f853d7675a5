"""Two taggers look at the same light, each with some of the channels plugged in."""

import numpy as np
from light_samples import IDEAL, PATTERNS, ZERO_UTC_NS, light

from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.light import Light
from groundstation.simulation.sky import SteadySky

_BLOCKS = range(10)


def test_each_sees_what_is_plugged_into_it_and_both_together_see_all():
    first = {name: pattern if name in ("H", "V", "pps") else 0 for name, pattern in PATTERNS.items()}
    second = {name: 0 if name in ("H", "V", "pps") else pattern for name, pattern in PATTERNS.items()}
    everything, one, other = (light(patterns=patterns) for patterns in (PATTERNS, first, second))
    for number in _BLOCKS:
        whole, part, rest = everything.block(number), one.block(number), other.block(number)
        assert (part.pattern != 0).all()
        seen = np.zeros(whole.ticks.size, np.uint8)
        for block in (part, rest):
            at = np.searchsorted(whole.ticks, block.ticks)
            assert np.array_equal(whole.ticks[at], block.ticks)
            seen[at] |= block.pattern
        assert np.array_equal(seen, whole.pattern)
        assert np.array_equal(part.truth.click_slot, whole.truth.click_slot)  # the truth is about the light


def test_only_one_of_them_tells_the_detectors_how_often_they_clicked():
    board = Blackboard.alone(dark_hz=0.0)
    silent = Light(IDEAL, SteadySky(700.0), board, PATTERNS, ZERO_UTC_NS, ZERO_UTC_NS, tells_counts=False)
    for number in _BLOCKS:
        silent.block(number)
    assert board.clicks_between(0, ZERO_UTC_NS, ZERO_UTC_NS + 10**9) is None
    telling = light(board=board)
    for number in _BLOCKS:
        telling.block(number)
    assert board.clicks_between(0, ZERO_UTC_NS, ZERO_UTC_NS + 10**9)
