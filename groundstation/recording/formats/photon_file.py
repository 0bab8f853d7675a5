"""Photon-HDF5 files, those of phconvert and others: timestamps, detectors, and the unit in seconds.

Our own sealed files say more than that and are read as the recordings they are. Written files keep gaps under
`/user/gaps`, where the format leaves room for them. Source: the specification, version 0.5.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.exporting import tag_file
from groundstation.recording.formats.tag_file import (
    BLOCK_RECORDS,
    About,
    Gap,
    TagFile,
    exact_unit,
    in_time_order,
    to_ps,
)
from groundstation.recording.photon_hdf5 import DETECTOR_IDS, TIMESTAMPS, write_frame
from groundstation.recording.reader import open_recording
from groundstation.recording.sealed_reader import GROUP

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GAPS = "user/gaps"
_CHUNK = {"chunks": (1 << 16,), "compression": "gzip", "compression_opts": 1, "shuffle": True}


#: What the library raises for bytes that it does not like, and what follows from finding other types than expected.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, ArithmeticError)


def recognises(head: bytes) -> bool:
    """Whether it is an HDF5 file."""
    return head.startswith(HDF5_SIGNATURE)


def read(path: Path) -> TagFile:
    """Read one spot's timestamps. Raises BadInput when there are none, or several spots."""
    try:
        with h5py.File(path, "r") as file:
            if f"{GROUP}/manifest" in file:
                about, blocks = tag_file(open_recording(path))
                about.format = "photon-hdf5"
                return TagFile(about, blocks)
            if TIMESTAMPS not in file:
                several = "photon_data0" in file
                raise BadInput(
                    f"{path} holds several spots (photon_data0, ...); write one of them to a file of its own"
                    if several
                    else f"{path} is HDF5, but no Photon-HDF5: it has no /{TIMESTAMPS}"
                )
            seconds = float(file["photon_data/timestamps_specs/timestamps_unit"][()])
            if not 0 < seconds < 1:
                raise BadInput(f"{path} gives the unit of its timestamps as {seconds} s")
            unit = exact_unit(seconds * 1e12)
            about = About("photon-hdf5", float(unit), _names(file), _gaps(file))
            if "photon_data/nanotimes" in file:
                about.notes.append("its nanotimes (times within a laser period) were left out")
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    return TagFile(about, in_time_order(_blocks(path, unit), about, str(path)))


def write(path: Path, source: TagFile) -> None:
    """Write timestamps of 1 ps with the frame that the format asks for."""
    about = source.about
    counts = np.zeros(256, np.int64)
    gaps: list[Gap] = []
    first_ps, last_ps, written = None, 0, 0
    with h5py.File(path, "w") as file:
        timestamps = file.create_dataset(TIMESTAMPS, (0,), np.int64, maxshape=(None,), **_CHUNK)
        detectors = file.create_dataset(DETECTOR_IDS, (0,), np.uint8, maxshape=(None,), **_CHUNK)
        for block in source.blocks:
            gaps += about.take_gaps()
            if block.time_ps.size == 0:
                continue
            first_ps = int(block.time_ps[0]) if first_ps is None else first_ps
            last_ps = int(block.time_ps[-1])
            counts += np.bincount(block.channel, minlength=256)
            start, stop = written, written + block.time_ps.size
            for dataset, values in zip((timestamps, detectors), block, strict=True):
                dataset.resize((stop,))
                dataset[start:] = values
            written = stop
        duration_s = 0.0 if first_ps is None else (last_ps - first_ps) * 1e-12
        names = {int(c): about.channels.get(int(c), str(c)) for c in np.flatnonzero(counts)}
        file.create_group("user")
        write_frame(file, path.stem, f"Exported tags, first recorded as {about.format}", duration_s, counts, names)
        _write_gaps(file, gaps + about.take_gaps())


def _blocks(path: Path, unit: Fraction) -> Iterator[TagBlock]:
    with h5py.File(path, "r") as file:
        try:
            timestamps = file[TIMESTAMPS]
            detectors = file.get(DETECTOR_IDS)
            count = len(timestamps)
        except _UNREADABLE as error:
            raise _damaged(path, error) from error
        for start in range(0, count, BLOCK_RECORDS):
            ticks = _slice(path, timestamps, start)
            channel = np.zeros(ticks.size, np.uint8) if detectors is None else _slice(path, detectors, start)
            if channel.size != ticks.size or channel.min() < 0 or channel.max() > 255:
                raise BadInput(f"{path} has not one detector from 0 to 255 for each timestamp")
            yield TagBlock(to_ps(ticks.astype(np.int64), unit, str(path)), channel.astype(np.uint8))


def _damaged(path: Path, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BadInput(f"{path} cannot be read as Photon-HDF5 ({reason})")


def _slice(path: Path, dataset: Any, start: int) -> NDArray[Any]:
    try:
        values: NDArray[Any] = dataset[start : start + BLOCK_RECORDS]
    except _UNREADABLE as error:
        raise BadInput(f"{path} is damaged: {dataset.name} cannot be read from row {start:,} on") from error
    if values.dtype.kind not in "iu":
        raise BadInput(f"{path} holds {dataset.name} of type {values.dtype}; the format wants whole numbers")
    return values


def _names(file: h5py.File) -> dict[int, str]:
    group = file.get("setup/detectors")
    if not isinstance(group, h5py.Group) or "id" not in group or "label" not in group:
        return {}
    labels = [bytes(text).decode("utf-8", "replace") for text in np.asarray(group["label"][()], "S").tolist()]
    return {int(number): label for number, label in zip(group["id"][()].tolist(), labels, strict=False)}


def _gaps(file: h5py.File) -> list[Gap]:
    if _GAPS not in file:
        return []
    rows = zip(*(file[f"{_GAPS}/{name}"][()].tolist() for name in Gap._fields), strict=True)
    return [Gap(start, stop, None if missed < 0 else missed, cause.decode()) for start, stop, missed, cause in rows]


def _write_gaps(file: h5py.File, gaps: list[Gap]) -> None:
    if gaps:
        starts, stops, missed, causes = zip(*gaps, strict=True)
        file[f"{_GAPS}/start_ps"] = np.array(starts, np.int64)
        file[f"{_GAPS}/stop_ps"] = np.array(stops, np.int64)
        file[f"{_GAPS}/missed"] = np.array([-1 if m is None else m for m in missed], np.int64)
        file[f"{_GAPS}/cause"] = np.array([cause.encode() for cause in causes], "S")
