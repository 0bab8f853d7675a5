"""Two stations find each other's clock from their tags alone, or say that they cannot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_samples import START_PS, Planted, World, errors_ps, streams, write_a1

from groundstation.core.pair_clock import ClockRefused, PairClock, find_pair_clock
from groundstation.core.tags import UnsortedTags

QUICK = {"max_offset_s": 0.1, "max_frequency_offset": 2e-6}
ANYWHERE = [Planted(0.73, 1e-6), Planted(-0.91, -9.7e-6), Planted(0.0, 0.0), Planted(0.999, 1e-5)]


@pytest.mark.parametrize("planted", ANYWHERE, ids=str)
@pytest.mark.parametrize("rate_hz", [1e4, 5e4])
def test_a_clock_anywhere_in_a_second_and_ten_ppm_is_found(planted, rate_hz):
    clock = find_pair_clock(*streams(planted, World(rate_hz)))
    assert np.abs(errors_ps(clock, planted)).max() < 30  # a tenth of the jitter
    assert clock.frequency_offset == pytest.approx(planted.frequency, abs=1e-11)
    assert clock.jitter_ps == pytest.approx(300, rel=0.1)
    assert (clock.stop_ps - clock.start_ps) * 1e-12 > 8
    assert clock.significance > 100


@pytest.mark.slow
@pytest.mark.parametrize("planted", ANYWHERE, ids=str)
def test_half_a_million_tags_a_second_with_two_percent_of_pairs(planted):
    clock = find_pair_clock(*streams(planted, World(5e5, 0.02)))
    assert np.abs(errors_ps(clock, planted)).max() < 30
    assert clock.frequency_offset == pytest.approx(planted.frequency, abs=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_half_a_percent_of_pairs_is_enough_though_a_false_peak_is_higher(seed):
    """The coarse peak of such pairs is among those of noise: only the look in fine bins tells which one is true."""
    planted = Planted(0.9 - 0.31 * seed, (-1) ** seed * 8e-6)
    clock = find_pair_clock(*streams(planted, World(5e5, 0.005), seed))
    assert np.abs(errors_ps(clock, planted)).max() < 50
    assert clock.frequency_offset == pytest.approx(planted.frequency, abs=1e-11)


def refuse_noise(seed):
    with pytest.raises(ClockRefused, match="stands out"):
        find_pair_clock(*streams(Planted(0.05), World(2e4, 0.0, seconds=0.5), seed), **QUICK)


@pytest.mark.parametrize("seed", range(8))
def test_noise_has_no_clock(seed):
    refuse_noise(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 80))
def test_noise_has_no_clock_however_often_one_asks(seed):
    refuse_noise(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_clock_anywhere(seed):
    with pytest.raises(ClockRefused, match="stands out"):
        find_pair_clock(*streams(Planted(), World(2e5, 0.0, seconds=3), seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15))
def test_too_few_pairs_give_the_right_clock_or_none(seed):
    """Around the limit of what can be told, the answer may be no, and is never wrong."""
    planted = Planted(0.06, 1e-6)
    try:
        clock = find_pair_clock(*streams(planted, World(5e4, 0.001 * (1 + seed % 5), seconds=1), seed), **QUICK)
    except ClockRefused:
        return
    assert np.abs(errors_ps(clock, planted)).max() < 300


@pytest.mark.parametrize("planted", [Planted(0.3), Planted(-0.101), Planted(0.05, 5e-6)], ids=str)
def test_a_clock_outside_the_range_is_refused(planted):
    with pytest.raises(ClockRefused):
        find_pair_clock(*streams(planted, World(2e4, 0.1, seconds=1)), **QUICK)


def test_streams_that_never_overlap_are_refused():
    a_ps, b_ps = streams(Planted(), World(1e4, seconds=1))
    with pytest.raises(ClockRefused, match=r"do not overlap .* \+-1 s"):
        find_pair_clock(a_ps, b_ps + 10**15)


def test_a_comb_in_both_streams_is_no_clock():
    a_ps, b_ps = streams(Planted(0.03), World(3e4, 0.0))
    comb = START_PS + np.arange(100_000) * 10**8
    with pytest.raises(ClockRefused, match="periodic signal"):
        find_pair_clock(
            np.sort(np.concatenate((a_ps, comb))), np.sort(np.concatenate((b_ps, Planted(0.03).to_b(comb)))), **QUICK
        )


def pulsed(seed, rate_hz, share, period_ps, seconds=3):
    """Tags at random pulses of a train, and tags of B of which a share belongs to A's."""
    rng, pulses = np.random.default_rng(seed), seconds * 10**12 // period_ps
    n = round(rate_hz * seconds)
    mine, others = rng.integers(0, pulses, n), rng.integers(0, pulses, n - round(n * share))
    return tuple(
        np.sort(START_PS + p * period_ps + np.rint(rng.normal(0, 200, p.size)).astype(np.int64))
        for p in (mine, np.concatenate((mine[: round(n * share)], others)))
    )


@pytest.mark.parametrize(
    ("period_ps", "rate_hz"),
    [
        (100_000, 1e4),
        (1_000_000, 1e4),
        (100_000_000, 1e4),
        pytest.param(13_158, 4e4, marks=pytest.mark.slow),
        pytest.param(10_000_000, 1e4, marks=pytest.mark.slow),
        *(pytest.param(10**k, 4e4, marks=pytest.mark.slow) for k in range(5, 9)),
    ],
)
def test_light_that_pulses_at_both_stations_without_pairs_is_no_clock(period_ps, rate_hz):
    """Each period gives a line of coincidences, strong and sharp: any of them would be wrong."""
    planted = Planted(0.03)
    a_ps, b_ps = pulsed(period_ps % 97, rate_hz, 0.0, period_ps)
    with pytest.raises(ClockRefused):
        find_pair_clock(a_ps, planted.to_b(b_ps), **QUICK)


@pytest.mark.parametrize("seed", [1, 2, 5, *(pytest.param(k, marks=pytest.mark.slow) for k in (0, 3, 4))])
def test_few_pairs_in_pulsed_light_give_the_right_clock_or_none(seed):
    planted = Planted(0.03)
    a_ps, b_ps = pulsed(seed, 2e4, 0.002 + 0.004 * seed, (13_158, 100_000)[seed % 2])
    try:
        clock = find_pair_clock(a_ps, planted.to_b(b_ps), **QUICK)
    except ClockRefused:
        return
    assert np.abs(errors_ps(clock, planted)).max() < 100


def two_channels(apart_ps):
    a_ps, b_ps = streams(Planted(0.03), World(3e4, 0.1, seconds=4))
    late = np.random.default_rng(2).random(b_ps.size) < 0.5
    return a_ps, np.sort(np.where(late, b_ps + apart_ps, b_ps))


def test_delays_of_channels_that_nobody_removed_are_named_as_a_reason():
    with pytest.raises(ClockRefused, match="remove the delays of the channels"):
        find_pair_clock(*two_channels(200_000), **QUICK)


def test_small_delays_of_channels_show_as_jitter_around_their_mean():
    clock = find_pair_clock(*two_channels(4_000), **QUICK)
    assert np.abs(errors_ps(clock, Planted(0.03)) - 2_000).max() < 100
    assert clock.jitter_ps == pytest.approx(np.hypot(2_000, 300), rel=0.05)


def test_pairs_of_a_pulsed_laser_are_told_from_its_teeth():
    planted = Planted(0.03)
    a_ps, b_ps = pulsed(5, 1e5, 0.05, 13_158, seconds=10)
    clock = find_pair_clock(a_ps, planted.to_b(b_ps), **QUICK)
    assert np.abs(errors_ps(clock, planted)).max() < 30


def test_scintillation_seen_by_both_hides_no_clock():
    rng, planted = np.random.default_rng(6), Planted(0.3)
    a_ps, b_ps = streams(planted, World(1e5, 0.05))
    kept = [
        rng.random(tags.size) < 0.5 + 0.5 * np.sin(2 * np.pi * 20e-12 * (tags - START_PS - shift))
        for tags, shift in ((a_ps, 0), (b_ps, 3e11))
    ]
    clock = find_pair_clock(a_ps[kept[0]], b_ps[kept[1]])
    assert np.abs(errors_ps(clock, planted)).max() < 30


@pytest.mark.parametrize("drift", [358e-9, -716e-9])
def test_the_drift_of_two_downlinks_is_fitted_too(drift):
    planted = Planted(0.5, -2e-6, drift)
    clock = find_pair_clock(*streams(planted, World(5e4, 0.05)))
    assert clock.drift_per_s == pytest.approx(drift, rel=1e-4)
    assert np.abs(errors_ps(clock, planted)).max() < 30


def test_a_predicted_delay_is_taken_off_first():
    """44 ppm and 700 ns/s^2 lie outside the range; with the prediction the clock of the stations remains."""
    path, planted = Planted(0.004, 44e-6, -700e-9), Planted(0.02, 1e-6)
    a_ps, b_ps = streams(planted, World(2e4, 0.05))
    b_ps = planted.to_b(path.to_b(streams(Planted(0.0, 0.0), World(2e4, 0.05))[1]))
    clock = find_pair_clock(a_ps, b_ps, predicted_delay=lambda t: path.to_b(t) - t, **QUICK)
    assert np.abs(errors_ps(clock, planted)).max() < 30


def test_a_step_of_a_clock_ends_the_span_that_the_answer_is_given_for():
    planted = Planted(0.05)
    a_ps, b_ps = streams(planted, World(5e4, 0.05))
    step_ps = START_PS + int(5.3e12)
    clock = find_pair_clock(a_ps, np.where(b_ps > step_ps, b_ps + 1_000, b_ps), **QUICK)
    moved = 1_000 if clock.start_ps > step_ps else 0
    assert np.abs(errors_ps(clock, planted) - moved).max() < 50
    assert not clock.start_ps < step_ps - 10**11 < step_ps + 10**11 < clock.stop_ps


def test_one_pair_a_second_between_good_clocks_is_enough_for_a_narrow_range():
    """The published downlink of pairs: 1.1 of them a second among thousands of counts (Yin et al. 2017)."""
    planted = Planted(3e-6, 2e-9)
    a_ps, b_ps = streams(planted, World(3e3, 1.1 / 3e3, seconds=250))
    clock = find_pair_clock(a_ps, b_ps, max_offset_s=1e-5, max_frequency_offset=1e-8)
    assert np.abs(errors_ps(clock, planted)).max() < 150
    assert clock.pairs_used == pytest.approx(275, abs=15)


@pytest.mark.parametrize("jitter_ps", [30, 1_000, 3_000])
def test_the_clock_is_better_than_a_tenth_of_any_jitter(jitter_ps):
    planted = Planted(-0.08)
    clock = find_pair_clock(*streams(planted, World(5e4, 0.05, jitter_ps=jitter_ps)), **QUICK)
    assert np.abs(errors_ps(clock, planted)).max() < jitter_ps / 10
    assert clock.jitter_ps == pytest.approx(jitter_ps, rel=0.05)


def test_the_stated_uncertainty_is_that_of_the_answers():
    planted, pulls = Planted(0.04, 3e-7), []
    for seed in range(24):
        clock = find_pair_clock(*streams(planted, World(2e4, 0.05, seconds=2), seed), **QUICK)
        reference = np.array([clock.reference_ps])
        pulls.append(
            (
                (clock.to_b(reference) - planted.to_b(reference))[0] / clock.offset_uncertainty_ps,
                (clock.frequency_offset - planted.frequency) / clock.frequency_uncertainty,
            )
        )
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 3 / np.sqrt(24))
    assert np.std(pulls, axis=0) == pytest.approx([1, 1], abs=0.4)


@pytest.mark.parametrize("seed", range(5))
def test_exchanging_the_stations_gives_the_inverse_clock(seed):
    planted = Planted(0.09 - 0.04 * seed, 8e-7 * (seed - 2), 2e-9 * seed)
    a_ps, b_ps = streams(planted, World(2e4, 0.1), seed)
    forth, back = find_pair_clock(a_ps, b_ps, **QUICK), find_pair_clock(b_ps, a_ps, **QUICK)
    assert (1 + forth.frequency_offset) * (1 + _moved(back, forth).frequency_offset) == pytest.approx(1, abs=1e-9)
    when = np.linspace(forth.start_ps, forth.stop_ps, 9).astype(np.int64)
    assert np.abs(back.to_b(forth.to_b(when)) - when).max() < 1_000
    assert np.abs(back.to_b(forth.to_b(when)) - when).max() < 60  # and to a fifth of the jitter


def _moved(back, forth):
    """`back` around the moment that is the reference of `forth`."""
    reference = int(forth.to_b(np.array([forth.reference_ps]))[0])
    curve = back.curve.moved_to(reference)
    return PairClock(curve.offset_ps, curve.slope, reference, 0.0, 0.0, 0, curve.drift_per_s)


clocks = st.builds(
    PairClock,
    offset_ps=st.integers(-(10**13), 10**13),
    frequency_offset=st.floats(-5e-5, 5e-5),
    reference_ps=st.integers(-(2**61), 2**61),
    significance=st.just(10.0),
    jitter_ps=st.just(300.0),
    pairs_used=st.just(1),
    drift_per_s=st.floats(-1e-6, 1e-6),
)
moments = st.lists(st.integers(-(10**13), 10**13), min_size=1)


@given(clocks, moments)
def test_to_a_undoes_to_b_to_a_picosecond(clock, since):
    when = clock.reference_ps + np.array(since)
    assert np.abs(clock.to_a(clock.to_b(when)) - when).max() <= 1


@given(clocks, moments)
def test_the_inverse_clock_does_what_to_a_does(clock, since):
    when = clock.reference_ps + np.array(since)
    b_ps = clock.to_b(when)
    # The inverse of a quadratic is one up to drift^2 t^3 / 2: 0.5 ns at 1e-6 per second after 10 s.
    assert np.abs(clock.inverse().to_b(b_ps) - when).max() <= 600


@settings(max_examples=8, deadline=None)
@given(st.integers(-(2**61), 2**61), st.integers(-(2**40), 2**40))
def test_where_the_zero_of_the_clocks_lies_changes_nothing(zero_ps, offset_ps):
    near, far = streams(Planted(0.0, 1e-7), World(1e4, 0.2, seconds=1)), 10**12
    if abs(offset_ps) > far // 10:
        offset_ps %= far // 10
    here = find_pair_clock(near[0], near[1] + offset_ps, max_offset_s=0.11, max_frequency_offset=5e-7)
    there = find_pair_clock(
        near[0] + zero_ps, near[1] + zero_ps + offset_ps, max_offset_s=0.11, max_frequency_offset=5e-7
    )
    assert there.reference_ps == here.reference_ps + zero_ps
    assert there.offset_ps == here.offset_ps
    assert there.frequency_offset == here.frequency_offset


def test_identical_streams_differ_by_nothing():
    a_ps, _ = streams(Planted(), World(2e4, seconds=2))
    clock = find_pair_clock(a_ps, a_ps, **QUICK)
    assert (clock.offset_ps, clock.frequency_offset) == (0, pytest.approx(0, abs=1e-12))


HOSTILE = {
    "nothing": np.empty(0, np.int64),
    "one tag": np.array([START_PS]),
    "all at once": np.full(1_000, START_PS),
    "two bursts": np.repeat([START_PS, START_PS + 10**12], 500),
    "negative": np.arange(-(10**12), -(10**11), 10**9),
    "the ends of time": np.repeat([-(2**62), 2**62], 30),
    "a regular train": START_PS + np.arange(10_000) * 10**8,
}


@pytest.mark.parametrize("a_ps", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("b_ps", HOSTILE.values(), ids=HOSTILE)
def test_streams_without_a_clock_are_refused_in_one_sentence(a_ps, b_ps):
    with pytest.raises(ClockRefused) as refused:
        find_pair_clock(a_ps, b_ps, **QUICK)
    assert "\n" not in str(refused.value)


def test_tags_in_bunches_are_refused_before_their_pairs_fill_the_memory():
    bunches = np.repeat(START_PS + np.cumsum(np.arange(30)) * 10**9, 4_000)
    with pytest.raises(ClockRefused, match="bunches"):
        find_pair_clock(bunches, bunches, **QUICK)


def test_unsorted_tags_are_named():
    a_ps, b_ps = streams(Planted(), World(1e4, seconds=1))
    with pytest.raises(UnsortedTags, match="tag 1 is"):
        find_pair_clock(a_ps[::-1], b_ps)
    with pytest.raises(UnsortedTags):
        find_pair_clock(a_ps, b_ps[::-1])


@pytest.mark.parametrize("wrong", [{"max_offset_s": 0.0}, {"max_offset_s": 1e9}, {"max_frequency_offset": 0.1}])
def test_a_range_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="range of the search"):
        find_pair_clock(*streams(Planted(), World(1e4, seconds=1)), **wrong)


@pytest.mark.slow
def test_fpfind_gives_the_same_clock(tmp_path):
    """The reference program, with settings in which it can answer (2^22 bins of 512 ns, 1 ns in the end)."""
    planted = Planted(0.31, 1e-6)
    a_ps, b_ps = streams(planted, World(1e5, 0.2, seconds=8))
    for name, tags in (("a.a1", a_ps), ("b.a1", b_ps)):
        write_a1(tmp_path / name, tags)
    fpfind = Path(sys.executable).with_name("fpfind")
    if not fpfind.exists():
        pytest.skip("fpfind is not installed beside this Python")
    command = [fpfind, "-t", "a.a1", "-T", "b.a1", "-q22", "-R512", "-s2", "--max-dt", "1000000000", "-pp"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    df, dt_ns = (float(word) for word in answer.stdout.split()[-2:])
    clock = find_pair_clock(a_ps, b_ps)
    # fpfind undoes as (b - dt) / (1 + df), times counted from where both streams have begun.
    origin = max(int(a_ps[0]), int(b_ps[0]))
    when = np.array([origin])
    assert df == pytest.approx(clock.frequency_offset, abs=1e-8)
    assert dt_ns == pytest.approx((clock.to_b(when) - when)[0] * 1e-3, abs=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_noise_has_no_clock_in_two_seconds_and_ten_ppm(seed):
    with pytest.raises(ClockRefused, match="stands out"):
        find_pair_clock(*streams(Planted(), World(1e4, 0.0, seconds=4), seed))


@pytest.mark.slow
@pytest.mark.parametrize("max_offset_s", [1e-6, 1e-5, 6e-5, 1e-3])
def test_a_narrow_range_finds_half_a_percent_of_pairs_and_refuses_noise(max_offset_s):
    narrow = {"max_offset_s": max_offset_s, "max_frequency_offset": 1e-7}
    planted = Planted(0.3 * max_offset_s, 1e-8)
    clock = find_pair_clock(*streams(planted, World(1e5, 0.005)), **narrow)
    assert np.abs(errors_ps(clock, planted)).max() < 50
    with pytest.raises(ClockRefused, match="stands out"):
        find_pair_clock(*streams(planted, World(1e5, 0.0)), **narrow)
