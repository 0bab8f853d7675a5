"""Says whether a recording is as it was written: every segment whole, in its place, and named by the next one.

Each segment carries the hash of the one before, so nobody can change, cut or swap one without the chain breaking at
that place. Who writes the whole chain anew, or cuts off its end, makes a good chain: that shows in the fingerprint
only, which is why it is written down elsewhere when a recording ends.
"""

import contextlib
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from groundstation.errors import GroundStationError
from groundstation.recording.account import StreamAccount, account_of
from groundstation.recording.directory_reader import DirectoryRecording
from groundstation.recording.reader import Recording, open_recording
from groundstation.recording.sealed_reader import SealedRecording
from groundstation.recording.segment import canonical_json
from groundstation.recording.writer import quarantined_numbers, segment_numbers


@dataclass(frozen=True)
class Break:
    """A place where a recording is not as it was written; `stream` is empty for the file as a whole."""

    stream: str
    number: int
    sentence: str


@dataclass(frozen=True)
class Verification:
    """What was found. `breaks`: in the order of streams and segments. `remarks`: what an auditor should know and
    what breaks nothing."""

    path: Path
    run_id: str
    streams: tuple[StreamAccount, ...]
    breaks: tuple[Break, ...]
    remarks: tuple[str, ...]
    fingerprint: str

    @property
    def intact(self) -> bool:
        """Whether nothing is broken."""
        return not self.breaks


def verify(path: Path) -> Verification:
    """Read a recording's directory or its sealed file whole, and check everything that can be checked.

    Raises BadInput when it is no recording, RecordingDamaged when a sealed file cannot even be opened.
    """
    recording = open_recording(path)
    with contextlib.closing(recording):
        accounts = tuple(account_of(recording.stream(name), name) for name in recording.streams())
        breaks = [found for account in accounts for found in _breaks(account)]
        remarks = [remark for account in accounts for remark in _remarks(account)]
        if isinstance(recording, SealedRecording):
            if all(account.whole for account in accounts):
                breaks += [Break("", 0, sentence) for sentence in recording.surplus(_rows(accounts))]
            remarks += _remarks_on_file(path, recording)
        elif isinstance(recording, DirectoryRecording):
            for account in accounts:
                breaks += _behind_the_end(path, account)
                remarks += _remarks_on_directory(path, account)
        mark = _fingerprint(recording, {account.stream: account.last_hash for account in accounts})
        return Verification(path, recording.run_id, accounts, tuple(breaks), tuple(remarks), mark)


def fingerprint(recording: Recording) -> str:
    """SHA-256, in hex, over the manifest and the hash of each stream's last good segment, which vouches for all
    before it: the same for a recording's directory and for the file it was sealed into. Reads it whole."""
    return _fingerprint(recording, stream_hashes(recording))


def stream_hashes(recording: Recording) -> dict[str, str]:
    """The hash of each stream's last good segment (`NO_HASH` without one). Reads the recording whole."""
    return {name: account_of(recording.stream(name), name).last_hash for name in recording.streams()}


def _fingerprint(recording: Recording, hashes: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json({"manifest": recording.manifest, "streams": hashes})).hexdigest()


def _breaks(account: StreamAccount) -> list[Break]:
    """What is broken in one stream, in order."""
    found = [Break(account.stream, damage.number, damage.sentence) for damage in account.damages]
    if account.ledger_fault is not None:
        found.append(Break(account.stream, *account.ledger_fault))
    found.sort(key=lambda each: each.number)
    after = account.last_number
    if account.unreadable:
        found.append(Break(account.stream, after + 1, f"behind segment {after}, {account.unreadable}"))
    elif not account.ended:
        found.append(
            Break(
                account.stream,
                after + 1,
                f"stream {account.stream} has no end: it was cut off behind segment {after}, or is still being "
                "recorded, or its recorder died and groundstation recover was not run yet",
            )
        )
    return found


def _remarks(account: StreamAccount) -> list[str]:
    if not account.abandoned:
        return []
    return [f"stream {account.stream} was not ended by its writer: {account.abandoned}"]


def _behind_the_end(directory: Path, account: StreamAccount) -> list[Break]:
    """Segments that nobody reads, for they come after the end."""
    late = [number for number in segment_numbers(directory / account.stream) if number > account.last_number]
    if not account.ended or not late:
        return []
    return [Break(account.stream, late[0], f"stream {account.stream} has a segment {late[0]} after its end")]


def _remarks_on_directory(directory: Path, account: StreamAccount) -> list[str]:
    remarks = []
    if parts := len(list((directory / account.stream).glob("*.part"))):
        remarks.append(f"stream {account.stream} has {parts} half-written files; nothing in them was acknowledged")
    if kept := len(quarantined_numbers(directory, account.stream)):
        remarks.append(f"stream {account.stream} has {kept} segments in quarantine")
    return remarks


def _remarks_on_file(path: Path, recording: SealedRecording) -> list[str]:
    remarks = []
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise GroundStationError(f"{path} went away while it was verified ({error.strerror})") from error
    if mode & 0o222:
        remarks.append(f"the file can be written to (mode {mode:04o}); sealed files are read-only: chmod 0400")
    if mode & 0o077:
        remarks.append(f"others than its owner may read or change it (mode {mode:04o}); it holds raw key: chmod 0400")
    if bare := recording.without_checksum():
        remarks.append(f"{len(bare)} datasets carry no checksum (/{bare[0]} is the first); sealed files have them")
    if os.path.lexists(path.with_name(path.name + ".part")):
        remarks.append(f"beside it lies {path.name}.part, left by a sealing that did not end")
    return remarks


def _rows(accounts: tuple[StreamAccount, ...]) -> dict[str, Counter[str]]:
    return {account.stream: account.rows for account in accounts}
