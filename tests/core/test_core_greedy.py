"""Greedy pairing without a step per tag, against the loop that its definition is, where windows are much wider than
the spacing of the tags."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groundstation.core.coincidence import MergedPairs, pairs
from groundstation.core.greedy import taken
from groundstation.core.tags import TagBlock


def one_by_one(first, last, before):
    """A takes the first tag of B within its window that no earlier one has taken."""
    found = []
    for place, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        number = max(low, before + 1)
        if number <= high:
            found.append((place, number))
            before = number
    return found


def two_pointers(a, b, half_window_ps):
    """The second definition in docs/tags.md."""
    i = j = 0
    found = []
    a, b = a.tolist(), b.tolist()
    while i < len(a) and j < len(b):
        if abs(b[j] - a[i]) <= half_window_ps:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif b[j] < a[i]:
            j += 1
        else:
            i += 1
    return found


def as_list(found):
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=300), st.integers(0, 12), st.integers(-1, 9))
@example([(0, 0)] * 300, 5, -1)
@example([(1, 1)] * 300, 0, -1)
def test_every_tag_takes_the_first_that_is_free(steps, width, before):
    first = np.cumsum([low for low, _ in steps], dtype=np.int64)
    last = np.maximum.accumulate(np.maximum(first, np.cumsum([high for _, high in steps], dtype=np.int64) + width))
    before = min(before, int(last[0])) if last.size else before
    assert as_list(taken(first, last, before)) == one_by_one(first, last, before)


@given(st.integers(0, 2**32), st.sampled_from((0, 1, 10, 300, 10**5)), st.integers(1, 3_000), st.integers(1, 3_000))
def test_dense_chains_are_those_of_two_pointers_on_arrays_and_along_a_stream(seed, window, count_a, count_b):
    rng = np.random.default_rng(seed)
    a, b = (np.sort(rng.integers(0, 10**4, count)) for count in (count_a, count_b))
    expected = two_pointers(a, b, window)
    assert as_list(pairs(a, b, window, "one_to_one")) == expected
    if window > 300:
        return
    time, channel = np.concatenate((a, b)), np.repeat(np.array([0, 1], np.uint8), (count_a, count_b))
    order = np.argsort(time, kind="stable")
    stage = MergedPairs(0, 1, window, "one_to_one")
    block, cut = TagBlock(time[order], channel[order]), int(rng.integers(0, time.size))
    parts = [stage.feed(TagBlock(*(column[part] for column in block))) for part in (slice(cut), slice(cut, None))]
    parts.append(stage.finish())
    rank = np.concatenate((np.arange(count_a), np.arange(count_b)))[order]
    found = [pair for part in parts for pair in as_list((rank[part.index_a], rank[part.index_b]))]
    assert found == expected


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_long_saturated_chains_over_many_chunks_are_those_of_two_pointers(ratio):
    rng = np.random.default_rng(11)
    a = np.cumsum(rng.integers(0, 2_000, 200_000))
    b = np.cumsum(rng.integers(0, int(2_000 / ratio), int(200_000 * ratio)))
    found = as_list(pairs(a, b, 10_000, "one_to_one"))
    assert found == two_pointers(a, b, 10_000)
    assert len(found) > 0.9 * min(a.size, b.size)
