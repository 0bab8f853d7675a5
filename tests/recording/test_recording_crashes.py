"""Whatever call on the file system fails, at every writer: nothing acknowledged is lost, nothing read is wrong."""

import errno
import shutil
from pathlib import Path

import pytest
from failing_files import UNSYNCED, Acknowledge, Call, Case, Death, FailingFiles, Failure, every_failure
from recorders import RUN, all_segments, check_whole, record, rows_of

from groundstation.errors import BadInput
from groundstation.recording.files import Files, FsyncFailed, RecordingFailed
from groundstation.recording.manifest import create_recording, read_manifest
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import part_of, publish_sealed, remove_segments, seal
from groundstation.recording.segment import Segment
from groundstation.recording.writer import QUARANTINE, StreamWriter, close_abandoned

_STREAMS = {"tags": (10, 700), "events": (3,)}


def _begin(place: Path) -> None:
    create_recording(place / "recording", {"run_id": RUN}, UNSYNCED)


def _record_streams(place: Path, files: Files, acknowledge: Acknowledge) -> None:
    for stream, sizes in _STREAMS.items():

        def safe(rows: int, stream: str = stream) -> None:
            acknowledge((stream, rows))
            _check(place / "recording", stream, [rows])  # a reader that follows sees it at once

        record(place / "recording", stream, sizes, files, safe)


def _check(directory: Path, stream: str, acknowledged: list[int]) -> int:
    return check_whole(open_recording(directory), stream, acknowledged)


def test_no_failing_call_loses_or_changes_an_acknowledged_row(tmp_path: Path) -> None:
    cases, deaths = 0, 0
    for case in every_failure(tmp_path, _begin, _record_streams):
        cases, deaths = cases + 1, deaths + isinstance(case.error, Death)
        directory = case.directory / "recording"
        _check_never_touched_after_failed_fsync(case)
        for stream, sizes in _STREAMS.items():
            known = [rows for name, rows in case.acknowledged if name == stream]
            found = _check(directory, stream, known)
            record(directory, stream, [sum(sizes) - found], UNSYNCED, lambda rows: None)  # the next process goes on
            assert _check(directory, stream, [-1]) == sum(sizes)
        assert not list(directory.rglob("*.part"))
    # Of each stream 4 calls to open it, and 5 or more for each of its segments.
    assert cases >= (8 + 5 * 5) * 6
    assert deaths == cases // 3


def _check_never_touched_after_failed_fsync(case: Case) -> None:
    """After an fsync that said no, nobody may write to or sync that file (or directory) again."""
    failure = case.failure
    if failure.kind == "death" or failure.at >= len(case.calls):
        return
    name, subject = case.calls[failure.at]
    if name in ("fsync", "fsync_directory"):
        assert isinstance(case.error, FsyncFailed)
        assert [c for c in case.calls[failure.at + 1 :] if c.name != "unlink"] == []
        assert subject != -1


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("call", ["fsync", "fsync_directory"])
def test_after_a_failed_fsync_the_writer_refuses_everything(tmp_path: Path, call: str, after: bool) -> None:
    _begin(tmp_path)
    clean = FailingFiles()
    record(tmp_path / "recording", "events", [3], clean.files, lambda rows: None)
    at = [k for k, each in enumerate(clean.calls) if each.name == call][2 if call == "fsync_directory" else 0]
    failing = FailingFiles(Failure(at, after, "once", errno.EIO))
    with StreamWriter(tmp_path / "recording", "tags", RUN, failing.files) as writer:
        with pytest.raises(FsyncFailed, match="Input/output error"):
            writer.publish(rows_of("tags", 0, 10))
        log = list(failing.calls)
        for end in (False, True):
            with pytest.raises(RecordingFailed, match="met a failing disk"):
                writer.publish(rows_of("tags", 0, 10), end=end)
        assert failing.calls == log
        assert writer.acknowledged == {}
    assert log[at].name == call
    assert [each.name for each in log[at + 1 :]] == ["unlink"]  # of the .part: the room is given back


def test_a_file_whose_write_failed_is_never_written_on(tmp_path: Path) -> None:
    _begin(tmp_path)
    failing = FailingFiles(Failure(5, False, "once", errno.ENOSPC))
    with StreamWriter(tmp_path / "recording", "tags", RUN, failing.files) as writer:
        with pytest.raises(RecordingFailed, match=r"No space left on device.*nothing of it was acknowledged"):
            writer.publish(rows_of("tags", 0, 700))
        assert failing.calls[5] == Call("write", 1)
        writer.publish(rows_of("tags", 0, 700))
    assert {each.subject for each in failing.calls[6:] if each.name in ("write", "fsync")} == {2}


def test_a_manifest_is_there_whole_or_can_be_made_again(tmp_path: Path) -> None:
    def act(place: Path, files: Files, acknowledge: Acknowledge) -> None:
        create_recording(place / "new" / "recording", {"run_id": RUN, "mode": "live"}, files)
        acknowledge("manifest")

    cases = 0
    for case in every_failure(tmp_path, lambda place: None, act):
        cases += 1
        directory = case.directory / "new" / "recording"
        if not (directory / "manifest.json").exists():
            assert case.acknowledged == []
            create_recording(directory, {"run_id": RUN, "mode": "live"}, UNSYNCED)
        assert read_manifest(directory)["mode"] == "live"
        assert open_recording(directory).streams() == ()
    assert cases >= 10 * 6


def test_an_abandoned_stream_is_ended_or_can_be_ended_again(tmp_path: Path) -> None:
    def prepare(place: Path) -> None:
        _begin(place)
        with StreamWriter(place / "recording", "tags", RUN, UNSYNCED) as writer:
            writer.publish(rows_of("tags", 0, 20))
        (place / "recording" / "tags" / "000002.part").write_bytes(b"what a dying writer leaves")

    def act(place: Path, files: Files, acknowledge: Acknowledge) -> None:
        assert close_abandoned(place / "recording", "tags", RUN, "its writer died", files)
        acknowledge(-1)

    for case in every_failure(tmp_path, prepare, act):
        directory = case.directory / "recording"
        assert _check(directory, "tags", [20]) == 20
        again = close_abandoned(directory, "tags", RUN, "its writer died", UNSYNCED)
        assert not (again and case.acknowledged)
        (*_, last) = all_segments(open_recording(directory))["tags"]
        assert isinstance(last, Segment)
        assert (last.number, last.end, last.notes) == (2, True, {"abandoned": "its writer died"})


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a recording, and the sealed file before it has its name."""
    place = tmp_path_factory.mktemp("sealed")
    _begin(place)
    _record_streams(place, UNSYNCED, lambda what: None)
    seal(place / "recording", place / "recording.h5")
    return place


def test_sealing_never_leaves_less_than_the_whole_recording(tmp_path: Path, sealed: Path) -> None:
    def prepare(place: Path) -> None:
        shutil.copytree(sealed, place, dirs_exist_ok=True)

    def act(place: Path, files: Files, acknowledge: Acknowledge) -> None:
        publish_sealed(part_of(place / "recording.h5"), place / "recording.h5", files)
        acknowledge("sealed")
        remove_segments(place / "recording", files)
        acknowledge("removed")

    cases = 0
    for case in every_failure(tmp_path, prepare, act):
        cases += 1
        target, directory = case.directory / "recording.h5", case.directory / "recording"
        if target.exists():
            assert target.stat().st_mode & 0o777 == 0o400
            _check_all(target)
        if "sealed" not in case.acknowledged:
            _check_all(directory)
        else:
            assert target.exists()
            with_manifest = (directory / "manifest.json").exists()
            if with_manifest:
                _check_all(directory)  # not begun to be removed
        assert ("removed" in case.acknowledged) <= (not directory.exists())
    assert cases >= 15 * 6


def _check_all(path: Path) -> None:
    recording = open_recording(path)
    for stream, sizes in _STREAMS.items():
        assert check_whole(recording, stream, [-1]) == sum(sizes)
    recording.close()


def test_what_is_in_quarantine_outlives_the_removal_of_the_segments(tmp_path: Path, sealed: Path) -> None:
    shutil.copytree(sealed / "recording", tmp_path / "recording")
    kept = tmp_path / "recording" / QUARANTINE / "tags" / "000001.h5"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged")
    remove_segments(tmp_path / "recording")
    assert [path for path in (tmp_path / "recording").rglob("*") if path.is_file()] == [kept]
    with pytest.raises(BadInput, match="not a recording"):
        open_recording(tmp_path / "recording")


def test_a_quarantined_segment_is_never_followed_by_another_of_its_number(tmp_path: Path) -> None:
    _begin(tmp_path)
    directory = tmp_path / "recording"
    with StreamWriter(directory, "tags", RUN) as writer:
        for k in range(3):
            writer.publish(rows_of("tags", 10 * k, 10))
    reader = open_recording(directory, follow=True).stream("tags")
    reader.poll(2)
    (directory / QUARANTINE / "tags").mkdir(parents=True)
    (directory / "tags" / "000003.h5").rename(directory / QUARANTINE / "tags" / "000003.h5.2")
    assert open_recording(directory).streams() == ("tags",)
    (*_, damage) = all_segments(open_recording(directory))["tags"]
    assert (damage.number, damage.sentence) == (3, "segment tags/000003.h5 was damaged and put into quarantine")
    with StreamWriter(directory, "tags", RUN) as writer:
        assert writer.publish(rows_of("tags", 20, 10)).number == 4
    assert [item.number for item in reader.poll()] == [3, 4]
    with pytest.raises(BadInput, match='no stream can be called "quarantine"'):
        StreamWriter(directory, QUARANTINE, RUN)
