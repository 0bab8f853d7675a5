"""The instrument's end of its wire: pseudo-terminals and loopback sockets, with the faults on what it answers."""

import argparse
import atexit
import contextlib
import errno
import ipaddress
import os
import pty
import socket
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path

from drivers.simulators.faults import Faults, Spoiler
from drivers.simulators.program import Loop
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput

_CHUNK_GAP_S = 0.005  # between the parts of a split reply, world time
_READ_BYTES = 65536
_HELD_BYTES = 64 << 20  # for a reader that is slow; what comes on top is lost

Receiver = Callable[["Line", bytes], None]
"""What an instrument does with the bytes that arrive on a line."""


class Line:
    """One line to one reader: replies go out in order, each after its latency and through the faults."""

    def __init__(self, loop: Loop, faults: Faults, receive: Receiver, fd: int) -> None:
        """`fd` does not block; whoever made it also closes it, in `_close`."""
        self._loop, self._faults, self._receive, self._fd = loop, faults, receive, fd
        self.unsolicited: Callable[[], bytes] = bytes
        """What the instrument may say unasked; set by instruments that do."""
        self._spoiler = Spoiler(faults, lambda: self.unsolicited())
        self._started_ns = loop.clock.utc_ns()
        self._waiting: deque[tuple[int, bytes | Callable[[], bytes]]] = deque()
        self._open = True
        self._backlog = bytearray()
        loop.watch(fd, self._readable)

    @property
    def is_open(self) -> bool:
        """False once either end has hung up."""
        return self._open

    def reply(self, reply: bytes | Callable[[], bytes], latency_s: float) -> None:
        """Send a reply (made only then, when it is a function) after a span of world time, in order."""
        delay_s = self._spoiler.delay_s()
        if delay_s is None:
            return
        due_ns = self._loop.clock.utc_ns() + round((latency_s + delay_s) * NS_PER_S)
        self._waiting.append((due_ns, reply))
        if len(self._waiting) == 1:
            self._loop.at(due_ns, self._send_first)

    def send(self, data: bytes) -> None:
        """Say something unasked, now and untouched by the faults."""
        if self._open:
            self._write(data)

    def pour(self, data: bytes, most_bytes: int) -> bool:
        """Stream `data` as fast as the reader takes it, untouched by the faults, and hold what it has not taken.

        False, and nothing is sent, when `most_bytes` would be held, or the line is closed.
        """
        if not self._open or len(self._backlog) + len(data) > most_bytes:
            return False
        self._backlog += data
        self._flush()
        return self._open

    def stop_pouring(self) -> None:
        """Forget what is held."""
        self._backlog.clear()

    def hang_up(self) -> None:
        """Close the line. Idempotent."""
        if self._open:
            self._open = False
            self._loop.watch(self._fd, None)
            self._waiting.clear()
            self._backlog.clear()
            self._close()

    def _send_first(self) -> None:
        if not self._waiting:
            return
        due_ns, reply = self._waiting[0]
        data = reply() if callable(reply) else reply
        spoiled = self._spoiler.spoil(data, (due_ns - self._started_ns) / NS_PER_S)
        self._send_parts(list(spoiled.parts), spoiled.hang_up)

    def _send_parts(self, parts: list[bytes], hang_up: bool) -> None:
        if not self._open:
            return
        if parts:
            self._write(parts[0])
        if len(parts) > 1:
            gap_ns = round(_CHUNK_GAP_S * NS_PER_S)
            self._loop.at(self._loop.clock.utc_ns() + gap_ns, lambda: self._send_parts(parts[1:], hang_up))
            return
        if hang_up:
            self.hang_up()
        elif self._open:
            self._waiting.popleft()
            if self._waiting:
                self._loop.at(self._waiting[0][0], self._send_first)

    def _flush(self) -> None:
        try:
            del self._backlog[: os.write(self._fd, self._backlog)]
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up()
        if self._open:
            self._loop.watch(self._fd, self._readable, self._flush if self._backlog else None)

    def _write(self, data: bytes) -> None:
        held = len(self._backlog)
        if held + len(data) <= _HELD_BYTES:
            self._backlog += data
        if not held:  # else this waits for what is held before it
            self._flush()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            return
        if self._faults.echo:
            self._write(data)
        self._receive(self, data)

    def _close(self) -> None:
        raise NotImplementedError


class SerialLine(Line):
    """A serial line: a pseudo-terminal."""

    def __init__(self, loop: Loop, faults: Faults, receive: Receiver) -> None:
        self._master, self._slave = open_pty()  # the slave stays open, else the client's close would be an error
        self.path = os.ttyname(self._slave)
        self.address = f"serial:{self.path}"
        super().__init__(loop, faults, receive, self._master)

    def _close(self) -> None:
        os.close(self._slave)
        os.close(self._master)


class TcpLine(Line):
    """One client's TCP connection."""

    def __init__(self, loop: Loop, faults: Faults, receive: Receiver, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        super().__init__(loop, faults, receive, client.fileno())

    def _close(self) -> None:
        self._client.close()


def serve_lines(
    loop: Loop,
    faults: Faults,
    options: argparse.Namespace,
    receiver: Callable[[], Receiver],
    over_tcp: bool = False,
    joined: Callable[[Line], None] = lambda line: None,
) -> str:
    """Serve an instrument where the options say, and tell its address.

    On `--address serial://PATH` or `--pty` a pseudo-terminal, on `--address tcp://...` one line for each client that
    connects; `over_tcp`: what it is without either. `receiver` makes what receives the bytes of one new line, so each
    has a buffer of its own; `joined` is called with each new line. Raises BadInput.
    """
    if not options.pty and (options.address.startswith("tcp:") if options.address else over_tcp):
        server = listen(options.address)

        def accept() -> None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client, _ = server.accept()
                joined(TcpLine(loop, faults, receiver(), client))

        loop.watch(server.fileno(), accept)
        return tcp_address_of(server)
    line = SerialLine(loop, faults, receiver())
    path = None if options.pty else serial_path(options.address)
    if path is not None:
        name_line(line, path)
    joined(line)
    return line.address


def serve_with_guard(
    loop: Loop, faults: Faults, options: argparse.Namespace, receiver: Callable[[], Receiver], over_tcp: bool = False
) -> tuple[str, str]:
    """The same, and the address for the station's guard: a second serial line (PATH.guard), or the same TCP port."""
    address = serve_lines(loop, faults, options, receiver, over_tcp)
    if address.startswith("tcp:"):
        return address, address
    guard = SerialLine(loop, faults, receiver())
    if not options.pty and (path := serial_path(options.address)):
        name_line(guard, path.with_name(path.name + ".guard"))
    return address, guard.address


def open_pty() -> tuple[int, int]:
    """Both ends (instrument, client) of a raw pseudo-terminal; the instrument's end does not block."""
    master, slave = pty.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave


def name_line(line: SerialLine, path: Path) -> None:
    """Give the line a fixed name (a symbolic link) until the program ends. Raises BadInput if it is taken."""
    if path.is_symlink() and not path.exists():
        path.unlink()  # left behind by a program that was killed
    try:
        path.symlink_to(line.path)
    except OSError as error:
        raise BadInput(f"the serial port {path} cannot be made: {error.strerror}; choose another --address") from error
    line.address = f"serial:{path}"
    atexit.register(path.unlink, missing_ok=True)


def serial_path(address: str | None) -> Path | None:
    """The path in `serial://PATH` or `serial:PATH`; None when no address was given. Raises BadInput."""
    if address is None:
        return None
    scheme, _, rest = address.partition(":")
    path = rest.removeprefix("//")
    if scheme != "serial" or not path:
        raise BadInput(f'address "{address}" is not of the form serial://PATH, which this instrument needs')
    return Path(path)


def listen(address: str | None) -> socket.socket:
    """A listening socket on `tcp://host:port` (or http:, zmq:), loopback only; port 0 or no address: any free port.

    Raises BadInput when the address is not of that form, not on the loopback interface, or in use.
    """
    host, port = _tcp_address(address or "tcp://127.0.0.1:0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen()
    except OSError as error:
        server.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise BadInput(f"port {port} on {host} {why}; give another --address or port 0 for any") from error
    server.setblocking(False)
    return server


def tcp_address_of(server: socket.socket) -> str:
    """The address of a listening socket as `tcp://host:port`."""
    host, port = server.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _tcp_address(address: str) -> tuple[str, int]:
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    if scheme not in ("tcp", "http", "zmq") or not host or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f'address "{address}" is not of the form tcp://127.0.0.1:PORT')
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise BadInput(f'address "{address}" is not on the loopback interface; simulators serve 127.0.0.1 only')
    return host, int(port)
