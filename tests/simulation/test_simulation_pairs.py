"""The simulated distribution of entangled pairs against published geometry, quantum mechanics and counting."""

from dataclasses import replace

import erfa
import numpy as np
import pytest

from groundstation.cli.pairs import DEFAULT_CONFIG, load_pair_world
from groundstation.clock import NS_PER_S
from groundstation.core.entanglement import expected_correlations, joint_counts
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import Orbit
from groundstation.simulation.pair_scene import common_window, pair_scene
from groundstation.simulation.pairs import BLOCK_NS


@pytest.fixture(scope="module")
def world():
    return load_pair_world(DEFAULT_CONFIG)


def _laboratory(world, duration_s=3.0, **bench):
    return replace(world, scene="laboratory", laboratory=replace(world.laboratory, duration_s=duration_s, **bench))


def _flown(parameters):
    """All blocks of a world: for each station its times, channels and pair numbers."""
    scene = pair_scene(parameters)
    blocks = [scene.light.block() for _ in range((scene.stop_utc_ns - scene.zero_utc_ns) // BLOCK_NS)]
    return [tuple(np.concatenate([block[side][column] for block in blocks]) for column in range(3)) for side in (0, 1)]


def _orbits(world):
    elements = ElementSet.parse(world.satellite.name, *world.satellite.tle)
    error_s = world.satellite.orbit_time_error_s
    return [Orbit(elements, s.site, world.earth_orientation, error_s) for s in world.stations.values()]


def _of_pairs(a, b):
    """Rows of both stations' tags that are of one pair."""
    at_a, at_b = np.flatnonzero(a[2] >= 0), np.flatnonzero(b[2] >= 0)
    _, i, j = np.intersect1d(a[2][at_a], b[2][at_b], return_indices=True)
    return at_a[i], at_b[j]


def test_the_stations_are_1203_km_apart(world):
    # Yin et al., Science 356, 1140 (2017).
    a, b = (
        erfa.gd2gc(1, np.radians(s.site.longitude_deg), np.radians(s.site.latitude_deg), s.site.altitude_m)
        for s in world.stations.values()
    )
    assert np.linalg.norm(a - b) / 1000 == pytest.approx(1203, abs=0.5)


def test_the_summed_links_are_1600_to_2400_km_long(world):
    start, stop = common_window(world)
    times = np.arange(start, stop + 1, NS_PER_S)
    looks = [orbit.geometric(times) for orbit in _orbits(world)]
    summed = looks[0].range_km + looks[1].range_km
    assert summed.min() == pytest.approx(1600, abs=5)
    assert summed.max() == pytest.approx(2400, abs=20)  # it grows by 14 km a second there
    assert min(look.elevation_deg.min() for look in looks) >= 10


def test_a_pair_arrives_after_the_time_of_flight_of_each_link(world):
    short = replace(
        world,
        window=replace(world.window, limit_s=2.0),
        stations={
            name: replace(s, loss_db_at_1000_km=20.0, jitter_fwhm_ps=0.0, tagger_frequency_offset=0.0, start_s=0.0)
            for name, s in world.stations.items()
        },
    )
    start, _ = common_window(short)
    a, b = _flown(short)
    rows_a, rows_b = _of_pairs(a, b)
    assert rows_a.size > 500
    # Unknown to both, the pair was emitted at e: t = e + flight(e). The orbit's own light time undoes it.
    emitted = []
    for (time_ps, _, _), rows, orbit in zip((a, b), (rows_a, rows_b), _orbits(world), strict=True):
        flight_s = orbit.received(start + time_ps[rows] // 1000).time_of_flight_s
        emitted.append(time_ps[rows] - np.rint(flight_s * 1e12).astype(np.int64))
    assert np.abs(emitted[0] - emitted[1]).max() < 60  # ps: nanoseconds of UTC at 22 ppm, and rounding
    assert np.ptp(a[0][rows_a] - b[0][rows_b]) > 1e6  # while the links themselves slew by microseconds


def test_the_same_seed_gives_the_same_tags_and_another_one_others(world):
    short = _laboratory(world, 1.0)
    first, again, other = _flown(short), _flown(short), _flown(replace(short, seed=7))
    for one, two, three in zip(first, again, other, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))
        assert not np.array_equal(one[0], three[0])


def test_rates_are_those_of_source_losses_and_noise(world):
    bench = _laboratory(world)
    a, b = _flown(bench)
    for side, station, begun_s in zip((a, b), bench.stations.values(), (0.618, 0.271), strict=True):
        seconds = 3.0 - begun_s
        expected = (bench.laboratory.pair_rate_hz * 0.1 + 4 * (station.dark_hz + station.background_hz)) * seconds
        assert side[0].size == pytest.approx(expected, abs=5 * np.sqrt(expected) + 0.002 * expected)
        assert np.all(np.diff(side[0]) >= 0)
        shares = np.bincount(side[1], minlength=6)
        assert shares[4:].sum() == 0  # no beacon, and no 1PPS in the laboratory
        assert np.abs(shares[:4] - side[0].size / 4).max() < 5 * np.sqrt(side[0].size / 4)
    common = _of_pairs(a, b)[0].size
    expected = bench.laboratory.pair_rate_hz * 0.01 * (3.0 - 0.618)
    assert common == pytest.approx(expected, abs=5 * np.sqrt(expected) + 0.005 * expected)


@pytest.mark.parametrize("settings", ["chsh", "bbm92"])
@pytest.mark.parametrize("state", ["psi+", "phi-"])
def test_polarisations_are_correlated_as_quantum_mechanics_says(world, settings, state):
    bench = replace(_laboratory(world, loss_db=3.0), settings=settings, source=replace(world.source, state=state))
    a, b = _flown(bench)
    rows_a, rows_b = _of_pairs(a, b)
    counts = joint_counts(a[1][rows_a], b[1][rows_b])
    expected = bench.laboratory.visibility * expected_correlations(state, *bench.analyser_deg)
    signs = np.array([1, -1])
    for i, j in np.ndindex(2, 2):
        cell = counts[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        total = cell.sum()
        assert total == pytest.approx(counts.sum() / 4, rel=0.05)
        found = (cell * np.outer(signs, signs)).sum() / total
        assert found == pytest.approx(expected[i, j], abs=5 * np.sqrt((1 - expected[i, j] ** 2) / total))


def test_there_is_a_pulse_for_every_second_of_gps_time(world):
    a, b = _flown(replace(world, window=replace(world.window, limit_s=5.0)))
    for time_ps, channel, _ in (a, b):
        pulses = time_ps[channel == 5]
        assert pulses.size == 4
        assert np.abs(np.diff(pulses) - 10**12).max() < 150_000  # 15 ns of jitter


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scene": "moon"}, 'scene is "moon"; choose one of satellite, laboratory'),
        ({"settings": "e91"}, 'settings is "e91"; choose one of chsh, bbm92'),
        ({"stations": {}}, "pairs need exactly two stations"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_world_that_cannot_be_is_refused_in_one_sentence(world, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        pair_scene(replace(world, **change))


def test_a_search_without_a_common_pass_says_so(world):
    with pytest.raises(BadInput, match="Micius has no pass over Delingha and Lijiang within 1500 km together"):
        common_window(replace(world, window=replace(world.window, max_summed_range_km=1500.0)))
