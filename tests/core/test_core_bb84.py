"""The whole chain on a link whose every slot is known: yields, sifted bits and errors must come back."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.bb84 import Bb84Chain, packed, record_of, sent_state
from groundstation.core.beacon_line import BeaconTracker
from groundstation.core.sifting import one_click_per_slot
from groundstation.core.tags import TagBlock

SLOT_PS, PERIOD_PS, PER_PULSE = 10_000, 100_000_000, 10_000
PULSES, SYNC, SEED = 300, 4, 11


@cache
def link(error_rate=0.02, clicks=30_000, seed=1, several=0):
    """A stream, what was sent in every slot, and the slots and detectors of its clicks."""
    rng = np.random.default_rng(seed)
    slots = PULSES * PER_PULSE
    basis, bit = rng.integers(0, 2, (2, slots), dtype=np.uint8)
    intensity = rng.choice(np.array([0, 1, 2], np.uint8), slots, p=[0.5, 0.25, 0.25])
    slot = np.sort(rng.choice(slots, clicks, replace=False))
    slot = np.sort(np.concatenate((slot, rng.choice(slot, several))))
    ours = rng.integers(0, 2, slot.size)
    wrong = rng.random(slot.size) < np.where(ours == basis[slot], error_rate, 0.5)
    detector = (2 * ours + (bit[slot] ^ wrong)).astype(np.uint8)
    pulse = np.arange(PULSES + 1)
    time = np.concatenate((slot * SLOT_PS + rng.integers(-400, 400, slot.size), pulse * PERIOD_PS)) + 10**18
    channel = np.concatenate((detector, np.full(pulse.size, SYNC))).astype(np.uint8)
    order = np.argsort(time, kind="stable")
    return TagBlock(time[order], channel[order]), sent_state(basis, bit, intensity), slot, detector


def chain(states):
    return Bb84Chain(BeaconTracker(PERIOD_PS, 100), PER_PULSE, SLOT_PS, 1_000, record_of(packed(states)), SEED)


def tallied(block, states, cuts=()):
    stage = chain(states)
    edges = sorted({0, block.time_ps.size, *cuts})
    for start, stop in pairwise(edges):
        stage.feed(TagBlock(block.time_ps[start:stop], block.channel[start:stop]))
    return stage.finish()


def test_every_click_is_tallied_against_what_was_sent():
    block, states, slot, detector = link()
    tally = tallied(block, states)
    sent = states[slot].astype(int)
    expected = np.zeros((4, 4, 2, 2), int)
    np.add.at(expected, (detector, sent >> 2, sent >> 1 & 1, sent & 1), 1)
    assert tally.table.tolist() == expected.tolist()
    assert (tally.clicks, tally.double_clicks, tally.unmatched, tally.outside) == (slot.size, 0, 0, 0)


def test_sifted_bits_and_errors_are_those_of_the_planted_link():
    block, states, slot, detector = link(error_rate=0.03)
    tally = tallied(block, states)
    sent, ours = states[slot], detector >> 1
    for intensity in range(3):
        match = (sent >> 2 == intensity) & (sent & 1 == ours)
        assert tally.sifted(intensity) == match.sum()
        assert tally.errors(intensity) == ((sent >> 1 & 1) != (detector & 1))[match].sum()
    assert tally.errors(0) / tally.sifted(0) == pytest.approx(0.03, abs=0.01)


def test_slots_with_several_clicks_are_settled_by_the_rule_of_sifting():
    block, states, slot, detector = link(several=3_000)
    tally = tallied(block, states)
    settled = one_click_per_slot(slot, detector, SEED)
    taken = np.bincount(2 * settled.basis + settled.bit, minlength=4)
    assert tally.table.sum(axis=(1, 2, 3)).tolist() == taken.tolist()
    assert tally.double_clicks == settled.double_clicks > 1_000
    assert tally.clicks == slot.size


@given(st.lists(st.integers(1, 6_000), max_size=6))
def test_the_tally_does_not_depend_on_where_the_stream_is_cut(cuts):
    block, states, _, _ = link(clicks=6_000, several=600)
    once, often = tallied(block, states), tallied(block, states, cuts)
    assert once.table.tolist() == often.table.tolist()
    assert once[:4] == often[:4]


@given(st.lists(st.integers(1, 3_000), max_size=6))
def test_a_beacon_beside_the_detectors_gives_the_tally_of_the_merged_stream(cuts):
    block, states, _, _ = link(clicks=3_000, several=300)
    beacon = block.channel == SYNC
    clicks, beacon_ps = TagBlock(block.time_ps[~beacon], block.channel[~beacon]), block.time_ps[beacon]
    stage = chain(states)
    edges = sorted({0, clicks.time_ps.size, *cuts})
    until_ps = [block.time_ps[0], *clicks.time_ps[np.array(edges[1:-1], int)], np.inf]
    pulse_edges = np.searchsorted(beacon_ps, until_ps)
    for (start, stop), (first, last) in zip(pairwise(edges), pairwise(pulse_edges), strict=True):
        stage.feed(TagBlock(clicks.time_ps[start:stop], clicks.channel[start:stop]), beacon_ps[first:last])
    once, beside = tallied(block, states), stage.finish()
    assert once.table.tolist() == beside.table.tolist()
    assert once[:4] == beside[:4]


def test_the_tally_so_far_leaves_out_only_what_may_still_get_a_click():
    block, states, slot, _ = link(clicks=6_000, several=600)
    stage = chain(states)
    for start in range(0, block.time_ps.size, 500):
        stage.feed(TagBlock(block.time_ps[start : start + 500], block.channel[start : start + 500]))
        so_far = stage.tally
        assert so_far.table.sum() >= np.unique(slot[: so_far.clicks]).size - 1
    tally = stage.finish()
    assert tally.table.sum() == np.unique(slot).size
    assert stage.tally.table.tolist() == tally.table.tolist()


def test_clicks_before_the_first_pulse_have_slots_of_their_own():
    block, states, _, _ = link()
    early = block.time_ps[block.channel == SYNC][0] - SLOT_PS * np.array([7, 7, 5, 3, 3, 3])
    time = np.concatenate((early, block.time_ps))
    channel = np.concatenate((np.array([0, 1, 2, 3, 3, 0], np.uint8), block.channel))
    before, after = tallied(block, states), tallied(TagBlock(time, channel), states)
    assert after.table[:, 3].sum() - before.table[:, 3].sum() == 3
    assert after.double_clicks - before.double_clicks == 2
    assert after.clicks - before.clicks == 6


def test_every_detector_tag_is_inside_or_outside():
    block, states, _, _ = link()
    rng = np.random.default_rng(2)
    noise = np.sort(rng.integers(block.time_ps[0] - 10**9, block.time_ps[-1] + 10**9, 20_000))
    time = np.concatenate((block.time_ps, noise))
    order = np.argsort(time, kind="stable")
    channel = np.concatenate((block.channel, rng.integers(0, 4, noise.size).astype(np.uint8)))
    tally = tallied(TagBlock(time[order], channel[order]), states)
    assert tally.clicks + tally.outside == np.count_nonzero(channel < 4)
    assert tally.outside == pytest.approx(0.8 * noise.size, rel=0.05)


def test_clicks_of_a_later_numbering_are_not_matched():
    block, states, _, _ = link()
    later = TagBlock(block.time_ps + 10**13, block.channel)
    stage = chain(states)
    stage.feed(block)
    stage.feed(later)
    tally = stage.finish()
    assert tally.unmatched > 0.9 * 30_000
    assert tally.clicks <= 30_000


def test_of_slots_outside_the_record_nothing_is_known():
    block, states, slot, _ = link()
    tally = tallied(block, states[:1_000_000])
    assert tally.table[:, 3].sum() == np.count_nonzero(slot >= 1_000_000)
    assert tally.table.sum() == slot.size


def test_a_record_of_impossible_states_is_refused():
    with pytest.raises(ValueError, match="states below 16, found 255"):
        packed(np.array([3, 255], np.uint8))
    block, _, _, _ = link()
    stage = Bb84Chain(
        BeaconTracker(PERIOD_PS, 100), PER_PULSE, SLOT_PS, 1_000, lambda slot: np.full(slot.size, 16, np.uint8), SEED
    )
    with pytest.raises(ValueError, match="states below 16, found 16"):
        stage.feed(block)


@given(st.lists(st.integers(0, 15), max_size=9), st.integers(-3, 3), st.lists(st.integers(-9, 15), max_size=9))
def test_a_packed_record_gives_back_each_slot_and_nothing_for_others(states, first, asked):
    record = record_of(packed(np.array(states, np.uint8)), first)
    expected = [states[slot - first] if 0 <= slot - first < len(states) else 12 for slot in sorted(asked)]
    assert record(np.array(sorted(asked), np.int64)).tolist() == expected


def test_nothing_gives_an_empty_tally():
    tally = chain(np.zeros(1, np.uint8)).finish()
    assert (tally.clicks, tally.outside, int(tally.table.sum())) == (0, 0, 0)
