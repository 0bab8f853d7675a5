"""`groundstation import`: a recording from a file of another program or instrument."""

import argparse
import sys
from pathlib import Path

from groundstation.clock import parse_utc
from groundstation.errors import BadInput
from groundstation.recording.formats.registry import FORMATS, read_file
from groundstation.recording.importing import import_tags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the file (qcrypto: or the directory of its epochs)")
    parser.add_argument(
        "--format", choices=FORMATS, metavar="FORMAT", help=f"instead of by content: {', '.join(FORMATS)}"
    )
    parser.add_argument("--output", type=Path, help="directory of the recording (default: FILE-recording)")
    parser.add_argument("--channels", help="names of channel numbers, as alice=1,bob=2")
    parser.add_argument("--start-utc", help="UTC of the first tag, as 2016-12-19T16:52:13Z")
    parser.add_argument("--resolution-ps", type=float, help="unit of time of a file that does not say it (quTAG)")


def run(options: argparse.Namespace) -> int:
    """Import it and say what it held."""
    names = {number: name for name, number in parse_channels(options.channels).items()}
    start_utc_ns = parse_utc(options.start_utc) if options.start_utc else None
    path = options.file
    output = options.output or path.resolve().with_name(f"{path.resolve().stem}-recording")
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    source = read_file(path, options.format, options.resolution_ps)
    made = import_tags(source, path, output, names, start_utc_ns)
    write = sys.stdout.write
    rows = f" and {made.rows:,} rows of sifting" if made.rows else ""
    write(f"{path.name}, {FORMATS[source.about.format].title}: {made.tags:,} tags{rows}\n")
    listed = ", ".join(f"{number} {name}" if name != str(number) else name for number, name in made.channels.items())
    write(f"resolution {made.resolution_ps:g} ps; channels {listed or 'none'}\n")
    for note in made.notes:
        write(f"note: {note}\n")
    write(f"Recording {made.recording}\n")
    return 0


def parse_channels(text: str | None) -> dict[str, int]:
    """`alice=1,bob=2` as name -> number. Raises BadInput."""
    found: dict[str, int] = {}
    for entry in text.split(",") if text else ():
        name, _, number = (part.strip() for part in entry.partition("="))
        if not name or not (number.isascii() and number.isdigit()) or int(number) > 255:
            raise BadInput(f'--channels has "{entry}"; write NAME=NUMBER with a number from 0 to 255')
        if name in found or int(number) in found.values():
            raise BadInput(f'--channels has "{entry}", but that name or number was there before')
        found[name] = int(number)
    return found
