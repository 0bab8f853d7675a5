"""HTTP to an instrument: one request on one connection of its own, so that an answer can never be another's.

The protocol is h11's; the bytes go over the same `Link` as everything else, with its deadlines and errors.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import h11

from drivers.transport.addresses import host_and_port, replay_path
from drivers.transport.link import Link, opened
from drivers.transport.ports import Port, ReplayPort, TcpPort
from drivers.transport.wire_log import Direction, Replay, WireLog
from groundstation.clock import monotonic_s
from groundstation.errors import TransportLost, TransportTimeout, WireError

_LONGEST_BODY_BYTES = 8 << 20


class HttpReply(NamedTuple):
    """Status code and body of an answer."""

    status: int
    body: bytes


class HttpLink:
    """An instrument behind HTTP. Safe for several threads; each request takes at most its timeout (wall time)."""

    def __init__(self, address: str, timeout_s: float, log: Path | None = None) -> None:
        """Nothing is sent yet. Raises BadInput for an address that is neither http:// nor wirelog://."""
        self.address, self.timeout_s = address, timeout_s
        self._open_port, host = self._carrier(address)
        self._host = host
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._closed = False
        self._log = WireLog(log, address) if log else None

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> HttpReply:
        """Ask once. Spaces travel as %20 in the query; `form` is the body, as a web form.

        Raises TransportTimeout, TransportLost (also when the answer breaks off) and WireError (no HTTP).
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        with self._lock:
            self._check_open()
            deadline_s = monotonic_s() + timeout_s
            self._link = Link(self.address, opened(self.address, self._open_port), timeout_s)
            try:
                return self._exchange(self._link, method, target, form, deadline_s)
            finally:
                self._link.close()
                self._link = None
                self._check_open()

    def close(self) -> None:
        """Idempotent; a request in another thread ends with TransportLost."""
        self._closed = True
        if link := self._link:
            link.close()
        if self._log:
            self._log.close()

    def _exchange(
        self, link: Link, method: str, target: str, form: Mapping[str, str] | None, deadline_s: float
    ) -> HttpReply:
        body = urlencode(form, quote_via=quote).encode("ascii") if form is not None else b""
        headers = [("Host", self._host), ("Accept", "*/*"), ("Connection", "close")]
        if form is not None:
            headers += [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body)))]
        http = h11.Connection(h11.CLIENT)
        sent = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        sent += (http.send(h11.Data(data=body)) or b"") if body else b""
        sent += http.send(h11.EndOfMessage()) or b""
        received = bytearray()
        try:
            self._record("out", sent)
            link.write(sent)
            return self._answer(link, http, received, deadline_s)
        except h11.RemoteProtocolError as error:
            raise WireError(
                f"{self.address} does not answer in HTTP ({error}); check that the right program listens there"
            ) from error
        finally:
            if received:
                self._record("in", bytes(received))

    def _answer(self, link: Link, http: h11.Connection, received: bytearray, deadline_s: float) -> HttpReply:
        status, body = 0, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = self._more(link, deadline_s)
                received += data
                try:
                    http.receive_data(data)
                    if not data:
                        event = http.next_event()
                except h11.RemoteProtocolError as error:
                    if data:
                        raise
                    raise TransportLost(f"{self.address} hung up in the middle of its answer; ask again") from error
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return HttpReply(status, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise TransportLost(f"{self.address} hung up without an answer; ask again")
            if len(body) > _LONGEST_BODY_BYTES:
                raise WireError(f"{self.address} does not stop sending; check that the right program listens there")

    def _more(self, link: Link, deadline_s: float) -> bytes:
        """What comes next; b"" at the end of the connection."""
        left_s = deadline_s - monotonic_s()
        try:
            data = link.read_available(max(0.0, left_s))
        except TransportLost:
            self._check_open()
            return b""
        if not data and left_s <= 0.0:
            raise TransportTimeout(f"{self.address} did not answer in time; check that the instrument is on")
        return data if data else self._more(link, deadline_s)

    def _carrier(self, address: str) -> tuple[Callable[[], Port], str]:
        if path := replay_path(address):
            replay = Replay(path)
            return lambda: ReplayPort(replay), replay.recorded_address.removeprefix("http://").rstrip("/")
        host, number = host_and_port(address, "http")
        shown = f"[{host}]" if ":" in host else host
        return lambda: TcpPort(host, number, self.timeout_s), f"{shown}:{number}"

    def _check_open(self) -> None:
        if self._closed:
            raise TransportLost(f"the link to {self.address} is closed; connect again")

    def _record(self, direction: Direction, data: bytes) -> None:
        if self._log:
            self._log.record(direction, data)


def open_http(address: str, *, timeout_s: float, log: Path | None = None) -> HttpLink:
    """A link for `http://HOST:PORT` or `wirelog://FILE`; nothing is sent yet."""
    return HttpLink(address, timeout_s, log)
