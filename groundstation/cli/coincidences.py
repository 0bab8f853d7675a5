"""`groundstation coincidences`: tags of several channels that come together, and how many of them by chance."""

import argparse

import numpy as np

from groundstation import api
from groundstation.cli.exploring import (
    add_delays,
    add_options,
    add_recording,
    error_text,
    give_out,
    open_recording,
    rate_text,
)
from groundstation.exploration.results import Coincidences, Pairs, TwoFold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recording(parser)
    parser.add_argument("channels", metavar="CHANNEL", nargs="+", help="two or more, by name or number")
    parser.add_argument(
        "--veto", metavar="CHANNEL", nargs="+", action="extend", default=[], help="channels without a tag in the window"
    )
    parser.add_argument(
        "--half-window-ps",
        type=int,
        default=1000,
        help="a coincidence is |t - t_FIRST| <= this for every other channel (default 1000)",
    )
    parser.add_argument(
        "--which",
        choices=("all", "nearest", "one_to_one"),
        help="of the pairs of just two channels (default all)",
    )
    parser.add_argument(
        "--shift-ps",
        type=int,
        help="distance of the windows in which chance is counted (default: ten full windows); "
        "for pulses a multiple of their period",
    )
    add_delays(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print how many there are, how many by chance, and those of each two channels."""
    recording = open_recording(options)
    found = api.coincidences(
        recording,
        options.channels,
        options.half_window_ps,
        options.which,
        options.shift_ps,
        options.start_s,
        options.stop_s,
        options.veto,
    )
    return give_out(found, _lines(found), options)


def _lines(found: Coincidences) -> list[str]:
    chance = error_text(found.accidentals, found.accidentals_error)
    answer = f"{found.name}: {found.count:,} coincidence{'s' * (found.count != 1)}"
    if found.origin.duration_s:
        answer += f", {rate_text(found.rate_hz)}"
    lines = [f"{answer}; {chance} by chance; CAR {_car_text(found.car)}"]
    tags = " and ".join(f"{tags:,}" for tags in found.tags.tolist())
    what = f"{found.which} pairs" if isinstance(found, Pairs) else f"tags of {found.channels[0]} with all others"
    lines.append(
        f"{what} within ±{found.half_window_ps:,} ps; {tags} tags in {found.origin.duration_s:.6g} s, "
        f"{found.origin.text}"
    )
    if len(found.one_random) > 2:
        levels = ", ".join(f"{name}: {level:.4g}" for name, level in zip(found.channels, found.one_random, strict=True))
        lines.append(f"by chance if only one channel has nothing to do with the others: {levels}")
    return [*lines, *_table(found.twofold)]


def _table(rows: tuple[TwoFold, ...]) -> list[str]:
    if not rows:
        return []
    names = [" and ".join(row.channels) for row in rows]
    width = max(8, *map(len, names))
    lines = [f"{'channels':{width}}  {'tags together':>13}  {'by chance':>17}  {'CAR':>8}"]
    for name, row in zip(names, rows, strict=True):
        chance = error_text(row.accidentals, row.accidentals_error)
        lines.append(f"{name:{width}}  {row.count:>13,}  {chance:>17}  {_car_text(row.car):>8}")
    return lines


def _car_text(car: float) -> str:
    return f"{car:,.4g}" if np.isfinite(car) else "unknown" if np.isnan(car) else "infinite"
