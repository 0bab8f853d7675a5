"""The one writer of a stream: publishes tables as segments, and acknowledges only what survives a crash."""

import fcntl
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.files import (
    POSIX,
    Files,
    FsyncFailed,
    RecordingFailed,
    discard,
    sync_directory,
    write_durably,
)
from groundstation.recording.segment import NO_HASH, Segment, Table, check_name, decode, encode, read_file

__all__ = [
    "QUARANTINE",
    "Files",
    "FsyncFailed",
    "RecordingFailed",
    "StreamEnded",
    "StreamLocked",
    "StreamWriter",
    "close_abandoned",
    "lock_stream",
    "quarantined_numbers",
    "segment_name",
    "segment_numbers",
]

#: Where recovery puts damaged segments: `quarantine/STREAM/NNNNNN.h5` in the recording's directory.
QUARANTINE = "quarantine"

_ENDED = "has ended"
_SEGMENT_FILE = re.compile(r"(\d{6}|[1-9]\d{6,17})\.h5\Z")
_QUARANTINED_FILE = re.compile(r"(\d{6}|[1-9]\d{6,17})\.h5")


class StreamLocked(BadInput):
    """Another process writes this stream."""


class StreamEnded(BadInput):
    """The stream has its last segment; nothing more can be published in it."""


def segment_name(number: int) -> str:
    """The file name of a published segment."""
    return f"{number:06d}.h5"


def segment_numbers(directory: Path) -> list[int]:
    """The numbers of the segments published in a stream's directory, ascending; empty without a directory.

    Raises BadInput when the directory cannot be listed.
    """
    return _numbers(directory, _SEGMENT_FILE)


def quarantined_numbers(directory: Path, stream: str) -> list[int]:
    """The numbers of a stream's segments that recovery put aside; they are never used again."""
    return _numbers(directory / QUARANTINE / stream, _QUARANTINED_FILE)


def _numbers(directory: Path, pattern: re.Pattern[str]) -> list[int]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadInput(f"{directory} cannot be listed ({error.strerror}); whose recording is it?") from error
    return sorted({int(match[1]) for match in map(pattern.match, names) if match})


def lock_stream(directory: Path, stream: str, files: Files = POSIX) -> int:
    """Become the stream's only writer until the returned descriptor is closed or the process dies.

    Raises StreamLocked when another process is that already, RecordingFailed when there can be no lock.
    """
    path = directory / stream / "lock"
    try:
        descriptor = files.open_lock(path)
    except OSError as error:
        raise RecordingFailed(f"cannot make {path} ({error.strerror or error}); without it nobody may write") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StreamLocked(
            f"stream {stream} of {directory} is being written by another process; "
            "stop that one first or record into another directory"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise RecordingFailed(f"cannot lock {path} ({error.strerror}); record on a local disk") from error
    return descriptor


class StreamWriter:
    """Publishes the segments of one stream and continues where an earlier writer was interrupted.

    Raises StreamLocked while another process writes the stream, StreamEnded after its last segment, BadInput
    when the directory holds another run, RecordingFailed when the file system refuses.
    """

    def __init__(self, directory: Path, stream: str, run_id: str, files: Files = POSIX) -> None:
        """`directory` is the recording's; `run_id` is its manifest's."""
        check_name(stream)
        if stream == QUARANTINE:
            raise BadInput(f'no stream can be called "{QUARANTINE}"; damaged segments are kept under that name')
        self._recording = directory
        self._directory = directory / stream
        self._stream = stream
        self._run_id = run_id
        self._files = files
        self._number = 0
        self._hash = NO_HASH
        self._rows: dict[str, int] = {}
        self._columns: dict[str, dict[str, str]] = {}
        self._over: str | None = None
        _make_directory(self._directory, files)
        self._lock: int | None = lock_stream(directory, stream, files)
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    @property
    def acknowledged(self) -> dict[str, int]:
        """Rows of each table that are safe on the disk."""
        return dict(self._rows)

    @property
    def ended(self) -> bool:
        """Whether the stream's last segment has been published."""
        return self._over == _ENDED

    def publish(
        self, tables: Mapping[str, Table], notes: Mapping[str, object] | None = None, end: bool = False
    ) -> Segment:
        """Make one segment durable. When this returns, its rows are acknowledged.

        Raises RecordingFailed when they could not be written (publish them again, the numbers were not used
        up); FsyncFailed when the disk fails, after which this writer refuses everything; StreamEnded after
        the end; BadInput for tables that cannot be recorded or changed their columns.
        """
        self._check_open()
        self._check_columns(tables)
        segment = Segment(
            stream=self._stream,
            number=self._number + 1,
            run_id=self._run_id,
            first_row={**dict.fromkeys(tables, 0), **self._rows},
            tables=dict(tables),
            notes=dict(notes or {}),
            end=end,
            previous_hash=self._hash,
        )
        self._write(segment, encode(segment))
        self._take_over(segment)
        return segment

    def close(self) -> None:
        """Give up the lock. Whatever was acknowledged stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._over = self._over or "is closed"

    def __enter__(self) -> "StreamWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._over == _ENDED:
            raise StreamEnded(f"stream {self._stream} in {self._directory} has ended; start a new recording")
        if self._over is not None:
            raise RecordingFailed(
                f"the writer of stream {self._stream} in {self._directory} {self._over}; open the stream anew"
            )

    def _check_columns(self, tables: Mapping[str, Table]) -> None:
        for name, table in tables.items():
            found = _column_types(table)
            expected = self._columns.get(name, found)
            if found != expected:
                raise BadInput(f"table {self._stream}/{name} has columns {found}, but was begun with {expected}")

    def _write(self, segment: Segment, image: bytes) -> None:
        target = self._directory / segment_name(segment.number)
        # An interrupt in here leaves open whether the segment is there, so only a clear outcome lifts this.
        self._over = "was interrupted while it published"
        try:
            write_durably(self._files, target.with_suffix(".part"), target, image)
        except FsyncFailed:
            self._over = "met a failing disk"
            raise
        except RecordingFailed:
            self._over = None
            raise
        self._over = None

    def _take_over(self, segment: Segment) -> None:
        """Continue after this segment."""
        self._number = segment.number
        self._hash = segment.hash
        self._rows = {name: rows + segment.rows.get(name, 0) for name, rows in segment.first_row.items()}
        self._columns.update({name: _column_types(table) for name, table in segment.tables.items()})
        self._over = _ENDED if segment.end else None

    def _resume(self) -> None:
        for part in self._directory.glob("*.part"):
            discard(self._files, part)
        # A rename of an interrupted writer may be visible and not yet durable; what follows builds on it.
        sync_directory(self._files, self._directory)
        numbers = segment_numbers(self._directory)
        for number in reversed(numbers):
            segment = self._sound_segment(number)
            if segment is not None:
                self._take_over(segment)
                break
        # A damaged segment keeps its number, wherever it lies, so nothing is written over and its loss stays visible.
        self._number = max([*numbers, *quarantined_numbers(self._recording, self._stream)], default=0)
        if self.ended:
            self._check_open()

    def _sound_segment(self, number: int) -> Segment | None:
        path = self._directory / segment_name(number)
        try:
            segment = decode(read_file(path, str(path)), str(path))
        except (OSError, RecordingDamaged):
            return None
        if segment.number != number:
            return None
        self._check_run(segment, path)
        return segment

    def _check_run(self, segment: Segment, path: Path) -> None:
        if (segment.run_id, segment.stream) != (self._run_id, self._stream):
            raise BadInput(
                f"{path} belongs to stream {segment.stream} of run {segment.run_id}, "
                f"not to stream {self._stream} of run {self._run_id}; record into another directory"
            )


def close_abandoned(directory: Path, stream: str, run_id: str, reason: str, files: Files = POSIX) -> bool:
    """End a stream whose writer died: publish an empty last segment with the note `abandoned`.

    Returns False, and changes nothing, when the stream has its end already or somebody is still writing it.
    Raises as `StreamWriter` does, and can be tried again.
    """
    try:
        writer = StreamWriter(directory, stream, run_id, files)
    except (StreamLocked, StreamEnded):
        return False
    with writer:
        writer.publish({}, {"abandoned": reason}, end=True)
    return True


def _column_types(table: Table) -> dict[str, str]:
    """Name -> dtype; the width of bytes may change from segment to segment."""
    return {name: "S" if column.dtype.kind == "S" else column.dtype.name for name, column in table.items()}


def _make_directory(directory: Path, files: Files) -> None:
    try:
        with suppress(FileExistsError):
            files.make_directory(directory, 0o700)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"cannot create {directory} ({error.strerror}); is it inside a recording's directory?"
        ) from error
    except OSError as error:
        raise RecordingFailed(f"cannot create {directory} ({error.strerror or error})") from error
    # Also when it was there: whoever made it may have died before this.
    sync_directory(files, directory.parent)
