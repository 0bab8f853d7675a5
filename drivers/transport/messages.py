"""Messages to and from an instrument over ZeroMQ: questions with their answers (REQ), or a stream (PAIR).

ZeroMQ connects by itself whenever it can, so a dead far end shows as silence only. A question without an answer
costs its socket: a new one cannot get the late answer to an old question.
"""

import threading
from pathlib import Path
from typing import Any, Literal

from drivers.transport.addresses import host_and_port, replay_path
from drivers.transport.wire_log import Direction, Replay, WireLog
from groundstation.errors import BadInput, TransportLost, TransportTimeout

_HELD_MESSAGES = 64  # of a stream, until they are read; the sender waits then


class MessageLink:
    """One ZeroMQ socket. Safe for several threads; a call waits for the one before it."""

    def __init__(self, address: str, kind: Literal["req", "pair"], timeout_s: float, log: Path | None = None) -> None:
        """Raises BadInput for an address that is neither zmq:// nor wirelog://, or without pyzmq."""
        self.address, self.timeout_s = address, timeout_s
        self._kind = kind
        self._lock = threading.RLock()
        self._closed = threading.Event()
        path = replay_path(address)
        self._replay = Replay(path) if path else None
        self._socket: Any = None
        if self._replay is None:
            host, port = host_and_port(address, "zmq")
            self._endpoint = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
            self._zmq = _pyzmq()
        self._log = WireLog(log, address) if log else None
        if self._replay is None:
            self._context: Any = self._zmq.Context()
            try:
                self._connect()
            except BaseException:
                self.close()
                raise

    def query(self, question: bytes, timeout_s: float | None = None) -> bytes:
        """The answer to a question (REQ). Raises TransportTimeout and TransportLost."""
        with self._lock:
            self._check_open()
            self._record("out", question)
            self._send(question)
            answer = self._receive(self.timeout_s if timeout_s is None else timeout_s)
            if answer is None:
                if self._replay is None:
                    self._connect()
                raise TransportTimeout(f"{self.address} did not answer in time; check that the instrument is on")
            self._record("in", answer)
            return answer

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message of a stream (PAIR), None when none came within `timeout_s`. Raises TransportLost."""
        with self._lock:
            self._check_open()
            message = self._receive(timeout_s)
            if message is not None:
                self._record("in", message)
            return message

    def close(self) -> None:
        """Idempotent; a call in another thread ends within its timeout."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._lock:
            if self._replay is None:
                self._socket.close(0)
                self._context.term()
            if self._log:
                self._log.close()

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
        self._socket = self._context.socket(self._zmq.REQ if self._kind == "req" else self._zmq.PAIR)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.RCVHWM, _HELD_MESSAGES)
        self._socket.setsockopt(self._zmq.IPV6, 1)
        try:
            self._socket.connect(self._endpoint)
        except self._zmq.ZMQError as error:
            raise TransportLost(f"{self.address} cannot be opened ({error}); check the address") from error

    def _send(self, message: bytes) -> None:
        try:
            if self._replay:
                self._replay.send(message)
            else:
                self._socket.send(message, self._zmq.NOBLOCK)
        except TransportLost:
            raise
        except Exception as error:
            raise TransportLost(f"the link to {self.address} is gone ({error}); check cable and power") from error

    def _receive(self, timeout_s: float) -> bytes | None:
        try:
            if self._replay:
                return self._replay.receive(timeout_s)
            if not self._socket.poll(max(1, round(timeout_s * 1000))):
                return None
            return bytes(self._socket.recv())
        except TransportLost:
            raise
        except Exception as error:
            raise TransportLost(f"the link to {self.address} is gone ({error}); check cable and power") from error

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise TransportLost(f"the link to {self.address} is closed; connect again")

    def _record(self, direction: Direction, data: bytes) -> None:
        if self._log:
            self._log.record(direction, data)


def open_messages(
    address: str, kind: Literal["req", "pair"], *, timeout_s: float, log: Path | None = None
) -> MessageLink:
    """A link for `zmq://HOST:PORT` or `wirelog://FILE`. It proves nothing yet: ask the instrument who it is."""
    return MessageLink(address, kind, timeout_s, log)


def _pyzmq() -> Any:
    try:
        import zmq  # here, so that a station without ZeroMQ instruments does not need it
    except ImportError as error:
        raise BadInput("zmq:// addresses need pyzmq; install it with pip install 'groundstation[zmq]'") from error
    return zmq
