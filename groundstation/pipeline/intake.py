"""Follows the `tags` stream: buffers tags until a whole stretch is there, and keeps the books about losses."""

import numpy as np

from groundstation.core.ledger import Ledger
from groundstation.core.merging import take_before
from groundstation.core.tags import TagBlock, concatenate
from groundstation.core.timebase import UtcLabel
from groundstation.pipeline.result import GapRecord
from groundstation.recording.reader import Damage, StreamReader
from groundstation.recording.segment import Segment


class TagIntake:
    """Tags in order, the UTC label, the gaps and the ledger, as far as the recording has grown."""

    def __init__(self, stream: StreamReader) -> None:
        self._stream = stream
        self._blocks: list[TagBlock] = []
        self._hole: list[Damage] = []
        self._hole_start_ps = 0
        self.label: UtcLabel | None = None
        #: The tagger's own time at the recording's zero; None until the first segment is read.
        self.zero_device_ps: int | None = None
        #: The tagger's tick; 0 when the recording does not say it.
        self.resolution_ps = 0.0
        self.ledger = Ledger()
        self.gaps: list[GapRecord] = []
        self.first_ps: int | None = None
        #: The newest tag. They come in order of time: none older than this is still to come.
        self.last_ps = 0
        self.tags_read = 0

    @property
    def ended(self) -> bool:
        """True when everything that will ever be recorded has been read."""
        return self._stream.ended

    @property
    def complete(self) -> bool:
        """True when the stream was closed by its owner and nothing in it is damaged."""
        return self._stream.ended and self._stream.complete

    def stop_following(self) -> None:
        """Nobody records any more: what is there is all."""
        self._stream.stop_following()

    def poll(self, limit: int = 16) -> bool:
        """Read what is new; True if anything was."""
        items = self._stream.poll(limit)
        for item in items:
            if isinstance(item, Damage):
                self._hole.append(item)
                self._hole_start_ps = self.last_ps
            else:
                self._take(item)
        if self._stream.ended and self._hole:
            self._close_hole(self.last_ps)
        return bool(items)

    def take_until(self, time_ps: int) -> TagBlock:
        """Remove and return all buffered tags before `time_ps`."""
        return concatenate(take_before(self._blocks, time_ps))

    def _take(self, segment: Segment) -> None:
        notes = segment.notes
        label = notes.get("utc_label")
        if self.label is None and isinstance(label, dict):
            self.label = UtcLabel(int(label["time_ps"]), int(label["utc_ns"]), float(label["uncertainty_s"]))
        zero_device_ps = notes.get("zero_device_ps")
        if isinstance(zero_device_ps, int):
            self.zero_device_ps = zero_device_ps
        if isinstance(resolution_ps := notes.get("resolution_ps"), int | float):
            self.resolution_ps = float(resolution_ps)
        if isinstance(ledger := notes.get("ledger"), dict):
            self.ledger = Ledger.from_notes(ledger)
        for row in zip(*_columns(segment, "gaps", ("start_ps", "stop_ps", "missed", "cause")), strict=True):
            start, stop, missed, cause = row
            text = bytes(cause).rstrip(b"\0").decode("utf-8", "replace")
            self.gaps.append(GapRecord(int(start), int(stop), None if missed < 0 else int(missed), text))
        time_ps, channel = _columns(segment, "tags", ("time_ps", "channel"))
        if time_ps.size:
            if self._hole:
                self._close_hole(int(time_ps[0]))
            self._blocks.append(TagBlock(time_ps, channel))
            if self.first_ps is None:
                self.first_ps = int(time_ps[0])
            self.last_ps = int(time_ps[-1])
            self.tags_read += int(time_ps.size)

    def _close_hole(self, stop_ps: int) -> None:
        rows_lost = self._hole[0].rows_lost  # the first of several in a row counts for them all
        lost = None if rows_lost is None else rows_lost.get("tags", 0)
        cause = "; ".join(damage.sentence for damage in self._hole)
        self.gaps.append(GapRecord(self._hole_start_ps, stop_ps, lost, cause))
        self._hole = []


def _columns(segment: Segment, table: str, names: tuple[str, ...]) -> list[np.ndarray]:
    columns = segment.tables.get(table, {})
    return [columns.get(name, np.empty(0, np.int64)) for name in names]
