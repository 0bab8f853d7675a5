"""What every simulator program shares: its command line and its loop.

A simulator is an instrument seen from the other end of its wire, as a program of its own. It prints one JSON
line with its address when it is ready, and lives until it is told to end or, when supervised, until its
parent is gone. What is physical runs on world time (see `groundstation.clock`).
"""

import argparse
import heapq
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from drivers.simulators.faults import Faults
from groundstation.clock import NS_PER_S, Clock, clock_from_text, monotonic_s
from groundstation.errors import BadInput, GroundStationError
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.parameters import WorldParameters
from groundstation.tables import record

_ENDING = (signal.SIGTERM, signal.SIGINT)


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
    parser.add_argument("--address", metavar="ADDR", help="serial://PATH or tcp://127.0.0.1:PORT (0 = any)")
    parser.add_argument("--pty", action="store_true", help="serve a pseudo-terminal of any name")
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
        """Until `stop`, or until a signal ends the program: between two callbacks, never within one.

        A block of light would else be sent and its truth not told.
        """
        ours = [number for number in _ENDING if signal.getsignal(number) is _end]
        if not ours:
            self._turn()
            return
        waker, woken = socket.socketpair()
        with waker, woken:
            waker.setblocking(False)
            self.watch(woken.fileno(), self.stop)
            signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
            try:
                for number in ours:
                    signal.signal(number, lambda *_: None)
                self._turn()
            finally:
                signal.set_wakeup_fd(-1)
                self.watch(woken.fileno(), None)

    def _turn(self) -> None:
        while self._running:
            wait_s = max(0.0, self._timers[0][0] - monotonic_s()) if self._timers else None
            for key, events in self._selector.select(wait_s):
                readable, writable = key.data
                if events & selectors.EVENT_WRITE and self._wants(key):
                    writable()
                if events & selectors.EVENT_READ and self._wants(key):
                    readable()
            # What becomes due meanwhile waits: a world that runs too fast must not keep the program from its wires.
            now_s, due = monotonic_s(), []
            while self._timers and self._timers[0][0] <= now_s:
                due.append(heapq.heappop(self._timers)[2])
            for callback in due:
                callback()

    def _wants(self, key: selectors.SelectorKey) -> bool:
        """False once an earlier callback of the same round has changed or closed the file."""
        return self._selector.get_map().get(key.fd) == key
