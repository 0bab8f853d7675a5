"""Delay histograms against counting every pair with Python's own integers, and against a second road to the same."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core import correlation, delay_search
from groundstation.core.correlation import Correlation, autocorrelate, correlate
from groundstation.core.tags import TagBlock, UnsortedTags

FAR = 1 << 62
steps = st.lists(st.sampled_from((0, 0, 1, 3, 10, 11, 40, 1000, 10**9, FAR // 40)), max_size=40)
origins = st.sampled_from((-FAR, -50, -3, 0, 7, 10**15))
bins = st.sampled_from(((10, 10), (30, 10), (12, 1), (1000, 250)))
channels = st.lists(st.integers(0, 3), min_size=40, max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=5)


@pytest.fixture(params=[2, 7, 1 << 16])
def piece(request, monkeypatch):
    """Few tags per piece, so that small cases meet every seam."""
    monkeypatch.setattr(delay_search, "PIECE", request.param)
    monkeypatch.setattr(correlation, "PIECE", request.param)


def stream(origin, gaps):
    return origin + np.cumsum(gaps, dtype=np.int64) if gaps else np.empty(0, np.int64)


def counted(delays, first_edge_ps, half_range_ps, bin_ps):
    """One count per delay, by the definition of the bins."""
    counts = [0] * ((half_range_ps - first_edge_ps) // bin_ps)
    for delay in delays:
        if first_edge_ps <= delay < half_range_ps:
            counts[(delay - first_edge_ps) // bin_ps] += 1
    return counts


def fed(stage, time, channel, cuts=()):
    edges = sorted({0, time.size, *(cut for cut in cuts if cut < time.size)})
    for start, stop in pairwise(edges):
        stage.feed(TagBlock(time[start:stop], channel[start:stop]))
    return stage


@pytest.mark.usefixtures("piece")
class TestAgainstEveryPair:
    @given(origins, steps, origins, steps, bins)
    def test_two_streams(self, origin_a, gaps_a, origin_b, gaps_b, size):
        a, b = stream(origin_a, gaps_a), stream(origin_b, gaps_b)
        found = correlate(a, b, *size)
        delays = [y - x for x in a.tolist() for y in b.tolist()]
        assert found.counts.tolist() == counted(delays, -size[0], *size)
        assert found.first_edge_ps == -size[0]

    @given(origins, steps, channels, cuts, bins)
    def test_one_merged_stream_cut_anywhere(self, origin, gaps, channel, cuts, size):
        time, channel = stream(origin, gaps), np.array(channel, np.uint8)[: len(gaps)]
        stage = fed(Correlation(1, 2, *size), time, channel, cuts)
        a, b = time[channel == 1].tolist(), time[channel == 2].tolist()
        assert stage.finish().counts.tolist() == counted([y - x for x in a for y in b], -size[0], *size)
        assert (stage.tags_a, stage.tags_b) == (len(a), len(b))

    @given(origins, steps, channels, cuts, bins)
    def test_a_channel_with_itself_leaves_out_each_tag_with_itself(self, origin, gaps, channel, cuts, size):
        time, channel = stream(origin, gaps), np.array(channel, np.uint8)[: len(gaps)]
        own = time[channel == 1].tolist()
        delays = [y - x for i, x in enumerate(own) for j, y in enumerate(own) if i != j]
        stage = fed(Correlation(1, 1, *size), time, channel, cuts)
        assert stage.histogram.counts.tolist() == counted(delays, -size[0], *size)
        assert autocorrelate(np.array(own, np.int64), *size).counts.tolist() == counted(delays, -size[0], *size)

    @given(origins, steps, channels, cuts, bins, st.sampled_from((1, 2)))
    def test_start_stop_pairs_neighbours_of_the_two_channels(self, origin, gaps, channel, cuts, size, stop_channel):
        time, channel = stream(origin, gaps), np.array(channel, np.uint8)[: len(gaps)]
        both = [(t, c) for t, c in zip(time.tolist(), channel.tolist(), strict=True) if c in (1, stop_channel)]
        delays = [
            t - before for (before, first), (t, second) in pairwise(both) if first == 1 and second == stop_channel
        ]
        stage = fed(Correlation(1, stop_channel, *size, "start_stop"), time, channel, cuts)
        assert stage.histogram.counts.tolist() == counted(delays, 0, *size)
        assert stage.histogram.first_edge_ps == 0


def random_stream(rng, tags, length_ps):
    return np.sort(rng.integers(0, length_ps, tags))


def test_the_merged_stream_gives_what_the_two_streams_give():
    rng = np.random.default_rng(5)
    a, b = random_stream(rng, 40_000, 4 * 10**10), random_stream(rng, 90_000, 4 * 10**10)
    time = np.concatenate((a, b))
    order = np.argsort(time, kind="stable")
    stage = Correlation(0, 1, 10**6, 1000)
    fed(stage, time[order], (order >= a.size).astype(np.uint8), range(0, time.size, 9_999))
    assert stage.histogram.counts.tolist() == correlate(a, b, 10**6, 1000).counts.tolist()
    assert stage.histogram.counts.sum() > 100_000


def test_exchanging_the_streams_mirrors_all_delays_but_those_on_an_edge():
    rng = np.random.default_rng(6)
    a = 2 * random_stream(rng, 20_000, 10**9)
    b = 2 * random_stream(rng, 20_000, 10**9) + 1  # odd delays never meet an edge of even bins
    forth, back = correlate(a, b, 10_000, 100), correlate(b, a, 10_000, 100)
    assert forth.counts.tolist() == back.counts[::-1].tolist()


@pytest.mark.parametrize(("rate_a", "rate_b"), [(100, 40_000), (40_000, 100), (3, 200_000)])
def test_unequal_rates_and_bursts_after_long_silence_lose_no_pair(rate_a, rate_b):
    rng = np.random.default_rng(7)
    bursts = np.repeat(np.arange(3) * 10**13, (rate_b // 3 + 1))[:rate_b]
    b = np.sort(bursts + rng.integers(0, 10**8, rate_b))
    a = np.sort(rng.choice(b, rate_a) + rng.integers(-500, 500, rate_a))
    low, high = np.searchsorted(b, a - 1000), np.searchsorted(b, a + 1000)
    assert correlate(a, b, 1000, 1000).counts.sum() == (high - low).sum()


def test_a_window_that_holds_more_tags_than_a_piece_is_counted_in_full():
    b = np.arange(300_000)
    counts = correlate(np.array([150_000, 150_001]), b, 10**6, 10**6).counts
    assert counts.tolist() == [150_000 + 150_001, 150_000 + 149_999]


def test_edges_and_centres_are_those_of_the_counts():
    histogram = correlate(np.array([0]), np.array([-20, -1, 0, 9, 10, 19, 20]), 20, 10)
    assert histogram.counts.tolist() == [1, 1, 2, 2]
    assert histogram.edges_ps.tolist() == [-20, -10, 0, 10, 20]
    assert histogram.centres_ps.tolist() == [-15.0, -5.0, 5.0, 15.0]


def test_tags_of_one_time_pair_with_each_other_at_delay_zero():
    assert correlate(np.zeros(300, np.int64), np.zeros(200, np.int64), 1, 1).counts.tolist() == [0, 60_000]
    assert autocorrelate(np.zeros(50, np.int64), 1, 1).counts.tolist() == [0, 50 * 49]


@pytest.mark.parametrize(("a", "b"), [([3, 2], [1]), ([1], [3, 2]), ([0], [10**12, 5 * 10**12, 10**12])])
def test_unsorted_tags_are_refused_wherever_they_are(a, b):
    with pytest.raises(UnsortedTags, match="tags must be sorted"):
        correlate(np.array(a), np.array(b), 100, 10)


def test_a_stage_refuses_a_block_that_begins_before_the_last_one_ended():
    stage = Correlation(0, 1, 100, 10)
    stage.feed(TagBlock(np.array([5]), np.zeros(1, np.uint8)))
    with pytest.raises(UnsortedTags, match="1 ps before the last tag"):
        stage.feed(TagBlock(np.array([4]), np.zeros(1, np.uint8)))


@pytest.mark.parametrize(("half_range_ps", "bin_ps"), [(100, 0), (100, 30), (5, 10), (0, 1), (1 << 57, 1 << 20)])
def test_bins_that_do_not_fit_are_refused_with_what_was_found(half_range_ps, bin_ps):
    with pytest.raises(ValueError, match=f"whole number of bins.*{half_range_ps}.*{bin_ps}"):
        correlate(np.array([0]), np.array([0]), half_range_ps, bin_ps)


def test_an_unknown_rule_of_pairing_is_refused():
    with pytest.raises(ValueError, match="'all' or 'start_stop', not 'some'"):
        Correlation(0, 1, 100, 10, "some")


def test_nothing_and_a_wrong_channel_give_an_empty_histogram():
    nothing = np.empty(0, np.int64)
    assert correlate(nothing, nothing, 100, 10).counts.sum() == 0
    stage = fed(Correlation(8, 300, 100, 10), np.arange(50), np.zeros(50, np.uint8))
    assert stage.finish().counts.sum() == 0
    assert (stage.tags_a, stage.tags_b, stage.duration_ps) == (0, 0, 49)
