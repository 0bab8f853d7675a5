"""JSON objects one after the other on a stream of bytes, glued or split as it happens, some ended by ETB (0x17).

A text may hold any brace, so only a reader that knows strings and escapes can tell where an object ends. A byte 0x17
cannot stand inside an object (JSON escapes control characters), so wherever it comes, reading is in step again.
"""

import re

LONGEST_OBJECT_BYTES = 10_000_000  # Single Quantum's client reads no more at once
_MARK = re.compile(rb'["\\{}\x17]')


class JsonSplitter:
    """Cuts a byte stream into JSON objects, however it arrives; ETB ends whatever is unfinished.

    `broken`: objects that ETB or an overlong text cut off, and stretches of bytes that belong to none.
    """

    def __init__(self) -> None:
        self.broken = 0
        self._buffer = bytearray()
        self._scan = self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that end in `data`."""
        self._buffer += data
        found: list[bytes] = []
        while mark := _MARK.search(self._buffer, self._scan):
            at = mark.start()
            if mark[0] == b"\\" and self._in_string:
                if at + 1 == len(self._buffer):
                    self._scan = at  # what it escapes has not come yet
                    return found
                self._scan = at + (1 if self._buffer[at + 1] == 0x17 else 2)
            elif self._step(mark[0], at):
                found.append(bytes(self._buffer[: at + 1]))
                self._cut(at + 1)
        self._scan = len(self._buffer)
        if self._scan > LONGEST_OBJECT_BYTES:
            self._drop(self._scan)
        return found

    def _step(self, mark: bytes, at: int) -> bool:
        """Take one mark; True when it ends an object."""
        self._scan = at + 1
        if mark == b"\x17":
            self._drop(at, at + 1)
        elif self._depth == 0:
            if mark == b"{":
                self._drop(at)
                self._depth, self._scan = 1, 1
        elif mark == b'"':
            self._in_string = not self._in_string
        elif not self._in_string and mark != b"\\":
            self._depth += 1 if mark == b"{" else -1
            return self._depth == 0
        return False

    def _drop(self, end: int, cut: int | None = None) -> None:
        """Forget the bytes up to `end`, which are no object."""
        if self._depth or self._buffer[:end].strip():
            self.broken += 1
        self._cut(end if cut is None else cut)

    def _cut(self, end: int) -> None:
        del self._buffer[:end]
        self._scan = self._depth = 0
        self._in_string = False
