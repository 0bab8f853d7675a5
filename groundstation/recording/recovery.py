"""Brings a recording whose station died into good order, and says what is there and what is gone.

Nothing that was published is ever changed or deleted. Half-written files go, for nothing in them was acknowledged;
a segment that cannot be trusted is moved aside, where it can still be looked at; a stream whose writer died gets its
end. Everything is read again afterwards, so a second recovery finds nothing to do and tells the same.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.account import StreamAccount, account_of
from groundstation.recording.directory_reader import DirectoryRecording
from groundstation.recording.files import POSIX, Files, FsyncFailed, RecordingFailed, sync_directory
from groundstation.recording.segment import Damage, decode, read_file
from groundstation.recording.writer import (
    QUARANTINE,
    StreamLocked,
    close_abandoned,
    lock_stream,
    segment_name,
    segment_numbers,
)

#: The note `abandoned` of a stream that recovery ended.
ENDED_BY_RECOVERY = "ended by recovery: its writer died"


@dataclass(frozen=True)
class Loss:
    """A damage, why it is one, and where the damaged file lies now: inside the recording's directory, empty when
    there is none. `rows` as `Damage.rows_lost`."""

    stream: str
    number: int
    sentence: str
    rows: dict[str, int] | None
    kept: str


@dataclass(frozen=True)
class Recovery:
    """A recording after its recovery. `cannot`: what the file system refused, in sentences."""

    directory: Path
    run_id: str
    streams: tuple[StreamAccount, ...]
    losses: tuple[Loss, ...]
    cannot: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether nothing that was acknowledged is lost, the ledgers balance, and everything could be done."""
        balanced = all(account.ledger_fault is None for account in self.streams)
        return not self.losses and not self.cannot and balanced


def recover(directory: Path, files: Files = POSIX, end: bool = True) -> Recovery:
    """Recover all streams of a recording's directory; with `end` those without an end get one.

    Raises StreamLocked, and changes nothing, while somebody writes one of them; BadInput when the directory is no
    recording; FsyncFailed when the disk fails. What else the file system refuses is said in the result.
    """
    recording = DirectoryRecording(directory, follow=False)
    streams = [name for name in recording.streams() if _is_stream(directory / name)]
    cannot: list[str] = []
    with _locked(directory, streams, files, cannot):
        _remove_part(directory / "manifest.part", directory, files, cannot)
        accounts = {name: _put_in_order(recording, directory, name, files, cannot) for name in streams}
    for name, account in accounts.items():
        if end and not account.ended and _close(directory, name, recording.run_id, files, cannot):
            accounts[name] = account_of(recording.stream(name), name)
    losses = [_loss(directory, recording.run_id, d) for account in accounts.values() for d in account.damages]
    return Recovery(directory, recording.run_id, tuple(accounts.values()), tuple(losses), tuple(cannot))


def recover_stream(directory: Path, stream: str, files: Files = POSIX) -> StreamAccount:
    """Recover one stream whose writer wants to go on: without an end, which may even not have begun.

    Reads it whole. Raises StreamLocked, BadInput and FsyncFailed as `recover` does, RecordingFailed with what else
    the file system refuses.
    """
    recording = DirectoryRecording(directory, follow=False)
    if not _is_stream(directory / stream):
        return StreamAccount(stream)
    cannot: list[str] = []
    with _locked(directory, [stream], files, cannot):
        account = _put_in_order(recording, directory, stream, files, cannot)
    if cannot:
        raise RecordingFailed("; ".join(cannot))
    return account


def _is_stream(directory: Path) -> bool:
    """Directories that somebody else made in a recording are left alone."""
    return (directory / "lock").exists() or bool(segment_numbers(directory))


@contextlib.contextmanager
def _locked(directory: Path, streams: list[str], files: Files, cannot: list[str]) -> Iterator[None]:
    """Hold the locks of all streams, so that nobody writes; where none can be made, at least see that nobody does."""
    with contextlib.ExitStack() as locks:
        for stream in streams:
            try:
                locks.callback(os.close, lock_stream(directory, stream, files))
            except StreamLocked as error:
                raise _being_written(directory, stream) from error
            except RecordingFailed as error:
                cannot.append(str(error))
                _see_that_nobody_writes(directory, stream, locks)
        yield


def _see_that_nobody_writes(directory: Path, stream: str, locks: contextlib.ExitStack) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(directory / stream / "lock", os.O_RDONLY)
        locks.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _being_written(directory, stream) from error


def _being_written(directory: Path, stream: str) -> StreamLocked:
    return StreamLocked(
        f"{directory} is being recorded into (stream {stream} has a writer); "
        "let it end or stop it, then recover what it left"
    )


def _put_in_order(
    recording: DirectoryRecording, directory: Path, stream: str, files: Files, cannot: list[str]
) -> StreamAccount:
    """Remove half-written files, move damaged ones aside; the stream's account after that."""
    for part in sorted((directory / stream).glob("*.part")):
        _remove_part(part, directory, files, cannot)
    account = account_of(recording.stream(stream), stream)
    moved = [_set_aside(directory, recording.run_id, damage, files, cannot) for damage in account.damages]
    return account_of(recording.stream(stream), stream) if any(moved) else account


def _remove_part(part: Path, directory: Path, files: Files, cannot: list[str]) -> None:
    if os.path.lexists(part):
        _attempt(f"remove {part.relative_to(directory)}", lambda: _leave(part, lambda: files.unlink(part)), cannot)


def _leave(path: Path, act: Callable[[], None]) -> None:
    """Let a name go away. A file system may report failure after the deed."""
    try:
        act()
    except OSError:
        if os.path.lexists(path):
            raise


def _set_aside(directory: Path, run_id: str, damage: Damage, files: Files, cannot: list[str]) -> bool:
    """Move a damaged segment into quarantine; whether it went there.

    One that is whole and in its place, and only does not continue the one before it, stays: one of the two was
    changed by somebody, and moving would not tell which. One that cannot be read may be readable tomorrow.
    """
    source = directory / damage.stream / damage.file_name
    if not os.path.lexists(source) or not _fault(source, run_id, damage):
        return False
    folder = directory / QUARANTINE / damage.stream

    def move() -> None:
        for made in (folder.parent, folder):
            if not made.is_dir():
                files.make_directory(made, 0o700)
            sync_directory(files, made.parent)
        target = _free_name(folder, damage.file_name)
        _leave(source, lambda: files.rename(source, target))
        sync_directory(files, folder)
        sync_directory(files, source.parent)

    return _attempt(f"move {damage.stream}/{damage.file_name} into quarantine", move, cannot)


def _free_name(folder: Path, name: str) -> Path:
    """A name in quarantine that nothing has yet, for nothing there is ever written over."""
    target, count = folder / name, 1
    while os.path.lexists(target):
        count += 1
        target = folder / f"{name}.{count}"
    return target


def _fault(path: Path, run_id: str, damage: Damage) -> str:
    """What is wrong with a file in itself; empty when nothing is, or when it cannot be read."""
    where = f"segment {damage.stream}/{damage.file_name}"
    try:
        segment = decode(read_file(path, where), where)
    except OSError:
        return ""
    except RecordingDamaged as error:
        return str(error)
    found, expected = (
        (segment.run_id, segment.stream, segment.number),
        (run_id, damage.stream, damage.number),
    )
    if found == expected:
        return ""
    return f"{where} is in the wrong place: it is segment {found[2]} of stream {found[1]} of run {found[0]}"


def _close(directory: Path, stream: str, run_id: str, files: Files, cannot: list[str]) -> bool:
    """Give an abandoned stream its end; whether anything changed."""
    try:
        return close_abandoned(directory, stream, run_id, ENDED_BY_RECOVERY, files)
    except FsyncFailed:
        raise
    except (BadInput, RecordingFailed) as error:
        cannot.append(f"cannot end stream {stream}: {error}")
        return False


def _loss(directory: Path, run_id: str, damage: Damage) -> Loss:
    folder = directory / QUARANTINE / damage.stream
    kept = sorted(folder.glob(f"{segment_name(damage.number)}*"))
    sentence = (_fault(kept[0], run_id, damage) if kept else "") or damage.sentence
    where = str(kept[0].relative_to(directory)) if kept else ""
    return Loss(damage.stream, damage.number, sentence, damage.rows_lost, where)


def _attempt(what: str, act: Callable[[], None], cannot: list[str]) -> bool:
    try:
        act()
    except OSError as error:
        cannot.append(f"cannot {what} ({error.strerror or error})")
        return False
    return True
