"""A recording that was cut anew has the same rows and notes, in other segments."""

from pathlib import Path

import numpy as np
import pytest
from recording_samples import read_all, tags, times_in

from groundstation.errors import RecordingDamaged
from groundstation.recording.copy import recut
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Segment
from groundstation.recording.writer import StreamWriter


def _rows(path: Path, stream: str) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {}
    for item in read_all(open_recording(path), stream):
        assert isinstance(item, Segment)
        for name, table in item.tables.items():
            for column, values in table.items():
                columns.setdefault(f"{name}/{column}", []).extend(values.tolist())
    return columns


@pytest.fixture
def source(directory: Path) -> Path:
    with StreamWriter(directory, "tags", "r") as writer:
        for k in range(7):
            gaps = {"gaps": {"start_ps": np.array([k]), "cause": np.array([b"c" * (k + 1)])}} if k % 3 == 1 else {}
            notes = {"ledger": {"recorded": 10 * (k + 1)}} | ({"zero_device_ps": 5} if k else {})
            writer.publish(tags(10 * k, 10) | gaps, notes, end=False)
        writer.publish({}, {"ledger": {"recorded": 70}}, end=True)
    with StreamWriter(directory, "events", "r") as writer:
        writer.publish({"events": {"text": np.array([b"only"])}})
    return directory


@pytest.mark.parametrize("rows", [1, 7, 10, 25, 1000])
def test_rows_stay_the_same_and_segments_have_the_size_asked_for(source: Path, tmp_path: Path, rows: int) -> None:
    recut(open_recording(source), tmp_path / "new", rows)
    again = open_recording(tmp_path / "new")
    assert again.manifest == open_recording(source).manifest
    for stream in ("tags", "events"):
        assert _rows(tmp_path / "new", stream) == _rows(source, stream)
    segments = [item.rows["tags"] for item in read_all(again, "tags") if item.rows]
    assert segments[:-1] == [rows] * (len(segments) - 1)
    ended = again.stream("tags")
    ended.poll(1000)
    assert ended.complete
    open_ended = again.stream("events")
    open_ended.poll(1000)
    assert not open_ended.complete


@pytest.mark.parametrize("rows", [1, 7, 10, 25, 1000])
def test_the_ledger_never_runs_ahead_of_the_rows(source: Path, tmp_path: Path, rows: int) -> None:
    recut(open_recording(source), tmp_path / "new", rows)
    items = read_all(open_recording(tmp_path / "new"), "tags")
    seen = 0
    for item in items:
        seen += item.rows.get("tags", 0)
        assert item.notes.get("ledger", {"recorded": 0})["recorded"] <= seen
    assert items[-1].notes["ledger"] == {"recorded": 70}
    first = next(item for item in items if "zero_device_ps" in item.notes)
    assert first.first_row.get("tags", 0) <= 10 < first.first_row.get("tags", 0) + max(rows, 10)


def test_a_damaged_recording_is_not_cut_anew(source: Path, tmp_path: Path) -> None:
    (source / "tags" / "000002.h5").unlink()
    with pytest.raises(RecordingDamaged, match="cannot be cut anew"):
        recut(open_recording(source), tmp_path / "new", 10)


def test_a_sealed_recording_can_be_cut_anew(source: Path, tmp_path: Path) -> None:
    from groundstation.recording.sealing import seal_in_child

    seal_in_child(source, tmp_path / "pass.h5")
    recut(open_recording(tmp_path / "pass.h5"), tmp_path / "new", 4)
    assert times_in(read_all(open_recording(tmp_path / "new"), "tags")) == [1000 * (k + 1) for k in range(70)]
