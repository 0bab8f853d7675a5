"""Slots and phases against exact fractions, far from the epoch and on both sides of it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.gating import gate
from groundstation.core.synchronisation import ClockFit

SLOT_PS, HALF_WIDTH_PS, WINDOW_PS = 10_000, 1_000.0, 10**11
HALF_WINDOW_PS = WINDOW_PS / 2


def clock(c0, c1=0.0, c2=0.0):
    return ClockFit(c0, c1, c2, 0.0, 1000, 0, 0.0)


def gated(emitted_ps, fit, centre_ps, half_width_ps=HALF_WIDTH_PS):
    emitted_ps = np.array(emitted_ps, np.int64)
    return gate(emitted_ps, fit, centre_ps, HALF_WINDOW_PS, SLOT_PS, half_width_ps)


def exact_phase(emitted_ps, fit, centre_ps, slot):
    """Distance from the expected arrival of a slot, without rounding."""
    u = Fraction(emitted_ps - centre_ps) / Fraction(HALF_WINDOW_PS)
    offset = Fraction(fit.c0) + u * (Fraction(fit.c1) + u * Fraction(fit.c2))
    return Fraction(emitted_ps) - offset - slot * SLOT_PS


windows = st.integers(-4_000, 4_000)
places = st.lists(st.integers(-WINDOW_PS // 2, WINDOW_PS // 2), max_size=30)
clocks = st.builds(clock, st.floats(-1e8, 1e8), st.floats(-1e7, 1e7), st.floats(-1e6, 1e6))


@given(windows, places, clocks)
def test_slot_and_phase_are_those_of_exact_arithmetic(window, places, fit):
    centre_ps = window * WINDOW_PS + WINDOW_PS // 2
    emitted = [centre_ps + place for place in places]
    result = gated(emitted, fit, centre_ps)
    for time_ps, slot, phase_ps, inside in zip(emitted, *(a.tolist() for a in result), strict=True):
        exact = exact_phase(time_ps, fit, centre_ps, slot)
        assert abs(exact - Fraction(phase_ps)) < Fraction(1, 1000)
        assert abs(exact) <= SLOT_PS // 2 + Fraction(1, 1000)
        if abs(abs(exact) - Fraction(HALF_WIDTH_PS)) > Fraction(1, 1000):
            assert inside == (abs(exact) < HALF_WIDTH_PS)


@given(windows, places, clocks)
def test_every_click_is_given_one_slot_and_the_parts_add_up_to_its_time(window, places, fit):
    centre_ps = window * WINDOW_PS + WINDOW_PS // 2
    result = gated([centre_ps + place for place in places], fit, centre_ps)
    assert result.slot.dtype == np.int64
    assert result.slot.size == result.phase_ps.size == result.inside.size == len(places)
    u = np.array(places, float) / HALF_WINDOW_PS
    offset = fit.c0 + u * (fit.c1 + u * fit.c2)
    rest = (result.slot * SLOT_PS - centre_ps) + result.phase_ps + offset - np.array(places, float)
    assert np.abs(rest).max(initial=0.0) < 1e-3


@pytest.mark.parametrize("slot", [0, 7, 30_000_000_000, -1, -30_000_000_001])
@pytest.mark.parametrize("offset_ps", [0, 12_345, -98_765_432])
def test_both_ends_of_the_gate_are_inside_and_a_picosecond_beyond_is_not(slot, offset_ps):
    expected_ps = slot * SLOT_PS + offset_ps
    centre_ps = expected_ps // WINDOW_PS * WINDOW_PS + WINDOW_PS // 2
    distances = [-1001, -1000, 0, 1000, 1001]
    result = gated([expected_ps + d for d in distances], clock(float(offset_ps)), centre_ps)
    assert result.slot.tolist() == [slot] * 5
    assert result.phase_ps.tolist() == distances
    assert result.inside.tolist() == [False, True, True, True, False]


def test_neighbouring_windows_number_the_slots_alike_when_a_window_is_no_whole_number_of_slots():
    slot_period_ps, window_ps = 1_600, 10**11 + 777
    emitted = np.arange(-5, 6) * slot_period_ps + 3 * window_ps
    halves = [
        gate(emitted, clock(0.0), window * window_ps + window_ps // 2, window_ps / 2, slot_period_ps, 100.0)
        for window in (2, 3)
    ]
    assert halves[0].slot.tolist() == halves[1].slot.tolist()
    assert halves[0].phase_ps.tolist() == halves[1].phase_ps.tolist()


def test_the_share_of_noise_in_the_gate_is_the_gate_s_share_of_the_slot():
    noise = np.random.default_rng(3).integers(0, WINDOW_PS, 200_000)
    inside = gate(noise, clock(5e5, 1e4, 3e3), WINDOW_PS // 2, HALF_WINDOW_PS, SLOT_PS, HALF_WIDTH_PS).inside
    assert inside.mean() == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 / noise.size))
