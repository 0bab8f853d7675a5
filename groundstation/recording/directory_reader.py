"""Reads a recording's directory, growing or not: the directory is the queue, and what is in it never changes.

No locks, no waiting, nothing written: whoever records cannot be disturbed from here.
"""

import os
from collections import deque
from pathlib import Path
from typing import Any

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.manifest import read_manifest
from groundstation.recording.segment import NO_HASH, Damage, Segment, decode, read_file
from groundstation.recording.writer import QUARANTINE, quarantined_numbers, segment_name, segment_numbers

#: While following, a directory of thousands of segments is listed only so often for a segment that is not there yet.
_MISSES_PER_LISTING = 100


class _NotThereYet(Exception):
    """No segment of this or a later number was published so far."""


class DirectoryRecording:
    """A recording that is a directory of streams. Raises BadInput when the directory is none of ours."""

    def __init__(self, path: Path, follow: bool) -> None:
        self._path = path
        self._follow = follow
        self.manifest: dict[str, Any] = read_manifest(path)

    @property
    def run_id(self) -> str:
        """The run that every segment names."""
        return str(self.manifest["run_id"])

    def streams(self) -> tuple[str, ...]:
        """The streams begun so far, in alphabetical order. Raises BadInput when the directory cannot be listed."""
        try:
            with os.scandir(self._path) as entries:
                return tuple(sorted(e.name for e in entries if e.is_dir() and e.name != QUARANTINE))
        except OSError as error:
            raise BadInput(f"recording {self._path} cannot be listed ({error.strerror}); was it removed?") from error

    def stream(self, name: str) -> "DirectoryStream":
        """A reader at the stream's first segment; the stream need not exist yet."""
        return DirectoryStream(self._path, name, self.run_id, self._follow)

    def close(self) -> None:
        """Nothing is held open between polls."""


class DirectoryStream:
    """Segments of one stream in the order of their numbers; what is damaged is named in its place."""

    def __init__(self, directory: Path, stream: str, run_id: str, follow: bool) -> None:
        self._recording = directory
        self._directory = directory / stream
        self._stream = stream
        self._run_id = run_id
        self._follow = follow
        self._number = 1  # the next to be read
        self._hash = NO_HASH
        self._rows: dict[str, int] = {}
        self._ready: deque[Segment | Damage] = deque()
        self._held: list[Damage] = []  # until the next good segment tells what they cost
        self._exhausted = False
        self._misses = 0
        self._sound = True
        self._closed_in_order = False

    @property
    def ended(self) -> bool:
        """Whether everything there ever will be has been returned."""
        return self._exhausted and not self._ready

    @property
    def complete(self) -> bool:
        """Whether it was read to its end, was not abandoned by its writer, and nothing in it was damaged."""
        return self.ended and self._closed_in_order and self._sound

    def stop_following(self) -> None:
        """From now on the end is the last segment that is there."""
        self._follow = False

    def poll(self, limit: int = 16) -> list[Segment | Damage]:
        """Up to `limit` segments (and damages) that can be had now; never waits."""
        while len(self._ready) < limit and not self._exhausted:
            following = self._follow
            if not self._read_next():
                if following:
                    break
                self._finish()
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    def _read_next(self) -> bool:
        """Take the next number; False when it is not there yet."""
        number = self._number
        self._number += 1
        try:
            segment = self._load(number)
        except _NotThereYet:
            self._number = number
            return False
        except RecordingDamaged as error:
            self._held.append(Damage(self._stream, number, segment_name(number), str(error), None))
            self._sound = False
        else:
            self._accept(segment)
        return True

    def _load(self, number: int) -> Segment:
        path = self._directory / segment_name(number)
        where = f"segment {path.parent.name}/{path.name}"  # the same wherever the recording lies: it enters the report
        try:
            image = read_file(path, where)
        except OSError:
            image = self._look_again(number, path, where)
        segment = decode(image, where)
        self._check_place(segment, number, where)
        return segment

    def _look_again(self, number: int, path: Path, where: str) -> bytes:
        """The file, if it came in the meantime: a listing made while segments appear may show only later ones."""
        if self._follow and self._misses % _MISSES_PER_LISTING:
            self._misses += 1
            raise _NotThereYet
        self._misses += 1
        if max(self._numbers(), default=0) < number:
            raise _NotThereYet
        try:
            return read_file(path, where)
        except FileNotFoundError as error:
            raise RecordingDamaged(self._missing(number, where)) from error
        except OSError as error:
            raise RecordingDamaged(f"{where} cannot be read ({error.strerror})") from error

    def _missing(self, number: int, where: str) -> str:
        """What to say of a number without a file; a run of them is one damage, however long it is."""
        if number in quarantined_numbers(self._recording, self._stream):
            return self._put_aside(number, where)
        self._number = min((n for n in self._numbers() if n > number), default=number + 1)
        if self._number == number + 1:
            return f"{where} is missing, though later ones are there"
        return f"{where} and those up to {segment_name(self._number - 1)} are missing, though later ones are there"

    def _put_aside(self, number: int, where: str) -> str:
        """What is wrong with a segment in quarantine: told as while it lay in its place, for it enters the report."""
        folder = self._recording / QUARANTINE / self._stream
        for kept in sorted(folder.glob(f"{segment_name(number)}*"))[:1]:
            try:
                self._check_place(decode(read_file(kept, where), where), number, where)
            except RecordingDamaged as error:
                return str(error)
            except OSError:
                break
        return f"{where} was damaged and put into quarantine"

    def _numbers(self) -> list[int]:
        """Of all segments that are or were there, as far as the directory tells."""
        return segment_numbers(self._directory) + quarantined_numbers(self._recording, self._stream)

    def _check_place(self, segment: Segment, number: int, where: str) -> None:
        found = (segment.run_id, segment.stream, segment.number)
        expected = (self._run_id, self._stream, number)
        if found != expected:
            raise RecordingDamaged(
                f"{where} is in the wrong place: it belongs to run, stream, number {found}, expected {expected}"
            )
        if not self._held and segment.previous_hash != self._hash:
            raise RecordingDamaged(f"{where} does not continue the one before it: the chain of hashes is broken")

    def _accept(self, segment: Segment) -> None:
        if self._held:
            first, *others = self._held
            self._ready.append(_with_rows(first, self._rows_lost(segment)))
            self._ready.extend(_with_rows(damage, {}) for damage in others)
            self._held.clear()
        self._ready.append(segment)
        self._hash = segment.hash
        self._rows = {name: rows + segment.rows.get(name, 0) for name, rows in segment.first_row.items()}
        if segment.end:
            self._exhausted = True
            self._closed_in_order = "abandoned" not in segment.notes

    def _rows_lost(self, segment: Segment) -> dict[str, int] | None:
        if segment.previous_hash == self._hash:
            return None  # its writer came after the damage and could not count what was in there
        lost = {name: rows - self._rows.get(name, 0) for name, rows in segment.first_row.items()}
        if min(lost.values(), default=0) < 0:
            return None
        return {name: rows for name, rows in lost.items() if rows}

    def _finish(self) -> None:
        self._ready.extend(self._held)
        self._held.clear()
        self._exhausted = True


def _with_rows(damage: Damage, rows_lost: dict[str, int] | None) -> Damage:
    return Damage(damage.stream, damage.number, damage.file_name, damage.sentence, rows_lost)
