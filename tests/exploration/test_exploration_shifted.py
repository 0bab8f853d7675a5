"""Chance coincidences against a count tag by tag, however the stream is cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.exploration.coinciding import find_pairs, find_pattern
from groundstation.exploration.shifted import SLOTS, windows

TAGS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3)), max_size=60).map(sorted)
CUTS = st.lists(st.integers(0, 60), max_size=4).map(sorted)


def blocks(tags: list[tuple[int, int]], cuts: list[int]) -> list[TagBlock]:
    time, channel = (np.array([tag[k] for tag in tags], kind) for k, kind in ((0, np.int64), (1, np.uint8)))
    return [TagBlock(time[a:b], channel[a:b]) for a, b in pairwise([0, *cuts, len(tags)])]


@given(TAGS, CUTS, st.integers(0, 4), st.integers(9, 30))
def test_a_pattern_and_its_chance(tags: list[tuple[int, int]], cuts: list[int], window: int, shift: int) -> None:
    own: dict[int, list[int]] = {number: [time for time, channel in tags if channel == number] for number in range(4)}

    def has(time: int, channel: int, slot: int) -> bool:
        return any(abs(other - time - slot * shift) <= window for other in own[channel])

    def mean(offsets: list[tuple[int, int]]) -> float:
        """Tags of channel 2 with 0 and 1 so many slots away, and without 3."""
        meets = [
            has(time, 0, first) and has(time, 1, second) and not has(time, 3, 0)
            for first, second in offsets
            for time in own[2]
        ]
        return sum(meets) / len(SLOTS)

    found = find_pattern(blocks(tags, cuts), (2, 0, 1), (3,), windows(window, shift), "it")
    assert found.time_ps.tolist() == [
        time for time in own[2] if has(time, 0, 0) and has(time, 1, 0) and not has(time, 3, 0)
    ]
    assert found.accidentals.mean == mean(list(zip(SLOTS, (*SLOTS[1:], SLOTS[0]), strict=True)))
    assert [level.mean for level in found.one_random] == [
        mean([(slot, slot) for slot in SLOTS]),
        mean([(slot, 0) for slot in SLOTS]),
        mean([(0, slot) for slot in SLOTS]),
    ]
    order = (2, 0, 1, 3)
    for i, j, count, level in found.twofold:
        a, b = order[i], order[j]
        assert count == sum(has(time, b, 0) for time in own[a])
        assert level.mean == sum(has(time, b, slot) for time in own[a] for slot in SLOTS) / len(SLOTS)


@given(TAGS, CUTS, st.integers(0, 4), st.integers(9, 30))
def test_pairs_and_their_chance(tags: list[tuple[int, int]], cuts: list[int], window: int, shift: int) -> None:
    delays = [b - a for a, one in tags if one == 0 for b, other in tags if other == 1]
    found = find_pairs(blocks(tags, cuts), 0, 1, windows(window, shift), "all", "it")
    assert sorted(found.delay_ps.tolist()) == sorted(delay for delay in delays if abs(delay) <= window)
    by_chance = sum(abs(delay - slot * shift) <= window for delay in delays for slot in SLOTS)
    assert found.accidentals.mean == by_chance / len(SLOTS)


@pytest.mark.parametrize("cuts", [[], [100, 200, 299]])
def test_a_crowd_is_refused_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    tags = [(1000, number % 2) for number in range(300)]
    with pytest.raises(BadInput, match="it has more than 256 tags of these channels within"):
        find_pairs(blocks(tags, cuts), 0, 1, windows(1, None), "all", "it")
    assert find_pairs(blocks(tags[:256], [100]), 0, 1, windows(1, None), "all", "it").time_ps.size == 128**2
