"""When a silent nanowire counts as latched, against Poisson's law."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.latching import latched, silence_s
from groundstation.errors import BadInput


def test_a_healthy_wire_is_called_latched_as_often_as_was_said():
    dark_hz, false_alarm = 100.0, 0.01
    integration_s = silence_s(dark_hz, false_alarm)
    counts = np.random.default_rng(1).poisson(dark_hz * integration_s, 100_000)
    found = sum(latched(int(count), integration_s, dark_hz, false_alarm) for count in counts)
    assert found / len(counts) == pytest.approx(false_alarm, abs=4 * math.sqrt(false_alarm / len(counts)))


@given(st.floats(0.1, 1e6), st.floats(1e-12, 0.5))
def test_the_time_it_takes_to_tell_is_just_enough(dark_hz, false_alarm):
    needed_s = silence_s(dark_hz, false_alarm)
    assert math.exp(-dark_hz * needed_s) == pytest.approx(false_alarm)
    assert latched(0, needed_s, dark_hz, false_alarm)
    assert not latched(1, needed_s, dark_hz, false_alarm)
    with pytest.raises(BadInput, match="at least"):
        latched(0, needed_s * 0.99, dark_hz, false_alarm)


@pytest.mark.parametrize(
    "arguments",
    [(-1, 1.0, 100.0), (0, 0.0, 100.0), (0, math.inf, 1.0), (0, 1.0, 0.0), (0, 1.0, math.nan), (0, 1.0, 1.0, 1.0)],
)
def test_what_cannot_tell_is_refused(arguments):
    with pytest.raises(BadInput):
        latched(*arguments)
