"""Drills: what happens to a pass when one of its programs is killed or hangs, and when the operator interrupts."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flights import FlownPass, replay, report_of, result_bytes, run_command, wait_until

from groundstation.clock import NS_PER_S, Clock
from groundstation.recording.reader import Segment, open_recording
from groundstation.simulation.blackboard import Blackboard

pytestmark = pytest.mark.slow

Fly = Callable[..., FlownPass]
#: The simulators stay for 5 s after the main process, so that a guard can act.
_ALL_GONE_S = 15.0


def in_mid_pass(fly: Fly) -> FlownPass:
    """A pass that has tracked for 14 of its 31 s."""
    flight = fly(speed=10.0)
    flight.wait_for_world("2016-12-19T16:52:12Z")
    return flight


def rows_on_disk(recording: Path, stream: str, table: str) -> int:
    """How many rows are acknowledged: in complete segments that are there."""
    reader, rows = open_recording(recording).stream(stream), 0
    while not reader.ended:
        for segment in reader.poll():
            assert isinstance(segment, Segment)
            rows += segment.rows.get(table, 0)
    return rows


def events(recording: Path) -> str:
    """The log of a recording, as text."""
    reader, text = open_recording(recording).stream("events"), b""
    while not reader.ended:
        for segment in reader.poll():
            assert isinstance(segment, Segment)
            if table := segment.tables.get("events"):
                text += b"\n".join(table["text"].tolist())
    return text.decode()


def assert_said_nothing_odd(flight: FlownPass) -> None:
    assert "Traceback" not in flight.stderr
    assert "not confirmed" not in flight.stdout, "the recording got a wrong UTC label"
    for log in (flight.output / "programs").glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()


class TelescopeWatch:
    """Looks at the simulated telescope from outside of every wire."""

    def __init__(self, flight: FlownPass) -> None:
        self._board = Blackboard.open(flight.output / "programs" / "world.bin")
        self._clock: Clock = flight.clock()

    def moves(self) -> bool:
        """Whether it turns or will turn, if nobody commands anything any more."""
        now_ns = self._clock.utc_ns()
        pointing = self._board.pointing_deg(now_ns + np.arange(0, 120, 5, dtype=np.int64) * NS_PER_S)
        assert pointing is not None
        return any(float(np.ptp(angle)) > 1e-6 for angle in pointing)

    def wait_for_rest(self, deadline_s: float) -> None:
        wait_until(lambda: not self.moves(), deadline_s, "standstill of the mount")


# --- A program dies --------------------------------------------------------------------------------------


def test_killing_the_analysis_costs_nothing(fly: Fly, tmp_path: Path) -> None:
    flight = in_mid_pass(fly)
    flight.kill("analyse")
    assert flight.wait() == 0, flight.stdout
    assert report_of(flight.output)["complete"] is True
    assert "analysis ended" in events(flight.sealed)
    assert replay(flight.sealed, tmp_path / "again") == 0
    assert result_bytes(tmp_path / "again") == result_bytes(flight.output)
    assert flight.processes() == {}
    assert_said_nothing_odd(flight)


def test_killing_the_acquisition_costs_a_gap_and_not_the_pass(fly: Fly, tmp_path: Path) -> None:
    flight = fly(speed=4.0)
    flight.wait_for_world("2016-12-19T16:52:06Z")
    recorded = rows_on_disk(flight.recording, "tags", "tags")
    flight.kill("acquire")
    assert flight.wait() == 1  # the pass has a hole
    assert "acquisition ended" in events(flight.sealed)
    assert "PARKED" in [line.get("state") for line in flight.lines()]
    report = report_of(flight.output)
    assert report["complete"] is False
    assert report["ledger"]["recorded"] > recorded > 0
    assert [gap["cause"] for gap in report["gaps"]] == ["the recorder was interrupted"]
    assert report["remarks"] == ["1 gaps with unaccounted tags are excluded."]
    assert report["sifted_bits"]["signal"] > 0
    assert replay(flight.sealed, tmp_path / "again") == 1
    assert result_bytes(tmp_path / "again") == result_bytes(flight.output)
    assert flight.processes() == {}
    assert_said_nothing_odd(flight)


def test_when_the_main_process_is_killed_the_guard_stops_the_mount_within_a_second(fly: Fly, tmp_path: Path) -> None:
    flight = in_mid_pass(fly)
    telescope = TelescopeWatch(flight)
    assert telescope.moves()
    recorded = rows_on_disk(flight.recording, "tags", "tags")
    flight.kill("run")
    telescope.wait_for_rest(1.0)
    assert flight.wait() == -signal.SIGKILL
    flight.wait_until_all_gone(_ALL_GONE_S)
    assert not telescope.moves()
    assert rows_on_disk(flight.recording, "tags", "tags") >= recorded
    assert replay(flight.recording, tmp_path / "again") == 1
    report = report_of(tmp_path / "again")
    assert report["complete"] is False
    assert report["ledger"]["recorded"] == rows_on_disk(flight.recording, "tags", "tags")
    assert report["sifted_bits"]["signal"] > 0
    assert_said_nothing_odd(flight)


def test_when_the_main_process_hangs_the_guard_stops_the_mount(fly: Fly) -> None:
    flight = in_mid_pass(fly)
    telescope = TelescopeWatch(flight)
    flight.kill("run", signal.SIGSTOP)
    hung_s = time.monotonic()
    telescope.wait_for_rest(2.0 + 1.0)  # guard_timeout_s of the station, and a second
    assert time.monotonic() - hung_s > 1.0, "the guard was impatient"
    flight.kill("run", signal.SIGCONT)
    assert flight.wait() in (0, 1)
    assert not telescope.moves()
    assert flight.sealed.exists()
    assert (flight.output / "report.json").exists()
    assert flight.processes() == {}
    assert_said_nothing_odd(flight)


# --- The operator interrupts -----------------------------------------------------------------------------


def test_one_interrupt_parks_seals_and_reports(fly: Fly, tmp_path: Path) -> None:
    flight = in_mid_pass(fly)
    recorded = rows_on_disk(flight.recording, "tags", "tags")
    flight.process.send_signal(signal.SIGINT)
    assert flight.wait() == 1
    assert "Stopping" in flight.messages()
    assert "PARKED" in [line.get("state") for line in flight.lines()]
    report = report_of(flight.output)
    assert report["complete"] is False
    assert report["ledger"]["recorded"] >= recorded
    assert (flight.output / "report.html").exists()
    assert not flight.recording.exists()
    assert replay(flight.sealed, tmp_path / "again") == 1
    assert result_bytes(tmp_path / "again") == result_bytes(flight.output)
    assert flight.processes() == {}
    assert_said_nothing_odd(flight)


def test_a_second_interrupt_ends_at_once_and_loses_nothing_acknowledged(fly: Fly, tmp_path: Path) -> None:
    flight = in_mid_pass(fly)
    telescope = TelescopeWatch(flight)
    recorded = rows_on_disk(flight.recording, "tags", "tags")
    flight.process.send_signal(signal.SIGINT)
    flight.wait_for_line(lambda line: "Stopping" in line.get("message", ""), "the answer to an interrupt")
    flight.process.send_signal(signal.SIGINT)
    assert flight.wait(3.0) == 1
    assert not telescope.moves()
    assert flight.processes() == {}
    assert rows_on_disk(flight.recording, "tags", "tags") >= recorded
    assert replay(flight.recording, tmp_path / "again") == 1
    report = report_of(tmp_path / "again")
    assert report["complete"] is False
    assert report["ledger"]["recorded"] == rows_on_disk(flight.recording, "tags", "tags")
    assert_said_nothing_odd(flight)


@pytest.mark.parametrize("state", ["PREFLIGHT", "SLEW", "ARMED"])
def test_an_interrupt_before_tracking_ends_in_order(fly: Fly, state: str) -> None:
    flight = fly(speed=10.0)
    flight.wait_for_line(lambda line: line.get("state") == state, state) if state != "PREFLIGHT" else flight.pid_of(
        "guard"
    )
    flight.process.send_signal(signal.SIGINT)
    assert flight.wait() == 1
    assert flight.processes() == {}
    assert_said_nothing_odd(flight)


# --- Two passes at once ----------------------------------------------------------------------------------


def test_two_passes_can_be_flown_at_once_but_not_into_one_directory(fly: Fly) -> None:
    first, second = fly(speed=10.0), fly("", "--seed", 7, speed=10.0)
    first.wait_for_state("ARMED")
    code, _, errors, left = run_command("run", "--config", first.config, "--output", first.output)
    assert code == 2
    assert errors.count("\n") == 1
    assert str(first.output) in errors
    assert not left
    assert [flight.wait() for flight in (first, second)] == [0, 0], first.stdout + second.stdout
    reports = [report_of(flight.output) for flight in (first, second)]
    assert all(report["complete"] for report in reports)
    assert reports[0]["detections"] != reports[1]["detections"]
    assert os.listdir(first.output / "programs") == os.listdir(second.output / "programs")
