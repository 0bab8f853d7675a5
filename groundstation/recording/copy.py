"""Cuts a recording into segments of another size, to show that nothing depends on where the cuts are."""

from pathlib import Path

import numpy as np

from groundstation.errors import RecordingDamaged
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import Recording, StreamReader
from groundstation.recording.segment import Damage, Segment, Table
from groundstation.recording.writer import StreamWriter


def recut(source: Recording, directory: Path, rows_per_segment: int) -> None:
    """Write all streams of `source` into a new recording, `rows_per_segment` (>= 1) rows at a time.

    Rows are those of each source segment's longest table; the rows of its other tables and its notes go where
    its first row goes (of several notes of one name the first stays), but its ledger where its last row goes,
    for the ledger counts them all. A stream without an end stays without. Raises RecordingDamaged for a
    damaged source.
    """
    create_recording(directory, source.manifest)
    for name in source.streams():
        with StreamWriter(directory, name, source.run_id) as writer:
            _recut_stream(source.stream(name), _Cutter(writer, rows_per_segment))


def _recut_stream(reader: StreamReader, cutter: "_Cutter") -> None:
    reader.stop_following()
    end = False
    while not reader.ended:
        for item in reader.poll():
            if isinstance(item, Damage):
                raise RecordingDamaged(f"a damaged recording cannot be cut anew: {item.sentence}")
            cutter.add(item)
            end = item.end
    cutter.publish(end)


class _Cutter:
    """Gathers rows and notes until they fill a segment."""

    def __init__(self, writer: StreamWriter, rows_per_segment: int) -> None:
        self._writer = writer
        self._limit = rows_per_segment
        self._rows = 0
        self._pieces: dict[str, list[Table]] = {}
        self._notes: dict[str, object] = {}

    def add(self, segment: Segment) -> None:
        """Take in one segment, publishing whatever becomes full."""
        main = max(segment.rows, key=lambda name: segment.rows[name], default="")
        for note, value in segment.notes.items():
            if note != "ledger":
                self._notes.setdefault(note, value)
        for name, table in segment.tables.items():
            if name != main:
                self._pieces.setdefault(name, []).append(table)
        start, rows = 0, segment.rows.get(main, 0)
        if rows == 0:
            self._take_ledger(segment)
        while start < rows:
            stop = min(rows, start + self._limit - self._rows)
            piece = {column: values[start:stop] for column, values in segment.tables[main].items()}
            self._pieces.setdefault(main, []).append(piece)
            self._rows += stop - start
            start = stop
            if start == rows:
                self._take_ledger(segment)
            if self._rows == self._limit:
                self.publish(end=False)

    def publish(self, end: bool) -> None:
        """Write what was gathered, if anything."""
        if not (self._pieces or self._notes or end):
            return
        tables = {
            name: {column: np.concatenate([piece[column] for piece in pieces]) for column in pieces[0]}
            for name, pieces in self._pieces.items()
        }
        self._writer.publish(tables, self._notes, end)
        self._rows = 0
        self._pieces = {}
        self._notes = {}

    def _take_ledger(self, segment: Segment) -> None:
        if "ledger" in segment.notes:
            self._notes["ledger"] = segment.notes["ledger"]
