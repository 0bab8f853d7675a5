"""Talk to an instrument by hand: what is typed is sent, what comes is shown, and all of it is in a wire log."""

import argparse
import os
import re
import select
import shlex
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from drivers.transport import HttpLink, Link, MessageLink, open_http, open_link, open_messages
from groundstation.clock import SystemClock, monotonic_s, sleep_wall_s, utc_text
from groundstation.errors import BadInput, GroundStationError, TransportLost

#: Names of line ends.
ENDS = MappingProxyType({"cr": b"\r", "lf": b"\n", "crlf": b"\r\n", "none": b""})
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_ESCAPED = MappingProxyType({b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"})
_TIMEOUT_S = 3.0
_LOOK_S = 0.05  # at the instrument, before looking at the keyboard again
#: How long an answer is waited for before the next line, and before the end; then silence ends it.
_ANSWER_S, _LAST_ANSWER_S, _SILENCE_S = 0.5, 1.0, 0.1
_MOST_S = 3.0  # an instrument that never falls silent is not listened to for longer


def talk(options: argparse.Namespace) -> int:
    """Until stdin ends or Ctrl-C; 0 then. Raises TransportLost when the instrument is gone."""
    log: Path = options.log or _log_name(options.address)
    partner = _partner(options, log)
    _tell(f"Talking to {options.address}; wire log in {log}. Ctrl-D ends.")
    try:
        _converse(partner)
    except KeyboardInterrupt:
        pass
    finally:
        partner.close()
    return 0


def bytes_of(line: str, hexadecimal: bool = False) -> bytes:
    r"""What a typed line stands for: `4b 78`, or text in which \r \n \t \0 \\ and \xNN are bytes. Raises BadInput."""
    if hexadecimal:
        try:
            return bytes.fromhex(line)
        except ValueError as error:
            raise BadInput(f"{line!r} is not in hexadecimal; write bytes as 4b 78") from error
    data = line.encode("utf-8")
    if b"\\" in _ESCAPE.sub(b"", data):
        raise BadInput(rf"{line} has a backslash that stands for nothing; known are \r \n \t \0 \\ \xNN")
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1]) or bytes.fromhex(found[1][1:].decode()), data)


def text_of(data: bytes, hexadecimal: bool = False) -> list[str]:
    """Bytes as lines for people: a line of its own for each that ends in LF; what does not print is escaped."""
    if hexadecimal:
        return [data.hex(" ")]
    lines = re.split(rb"(?<=\n)(?=.)", data, flags=re.DOTALL)
    return [line.decode("latin-1").encode("unicode_escape").decode("ascii") for line in lines]


class Partner(Protocol):
    """Whoever is at the other end."""

    def say(self, line: str) -> None:
        """Send what a typed line stands for. Raises BadInput."""

    def listen(self, wait_s: float) -> bool:
        """Show what is there or comes within `wait_s`; False when nothing did."""

    def close(self) -> None: ...


class Stream:
    """Bytes, at any time and in both directions."""

    def __init__(self, link: Link, end: bytes, hexadecimal: bool) -> None:
        self._link, self._end, self._hex = link, end, hexadecimal

    def say(self, line: str) -> None:
        data = bytes_of(line, self._hex) + self._end
        _show(">", data, self._hex)
        self._link.write(data)

    def listen(self, wait_s: float) -> bool:
        data = self._link.read_available(wait_s)
        if data:
            _show("<", data, self._hex)
        return bool(data)

    def close(self) -> None:
        self._link.close()


class Answerer:
    """One answer to each question, and nothing unasked."""

    def listen(self, wait_s: float) -> bool:
        sleep_wall_s(min(wait_s, _LOOK_S))
        return False


class Messages(Answerer):
    """ZeroMQ: a line is a message."""

    def __init__(self, link: MessageLink, hexadecimal: bool) -> None:
        self._link, self._hex = link, hexadecimal

    def say(self, line: str) -> None:
        data = bytes_of(line, self._hex)
        _show(">", data, self._hex)
        _show("<", self._link.query(data), self._hex)

    def close(self) -> None:
        self._link.close()


class Requests(Answerer):
    """HTTP: a line is a request."""

    def __init__(self, link: HttpLink, hexadecimal: bool) -> None:
        self._link, self._hex = link, hexadecimal

    def say(self, line: str) -> None:
        method, path, values = request_of(line)
        _tell(f"> {line.strip()}")
        query, form = (values, None) if method == "GET" else (None, values)
        try:
            reply = self._link.request(method, path, query, form)
        except TransportLost as error:  # the next request has a connection of its own
            raise BadInput(str(error)) from error
        _tell(f"< {reply.status}")
        _show("<", reply.body, self._hex)

    def close(self) -> None:
        self._link.close()


def request_of(line: str) -> tuple[str, str, dict[str, str]]:
    """Method, path and values of `PUT /path name=value "other=with spaces"`. Raises BadInput."""
    try:
        method, path, *pairs = shlex.split(line)
        values = dict(pair.split("=", 1) for pair in pairs)
    except ValueError as error:
        raise BadInput(f"{line!r} is no request; write GET /path or PUT /path name=value") from error
    if method not in ("GET", "PUT", "POST") or not path.startswith("/"):
        raise BadInput(f"{line!r} is no request; it begins with GET, PUT or POST, then a /path")
    return method, path, values


def _partner(options: argparse.Namespace, log: Path) -> Partner:
    address: str = options.address
    if address.startswith("http:"):
        return Requests(open_http(address, timeout_s=_TIMEOUT_S, log=log), options.hex)
    if address.startswith("zmq:"):
        return Messages(open_messages(address, "req", timeout_s=_TIMEOUT_S, log=log), options.hex)
    if options.baud <= 0:
        raise BadInput(f"--baud is {options.baud}; it must be above 0")
    end = ENDS[options.end or ("none" if options.hex else "lf")]
    return Stream(open_link(address, timeout_s=_TIMEOUT_S, baud=options.baud, log=log), end, options.hex)


def _converse(partner: Partner) -> None:
    unfinished = b""
    while True:
        partner.listen(_LOOK_S)
        if not select.select([0], [], [], 0.0)[0]:
            continue
        typed = os.read(0, 1 << 16)
        *lines, unfinished = (unfinished + (typed or b"\n")).split(b"\n")
        for line in lines:
            if line.strip() or typed:
                _say(partner, line.decode("utf-8", "replace"))
        if not typed:
            _hear(partner, _LAST_ANSWER_S)
            return


def _say(partner: Partner, line: str) -> None:
    """Send a line and wait for what comes back, so that a list of questions is asked one after the other."""
    try:
        partner.say(line.removesuffix("\r"))
    except TransportLost:
        raise
    except GroundStationError as error:
        sys.stderr.write(f"{error}\n")
        return
    _hear(partner, _ANSWER_S)


def _hear(partner: Partner, wait_s: float) -> None:
    until_s = monotonic_s() + _MOST_S
    while monotonic_s() < until_s and partner.listen(wait_s):
        wait_s = _SILENCE_S


def _show(sign: str, data: bytes, hexadecimal: bool) -> None:
    for line in text_of(data, hexadecimal):
        _tell(f"{sign} {line}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _log_name(address: str) -> Path:
    """`wire-serial-dev-ttyUSB0-20261224T001830Z.jsonl`, here."""
    stamp = utc_text(SystemClock().utc_ns(), 0).replace("-", "").replace(":", "")
    return Path(f"wire-{re.sub(r'[^A-Za-z0-9.]+', '-', address).strip('-')}-{stamp}.jsonl")
