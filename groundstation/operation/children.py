"""The programs around the main one: started with a pipe to their stdin, so that they notice when it dies.

Each prints JSON lines on its stdout; the newest one is its status.
"""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from groundstation.clock import monotonic_s
from groundstation.errors import BadInput, GroundStationError

_READY_TIMEOUT_S = 20.0


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until its end (main thread only): a program that was just started is never lost."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _frame: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    for late in came:
        signal.raise_signal(late)


class Child:
    """One supervised program."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """`log` gets its stderr. The program runs in a session of its own: Ctrl-C reaches the main one only."""
        self.name = name
        self._log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,
            )
        self._status: Mapping[str, object] = {}
        self._status_s = monotonic_s()
        self._spoke = threading.Event()
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.poll()

    @property
    def status(self) -> Mapping[str, object]:
        """The newest line that it printed."""
        return self._status

    @property
    def status_age_s(self) -> float:
        """How old that line is (wall time)."""
        return monotonic_s() - self._status_s

    def wait_ready(self) -> Mapping[str, object]:
        """The first line that it prints. BadInput with its last words when it ends before."""
        deadline = monotonic_s() + _READY_TIMEOUT_S
        while not self._spoke.wait(0.02):
            if not self.running:
                self._thread.join(1.0)
                if self._spoke.is_set():
                    break
                raise BadInput(f"{self.name} could not start: {self.last_words()}")
            if monotonic_s() > deadline:
                raise GroundStationError(f"{self.name} did not become ready within {_READY_TIMEOUT_S:.0f} s")
        return self._status

    def say(self, data: bytes) -> None:
        """Write to its stdin; a program that is gone hears nothing."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (OSError, ValueError):  # ValueError: its pipe was closed at the end
            return

    def close_stdin(self) -> None:
        """What the program would see if this one died."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def ask_to_end(self) -> None:
        """SIGTERM: end in good order."""
        if self.running:
            self._process.terminate()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; True when it has ended. Its last line has been read then."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._thread.join(1.0)
        return True

    def end(self, timeout_s: float = 5.0) -> None:
        """Ask, wait, and kill if it must be."""
        self.ask_to_end()
        if not self.join(timeout_s):
            self._process.kill()
            self.join(timeout_s)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def last_words(self) -> str:
        """The last line of its stderr."""
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1] if lines else f"it ended with exit code {self.exit_code} and said nothing"

    def _listen(self, stdout: IO[bytes]) -> None:
        try:
            for line in stdout:
                try:
                    status = json.loads(line)
                except ValueError:
                    continue
                if isinstance(status, dict):
                    self._status, self._status_s = status, monotonic_s()
                    self._spoke.set()
        except ValueError:  # the pipe was closed under us at the end
            return
