"""Loads drivers by name and starts simulators: nothing else in the package knows that either exists."""

import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import drivers
from groundstation.acquisition.two_taggers import SECOND_INPUTS_FROM_BIT, common_signal, split_settings
from groundstation.clock import Clock, utc_text
from groundstation.config import InstrumentConfig, StationConfig, capability_of
from groundstation.errors import BadInput, GroundStationError, WrongInstrument
from groundstation.instruments import DriverDescription
from groundstation.operation.children import Child, undisturbed
from groundstation.simulation.blackboard import Blackboard

_END_TIMEOUT_S = 5.0
DETECTORS = {"H": "detector_h", "V": "detector_v", "D": "detector_d", "A": "detector_a"}


def described_drivers() -> dict[str, DriverDescription]:
    """Every driver there is: the modules of `drivers` that describe themselves, by name."""
    found = {}
    for module in pkgutil.iter_modules(drivers.__path__):
        description = getattr(importlib.import_module(f"drivers.{module.name}"), "DRIVER", None)
        if isinstance(description, DriverDescription):
            found[module.name] = description
    return found


def load_driver(name: str, entry: InstrumentConfig) -> Any:
    """The driver's module. BadInput when there is none of that name, or it is for something else."""
    if not entry.driver.isidentifier() or importlib.util.find_spec(f"drivers.{entry.driver}") is None:
        raise BadInput(
            f'[instruments.{name}] names the driver "{entry.driver}", which does not exist in drivers/; '
            "`groundstation instruments` lists those that do"
        )
    driver = importlib.import_module(f"drivers.{entry.driver}")
    description, wanted = getattr(driver, "DRIVER", None), capability_of(name)
    if not isinstance(description, DriverDescription):
        raise BadInput(f'[instruments.{name}] names "{entry.driver}", which is no driver')
    if wanted is not None and description.capability != wanted:
        raise BadInput(
            f'[instruments.{name}] names the driver "{entry.driver}", which is for a {description.capability}, '
            f"not for a {wanted}; `groundstation instruments` lists the others"
        )
    return driver


def connect(name: str, entry: InstrumentConfig, clock: Clock, address: str = "") -> Any:
    """The instrument behind an entry, identified. BadInput says which one does not answer, and where.

    `address`: a second link to it, which gets a wire log of its own.
    """
    driver, settings = load_driver(name, entry), entry.settings
    if address and "wire_log" in settings:
        settings = {**settings, "wire_log": f"{settings['wire_log']}.guard"}
    try:
        return driver.connect(address or entry.address, clock, settings)
    except WrongInstrument as error:
        raise WrongInstrument(f"{name}: {error}") from error
    except GroundStationError as error:
        raise BadInput(f"{name}: {error}") from error


class Simulators:
    """The simulated instruments of a station: one program each, one world behind them."""

    def __init__(self, config: StationConfig, clock: Clock, directory: Path) -> None:
        """`directory` gets the world's files and the programs' complaints."""
        self._config, self._clock, self._directory = config, clock, directory
        self._children: dict[str, Child] = {}
        directory.mkdir(mode=0o700, exist_ok=True)
        self._settings = directory / "world.json"
        self._settings.write_text(json.dumps(asdict(config.simulation) if config.simulation else {}))
        self._board = directory / "world.bin"
        Blackboard.create(self._board)

    def start(self, start_utc_ns: int, stop_utc_ns: int, epoch_utc_ns: int, recording: Path) -> None:
        """Start all of them at once, for a pass; the world's light exists from start to stop."""
        scene = _scene(self._config, start_utc_ns, stop_utc_ns, epoch_utc_ns)
        own = {"transmitter": ["--epoch", utc_text(epoch_utc_ns, 0)]}
        for name, patterns in _wiring(self._config).items():
            file = self._directory / f"scene-{name}.json"
            # Both taggers look at the same light: one tells the truth about it.
            file.write_text(json.dumps({**scene, "patterns": patterns, "tells_counts": name == "tagger"}))
            own[name] = ["--scene", str(file)]
        own["tagger"] += ["--truth", str(recording)]
        self._start(own)

    def start_laboratory(self) -> None:
        """Start all of them at once, in a world that stands still: a satellite that does not move."""
        self._start({})

    @property
    def children(self) -> Mapping[str, Child]:
        """The running programs, by the instrument's name."""
        return self._children

    def addressed(self) -> dict[str, InstrumentConfig]:
        """The station's instruments, each simulated one at the address where its simulator really is."""
        return {name: self._addressed(name, entry) for name, entry in self._config.instruments.items()}

    def end(self, name: str) -> None:
        """End one simulator in good order."""
        if name in self._children:
            self._children.pop(name).end()

    def end_all(self) -> None:
        """End all of them, and the world with its secrets: from the seed the transmitter's states follow."""
        for child in self._children.values():
            child.ask_to_end()
        for name in list(self._children):
            self.end(name)
        for path in (self._settings, self._board, *self._directory.glob("scene-*.json")):
            path.unlink(missing_ok=True)

    def _start(self, own: dict[str, list[str]]) -> None:
        own |= {name: ["--detector", str(number)] for number, name in enumerate(DETECTORS.values())}
        shared = ["--settings", str(self._settings), "--world", str(self._board)]
        for name, entry in self._config.instruments.items():
            if entry.simulate:
                command = [*_command(name, entry, self._clock), *shared, *own.get(name, [])]
                with undisturbed():
                    self._children[name] = Child(f"simulator of {name}", command, self._directory / f"{name}.log")

    def _addressed(self, name: str, entry: InstrumentConfig) -> InstrumentConfig:
        if name not in self._children:
            return entry
        ready = self._children[name].wait_ready()
        guard_address = str(ready.get("guard_address", ""))
        found = ready.get("settings")
        settings = {**entry.settings, **found} if isinstance(found, dict) else entry.settings  # other ports of it
        return InstrumentConfig(entry.driver, str(ready["address"]), True, guard_address, settings)


def _scene(config: StationConfig, start_utc_ns: int, stop_utc_ns: int, epoch_utc_ns: int) -> dict[str, object]:
    elements = config.elements()
    return {
        "start_utc": utc_text(start_utc_ns, 9),
        "stop_utc": utc_text(stop_utc_ns, 9),
        "epoch_utc": utc_text(epoch_utc_ns, 9),
        "satellite": {"name": config.satellite.name, "tle": [elements.line1, elements.line2]},
        "station": asdict(config.station),
        "earth_orientation": asdict(config.earth_orientation),
    }


def _wiring(config: StationConfig) -> dict[str, dict[str, int]]:
    """What is plugged into each tagger: channel -> set of its own inputs."""
    patterns, second = config.patterns(), config.instruments.get("tagger_2")
    if second is None:
        return {"tagger": patterns}
    common, _ = split_settings(second.settings)
    both = {
        "tagger": {name: pattern & (1 << SECOND_INPUTS_FROM_BIT) - 1 for name, pattern in patterns.items()},
        "tagger_2": {name: pattern >> SECOND_INPUTS_FROM_BIT for name, pattern in patterns.items()},
    }
    both["tagger_2"][common.common_channel] = common_signal(common, patterns).second_pattern
    return both


def _command(name: str, entry: InstrumentConfig, clock: Clock) -> list[str]:
    """What starts the simulator of an entry at its address."""
    module = f"drivers.simulators.{entry.driver}"
    found = None
    with suppress(ModuleNotFoundError, ValueError):  # a name with dots, an empty one
        found = importlib.util.find_spec(module)
    if found is None:
        raise BadInput(f'[instruments.{name}] is simulated, but "{entry.driver}" has no simulator')
    anywhere = entry.address in ("serial:any", "serial://any")
    place = ["--pty"] if anywhere else ["--address", entry.address]
    return [sys.executable, "-m", module, "--clock", clock.text(), "--supervised", *place]


def simulate_tagger(entry: InstrumentConfig, clock: Clock, programs: ExitStack) -> InstrumentConfig:
    """Start a tagger's simulator without a pass, which ends with `programs`; the entry with its address."""
    log = Path(programs.enter_context(TemporaryDirectory())) / "simulator.log"
    with undisturbed():
        child = Child("simulator of tagger", _command("tagger", entry, clock), log)
        programs.callback(child.end)
    return replace(entry, address=str(child.wait_ready()["address"]))
