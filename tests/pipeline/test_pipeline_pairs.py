"""Two recordings of entangled pairs become coincidences: the right ones, the same ones live and from the archive."""

import math
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from entanglement_samples import (
    NAMES,
    analysed,
    analysis_of,
    experiment,
    recorded,
    rewritten,
    segments,
    text_of,
    true_pairs,
)

from groundstation.core.entanglement import chsh, expected_correlations, qber, sifted_errors
from groundstation.errors import BadInput, SynchronisationRefused
from groundstation.recording.copy import recut
from groundstation.recording.manifest import MANIFEST_NAME
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import segment_name


def _made(directory, text, *options):
    with redirect_stdout(StringIO()):
        return recorded(directory, text, *options)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """7 s of a bright source between two rooms, CHSH settings: 2,000 pairs a second, no GPS."""
    return _made(tmp_path_factory.mktemp("laboratory"), experiment(duration_s=7.0), "--scene", "laboratory")


@pytest.fixture(scope="module")
def found(laboratory):
    return analysed(*laboratory)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """The same with the settings of BBM92."""
    options = ("--scene", "laboratory", "--settings", "bbm92")
    return _made(tmp_path_factory.mktemp("key"), experiment(duration_s=7.0), *options)


@pytest.fixture(scope="module")
def bright_pass(tmp_path_factory):
    """20 s of the satellite with 30 times as many pairs: time of flight, GPS time and prediction in a short test."""
    return _made(tmp_path_factory.mktemp("bright"), _bright_pass())


def _bright_pass(**values):
    return experiment("loss_db_at_1000_km = 27.0", min_duration_s="200.0\nlimit_s = 20.0", **values)


def _chsh(result):
    return chsh(result.counts, expected_correlations(result.state, *result.analyser_deg))


def test_a_clock_unknown_to_a_second_is_found_blindly(found):
    # The recordings begin 0.618 s and 0.271 s after the world, the taggers differ by 3.4 ppm.
    clock = found.clock
    assert not clock.predicted
    assert clock.offset_ps * 1e-12 == pytest.approx(0.618 - 0.271, abs=1e-4)
    assert clock.frequency_offset == pytest.approx(-3.4e-6, abs=2e-9)  # drifting by 3e-10 a second
    assert clock.jitter_ps == pytest.approx(math.sqrt(2) * 700 / 2.3548, rel=0.05)
    assert clock.significance > 50


def test_every_pair_is_found_but_for_those_outside_the_window(found, laboratory):
    there = true_pairs(*laboratory) * found.analysed_ps / (found.analysed_ps + found.unsynchronised_ps)
    expected = there * math.erf(1250 / 420.4 / math.sqrt(2)) + found.accidental_counts.sum() / found.shifts
    assert found.counts.sum() == pytest.approx(expected, rel=0.02)
    assert found.counts.sum() == found.per_second.sum()
    assert found.unsynchronised_ps < 1e12
    assert found.complete


def test_s_is_that_of_the_visibility_and_far_above_2(found):
    s = _chsh(found)
    assert s.value == pytest.approx(2 * math.sqrt(2) * 0.97, abs=4 * s.sigma)
    assert (s.value - 2) / s.sigma > 20


def test_accidentals_are_those_of_the_rates(found):
    rates = found.singles.sum(axis=1) / (found.analysed_ps * 1e-12)
    expected = rates[0] * rates[1] * 2 * 1.25e-9 * found.analysed_ps * 1e-12
    measured = found.accidental_counts.sum() / found.shifts
    assert measured == pytest.approx(expected, abs=5 * math.sqrt(expected / found.shifts))


def test_both_sides_sift_the_same_key_but_for_the_errors_of_the_source(key):
    result = analysed(*key)
    a, b = result.sifted
    assert np.array_equal(a.basis, b.basis)
    counts = sifted_errors(result.counts, expected_correlations(result.state, *result.analyser_deg))
    assert a.bit.size == counts[0].bits + counts[1].bits == pytest.approx(result.counts.sum() / 2, rel=0.05)
    assert np.sum(a.bit != b.bit) == counts[0].errors + counts[1].errors
    for count in counts:
        rate = qber(count)
        assert rate.value == pytest.approx((1 - 0.97) / 2, abs=4 * rate.sigma + 0.001)
    assert abs(a.bit.mean() - 0.5) < 5 / math.sqrt(a.bit.size)
    assert np.all(np.diff(a.time_ps) > 0)
    assert _chsh(result) is None


def test_the_prediction_leaves_nanoseconds_of_a_satellites_links(bright_pass):
    result = analysed(*bright_pass)
    assert result.clock.predicted
    assert result.clock.searched_s == 16
    assert abs(result.clock.offset_ps) < 200_000  # 50 ns of GPS receivers, 44 ns of orbit, not 5 ms of flight
    assert abs(result.clock.frequency_offset) < 5e-9
    expected = true_pairs(*bright_pass) + result.accidental_counts.sum() / result.shifts
    followed = result.analysed_ps / (result.analysed_ps + result.unsynchronised_ps)
    assert followed > 0.9
    assert result.counts.sum() == pytest.approx(expected * followed, rel=0.08)
    s = _chsh(result)
    assert s.value == pytest.approx(2 * math.sqrt(2) * 0.878, abs=4 * s.sigma)


@pytest.mark.parametrize("rows", [997, 40_000])
def test_cutting_the_recordings_elsewhere_changes_nothing(laboratory, found, tmp_path, rows):
    for path in laboratory:
        recut(open_recording(path), tmp_path / path.name, rows)
    assert text_of(analysed(tmp_path / NAMES[0], tmp_path / NAMES[1])) == text_of(found)


@pytest.mark.parametrize("scene", ["laboratory", "bright_pass"])
def test_growing_recordings_give_the_same_as_the_archive(scene, request, tmp_path):
    paths = request.getfixturevalue(scene)
    assert _grown(paths, tmp_path) == text_of(analysed(*paths))


def _grown(paths, tmp_path):
    """The text of an analysis that follows copies of two recordings, which grow unevenly."""
    targets = []
    for path in paths:
        targets.append(tmp_path / path.name)
        for stream in ("tags", "telemetry"):
            (tmp_path / path.name / stream).mkdir(parents=True)
        shutil.copy(path / MANIFEST_NAME, tmp_path / path.name)
    analysis = analysis_of(*targets, follow=True)
    for _ in range(3):
        analysis.step()
    waiting = [
        [(path / stream / segment_name(s.number), target / stream) for stream in ("tags", "telemetry")
         for s in segments(path, stream)]
        for path, target in zip(paths, targets, strict=True)
    ]  # fmt: skip
    rng = np.random.default_rng(3)
    while any(waiting):
        side = waiting[0 if not waiting[1] or (waiting[0] and rng.random() < 0.5) else 1]
        for _ in range(min(len(side), int(rng.integers(1, 4)))):
            shutil.copy(*side.pop(0))
        for _ in range(int(rng.integers(0, 3))):
            analysis.step()
    while not analysis.finished:
        analysis.step()
    return text_of(analysis.result())


def test_exchanging_the_stations_gives_the_inverse_clock_and_the_same_pairs(laboratory, found):
    back = analysed(*reversed(laboratory))
    forward_offset, forward_rate = found.clock.offset_ps, found.clock.frequency_offset
    # Both references are about the middle of the search; the offset of one at the reference of the other:
    apart = (found.clock.reference_ps + forward_offset - back.clock.reference_ps) * back.clock.frequency_offset
    assert forward_offset + back.clock.offset_ps + apart == pytest.approx(0, abs=1_000)
    assert (1 + forward_rate) * (1 + back.clock.frequency_offset) == pytest.approx(1, abs=1e-9)
    assert np.abs(back.counts.T - found.counts).sum() <= 0.08 * found.counts.sum()  # the windows lie elsewhere
    assert _chsh(back).value == pytest.approx(_chsh(found).value, abs=_chsh(found).sigma)


def test_unrelated_recordings_of_one_pass_are_refused(bright_pass, tmp_path):
    other = _made(tmp_path, _bright_pass(seed=99))
    with pytest.raises(SynchronisationRefused, match="Delingha and Lijiang get no common clock: no offset within"):
        analysed(bright_pass[0], other[1])


@pytest.mark.slow
def test_unrelated_recordings_are_refused_by_the_blind_search(laboratory, tmp_path):
    other = _made(tmp_path, experiment(duration_s=5.0, seed=99), "--scene", "laboratory")
    with pytest.raises(SynchronisationRefused, match="Delingha and Lijiang get no common clock: no offset within"):
        analysed(laboratory[0], other[1])


def test_a_recording_is_no_partner_of_itself(laboratory):
    with pytest.raises(BadInput, match="both recordings are of the same run"):
        analysed(laboratory[0], laboratory[0])


def test_pairs_beside_a_gap_do_not_count_and_neither_does_its_time(laboratory, found, tmp_path):
    copies = [shutil.copytree(path, tmp_path / path.name) for path in laboratory]
    (copies[0] / "tags" / segment_name(6)).unlink()
    holed = analysed(*copies)
    assert not holed.complete
    assert 0.3e12 < holed.excluded_ps < 1.01e12  # a window of which most is missing may have no clock at all
    assert (holed.excluded_ps == pytest.approx(1e12, abs=2e9)) or holed.unsynchronised_ps > found.unsynchronised_ps
    assert holed.analysed_ps + holed.excluded_ps + holed.unsynchronised_ps == pytest.approx(
        found.analysed_ps + found.unsynchronised_ps, abs=2e9
    )
    rate, before = (r.counts.sum() / r.analysed_ps for r in (holed, found))
    assert rate == pytest.approx(before, rel=0.05)
    assert (holed.singles.sum(axis=1) / holed.analysed_ps) == pytest.approx(
        found.singles.sum(axis=1) / found.analysed_ps, rel=0.02
    )


def test_delays_of_channels_are_taken_off(laboratory, found, tmp_path):
    late = {"H": 0, "V": 4_000, "D": -2_500, "A": 700}

    def delayed(time_ps, channel):
        time_ps = time_ps + np.array([*late.values(), 0, 0])[channel]
        order = np.argsort(time_ps, kind="stable")
        return time_ps[order], channel[order]

    path = rewritten(laboratory[1], tmp_path / "late", delayed, delays_ps=late)
    assert np.array_equal(analysed(laboratory[0], path).counts, found.counts)
    blind_to_it = rewritten(laboratory[1], tmp_path / "unknown", delayed)
    assert analysed(laboratory[0], blind_to_it).counts.sum() < 0.6 * found.counts.sum()


def test_a_recording_without_clicks_is_refused(laboratory, tmp_path):
    empty = rewritten(laboratory[1], tmp_path / "dark", lambda time_ps, channel: (time_ps[:0], channel[:0]), run_id="0")
    with pytest.raises(SynchronisationRefused, match="Lijiang has no click in H, V, D or A"):
        analysed(laboratory[0], empty)


def test_an_imported_recording_without_the_four_channels_is_refused(laboratory, tmp_path):
    path = rewritten(
        laboratory[1], tmp_path / "other", lambda *tags: tags, mode="imported", channels={"0": "alice", "1": "bob"}
    )
    with pytest.raises(BadInput, match=r"no channel H \(its channels: alice, bob\)"):
        analysed(laboratory[0], path)


def test_an_imported_recording_is_assumed_to_be_psi_plus_and_says_so(laboratory, found, tmp_path):
    names = dict(zip("0123", "HVDA", strict=True))
    bare = {"mode": "imported", "channels": names, "entanglement": None, "patterns": None, "satellite": None}
    paths = [rewritten(path, tmp_path / path.name, lambda *tags: tags, **bare) for path in laboratory]
    result = analysed(*paths)
    assert np.array_equal(result.counts, found.counts)
    assert [remark.split(";")[1] for remark in result.remarks] == [" psi+ is assumed.", " 0 deg is assumed."]


@pytest.mark.slow
def test_a_whole_pass_repeats_the_published_result(tmp_path):
    # Yin 2017: S = 2.37 +- 0.09 from several passes; about one pair a second.
    result = analysed(*_made(tmp_path, experiment()))
    s = _chsh(result)
    assert s.value == pytest.approx(2.37, abs=3 * s.sigma)
    rate = result.counts.sum() / (result.analysed_ps * 1e-12)
    assert 1 <= rate <= 2
    assert result.clock.predicted
    assert result.analysed_ps > 200e12


def test_two_writers_that_are_not_in_step_are_followed_to_the_result_of_the_sealed_files(laboratory, tmp_path):
    copies = [tmp_path / path.name for path in laboratory]
    code = (
        "import sys, pathlib; from groundstation.recording.copy import recut; "
        "from groundstation.recording.reader import open_recording; "
        "recut(open_recording(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), int(sys.argv[3]))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(copy), rows])
        for path, copy, rows in zip(laboratory, copies, ("500", "1700"), strict=True)
    ]
    try:
        deadline = time.monotonic() + 60
        while not all((copy / MANIFEST_NAME).exists() for copy in copies):
            assert time.monotonic() < deadline
        analysis = analysis_of(*copies, follow=True)
        while not analysis.finished:
            assert time.monotonic() < deadline
            analysis.step()
        assert [writer.wait(60) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    sealed = [path.with_name(f"{path.name}.h5") for path in laboratory]
    assert text_of(analysis.result()) == text_of(analysed(*sealed))
