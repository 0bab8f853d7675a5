"""What the programs share that `run` starts: their job, their status lines, and when to end."""

import argparse
import json
import os
import signal
import sys
import threading
from collections import deque
from types import FrameType
from typing import Any

from groundstation.clock import Clock, clock_from_text
from groundstation.errors import BadInput

#: Lines that wait for a reader: a few statuses are enough for one that is only slow.
_WAITING_LINES = 64
#: For what is said last (wall time).
_LAST_WORDS_S = 1.0


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clock", required=True)
    parser.add_argument("--job", required=True, help="JSON object")


def job_of(options: argparse.Namespace) -> tuple[Clock, dict[str, Any]]:
    """The clock and the job on the command line."""
    try:
        job = json.loads(options.job)
    except ValueError as error:
        raise BadInput(f"--job is not JSON: {error}") from error
    return clock_from_text(options.clock), job


def say(status: dict[str, object]) -> None:
    """One status line; a main process that is gone does not end its children this way."""
    try:
        sys.stdout.write(json.dumps(status) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  lives as long as the program


class Teller:
    """Says lines on stdout from a thread of its own: a terminal that was stopped and a reader that hangs must not
    hold up who speaks. What cannot be said is forgotten, the oldest first; who is gone is not told any more."""

    def __init__(self, descriptor: int = 1) -> None:
        """`descriptor`: stdout, past Python's buffer, whose lock a hanging thread would hold when the program ends."""
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque(maxlen=_WAITING_LINES)
        self._something = threading.Condition()
        self._speaking = False
        threading.Thread(target=self._speak, name="teller", daemon=True).start()

    def say(self, line: str) -> None:
        """Never waits."""
        with self._something:
            self._lines.append(f"{line}\n".encode(sys.stdout.encoding, "replace"))
            self._something.notify_all()

    def finish(self) -> None:
        """Wait a moment for what was not said yet."""
        with self._something:
            self._something.wait_for(lambda: not (self._lines or self._speaking), _LAST_WORDS_S)

    def _speak(self) -> None:
        heard = True
        while True:
            with self._something:
                self._speaking = False
                self._something.notify_all()
                self._something.wait_for(lambda: bool(self._lines))
                line, self._speaking = self._lines.popleft(), True
            heard = heard and self._written(line)

    def _written(self, data: bytes) -> bool:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True


class Ending:
    """When to end. A supervised program: at SIGTERM and at the end of stdin, which means that the main process is
    gone. One that runs alone: at Ctrl-C and SIGTERM; the second of these ends it at once (KeyboardInterrupt)."""

    def __init__(self, supervised: bool = True) -> None:
        self.asked = threading.Event()
        self.orphaned = threading.Event()
        signal.signal(signal.SIGTERM, self._ask if supervised else self._ask_or_interrupt)
        signal.signal(signal.SIGINT, signal.SIG_IGN if supervised else self._ask_or_interrupt)
        if not supervised:
            return
        threading.Thread(target=self._watch_stdin, daemon=True).start()

    def over(self) -> None:
        """All is done: a signal that comes too late changes nothing any more."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked.set()

    def _ask_or_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            signal.default_int_handler(number, frame)
        self.asked.set()

    def _watch_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self.orphaned.set()
        self.asked.set()
