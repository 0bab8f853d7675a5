"""`groundstation rates`: how fast each channel counted, over time."""

import argparse

import numpy as np

from groundstation import api
from groundstation.cli.exploring import add_options, add_recording, give_out, open_recording, rate_text
from groundstation.exploration.results import Rates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recording(parser)
    parser.add_argument("--bin-s", type=float, default=1.0, help="width of a bin in seconds (default 1)")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print a line for all channels, and one for each."""
    recording = open_recording(options)
    found = api.rates(recording, options.bin_s, options.start_s, options.stop_s)
    return give_out(found, _lines(found, options.bin_s), options)


def _lines(found: Rates, bin_s: float) -> list[str]:
    if not found.channels:
        return ["no tags in this range"]
    width = max(7, *map(len, found.channels))
    total = "an unknown rate" if np.isnan(found.mean_hz).any() else rate_text(float(found.mean_hz.sum()))
    lines = [
        f"{total} in all: {int(found.tags.sum()):,} tags in {found.origin.duration_s:.6g} s, {found.origin.text}",
        f"{'channel':{width}}  {'tags':>13}  {'mean':>10}  {'lowest':>10}  {'highest':>10}  in bins of {bin_s:g} s",
    ]
    for row, name in enumerate(found.channels):
        known = found.rate_hz[row][np.isfinite(found.rate_hz[row])]
        rates_hz = (float(found.mean_hz[row]), *((known.min(), known.max()) if known.size else (np.nan, np.nan)))
        columns = "  ".join(f"{'-' if np.isnan(rate) else rate_text(rate):>10}" for rate in rates_hz)
        lines.append(f"{name:{width}}  {int(found.tags[row]):>13,}  {columns}")
    return lines
