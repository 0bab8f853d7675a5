"""The committing side: from the buffer to acknowledged segments, whatever the disk does.

A batch that could not be written is kept as it is and tried again, with the same numbers, when there is room. The
ledger in a segment accounts for everything up to and including that segment, so in each of them it balances.
"""

from collections.abc import Callable

import numpy as np

from groundstation.acquisition.buffer import BUFFER_FULL, Gap, Parcel, Progress, TagBuffer
from groundstation.acquisition.continuation import Earlier, progress_notes
from groundstation.acquisition.space import Space, SpaceState
from groundstation.acquisition.status import Latencies
from groundstation.clock import monotonic_s
from groundstation.core.ledger import Ledger
from groundstation.core.tags import concatenate
from groundstation.recording.segment import Table
from groundstation.recording.writer import FsyncFailed, RecordingFailed, StreamWriter

#: A segment is published when so much waits, however short the commit interval is not yet over.
SEGMENT_BYTES = 16 << 20
#: When no tags come, an empty segment says so, that often (wall time); from the reserve more seldom, for it is small.
_HEARTBEAT_S, _HEARTBEAT_FROM_RESERVE_S = 1.0, 10.0
#: In the column `missed` of the gaps: nobody knows how many.
_UNKNOWN_MISSED = -1


class Committer:
    """Publishes what waits in a buffer. Not thread-safe: one thread commits."""

    def __init__(
        self,
        buffer: TagBuffer,
        writer: StreamWriter,
        space: Space | None,
        earlier: Earlier | None,
        published: Callable[[], None],
    ) -> None:
        """`published` is called after every success."""
        self._buffer, self._writer, self._space, self._published = buffer, writer, space, published
        self._ledger = earlier.ledger.copy() if earlier else Ledger()
        self._batch: list[Parcel] = []
        self._published_at_s = monotonic_s()
        #: How far the recording has come on the disk.
        self.progress = earlier.progress if earlier else Progress()
        self.latencies = Latencies()

    @property
    def recorded(self) -> int:
        """Tags acknowledged since the recording began."""
        return self._ledger.recorded

    @property
    def blocked(self) -> bool:
        """Whether the disk takes no tags at present."""
        return self._space is not None and self._space.state is SpaceState.RESERVED

    def commit(self) -> bool:
        """Publish the next segment if there is anything to publish, or if it is time to say that there is not.

        False when there was nothing to do. Raises FsyncFailed; any other failure of the disk is a matter of the space
        states.
        """
        now_s = monotonic_s()
        self._look(now_s)
        silent_s = now_s - self._published_at_s
        if self.blocked:
            if silent_s >= _HEARTBEAT_FROM_RESERVE_S:
                self._try([], self._waiting_notes())
        elif self._batch or self._buffer.has_content or silent_s >= _HEARTBEAT_S:
            self._batch = self._batch or self._buffer.take(SEGMENT_BYTES)
            if self._try(self._batch, {}):
                self._batch = []
        else:
            return False
        return True

    def finish(self, end: bool) -> None:
        """Publish all that waits, and the stream's END; what the disk does not take is dropped and counted.

        Without `end` the stream stays open for whoever goes on with it. Raises RecordingFailed when not even the
        END could be written.
        """
        self._look(monotonic_s())
        while not self.blocked:
            self._batch = self._batch or self._buffer.take(SEGMENT_BYTES)
            last = self._buffer.is_empty
            if not self._batch and not end:
                return
            if self._try(self._batch, {}, end and last):
                self._batch = []
                if last:
                    return
        self._give_up(end)

    def _give_up(self, end: bool) -> None:
        """From the reserve: what was not recorded, and why."""
        assert self._space is not None
        rest, self._batch = self._batch, []
        while not self._buffer.is_empty:
            rest += self._buffer.take(SEGMENT_BYTES)
        cause = self._space.cause
        lost = [parcel.lost(cause) for parcel in rest]
        self._buffer.acknowledge(rest, recorded=False, cause=cause)
        together = lost[:1]
        for parcel in lost[1:]:
            together = [together[0].followed_by(parcel)]
        self._write(together, {}, end)

    def _try(self, parcels: list[Parcel], more_notes: dict[str, object], end: bool = False) -> bool:
        """Whether they are acknowledged now."""
        try:
            self._write(parcels, more_notes, end)
        except FsyncFailed:
            raise
        except RecordingFailed as error:
            if self._space is None:
                raise
            self._space.emergency(error, monotonic_s())
            self._buffer.cause = self._space.cause
            return False
        now_s = monotonic_s()
        for parcel in parcels:
            self.latencies.add(now_s - parcel.read_at_s, parcel.count)
        self._buffer.acknowledge(parcels)
        return True

    def _write(self, parcels: list[Parcel], more_notes: dict[str, object], end: bool) -> None:
        ledger = self._ledger.copy()
        for parcel in parcels:
            ledger.add(parcel.account)
        tags = concatenate([parcel.tags for parcel in parcels if parcel.count])
        ledger.recorded += tags.time_ps.size
        tables: dict[str, Table] = {"tags": {"time_ps": tags.time_ps, "channel": tags.channel}}
        if gaps := [gap for parcel in parcels for gap in parcel.gaps]:
            tables["gaps"] = _gap_table(gaps)
        progress = parcels[-1].progress if parcels else self.progress
        notes = {**progress_notes(progress), "ledger": ledger.as_notes(), **more_notes}
        self._writer.publish(tables, notes, end=end)
        self._ledger, self.progress = ledger, progress
        self._published_at_s = monotonic_s()
        self._published()

    def _look(self, now_s: float) -> None:
        if self._space is not None:
            waiting_bytes = sum(parcel.bytes for parcel in self._batch)
            self._space.look(now_s, self._ledger.recorded, waiting_bytes)
            self._buffer.cause = self._space.cause or BUFFER_FULL

    def _waiting_notes(self) -> dict[str, object]:
        fill = self._buffer.fill()
        cause = self._space.cause if self._space else ""
        return {"waiting": {"tags": fill.in_flight, "cause": cause}}


def _gap_table(gaps: list[Gap]) -> Table:
    causes = [gap.cause.encode() for gap in gaps]
    missed = [_UNKNOWN_MISSED if gap.missed is None else gap.missed for gap in gaps]
    return {
        "start_ps": np.array([gap.start_ps for gap in gaps], np.int64),
        "stop_ps": np.array([gap.stop_ps for gap in gaps], np.int64),
        "missed": np.array(missed, np.int64),
        "cause": np.array(causes, dtype=f"S{max(map(len, causes))}"),
    }
