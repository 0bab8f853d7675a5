"""Hamlib's `rotctl` drives our simulators, and Hamlib's `rotctld` with its dummy rotator is driven by our driver.

What it cannot witness: rotctl reads the NexStar with 16 bits (20 arcsec), scales what it sends by 65535 instead of
65536 (so it is up to 20 arcsec off), and knows no rates. The iOptron model of Hamlib 4.5.4 sends `:Mountinfo#`, which
no mount answers: that it fails is part of the test of our simulator.
"""

import socket
import subprocess
import time

import pytest

from drivers.mount_rotctld import connect
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, InstrumentFault

pytestmark = pytest.mark.counterpart("rotctl", "rotctld")


@pytest.fixture
def dummy():
    """The address of Hamlib's own daemon with its dummy rotator, which turns at 6 deg/s."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["rotctld", "-m", "1", "-T", "127.0.0.1", "-t", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield f"tcp://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=10)


def rotctl(model, address, *commands, code=0):
    where = address.removeprefix("serial:").removeprefix("tcp://")
    run = subprocess.run(
        ["rotctl", "-m", str(model), "-r", where, *commands], capture_output=True, text=True, timeout=25, check=False
    )
    assert run.returncode == code, run
    return run.stdout.split()


def position(model, address):
    azimuth, elevation = map(float, rotctl(model, address, "p"))
    return azimuth, elevation


def wait_until_at(model, address, azimuth, elevation):
    deadline = time.monotonic() + 20
    while (here := position(model, address)) != pytest.approx((azimuth, elevation), abs=0.02):
        assert time.monotonic() < deadline, here


def test_rotctl_reads_points_and_stops_our_nexstar(start):
    clock = f"1482166140000000000:{time.monotonic_ns()}:20.0"
    address = start("mount_nexstar", "--pty", "--clock", clock)
    azimuth, elevation = position(1401, address)
    assert [(angle + 180) % 360 - 180 for angle in (azimuth, elevation)] == pytest.approx([0.0, 0.0], abs=0.02)
    rotctl(1401, address, "P", "120.5", "45.25")  # B55B0,202D
    wait_until_at(1401, address, 120.5, 45.25)
    rotctl(1401, address, "P", "240", "10")
    rotctl(1401, address, "S")
    rest = position(1401, address)
    assert 120.0 < rest[0] < 239.0
    time.sleep(0.2)  # four seconds of the world: a moving mount would be elsewhere
    assert position(1401, address) == pytest.approx(rest, abs=0.1)


def test_hamlibs_ioptron_model_fails_as_on_a_real_mount(start):
    rotctl(1901, start("mount_ioptron", "--pty"), "p", code=2)


def test_our_driver_drives_hamlibs_dummy_rotator(dummy):
    mount = connect(dummy, SystemClock(), {})
    try:
        assert mount.identify().model == "Hamlib rotator 1: Dummy rotator"
        assert (mount.limits.azimuth_deg, mount.limits.elevation_deg) == ((-180.0, 450.0), (0.0, 90.0))
        first = mount.read_position()
        assert (first.azimuth_deg, first.elevation_deg) == pytest.approx((0.0, 0.0), abs=0.02)
        mount.go_to(9.0, 6.0)
        assert mount.is_slewing()
        deadline = time.monotonic() + 10
        while mount.is_slewing():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        there = mount.read_position()
        assert (there.azimuth_deg, there.elevation_deg) == pytest.approx((9.0, 6.0), abs=0.5)
        mount.go_to(350.0, 6.0)  # by the nearest turn: -10 deg
        mount.stop()
        assert not mount.is_slewing()
        assert mount.read_position().azimuth_deg == pytest.approx(9.0, abs=1.0)
        with pytest.raises(BadInput, match=r"elevation is limited to 0\.\.90"):
            mount.go_to(0.0, -1.0)
        with pytest.raises(InstrumentFault, match="takes positions"):
            mount.set_rates(1.0, 1.0)
    finally:
        mount.close()


def test_rotctl_drives_our_simulated_rotctld(start):
    clock = f"1482166140000000000:{time.monotonic_ns()}:20.0"
    address = start("mount_rotctld", "--clock", clock)
    assert len(rotctl(2, address, "p")) == 2
    rotctl(2, address, "P", "30", "20")
    wait_until_at(2, address, 30.0, 20.0)
    rotctl(2, address, "P", "90", "40")
    rotctl(2, address, "S")
    rest = position(2, address)
    assert 29.0 < rest[0] < 89.0
    time.sleep(0.2)  # four seconds of the world
    assert position(2, address) == pytest.approx(rest, abs=0.1)
