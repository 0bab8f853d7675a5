"""A scripted instrument behind a real pseudo-terminal or loopback socket, for the tests of drivers.

The script is a list of steps in order: `Expect` bytes from the driver, then `Reply` bytes to it. It fails on
any other byte, and at its end on every step that was not used.
"""

import contextlib
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from groundstation.clock import monotonic_s, sleep_wall_s

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Expect:
    """Bytes that the driver must send next. `any_echo`: `K` and any one byte, kept for `Echo`."""

    data: bytes = b""
    any_echo: bool = False


@dataclass(frozen=True)
class Reply:
    """Bytes sent back, in pieces `pause_s` apart (a split reply)."""

    pieces: tuple[bytes, ...]
    pause_s: float = 0.0


@dataclass(frozen=True)
class Echo:
    """Answer the last echo request, after the bytes of `before`."""

    before: bytes = b""


@dataclass(frozen=True)
class Wait:
    """Do nothing until the test sets the event: silence that ends when the test wants it to."""

    event: threading.Event


@dataclass(frozen=True)
class HangUp:
    """Close the line."""


Step = Expect | Reply | Echo | Wait | HangUp


def reply(*pieces: bytes, pause_s: float = 0.0) -> Reply:
    return Reply(pieces, pause_s)


class Line(Protocol):
    def receive(self) -> bytes: ...
    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


@dataclass
class Script:
    """Plays the steps on a line; `failures` says what went wrong."""

    steps: list[Step]
    failures: list[str] = field(default_factory=list)
    done: int = 0

    def play(self, line: Line) -> None:
        received, echo = b"", 0
        deadline = monotonic_s() + DEADLINE_S
        for step in self.steps:
            if isinstance(step, Expect):
                wanted = 2 if step.any_echo else len(step.data)
                while len(received) < wanted:
                    if monotonic_s() > deadline:
                        self.failures.append(f"waited in vain for {step}, got {received!r}")
                        return
                    received += line.receive()
                got, received = received[:wanted], received[wanted:]
                if step.any_echo and got[:1] == b"K":
                    echo = got[1]
                elif got != step.data:
                    self.failures.append(f"expected {step.data!r}, got {got + received!r}")
                    return
            elif isinstance(step, Reply):
                for index, piece in enumerate(step.pieces):
                    if index:
                        sleep_wall_s(step.pause_s)
                    line.send(piece)
            elif isinstance(step, Echo):
                line.send(step.before + bytes((echo, ord("#"))))
            elif isinstance(step, Wait):
                step.event.wait(DEADLINE_S)
            else:
                line.close()
            self.done += 1
        extra = received + line.receive()
        if extra:
            self.failures.append(f"the driver sent {extra!r} after the end of the script")


class PtyLine:
    """The instrument's end of a pseudo-terminal; `path` is the driver's."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        tty.setraw(slave)
        self._slave: int | None = slave
        self.path = os.ttyname(slave)

    def receive(self) -> bytes:
        if self._slave is None or not select.select([self.master], [], [], 0.02)[0]:
            return b""
        return os.read(self.master, 4096)

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def close(self) -> None:
        if self._slave is not None:
            os.close(self._slave)
            os.close(self.master)
            self._slave = None


class SocketLine:
    """The instrument's end of one loopback connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(0.02)

    def receive(self) -> bytes:
        try:
            return self.connection.recv(1 << 20)
        except (TimeoutError, OSError):
            return b""

    def send(self, data: bytes) -> None:
        before_s = self.connection.gettimeout()
        self.connection.settimeout(DEADLINE_S)
        with contextlib.suppress(OSError):  # the driver may have hung up on us, which the test then checks
            self.connection.sendall(data)
        self.connection.settimeout(before_s)

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def scripted_pty(*steps: Step) -> Iterator[str]:
    """The address of a serial line whose far end plays `steps`; fails at the end if some were not played."""
    line, script = PtyLine(), Script(list(steps))
    thread = threading.Thread(target=script.play, args=(line,), daemon=True)
    thread.start()
    try:
        yield f"serial:{line.path}"
    finally:
        thread.join(DEADLINE_S)
        line.close()
    assert not script.failures, script.failures
    assert script.done == len(steps), f"unused: {steps[script.done :]}"


@contextlib.contextmanager
def serving(*talks: Callable[[SocketLine], None]) -> Iterator[str]:
    """The address of a loopback server that holds one talk per connection, one after the other."""
    failures: list[BaseException] = []
    lines: list[SocketLine] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)

        def serve() -> None:
            try:
                for talk in talks:
                    line = SocketLine(server.accept()[0])
                    lines.append(line)
                    talk(line)
            except BaseException as error:  # shown by the test below, not lost in the thread
                failures.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(DEADLINE_S)
            for line in lines:
                line.close()
    if failures:
        raise failures[0]
    assert not thread.is_alive(), "the far end is still waiting for the driver"
