"""Rates, phases and intervals against counting tag by tag with exact integers and fractions."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core import histograms
from groundstation.core.histograms import ChannelRates, IntervalHistogram, PhaseHistogram
from groundstation.core.tags import TagBlock, UnsortedTags

FAR = 1 << 62
gaps = st.lists(st.sampled_from((0, 0, 1, 7, 99, 100, 10**6, 10**12, FAR // 40)), max_size=40)
origins = st.sampled_from((-FAR, -150, 0, 3))
channels = st.lists(st.integers(0, 3), min_size=40, max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=5)


def blocks(origin, gaps, channel, cuts):
    time = origin + np.cumsum(gaps, dtype=np.int64) if gaps else np.empty(0, np.int64)
    channel = np.array(channel, np.uint8)[: time.size]
    edges = sorted({0, time.size, *(cut for cut in cuts if cut < time.size)})
    parts = [TagBlock(time[i:j], channel[i:j]) for i, j in pairwise(edges)]
    return TagBlock(time, channel), parts


@pytest.fixture(params=[3, 1 << 16], autouse=True)
def piece(request, monkeypatch):
    monkeypatch.setattr(histograms, "_PIECE", request.param)


@given(origins, gaps, channels, cuts, st.sampled_from((1, 100, 10**6, 10**15)))
def test_every_tag_is_in_the_bin_of_its_time_and_every_bin_comes_out_once(origin, gaps, channel, cuts, bin_ps):
    whole, parts = blocks(origin, gaps, channel, cuts)
    stage = ChannelRates(bin_ps, 4)
    rows = [*(stage.feed(part) for part in parts), stage.finish()]
    expected = Counter(zip((whole.time_ps // bin_ps).tolist(), whole.channel.tolist(), strict=True))
    number = np.concatenate([row.bin for row in rows])
    found = np.concatenate([row.counts for row in rows])
    assert number.tolist() == sorted({key for key, _ in expected})
    table = {key: counts.tolist() for key, counts in zip(number.tolist(), found, strict=True)}
    assert {(n, c): k for n, counts in table.items() for c, k in enumerate(counts) if k} == dict(expected)
    assert stage.finish().bin.size == 0


def test_rates_hold_back_only_the_bin_that_may_still_grow():
    stage = ChannelRates(10, 1)
    first = stage.feed(TagBlock(np.array([0, 5, 12, 19]), np.zeros(4, np.uint8)))
    assert (first.bin.tolist(), first.counts.tolist()) == ([0], [[2]])
    second = stage.feed(TagBlock(np.array([19, 40]), np.zeros(2, np.uint8)))
    assert (second.bin.tolist(), second.counts.tolist()) == ([1], [[3]])
    assert stage.finish().bin.tolist() == [4]


def test_a_channel_that_was_not_declared_is_named():
    with pytest.raises(ValueError, match="on channel 4, but only 4 were declared"):
        ChannelRates(10, 4).feed(TagBlock(np.array([0]), np.array([4], np.uint8)))


PERIODS = st.one_of(
    st.sampled_from((Fraction(7), Fraction(1, 3), Fraction(12495603, 1000), Fraction("12495.603123456789"))),
    st.fractions(1, 2**56),
    st.decimals(1, 10**6, places=3).map(Fraction),
)


@given(origins, gaps, channels, cuts, PERIODS, st.integers(1, 300))
def test_phases_are_those_of_exact_fractions(origin, gaps, channel, cuts, period_ps, bins):
    whole, parts = blocks(origin, gaps, channel, cuts)
    stage = PhaseHistogram(2, period_ps, bins)
    for part in parts:
        stage.feed(part)
    times = whole.time_ps[whole.channel == 2].tolist()
    expected = Counter(int(Fraction(time) % period_ps * bins / period_ps) for time in times)
    assert stage.finish().tolist() == [expected[k] for k in range(bins)]


@pytest.mark.parametrize("period_ps", [Fraction(10_000), Fraction("10000.00000000001"), Fraction(10**17, 10**13 + 1)])
def test_ticks_on_the_edges_of_bins_are_counted_where_they_belong(period_ps):
    ticks = np.arange(-50_000, 10**6, 100)
    stage = PhaseHistogram(0, period_ps, 100)
    stage.feed(TagBlock(ticks, np.zeros(ticks.size, np.uint8)))
    expected = Counter(int(Fraction(tick) % period_ps * 100 / period_ps) for tick in ticks.tolist())
    assert stage.counts.tolist() == [expected[k] for k in range(100)]


@given(origins, gaps, channels, cuts)
def test_phases_do_not_depend_on_where_the_stream_is_cut(origin, gaps, channel, cuts):
    whole, parts = blocks(origin, gaps, channel, cuts)
    once, often = PhaseHistogram(1, Fraction(1, 3), 7), PhaseHistogram(1, Fraction(1, 3), 7)
    once.feed(whole)
    for part in parts:
        often.feed(part)
    assert once.counts.tolist() == often.counts.tolist()


@given(origins, gaps, channels, cuts)
def test_intervals_run_from_click_to_click_of_one_channel(origin, gaps, channel, cuts):
    whole, parts = blocks(origin, gaps, channel, cuts)
    stage = IntervalHistogram(1, 1000, 50)
    for part in parts:
        stage.feed(part)
    own = whole.time_ps[whole.channel == 1].tolist()
    intervals = [after - before for before, after in pairwise(own)]
    expected = Counter(interval // 50 for interval in intervals if interval < 1000)
    assert stage.finish().counts.tolist() == [expected[k] for k in range(20)]
    assert stage.longer == sum(interval >= 1000 for interval in intervals)


@given(origins, gaps, channels, cuts, st.integers(1, 50), st.integers(1, 20), st.sampled_from((None, 0, 2)))
def test_the_time_since_the_latest_reference(origin, gaps, channel, cuts, bin_ps, bins, reference):
    whole, parts = blocks(origin, gaps, channel, cuts)
    stage = IntervalHistogram(0, bins * bin_ps, bin_ps, reference)
    for part in parts:
        stage.feed(part)
    early, since, latest = 0, [], None
    for time, number in zip(whole.time_ps.tolist(), whole.channel.tolist(), strict=True):
        if number == 0 and latest is None:
            early += 1
        elif number == 0:
            since.append(time - latest)
        latest = time if number == (reference or 0) else latest
    expected = Counter(time // bin_ps for time in since)
    assert stage.finish().counts.tolist() == [expected[k] for k in range(bins)]
    assert stage.longer == sum(time >= bins * bin_ps for time in since)
    assert (stage.unreferenced, stage.shortest_ps) == (early, min(since, default=None))


def test_the_longest_time_between_two_tags_fits():
    stage = IntervalHistogram(0, 10, 10)
    stage.feed(TagBlock(np.array([-FAR, FAR]), np.zeros(2, np.uint8)))
    assert (stage.longer, stage.shortest_ps) == (1, 2**63)


@pytest.mark.parametrize(
    "make", [lambda: ChannelRates(10, 2), lambda: PhaseHistogram(0, 7, 2), lambda: IntervalHistogram(0, 100, 10)]
)
def test_unsorted_blocks_are_refused(make):
    stage = make()
    stage.feed(TagBlock(np.array([5, 9]), np.zeros(2, np.uint8)))
    with pytest.raises(UnsortedTags):
        stage.feed(TagBlock(np.array([8]), np.zeros(1, np.uint8)))


def test_impossible_bins_are_refused():
    with pytest.raises(ValueError, match="bins of 1 ps or more"):
        ChannelRates(0, 4)
    with pytest.raises(ValueError, match="period above 0"):
        PhaseHistogram(0, 0, 4)
    with pytest.raises(ValueError, match="whole number of bins"):
        IntervalHistogram(0, 25, 10)
