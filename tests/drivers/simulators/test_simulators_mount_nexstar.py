"""The NexStar simulator, spoken to with the bytes of the manual and of INDI's unit test."""

import shutil
import subprocess
import time

import numpy as np
import pytest

from groundstation.simulation.blackboard import Blackboard

STOP_AZIMUTH = b"P\x02\x10\x24\x00\x00\x00\x00"


@pytest.fixture
def board_file(tmp_path):
    Blackboard.create(tmp_path / "world")
    return tmp_path / "world"


@pytest.fixture(scope="module")
def at_rest(start_shared):
    """A mount for the tests that do not move it."""
    return start_shared("mount_nexstar")


def hex_degrees(word):
    return int(word, 16) / 16 ** len(word) * 360.0


def angles(line):
    reply = line.ask(b"z", 18)
    assert reply[8:9] == b","
    assert reply[17:] == b"#"
    return hex_degrees(reply[:8]), hex_degrees(reply[9:17])


def test_the_start_up_of_indi_is_answered_as_the_manual_says(at_rest):
    """The order of indi_celestron_gps 1.9.9; there is no focuser, so its version fails with one byte more."""
    line = at_rest.line()
    for request, reply in [
        (b"Kx", b"x#"),
        (b"V", b"\x04\x29#"),
        (b"v", b"\x11#"),
        (b"m", b"\x07#"),
        (b"P\x01\x10\xfe\x00\x00\x00\x02", b"\x05\x07#"),
        (b"P\x01\x11\xfe\x00\x00\x00\x02", b"\x03\x26#"),
        (b"P\x01\x12\xfe\x00\x00\x00\x04", b"\x00\x00\x00\x00\x00#"),
        (b"Kx", b"x#"),
        (b"t", b"\x00#"),
        (b"J", b"\x01#"),
        (b"L", b"0#"),
        (b"p", b"W#"),
    ]:
        assert line.ask(request, len(reply)) == reply
    assert line.read(1, timeout_s=0.05) == b""


def test_a_goto_of_indis_test_vector_arrives_at_45_45(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(50)).line()
    assert line.ask(b"B2000,2000", 1) == b"#"
    assert line.ask(b"L", 2) == b"1#"
    assert line.ask(b"P\x01\x10\x13\x00\x00\x00\x01", 2) == b"\x00#"
    deadline = time.monotonic() + 5
    while line.ask(b"L", 2) != b"0#":
        assert time.monotonic() < deadline
    assert line.ask(b"P\x01\x10\x13\x00\x00\x00\x01", 2) == b"\xff#"
    assert angles(line) == pytest.approx((45.0, 45.0), abs=0.001)
    coarse = line.ask(b"Z", 10)
    assert (coarse[4:5], coarse[9:]) == (b",", b"#")
    assert hex_degrees(coarse[:4]) == pytest.approx(45.0, abs=0.006)
    assert abs(int.from_bytes(line.ask(b"P\x01\x11\x01\x00\x00\x00\x03", 4)[:3], "big") - (1 << 21)) < 30


def test_the_precise_reply_carries_24_bits(at_rest):
    line = at_rest.line()
    reply = line.ask(b"z", 18)
    assert reply[6:8] == reply[15:17] == b"00"


def test_every_form_of_goto_moves_both_axes(start, fast_clock, eventually):
    line = start("mount_nexstar", "--clock", fast_clock(50)).line()
    for goto, there in [
        (b"b20000000,20000000", (45.0, 45.0)),
        (b"R4000,1000", (90.0, 22.5)),
        (b"r20000000,20000000", (45.0, 45.0)),
        (b"P\x04\x10\x02\x10\x00\x00\x00", (22.5, 45.0)),
        (b"P\x03\x11\x17\x1f\x00\x00\x00", (22.5, 43.59375)),
    ]:
        assert line.ask(goto, 1) == b"#"
        eventually(lambda: line.ask(b"L", 2) == b"0#")
        assert angles(line) == pytest.approx(there, abs=0.001)


def test_a_goto_below_the_horizon_is_a_negative_elevation_and_ends_at_the_limit(start, fast_clock, eventually):
    line = start("mount_nexstar", "--clock", fast_clock(50)).line()
    assert line.ask(b"BC000,C000", 1) == b"#"
    eventually(lambda: line.ask(b"L", 2) == b"0#")
    assert angles(line) == pytest.approx((270.0, 355.0), abs=0.001)


def test_a_sync_shifts_right_ascension_and_declination_only(start):
    line = start("mount_nexstar").line()
    assert line.ask(b"S2000,2000", 1) == b"#"
    assert hex_degrees(line.ask(b"e", 18)[:8]) == pytest.approx(45.0, abs=0.001)
    assert min(angles(line)[0], 360 - angles(line)[0]) < 0.001
    assert line.ask(b"u", 1) == b"#"
    right_ascension = hex_degrees(line.ask(b"E", 10)[:4])
    assert min(right_ascension, 360 - right_ascension) < 0.01


def test_a_variable_rate_turns_the_telescope_at_that_rate_for_ever(start, fast_clock, board_file, eventually):
    clock = fast_clock(20)
    program = start("mount_nexstar", "--clock", clock, "--world", board_file)
    line, board = program.line(), Blackboard.open(board_file)
    t0, m0, speed = clock.split(":")
    # 1000.25 arcsec/s x 4 = 4001 = 0x0FA1, azimuth positive; elevation 0.5 arcsec/s x 4 = 2, negative
    assert line.ask(b"P\x03\x10\x06\x0f\xa1\x00\x00", 1) == b"#"
    assert line.ask(b"P\x03\x11\x07\x00\x02\x00\x00", 1) == b"#"

    def utc_ns():
        return int(t0) + round(float(speed) * (time.monotonic_ns() - int(m0)))

    start_ns = utc_ns() + 200_000_000
    eventually(lambda: utc_ns() > start_ns + 4_000_000_000)
    times = start_ns + np.array([0, 4_000_000_000])
    azimuth, elevation = board.pointing_deg(times)
    assert (azimuth[1] - azimuth[0]) * 3600 == pytest.approx(4001.0, abs=0.01)
    assert (elevation[1] - elevation[0]) * 3600 == pytest.approx(-2.0, abs=0.01)
    assert line.ask(STOP_AZIMUTH, 1) == b"#"
    eventually(lambda: board.pointing_deg(np.array([2**62]))[0][0] < 360.0)


def test_the_guards_line_stops_what_the_main_line_started(start, fast_clock, board_file, eventually):
    program = start("mount_nexstar", "--clock", fast_clock(10), "--world", board_file)
    main, guard, board = program.line(), program.line("guard_address"), Blackboard.open(board_file)
    assert main.ask(b"P\x02\x10\x24\x09\x00\x00\x00", 1) == b"#"
    eventually(lambda: angles(guard)[0] > 1.0)
    assert guard.ask(STOP_AZIMUTH, 1) == b"#"
    far = np.array([2**61, 2**61 + 10**12])
    eventually(lambda: np.ptp(board.pointing_deg(far)[0]) == 0.0)


def test_an_encoder_reading_is_of_the_moment_between_the_questions_byte_and_the_answers_bytes(
    start, fast_clock, board_file
):
    clock = fast_clock(1)
    line = start("mount_nexstar", "--clock", clock, "--world", board_file).line()
    board = Blackboard.open(board_file)
    t0, m0, _ = clock.split(":")
    line.ask(b"P\x03\x10\x06\x38\x40\x00\x00", 1)  # 1 deg/s
    line.read(1, timeout_s=0.3)
    errors = []
    for _ in range(20):
        asked_ns = time.monotonic_ns()
        azimuth_deg = angles(line)[0]
        on_line_ns = 17 * 10 * 10**9 // 9600  # the answer has 17 bytes more than the question, 10 bits each
        middle_ns = int(t0) + (asked_ns + time.monotonic_ns() - on_line_ns) // 2 - int(m0)
        errors.append(azimuth_deg - board.pointing_deg(np.array([middle_ns]))[0][0])
    assert abs(np.median(errors)) < 0.002  # 2 ms at 1 deg/s; half the time on the line would be 0.009


def test_cancel_stops_a_goto_but_not_a_rate(start, board_file, eventually):
    program = start("mount_nexstar", "--world", board_file)
    line, board = program.line(), Blackboard.open(board_file)
    line.ask(b"B8000,0000", 1)
    line.ask(b"P\x03\x11\x06\x0e\x10\x00\x00", 1)  # 0.25 deg/s
    assert line.ask(b"M", 1) == b"#"
    assert line.ask(b"L", 2) == b"0#"
    far = np.array([10**18 * 2, 10**18 * 2 + 4 * 10**9])
    eventually(lambda: np.ptp(board.pointing_deg(far)[0]) == 0.0)
    eventually(lambda: np.ptp(board.pointing_deg(far)[1]) == pytest.approx(1.0))


def test_the_time_of_the_manuals_example_is_kept(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(1)).line()
    example = bytes((8, 35, 43, 12, 18, 17, 254, 0))  # 2017-12-18 10:35:43 UTC, offset -2
    assert line.ask(b"H" + example, 1) == b"#"
    kept = line.ask(b"h", 9)
    assert kept[:2] + kept[3:] == example[:2] + example[3:] + b"#"
    assert kept[2] in (43, 44)
    assert line.ask(b"i", 9)[6] == 256 - 8


def test_an_unset_clock_shows_the_worlds_utc(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(1, utc_ns=1_482_166_140_500_000_000)).line()
    assert line.ask(b"h", 9)[:2] + line.ask(b"h", 9)[3:] == bytes((16, 49, 12, 19, 16, 0, 0)) + b"#"


def test_location_and_tracking_mode_are_kept(at_rest):
    line = at_rest.line()
    example = bytes((40, 25, 0, 0, 3, 42, 1, 1))  # latitude 40.4167, longitude -3.7003
    assert line.ask(b"W" + example, 1) == b"#"
    assert line.ask(b"w", 9) == example + b"#"
    assert line.ask(b"T\x01", 1) == b"#"
    assert line.ask(b"t", 2) == b"\x01#"
    assert line.ask(b"x", 1) + line.ask(b"y", 1) + line.ask(b"Y", 1) == b"###"


def test_a_hash_inside_a_binary_reply_is_data(at_rest):
    line = at_rest.line()
    assert line.ask(b"W" + b"#" * 8, 1) == b"#"
    assert line.ask(b"w", 9) == b"#########"
    assert line.ask(b"K#", 2) == b"##"


def test_requests_are_told_apart_by_length_alone(at_rest):
    """Glued together, cut anywhere, with a byte of noise between them."""
    line = at_rest.line()
    line.write(b"Kx\xffKyVP\x01")
    assert line.read(7) == b"x#y#\x04\x29#"
    line.write(b"\x10\xfe\x00\x00\x00\x02?Kz")
    assert line.read(5) == b"\x05\x07#z#"
    assert line.read(1, timeout_s=0.05) == b""


def test_an_unfinished_request_is_forgotten_in_time(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(50)).line()
    line.write(b"B20")
    assert line.read(1, timeout_s=0.2) == b""  # ten seconds of the world
    assert line.ask(b"Kx", 2) == b"x#"


def test_a_failed_pass_through_has_one_zero_byte_more(at_rest):
    line = at_rest.line()
    for request in (
        b"P\x01\xb0\xfe\x00\x00\x00\x02",  # no GPS receiver
        b"P\x01\x10\x99\x00\x00\x00\x02",  # no such command
        b"P\x01\x10\x06\x00\x00\x00\x02",  # a rate without its data
    ):
        assert line.ask(request, 4) == b"\x00\x00\x00#"


def test_angles_that_are_not_hexadecimal_are_ignored(at_rest):
    line = at_rest.line()
    line.write(b"Bxyz!,2000Kx")
    assert line.read(2) == b"x#"
    assert line.ask(b"L", 2) == b"0#"


@pytest.mark.skipif(shutil.which("rotctl") is None, reason="needs Hamlib's rotctl (Debian: libhamlib-utils)")
def test_hamlib_points_the_telescope(start, fast_clock, eventually):
    """Hamlib's own scaling (65535 for 65536) leaves up to 0.01 degrees."""
    program = start("mount_nexstar", "--clock", fast_clock(50))

    def rotctl(*command):
        path = program.ready["address"].removeprefix("serial:")
        call = ["rotctl", "-m", "1401", "-r", path, *command]
        return subprocess.run(call, capture_output=True, text=True, timeout=20, check=True).stdout.split()

    rotctl("P", "120.5", "45.25")
    eventually(lambda: program.line().ask(b"L", 2) == b"0#")
    assert [float(angle) for angle in rotctl("p")] == pytest.approx([120.5, 45.25], abs=0.02)
    rotctl("P", "10", "20")
    rotctl("S")
    assert program.line().ask(b"L", 2) == b"0#"
