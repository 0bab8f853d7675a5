"""Exploring recordings from Python, against one line of numpy for each answer."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from api_samples import S, imported, record, save_csv, save_npy, seal, small_tags

import groundstation as gs
from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput, GroundStationError
from groundstation.recording.tag_sources import Piece, TagSource


@pytest.fixture(scope="module")
def block() -> TagBlock:
    return small_tags()


@pytest.fixture(scope="module")
def directory(block: TagBlock, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("api") / "recording", block, cuts=(10, 11, 30_000))


@pytest.fixture(scope="module")
def rec(directory: Path) -> gs.TagRecording:
    return gs.open(directory)


def times(block: TagBlock, channel: int) -> np.ndarray:
    return block.time_ps[block.channel == channel]


# --- Opening ---------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_for_exploring_and_neither_does_a_replay() -> None:
    program = (
        "import sys, groundstation\n"
        "assert not {'groundstation.api', 'numpy', 'h5py'} & set(sys.modules)\n"
        "import groundstation.cli.replay, groundstation.cli.analysing\n"
        "assert not {'groundstation.api', 'groundstation.exploration.results'} & set(sys.modules)\n"
        "assert not any(name.startswith('groundstation.recording.formats') for name in sys.modules)\n"
        "groundstation.open\n"
        "assert 'groundstation.api' in sys.modules and 'matplotlib' not in sys.modules\n"
        "assert 'open' in dir(groundstation)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        gs.opne  # noqa: B018 -- looking it up is the test


def test_a_recording_says_what_it_holds(rec: gs.TagRecording, block: TagBlock) -> None:
    assert rec.channels == {"H": 0, "V": 1, "D": 2, "A": 3, "sync": 4, "pps": 5}
    assert rec.counts == {"H": 15_000, "V": 15_000, "D": 0, "A": 0, "sync": 30_000, "pps": 0}
    assert rec.duration_s == (int(block.time_ps[-1]) - int(block.time_ps[0])) / S
    assert rec.start_s == int(block.time_ps[0]) / S
    assert (rec.mode, rec.gaps_s) == ("simulation", ())
    assert rec.title == "Micius over Xinglong, 2016-12-19"


def test_tags_come_back_as_recorded(rec: gs.TagRecording, block: TagBlock) -> None:
    blocks = list(rec.tags())
    assert np.array_equal(np.concatenate([b.time_ps for b in blocks]), block.time_ps)
    assert np.array_equal(np.concatenate([b.channel for b in blocks]), block.channel)
    assert np.array_equal(rec.times("V"), times(block, 1))
    inside = (block.time_ps >= 3 * S // 2) & (block.time_ps < 2 * S) & (block.channel == 0)
    assert np.array_equal(rec.times(0, start_s=1.5, stop_s=2.0), block.time_ps[inside])
    assert rec.times("D").size == 0


def test_sealed_directory_imported_and_foreign_files_give_the_same_answers(
    block: TagBlock, directory: Path, tmp_path: Path
) -> None:
    npy, csv = save_npy(tmp_path / "tags.npy", block), save_csv(tmp_path / "tags.csv", block)
    paths = [directory, seal(directory), npy, csv, imported(npy, tmp_path / "made")]
    answers = []
    for path in paths:
        rec = gs.open(path)
        found = [
            gs.rates(rec, 0.5).rate_hz,
            gs.correlate(rec, 0, 1).counts,
            gs.correlate(rec, 0, 1, start_s=1.25, stop_s=3).g2(),
            gs.histogram(rec, 0, sync=4).counts,
            gs.histogram(rec, 1, intervals=True).edges_ps,
            gs.histogram(rec, 1, period_ps=12495.603).counts,
            gs.coincidences(rec, (0, 1), 20_000, which="nearest").delay_ps,
        ]
        answers.append(found)
    assert gs.open(npy).channels == {"0": 0, "1": 1, "4": 4}
    for other in answers[1:]:
        for ours, theirs in zip(answers[0], other, strict=True):
            assert np.array_equal(ours, theirs, equal_nan=True)


def test_times_far_from_zero_are_those_of_an_import(tmp_path: Path) -> None:
    far = small_tags(start_ps=260_000 * S + 123_456, seconds=1)  # beyond 2^53 ps, as in real quTAG files
    npy = save_npy(tmp_path / "far.npy", far)
    in_place, made = gs.open(npy), gs.open(imported(npy, tmp_path / "made"))
    assert in_place.start_s < 1
    assert np.array_equal(in_place.times(1), made.times(1))
    assert np.array_equal(in_place.times(1) + 260_000 * S, times(far, 1))


def test_a_growing_recording_is_read_as_far_as_it_has_come(block: TagBlock, tmp_path: Path) -> None:
    growing = record(tmp_path / "growing", TagBlock(block.time_ps[:500], block.channel[:500]), end=False)
    assert int(gs.rates(gs.open(growing)).tags.sum()) == 500


# --- Rates -----------------------------------------------------------------------------------------------


def test_rates_are_counts_over_whole_bins(rec: gs.TagRecording, block: TagBlock) -> None:
    found = gs.rates(rec, bin_s=0.25)
    assert found.channels == ("H", "V", "sync")
    for row, channel in enumerate((0, 1, 4)):
        expected = np.bincount((times(block, channel) - S) // (S // 4), minlength=12)
        assert np.array_equal(found.counts[row], expected)
        assert np.array_equal(found.rate_hz[row][1:-1], expected[1:-1] * 4.0)
    assert np.array_equal(found.edges_s, 1 + np.arange(13) / 4)
    assert found.mean_hz == pytest.approx([5000, 5000, 10_000], rel=1e-3)


def test_a_bin_that_is_not_covered_has_no_rate(rec: gs.TagRecording) -> None:
    found = gs.rates(rec, bin_s=0.5, start_s=1.25, stop_s=2.0)
    assert np.array_equal(found.edges_s, [1.0, 1.5, 2.0])
    assert np.array_equal(np.isnan(found.rate_hz), [[True, False]] * 3)
    assert found.counts[2].tolist() == [2500, 5000]
    assert found.origin.duration_s == 0.75
    assert np.isnan(gs.rates(rec, bin_s=100.0).rate_hz).all()


def test_seconds_without_tags_have_the_rate_zero(tmp_path: Path) -> None:
    block = TagBlock(np.array([0, 5, 6]) * S, np.zeros(3, np.uint8))
    found = gs.rates(gs.open(save_npy(tmp_path / "few.npy", block)))
    assert found.counts.tolist() == [[1, 0, 0, 0, 0, 1, 1]]
    assert found.rate_hz[0][:6].tolist() == [1, 0, 0, 0, 0, 1]


# --- Correlation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [("H", "V"), ("V", "H"), (0, 4), ("H", "H")])
def test_a_correlation_is_the_histogram_of_all_differences(
    tmp_path: Path, block: TagBlock, a: object, b: object
) -> None:
    few = TagBlock(block.time_ps[:3000] // 100, block.channel[:3000])
    rec = gs.open(record(tmp_path / "few", few, cuts=(7, 1000)))
    first, second = (times(few, rec.number(name)) for name in (a, b))  # type: ignore[arg-type]
    differences = np.subtract.outer(second, first)
    if a == b:
        differences = differences[~np.eye(len(first), dtype=bool)]
    edges = np.arange(-500_000, 500_001, 1000)
    expected, _ = np.histogram(differences, edges)
    expected[-1] -= np.count_nonzero(differences == 500_000)  # numpy's last bin has both its edges
    found = gs.correlate(rec, a, b, half_range_ns=500, bin_ps=1000)  # type: ignore[arg-type]
    assert np.array_equal(found.counts, expected)
    assert np.array_equal(found.edges_ps, edges)
    assert np.array_equal(found.delay_ps, edges[:-1] + 500)


def test_the_delay_of_the_pairs_is_found_and_can_be_subtracted(directory: Path, rec: gs.TagRecording) -> None:
    found = gs.correlate(rec, "H", "V")
    peak = found.extreme()
    assert (peak.stands_out, peak.words) == (True, "peak")
    assert found.delay_ps[peak.bin] == pytest.approx(12_300, abs=200)
    shifted = gs.correlate(gs.open(directory, delays_ps={"V": 12_300}), "H", "V")
    assert shifted.delay_ps[shifted.extreme().bin] == pytest.approx(0, abs=200)
    assert shifted.counts.max() == pytest.approx(peak.counts, rel=0.1)


def test_g2_is_one_where_nothing_is_correlated(rec: gs.TagRecording) -> None:
    found = gs.correlate(rec, "H", "V", half_range_ns=100_000, bin_ps=100_000)
    away = np.abs(found.delay_ps) > 200_000
    assert found.g2()[away].mean() == pytest.approx(1, abs=4 * found.g2_error()[away].mean() / np.sqrt(away.sum()))
    duration_ps = found.origin.duration_s * S
    by_hand = found.counts * duration_ps**2 / (15_000**2 * 100_000 * (duration_ps - np.abs(found.delay_ps)))
    assert found.g2() == pytest.approx(by_hand, rel=1e-12)


def test_g2_of_a_channel_without_tags_is_unknown(rec: gs.TagRecording) -> None:
    found = gs.correlate(rec, "H", "D")
    assert np.isnan(found.g2()).all()
    assert found.counts.sum() == 0
    assert not found.extreme().stands_out


def test_pulses_are_compared_with_those_beside_them(tmp_path: Path) -> None:
    pulse = np.arange(0, S // 10, 10_000)
    random = np.random.default_rng(3)
    first, second = (pulse[random.random(pulse.size) < 0.01] for _ in range(2))
    time_ps = np.concatenate((first, second + 50))
    order = np.argsort(time_ps, kind="stable")
    channel = np.repeat(np.array([1, 2], np.uint8), [first.size, second.size])
    rec = gs.open(save_npy(tmp_path / "pulsed.npy", TagBlock(time_ps[order], channel[order])))
    found = gs.correlate(rec, 1, 2, half_range_ns=100, bin_ps=100)
    assert found.extreme().words == "highest of several peaks"
    pulsed = found.g2_pulsed(10_000, 500, zero_ps=50)
    assert pulsed.at_zero == pytest.approx(1, abs=4 * pulsed.at_zero_error)
    with pytest.raises(BadInput, match="half_peak_ps"):
        found.g2_pulsed(10_000, 6_000)


# --- Histograms ------------------------------------------------------------------------------------------


def test_a_phase_is_the_time_modulo_the_period(rec: gs.TagRecording, block: TagBlock) -> None:
    found = gs.histogram(rec, "V", period_ps=10_000)
    assert np.array_equal(found.counts, np.bincount(times(block, 1) % 10_000 // 100, minlength=100))
    assert (found.edges_ps[1], found.edges_ps[-1], found.kind) == (100, 10_000, "phase")
    assert gs.histogram(rec, "V", period_ps=10_000, bin_ps=300).counts.size == 33


@pytest.mark.parametrize("period", ["12495.603", "1/3", "9999.9987654321"])
def test_a_period_may_have_decimals(tmp_path: Path, period: str) -> None:
    exact = Fraction(period) + 10_000
    few = small_tags(start_ps=80 * 3600 * S - S, seconds=1)
    few = TagBlock(few.time_ps[:300] - 80 * 3600 * S, few.channel[:300])
    rec = gs.open(record(tmp_path / "few", few))
    expected = np.zeros(64, np.int64)
    for time in times(few, 4).tolist():
        expected[int(time % exact / exact * 64)] += 1
    assert np.array_equal(gs.histogram(rec, "sync", period_ps=exact, bin_ps=round(exact / 64)).counts, expected)


def test_ticks_on_the_edges_of_bins_are_counted_where_they_belong(tmp_path: Path) -> None:
    ticks = np.arange(0, 10**8, 100)
    rec = gs.open(save_npy(tmp_path / "ticks.npy", TagBlock(ticks, np.zeros(ticks.size, np.uint8))))
    assert np.array_equal(gs.histogram(rec, 0, period_ps=10_000).counts, np.full(100, 10_000))


def test_the_time_since_a_sync_is_that_to_the_latest_one(rec: gs.TagRecording, block: TagBlock) -> None:
    tags, syncs = times(block, 0), times(block, 4)
    since = tags - syncs[np.searchsorted(syncs, tags, side="right") - 1]
    found = gs.histogram(rec, "H", sync="sync", range_ns=80_000, bin_ps=1_000_000)
    assert np.array_equal(found.counts, np.bincount(since // 1_000_000, minlength=100)[:80])
    assert found.outside == np.count_nonzero(since >= 80_000_000)
    assert found.shortest_ps == since.min()
    by_itself = gs.histogram(rec, "H", sync="sync")
    assert by_itself.edges_ps[-1] == 100_000_000  # 10 kHz


def test_intervals_are_the_differences_of_neighbours(rec: gs.TagRecording, block: TagBlock) -> None:
    steps = np.diff(times(block, 0))
    found = gs.histogram(rec, "H", intervals=True, range_ns=1_000_000, bin_ps=10**7)
    assert np.array_equal(found.counts, np.bincount(steps // 10**7, minlength=100)[:100])
    assert found.shortest_ps == steps.min()
    assert found.counts.sum() + found.outside == 15_000
    assert gs.histogram(rec, "H", intervals=True).edges_ps[-1] == pytest.approx(5 * 2e8, rel=0.01)


# --- Coincidences ----------------------------------------------------------------------------------------


def test_coincidences_are_the_pairs_within_the_window(rec: gs.TagRecording, block: TagBlock) -> None:
    a, b = times(block, 0), times(block, 1)
    low, high = np.searchsorted(b, a - 13_000), np.searchsorted(b, a + 13_000, side="right")
    found = gs.coincidences(rec, ("H", "V"), half_window_ps=13_000)
    assert found.count == (high - low).sum() == len(found.delay_ps)
    assert np.array_equal(found.time_ps, np.repeat(a, high - low))
    assert np.abs(found.delay_ps).max() <= 13_000
    single = gs.coincidences(rec, ("H", "V"), 13_000, which="one_to_one")
    assert np.unique(single.time_ps).size == single.count <= found.count


def test_accidentals_are_what_the_rates_give(directory: Path) -> None:
    rec = gs.open(directory, delays_ps={"V": 12_300})
    found = gs.coincidences(rec, ("H", "V"), half_window_ps=100_000)
    expected = 15_000**2 * 200_001 / (3 * S)
    assert found.accidentals == pytest.approx(expected, abs=4 * found.accidentals_error)
    assert found.count == pytest.approx(6_000 + expected, abs=30)
    assert found.car == pytest.approx((found.count - found.accidentals) / found.accidentals)
    assert found.rate_hz == pytest.approx(found.count / 3, rel=1e-3)


def test_several_channels_count_tags_of_the_first_with_company(rec: gs.TagRecording, block: TagBlock) -> None:
    window = 20_000_000

    def near(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        low, high = np.searchsorted(other, own - window), np.searchsorted(other, own + window, side="right")
        return high > low

    h, v, clock = (times(block, channel) for channel in (0, 1, 4))
    triple = gs.coincidences(rec, ("H", "V", "sync"), window)
    assert np.array_equal(triple.time_ps, h[near(h, v) & near(h, clock)])
    vetoed = gs.coincidences(rec, ("H", "V"), window, veto=["sync"])
    assert np.array_equal(vetoed.time_ps, h[near(h, v) & ~near(h, clock)])
    alone = {row.channels: row.count for row in triple.twofold}
    assert alone == {
        ("H", "V"): near(h, v).sum(),
        ("H", "sync"): near(h, clock).sum(),
        ("V", "sync"): near(v, clock).sum(),
    }
    assert alone == {row.channels: row.count for row in vetoed.twofold}
    assert (triple.tags.tolist(), triple.name, vetoed.name) == (
        [15_000, 15_000, 30_000], "H and V and sync", "H and V without sync",
    )  # fmt: skip


def test_chance_of_several_channels_is_that_of_their_rates(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    span, window = 10 * S, 50_000_000
    pairs = random.integers(0, span, 3_000)
    streams = [np.concatenate((pairs, random.integers(0, span, 7_000))) for _ in range(2)]
    streams.append(random.integers(0, span, 10_000))
    time_ps, channel = np.concatenate(streams), np.repeat(np.arange(3), 10_000)
    order = np.argsort(time_ps, kind="stable")
    rec = gs.open(save_npy(tmp_path / "t.npy", TagBlock(time_ps[order], channel[order])))
    found = gs.coincidences(rec, (0, 1, 2), window)
    company = 1 - np.exp(-10_000 * (2 * window + 1) / span)  # of a tag, by one independent channel
    assert found.accidentals == pytest.approx(10_000 * company**2, abs=5 * found.accidentals_error)
    with_true = (3_000 + 7_000 * company) * company  # pairs, and the third by chance
    assert found.one_random[2] == pytest.approx(with_true, rel=0.05)
    assert found.one_random[0] == pytest.approx(10_000 * company**2, rel=0.1)
    assert found.count == pytest.approx(with_true, rel=0.2)
    for row in found.twofold:
        assert row.accidentals == pytest.approx(10_000 * company, abs=5 * row.accidentals_error)
    vetoed = gs.coincidences(rec, (0, 2), window, veto=[1])
    assert vetoed.accidentals == pytest.approx(7_000 * (1 - company) * company, rel=0.05)


def test_two_channels_as_a_pattern_are_their_pairs_where_nothing_is_crowded(rec: gs.TagRecording) -> None:
    pairs = gs.coincidences(rec, ("H", "V"), 13_000, which="nearest")
    pattern = gs.coincidences(rec, ("H", "V"), 13_000, veto=["D"])
    assert np.array_equal(pairs.time_ps, pattern.time_ps)
    assert pattern.accidentals == gs.coincidences(rec, ("H", "V"), 13_000).accidentals


# --- Loss ------------------------------------------------------------------------------------------------


def test_tags_inside_a_gap_count_for_nothing_but_are_there(block: TagBlock, tmp_path: Path) -> None:
    start, stop = 2 * S + S // 10, 2 * S + S // 2
    rec = gs.open(record(tmp_path / "lossy", block, gaps=[(start, stop)]))
    usable = TagBlock(*(column[(block.time_ps <= start) | (block.time_ps >= stop)] for column in block))
    clean = gs.open(save_npy(tmp_path / "usable.npy", usable))
    assert rec.gaps_s == ((2.1, 2.5),)
    assert rec.times("H").size == 15_000
    ours, theirs = gs.correlate(rec, 0, 1), gs.correlate(clean, 0, 1)
    assert np.array_equal(ours.counts, theirs.counts)
    assert ours.origin.duration_s == pytest.approx(theirs.origin.duration_s - 0.4)
    found = gs.rates(rec, bin_s=0.25)
    assert np.isnan(found.rate_hz[0]).tolist() == [*[False] * 4, True, True, *[False] * 5, True]
    assert found.counts[2].tolist() == [2500] * 12
    assert found.mean_hz == pytest.approx([5000, 5000, 10_000], rel=0.02)


def test_a_damaged_segment_is_a_gap(block: TagBlock, tmp_path: Path) -> None:
    directory = record(tmp_path / "damaged", block, cuts=(20_000, 25_000))
    segment = directory / "tags" / "000002.h5"
    segment.write_bytes(segment.read_bytes()[:-50])
    rec = gs.open(directory)
    assert rec.gaps_s == ((int(block.time_ps[19_999]) / S, int(block.time_ps[25_000]) / S),)
    assert sum(rec.counts.values()) == block.time_ps.size - 5_000


def test_the_gaps_of_a_text_file_are_known(block: TagBlock, tmp_path: Path) -> None:
    path = save_csv(tmp_path / "tags.csv", block, [f"# gap {2 * S} {2 * S + S // 2} 5 overflow"])
    assert gs.open(path).gaps_s == ((2.0, 2.5),)
    assert gs.correlate(gs.open(path), 0, 1).tags_a < 15_000


# --- Ways out, memory ------------------------------------------------------------------------------------


def test_every_result_can_be_drawn_written_and_made_json(rec: gs.TagRecording, tmp_path: Path) -> None:
    results = {
        "rates": gs.rates(rec),
        "delays": gs.correlate(rec, "H", "V"),
        "phases": gs.histogram(rec, "H", period_ps=10_000),
        "pairs": gs.coincidences(rec, ("H", "V"), 13_000),
        "pattern": gs.coincidences(rec, ("H", "V"), 13_000, veto=["sync"]),
    }
    for name, result in results.items():
        result.plot(tmp_path / f"{name}.svg")
        result.csv(str(tmp_path / f"{name}.csv"))
        header, *rows = (tmp_path / f"{name}.csv").read_text().splitlines()
        whole = result.as_dict()
        assert whole["source"] == "Micius over Xinglong, 2016-12-19, SIMULATION"
        for column, text in zip(header.split(","), rows[1].split(","), strict=True):
            assert whole[column][1] == (float(text) if text else None)
            assert len(whole[column]) == len(rows)
    with pytest.raises(BadInput, match=r"\.svg, \.png, \.pdf"):
        results["rates"].plot(tmp_path / "rates.doc")
    with pytest.raises(GroundStationError, match="cannot be written"):
        results["rates"].plot(tmp_path / "absent" / "rates.svg")


def test_memory_does_not_grow_with_the_recording() -> None:
    block = small_tags(0)

    def read(times: int) -> Iterator[Piece]:
        for k in range(times):
            yield Piece(TagBlock(block.time_ps + 3 * S * k, block.channel), [], {0: "a", 1: "b", 4: "clock"})

    def peak_bytes(times: int) -> int:
        names = {0: "a", 1: "b", 4: "clock"}
        rec = gs.TagRecording(TagSource("many", "file", names, {1: 12_300}, lambda: read(times)), None)
        tracemalloc.start()
        gs.rates(rec)
        gs.correlate(rec, "a", "b")
        gs.histogram(rec, "a", sync="clock", range_ns=100_000)
        gs.coincidences(rec, ("a", "clock"))
        gs.coincidences(rec, ("a", "b", "clock"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    once = peak_bytes(2)
    assert once < 20e6
    assert peak_bytes(20) < once * 1.2 + 1e6


# --- Bad input -------------------------------------------------------------------------------------------

_REFUSED: list[tuple[Callable[[gs.TagRecording], object], str]] = [
    (lambda rec: gs.correlate(rec, "H", "Q"), 'no channel "Q"; its channels are H, V, D, A, sync, pps'),
    (lambda rec: gs.correlate(rec, "H", 9), 'no channel "9"'),
    (lambda rec: gs.correlate(rec, "H", "V", half_range_ns=100, bin_ps=300), "take 99.9 or 100.2 ns"),
    (lambda rec: gs.correlate(rec, "H", "V", half_range_ns=0.0001), "whole number of picoseconds"),
    (lambda rec: gs.correlate(rec, "H", "V", half_range_ns=float("nan")), "half_range_ns is nan"),
    (lambda rec: gs.correlate(rec, "H", "V", half_range_ns=float("inf")), "half_range_ns is inf"),
    (lambda rec: gs.correlate(rec, "H", "V", bin_ps=0), "bin_ps is 0"),
    (lambda rec: gs.correlate(rec, "H", "V", half_range_ns=1e9, bin_ps=1), "take wider bins"),
    (lambda rec: gs.rates(rec, bin_s=-1), "bin_s is -1"),
    (lambda rec: gs.rates(rec, bin_s=1e-9), "take wider bins"),
    (lambda rec: gs.rates(rec, start_s=2, stop_s=2), "stop must be after start"),
    (lambda rec: gs.histogram(rec, "H"), "exactly one of"),
    (lambda rec: gs.histogram(rec, "H", sync="sync", intervals=True), "exactly one of"),
    (lambda rec: gs.histogram(rec, "H", sync="H"), "is its own sync"),
    (lambda rec: gs.histogram(rec, "H", period_ps=0), "period_ps is 0"),
    (lambda rec: gs.histogram(rec, "H", period_ps=10_000, range_ns=3), "no range_ns"),
    (lambda rec: gs.histogram(rec, "H", intervals=True, range_ns=10, bin_ps=3000), "take 9 or 12 ns"),
    (lambda rec: gs.coincidences(rec, ("H", "H")), "channel H is named twice"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), veto=["V"]), "channel V is named twice"),
    (lambda rec: gs.coincidences(rec, ["H"]), "two channels or more, 1 was given"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), veto=["Q"]), 'no channel "Q"'),
    (lambda rec: gs.coincidences(rec, ("H", "V"), veto="sync"), 'veto is "sync"; give a list'),
    (lambda rec: gs.coincidences(rec, ["H"] * 9), "at most 8 channels, 9 were given"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), which="best"), 'which is "best"'),  # type: ignore[call-overload]
    (lambda rec: gs.coincidences(rec, ("H", "V", "D"), which="all"), "leave it out"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), half_window_ps=1 << 56), "take a narrower window"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), half_window_ps=10**12), "more than 256 tags of these channels"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), half_window_ps=-1), "half_window_ps is -1"),
    (lambda rec: gs.coincidences(rec, ("H", "V"), shift_ps=5), "beyond the full window"),
]


@pytest.mark.parametrize(("ask", "sentence"), _REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    rec: gs.TagRecording, ask: Callable[[gs.TagRecording], object], sentence: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        ask(rec)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_recording_is_refused(directory: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.dat"
    strange.write_bytes(b"\x00\x01\x02 nothing that is known")
    for path, sentence in ((tmp_path / "absent", "does not exist"), (strange, "no format that is known")):
        with pytest.raises(BadInput, match=sentence):
            gs.open(path)
    with pytest.raises(BadInput, match="is a directory"):
        gs.open(tmp_path)
    with pytest.raises(BadInput, match=r"is no recording; open .*/api0/recording"):
        gs.open(directory.parent)
    with pytest.raises(BadInput, match="leave out format"):
        gs.open(directory, format="csv")
    with pytest.raises(BadInput, match='no channel "Q"'):
        gs.open(directory, delays_ps={"Q": 1})


def test_tags_out_of_order_are_refused(tmp_path: Path) -> None:
    backwards = TagBlock(np.array([5, 9, 7]), np.zeros(3, np.uint8))
    rec = gs.open(record(tmp_path / "backwards", backwards))
    with pytest.raises(BadInput, match="tag 2 is 2 ps before tag 1"):
        gs.rates(rec)
