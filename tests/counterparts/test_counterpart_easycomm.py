"""Hamlib's EasyComm II backend (`rotctl -m 202`) drives our simulator over a pseudo-terminal.

What it cannot witness: Hamlib 4.5.4 never asks `VE` by itself, reads one line for `AZ EL`, and sends no place below the
horizon. Its `w` sends a command as it stands, by which it asks for the version here.
"""

import json
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.counterpart("rotctl")


@pytest.fixture
def line():
    """The serial line of a simulator whose world runs twenty times faster."""
    clock = f"1482166140000000000:{time.monotonic_ns()}:20.0"
    command = [sys.executable, "-m", "drivers.simulators.mount_easycomm", "--pty", "--clock", clock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        yield json.loads(program.stdout.readline())["address"].removeprefix("serial:")
        program.terminate()
        program.communicate(timeout=10)


def rotctl(line, *commands, code=0):
    command = ["rotctl", "-m", "202", "-r", line, *commands]
    run = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert run.returncode == code, run
    return run.stdout.split()


def position(line):
    azimuth, elevation = map(float, rotctl(line, "p"))
    return azimuth, elevation


def wait_until_at(line, azimuth, elevation):
    deadline = time.monotonic() + 20
    while (here := position(line)) != pytest.approx((azimuth, elevation), abs=0.051):
        assert time.monotonic() < deadline, here


def test_hamlib_points_turns_and_stops_it(line) -> None:
    assert position(line) == pytest.approx((0.0, 0.0), abs=0.051)
    rotctl(line, "P", "120.5", "45.3")
    wait_until_at(line, 120.5, 45.3)
    rotctl(line, "P", "290", "10")
    rotctl(line, "S")
    rest = position(line)
    assert 121.0 < rest[0] < 289.0
    time.sleep(0.2)  # four seconds of the world: a moving rotator would be elsewhere
    assert position(line) == pytest.approx(rest, abs=0.101)
    rotctl(line, "M", "16", "50")  # to the right; the protocol has no speed
    time.sleep(0.1)
    rotctl(line, "S")
    assert position(line)[0] > rest[0] + 1.0


def test_hamlib_shows_its_version(line) -> None:
    assert "VESimulated-2.0" in rotctl(line, "w", "VE\n")
