"""Recovery loses nothing that was acknowledged, whatever happens to it, and says what somebody else lost."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from failing_files import UNSYNCED, Death, FailingFiles, every_failure
from power_cut import Disk
from recording_samples import read_all, tags, times_in

from groundstation.errors import BadInput
from groundstation.recording.files import POSIX, Files, FsyncFailed
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.recovery import Recovery, recover, recover_stream
from groundstation.recording.segment import Segment, encode
from groundstation.recording.writer import StreamLocked, StreamWriter

EVERY_TAG = [1000 * (k + 1) for k in range(60)]


def _tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def _said(recovery: Recovery) -> object:
    return [vars(account) for account in recovery.streams], recovery.losses, recovery.cannot


def _flip(path: Path, at: int = 2000) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def _times(directory: Path) -> list[int]:
    items = read_all(open_recording(directory), "tags")
    return times_in([item for item in items if isinstance(item, Segment) and "tags" in item.tables])


def _wreck(directory: Path) -> None:
    """A station died: two streams without an end, halves, a damaged segment in the middle and one at the end."""
    create_recording(directory / "recording", {"run_id": "r"})
    directory = directory / "recording"
    with StreamWriter(directory, "tags", "r") as writer:
        for k in range(6):
            ledger = {"seen": 10 * k + 10, "recorded": 10 * k + 10, "dropped": {}, "missed": None}
            writer.publish(tags(10 * k, 10), {"ledger": ledger})
    with StreamWriter(directory, "events", "r") as writer:
        writer.publish({"events": {"text": np.array([b"x"])}})
        writer.publish({}, end=True)
    with StreamWriter(directory, "telemetry", "r") as writer:
        writer.publish({"mount": {"azimuth_deg": np.ones(3)}})
    _flip(directory / "tags" / "000003.h5")
    (directory / "tags" / "000006.h5").write_bytes(b"")
    (directory / "tags" / "000007.part").write_bytes(b"half")
    (directory / "manifest.part").write_bytes(b"half")


@pytest.fixture
def wreck(tmp_path: Path) -> Path:
    _wreck(tmp_path)
    return tmp_path / "recording"


def test_an_abandoned_stream_gets_an_end_and_keeps_every_byte(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(6, end=False)
    (directory / "tags" / "000007.part").write_bytes(b"half")
    before = _tree(directory)
    recovery = recover(directory)
    (account,) = recovery.streams
    assert recovery.well
    assert (account.segments, account.rows, account.ended) == (7, {"tags": 60}, True)
    assert "its writer died" in account.abandoned
    after = _tree(directory)
    assert set(after) - set(before) == {"tags/000007.h5"}
    assert set(before) - set(after) == {"tags/000007.part"}
    assert {name: after[name] for name in before if name in after} == {n: b for n, b in before.items() if n in after}
    assert _times(directory) == EVERY_TAG


def test_a_recording_that_is_well_is_left_alone(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(6)
    before = _tree(directory)
    recovery = recover(directory)
    assert recovery.well
    assert recovery.streams[0].abandoned == ""
    assert _tree(directory) == before


def test_damaged_segments_are_kept_in_quarantine_and_named_with_what_they_cost(wreck: Path) -> None:
    third = (wreck / "tags" / "000003.h5").read_bytes()
    recovery = recover(wreck)
    middle, last = recovery.losses
    assert (middle.number, middle.rows, middle.kept) == (3, {"tags": 10}, "quarantine/tags/000003.h5")
    assert "its bytes do not match its checksum" in middle.sentence
    assert (last.number, last.rows, last.kept) == (6, None, "quarantine/tags/000006.h5")
    assert (wreck / middle.kept).read_bytes() == third
    assert not recovery.well
    assert _times(wreck) == [t for t in EVERY_TAG if not 20_000 < t <= 30_000 and t <= 50_000]
    tags_account = next(account for account in recovery.streams if account.stream == "tags")
    assert tags_account.ledger is not None
    assert (tags_account.ledger.recorded, tags_account.ledger_fault) == (50, None)


def test_a_second_recovery_changes_nothing_and_says_the_same(wreck: Path) -> None:
    first = recover(wreck)
    before, times = _tree(wreck), {p: p.stat().st_mtime_ns for p in wreck.rglob("*")}
    assert _said(recover(wreck)) == _said(first)
    assert _tree(wreck) == before
    assert {p: p.stat().st_mtime_ns for p in wreck.rglob("*")} == times


def test_nothing_in_quarantine_is_written_over(wreck: Path) -> None:
    folder = wreck / "quarantine" / "tags"
    folder.mkdir(parents=True)
    (folder / "000003.h5").write_bytes(b"an earlier one")
    third = (wreck / "tags" / "000003.h5").read_bytes()
    recover(wreck)
    assert (folder / "000003.h5").read_bytes() == b"an earlier one"
    assert (folder / "000003.h5.2").read_bytes() == third


def test_a_writer_goes_on_behind_a_damaged_last_segment(wreck: Path) -> None:
    account = recover_stream(wreck, "tags")
    assert [damage.number for damage in account.damages] == [3, 6]
    assert not account.ended
    with StreamWriter(wreck, "tags", "r") as writer:
        assert writer.publish(tags(100, 1)).number == 7
    assert recover_stream(wreck, "truth").segments == 0
    assert not (wreck / "truth").exists()


def test_a_recording_that_is_being_written_is_refused_and_untouched(wreck: Path) -> None:
    with StreamWriter(wreck, "telemetry", "r"):
        before = _tree(wreck)
        with pytest.raises(StreamLocked, match=r"is being recorded into \(stream telemetry has a writer\)"):
            recover(wreck)
        assert _tree(wreck) == before


def test_swapped_and_foreign_segments_are_put_aside(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(6, end=False)
    second, third = directory / "tags" / "000002.h5", directory / "tags" / "000003.h5"
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(content)
    foreign = Segment("tags", 6, "another", {"tags": 50}, tags(0, 10), {}, False, "f" * 64)
    (directory / "tags" / "000006.h5").write_bytes(encode(foreign))
    recovery = recover(directory)
    assert [loss.number for loss in recovery.losses] == [2, 3, 6]
    assert "is in the wrong place: it is segment 3 of stream tags of run r" in recovery.losses[0].sentence
    assert recovery.losses[0].rows == {"tags": 20}
    assert "of run another" in recovery.losses[2].sentence
    assert all(loss.kept for loss in recovery.losses)
    assert _times(directory) == EVERY_TAG[:10] + EVERY_TAG[30:50]
    assert _said(recover(directory)) == _said(recovery)


def test_a_segment_that_only_breaks_the_chain_stays_where_it_is(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(6)
    changed = Segment("tags", 3, "r", {"tags": 20}, tags(20, 10), {"k": "another"}, False, "f" * 64)
    (directory / "tags" / "000003.h5").write_bytes(encode(changed))
    before = _tree(directory)
    recovery = recover(directory)
    assert [(loss.number, loss.kept) for loss in recovery.losses] == [(3, "")]
    assert "the chain of hashes is broken" in recovery.losses[0].sentence
    assert _tree(directory) == before


def test_directories_of_others_are_left_alone(wreck: Path) -> None:
    (wreck / "notes").mkdir()
    (wreck / "notes" / "dark.txt").write_text("dark counts")
    assert [account.stream for account in recover(wreck).streams] == ["events", "tags", "telemetry"]
    assert [p.name for p in (wreck / "notes").iterdir()] == ["dark.txt"]
    with pytest.raises(BadInput, match="is not a recording"):
        recover(wreck / "notes")


def _refusing(number: int) -> Files:
    """A file system on which nothing can be changed."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return Files(**{field.name: refuse for field in fields(Files) if "fsync" not in field.name})


def test_on_a_read_only_file_system_it_says_what_it_cannot_do_and_what_is_there(wreck: Path) -> None:
    before = _tree(wreck)
    recovery = recover(wreck, _refusing(errno.EROFS))
    assert _tree(wreck) == before
    said = " ".join(recovery.cannot)
    for part in ("remove tags/000007.part", "move tags/000003.h5 into quarantine", "end stream tags"):
        assert f"cannot {part}" in said
    assert "Read-only file system" in said
    assert [(loss.number, loss.rows, loss.kept) for loss in recovery.losses] == [(3, {"tags": 10}, ""), (6, None, "")]
    with StreamWriter(wreck, "tags", "r"), pytest.raises(StreamLocked):
        recover(wreck, _refusing(errno.EROFS))


def test_a_full_disk_is_said_and_the_next_recovery_does_the_rest(wreck: Path) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recovery = recover(wreck, replace(POSIX, write=full))
    assert [sentence.split(":")[0] for sentence in recovery.cannot] == [
        "cannot end stream tags",
        "cannot end stream telemetry",
    ]
    assert recover(wreck).cannot == ()


@pytest.mark.slow
def test_no_failure_of_any_call_in_a_recovery_loses_anything(tmp_path: Path) -> None:
    wrecked, clean = tmp_path / "wrecked", tmp_path / "uninterrupted"
    wrecked.mkdir()
    _wreck(wrecked)
    shutil.copytree(wrecked, clean)
    precious = {name: content for name, content in _tree(clean).items() if name.endswith(".h5")}
    expected = _said(recover(clean / "recording"))
    names = set(_tree(clean))  # the library writes the time of day into a segment: bytes differ, hashes do not
    cases = 0
    for case in every_failure(
        tmp_path,
        lambda directory: shutil.copytree(wrecked, directory, dirs_exist_ok=True),
        lambda directory, files, _: (recover(directory / "recording", files), None)[1],
        (errno.EIO,),
    ):
        kept = set(_tree(case.directory).values())
        assert all(content in kept for content in precious.values()), case.failure
        again = recover(case.directory / "recording", UNSYNCED)
        assert _said(again) == expected, case.failure
        assert set(_tree(case.directory)) == names, case.failure
        cases += 1
    assert cases > 150, cases


def test_a_power_cut_in_a_recovery_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    _wreck(root)
    precious = [content for name, content in _tree(root).items() if name.endswith(".h5")]
    disk = Disk(root)
    expected = _said(recover(root / "recording", disk.files()))
    draw = random.Random(7)
    for _ in range(50):
        left = tmp_path / "left"
        disk.cut(draw, left)
        kept = set(_tree(left).values())
        assert all(content in kept for content in precious)
        assert _said(recover(left / "recording", UNSYNCED)) == expected
        shutil.rmtree(left)


def test_an_fsync_that_fails_ends_the_recovery_at_once(wreck: Path) -> None:
    failing = FailingFiles()

    def broken(*_: object) -> None:
        failing.calls.append(failing.calls[-1]._replace(name="broken"))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(FsyncFailed):
        recover(wreck, replace(failing.files, fsync=broken, fsync_directory=broken))
    after = [call.name for call in failing.calls[[c.name for c in failing.calls].index("broken") + 1 :]]
    assert set(after) <= {"unlink"}, "only a half-written file may still go"


def test_a_recovery_killed_again_and_again_ends_well(tmp_path: Path) -> None:
    _wreck(tmp_path)
    draw = random.Random(4)
    for _ in range(30):
        failing = FailingFiles()
        calls_left = draw.randrange(8)
        files = Files(
            **{field.name: _dying(getattr(failing.files, field.name), failing, calls_left) for field in fields(Files)}
        )
        try:
            recover(tmp_path / "recording", files)
        except Death:
            continue
    assert [loss.number for loss in recover(tmp_path / "recording").losses] == [3, 6]
    assert _times(tmp_path / "recording") == [t for t in EVERY_TAG if not 20_000 < t <= 30_000 and t <= 50_000]


def _dying(call: Callable[..., object], failing: FailingFiles, calls_left: int) -> Callable[..., object]:
    def dying(*arguments: object) -> object:
        if len(failing.calls) >= calls_left:
            raise Death
        return call(*arguments)

    return dying


def test_random_corruptions_give_no_wrong_tag_and_the_same_answer_twice(tmp_path: Path) -> None:
    template = tmp_path / "template"
    create_recording(template, {"run_id": "r"})
    with StreamWriter(template, "tags", "r") as writer:
        for k in range(6):
            writer.publish(tags(10 * k, 10), end=k == 5)
    draw = random.Random(11)
    lost = 0
    for _ in range(80):
        directory = tmp_path / "case"
        shutil.copytree(template, directory)
        files = sorted((directory / "tags").glob("*.h5"))
        for _ in range(draw.randint(1, 3)):
            _corrupt(draw, files)
        recovery = recover(directory, UNSYNCED)
        found = _times(directory)
        assert found == sorted(found)
        assert set(found) <= set(EVERY_TAG)
        assert (len(found) == 60) or recovery.losses, "tags are gone and nobody says so"
        lost += 60 - len(found)
        assert _said(recover(directory, UNSYNCED)) == _said(recovery)
        shutil.rmtree(directory)
    assert lost > 500


def _corrupt(draw: random.Random, files: list[Path]) -> None:
    path = draw.choice([path for path in files if path.exists()])
    content = bytearray(path.read_bytes())
    at = draw.randrange(max(1, len(content)))
    kind = draw.choice(["flip", "cut", "zeros", "swap", "remove"])
    if kind == "flip" and content:
        content[at] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif kind == "swap":
        other = draw.choice([other for other in files if other.exists()])
        bytes_of_other = other.read_bytes()
        other.write_bytes(content)
        content = bytearray(bytes_of_other)
    elif path != files[-1]:  # a tail that is gone shows as a missing end, and in the fingerprint
        path.unlink()
        return
    path.write_bytes(content)
