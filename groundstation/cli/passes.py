"""`groundstation passes`: the coming passes of the station's satellite."""

import argparse
import json
import sys
from pathlib import Path

from groundstation.clock import NS_PER_S, SystemClock, parse_utc, utc_text
from groundstation.config import DEFAULT_CONFIG, StationConfig, load_config
from groundstation.errors import BadInput
from groundstation.passes.prediction import PassPrediction, find_passes, window_within

#: Elements are worth a warning when they are older than this at the pass (MountWizzard4 warns there too).
_STALE_DAYS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="station file")
    parser.add_argument("--from", dest="start", help="UTC, for instance 2016-12-19T16:00:00Z (default: now)")
    parser.add_argument("--hours", type=float, default=24.0, help="how far to look (default 24)")
    parser.add_argument("--json", action="store_true", help="one JSON object per pass")


def run(options: argparse.Namespace) -> int:
    """Print a line per pass."""
    if not 0 < options.hours <= 24 * 31:
        raise BadInput(f"--hours is {options.hours:g}; give a number above 0, 744 at most")
    config = load_config(options.config)
    start = parse_utc(options.start) if options.start else SystemClock().utc_ns()
    stop = start + round(options.hours * 3600 * NS_PER_S)
    found = find_passes(config.orbit(), start, stop, config.window.min_elevation_deg)
    rows = [_row(config, prediction) for prediction in found]
    if options.json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return 0
    sys.stdout.write(_text(config, rows, start, options.hours))
    return 0


def _row(config: StationConfig, prediction: PassPrediction) -> dict[str, object]:
    limit = config.window.max_range_km
    within_s = 0.0
    if prediction.min_range_km <= limit:
        first, last = window_within(config.orbit(), prediction, limit)
        within_s = (last - first) * 1e-9
    return {
        "rise_utc": utc_text(prediction.rise.utc_ns, 0),
        "culmination_utc": utc_text(prediction.culmination.utc_ns, 0),
        "set_utc": utc_text(prediction.set.utc_ns, 0),
        "max_elevation_deg": round(prediction.max_elevation_deg, 2),
        "min_range_km": round(prediction.min_range_km, 2),
        "window_s": round(within_s, 1),
        "rise_azimuth_deg": round(prediction.rise.azimuth_deg, 1),
        "set_azimuth_deg": round(prediction.set.azimuth_deg, 1),
        "sun_elevation_deg": round(prediction.sun_elevation_deg, 1),
        "element_age_days": round(prediction.element_age_days, 2),
    }


def _text(config: StationConfig, rows: list[dict[str, object]], start: int, hours: float) -> str:
    title = f"{config.satellite.name} over {config.station.name}, {hours:g} h from {utc_text(start, 0)}"
    if not rows:
        return f"{title}: no pass above {config.window.min_elevation_deg:g} deg\n"
    lines = [
        f"{title}; window: within {config.window.max_range_km:g} km",
        f"{'rise':20}  {'culmination':20}  {'set':20}  {'max el':>6}  {'range':>7}  {'window':>7}  {'Sun':>6}",
    ]
    lines += [
        f"{row['rise_utc']}  {row['culmination_utc']}  {row['set_utc']}  {row['max_elevation_deg']:5.1f}°  "
        f"{row['min_range_km']:4.0f} km  {row['window_s']:5.0f} s  {row['sun_elevation_deg']:5.1f}°"
        for row in rows
    ]
    oldest = max(abs(float(str(row["element_age_days"]))) for row in rows)
    if oldest > _STALE_DAYS:
        lines.append(f"The element set is {oldest:.0f} days away from these passes; renew it before you trust them.")
    return "\n".join(lines) + "\n"
