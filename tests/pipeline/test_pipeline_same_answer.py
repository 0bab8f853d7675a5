"""The same recording gives the same report: live or replayed, cut anywhere, answered late, begun anew."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pipeline_samples import (
    RUN_ID,
    InProcessTransmitter,
    Session,
    column,
    event_tables,
    flown,
    in_memory,
    record,
    replayed,
    report_of,
    tag_segments,
    telemetry_tables,
    truth_tables,
)

from groundstation.recording.copy import recut
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import seal_in_child
from groundstation.recording.writer import StreamWriter


def test_a_replay_of_the_directory_gives_the_live_report(near_pass):
    assert report_of(replayed(near_pass.directory)) == near_pass.report
    assert near_pass.result.complete
    assert near_pass.result.remarks == ()


def test_a_replay_of_the_sealed_file_gives_the_live_report(near_pass, tmp_path):
    seal_in_child(near_pass.directory, tmp_path / "recording.h5")
    assert report_of(replayed(tmp_path / "recording.h5")) == near_pass.report


@pytest.mark.parametrize("rows", [1_000, 100_000])
def test_other_segment_sizes_give_the_live_report(near_pass, tmp_path, rows):
    recut(open_recording(near_pass.directory), tmp_path / "cut", rows)
    assert report_of(replayed(tmp_path / "cut")) == near_pass.report


@pytest.mark.slow
def test_segments_of_seven_rows_give_the_live_report(far_pass, tmp_path):
    recut(open_recording(far_pass.directory), tmp_path / "cut", 7)
    assert report_of(replayed(tmp_path / "cut")) == far_pass.report


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(1, 9_000), min_size=1, max_size=8))
def test_tags_cut_anywhere_give_the_live_report(far_pass, far_answers, rows):
    scene = far_pass.scene

    def cut():
        done, total = 0, scene.tags.time_ps.size
        for size in itertools.cycle(rows):
            part = slice(done, done + size)
            done = min(done + size, total)
            ledger = {"seen": done, "recorded": done, "dropped": {}, "missed": None}
            notes = {"zero_device_ps": scene.zero_device_ps, "utc_label": scene.label, "ledger": ledger}
            yield {"tags": {"time_ps": scene.tags.time_ps[part], "channel": scene.tags.channel[part]}}, notes
            if done == total:
                return

    assume(scene.tags.time_ps.size * len(rows) / sum(rows) < 3_000)
    assert report_of(replayed(in_memory(scene, far_answers, cut))) == far_pass.report


def test_segments_of_seven_tags_give_the_live_report(far_pass, far_answers):
    scene = far_pass.scene
    tables_and_notes = ((tables, notes) for tables, notes in tag_segments(scene, interval_s=7 / 12_000))
    assert report_of(replayed(in_memory(scene, far_answers, lambda: tables_and_notes))) == far_pass.report


@pytest.mark.parametrize(
    "manner",
    [
        {"delay_polls": 40},
        {"delay_polls": 5, "shuffle_seed": 2},
        {"repeat": True},
        {"repeat": True, "shuffle_seed": 3},
    ],
)
def test_late_shuffled_and_repeated_answers_give_the_same_report(near_pass, tmp_path, manner):
    directory = record(near_pass.scene, tmp_path / "recording")
    result, transmitter = flown(directory, near_pass.scene, **manner)
    assert report_of(result) == near_pass.report
    assert set(transmitter.asked.values()) == {1}
    assert report_of(replayed(directory)) == near_pass.report


@pytest.mark.parametrize("dropped_after_steps", [[1], [6], [3, 2, 2, 2]])
def test_an_analysis_that_is_killed_again_and_again_gives_the_same_report(near_pass, tmp_path, dropped_after_steps):
    scene = near_pass.scene
    directory = record(scene, tmp_path / "recording")
    for steps in dropped_after_steps:
        answered_before = answered_batches(directory)
        transmitter = InProcessTransmitter(scene, delay_polls=2)
        session = Session(directory, transmitter)
        for _ in range(steps):
            session.step()
        session.abandon()
        assert not answered_before & set(transmitter.asked), "what was answered and recorded is not asked again"
    answered_before = answered_batches(directory)
    result, transmitter = flown(directory, scene, delay_polls=2)
    assert report_of(result) == near_pass.report
    assert not answered_before & set(transmitter.asked)
    assert answered_before | set(transmitter.asked) == set(near_pass.transmitter.asked)
    slots = column(open_recording(directory), "answers", "answers", "slot")
    assert len(slots) == len(set(slots.tolist())), "no slot is recorded twice"
    assert report_of(replayed(directory)) == near_pass.report


def answered_batches(directory):
    if "answers" not in open_recording(directory).streams():
        return set()
    reader = open_recording(directory).stream("answers")
    tables = [item.tables["answers"]["batch"] for item in reader.poll(10**6) if "answers" in item.tables]
    return set(np.concatenate(tables).tolist()) if tables else set()


class Growing:
    """A recording that grows by one segment of one stream at a time."""

    def __init__(self, scene, directory, interval_s):
        create_recording(directory, scene.manifest)
        self._streams = {
            "telemetry": [(tables, {}) for tables in telemetry_tables(scene)],
            "events": [(tables, {}) for tables in event_tables()],
            "truth": [(tables, {}) for tables in truth_tables(scene)],
            "tags": list(tag_segments(scene, interval_s)),
        }
        self._writers = {name: StreamWriter(directory, name, RUN_ID) for name in self._streams}

    def grow(self, stream):
        """Publish the stream's next segment, or its end; False when it has ended before."""
        if stream not in self._writers:
            return False
        if self._streams[stream]:
            self._writers[stream].publish(*self._streams[stream].pop(0))
        else:
            with self._writers.pop(stream) as writer:
                writer.publish({}, end=True)
        return True

    @property
    def open_streams(self):
        return sorted(self._writers)


@pytest.mark.parametrize("seed", [1, 2])
def test_following_a_growing_recording_gives_the_same_report(near_pass, tmp_path, seed):
    random = np.random.default_rng(seed)
    directory = tmp_path / "recording"
    growing = Growing(near_pass.scene, directory, interval_s=0.05 + 0.4 * random.random())
    session = Session(directory, InProcessTransmitter(near_pass.scene, delay_polls=3, shuffle_seed=seed))
    while growing.open_streams:
        growing.grow(str(random.choice(growing.open_streams)))
        for _ in range(random.integers(0, 3)):
            session.step()
        assert not session.analysis.finished or not growing.open_streams or growing.open_streams == ["events"]
    assert session.finish().report() == near_pass.report
    assert report_of(replayed(directory)) == near_pass.report


def test_while_it_follows_it_analyses_what_is_there_and_no_more(near_pass, tmp_path):
    scene, directory = near_pass.scene, tmp_path / "recording"
    growing = Growing(scene, directory, interval_s=0.5)
    session = Session(directory, InProcessTransmitter(scene))
    seen = []
    while growing.grow("tags"):
        session.until_idle()
        seen.append(session.analysis.tallies.gated)
        assert session.analysis.tallies.gated == 0, "nothing can be placed without the predicted path"
    while growing.grow("telemetry"):
        session.until_idle()
        seen.append(session.analysis.tallies.gated)
    assert near_pass.result.gated >= seen[-1] > 0.9 * near_pass.result.gated
    assert session.finish().result().gated == near_pass.result.gated


def test_analysis_keeps_within_a_second_or_two_of_a_recording_that_grows(near_pass, tmp_path):
    scene, directory = near_pass.scene, tmp_path / "recording"
    growing = Growing(scene, directory, interval_s=0.25)
    while growing.grow("telemetry"):
        pass
    session = Session(directory, InProcessTransmitter(scene))
    behind_s = []
    for segment in itertools.count(1):
        if not growing.grow("tags"):
            break
        session.until_idle()
        if session.analysis.progress.analysed_utc_ns > scene.manifest["window"]["start_utc_ns"]:
            newest_ps = scene.tags.time_ps[0] + segment * 10**12 // 4
            newest_utc_ns = scene.label["utc_ns"] + (newest_ps - scene.label["time_ps"]) // 1000
            behind_s.append((newest_utc_ns - session.analysis.progress.analysed_utc_ns) * 1e-9)
    assert max(behind_s) < 1.5
    session.finish()


def test_the_result_may_be_asked_for_at_any_moment(near_pass, tmp_path):
    directory = record(near_pass.scene, tmp_path / "recording")
    session = Session(directory, InProcessTransmitter(near_pass.scene, delay_polls=1))
    detections = []
    while session.step():
        detections.append(session.result().detections)
    assert detections == sorted(detections)
    assert session.finish().report() == near_pass.report


def test_every_batch_is_asked_for_once_and_every_gated_slot_once(near_pass):
    transmitter = near_pass.transmitter
    assert set(transmitter.asked.values()) == {1}
    slots = Counter(np.concatenate(list(transmitter.slots.values())).tolist())
    assert max(slots.values()) == 1
    assert sum(slots.values()) == near_pass.result.gated - extra_clicks(near_pass)


def extra_clicks(near_pass):
    """Gated clicks beyond the first of their slot, counted on what the analysis told its observer."""
    session = Session(near_pass.directory).finish()
    slots = np.concatenate([slot for _, slot in session.claims])
    return slots.size - np.unique(slots).size
