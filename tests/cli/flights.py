"""Flies real passes for the drills: starts the program as an operator would, and finds, measures and kills its parts.

Every program of a pass inherits a mark in its environment, so that it is found whoever its parent is by then.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundstation.clock import Clock, clock_from_text, parse_utc
from groundstation.config import DEFAULT_CONFIG

PROGRAM = (sys.executable, "-m", "groundstation.cli")
MARK = "GROUNDSTATION_TEST_FLIGHT"
#: Patience with a busy machine; nothing takes that long by itself.
DEADLINE_S = 120.0


def wait_until(question: Callable[[], Any], deadline_s: float = DEADLINE_S, what: str = "it") -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + deadline_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what} did not happen within {deadline_s:g} s"
        time.sleep(0.01)
    return answer


def station_text() -> str:
    """The simulated station with a window of 21 s around culmination instead of 272 s."""
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    return edited(text, "max_range_km", "650.0", "margin_s", "5.0")


def edited(text: str, *keys_and_values: str) -> str:
    """The text with other values for keys that stand in it once."""
    for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
        text, found = re.subn(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", text)  # noqa: B023  used at once
        assert found == 1, f"{key} stands {found} times in the station file"
    return text


def instrument(text: str, name: str, address: str, *more: str) -> str:
    """The text with another table for one instrument; hardware, unless `simulate = true` is among `more`."""
    table = re.search(rf'\[instruments\.{name}\]\ndriver = "(\w+)"\n(?:\w.*\n)*', text)
    assert table is not None
    lines = (f"[instruments.{name}]", f'driver = "{table[1]}"', f'address = "{address}"', *more)
    return text.replace(table[0], "\n".join(lines) + "\n")


def marked_processes(mark: str) -> dict[int, str]:
    """The living processes of a flight: id -> what it is (`run`, `acquire`, `tagger_tdc2`, `sealing`, ...)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if f"{MARK}={mark}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        module = words[words.index("-m") + 1] if "-m" in words else words[0]
        own = module.startswith("groundstation.cli")
        found[int(entry.name)] = words[words.index("-m") + 2] if own else module.rpartition(".")[2]
    return found


def run_command(*words: object, timeout_s: float = DEADLINE_S) -> tuple[int, str, str, dict[int, str]]:
    """Run the program to its end: exit code, stdout, stderr, and what is still alive of it."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env={**os.environ, MARK: mark},
    )
    left = marked_processes(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return done.returncode, done.stdout, done.stderr, left


_CONSOLE = """
import contextlib, io, json, sys, traceback
from groundstation.cli import main
for line in sys.stdin:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(json.loads(line))
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
    print(json.dumps([code, output.getvalue(), errors.getvalue()]), flush=True)
"""


class Console:
    """One process that runs many commands which start no programs: their libraries are loaded once only."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CONSOLE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: self._mark},
        )

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        code, output, errors = json.loads(self._process.stdout.readline())
        assert set(marked_processes(self._mark)) == {self._process.pid}, "it started programs and left them"
        return code, output, errors

    def close(self) -> None:
        for pid in marked_processes(self._mark):
            os.kill(pid, signal.SIGKILL)
        self._process.communicate(timeout=DEADLINE_S)


class FlownPass:
    """`groundstation run` in a process group of its own, with its output in files beside the run's directory."""

    def __init__(self, folder: Path, station: str, *options: object, json_lines: bool = True, speed: float = 20.0):
        self.output = folder / "pass"
        self.recording = self.output / "recording"
        self.sealed = self.output / "recording.h5"
        self.config = folder / "station.toml"
        self.config.write_text(station, encoding="utf-8")
        self.mark = uuid.uuid4().hex
        self.seen_ports: set[int] = set()
        self.peak_memory_kb: dict[str, int] = {}
        self._stdout, self._stderr = folder / "stdout.txt", folder / "stderr.txt"
        words = ["run", "--config", self.config, "--output", self.output, "--speed", speed, *options]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*PROGRAM, *map(str, words), *(["--json"] if json_lines else [])],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, MARK: self.mark},
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """What was printed with --json, apart from a line that is being written."""
        return [json.loads(line) for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]

    def messages(self) -> str:
        """The sentences among the lines."""
        return "\n".join(line["message"] for line in self.lines() if "message" in line)

    def wait_for_line(self, fits: Callable[[Mapping[str, Any]], bool], what: str) -> Mapping[str, Any]:
        """The first line that fits."""

        def look() -> Mapping[str, Any] | None:
            found = next((line for line in self.lines() if fits(line)), None)
            assert found or self.process.poll() is None, f"ended before {what}: {self.stdout}{self.stderr}"
            return found

        found: Mapping[str, Any] = wait_until(look, what=what)
        return found

    def wait_for_state(self, state: str) -> None:
        self.wait_for_line(lambda line: line.get("state") == state, f"state {state}")

    def processes(self) -> dict[int, str]:
        return marked_processes(self.mark)

    def pid_of(self, name: str) -> int:
        """Waits for it; there must be one only."""
        pids: list[int] = wait_until(lambda: [p for p, n in self.processes().items() if n == name], what=name)
        assert len(pids) == 1
        return pids[0]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid_of(name), number)

    def clock(self) -> Clock:
        """The world's clock, which every program of the pass has on its command line."""
        words = Path(f"/proc/{self.pid_of('mount_nexstar')}/cmdline").read_bytes().decode().split("\0")
        return clock_from_text(words[words.index("--clock") + 1])

    def wait_for_world(self, utc: str) -> None:
        """Until it is so late in the simulated world; the lines come too seldom for that."""
        clock, utc_ns = self.clock(), parse_utc(utc)
        wait_until(lambda: clock.utc_ns() >= utc_ns, what=utc)

    def watch_until_end(self) -> int:
        """The exit code; meanwhile notes the memory of every process and the ports of the programs."""
        ending = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ending,))
        watcher.start()
        try:
            return self.wait()
        finally:
            ending.set()
            watcher.join()

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """The exit code."""
        return self.process.wait(deadline_s)

    def wait_until_all_gone(self, deadline_s: float) -> None:
        wait_until(lambda: not self.processes(), deadline_s, f"the end of {set(self.processes().values())}")

    def clean_up(self) -> None:
        """Kill what is left; a drill that ended as it should leaves nothing."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def _watch(self, ending: threading.Event) -> None:
        while not ending.wait(0.2):
            for pid, name in self.processes().items():
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
                except OSError:
                    continue
                if peak := re.search(r"VmHWM:\s*(\d+) kB", status):
                    self.peak_memory_kb[name] = max(self.peak_memory_kb.get(name, 0), int(peak[1]))
                self.seen_ports |= {int(port) for port in re.findall(r"tcp://127\.0\.0\.1:(\d+)", words)}
        self.seen_ports.discard(0)


def report_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "report.json").read_bytes())
    return document


def result_bytes(directory: Path) -> bytes:
    """`report.json` without `provenance`, its last field."""
    result, key, _ = (directory / "report.json").read_bytes().partition(b'\n "provenance": ')
    assert key
    return result


def replay(recording: Path, output: Path, *options: str) -> int:
    """The exit code of a replay that says nothing wrong."""
    code, _, errors, left = run_command("replay", recording, "--output", output, *options)
    assert errors == ""
    assert not left
    return code
