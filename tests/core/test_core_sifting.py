"""Merging clicks and reading answers, against a plain model and the table of docs/classical-channel.md."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.sifting import one_click_per_slot, sift

H, V, D, A = range(4)
SEED = 20161219
clicks = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60)
seeds = st.integers(0, 2**64 - 1)


def merged(pairs, seed=SEED):
    slot = np.array([s for s, _ in pairs], np.int64)
    return one_click_per_slot(slot, np.array([d for _, d in pairs], np.uint8), seed)


def bits_by_slot(result):
    return {int(s): (int(b), int(v)) for s, b, v in zip(result.slot, result.basis, result.bit, strict=True)}


@given(clicks, seeds)
def test_every_slot_counts_once_with_what_its_detectors_allow(pairs, seed):
    result = merged(pairs, seed)
    seen = {slot: {d for s, d in pairs if s == slot} for slot, _ in pairs}
    assert result.slot.tolist() == sorted(seen)
    assert result.double_clicks == sum(len(detectors) > 1 for detectors in seen.values())
    for (slot, detectors), first in zip(sorted(seen.items()), result.first, strict=True):
        basis, bit = bits_by_slot(result)[slot]
        assert basis in {d // 2 for d in detectors}
        if len(detectors) == 1:
            assert 2 * basis + bit in detectors
        assert bit in (0, 1)
        assert first == next(i for i, (s, _) in enumerate(pairs) if s == slot)


@given(clicks, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_clicks_changes_nothing(pairs, seed, random):
    shuffled = random.sample(pairs, len(pairs))
    assert bits_by_slot(merged(pairs, seed)) == bits_by_slot(merged(shuffled, seed))


@given(clicks, st.integers(0, 31))
def test_cutting_between_two_slots_changes_nothing(pairs, cut):
    whole = merged(pairs)
    parts = [merged([p for p in pairs if (p[0] < cut) == early]) for early in (True, False)]
    assert bits_by_slot(parts[0]) | bits_by_slot(parts[1]) == bits_by_slot(whole)
    assert sum(part.double_clicks for part in parts) == whole.double_clicks


def test_no_clicks_make_no_bits():
    result = merged([])
    assert result.slot.size == result.basis.size == result.bit.size == result.first.size == 0
    assert result.double_clicks == 0


def test_the_same_detector_twice_in_a_slot_is_no_double_click():
    result = merged([(5, V), (5, V)])
    assert bits_by_slot(result) == {5: (0, 1)}
    assert result.double_clicks == 0


@pytest.mark.parametrize("detectors", [(H, V), (D, A), (H, D), (V, A), (H, V, D), (H, V, D, A)])
def test_the_bit_of_a_double_click_is_fair(detectors):
    slots = 20_000
    result = merged([(slot, d) for slot in range(slots) for d in detectors])
    five_sigma = 5 * np.sqrt(slots) / 2
    assert abs(int(result.bit.sum()) - slots / 2) < five_sigma
    bases = {d // 2 for d in detectors}
    if len(bases) == 2:
        assert abs(int(result.basis.sum()) - slots / 2) < five_sigma
        equal = int((result.basis == result.bit).sum())
        assert abs(equal - slots / 2) < five_sigma  # drawn independently of each other
    else:
        assert set(result.basis.tolist()) == bases


def test_another_seed_chooses_otherwise():
    pairs = [(slot, d) for slot in range(1_000) for d in (H, V)]
    assert merged(pairs, 1).bit.tolist() != merged(pairs, 2).bit.tolist()


def test_slots_far_into_a_pass_keep_their_own_choice():
    far = 30_000_000_000
    pairs = [(slot, d) for slot in range(1_000) for d in (D, A)]
    later = [(slot + far, d) for slot, d in pairs]
    assert merged(pairs).bit.tolist() != merged(later).bit.tolist()
    assert merged(later).slot.tolist() == list(range(far, far + 1_000))


@pytest.mark.parametrize(
    ("match", "intensity", "disclosed", "value", "ours"), list(product((0, 1), (0, 1, 2), (0, 1), (0, 1), (0, 1)))
)
def test_an_answer_byte_is_read_as_the_page_says(match, intensity, disclosed, value, ours):
    if not disclosed:
        value = 0  # bit 4 is "the transmitter's bit when disclosed, else 0"
    byte = match | intensity << 1 | disclosed << 3 | value << 4
    result = sift(np.array([ours], np.uint8), np.array([byte], np.uint8))
    assert bool(result.match[0]) == bool(match)
    assert int(result.intensity[0]) == intensity
    assert bool(result.disclosed[0]) == bool(disclosed)
    assert bool(result.error[0]) == bool(disclosed and value != ours)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 31)), max_size=40))
def test_errors_are_found_in_disclosed_slots_only(pairs):
    result = sift(np.array([b for b, _ in pairs], np.uint8), np.array([a for _, a in pairs], np.uint8))
    assert (result.disclosed | ~result.error).all()
    assert result.match.size == result.intensity.size == len(pairs)
