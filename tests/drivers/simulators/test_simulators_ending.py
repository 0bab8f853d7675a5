"""A simulator ends quietly, however often and in whatever moment of its end it is told to."""

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("program", ["tagger_tdc2", "tagger_id900", "detector_spd"])
def test_more_signals_while_it_ends_change_nothing(program):
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-m", f"drivers.simulators.{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert b"ready" in process.stdout.readline()
            while process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert (process.returncode, process.stderr.read()) == (0, b"")
