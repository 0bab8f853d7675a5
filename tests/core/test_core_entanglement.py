"""What coincidences say of entanglement, against state vectors, published numbers and local models."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.entanglement import (
    BELL_STATES,
    Accidentals,
    ErrorCount,
    chsh,
    chsh_signs,
    coincidence_to_accidental,
    correlations,
    expected_correlations,
    heralding,
    joint_counts,
    qber,
    sift_pairs,
    sifted_errors,
    squash,
    visibility,
)
from groundstation.report.document import error_rate

# In the basis HH, HV, VH, VV.
_VECTORS = {
    "phi+": np.array([1, 0, 0, 1]) / math.sqrt(2),
    "phi-": np.array([1, 0, 0, -1]) / math.sqrt(2),
    "psi+": np.array([0, 1, 1, 0]) / math.sqrt(2),
    "psi-": np.array([0, 1, -1, 0]) / math.sqrt(2),
}
_CHSH_DEG = (0.0, 22.5)
_BBM92_DEG = (0.0, 0.0)
_states = st.sampled_from(sorted(BELL_STATES))
_angles = st.floats(-180, 180)
_channels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60)


def _measured(angle_deg):
    """Linear polarisation along the angle counts +1, across it -1."""
    angle = math.radians(angle_deg)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-math.sin(angle), math.cos(angle)])
    return np.outer(along, along) - np.outer(across, across)


def _counts(expected, visibility=1.0, per_cell=10**8):
    """Counts (4, 4) as often as a Werner state gives them."""
    counts = np.zeros((4, 4), np.int64)
    for i, j, x, y in product((0, 1), repeat=4):
        sign = 1 if x == y else -1
        counts[2 * i + x, 2 * j + y] = round(per_cell * (1 + sign * visibility * expected[i, j]) / 4)
    return counts


def _as_arrays(pairs):
    a, b = np.array(pairs, np.uint8).reshape(-1, 2).T
    return a, b


@given(_states, _angles, _angles)
def test_the_expected_correlations_are_those_of_the_state_vector(state, a_deg, b_deg):
    vector = _VECTORS[state]
    for i, j in product((0, 1), repeat=2):
        observable = np.kron(_measured(a_deg + 45 * i), _measured(b_deg + 45 * j))
        assert expected_correlations(state, a_deg, b_deg)[i, j] == pytest.approx(vector @ observable @ vector, abs=1e-9)


@pytest.mark.parametrize("state", sorted(BELL_STATES))
def test_a_perfect_state_reaches_tsirelsons_bound(state):
    turn = 22.5 if state in ("phi+", "psi-") else -22.5
    for b_deg in (turn, 22.5):
        expected = expected_correlations(state, 0.0, b_deg)
        s = chsh(_counts(expected), expected)
        assert s is not None
        assert s.value == pytest.approx(2 * math.sqrt(2), abs=1e-6)


@given(st.floats(0, 1))
def test_s_falls_with_the_visibility(share):
    expected = expected_correlations("psi+", *_CHSH_DEG)
    s = chsh(_counts(expected, share), expected)
    assert s is not None
    assert s.value == pytest.approx(2 * math.sqrt(2) * share, abs=1e-6)


def test_the_published_s_and_the_published_error_rate_are_one_visibility():
    # Yin 2017 measured S = 2.37, and Yin 2020 says its QBER had been 8.1 %.
    v = visibility(ErrorCount(1000, 81))
    assert v is not None
    assert 2 * math.sqrt(2) * v.value == pytest.approx(2.37, abs=0.005)


def test_the_published_error_of_s_takes_about_1300_coincidences():
    # S = 2.37 +- 0.09: four correlations of 0.5925 from N/4 coincidences each; 0.085 and 0.095 round to 0.09.
    expected = expected_correlations("psi+", *_CHSH_DEG)
    signs = np.sign(expected)
    for coincidences, inside in ((1000, False), (1200, True), (1400, True), (1600, False)):
        counts = _counts(signs, 2.37 / 4, coincidences / 4)
        s = chsh(counts, expected)
        assert s is not None
        assert s.value == pytest.approx(2.37, abs=0.04)  # whole counts
        assert (0.085 <= s.sigma <= 0.095) is inside


def test_the_error_of_s_is_the_scatter_of_repeated_experiments():
    rng = np.random.default_rng(5)
    expected = expected_correlations("psi+", *_CHSH_DEG)
    weights = _counts(expected, 0.838).ravel() / _counts(expected, 0.838).sum()
    found = [chsh(rng.multinomial(400, weights).reshape(4, 4), expected) for _ in range(2000)]
    values, sigmas = np.array(found).T
    assert np.std(values) == pytest.approx(np.mean(sigmas), rel=0.06)
    assert np.mean(values) == pytest.approx(2.37, abs=0.02)


@pytest.mark.parametrize("answers", list(product((0, 1), repeat=4)))
def test_no_local_instruction_exceeds_2(answers):
    # J. S. Bell: outcomes fixed in advance, one for each basis of each side.
    expected = expected_correlations("psi+", *_CHSH_DEG)
    counts = np.zeros((4, 4), np.int64)
    for i, j in product((0, 1), repeat=2):
        counts[2 * i + answers[i], 2 * j + answers[2 + j]] += 1000
    s = chsh(counts, expected)
    assert s is not None
    assert s.value <= 2 + 1e-12


def test_settings_that_share_a_basis_are_no_test_of_bell():
    assert chsh_signs(expected_correlations("psi+", *_BBM92_DEG)) is None
    expected = expected_correlations("psi+", *_BBM92_DEG)
    assert chsh(_counts(expected), expected) is None


def test_s_needs_all_four_correlations():
    expected = expected_correlations("psi+", *_CHSH_DEG)
    counts = _counts(expected)
    counts[2:, 2:] = 0
    assert correlations(counts)[1][1] is None
    assert chsh(counts, expected) is None


def test_psi_plus_gives_opposite_bits_in_the_first_basis_and_equal_ones_in_the_second():
    expected = expected_correlations("psi+", *_BBM92_DEG)
    h, v, d, a = range(4)
    channel_a = np.array([h, v, d, a, h, d, h, a], np.uint8)
    channel_b = np.array([v, h, d, a, h, a, d, v], np.uint8)
    sifted = sift_pairs(channel_a, channel_b, expected)
    assert sifted.position.tolist() == [0, 1, 2, 3, 4, 5]  # the last two chose different bases
    assert sifted.basis.tolist() == [0, 0, 1, 1, 0, 1]
    assert (sifted.bit_a != sifted.bit_b).tolist() == [False, False, False, False, True, True]


@given(_channels, _states)
def test_sifting_one_by_one_agrees_with_the_counts(pairs, state):
    channel_a, channel_b = _as_arrays(pairs)
    expected = expected_correlations(state, *_BBM92_DEG)
    counts = joint_counts(channel_a, channel_b)
    assert counts.sum() == len(pairs)
    sifted = sift_pairs(channel_a, channel_b, expected)
    wrong = sifted.bit_a != sifted.bit_b
    for basis, count in enumerate(sifted_errors(counts, expected)):
        assert count == (np.sum(sifted.basis == basis), np.sum(wrong & (sifted.basis == basis)))


@given(_channels, _states, _angles, _angles)
def test_exchanging_the_stations_changes_no_estimate(pairs, state, a_deg, b_deg):
    channel_a, channel_b = _as_arrays(pairs)
    counts = joint_counts(channel_a, channel_b)
    assert np.array_equal(joint_counts(channel_b, channel_a), counts.T)
    forward, back = expected_correlations(state, a_deg, b_deg), expected_correlations(state, b_deg, a_deg)
    assert np.allclose(forward, back.T)
    one, other = chsh(counts, forward), chsh(counts.T, back)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.value == pytest.approx(other.value)


def test_a_werner_states_error_rate_is_half_of_what_is_missing_from_its_visibility():
    expected = expected_correlations("psi+", *_BBM92_DEG)
    for count in sifted_errors(_counts(expected, 0.838), expected):
        rate, contrast = qber(count), visibility(count)
        assert rate is not None
        assert contrast is not None
        assert rate.value == pytest.approx(0.081, abs=1e-6)
        assert contrast.value == pytest.approx(0.838, abs=1e-6)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_error_rate_is_the_one_of_the_pass_report(bits, share):
    errors = round(bits * share)
    rate, report = qber(ErrorCount(bits, errors)), error_rate(errors, bits)
    assert rate is not None
    assert (rate.value, rate.sigma) == pytest.approx((report["value"], report["standard_error"]))
    assert qber(ErrorCount(0, 0)) is None


def test_accidentals_give_car_and_heralding():
    # 10,000 pairs a second, arms of 20 % and 10 %, 100 s: 20,000 coincidences above 500 accidental ones.
    accidentals = Accidentals(np.full((4, 4), 625, np.int64), shifts=20)
    assert accidentals.expected == 500
    car = coincidence_to_accidental(20_500, accidentals)
    assert car is not None
    assert car.value == pytest.approx(40.0)
    assert car.sigma == pytest.approx(41 * math.sqrt(1 / 20_500 + 1 / 10_000))
    arm_a = heralding(20_500, accidentals, 110_000, 10_000.0)
    arm_b = heralding(20_500, accidentals, 210_000, 10_000.0)
    assert arm_a is not None
    assert arm_b is not None
    assert (arm_a.value, arm_b.value) == pytest.approx((0.2, 0.1))
    assert coincidence_to_accidental(10, Accidentals(np.zeros((4, 4), np.int64), 20)) is None
    assert heralding(0, accidentals, 100, 100.0) is None


def test_an_unknown_state_is_named():
    with pytest.raises(ValueError, match=r'the state is "chi", expected one of phi\+, phi-, psi\+, psi-'):
        expected_correlations("chi", 0.0, 0.0)


def _squashed(times, channels, half_window_ps=1000, key=7):
    time_ps = np.array(times, np.int64)
    return squash(time_ps, np.array(channels, np.uint8), half_window_ps, time_ps, key)


def test_a_lone_click_keeps_its_outcome_and_so_do_two_of_one_detector():
    outcome = _squashed([0, 5000, 5400, 9000], [0, 3, 3, 1])
    assert outcome.channel.tolist() == [0, 3, 3, 1]
    assert not outcome.double.any()


def test_the_outcome_of_a_double_click_is_random_in_its_basis_and_in_both_if_both_clicked():
    events = np.arange(4000) * 100_000
    times = np.stack((events, events + 1000), axis=1).ravel()
    same = _squashed(times, [2, 3] * 4000)
    assert same.double.all()
    assert set(same.channel.tolist()) == {2, 3}
    assert abs(same.channel[::2].astype(int).sum() - 2.5 * 4000) < 5 * math.sqrt(4000 / 4)
    both = np.bincount(_squashed(times, [0, 3] * 4000).channel[::2], minlength=4)
    assert np.abs(both - 1000).max() < 5 * math.sqrt(750)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3)), max_size=12), st.integers(0, 500))
def test_double_clicks_are_those_with_another_detector_in_the_window(clicks, half_window_ps):
    clicks = sorted(clicks)
    outcome = _squashed([time for time, _ in clicks], [channel for _, channel in clicks], half_window_ps)
    for (time, channel), found, double in zip(clicks, outcome.channel, outcome.double, strict=True):
        others = {c for t, c in clicks if abs(t - time) <= half_window_ps} - {channel}
        assert bool(double) == bool(others)
        assert found // 2 in {c // 2 for c in (channel, *others)}
        assert others or found == channel


def test_the_drawn_outcome_depends_on_the_click_and_the_key_alone():
    times, channels = [0, 400, 90_000, 90_300], [0, 1, 0, 3]
    whole = _squashed(times, channels).channel.tolist()
    assert (
        whole
        == _squashed(times[:2], channels[:2]).channel.tolist() + _squashed(times[2:], channels[2:]).channel.tolist()
    )
    assert len({tuple(_squashed(times, channels, key=key).channel.tolist()) for key in range(20)}) > 4
