"""What the programs share that `run` starts: their job, their status lines, and when to end."""

import argparse
import json
import os
import signal
import sys
import threading
from typing import Any

from groundstation.clock import Clock, clock_from_text
from groundstation.errors import BadInput


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


class Ending:
    """Set by SIGTERM and by the end of stdin, which means that the main process is gone."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.orphaned = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self.asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._watch_stdin, daemon=True).start()

    def _watch_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self.orphaned.set()
        self.asked.set()
