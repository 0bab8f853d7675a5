"""What the analysis needs of the `telemetry` stream: the predicted path and the mount's readings."""

import numpy as np
from numpy.typing import NDArray

from groundstation.recording.reader import StreamReader
from groundstation.recording.segment import Segment

PATH_COLUMNS = ("utc_ns", "azimuth_deg", "elevation_deg", "range_km", "time_of_flight_s")
#: `used` is 1 where the time of reading was known well enough to tell the error.
MOUNT_COLUMNS = ("utc_ns", "azimuth_deg", "elevation_deg", "error_arcsec", "used")


class Telemetry:
    """Follows the stream; the path is complete when it is there at all (written before the start)."""

    def __init__(self, stream: StreamReader) -> None:
        self._stream = stream
        self.path: dict[str, NDArray[np.generic]] = {}
        self._mount: list[list[NDArray[np.generic]]] = []
        #: What of the stream was damaged, a sentence each.
        self.damages: list[str] = []

    @property
    def ended(self) -> bool:
        return self._stream.ended

    def stop_following(self) -> None:
        """Nobody records any more: what is there is all."""
        self._stream.stop_following()

    def poll(self) -> bool:
        """Read what is new; True if anything was."""
        items = self._stream.poll()
        for item in items:
            if isinstance(item, Segment):
                path, mount = item.tables.get("path"), item.tables.get("mount")
                if path is not None and path["utc_ns"].size:
                    joined = {c: [self.path[c], path[c]] if self.path else [path[c]] for c in PATH_COLUMNS}
                    self.path = {c: np.concatenate(parts) for c, parts in joined.items()}
                if mount is not None:
                    self._mount.append([mount[c] for c in MOUNT_COLUMNS])
            else:
                self.damages.append(item.sentence)
        return bool(items)

    def mount(self, start_utc_ns: int, stop_utc_ns: int) -> dict[str, NDArray[np.generic]]:
        """The readings inside [start, stop) whose time is known well enough."""
        parts = self._mount or [[np.empty(0, np.int64) for _ in MOUNT_COLUMNS]]
        columns = {c: np.concatenate([p[i] for p in parts]) for i, c in enumerate(MOUNT_COLUMNS)}
        utc_ns = columns["utc_ns"].astype(np.int64)
        keep = (utc_ns >= start_utc_ns) & (utc_ns < stop_utc_ns) & (columns["used"] != 0)
        return {c: values[keep] for c, values in columns.items()}
