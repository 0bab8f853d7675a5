"""Pairs, choices and patterns against loops that spell out docs/tags.md, and a known stream's statistics."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groundstation.core import overlap, window_search
from groundstation.core.coincidence import MergedPairs, accidentals, merged_pairs, pairs
from groundstation.core.patterns import Pattern, PatternCoincidences
from groundstation.core.tags import TagBlock, UnsortedTags

FAR = 1 << 62
CHOICES = ("all", "nearest", "one_to_one")

origins = st.sampled_from((0, -50, -FAR, FAR - 2_000, 10**18))
steps = st.lists(st.sampled_from((0, 0, 1, 2, 3, 7, 40)), max_size=40)
windows = st.sampled_from((0, 1, 2, 3, 10, 100))
channels = st.integers(0, 3)


def times(origin, deltas):
    return origin + np.cumsum(deltas, dtype=np.int64) if deltas else np.empty(0, np.int64)


def expected_pairs(a, b, window, which, strict=False):
    """Straight from docs/tags.md, in Python's own integers."""
    a, b = a.tolist(), b.tolist()
    near = [(i, j) for i, s in enumerate(a) for j, t in enumerate(b) if abs(t - s) < window + (not strict)]
    if which == "all":
        return near
    if which == "nearest":
        rows = {}
        for i, j in near:
            rows.setdefault(i, []).append((abs(b[j] - a[i]), j))
        return [(i, min(row)[1]) for i, row in rows.items()]
    i = j = 0
    matched = []
    while i < len(a) and j < len(b):
        if (i, j) in near:
            matched.append((i, j))
            i, j = i + 1, j + 1
        elif b[j] < a[i]:
            j += 1
        else:
            i += 1
    return matched


def as_list(found):
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


def cut(block, cuts):
    edges = [0, *sorted(min(c, block.time_ps.size) for c in cuts), block.time_ps.size]
    return [TagBlock(block.time_ps[i:j], block.channel[i:j]) for i, j in pairwise(edges)]


@given(origins, steps, st.integers(-20, 20), steps, windows, st.sampled_from(CHOICES))
@example(0, [0] * 30, 0, [0] * 30, 0, "one_to_one")
@example(0, [], 0, [0], 5, "all")
def test_pairs_of_two_arrays_are_those_of_the_definition(origin, a_steps, shift, b_steps, window, which):
    a, b = times(origin, a_steps), times(origin, b_steps)
    b = np.clip(b + shift, -FAR, FAR) if origin != -FAR else b
    assert as_list(pairs(a, b, window, which)) == expected_pairs(a, b, window, which)


@given(steps, steps, st.integers(1, 10))
def test_strict_leaves_out_the_edge(a_steps, b_steps, window):
    a, b = times(5, a_steps), times(0, b_steps)
    assert as_list(pairs(a, b, window, strict=True)) == expected_pairs(a, b, window, "all", strict=True)


@given(st.integers(0, 2**32), st.sampled_from((1, 1000, 40_000)), st.sampled_from(CHOICES))
def test_many_small_chunks_and_few_buckets_change_nothing(seed, window, which):
    """Tables that are crowded, stale and wrapped around must still give the exact pairs."""
    rng = np.random.default_rng(seed)
    a, b = (np.sort(rng.integers(0, 10 ** int(rng.integers(3, 19)), rng.integers(1, 300))) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_search, "_CHUNK", int(rng.integers(1, 40)))
        patch.setattr(window_search, "_BUCKETS_PER_TAG", int(rng.integers(1, 4)))
        assert as_list(pairs(a, b, window, which)) == expected_pairs(a, b, window, which)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), unique=True, max_size=250), st.integers(0, 80))
def test_few_pairs_put_between_many_come_out_in_order(found, few):
    order = sorted(found[few:]), sorted(found[: few // 2]), sorted(found[few // 2 : few])
    parts = [window_search.Found(*np.array(part, np.int64).reshape(-1, 2).T) for part in order]
    assert as_list(window_search.in_order(parts)) == sorted(found)


def test_numbers_in_the_buckets_begin_anew_before_they_overflow():
    rng = np.random.default_rng(3)
    buckets = window_search.Buckets(5, 100, 100)
    buckets._earlier = 2**31 - 250
    for chunk in range(5):
        a, b = (np.sort(rng.integers(0, 3_000, 100)) + chunk * 10**4 for _ in range(2))
        a[[0, -1]] = chunk * 10**4, chunk * 10**4 + 3_000  # all of B is inside the windows' span
        assert buckets.load(b)
        near, place, before = buckets.last(a, b)
        last = np.searchsorted(b, a + 5, side="right")
        inside = np.flatnonzero(last > np.searchsorted(b, a - 5))
        assert np.array_equal(near, inside)
        assert np.array_equal(place, last[inside])
        assert np.array_equal(before, a[inside] + 5 - b[last[inside] - 1])


@pytest.mark.parametrize("which", CHOICES)
@pytest.mark.parametrize("span", [10**4, 10**7, 10**12, FAR])
def test_bursts_and_silence_give_the_same_pairs_as_a_binary_search(which, span):
    rng = np.random.default_rng(span % 1000)
    burst = rng.integers(0, 10**4, 2_000) + span // 2
    a, b = (np.sort(np.concatenate((burst + rng.integers(0, 50), rng.integers(0, span, 2_000)))) for _ in range(2))
    found = pairs(a, b, 3, which)
    low, high = np.searchsorted(b, a - 3), np.searchsorted(b, a + 3, side="right")
    if which == "all":
        assert np.array_equal(np.bincount(found[0], minlength=a.size), high - low)
    assert np.all(np.abs(b[found[1]] - a[found[0]]) <= 3)
    if which == "nearest":
        assert np.array_equal(found[0], np.flatnonzero(high > low))
    if which == "one_to_one":
        assert np.all(np.diff(found[0]) > 0)
        assert np.all(np.diff(found[1]) > 0)


def test_times_at_both_ends_of_the_range_are_far_apart():
    ends = np.array([-FAR, FAR])
    assert as_list(pairs(ends, ends, 1000)) == [(0, 0), (1, 1)]
    assert as_list(merged_pairs(TagBlock(ends, np.array([0, 1], np.uint8)), 0, 1, 1000)) == []
    near = TagBlock(np.array([-FAR, FAR - 1, FAR]), np.array([0, 0, 1], np.uint8))
    assert as_list(merged_pairs(near, 0, 1, 1)) == [(1, 2)]


@given(
    st.lists(st.tuples(st.sampled_from((0, 0, 1, 2, 7, 40)), channels), max_size=60),
    origins,
    windows,
    st.sampled_from(CHOICES),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 9),
)
def test_pairs_along_a_stream_are_those_of_the_two_channels_however_it_is_cut(tags, origin, window, which, cuts, piece):
    block = TagBlock(times(origin, [d for d, _ in tags]), np.array([c for _, c in tags], np.uint8))
    place_a, place_b = np.flatnonzero(np.isin(block.channel, (0, 3))), np.flatnonzero(block.channel == 1)
    expected = [
        (int(place_a[i]), int(place_b[j]))
        for i, j in expected_pairs(block.time_ps[place_a], block.time_ps[place_b], window, which)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_PIECE", piece)
        stage = MergedPairs((0, 3), 1, window, which)
        parts = [*(stage.feed(part) for part in cut(block, cuts)), stage.finish()]
    assert [pair for part in parts for pair in as_list(part)] == expected
    for part in parts:
        assert np.array_equal(part.time_a_ps, block.time_ps[part.index_a])
        assert np.array_equal(part.delay_ps, block.time_ps[part.index_b] - block.time_ps[part.index_a])
        assert np.array_equal(part.channel_a, block.channel[part.index_a])
        assert np.array_equal(part.channel_b, block.channel[part.index_b])


PATTERNS = (Pattern((0, 1)), Pattern((1, 0, 2)), Pattern((2,), (0,)), Pattern((0, 2), (1,)), Pattern((1,)))


def expected_patterns(block, window):
    time, channel = block.time_ps.tolist(), block.channel.tolist()
    made = []
    for i, t in enumerate(time):
        around = {c for s, c in zip(time, channel, strict=True) if abs(s - t) <= window}
        for row, (required, vetoed) in enumerate(PATTERNS):
            if channel[i] == required[0] and set(required) <= around and not set(vetoed) & around:
                made.append((row, i))
    return made


@given(
    st.lists(st.tuples(st.sampled_from((0, 0, 1, 2, 7, 40)), channels), max_size=60),
    origins,
    windows,
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 9),
)
def test_patterns_are_those_of_the_definition_however_the_stream_is_cut(tags, origin, window, cuts, piece):
    block = TagBlock(times(origin, [d for d, _ in tags]), np.array([c for _, c in tags], np.uint8))
    expected = expected_patterns(block, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_PIECE", piece)
        stage = PatternCoincidences((0, 1, 2), window, PATTERNS, with_indices=True)
        parts = [*(stage.feed(part) for part in cut(block, cuts)), stage.finish()]
    assert [made for part in parts for made in as_list(part)] == expected
    assert stage.counts.tolist() == [sum(row == made[0] for made in expected) for row in range(len(PATTERNS))]
    assert stage.singles.tolist() == [int(np.count_nonzero(block.channel == c)) for c in (0, 1, 2)]


def test_a_pattern_and_its_veto_share_out_all_tags_of_the_reference():
    rng = np.random.default_rng(8)
    block = TagBlock(np.sort(rng.integers(0, 10**7, 20_000)), rng.integers(0, 8, 20_000).astype(np.uint8))
    stage = PatternCoincidences(range(8), 300, ())
    stage.feed(block)
    stage.finish()
    for other in range(1, 8):
        assert stage.count(Pattern((0, other))) + stage.count(Pattern((0,), (other,))) == stage.singles[0]


@pytest.mark.slow
def test_the_reference_stream_holds_as_many_pairs_as_its_statistics_say():
    """W1 at its full size: partners within 1 ns of 300 ps jitter, and chance pairs of two uniform streams."""
    rng = np.random.default_rng(20)
    span, window, count = 10 * 10**12, 1000, 5_000_000
    a = np.sort(rng.integers(0, span, count), kind="stable")
    partners = rng.choice(a, 1_000_000, replace=False) + np.rint(rng.normal(0, 300, 1_000_000)).astype(np.int64)
    b = np.sort(np.concatenate((partners, rng.integers(0, span, 4_000_000))), kind="stable")
    index_a, index_b = pairs(a, b, window)
    assert abs(index_a.size - 1_004_144) < 5 * 77
    assert np.abs(b[index_b] - a[index_a]).max() <= window
    assert index_a.size == (np.searchsorted(b, a + window, side="right") - np.searchsorted(b, a - window)).sum()
    chance = accidentals(a, b, window, [10**5 * k for k in range(1, 6)])
    assert abs(chance.mean - 5_002.5) < 5 * chance.standard_error


@pytest.mark.parametrize("size", [2, 70_000, 200_000])
def test_unsorted_tags_are_refused_by_name_wherever_they_are(size):
    good, bad = np.arange(size) * 10, np.arange(size) * 10
    bad[-1] -= 15
    message = rf"tag {size - 1} is 5 ps before tag {size - 2}; sort or merge first"
    for call in (
        lambda: pairs(bad, good, 1),
        lambda: pairs(good, bad, 1),
        lambda: pairs(np.array([-(10**6)]), bad, 1),
        lambda: MergedPairs(0, 1, 1).feed(TagBlock(bad, np.zeros(size, np.uint8))),
        lambda: PatternCoincidences((0, 1), 1, ()).feed(TagBlock(bad, np.zeros(size, np.uint8))),
    ):
        with pytest.raises(UnsortedTags, match=message):
            call()


def test_a_step_backwards_from_one_block_to_the_next_is_refused():
    stage = MergedPairs(0, 1, 1)
    stage.feed(TagBlock(np.array([5, 8]), np.zeros(2, np.uint8)))
    with pytest.raises(UnsortedTags, match="tag 2 is 1 ps before tag 1"):
        stage.feed(TagBlock(np.array([7]), np.zeros(1, np.uint8)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairs(np.arange(3), np.arange(3), -1), "expected 0 to 2\\^60"),
        (lambda: pairs(np.arange(3), np.arange(3), 0, strict=True), "expected 1 to 2\\^60"),
        (lambda: pairs(np.arange(3), np.arange(3), 1, "closest"), "closest"),
        (lambda: MergedPairs(1, 1, 5), "none to both"),
        (lambda: PatternCoincidences(range(9), 5, ()), "one to 8"),
        (lambda: PatternCoincidences((0, 1), 5, [Pattern((0,), (0,))]), "each channel once"),
        (lambda: PatternCoincidences((0, 1), 5, [Pattern(())]), "requires no channel"),
        (lambda: accidentals(np.arange(3), np.arange(3), 100, [150]), "all beyond the window of 200 ps"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
