"""Tags and the map from a tagger's input patterns to logical channels, against sets of inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.tags import (
    CHANNEL_NUMBER,
    CHANNELS,
    EMPTY_BLOCK,
    PatternMap,
    TagBlock,
    UnsortedTags,
    concatenate,
    require_sorted,
)

DEFAULT = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000, "sync": 0b0011, "pps": 0b1100}

wirings = st.lists(st.integers(1, 255), min_size=6, max_size=6, unique=True).map(
    lambda inputs: dict(zip(CHANNELS, inputs, strict=True))
)
events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=60)


def inputs_of(pattern):
    return {bit for bit in range(8) if pattern >> bit & 1}


def taken_apart(pattern, wiring):
    """Channels (ascending) of a pattern and what is left, with sets: patterns of most inputs first."""
    rest, found = inputs_of(pattern), []
    for name in sorted(wiring, key=lambda name: -len(inputs_of(wiring[name]))):
        if inputs_of(wiring[name]) <= rest:
            rest -= inputs_of(wiring[name])
            found.append(CHANNEL_NUMBER[name])
    return sorted(found), rest


def applied(wiring, steps):
    time_ps = np.cumsum([step for step, _ in steps], dtype=np.int64)
    return time_ps, PatternMap(wiring).apply(time_ps, np.array([p for _, p in steps], np.uint8))


@given(wirings, events)
def test_patterns_are_taken_apart_as_with_sets_and_stay_in_order(wiring, steps):
    time_ps, (block, unmapped) = applied(wiring, steps)
    expected = [(t, c) for t, (_, p) in zip(time_ps, steps, strict=True) for c in taken_apart(p, wiring)[0]]
    assert list(zip(block.time_ps, block.channel, strict=True)) == expected
    assert unmapped == sum(bool(taken_apart(p, wiring)[1]) for _, p in steps)
    assert block.time_ps.dtype == np.int64
    assert block.channel.dtype == np.uint8


@given(wirings, events)
def test_no_input_is_lost_or_counted_twice(wiring, steps):
    _, (block, unmapped) = applied(wiring, steps)
    mapped = sum(len(inputs_of(wiring[CHANNELS[c]])) for c in block.channel)
    lit = sum(len(inputs_of(p)) for _, p in steps)
    left = sum(len(taken_apart(p, wiring)[1]) for _, p in steps)
    assert mapped + left == lit
    assert (left == 0) == (unmapped == 0)


@given(wirings, events, st.integers(0, 60))
def test_cutting_the_events_elsewhere_changes_nothing(wiring, steps, cut):
    time_ps, (whole, unmapped) = applied(wiring, steps)
    pattern = np.array([p for _, p in steps], np.uint8)
    parts = [PatternMap(wiring).apply(time_ps[part], pattern[part]) for part in (slice(cut), slice(cut, None))]
    again = concatenate([block for block, _ in parts])
    assert again.time_ps.tolist() == whole.time_ps.tolist()
    assert again.channel.tolist() == whole.channel.tolist()
    assert sum(count for _, count in parts) == unmapped


def test_a_click_together_with_the_beacon_is_two_tags():
    time_ps, pattern = np.array([5, 9], np.int64), np.array([0b0111, 0b1100], np.uint8)
    block, unmapped = PatternMap(DEFAULT).apply(time_ps, pattern)
    assert [CHANNELS[c] for c in block.channel] == ["D", "sync", "pps"]
    assert block.time_ps.tolist() == [5, 5, 9]
    assert unmapped == 0


def test_inputs_that_no_channel_claims_are_counted():
    block, unmapped = PatternMap(DEFAULT).apply(np.arange(3), np.array([0b10000, 0b10001, 0], np.uint8))
    assert [CHANNELS[c] for c in block.channel] == ["H"]
    assert unmapped == 2


def test_blocks_join_in_the_order_given_and_none_is_an_empty_block():
    first, second = (TagBlock(np.array(t), np.array(c, np.uint8)) for t, c in (([1, 2], [0, 4]), ([2], [5])))
    joined = concatenate([first, second])
    assert joined.time_ps.tolist() == [1, 2, 2]
    assert joined.channel.tolist() == [0, 4, 5]
    assert concatenate([]) is EMPTY_BLOCK
    assert concatenate([first]) is first


times = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30).map(lambda values: np.array(values, np.int64))


@given(times, st.none() | st.integers(-(2**63), 2**63 - 1))
def test_times_are_refused_exactly_when_one_steps_backwards(time_ps, after_ps):
    run = ([] if after_ps is None else [after_ps]) + time_ps.tolist()
    if run == sorted(run) or not time_ps.size:
        require_sorted(time_ps, after_ps)
    else:
        with pytest.raises(UnsortedTags, match="tags must be sorted"):
            require_sorted(time_ps, after_ps)


@pytest.mark.parametrize("at", [1, 32_767, 32_768, 32_769, 65_536, 99_999])
def test_a_step_backwards_is_named_with_its_place_and_size_also_at_the_seam_of_two_looks(at):
    time_ps = np.arange(0, 1_000_000, 10)
    time_ps[at:] -= 1_244
    with pytest.raises(UnsortedTags, match=f"tag {at} is 1,234 ps before tag {at - 1};"):
        require_sorted(time_ps)
    with pytest.raises(UnsortedTags, match="tag 0 is 7 ps before the last tag of the block before"):
        require_sorted(np.array([0, 5]), after_ps=7)


def test_equal_and_extreme_times_are_in_order_and_a_block_continues_the_one_before():
    require_sorted(np.array([-(1 << 63), -5, -5, (1 << 63) - 1]), after_ps=-(1 << 63))
    require_sorted(np.empty(0, np.int64), after_ps=3)
    with pytest.raises(UnsortedTags, match="tag 7 is 1 ps before tag 6"):
        require_sorted(np.array([2, 9]), after_ps=3, first=7)
