"""What a writer publishes is numbered, chained and for its owner only; it goes on where the last one died.

That no failing call on the file system loses anything is shown in test_recording_crashes.py.
"""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from failing_files import FailingFiles, Failure
from recording_samples import read_all, tags, times_in

from groundstation.errors import BadInput
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Damage
from groundstation.recording.writer import (
    RecordingFailed,
    StreamEnded,
    StreamLocked,
    StreamWriter,
    close_abandoned,
)


def test_a_failed_write_gives_its_number_and_rows_to_the_next_publication(directory: Path) -> None:
    full = FailingFiles(Failure(5, number=errno.ENOSPC))
    with StreamWriter(directory, "tags", "r", full.files) as writer:
        with pytest.raises(RecordingFailed, match=r"No space left on device.*nothing of it was acknowledged"):
            writer.publish(tags(0, 10))
        assert writer.acknowledged == {}
        assert list((directory / "tags").glob("*.part")) == []
        published = writer.publish(tags(0, 20))
        assert (published.number, published.first_row, writer.acknowledged) == (1, {"tags": 0}, {"tags": 20})


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


@pytest.mark.parametrize("call", ["make_directory", "open_lock"])
def test_a_file_system_that_refuses_to_begin_a_stream_is_named(directory: Path, call: str) -> None:
    full = FailingFiles(Failure(["make_directory", "fsync_directory", "open_lock"].index(call), number=errno.ENOSPC))
    with pytest.raises(RecordingFailed, match=r"cannot (create|make) .*/tags.* \(No space left on device\)"):
        StreamWriter(directory, "tags", "r", full.files)
    StreamWriter(directory, "tags", "r").close()


def test_what_cannot_be_read_is_not_gone_on_with_and_not_written_over(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(2, end=False)
    (directory / "tags" / "000002.h5").unlink()
    os.mkfifo(directory / "tags" / "000002.h5")  # reading it would wait for ever
    with StreamWriter(directory, "tags", "r") as writer:
        assert (writer.acknowledged, writer.publish(tags(20, 10)).number) == ({"tags": 10}, 3)
    damage = read_all(open_recording(directory), "tags")[1]
    assert isinstance(damage, Damage)
    assert damage.sentence == "segment tags/000002.h5 is damaged: it is no file"
