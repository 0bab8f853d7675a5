"""What the analysis finds agrees with what the world knows, and nothing secret of the transmitter is written down."""

import math
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from pipeline_samples import InProcessTransmitter, Session, answers_to, column, make_scene, read_all, record, replayed

from groundstation.core.sifting import DISCLOSED, MATCH, VALUE
from groundstation.core.tags import TagBlock
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import seal_in_child
from groundstation.report.document import report_document
from groundstation.report.truth import TruthJudge


@pytest.fixture(scope="module", params=[("culmination", -3.0), ("rising", -100.0), ("far", 120.0)], ids=lambda p: p[0])
def judged(request, near_pass, tmp_path_factory):
    """A live analysis near culmination, on the way up and far out, with the judge's verdict."""
    scene = near_pass.scene if request.param[0] == "culmination" else make_scene(request.param[1], 8.0)
    directory = record(scene, tmp_path_factory.mktemp("judged") / "recording")
    return Session(directory, InProcessTransmitter(scene)).finish(), scene


def test_slots_are_assigned_as_they_were_sent(judged):
    session, _ = judged
    truth = session.judge.truth()
    assert truth.photon_clicks_gated > 10_000
    assert truth.slots_assigned_wrongly < 1e-4 * truth.photon_clicks_gated


def test_the_estimated_qber_is_within_three_standard_errors_of_the_true_one(judged):
    session, _ = judged
    document = report_document(session.result())
    estimate, true = document["qber"]["overall"], document["simulation"]["qber"]
    assert abs(estimate["value"] - true["value"]) < 3 * estimate["standard_error"]
    for basis in ("rectilinear", "diagonal"):
        assert abs(document["qber"][basis]["value"] - true["value"]) < 3.5 * document["qber"][basis]["standard_error"]


def test_as_many_signal_bits_are_sifted_as_a_perfect_clock_would_have(judged):
    session, _ = judged
    sifted, true = int(session.result().sifted[0].sum()), session.judge.truth().signal_sifted
    # The truth is told by blocks of 50 ms, so both ends of the window may be off by as much.
    allowed = 0.1 / session.result().signal_per_second.size * true + 3 * math.sqrt(true)
    assert abs(sifted - true) < allowed


def test_clicks_are_counted_as_they_were_recorded(judged):
    session, scene = judged
    result = session.result()
    assert result.detections == scene.detections_in_window()
    assert int(result.tags_per_second[:, :4].sum()) == result.detections
    assert result.gated == int(result.gated_per_second.sum()) == sum(slot.size for _, slot in session.claims)
    assert int(result.answered.sum()) + result.unanswered == session.analysis.tallies.asked


def test_intensities_and_bases_come_in_the_proportions_of_the_source(judged):
    """Poissonian sources: yields in proportion to intensity x probability, and half of the bases match."""
    session, _ = judged
    signal, decoy, _ = session.result().answered.tolist()
    ratio, expected = decoy / signal, (0.1 * 0.25) / (0.8 * 0.5)
    assert ratio == pytest.approx(expected, rel=4 / math.sqrt(decoy) + 0.15)  # noise counts as decoy as often as signal
    matching = int(session.result().sifted.sum())
    answered = int(session.result().answered.sum())
    assert abs(matching - answered / 2) < 4 * math.sqrt(answered / 4)


def test_one_in_ten_signal_slots_and_every_other_slot_is_disclosed(judged):
    session, _ = judged
    (undisclosed, disclosed), others = session.result().sifted[0].sum(axis=0).tolist(), session.result().sifted[1:]
    bits = undisclosed + disclosed
    assert abs(disclosed - 0.1 * bits) < 4 * math.sqrt(0.09 * bits)
    assert others[:, :, 0].sum() == 0


def test_a_gate_half_as_wide_gates_fewer_clicks_and_fewer_errors(near_pass, tmp_path):
    analysis = {**near_pass.scene.manifest["analysis"], "gate_half_width_ps": 200}
    narrow = replace(near_pass.scene, manifest={**near_pass.scene.manifest, "analysis": analysis})
    directory = record(narrow, tmp_path / "recording")
    result = Session(directory, InProcessTransmitter(narrow)).finish().result()
    # Pulses of 200 ps and jitter of 350 ps full width: sigma 171 ps; +-200 ps hold 75.8 %.
    share = math.erf(200 / (math.hypot(200, 350) / 2.354820045) / math.sqrt(2))
    assert result.gated / near_pass.result.gated == pytest.approx(share, abs=0.01)


def test_a_detectors_own_delay_is_taken_out(near_pass, tmp_path):
    scene = near_pass.scene
    delays = {"H": 0, "V": 400_000, "D": 1_234, "A": -3_000, "sync": 2_500_000, "pps": 0}
    by_channel = np.array([delays[name] for name in ("H", "V", "D", "A", "sync", "pps")])
    time_ps = scene.tags.time_ps + by_channel[scene.tags.channel]
    order = np.argsort(time_ps, kind="stable")
    late = replace(
        scene,
        tags=TagBlock(time_ps[order], scene.tags.channel[order]),
        manifest={**scene.manifest, "delays_ps": delays},
    )
    directory = record(late, tmp_path / "recording")
    result = Session(directory, InProcessTransmitter(late)).finish().result()
    assert result.sifted[0].sum() == pytest.approx(near_pass.result.sifted[0].sum(), rel=1e-3)
    assert result.errors.sum() == pytest.approx(near_pass.result.errors.sum(), rel=0.02)


# --- what is never written down ---------------------------------------------------------------------------


def test_no_undisclosed_signal_bit_of_the_transmitter_is_in_the_answers(near_pass):
    recording = open_recording(near_pass.directory)
    slots = column(recording, "answers", "answers", "slot")
    answers = column(recording, "answers", "answers", "answer")
    sent = near_pass.scene.states.of(slots)
    disclosed = near_pass.scene.states.disclosed(slots, sent.intensity)
    secret = ~disclosed
    assert secret.sum() > 100_000
    assert np.all(sent.intensity[secret] == 0)
    assert not np.any(answers[secret] & (DISCLOSED | VALUE))
    assert 0.49 < sent.bit[secret].mean() < 0.51, "the bits that are not written down are not all zero by themselves"
    match = (answers & MATCH) != 0
    bases = np.where(match, sent.basis, 1 - sent.basis)
    assert np.array_equal(answers, answers_to(near_pass.scene.states, slots, bases.astype(np.uint8)))


def test_the_recording_has_no_column_that_could_hold_a_bit_of_the_transmitter(near_pass, tmp_path):
    """Outside `tags` (our own clicks) every column is known, and the only one by slot with states is the answers'."""
    recording = open_recording(near_pass.directory)
    columns = {
        f"{stream}/{table}/{name}"
        for stream in recording.streams()
        for segment in read_all(recording, stream)
        for table, content in segment.tables.items()
        for name in content
    }
    by_slot = {name for name in columns if name.startswith(("answers/", "truth/clicks/"))}
    assert by_slot == {
        "answers/answers/batch", "answers/answers/slot", "answers/answers/answer",
        "truth/clicks/device_ps", "truth/clicks/slot",
    }  # fmt: skip
    assert {name.split("/")[0] for name in columns} == {"tags", "telemetry", "events", "answers", "truth"}
    seal_in_child(near_pass.directory, tmp_path / "recording.h5")
    sealed = set()
    with h5py.File(tmp_path / "recording.h5") as file:
        file.visit(lambda name: sealed.add(name) if isinstance(file[name], h5py.Dataset) else None)
    ours = {name.split("/streams/")[1] for name in sealed if "/streams/" in name and not name.endswith("/index")}
    assert {name.split("/")[0] for name in ours} <= {"telemetry", "events", "answers", "truth", "tags"}
    assert not any("bit" in name or "basis" in name or "intensity" in name for name in columns | sealed)


def test_nothing_but_slot_numbers_and_bases_is_told_to_the_transmitter(near_pass):
    """The questions are a function of the slots that clicked: no time, no phase, no detector, no bit."""
    session = Session(near_pass.directory).finish()
    gated = np.unique(np.concatenate([slot for _, slot in session.claims]))
    asked = np.sort(np.concatenate(list(near_pass.transmitter.slots.values())))
    assert np.array_equal(gated, asked)


def test_the_judge_sees_wrong_slots_when_there_are_some(near_pass):
    """The judge is no yes-man: claims that are one slot off are all found."""
    session = Session(near_pass.directory).finish()
    window = near_pass.scene.manifest["window"]
    judge = TruthJudge(session.recording.stream("truth"), window["start_utc_ns"], window["stop_utc_ns"])
    for time_ps, slot in session.claims:
        judge.claim(session.analysis.zero_device_ps, time_ps, slot + 1)
    while judge.poll() or not judge.ended:
        pass
    truth, right = judge.truth(), session.judge.truth()
    assert truth.photon_clicks_gated == right.photon_clicks_gated
    assert truth.slots_assigned_wrongly == truth.photon_clicks_gated


def test_a_replay_without_the_truth_stream_is_the_same_but_for_it(near_copy, near_pass):
    shutil.rmtree(near_copy / "truth")
    document, whole = report_document(replayed(near_copy)), report_document(near_pass.result)
    assert document.pop("simulation") != whole.pop("simulation")
    assert document == whole
