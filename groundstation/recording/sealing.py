"""Turns a recording's directory into one Photon-HDF5 file, and proves that the file holds the same segments.

On a full disk the HDF5 library may crash its process or leave a file that lies, so it writes only in a child
process that is thrown away (`python -m groundstation.recording.sealing`), and a second, fresh child reads
everything back.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput, GroundStationError, RecordingDamaged
from groundstation.recording.channels import channel_names, is_imported
from groundstation.recording.directory_reader import DirectoryRecording
from groundstation.recording.files import POSIX, Files, RecordingFailed, discard, make_durable, sync_directory
from groundstation.recording.manifest import MANIFEST_NAME
from groundstation.recording.photon_hdf5 import DETECTOR_IDS, TIMESTAMPS, write_frame
from groundstation.recording.reader import StreamReader
from groundstation.recording.sealed_reader import GROUP, SealedRecording, dataset_path
from groundstation.recording.segment import Damage, Segment, canonical_json
from groundstation.recording.writer import QUARANTINE, lock_stream

#: Bytes of a chunk before compression: large enough for speed, small enough for a reader's cache.
_CHUNK_BYTES = 1 << 19
_FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


class _Column:
    """One dataset that grows by whole chunks; what does not fill a chunk yet waits in memory."""

    def __init__(self, file: h5py.File, path: str) -> None:
        self._file = file
        self._path = path
        self._dataset: Any = None
        self._waiting: list[NDArray[Any]] = []
        self._waiting_rows = 0
        self._chunk_rows = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add rows."""
        if len(values) == 0 and self._waiting:
            return
        self._waiting.append(values)
        self._waiting_rows += len(values)
        self._chunk_rows = self._chunk_rows or max(1, _CHUNK_BYTES // values.dtype.itemsize)
        if self._waiting_rows >= 4 * self._chunk_rows:
            self._write(self._waiting_rows // self._chunk_rows * self._chunk_rows)

    def finish(self) -> None:
        """Write what is left, the last chunk being as short as it may."""
        if self._dataset is None:
            self._chunk_rows = max(1, min(self._chunk_rows, self._waiting_rows))
        self._write(self._waiting_rows)

    def _write(self, rows: int) -> None:
        values = np.concatenate(self._waiting)
        dataset = self._ready_for(values.dtype)
        start = len(dataset)
        dataset.resize((start + rows,))
        dataset[start:] = values[:rows]
        self._waiting = [values[rows:]]
        self._waiting_rows -= rows

    def _ready_for(self, dtype: np.dtype[Any]) -> Any:
        """The dataset, made anew when text came that is wider than all before."""
        if self._dataset is None:
            self._dataset = self._create(self._path, dtype)
        elif dtype.itemsize > self._dataset.dtype.itemsize:
            narrow = self._path + ".narrow"
            self._file.move(self._path, narrow)
            wide = self._create(self._path, dtype)
            wide.resize(self._dataset.shape)
            for start in range(0, len(wide), self._chunk_rows):
                wide[start : start + self._chunk_rows] = self._dataset[start : start + self._chunk_rows]
            del self._file[narrow]
            self._dataset = wide
        return self._dataset

    def _create(self, path: str, dtype: np.dtype[Any]) -> Any:
        return self._file.create_dataset(
            path, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(self._chunk_rows,), **_FILTERS
        )


class _Tags:
    """What the Photon-HDF5 frame says about the tags: how many on each channel, and how long they lasted."""

    def __init__(self) -> None:
        self.counts = np.zeros(256, np.int64)
        self._first_ps: int | None = None
        self._last_ps = 0

    @property
    def duration_s(self) -> float:
        return 0.0 if self._first_ps is None else (self._last_ps - self._first_ps) * 1e-12

    def add(self, segment: Segment) -> None:
        table = segment.tables.get("tags") if segment.stream == "tags" else None
        if table is None or segment.rows["tags"] == 0:
            return
        self.counts += np.bincount(table["channel"], minlength=256)
        self._first_ps = int(table["time_ps"][0]) if self._first_ps is None else self._first_ps
        self._last_ps = int(table["time_ps"][-1])


def part_of(target: Path) -> Path:
    """Where the sealed file grows before it has its name."""
    return target.with_name(target.name + ".part")


def seal(directory: Path, target: Path) -> None:
    """Write `part_of(target)` from all streams of a recording's directory, and bring it to the disk.

    To be called in a disposable process only. Raises BadInput when the directory is no recording.
    """
    recording = DirectoryRecording(directory, follow=False)
    part = part_of(target)
    descriptor = POSIX.create(part)  # owner only, before there is anything in it
    try:
        # From this version of the format on the library's own structures carry checksums too.
        with h5py.File(part, "w", libver=("v110", "v110")) as file:
            _write_text(file, f"{GROUP}/manifest", canonical_json(recording.manifest))
            file.create_group(f"{GROUP}/streams")
            tags = _Tags()
            columns = {path: _Column(file, path) for path in (TIMESTAMPS, DETECTOR_IDS)}
            columns[TIMESTAMPS].append(np.empty(0, np.int64))
            columns[DETECTOR_IDS].append(np.empty(0, np.uint8))
            for stream in recording.streams():
                _seal_stream(file, recording, stream, columns, tags)
            for column in columns.values():
                column.finish()
            description = str(recording.manifest.get("description") or f"Tags of run {recording.run_id}")
            names = channel_names(recording.manifest) if is_imported(recording.manifest) else None
            write_frame(file, directory.name, description, tags.duration_s, tags.counts, names)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(directory: Path, sealed: Path) -> None:
    """Read a sealed file whole and compare it with the directory it was made of.

    Raises RecordingDamaged naming the first difference.
    """
    original, copy = DirectoryRecording(directory, follow=False), SealedRecording(sealed)
    with contextlib.closing(copy):
        if (original.manifest, original.streams()) != (copy.manifest, copy.streams()):
            raise RecordingDamaged(f"{sealed} has another manifest or other streams than {directory}")
        for stream in original.streams():
            for ours, theirs in zip_longest(_items(original.stream(stream)), _items(copy.stream(stream))):
                if ours != theirs:
                    number = (ours or theirs).number
                    raise RecordingDamaged(f"{sealed} differs from {directory} in segment {number} of stream {stream}")


def seal_in_child(directory: Path, target: Path, files: Files = POSIX) -> None:
    """Make `target` (read-only, owner only) from a recording's directory, and leave the directory as it is.

    Raises BadInput when the target is there already, RecordingFailed when it could not be made or does not
    hold the same segments; then there is no target, and it can be tried again. FsyncFailed leaves open whether
    the target is there; the segments are, in any case.
    """
    if target.exists():
        raise BadInput(f"sealed file {target} is there already; move it away or name another")
    part = part_of(target)
    try:
        for arguments in ([str(directory), str(target)], ["--verify", str(directory), str(part)]):
            _run_child(directory, arguments)
        publish_sealed(part, target, files)
    except BaseException:
        discard(files, part)
        raise


def publish_sealed(part: Path, target: Path, files: Files = POSIX) -> None:
    """Make a sealed file that was found good read-only, give it its name, and bring both to the disk.

    Raises RecordingFailed, after which there is no target, or FsyncFailed.
    """
    try:
        descriptor = os.open(part, os.O_RDONLY)
    except OSError as error:
        raise RecordingFailed(f"cannot seal {target} ({error.strerror})") from error
    try:
        files.chmod(part, 0o400)
        make_durable(files, descriptor, part, target)
    except OSError as error:
        raise RecordingFailed(f"cannot seal {target} ({error.strerror or error})") from error
    finally:
        os.close(descriptor)


def remove_segments(directory: Path, files: Files = POSIX) -> None:
    """Delete a recording's directory, which must have been sealed before. What is in quarantine stays.

    Raises BadInput when it is no recording, StreamLocked when somebody is still writing in it, RecordingFailed
    when something cannot be deleted.
    """
    streams = DirectoryRecording(directory, follow=False).streams()
    with contextlib.ExitStack() as locks:
        for stream in streams:
            locks.callback(os.close, lock_stream(directory, stream, files))
        try:
            # First and for good, so that half a directory is never taken for a recording.
            files.unlink(directory / MANIFEST_NAME)
            sync_directory(files, directory)
            _remove_tree(directory, files)
        except OSError as error:
            raise RecordingFailed(
                f"cannot remove {directory} ({error.strerror or error}); it was sealed, so delete the rest by hand"
            ) from error
    sync_directory(files, directory.parent)


def _remove_tree(directory: Path, files: Files) -> None:
    """Delete a recording's directory with all but what is in quarantine."""
    kept = directory / QUARANTINE
    for name, _, file_names in os.walk(directory, topdown=False):
        place = Path(name)
        if place.is_relative_to(kept):
            continue
        for file_name in file_names:
            files.unlink(place / file_name)
        if place != directory or not kept.exists():
            files.remove_directory(place)


def _seal_stream(
    file: h5py.File, recording: DirectoryRecording, stream: str, columns: dict[str, _Column], tags: _Tags
) -> None:
    index: list[bytes] = []
    for item in _items(recording.stream(stream)):
        if isinstance(item, Damage):
            facts = {"number": item.number, "file_name": item.file_name, "sentence": item.sentence}
            index.append(canonical_json({"damage": {**facts, "rows_lost": item.rows_lost}}))
            continue
        index.append(b'{"hash":"%s","header":%s}' % (item.hash.encode(), item.header))
        tags.add(item)
        for table_name, table in item.tables.items():
            for column_name, values in table.items():
                path = dataset_path(stream, table_name, column_name)
                columns.setdefault(path, _Column(file, path)).append(values)
    _write_text(file, f"{GROUP}/streams/{stream}/index", b"\n".join(index))


def _items(reader: StreamReader) -> Iterator[Segment | Damage]:
    while not reader.ended:
        yield from reader.poll()


def _write_text(file: h5py.File, path: str, text: bytes) -> None:
    column = _Column(file, path)
    column.append(np.frombuffer(text, np.uint8))
    column.finish()


def _run_child(directory: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "groundstation.recording.sealing", *arguments]
    # A session of its own: an impatient Ctrl-C must not cut the sealing short.
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"its process ended with {result.returncode}"
        raise RecordingFailed(f"cannot seal {directory}: {reason}; its segments are untouched")


def main(arguments: list[str]) -> int:
    """`DIRECTORY TARGET` seals into the target's .part file; `--verify DIRECTORY FILE` compares."""
    try:
        if arguments[:1] == ["--verify"]:
            verify(Path(arguments[1]), Path(arguments[2]))
        else:
            seal(Path(arguments[0]), Path(arguments[1]))
    except GroundStationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
