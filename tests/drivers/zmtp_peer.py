"""A ZeroMQ peer of plain sockets (ZMTP 3.0, mechanism NULL), so that libzmq is not at both ends of a test.

Source: the ZMTP 3.0 specification (rfc.zeromq.org/spec/23).
"""

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


class ZmtpPeer:
    """One connection of a server socket of type "REP" or "PAIR"."""

    def __init__(self, connection: socket.socket, kind: str) -> None:
        self._connection = connection
        connection.settimeout(10.0)
        connection.sendall(GREETING)
        greeting = self._take(64)
        assert greeting[:1] == b"\xff"
        assert greeting[10] == 3
        assert greeting[12:32] == b"NULL".ljust(20, b"\0")
        value = kind.encode()
        self._frame(4, b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(value)) + value)
        flags, body = self._take_frame()
        assert flags & 4
        assert body.startswith(b"\x05READY")

    def take_question(self) -> bytes:
        """The body of a request: an empty delimiter, then one frame."""
        assert self._take_frame() == (1, b"")
        flags, body = self._take_frame()
        assert not flags & 1
        return body

    def answer(self, body: bytes) -> None:
        self._frame(1, b"")
        self._frame(0, body)

    def send(self, body: bytes) -> None:
        """One message of a PAIR."""
        self._frame(0, body)

    def close(self) -> None:
        self._connection.close()

    def _frame(self, flags: int, body: bytes) -> None:
        long = len(body) > 255
        size = struct.pack(">Q" if long else ">B", len(body))
        self._connection.sendall(bytes((flags | 2 * long,)) + size + body)

    def _take_frame(self) -> tuple[int, bytes]:
        flags = self._take(1)[0]
        (size,) = struct.unpack(">Q", self._take(8)) if flags & 2 else self._take(1)
        return flags & ~2, self._take(size)

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data
