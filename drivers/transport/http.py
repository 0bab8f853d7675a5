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
from groundstation.errors import BadInput, TransportLost, TransportTimeout, WireError

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

        Raises TransportTimeout, TransportLost (also when the answer breaks off), WireError (no HTTP) and BadInput for
        a method or path that HTTP cannot carry.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        with self._lock:
            self._check_open()
            deadline_s = monotonic_s() + timeout_s
            self._link = Link(self.address, opened(self.address, lambda: self._open_port(timeout_s)), timeout_s)
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
        try:
            sent = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise BadInput(f"{method} {target} is no request of HTTP ({error})") from error
        sent += (http.send(h11.Data(data=body)) or b"") if body else b""
        sent += http.send(h11.EndOfMessage()) or b""
        received = bytearray()
        try:
            self._record("out", sent)
            link.write(sent)
            return self._answer(link, http, received, deadline_s)
        except h11.RemoteProtocolError as error:
            raise self._no_http(str(error)) from error
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
                if not b"HTTP/".startswith(received[:5]):
                    raise self._no_http(f"but {bytes(received[:20])!r}")
                try:
                    http.receive_data(data)
                    if not data:
                        event = http.next_event()
                except h11.RemoteProtocolError as error:
                    if data:
                        raise
                    when = "in the middle of its answer" if received else "without an answer"
                    raise TransportLost(f"{self.address} hung up {when}; ask again") from error
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return HttpReply(status, bytes(body))
            if len(body) > _LONGEST_BODY_BYTES:
                raise WireError(f"{self.address} does not stop sending; check that the right program listens there")

    def _no_http(self, what: str) -> WireError:
        return WireError(f"{self.address} does not answer in HTTP ({what}); check that the right program listens there")

    def _more(self, link: Link, deadline_s: float) -> bytes:
        """What comes next; b"" at the end of the connection."""
        while (left_s := deadline_s - monotonic_s()) > 0.0:
            try:
                if data := link.read_available(left_s):
                    return data
            except TransportLost:
                self._check_open()
                return b""
        raise TransportTimeout(f"{self.address} did not answer in time; check that the instrument is on")

    def _carrier(self, address: str) -> tuple[Callable[[float], Port], str]:
        """What opens a connection within a timeout, and the host to name in requests."""
        if path := replay_path(address):
            replay = Replay(path)
            host = replay.recorded_address.removeprefix("http://").rstrip("/")
            return lambda _: ReplayPort(replay, hangs_up=True), host
        host, number = host_and_port(address, "http")
        shown = f"[{host}]" if ":" in host else host
        return lambda timeout_s: TcpPort(host, number, timeout_s), f"{shown}:{number}"

    def _check_open(self) -> None:
        if self._closed:
            raise TransportLost(f"the link to {self.address} is closed; connect again")

    def _record(self, direction: Direction, data: bytes) -> None:
        if self._log:
            self._log.record(direction, data)


def open_http(address: str, *, timeout_s: float, log: Path | None = None) -> HttpLink:
    """A link for `http://HOST:PORT` or `wirelog://FILE`; nothing is sent yet."""
    return HttpLink(address, timeout_s, log)
