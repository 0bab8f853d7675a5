"""Lines through a beacon whose truth is known, with everything real beacon tags do: miss, double, lie, pause."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.beacon_line import BeaconTracker

PERIOD_PS = 100_000_000
RATE = 5e-6
START_PS = 7 * 10**17


def pulses(numbers, seed=1, jitter_ps=50.0, drift_per_s=1e-7):
    """Arrival of beacon pulses by a clock that runs fast and ever faster."""
    rng = np.random.default_rng(seed)
    sent = np.asarray(numbers, np.int64) * PERIOD_PS
    late = sent * RATE + 0.5e-12 * drift_per_s * sent.astype(float) ** 2 + rng.normal(0, jitter_ps, sent.size)
    return START_PS + sent + np.rint(late).astype(np.int64)


def lines_of(beacon_ps, tracker=None, cuts=()):
    tracker = tracker or BeaconTracker(PERIOD_PS, 100)
    edges = [0, *sorted(cuts), beacon_ps.size]
    lines = []
    for start, stop in pairwise(edges):
        if stop > start:
            lines += tracker.feed(beacon_ps[start:stop], int(beacon_ps[stop - 1]))
    return lines + tracker.finish()


def errors_ps(lines, numbers=None):
    """How far each clocked line is off at its middle pulse."""
    clocked = [line for line in lines if line.period_ps]
    middle = [line.first + 50 for line in clocked]
    exact = pulses(middle, jitter_ps=0.0)
    return np.array([line.arrival_ps(n) for line, n in zip(clocked, middle, strict=True)]) - exact


def test_a_clean_beacon_gives_lines_without_gap_that_average_its_jitter():
    lines = lines_of(pulses(range(2001)))
    clocked = [line for line in lines if line.period_ps]
    assert [line.first for line in clocked] == [*range(0, 2000, 100), 1900]
    assert all(line.numbering == 1 and line.rejected == 0 for line in clocked)
    assert sum(line.used for line in clocked) == 2001
    assert np.abs(errors_ps(lines)[:20]).max() < 5 * 50 / np.sqrt(100) + 1
    assert clocked[3].rms_ps == pytest.approx(50, rel=0.3)
    assert clocked[0].period_ps == pytest.approx(PERIOD_PS * (1 + RATE), rel=1e-8)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 1500), max_size=6))
def test_lines_do_not_depend_on_how_the_tags_come(seed, cuts):
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(1500) < 0.8)
    beacon_ps = np.sort(np.concatenate((pulses(numbers), START_PS + rng.integers(0, 1500 * PERIOD_PS, 20))))
    cuts = [min(cut, beacon_ps.size) for cut in cuts]
    clocked = [[line for line in lines_of(beacon_ps, cuts=c) if line.period_ps] for c in ((), cuts)]
    assert clocked[0] == clocked[1]


def test_missing_doubled_and_spurious_tags_do_not_move_the_count():
    rng = np.random.default_rng(3)
    kept = np.concatenate((range(5), np.flatnonzero(rng.random(5000) < 0.6)[5:]))
    true = pulses(kept)
    doubled = true[rng.random(true.size) < 0.2] + rng.integers(1_000, 50_000, 1)
    spurious = START_PS + rng.integers(0, 5000 * PERIOD_PS, 500)
    lines = lines_of(np.sort(np.concatenate((true, doubled, spurious))))
    assert len([line for line in lines if line.period_ps]) >= 49
    assert np.abs(errors_ps(lines)).max() < 60
    assert sum(line.used for line in lines) > 0.97 * true.size


def test_after_a_gap_the_count_goes_on_with_a_new_line():
    numbers = np.concatenate((range(1000), range(3037, 5000)))
    lines = lines_of(pulses(numbers))
    clocked = [line for line in lines if line.period_ps]
    assert {line.numbering for line in clocked} == {1}
    assert [line.first for line in clocked if 900 <= line.first <= 3100] == [900, 3000, 3100]
    assert np.abs(errors_ps(lines)).max() < 60


def test_a_gap_in_which_the_clock_may_slip_a_pulse_begins_a_new_numbering():
    numbers = np.concatenate((range(1000), range(60_000, 61_000)))
    lines = lines_of(pulses(numbers, drift_per_s=0.0))
    clocked = [line for line in lines if line.period_ps]
    assert [line.first for line in clocked if line.numbering == 2][:2] == [0, 100]
    assert clocked[-1].stop_ps > pulses([60_900])[0]


def test_tags_before_the_beacon_and_single_pulses_have_no_clock():
    beacon_ps = np.concatenate(([START_PS - 40 * PERIOD_PS - 42_345_678], pulses(range(300))))
    lines = lines_of(beacon_ps)
    first = next(line for line in lines if line.period_ps)
    assert lines[0].period_ps == 0
    assert lines[lines.index(first) - 1].stop_ps == pulses([0])[0] - PERIOD_PS // 2


def test_noise_alone_is_no_beacon():
    rng = np.random.default_rng(4)
    lines = lines_of(np.sort(START_PS + rng.integers(0, 2000 * PERIOD_PS, 2000)))
    assert all(line.period_ps == 0 for line in lines)


@pytest.mark.parametrize(
    "beacon_ps",
    [
        np.empty(0, np.int64),
        np.array([0]),
        np.zeros(500, np.int64),
        np.array([-(1 << 62), 0, 1 << 62]),
    ],
)
def test_hostile_beacons_give_no_clock_and_no_error(beacon_ps):
    assert all(line.period_ps == 0 for line in lines_of(beacon_ps))


def test_stops_rise_and_cover_the_time():
    numbers = np.concatenate((range(500), range(900, 2000)))
    stops = [line.stop_ps for line in lines_of(pulses(numbers))]
    assert all(after >= before for before, after in pairwise(stops))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((0,), "4 beacon pulses"),
        ((PERIOD_PS, 3), "4 beacon pulses"),
        ((PERIOD_PS, 5000), "rate known to 0.0001"),
        ((PERIOD_PS, 500, 3e7), "tolerance 3e\\+07 ps"),
        ((1 << 40, 1000), "2\\^49"),
    ],
)
def test_settings_that_leave_the_count_in_doubt_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        BeaconTracker(*arguments)
