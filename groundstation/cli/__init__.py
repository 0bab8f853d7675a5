"""The command line, and the only place where drivers, streams and analysis are put together."""

import argparse
import importlib
import keyword
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from groundstation import __version__
from groundstation.errors import BadInput, GroundStationError

DONE, FAILED, BAD_INPUT = 0, 1, 2

#: Command (a module of this package with `add_arguments` and `run`) -> what it does. Commands without a
#: description are programs that `run` starts.
_COMMANDS = {
    "run": "fly a pass: point, record, analyse live, report",
    "replay": "analyse a recording again, without any instrument",
    "acquire": "record the tagger alone: no pass, no mount; also as a service",
    "info": "say what a recording holds",
    "recover": "put a recording in order whose station died, and say what is there",
    "verify": "check that an archive is as it was written, and print its fingerprint",
    "rates": "count rates of a recording or tag file over time",
    "correlate": "delays between two channels, and g2",
    "coincidences": "tags of several channels that come together, and how many by chance",
    "histogram": "when a channel's tags come: within a period, after a sync, after each other",
    "import": "make a recording of a file of another program",
    "export": "write a recording's tags for another program",
    "pairs": "simulate two stations that receive entangled pairs, as two recordings",
    "coincide": "find the coincidences of two stations' recordings",
    "passes": "list the coming passes of the station's satellite",
    "doctor": "check station file, addresses, disk, clock and libraries",
    "instruments": "list the drivers; find out what answers at an address; talk to it by hand",
    "simulate": "start the simulated instruments of a station file, to try drivers and programs on",
    "analyse": "",
    "guard": "",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 1 ended early or failed, 2 bad input; an error is one sentence on stderr."""
    if threading.current_thread() is threading.main_thread():  # Ctrl-C ends every command, whoever started it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except BadInput as error:
        return _complain(error, BAD_INPUT)
    except GroundStationError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return _complain("stopped", FAILED)
    except BrokenPipeError:
        return FAILED


def _dispatch(words: list[str]) -> int:
    parser = _Parser(prog="groundstation", description="Software of an optical ground station for quantum satellites.")
    parser.add_argument("--version", action="version", version=f"groundstation {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, description in _COMMANDS.items():
        if description or name == chosen:
            command = commands.add_parser(name, help=description, description=description)
            if name == chosen:
                _module(name).add_arguments(command)
    options = parser.parse_args(words)
    return int(_module(options.command).run(options))


def _module(command: str) -> Any:
    """Only the chosen command is imported: a replay loads no driver, and help is quick.

    A command that is a word of Python itself has a module with an underscore after its name.
    """
    module = f"{command}_" if keyword.iskeyword(command) else command
    return importlib.import_module(f"groundstation.cli.{module}")


class _Parser(argparse.ArgumentParser):
    """argparse with our way to complain."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _complain(error: object, code: int) -> int:
    sys.stderr.write(f"groundstation: {error}\n")
    return code
