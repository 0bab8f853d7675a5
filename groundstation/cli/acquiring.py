"""What `acquire` has around the recorder when it runs: where it records, when it is over, what it prints."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from groundstation.acquisition.continuation import earlier_recorder
from groundstation.acquisition.daemon import Acquisition
from groundstation.acquisition.status import AcquisitionStatus
from groundstation.cli.child import Teller
from groundstation.clock import Clock, monotonic_s, utc_text
from groundstation.console.status import number_text, one_line, percent_text, rate_text
from groundstation.errors import BadInput
from groundstation.recording.manifest import MANIFEST_NAME

#: Tags are late by a fraction of a second on a busy machine; nobody waits longer for them (wall time).
_LATE_TAGS_PATIENCE_S = 5.0
_LINE_INTERVAL_S = 1.0


def place_of(output: Path | None, clock: Clock) -> tuple[Path, bool]:
    """Where to record, and whether an interrupted recording is continued there.

    Without `output`: the newest interrupted `tags-*` of this directory, else a new one named by the time. BadInput
    when the recording in `output` has its end already.
    """
    if output is not None:
        if not (output / MANIFEST_NAME).exists():
            return output, False
        if _has_ended(output):
            raise BadInput(f"{output} holds a recording that has ended; choose another --output")
        return output, True
    here = sorted(path.parent for path in Path().glob(f"tags-*/{MANIFEST_NAME}"))
    for directory in reversed(here):
        if not _has_ended(directory):
            return directory, True
    stamp = utc_text(clock.utc_ns(), 0).replace("-", "").replace(":", "")
    return Path(f"tags-{stamp}"), False


def _has_ended(directory: Path) -> bool:
    earlier = earlier_recorder(directory)
    return earlier is not None and earlier.ended


class CaughtUp:
    """True when the end was asked for and what happened before is recorded, for tags arrive late."""

    def __init__(self, acquisition: Acquisition, asked: Callable[[], bool], clock: Clock) -> None:
        self._acquisition, self._asked, self._clock = acquisition, asked, clock
        self._since: tuple[int, float] | None = None

    def __call__(self) -> bool:
        if not self._asked():
            return False
        self._since = self._since or (self._clock.utc_ns(), monotonic_s())
        asked_utc_ns, asked_s = self._since
        recorded = self._acquisition.recorded_to_utc_ns
        return recorded is None or recorded >= asked_utc_ns or monotonic_s() - asked_s > _LATE_TAGS_PATIENCE_S


class StatusPrinter:
    """The recorder's status on stdout: a line of text every second, or every status as JSON."""

    def __init__(self, directory: Path, continued: bool, machine: bool, clock: Clock) -> None:
        self._directory, self._continued, self._machine, self._clock = directory, continued, machine, clock
        self._printed_at_s = 0.0
        self._dropped: Mapping[str, int] = {}
        self._teller = Teller()

    def ready(self, model: str) -> None:
        """The tagger has proved what it is."""
        if self._machine:
            self._teller.say(json.dumps({"ready": True, "model": model, "recording": str(self._directory)}))
        else:
            how = "Goes on in" if self._continued else "Records into"
            self._teller.say(f"{how} {self._directory} from {model}. Ctrl-C ends in order.")

    def status(self, status: AcquisitionStatus) -> None:
        """Print it if it is time for it."""
        self._dropped = status.dropped_by_cause
        if self._machine:
            self._teller.say(json.dumps(asdict(status)))
        elif monotonic_s() - self._printed_at_s >= _LINE_INTERVAL_S:
            self._printed_at_s = monotonic_s()
            self._teller.say(f"{utc_text(self._clock.utc_ns(), 0)} | {status_line(status)}")

    def ended(self) -> None:
        """The stream has its END."""
        if not self._machine:
            lost = ", ".join(f"{count:,} {cause}" for cause, count in sorted(self._dropped.items()))
            self._teller.say(f"Recorded in {self._directory}." + (f" DROPPED and counted: {lost}." if lost else ""))
        self._teller.finish()


def status_line(status: AcquisitionStatus) -> str:
    """`tags 1,456,021 at 12.43 kHz | safe in 52 ms, 99 % in 104 ms | buffer 1 % | disk 480 min | dropped 0`."""
    parts = [
        f"tags {status.tags:,} at {rate_text(sum(status.counts_hz.values()))}",
        f"safe in {1e3 * status.acknowledge_p50_s:.0f} ms, 99 % in {1e3 * status.acknowledge_p99_s:.0f} ms",
        f"buffer {percent_text(status.buffer_fill)}",
        f"disk {number_text(status.disk_minutes_left, '{:,.0f} min')}",
        f"dropped {status.dropped:,}",
        *(f"ALARM: {sentence}" for sentence in status.alarms.values()),
    ]
    return one_line(" | ".join(parts))
