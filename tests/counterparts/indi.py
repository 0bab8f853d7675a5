"""A small client of one INDI driver, which is a program that reads and writes XML on its standard streams.

No INDI server and no port are needed. What the driver says is kept as properties; a test waits for a value with a
deadline instead of sleeping. The protocol: INDI white paper 1.7; sources and names of properties: indilib/indi.
"""

import os
import select
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 20.0
_BEGIN, _END = b"<?xml", b"?>"


class Client:
    """One driver; `device` is the name that it gives itself."""

    def __init__(self, program: str, device: str, home: Path) -> None:
        """Drivers write below their home, so they get one of their own."""
        self.device = device
        self.properties: dict[str, dict[str, str]] = {}
        self.states: dict[str, str] = {}
        self.messages: list[str] = []
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "HOME": str(home), "TZ": "UTC"},
        )
        self._raw = b""
        self._parser = ElementTree.XMLPullParser(["start", "end"])
        self._parser.feed("<all>")
        self._depth = 0
        self._send("<getProperties version='1.7'/>")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=5)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def text(self, name: str, **elements: str) -> None:
        self._set("Text", name, elements)

    def number(self, name: str, **elements: float) -> None:
        self._set("Number", name, {key: repr(value) for key, value in elements.items()})

    def switch(self, name: str, element: str, state: str = "On") -> None:
        self._set("Switch", name, {element: state})

    def connect_serial(self, path: str, baud: int) -> None:
        """Name the port and connect; returns when the driver says that it is connected."""
        self.wait("CONNECTION")
        self.text("DEVICE_PORT", PORT=path)
        self.switch("DEVICE_BAUD_RATE", str(baud))
        self.wait("DEVICE_PORT", lambda elements: elements["PORT"] == path)
        self.switch("CONNECTION", "CONNECT")
        self.wait("CONNECTION", lambda elements: elements["CONNECT"] == "On")

    def value(self, name: str, element: str) -> float:
        return float(self.properties[name][element])

    def wait(
        self,
        name: str,
        good: Callable[[dict[str, str]], Any] = lambda elements: True,
        timeout_s: float = DEADLINE_S,
    ) -> dict[str, str]:
        """The elements of a property as soon as they are good; fails with what the driver said."""
        self.until(lambda: name in self.properties and good(self.properties[name]), name, timeout_s)
        return self.properties[name]

    def wait_state(self, name: str, *states: str, timeout_s: float = DEADLINE_S) -> str:
        """The state of a property (Idle, Ok, Busy, Alert) as soon as it is one of these."""
        self.until(lambda: self.states.get(name) in states, f"{name} to be {states}", timeout_s)
        return self.states[name]

    def wait_message(self, part: str, timeout_s: float = DEADLINE_S) -> str:
        self.until(lambda: any(part in message for message in self.messages), f'"{part}"', timeout_s)
        return next(message for message in self.messages if part in message)

    def next_value(self, name: str, element: str) -> float:
        """The value that the driver publishes next."""
        self.properties.pop(name, None)
        return float(self.wait(name)[element])

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            left_s = deadline - time.monotonic()
            assert left_s > 0, (what, self.properties.get(what), self.messages[-12:])
            self._receive(min(left_s, 0.2))

    def _receive(self, wait_s: float) -> None:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], wait_s)[0]:
            return
        data = os.read(stream.fileno(), 1 << 16)
        assert data, f"the driver ended with code {self._process.poll()}; it said {self.messages[-12:]}"
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """A declaration stands before each document; without them it is one document."""
        self._raw += data
        while (begin := self._raw.find(_BEGIN)) >= 0 and (end := self._raw.find(_END, begin)) >= 0:
            self._raw = self._raw[:begin] + self._raw[end + len(_END) :]
        cut = self._raw.find(_BEGIN)
        keep = len(_BEGIN) - 1 if cut < 0 else len(self._raw) - cut
        ready, self._raw = self._raw[: len(self._raw) - keep], self._raw[len(self._raw) - keep :]
        if cut < 0 and self._raw.endswith(b">"):
            ready, self._raw = ready + self._raw, b""
        self._parser.feed(ready)
        for event, element in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "end" and self._depth == 1:
                self._take(element)

    def _take(self, element: Any) -> None:
        if element.get("device") not in (None, self.device):
            return
        if message := element.get("message"):
            self.messages.append(message)
        name = element.get("name")
        if element.tag.startswith(("def", "set")) and name:
            elements = {child.get("name"): (child.text or "").strip() for child in element}
            self.properties.setdefault(name, {}).update(elements)
            self.states[name] = element.get("state", self.states.get(name, ""))
        elif element.tag == "delProperty" and name:
            self.properties.pop(name, None)

    def _set(self, kind: str, name: str, elements: dict[str, str]) -> None:
        ones = "".join(f"<one{kind} name='{key}'>{value}</one{kind}>" for key, value in elements.items())
        self._send(f"<new{kind}Vector device='{self.device}' name='{name}'>{ones}</new{kind}Vector>")

    def _send(self, xml: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(xml.encode() + b"\n")


@contextmanager
def driving(program: str, device: str, home: Path) -> Iterator[Client]:
    """Run one INDI driver and end it with the test."""
    client = Client(program, device, home)
    try:
        yield client
    finally:
        client.close()
