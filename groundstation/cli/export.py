"""`groundstation export`: the tags of a recording in a format of other programs."""

import argparse
import sys
from pathlib import Path

from groundstation.cli.import_ import parse_channels
from groundstation.recording.exporting import renumbered, tag_file
from groundstation.recording.formats.registry import FORMATS, write_file
from groundstation.recording.reader import open_recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5, or the directory of one that is not")
    parser.add_argument("file", type=Path, help="the new file (qcrypto: or an empty directory, for a file each epoch)")
    parser.add_argument(
        "--format", choices=FORMATS, metavar="FORMAT", help=f"instead of by suffix: {', '.join(FORMATS)}"
    )
    parser.add_argument("--channels", help="only these, with their numbers in the file, as H=1,V=2 (default: all)")


def run(options: argparse.Namespace) -> int:
    """Export it, and say what the format cannot keep."""
    numbers = parse_channels(options.channels)
    source = tag_file(open_recording(options.recording))
    if numbers:
        source = renumbered(source, numbers)
    chosen = write_file(options.file, source, options.format)
    left_out = len(source.about.gaps)
    write = sys.stdout.write
    write(f"{options.file}: {chosen.title}; times are the device's, kept to {chosen.unit_ps:g} ps\n")
    if left_out and not chosen.keeps_gaps:
        write(f"note: {left_out} gaps were left out, the format has no place for them\n")
    for cause, count in source.about.dropped.items():
        write(f"note: {count:,} tags were left out: {cause}\n")
    for note in source.about.notes:
        write(f"note: {note}\n")
    return 0
