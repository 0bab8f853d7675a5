"""How bytes reach the disk so that they survive a crash: write aside, fsync, rename, fsync the directory.

Every change of the file system that a recording makes goes through `Files`, so that tests can let any call fail,
kill the writer there, or replay what a power cut leaves.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundstation.errors import GroundStationError


class RecordingFailed(GroundStationError):
    """Bytes could not be written; nothing of them was acknowledged, and they may be published again."""


class FsyncFailed(RecordingFailed):
    """The kernel could not bring bytes to the disk. After that it may have dropped them and yet report
    success next time, so nobody tries again: the process has to end."""


def _create(path: Path) -> int:
    # Never write on in a file whose write failed before: a new file, not the old one truncated.
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Files:
    """The calls that change the file system; each raises OSError when it fails.

    `create` opens a new, empty file for writing in place of whatever had its name; `write` returns how many bytes it
    took, maybe not all; `open_lock` opens a file that is made when it is not there and never gets any bytes.
    """

    create: Callable[[Path], int] = _create
    write: Callable[[int, memoryview], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    rename: Callable[[Path, Path], None] = os.rename
    fsync_directory: Callable[[Path], None] = _fsync_directory
    unlink: Callable[[Path], None] = os.unlink
    chmod: Callable[[Path, int], None] = os.chmod
    make_directory: Callable[[Path, int], None] = os.mkdir
    remove_directory: Callable[[Path], None] = os.rmdir
    open_lock: Callable[[Path], int] = _open_lock


POSIX = Files()


def write_durably(files: Files, part: Path, target: Path, content: bytes) -> None:
    """Write `content` to `part` and give it the name `target`; on return it survives a power cut.

    Raises FsyncFailed when the kernel could not make it durable, RecordingFailed on any other failure; then
    `part` is abandoned and `target` is not there.
    """
    try:
        descriptor = files.create(part)
    except OSError as error:
        raise _failed(part, error) from error
    try:
        _write_all(files, descriptor, part, content)
        make_durable(files, descriptor, part, target)
    except RecordingFailed:
        discard(files, part)  # gives the room back when the disk is full; the name is replaced in any case
        raise
    finally:
        with suppress(OSError):  # what counts was said by fsync; a close that fails must not hide its error
            os.close(descriptor)


def make_durable(files: Files, descriptor: int, part: Path, target: Path) -> None:
    """Bring a written file to the disk and change its name from `part` to `target`; then it survives a power cut.

    Raises FsyncFailed or RecordingFailed; after the latter `target` is not there.
    """
    _sync(part, lambda: files.fsync(descriptor))
    try:
        files.rename(part, target)
    except OSError as error:
        # A file system may report failure after the deed. What has its name is not written a second time.
        if not _is_named(descriptor, target):
            raise _failed(target, error) from error
    sync_directory(files, target.parent)


def sync_directory(files: Files, directory: Path) -> None:
    """Make the names in a directory durable; raises FsyncFailed."""
    _sync(directory, lambda: files.fsync_directory(directory))


def discard(files: Files, path: Path) -> None:
    """Remove a file that nobody will miss; that it stays does no harm."""
    with suppress(OSError):
        files.unlink(path)


def _write_all(files: Files, descriptor: int, part: Path, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            written = files.write(descriptor, rest)
            if written <= 0:
                raise OSError(f"the write took {written} of {len(rest)} bytes")
            rest = rest[written:]
    except OSError as error:
        raise _failed(part, error) from error


def _is_named(descriptor: int, target: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(target))
    except OSError:
        return False


def _sync(path: Path, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        raise FsyncFailed(
            f"cannot make {path} durable ({error.strerror or error}); "
            "the disk may be failing, so nothing more is recorded by this process"
        ) from error


def _failed(path: Path, error: OSError) -> RecordingFailed:
    return RecordingFailed(f"cannot write {path} ({error.strerror or error}); nothing of it was acknowledged")
