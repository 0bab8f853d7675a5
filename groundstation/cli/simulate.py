"""`groundstation simulate`: the simulated instruments of a station file, without a pass and without recording."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from groundstation.cli.child import Ending
from groundstation.cli.loading import Simulators
from groundstation.clock import Clock, SimulatedClock, SystemClock, monotonic_ns
from groundstation.config import DEFAULT_CONFIG, InstrumentConfig, load_config
from groundstation.errors import BadInput, GroundStationError

_MAX_SPEED = 100.0
_LOOK_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start the simulator of every instrument that has `simulate = true`, each a program on a pseudo-terminal or "
        "loopback port, in one world that stands still (a laboratory: light on the detectors, no pass). Say where "
        "they are and run until Ctrl-C."
    )
    parser.add_argument(
        "config", type=Path, nargs="?", default=DEFAULT_CONFIG, help="station file (default: the simulated one)"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="N", help="world seconds per second (default 1): of motion, cooling"
    )


def run(options: argparse.Namespace) -> int:
    """Until Ctrl-C or SIGTERM; 0 when every simulator ended in order."""
    config = load_config(options.config)
    if not config.simulated:
        raise BadInput(f"nothing in {options.config} has simulate = true")
    if not 0.1 <= options.speed <= _MAX_SPEED:
        raise BadInput(f"--speed is {options.speed:g}; give a number from 0.1 to {_MAX_SPEED:g}")
    ending = Ending(supervised=False)
    with ExitStack() as ended:
        directory = Path(ended.enter_context(TemporaryDirectory()))
        simulators = Simulators(config, _clock(options.speed), directory)
        ended.callback(simulators.end_all)
        simulators.start_laboratory()
        there = {name: entry for name, entry in simulators.addressed().items() if entry.simulate}
        sys.stdout.write(_table(there) + _snippet(there) + "\nCtrl-C ends them.\n")
        sys.stdout.flush()
        while not ending.asked.wait(_LOOK_S):
            for child in simulators.children.values():
                if not child.running:
                    raise GroundStationError(f"the {child.name} ended: {child.last_words()}")
        ending.over()
    return 0


def _clock(speed: float) -> Clock:
    system = SystemClock()
    return system if speed == 1.0 else SimulatedClock(system.utc_ns(), monotonic_ns(), speed)


def _table(there: Mapping[str, InstrumentConfig]) -> str:
    rows = [("instrument", "driver", "address"), *((n, e.driver, e.address) for n, e in there.items())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    guards = ["", *(e.guard_address for e in there.values())]
    return "".join(
        f"{name:{widths[0]}}  {driver:{widths[1]}}  {address}{f'  (guard {guard})' if guard else ''}\n"
        for (name, driver, address), guard in zip(rows, guards, strict=True)
    )


def _snippet(there: Mapping[str, InstrumentConfig]) -> str:
    """What to paste into a station file, to use them as if they were hardware."""
    text = "\n# For a station file that takes them for hardware:\n"
    for name, entry in there.items():
        text += f'\n[instruments.{name}]\ndriver = "{entry.driver}"\naddress = "{entry.address}"\n'
        text += f'guard_address = "{entry.guard_address}"\n' if entry.guard_address else ""
    return text
