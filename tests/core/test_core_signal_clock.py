"""The clock from the quantum signal alone: planted clocks, noise, gaps; and the slot offset from disclosed states."""

from dataclasses import dataclass

import numpy as np
import pytest

from groundstation.core.gating import gate
from groundstation.core.keyed_random import philox4x32
from groundstation.core.signal_clock import ClockRefused, SignalClock, find_slot_offset

SLOT_PS, WINDOW_PS, FIRST_WINDOW = 10_000, 10**11, 3_000
KEY = 5


def states(slot):
    """Basis, bit and disclosed (55 % of the slots: all decoys and vacua, a tenth of the signals) of any slot."""
    words = philox4x32(slot.view(np.uint64), KEY)
    return (words[0] & 1).astype(np.uint8), (words[1] & 1).astype(np.uint8), words[2] % 100 < 55


@dataclass(frozen=True)
class Planted:
    """What is left of the transmitter's clock when the predicted time of flight is removed."""

    offset_ps: int = 123_456_789
    frequency: float = 3e-7
    drift_per_s: float = 2e-9


@dataclass(frozen=True)
class Signal:
    rate_hz: float = 2e4
    noise: float = 0.04
    jitter_ps: float = 250.0
    qber: float = 0.011


def clicks(planted, signal=Signal(), seconds=1.0, seed=1):
    """Sorted times, the true slot (-1 for noise), basis and bit of each click."""
    rng = np.random.default_rng(seed)
    total = rng.poisson(signal.rate_hz * seconds)
    n = rng.binomial(total, 1 - signal.noise)
    begin = FIRST_WINDOW * WINDOW_PS
    slot = rng.integers(begin // SLOT_PS, (begin + int(seconds * 1e12)) // SLOT_PS, n)
    x = (slot * SLOT_PS - begin).astype(float)
    late = x * (planted.frequency + 0.5e-12 * planted.drift_per_s * x) + rng.normal(0, signal.jitter_ps, n)
    seen = slot * SLOT_PS + planted.offset_ps + np.rint(late).astype(np.int64)
    sent_basis, sent_bit, _ = states(slot)
    basis = rng.integers(0, 2, total).astype(np.uint8)
    bit = rng.integers(0, 2, total).astype(np.uint8)
    same = np.flatnonzero(basis[:n] == sent_basis)
    bit[same] = sent_bit[same] ^ (rng.random(same.size) < signal.qber)
    stray = rng.integers(begin, begin + int(seconds * 1e12), total - n)
    time = np.concatenate((seen, stray))
    order = np.argsort(time, kind="stable")
    return time[order], np.concatenate((slot, np.full(total - n, -1)))[order], basis[order], bit[order]


def follow(time, clock, seconds=1.0):
    edges = (FIRST_WINDOW + np.arange(round(seconds * 10) + 1)) * WINDOW_PS
    windows = np.split(np.arange(time.size), np.searchsorted(time, edges))[1:-1]
    return {w: (index, clock.fit(w, time[index])) for w, index in enumerate(windows, FIRST_WINDOW)}


def gated(time, fits, clock):
    """Slots by the receiver's count of the clicks in the gate, and the clicks' places."""
    slots, places = [], []
    for window, (index, fit) in fits.items():
        if fit is not None:
            result = gate(time[index], fit, clock.centre_ps(window), WINDOW_PS / 2, SLOT_PS, 1_000.0)
            slots.append(result.slot[result.inside])
            places.append(index[result.inside])
    return np.concatenate(slots), np.concatenate(places)


WORLDS = {
    "a good clock": (Planted(), Signal()),
    "a poor clock, badly predicted": (Planted(-7_654_321, -9e-6, 1e-8), Signal()),
    "10,000 clicks a second": (Planted(), Signal(rate_hz=1e4)),
    "the rate of a good pass": (Planted(), Signal(rate_hz=1e5)),
    "as much noise as signal": (Planted(), Signal(noise=0.5)),
    "half a nanosecond of jitter": (Planted(), Signal(jitter_ps=500)),
    "nothing predicted at culmination": (Planted(drift_per_s=358e-9), Signal()),
}


@pytest.mark.parametrize(("planted", "signal"), WORLDS.values(), ids=WORLDS)
def test_clicks_are_gated_and_all_slots_miss_the_same_whole_number(planted, signal):
    clock = SignalClock(SLOT_PS, WINDOW_PS)
    time, true, _, _ = clicks(planted, signal)
    fits = follow(time, clock)
    assert all(fit is not None for _, fit in fits.values())
    slots, places = gated(time, fits, clock)
    real = true[places] >= 0
    assert np.unique(true[places][real] - slots[real]).size == 1
    assert clock.run == 1
    share = real.sum() / (true >= 0).sum()
    assert share > (0.94 if signal.jitter_ps == 500 else 0.99)  # 2 sigma, 4 sigma


def test_the_phase_is_that_of_the_planted_clock():
    planted, clock = Planted(), SignalClock(SLOT_PS, WINDOW_PS)
    for window, (_, fit) in follow(clicks(planted)[0], clock).items():
        u = np.linspace(-1, 1, 21)
        x = clock.centre_ps(window) - FIRST_WINDOW * WINDOW_PS + u * WINDOW_PS / 2 - planted.offset_ps
        error = fit.c0 + fit.c1 * u + fit.c2 * u * u - planted.offset_ps - x * planted.frequency
        error -= 0.5e-12 * planted.drift_per_s * x * x
        error -= np.rint(error / SLOT_PS) * SLOT_PS
        assert np.abs(error).max() < 60
        assert fit.edge_uncertainty_ps == pytest.approx(3 * 250 / np.sqrt(2_000), rel=0.3)


@pytest.mark.parametrize("seed", range(60))
def test_noise_has_no_slots(seed):
    clock = SignalClock(SLOT_PS, WINDOW_PS)
    fits = follow(clicks(Planted(), Signal(noise=1.0), seed=seed)[0], clock)
    assert all(fit is None for _, fit in fits.values())
    assert "no slot rate stands out" in clock.refusal


def test_a_few_clicks_tell_nothing():
    clock = SignalClock(SLOT_PS, WINDOW_PS)
    for time in (np.empty(0, np.int64), FIRST_WINDOW * WINDOW_PS + np.arange(100) * 10**8):
        assert clock.fit(FIRST_WINDOW, time) is None
        assert "are needed" in clock.refusal


def test_another_slot_rate_is_refused():
    """10.001 ns instead of 10: 100 ppm off."""
    clock = SignalClock(SLOT_PS + 1, WINDOW_PS)
    assert clock.fit(FIRST_WINDOW, clicks(Planted(), seconds=0.1)[0]) is None


@pytest.mark.parametrize(("silent", "runs"), [(1, 1), (25, 2)])
def test_over_a_short_gap_slots_are_counted_on_and_after_a_long_one_anew(silent, runs):
    clock = SignalClock(SLOT_PS, WINDOW_PS)
    time, true, _, _ = clicks(Planted(), Signal(rate_hz=1e5), seconds=5)
    gap = FIRST_WINDOW * WINDOW_PS + WINDOW_PS * np.array([10, 10 + silent])
    kept = (time < gap[0]) | (time >= gap[1])
    fits = follow(time[kept], clock, seconds=5)
    assert sum(fit is None for _, fit in fits.values()) == silent
    assert clock.run == runs
    slots, places = gated(time[kept], fits, clock)
    real = true[kept][places] >= 0
    assert np.unique(true[kept][places][real] - slots[real]).size <= runs


def test_the_pieces_a_window_was_received_in_change_nothing():
    time = clicks(Planted())[0]
    again = np.concatenate(np.array_split(time, 13))
    first, second = follow(time, SignalClock(SLOT_PS, WINDOW_PS)), follow(again, SignalClock(SLOT_PS, WINDOW_PS))
    assert [fit for _, fit in first.values()] == [fit for _, fit in second.values()]


@pytest.mark.parametrize("wrong", [(0, WINDOW_PS, 1e-5), (SLOT_PS, SLOT_PS, 1e-5), (SLOT_PS, WINDOW_PS, 0.1)])
def test_a_clock_without_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="signal clock needs"):
        SignalClock(*wrong)


@pytest.mark.parametrize("signal", [Signal(), Signal(noise=0.3), Signal(qber=0.05)], ids=str)
@pytest.mark.parametrize("offset", [0, 599, -470])
def test_the_slot_offset_follows_from_disclosed_states(signal, offset):
    time, true, basis, bit = clicks(Planted(offset_ps=0, frequency=0.0, drift_per_s=0.0), signal, seconds=0.1)
    nearest = np.where(true >= 0, true, time // SLOT_PS)
    found = find_slot_offset(nearest - offset, basis, bit, states, 600)
    assert found.slots == offset
    assert found.significance > 12 > 6 > found.runner_up
    assert found.errors == pytest.approx(signal.qber + signal.noise / 2, abs=0.05)


def test_from_clicks_to_absolute_slots_without_a_beacon():
    clock, planted = SignalClock(SLOT_PS, WINDOW_PS), Planted(offset_ps=87_654_321)
    time, true, basis, bit = clicks(planted)
    slots, places = gated(time, follow(time, clock), clock)
    found = find_slot_offset(slots[:1_000], basis[places][:1_000], bit[places][:1_000], states, 9_000)
    real = true[places] >= 0
    assert np.array_equal(slots[real] + found.slots, true[places][real])


@pytest.mark.parametrize("seed", range(20))
def test_bits_that_agree_nowhere_give_no_offset(seed):
    rng = np.random.default_rng(seed)
    slot, (basis, bit) = np.sort(rng.integers(0, 10**8, 600)), rng.integers(0, 2, (2, 600)).astype(np.uint8)
    with pytest.raises(ClockRefused, match="no slot offset"):
        find_slot_offset(slot, basis, bit, states, 500)


def test_an_offset_outside_the_range_or_too_few_clicks_are_refused():
    _, true, basis, bit = clicks(Planted(), Signal(noise=0.0), seconds=0.1)
    with pytest.raises(ClockRefused, match=r"within \+-100"):
        find_slot_offset(true - 200, basis, bit, states, 100)
    for n in (0, 1, 50):
        with pytest.raises(ClockRefused, match="more clicks"):
            find_slot_offset(true[:n], basis[:n], bit[:n], states, 100)


def test_states_that_repeat_are_ambiguous():
    def periodic(slot):
        return states(np.mod(slot, 50))

    true = clicks(Planted(), Signal(noise=0.0), seconds=0.1)[1]
    sent_basis, sent_bit, _ = periodic(true)
    with pytest.raises(ClockRefused, match="next best"):
        find_slot_offset(true, sent_basis, sent_bit, periodic, 100)


def test_unequal_arrays_are_refused():
    with pytest.raises(ValueError, match="one basis and one bit"):
        find_slot_offset(np.arange(3), np.zeros(3, np.uint8), np.zeros(2, np.uint8), states, 1)
