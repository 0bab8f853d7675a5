"""`groundstation correlate`: the delays between two channels, and whether anything stands out."""

import argparse

import numpy as np

from groundstation import api
from groundstation.cli.exploring import add_delays, add_options, add_recording, give_out, open_recording
from groundstation.exploration.results import Correlogram


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recording(parser)
    parser.add_argument("a", metavar="A", help="a channel by name or number")
    parser.add_argument("b", metavar="B", help="another one, or the same: delays are t_B - t_A")
    parser.add_argument("--half-range-ns", type=float, default=100.0, help="delays up to this, both ways (default 100)")
    parser.add_argument("--bin-ps", type=int, default=100, help="width of a bin in picoseconds (default 100)")
    add_delays(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print what stands out, and out of how much."""
    recording = open_recording(options)
    found = api.correlate(
        recording, options.a, options.b, options.half_range_ns, options.bin_ps, options.start_s, options.stop_s
    )
    return give_out(found, _lines(found, options.half_range_ns), options)


def _lines(found: Correlogram, half_range_ns: float) -> list[str]:
    a, b = found.channels
    pairs = int(found.counts.sum())
    return [
        f"{a} to {b}: {_finding(found, pairs)}",
        f"{pairs:,} pairs within ±{half_range_ns:g} ns in bins of {found.histogram.bin_ps:,} ps; "
        f"{found.tags_a:,} and {found.tags_b:,} tags in {found.origin.duration_s:.6g} s, {found.origin.text}",
    ]


def _finding(found: Correlogram, pairs: int) -> str:
    if not pairs:
        return "no pairs"
    extreme = found.extreme()
    if extreme.stands_out:
        delay_ns = found.delay_ps[extreme.bin] / 1e3
        g2, error = found.g2()[extreme.bin], found.g2_error()[extreme.bin]
        compared = "" if np.isnan(g2) else f"; g2 = {g2:.3g} ± {error:.2g}"
        return (
            f"{extreme.words} at {delay_ns:+.6g} ns: {extreme.counts:,} pairs in the bin, {extreme.background:.3g} in "
            f"others{compared}"
        )
    expected = found.expected() * found.counts.size
    level = f"; g2 = {pairs / expected:.4g} ± {pairs**0.5 / expected:.2g} over the range" if expected > 0 else ""
    return f"nothing stands out: {pairs / found.counts.size:.3g} pairs per bin{level}"
