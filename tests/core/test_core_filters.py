"""Filters against loops over single tags."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core import filters
from groundstation.core.filters import ConditionalFilter, DeadTimeFilter, DelayCompensation, RateBursts
from groundstation.core.tags import EMPTY_BLOCK, TagBlock, UnsortedTags, concatenate

FAR = 1 << 62
origins = st.sampled_from((-FAR, -7, 0, FAR - 5_000))
tags = st.lists(st.tuples(st.sampled_from((0, 0, 1, 2, 3, 9, 50)), st.integers(0, 2)), max_size=60)
cuts = st.lists(st.integers(0, 60), max_size=4)


def block_of(origin, listed):
    time = origin + np.cumsum([d for d, _ in listed], dtype=np.int64) if listed else np.empty(0, np.int64)
    return TagBlock(time, np.array([c for _, c in listed], np.uint8))


def as_list(block):
    return list(zip(block.time_ps.tolist(), block.channel.tolist(), strict=True))


def passed(stage, block, places):
    edges = [0, *sorted(min(p, block.time_ps.size) for p in places), block.time_ps.size]
    parts = [stage.feed(TagBlock(block.time_ps[i:j], block.channel[i:j])) for i, j in pairwise(edges)]
    return concatenate([*parts, stage.finish()])


@given(origins, tags, cuts, st.integers(-60, 60), st.integers(-60, 60))
def test_compensated_tags_are_all_there_and_in_order(origin, listed, places, first, second):
    origin = max(origin, -FAR + 100)
    block = block_of(origin, listed)
    delay = {0: first, 2: second}
    expected = sorted(
        ((t - delay.get(c, 0), delay.get(c, 0), c) for t, c in as_list(block)), key=lambda tag: (tag[0], tag[1])
    )
    stage = DelayCompensation(delay)
    assert as_list(passed(stage, block, places)) == [(t, c) for t, _, c in expected]


@given(tags, st.integers(0, 60), st.integers(-60, 60))
def test_no_tag_comes_before_the_watermark_once_given(listed, place, delay):
    block = block_of(0, listed)
    stage = DelayCompensation({1: delay})
    stage.feed(TagBlock(block.time_ps[:place], block.channel[:place]))
    promised = stage.watermark_ps
    later = concatenate([stage.feed(TagBlock(block.time_ps[place:], block.channel[place:])), stage.finish()])
    assert promised is None or all(time >= promised for time in later.time_ps.tolist())


@given(origins, tags, cuts, st.sampled_from((0, 1, 2, 4, 30, 1000)), st.sampled_from((1, 7, 1 << 16)))
def test_dead_time_counts_from_the_last_kept_tag(origin, listed, places, dead, piece):
    block = block_of(origin, listed)
    last, expected = {}, []
    for t, c in as_list(block):
        if c == 2 or c not in last or t - last[c] >= dead:
            last[c] = t
            expected.append((t, c))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "_PIECE", piece)
        assert as_list(passed(DeadTimeFilter({0: dead, 1: dead}), block, places)) == expected


def test_a_saturated_detector_clicks_once_per_dead_time():
    block = TagBlock(np.arange(200_000) * 10, np.zeros(200_000, np.uint8))
    kept = passed(DeadTimeFilter({0: 95}), block, [12_345, 70_000])
    assert np.array_equal(kept.time_ps, np.arange(0, 2_000_000, 100))


@given(origins, tags, cuts, st.sampled_from((0, 1, 5, 60)))
def test_tags_pass_only_shortly_after_a_trigger(origin, listed, places, window):
    block = block_of(origin, listed)
    trigger, expected = None, []
    for t, c in as_list(block):
        if c == 0:
            trigger = t
        if c != 1 or (trigger is not None and t - trigger <= window):
            expected.append((t, c))
    assert as_list(passed(ConditionalFilter(0, 1, window), block, places)) == expected


@given(origins, tags, cuts, st.integers(2, 5), st.sampled_from((0, 1, 4, 12, 60)), st.sampled_from((None, 1)))
def test_bursts_join_all_windows_that_hold_too_many(origin, listed, places, limit, window, channel):
    block = block_of(origin, listed)
    time = [t for t, c in as_list(block) if channel in (None, c)]
    expected = []
    for i in range(len(time) - limit + 1):
        if time[i + limit - 1] - time[i] <= window:
            if expected and i <= expected[-1][1]:
                expected[-1][1] = i + limit - 1
            else:
                expected.append([i, i + limit - 1])
    stage = RateBursts(limit, window, channel)
    edges = [0, *sorted(min(p, block.time_ps.size) for p in places), block.time_ps.size]
    parts = [stage.feed(TagBlock(block.time_ps[i:j], block.channel[i:j])) for i, j in pairwise(edges)]
    found = [
        row for part in [*parts, stage.finish()] for row in zip(*(column.tolist() for column in part), strict=True)
    ]
    assert found == [(time[i], time[j], j - i + 1) for i, j in expected]


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayCompensation({0: 5}),
        lambda: DeadTimeFilter({0: 5}),
        lambda: ConditionalFilter(0, 1, 5),
        lambda: RateBursts(2, 5),
    ],
)
def test_every_filter_takes_nothing_and_refuses_disorder(make):
    stage = make()
    stage.feed(EMPTY_BLOCK)
    stage.feed(TagBlock(np.array([4]), np.zeros(1, np.uint8)))
    with pytest.raises(UnsortedTags, match="tag 1 is 2 ps before tag 0"):
        stage.feed(TagBlock(np.array([2]), np.zeros(1, np.uint8)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DelayCompensation({0: 1 << 61}), "delays to 2\\^60"),
        (lambda: DeadTimeFilter({0: -1}), "0 to 2\\^60"),
        (lambda: ConditionalFilter(1, 1, 5), "two channels"),
        (lambda: RateBursts(1, 5), "at least 2 tags"),
    ],
)
def test_settings_that_mean_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
