"""The shared board: kinematics from a textbook, rings that wrap, and two programs that see one board."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.clock import NS_PER_S
from groundstation.simulation.blackboard import Blackboard, Motion

T0 = 1_482_166_140 * NS_PER_S


def test_a_board_without_a_mount_says_so():
    assert Blackboard.alone().pointing_deg(np.array([T0])) is None
    assert Blackboard.alone().clicks_between(0, T0, T0 + 1) is None


def test_a_new_board_has_its_detectors_off_and_a_lonely_one_has_them_on(tmp_path):
    relative, dark_hz = Blackboard.create(tmp_path / "board").detectors(T0)
    assert relative.tolist() == dark_hz.tolist() == [0.0] * 4
    relative, dark_hz = Blackboard.alone(dark_hz=12.0).detectors(T0)
    assert relative.tolist() == [1.0] * 4
    assert dark_hz.tolist() == [12.0] * 4


def test_a_detector_is_as_it_was_then_however_late_one_asks():
    board = Blackboard.alone(dark_hz=12.0)
    board.set_detector(1, 1.0, 25.0, T0)
    board.set_detector(1, 0.0, 0.0, T0 + 3 * NS_PER_S)
    for after_s, relative, dark_hz in (
        (-1, 1.0, 12.0),
        (0, 1.0, 25.0),
        (2.9, 1.0, 25.0),
        (3, 0.0, 0.0),
        (99, 0.0, 0.0),
    ):
        then = board.detectors(T0 + round(after_s * NS_PER_S))
        assert (then[0][1], then[1][1]) == (relative, dark_hz)
        assert (then[0][0], then[1][0]) == (1.0, 12.0)


def test_the_ring_of_states_wraps_and_keeps_the_last_half_minute(tmp_path):
    board = Blackboard.create(tmp_path / "board")
    for number in range(5_000):
        board.set_detector(0, 1.0, float(number), T0 + number * NS_PER_S // 10)
    for number in range(4_700, 5_000):
        assert board.detectors(T0 + number * NS_PER_S // 10)[1][0] == number
    assert board.detectors(T0)[1][0] > 4_000, "the oldest that is known"


def test_what_one_program_writes_another_reads(tmp_path):
    mine = Blackboard.create(tmp_path / "board")
    theirs = Blackboard.open(tmp_path / "board")
    mine.add_motion(Motion(T0, 10.0, 20.0, 1.0, 0.0))
    theirs.set_detector(2, 0.75, 30.0)
    azimuth, elevation = theirs.pointing_deg(np.array([T0 + 2 * NS_PER_S]))
    assert (azimuth[0], elevation[0]) == pytest.approx((12.0, 20.0))
    assert mine.detectors(T0)[0].tolist() == [0.0, 0.0, 0.75, 0.0]
    assert mine.detectors(T0)[1].tolist() == [0.0, 0.0, 30.0, 0.0]


@given(st.floats(-400, 400), st.floats(-5, 5), st.floats(-10, 10), st.integers(0, 60 * NS_PER_S))
def test_a_motion_is_s_plus_vt_plus_half_at_squared(at, rate, acceleration, later_ns):
    board = Blackboard.alone()
    board.add_motion(Motion(T0, at, -at, rate, -rate, acceleration, -acceleration))
    azimuth, elevation = board.pointing_deg(np.array([T0 + later_ns]))
    t = later_ns / NS_PER_S
    expected = at + rate * t + acceleration * t * t / 2
    assert azimuth[0] == pytest.approx(expected, abs=1e-6 / 3600)
    assert elevation[0] == pytest.approx(-expected, abs=1e-6 / 3600)


def test_each_moment_is_answered_by_the_motion_that_held_then():
    board = Blackboard.alone()
    for second, rate in enumerate((1.0, 0.0, -1.0)):
        board.add_motion(Motion(T0 + second * NS_PER_S, 100.0 + min(second, 1), 45.0, rate, 0.0))
    asked = T0 + np.array([-5.0, 0.0, 0.5, 1.0, 1.9, 2.5]) * NS_PER_S
    assert board.pointing_deg(asked.astype(np.int64))[0] == pytest.approx([100, 100, 100.5, 101, 101, 100.5])


def test_the_ring_of_motions_wraps_and_keeps_the_latest():
    board = Blackboard.alone()
    step_ns = NS_PER_S // 100
    for number in range(10_000):
        board.add_motion(Motion(T0 + number * step_ns, float(number), 0.0, 100.0, 0.0))
    asked = np.arange(8_000.25, 10_000.0, 0.5)
    azimuth, _ = board.pointing_deg(T0 + (asked * step_ns).astype(np.int64))
    assert azimuth == pytest.approx(asked)


def test_clicks_are_the_difference_of_totals_also_between_the_entries():
    board = Blackboard.alone()
    for second in range(11):
        board.add_counts(T0 + second * NS_PER_S, np.array([0, 100, 250, 1_000]) * second)
    assert board.clicks_between(1, T0 + 2 * NS_PER_S, T0 + 5 * NS_PER_S) == pytest.approx(300)
    assert board.clicks_between(2, T0 + NS_PER_S // 2, T0 + 3 * NS_PER_S // 2) == pytest.approx(250)
    assert board.clicks_between(0, T0, T0 + 10 * NS_PER_S) == 0.0


def test_the_ring_of_counts_wraps_and_loses_no_click_of_the_last_minute():
    board = Blackboard.alone()
    step_ns, total = NS_PER_S // 20, np.zeros(4, np.int64)
    for number in range(10_000):
        total += (1, 2, 3, 2**40)
        board.add_counts(T0 + number * step_ns, total)
    stop = T0 + 9_999 * step_ns
    for detector, per_step in enumerate((1, 2, 3, 2**40)):
        clicks = board.clicks_between(detector, stop - 60 * NS_PER_S, stop)
        assert clicks == pytest.approx(1_200 * per_step, rel=1e-9)
