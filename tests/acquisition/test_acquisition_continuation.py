"""Going on in an interrupted recording: from its last good segment, and only when the tagger's time goes on."""

import numpy as np
import pytest
from acquisition_samples import WIRED, Counted, CountingTagger, check_recording
from hypothesis import given
from hypothesis import strategies as st

from groundstation.acquisition.buffer import Progress
from groundstation.acquisition.continuation import (
    TimeBaseLost,
    check_time_goes_on,
    earlier_recorder,
    progress_notes,
    progress_of,
)
from groundstation.acquisition.daemon import Acquisition
from groundstation.acquisition.receiver import INTERRUPTED
from groundstation.clock import SystemClock
from groundstation.core.timebase import UtcLabel
from groundstation.errors import TransportLost
from groundstation.recording.manifest import create_recording, read_manifest
from groundstation.recording.writer import StreamWriter

PS = 10**12
TAGS = Counted()


class BreakingTagger(CountingTagger):
    """Its link is lost when all is given out, as the recorder's process might be."""

    def read(self, timeout_s):
        block = super().read(timeout_s)
        if self.exhausted:
            raise TransportLost("pulled")
        return block


def record(directory, tagger, earlier=None):
    run_id = read_manifest(directory)["run_id"]
    with StreamWriter(directory, "tags", run_id) as writer:
        acquisition = Acquisition(tagger, WIRED, writer, SystemClock(), 0.02, 1e-6, earlier=earlier)
        acquisition.run(lambda: tagger.exhausted, lambda _: None)


def interrupted(directory):
    """200,000 tags, and no end."""
    create_recording(directory, {})
    with pytest.raises(TransportLost):
        record(directory, BreakingTagger(TAGS, 20, rate_hz=1e6))


def test_a_recording_goes_on_behind_a_gap_with_the_same_zero_and_the_same_books(tmp_path):
    interrupted(tmp_path / "recording")
    earlier = earlier_recorder(tmp_path / "recording")
    assert earlier is not None
    assert (earlier.ledger.recorded, earlier.ended) == (200_000, False)
    record(tmp_path / "recording", CountingTagger(TAGS, 20, rate_hz=1e6, first=1_300_000), earlier)
    found = check_recording(tmp_path / "recording", TAGS)
    assert (found.tags, found.first, found.last) == (400_000, 1_000_000, 1_499_999)
    assert (found.missing, found.gaps) == (100_000, {INTERRUPTED: 1})
    assert found.ledger.seen == 400_000
    again = earlier_recorder(tmp_path / "recording")
    assert again is not None
    assert again.ended


def test_a_damaged_last_segment_is_passed_over(tmp_path):
    interrupted(tmp_path / "recording")
    *_, before, last = sorted((tmp_path / "recording" / "tags").glob("*.h5"))
    last.write_bytes(last.read_bytes()[:-100])
    earlier = earlier_recorder(tmp_path / "recording")
    last.unlink()
    assert earlier == earlier_recorder(tmp_path / "recording")
    assert before.exists()


def test_tags_of_a_tagger_that_was_restarted_never_go_into_the_recording(tmp_path):
    interrupted(tmp_path / "recording")
    earlier = earlier_recorder(tmp_path / "recording")
    with pytest.raises(TimeBaseLost, match="begin a new one"):
        record(tmp_path / "recording", CountingTagger(TAGS, 20, rate_hz=1e6, first=0), earlier)
    assert check_recording(tmp_path / "recording", TAGS).tags == 200_000


@pytest.mark.parametrize(("late_s", "speed", "goes_on"), [
    (0.0, 1.0, True), (4.0, 1.0, True), (-0.4, 1.0, True), (-0.6, 1.0, False), (6.0, 1.0, False),
    (40.0, 10.0, True), (60.0, 10.0, False), (-4.0, 10.0, True),
])  # fmt: skip
def test_a_read_may_be_late_but_not_early(late_s, speed, goes_on):
    earlier = Progress(zero_device_ps=77 * PS, latest_ps=100 * PS, host_utc_ns=1_000_000 * 10**9)
    latest_ps = 177 * PS + round((50 - late_s) * PS)
    arguments = (earlier, latest_ps - PS, latest_ps, (1_000_000 + 50) * 10**9, speed)
    if goes_on:
        check_time_goes_on(*arguments)
    else:
        with pytest.raises(TimeBaseLost):
            check_time_goes_on(*arguments)


def test_time_that_goes_back_is_refused_even_within_the_tolerance():
    earlier = Progress(zero_device_ps=0, latest_ps=100 * PS, host_utc_ns=10**18)
    with pytest.raises(TimeBaseLost):
        check_time_goes_on(earlier, 99 * PS, 101 * PS, 10**18 + 10**9, 1.0)


labels = st.none() | st.builds(UtcLabel, st.integers(0, 2**62), st.integers(0, 2**62), st.floats(0, 1))


@given(
    st.builds(
        Progress,
        st.none() | st.integers(-(2**62), 2**62),
        st.integers(0, 2**62),
        st.integers(),
        labels,
        st.floats(0, 1e6),
    )
)
def test_notes_give_the_progress_back(progress):
    assert progress_of(progress_notes(progress)) == progress


def test_a_recording_without_segments_has_no_earlier_recorder(tmp_path):
    create_recording(tmp_path / "recording", {})
    assert earlier_recorder(tmp_path / "recording") is None
    assert np.all(TAGS.number_at(TAGS.time_ps(np.arange(1000))) == np.arange(1000))
