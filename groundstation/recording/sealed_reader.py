"""Reads a sealed file as the segments it was made of, a few at a time.

The file's layout, all that is ours being under `/user/groundstation`:

    manifest                 the manifest's JSON
    streams/S/index          a line of JSON for each segment: its header and hash, or its damage
    streams/S/tables/T/C     all rows of column C; a segment's are found by adding up those before it

The table `tags` of the stream `tags` is not there: its columns are `/photon_data/timestamps` and `detectors`.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.manifest import parse_manifest
from groundstation.recording.photon_hdf5 import DETECTOR_IDS, TIMESTAMPS
from groundstation.recording.segment import Damage, Segment, segment_of

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
    """The segments of one stream of a sealed file."""

    def __init__(self, recording: SealedRecording, stream: str, index: bytes) -> None:
        self._recording = recording
        self._stream = stream
        self._lines = index.splitlines()
        self._next = 0
        self._rows: dict[str, int] = {}  # rows of each table before the next segment, in the file
        self._sound = True
        self._closed_in_order = False

    @property
    def ended(self) -> bool:
        """Whether all segments have been returned."""
        return self._next >= len(self._lines)

    @property
    def complete(self) -> bool:
        """Whether it was read to its end, was not abandoned by its writer, and nothing in it was damaged."""
        return self.ended and self._closed_in_order and self._sound

    def stop_following(self) -> None:
        """A sealed file does not grow."""

    def poll(self, limit: int = 16) -> list[Segment | Damage]:
        """The next `limit` segments and damages, each column read in one piece for all of them."""
        lines = self._lines[self._next : self._next + limit]
        items = self._recording.guarded(f"{GROUP}/streams/{self._stream}/index", lambda: self._items(lines))
        for item in items:
            if isinstance(item, Damage):
                self._sound = False
            else:
                self._closed_in_order = item.end and "abandoned" not in item.notes
        self._next += len(lines)
        return items

    def _items(self, lines: list[bytes]) -> list[Segment | Damage]:
        entries = [json.loads(line) for line in lines]
        headers = [entry["header"] for entry in entries if "header" in entry]
        columns = _Columns(self._recording, self._stream, self._rows, headers)
        items = [self._item(entry, columns) for entry in entries]
        self._rows = columns.rows
        return items

    def _item(self, entry: dict[str, Any], columns: "_Columns") -> Segment | Damage:
        if "damage" in entry:
            return Damage(stream=self._stream, **entry["damage"])
        where = f"segment {entry['header']['number']} of stream {self._stream}"
        segment = segment_of(entry["header"], entry["hash"], columns.take, where)
        columns.advance(segment.rows)
        return segment


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

    def take(self, table: str, column: str, rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The next segment's rows of a column; text gets back the width it had in that segment."""
        if (table, column) not in self._read:
            first = self._first.get(table, 0)
            path = dataset_path(self._stream, table, column)
            self._read[table, column] = self._recording.slice(path, first, first + self._total[table])
        start = self.rows.get(table, 0) - self._first.get(table, 0)
        return self._read[table, column][start : start + rows].astype(dtype, copy=False)

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
