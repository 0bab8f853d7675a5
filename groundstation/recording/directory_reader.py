"""Reads a recording's directory, growing or not: the directory is the queue, and what is in it never changes.

No locks, no waiting, nothing written: whoever records cannot be disturbed from here.
"""

import os
from collections import deque
from pathlib import Path
from typing import Any

from groundstation.errors import RecordingDamaged
from groundstation.recording.manifest import read_manifest
from groundstation.recording.segment import MAX_IMAGE_BYTES, NO_HASH, Damage, Segment, decode
from groundstation.recording.writer import segment_name, segment_numbers


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
        """The streams begun so far, in alphabetical order."""
        return tuple(sorted(entry.name for entry in os.scandir(self._path) if entry.is_dir()))

    def stream(self, name: str) -> "DirectoryStream":
        """A reader at the stream's first segment; the stream need not exist yet."""
        return DirectoryStream(self._path, name, self.run_id, self._follow)

    def close(self) -> None:
        """Nothing is held open between polls."""


class DirectoryStream:
    """Segments of one stream in the order of their numbers; what is damaged is named in its place."""

    def __init__(self, directory: Path, stream: str, run_id: str, follow: bool) -> None:
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
        try:
            segment = self._load()
        except FileNotFoundError:
            return False
        except RecordingDamaged as error:
            name = segment_name(self._number)
            self._held.append(Damage(self._stream, self._number, name, str(error), None))
            self._sound = False
        else:
            self._accept(segment)
        self._number += 1
        return True

    def _load(self) -> Segment:
        path = self._directory / segment_name(self._number)
        try:
            image = _read_file(path)
        except FileNotFoundError:
            # A listing made while segments appear may show a later one and not this one: look again.
            if not any(number > self._number for number in segment_numbers(self._directory)):
                raise
            try:
                image = _read_file(path)
            except FileNotFoundError as error:
                raise RecordingDamaged(f"segment {_named(path)} is missing, though later ones are there") from error
        segment = decode(image, f"segment {_named(path)}")
        self._check_place(segment, path)
        return segment

    def _check_place(self, segment: Segment, path: Path) -> None:
        found = (segment.run_id, segment.stream, segment.number)
        expected = (self._run_id, self._stream, self._number)
        if found != expected:
            raise RecordingDamaged(
                f"segment {_named(path)} is in the wrong place: "
                f"it belongs to run, stream, number {found}, expected {expected}"
            )
        if not self._held and segment.previous_hash != self._hash:
            raise RecordingDamaged(
                f"segment {_named(path)} does not continue the one before it: the chain of hashes is broken"
            )

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


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_IMAGE_BYTES:
                raise RecordingDamaged(f"segment {path} is damaged: it has {size} bytes, more than any segment")
            return file.read(size)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordingDamaged(f"segment {path} cannot be read ({error.strerror})") from error


def _named(path: Path) -> str:
    """`tags/000012.h5`: the same sentence wherever the recording lies, for it enters the report."""
    return f"{path.parent.name}/{path.name}"
