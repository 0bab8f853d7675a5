"""Goes on in a recording whose recorder was interrupted: what that one said last, and whether time goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groundstation.acquisition.buffer import Progress
from groundstation.core.ledger import Ledger
from groundstation.core.timebase import PS_PER_NS, PS_PER_S, UtcLabel
from groundstation.errors import GroundStationError, RecordingDamaged
from groundstation.recording.segment import decode
from groundstation.recording.writer import segment_name, segment_numbers

#: The device's time must be where the host's elapsed time puts it (wall time). A read is never early, but may be late
#: on a busy machine; a device that was restarted is behind by as long as it ran before.
_EARLY_S, _LATE_S = 0.5, 5.0


class TimeBaseLost(GroundStationError):
    """The tagger's time does not continue, so its tags cannot go on in the same recording."""


@dataclass(frozen=True)
class Earlier:
    """What the last acknowledged segment of an interrupted recorder says."""

    progress: Progress
    ledger: Ledger
    #: Whether that segment is the stream's END, so that nobody can go on.
    ended: bool = False


def earlier_recorder(directory: Path, stream: str = "tags") -> Earlier | None:
    """What the stream's last good segment says; None when there is no segment yet."""
    for number in reversed(segment_numbers(directory / stream)):
        path = directory / stream / segment_name(number)
        try:
            segment = decode(path.read_bytes(), str(path))
        except (RecordingDamaged, OSError):
            continue
        ledger = segment.notes.get("ledger")
        accounted = Ledger.from_notes(ledger if isinstance(ledger, dict) else {})
        return Earlier(progress_of(segment.notes), accounted, segment.end)
    return None


def progress_notes(progress: Progress) -> dict[str, object]:
    """The form in which a segment carries it."""
    notes: dict[str, object] = {
        "zero_device_ps": progress.zero_device_ps,
        "latest_ps": progress.latest_ps,
        "host_utc_ns": progress.host_utc_ns,
    }
    if progress.resolution_ps:
        notes["resolution_ps"] = progress.resolution_ps
    if (label := progress.label) is not None:
        notes["utc_label"] = {
            "time_ps": label.time_ps,
            "utc_ns": label.utc_ns,
            "uncertainty_s": label.uncertainty_s,
        }
    return notes


def progress_of(notes: Mapping[str, object]) -> Progress:
    """The inverse of `progress_notes`."""
    label, zero_ps = notes.get("utc_label"), notes.get("zero_device_ps")
    return Progress(
        zero_ps if isinstance(zero_ps, int) else None,
        int(str(notes.get("latest_ps", 0))),
        int(str(notes.get("host_utc_ns", 0))),
        UtcLabel(int(label["time_ps"]), int(label["utc_ns"]), float(label["uncertainty_s"]))
        if isinstance(label, dict)
        else None,
        float(str(notes.get("resolution_ps", 0.0))),
    )


def check_time_goes_on(earlier: Progress, first_ps: int, latest_ps: int, host_utc_ns: int, speed: float) -> None:
    """Raise TimeBaseLost unless the device's time is where the time that has passed puts it.

    `first_ps`, `latest_ps`: device times, read at `host_utc_ns` of a world that runs `speed` times faster.
    """
    assert earlier.zero_device_ps is not None
    elapsed_ps = (host_utc_ns - earlier.host_utc_ns) * PS_PER_NS
    before_ps = earlier.zero_device_ps + earlier.latest_ps
    late_s = (before_ps + elapsed_ps - latest_ps) / PS_PER_S / max(1.0, speed)
    if not -_EARLY_S <= late_s <= _LATE_S or first_ps < before_ps:
        raise TimeBaseLost(
            f"the tagger's time is {late_s:.1f} s behind what it should be, so it was restarted meanwhile; its tags "
            "cannot go on in this recording: begin a new one"
        )
