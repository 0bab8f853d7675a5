"""The works of the comparison are what they say they are, and all our ways to do them agree."""

import math

import numpy as np
import pytest
from bench_coincidence import SPAN_PS, two_streams
from compare import HALF_RANGE_PS, HALF_WINDOW_PS, chain, gating, measure, report
from peers import Contender, Missing
from works import BEACON_PS, HALF_WIDTH_PS, SLOT_PS, SLOTS_PER_PULSE, link, transmission

from groundstation.core.bb84 import Bb84Chain
from groundstation.core.beacon_line import BeaconTracker
from groundstation.core.coincidence import pairs
from groundstation.core.correlation import correlate
from groundstation.core.gating import assign_slots

COUNT = 300_000


@pytest.fixture(scope="module")
def streams():
    return two_streams(count=COUNT)


@pytest.fixture(scope="module")
def sent():
    return transmission(400_000)


def test_w1_has_the_pairs_that_its_definition_predicts(streams):
    chance = COUNT**2 * (2 * HALF_WINDOW_PS + 1) / SPAN_PS
    expected = COUNT / 5 * math.erf(HALF_WINDOW_PS / 300 / math.sqrt(2)) + chance
    assert pairs(*streams, HALF_WINDOW_PS)[0].size == pytest.approx(expected, abs=5 * math.sqrt(chance + 60))


def test_w3_has_the_entries_that_its_definition_predicts(streams):
    chance = COUNT**2 * 2 * HALF_RANGE_PS / SPAN_PS
    found = correlate(*streams, HALF_RANGE_PS, 100).counts
    assert found.sum() == pytest.approx(COUNT / 5 + chance, abs=5 * math.sqrt(chance))
    assert found[1000 - 10 : 1000 + 10].sum() > 0.99 * COUNT / 5


def test_w2_gives_every_signal_its_slot_and_the_known_shares_are_in_the_gate(sent):
    slots = assign_slots(
        sent.detectors.time_ps, sent.beacon_ps, BeaconTracker(BEACON_PS), SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS
    )
    signal = sent.slot >= 0
    assert (slots.slot[signal] == sent.slot[signal]).all()
    assert slots.inside[signal].mean() == pytest.approx(0.99914, abs=5e-4)
    assert slots.inside[~signal].mean() == pytest.approx(0.2, abs=5e-3)


def test_the_link_has_the_planted_error_rate_up_to_the_noise_in_the_gate(sent):
    block, record = link(sent, error_rate=0.01)
    stage = Bb84Chain(BeaconTracker(BEACON_PS), SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS, record, 7)
    stage.feed(block.merged())
    tally = stage.finish()
    signals, noise = 0.99914 * 0.5, 0.2 * 0.5
    expected = (0.01 * signals + 0.5 * noise) / (signals + noise)
    assert tally.errors(0) / tally.sifted(0) == pytest.approx(expected, abs=0.01)


def test_the_ways_of_one_work_agree_and_are_reported(sent):
    for work in (gating(sent)._replace(missing=[Missing("nobody", "not installed")]), chain(sent)):
        ours = [contender for contender in work.contenders if contender.name.startswith("groundstation")]
        text = report(work, measure(work._replace(contenders=ours), rounds=1))
        assert all(contender.name in text for contender in ours)
    assert "wanted 60" in text


def test_a_contender_that_should_agree_and_does_not_stops_the_comparison(sent):
    work = gating(sent)
    with pytest.raises(AssertionError, match="liar"):
        measure(work._replace(contenders=[work.contenders[0], Contender("liar", 1, lambda: 5)]), rounds=1)
    assert np.asarray(work.contenders[0].run()).ndim == 0
