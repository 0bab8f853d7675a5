"""Clients of others drive our HTTP simulators: `pwi` the PWI4, `alpyca` the Alpaca mount and dome.

What they cannot witness: pwi knows no offsets but to read them, its own `is_slewing` and `is_tracking` never turn true
(they need a state that nothing sets), and it takes a status with missing keys for whole; alpyca
speaks to one device at a time and never leaves out a parameter, so the answers to bad requests are tested elsewhere.
"""

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from groundstation.clock import SimulatedClock, monotonic_ns

pytestmark = pytest.mark.counterpart("pwi", "alpaca")

T0_NS = 1_482_166_140_000_000_000
ISS = (
    "ISS (ZARYA)",
    "1 25544U 98067A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927",
    "2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391563537",
)
"""The element set of the format's description in Wikipedia, of 2008-09-20T12:25:40Z."""


@pytest.fixture
def start():
    """Host and port of a simulator that ends with the test, and its clock."""
    programs = []

    def start_program(module, speed=1.0, t0_ns=T0_NS):
        clock = SimulatedClock(t0_ns, monotonic_ns(), speed)
        command = [sys.executable, "-m", f"drivers.simulators.{module}", "--clock", clock.text()]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        host, port = json.loads(programs[-1].stdout.readline())["address"].removeprefix("http://").split(":")
        return host, int(port), clock

    yield start_program
    for program in programs:
        program.terminate()
        assert program.communicate(timeout=10)[1] == ""


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


@pytest.fixture
def pwi_mount():
    """A function from host and port to a mount of `pwi`; its connections are closed at the end."""
    import pwi

    clients = []

    def connected(host, port):
        clients.append(pwi.PlaneWaveHTTPXClient(host, port, 3.0))
        parameters = pwi.PlaneWaveMountDeviceParameters(
            name="mount", description="simulated", alignment=pwi.BaseMountAlignmentMode.ALT_AZ
        )
        mount = pwi.PlaneWaveMountDeviceInterface(id=0, params=parameters, client=clients[-1])
        mount.initialise()
        return mount

    yield connected
    for client in clients:
        client.close()


def test_pwi_connects_slews_and_reads_where_the_mount_is(start, pwi_mount):
    host, port, _ = start("mount_pwi4", speed=20.0)
    mount = pwi_mount(host, port)
    assert mount.is_connected()
    assert mount.get_axis(0).is_enabled
    assert mount.get_axis(1).is_enabled
    assert mount.get_driver_version() == (4, 0, 13)
    assert mount.get_site().latitude == pytest.approx(40.39587)
    asyncio.run(mount.slew_to_topocentric_coordinate({"alt": 45.0, "az": 100.0, "at": datetime.now(tz=UTC)}))
    wait_until(lambda: not mount.get_status().is_slewing)
    assert mount.get_altitude() == pytest.approx(45.0, abs=0.03)
    assert mount.get_azimuth() == pytest.approx(100.0, abs=0.03)
    mount.disconnect()


def test_pwi_uploads_a_path_and_the_mount_is_on_it(start, pwi_mount):
    """pwi drops points of the past by the clock of the machine, so the world's clock is set to that."""
    host, port, clock = start("mount_pwi4", t0_ns=time.time_ns())
    mount = pwi_mount(host, port)
    zero = datetime.now(tz=UTC) + timedelta(seconds=1)
    for second in range(20):
        mount.add_horizontal_coordinate_to_path(
            {"alt": 1.0 + 0.2 * second, "az": 2.0 + 0.4 * second, "at": zero + timedelta(seconds=second)}
        )
    points = asyncio.run(mount.slew_through_horizontal_coordinates_path())
    assert len(points) == 20
    wait_until(lambda: mount.get_status().is_tracking and clock.utc_ns() / 1e9 > zero.timestamp() + 1.0)
    status = mount.get_status()
    assert abs((status.utc - datetime.now(tz=UTC)).total_seconds()) < 1.0
    seconds = (status.utc - zero).total_seconds()
    assert status.horizontal_coordinate["az"] == pytest.approx(2.0 + 0.4 * seconds, abs=0.03)
    assert status.horizontal_coordinate["alt"] == pytest.approx(1.0 + 0.2 * seconds, abs=0.03)
    mount.abort_slew()
    assert not mount.get_status().is_tracking


def test_pwi_has_it_follow_an_element_set(start, pwi_mount):
    host, port, _ = start("mount_pwi4", speed=20.0, t0_ns=1_221_913_540_000_000_000)
    mount = pwi_mount(host, port)
    assert mount.slew_to_and_follow_tle("\n".join(ISS))
    wait_until(lambda: mount.get_status().is_tracking)
    mount.disconnect()


def test_alpyca_connects_slews_and_turns_the_mount_by_rates(start):
    from alpaca import exceptions
    from alpaca import telescope as telescope_module

    host, port, _ = start("mount_alpaca", speed=20.0)
    mount = telescope_module.Telescope(f"{host}:{port}", 0)
    axis = telescope_module.TelescopeAxes
    with pytest.raises(exceptions.NotConnectedException):
        _ = mount.Azimuth
    mount.Connected = True
    assert mount.Connected
    assert mount.CanMoveAxis(axis.axisPrimary)
    assert not mount.CanMoveAxis(axis.axisTertiary)
    assert mount.AxisRates(axis.axisPrimary)[0].Maximum == 4.5
    assert abs(mount.UTCDate.timestamp() * 1e9 - T0_NS) < 600e9
    mount.SlewToAltAzAsync(120.0, 45.0)
    assert mount.Slewing
    wait_until(lambda: not mount.Slewing)
    assert mount.Azimuth == pytest.approx(120.0, abs=0.01)
    assert mount.Altitude == pytest.approx(45.0, abs=0.01)
    mount.MoveAxis(axis.axisPrimary, 0.5)
    wait_until(lambda: mount.Azimuth > 121.0)
    mount.MoveAxis(axis.axisPrimary, 0.0)
    wait_until(lambda: not mount.Slewing)
    with pytest.raises(exceptions.InvalidValueException):
        mount.MoveAxis(axis.axisPrimary, 50.0)
    with pytest.raises(exceptions.NotImplementedException):
        _ = mount.SideOfPier
    mount.Park()
    wait_until(lambda: mount.AtPark)
    with pytest.raises(exceptions.ParkedException):
        mount.SlewToAltAzAsync(10.0, 20.0)


def test_alpyca_turns_the_dome_and_opens_its_shutter(start):
    from alpaca import dome as dome_module
    from alpaca import management

    host, port, _ = start("dome_alpaca", speed=20.0)
    (device,) = management.configureddevices(f"{host}:{port}")
    assert (device["DeviceType"], device["DeviceNumber"]) == ("Dome", 0)
    dome, state = dome_module.Dome(f"{host}:{port}", 0), dome_module.ShutterState
    dome.Connected = True
    assert dome.ShutterStatus == state.shutterClosed
    dome.OpenShutter()
    assert dome.ShutterStatus == state.shutterOpening
    dome.SlewToAzimuth(270.0)
    assert dome.Slewing
    wait_until(lambda: not dome.Slewing)
    assert dome.ShutterStatus == state.shutterOpen
    assert dome.Azimuth == pytest.approx(270.0)
