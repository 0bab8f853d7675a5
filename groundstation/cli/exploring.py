"""What `rates`, `correlate`, `histogram` and `coincidences` share: the recording, the range, and the ways out."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from groundstation import api
from groundstation.errors import BadInput
from groundstation.exploration.results import Result
from groundstation.exploration.tag_recording import Channel, TagRecording
from groundstation.recording.formats.registry import FORMATS

_SUFFIXES = (".svg", ".png", ".pdf", ".csv")


def add_recording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5, a recording's directory, or a tag file")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start-s", type=float, help="from this time on, in seconds since the recording's zero")
    parser.add_argument("--stop-s", type=float, help="up to this time")
    parser.add_argument("--output", type=Path, help="a figure (.svg, .png, .pdf) or a table (.csv)")
    parser.add_argument("--json", action="store_true", help="the whole result as one JSON object")
    parser.add_argument("--format", choices=FORMATS, metavar="FORMAT", help="of a tag file, instead of by content")
    parser.add_argument("--resolution-ps", type=float, help="unit of time of a tag file that does not say it (quTAG)")


def add_delays(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--delays-ps",
        metavar="NAME=PS,...",
        help="delays to subtract from channels, instead of those that the recording lists",
    )


def open_recording(options: argparse.Namespace) -> TagRecording:
    """Open it, once the output is known to be one that can be written."""
    output: Path | None = options.output
    if output is not None:
        if output.suffix.lower() not in _SUFFIXES:
            raise BadInput(f'--output "{output.name}" does not say what to write; end it in {", ".join(_SUFFIXES)}')
        if not output.absolute().parent.is_dir():
            raise BadInput(f"--output {output} cannot be written: {output.absolute().parent} is no directory")
        if output.exists() and options.recording.exists() and output.samefile(options.recording):
            raise BadInput(f"--output {output} is what is to be read; name another file")
    delays_ps = _delays_ps(getattr(options, "delays_ps", None))
    return api.open(options.recording, options.format, options.resolution_ps, delays_ps)


def _delays_ps(text: str | None) -> dict[Channel, int] | None:
    if text is None:
        return None
    delays_ps: dict[Channel, int] = {}
    for part in filter(None, text.split(",")):
        name, equals, delay = part.rpartition("=")
        if not equals or not delay.strip().removeprefix("-").isdecimal():
            raise BadInput(f'--delays-ps has "{part}"; write NAME=PS, whole picoseconds, with commas in between')
        delays_ps[name.strip()] = int(delay)
    return delays_ps


def give_out(result: Result, lines: Sequence[str], options: argparse.Namespace) -> int:
    """Print the lines or the JSON, and write the output."""
    if options.output is not None:
        write = result.csv if options.output.suffix.lower() == ".csv" else result.plot
        write(options.output)
    if options.json:
        sys.stdout.write(json.dumps(result.as_dict(), allow_nan=False) + "\n")
        return 0
    sys.stdout.write("\n".join([*lines, *_remarks(result, options)]) + "\n")
    return 0


def rate_text(rate_hz: float) -> str:
    """A rate with four digits in its natural unit."""
    for unit_hz, unit in ((1e6, "MHz"), (1e3, "kHz")):
        if rate_hz >= unit_hz:
            return f"{rate_hz / unit_hz:.4g} {unit}"
    return f"{rate_hz:.4g} Hz"


def error_text(value: float, error: float) -> str:
    """A value with one digit of its error."""
    digits = max(0, -math.floor(math.log10(error))) if error > 0 else 0
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _remarks(result: Result, options: argparse.Namespace) -> list[str]:
    remarks = []
    gaps_s = result.origin.gaps_s
    if gaps_s:
        lost_s = sum(stop - start for start, stop in gaps_s)
        gaps = f"{len(gaps_s)} gaps" if len(gaps_s) > 1 else "1 gap"
        remarks.append(f"note: {gaps} with unaccounted tags ({lost_s:.4g} s in all) left out")
    if options.output is not None:
        remarks.append(f"Written to {options.output}")
    return remarks
