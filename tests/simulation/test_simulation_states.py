"""The transmitter's choices: published probabilities, and the same answer whoever asks, whenever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from groundstation.simulation.parameters import SourceParameters
from groundstation.simulation.states import TransmitterStates

SLOTS = np.arange(10_000_000_000, 10_000_200_000, dtype=np.int64)
SOURCE = SourceParameters()
slot_lists = st.lists(st.integers(0, 2**40), min_size=1, max_size=50)


def test_intensity_basis_and_bit_have_the_published_probabilities_and_know_nothing_of_each_other():
    states = TransmitterStates(1, SOURCE).of(SLOTS)
    which = states.intensity.astype(int) * 4 + states.basis * 2 + states.bit
    expected = np.repeat([0.5, 0.25, 0.25], 4) / 4  # Liao 2017: 50 %, 25 %, 25 %; BB84: four states alike
    assert chisquare(np.bincount(which, minlength=12), SLOTS.size * expected).pvalue > 1e-6


def test_neighbouring_slots_know_nothing_of_each_other():
    states = TransmitterStates(1, SOURCE).of(SLOTS)
    state = states.basis.astype(int) * 2 + states.bit
    pairs = np.bincount(state[:-1] * 4 + state[1:], minlength=16)
    assert chisquare(pairs).pvalue > 1e-6


@given(slot_lists, st.data())
def test_the_state_of_a_slot_does_not_depend_on_what_else_is_asked(slots, data):
    transmitter = TransmitterStates(20161219, SOURCE)
    together = transmitter.of(np.array(slots))
    disclosed = transmitter.disclosed(np.array(slots), together.intensity)
    one = data.draw(st.integers(0, len(slots) - 1))
    alone = transmitter.of(np.array(slots[one : one + 1]))
    assert [int(a[0]) for a in alone] == [int(a[one]) for a in together]
    assert transmitter.disclosed(np.array(slots[one : one + 1]), alone.intensity)[0] == disclosed[one]


def test_decoy_and_vacuum_slots_are_disclosed_and_the_set_share_of_the_signal():
    transmitter = TransmitterStates(1, SourceParameters(disclosed_signal_fraction=0.1))
    states = transmitter.of(SLOTS)
    disclosed = transmitter.disclosed(SLOTS, states.intensity)
    assert disclosed[states.intensity > 0].all()
    signal = disclosed[states.intensity == 0]
    assert signal.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / signal.size))
    # The sample must not favour a basis or a bit.
    sampled = (states.basis * 2 + states.bit)[disclosed & (states.intensity == 0)]
    assert chisquare(np.bincount(sampled, minlength=4)).pvalue > 1e-6


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_or_all_of_the_signal_can_be_disclosed(fraction, share):
    transmitter = TransmitterStates(1, SourceParameters(disclosed_signal_fraction=fraction))
    signal = np.zeros(10_000, np.uint8)
    assert transmitter.disclosed(SLOTS[:10_000], signal).mean() == share


def test_another_seed_is_another_transmitter():
    one, other = (TransmitterStates(seed, SOURCE).of(SLOTS[:10_000]) for seed in (1, 2))
    for mine, theirs in zip(one, other, strict=True):
        assert not (mine == theirs).all()
