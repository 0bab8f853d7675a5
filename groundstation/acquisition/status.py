"""What the operator sees of the recorder, and how long tags wait until they are safe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class AcquisitionStatus:
    """The recorder at one moment; latencies (wall time) are those of the tags acknowledged since the last status."""

    #: Acknowledged since the recording began.
    tags: int
    counts_hz: dict[str, float]
    #: The longest wait of a tag.
    acknowledge_s: float
    #: UTC up to which tags were read; 0 while it is not known.
    read_until_utc_ns: int
    dropped: int
    seen: int = 0
    in_flight: int = 0
    dropped_by_cause: Mapping[str, int] = field(default_factory=dict)
    #: By the hardware; None when it cannot tell.
    missed: int | None = None
    acknowledge_p50_s: float = 0.0
    acknowledge_p99_s: float = 0.0
    buffer_fill: float = 0.0
    disk: str = "ok"
    disk_minutes_left: float | None = None
    #: What is wrong by what it is wrong with (buffer, disk, tagger, ledger): one sentence each.
    alarms: Mapping[str, str] = field(default_factory=dict)


class Latency(NamedTuple):
    """How long tags waited: half of them, 99 % of them and all of them no longer than this."""

    p50_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0


class Latencies:
    """Waits of tags, gathered until asked for."""

    def __init__(self) -> None:
        self._waits: list[tuple[float, int]] = []

    def add(self, wait_s: float, tags: int) -> None:
        """So many tags waited so long."""
        if tags:
            self._waits.append((wait_s, tags))

    def take(self) -> Latency:
        """What was gathered since the last time."""
        if not self._waits:
            return Latency()
        waits, weights = (np.array(column) for column in zip(*sorted(self._waits), strict=True))
        self._waits = []
        up_to = np.cumsum(weights)
        p50, p99 = (float(waits[np.searchsorted(up_to, part * up_to[-1])]) for part in (0.5, 0.99))
        return Latency(p50, p99, float(waits[-1]))
