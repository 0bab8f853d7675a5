"""What is missing from a recording is named, excluded and accounted for; the rest is analysed as if nothing was."""

import shutil

import numpy as np
import pytest
from pipeline_samples import (
    PS,
    SYNC,
    InProcessTransmitter,
    Session,
    make_scene,
    publish,
    read_all,
    record,
    replayed,
    report_of,
    tag_segments,
)

from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import seal_in_child
from groundstation.report.document import observed_s, rate_hz, report_document

WINDOW_S = 0.1  # of one fit of the beacon


def clicks_in_window(scene, time_ps, channel):
    """How many of these tags are clicks inside the counting window."""
    inside = (time_ps >= scene.time_ps(0)) & (time_ps < scene.time_ps(scene.window_s))
    return int(np.count_nonzero(inside & (channel < 4)))


def claimed_s(session, scene):
    """When gated clicks were recorded, in seconds after the start of the window."""
    time_ps = np.concatenate([time_ps for time_ps, _ in session.claims])
    return (time_ps - scene.time_ps(0)) * 1e-12


def assert_rates_agree_with(result, undisturbed):
    """Every second that was observed at all has the rate of the undisturbed analysis, within 5 standard errors."""
    length_s = observed_s(result)
    seen = length_s > 0.05
    rate, expected = rate_hz(result.signal_per_second, result), rate_hz(undisturbed.signal_per_second, undisturbed)
    error = np.sqrt(expected[seen] / length_s[seen])
    assert np.all(np.abs(rate[seen] - expected[seen]) < 5 * error), (rate, expected, length_s)


def with_gap(scene, start_s, stop_s, missed=None, told=True):
    """The scene without the tags of an interval, and its segments, which may tell of it."""
    holed = scene.keeping(~scene.between(start_s, stop_s))
    gap = (scene.time_ps(start_s), scene.time_ps(stop_s), missed, "overflow of the buffer")
    return holed, list(tag_segments(holed, gaps=[gap] if told else [], missed=missed))


@pytest.mark.parametrize("missed", [None, 6_000])
def test_a_gap_is_named_excluded_and_its_seconds_are_accounted_for(near_pass, fly, missed):
    scene = near_pass.scene
    holed, segments = with_gap(scene, 2.05, 2.32, missed)
    session = fly(holed, segments=segments)
    result = session.result()
    (gap,) = result.gaps
    assert (gap.start_ps, gap.stop_ps) == (pytest.approx(2.05 * PS), pytest.approx(2.32 * PS))
    assert (gap.missed, gap.cause) == (missed, "overflow of the buffer")
    assert not result.complete
    assert "1 gaps with unaccounted tags are excluded." in result.remarks
    assert result.ledger_missed == missed
    assert result.detections == holed.detections_in_window()
    assert 0.27 <= result.excluded_s <= 0.27 + 2 * WINDOW_S
    assert sum(result.unused_s_per_second) == pytest.approx(result.excluded_s, abs=1e-6)
    assert result.unused_s_per_second == pytest.approx([0, 0, result.excluded_s, 0, 0, 0, 0], abs=2e-3)
    claimed = claimed_s(session, scene)
    beside = (claimed > 2.05 - 2 * WINDOW_S) & (claimed < 2.32 + 2 * WINDOW_S)
    assert beside.sum() < 0.45 * len(claimed) / scene.window_s
    assert not ((claimed > 2.05) & (claimed < 2.32)).any()
    assert_rates_agree_with(result, near_pass.result)
    untouched = [0, 3, 4, 5, 6]
    assert result.gated_per_second[untouched].tolist() == near_pass.result.gated_per_second[untouched].tolist()
    assert report_of(replayed(session.recording._path)) == session.report()


def test_a_gap_outside_the_window_takes_nothing_from_it(near_pass, fly):
    holed, segments = with_gap(near_pass.scene, -0.9, -0.6)
    result = fly(holed, segments=segments).result()
    assert len(result.gaps) == 1
    assert result.complete
    assert result.excluded_s == 0
    assert result.signal_per_second.tolist() == near_pass.result.signal_per_second.tolist()


def test_tags_that_nobody_misses_still_cost_the_clock_where_the_beacon_is_gone(near_pass, fly):
    holed, segments = with_gap(near_pass.scene, 2.0, 3.0, told=False)
    result = fly(holed, segments=segments).result()
    assert result.detections == holed.detections_in_window()
    assert 0.8 <= result.unsynchronised_s <= 1.2
    assert_rates_agree_with(result, near_pass.result)


# --- damaged segments ------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


def segment_path(directory, stream, number):
    return directory / stream / f"{number:06d}.h5"


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_segment_is_named_and_the_rest_is_analysed(near_pass, near_copy, damage):
    lost = read_all(open_recording(near_pass.directory), "tags")[9]
    damage(segment_path(near_copy, "tags", 10))
    session = Session(near_copy).finish()
    result = session.result()
    (gap,) = result.gaps
    assert "tags/000010.h5" in gap.cause
    assert gap.missed == lost.rows["tags"]
    lost_clicks = clicks_in_window(near_pass.scene, lost.tables["tags"]["time_ps"], lost.tables["tags"]["channel"])
    assert lost_clicks > 5_000
    assert result.detections == near_pass.result.detections - lost_clicks
    assert not result.complete
    assert sum(result.unused_s_per_second) == pytest.approx(result.excluded_s, abs=1e-6)
    assert 0.37 <= result.excluded_s <= 0.37 + 2 * WINDOW_S
    assert_rates_agree_with(result, near_pass.result)


def test_the_sealed_file_of_a_damaged_recording_gives_the_same_report(near_copy, tmp_path):
    flip(segment_path(near_copy, "tags", 10))
    seal_in_child(near_copy, tmp_path / "recording.h5")
    assert report_of(replayed(tmp_path / "recording.h5")) == report_of(replayed(near_copy))


def test_damaged_segments_in_a_row_are_all_named_and_counted_once(near_pass, near_copy):
    lost = read_all(open_recording(near_pass.directory), "tags")[9:12]
    for number, damage in ((10, flip), (11, remove), (12, truncate)):
        damage(segment_path(near_copy, "tags", number))
    (gap,) = replayed(near_copy).gaps
    assert all(name in gap.cause for name in ("000010.h5", "000011.h5", "000012.h5"))
    assert gap.missed == sum(segment.rows["tags"] for segment in lost)


def test_two_holes_are_two_gaps(near_copy):
    flip(segment_path(near_copy, "tags", 8))
    flip(segment_path(near_copy, "tags", 12))
    result = replayed(near_copy)
    assert ["000008.h5" in result.gaps[0].cause, "000012.h5" in result.gaps[1].cause] == [True, True]
    assert "2 gaps with unaccounted tags are excluded." in result.remarks


@pytest.mark.parametrize("number", [1, 2, 5, -2, -1])
def test_whichever_segment_is_damaged_there_is_a_report_and_it_is_incomplete(near_pass, near_copy, number):
    whole = read_all(open_recording(near_pass.directory), "tags")
    lost = whole[number - 1 if number > 0 else number]
    flip(segment_path(near_copy, "tags", lost.number))
    result = replayed(near_copy)
    table = lost.tables.get("tags", {"time_ps": np.empty(0), "channel": np.empty(0)})
    lost_clicks = clicks_in_window(near_pass.scene, table["time_ps"], table["channel"])
    assert result.detections == near_pass.result.detections - lost_clicks
    assert not result.complete
    assert any(f"{lost.number:06d}.h5" in gap.cause for gap in result.gaps)
    assert_rates_agree_with(result, near_pass.result)


def test_damaged_answers_are_named_and_left_out(near_pass, near_copy):
    damaged = read_all(open_recording(near_pass.directory), "answers")[3]
    flip(segment_path(near_copy, "answers", 4))
    result = replayed(near_copy)
    assert result.unanswered == damaged.rows["answers"]
    assert any("answers/000004.h5" in remark for remark in result.remarks)
    assert result.sifted[0].sum() < near_pass.result.sifted[0].sum()
    assert result.detections == near_pass.result.detections


def test_a_damaged_path_is_named_and_nothing_is_sifted(near_copy):
    flip(segment_path(near_copy, "telemetry", 1))
    result = replayed(near_copy)
    assert any("telemetry/000001.h5" in remark for remark in result.remarks)
    assert result.sifted.sum() == 0
    assert not result.complete


# --- the beacon -------------------------------------------------------------------------------------------


def test_two_seconds_without_beacon_are_excluded_and_the_numbering_goes_on(near_pass, fly):
    scene = near_pass.scene
    dark = scene.keeping(~(scene.between(1.9, 4.1) & (scene.tags.channel == SYNC)))
    session = fly(dark)
    result = session.result()
    assert result.complete, "nothing was lost: there was no beacon"
    assert result.detections == near_pass.result.detections
    assert 2.1 <= result.unsynchronised_s <= 2.3 + WINDOW_S
    assert sum(result.unused_s_per_second) == pytest.approx(result.unsynchronised_s, abs=1e-6)
    claimed = claimed_s(session, scene)
    assert not ((claimed > 1.9 + WINDOW_S) & (claimed < 4.1 - WINDOW_S)).any()
    assert report_document(result)["sifted_rate"]["rate_hz"][3] is None
    assert result.gated_per_second[[0, 5, 6]].tolist() == near_pass.result.gated_per_second[[0, 5, 6]].tolist()
    assert_rates_agree_with(result, near_pass.result)
    assert session.judge.truth().slots_assigned_wrongly == 0


@pytest.mark.parametrize("dark_s", [12, pytest.param(46, marks=pytest.mark.slow)])
def test_a_long_time_without_beacon_ends_with_a_new_acquisition(fly, dark_s):
    """46 s are more slots than fit into one increment of an ASK."""
    scene = make_scene(88.0, dark_s + 3.0, margin_s=1.0)
    dark = scene.keeping(~(scene.between(1.5, 1.5 + dark_s) & (scene.tags.channel == SYNC)))
    session = fly(dark)
    result = session.result()
    assert dark_s - WINDOW_S <= result.unsynchronised_s <= dark_s + WINDOW_S
    assert result.gated_per_second[0] > 500
    assert result.gated_per_second[-1] > 200
    assert result.unanswered == 0
    assert session.judge.truth().slots_assigned_wrongly == 0
    assert report_of(replayed(session.recording._path)) == session.report()


# --- the window -------------------------------------------------------------------------------------------


def test_a_recording_that_begins_late_says_by_how_much(near_pass, fly):
    scene = near_pass.scene
    late = scene.keeping(scene.tags.time_ps >= scene.time_ps(2.35))
    result = fly(late).result()
    assert not result.complete
    assert "Recording began 2.4 s after the window opened." in result.remarks or (
        "Recording began 2.3 s after the window opened." in result.remarks
    )
    assert result.detections == late.detections_in_window()
    assert result.unused_s_per_second[:2] == pytest.approx([1.0, 1.0])
    assert 0.35 <= result.unused_s_per_second[2] <= 0.35 + WINDOW_S + 1e-3
    assert result.unused_s_per_second[3:] == pytest.approx([0.0] * 4)
    assert_rates_agree_with(result, near_pass.result)


def test_a_recording_that_ends_early_says_by_how_much(near_pass, fly):
    scene = near_pass.scene
    short = scene.keeping(scene.tags.time_ps < scene.time_ps(4.25))
    session = fly(short)
    result = session.result()
    assert not result.complete
    assert any(remark.startswith("Recording ended 2.0 s") or "2.1 s before" in remark for remark in result.remarks)
    assert result.detections == short.detections_in_window()
    assert result.unused_s_per_second[:4] == pytest.approx([0.0] * 4)
    assert 0.75 <= result.unused_s_per_second[4] <= 0.75 + WINDOW_S + 1e-3
    assert result.unused_s_per_second[5:] == pytest.approx([1.0, 0.3])
    assert_rates_agree_with(result, near_pass.result)
    assert report_of(replayed(session.recording._path)) == session.report()


@pytest.mark.parametrize("ends_at_s", [3.9935, 4.4975, 4.5025])
def test_where_the_last_tag_falls_does_not_matter_to_live_and_replay(near_pass, fly, ends_at_s):
    short = near_pass.scene.keeping(near_pass.scene.tags.time_ps < near_pass.scene.time_ps(ends_at_s))
    session = fly(short)
    assert session.result().detections == short.detections_in_window()
    assert report_of(replayed(session.recording._path)) == session.report()


def test_a_recorder_that_was_killed_leaves_a_recording_that_can_be_replayed(near_pass, fly, tmp_path):
    scene = near_pass.scene
    segments = list(tag_segments(scene))[:14]
    record(scene, tmp_path / "recording", segments=segments, end=False)
    session = Session(tmp_path / "recording", InProcessTransmitter(scene))
    session.until_idle()
    assert not session.analysis.finished, "it may still grow"
    session.analysis.stop_following()
    session.judge.stop_following()
    result = session.finish().result()
    last_ps = segments[-1][0]["tags"]["time_ps"][-1]
    assert result.detections == scene.keeping(scene.tags.time_ps <= last_ps).detections_in_window()
    assert not result.complete
    assert "not closed in order" in result.remarks[0]
    assert report_of(replayed(tmp_path / "recording")) == session.report()


def test_tags_that_were_seen_and_not_recorded_make_a_pass_incomplete(near_pass, fly):
    segments = list(tag_segments(near_pass.scene, missed=17))
    segments[-1][1]["ledger"] = {"seen": 100, "recorded": 90, "dropped": {"input without a channel": 10}, "missed": 17}
    result = fly(near_pass.scene, segments=segments).result()
    assert not result.complete
    assert "10 tags were seen and not recorded." in result.remarks
    assert "The tagger lost 17 events." in result.remarks
    assert report_document(result)["ledger"]["dropped"] == 10


# --- nothing at all ---------------------------------------------------------------------------------------


def test_a_recording_without_tags_is_reported_as_such(near_pass, fly):
    result = fly(near_pass.scene, segments=[({}, {})]).result()
    assert not result.complete
    assert result.detections == 0
    assert any("no 1PPS tag with a UTC label" in remark for remark in result.remarks)
    assert np.all(observed_s(result) == 0)


def test_a_recording_of_which_only_the_manifest_exists_is_reported_as_such(near_pass, near_copy):
    for stream in ("tags", "telemetry", "events", "truth", "answers"):
        shutil.rmtree(near_copy / stream)
    result = replayed(near_copy)
    assert not result.complete
    assert (result.detections, result.ledger_recorded) == (0, 0)


def test_without_a_label_nothing_is_placed(near_pass, fly):
    segments = [
        (tables, {k: v for k, v in notes.items() if k != "utc_label"})
        for tables, notes in tag_segments(near_pass.scene)
    ]
    result = fly(near_pass.scene, segments=segments).result()
    assert not result.complete
    assert result.sifted.sum() == result.detections == 0
    assert any("Nothing could be placed in UTC" in remark for remark in result.remarks)
    assert result.ledger_recorded == near_pass.result.ledger_recorded


def test_a_recording_that_was_never_answered_is_replayed_to_its_clicks(near_pass, tmp_path):
    directory = record(near_pass.scene, tmp_path / "recording")
    assert any("terms are not in the recording" in remark for remark in replayed(directory).remarks)
    publish(directory, "answers", [])
    assert replayed(directory).sifted.sum() == 0
