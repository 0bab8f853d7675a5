"""`groundstation instruments`: which drivers there are, what answers at an address, and a talk with it by hand."""

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundstation.cli.loading import described_drivers, load_driver
from groundstation.cli.talking import ENDS, talk
from groundstation.clock import Clock, SystemClock, sleep_wall_s
from groundstation.config import InstrumentConfig
from groundstation.errors import BadInput, GroundStationError, TransportLost
from groundstation.instruments import Capability, DriverDescription, Identity, Settings
from groundstation.tables import BadKey

#: Wider than this, and the eye loses the line.
_MAX_WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Without more words: a table of every driver. With them:"
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    text = "ask at an address with every driver that takes it (or with one), and say who answers"
    probe = actions.add_parser("probe", help=text, description=text)
    probe.add_argument("address", help="serial:///dev/ttyUSB0, tcp://HOST:PORT, http://HOST:PORT, ...")
    probe.add_argument("--driver", metavar="NAME", help="ask with this driver only")
    probe.add_argument("--timeout", type=float, default=1.0, metavar="S", help="for each answer (default 1 s)")
    probe.add_argument(
        "--pause", type=float, default=4.0, metavar="S",
        help="silence between two drivers, in which an instrument forgets a question it did not understand "
        "(default 4 s; a NexStar takes 3.5 s)",
    )  # fmt: skip
    text = "talk by hand: lines of stdin are sent, whatever comes is shown; every byte goes into a wire log"
    console = actions.add_parser(
        "console",
        help=text,
        description=f"{text}. In a line, \\r \\n \\t \\0 \\\\ and \\xNN stand for bytes. To http:// a line is "
        "GET /path a=b or PUT /path a=b, to zmq:// it is one message. Ctrl-D ends.",
    )
    console.add_argument("address", help="serial:///dev/ttyUSB0, tcp://HOST:PORT, visa://RESOURCE, zmq://, http://")
    console.add_argument("--baud", type=int, default=9600, metavar="N", help="of a serial line (default 9600)")
    console.add_argument("--end", choices=ENDS, help="sent after each line (default lf; none with --hex)")
    console.add_argument("--hex", action="store_true", help="lines are hexadecimal bytes, and so is what comes")
    console.add_argument("--log", type=Path, metavar="FILE", help="wire log (default: named by address and time)")


def run(options: argparse.Namespace) -> int:
    """0 done or found, 1 nobody answered."""
    actions: Mapping[str | None, Callable[[argparse.Namespace], int]] = {None: _list, "probe": _probe, "console": talk}
    return actions[options.action](options)


def _list(_: argparse.Namespace) -> int:
    console = Console()
    console.width = min(console.width, _MAX_WIDTH)
    table = Table(show_lines=True)
    table.add_column("driver\ncapability\naddresses", no_wrap=True)
    table.add_column("instrument; what the driver was written from; what it was tested with", ratio=1)
    order = get_args(Capability)
    found = described_drivers()
    for name in sorted(found, key=lambda name: (order.index(found[name].capability), name)):
        driver = found[name]
        schemes = " ".join(f"{scheme}:" for scheme in driver.schemes)
        table.add_row(
            Text.assemble((name, "bold"), f"\n{driver.capability}\n{schemes}"),
            Text.assemble((driver.instrument, "bold"), f"\n{driver.documentation}\ntested with: {driver.tested_with}"),
        )
    console.print(table)
    return 0


def _probe(options: argparse.Namespace) -> int:
    address = options.address
    for key, lowest in (("timeout", 1e-3), ("pause", 0.0)):
        if not lowest <= (value := getattr(options, key)) <= 1e3:
            raise BadInput(f"--{key} is {value:g}; give seconds, {lowest:g} at least")
    chosen = _askers(address, options.driver)
    _tell(
        f"Asks {len(chosen)} makers' identity questions at {address}, one after the other; an instrument of another\n"
        "maker may take one for a command. --driver NAME asks with one driver only."
        if len(chosen) > 1
        else f"Asks {address} who it is."
    )
    width = max(len(name) for name in chosen)
    found, opened = 0, False
    for name in chosen:
        if opened and not address.startswith(("http:", "wirelog:")):
            sleep_wall_s(options.pause)
        try:
            answer, verdict = _ask(name, address, options.timeout), "yes"
            found, opened = found + 1, True
        except GroundStationError as error:
            opened = opened or not isinstance(error, TransportLost)
            answer, verdict = " ".join(str(error).split()), "no"
        _tell(f"{verdict:3}  {name:{width}}  {answer}")
    return 0 if found else 1


def _askers(address: str, driver: str | None) -> dict[str, DriverDescription]:
    """The drivers that can be given such an address."""
    drivers = described_drivers()
    if driver is not None:
        if driver not in drivers:
            raise BadInput(f'there is no driver "{driver}"; known: {", ".join(sorted(drivers))}')
        return {driver: drivers[driver]}
    scheme = address.partition(":")[0]
    taking = {name: found for name, found in drivers.items() if scheme in (*found.schemes, "wirelog")}
    if not taking:
        kinds = sorted({f"{scheme}:" for found in drivers.values() for scheme in found.schemes})
        raise BadInput(f'no driver takes an address like "{address}"; they take {", ".join((*kinds, "wirelog:"))}')
    return taking


def _ask(name: str, address: str, timeout_s: float) -> str:
    """Who answers. Raises what the driver raises."""
    driver = load_driver("", InstrumentConfig(name, address))
    probe = getattr(driver, "probe", None) or partial(_connect_and_ask, driver.connect)
    try:
        identity: Identity = probe(address, SystemClock(), {"timeout_s": timeout_s})
    except BadKey:  # it has no link of its own
        identity = probe(address, SystemClock(), {})
    more = [f"{what} {text}" for what, text in (("firmware", identity.firmware), ("serial", identity.serial)) if text]
    return ", ".join([identity.model, *more])


def _connect_and_ask(connect: Callable[..., Any], address: str, clock: Clock, settings: Settings) -> Identity:
    with closing(connect(address, clock, settings)) as instrument:
        if hasattr(instrument, "identify"):
            found: Identity = instrument.identify()
            return found
        return Identity(instrument.terms().transmitter)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
