"""What operation writes into the recording: the `telemetry` and `events` streams.

A thread makes entries durable a few times a second, so that no disk ever delays the telescope.
"""

import json
import queue
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from groundstation.clock import Clock, monotonic_s
from groundstation.recording.writer import StreamWriter

_PUBLISH_INTERVAL_S = 0.5
_TELEMETRY = {
    "mount": {
        "utc_ns": np.int64,
        "azimuth_deg": np.float64,
        "elevation_deg": np.float64,
        "uncertainty_s": np.float64,
        "azimuth_rate_arcsec_s": np.float64,
        "elevation_rate_arcsec_s": np.float64,
        "error_arcsec": np.float64,
        "used": np.uint8,
    },
    "detectors": {
        "utc_ns": np.int64,
        "detector": np.uint8,
        "bias_v": np.float64,
        "temperature_c": np.float64,
        "counts_hz": np.float64,
    },
}
_Row = tuple[float, ...]


class Logbook:
    """Collects rows and events from any thread; `close` writes the rest and ends both streams."""

    def __init__(self, telemetry: StreamWriter, events: StreamWriter, clock: Clock) -> None:
        self._telemetry, self._events, self._clock = telemetry, events, clock
        self._rows: queue.SimpleQueue[tuple[str, _Row]] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._sequence = 0
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self.last_event = ""
        self._thread = threading.Thread(target=self._work, name="logbook", daemon=True)

    def begin(self, path: Mapping[str, NDArray[np.generic]]) -> None:
        """Write the predicted path, before anything else, and start the thread."""
        self._telemetry.publish({"path": dict(path)})
        self._thread.start()

    def event(self, kind: str, sentence: str, **facts: object) -> None:
        """One numbered entry of the log: a state, a command, an alarm, a note."""
        entry = {"kind": kind, "sentence": sentence, **facts}
        self.last_event = sentence
        self._lines.put((self._clock.utc_ns(), json.dumps(entry, ensure_ascii=False).encode()))

    def mount(self, *row: float) -> None:
        """One reading of the mount, in the order of the table's columns."""
        self._rows.put(("mount", row))

    def detector(self, *row: float) -> None:
        """One reading of a detector, in the order of the table's columns."""
        self._rows.put(("detectors", row))

    @property
    def failure(self) -> str:
        """Why entries can no longer be written; empty while all is well."""
        return str(self._failure) if self._failure else ""

    def close(self) -> None:
        """Write what is left and end both streams."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            if self._failure is None:
                self._publish(end=True)
        except Exception as error:  # what is durable stays; others end the streams
            self._failure = error
        finally:
            self._telemetry.close()
            self._events.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            due_s = monotonic_s() + _PUBLISH_INTERVAL_S
            try:
                self._publish()
            except Exception as error:  # the pass goes on without its log; the flight raises the alarm
                self._failure = error
                return
            self._closing.wait(max(0.0, due_s - monotonic_s()))

    def _publish(self, end: bool = False) -> None:
        rows: dict[str, list[_Row]] = {}
        while not self._rows.empty():
            table, row = self._rows.get()
            rows.setdefault(table, []).append(row)
        tables = {name: _columns(name, entries) for name, entries in rows.items()}
        if tables or end:
            self._telemetry.publish(tables, end=end)
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        if lines or end:
            first, self._sequence = self._sequence, self._sequence + len(lines)
            width = max([len(text) for _, text in lines], default=1)
            entries = {
                "sequence": np.arange(first, self._sequence, dtype=np.int64),
                "utc_ns": np.array([utc_ns for utc_ns, _ in lines], np.int64),
                "text": np.array([text for _, text in lines], dtype=f"S{width}"),
            }
            self._events.publish({"events": entries} if lines else {}, end=end)


def _columns(table: str, rows: list[_Row]) -> dict[str, NDArray[np.generic]]:
    kinds = _TELEMETRY[table]
    return {name: np.array([row[i] for row in rows], dtype=kind) for i, (name, kind) in enumerate(kinds.items())}
