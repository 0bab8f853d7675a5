"""`groundstation acquire` as a real process, recording a real TCP stream of counted tags, to be killed and watched."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundstation.clock import Clock
from groundstation.config import DEFAULT_CONFIG

_HERE = Path(__file__).parent
_DEADLINE_S = 60.0


class Source:
    """The tags' source: a process with a port."""

    def __init__(self, rate_hz: int) -> None:
        command = [sys.executable, str(_HERE / "a1_source.py"), str(rate_hz)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.address = f"tcp://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> None:
        self._process.communicate(timeout=_DEADLINE_S)


def station(folder: Path, address: str, **recording: object) -> Path:
    """A station file whose tagger is hardware at that address."""
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    before, _, behind = text.partition("[instruments.tagger]")
    _, _, behind = behind.partition("\n\n")
    tagger = f'[instruments.tagger]\ndriver = "tagger_tdc2"\naddress = "{address}"\n\n'
    keys = "".join(f"{name} = {value}\n" for name, value in recording.items())
    path = folder / "station.toml"
    path.write_text((before + tagger + behind).replace("[recording]\n", f"[recording]\n{keys}"), encoding="utf-8")
    return path


class Daemon:
    """One life of the daemon."""

    def __init__(self, config: Path, output: Path, *words: object, code: str = "", **environment: str) -> None:
        """`code` is run in its process before the program, to break something in it."""
        main = ["-c", code + "\nimport sys; from groundstation.cli import main; sys.exit(main())"] if code else [
            "-m", "groundstation.cli"
        ]  # fmt: skip
        line = [*main, "acquire", "--config", str(config), "--output", str(output), "--json", *map(str, words)]
        self._start(line, environment)

    def _start(self, line: list[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.statuses: list[Mapping[str, Any]] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.statuses.append(json.loads(line))

    @property
    def acknowledged(self) -> int:
        """Tags that it said are safe."""
        return max((status.get("tags", 0) for status in self.statuses), default=0)

    def wait_for_tags(self, more_than: int) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while self.acknowledged <= more_than:
            assert self.process.poll() is None, self.process.stderr.read().decode()  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "no tags came"
            time.sleep(0.002)

    def kill(self) -> None:
        """kill -9; all that it said before has been heard afterwards."""
        self.process.kill()
        self._gone()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(_DEADLINE_S)
        self._gone()
        return code

    def errors(self) -> str:
        """What it said on stderr, after its end."""
        return self._errors

    def _gone(self) -> None:
        self.process.wait(_DEADLINE_S)
        self._listener.join(_DEADLINE_S)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._errors = self.process.stderr.read().decode()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


class SupervisedDaemon(Daemon):
    """One life of the daemon as `run` starts it: told what to do by a job, and to end by SIGTERM."""

    def __init__(self, clock: Clock, job: Mapping[str, object]) -> None:
        line = ["-m", "groundstation.cli", "acquire", "--clock", clock.text(), "--job", json.dumps(job)]
        self._start(line, {})
