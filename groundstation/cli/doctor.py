"""`groundstation doctor`: checks everything that can be checked before a pass, one line each."""

import argparse
import importlib
import importlib.metadata
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from drivers.transport.addresses import after_scheme, host_and_port
from drivers.transport.wire_log import read_wire_log
from groundstation.cli.checking import check_channels, check_mount, space_needed
from groundstation.cli.loading import load_driver
from groundstation.cli.planning import plan_pass
from groundstation.clock import SystemClock, utc_text
from groundstation.config import DEFAULT_CONFIG, InstrumentConfig, StationConfig, load_config
from groundstation.errors import GroundStationError

_CONNECT_TIMEOUT_S = 2.0
#: A clock further back than the year this was written is certainly wrong.
_NOT_BEFORE_UTC_NS = 1_767_225_600_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="station file")
    parser.add_argument("--output", type=Path, default=Path(), help="where recordings will go (default: here)")


def run(options: argparse.Namespace) -> int:
    """Print a line per check; 1 when any failed."""
    config = load_config(options.config)
    sys.stdout.write(f"ok    station file    {options.config}: {config.satellite.name} over {config.station.name}\n")
    failed = False
    for name, check in _checks(config, options.output):
        try:
            verdict, finding = "ok", check()
        except (GroundStationError, OSError, ImportError) as error:
            verdict, finding = "FAIL", str(error)
            failed = True
        sys.stdout.write(f"{verdict:5} {name:15} {finding}\n")
    return int(failed)


def _checks(config: StationConfig, output: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "libraries", _libraries
    yield "next pass", lambda: _next_pass(config)
    yield "disk", lambda: _disk(config, output)
    yield "clock", _system_clock
    yield "guard", lambda: _guard(config)
    yield "channels", lambda: _channels(config)
    for name, entry in config.instruments.items():
        yield name, lambda name=name, entry=entry: _instrument(name, entry)  # type: ignore[misc]  # default arguments


def _libraries() -> str:
    """Every dependency of the installed package, with the version that is there."""
    found = []
    for requirement in importlib.metadata.requires("groundstation") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[<>=!~;\s\[]", requirement, maxsplit=1)[0]
        found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def _next_pass(config: StationConfig) -> str:
    planned = plan_pass(config)
    duration_s = (planned.window_stop_utc_ns - planned.window_start_utc_ns) * 1e-9
    return (
        f"{utc_text(planned.window_start_utc_ns, 0)}, {duration_s:.0f} s within {config.window.max_range_km:g} km, "
        f"up to {planned.prediction.max_elevation_deg:.1f} deg"
    )


def _disk(config: StationConfig, output: Path) -> str:
    needed, free = space_needed(config, plan_pass(config)), shutil.disk_usage(output).free
    if free < needed:
        raise OSError(f"{free / 1e9:.1f} GB free, a pass may need {needed / 1e9:.1f} GB; make room")
    if not os.access(output, os.W_OK):
        raise OSError(f"{output.resolve()} cannot be written; choose another --output")
    return f"{free / 1e9:.1f} GB free, a pass may need {needed / 1e9:.1f} GB"


def _guard(config: StationConfig) -> str:
    check_mount(config)
    return "has a link of its own to the mount, which can follow a satellite"


def _channels(config: StationConfig) -> str:
    check_channels(config)
    return "each is plugged into inputs that the tagger has"


def _system_clock() -> str:
    now = SystemClock().utc_ns()
    if now < _NOT_BEFORE_UTC_NS:
        raise OSError(f"the system says {utc_text(now, 0)}; set its clock")
    resolution_ns = time.get_clock_info("monotonic").resolution * 1e9
    return f"{utc_text(now, 0)}, monotonic to {resolution_ns:.0f} ns; that it is right is for NTP or PTP to say"


def _instrument(name: str, entry: InstrumentConfig) -> str:
    """The driver exists, and so does what its address names; nothing is sent to hardware."""
    schemes = (*load_driver(name, entry).DRIVER.schemes, "wirelog")
    for address in filter(None, (entry.address, entry.guard_address)):
        if address.partition(":")[0] not in schemes:
            raise OSError(f'{entry.driver} takes no address "{address}"; its kinds are {", ".join(schemes)}')
    if entry.simulate:
        importlib.import_module(f"drivers.simulators.{entry.driver}")
        return f"{entry.driver}, simulated at {entry.address}"
    for address in filter(None, (entry.address, entry.guard_address)):
        _reach(address)
    return f"{entry.driver} at {entry.address}"


def _reach(address: str) -> None:
    """BadInput or OSError when what the address names is not there; of some kinds nothing can be known."""
    scheme, rest = address.partition(":")[0], after_scheme(address)
    visa = re.match(r"(?i)(?:TCPIP\d*::(?P<host>.+)::(?P<port>\d+)::SOCKET|ASRL(?P<path>/.+?)(?:::INSTR)?)$", rest)
    if scheme == "serial":
        _reach_line(Path(rest.split("?")[0]))
    elif scheme in ("tcp", "http", "zmq"):
        _reach_port(address, *host_and_port(address, scheme))
    elif scheme == "visa" and visa and visa["path"]:
        _reach_line(Path(visa["path"]))
    elif scheme == "visa" and visa:
        _reach_port(address, visa["host"], int(visa["port"]))
    elif scheme == "wirelog":
        read_wire_log(Path(rest))
    elif scheme == "program":
        words = shlex.split(rest)
        if not words or shutil.which(words[0]) is None:
            raise OSError(f"{address} names a program that is not there; install it or correct the address")


def _reach_line(path: Path) -> None:
    if not path.exists():
        raise OSError(f"{path} does not exist; plug it in or correct the address")
    if not os.access(path, os.R_OK | os.W_OK):
        raise OSError(f"{path} may not be opened by this user; join the group that owns it")


def _reach_port(address: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise OSError(f"{address} does not answer ({error}); switch it on or correct the address") from error
