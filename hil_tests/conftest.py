"""Conformance of every driver to its capability: against simulators by default, against hardware on request.

    pytest hil_tests                                             every device is a simulator program
    pytest hil_tests --station config/station.toml               every device that the file names is hardware
    pytest hil_tests --station FILE --hil mount --max-disturb 2  the mount is hardware and may be moved

A test's mark `disturb(level)` says what it does to a device: 0 reads only, 1 reversible settings, 2 motion or
bias. Unless `--max-disturb` says otherwise, simulators are tested up to 2 and hardware only at 0.
"""

import importlib
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from groundstation.clock import Clock, SimulatedClock, SystemClock, parse_utc

KINDS = ("tagger", "mount", "detector_h", "detector_v", "detector_d", "detector_a", "transmitter")
SPEED = 20.0  # simulated motion takes a twentieth of its time
START = "2016-12-19T16:49:00Z"


@dataclass(frozen=True)
class Device:
    """One device under test, and how much it may be disturbed."""

    kind: str
    driver: str
    address: str
    clock: Clock
    max_disturb: int
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def connect(self, **more: object) -> Any:
        """A new connection; the capability's Protocol is the only thing that a suite may use of it."""
        module = importlib.import_module(f"drivers.{self.driver}")
        return module.connect(self.address, self.clock, {**self.settings, **more})


SIMULATORS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "tagger": ("tagger_tdc2", ("--address", "tcp://127.0.0.1:0")),
        "mount": ("mount_nexstar", ()),
        **{f"detector_{name}": ("detector_spd", ("--detector", str(i))) for i, name in enumerate("hvda")},
        "transmitter": ("transmitter_sdp1", ("--address", "tcp://127.0.0.1:0", "--epoch", START)),
    }
)
"""Kind to driver and the arguments of its simulator program."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware in the loop")
    group.addoption("--station", metavar="FILE", help="station file whose [instruments] are hardware to test")
    group.addoption(
        "--hil", metavar="LIST", help="only these kinds are hardware, e.g. mount,tagger; the rest simulated"
    )
    group.addoption(
        "--max-disturb", metavar="N", type=int, help="highest disturb level (default: simulators 2, else 0)"
    )


def pytest_configure(config: pytest.Config) -> None:
    _hardware(config)  # a wrong option ends the run before the first test


def _hardware(config: pytest.Config) -> dict[str, dict[str, Any]]:
    """Kind to its table in the station file, for the kinds that are hardware in this run."""
    station, chosen = config.getoption("--station"), config.getoption("--hil")
    if station is None:
        if chosen is not None:
            raise pytest.UsageError("--hil names hardware; say where it is with --station FILE")
        return {}
    try:
        tables = tomllib.loads(Path(station).read_text(encoding="utf-8")).get("instruments", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"station file {station} cannot be read: {error}") from error
    real = {kind: table for kind, table in tables.items() if kind in KINDS and not table.get("simulate")}
    if chosen is None:
        return real
    wanted = [kind for name in chosen.split(",") for kind in KINDS if kind == name or kind.startswith(f"{name}_")]
    missing = [name for name in chosen.split(",") if not any(k == name or k.startswith(f"{name}_") for k in real)]
    if missing:
        raise pytest.UsageError(f"station file {station} has no real {missing[0]} under [instruments]")
    return {kind: real[kind] for kind in wanted if kind in real}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A suite runs once for each device of its kind: four detectors on hardware, one of the equal simulators."""
    if "device" not in metafunc.fixturenames:
        return
    suite = metafunc.module.__name__.removeprefix("test_conformance_")
    real = [kind for kind in _hardware(metafunc.config) if kind.split("_")[0] == suite]
    simulated = [next(kind for kind in KINDS if kind.split("_")[0] == suite)]
    metafunc.parametrize("device", real or simulated, indirect=True, scope="module")


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The address of the device under test; its simulator runs as long as the suite."""
    kind: str = request.param
    asked: int | None = request.config.getoption("--max-disturb")
    table = _hardware(request.config).get(kind)
    if table is not None:
        settings = MappingProxyType(dict(table.get("settings", {})))
        yield Device(kind, table["driver"], table["address"], SystemClock(), asked or 0, settings)
        return
    driver, arguments = SIMULATORS[kind]
    clock = SimulatedClock(parse_utc(START), time.monotonic_ns(), SPEED)
    command = [sys.executable, "-m", f"drivers.simulators.{driver}", *arguments]
    command += ["--supervised", "--linger", "0", "--clock", clock.text()]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        ready = json.loads(program.stdout.readline())
        assert ready["ready"] is True
        yield Device(kind, driver, ready["address"], clock, 2 if asked is None else asked)
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
    """Skip what would disturb the device more than this run allows."""
    if "device" not in request.fixturenames:
        return
    mark = request.node.get_closest_marker("disturb")
    level = mark.args[0] if mark else 0
    allowed = request.getfixturevalue("device").max_disturb
    if level > allowed:
        pytest.skip(f"disturbs at level {level}, allowed is {allowed} (--max-disturb)")


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool], float], None]:
    """`eventually(condition, wall_s)`: poll until the condition holds; fail when it does not in time."""

    def poll(condition: Callable[[], bool], wall_s: float) -> None:
        deadline = time.monotonic() + wall_s
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {wall_s} s"
            time.sleep(0.01)

    return poll
