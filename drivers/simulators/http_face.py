"""The HTTP side of a simulated instrument: one request to a connection, answered through the faults, then closed.

The faults of the wire act on the whole answer, status line and headers too; "every n-th" counts over all connections,
and a hang-up comes in the middle of the answer. Special faults of every HTTP simulator, each on every third request:
"http_500", "http_404", "broken_json" (the body ends in its middle, and so it says).
"""

import argparse
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from drivers.simulators.faults import Faults, Spoiled, Spoiler
from drivers.simulators.program import Loop
from drivers.simulators.wire import Line, Receiver, TcpLine, listen, tcp_address_of
from groundstation.errors import BadInput

_LONGEST_REQUEST = 1 << 20
_LATENCY_S = 0.002  # free


@dataclass(frozen=True)
class HttpRequest:
    """What was asked; names and values are decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]


class HttpAnswer(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class _HttpSpoiler(Spoiler):
    """The faults of all connections together; after an answer the line is closed."""

    def spoil(self, data: bytes, since_start_s: float) -> Spoiled:
        spoiled = super().spoil(data, since_start_s)
        if not spoiled.parts:
            return spoiled
        whole = b"".join(spoiled.parts)
        parts = (whole[: len(whole) // 2],) if spoiled.hang_up else spoiled.parts
        return Spoiled(parts, True)


class _HttpLine(TcpLine):
    """One connection, which shares its faults' counters and the moment of the start with all others."""

    def __init__(
        self, loop: Loop, faults: Faults, receive: Receiver, client: socket.socket, spoiler: Spoiler, started_ns: int
    ) -> None:
        super().__init__(loop, faults, receive, client)
        self._spoiler, self._started_ns = spoiler, started_ns


def serve_http(
    loop: Loop, faults: Faults, options: argparse.Namespace, answer: Callable[[HttpRequest], HttpAnswer]
) -> str:
    """Serve on `--address http://127.0.0.1:PORT` (or any free port) and tell the address. Raises BadInput."""
    address = options.address or "http://127.0.0.1:0"
    if options.pty or not address.startswith("http://"):
        raise BadInput(f'address "{address}" is not of the form http://127.0.0.1:PORT, which this instrument needs')
    server = listen("tcp://" + address.removeprefix("http://").rstrip("/"))
    spoiler, started_ns = _HttpSpoiler(faults, bytes), loop.clock.utc_ns()
    special = _special(faults, answer)

    def accept() -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = server.accept()
            _HttpLine(loop, faults, _receiver(special), client, spoiler, started_ns)

    loop.watch(server.fileno(), accept)
    return tcp_address_of(server).replace("tcp://", "http://", 1)


def _special(faults: Faults, answer: Callable[[HttpRequest], HttpAnswer]) -> Callable[[HttpRequest], HttpAnswer]:
    """`answer` with this module's own faults on every third request."""
    asked = 0

    def spoiled(request: HttpRequest) -> HttpAnswer:
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            for status in (500, 404):
                if f"http_{status}" in faults.special:
                    return HttpAnswer(status, HTTPStatus(status).phrase.encode())
            if "broken_json" in faults.special:
                right = answer(request)
                return right._replace(body=right.body[: len(right.body) // 2])
        return answer(request)

    return spoiled


def _receiver(answer: Callable[[HttpRequest], HttpAnswer]) -> Receiver:
    waiting = bytearray()
    done = False

    def receive(line: Line, data: bytes) -> None:
        nonlocal done
        waiting.extend(data)
        if done:
            return
        try:
            request = parse_request(bytes(waiting))
        except ValueError:
            done = True
            line.reply(_written(HttpAnswer(400, b"Bad Request")), _LATENCY_S)
            return
        if request is not None:
            done = True
            line.reply(_written(answer(request)), _LATENCY_S)

    return receive


def parse_request(data: bytes) -> HttpRequest | None:
    """The request at the beginning of `data`; None while it is not complete. Raises ValueError when it is none."""
    head, end, body = data.partition(b"\r\n\r\n")
    if len(data) > _LONGEST_REQUEST:
        raise ValueError("too long")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if len(body) < length:
        return None
    url = urlsplit(target)
    form = dict(parse_qsl(body[:length].decode("utf-8"), keep_blank_values=True))
    return HttpRequest(method, unquote(url.path), dict(parse_qsl(url.query, keep_blank_values=True)), form)


def _written(answer: HttpAnswer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + answer.body
