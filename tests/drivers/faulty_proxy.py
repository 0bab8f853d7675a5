"""Bad cables for tests: a TCP proxy that slices, stalls, resets and lies, a serial line that hangs up, real simulators.

Everything is real: sockets, pseudo-terminals, programs. A fault begins and ends when the test says so.
"""

import contextlib
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

_CHUNK = 1 << 16


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll until something is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


class FaultyProxy:
    """Between a client and `target` (tcp://host:port), on the same port all the time. Set faults by attribute."""

    def __init__(self, target: str) -> None:
        self.target = target
        #: Bytes per send towards the client; 0: as they come.
        self.slice_bytes = 0
        #: Nothing passes, in neither direction, while the connection stays open.
        self.stalled = False
        #: New connections are closed at once.
        self.refusing = False
        #: Goes to the client before the next bytes of the target; then it is empty again.
        self.inject = b""
        #: So many bytes towards the client are lost, once.
        self.lose_bytes = 0
        #: Bytes towards the client so far.
        self.passed = 0
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._server.getsockname()[1]}"

    def reset(self) -> None:
        """Every connection ends as when the far end's power goes: with RST."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # wakes the pump, which closes it
                with contextlib.suppress(OSError):
                    end.close()

    def close(self) -> None:
        self._ending = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.reset()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while not self._ending:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            host, port = self.target.removeprefix("tcp://").split(":")
            try:
                far = socket.create_connection((host, int(port)), timeout=5.0)
            except OSError:
                client.close()
                continue
            self.connections += 1
            self._pairs.append((client, far))
            for source, sink in ((client, far), (far, client)):
                threading.Thread(target=self._pump, args=(source, sink, sink is client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, to_client: bool) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                if self.stalled:
                    time.sleep(0.005)
                    continue
                if not select.select([source], [], [], 0.02)[0] or self.stalled:
                    continue
                data = source.recv(_CHUNK)
                if not data:
                    break
                self._pass_on(sink, data, to_client)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.close()

    def _pass_on(self, sink: socket.socket, data: bytes, to_client: bool) -> None:
        if to_client:
            data, self.inject = self.inject + data, b""
            lost, self.lose_bytes = self.lose_bytes, 0
            data = data[lost:]
            self.passed += len(data)
        step = self.slice_bytes if to_client and self.slice_bytes else len(data)
        for start in range(0, len(data), max(step, 1)):
            sink.sendall(data[start : start + step])


class PluggedLine:
    """A serial port with a fixed name; the line behind it can be pulled out and plugged in again.

    `answer(data) -> reply` is the instrument; None: it says nothing.
    """

    def __init__(self, directory: Path, answer: Callable[[bytes], bytes | None]) -> None:
        self.path = directory / "port"
        self.answer = answer
        self._lock = threading.Lock()
        self._master = self._slave = -1
        self._ending = False
        self.plug_in()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"serial:{self.path}"

    def plug_in(self) -> None:
        with self._lock:
            self._master, self._slave = pty.openpty()
            tty.setraw(self._master)
            tty.setraw(self._slave)
            self.path.symlink_to(os.ttyname(self._slave))

    def pull(self) -> None:
        """The port is gone: whoever has it open gets an error, nobody can open it."""
        with self._lock:
            self.path.unlink()
            for descriptor in (self._slave, self._master):
                os.close(descriptor)
            self._master = self._slave = -1

    def close(self) -> None:
        self._ending = True
        self._thread.join(5.0)
        if self._master >= 0:
            self.pull()

    def _serve(self) -> None:
        while not self._ending:
            with self._lock:
                if self._master >= 0 and select.select([self._master], [], [], 0.0)[0]:
                    reply = self.answer(os.read(self._master, 4096))
                    if reply:
                        os.write(self._master, reply)
                    continue
            time.sleep(0.001)


@contextlib.contextmanager
def simulator(module: str, *arguments: object) -> Iterator[str]:
    """The address of a running simulator program; it ends with the block."""
    command = [sys.executable, "-m", f"drivers.simulators.{module}", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)["address"]
    finally:
        process.terminate()
        process.communicate(timeout=10)
