"""The carriers of a byte link: each opens one kind of address and may fail with whatever its library raises."""

import contextlib
import select
import socket
from typing import Any, Protocol

from drivers.transport.wire_log import Replay

_RECEIVE_BYTES = 1 << 20


class Port(Protocol):
    """What a carrier must do. Any exception out of it means that the link is gone."""

    def receive(self, wait_s: float) -> bytes:
        """What is there, or what comes first within `wait_s`; b"" when nothing came."""

    def send(self, data: memoryview, wait_s: float) -> int:
        """Send a part of `data` and tell how much; 0 when nothing could be sent within `wait_s`."""

    def close(self) -> None: ...


class SerialPort:
    """pyserial opens and sets up the line; modem lines stay untouched (a pseudo-terminal has none)."""

    def __init__(self, path: str, baud: int) -> None:
        import serial  # here, so that a replay or a station without serial lines never loads it

        self._serial: Any = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)

    def receive(self, wait_s: float) -> bytes:
        readable, _, _ = select.select([self._serial.fileno()], [], [], wait_s)
        if not readable:
            return b""
        waiting = self._serial.in_waiting
        data: bytes = self._serial.read(max(1, waiting))  # ready but empty raises: unplugged
        return data

    def send(self, data: memoryview, wait_s: float) -> int:
        _, writable, _ = select.select([], [self._serial.fileno()], [], wait_s)
        return int(self._serial.write(data[:4096])) if writable else 0

    def close(self) -> None:
        self._serial.close()


class TcpPort:
    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._notice_pulled_cables()
        self._socket.setblocking(False)

    def _notice_pulled_cables(self) -> None:
        """Ask a far end that says nothing every 2 s whether it is there; give up after four questions in vain."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", 2),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", 10_000),
        ):
            if hasattr(socket, option):  # Linux has all of them
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def receive(self, wait_s: float) -> bytes:
        readable, _, _ = select.select([self._socket], [], [], wait_s)
        if not readable:
            return b""
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the far end closed it")
        return data

    def send(self, data: memoryview, wait_s: float) -> int:
        _, writable, _ = select.select([], [self._socket], [], wait_s)
        return self._socket.send(data) if writable else 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a reader in another thread
        self._socket.close()


class VisaPort:
    """pyvisa drops what it has read so far when it times out, so this asks for one byte at a time."""

    def __init__(self, resource: str, timeout_s: float, baud: int) -> None:
        import pyvisa

        self._timed_out = pyvisa.constants.StatusCode.error_timeout
        self._visa_error = pyvisa.errors.VisaIOError
        self._manager: Any = pyvisa.ResourceManager("@py")
        self._resource: Any = None  # its class, and so its attributes, depend on the resource
        self._resource = self._manager.open_resource(resource, open_timeout=round(timeout_s * 1000))
        self._resource.read_termination = None
        if resource.upper().startswith("ASRL"):
            self._resource.baud_rate = baud

    def receive(self, wait_s: float) -> bytes:
        self._resource.timeout = max(1, round(wait_s * 1000))  # 0 would mean "for ever" to some sessions
        try:
            data: bytes = self._resource.read_bytes(1)
        except self._visa_error as error:
            if error.error_code == self._timed_out:
                return b""
            raise
        return data

    def send(self, data: memoryview, wait_s: float) -> int:
        return int(self._resource.write_raw(bytes(data)))

    def close(self) -> None:
        self._resource.close()
        self._manager.close()


class ReplayPort:
    """A wire log in the place of the instrument. Closing keeps the place in it, so a link may be made again."""

    def __init__(self, replay: Replay, hangs_up: bool = False) -> None:
        """`hangs_up`: the far end closes after each answer, which no log shows."""
        self._replay, self._hangs_up = replay, hangs_up
        self._answered = False

    def receive(self, wait_s: float) -> bytes:
        if self._hangs_up and self._answered and self._replay.waits:
            raise ConnectionError("the far end closed it")
        data = self._replay.receive(wait_s)
        self._answered = data is not None
        return data or b""

    def send(self, data: memoryview, wait_s: float) -> int:
        self._replay.send(bytes(data))
        return len(data)

    def close(self) -> None:
        pass
