"""What the analysis has to know beforehand comes from the manifest alone, and is checked."""

from dataclasses import asdict, replace

import pytest
from pipeline_samples import CONFIG, InProcessTransmitter, Session, record

from groundstation.core.tags import CHANNELS
from groundstation.errors import BadInput
from groundstation.pipeline.settings import AnalysisSettings, PassPlan


def manifest(**changes):
    whole = {
        "mode": "live",
        "station": asdict(CONFIG.station),
        "satellite": {"name": "Micius"},
        "window": {"start_utc_ns": 1_482_166_200_000_000_000, "stop_utc_ns": 1_482_166_470_000_000_001},
        "delays_ps": {"V": 250},
        "analysis": asdict(CONFIG.analysis),
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_the_plan_is_what_was_recorded():
    plan = PassPlan.from_manifest(manifest())
    assert (plan.mode, plan.station, plan.satellite) == ("live", "Xinglong", "Micius")
    assert plan.window_stop_utc_ns == 1_482_166_470_000_000_001
    assert dict(zip(CHANNELS, plan.delays_ps, strict=True)) == {"H": 0, "V": 250, "D": 0, "A": 0, "sync": 0, "pps": 0}
    assert plan.analysis == CONFIG.analysis == AnalysisSettings()


@pytest.mark.parametrize("key", ["mode", "station", "satellite", "window", "delays_ps", "analysis"])
def test_a_manifest_that_lacks_something_is_refused_by_name(key):
    with pytest.raises(BadInput, match=f"manifest cannot be used: '?{key}"):
        PassPlan.from_manifest(manifest(**{key: None}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"window": []}, "window"),
        ({"window": {"start_utc_ns": "soon", "stop_utc_ns": 1}}, "soon"),
        ({"station": "Xinglong"}, "station"),
        ({"delays_ps": {"H": "long"}}, "long"),
        ({"analysis": {"gate_half_width": 1}}, 'nearest valid key is "gate_half_width_ps"'),
        ({"analysis": {"gate_half_width_ps": 0.5}}, "a whole number"),
    ],
)
def test_a_manifest_with_something_wrong_is_refused_by_name(changes, named):
    with pytest.raises(BadInput, match=named):
        PassPlan.from_manifest(manifest(**changes))


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (5, 4)])
def test_a_window_that_does_not_end_after_its_start_is_refused(start, stop):
    with pytest.raises(BadInput, match="window"):
        PassPlan.from_manifest(manifest(window={"start_utc_ns": start, "stop_utc_ns": stop}))


@pytest.mark.parametrize("pulses", [3_000, 20_000, 999])
def test_fits_of_which_a_second_is_no_whole_number_are_refused(far_pass, tmp_path, pulses):
    analysis = {**far_pass.scene.manifest["analysis"], "beacon_pulses_per_fit": pulses}
    scene = replace(far_pass.scene, manifest={**far_pass.scene.manifest, "analysis": analysis})
    session = Session(record(scene, tmp_path / "recording"), InProcessTransmitter(scene))
    with pytest.raises(BadInput, match=f"beacon_pulses_per_fit is {pulses}, which does not divide the 10000 pulses"):
        session.finish()
    session.abandon()


@pytest.mark.parametrize("pulses", [500, 2_500, 10_000])
def test_other_lengths_of_a_fit_find_the_same_slots(far_pass, tmp_path, pulses):
    analysis = {**far_pass.scene.manifest["analysis"], "beacon_pulses_per_fit": pulses}
    scene = replace(far_pass.scene, manifest={**far_pass.scene.manifest, "analysis": analysis})
    session = Session(record(scene, tmp_path / "recording"), InProcessTransmitter(scene)).finish()
    assert session.judge.truth().slots_assigned_wrongly == 0
    assert session.result().gated == pytest.approx(far_pass.result.gated, rel=0.01)


def test_rates_whose_periods_are_no_whole_picoseconds_are_refused(far_pass, tmp_path):
    scene = replace(far_pass.scene, terms=replace(far_pass.scene.terms, slot_rate_hz=300_000_000))
    session = Session(record(scene, tmp_path / "recording"), InProcessTransmitter(scene))
    with pytest.raises(BadInput, match="300000000 slots"):
        session.finish()
    session.abandon()
