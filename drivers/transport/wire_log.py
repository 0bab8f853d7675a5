"""The wire log: every byte of one link with its time, as debug log, as test fixture and as far end of a replay.

One JSON object per line. The first holds the link's `address`; each other one `t_monotonic_ns`, `t_utc`, `direction`
("out": to the instrument, "in": from it) and `hex`. On a message link each line is one message, on a byte link one
piece as it was sent or received.
"""

import json
import os
import threading
from collections import deque
from pathlib import Path
from typing import Literal, NamedTuple

from groundstation.clock import SystemClock, monotonic_ns, sleep_wall_s, utc_text
from groundstation.errors import BadInput, TransportLost

Direction = Literal["out", "in"]


class WireLog:
    """Appends to a log, readable by its owner only: that of a tagger or of the classical channel holds raw key."""

    def __init__(self, path: Path, address: str) -> None:
        """Raises BadInput when the file cannot be written."""
        try:
            self._fd: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInput(
                f'wire log "{path}" cannot be written ({error.strerror}); name a file in a folder that exists'
            ) from error
        self._lock = threading.Lock()
        self._write({"address": address})

    def record(self, direction: Direction, data: bytes) -> None:
        """Write down a piece; nothing after `close`."""
        self._write({"direction": direction, "hex": data.hex()})

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._release()

    def _write(self, entry: dict[str, str]) -> None:
        stamped = {"t_monotonic_ns": monotonic_ns(), "t_utc": utc_text(SystemClock().utc_ns(), 6), **entry}
        line = (json.dumps(stamped) + "\n").encode("ascii")
        with self._lock:
            try:
                if self._fd is not None and os.write(self._fd, line) < len(line):
                    self._release()
            except OSError:  # a full disk ends the log, never the link
                self._release()

    def _release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Piece(NamedTuple):
    """What one line of a wire log says."""

    line: int
    direction: Direction
    data: bytes


def read_wire_log(path: Path) -> tuple[str, list[Piece]]:
    """The address that was logged ("" in a log without one) and the pieces in order. Raises BadInput."""
    address, pieces = "", []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the wire log {path} cannot be read ({error}); name a file that a link has written") from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if "address" in entry:
                address = str(entry["address"])
                continue
            if entry["direction"] not in ("out", "in"):
                raise ValueError
            pieces.append(Piece(number, entry["direction"], bytes.fromhex(entry["hex"])))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInput(f'{path}, line {number} is no line of a wire log (direction "out" or "in", hex)') from error
    return address, pieces


class Replay:
    """The far end of a logged link: takes exactly the bytes that were sent then, and gives those that came.

    What came is given as soon as everything that was sent before it has been sent again, however long it took then;
    so silence is replayed, and an answer that was late then is in time now.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a file that is no wire log."""
        self._path = path
        self.recorded_address, pieces = read_wire_log(path)
        self._to_send = deque(piece for piece in pieces if piece.direction == "out")
        self._to_come = deque(piece for piece in pieces if piece.direction == "in")
        self._sent = 0  # bytes of the first piece to send that were sent already

    @property
    def unused(self) -> tuple[int, ...]:
        """The lines of the log that have not been replayed."""
        return tuple(sorted(piece.line for piece in (*self._to_send, *self._to_come)))

    @property
    def waits(self) -> bool:
        """Whether nothing comes before more is sent."""
        return not self._to_come or bool(self._to_send and self._to_send[0].line < self._to_come[0].line)

    def receive(self, wait_s: float) -> bytes | None:
        """The next piece that came, None after `wait_s` while it waits. TransportLost at the end of the log."""
        if not self.waits:
            return self._to_come.popleft().data
        if wait_s > 0.0 and not self._to_send:
            raise TransportLost(f"the wire log {self._path} ends here")
        sleep_wall_s(wait_s)
        return None

    def send(self, data: bytes) -> None:
        """TransportLost unless this is what was sent then."""
        while data:
            if not self._to_send:
                raise TransportLost(f"the wire log {self._path} ends here, but {data[:40]!r} was sent")
            line, _, piece = self._to_send[0]
            expected = piece[self._sent : self._sent + len(data)]
            if not data.startswith(expected):
                raise TransportLost(
                    f"line {line} of the wire log {self._path} says that {piece[self._sent :][:40]!r} was sent then, "
                    f"now it was {data[:40]!r}"
                )
            data = data[len(expected) :]
            self._sent += len(expected)
            if self._sent == len(piece):
                self._to_send.popleft()
                self._sent = 0
