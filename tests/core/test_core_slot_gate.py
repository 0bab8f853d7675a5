"""Slots of a whole stream against a transmitter whose slots are known (work W2 of the reference measurements, scaled),
and against exact fractions."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.beacon_line import BeaconLine, BeaconTracker
from groundstation.core.gating import SlotGate, assign_slots
from groundstation.core.tags import TagBlock, UnsortedTags, concatenate

SLOT_PS, PERIOD_PS, PER_PULSE, HALF_WIDTH_PS = 10_000, 100_000_000, 10_000, 1_000
BEACON = 4


def transmission(tags=200_000, seconds=0.2, offset_ps=7 * 10**17, seed=1):
    """Times, channels and true slots (-1 for noise and beacon) of a stream seen by the receiver's clock."""
    rng = np.random.default_rng(seed)
    length_ps = int(seconds * 1e12)
    slot = rng.integers(0, length_ps // SLOT_PS, tags // 2)
    signal = slot * SLOT_PS + np.rint(rng.normal(0, 300, slot.size)).astype(np.int64)
    noise = rng.integers(0, length_ps, tags - slot.size)
    pulse = np.arange(0, length_ps + 1, PERIOD_PS)
    beacon = pulse + np.rint(rng.normal(0, 50, pulse.size)).astype(np.int64)
    sent = np.concatenate((signal, noise, beacon))
    truth = np.concatenate((slot, np.full(noise.size + pulse.size, -1)))
    channel = np.concatenate((rng.integers(0, 4, tags), np.full(pulse.size, BEACON))).astype(np.uint8)
    seen = sent + offset_ps + np.rint(sent * 5e-6 + 1e-19 * sent.astype(float) ** 2 / 2).astype(np.int64)
    order = np.argsort(seen, kind="stable")
    return TagBlock(seen[order], channel[order]), truth[order]


def gate():
    return SlotGate(BeaconTracker(PERIOD_PS, 100), BEACON, PER_PULSE, SLOT_PS, HALF_WIDTH_PS)


def gated(stage, block, cuts=()):
    """All tags that came out, with slots, phases, gates."""
    edges = sorted({0, block.time_ps.size, *cuts})
    runs = []
    for start, stop in pairwise(edges):
        runs += stage.feed(TagBlock(block.time_ps[start:stop], block.channel[start:stop]))
    runs += stage.finish()
    columns = [np.concatenate([getattr(run.slots, name) for run in runs]) for name in ("slot", "phase_ps", "inside")]
    return concatenate([run.tags for run in runs]), *columns


def test_all_signals_get_their_slot_and_gauss_s_share_of_them_is_inside():
    block, truth = transmission()
    tags, slot, phase, inside = gated(gate(), block)
    signal, noise = truth >= 0, (truth < 0) & (tags.channel != BEACON)
    edge = SLOT_PS / 2 - 1_000  # noise may cover the edge of a slot, signals do not reach it
    assert (slot[signal] == truth[signal]).all()
    assert np.abs(phase[signal]).max() < edge
    share = math.erf(1_000 / math.hypot(300, 5) / math.sqrt(2))
    assert inside[signal].mean() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / signal.sum()))
    assert inside[noise].mean() == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / noise.sum()))


def test_every_tag_comes_out_once_in_order_and_beacon_tags_are_never_inside():
    block, _ = transmission(20_000, 0.03)
    tags, _, _, inside = gated(gate(), block, range(0, 20_000, 777))
    assert tags.time_ps.tolist() == block.time_ps.tolist()
    assert tags.channel.tolist() == block.channel.tolist()
    assert not inside[tags.channel == BEACON].any()


@given(st.lists(st.integers(1, 20_000), max_size=5), st.integers(0, 2))
def test_slots_do_not_depend_on_where_the_stream_is_cut(cuts, seed):
    block, _ = transmission(20_000, 0.05, seed=seed)
    once, often = gated(gate(), block), gated(gate(), block, cuts)
    for one, other in zip(once[1:], often[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_separate_arrays_give_the_slots_of_the_merged_stream():
    block, _ = transmission(50_000, 0.1)
    beacon = block.channel == BEACON
    slots = assign_slots(
        block.time_ps[~beacon], block.time_ps[beacon], BeaconTracker(PERIOD_PS, 100), PER_PULSE, SLOT_PS, HALF_WIDTH_PS
    )
    _, slot, phase, inside = gated(gate(), block)
    np.testing.assert_array_equal(slots.slot, slot[~beacon])
    np.testing.assert_array_equal(slots.phase_ps, phase[~beacon])
    np.testing.assert_array_equal(slots.inside, inside[~beacon])


@given(
    st.integers(-(1 << 62), 1 << 62),
    st.floats(-1.0, 0.0),
    st.floats(0.9999, 1.0001),
    st.integers(0, 10**6),
    st.lists(st.integers(-(10**10), 10**10), min_size=1, max_size=20),
)
def test_slot_and_phase_are_those_of_exact_fractions_anywhere_in_time(zero_ps, fraction, rate, first, places):
    line = BeaconLine(1 << 63, first, zero_ps, fraction, PERIOD_PS * rate, 1, 100, 0, 0.0)
    time = np.clip(zero_ps + np.sort(np.array(places, object)), -(1 << 63), (1 << 63) - 1).astype(np.int64)

    class OneLine:
        def feed(self, beacon_ps, seen_ps):
            return []

        def finish(self):
            return [line._replace(stop_ps=(1 << 63) - 1)]

    slots = assign_slots(time, np.empty(0, np.int64), OneLine(), PER_PULSE, SLOT_PS, HALF_WIDTH_PS)
    for at, slot, phase in zip(time.tolist(), slots.slot.tolist(), slots.phase_ps.tolist(), strict=True):
        if at == (1 << 63) - 1:
            continue
        exact = (Fraction(at - zero_ps) - Fraction(fraction)) / Fraction(line.period_ps) * PER_PULSE
        place = exact + first * PER_PULSE - slot
        assert abs(place * SLOT_PS - Fraction(phase)) < Fraction(1, 500)
        assert abs(place) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_where_the_beacon_pauses_tags_have_no_slot():
    block, truth = transmission(100_000, 0.2)
    elapsed = block.time_ps - block.time_ps[0]
    silent = (block.channel == BEACON) & (elapsed > 5 * 10**10) & (elapsed < 15 * 10**10)
    kept = TagBlock(block.time_ps[~silent], block.channel[~silent])
    _, slot, phase, inside = gated(gate(), kept)
    lost = slot == -1
    assert 0.4 < lost.mean() < 0.55
    assert np.isnan(phase[lost]).all()
    assert not inside[lost].any()
    signal = (truth[~silent] >= 0) & ~lost
    assert (slot[signal] == truth[~silent][signal]).all()


@pytest.mark.parametrize("channel", [0, BEACON])
@pytest.mark.parametrize("time", [[], [0], [-(1 << 62)], [5] * 300, [-(1 << 62), 0, 1 << 62]])
def test_hostile_streams_come_out_without_a_clock(time, channel):
    block = TagBlock(np.array(time, np.int64), np.full(len(time), channel, np.uint8))
    stage = gate()
    runs = stage.feed(block) + stage.finish()
    assert [t for run in runs for t in run.tags.time_ps.tolist()] == time
    assert not any(run.slots.inside.any() for run in runs)


def test_without_a_beacon_tags_do_not_pile_up():
    stage = gate()
    time = np.arange(0, 10**11, 10**6)
    released = sum(
        run.tags.time_ps.size
        for start in range(0, time.size, 1000)
        for run in stage.feed(TagBlock(time[start : start + 1000], np.zeros(1000, np.uint8)))
    )
    assert time.size - released < 1000


def test_a_stream_that_steps_back_is_refused():
    stage = gate()
    stage.feed(TagBlock(np.array([10]), np.zeros(1, np.uint8)))
    with pytest.raises(UnsortedTags):
        stage.feed(TagBlock(np.array([9]), np.zeros(1, np.uint8)))


def test_a_beacon_that_comes_beside_must_go_on_where_the_stream_is():
    stage = gate()
    stage.feed(TagBlock(np.array([10]), np.zeros(1, np.uint8)), np.array([20]))
    with pytest.raises(UnsortedTags):
        stage.feed(TagBlock(np.array([30]), np.zeros(1, np.uint8)), np.array([19]))
    with pytest.raises(UnsortedTags):
        stage.feed(TagBlock(np.array([15]), np.zeros(1, np.uint8)), np.array([30]))


def test_a_gate_wider_than_its_slot_is_refused():
    with pytest.raises(ValueError, match="half_width_ps = 6000, slot_ps = 10000"):
        SlotGate(BeaconTracker(PERIOD_PS), BEACON, PER_PULSE, SLOT_PS, 6_000)
