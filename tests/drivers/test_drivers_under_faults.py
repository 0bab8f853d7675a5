"""Every fault on every instrument: the real driver, the real simulator program, the real wire.

Whatever goes wrong, a call gives the right value or raises one of our errors, and that within its deadline. What is
right is known: a clean twin of the simulator said it, or the test itself has set it. After a fault that passes, the
driver gives right values again.

What cannot be tested because no driver could do it: a digit that is lost from a measured value (temperature, counts,
output voltage) on a wire without a checksum, for the next measurement may differ anyway. What does not change by
itself, such drivers read until two answers agree.
"""

import contextlib
import importlib
import json
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundstation.clock import SimulatedClock, parse_utc
from groundstation.errors import GroundStationError

ROOT = Path(__file__).parents[2]
START = "2016-12-19T16:49:00Z"
SPEED = 10.0
TIMEOUT_S = 0.5
DEADLINE_S = 15.0  # of one call: a connection made anew asks several questions, each of them twice
LATE_WALL_S = 0.5  # at most, of a tagger's block on a busy machine
AT_ONCE = 4
READINGS = 6

#: Spans in seconds of wall time; they become world time by the instrument's speed.
WIRE: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "delay": {"reply_delay_s": 0.05},
    "late": {"late_every": 4, "late_by_s": 1.6 * TIMEOUT_S},
    "lost replies": {"drop_reply_every": 4},
    "mute from the start": {"mute_after_s": 0.0},
    "mute later": {"mute_after_s": 0.5},
    "split": {"split_replies": True},
    "glued": {"unsolicited_every": 2},
    "lost byte": {"drop_byte_every": 5},
    "doubled byte": {"double_byte_every": 5},
    "echo": {"echo": True},
    "hang-up": {"hang_up_after": 7},
    "another model": {"wrong_model": True},
}
#: What passes, so right values must come again.
PASSING = ("none", "delay", "late", "lost replies", "split", "glued", "lost byte", "doubled byte")
#: Where they do not come, and why.
ONLY_ERRORS = {
    ("tagger_id900", "late"): "a connection asks a hundred questions, and repeats none: ZeroMQ loses no answer",
    ("tagger_id900", "lost replies"): "the same",
    ("tagger_id900", "lost byte"): "the same; what reads back otherwise than it was set is refused",
    ("tagger_id900", "doubled byte"): "the same",
    ("mount_pwi4", "late"): "a connection asks several questions, and repeats none: HTTP loses no answer",
    ("mount_pwi4", "lost replies"): "the same",
    ("mount_alpaca", "late"): "the same",
    ("mount_alpaca", "lost replies"): "the same",
    ("dome_alpaca", "late"): "the same",
    ("dome_alpaca", "lost replies"): "the same",
    ("mount_easycomm", "glued"): "what it says unasked is an alarm, which is told as an error",
}
#: What tells this model from others that the driver takes as well.
EXPECTED = {"mount_nexstar": {"expected_model": 7}, "mount_rotctld": {"expected_model": 1}}
#: Where another model cannot be told, and why.
ANY_MODEL = {
    "supply_scpi": "a driver for whatever speaks SCPI",
    "mount_easycomm": "a driver for whatever speaks EasyComm",
    "tagger_tdc2": "a stream of words names nobody",
    "transmitter_sdp1": "a program of ours, told by its protocol; its simulator does not play another",
}


def instruments() -> dict[str, Mapping[str, Any]]:
    """The entries of the conformance suites' list, so that a new instrument is here by itself."""
    return tomllib.loads((ROOT / "hil_tests/simulators.toml").read_text())["instruments"]


def special_faults(driver: str) -> list[str]:
    """The faults that only this instrument has: what its simulator looks for."""
    source = (ROOT / f"drivers/simulators/{driver}.py").read_text()
    for face in re.findall(r"from drivers\.simulators\.(\w+_face|id900_\w+) import", source):
        source += (ROOT / f"drivers/simulators/{face}.py").read_text()
    return sorted(set(re.findall(r'"(\w+)" in [\w.]*special', source)))


def test_the_special_faults_are_found() -> None:
    """Else a fault that is spelt otherwise in the source would be left out in silence."""
    assert {"battery", "overload", "stale_buffer"} <= set(special_faults("supply_sim928"))
    assert "broken_json" in special_faults("mount_alpaca")


@dataclass
class Outcome:
    """What became of one instrument under one fault."""

    right: int = 0
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class Trial:
    """The calls on one driver, each within its deadline, and what they gave."""

    def __init__(self, truth: Mapping[str, object]) -> None:
        self.outcome, self.doing, self.began_s = Outcome(), "", time.monotonic()
        self.found: dict[str, object] = {}
        self._truth = truth

    def call(self, name: str, ask: Callable[[], Any]) -> Any:
        """None for an error of ours; whatever else is raised ends the trial and fails the test."""
        self.doing, self.began_s = name, time.monotonic()
        try:
            return ask()
        except GroundStationError as error:
            self.outcome.errors.append(f"{name}: {type(error).__name__} {error}")
            return None
        finally:
            self.outcome.slowest_s = max(self.outcome.slowest_s, time.monotonic() - self.began_s)

    def read(self, name: str, ask: Callable[[], Any], truth: object = None, within: float = 0.0) -> None:
        """A value whose truth is given, or was found on the clean twin."""
        if (value := self.call(name, ask)) is None:
            return
        self.found.setdefault(name, value)
        if agree(value, self._truth.get(name, value) if truth is None else truth, within):
            self.outcome.right += 1
        else:
            self.outcome.wrong.append(f"{name}: {value!r}, right is {truth or self._truth.get(name)!r}")


def agree(value: object, truth: object, within: float) -> bool:
    if isinstance(value, tuple) and isinstance(truth, tuple):
        return len(value) == len(truth) and all(agree(a, b, within) for a, b in zip(value, truth, strict=True))
    if isinstance(value, float) and isinstance(truth, (int, float)):
        return abs(value - truth) <= within
    return value == truth


def around_zero(angle_deg: float) -> float:
    """-180 to 180 degrees: 359.9999 and 0 are the same place."""
    return (angle_deg + 180.0) % 360.0 - 180.0


def wait_until_it_rests(is_moving: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + DEADLINE_S - 3.0
    while is_moving():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


# --- What is asked, by capability ----------------------------------------------------------------------------


def try_mount(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    def position() -> tuple[float, float]:
        reading = device.read_position()
        return around_zero(reading.azimuth_deg), reading.elevation_deg

    for _ in range(READINGS):
        trial.read("position", position, within=0.15)
        trial.read("slewing", device.is_slewing)
    sent = trial.call("go to", lambda: device.go_to(80.0, 50.0) or True)
    rests = trial.call("arrives", lambda: wait_until_it_rests(device.is_slewing)) if sent else None
    if rests:
        trial.read("position there", position, (80.0, 50.0), within=0.6)
    trial.call("stop", device.stop)


def try_detector(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    for setpoint_c, threshold_v in ((-21.0, 0.5), (-13.0, 0.25), (-17.0, 0.125)):
        if trial.call("set temperature", lambda t=setpoint_c: device.set_temperature_setpoint_c(t) or True):
            trial.read("setpoint", device.temperature_setpoint_c, setpoint_c, 0.05)
        if trial.call("set threshold", lambda v=threshold_v: device.set_threshold_v(v) or True):
            trial.read("threshold", device.threshold_v, threshold_v, 0.01)


def try_nanowires(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    for bias_ua, trigger_mv in ((11.0, 120.0), (12.5, 150.0), (9.5, 90.0)):
        if trial.call("set bias", lambda b=bias_ua: device.set_bias_ua(2, b) or True):
            trial.read("bias", lambda: device.bias_ua(2), bias_ua, 0.15)
        if trial.call("set trigger", lambda t=trigger_mv: device.set_trigger_mv(2, t) or True):
            trial.read("trigger", lambda: device.trigger_mv(2), trigger_mv, 1.0)


def try_supply(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    output = device.outputs[0]
    for voltage_v in (1.25, 2.5, 0.75, 4.5):
        if trial.call("set voltage", lambda v=voltage_v: device.set_voltage_v(output, v) or True):
            trial.read("voltage", lambda: device.voltage_v(output), voltage_v, 0.01)
    for on in (True, False):
        if trial.call("switch", lambda o=on: device.switch(output, o) or True):
            trial.read("is on", lambda: device.is_on(output), on)


def try_rotator(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    if trial.call("home", lambda: device.home() or True) and trial.call(
        "homes", lambda: wait_until_it_rests(device.is_moving)
    ):
        for _ in range(READINGS):
            trial.read("angle at home", lambda: around_zero(device.angle_deg()), within=0.05)
    if trial.call("go to", lambda: device.go_to(40.0) or True) and trial.call(
        "arrives", lambda: wait_until_it_rests(device.is_moving)
    ):
        trial.read("angle", device.angle_deg, 40.0, 0.05)


def try_dome(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    for _ in range(READINGS):
        trial.read("azimuth", lambda: around_zero(device.azimuth_deg()), within=0.5)
        trial.read("shutter", device.shutter)
    if trial.call("go to", lambda: device.go_to(40.0) or True) and trial.call(
        "arrives", lambda: wait_until_it_rests(device.is_moving)
    ):
        trial.read("azimuth there", device.azimuth_deg, 40.0, 1.5)


def try_weather(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    for _ in range(READINGS):
        if (reading := trial.call("read", device.read)) is None:
            continue
        for name in ("temperature_c", "humidity_percent", "pressure_hpa"):
            if (value := getattr(reading, name)) is not None:  # None: not measured
                trial.read(name, lambda v=value: v, within=3.0)


def try_time_base(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    """A told second is as old as a driver may wait for it; so may be the first, by which it judges the others."""
    oldest_s = 2 * (2.5 + 0.1 * SPEED)
    for _ in range(READINGS):
        before_s = clock.utc_ns() / 1e9
        status = trial.call("status", device.status)
        if status is None or status.utc_ns is None:
            continue
        after_s = clock.utc_ns() / 1e9
        if before_s - oldest_s <= status.utc_ns / 1e9 <= after_s + 1.0 or status.trouble:
            trial.outcome.right += 1
        else:
            trial.outcome.wrong.append(f"UTC {status.utc_ns / 1e9 - after_s:+.3f} s")


def try_transmitter(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    slots = np.arange(1000, 3000, 7)
    for _ in range(2):
        trial.read("terms", device.terms)
    trial.call("ask", lambda: device.ask(1, slots, (slots % 2).astype(np.uint8)))
    for _ in range(READINGS):
        for answer in trial.call("answers", lambda: device.answers(TIMEOUT_S)) or ():
            trial.read("answer", lambda a=answer: (a.batch, bytes(a.answers)))


def try_tagger(trial: Trial, device: Any, clock: SimulatedClock) -> None:
    """Times ascend with the world, and nothing comes that cannot: the inputs are 1 to 4.

    The first block may have been late, so a later one may seem to be ahead by as much; none is further behind.
    """
    latest_ps, first = -1, None
    stop_s = time.monotonic() + 2.0
    while time.monotonic() < stop_s:
        if (block := trial.call("read", lambda: device.read(0.1))) is None:
            return  # whoever records connects anew
        if not block.time_ps.size:
            continue
        now_s = clock.utc_ns() / 1e9
        first = first or (int(block.time_ps[0]) / 1e12, now_s)
        ahead_s = int(block.time_ps[-1]) / 1e12 - first[0] - (now_s - first[1])
        good = (np.diff(block.time_ps) >= 0).all() and block.time_ps[0] >= latest_ps
        good = good and set(np.unique(block.pattern)) <= set(range(1, 16))
        good = good and -LATE_WALL_S * clock.speed < ahead_s < LATE_WALL_S * clock.speed
        latest_ps = int(block.time_ps[-1])
        if good:
            trial.outcome.right += 1
        else:
            trial.outcome.wrong.append(f"patterns {np.unique(block.pattern)}, {ahead_s:+.2f} s ahead of the world")


TRIALS: Mapping[str, Callable[[Trial, Any, SimulatedClock], None]] = {
    "mount": try_mount, "detector": try_detector, "nanowires": try_nanowires, "supply": try_supply,
    "rotator": try_rotator, "dome": try_dome, "weather": try_weather, "time_base": try_time_base,
    "transmitter": try_transmitter, "tagger": try_tagger,
}  # fmt: skip


# --- The run -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def simulator(entry: Mapping[str, Any], faults: Mapping[str, object], clock: SimulatedClock) -> Iterator[Any]:
    command = [sys.executable, "-m", f"drivers.simulators.{entry['driver']}", *entry.get("simulator_arguments", ())]
    command += ["--supervised", "--linger", "0", "--clock", clock.text()]
    command += ["--faults", json.dumps(faults)] if faults else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin
        assert program.stdout
        try:
            yield json.loads(program.stdout.readline())
        finally:
            program.stdin.close()
            program.wait(10)


def tried(entry: Mapping[str, Any], faults: Mapping[str, object], truth: Mapping[str, object]) -> Trial:
    """The instrument's trial under the faults, in a thread of its own so that a hang is seen."""
    speed = min(SPEED, float(entry.get("simulator_speed", SPEED)))
    clock = SimulatedClock(parse_utc(START), time.monotonic_ns(), speed)
    module = importlib.import_module(f"drivers.{entry['driver']}")
    trial, trouble = Trial(truth), []

    def run(ready: Mapping[str, Any]) -> None:
        settings = {"timeout_s": TIMEOUT_S, **EXPECTED.get(entry["driver"], {}), **ready.get("settings", {})}
        try:
            for _ in range(3):
                device = trial.call("connect", lambda: module.connect(ready["address"], clock, settings))
                if device is not None:
                    with contextlib.closing(device):
                        TRIALS[module.DRIVER.capability](trial, device, clock)
                    return
        except Exception as error:  # to be told in the test's own thread
            trouble.append(f"{trial.doing}: {error!r}")

    in_world = {name: span * speed if name.endswith("_s") else span for name, span in faults.items()}
    with simulator(entry, in_world, clock) as ready:
        thread = threading.Thread(target=run, args=(ready,), daemon=True)
        thread.start()
        while thread.is_alive() and time.monotonic() < trial.began_s + 2 * DEADLINE_S:
            thread.join(0.1)
        assert not thread.is_alive(), f"{trial.doing} hangs under {faults}"
    assert not trouble, trouble
    return trial


@pytest.mark.slow
@pytest.mark.parametrize("name", instruments())
def test_no_fault_is_taken_for_a_reading_or_hangs(name: str) -> None:
    entry = instruments()[name]
    truth = tried(entry, {}, {}).found
    faults = {**WIRE, **{special: {"special": [special]} for special in special_faults(entry["driver"])}}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = dict(zip(faults, pool.map(lambda fault: tried(entry, fault, truth), faults.values()), strict=True))
    complaints = []
    for fault, trial in trials.items():
        outcome = trial.outcome
        sys.stdout.write(
            f"{fault:20} right {outcome.right:3}, errors {len(outcome.errors):3}, wrong {len(outcome.wrong)}, "
            f"slowest {outcome.slowest_s:.1f} s\n"
        )
        complaints += [f"{fault}: wrong reading, {text}" for text in outcome.wrong]
        if outcome.slowest_s > DEADLINE_S:
            complaints.append(f"{fault}: a call took {outcome.slowest_s:.1f} s")
        if fault == "another model" and outcome.right and entry["driver"] not in ANY_MODEL:
            complaints.append(f"{fault}: taken for the right one")
        if fault in PASSING and not outcome.right and (entry["driver"], fault) not in ONLY_ERRORS:
            complaints.append(f"{fault}: no right value at all; {outcome.errors[:3]}")
    assert not complaints, "\n".join(complaints)
