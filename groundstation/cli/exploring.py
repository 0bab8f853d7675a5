"""What `rates`, `correlate` and `histogram` share: the recording, the range, and the ways out."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from groundstation import api
from groundstation.errors import BadInput
from groundstation.exploration.results import Result
from groundstation.exploration.tag_recording import TagRecording
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
    return api.open(options.recording, options.format, options.resolution_ps)


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


def time_text(time_ps: float) -> str:
    """A time with four digits in its natural unit."""
    for unit_ps, unit in ((1e12, "s"), (1e9, "ms"), (1e6, "µs"), (1e3, "ns")):
        if abs(time_ps) >= unit_ps:
            return f"{time_ps / unit_ps:.4g} {unit}"
    return f"{time_ps:.4g} ps"


def rate_text(rate_hz: float) -> str:
    """A rate with four digits in its natural unit."""
    for unit_hz, unit in ((1e6, "MHz"), (1e3, "kHz")):
        if rate_hz >= unit_hz:
            return f"{rate_hz / unit_hz:.4g} {unit}"
    return f"{rate_hz:.4g} Hz"


def _remarks(result: Result, options: argparse.Namespace) -> list[str]:
    remarks = []
    gaps_s = result.origin.gaps_s
    if gaps_s:
        lost_s = sum(stop - start for start, stop in gaps_s)
        remarks.append(f"note: {len(gaps_s)} gaps with unaccounted tags ({lost_s:.4g} s in all) are left out")
    if options.output is not None:
        remarks.append(f"Written to {options.output}")
    return remarks
