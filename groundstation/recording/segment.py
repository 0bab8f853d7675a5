"""One segment of a stream, and its bytes: an HDF5 image made in memory; the library never touches the disk.

A segment file is an ordinary HDF5 file (`/header`, `/hash`, `/tables/<table>/<column>`) for whoever wants to open it,
followed by a footer of ours: JSON that says where in the image the header and each column lie, and their
hash; then the lengths and a CRC-32. Our reader needs nothing but the footer. So no damaged byte ever reaches
the HDF5 library, which was not made to survive that, and a segment is read in a tenth of the time.

The SHA-256 is over the meaning (header and columns) and not over the HDF5 bytes, so that the sealed file can
prove that it holds the same segments.
"""

import hashlib
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput, RecordingDamaged

#: Columns of equal length, one-dimensional: integers, floats, booleans or fixed-width bytes.
Table = dict[str, NDArray[Any]]

#: What the first segment of a stream names as the hash of the segment before it.
NO_HASH = "0" * 64
#: A larger file is no segment of ours; the limit bounds what a reader loads into memory.
MAX_IMAGE_BYTES = 1 << 30

_FORMAT = 1
_TAIL = struct.Struct("<8sQQI")
_MAGIC = b"GSSEGM1\n"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_DTYPE = re.compile(r"[<|][iufbS][1-9][0-9]*\Z")


@dataclass(frozen=True, eq=False)
class Segment:
    """A run of rows of one stream. Two segments are equal when their hashes are.

    `number` counts from 1; `first_row` is how many rows each table of the stream had before this segment;
    `notes` are JSON values; `end` marks the stream's last segment; `previous_hash` chains it to the one
    before (`NO_HASH` at first). Raises BadInput when a name, a column or a note cannot be recorded.
    """

    stream: str
    number: int
    run_id: str
    first_row: dict[str, int]
    tables: dict[str, Table]
    notes: dict[str, object]
    end: bool
    previous_hash: str

    def __post_init__(self) -> None:
        check_name(self.stream)
        for name, table in self.tables.items():
            _check_table(f"{self.stream}/{name}", name, table)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Rows of each table in this segment."""
        return {name: len(next(iter(table.values()))) for name, table in self.tables.items()}

    @cached_property
    def header(self) -> bytes:
        """Everything but the columns' values, as canonical JSON."""
        columns = {name: {c: _dtype(a).str for c, a in table.items()} for name, table in self.tables.items()}
        return canonical_json(
            {
                "format": _FORMAT,
                "stream": self.stream,
                "number": self.number,
                "run_id": self.run_id,
                "first_row": self.first_row,
                "rows": self.rows,
                "columns": columns,
                "notes": _plain(self.stream, self.notes),
                "end": self.end,
                "previous_hash": self.previous_hash,
            }
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the header and every column's bytes, tables and columns in order of their names."""
        digest = hashlib.sha256(self.header)
        for _, table in sorted(self.tables.items()):
            for _, column in sorted(table.items()):
                digest.update(_flat(column).view(np.uint8).data)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segment) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)


@dataclass(frozen=True)
class Damage:
    """A segment that is missing or cannot be trusted, in the place where it should have been.

    `rows_lost` is what the next good segment tells: rows of each table that are gone (without tables that
    lost none), None when nobody knows. Of several damaged segments in a row the first counts the rows of them
    all.
    """

    stream: str
    number: int
    file_name: str
    sentence: str
    rows_lost: dict[str, int] | None


def encode(segment: Segment) -> bytes:
    """The bytes of a segment file. Raises BadInput when they would be more than `MAX_IMAGE_BYTES`."""
    image, places = _image(segment)
    footer = canonical_json(places)
    content = image + footer
    if len(content) + _TAIL.size > MAX_IMAGE_BYTES:
        raise BadInput(
            f"segment {segment.number} of stream {segment.stream} has {len(content)} bytes, "
            f"more than {MAX_IMAGE_BYTES}; publish more often"
        )
    return content + _TAIL.pack(_MAGIC, len(image), len(footer), zlib.crc32(content))


def _image(segment: Segment) -> tuple[bytes, dict[str, object]]:
    """The HDF5 file, and where in it everything lies."""
    in_memory = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    in_memory.set_fapl_core(1 << 16, False)
    # The library tells files in memory apart by their names, hence the id.
    name = f"{segment.stream}-{segment.number}-{id(segment)}"
    # h5py's low-level calls: its File and Dataset take twice the time, on the way from the photon to the disk.
    file = h5py.h5f.create(name.encode(), h5py.h5f.ACC_TRUNC, fapl=in_memory)
    try:
        header = _add(file, "header", np.array(segment.header))
        _add(file, "hash", np.array(segment.hash.encode()))
        columns = {
            table: {column: _add(file, f"tables/{table}/{column}", _flat(a)) for column, a in content.items()}
            for table, content in segment.tables.items()
        }
        h5py.h5f.flush(file)
        image: bytes = file.get_file_image()
        return image, {"header": [header, len(segment.header)], "columns": columns, "hash": segment.hash}
    finally:
        file.close()


def _add(file: Any, path: str, values: NDArray[Any]) -> int | None:
    """Add a dataset and say where its values lie; None when it has none."""
    groups_on_the_way = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    groups_on_the_way.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    space = h5py.h5s.create_simple(values.shape) if values.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(file, path.encode(), kind, space, lcpl=groups_on_the_way)
    if values.size == 0:
        return None
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    offset: int = dataset.get_offset()
    return offset


def read_file(path: Path, where: str) -> bytes:
    """The bytes of a segment file. Raises OSError, and RecordingDamaged for what cannot be a segment's file."""
    # Opening a pipe that somebody left there would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RecordingDamaged(f"{where} is damaged: it is no file")
        if status.st_size > MAX_IMAGE_BYTES:
            raise RecordingDamaged(f"{where} is damaged: it has {status.st_size} bytes, more than any segment")
        return file.read(status.st_size)


def decode(content: bytes, where: str) -> Segment:
    """The segment in the bytes of a segment file; `where` names it in errors.

    Raises RecordingDamaged whatever else the bytes are. Reserves no more memory than the bytes themselves
    take.
    """
    image_length, footer_length = _checked_lengths(content, where)
    try:
        places = json.loads(content[image_length : image_length + footer_length])
        start, length = places["header"]
        left_bytes = image_length

        def column_of(table: str, column: str, rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
            nonlocal left_bytes
            left_bytes -= rows * dtype.itemsize
            if rows == 0:
                return np.empty(0, dtype)
            if left_bytes < 0:
                raise ValueError("it announces more rows than it has bytes")
            return np.frombuffer(content, dtype, rows, places["columns"][table][column]).copy()

        return segment_of(json.loads(content[start : start + length]), places["hash"], column_of, where)
    except RecordingDamaged:
        raise
    except Exception as error:  # the checksum is right, so somebody made these bytes to look like a segment
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecordingDamaged(f"{where} is damaged: it cannot be read as a segment ({reason})") from error


def segment_of(
    fields: dict[str, Any],
    expected_hash: str,
    column_of: Callable[[str, str, int, np.dtype[Any]], NDArray[Any]],
    where: str,
) -> Segment:
    """Rebuild a segment from its parsed header and a function (table, column, rows, dtype) -> values.

    Raises RecordingDamaged when the result is not what `expected_hash` promises.
    """
    if fields["format"] != _FORMAT:
        raise RecordingDamaged(f"{where} has segment format {fields['format']}, expected {_FORMAT}")
    tables = {
        table: {
            column: column_of(table, column, fields["rows"][table], _dtype_of(text)) for column, text in columns.items()
        }
        for table, columns in fields["columns"].items()
    }
    segment = Segment(
        stream=fields["stream"],
        number=fields["number"],
        run_id=fields["run_id"],
        first_row=fields["first_row"],
        tables=tables,
        notes=fields["notes"],
        end=fields["end"],
        previous_hash=fields["previous_hash"],
    )
    if segment.hash != expected_hash:
        raise RecordingDamaged(f"{where} is damaged: its content does not match its hash")
    return segment


def canonical_json(value: object) -> bytes:
    """JSON that is the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def check_name(name: str) -> None:
    """Raise BadInput unless the name can be a stream's, a table's or a column's in files and directories."""
    if not _NAME.match(name):
        raise BadInput(f'"{name}" cannot name a stream, table or column; use letters, digits and underscores')


def _checked_lengths(content: bytes, where: str) -> tuple[int, int]:
    """Length of the HDF5 image and of the footer, once the checksum over both is known to be right."""
    if len(content) < _TAIL.size:
        raise RecordingDamaged(f"{where} is damaged: it has {len(content)} bytes, too few for a segment")
    magic, image_length, footer_length, checksum = _TAIL.unpack(content[-_TAIL.size :])
    if magic != _MAGIC or image_length + footer_length + _TAIL.size != len(content):
        raise RecordingDamaged(f"{where} is damaged: it does not end as a segment does, so it was cut or is none")
    if zlib.crc32(memoryview(content)[: -_TAIL.size]) != checksum:
        raise RecordingDamaged(f"{where} is damaged: its bytes do not match its checksum")
    return image_length, footer_length


def _check_table(where: str, name: str, table: Mapping[str, NDArray[Any]]) -> None:
    check_name(name)
    if not table:
        raise BadInput(f"table {where} has no columns; leave it out of the segment instead")
    rows = len(next(iter(table.values())))
    for column_name, column in table.items():
        check_name(column_name)
        if column.ndim != 1 or len(column) != rows:
            raise BadInput(f"column {where}/{column_name} has shape {column.shape}, expected ({rows},)")
        if column.dtype.kind not in "iufbS" or column.dtype.itemsize == 0 or column.dtype.char == "g":
            raise BadInput(
                f"column {where}/{column_name} has dtype {column.dtype}; "
                "use integers, floats, booleans or fixed-width bytes"
            )


def _dtype(column: NDArray[Any]) -> np.dtype[Any]:
    return column.dtype.newbyteorder("<")


def _dtype_of(text: str) -> np.dtype[Any]:
    if not _DTYPE.match(text):
        raise ValueError(f'"{text}" is no column type')
    return np.dtype(text)


def _flat(column: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(column, dtype=_dtype(column))


def _plain(stream: str, notes: Mapping[str, object]) -> Any:
    """The notes as a reader will get them: only then is the hash the same on both sides."""
    try:
        return json.loads(json.dumps(notes, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadInput(f"a note of stream {stream} is no JSON value ({error})") from error
