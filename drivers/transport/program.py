"""A local program whose standard output is the stream, for instruments that come with a reader program of their own.

program:/opt/s15/readevents7?arg=-a&arg=1    the program and its arguments, in order

The program is started when the link is opened and ended by SIGTERM when it is closed. It takes no commands.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode

from groundstation.errors import BadInput

_RECEIVE_BYTES = 1 << 20
_ENDS_WITHIN_S = 2.0  # after SIGTERM
_LAST_WORDS_BYTES = 200


class ProgramPort:
    """A running program: a `Port`. When it ends, what it said on its standard error is the reason."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            # A session of its own: Ctrl-C is for the station, which then ends the program in good order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        with contextlib.suppress(OSError, AttributeError):  # a larger pipe rides out longer stalls, where there is one
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _RECEIVE_BYTES)

    def receive(self, wait_s: float) -> bytes:
        readable, _, _ = select.select([self._fd], [], [], wait_s)
        if not readable:
            return b""
        data = os.read(self._fd, _RECEIVE_BYTES)
        if not data:
            raise ConnectionError(self._why())
        return data

    def send(self, data: memoryview, wait_s: float) -> int:
        raise ConnectionError("a reader program takes no commands")

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _wait(self) -> None:
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _why(self) -> str:
        self._wait()  # its output is closed, so it is ending
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS_BYTES))
        said = self._errors.read().decode("utf-8", "replace").strip().replace("\n", "; ")
        return f"the program ended with code {self._process.returncode}" + (f": {said}" if said else "")


def program_command(rest: str) -> list[str]:
    """The command of an address, of which `rest` follows `program:`. Raises BadInput."""
    path, _, query = rest.partition("?")
    arguments = parse_qsl(query, keep_blank_values=True)
    if not path or any(key != "arg" for key, _ in arguments):
        raise BadInput(f'address "program:{rest}" is not of the form program:/path/to/program?arg=-a&arg=1')
    return [unquote(path), *(value for _, value in arguments)]


def program_address(path: str, arguments: Sequence[str]) -> str:
    """The address that runs this command."""
    query = urlencode([("arg", argument) for argument in arguments], quote_via=quote)
    return f"program:{quote(path)}" + (f"?{query}" if query else "")
