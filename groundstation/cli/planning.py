"""From a station file to one pass: when it is, where the mount points, and what the recording says of it."""

import platform
from dataclasses import asdict, dataclass

import numpy as np

from groundstation import __version__
from groundstation.clock import NS_PER_S, Clock, SystemClock, parse_utc, utc_text
from groundstation.config import StationConfig
from groundstation.errors import BadInput
from groundstation.passes.prediction import (
    PassPrediction,
    PredictedPath,
    find_passes,
    fit_azimuth,
    predict_path,
    window_within,
)


@dataclass(frozen=True)
class PlannedPass:
    """One pass: prediction, counting window, tracking interval (all UTC ns), path, and the slots' epoch."""

    prediction: PassPrediction
    window_start_utc_ns: int
    window_stop_utc_ns: int
    start_utc_ns: int
    stop_utc_ns: int
    path: PredictedPath
    epoch_utc_ns: int


def plan_pass(config: StationConfig) -> PlannedPass:
    """The first pass of the station file that comes close enough. BadInput when there is none."""
    orbit, wanted = config.orbit(), config.window
    search_from = SystemClock().utc_ns() if wanted.search_from == "now" else parse_utc(wanted.search_from)
    search_to = search_from + round(wanted.search_hours * 3600 * NS_PER_S)
    if not config.simulated and search_to < SystemClock().utc_ns():
        raise BadInput(
            f"[window] asks for a pass before {utc_text(search_to, 0)}, which is over; a real station needs a pass "
            'to come: set search_from = "now"'
        )
    for prediction in find_passes(orbit, search_from, search_to, wanted.min_elevation_deg):
        near = prediction.min_range_km <= wanted.max_range_km and prediction.culmination.utc_ns > search_from
        if near and prediction.sun_elevation_deg <= wanted.max_sun_elevation_deg:
            break
    else:
        raise BadInput(
            f"{config.satellite.name} does not come within {wanted.max_range_km:g} km of {config.station.name} in the "
            f"{wanted.search_hours:g} h after {utc_text(search_from, 0)} with the Sun below "
            f"{wanted.max_sun_elevation_deg:g} deg; widen [window] or renew the element set"
        )
    window_start, window_stop = window_within(orbit, prediction, wanted.max_range_km)
    margin_ns = round(wanted.margin_s * NS_PER_S)
    start = max(window_start - margin_ns, prediction.rise.utc_ns)
    stop = min(window_stop + margin_ns, prediction.set.utc_ns)
    if not config.simulated and start < SystemClock().utc_ns():
        raise BadInput(f"the pass began at {utc_text(start, 0)}, which is over; wait for the next one")
    first_knot = min(prediction.rise.utc_ns, start) // NS_PER_S * NS_PER_S
    path = fit_azimuth(predict_path(orbit, first_knot, max(prediction.set.utc_ns, stop)))
    epoch = first_knot // (60 * NS_PER_S) * 60 * NS_PER_S
    return PlannedPass(prediction, window_start, window_stop, start, stop, path, epoch)


def manifest_of(config: StationConfig, planned: PlannedPass, clock: Clock) -> dict[str, object]:
    """What the recording says of itself, so that it can be analysed without anything else."""
    elements = config.elements()
    return {
        **_about(config, clock, config.simulated),
        "satellite": {"name": config.satellite.name, "tle": [elements.line1, elements.line2]},
        "earth_orientation": asdict(config.earth_orientation),
        "directions": "apparent by light time, without refraction",
        "window": {"start_utc_ns": planned.window_start_utc_ns, "stop_utc_ns": planned.window_stop_utc_ns},
        "culmination_utc_ns": planned.prediction.culmination.utc_ns,
        "analysis": asdict(config.analysis),
        "instruments": {name: asdict(entry) for name, entry in config.instruments.items()},
        "simulation": asdict(config.simulation) if config.simulated and config.simulation else None,
    }


def manifest_without_pass(config: StationConfig, clock: Clock) -> dict[str, object]:
    """What a recording of the tagger alone says of itself."""
    tagger = config.instruments["tagger"]
    return {**_about(config, clock, tagger.simulate), "instruments": {"tagger": asdict(tagger)}}


def _about(config: StationConfig, clock: Clock, simulated: bool) -> dict[str, object]:
    """What every recording says of itself."""
    return {
        "mode": "simulation" if simulated else "live",
        "created_utc": utc_text(clock.utc_ns()),
        "speed": clock.speed,
        "software": {
            "groundstation": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "station": asdict(config.station),
        "patterns": config.patterns(),
        "delays_ps": config.delays_ps(),
    }
