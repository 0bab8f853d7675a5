"""numpy's own files: a table of (time_ps, channel), two columns of whole numbers, or one of times alone.

Written as a structured array with the fields `time_ps` (int64) and `channel` (uint8). Has no place for gaps, names
or resolution.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import BLOCK_RECORDS, LIMIT_PS, About, TagFile, in_time_order

_RECORD = np.dtype([("time_ps", "<i8"), ("channel", "u1")])
_WANTED = "save a structured array of time_ps and channel, or one or two columns of whole numbers"


def recognises(head: bytes) -> bool:
    """Whether it has numpy's magic."""
    return head.startswith(b"\x93NUMPY")


def read(path: Path) -> TagFile:
    """Read one array. Raises BadInput for anything but whole picoseconds: floats have lost some already."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy hands the header to Python's parser, which raises what it likes
        raise BadInput(f"{path} is no whole .npy file ({str(error).splitlines()[0]}); {_WANTED}") from error
    columns = _columns(path, array)
    about = About("npy", 1.0)
    return TagFile(about, in_time_order(_blocks(path, columns), about, str(path)))


def write(path: Path, source: TagFile) -> None:
    """Write a structured array; how many there are is known last."""
    with path.open("w+b") as file:
        size = _write_header(file, 0)
        count = 0
        for time_ps, channel in source.blocks:
            rows = np.empty(time_ps.size, _RECORD)
            rows["time_ps"], rows["channel"] = time_ps, channel
            file.write(rows.tobytes())
            count += rows.size
        file.seek(0)
        if _write_header(file, count) != size:
            raise BadInput(f"cannot write {path}: this numpy leaves no room for the number of rows; export to csv")


def _write_header(file: BinaryIO, count: int) -> int:
    description = npy_format.dtype_to_descr(_RECORD)
    npy_format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": (count,)})
    return file.tell()


def _columns(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    names = array.dtype.names or ()
    if array.ndim == 1 and "time_ps" in names:
        columns = array["time_ps"], array["channel"] if "channel" in names else None
    elif array.ndim == 1 and not names:
        columns = array, None
    elif array.ndim == 2 and array.shape[1] == 2:
        columns = array[:, 0], array[:, 1]
    else:
        raise BadInput(f"{path} holds an array of shape {array.shape} and type {array.dtype}; {_WANTED}")
    if any(column is not None and column.dtype.kind not in "iu" for column in columns):
        raise BadInput(f"{path} holds numbers of type {array.dtype}, which are no whole picoseconds; {_WANTED}")
    return columns


def _blocks(path: Path, columns: tuple[NDArray[Any], NDArray[Any] | None]) -> Iterator[TagBlock]:
    times, channels = columns
    for start in range(0, len(times), BLOCK_RECORDS):
        time = times[start : start + BLOCK_RECORDS]
        channel = np.zeros(len(time), np.uint8) if channels is None else channels[start : start + BLOCK_RECORDS]
        if int(channel.min()) < 0 or int(channel.max()) > 255:
            raise BadInput(f"{path} has channels from {channel.min()} to {channel.max()}; they must be 0 to 255")
        if int(time.min()) < -LIMIT_PS or int(time.max()) > LIMIT_PS:
            raise BadInput(f"{path} has times beyond 2^62 ps (53 days) from zero")
        yield TagBlock(np.array(time, np.int64), np.array(channel, np.uint8))
