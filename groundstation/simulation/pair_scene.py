"""Where and when the pairs are distributed: a pass that both stations see, or two rooms of a laboratory."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from groundstation.clock import NS_PER_S, parse_utc, utc_text
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import Orbit
from groundstation.passes.prediction import PredictedPath, find_passes, predict_path
from groundstation.simulation.pair_parameters import PairWorldParameters
from groundstation.simulation.pairs import PairLight, PairSource, Receiver
from groundstation.simulation.sky import Sky, SteadySky

#: The predicted path reaches this far beyond the recordings.
_MARGIN_NS = 5 * NS_PER_S
#: Optical path in a laboratory's fibres, free.
_FIBRE_KM = (0.010, 0.750)


class PairScene(NamedTuple):
    """The world's zero (a whole second) and its end, the light, and the predicted paths (none in the laboratory)."""

    zero_utc_ns: int
    stop_utc_ns: int
    light: PairLight
    paths: tuple[PredictedPath, PredictedPath] | None


def pair_scene(parameters: PairWorldParameters) -> PairScene:
    """Set the scene. Raises BadInput when the parameters make no world or there is no such pass."""
    parameters.check()
    return _laboratory(parameters) if parameters.scene == "laboratory" else _satellite(parameters)


def common_window(parameters: PairWorldParameters) -> tuple[int, int]:
    """Whole seconds (UTC ns) of the first pass during which both stations may look. BadInput when there is none."""
    wanted, (a, b) = parameters.window, _orbits(parameters)
    search_from = parse_utc(wanted.search_from)
    search_to = search_from + round(wanted.search_hours * 3600 * NS_PER_S)
    for prediction in find_passes(a, search_from, search_to, wanted.min_elevation_deg):
        times = np.arange(prediction.rise.utc_ns // NS_PER_S, prediction.set.utc_ns // NS_PER_S) * NS_PER_S
        look_a, look_b = a.geometric(times), b.geometric(times)
        low = np.minimum(look_a.elevation_deg, look_b.elevation_deg)
        summed = look_a.range_km + look_b.range_km
        usable = times[(low >= wanted.min_elevation_deg) & (summed <= wanted.max_summed_range_km)]
        if usable.size and usable[-1] - usable[0] >= wanted.min_duration_s * NS_PER_S:
            start, stop = int(usable[0]), int(usable[-1])
            return start, stop if wanted.limit_s <= 0 else min(stop, start + round(wanted.limit_s) * NS_PER_S)
    names = " and ".join(station.site.name for station in parameters.stations.values())
    raise BadInput(
        f"{parameters.satellite.name} has no pass over {names} within {wanted.max_summed_range_km:g} km together in "
        f"the {wanted.search_hours:g} h after {utc_text(search_from, 0)}; widen [window] or renew the element set"
    )


def _orbits(parameters: PairWorldParameters, time_error_s: float = 0.0) -> list[Orbit]:
    satellite = parameters.satellite
    if len(satellite.tle) != 2:
        raise BadInput(f'[satellite] "tle" has {len(satellite.tle)} lines; it needs the two of an element set')
    elements = ElementSet.parse(satellite.name, *satellite.tle)
    return [
        Orbit(elements, station.site, parameters.earth_orientation, time_error_s)
        for station in parameters.stations.values()
    ]


def _satellite(parameters: PairWorldParameters) -> PairScene:
    start, stop = common_window(parameters)
    span = start - _MARGIN_NS, stop + _MARGIN_NS
    a, b = (predict_path(orbit, *span) for orbit in _orbits(parameters))
    receivers = [
        Receiver(Sky(orbit, start, *span), True, station.loss_db_at_1000_km, station, True)
        for orbit, station in zip(
            _orbits(parameters, parameters.satellite.orbit_time_error_s), parameters.stations.values(), strict=True
        )
    ]
    source = parameters.source
    sent = PairSource(source.state, source.pair_rate_hz, source.visibility, parameters.analyser_deg)
    return PairScene(start, stop, PairLight(sent, (receivers[0], receivers[1]), parameters.seed), (a, b))


def _laboratory(parameters: PairWorldParameters) -> PairScene:
    bench = parameters.laboratory
    start = parse_utc(bench.start_utc)
    receivers = [
        Receiver(
            SteadySky(_FIBRE_KM[number]),
            False,
            bench.loss_db,
            replace(
                station,
                tagger_frequency_offset=bench.frequency_offset[number],
                tagger_frequency_drift_per_s=bench.frequency_drift_per_s[number],
            ),
            False,
        )
        for number, station in enumerate(parameters.stations.values())
    ]
    sent = PairSource(parameters.source.state, bench.pair_rate_hz, bench.visibility, parameters.analyser_deg)
    light = PairLight(sent, (receivers[0], receivers[1]), parameters.seed)
    return PairScene(start, start + round(bench.duration_s * NS_PER_S), light, None)
