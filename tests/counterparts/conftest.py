"""Starts the simulators that the programs of others speak with."""

import json
import subprocess
import sys
import time

import pytest


@pytest.fixture
def start():
    """Start a simulator by module name and options; gives its address. It ends with the test, without a complaint."""
    programs = []

    def run(module, *options):
        command = [sys.executable, "-m", f"drivers.simulators.{module}", *map(str, options)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        line = programs[-1].stdout.readline()
        assert line, programs[-1].communicate()[1]
        return json.loads(line)["address"]

    yield run
    for program in programs:
        program.terminate()
        assert program.communicate(timeout=10)[1] == ""


@pytest.fixture
def start_serial(start):
    """The same on a pseudo-terminal; gives its path."""
    return lambda module, *options: start(module, "--pty", *options).removeprefix("serial:")


@pytest.fixture
def eventually():
    """Poll until something is true."""

    def poll(condition, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not become true in time"
            time.sleep(0.02)

    return poll
