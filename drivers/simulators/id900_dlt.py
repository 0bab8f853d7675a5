"""IDQ's DataLinkTarget service (DLT) from its clients' side: questions with JSON answers, and streams on PAIR sockets.

On a real PC the service takes the tags from the ID900 by a wire that is not published; here both are one program.
Source: IDQ's Time Controller Python examples, `utils/acquisitions.py` and the stream examples. Each message of a stream
is packed u64, little-endian, in ps; one of length zero says that the acquisition has ended. What the examples do not
tell is ours: the texts of errors; that `stop` ends the stream with an empty message; that `acquisitions_count` counts
the sub-acquisitions without tags and the lost ones, too.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from drivers.simulators.faults import Faults
from drivers.simulators.id900_blocks import CHANNELS, Times
from drivers.simulators.program import Loop
from drivers.simulators.zmq_face import Answerer, Context, Outlet, free_endpoint, reserved_port
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput

_DEVICE_PORT = 5555  # channel N is pushed from port 5555 + N

_LATENCY_S = 0.001  # free
_HELD_BYTES = 256 << 20  # free: for a reader that stalls; what comes on top is lost


class DltError(Exception):
    """A command failed; the text is its description."""


class Acquisition:
    """What is done with the tags of one channel, `pass_on` being a stream or a file; False from it: they are lost."""

    def __init__(self, loop: Loop, channel: int, with_ref_index: bool, pass_on: Callable[[bytes], bool]) -> None:
        self._loop, self._pass_on = loop, pass_on
        self.channel, self._with_ref_index = channel, with_ref_index
        self._sub_acquisitions = self._timestamps = 0
        self._errors: list[str] = []
        self._active_ns = loop.clock.utc_ns()
        self._ended = False

    def take(self, times: Times, references: Times, lost: bool = False) -> None:
        """One sub-acquisition's tags have come. With `lost`, they have not."""
        self._sub_acquisitions += 1
        self._active_ns = self._loop.clock.utc_ns()
        if lost:
            self._errors.append("timestamps were lost on their way from the Time Controller")
        elif len(times):
            self._ended = False
            columns = np.column_stack((times, references)) if self._with_ref_index else times
            if self._pass_on(columns.astype("<u8").tobytes()):
                self._timestamps += len(times)
            else:
                self._errors.append("timestamps were lost because nobody read the stream")

    def end(self) -> None:
        """The acquisition is over."""
        if not self._ended:
            self._ended = True
            self._pass_on(b"")

    def status(self) -> dict[str, object]:
        return {
            "acquisitions_count": self._sub_acquisitions,
            "errors": [{"description": error} for error in self._errors],
            "inactivity": (self._loop.clock.utc_ns() - self._active_ns) / NS_PER_S,
            "timestamps_count": self._timestamps,
        }


class Dlt:
    """The service: its commands, and the acquisitions by their id."""

    def __init__(self, context: Context, loop: Loop, faults: Faults, address: str | None) -> None:
        """Serves at once, on any free port when `address` is None. Raises BadInput."""
        self._context, self._loop, self._special = context, loop, faults.special
        self._reserved = [reserved_port() for _ in CHANNELS]  # so that a client can be told which ports are free
        self._outlets = {port: self._outlet(f"tcp://127.0.0.1:{port}") for port, _ in self._reserved}
        self._acquisitions: dict[str, Acquisition] = {}
        self._ports: dict[str, int] = {}
        self._commands: Mapping[str, Callable[[Mapping[str, str]], object]] = {
            "start-stream": self._start_stream,
            "start-save": self._start_save,
            "stop": self._stop,
            "status": lambda options: self._acquisitions[self._id(options)].status(),
            "list": lambda _: list(self._acquisitions),
        }
        self._service = Answerer(context, loop, faults, address, self.answer, _LATENCY_S)

    @property
    def address(self) -> str:
        return self._service.address

    @property
    def stream_ports(self) -> list[int]:
        return [port for port, _ in self._reserved]

    @property
    def is_used(self) -> bool:
        return bool(self._acquisitions)

    def answer(self, question: str) -> str:
        """JSON."""
        try:
            words = shlex.split(question)
            if not words or words[0] not in self._commands:
                raise DltError("unknown command")
            return json.dumps(self._commands[words[0]](_options(words[1:])))
        except (DltError, ValueError) as error:
            return json.dumps({"error": {"description": str(error)}})

    def of_channel(self, channel: int) -> list[Acquisition]:
        return [found for found in self._acquisitions.values() if found.channel == channel]

    def end_all(self) -> None:
        """The record is over."""
        for acquisition in self._acquisitions.values():
            acquisition.end()

    def close(self) -> None:
        """The service is gone. Idempotent."""
        self._service.close()
        self._acquisitions.clear()
        for outlet in self._outlets.values():
            outlet.close()

    def _start_stream(self, options: Mapping[str, str]) -> object:
        name, channel = self._new(options)
        port = _whole(options, "stream-port", range(1, 65536))
        if port in self._ports.values():
            raise DltError(f"port {port} is already in use")
        if port not in self._outlets:
            try:
                self._outlets[port] = self._outlet(free_endpoint(f"tcp://127.0.0.1:{port}"))
            except BadInput as error:
                raise DltError(str(error)) from error
        outlet = self._outlets[port]
        outlet.start()
        self._ports[name] = port
        self._acquisitions[name] = Acquisition(self._loop, channel, "with-ref-index" in options, outlet.send)
        return {"id": name}

    def _start_save(self, options: Mapping[str, str]) -> object:
        name, channel = self._new(options)
        kind, path = _text(options, "format"), Path(_text(options, "filename"))
        if kind not in ("bin", "ascii"):
            raise DltError("--format must be bin or ascii")
        columns = 2 if "with-ref-index" in options else 1

        def write(data: bytes) -> bool:
            if kind == "ascii":
                rows = np.frombuffer(data, "<u8").reshape(-1, columns)
                data = "".join(";".join(map(str, row)) + "\n" for row in rows.tolist()).encode()
            with path.open("ab") as file:
                file.write(data)
            return True

        try:
            path.write_bytes(b"")
        except OSError as error:
            raise DltError(f"cannot open {path}: {error.strerror}") from error
        self._acquisitions[name] = Acquisition(self._loop, channel, columns == 2, write)
        return {"id": name}

    def _stop(self, options: Mapping[str, str]) -> object:
        name = self._id(options)
        acquisition = self._acquisitions.pop(name)
        acquisition.end()
        if name in self._ports:
            self._outlets[self._ports.pop(name)].stop()
        return {"status": acquisition.status()}

    def _outlet(self, endpoint: str) -> Outlet:
        return Outlet(self._context, self._loop, endpoint, _HELD_BYTES)

    def _new(self, options: Mapping[str, str]) -> tuple[str, int]:
        if "dlt_error" in self._special:
            raise DltError("no connection to the Time Controller")
        channel = _whole(options, "channel", CHANNELS)
        name = f"{_text(options, 'address')}:{_DEVICE_PORT + channel}"
        if name in self._acquisitions:
            raise DltError(f"{name} is already in use")
        return name, channel

    def _id(self, options: Mapping[str, str]) -> str:
        name = _text(options, "id")
        if name not in self._acquisitions:
            raise DltError(f"no acquisition {name}")
        return name


def _options(words: list[str]) -> dict[str, str]:
    """`--stream-port 4242` -> stream-port: 4242; a word without a value is there or not."""
    options = {}
    while words:
        name, *words = words
        if not name.startswith("--"):
            raise DltError(f"{name} is no option")
        options[name.removeprefix("--")] = words.pop(0) if words and not words[0].startswith("--") else ""
    return options


def _text(options: Mapping[str, str], name: str) -> str:
    if not options.get(name):
        raise DltError(f"--{name} is missing")
    return options[name]


def _whole(options: Mapping[str, str], name: str, allowed: range | tuple[int, ...]) -> int:
    text = _text(options, name)
    if not text.isdecimal() or len(text) > 9 or int(text) not in allowed:
        raise DltError(f"--{name} cannot be {text}")
    return int(text)
