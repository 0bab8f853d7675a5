"""Conformance of every driver to its capability: against simulators by default, against hardware on request.

    pytest hil_tests                                             every driver against its simulator program
    pytest hil_tests --station config/station.toml               every device that the file names is hardware
    pytest hil_tests --station FILE --hil mount --max-disturb 2  the mount is hardware and may be moved

`--hil` names entries of the file or capabilities. A capability without hardware in a run is tested on its simulators.
A test's mark `disturb(level)` says what it does to a device: 0 reads only, 1 reversible settings, 2 motion or
bias. Unless `--max-disturb` says otherwise, simulators are tested up to 2 and hardware only at 0. At its end a run
prints a report of every device: what it is, what was tested, how fast it answers.
"""

import contextlib
import importlib
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from groundstation.clock import Clock, SimulatedClock, SystemClock, parse_utc

SPEED = 20.0  # simulated motion takes a twentieth of its time
START = "2016-12-19T16:49:00Z"
SIMULATORS = Path(__file__).with_name("simulators.toml")
EVERY = "every"  # the suite that runs on every device


@dataclass(frozen=True)
class Device:
    """One device under test, and how much it may be disturbed."""

    name: str
    driver: str
    address: str
    clock: Clock
    max_disturb: int
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def capability(self) -> str:
        return _capability(self.driver)

    def connect(self, **more: object) -> Any:
        """A new connection; the capability's Protocol is the only thing that a suite may use of it."""
        module = importlib.import_module(f"drivers.{self.driver}")
        return module.connect(self.address, self.clock, {**self.settings, **more})


@dataclass(frozen=True)
class Entry:
    """A device that a station file names."""

    name: str
    driver: str
    address: str
    simulate: bool
    settings: Mapping[str, Any]
    simulator_arguments: Sequence[str] = ()
    simulator_speed: float = SPEED

    @property
    def capability(self) -> str:
        return _capability(self.driver)


def _capability(driver: str) -> str:
    return str(importlib.import_module(f"drivers.{driver}").DRIVER.capability)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware in the loop")
    group.addoption("--station", metavar="FILE", help="station file whose [instruments] are hardware to test")
    group.addoption("--hil", metavar="LIST", help="only these entries or capabilities are hardware, e.g. mount,tagger")
    group.addoption(
        "--max-disturb", metavar="N", type=int, help="highest disturb level (default: simulators 2, else 0)"
    )
    group.addoption("--hil-report", metavar="FILE", type=Path, help="write the report of the devices as JSON, too")


def pytest_configure(config: pytest.Config) -> None:
    _hardware(config)  # a wrong option ends the run before the first test


def _entries(path: Path) -> list[Entry]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("instruments", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"station file {path} cannot be read: {error}") from error
    try:
        return [
            Entry(
                name,
                table["driver"],
                table.get("address", ""),
                bool(table.get("simulate")),
                MappingProxyType(dict(table.get("settings", {}))),
                tuple(table.get("simulator_arguments", ())),
                float(table.get("simulator_speed", SPEED)),
            )
            for name, table in tables.items()
        ]
    except KeyError as error:
        raise pytest.UsageError(f"station file {path}: an instrument has no key {error}") from error


def _hardware(config: pytest.Config) -> list[Entry]:
    """The entries of the station file that are hardware in this run."""
    station, chosen = config.getoption("--station"), config.getoption("--hil")
    if station is None:
        if chosen is not None:
            raise pytest.UsageError("--hil names hardware; say where it is with --station FILE")
        return []
    real = [entry for entry in _entries(Path(station)) if not entry.simulate]
    if chosen is None:
        return real
    names = chosen.split(",")
    for name in names:
        if not any(name in (entry.name, entry.capability) for entry in real):
            raise pytest.UsageError(f"station file {station} has no real {name} under [instruments]")
    return [entry for entry in real if entry.name in names or entry.capability in names]


def _under_test(config: pytest.Config) -> list[Entry]:
    """Hardware, and the simulators of the capabilities for which there is none."""
    real = _hardware(config)
    covered = {entry.capability for entry in real}
    return [*real, *(entry for entry in _entries(SIMULATORS) if entry.capability not in covered)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A suite runs once for each device of its capability."""
    if "device" not in metafunc.fixturenames:
        return
    suite = metafunc.module.__name__.removeprefix("test_conformance_")
    entries = [entry for entry in _under_test(metafunc.config) if suite in (EVERY, entry.capability)]
    metafunc.parametrize("device", entries, ids=[e.name for e in entries], indirect=True, scope="module")


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The address of the device under test; its simulator runs as long as the suite."""
    entry: Entry = request.param
    asked: int | None = request.config.getoption("--max-disturb")
    if not entry.simulate:
        yield Device(entry.name, entry.driver, entry.address, SystemClock(), asked or 0, entry.settings)
        return
    clock = SimulatedClock(parse_utc(START), time.monotonic_ns(), entry.simulator_speed)
    with simulator(entry.driver, entry.simulator_arguments, clock) as ready:
        settings = MappingProxyType({**entry.settings, **ready.get("settings", {})})
        yield Device(entry.name, entry.driver, ready["address"], clock, 2 if asked is None else asked, settings)


@contextlib.contextmanager
def simulator(driver: str, arguments: Sequence[str], clock: Clock) -> Iterator[dict[str, Any]]:
    """A simulator program, and what it says when it is ready."""
    command = [sys.executable, "-m", f"drivers.simulators.{driver}", *arguments]
    command += ["--supervised", "--linger", "0", "--clock", clock.text()]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        ready = json.loads(program.stdout.readline())
        assert ready["ready"] is True
        yield ready
    finally:
        program.stdin.close()  # it ends by itself when its supervisor is gone
        try:
            assert program.wait(timeout=10.0) == 0
        finally:
            program.kill()
            program.stdout.close()
            program.wait()


@pytest.fixture(autouse=True)
def _allowed_to_disturb(request: pytest.FixtureRequest) -> None:
    """Skip what would disturb the device more than this run allows, and put the device's name into the report."""
    if "device" not in request.fixturenames:
        return
    device: Device = request.getfixturevalue("device")
    kind = "simulator" if request.node.callspec.params["device"].simulate else "hardware"
    request.node.user_properties += [("device", device.name), ("driver", device.driver), ("kind", kind)]
    mark = request.node.get_closest_marker("disturb")
    level = mark.args[0] if mark else 0
    if level > device.max_disturb:
        pytest.skip(f"disturbs at level {level}, allowed is {device.max_disturb} (--max-disturb)")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """`measured("latency_ms", 1.2)`: put a figure into the device's report."""
    return lambda name, value: request.node.user_properties.append((f"measured {name}", str(value)))


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool], float], None]:
    """`eventually(condition, wall_s)`: poll until the condition holds; fail when it does not in time."""

    def poll(condition: Callable[[], bool], wall_s: float) -> None:
        deadline = time.monotonic() + wall_s
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {wall_s} s"
            time.sleep(0.01)

    return poll


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The report: a paragraph for each device, hardware first; for a run on simulators only when asked for."""
    devices = _report(terminalreporter.stats)
    path: Path | None = config.getoption("--hil-report")
    if path is not None:
        path.write_text(json.dumps(devices, indent=2) + "\n", encoding="utf-8")
    shown = {name: found for name, found in devices.items() if found["kind"] == "hardware" or path is not None}
    if not shown:
        return
    terminalreporter.section("devices")
    for name, found in shown.items():
        tests = ", ".join(f"{len(names)} {outcome}" for outcome, names in found["tests"].items())
        terminalreporter.write_line(f"{name} ({found['driver']}, {found['kind']}): {tests}")
        for quantity, value in found["measured"].items():
            terminalreporter.write_line(f"    {quantity}: {value}")
        for outcome, names in found["tests"].items():
            for test in names:
                terminalreporter.write_line(f"    {outcome}: {test}")


def _report(stats: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """By device: its driver, what was measured, and the tests of each outcome in words."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in stats.get(outcome, ()):
            properties = dict(getattr(report, "user_properties", ()))
            if "device" not in properties:
                continue
            name = properties["device"]
            device = found.setdefault(
                name, {"driver": properties["driver"], "kind": properties["kind"], "tests": {}, "measured": {}}
            )
            device["tests"].setdefault(outcome, []).append(_in_words(report, name))
            for key, value in properties.items():
                if key.startswith("measured "):
                    device["measured"][key.removeprefix("measured ")] = value
    return dict(sorted(found.items(), key=lambda item: (item[1]["kind"], item[0])))


def _in_words(report: Any, device: str) -> str:
    """`test_a_bias_is_kept[spd-1.0]` is `a bias is kept (1.0)`; a skipped one with its reason."""
    name, _, values = report.nodeid.rpartition("::")[2].partition("[")
    value = values.removesuffix("]").removeprefix(device).removeprefix("-")
    why = report.longrepr[2].removeprefix("Skipped: ") if report.outcome == "skipped" else value
    return name.removeprefix("test_").replace("_", " ") + (f" ({why})" if why else "")
