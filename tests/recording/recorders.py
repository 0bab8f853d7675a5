"""A program that records rows which say where they belong, and a reader that knows where that is."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from recording_samples import read_all, tags

from groundstation.recording.files import Files, FsyncFailed, RecordingFailed
from groundstation.recording.reader import Recording
from groundstation.recording.segment import Damage, Segment, Table
from groundstation.recording.writer import StreamEnded, StreamWriter

RUN = "r"


class Lost(AssertionError):
    """Something that was acknowledged is not there any more."""


def rows_of(stream: str, first: int, count: int) -> dict[str, Table]:
    """The true rows of a stream, from number `first` on; every row of every stream is another one."""
    if stream == "tags":
        return tags(first, count)
    number = np.arange(first, first + count)
    texts = np.array([f"{stream} says {k}".encode() for k in range(first, first + count)], "S24")
    return {stream: {"number": number, "text": texts}}


def record(
    directory: Path,
    stream: str,
    sizes: Iterable[int],
    files: Files,
    acknowledge: Callable[[int], None],
    end: bool = True,
) -> None:
    """Go on with a stream, one segment for each size, and maybe end it after them.

    `acknowledge` is given the number of rows that are safe; -1 says that the end is. What could not be written is
    tried once more; when that fails too, or the disk does, the program gives up.
    """
    try:
        writer = StreamWriter(directory, stream, RUN, files)
    except StreamEnded:
        return
    with writer:
        acknowledge(writer.acknowledged.get(stream, 0))
        for size in sizes:
            _publish(writer, rows_of(stream, writer.acknowledged.get(stream, 0), size), end=False)
            acknowledge(writer.acknowledged[stream])
        if end:
            _publish(writer, {}, end=True)
            acknowledge(-1)


def _publish(writer: StreamWriter, tables: Mapping[str, Table], end: bool) -> None:
    try:
        writer.publish(tables, end=end)
    except FsyncFailed:
        raise
    except RecordingFailed:
        writer.publish(tables, end=end)


def check_whole(recording: Recording, stream: str, acknowledged: Iterable[int]) -> int:
    """That a stream has its true rows from the first on, at least those acknowledged. Returns how many there are."""
    reader = recording.stream(stream)
    items: list[Segment | Damage] = []
    while not reader.ended:
        items += reader.poll()
    known = list(acknowledged)
    count = 0
    for item in items:
        if isinstance(item, Damage):
            raise Lost(f"nothing was damaged, but {item.sentence}")
        assert item.first_row.get(stream, 0) == count
        count += check_true(item)
    if count < max(known, default=0):
        raise Lost(f"{max(known)} rows of {stream} were acknowledged and {count} are there")
    if -1 in known and not reader.complete:
        raise Lost(f"the end of {stream} was acknowledged and is not there")
    return count


def check_true(segment: Segment) -> int:
    """That a segment's rows are the true ones of the place where it says they are. Returns how many there are."""
    for name, table in segment.tables.items():
        assert name == segment.stream
        true = rows_of(segment.stream, segment.first_row[name], segment.rows[name])[name]
        assert table.keys() == true.keys()
        for column in true:
            np.testing.assert_array_equal(table[column], true[column])
    return segment.rows.get(segment.stream, 0)


def all_segments(recording: Recording) -> dict[str, list[Segment | Damage]]:
    """Everything that can be read, stream by stream."""
    return {stream: read_all(recording, stream) for stream in recording.streams()}


def check_subset(recording: Recording, expected: Mapping[str, int], limit: int = 10_000) -> int:
    """That what is read of a damaged recording are true rows in their true places, and what is not read is named.

    `expected`: how many true rows each stream has. Returns how many rows were read. Raises what the reader raises.
    """
    total = 0
    for stream, count in expected.items():
        reader = recording.stream(stream)
        reached, damages, read = 0, list[Damage](), 0
        for _ in range(limit):
            for item in reader.poll():
                if isinstance(item, Damage):
                    damages.append(item)
                    continue
                first = item.first_row.get(stream, 0)
                assert first == reached or (first > reached and damages), "rows are missing, and nobody says so"
                known = [damage.rows_lost for damage in damages]
                if damages and None not in known:
                    assert sum(lost.get(stream, 0) for lost in known if lost) == first - reached
                read += check_true(item)
                reached, damages = first + item.rows.get(stream, 0), []
            if reader.ended:
                break
        assert reader.ended, "the reader found no end"
        assert reached <= count
        assert not reader.complete or read == count
        total += read
    return total
