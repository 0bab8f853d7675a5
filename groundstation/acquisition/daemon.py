"""From the tagger to acknowledged segments. Knows nothing of passes, mounts or analysis.

Tags wait in memory for at most one commit interval; after `StreamWriter.publish` returns they are safe. Each
segment carries the ledger up to and including itself, the UTC label once it is known, and how far time has come.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from groundstation.acquisition.labelling import UtcLabeller
from groundstation.clock import Clock, monotonic_s
from groundstation.core.ledger import Ledger
from groundstation.core.tags import CHANNEL_NUMBER, CHANNELS, PatternMap, TagBlock, concatenate
from groundstation.core.timebase import PS_PER_NS, PS_PER_S, UtcLabel
from groundstation.errors import GroundStationError
from groundstation.instruments import PatternBlock, TimeTagger
from groundstation.recording.segment import Table
from groundstation.recording.writer import StreamWriter

_READ_TIMEOUT_S = 0.02
_STATUS_INTERVAL_S = 0.25
#: The recording's zero lies this long before the first word, so no tag has time 0 or less.
_LEAD_PS = PS_PER_S
#: 32 ticks of 1/256 ns: a zero on this grid keeps the rounding of device times to whole picoseconds.
_ZERO_GRID_PS = 125
_PPS = CHANNEL_NUMBER["pps"]
#: In the column `missed` of the gaps: nobody knows how many.
_UNKNOWN_MISSED = -1


@dataclass(frozen=True)
class AcquisitionStatus:
    """What the operator sees of the recorder; `acknowledge_s` is the longest wait of a tag in this interval."""

    tags: int
    counts_hz: dict[str, float]
    acknowledge_s: float
    #: UTC up to which tags were read; 0 while it is not known.
    read_until_utc_ns: int
    dropped: int


class Acquisition:
    """Reads one tagger into the `tags` stream until told to stop."""

    def __init__(
        self,
        tagger: TimeTagger,
        patterns: Mapping[str, int],
        writer: StreamWriter,
        clock: Clock,
        commit_interval_s: float,
        pps_uncertainty_s: float,
    ) -> None:
        """`patterns`: logical channel -> set of inputs; intervals in wall time."""
        self._tagger, self._writer, self._clock = tagger, writer, clock
        self._map = PatternMap(patterns)
        self._commit_interval_s = commit_interval_s
        self._labeller = UtcLabeller(pps_uncertainty_s)
        self._zero_ps: int | None = None
        self._waiting: list[TagBlock] = []
        self._gaps: list[tuple[int, int, int, bytes]] = []
        self._waiting_since_s = 0.0
        self._latest_ps = 0
        self._ledger = Ledger()
        self._longest_wait_s = 0.0
        self._counted = np.zeros(len(CHANNELS), np.int64)
        self._counted_since_ps = 0

    def run(self, stop: Callable[[], bool], report: Callable[[AcquisitionStatus], None]) -> None:
        """Record until `stop()`. Whatever happens, what was read is published first; the stream is closed
        with its END only in good order."""
        commit_at = status_at = monotonic_s()
        while not stop():
            self._take(self._read())
            now_s = monotonic_s()
            if now_s >= commit_at:
                self._publish()
                commit_at = now_s + self._commit_interval_s
            if now_s >= status_at:
                report(self._status())
                status_at = now_s + _STATUS_INTERVAL_S
        self._publish(end=True)
        report(self._status())

    def _read(self) -> PatternBlock:
        try:
            return self._tagger.read(_READ_TIMEOUT_S)
        except GroundStationError:
            self._publish()
            raise

    def _take(self, block: PatternBlock) -> None:
        """Account for what was read and make it tags."""
        if block.latest_ps < 0:
            return
        if self._zero_ps is None:
            first = int(block.time_ps[0]) if block.time_ps.size else block.latest_ps
            self._zero_ps = first // _ZERO_GRID_PS * _ZERO_GRID_PS - _LEAD_PS
            self._latest_ps = self._counted_since_ps = first - self._zero_ps
        tags, unmapped = self._map.apply(block.time_ps - self._zero_ps, block.pattern)
        self._ledger.seen += tags.time_ps.size + unmapped
        self._ledger.drop(unmapped, "input without a channel")
        self._ledger.miss(block.missed)
        if block.missed or block.notes:
            self._note_gap(block.latest_ps - self._zero_ps, block)
        self._latest_ps = block.latest_ps - self._zero_ps
        pulses = np.flatnonzero(tags.channel == _PPS)
        first_pulse = int(tags.time_ps[pulses[0]]) if pulses.size else None
        self._labeller.feed(self._latest_ps, first_pulse, self._clock.utc_ns())
        if tags.time_ps.size:
            if not self._waiting:
                self._waiting_since_s = monotonic_s()
            self._waiting.append(tags)
            self._counted += np.bincount(tags.channel, minlength=len(CHANNELS))

    def _note_gap(self, latest_ps: int, block: PatternBlock) -> None:
        """Tags are missing somewhere among those of this block, nobody knows where."""
        cause = "; ".join(block.notes) or "lost by the tagger"
        self._gaps.append((self._latest_ps, latest_ps, block.missed or _UNKNOWN_MISSED, cause.encode()))

    def _publish(self, end: bool = False) -> None:
        """Make what waits durable; returns when it is acknowledged."""
        if not self._waiting and not end:
            return
        tags = concatenate(self._waiting)
        self._ledger.recorded += int(tags.time_ps.size)
        tables: dict[str, Table] = {"tags": {"time_ps": tags.time_ps, "channel": tags.channel}}
        if self._gaps:
            tables["gaps"] = _gap_table(self._gaps)
        self._writer.publish(tables, self._notes(), end=end)
        self._gaps = []
        if self._waiting:
            self._longest_wait_s = max(self._longest_wait_s, monotonic_s() - self._waiting_since_s)
        self._waiting = []

    def _notes(self) -> dict[str, object]:
        notes: dict[str, object] = {
            "zero_device_ps": self._zero_ps,
            "latest_ps": self._latest_ps,
            "ledger": self._ledger.as_notes(),
        }
        if self._labeller.label is not None:
            notes["utc_label"] = _label_notes(self._labeller.label)
        return notes

    def _read_until_utc_ns(self) -> int:
        label = self._labeller.label
        return 0 if label is None else label.utc_ns + (self._latest_ps - label.time_ps) // PS_PER_NS

    def _status(self) -> AcquisitionStatus:
        elapsed_s = max(self._latest_ps - self._counted_since_ps, 1) / PS_PER_S
        status = AcquisitionStatus(
            self._ledger.recorded,
            {name: float(n / elapsed_s) for name, n in zip(CHANNELS, self._counted, strict=True)},
            self._longest_wait_s,
            self._read_until_utc_ns(),
            sum(self._ledger.dropped.values()),
        )
        self._counted[:] = 0
        self._counted_since_ps = self._latest_ps
        self._longest_wait_s = 0.0
        return status


def _gap_table(gaps: list[tuple[int, int, int, bytes]]) -> Table:
    start_ps, stop_ps, missed, cause = zip(*gaps, strict=True)
    return {
        "start_ps": np.array(start_ps, np.int64),
        "stop_ps": np.array(stop_ps, np.int64),
        "missed": np.array(missed, np.int64),
        "cause": np.array(cause, dtype=f"S{max(map(len, cause))}"),
    }


def _label_notes(label: UtcLabel) -> dict[str, object]:
    return {"time_ps": label.time_ps, "utc_ns": label.utc_ns, "uncertainty_s": label.uncertainty_s}
