"""Addresses: hardware, simulator and replay of a wire log differ in them only.

serial:///dev/ttyUSB0?baud=115200    a serial line (also serial:PATH)
tcp://HOST:PORT                      a TCP socket, or a serial line behind a bridge
visa://TCPIP0::HOST::5025::SOCKET    VISA, by pyvisa-py (also visa:RESOURCE): for control, too slow for tags
program:/PATH                        a local program's standard output
http://HOST:PORT                     HTTP                          (open_http)
zmq://HOST:PORT                      ZeroMQ over TCP               (open_messages)
wirelog:///path/to/log.jsonl         the far end as a wire log recorded it
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from drivers.transport.link import Link, opened
from drivers.transport.ports import Port, ReplayPort, SerialPort, TcpPort, VisaPort
from drivers.transport.program import ProgramPort, program_command
from drivers.transport.wire_log import Replay, WireLog
from groundstation.errors import BadInput


def open_link(address: str, *, timeout_s: float, baud: int = 9600, log: Path | None = None) -> Link:
    """Open a byte link; `baud` is for serial lines whose address names none.

    An open link proves nothing yet, for some carriers open without a far end: `connect()` of a driver asks the
    instrument who it is. Raises BadInput for an address that cannot carry bytes or a log that cannot be written,
    TransportLost or TransportTimeout when it cannot be opened.
    """
    opener = _opener(address, timeout_s, baud)
    port = opened(address, opener)
    try:
        return Link(address, port, timeout_s, WireLog(log, address) if log else None, opener)
    except BaseException:
        port.close()
        raise


def host_and_port(address: str, scheme: str) -> tuple[str, int]:
    """Of `SCHEME://HOST:PORT`. Raises BadInput for anything else."""
    with contextlib.suppress(ValueError):  # a port that is no number
        url = urlsplit(address)
        bare = url.path in ("", "/") and not (url.query or url.username)
        if url.scheme == scheme and url.hostname and url.port and bare:
            return url.hostname, url.port
    raise BadInput(f'address "{address}" is not of the form {scheme}://HOST:PORT')


def replay_path(address: str) -> Path | None:
    """The file of a `wirelog://PATH` address, None when it is another kind of address."""
    return Path(after_scheme(address)) if address.startswith("wirelog:") and after_scheme(address) else None


def after_scheme(address: str) -> str:
    """What follows the scheme; two slashes before it do not count."""
    return address.partition(":")[2].removeprefix("//")


def _opener(address: str, timeout_s: float, baud: int) -> Callable[[], Port]:
    """What opens this address; BadInput when it is no address of a byte link."""
    kind, rest = address.partition(":")[0], after_scheme(address)
    if kind == "serial" and rest:
        path, _, query = rest.partition("?")
        options = parse_qs(query, keep_blank_values=True)
        rate = options.pop("baud", [str(baud)])[0]
        if path and not options and rate.isascii() and rate.isdigit() and int(rate) > 0:
            return lambda: SerialPort(path, int(rate))
    elif kind == "tcp":
        with contextlib.suppress(BadInput):
            host, number = host_and_port(address, "tcp")
            return lambda: TcpPort(host, number, timeout_s)
    elif kind == "visa" and rest:
        return lambda: VisaPort(rest, timeout_s, baud)
    elif kind == "program":
        command = program_command(rest)
        return lambda: ProgramPort(command)
    elif path_of_log := replay_path(address):
        replay = Replay(path_of_log)
        return lambda: ReplayPort(replay)
    raise BadInput(
        f'address "{address}" is none of serial://PATH, serial://PATH?baud=115200, tcp://HOST:PORT, visa://RESOURCE, '
        "program:/PATH, wirelog://FILE"
    )
