"""What the operator sees of a pass: few lines in a log, a live view on a terminal that is left as it was found."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flights import DEADLINE_S, MARK, PROGRAM, FlownPass, marked_processes, report_of, station_text, wait_until

pytestmark = pytest.mark.slow

#: Makes the terminal on its stdin the controlling one, so that Ctrl-C typed there becomes a signal.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_CTRL_C = b"\x03"
_SIMULATION_IN_BIG_LETTERS = "█▀ █ █▀▄▀█ █ █ █   ▄▀█ ▀█▀ █ █▀█ █▄ █"


def test_a_log_gets_few_lines_and_another_seed_another_world(fly: Callable[..., FlownPass]) -> None:
    flight = fly("", "--seed", 3, json_lines=False, speed=10.0)
    assert flight.wait() == 0, flight.stdout
    lines = flight.stdout.splitlines()
    assert 5 <= len(lines) <= 40
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 300 for line in lines)
    assert any("SIMULATION TRACK" in line and "clicks" in line for line in lines)
    assert lines[-2].endswith("report.html")
    assert lines[-1].startswith("Fingerprint ")
    assert flight.stderr == ""
    report = report_of(flight.output)
    assert report["complete"] is True
    assert report["simulation"]["slot_error_fraction"] < 1e-4
    # The published rate at this range is 10.6 kHz; it does not depend on the seed.
    assert report["sifted_bits"]["signal"] == pytest.approx(10_600 * report["window"]["duration_s"], rel=0.1)


class Terminal:
    """A terminal of 120 by 40 signs with a program on it."""

    def __init__(self, words: list[str]) -> None:
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.mark = uuid.uuid4().hex
        self.shown = b""
        environment = {**os.environ, MARK: self.mark, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def hang_up(self) -> None:
        """The window is closed."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        for pid in marked_processes(self.mark):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        os.close(self.slave)  # nobody has it any more, so the reader meets the end
        self._reader.join()
        if self._master >= 0:
            os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self.shown += data


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    config = tmp_path / "station.toml"
    config.write_text(station_text(), encoding="utf-8")
    words = [*PROGRAM, "run", "--config", str(config), "--output", str(tmp_path / "pass"), "--speed", "10"]
    running = Terminal(words)
    yield running
    running.close()


def test_a_terminal_shows_the_pass_live_and_is_sane_after_an_interrupt(terminal: Terminal) -> None:
    wait_until(lambda: b"ARMED" in terminal.shown, what="the live view in state ARMED")
    terminal.type(_CTRL_C)
    assert terminal.process.wait(DEADLINE_S) == 1
    assert marked_processes(terminal.mark) == {}
    wait_until(lambda: b"Fingerprint" in terminal.shown, what="the last line on the terminal")
    shown = terminal.shown.decode()
    assert "Traceback" not in shown
    assert shown.count(_SIMULATION_IN_BIG_LETTERS) > 10  # drawn again and again
    assert "Stopping" in shown
    assert "PARKED" in shown
    assert "report.html" in "".join(shown.split())  # a long path is broken into two lines
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l") != -1, "the cursor is left hidden"
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l"), "the other screen is left on"


def test_a_terminal_that_is_closed_does_not_end_the_pass(terminal: Terminal, tmp_path: Path) -> None:
    wait_until(lambda: b"ARMED" in terminal.shown, what="the live view in state ARMED")
    terminal.hang_up()
    assert terminal.process.wait(DEADLINE_S) == 0
    assert report_of(tmp_path / "pass")["complete"] is True
    assert marked_processes(terminal.mark) == {}
