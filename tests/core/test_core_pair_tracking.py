"""The clock of two stations is followed through a pass, however the streams are cut, and never beyond what is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_samples import START_PS, Planted, World, errors_ps, streams

from groundstation.core.pair_clock import find_pair_clock
from groundstation.core.pair_tracking import PairClockTracker
from groundstation.core.tags import UnsortedTags

PASS = Planted(0.02, -3e-6, 700e-9)  # the paths of two downlinks, nothing predicted
RANGE = {"max_offset_s": 0.05, "max_frequency_offset": 5e-6}


def begin(a_ps, b_ps, seconds=3.0):
    """The clock of the first seconds."""
    early = START_PS + int(seconds * 1e12)
    return find_pair_clock(a_ps[a_ps < early], b_ps[b_ps < early + 10**11], **RANGE)


def follow(a_ps, b_ps, pieces=20, **options):
    tracker = PairClockTracker(begin(a_ps, b_ps), **options)
    windows = []
    for a, b in zip(np.array_split(a_ps, pieces), np.array_split(b_ps, pieces), strict=True):
        windows += tracker.feed(a, b)
    return windows + tracker.finish()


@pytest.mark.parametrize(("rate_hz", "rms_ps"), [(1e4, 60), (1e5, 20)])
def test_a_drifting_clock_is_followed_to_a_fifth_of_the_jitter(rate_hz, rms_ps):
    windows = follow(*streams(PASS, World(rate_hz, 0.05, seconds=15)))
    assert [window.number for window in windows] == list(range(7, 22))
    assert all(window.clock for window in windows)
    errors = np.array([errors_ps(window.clock, PASS) for window in windows])
    assert np.sqrt(np.mean(errors**2)) < rms_ps
    assert {window.sentence for window in windows} == {"followed"}


def test_a_window_s_clock_holds_over_that_window():
    for window in follow(*streams(PASS, World(2e4, 0.05, seconds=5))):
        assert (window.clock.start_ps, window.clock.stop_ps) == (window.start_ps, window.stop_ps)
        assert window.stop_ps - window.start_ps == 10**12
        assert window.start_ps == window.number * 10**12


def test_a_changing_drift_is_followed():
    """Curvature rises to its peak and falls again within 40 s, as over culmination: a cubic of 0.1 ns in 1 s."""
    a_ps, b_ps = streams(Planted(0.0, 0.0), World(2e4, 0.05, seconds=30))

    def path(t):
        s = (t - START_PS) * 1e-12 - 15
        return t + np.rint(350e3 * 20**2 * (np.sqrt(1 + (s / 20) ** 2) - 1)).astype(np.int64) + 10**10

    windows = follow(a_ps, path(b_ps), window_ps=5 * 10**11)
    assert sum(window.clock is not None for window in windows) >= 59
    for window in windows:
        if window.clock is not None:
            when = np.linspace(window.start_ps, window.stop_ps, 5).astype(np.int64)
            assert np.abs(window.clock.to_b(when) - path(when)).max() < 150


def test_a_predicted_delay_is_removed_and_the_clock_is_what_remains():
    path, clocks = Planted(0.004, 44e-6, -700e-9), Planted(0.02, 1e-6)
    a_ps, b_ps = streams(Planted(0.0, 0.0), World(2e4, 0.05, seconds=8))
    b_ps = clocks.to_b(path.to_b(b_ps))

    def delay(t):
        return path.to_b(t) - t

    tracker = PairClockTracker(
        find_pair_clock(a_ps, b_ps, predicted_delay=delay, **RANGE), predicted_delay=delay, drift_change=1e-11
    )
    windows = tracker.feed(a_ps, b_ps) + tracker.finish()
    assert len(windows) == 8
    assert max(np.abs(errors_ps(window.clock, clocks)).max() for window in windows) < 40


def test_one_pair_a_second_is_followed_between_good_clocks():
    planted = Planted(3e-6, 2e-9)
    a_ps, b_ps = streams(planted, World(3e3, 1.1 / 3e3, seconds=300))
    clock = find_pair_clock(a_ps, b_ps, max_offset_s=1e-5, max_frequency_offset=1e-8)
    tracker = PairClockTracker(clock, window_ps=30 * 10**12, drift_change=1e-13, forget_after_s=200)
    windows = tracker.feed(a_ps, b_ps) + tracker.finish()
    followed = [window for window in windows if window.clock is not None]
    assert len(followed) >= 9
    assert max(np.abs(errors_ps(window.clock, planted)).max() for window in followed) < 300


SAMPLE = streams(PASS, World(2e4, 0.05, seconds=5))
WHOLE = follow(*SAMPLE, pieces=1)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(0, SAMPLE[0].size), max_size=8).map(sorted),
    st.lists(st.integers(0, SAMPLE[1].size), max_size=8).map(sorted),
)
def test_how_the_streams_are_cut_changes_nothing(cuts_a, cuts_b):
    tracker = PairClockTracker(begin(*SAMPLE))
    pieces_a, pieces_b = np.split(SAMPLE[0], cuts_a), np.split(SAMPLE[1], cuts_b)
    longest = max(len(pieces_a), len(pieces_b))
    nothing = [np.empty(0, np.int64)] * longest
    windows = []
    for a, b in zip((pieces_a + nothing)[:longest], (pieces_b + nothing)[:longest], strict=True):
        windows += tracker.feed(a, b)
    assert windows + tracker.finish() == WHOLE


def test_windows_come_as_soon_as_both_streams_have_passed_them():
    tracker = PairClockTracker(begin(*SAMPLE))
    a_ps, b_ps = SAMPLE
    assert tracker.feed(a_ps[a_ps < START_PS + int(2.1e12)], np.empty(0, np.int64)) == []
    windows = tracker.feed(np.empty(0, np.int64), b_ps[b_ps < START_PS + int(2.2e12)])
    assert [window.number for window in windows] == [7, 8]
    assert windows == WHOLE[:2]


def test_a_fade_has_no_clock_and_after_it_the_clock_goes_on():
    a_ps, b_ps = streams(PASS, World(5e4, 0.05, seconds=12))
    kept = (a_ps < START_PS + 4 * 10**12) | (a_ps > START_PS + 7 * 10**12)
    windows = {window.number - 7: window for window in follow(a_ps[kept], b_ps)}
    assert [number for number, window in windows.items() if window.clock is None] == [4, 5, 6]
    assert "do not stand out" in windows[5].sentence
    assert all(np.abs(errors_ps(windows[n].clock, PASS)).max() < 60 for n in (3, 7, 8, 11))


def test_when_pairs_stop_no_clock_is_given_and_at_last_it_is_lost():
    a_ps, b_ps = streams(PASS, World(2e4, 0.05, seconds=5))
    noise = START_PS + np.sort(np.random.default_rng(8).integers(5 * 10**12, 15 * 10**12, 200_000))
    windows = follow(np.concatenate((a_ps, noise)), np.concatenate((b_ps, noise[1::2] + 10**11)), forget_after_s=4)
    assert [window.number - 7 for window in windows if window.clock is not None] == [0, 1, 2, 3, 4]
    assert "find it anew" in windows[-1].sentence


def test_a_jump_of_the_clock_is_not_followed_to_a_wrong_answer():
    a_ps, b_ps = streams(PASS, World(5e4, 0.05, seconds=8))
    b_ps = np.where(b_ps > START_PS + 4 * 10**12 + 2 * 10**10, b_ps + 5_000_000, b_ps)
    windows = follow(a_ps, b_ps)
    assert all(window.clock is None for window in windows[5:])
    assert all(np.abs(errors_ps(window.clock, PASS)).max() < 100 for window in windows[:4])


def test_an_empty_week_is_skipped():
    a_ps, b_ps = streams(PASS, World(2e4, 0.05, seconds=5))
    late = START_PS + 7 * 86_400 * 10**12
    windows = follow(np.append(a_ps, late), np.append(b_ps, late))
    assert len(windows) < 60
    assert all(window.clock is None for window in windows[5:])


def test_steps_backwards_are_refused_between_pieces_too():
    tracker = PairClockTracker(begin(*SAMPLE))
    tracker.feed(SAMPLE[0][100:200], SAMPLE[1][:10])
    with pytest.raises(UnsortedTags):
        tracker.feed(SAMPLE[0][:100], SAMPLE[1][10:])


@pytest.mark.parametrize("wrong", [{"window_ps": 0}, {"drift_change": 0.0}, {"forget_after_s": -1.0}])
def test_options_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        PairClockTracker(begin(*SAMPLE), **wrong)


def test_a_last_window_is_used_as_far_as_both_stations_recorded():
    a_ps, b_ps = streams(PASS, World(2e4, 0.05, seconds=5))
    last = follow(a_ps[: round(a_ps.size * 0.88)], b_ps)[-1]
    assert last.clock is not None
    assert last.clock.stop_ps == pytest.approx(last.start_ps + 0.4e12, abs=1e10)
    assert np.abs(errors_ps(last.clock, PASS)).max() < 100
    ended = follow(a_ps, b_ps[: round(b_ps.size * 0.7)])
    assert ended[-1].clock is None
    assert ended[-1].sentence == "station B had ended before this window"
