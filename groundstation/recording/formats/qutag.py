"""quTAG and quTAU files: binary (10-byte records), raw (the same without header) and compressed (5 bytes).

A header of 40 bytes, whose meaning is not published; then little-endian records. Binary: the time (int64), the
channel (uint16), counted from 0; 100 to 104 and 200 to 203 are markers, 104 a millisecond tick. Compressed: 40
bits, the time in the low 37, the channel in the high 3; the time wraps. The file does not say its unit: 1 ps
(quTAG) unless told otherwise (quTAU: 80.955 ps). Tags of different channels are not in order.
Source: `tdcbase.h` V1.5.2, function TDC_writeTimestamps; the sample of ETA's tests begins with `_MAGIC`.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import (
    About,
    TagFile,
    Unwrapper,
    exact_unit,
    in_time_order,
    records,
    require_channels,
    require_positive,
    to_ps,
    to_ticks,
)

_MAGIC = bytes.fromhex("87b391fa22dd2800")
#: What our files begin with: the header of a real file, without what seems to name its device.
_HEADER = _MAGIC + bytes.fromhex("0008000073000000") + bytes(24)
_BINARY = np.dtype([("time", "<i8"), ("channel", "<u2")])
_COMPRESSED = np.dtype((np.uint8, 5))
_TIME_BITS = 37
_MARKERS = (*range(100, 105), *range(200, 204))
_INPUTS = range(20)  # of a chain of synchronised devices
_PROBE_RECORDS = 1000


def recognises(head: bytes) -> bool:
    """Whether it has the header and, read as 10-byte records, only channels that exist."""
    return head.startswith(_MAGIC) and _has_right_channels(head)


def recognises_compressed(head: bytes) -> bool:
    """Whether it has the header, but no 10-byte records after it."""
    return head.startswith(_MAGIC) and not _has_right_channels(head)


def read(path: Path, resolution_ps: float | None = None) -> TagFile:
    """Read the binary format."""
    return _read(path, "qutag", resolution_ps)


def read_raw(path: Path, resolution_ps: float | None = None) -> TagFile:
    """Read the binary format without a header."""
    return _read(path, "qutag-raw", resolution_ps)


def read_compressed(path: Path, resolution_ps: float | None = None) -> TagFile:
    """Read the compressed format. A silence of more than half the counter's span (69 ms at 1 ps) goes unseen."""
    return _read(path, "qutag-compressed", resolution_ps)


def write(path: Path, source: TagFile) -> None:
    """Write the binary format in units of 1 ps."""
    with path.open("wb") as file:
        file.write(_HEADER)
        _write_binary(file, source)


def write_raw(path: Path, source: TagFile) -> None:
    """Write the binary format without a header."""
    with path.open("wb") as file:
        _write_binary(file, source)


def write_compressed(path: Path, source: TagFile) -> None:
    """Write the compressed format in units of 1 ps. Raises BadInput where the counter could not be continued."""
    last_ps: int | None = None
    with path.open("wb") as file:
        file.write(_HEADER)
        for block in source.blocks:
            require_channels(block.channel, range(8), "qutag-compressed")
            require_positive(block.time_ps, "qutag-compressed")
            steps = np.diff(block.time_ps, prepend=block.time_ps[:1] if last_ps is None else last_ps)
            if steps.size and steps.max() >= 1 << (_TIME_BITS - 1):
                raise BadInput("qutag-compressed cannot hold a silence of more than 69 ms; export to qutag instead")
            words = (block.time_ps & ((1 << _TIME_BITS) - 1)) | (block.channel.astype(np.int64) << _TIME_BITS)
            file.write(words.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :5].tobytes())
            last_ps = int(block.time_ps[-1]) if block.time_ps.size else last_ps


def _write_binary(file: BinaryIO, source: TagFile) -> None:
    for block in source.blocks:
        rows = np.empty(block.time_ps.size, _BINARY)
        rows["time"] = to_ticks(block.time_ps, Fraction(1))
        rows["channel"] = block.channel
        file.write(rows.tobytes())


def _read(path: Path, name: str, resolution_ps: float | None) -> TagFile:
    unit = exact_unit(resolution_ps or 1.0)
    about = About(name, float(unit))
    if resolution_ps is None:
        about.notes.append("the file does not say its unit of time; 1 ps was taken (--resolution-ps says otherwise)")
    offset = 0 if name == "qutag-raw" else len(_HEADER)
    if path.stat().st_size < offset:
        raise BadInput(f"{path} has {path.stat().st_size} bytes, fewer than the {offset} of a quTAG header")
    blocks = _compressed_blocks if name == "qutag-compressed" else _binary_blocks
    return TagFile(about, in_time_order(blocks(path, about, unit, offset), about, f"{path}, read as {name},"))


def _binary_blocks(path: Path, about: About, unit: Fraction, offset: int) -> Iterator[TagBlock]:
    for rows in records(path, _BINARY, about, offset):
        channel = rows["channel"]
        if channel.size and channel.max() > 255:
            raise BadInput(
                f"{path} is not of format {about.format}: it has channel {channel.max()}, at most 203 exists"
            )
        about.channels |= {number: f"marker {number - 100}" for number in _MARKERS if np.any(channel == number)}
        yield TagBlock(to_ps(rows["time"].astype(np.int64), unit, str(path)), channel.astype(np.uint8))


def _compressed_blocks(path: Path, about: About, unit: Fraction, offset: int) -> Iterator[TagBlock]:
    unwrapper = Unwrapper(_TIME_BITS)
    for rows in records(path, _COMPRESSED, about, offset):
        word = _words(rows)
        ticks = unwrapper.feed(word & ((1 << _TIME_BITS) - 1))
        yield TagBlock(to_ps(ticks, unit, str(path)), (word >> _TIME_BITS).astype(np.uint8))


def _words(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    wide = np.zeros((len(rows), 8), np.uint8)
    wide[:, :5] = rows
    return wide.view("<i8").reshape(-1)


def _has_right_channels(head: bytes) -> bool:
    count = min(_PROBE_RECORDS, max(0, len(head) - len(_HEADER)) // _BINARY.itemsize)
    rows = np.frombuffer(head, _BINARY, count, len(_HEADER) if count else 0)
    return bool(np.isin(rows["channel"], (*_INPUTS, *_MARKERS)).all())
