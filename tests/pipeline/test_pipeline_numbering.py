"""A wrong UTC label or too little knowledge never gives bits that look good: refused, or said to be unconfirmed."""

from dataclasses import replace

import pytest
from pipeline_samples import InProcessTransmitter, make_scene, replayed, report_of

from groundstation.pipeline.result import numbering_confirmed
from groundstation.report.document import report_document

BEACON_NS = 100_000


@pytest.fixture(scope="module")
def scene():
    """Three seconds near the culmination."""
    return make_scene(after_culmination_s=0.0, window_s=3.0)


@pytest.mark.parametrize("pulses", [-1, 1, 10_000])
def test_a_label_off_by_whole_beacon_periods_is_found_out_by_the_disclosed_states(scene, fly, pulses):
    session = fly(scene.labelled(offset_ns=pulses * BEACON_NS))
    result = session.result()
    assert numbering_confirmed(*session.analysis.tallies.signal_qber()) is False
    (remark,) = [r for r in result.remarks if "numbering" in r]
    assert "the slot numbering is not confirmed, and no key may be made of these bits" in remark
    assert report_document(result)["qber"]["overall"]["value"] > 0.4
    assert report_of(replayed(session.recording._path)) == session.report()


@pytest.mark.parametrize("offset_ns", [-50_000, 50_000, 30_000])
def test_a_label_off_by_part_of_a_beacon_period_is_refused_with_the_distance(scene, fly, offset_ns):
    result = fly(scene.labelled(offset_ns=offset_ns)).result()
    assert result.sifted.sum() == result.gated == 0
    (remark,) = result.remarks
    assert remark.startswith("Synchronisation refused: UTC and the predicted time of flight are known to 21 us")
    assert "away from where it should be" in remark
    assert result.unsynchronised_s == pytest.approx(3.0)
    assert result.detections == pytest.approx(scene.detections_in_window(), rel=0.001)


@pytest.mark.parametrize("offset_ps", [-300_000, 300_000, 10_000_000])
def test_a_label_off_by_less_than_its_uncertainty_costs_nothing(scene, fly, offset_ps):
    session = fly(scene.labelled(offset_ps=offset_ps))
    result = session.result()
    assert result.remarks == ()
    assert numbering_confirmed(*session.analysis.tallies.signal_qber()) is True
    assert session.judge.truth().slots_assigned_wrongly == 0
    assert report_document(result)["qber"]["overall"]["value"] < 0.02


@pytest.mark.parametrize(("uncertainty_s", "accepted"), [(2.5e-5, True), (1.5e-4, False), (0.5, False)])
def test_a_label_that_does_not_single_out_one_pulse_is_refused(scene, fly, uncertainty_s, accepted):
    result = fly(scene.labelled(uncertainty_s=uncertainty_s)).result()
    if accepted:
        assert result.remarks == ()
        return
    assert result.sifted.sum() == result.gated == 0
    assert "the number of a pulse is ambiguous" in result.remarks[0]


@pytest.mark.parametrize("seconds", [-1, 1])
def test_a_label_off_by_a_whole_second_is_not_taken_for_good(scene, fly, seconds):
    """Light then seems to come from where the satellite is a second later: 14 us of time of flight off."""
    result = fly(scene.labelled(offset_ns=seconds * 10**9)).result()
    assert result.remarks
    assert "refused" in result.remarks[-1] or "not confirmed" in result.remarks[-1]


def test_too_few_disclosed_bits_are_said_to_confirm_nothing(fly):
    scene = make_scene(after_culmination_s=0.0, window_s=0.2).labelled(offset_ns=BEACON_NS)
    session = fly(scene)
    assert numbering_confirmed(*session.analysis.tallies.signal_qber()) is None
    result = session.result()
    assert result.sifted.sum() > 100
    assert any("not confirmed" in remark for remark in result.remarks)


def test_a_transmitter_with_other_states_is_not_taken_for_ours(scene, fly):
    other = replace(scene, states=make_scene(0.0, 0.1, seed=7).states)
    result = fly(scene, transmitter=InProcessTransmitter(other)).result()
    assert any("not confirmed" in remark for remark in result.remarks)
