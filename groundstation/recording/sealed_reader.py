"""Reads a sealed file as the segments it was made of, a few at a time.

The file's layout, all that is ours being under `/user/groundstation`:

    manifest                 the manifest's JSON
    streams/S/index          a line of JSON for each segment: its header and hash, or its damage
    streams/S/tables/T/C     all rows of column C; a segment's are found by adding up those before it

The table `tags` of the stream `tags` is not there: its columns are `/photon_data/timestamps` and `detectors`.

The chain of hashes is followed here as in the directory: a segment that was cut out, changed or put elsewhere after
the sealing appears as damage.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.manifest import parse_manifest
from groundstation.recording.photon_hdf5 import DETECTOR_IDS, TIMESTAMPS
from groundstation.recording.segment import NO_HASH, Damage, Segment, segment_of
from groundstation.recording.writer import segment_name

GROUP = "user/groundstation"
_PHOTON_DATA = {("tags", "tags", "time_ps"): TIMESTAMPS, ("tags", "tags", "channel"): DETECTOR_IDS}
_T = TypeVar("_T")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def dataset_path(stream: str, table: str, column: str) -> str:
    """Where a column lies in the sealed file."""
    return _PHOTON_DATA.get((stream, table, column), f"{GROUP}/streams/{stream}/tables/{table}/{column}")


def is_sealed_recording(path: Path) -> bool:
    """Whether a file is one of ours; HDF5 that cannot be opened at all is taken for a damaged one. Raises OSError."""
    with path.open("rb") as content:
        if content.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
            return False
    try:
        with h5py.File(path, "r") as file:
            return f"{GROUP}/manifest" in file
    except Exception:  # the library raises nearly every type there is for bytes it does not like
        return True


class SealedRecording:
    """A recording in one file. Raises BadInput when it is none of ours, RecordingDamaged when broken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)
        try:
            self.manifest: dict[str, Any] = parse_manifest(self._text(f"{GROUP}/manifest"), str(path))
        except BaseException:
            self._file.close()
            raise

    @property
    def run_id(self) -> str:
        """The run that every segment names."""
        return str(self.manifest["run_id"])

    def streams(self) -> tuple[str, ...]:
        """The streams that were sealed, in alphabetical order."""
        return tuple(sorted(self.guarded(f"{GROUP}/streams", lambda: list(self._file[f"{GROUP}/streams"]))))

    def stream(self, name: str) -> "SealedStream":
        """A reader at the stream's first segment; a stream that is not there has ended, incomplete."""
        index = self._text(f"{GROUP}/streams/{name}/index") if name in self.streams() else b""
        return SealedStream(self, name, index)

    def surplus(self, rows: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Sentences about datasets whose length is not that of all segments; `rows`: stream -> table -> rows.

        Every other program would take such rows for recorded ones.
        """
        expected = {TIMESTAMPS: rows.get("tags", {}).get("tags", 0)}
        expected[DETECTOR_IDS] = expected[TIMESTAMPS]
        prefix = f"{GROUP}/streams/"
        found = []
        for path, dataset in self.guarded(GROUP, lambda: list(self._datasets())):
            if path.startswith(prefix) and "/tables/" in path:
                stream, _, table, _ = path.removeprefix(prefix).split("/", 3)
                expected[path] = rows.get(stream, {}).get(table, 0)
            if path in expected and dataset.size != expected[path]:
                found.append(
                    f"dataset /{path} has {dataset.size:,} rows, but the segments account for {expected[path]:,}"
                )
        return found

    def without_checksum(self) -> list[str]:
        """The datasets of the recording that HDF5 keeps no checksum of, so that a flipped bit would not show."""
        datasets = self.guarded(GROUP, lambda: list(self._datasets()))
        return [path for path, dataset in datasets if not dataset.fletcher32]

    def _datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """All datasets that hold something of the recording."""
        paths = [TIMESTAMPS, DETECTOR_IDS]
        self._file[GROUP].visit(lambda name: paths.append(f"{GROUP}/{name}"))
        for path in paths:
            if isinstance(entry := self._file[path], h5py.Dataset):
                yield path, entry

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def slice(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a dataset. Raises RecordingDamaged naming the dataset when they cannot be had."""

        def read() -> NDArray[Any]:
            values: NDArray[Any] = self._file[path][start:stop]
            if len(values) != stop - start:
                raise ValueError(f"it has {start + len(values)} rows, expected at least {stop}")
            return values

        return self.guarded(path, read)

    def _text(self, path: str) -> bytes:
        def read() -> bytes:
            return bytes(self._file[path][()].tobytes())

        return self.guarded(path, read)

    def guarded(self, path: str, read: Callable[[], _T]) -> _T:
        """What `read` returns; RecordingDamaged naming the dataset when it fails in any way."""
        try:
            return read()
        except RecordingDamaged:
            raise
        except Exception as error:  # the library raises nearly every type there is for bytes it does not like
            raise RecordingDamaged(f"dataset /{path} of {self._path} cannot be read ({_first_line(error)})") from error


class SealedStream:
    """The segments of one stream of a sealed file; what is damaged is named in its place."""

    def __init__(self, recording: SealedRecording, stream: str, index: bytes) -> None:
        self._recording = recording
        self._stream = stream
        self._lines = index.splitlines()
        self._next = 0
        self._rows: dict[str, int] = {}  # rows of each table before the next segment, in the file
        self._chain = _Chain(stream, recording.run_id)

    @property
    def ended(self) -> bool:
        """Whether all segments have been returned."""
        return self._next >= len(self._lines) and not self._chain.ready

    @property
    def complete(self) -> bool:
        """Whether it was read to its end, was not abandoned by its writer, and nothing in it was damaged."""
        return self.ended and self._chain.closed_in_order and self._chain.sound

    def stop_following(self) -> None:
        """A sealed file does not grow."""

    def poll(self, limit: int = 16) -> list[Segment | Damage]:
        """The next `limit` segments and damages, each column read in one piece for all of them."""
        ready = self._chain.ready
        while len(ready) < limit and self._next < len(self._lines):
            lines = self._lines[self._next : self._next + limit - len(ready)]
            self._recording.guarded(f"{GROUP}/streams/{self._stream}/index", partial(self._take, lines))
            self._next += len(lines)
            if self._next >= len(self._lines):
                self._chain.finish()
        return [ready.popleft() for _ in range(min(limit, len(ready)))]

    def _take(self, lines: list[bytes]) -> None:
        entries = [json.loads(line) for line in lines]
        headers = [entry["header"] for entry in entries if "header" in entry]
        columns = _Columns(self._recording, self._stream, self._rows, headers)
        for entry in entries:
            if "damage" in entry:
                self._chain.add_damage(Damage(stream=self._stream, **entry["damage"]))
                continue
            where = f"segment {entry['header']['number']} of stream {self._stream}"
            try:
                self._chain.add(segment_of(entry["header"], entry["hash"], columns.take, where))
            except RecordingDamaged as error:
                if not columns.can_go_on:
                    raise
                self._chain.refuse(entry["header"]["number"], str(error))
            columns.advance(entry["header"]["rows"])
        self._rows = columns.rows


class _Chain:
    """Follows numbers and hashes from segment to segment, and names the places where they do not go on."""

    def __init__(self, stream: str, run_id: str) -> None:
        self.ready: deque[Segment | Damage] = deque()
        self.sound = True
        self.closed_in_order = False
        self._stream = stream
        self._run_id = run_id
        self._number = 1  # the next
        self._hash = NO_HASH
        self._rows: dict[str, int] | None = {}  # up to here; None when nobody knows
        self._linked = True  # whether the last place holds a good segment, which the next must name
        self._held: list[Damage] = []  # until the next good segment tells what they cost
        self._over = False
        self._after_damage = False  # which may stand for several numbers

    def add(self, segment: Segment) -> None:
        """Take the next segment of the file."""
        where = f"segment {segment.number} of stream {self._stream}"
        if (segment.run_id, segment.stream) != (self._run_id, self._stream):
            sentence = f"{where} belongs to stream {segment.stream} of run {segment.run_id}, not to {self._run_id}"
            self.refuse(self._number, sentence)
            return
        if self._over or segment.number < self._number:
            self.refuse(segment.number, f"{where} is in the wrong place: it comes after segment {self._number - 1}")
            return
        self._skip_to(segment.number)
        if self._linked and segment.previous_hash != self._hash:
            self.refuse(segment.number, f"{where} does not continue the one before it: the chain of hashes is broken")
            return
        self._accept(segment)

    def add_damage(self, damage: Damage) -> None:
        """Take a damage that the sealing found; it counted what is lost."""
        if damage.number >= self._number:
            self._skip_to(damage.number)
            self._number = damage.number + 1
        self._release(None)
        self.ready.append(damage)
        self.sound = self._linked = self.closed_in_order = False
        self._after_damage = True
        known = self._rows is not None and damage.rows_lost is not None
        self._rows = dict(Counter(self._rows) + Counter(damage.rows_lost)) if known else None

    def refuse(self, number: int, sentence: str) -> None:
        """Note a segment that is there and cannot be trusted."""
        if number >= self._number:
            self._skip_to(number)
            self._number = number + 1
        self._hold(number, sentence)

    def finish(self) -> None:
        """There are no more."""
        self._release(None)

    def _skip_to(self, number: int) -> None:
        """Name the numbers that are left out: the sealing would have named them."""
        if self._after_damage:
            self._number = number
        elif number > self._number:
            which = f"segment {self._number}"
            which += "" if number == self._number + 1 else f" and those up to {number - 1}"
            self._hold(self._number, f"{which} of stream {self._stream} cut out of the sealed file")
            self._number = number

    def _hold(self, number: int, sentence: str) -> None:
        self._held.append(Damage(self._stream, number, segment_name(number), sentence, None))
        self.sound = self._linked = self.closed_in_order = self._after_damage = False

    def _accept(self, segment: Segment) -> None:
        if self._rows is not None:
            found = {name: rows - self._rows.get(name, 0) for name, rows in segment.first_row.items()}
            lost = {name: rows for name, rows in found.items() if rows}
            if lost and not self._held:  # the hash allows it after a damage only, and its rows are in already
                where = f"segment {segment.number} of stream {self._stream}"
                self._hold(segment.number - 1, f"more than the damage before {where} is gone: the sealed file was cut")
            self._release(lost if min(lost.values(), default=0) >= 0 else None)
        self._release(None)
        self.ready.append(segment)
        self._number, self._hash, self._linked = segment.number + 1, segment.hash, True
        self._rows = {name: rows + segment.rows.get(name, 0) for name, rows in segment.first_row.items()}
        self._over, self._after_damage = segment.end, False
        self.closed_in_order = segment.end and "abandoned" not in segment.notes

    def _release(self, rows_lost: dict[str, int] | None) -> None:
        """Hand out what was held; the first counts for them all."""
        for damage in self._held:
            self.ready.append(replace(damage, rows_lost=rows_lost))
            rows_lost = {} if rows_lost is not None else None
        self._held.clear()


class _Columns:
    """The columns of a few segments in a row: each is read once and then dealt out."""

    def __init__(
        self, recording: SealedRecording, stream: str, rows: dict[str, int], headers: list[dict[str, Any]]
    ) -> None:
        self.rows = dict(rows)
        self._first = dict(rows)
        self._recording = recording
        self._stream = stream
        self._total: Counter[str] = Counter()
        for header in headers:
            self._total.update(header["rows"])
        self._read: dict[tuple[str, str], NDArray[Any]] = {}
        self._failed = False

    def take(self, table: str, column: str, rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The next segment's rows of a column; text gets back the width it had in that segment."""
        if (table, column) not in self._read:
            first = self._first.get(table, 0)
            path = dataset_path(self._stream, table, column)
            self._failed = True
            self._read[table, column] = self._recording.slice(path, first, first + self._total[table])
            self._failed = False
        start = self.rows.get(table, 0) - self._first.get(table, 0)
        return self._read[table, column][start : start + rows].astype(dtype, copy=False)

    @property
    def can_go_on(self) -> bool:
        """Whether the datasets themselves could be read."""
        return not self._failed

    def advance(self, rows: dict[str, int]) -> None:
        """Go on to the next segment."""
        self.rows = dict(Counter(self.rows) + Counter(rows))


def _open(path: Path) -> h5py.File:
    try:
        with path.open("rb") as file:
            signature = file.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise BadInput(f"recording {path} cannot be read ({error.strerror})") from error
    if signature != _HDF5_SIGNATURE:
        raise BadInput(f"{path} is not a recording: it is neither a recording's directory nor an HDF5 file")
    try:
        opened = h5py.File(path, "r")
        names = list(opened)
        ours = "user" in names and GROUP in opened
    except Exception as error:  # the library raises nearly every type there is for bytes it does not like
        raise RecordingDamaged(f"{path} is damaged: HDF5 cannot open it ({_first_line(error)})") from error
    if not ours:
        opened.close()
        hint = (
            "is one segment of a recording; give the recording's directory" if "header" in names else "is none of ours"
        )
        raise BadInput(f"{path} is not a sealed recording: it {hint}")
    return opened


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
