"""The rotation stage's simulator against the message layouts of the APT protocol, on a real pseudo-terminal."""

import json
import struct
import time

import pytest

MICROSTEPS = 409600 / 3  # per degree: QMI (QuTech), thorlabs/k10cr1.py
VELOCITY, ACCELERATION = 7329109.0, 1502.0  # per deg/s and deg/s2: the same


def short(number, one=0, two=0):
    return struct.pack("<HBBBB", number, one, two, 0x50, 0x01)


def long(number, layout, *values):
    data = struct.pack("<H" + layout, 1, *values)
    return struct.pack("<HHBB", number, len(data), 0xD0, 0x01) + data


def read_message(line, timeout_s=5.0):
    header = line.read(6, timeout_s)
    assert len(header) == 6, f"only {header!r} came"
    number, length, destination, source = struct.unpack("<HHBB", header)
    assert (destination & 0x7F, source) == (0x01, 0x50)
    return number, header, line.read(length) if destination & 0x80 else b""


def ask(line, message, number):
    line.write(message)
    found = read_message(line)
    assert found[0] == number
    return found[2]


def position_deg(line):
    channel, counts = struct.unpack("<Hl", ask(line, short(0x0411, 1), 0x0412))
    assert channel == 1
    return counts / MICROSTEPS


def status(line):
    return struct.unpack("<HL", ask(line, short(0x0429, 1), 0x042A))[1]


@pytest.fixture
def fast(start, fast_clock):
    def run(speed, *options):
        return start("rotator_apt", "--pty", "--clock", fast_clock(speed), *options).line()

    return run


def test_it_says_that_it_is_a_k10cr1(start):
    line = start("rotator_apt", "--pty").line()
    data = ask(line, short(0x0005), 0x0006)
    assert len(data) == 84  # 90 bytes with the header (QMI)
    assert struct.unpack("<I", data[:4])[0] // 1_000_000 == 55  # the serial numbers of this model
    assert data[4:12].rstrip(b"\0") == b"K10CR1"
    assert struct.unpack("<H", data[82:84]) == (1,)  # channels, the third word at 78


def test_messages_arrive_in_any_pieces_and_glued(start):
    line = start("rotator_apt", "--pty").line()
    for byte in short(0x0005):
        line.write(bytes([byte]))
    assert read_message(line)[0] == 0x0006
    line.write(short(0x0429, 1) + short(0x0411, 1) + short(0x0480, 1))
    assert [read_message(line)[0] for _ in range(3)] == [0x042A, 0x0412, 0x0481]


def test_unknown_messages_and_other_destinations_are_ignored(start):
    line = start("rotator_apt", "--pty").line()
    line.write(short(0x0999, 1) + struct.pack("<HBBBB", 0x0005, 0, 0, 0x21, 0x01) + short(0x0411, 2))
    assert line.read(1, timeout_s=0.1) == b""
    assert ask(line, short(0x0005), 0x0006)


def test_a_move_takes_the_time_of_its_trapezoid_and_reports_its_end(fast):
    line = fast(20)
    line.write(long(0x0413, "lll", 0, round(10 * ACCELERATION), round(10 * VELOCITY)))
    _, _, acceleration, velocity = struct.unpack("<Hlll", ask(line, short(0x0414, 1), 0x0415))
    assert acceleration == pytest.approx(10 * ACCELERATION, abs=1)
    assert velocity == 73291090
    began = time.monotonic()
    line.write(long(0x0453, "l", round(90 * MICROSTEPS)))
    assert status(line) & 0x10  # moving, to greater angles
    number, _, data = read_message(line)
    world_s = 20 * (time.monotonic() - began)
    assert number == 0x0464
    assert struct.unpack_from("<Hl", data) == (1, round(90 * MICROSTEPS))
    assert world_s == pytest.approx(90 / 10 + 10 / 10, abs=1.5)  # distance/rate + rate/acceleration
    assert not status(line) & 0x30
    assert position_deg(line) == pytest.approx(90.0, abs=1e-5)


def test_relative_moves_add_up_beyond_a_turn(fast):
    line = fast(1000)
    for _ in range(5):
        line.write(long(0x0448, "l", round(100 * MICROSTEPS)))
        assert read_message(line)[0] == 0x0464
    assert position_deg(line) == pytest.approx(500.0, abs=1e-4)
    line.write(long(0x0445, "l", round(-100 * MICROSTEPS)) + short(0x0448, 1))
    assert read_message(line)[0] == 0x0464
    assert position_deg(line) == pytest.approx(400.0, abs=1e-4)


def test_homing_finds_the_index_and_makes_it_zero(fast):
    line = fast(200)
    assert not status(line) & 0x400
    line.write(short(0x0443, 1))
    assert status(line) & 0x200
    number, header, _ = read_message(line, 10.0)
    assert (number, header[2]) == (0x0444, 1)
    assert status(line) & 0x600 == 0x400
    assert position_deg(line) == 0.0
    line.write(long(0x0453, "l", round(720 * MICROSTEPS)))
    assert read_message(line, 10.0)[0] == 0x0464
    line.write(short(0x0443, 1))  # the index is there at every turn, so nothing is left to go
    assert read_message(line)[0] == 0x0444
    assert position_deg(line) == 0.0


@pytest.mark.parametrize("mode", [1, 2])
def test_a_stop_ends_any_motion(fast, mode):
    line = fast(10)
    line.write(short(0x0457, 1, 2))  # turn for ever, backwards
    while not status(line) & 0x20:
        pass
    line.write(short(0x0465, 1, mode))
    assert read_message(line)[0] == 0x0466
    assert not status(line) & 0x30
    resting = position_deg(line)
    assert resting < 0
    assert position_deg(line) == resting


def test_a_disabled_channel_does_not_move(fast):
    line = fast(1000)
    line.write(short(0x0210, 1, 2))
    line.write(short(0x0211, 1))
    assert read_message(line)[1][2:4] == b"\x01\x02"
    line.write(long(0x0453, "l", 1000))
    assert line.read(1, timeout_s=0.1) == b""
    assert not status(line) & 0x80000000


def test_the_counter_can_be_set_and_parameters_read_back(start):
    line = start("rotator_apt", "--pty").line()
    line.write(long(0x0410, "l", -123456))
    assert struct.unpack("<Hl", ask(line, short(0x0411, 1), 0x0412))[1] == -123456
    line.write(long(0x0440, "HHll", 1, 4, 1000, 2000))
    assert ask(line, short(0x0441, 1), 0x0442) == struct.pack("<HHHll", 1, 1, 4, 1000, 2000)
    line.write(long(0x043A, "l", 77))
    assert ask(line, short(0x043B, 1), 0x043C) == struct.pack("<Hl", 1, 77)


def test_status_updates_come_unasked_until_they_are_switched_off(fast):
    line = fast(20)
    line.write(short(0x0011))
    assert [read_message(line)[0] for _ in range(3)] == [0x0481] * 3
    line.write(short(0x0012))
    while line.read(1, timeout_s=0.2):
        pass
    assert ask(line, short(0x0005), 0x0006)


def test_reports_of_ends_can_be_suspended(fast):
    line = fast(1000)
    line.write(short(0x046B) + long(0x0453, "l", round(MICROSTEPS)))
    assert line.read(1, timeout_s=0.2) == b""
    assert position_deg(line) == pytest.approx(1.0, abs=1e-5)


def test_its_faults(fast):
    faulty = json.dumps({"special": ["stuck"]})
    line = fast(1000, "--faults", faulty)
    line.write(long(0x0453, "l", round(MICROSTEPS)))
    assert line.read(1, timeout_s=0.1) == b""
    assert status(line) & 0x4000
    assert position_deg(line) == 0.0

    line = fast(1000, "--faults", json.dumps({"special": ["no_index"]}))
    line.write(short(0x0443, 1))
    assert line.read(1, timeout_s=0.2) == b""  # 200 s of the world: more than a turn
    assert status(line) & 0x200

    line = fast(1000, "--faults", json.dumps({"special": ["short_completion"], "unsolicited_every": 2}))
    line.write(long(0x0453, "l", round(MICROSTEPS)))
    number, header, data = read_message(line)
    assert (number, header[2], data) == (0x0464, 1, b"")
    line.write(short(0x0411, 1))
    assert [read_message(line)[0] for _ in range(2)] == [0x0481, 0x0412]

    line = fast(1, "--faults", json.dumps({"wrong_model": True}))
    assert b"K10CR1" not in ask(line, short(0x0005), 0x0006)
