"""The iOptron simulator, spoken to with the bytes of INDI's `ioptronv3driver.cpp` and of the vendor's document 3.10."""

import time

import pytest

DEGREE = 360_000  # of 0.01 arcsec


@pytest.fixture(scope="module")
def at_rest(start_shared):
    """A mount for the tests that do not move it."""
    return start_shared("mount_ioptron")


def angles(line):
    """Azimuth and altitude of `:GAC#`."""
    reply = line.ask(b":GAC#", 19)
    assert reply[0:1] in b"+-"
    assert reply[18:] == b"#"
    return int(reply[9:18]) / DEGREE, int(reply[:9]) / DEGREE


def state(line):
    return int(line.ask(b":GLS#", 24)[18:19])


def go_to(line, azimuth, altitude):
    assert line.ask(b":Sz%09d#" % round(azimuth * DEGREE), 1) == b"1"
    assert line.ask(b":Sa%+09d#" % round(altitude * DEGREE), 1) == b"1"
    return line.ask(b":MSS#", 1)


def test_the_start_up_of_indi_is_answered_in_its_lengths(at_rest):
    line = at_rest.line()
    assert line.ask(b":MountInfo#", 4) == b"5035"  # without #
    assert line.ask(b":MountInfo#", 4) == b"5035"
    assert line.ask(b":FW1#", 13) == b"210105210105#"
    assert line.ask(b":FW2#", 13)[12:] == b"#"
    assert line.ask(b":AG#", 5) == b"5050#"
    time_reply = line.ask(b":GUT#", 19)
    assert time_reply[:5] == b"+0000"
    since_2000_s = int(time_reply[5:18]) / 1000
    assert since_2000_s == pytest.approx(time.time() - 946_728_000, abs=1.0)
    status = line.ask(b":GLS#", 24)
    assert status[23:] == b"#"
    assert int(status[:9]) / DEGREE == pytest.approx(117.57722, abs=1e-5)
    assert int(status[9:17]) / DEGREE - 90 == pytest.approx(40.39587, abs=1e-5)
    assert status[17:23] == b"200521"  # stopped, sidereal, arrows at 64x (after power up), its own clock, north
    assert line.ask(b":GMT#", 4) == b"010#"
    assert line.ask(b":SPA000000000#", 1) == b"1"
    assert line.ask(b":SPH14542513#", 1) == b"1"
    assert line.ask(b":GPE#", 1) in (b"0", b"1")
    coordinates = line.ask(b":GEP#", 21)
    assert coordinates[20:] == b"#"
    assert int(coordinates[:9]) / DEGREE == pytest.approx(90 - 40.39587, abs=0.001)  # at azimuth 0, altitude 0


def test_case_matters_and_an_unknown_command_is_not_answered(at_rest):
    line = at_rest.line()
    line.write(b":Mountinfo#:foo#")
    assert line.read(1, timeout_s=0.2) == b""
    assert line.ask(b":MountInfo#", 4) == b"5035"


def test_a_slew_to_altitude_and_azimuth_arrives_and_stops(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(30)).line()
    assert go_to(line, 120.5, 45.25) == b"1"
    assert state(line) == 2
    eventually(lambda: state(line) == 0)
    assert angles(line) == pytest.approx((120.5, 45.25), abs=0.001)
    assert go_to(line, 120.5, -10.0) == b"0"  # below the altitude limit
    assert line.ask(b":SAL-15#", 1) == b"1"
    assert go_to(line, 120.5, -4.0) == b"1"


@pytest.mark.slow
def test_after_a_slew_to_the_stars_it_tracks_them(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(30)).line()
    go_to(line, 150.0, 40.0)
    eventually(lambda: state(line) == 0)
    here = line.ask(b":GEP#", 21)
    declination, ascension = here[:9], int(here[9:18])
    assert line.ask(b":SRA%09d#" % ascension, 1) == b"1"
    assert line.ask(b":Sd%s#" % declination, 1) == b"1"
    assert line.ask(b":MS1#", 1) == b"1"
    eventually(lambda: state(line) == 1)
    before = angles(line)
    eventually(lambda: angles(line)[0] - before[0] > 0.2)  # the stars move west
    later = line.ask(b":GEP#", 21)
    assert abs(int(later[9:18]) - ascension) / 100 < 5.0  # arcsec
    assert abs(int(later[:9]) - int(declination)) / 100 < 5.0
    assert line.ask(b":ST0#", 1) == b"1"
    assert state(line) == 0


def test_the_arrows_move_without_an_answer_until_they_are_let_go(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(20)).line()
    assert line.ask(b":SR9#", 1) == b"1"
    line.write(b":mn#")
    line.write(b":me#")
    eventually(lambda: angles(line)[1] > 5.0)
    assert line.ask(b":qD#", 1) == b"1"
    assert line.ask(b":qR#", 1) == b"1"
    rest = angles(line)
    eventually(lambda: angles(line) == pytest.approx(angles(line), abs=0.001))
    assert rest[0] > 4.0


def test_beyond_the_zenith_the_altitude_reads_as_on_the_other_side(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(30)).line()
    line.write(b":SR9#:mn#")
    assert line.read(1) == b"1"
    eventually(lambda: angles(line)[1] > 89.0)
    eventually(lambda: angles(line)[1] < 86.0)  # its stop is at 95
    assert angles(line)[1] == pytest.approx(85.0, abs=1.0)


def test_a_parked_mount_refuses_to_slew_until_it_is_unparked(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(30)).line()
    line.ask(b":SPA003600000#", 1)
    line.ask(b":SPH01800000#", 1)
    assert line.ask(b":MP1#", 1) == b"1"
    eventually(lambda: state(line) == 6)
    assert angles(line) == pytest.approx((10.0, 5.0), abs=0.001)
    assert go_to(line, 20.0, 20.0) == b"0"
    assert line.ask(b":MP0#", 1) == b"1"
    assert go_to(line, 20.0, 20.0) == b"1"


def test_a_stop_ends_a_slew(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(10)).line()
    go_to(line, 180.0, 60.0)
    eventually(lambda: angles(line)[1] > 2.0)
    assert line.ask(b":Q#", 1) == b"1"
    eventually(lambda: angles(line) == pytest.approx(angles(line), abs=0.001))
    assert angles(line)[1] < 55.0
    assert state(line) == 0


@pytest.mark.parametrize(
    ("command", "question", "answer"),
    [
        (b":SR9#", b":GLS#", b"9"),
        (b":MSR7#", b":GSR#", b"7#"),
        (b":SPA003600000#:SPH01800000#", b":GPC#", b"01800000003600000#"),  # altitude first
        (b":RR10500#", b":GTR#", b"10500#"),
    ],
)
def test_what_was_set_reads_back(at_rest, command, question, answer):
    line = at_rest.line()
    assert line.ask(command, command.count(b"#")).strip(b"1") == b""
    if question == b":GLS#":
        assert line.ask(question, 24)[20:21] == answer
    else:
        assert line.ask(question, len(answer)) == answer


def test_a_stop_leaves_tracking_as_it_was(start, fast_clock, eventually):
    line = start("mount_ioptron", "--clock", fast_clock(10)).line()
    go_to(line, 170.0, 40.0)
    eventually(lambda: state(line) == 0)
    assert line.ask(b":ST1#", 1) == b"1"
    assert line.ask(b":Q#", 1) == b"1"
    assert state(line) == 1
    go_to(line, 100.0, 60.0)
    assert state(line) == 2
    assert line.ask(b":Q#", 1) == b"1"
    assert state(line) == 1
    assert line.ask(b":ST0#", 1) == b"1"
    assert state(line) == 0


def test_the_runaway_of_azimuth_0_from_the_east_never_arrives(start, fast_clock, eventually):
    options = ("--clock", fast_clock(30), "--faults", '{"special": ["az0_runaway"]}')
    line = start("mount_ioptron", *options).line()
    go_to(line, 90.0, 20.0)
    eventually(lambda: state(line) == 0)
    go_to(line, 0.0, 20.0)
    eventually(lambda: angles(line)[0] > 300.0)  # past zero and on
    assert state(line) == 2
    line.ask(b":Q#", 1)
    assert state(line) == 0
    go_to(line, 1 / DEGREE, 20.0)  # Hamlib's way round it
    eventually(lambda: state(line) == 0)
    assert (angles(line)[0] + 180.0) % 360.0 == pytest.approx(180.0, abs=0.001)


def test_the_runaway_from_the_west_comes_with_the_next_move(start, fast_clock, eventually):
    options = ("--clock", fast_clock(30), "--faults", '{"special": ["az0_runaway"]}')
    line = start("mount_ioptron", *options).line()
    go_to(line, 300.0, 20.0)
    eventually(lambda: state(line) == 0)
    go_to(line, 0.0, 20.0)
    eventually(lambda: state(line) == 0)
    go_to(line, 10.0, 20.0)
    eventually(lambda: 100.0 < angles(line)[0] < 300.0)
    assert state(line) == 2


def test_the_altitude_limit_may_refuse_altitude_0(start):
    line = start("mount_ioptron", "--faults", '{"special": ["altitude_limit"]}').line()
    assert go_to(line, 20.0, 0.0) == b"0"
    assert line.ask(b":SAL-01#", 1) == b"1"
    assert go_to(line, 20.0, 0.0) == b"1"


def test_the_guard_has_a_line_of_its_own_and_the_wrong_model_is_another(start):
    program = start("mount_ioptron", "--faults", '{"wrong_model": true}')
    assert program.line("guard_address").ask(b":MountInfo#", 4) == b"0120"
