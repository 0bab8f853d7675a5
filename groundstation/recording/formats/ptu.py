"""PicoQuant PTU files in T2 mode: every record is a tag. T3 (times within a sync period) is refused.

Records are uint32. HydraHarp, TimeHarp and MultiHarp: bit 31 special, bits 30..25 channel, bits 24..0 time;
special 63 is an overflow (the time field counts them, 0 means 1; in the first version it is always one),
special 0 the sync input, special 1 to 15 a set of markers. PicoHarp: bits 31..28 channel, bits 27..0 time;
channel 15 is special, an overflow if the low 4 bits are zero, else a set of markers.
In a recording inputs keep their numbers from 0, sync is 64 and markers m are 64 + m.
Source: PicoQuant's demonstration code, and its names in the header.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.clock import SystemClock
from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.ptu_header import MAGIC, Header, HeaderWriter, read_header
from groundstation.recording.formats.tag_file import (
    About,
    TagFile,
    exact_unit,
    in_time_order,
    records,
    require_channels,
    require_positive,
    to_ps,
)

_SYNC = 64
_OVERFLOW = 127  # top seven bits of an overflow record
_RECORD = np.dtype("<u4")
_HYDRAHARP_V2 = 0x01010204
_TIME_BITS = 25
_MOST_OVERFLOWS = (1 << _TIME_BITS) - 1
#: ptufile multiplies counts in 32 bits, so they stay small, save in a silence longer than half a minute.
_USUAL_OVERFLOWS, _LONG_SILENCE = 127, 1 << 20
_EPOCH_DAYS = 25_569  # from 1899-12-30, where the header's dates begin, to 1970


class _Kind(NamedTuple):
    time_bits: int
    wrap: int
    counts: bool  # whether an overflow record says how many overflows it stands for


_KINDS = {
    0x00010203: _Kind(28, 210_698_240, False),  # PicoHarp 300
    0x00010204: _Kind(25, 33_552_000, False),  # HydraHarp, first version
    _HYDRAHARP_V2: _Kind(25, 1 << 25, True),
    0x00010205: _Kind(25, 1 << 25, True),  # TimeHarp 260 N
    0x00010206: _Kind(25, 1 << 25, True),  # TimeHarp 260 P
    0x00010207: _Kind(25, 1 << 25, True),  # MultiHarp, PicoHarp 330
}


def recognises(head: bytes) -> bool:
    """Whether it has the magic."""
    return head.startswith(MAGIC)


def read(path: Path) -> TagFile:
    """Read T2 records; overflow records only carry the time onward."""
    header = read_header(path)
    kind = _kind_of(path, header)
    seconds = header.values.get("MeasDesc_GlobalResolution")
    if not isinstance(seconds, float) or not 0 < seconds < 1:
        raise BadInput(f"the header of {path} gives the resolution as {seconds!r}; it must be seconds, as 1e-12")
    unit = exact_unit(seconds * 1e12)
    about = About("ptu", float(unit))
    for name in ("HW_Type", "HW_SerialNo", "File_Comment"):
        if header.values.get(name):
            about.details[name] = header.values[name]
    return TagFile(about, in_time_order(_blocks(path, header, kind, unit, about), about, str(path)))


def write(path: Path, source: TagFile) -> None:
    """Write as a HydraHarp (second version) with 1 ps resolution: inputs 0 to 62, sync 64, markers 65 to 79."""
    wraps, records_written, inputs, last_ps = 0, 0, 1, 0
    with path.open("wb") as file:
        header = _write_header(HeaderWriter(file), source.about)
        for time_ps, channel in source.blocks:
            require_channels(channel, [*range(63), *range(_SYNC, _SYNC + 16)], "ptu")
            require_positive(time_ps, "ptu")
            if time_ps.size:
                rows = _encoded(time_ps, channel, wraps)
                file.write(rows.tobytes())
                records_written += rows.size
                last_ps = int(time_ps[-1])
                wraps = last_ps >> _TIME_BITS
                inputs = max([inputs, *(c + 1 for c in np.unique(channel).tolist() if c < _SYNC)])
        header.correct("TTResult_NumberOfRecords", records_written)
        header.correct("HW_InpChannels", inputs)
        for name in ("MeasDesc_AcquisitionTime", "TTResult_StopAfter"):
            header.correct(name, last_ps // 1_000_000_000 + 1)


def _kind_of(path: Path, header: Header) -> _Kind:
    number = header.whole("TTResultFormat_TTTRRecType", path)
    if header.values.get("Measurement_Mode") == 3 or number >> 8 & 0xFF == 3:
        raise BadInput(
            f"{path} holds T3 records: their times are relative to a sync pulse and make no tags; measure in T2 mode"
        )
    if number not in _KINDS:
        raise BadInput(f"{path} holds records of type 0x{number:08X}; known are " + _listed(_KINDS))
    return _KINDS[number]


def _listed(numbers: dict[int, _Kind]) -> str:
    return ", ".join(f"0x{number:08X}" for number in numbers)


def _blocks(path: Path, header: Header, kind: _Kind, unit: Fraction, about: About) -> Iterator[TagBlock]:
    announced = header.values.get("TTResult_NumberOfRecords")
    left = announced if isinstance(announced, int) and announced > 0 else None
    wraps, found, inputs = 0, 0, 0
    for rows in records(path, _RECORD, about, header.size):
        found += rows.size
        rows = rows if left is None else rows[:left]
        left = None if left is None else left - rows.size
        code, time, wrapped = (_decode_picoharp if kind.time_bits == 28 else _decode)(rows, kind)
        total = np.cumsum(wrapped)
        tags = np.flatnonzero((code < 80) & (code != _OVERFLOW))
        about.drop(int(np.count_nonzero((code >= 80) & (code != _OVERFLOW))), "special record of unknown meaning")
        ticks = time[tags] + (total[tags] + wraps) * kind.wrap
        wraps += int(total[-1]) if total.size else 0
        inputs += tags.size
        _name(about, code[tags])
        yield TagBlock(to_ps(ticks, unit, str(path)), code[tags])
    if isinstance(announced, int) and 0 < announced != found:
        about.notes.append(f"the header announces {announced:,} records, the file holds {found:,}")


def _decode(rows: NDArray[np.uint32], kind: _Kind) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Code (the top seven bits), time, and how many overflows each record stands for."""
    code = (rows >> _TIME_BITS).astype(np.uint8)
    time = (rows & _MOST_OVERFLOWS).astype(np.int64)
    overflow = code == _OVERFLOW
    return code, time, np.where(overflow, np.maximum(time, 1) if kind.counts else 1, 0)


def _decode_picoharp(
    rows: NDArray[np.uint32], kind: _Kind
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The same for PicoHarp; the low bits of a marker's time are the markers."""
    code = (rows >> kind.time_bits).astype(np.uint8)
    time = (rows & ((1 << kind.time_bits) - 1)).astype(np.int64)
    special = code == 15
    markers = np.where(special, time & 0xF, 0).astype(np.uint8)
    overflow = special & (markers == 0)
    code = np.where(special, np.where(overflow, _OVERFLOW, _SYNC + markers), code).astype(np.uint8)
    return code, np.where(special, time & ~0xF, time), overflow.astype(np.int64)


def _name(about: About, code: NDArray[np.uint8]) -> None:
    for number in np.unique(code[code >= _SYNC]).tolist():
        about.channels[number] = "sync" if number == _SYNC else f"markers {number - _SYNC}"


def _encoded(time_ps: NDArray[np.int64], channel: NDArray[np.uint8], wraps: int) -> NDArray[np.uint32]:
    """Records of tags, each that needs it preceded by overflow records with their count."""
    jumps = np.diff(time_ps >> _TIME_BITS, prepend=wraps)
    most = np.where(jumps > _LONG_SILENCE, _MOST_OVERFLOWS, _USUAL_OVERFLOWS)
    overflows = -(-jumps // most)
    place = np.arange(time_ps.size) + np.cumsum(overflows)
    counts = np.repeat(most, overflows + 1)
    jumped = np.flatnonzero(jumps)
    counts[place[jumped] - 1] = jumps[jumped] - (overflows[jumped] - 1) * most[jumped]
    rows = ((_OVERFLOW << _TIME_BITS) | counts).astype(_RECORD)
    rows[place] = (channel.astype(np.int64) << _TIME_BITS) | (time_ps & _MOST_OVERFLOWS)
    return rows


def _write_header(header: HeaderWriter, about: About) -> HeaderWriter:
    """What the readers of others look for in the file of a HydraHarp."""
    days = SystemClock().utc_ns() / 86_400e9 + _EPOCH_DAYS
    header.add("File_GUID", "{00000000-0000-0000-0000-000000000000}")
    header.add("File_AssuredContent", "HydraHarp: HWSETG SWSETG")
    header.add("CreatorSW_ContentVersion", "3.0")
    header.add("CreatorSW_Name", "groundstation")
    header.add("CreatorSW_Version", "1")
    header.add("File_CreatingTime", days, date=True)
    header.add("File_Comment", f"exported; first recorded as {about.format} at {about.resolution_ps:g} ps")
    for name, value in {
        "Measurement_Mode": 2,
        "Measurement_SubMode": 0,
        "TTResult_StopReason": 0,
        "Fast_Load_End": None,
        "TTResultFormat_TTTRRecType": _HYDRAHARP_V2,
        "TTResultFormat_BitsPerRecord": 32,
        "MeasDesc_BinningFactor": 1,
        "MeasDesc_Offset": 0,
        "MeasDesc_AcquisitionTime": 0,
        "MeasDesc_StopAt": 4_294_967_295,
        "MeasDesc_StopOnOvfl": False,
        "MeasDesc_Restart": False,
        "HW_Type": "HydraHarp 400",
        "HW_PartNo": "930020",
        "HW_Version": "2.0",
        "HW_SerialNo": "0",
        "HW_Modules": 0,
        "HW_BaseResolution": 1e-12,
        "HW_InpChannels": 1,
        "HW_ExternalRefClock": False,
        "HW_ExternalDevices": 0,
        "HW_Markers": 4,
        "HWSync_Divider": 1,
        "HWSync_CFDLevel": 0,
        "HWSync_CFDZeroCross": 0,
        "HWSync_Offset": 0,
        "MeasDesc_Resolution": 1e-12,
        "MeasDesc_GlobalResolution": 1e-12,
        "TTResult_SyncRate": 0,
        "TTResult_StopAfter": 0,
        "TTResult_NumberOfRecords": 0,
        "Header_End": None,
    }.items():
        header.add(name, value)
    return header
