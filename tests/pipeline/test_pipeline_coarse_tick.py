"""A tagger with long ticks: the gate is never narrower than a tick, and a tick longer than a slot makes no key."""

from dataclasses import replace

import pytest
from pipeline_samples import InProcessTransmitter, Session, record, report_of, tag_segments

from groundstation.core.tags import TagBlock


def analysed(scene, directory, tick_ps, gate_half_width_ps):
    """The pass as a tagger with that tick would have recorded it, through that gate."""
    analysis = {**scene.manifest["analysis"], "gate_half_width_ps": gate_half_width_ps}
    coarse = replace(
        scene,
        tags=TagBlock(scene.tags.time_ps // tick_ps * tick_ps, scene.tags.channel),
        manifest={**scene.manifest, "analysis": analysis},
    )
    segments = ((tables, {**notes, "resolution_ps": float(tick_ps)}) for tables, notes in tag_segments(coarse))
    session = Session(record(coarse, directory, segments), InProcessTransmitter(coarse)).finish()
    return session.result(), session


def test_a_gate_narrower_than_a_tick_is_made_as_wide_and_said_to_be(near_pass, tmp_path):
    narrow, session = analysed(near_pass.scene, tmp_path / "narrow", 2_000, 300)
    same, _ = analysed(near_pass.scene, tmp_path / "same", 2_000, 1_000)
    assert narrow.remarks == (
        "The gate is 1000 ps to either side instead of 300 ps, as wide as the tagger's tick of 2000 ps.",
    )
    assert same.remarks == ()
    assert narrow.gate_half_width_ps == same.gate_half_width_ps == 1_000
    assert narrow.gated == same.gated
    assert session.report() == report_of(narrow)
    assert narrow.trustworthy


def test_a_tick_of_two_nanoseconds_costs_some_clicks_and_no_errors(near_pass, tmp_path):
    fine = near_pass.result
    coarse, _ = analysed(near_pass.scene, tmp_path / "coarse", 2_000, 1_000)
    wide, _ = analysed(near_pass.scene, tmp_path / "wide", 2_000, 2_000)
    assert 0.85 < coarse.gated / fine.gated < 0.97
    assert wide.gated == pytest.approx(fine.gated, rel=0.01)
    for result in (coarse, wide):
        assert result.errors[0].sum() / result.sifted[0, :, 1].sum() < 0.02


def test_a_tick_longer_than_a_slot_is_refused_in_a_sentence(near_pass, tmp_path):
    result, _ = analysed(near_pass.scene, tmp_path / "longer", 20_000, 1_000)
    assert result.gated == result.sifted.sum() == 0
    (refusal,) = [remark for remark in result.remarks if remark.startswith("Synchronisation refused")]
    assert "the tagger's tick of 20000 ps is longer than a slot of 10000 ps" in refusal
    assert not result.trustworthy
