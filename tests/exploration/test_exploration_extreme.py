"""What stands out of a histogram, and what chance would give as well."""

import numpy as np

from groundstation.exploration.extreme import most_extreme


def flat(mean: float, bins: int = 1000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, bins)


def test_noise_does_not_stand_out() -> None:
    means = (0.01, 0.3, 5.0, 2000.0)
    assert not any(most_extreme(flat(mean, seed=seed)).stands_out for mean in means for seed in range(250))


def test_a_peak_and_a_dip_do() -> None:
    peak = flat(100)
    peak[300] = 180
    assert most_extreme(peak)[:2] == (300, 180)
    assert most_extreme(peak).words == "peak"
    dip = flat(100)
    dip[498:503] = (80, 30, 3, 30, 80)
    found = most_extreme(dip)
    assert (found.bin, found.words, found.stands_out) == (500, "dip", True)
    assert abs(found.background - 100) < 2


def test_of_several_peaks_none_is_called_the_peak() -> None:
    comb = flat(1)
    comb[::100] += 50
    assert most_extreme(comb).words == "highest of several peaks"


def test_too_few_or_no_counts_say_nothing() -> None:
    for counts in ([0] * 500, [7], [0, 9, 0], [0] * 499 + [1], [0] * 20 + [1, 0, 1]):
        assert not most_extreme(np.array(counts)).stands_out
