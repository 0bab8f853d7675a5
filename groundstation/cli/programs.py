"""The programs of a pass that the main one supervises: recorder, analysis and guard. One that died is started again."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundstation.clock import Clock, monotonic_s
from groundstation.operation.children import Child, undisturbed
from groundstation.operation.logbook import Logbook

#: A program that keeps dying is started again after 0.5, 1, 2, ... s (wall time), so often at most.
_RESTARTS, _FIRST_RESTART_S = 10, 0.5
#: A pass that is not recorded is not worth flying for long: after so many it ends.
_MOST_RESTARTS = {"acquisition": 5}


class _Job(NamedTuple):
    """A command of ours that is for `run` only, and what it is to do."""

    command: str
    about: dict[str, Any]


class Programs:
    """The programs by their names, each a `Child`."""

    def __init__(self, clock: Clock, directory: Path) -> None:
        """`directory` gets their complaints."""
        self._clock, self._directory = clock, directory
        self._jobs: dict[str, _Job] = {}
        self._children: dict[str, Child] = {}
        self._restarts: dict[str, tuple[int, float]] = {}

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    @property
    def children(self) -> Mapping[str, Child]:
        """All of them as they are now; one that is started again is another child."""
        return self._children

    def start(self, name: str, command: str, about: dict[str, Any]) -> None:
        """Start `groundstation COMMAND --job ABOUT` under a name."""
        self._jobs[name] = _Job(command, about)
        self._spawn(name)

    def wait_ready(self) -> None:
        """Until each has said its first word. Raises BadInput with the last words of one that ended instead."""
        for child in self._children.values():
            child.wait_ready()

    def keep_alive(self, name: str, logbook: Logbook | None) -> None:
        """Start a program again that died. An analysis has lost nothing, it starts again from the recording; the
        acquisition goes on in the same recording, with a gap."""
        child = self._children[name]
        if child.running or child.exit_code == 0:
            return
        restarts, not_before_s = self._restarts.get(name, (0, 0.0))
        if self.given_up(name) or monotonic_s() < not_before_s:
            return
        self._restarts[name] = (restarts + 1, monotonic_s() + _FIRST_RESTART_S * 2**restarts)
        if logbook is not None:
            logbook.event("alarm", f"{name} ended ({child.last_words()}); started again")
        child.end()
        self._spawn(name)

    def given_up(self, name: str) -> bool:
        """Whether it died once more than it is started again."""
        child, allowed = self._children[name], _MOST_RESTARTS.get(name, _RESTARTS)
        return not child.running and child.exit_code != 0 and self._restarts.get(name, (0, 0.0))[0] >= allowed

    def end(self, at_once: bool) -> None:
        """End all of them in good order, or without it."""
        for child in self._children.values():
            if at_once and child.running:
                os.kill(child.pid, signal.SIGKILL)  # a stopped analysis would write its report first
            child.end()

    def _spawn(self, name: str) -> None:
        job = self._jobs[name]
        line = [sys.executable, "-m", "groundstation.cli", job.command, "--clock", self._clock.text()]
        line += ["--job", json.dumps(job.about)]
        with undisturbed():
            self._children[name] = Child(name, line, self._directory / f"{name}.log")
