"""The guard: a small process with its own link that stops the mount when the main process dies or hangs.

Many mounts keep their last rate for ever. The main process sends a byte on the guard's stdin with every turn
of its control loop; silence or the end of the pipe means that nobody steers any more.
"""

import os
import select
from collections.abc import Callable

from groundstation.clock import monotonic_s, sleep_wall_s
from groundstation.errors import GroundStationError
from groundstation.instruments import Mount

HEARTBEAT, DISMISSED = b"h", b"q"
_PATIENCE_S = 10.0
#: Two readings that are closer than this prove that the mount stands still.
_STILL_DEG = 3.0 / 3600
_STILL_WAIT_S = 0.25


def watch(mount: Mount, heartbeats: int, timeout_s: float, report: Callable[[dict[str, object]], None]) -> None:
    """Until dismissed or orphaned. `heartbeats`: file descriptor of the pipe; `timeout_s`: wall time."""
    stopped = False
    while True:
        ready, _, _ = select.select([heartbeats], [], [], timeout_s)
        if not ready:
            if not stopped:
                stopped = stop_and_verify(mount, lambda: bool(select.select([heartbeats], [], [], 0)[0]))
                report({"guard": "main process is silent", "stopped": stopped})
            stopped = True
            continue
        data = os.read(heartbeats, 4096)
        if DISMISSED in data:
            return
        if not data:
            report({"guard": "main process is gone", "stopped": stop_and_verify(mount)})
            return
        stopped = False


def stop_and_verify(mount: Mount, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Command rate zero until two readings agree; True when they do, False when they never did or on `give_up`."""
    deadline_s = monotonic_s() + _PATIENCE_S
    while monotonic_s() < deadline_s and not give_up():
        try:
            mount.stop()
            before = mount.read_position()
            sleep_wall_s(_STILL_WAIT_S)
            after = mount.read_position()
        except GroundStationError:
            sleep_wall_s(0.05)
            continue
        turned = (after.azimuth_deg - before.azimuth_deg + 180.0) % 360.0 - 180.0
        raised = after.elevation_deg - before.elevation_deg
        if max(abs(turned), abs(raised)) < _STILL_DEG:
            return True
    return False
