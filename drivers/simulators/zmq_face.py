"""The ZeroMQ side of a simulated instrument, in the simulators' loop: questions with answers, and one-way streams.

By libzmq, so pyzmq is needed (`pip install 'groundstation[zmq]'`). The faults of the wire act on whole answers: delay,
late, mute, drop, a byte dropped or doubled, and hang-up (the far end is gone for a moment, then listens again). A
message cannot arrive in parts, and a REQ socket hears nothing unasked, so those faults change nothing here.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import zmq

from drivers.simulators.faults import Faults, Spoiler
from drivers.simulators.program import Loop
from drivers.simulators.wire import listen, tcp_address_of
from groundstation.clock import NS_PER_S

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

_TRY_AGAIN_S = 0.02  # wall time until a port that was just given up is tried again
_HANG_UP_AFTER_S = 0.05  # wall time for the last answer to leave
_LINGER_MS = 1000
_PIPE_MESSAGES = 2  # in libzmq's hands; the others wait in ours, where they are counted


class Answerer:
    """Answers the questions of any number of REQ sockets; a ROUTER, for a REP could not leave one unanswered."""

    def __init__(
        self,
        context: Context,
        loop: Loop,
        faults: Faults,
        address: str | None,
        answer: Callable[[str], str],
        latency_s: float,
    ) -> None:
        """`address`: None is any free port of the loopback interface; `latency_s` is world time. Raises BadInput."""
        self._context, self._loop, self._faults = context, loop, faults
        self._answer, self._latency_s = answer, latency_s
        self._spoiler = Spoiler(faults, bytes)
        self._started_ns = loop.clock.utc_ns()
        self._endpoint = free_endpoint(address)
        self._socket: zmq.Socket[bytes] | None = None
        self._listen()

    @property
    def address(self) -> str:
        return self._endpoint.replace("tcp:", "zmq:")

    def close(self) -> None:
        """Hang up on everybody. Idempotent."""
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), None)
            self._socket.close(linger=0)
            self._socket = None

    def _listen(self) -> None:
        bound = self._context.socket(zmq.ROUTER)
        try:
            bound.bind(self._endpoint)
        except zmq.ZMQError:  # libzmq has not yet closed the one before
            bound.close(linger=0)
            self._loop.after_wall_s(_TRY_AGAIN_S, self._listen)
            return
        self._socket = bound
        self._loop.watch(bound.fileno(), self._take)

    def _take(self) -> None:
        """All questions there are: the file descriptor tells of changes only."""
        while self._socket is not None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            *envelope, question = self._socket.recv_multipart()
            delay_s = self._spoiler.delay_s()
            answer = self._answer(question.decode("utf-8", "replace")).encode()
            if delay_s is not None:
                due_ns = self._loop.clock.utc_ns() + round((self._latency_s + delay_s) * NS_PER_S)
                self._loop.at(due_ns, partial(self._send, envelope, answer))

    def _send(self, envelope: Sequence[bytes], answer: bytes) -> None:
        since_s = (self._loop.clock.utc_ns() - self._started_ns) / NS_PER_S
        mute_s = self._faults.mute_after_s
        if self._socket is None or (mute_s is not None and since_s >= mute_s):
            return
        spoiled = self._spoiler.spoil(answer, since_s)
        self._socket.send_multipart([*envelope, b"".join(spoiled.parts)])
        if spoiled.hang_up:
            self._loop.after_wall_s(_HANG_UP_AFTER_S, self._hang_up)
        self._take()  # to send may have used up the descriptor's sign of a new question

    def _hang_up(self) -> None:
        self.close()
        self._listen()


class Outlet:
    """A PAIR that listens for one reader from `start` to `stop`; messages wait for it, up to `most_bytes`."""

    def __init__(self, context: Context, loop: Loop, endpoint: str, most_bytes: int) -> None:
        """`endpoint`: see `free_endpoint`."""
        self._context, self._loop, self._endpoint, self._most_bytes = context, loop, endpoint, most_bytes
        self._waiting: deque[bytes] = deque()
        self._socket: zmq.Socket[bytes] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin anew: nobody is connected and nothing waits."""
        self.close()
        self._waiting.clear()
        self._stopping = False
        self._listen()

    def send(self, message: bytes) -> bool:
        """False when it is lost because nobody has read for long."""
        if sum(map(len, self._waiting)) + len(message) > self._most_bytes:
            return False
        self._waiting.append(message)
        self._flush()
        return True

    def stop(self) -> None:
        """Hang up once the reader has everything."""
        self._stopping = True
        self._flush()

    def close(self, linger_ms: int = 0) -> None:
        """Hang up. Idempotent."""
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), None)
            self._socket.close(linger=linger_ms)
            self._socket = None

    def _listen(self) -> None:
        bound = self._context.socket(zmq.PAIR)
        bound.set_hwm(_PIPE_MESSAGES)
        try:
            bound.bind(self._endpoint)
        except zmq.ZMQError:  # libzmq has not yet closed the one before
            bound.close(linger=0)
            self._loop.after_wall_s(_TRY_AGAIN_S, self._listen)
            return
        self._socket = bound
        self._loop.watch(bound.fileno(), self._flush)

    def _flush(self) -> None:
        # The events are asked for first: that also takes the sign out of the file descriptor.
        while self._socket is not None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
            if not self._waiting:
                if self._stopping:
                    self.close(_LINGER_MS)
                return
            try:
                self._socket.send(self._waiting[0], zmq.NOBLOCK)
            except zmq.Again:  # the reader went just now
                return
            self._waiting.popleft()


def reserved_port() -> tuple[int, socket.socket]:
    """A port of the loopback interface that others do not get while the socket is open, but an `Outlet` does."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return int(holder.getsockname()[1]), holder


def free_endpoint(address: str | None) -> str:
    """`tcp://host:port` for libzmq, of an address on the loopback interface whose port is free. Raises BadInput."""
    server = listen(address)
    try:
        return tcp_address_of(server)
    finally:
        server.close()
