"""The wire log: every byte of one link with its time, as debug log, as test fixture and as far end of a replay.

One JSON object per line. The first holds the link's `address`; each other one `t_monotonic_ns`, `t_utc`, `direction`
("out": to the instrument, "in": from it) and `hex`. On a message link each line is one message, on a byte link one
piece as it was sent or received.
"""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from groundstation.clock import SystemClock, monotonic_ns, sleep_wall_s, utc_text
from groundstation.errors import BadInput

Direction = Literal["out", "in"]


class WireLog:
    """Appends to a log, readable by its owner only: that of a tagger or of the classical channel holds raw key."""

    def __init__(self, path: Path, address: str) -> None:
        """Raises BadInput when the file cannot be written."""
        try:
            self._file = open(path, "a", opener=_private, encoding="ascii")  # noqa: SIM115  closed in close()
        except OSError as error:
            raise BadInput(
                f'wire log "{path}" cannot be written ({error}); name a file in a folder that exists'
            ) from error
        self._lock = threading.Lock()
        self._write({"address": address})

    def record(self, direction: Direction, data: bytes) -> None:
        """Write down a piece; nothing after `close`."""
        self._write({"direction": direction, "hex": data.hex()})

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._file.close()

    def _write(self, entry: dict[str, str]) -> None:
        stamped = {"t_monotonic_ns": monotonic_ns(), "t_utc": utc_text(SystemClock().utc_ns(), 6), **entry}
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(stamped) + "\n")
                self._file.flush()


class Piece(NamedTuple):
    """What one line of a wire log says."""

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
            pieces.append(Piece(entry["direction"], bytes.fromhex(entry["hex"])))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInput(f'{path}, line {number} is no line of a wire log (direction "out" or "in", hex)') from error
    return address, pieces


class Replay:
    """The far end of a logged link: takes exactly the bytes that were sent then, and gives those that came.

    What came is given as soon as everything that was sent before it has been sent again, however long it took then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.recorded_address, pieces = read_wire_log(path)
        self._pieces: Sequence[Piece] = pieces
        self._next = 0
        self._sent = 0  # bytes of the next piece that were sent already

    @property
    def unused(self) -> int:
        """Pieces of the log that have not been replayed yet."""
        return len(self._pieces) - self._next

    def receive(self, wait_s: float) -> bytes:
        """The next piece that came, b"" after `wait_s` while something must be sent first."""
        if self._next == len(self._pieces):
            raise ConnectionError(f"the wire log {self._path} ends here")
        piece = self._pieces[self._next]
        if piece.direction == "out":
            sleep_wall_s(wait_s)
            return b""
        self._next += 1
        return piece.data

    def send(self, data: bytes) -> None:
        """ConnectionError unless this is what was sent then."""
        while data:
            piece = self._pieces[self._next] if self.unused else Piece("in", b"")
            expected = piece.data[self._sent : self._sent + len(data)]
            if piece.direction != "out" or not data.startswith(expected):
                raise ConnectionError(
                    f"piece {self._next + 1} of the wire log {self._path} is {piece.direction} "
                    f"{piece.data[self._sent :][:40]!r}, but {data[:40]!r} was sent"
                )
            data = data[len(expected) :]
            self._sent += len(expected)
            if self._sent == len(piece.data):
                self._next, self._sent = self._next + 1, 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
