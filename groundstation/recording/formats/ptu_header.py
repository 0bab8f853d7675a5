"""The header of PicoQuant's unified files (PTU): a list of named values before the records.

Magic `PQTTTR`, a version, then entries of 48 bytes: name (32), index (int32), type (uint32), value (8 bytes); for
strings, arrays and blobs the value is a length and the content follows. `Header_End` is the last.
Source: PicoQuant's demonstration code for unified files; the tag dictionary for the meaning of the names.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from groundstation.errors import BadInput

MAGIC = b"PQTTTR\0\0"
_VERSION = b"1.0.00\0\0"
_ENTRY = struct.Struct("<32siI8s")
_MAX_ENTRIES = 10_000
_MOST_TEXT, _MOST_BYTES = 1 << 16, 1 << 40
_BOOL, _INT, _FLOAT, _DATE, _TEXT, _EMPTY = 0x8, 0x10000008, 0x20000008, 0x21000008, 0x4001FFFF, 0xFFFF0008
_LONG = (_TEXT, 0x4002FFFF, 0x2001FFFF, 0xFFFFFFFF)

Value = int | float | str | bool | None


class Header(NamedTuple):
    """Values by name (an indexed one as `Name(3)`), and where the records begin."""

    values: dict[str, Value]
    size: int

    def whole(self, name: str, where: Path) -> int:
        """A whole number that must be there."""
        value = self.values.get(name)
        if not isinstance(value, int):
            raise BadInput(f"the header of {where} has no whole number {name}; the file is damaged or unfinished")
        return value


def read_header(path: Path) -> Header:
    """Read it. Raises BadInput when it is none or is cut."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BadInput(f"{path} is no PTU file: it does not begin with PQTTTR")
        file.read(len(_VERSION))
        values: dict[str, Value] = {}
        for _ in range(_MAX_ENTRIES):
            entry = file.read(_ENTRY.size)
            if len(entry) < _ENTRY.size:
                break
            name, value = _entry(file, entry)
            if name == "Header_End":
                return Header(values, file.tell())
            values[name] = value
    raise BadInput(f"{path} is a PTU file whose header has no end; the file is cut or damaged")


def _entry(file: BinaryIO, entry: bytes) -> tuple[str, Value]:
    raw_name, index, kind, raw = _ENTRY.unpack(entry)
    name = raw_name.rstrip(b"\0").decode("ascii", "replace") + (f"({index})" if index >= 0 else "")
    (whole,) = struct.unpack("<q", raw)
    if kind in _LONG:
        content = file.read(max(0, min(whole, _MOST_TEXT)))
        file.seek(max(0, min(whole - len(content), _MOST_BYTES)), os.SEEK_CUR)
        return name, content.rstrip(b"\0").decode("utf-8", "replace") if kind == _TEXT else None
    if kind in (_FLOAT, _DATE):
        return name, float(struct.unpack("<d", raw)[0])
    if kind == _BOOL:
        return name, bool(whole)
    return name, None if kind == _EMPTY else int(whole)


class HeaderWriter:
    """Writes a header whose whole numbers can be corrected once the records are there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, int] = {}
        file.write(MAGIC + _VERSION)

    def add(self, name: str, value: Value, index: int = -1, date: bool = False) -> None:
        """One entry; `date`: a float that counts days."""
        content = b""
        if isinstance(value, bool):
            kind, raw = _BOOL, struct.pack("<q", value)
        elif isinstance(value, int):
            kind, raw = _INT, struct.pack("<q", value)
            self._places[name] = self._file.tell() + _ENTRY.size - 8
        elif isinstance(value, float):
            kind, raw = _DATE if date else _FLOAT, struct.pack("<d", value)
        elif isinstance(value, str):
            content = value.encode() + b"\0"
            content += bytes(-len(content) % 8)
            kind, raw = _TEXT, struct.pack("<q", len(content))
        else:
            kind, raw = _EMPTY, bytes(8)
        self._file.write(_ENTRY.pack(name.encode("ascii"), index, kind, raw) + content)

    def correct(self, name: str, value: int) -> None:
        """Write another whole number in the place of one that was added."""
        self._file.seek(self._places[name])
        self._file.write(struct.pack("<q", value))
