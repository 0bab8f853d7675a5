"""The far end of ZeroMQ links by hand, on plain sockets: ZMTP 3.0 with the NULL mechanism, for the tests of drivers.

A time controller that keeps what it is told, with its data link, so that a driver can be started and fed by hand.
"""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
DEADLINE_S = 10.0


def frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) > 255:
        return bytes((flags | 2,)) + struct.pack(">Q", len(body)) + body
    return bytes((flags, len(body))) + body


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = connection.recv(size - len(data))
        if not received:
            raise ConnectionError("the driver hung up")
        data += received
    return data


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    flags = exactly(connection, 1)[0]
    size = struct.unpack(">Q", exactly(connection, 8))[0] if flags & 2 else exactly(connection, 1)[0]
    return flags, exactly(connection, size)


def shake_hands(connection: socket.socket, kind: bytes) -> None:
    connection.sendall(GREETING)
    exactly(connection, 64)
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    connection.sendall(frame(body, 4))
    assert read_frame(connection)[0] & 4


class Server:
    """Accepts connections and talks on each in a thread."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"zmq://127.0.0.1:{self.port}"
        self._talk = talk
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._hold, args=(connection,), daemon=True).start()

    def _hold(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self._talk(connection)

    def close(self) -> None:
        self._socket.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Answering(Server):
    """A REP socket: `answer` makes the answer to each question; None: none comes."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        def talk(connection: socket.socket) -> None:
            shake_hands(connection, b"REP")
            while True:
                parts = [read_frame(connection)]
                while parts[-1][0] & 1:
                    parts.append(read_frame(connection))
                reply = answer(parts[-1][1].decode())
                if reply is not None:
                    connection.sendall(frame(b"", 1) + frame(reply.encode()))

        super().__init__(talk)


class Streaming(Server):
    """A PAIR socket that sends messages to whoever is connected."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._connection: socket.socket | None = None
        super().__init__(self._join)

    def _join(self, connection: socket.socket) -> None:
        shake_hands(connection, b"PAIR")
        self._connection = connection
        self._there.set()
        while connection.recv(4096):
            pass

    def send(self, message: bytes) -> None:
        assert self._there.wait(DEADLINE_S)
        assert self._connection is not None
        self._connection.sendall(frame(message))


class TimeController:
    """A time controller and its data link; tags are sent by hand through `streams[1]` to `streams[4]`."""

    def __init__(self, nested_status: bool = False) -> None:
        self.told: list[str] = []  # everything, in order
        self.values: dict[str, str] = {"*IDN": "IDQuantique,ID900,1234,3.1", "DEVI:RES:BWID": "100TB"}
        self.values |= {f"RAW{n}:ERRORS": "0" for n in range(1, 5)} | {f"INPU{n}:COUN": f"{n}000" for n in range(1, 5)}
        self.errors: list[dict[str, str]] = []
        self.running: list[str] = []
        self.nested_status = nested_status
        self.streams = {n: Streaming() for n in range(1, 5)}
        self.control, self.data_link = Answering(self._obey), Answering(self._link)

    @property
    def settings(self) -> dict[str, object]:
        ports = [stream.port for stream in self.streams.values()]
        return {"dlt_address": self.data_link.address, "stream_ports": ports, "timeout_s": 2.0}

    def close(self) -> None:
        for server in (self.control, self.data_link, *self.streams.values()):
            server.close()

    def _obey(self, command: str) -> str | None:
        self.told.append(command)
        if command.endswith("?"):
            return self.values.get(command[:-1], "")
        path, _, value = command.partition(" ")
        if path == "REC:PLAY":
            self.values["REC:STAG"] = "PLAYING"
        elif re.fullmatch(r"RAW\d:ERRORS:CLEAR", path):
            self.values[path.removesuffix(":CLEAR")] = "0"
        else:
            self.values.setdefault(path, value)
            self.values[path] = f"{value}TB" if path in ("REC:PPER", "REC:PWID") else value
        return ""

    def _link(self, command: str) -> str | None:
        self.told.append(command)
        words = command.split()
        if words[0] == "list":
            return json.dumps(self.running)
        if words[0] == "start-stream":
            name = f"{words[2]}:{5555 + int(words[4])}"
            self.running.append(name)
            return json.dumps({"id": name})
        if words[0] == "stop" and words[2] not in self.running:
            return json.dumps({"error": {"description": "no such id"}})
        if words[0] == "stop":
            self.running.remove(words[2])
        status = {"acquisitions_count": 1, "errors": self.errors, "inactivity": 0.1, "timestamps_count": 0}
        return json.dumps({"status": status} if self.nested_status else status)
