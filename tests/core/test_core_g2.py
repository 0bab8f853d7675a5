"""g2 of light whose g2 is known: chance is 1, one photon at a time is 0, doubled pulses are above 1."""

import numpy as np
import pytest

from groundstation.core.correlation import DelayHistogram, correlate
from groundstation.core.g2 import g2_continuous, g2_pulsed

PERIOD_PS = 12_500


def test_independent_streams_give_one_with_errors_of_the_size_of_the_scatter():
    rng = np.random.default_rng(1)
    length_ps = 10**12
    a, b = (np.sort(rng.integers(0, length_ps, 100_000)) for _ in range(2))
    g2 = g2_continuous(correlate(a, b, 10**8, 10**6), a.size, b.size, length_ps)
    pull = (g2.value - 1) / g2.standard_error
    assert abs(g2.value.mean() - 1) < 5 * g2.standard_error.mean() / np.sqrt(g2.value.size)
    assert 0.8 < pull.std() < 1.2


def test_the_overlap_of_a_short_recording_is_taken_into_account():
    rng = np.random.default_rng(2)
    length_ps = 10**10
    a, b = (np.sort(rng.integers(0, length_ps, 4_000)) for _ in range(2))
    g2 = g2_continuous(correlate(a, b, 9 * 10**9, 10**9), a.size, b.size, length_ps)
    assert np.abs(g2.value - 1).max() < 0.1  # without it the outermost would be 0.15


def test_an_empty_bin_has_the_error_of_one_count():
    g2 = g2_continuous(DelayHistogram(np.array([0, 1]), -10, 10), 10, 10, 1000)
    assert g2.value[0] == 0
    assert g2.standard_error[0] == g2.standard_error[1] == g2.value[1]


def pulsed_photons(rng, photons_per_pulse, pulses=400_000):
    """Two detectors behind a beam splitter; each photon arrives some 100 ps after its pulse."""
    photons = photons_per_pulse(pulses)
    pulse = np.repeat(np.arange(pulses), photons)
    time = pulse * PERIOD_PS + np.rint(rng.normal(0, 100, pulse.size)).astype(np.int64)
    side = rng.random(pulse.size) < 0.5
    return np.sort(time[side]), np.sort(time[~side])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("laser", 1.0), ("one photon at a time", 0.0), ("thermal", 2.0)],
)
def test_pulsed_light_of_known_statistics(kind, expected):
    rng = np.random.default_rng(3)
    photons = {
        "laser": lambda n: rng.poisson(0.1, n),
        "one photon at a time": lambda n: (rng.random(n) < 0.1).astype(int),
        "thermal": lambda n: rng.geometric(1 / 1.1, n) - 1,
    }[kind]
    a, b = pulsed_photons(rng, photons)
    g2 = g2_pulsed(correlate(a, b, 10 * PERIOD_PS, 100), PERIOD_PS, 1_000)
    assert g2.pulse.tolist() == list(range(-9, 10))
    assert abs(g2.at_zero - expected) < 4 * max(g2.at_zero_error, 1e-3)
    assert np.abs(g2.value[g2.pulse != 0] - 1).max() < 0.2


def test_peaks_are_areas_around_a_shifted_zero_and_of_a_period_that_is_no_whole_number_of_bins():
    counts = np.zeros(200, np.int64)
    for pulse, area in ((-2, 4), (-1, 6), (0, 1), (1, 5), (2, 5)):
        counts[100 + round((300 + pulse * 3333.3) / 100)] = area
    g2 = g2_pulsed(DelayHistogram(counts, -10_000, 100), 3333.3, 500, zero_ps=300)
    assert g2.counts.tolist() == [4, 6, 1, 5, 5]
    assert g2.at_zero == pytest.approx(0.2)
    assert g2.at_zero_error == pytest.approx(np.hypot(1, 0.2 * np.sqrt(5 / 4)) / 5)


def test_what_cannot_be_normalised_is_refused():
    flat = DelayHistogram(np.ones(20, np.int64), -1000, 100)
    with pytest.raises(ValueError, match="tags on both channels"):
        g2_continuous(flat, 0, 5, 10**6)
    with pytest.raises(ValueError, match="longest delay: found 5 and 5 tags in 900 ps"):
        g2_continuous(flat, 5, 5, 900)
    with pytest.raises(ValueError, match="give the histogram a longer range"):
        g2_pulsed(flat, 5000, 200)
    with pytest.raises(ValueError, match="half a period"):
        g2_pulsed(flat, 500, 300)
