"""Room on the disk: demanded before, watched while recording, and a reserve so that even a full disk is recorded.

* OK: tags are recorded.
* LOW: tags are recorded, and the operator is told how many minutes are left.
* RESERVED: a write failed. The reserve is given up for what the streams must still say (gaps, ledgers, ends); tags
  wait in memory, and are dropped and counted when that is full, until there is room again.
"""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from groundstation.acquisition.buffer import BYTES_PER_TAG
from groundstation.errors import BadInput
from groundstation.recording.files import RecordingFailed

RESERVE_NAME = "reserve"
DISK_FULL = "disk full"
_DISK_REFUSES = "disk refuses writes"
#: How often the room is looked at (wall time), which is also how often a write is tried again.
_LOOK_S = 0.5
#: On top of what waits to be written, before writing is tried again.
_SPARE_BYTES = 1 << 20
#: Weight of the newest second in the rate at which the disk fills.
_NEWEST = 0.2


class SpaceState(StrEnum):
    """See the module's first lines."""

    OK = "ok"
    LOW = "low"
    RESERVED = "reserved"


def free_bytes(path: Path) -> int:
    """Room for this user on the file system of a path, which need not exist yet."""
    existing = next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())
    return shutil.disk_usage(existing).free


def bytes_needed(max_rate_hz: float, duration_s: float, factor: float) -> float:
    """What a recording may need."""
    return max_rate_hz * duration_s * BYTES_PER_TAG * factor


def require_room(directory: Path, needed: float, free: Callable[[Path], int] = free_bytes) -> None:
    """Raise BadInput when a recording does not fit."""
    available = free(directory)
    if available < needed:
        raise BadInput(
            f"{directory} has {available / 1e9:.3g} GB free, the recording may need {needed / 1e9:.3g} GB; make room "
            "or choose another --output"
        )


class Space:
    """Watches the room for one recording and holds its reserve."""

    def __init__(
        self,
        directory: Path,
        reserve_bytes: int,
        low_minutes: float,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Allocates the reserve; raises BadInput when there is no room even for that."""
        self._directory, self._free = directory, free
        self._reserve, self._reserve_bytes = directory / RESERVE_NAME, reserve_bytes
        self._low_minutes = low_minutes
        self._bytes_per_s: float | None = None
        self._looked: tuple[float, int] | None = None
        self.state = SpaceState.OK
        #: What is wrong, for the operator; empty when all is well.
        self.trouble = ""
        #: Why tags are lost when memory is full, too.
        self.cause = ""
        #: Until the disk is full at the present rate; None while nothing is recorded.
        self.minutes_left: float | None = None
        if not self._allocate():
            raise BadInput(f"{directory} has no room for a reserve of {reserve_bytes / 1e6:.3g} MB; make room")

    def look(self, now_s: float, recorded_tags: int, waiting_bytes: int) -> None:
        """From time to time: how much room there is; `now_s` is wall time."""
        if self._looked is not None and now_s - self._looked[0] < _LOOK_S:
            return
        free = self._free(self._directory)
        self._measure(now_s, recorded_tags, free)
        if self.state is SpaceState.RESERVED:
            if free < self._reserve_bytes + waiting_bytes + _SPARE_BYTES or not self._allocate():
                return
            self.cause = ""
        low = self.minutes_left is not None and self.minutes_left < self._low_minutes
        self.state = SpaceState.LOW if low else SpaceState.OK
        self.trouble = f"about {self.minutes_left:.0f} minutes of disk space left" if low else ""

    def emergency(self, error: RecordingFailed, now_s: float) -> None:
        """A write failed: no more tags for the time being, and the reserve for those who must say so."""
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        self.state = SpaceState.RESERVED
        self.cause = DISK_FULL if full else _DISK_REFUSES
        self.trouble = "the disk is full; tags wait in memory: make room" if full else f"{error}; tags wait in memory"
        self._looked = (now_s, self._looked[1] if self._looked else 0)
        self.release()

    def release(self) -> None:
        """Give the reserve's room back."""
        with suppress(OSError):
            self._reserve.unlink()

    def _measure(self, now_s: float, recorded_tags: int, free: int) -> None:
        if self._looked is not None and now_s > self._looked[0]:
            seconds = now_s - self._looked[0]
            rate = max(0, recorded_tags - self._looked[1]) * BYTES_PER_TAG / seconds
            known, weight = self._bytes_per_s, min(1.0, _NEWEST * seconds)
            self._bytes_per_s = rate if known is None else known + weight * (rate - known)
        self._looked = (now_s, recorded_tags)
        self.minutes_left = free / self._bytes_per_s / 60 if self._bytes_per_s else None

    def _allocate(self) -> bool:
        """Whether the reserve is there; a part of it is worth nothing."""
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                if self._reserve_bytes:
                    os.posix_fallocate(descriptor, 0, self._reserve_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        return True
