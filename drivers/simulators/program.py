"""What every simulator program shares: its command line, its loop, its ports and its injected faults.

A simulator is an instrument seen from the other end of its wire, as a program of its own. It prints one JSON
line with its address when it is ready, and lives until it is told to end or, when supervised, until its
parent is gone. What is physical runs on world time (see `groundstation.clock`).
"""

import argparse
import atexit
import contextlib
import errno
import heapq
import ipaddress
import json
import os
import pty
import selectors
import signal
import socket
import sys
import tty
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from groundstation.clock import NS_PER_S, Clock, clock_from_text, monotonic_s
from groundstation.errors import BadInput, GroundStationError
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.parameters import WorldParameters
from groundstation.tables import record

_CHUNK_GAP_S = 0.005  # between the parts of a split reply, world time
_CHUNKS = 3
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose on a serial line; spans are world time.

    `mute_after_s`: no reply any more so long after the start. `wrong_model`: another model answers.
    `reply_delay_s`: added to every reply. `drop_reply_every`: every n-th reply is lost. `split_replies`:
    replies arrive in parts.
    """

    mute_after_s: float | None = None
    wrong_model: bool = False
    reply_delay_s: float = 0.0
    drop_reply_every: int = 0
    split_replies: bool = False


@dataclass(frozen=True)
class World:
    """What a simulator is started with."""

    clock: Clock
    parameters: WorldParameters
    board: Blackboard
    faults: Faults


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of every simulator; add the instrument's own ones to what is returned."""
    parser = _Parser(description=description)
    parser.add_argument("--clock", metavar="TEXT", default="system", help='"system" or "t0_ns:m0_ns:speed"')
    parser.add_argument("--settings", metavar="FILE", type=Path, help="JSON of the world's parameters")
    parser.add_argument("--world", metavar="FILE", type=Path, help="the blackboard shared by all simulators")
    parser.add_argument("--supervised", action="store_true", help="end some time after stdin is closed")
    parser.add_argument("--linger", metavar="S", type=float, default=5.0, help="that time (default 5 s)")
    parser.add_argument("--address", metavar="ADDR", help="serial:PATH or tcp://127.0.0.1:PORT (0 = any)")
    parser.add_argument("--faults", metavar="JSON", default="{}", help="faults to inject, a JSON object")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with our way to complain: one sentence."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"the command line cannot be used: {message}; see --help")


def world_of(options: argparse.Namespace) -> World:
    """Read what the shared options point to. Raises BadInput."""
    parameters = WorldParameters()
    if options.settings is not None:
        parameters = record(WorldParameters, _json_object(_text_of(options.settings), str(options.settings)), "world")
    faults = record(Faults, _json_object(options.faults, "--faults"), "faults")
    board = Blackboard.alone(parameters.detectors.dark_hz)
    if options.world is not None:
        try:
            board = Blackboard.open(options.world)
        except (OSError, ValueError) as error:
            raise BadInput(f"the world's file {options.world} cannot be attached: {error}") from error
    return World(clock_from_text(options.clock), parameters, board, faults)


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _json_object(text: str, where: str) -> Mapping[str, object]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be a JSON object, not {value!r}")
    return value


def run_program(main: Callable[[], None]) -> NoReturn:
    """Run a simulator: the first signal ends it quietly, an error of ours becomes one sentence and exit code 2."""
    for number in _ENDING:
        signal.signal(number, _end)
    code = 0
    try:
        main()
    except GroundStationError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    _ignore_signals()
    sys.exit(code)


def _end(_number: int, _frame: object) -> NoReturn:
    _ignore_signals()
    sys.exit(0)


def _ignore_signals() -> None:
    """The end has begun: one more signal would raise in the middle of it, or while the interpreter shuts down."""
    for number in _ENDING:
        # Two steps, for Python complains of a signal that came before it is ignored and whose handler is gone.
        signal.signal(number, lambda *_: None)
        signal.signal(number, signal.SIG_IGN)


def announce(**what: object) -> None:
    """Say on stdout, in one JSON line, that the instrument can be reached."""
    sys.stdout.write(json.dumps({"ready": True, **what}) + "\n")
    sys.stdout.flush()


class Loop:
    """One thread that waits for bytes and for moments; the callbacks must not block."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        # select(2) waits to the microsecond; epoll rounds up to 1 ms, 20 ms in a world 20 times faster.
        self._selector = selectors.SelectSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timers_made = 0
        self._running = True

    def watch(self, fd: int, readable: Callable[[], None] | None, writable: Callable[[], None] | None = None) -> None:
        """Call back when `fd` can be read or written; replaces what was asked before, nothing forgets it."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        events = (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if writable else 0)
        if events:
            self._selector.register(fd, events, (readable, writable))

    def at(self, utc_ns: int, callback: Callable[[], None]) -> None:
        """Call back at a moment of world time; at once when it is past."""
        self.after_wall_s((utc_ns - self.clock.utc_ns()) / NS_PER_S / self.clock.speed, callback)

    def after_wall_s(self, wall_s: float, callback: Callable[[], None]) -> None:
        """Call back after a span of wall time."""
        self._timers_made += 1
        heapq.heappush(self._timers, (monotonic_s() + wall_s, self._timers_made, callback))

    def supervise(self, options: argparse.Namespace) -> None:
        """With --supervised: end so many wall seconds after the parent has gone, time for a guard to act."""
        if not options.supervised:
            return
        # An operator's Ctrl-C reaches the whole process group; the parent needs its instruments to park.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def parent_spoke() -> None:
            if not os.read(0, 4096):
                self.watch(0, None)
                self.after_wall_s(options.linger, self.stop)

        self.watch(0, parent_spoke)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until `stop`."""
        while self._running:
            wait_s = max(0.0, self._timers[0][0] - monotonic_s()) if self._timers else None
            for key, events in self._selector.select(wait_s):
                readable, writable = key.data
                if events & selectors.EVENT_WRITE and self._wants(key):
                    writable()
                if events & selectors.EVENT_READ and self._wants(key):
                    readable()
            while self._timers and self._timers[0][0] <= monotonic_s():
                heapq.heappop(self._timers)[2]()

    def _wants(self, key: selectors.SelectorKey) -> bool:
        """False once an earlier callback of the same round has changed or closed the file."""
        return self._selector.get_map().get(key.fd) == key


class SerialLine:
    """The instrument's end of a serial line (a pseudo-terminal), with the faults on its replies."""

    def __init__(self, loop: Loop, faults: Faults, receive: Callable[["SerialLine", bytes], None]) -> None:
        self._loop, self._faults, self._receive = loop, faults, receive
        self._master, self._slave = open_pty()  # the slave stays open, else the client's close would be an error
        self.path = os.ttyname(self._slave)
        self.address = f"serial:{self.path}"
        self._started_ns = loop.clock.utc_ns()
        self._replies = 0
        self._waiting: deque[tuple[int, bytes | Callable[[], bytes]]] = deque()
        loop.watch(self._master, self._readable)

    def reply(self, reply: bytes | Callable[[], bytes], latency_s: float) -> None:
        """Send a reply (made only then, when it is a function) after a span of world time, in order."""
        self._replies += 1
        every = self._faults.drop_reply_every
        if every and self._replies % every == 0:
            return
        due_ns = self._loop.clock.utc_ns() + round((latency_s + self._faults.reply_delay_s) * NS_PER_S)
        self._waiting.append((due_ns, reply))
        if len(self._waiting) == 1:
            self._loop.at(due_ns, self._send_first)

    def _send_first(self) -> None:
        due_ns, reply = self._waiting[0]
        data = reply() if callable(reply) else reply
        mute_after_s = self._faults.mute_after_s
        if mute_after_s is not None and due_ns - self._started_ns >= mute_after_s * NS_PER_S:
            data = b""
        size = -(-len(data) // _CHUNKS) if self._faults.split_replies else len(data)
        self._send_parts([data[i : i + size] for i in range(0, len(data), max(size, 1))])

    def _send_parts(self, parts: list[bytes]) -> None:
        if parts:
            self._write(parts[0])
        if len(parts) > 1:
            gap_ns = round(_CHUNK_GAP_S * NS_PER_S)
            self._loop.at(self._loop.clock.utc_ns() + gap_ns, lambda: self._send_parts(parts[1:]))
            return
        self._waiting.popleft()
        if self._waiting:
            self._loop.at(self._waiting[0][0], self._send_first)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads: a serial line loses the bytes
            os.write(self._master, data)

    def _readable(self) -> None:
        self._receive(self, os.read(self._master, 4096))


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
    """The path in `serial:PATH`; None when no address was given. Raises BadInput."""
    if address is None:
        return None
    if not address.startswith("serial:") or address == "serial:":
        raise BadInput(f'address "{address}" is not of the form serial:PATH, which this instrument needs')
    return Path(address.removeprefix("serial:"))


def listen(address: str | None) -> socket.socket:
    """A listening socket on `tcp://host:port`, loopback only; port 0 or no address takes a free port.

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
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    if not address.startswith("tcp://") or not host or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f'address "{address}" is not of the form tcp://127.0.0.1:PORT')
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise BadInput(f'address "{address}" is not on the loopback interface; simulators serve 127.0.0.1 only')
    return host, int(port)
