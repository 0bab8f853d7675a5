"""The tallies of an exploration: exact, and the same however the tags are cut."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.tags import TagBlock
from groundstation.exploration.tallies import DelayTally, phase_tally

TIMES = st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 200), max_size=40).map(sorted)
CUTS = st.lists(st.integers(0, 40), max_size=4).map(sorted)
PERIODS = st.fractions(1, 2**56) | st.integers(1, 10**6).map(Fraction) | st.decimals(1, 10**6, places=3).map(Fraction)


def blocks(time_ps: list[int], channel: list[int], cuts: list[int]) -> list[TagBlock]:
    whole = TagBlock(np.array(time_ps, np.int64), np.array(channel, np.uint8))
    edges = [0, *cuts, len(time_ps)]
    return [TagBlock(whole.time_ps[a:b], whole.channel[a:b]) for a, b in pairwise(edges)]


@given(TIMES, st.data(), CUTS, st.integers(1, 50), st.integers(1, 20), st.booleans())
def test_the_time_since_the_latest_reference(
    time_ps: list[int], data: st.DataObject, cuts: list[int], bin_ps: int, bins: int, own: bool
) -> None:
    channel = data.draw(st.lists(st.integers(0, 2), min_size=len(time_ps), max_size=len(time_ps)))
    reference = 0 if own else 1
    expected, early, since = np.zeros(bins + 1, np.int64), 0, []
    latest = None
    for time, number in zip(time_ps, channel, strict=True):
        if number == 0 and latest is None:
            early += 1
        elif number == 0 and latest is not None:
            since.append(time - latest)
            expected[min((time - latest) // bin_ps, bins)] += 1
        latest = time if number == reference else latest
    tally = DelayTally(0, reference, bin_ps, bins)
    for block in blocks(time_ps, channel, cuts):
        tally.feed(block)
    assert tally.counts.tolist() == expected.tolist()
    assert tally.unreferenced == early
    assert tally.shortest_ps == min(since, default=None)


@given(TIMES, CUTS, PERIODS, st.integers(1, 300))
def test_a_phase_is_exact_while_its_numbers_fit(
    time_ps: list[int], cuts: list[int], period: Fraction, bins: int
) -> None:
    tally = phase_tally(0, period, bins)
    for block in blocks(time_ps, [0] * len(time_ps), cuts):
        tally.feed(block)
    assert tally.counts.sum() == len(time_ps)
    if period.numerator * max(period.denominator, bins) < 2**62:
        expected = np.zeros(bins, np.int64)
        for time in time_ps:
            expected[int(time % period / period * bins)] += 1
        assert tally.counts.tolist() == expected.tolist()
