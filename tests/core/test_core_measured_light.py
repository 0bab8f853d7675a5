"""Two published measurements (files of timetag/ETA's own tests) and what is known of them.

They are not part of this project: GROUNDSTATION_REFERENCE_DATA names the folder that holds them.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from groundstation.core.correlation import Correlation, autocorrelate, correlate
from groundstation.core.g2 import g2_pulsed
from groundstation.core.histograms import IntervalHistogram
from groundstation.core.tags import TagBlock, UnsortedTags

FOLDER = os.environ.get("GROUNDSTATION_REFERENCE_DATA")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="GROUNDSTATION_REFERENCE_DATA does not name a folder")

RANGE_PS, BIN_PS = 160_000, 16


def hydraharp():
    """Tags of a T2 file of 1 ps resolution: 25 bits of time, 6 of channel, 1 for what is no photon."""
    content = Path(FOLDER, "200204_HH400_T2_320MHz_HBT.timeres").read_bytes()[4392:]
    record = np.frombuffer(content, "<u4").astype(np.int64)
    overflow = record >= 0xFE000000
    wraps = np.cumsum(np.where(overflow, np.maximum(record & 0x1FFFFFF, 1), 0))
    time = (wraps << 25) + (record & 0x1FFFFFF)
    return TagBlock(time[~overflow], (record[~overflow] >> 25).astype(np.uint8))


def qutag():
    content = np.fromfile(Path(FOLDER, "19_qutag_80MHz_HBT_sync_filtered.qutag"), np.uint8)[40:]
    record = content.view([("time", "<i8"), ("channel", "<u2")])
    return TagBlock(np.ascontiguousarray(record["time"]), record["channel"].astype(np.uint8))


def in_order(block):
    order = np.argsort(block.time_ps, kind="stable")
    return TagBlock(block.time_ps[order], block.channel[order])


def delays(block, start, stop):
    stage = Correlation(start, stop, RANGE_PS, BIN_PS)
    stage.feed(block)
    return stage.histogram.counts[RANGE_PS // BIN_PS :]


class TestHydraHarp:
    def test_counts_of_tags_are_those_of_the_file(self):
        block = hydraharp()
        assert np.bincount(block.channel).tolist() == [159_298, 224_721]
        assert block.time_ps[-1] == 999_986_166_686

    @pytest.mark.parametrize(("start", "stop", "name", "pairs"), [(0, 1, "hist1", 24_928), (1, 0, "hist2", 24_663)])
    def test_the_histogram_exceeds_the_published_one_by_what_that_one_is_known_to_lose(self, start, stop, name, pairs):
        block = hydraharp()
        counts = delays(block, start, stop)
        published = np.load(Path(FOLDER, "200204_HH400_T2_320MHz_HBT_g2.npz"))[name]
        assert counts.sum() == pairs
        assert (counts >= published).all()
        assert published.sum() == pytest.approx(counts.sum(), rel=0.01)
        a, b = block.time_ps[block.channel == start], block.time_ps[block.channel == stop]
        assert correlate(a, b, RANGE_PS, BIN_PS).counts[10_000:].tolist() == counts.tolist()

    def test_pulses_come_at_320_mhz(self):
        stage = Correlation(0, 1, RANGE_PS, BIN_PS)
        stage.feed(hydraharp())
        spectrum = np.abs(np.fft.rfft(stage.histogram.counts))
        rate_hz = np.fft.rfftfreq(stage.histogram.counts.size, BIN_PS * 1e-12)
        beyond_slow = rate_hz > 1e8
        assert rate_hz[beyond_slow][spectrum[beyond_slow].argmax()] == pytest.approx(320e6, rel=0.02)


class TestQutag:
    def test_the_file_is_refused_as_it_is_and_says_where_it_steps_back(self):
        block = qutag()
        assert np.count_nonzero(np.diff(block.time_ps) < 0) == 173
        with pytest.raises(UnsortedTags, match="sort or merge first"):
            Correlation(1, 2, RANGE_PS, BIN_PS).feed(block)

    @pytest.mark.parametrize(("start", "stop", "pairs"), [(1, 2, 569), (2, 1, 541), (5, 2, 94_553)])
    def test_sorted_it_gives_the_pairs_counted_by_exact_integers(self, start, stop, pairs):
        assert delays(in_order(qutag()), start, stop).sum() == pairs

    def test_times_beyond_2_to_the_53_keep_their_picoseconds(self):
        block = in_order(qutag())
        assert block.time_ps[0] > 1 << 53
        moved = TagBlock(block.time_ps - block.time_ps[0], block.channel)
        assert delays(block, 5, 2).tolist() == delays(moved, 5, 2).tolist()

    def test_pulses_come_at_80_mhz(self):
        sync = IntervalHistogram(5, 1_000_000, 1)
        sync.feed(in_order(qutag()))
        counts = sync.finish().counts
        interval = np.flatnonzero(counts)
        period = 12_495.603
        off = np.abs(interval - np.rint(interval / period) * period)
        assert np.average(off, weights=counts[interval]) < period / 8

    def test_the_source_sends_one_photon_at_a_time(self):
        block = in_order(qutag())
        a, b = block.time_ps[block.channel == 1], block.time_ps[block.channel == 2]
        g2 = g2_pulsed(correlate(a, b, RANGE_PS, BIN_PS), 12_495.603, 3_000)
        assert g2.pulse.tolist() == list(range(-12, 13))
        assert g2.at_zero + 3 * g2.at_zero_error < 0.5
        assert np.abs((g2.value[g2.pulse != 0] - 1) / g2.standard_error[g2.pulse != 0]).max() < 4

    def test_a_channel_alone_has_no_pair_with_itself(self):
        block = in_order(qutag())
        own = block.time_ps[block.channel == 5]
        assert autocorrelate(own, 10_000, 1_000).counts.sum() == 2 * np.count_nonzero(np.diff(own) < 10_000)
