"""The detector's simulator, spoken to with the commands of S-Fifteen's own client."""

import math
import time

import numpy as np
import pytest

from groundstation.simulation.blackboard import Blackboard

#: Later than anything that a detector has told.
EVER = 2**62


@pytest.fixture
def board(tmp_path):
    return Blackboard.create(tmp_path / "world")


def test_it_says_that_it_is_an_spd(start):
    line = start("detector_spd", "--detector", 2).line()
    assert "SPD" in line.ask_line(b"*idn?\r\n")
    assert "SPD" in line.ask_line(b"*IDN?;")
    assert "SPD" in line.ask_line(b"*IDN?\n")


def test_settings_are_silent_and_read_back(start):
    line = start("detector_spd").line()
    settings = {"hvolt": 188.5, "threshvolt": 0.25, "settemp": -15.5, "loop": 0, "pvolt": 1.5, "constp": 2.5}
    settings |= {"consti": 0.75, "delay": 12, "time": 250.0}
    for name, value in settings.items():
        line.write(f"{name} {value}\r\n".encode())
    assert line.read(1, timeout_s=0.05) == b""
    for name, value in settings.items():
        assert float(line.ask_line(f"{name}?\r\n".encode())) == value
        assert float(line.ask_line(f"{name.upper()}?;".encode())) == value


def test_it_starts_dark_and_warm(start, tmp_path, board, fast_clock):
    line = start("detector_spd", "--world", tmp_path / "world", "--clock", fast_clock(0.1)).line()
    assert float(line.ask_line(b"hvolt?\n")) == 0.0
    assert float(line.ask_line(b"temp?\n")) == pytest.approx(20.0, abs=5.0)  # cooling since a moment ago
    assert float(line.ask_line(b"settemp?\n")) == -20.0
    assert board.detectors(EVER)[0][0] == board.detectors(EVER)[1][0] == 0.0


def test_nothing_is_answered_to_empty_lines_and_an_error_to_nonsense(start):
    line = start("detector_spd").line()
    line.write(b"\r\n;;\n")
    assert line.read(1, timeout_s=0.05) == b""
    for nonsense in (
        b"volts?\n",
        b"hvolt high\n",
        b"hvolt nan\n",
        b"hvolt -5\n",
        b"hvolt\n",
        b"temp 3\n",
        b"\xff\n",
    ):
        assert line.ask_line(nonsense).startswith("error: ")
    assert float(line.ask_line(b"hvolt?\n")) == 0.0
    assert line.ask_line(b"save\n").strip()
    assert "*IDN?" in line.ask_line(b"HELP\n")


def test_the_temperature_settles_exponentially_in_world_time(start, fast_clock):
    line = start("detector_spd", "--clock", fast_clock(20)).line()
    samples = []
    for _ in range(3):
        before_ns = time.monotonic_ns()
        celsius = float(line.ask_line(b"temp?\n"))
        samples.append((20e-9 * (before_ns + time.monotonic_ns()) / 2, celsius))
        line.read(1, timeout_s=0.2)
    (t1, c1), (t2, c2), (t3, c3) = samples
    for s, t, c, d in ((t1, t2, c1, c2), (t2, t3, c2, c3)):
        assert (d + 20.0) / (c + 20.0) == pytest.approx(math.exp(-(t - s) / 5.0), rel=0.1)


def test_with_the_loop_off_it_drifts_to_ambient_whatever_is_set(start, fast_clock, eventually):
    line = start("detector_spd", "--clock", fast_clock(200)).line()

    def celsius():
        return float(line.ask_line(b"temp?;"))

    eventually(lambda: celsius() < -19.5)
    line.write(b"loop 0;settemp -30;")
    eventually(lambda: celsius() > 19.5)
    assert float(line.ask_line(b"settemp?;")) == -30.0
    line.write(b"loop 1;")
    eventually(lambda: celsius() < -29.5)


def test_bias_sets_efficiency_and_dark_counts_of_its_own_detector(start, tmp_path, board, fast_clock, eventually):
    program = start("detector_spd", "--detector", 3, "--world", tmp_path / "world", "--clock", fast_clock(500))
    line = program.line()
    for bias_v, efficiency, dark_hz in [
        (190, 1.0, 25.0),
        (180, 0.5, 12.5),
        (200, 1.2, 37.5),
        (160, 0.0, 0.0),
    ]:
        line.write(b"hvolt %d;" % bias_v)
        expected = (pytest.approx(efficiency), pytest.approx(dark_hz, rel=0.001))
        eventually(lambda expected=expected: tuple(b[3] for b in board.detectors(EVER)) == expected)
    assert not board.detectors(EVER)[0][:3].any()


def test_ten_degrees_more_double_the_dark_counts(start, tmp_path, board, fast_clock, eventually):
    line = start("detector_spd", "--world", tmp_path / "world", "--clock", fast_clock(500)).line()
    line.write(b"hvolt 190;settemp -10;")
    eventually(lambda: board.detectors(EVER)[1][0] == pytest.approx(50.0, rel=0.001))
    line.write(b"loop 0;")  # drifts to the ambient 20 degrees
    eventually(lambda: board.detectors(EVER)[1][0] == pytest.approx(25.0 * 2**4, rel=0.001))


def test_counts_are_those_of_the_photons_in_the_integration(start, tmp_path, board, fast_clock):
    """The world counts 1000 Hz on detector 1 and 7 Hz on the others, in steps that arrive late."""
    utc_ns = 1_482_166_140_000_000_000
    for second in range(-10, 100):
        board.add_counts(utc_ns + second * 10**9, np.array([7, 1000, 7, 7]) * (second + 10))
    line = start(
        "detector_spd", "--detector", 1, "--world", tmp_path / "world", "--clock", fast_clock(20, utc_ns)
    ).line()
    line.write(b"time 4000.0\r\n")
    asked_s = time.monotonic()
    assert int(line.ask_line(b"counts?\r\n")) == pytest.approx(4000, abs=1)
    assert time.monotonic() - asked_s >= 0.2


def test_without_photons_the_dark_counts_are_poissonian(start, fast_clock):
    line = start("detector_spd", "--clock", fast_clock(2000)).line()
    line.write(b"time 200000;hvolt 190;")
    line.read(1, timeout_s=0.1)
    counts = np.array([int(line.ask_line(b"counts?;")) for _ in range(5)])
    assert counts == pytest.approx(np.full(5, 5000), abs=6 * 5000**0.5)
    assert np.ptp(counts) > 0


def test_it_stays_responsive_while_it_counts(start):
    line = start("detector_spd").line()
    line.write(b"time 300;counts?;")
    assert "SPD" in line.ask_line(b"*IDN?;")
    assert line.read_line().strip().isdigit()
