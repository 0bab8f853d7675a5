"""What a writer acknowledged is there, whatever call on the file system fails and whoever dies."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recording_samples import read_all, tags, times_in

from groundstation.errors import BadInput
from groundstation.recording.files import POSIX
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Damage
from groundstation.recording.writer import (
    Files,
    FsyncFailed,
    RecordingFailed,
    StreamEnded,
    StreamLocked,
    StreamWriter,
    close_abandoned,
)


class Crash(BaseException):
    """Stands for the death of the process: nothing in the code under test may catch it."""


class Faults:
    """A file system whose N-th call fails, before or after it did its work."""

    def __init__(self, fail_at: int, failure: Callable[[], BaseException], after: bool) -> None:
        self.calls: list[str] = []
        self._fail_at = fail_at
        self._failure = failure
        self._after = after

    def files(self) -> Files:
        return Files(
            create=self._wrap("create", POSIX.create),
            write=self._wrap("write", lambda fd, data: POSIX.write(fd, data[:2000])),
            fsync=self._wrap("fsync", POSIX.fsync),
            rename=self._wrap("rename", POSIX.rename),
            fsync_directory=self._wrap("fsync_directory", POSIX.fsync_directory),
        )

    def _wrap(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            self.calls.append(name)
            chosen = len(self.calls) - 1 == self._fail_at
            if chosen and not self._after:
                raise self._failure()
            result = call(*arguments)
            if chosen:
                raise self._failure()
            return result

        return wrapped


def _record_thirty_tags(directory: Path, files: Files) -> list[int]:
    """Publish thirty tags in three segments, as a program does that is started again when it has to end.

    Returns after how many acknowledged tags each publication was.
    """
    acknowledged = [0]
    while acknowledged[-1] < 30:
        try:
            with StreamWriter(directory, "tags", "r", files) as writer:
                acknowledged.append(writer.acknowledged.get("tags", 0))
                while acknowledged[-1] < 30:
                    try:
                        writer.publish(tags(acknowledged[-1], 10))
                    except FsyncFailed:
                        raise
                    except RecordingFailed:
                        pass  # the same tags again
                    acknowledged.append(writer.acknowledged.get("tags", 0))
                    seen = times_in(read_all(open_recording(directory), "tags"))
                    assert seen == [1000 * (k + 1) for k in range(acknowledged[-1])]
        except (FsyncFailed, Crash):
            seen = times_in(read_all(open_recording(directory), "tags"))
            assert len(seen) >= acknowledged[-1]
            assert seen == [1000 * (k + 1) for k in range(len(seen))]
    return acknowledged


def _calls_of_a_clean_run(tmp_path: Path) -> int:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "manifest.json").write_text('{"format":"groundstation recording","version":1,"run_id":"r"}')
    faults = Faults(-1, Crash, after=False)
    _record_thirty_tags(tmp_path / "clean", faults.files())
    return len(faults.calls)


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize(
    "failure",
    [lambda: OSError(errno.ENOSPC, "No space left on device"), lambda: OSError(errno.EIO, "I/O error"), Crash],
    ids=["disk full", "I/O error", "death"],
)
def test_no_failing_call_loses_or_changes_an_acknowledged_tag(
    tmp_path: Path, failure: Callable[[], BaseException], after: bool
) -> None:
    count = _calls_of_a_clean_run(tmp_path)
    assert count >= 20  # opening: 2; three times create, 2 x write or more, fsync, rename, fsync of the directory
    for fail_at in range(count):
        directory = tmp_path / str(fail_at)
        directory.mkdir()
        (directory / "manifest.json").write_text('{"format":"groundstation recording","version":1,"run_id":"r"}')
        acknowledged = _record_thirty_tags(directory, Faults(fail_at, failure, after).files())
        assert acknowledged == sorted(acknowledged)
        items = read_all(open_recording(directory), "tags")
        assert times_in(items) == [1000 * (k + 1) for k in range(30)]
        assert not any(isinstance(item, Damage) for item in items)


def test_a_failed_write_gives_its_number_and_rows_to_the_next_publication(directory: Path) -> None:
    full = Faults(3, lambda: OSError(errno.ENOSPC, "No space left on device"), after=False)
    with StreamWriter(directory, "tags", "r", full.files()) as writer:
        with pytest.raises(RecordingFailed, match=r"No space left on device.*nothing of it was acknowledged"):
            writer.publish(tags(0, 10))
        assert writer.acknowledged == {}
        assert list((directory / "tags").glob("*.part")) == []
        published = writer.publish(tags(0, 20))
        assert (published.number, published.first_row, writer.acknowledged) == (1, {"tags": 0}, {"tags": 20})


@pytest.mark.parametrize("call", ["fsync", "fsync_directory"])
def test_after_a_failed_fsync_nothing_is_tried_again(directory: Path, call: str) -> None:
    clean = Faults(-1, Crash, after=False)
    with StreamWriter(directory, "tags", "r", clean.files()) as writer:
        writer.publish(tags(0, 10))
    # Opening the stream again is one fsync of the directory; the failure is to meet the publication.
    opening = 1
    index = opening + clean.calls[clean.calls.index("create") :].index(call)
    faults = Faults(index, lambda: OSError(errno.EIO, "Input/output error"), after=False)
    with StreamWriter(directory, "tags", "r", faults.files()) as writer:
        with pytest.raises(FsyncFailed, match="Input/output error"):
            writer.publish(tags(10, 10))
        before = len(faults.calls)
        with pytest.raises(RecordingFailed, match="met a failing disk"):
            writer.publish(tags(10, 10))
        assert len(faults.calls) == before
        assert writer.acknowledged == {"tags": 10}


def test_a_second_writer_of_a_stream_is_refused(directory: Path) -> None:
    with StreamWriter(directory, "tags", "r"):
        with pytest.raises(StreamLocked, match=r"stream tags .* written by another process; stop that one"):
            StreamWriter(directory, "tags", "r")
        StreamWriter(directory, "events", "r").close()
    StreamWriter(directory, "tags", "r").close()


def test_files_are_for_their_owner_only(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(1)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [directory, *directory.rglob("*")]}
    assert modes == {
        "recording": "0o700",
        "manifest.json": "0o600",
        "tags": "0o700",
        "lock": "0o600",
        "000001.h5": "0o600",
    }


def test_an_ended_stream_takes_no_more(directory: Path, record_tags: Callable[..., None]) -> None:
    with StreamWriter(directory, "events", "r") as writer:
        assert not writer.ended
        writer.publish({}, end=True)
        assert writer.ended
        with pytest.raises(StreamEnded, match=r"events .* has ended; start a new recording"):
            writer.publish({})
    record_tags(2)
    with pytest.raises(StreamEnded):
        StreamWriter(directory, "tags", "r")


def test_a_closed_writer_takes_no_more(directory: Path) -> None:
    writer = StreamWriter(directory, "tags", "r")
    writer.close()
    with pytest.raises(RecordingFailed, match="is closed"):
        writer.publish(tags(0, 1))


def test_another_run_is_not_continued(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(2, end=False)
    with pytest.raises(BadInput, match="belongs to stream tags of run r, not to stream tags of run other"):
        StreamWriter(directory, "tags", "other")


def test_a_table_keeps_its_columns_but_not_the_width_of_its_text(directory: Path) -> None:
    with StreamWriter(directory, "events", "r") as writer:
        writer.publish({"events": {"text": np.array([b"short"])}})
        writer.publish({"events": {"text": np.array([b"somewhat longer"])}})
        with pytest.raises(BadInput, match="table events/events has columns"):
            writer.publish({"events": {"text": np.zeros(1)}})


def test_a_stream_outside_of_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is it inside a recording's directory"):
        StreamWriter(tmp_path / "nowhere", "tags", "r")


def test_a_damaged_last_segment_is_never_written_over(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(3, end=False)
    last = directory / "tags" / "000003.h5"
    last.write_bytes(last.read_bytes()[:-5])
    with StreamWriter(directory, "tags", "r") as writer:
        assert writer.acknowledged == {"tags": 20}
        assert writer.publish(tags(30, 10)).number == 4
    items = read_all(open_recording(directory), "tags")
    assert [item.number for item in items] == [1, 2, 3, 4]
    assert isinstance(items[2], Damage)
    assert items[2].rows_lost is None  # the later writer could not know, so nobody claims to


def test_an_abandoned_stream_is_ended_once_its_writer_is_gone(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    with StreamWriter(directory, "tags", "r") as writer:
        writer.publish(tags(0, 10))
        assert not close_abandoned(directory, "tags", "r", "the acquisition died")
    assert close_abandoned(directory, "tags", "r", "the acquisition died")
    assert not close_abandoned(directory, "tags", "r", "the acquisition died")
    reader = open_recording(directory, follow=True).stream("tags")
    assert [item.number for item in reader.poll()] == [1, 2]
    assert reader.ended
    assert not reader.complete


_ENDLESS = """
import sys
from pathlib import Path
from recording_samples import tags
from groundstation.recording.writer import StreamWriter
writer = StreamWriter(Path(sys.argv[1]), "tags", "r")
first = writer.acknowledged.get("tags", 0)
for k in range(100_000):
    writer.publish(tags(first + 10 * k, 10))
    print(writer.acknowledged["tags"], flush=True)
"""


def test_after_kill_9_the_next_writer_goes_on_behind_what_was_acknowledged(directory: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    acknowledged = 0
    for _ in range(3):
        command = [sys.executable, "-c", _ENDLESS, str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            for _ in range(15):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, child.stdout.read().split("\n")[:-1])])
        seen = times_in(read_all(open_recording(directory), "tags"))
        assert acknowledged <= len(seen) <= acknowledged + 10
        assert seen == [1000 * (k + 1) for k in range(len(seen))]
    (directory / "tags" / "000999.part").write_bytes(b"what a dying writer leaves")
    with StreamWriter(directory, "tags", "r") as writer:
        assert writer.acknowledged == {"tags": len(seen)}
        assert list((directory / "tags").glob("*.part")) == []
