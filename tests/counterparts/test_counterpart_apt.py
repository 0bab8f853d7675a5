"""An independent codec of the APT protocol, thorlabs-apt-protocol, speaks with our simulated rotation stage."""

import json
import subprocess
import sys
import time

import pytest
import serial

pytestmark = pytest.mark.counterpart("thorlabs_apt_protocol")

STAGE, HOST, CHANNEL = 0x50, 0x01, 1
MICROSTEPS = 409600 / 3


@pytest.fixture
def apt():
    import thorlabs_apt_protocol

    return thorlabs_apt_protocol


@pytest.fixture
def stage():
    """The serial line of a simulated stage in a world 200 times faster."""
    command = [sys.executable, "-m", "drivers.simulators.rotator_apt", "--pty"]
    command += ["--clock", f"1482166140000000000:{time.monotonic_ns()}:200.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        path = json.loads(program.stdout.readline())["address"].removeprefix("serial:")
        with serial.Serial(path, 115200, timeout=0.05) as line:
            yield line
        program.terminate()


def receive(unpacker, name):
    """The next message of that name; the others that come before it are skipped, as every client of APT does."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        for message in unpacker:
            if message.msg == name:
                return message
    raise AssertionError(f"no {name} came in time")


def test_identity_homing_moves_stops_and_status(stage, apt):
    unpacker = apt.Unpacker(stage, on_error="raise")
    stage.write(apt.hw_req_info(STAGE, HOST))
    info = receive(unpacker, "hw_get_info")
    assert info.model_number.rstrip(b"\0") == b"K10CR1"
    assert (info.nchs, info.serial_number // 1_000_000) == (1, 55)

    stage.write(apt.mot_move_home(STAGE, HOST, CHANNEL))
    assert receive(unpacker, "mot_move_homed").chan_ident == CHANNEL
    stage.write(apt.mot_req_statusupdate(STAGE, HOST, CHANNEL))
    bits = receive(unpacker, "mot_get_statusupdate")
    assert bits.position == 0
    assert bits.homed
    assert not bits.homing

    stage.write(apt.mot_move_absolute(STAGE, HOST, CHANNEL, round(45 * MICROSTEPS)))
    stage.write(apt.mot_req_statusupdate(STAGE, HOST, CHANNEL))
    moving = receive(unpacker, "mot_get_statusupdate")
    assert moving.moving_forward
    assert not moving.moving_reverse
    assert receive(unpacker, "mot_move_completed").position == round(45 * MICROSTEPS)

    stage.write(apt.mot_move_relative(STAGE, HOST, CHANNEL, round(-22.5 * MICROSTEPS)))
    assert receive(unpacker, "mot_move_completed").position == pytest.approx(22.5 * MICROSTEPS, abs=2)

    stage.write(apt.mot_move_velocity(STAGE, HOST, CHANNEL, 1))
    stage.write(apt.mot_move_stop(STAGE, HOST, CHANNEL, 2))
    receive(unpacker, "mot_move_stopped")
    stage.write(apt.mot_req_poscounter(STAGE, HOST, CHANNEL))
    assert receive(unpacker, "mot_get_poscounter").position > 22.5 * MICROSTEPS


def test_parameters_make_the_round(stage, apt):
    unpacker = apt.Unpacker(stage, on_error="raise")
    stage.write(apt.mot_set_velparams(STAGE, HOST, CHANNEL, 0, 15020, 73291090))
    stage.write(apt.mot_req_velparams(STAGE, HOST, CHANNEL))
    found = receive(unpacker, "mot_get_velparams")
    assert (found.acceleration, found.max_velocity) == (15020, 73291090)
    stage.write(apt.mot_set_homeparams(STAGE, HOST, CHANNEL, 2, 1, 36645545, 4096))
    stage.write(apt.mot_req_homeparams(STAGE, HOST, CHANNEL))
    home = receive(unpacker, "mot_get_homeparams")
    assert (home.home_dir, home.limit_switch, home.home_velocity, home.offset_distance) == (2, 1, 36645545, 4096)
