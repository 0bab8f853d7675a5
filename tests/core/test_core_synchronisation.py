"""The transmitter's clock is recovered from its beacon: planted clocks, jitter, dropouts, fades, spurious pulses."""

from dataclasses import dataclass

import numpy as np
import pytest

from groundstation.core.gating import gate
from groundstation.core.synchronisation import BeaconClock, acquire_offset, ill_conditioned, median

PERIOD_PS, PULSES, SLOT_PS = 100_000_000, 1_000, 10_000
WINDOW_PS = PERIOD_PS * PULSES
FIRST_WINDOW = 3_000  # five minutes from the epoch
JITTER_PS = 500.0
US = 1e6  # ps


@dataclass(frozen=True)
class PlantedClock:
    """A pulse that the transmitter times at s is seen s + offset(s); curvature is what a prediction would remove."""

    offset_ps: float = 3 * US
    frequency: float = 2e-8
    drift_per_s: float = 2e-11

    def seen_ps(self, clock_ps):
        seconds = (clock_ps - FIRST_WINDOW * WINDOW_PS) * 1e-12
        error = self.offset_ps + (self.frequency + 0.5 * self.drift_per_s * seconds) * seconds * 1e12
        return clock_ps + np.rint(error).astype(np.int64)

    def offset_at(self, seen_ps):
        """The offset at moments as seen, by fixed-point iteration."""
        clock_ps = seen_ps
        for _ in range(8):
            clock_ps = seen_ps - (self.seen_ps(clock_ps) - clock_ps)
        return (self.seen_ps(clock_ps) - clock_ps).astype(float)


@dataclass(frozen=True)
class Sight:
    """What becomes of the pulses on their way."""

    dropouts: float = 0.01
    spurious_hz: float = 20.0
    fade_s: tuple[float, float] = (0.0, 0.0)


def beacon(clock, sight, seconds, seed=1):
    """The tags of the beacon, sorted, as one list per window."""
    rng = np.random.default_rng(seed)
    first = FIRST_WINDOW * PULSES
    number = np.arange(first, first + round(seconds * 10_000), dtype=np.int64)
    seen = clock.seen_ps(number * PERIOD_PS) + np.rint(rng.normal(0, JITTER_PS, number.size)).astype(np.int64)
    age_s = (number - first) * 1e-4
    lost = (rng.random(number.size) < sight.dropouts) | ((age_s > sight.fade_s[0]) & (age_s < sight.fade_s[1]))
    spurious = rng.integers(seen[0], seen[-1], rng.poisson(sight.spurious_hz * seconds))
    tags = np.sort(np.concatenate((seen[~lost], spurious)))
    edges = (FIRST_WINDOW + np.arange(round(seconds * 10) + 1)) * WINDOW_PS
    return np.split(tags, np.searchsorted(tags, edges))[1:-1]


def new_clock(uncertainty_ps=20 * US):
    return BeaconClock(PERIOD_PS, PULSES, uncertainty_ps)


def follow(windows, clock):
    return {w: fit for w, tags in enumerate(windows, FIRST_WINDOW) if (fit := clock.fit(w, tags)) is not None}


def errors_ps(fits, planted, clock):
    """Fitted minus planted offset at 41 moments of each window."""
    u = np.linspace(-1, 1, 41)
    return np.array(
        [
            fit.c0
            + fit.c1 * u
            + fit.c2 * u * u
            - planted.offset_at(clock.centre_ps(w) + (u * WINDOW_PS / 2).astype(np.int64))
            for w, fit in fits.items()
        ]
    )


def slots_right(fits, planted, clock, seed=2):
    """Share of photons (171 ps rms, section 3.3 of the timing model) that are given the slot they were sent in."""
    rng = np.random.default_rng(seed)
    right = total = 0
    for window, fit in fits.items():
        slot = rng.integers(window * WINDOW_PS // SLOT_PS, (window + 1) * WINDOW_PS // SLOT_PS, 2_000)
        seen = planted.seen_ps(slot * SLOT_PS) + np.rint(rng.normal(0, 171, slot.size)).astype(np.int64)
        gated = gate(seen, fit, clock.centre_ps(window), WINDOW_PS / 2, SLOT_PS, 1_000.0)
        right += int((gated.slot == slot).sum())
        total += slot.size
    return right / total


CLOCKS = {
    "a good clock": PlantedClock(),
    "a clock that is behind": PlantedClock(offset_ps=-15 * US, frequency=-3e-8, drift_per_s=-5e-11),
    "a poor clock": PlantedClock(offset_ps=11 * US, frequency=1e-6, drift_per_s=1e-9),
    "the worst pass, not predicted, at culmination": PlantedClock(0.2 * US, frequency=0.0, drift_per_s=358e-9),
    "the worst pass, not predicted, far out": PlantedClock(1 * US, frequency=-21.7e-6, drift_per_s=40e-9),
}
SIGHTS = {
    "clear": Sight(),
    "every second pulse lost": Sight(dropouts=0.5),
    "a noisy diode": Sight(dropouts=0.1, spurious_hz=1_000),
    "the worst of all": Sight(dropouts=0.5, spurious_hz=1_000),
}


@pytest.mark.parametrize("planted", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_a_planted_clock_is_followed_to_150_ps(planted, sight):
    clock = new_clock()
    fits = follow(beacon(planted, sight, seconds=5), clock)
    assert len(fits) == 50
    errors = errors_ps(fits, planted, clock)
    assert np.sqrt(np.mean(errors**2)) < 150.0
    assert np.abs(errors).max() < 300.0
    assert slots_right(fits, planted, clock) > 0.9999


def test_the_error_is_what_least_squares_of_a_quadratic_allows():
    """Three coefficients from n pulses leave sigma sqrt(3 / n), and 3 sigma / sqrt(n) at the edge of a window."""
    planted, clock = PlantedClock(), new_clock()
    fits = follow(beacon(planted, Sight(dropouts=0.0, spurious_hz=0.0), seconds=20), clock)
    errors = errors_ps(fits, planted, clock)
    # Over a uniform grid of places the mean square is that over the pulses.
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(JITTER_PS * np.sqrt(3 / PULSES), rel=0.1)
    edge = np.median([fit.edge_uncertainty_ps for fit in fits.values()])
    assert edge == pytest.approx(3 * JITTER_PS / np.sqrt(PULSES), rel=0.03)
    assert np.std(errors[:, -1]) == pytest.approx(edge, rel=0.2)


def test_pulses_are_booked_as_used_or_rejected_and_the_residual_is_the_jitter():
    windows = beacon(PlantedClock(), Sight(dropouts=0.1, spurious_hz=500), seconds=5)
    fits = follow(windows, new_clock())
    for tags, fit in zip(windows, fits.values(), strict=True):
        assert fit.pulses_used + fit.pulses_rejected == tags.size
    used = sum(fit.pulses_used for fit in fits.values())
    assert used == pytest.approx(0.9 * 50_000, abs=5 * np.sqrt(50_000 * 0.09) + 50)
    rms = np.sqrt(sum(fit.residual_square_sum_ps2 for fit in fits.values()) / used)
    assert rms == pytest.approx(JITTER_PS, rel=0.02)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["a good clock", "a poor clock", "the worst pass, not predicted, at culmination"])
@pytest.mark.parametrize("fade_s", [(1.03, 1.21), (1.03, 4.07)], ids=["0.2 s", "3 s"])
def test_after_a_fade_it_goes_on_at_once_with_the_right_number(name, fade_s, seed):
    planted, clock = CLOCKS[name], new_clock()
    sight = Sight(dropouts=0.3, spurious_hz=100, fade_s=fade_s)
    fits = follow(beacon(planted, sight, seconds=6, seed=seed), clock)
    first_whole = FIRST_WINDOW + int(np.ceil(fade_s[1] * 10 - 1e-9))
    assert set(range(first_whole, FIRST_WINDOW + 60)) <= set(fits)
    assert not set(range(FIRST_WINDOW + 11, FIRST_WINDOW + int(fade_s[1] * 10))) & set(fits)
    assert np.abs(errors_ps(fits, planted, clock)).max() < 600.0  # far from 100 us, and a window at the fade's edge


def test_after_a_long_fade_numbering_begins_anew():
    planted, clock = PlantedClock(), new_clock()
    fits = follow(beacon(planted, Sight(fade_s=(1.0, 9.0)), seconds=10), clock)
    assert set(range(FIRST_WINDOW + 90, FIRST_WINDOW + 100)) <= set(fits)
    assert np.abs(errors_ps(fits, planted, clock)).max() < 300.0
    assert clock.refusal == ""


@pytest.mark.parametrize("uncertainty_us", [50, 51, 80, 1_000, 10_000])
@pytest.mark.parametrize("offset_us", [0, 10, 49])
def test_an_uncertainty_of_half_the_spacing_or_more_is_refused(uncertainty_us, offset_us):
    clock = new_clock(uncertainty_us * US)
    assert follow(beacon(PlantedClock(offset_ps=offset_us * US), Sight(), seconds=0.5), clock) == {}
    assert "ambiguous" in clock.refusal
    assert "100 us apart" in clock.refusal


@pytest.mark.parametrize("offset_us", [13.0, -13.0, 30.0, -45.0])
def test_a_beacon_outside_the_uncertainty_is_refused_with_both_figures(offset_us):
    clock = new_clock(12 * US)
    assert follow(beacon(PlantedClock(offset_ps=offset_us * US), Sight(), seconds=0.5), clock) == {}
    assert "known to 12 us" in clock.refusal
    assert f"{offset_us:g} us away" in clock.refusal


@pytest.mark.parametrize("offset_us", [11.9, -11.9, 0.0, 49.9, -49.9])
def test_a_beacon_inside_the_uncertainty_is_numbered(offset_us):
    tags = beacon(PlantedClock(offset_ps=offset_us * US), Sight(), seconds=0.1)[0]
    solution = acquire_offset(tags, PERIOD_PS, 49.99 * US)
    assert solution.offset_ps == pytest.approx(offset_us * US, abs=2_500)
    assert solution.sentence == "numbered"


def test_tags_without_a_common_phase_are_no_beacon():
    clock = new_clock()
    noise = np.sort(np.random.default_rng(4).integers(0, WINDOW_PS, 500)) + FIRST_WINDOW * WINDOW_PS
    assert clock.fit(FIRST_WINDOW, noise) is None
    assert "agree on one phase" in clock.refusal


def test_a_window_with_nothing_or_next_to_nothing_has_no_clock_and_no_complaint():
    clock = new_clock()
    for tags in (np.empty(0, np.int64), FIRST_WINDOW * WINDOW_PS + PERIOD_PS * np.arange(19)):
        assert clock.fit(FIRST_WINDOW, tags) is None
    assert clock.refusal == ""


def test_pulses_at_one_end_of_a_window_cannot_vouch_for_the_other():
    windows = beacon(PlantedClock(), Sight(dropouts=0.0, spurious_hz=0.0), seconds=0.3)
    clock = new_clock()
    assert clock.fit(FIRST_WINDOW, windows[0]) is not None
    assert clock.fit(FIRST_WINDOW + 1, windows[1][:300]) is None
    assert clock.fit(FIRST_WINDOW + 2, windows[2]) is not None


def test_a_train_that_jumps_by_less_than_a_spacing_is_not_followed_blindly():
    """Two microseconds in one tenth of a second is no clock: that window has no fit."""
    windows = beacon(PlantedClock(), Sight(), seconds=0.2)
    clock = new_clock()
    assert clock.fit(FIRST_WINDOW, windows[0]) is not None
    assert clock.fit(FIRST_WINDOW + 1, windows[1] + 2_000_000) is None


def test_empty_windows_may_be_fed_or_left_out():
    windows = beacon(PlantedClock(), Sight(fade_s=(1.0, 2.0)), seconds=3)
    fed, spared = new_clock(), new_clock()
    all_fits = follow(windows, fed)
    silent = {w for w, tags in enumerate(windows, FIRST_WINDOW) if w not in all_fits}
    assert len(silent) == 10
    fits = {w: spared.fit(w, tags) for w, tags in enumerate(windows, FIRST_WINDOW) if w not in silent}
    assert fits == all_fits


def test_the_pieces_a_window_was_received_in_change_nothing():
    windows = beacon(PlantedClock(), Sight(), seconds=1)
    pieces = [np.concatenate(np.array_split(tags, 7)) for tags in windows]
    assert follow(pieces, new_clock()) == follow(windows, new_clock())


def test_a_clock_that_starts_in_mid_pass_agrees_with_one_that_was_there_from_the_start():
    windows = beacon(PlantedClock(), Sight(), seconds=3)
    from_start, late = new_clock(), new_clock()
    fits = follow(windows, from_start)
    late_fits = {w: late.fit(w, windows[w - FIRST_WINDOW]) for w in range(FIRST_WINDOW + 15, FIRST_WINDOW + 30)}
    for window, fit in late_fits.items():
        assert fit is not None
        assert fit == fits[window]


@pytest.mark.parametrize("size", [1, 2, 3, 30, 999, 1_000])
def test_the_median_is_that_of_numpy(size):
    values = np.random.default_rng(size).normal(0, 500, size)
    assert median(values) == np.median(values)


def test_a_matrix_is_ill_conditioned_where_its_condition_number_says_so():
    for spread in (1.0, 1e-2, 1e-4, 0.0):
        powers = np.vander(np.linspace(1 - spread, 1, 50), 3, increasing=True)
        normal = powers.T @ powers
        assert ill_conditioned(normal, 1e8) == (np.linalg.cond(normal) > 1e8)
