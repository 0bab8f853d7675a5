"""Where the simulated instruments share one world: a small memory-mapped file, outside every wire.

The mount's simulator writes how the telescope really moves, each detector's simulator how sensitive it is,
and the photons (in the tagger's simulator) what each detector counted. Each field has a single writer; a
record is written before the counter that publishes it. A simulator that runs alone uses a board of its own
with a telescope that points at the satellite and detectors that are on.
"""

import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOTIONS = 4096
_STATES = 1024  # a detector's simulator writes ten a second (wall time)
_COUNTS = 4096
_MOTION = np.dtype(
    [
        ("utc_ns", "<i8"),
        ("azimuth_deg", "<f8"),
        ("elevation_deg", "<f8"),
        ("azimuth_rate_deg_s", "<f8"),
        ("elevation_rate_deg_s", "<f8"),
        ("azimuth_acceleration_deg_s2", "<f8"),
        ("elevation_acceleration_deg_s2", "<f8"),
    ]
)
_STATE = np.dtype([("utc_ns", "<i8"), ("relative_efficiency", "<f8"), ("dark_hz", "<f8")])
_COUNT = np.dtype([("utc_ns", "<i8"), ("total", "<i8", (4,))])
_BOARD = np.dtype(
    [
        ("motions_written", "<i8"),
        ("counts_written", "<i8"),
        ("states_written", "<i8", (4,)),
        ("states", _STATE, (4, _STATES)),
        ("motions", _MOTION, (_MOTIONS,)),
        ("counts", _COUNT, (_COUNTS,)),
    ]
)


class Motion(NamedTuple):
    """From `utc_ns` on, uniformly accelerated motion of both axes (degrees, seconds); azimuth may exceed 360."""

    utc_ns: int
    azimuth_deg: float
    elevation_deg: float
    azimuth_rate_deg_s: float
    elevation_rate_deg_s: float
    azimuth_acceleration_deg_s2: float = 0.0
    elevation_acceleration_deg_s2: float = 0.0


class Blackboard:
    """The shared state of the simulated world."""

    def __init__(self, board: np.ndarray) -> None:
        self._board = board

    @classmethod
    def create(cls, path: Path) -> "Blackboard":
        """A new board in a file; detectors start switched off, the telescope nowhere."""
        path.write_bytes(bytes(_BOARD.itemsize))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "Blackboard":
        """Attach to a board that another program created."""
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), _BOARD.itemsize)
        return cls(np.frombuffer(memory, dtype=_BOARD, count=1))

    @classmethod
    def alone(cls, dark_hz: float = 25.0) -> "Blackboard":
        """A board for one simulator without the others: all detectors on, no telescope."""
        board = cls(np.zeros(1, dtype=_BOARD))
        for detector in range(4):
            board.set_detector(detector, 1.0, dark_hz)
        return board

    def add_motion(self, motion: Motion) -> None:
        """The mount's simulator says how the telescope moves from `motion.utc_ns` on (not decreasing)."""
        written = int(self._board["motions_written"][0])
        self._board["motions"][0, written % _MOTIONS] = tuple(motion)
        self._board["motions_written"][0] = written + 1

    def pointing_deg(self, utc_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Azimuth and elevation of the telescope at each time (n,); None when no mount moves on this board."""
        written = int(self._board["motions_written"][0])
        if written == 0:
            return None
        kept = np.arange(max(0, written - _MOTIONS // 2), written) % _MOTIONS
        motions = self._board["motions"][0, kept]
        which = np.maximum(np.searchsorted(motions["utc_ns"], utc_ns, side="right") - 1, 0)
        at = motions[which]
        t = np.maximum((utc_ns - at["utc_ns"]) * 1e-9, 0.0)
        azimuth = at["azimuth_deg"] + t * (at["azimuth_rate_deg_s"] + 0.5 * t * at["azimuth_acceleration_deg_s2"])
        elevation = at["elevation_deg"] + t * (
            at["elevation_rate_deg_s"] + 0.5 * t * at["elevation_acceleration_deg_s2"]
        )
        return azimuth, elevation

    def set_detector(self, detector: int, relative_efficiency: float, dark_hz: float, utc_ns: int = 0) -> None:
        """A detector's simulator says how it works from `utc_ns` on (not decreasing): efficiency relative to its
        operating point, dark rate."""
        written = int(self._board["states_written"][0, detector])
        self._board["states"][0, detector, written % _STATES] = (utc_ns, relative_efficiency, dark_hz)
        self._board["states_written"][0, detector] = written + 1

    def detectors(self, utc_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Relative efficiency (4,) and dark rate in Hz (4,) as they were at `utc_ns`.

        On a busy machine the photons of a moment are made later than it, when a bias may be off already.
        """
        states = [self._state(detector, utc_ns) for detector in range(4)]
        return np.array([efficiency for efficiency, _ in states]), np.array([dark_hz for _, dark_hz in states])

    def _state(self, detector: int, utc_ns: int) -> tuple[float, float]:
        written = int(self._board["states_written"][0, detector])
        states = self._board["states"][0, detector]
        oldest = max(0, written - _STATES // 2)
        for number in range(written - 1, oldest - 1, -1):  # what is asked for is seldom older than a few
            since_ns, efficiency, dark_hz = states[number % _STATES].item()
            if since_ns <= utc_ns or number == oldest > 0:
                return efficiency, dark_hz
        return 0.0, 0.0  # before it was switched on

    def add_counts(self, utc_ns: int, total: NDArray[np.int64]) -> None:
        """The photons say how many clicks each detector has given up to `utc_ns` (4,)."""
        written = int(self._board["counts_written"][0])
        self._board["counts"][0, written % _COUNTS] = (utc_ns, total)
        self._board["counts_written"][0] = written + 1

    def clicks_between(self, detector: int, start_utc_ns: int, stop_utc_ns: int) -> float | None:
        """Clicks of one detector in an interval, interpolated; None when no photons run on this board."""
        written = int(self._board["counts_written"][0])
        if written == 0:
            return None
        kept = np.arange(max(0, written - _COUNTS // 2), written) % _COUNTS
        counts = self._board["counts"][0, kept]
        origin = int(counts["utc_ns"][0])
        times = (counts["utc_ns"] - origin) * 1e-9
        edges = ((start_utc_ns - origin) * 1e-9, (stop_utc_ns - origin) * 1e-9)
        at = np.interp(edges, times, counts["total"][:, detector])
        return float(at[1] - at[0])
