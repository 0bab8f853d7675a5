"""A coded beacon is numbered from its pattern alone, through lost and false pulses, or not at all."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.coded_beacon import ClockRefused, CodedBeacon, number_beacon
from groundstation.core.keyed_random import philox4x32
from groundstation.core.tags import UnsortedTags

BEACON = CodedBeacon(100_000_000, key=0xC0DE)
FIRST = 3_000_000  # five minutes from the epoch


@dataclass(frozen=True)
class Path:
    """A pulse emitted at e is seen at e + offset + frequency x + drift x^2 / 2, x since the first pulse."""

    offset_ps: int = 123_456_789_012
    frequency: float = 32e-6  # Doppler of 22 ppm and a clock 10 ppm off
    drift_per_s: float = 358e-9

    def seen_ps(self, emitted_ps):
        x = (emitted_ps - FIRST * BEACON.period_ps).astype(float)
        return emitted_ps + self.offset_ps + np.rint(x * (self.frequency + 0.5e-12 * self.drift_per_s * x)).astype(int)


def sight(path, seconds=0.3, seed=1, lost=0.3, false=0.3, jitter_ps=500, beacon=BEACON):
    """Tags, sorted, and the number of each (-1 for a false one)."""
    rng = np.random.default_rng(seed)
    number = FIRST + np.arange(round(seconds * 10_000))
    seen = path.seen_ps(beacon.emission_ps(number)) + np.rint(rng.normal(0, jitter_ps, number.size)).astype(np.int64)
    kept = rng.random(number.size) >= lost
    spurious = rng.integers(seen[0], seen[-1], rng.poisson(false * number.size))
    tags = np.concatenate((seen[kept], spurious))
    numbers = np.concatenate((number[kept], np.full(spurious.size, -1)))
    order = np.argsort(tags, kind="stable")
    return tags[order], numbers[order]


def check(numbered, numbers, path, within_ps):
    true = numbers >= 0
    assert np.array_equal(numbered.number[true], numbers[true])
    assert numbered.is_pulse[true].mean() > 0.999
    assert numbered.is_pulse[~true].mean() < 0.01
    emitted = BEACON.emission_ps(numbers[true])
    x = (emitted - numbered.reference_ps).astype(float)
    local = x * (numbered.frequency_offset + 0.5e-12 * numbered.drift_per_s * x)
    seen = emitted + numbered.offset_ps + np.rint(local).astype(np.int64)
    assert np.abs(seen - path.seen_ps(emitted)).max() < within_ps


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("seconds", [0.05, 0.3, 3.0])
def test_offsets_up_to_a_second_are_numbered_through_losses_and_false_pulses(seconds, seed):
    rng = np.random.default_rng(100 + seed)
    path = Path(int(rng.integers(-(10**12), 10**12)), rng.uniform(-32e-6, 32e-6), rng.uniform(-358e-9, 358e-9))
    tags, numbers = sight(path, seconds, seed)
    numbered = number_beacon(tags, BEACON)
    check(numbered, numbers, path, within_ps=500)
    assert numbered.significance > 3 * numbered.runner_up
    assert numbered.scatter_ps == pytest.approx(500, rel=0.2)


@pytest.mark.parametrize("jitter_ps", [50, 5_000, 50_000])
def test_jitter_far_below_a_step_does_no_harm(jitter_ps):
    tags, numbers = sight(Path(), jitter_ps=jitter_ps)
    check(number_beacon(tags, BEACON), numbers, Path(), within_ps=max(jitter_ps, 50))


@pytest.mark.parametrize("positions", [2, 3, 16])
def test_other_codes_do_as_well(positions):
    beacon = CodedBeacon(100_000_000, key=7, step_ps=1_000_000, positions=positions)
    tags, numbers = sight(Path(), beacon=beacon)
    numbered = number_beacon(tags, beacon)
    assert np.array_equal(numbered.number[numbers >= 0], numbers[numbers >= 0])


REFUSED = {
    "a beacon with another key": sight(Path(), beacon=CodedBeacon(100_000_000, key=1))[0],
    "an offset outside the range": sight(Path(offset_ps=1_200_000_000_000))[0],
    "noise": np.sort(np.random.default_rng(1).integers(0, 3 * 10**11, 3_000)),
    "a plain beacon": np.arange(3_000) * 100_000_000,
    "too short": sight(Path(), seconds=0.005)[0],
    "nothing": np.empty(0, np.int64),
    "all at once": np.full(500, 5),
    "the ends of time": np.repeat([-(2**62), 2**62], 300),
}


@pytest.mark.parametrize("tags", REFUSED.values(), ids=REFUSED)
def test_what_does_not_single_out_one_number_is_refused(tags):
    with pytest.raises(ClockRefused):
        number_beacon(tags, BEACON)


@pytest.mark.parametrize("seed", range(50))
def test_noise_is_never_numbered(seed):
    rng = np.random.default_rng(seed)
    with pytest.raises(ClockRefused, match="does not single out one number"):
        number_beacon(np.sort(rng.integers(0, 10**11, 1_000)), BEACON)


@pytest.mark.parametrize("seed", range(30))
def test_a_train_at_the_edge_of_what_can_be_told_is_numbered_rightly_or_not_at_all(seed):
    tags, numbers = sight(Path(), 0.03, seed, lost=0.7, false=1.0)
    try:
        numbered = number_beacon(tags, BEACON)
    except ClockRefused:
        return
    assert np.array_equal(numbered.number[numbers >= 0], numbers[numbers >= 0])


def test_an_expected_offset_moves_the_range():
    path = Path(offset_ps=40 * 10**12)
    tags, numbers = sight(path)
    numbered = number_beacon(tags, BEACON, expected_offset_ps=39_600_000_000_000, max_offset_s=0.5)
    check(numbered, numbers, path, within_ps=500)


@pytest.mark.parametrize("where", [4_000, 8_000, 14_000])
def test_a_train_that_jumps_by_a_period_is_not_numbered_across_the_jump(where):
    tags, _ = sight(Path(), seconds=2)
    with pytest.raises(ClockRefused, match="numbered in one place"):
        number_beacon(np.concatenate((tags[:where], tags[where:] + 100_000_000)), BEACON)


def test_across_another_jump_nothing_is_a_pulse():
    tags, numbers = sight(Path(), seconds=2)
    numbered = number_beacon(np.concatenate((tags[:9_000], tags[9_000:] + 30_000_000)), BEACON)
    pulses = numbered.is_pulse & (numbers >= 0)
    assert np.array_equal(numbered.number[pulses], numbers[pulses])
    sides = numbered.is_pulse[:9_000].mean(), numbered.is_pulse[9_000:].mean()
    assert min(sides) < 0.01 < 0.6 < max(sides)


def test_unsorted_tags_are_named():
    with pytest.raises(UnsortedTags):
        number_beacon(sight(Path())[0][::-1], BEACON)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1))
def test_the_code_is_a_function_of_the_number(numbers):
    number = np.array(numbers)
    code = BEACON.code(number)
    assert np.array_equal(code, BEACON.code(number[::-1])[::-1])
    assert np.array_equal(code, philox4x32(number.view(np.uint64), 0xC0DE, 7)[0] % 4)
    assert np.array_equal(BEACON.emission_ps(number), number * 100_000_000 + code * 2_000_000)


def test_pulses_keep_their_order_and_use_all_positions_alike():
    emitted = BEACON.emission_ps(np.arange(40_000))
    assert np.diff(emitted).min() > 0
    assert np.bincount(BEACON.code(np.arange(40_000))) == pytest.approx(np.full(4, 10_000), abs=500)


@pytest.mark.parametrize("wrong", [{"positions": 1}, {"step_ps": 0}, {"positions": 60}, {"positions": 300}])
def test_a_code_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="coded beacon needs"):
        CodedBeacon(100_000_000, 1, **wrong)
