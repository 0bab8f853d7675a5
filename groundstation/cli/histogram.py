"""`groundstation histogram`: when the tags of a channel come, within a period, after a sync or after each other."""

import argparse

from groundstation import api
from groundstation.cli.exploring import add_delays, add_options, add_recording, give_out, open_recording
from groundstation.exploration.quantities import fraction, time_text
from groundstation.exploration.results import TagHistogram


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recording(parser)
    parser.add_argument("channel", metavar="CHANNEL", help="a channel by name or number")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--period-ps", help="time within this period, which may have decimals")
    which.add_argument("--sync", metavar="CHANNEL", help="time since the latest tag of this channel")
    which.add_argument("--intervals", action="store_true", help="time since the channel's own tag before")
    parser.add_argument("--range-ns", type=float, help="longest time (default: by the mean spacing)")
    parser.add_argument("--bin-ps", type=int, help="width of a bin in picoseconds (default: a round number)")
    add_delays(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print what stands out, and out of how much."""
    recording = open_recording(options)
    found = api.histogram(
        recording,
        options.channel,
        period_ps=None if options.period_ps is None else fraction(options.period_ps, "period_ps"),
        sync=options.sync,
        intervals=options.intervals,
        range_ns=options.range_ns,
        bin_ps=options.bin_ps,
        start_s=options.start_s,
        stop_s=options.stop_s,
    )
    return give_out(found, _lines(found), options)


def _lines(found: TagHistogram) -> list[str]:
    tags = int(found.counts.sum())
    bin_ps = float(found.edges_ps[1] - found.edges_ps[0])
    outside = f", {found.outside:,} outside" if found.outside else ""
    return [
        f"{found.channel}: {_finding(found, tags)}",
        f"{tags:,} tags by {found.axis}{outside}; {found.counts.size:,} bins of {time_text(bin_ps)} up to "
        f"{time_text(float(found.edges_ps[-1]))}; {found.origin.duration_s:.6g} s, {found.origin.text}",
    ]


def _finding(found: TagHistogram, tags: int) -> str:
    if found.kind == "intervals" and found.shortest_ps is not None:
        mean_ps = found.origin.duration_s * 1e12 / max(tags + found.outside, 1)
        return f"shortest interval {found.shortest_ps:,} ps; mean {time_text(mean_ps)}"
    if not tags:
        return "no tags in the histogram"
    extreme = found.extreme()
    if not extreme.stands_out:
        return f"nothing stands out: {tags / found.counts.size:.4g} tags per bin"
    if extreme.alone:
        place = time_text(float(found.centre_ps[extreme.bin]))
        return f"{extreme.words} at {place}: {extreme.counts:,} tags in the bin, {extreme.background:.4g} in others"
    low, high = int(found.counts.argmin()), int(found.counts.argmax())
    places = [time_text(float(found.centre_ps[number])) for number in (low, high)]
    return f"uneven, from {found.counts[low]:,} tags at {places[0]} to {found.counts[high]:,} at {places[1]}"
