"""`rates`, `correlate`, `histogram`, `coincidences` on the command line: the answer first, or one sentence."""

import json
import re
from pathlib import Path

import pytest
from api_samples import record, save_csv, seal, small_tags
from flights import Console


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal(record(tmp_path_factory.mktemp("exploration") / "recording", small_tags()))


def lines(console: Console, *words: object) -> list[str]:
    code, output, errors = console.run(*words)
    assert (code, errors) == (0, "")
    return output.splitlines()


def test_rates_say_the_sum_first_and_then_each_channel(console: Console, recording: Path) -> None:
    answer, heading, *rows = lines(console, "rates", recording, "--bin-s", 0.5)
    assert answer.startswith("20 kHz in all: 60,000 tags in 2.9999 s, Micius over Xinglong, 2016-12-19, SIMULATION")
    assert heading.endswith("in bins of 0.5 s")
    assert [row.split()[:2] for row in rows] == [["H", "15,000"], ["V", "15,000"], ["sync", "30,000"]]
    assert rows[2].split()[2:] == ["10", "kHz"] * 3


def test_correlate_says_what_stands_out(console: Console, recording: Path) -> None:
    answer, of_what = lines(console, "correlate", recording, "H", "V")
    assert answer.startswith("H to V: peak at +12.")
    assert "g2 = " in answer
    assert "within ±100 ns in bins of 100 ps; 15,000 and 15,000 tags in 2.9999 s" in of_what
    nothing, _ = lines(console, "correlate", recording, "V", "sync", "--half-range-ns", 1000, "--bin-ps", 1000)
    assert nothing.startswith("V to sync: nothing stands out: ")
    assert lines(console, "correlate", recording, "H", "D")[0] == "H to D: no pairs"


def test_histogram_knows_three_times(console: Console, recording: Path) -> None:
    period, of_what = lines(console, "histogram", recording, "sync", "--period-ps", "100000000")
    assert period == "sync: peak at 500 ns: 30,000 tags in the bin, 0 in others"
    assert "100 bins of 1 µs up to 100 µs" in of_what
    assert lines(console, "histogram", recording, "H", "--sync", "sync")[0].startswith("H: nothing stands out: ")
    assert lines(console, "histogram", recording, "H", "--intervals")[0].startswith("H: shortest interval ")


def test_coincidences_say_how_many_and_how_many_by_chance(console: Console, recording: Path) -> None:
    delays = ("--delays-ps", "V=12300")
    answer, of_what = lines(console, "coincidences", recording, "H", "V", *delays)
    assert re.fullmatch(r"H and V: 6,00\d coincidences, 2 kHz; 0\.\d ± 0\.[12] by chance; CAR .*", answer)
    assert of_what.startswith("all pairs within ±1,000 ps; 15,000 and 15,000 tags in 2.9999 s, Micius over Xinglong")
    assert lines(console, "coincidences", recording, "H", "V")[0].startswith("H and V: 0 coincidences, 0 Hz; ")
    answer, _, levels, heading, *rows = lines(console, "coincidences", recording, "H", "V", "sync", *delays)
    assert answer.startswith("H and V and sync: ")
    assert levels.startswith("by chance if only one channel has nothing to do with the others: H: ")
    assert heading.split() == ["channels", "tags", "together", "by", "chance", "CAR"]
    assert [row.split()[:3] for row in rows] == [["H", "and", "V"], ["H", "and", "sync"], ["V", "and", "sync"]]
    without = lines(console, "coincidences", recording, "H", "V", "--veto", "sync", *delays)[0]
    assert without.startswith("H and V without sync: ")
    first, *_ = lines(console, "coincidences", recording, "H", "V", "--which", "one_to_one", *delays)
    assert first.startswith("H and V: ")
    (line,) = lines(console, "coincidences", recording, "H", "V", "--veto", "sync", "D", "--json", *delays)
    found = json.loads(line)
    assert found["veto"] == ["sync", "D"]
    assert len(found["twofold"]) == 6
    assert found["count"] == len(found["time_ps"])


def test_the_whole_result_is_one_json_object(console: Console, recording: Path) -> None:
    (line,) = lines(console, "correlate", recording, "H", "V", "--json")
    found = json.loads(line)
    assert found["channels"] == ["H", "V"]
    assert len(found["delay_ps"]) == len(found["counts"]) == len(found["g2"]) == 2000
    assert found["pairs"] == sum(found["counts"])
    assert 12_000 < found["extreme"]["delay_ps"] < 12_600
    (line,) = lines(console, "rates", recording, "--json", "--bin-s", 100)
    assert json.loads(line)["H_rate_hz"] == [None]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".csv"])
def test_the_output_is_a_figure_or_a_table(console: Console, recording: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"rates{suffix}"
    assert lines(console, "rates", recording, "--output", output)[-1] == f"Written to {output}"
    begin = {".svg": b"<?xml", ".png": b"\x89PNG", ".csv": b"start_s,H_counts,H_rate_hz"}[suffix]
    assert output.read_bytes().startswith(begin)


def test_a_tag_file_is_explored_in_place(console: Console, tmp_path: Path) -> None:
    path = save_csv(tmp_path / "tags.csv", small_tags(seconds=1), ["# channel 0 alice", "# channel 1 bob"])
    assert lines(console, "correlate", path, "alice", "bob")[0].startswith("alice to bob: peak at +12.")
    assert lines(console, "correlate", path, "0", "1")[0].startswith("alice to bob: peak at +12.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("correlate", "H", "Q"), 'has no channel "Q"; its channels are H, V, D, A, sync, pps'),
        (("correlate", "H", "V", "--bin-ps", 300), "take 99.9 or 100.2 ns"),
        (("correlate", "H", "V", "--bin-ps", "x"), "--bin-ps"),
        (("histogram", "H"), "--period-ps --sync --intervals"),
        (("histogram", "H", "--intervals", "--sync", "sync"), "not allowed with"),
        (("histogram", "H", "--period-ps", "ten"), "period_ps is ten, which is no number"),
        (("histogram", "H", "--period-ps", "1e400"), "give 1 to 2^56 picoseconds"),
        (("coincidences", "H"), "two channels or more, 1 was given"),
        (("coincidences", "H", "V", "--veto", "H"), "channel H is named twice"),
        (("coincidences", "H", "V", "--veto", "Q"), 'no channel "Q"'),
        (("coincidences", "H", "V", "D", "--which", "all"), "leave it out"),
        (("coincidences", "H", "V", "--half-window-ps", "-1"), "half_window_ps is -1"),
        (("coincidences", "H", "V", "--delays-ps", "V:3"), "write NAME=PS"),
        (("coincidences", "H", "V", "--delays-ps", "Q=3"), 'no channel "Q"'),
        (("correlate", "H", "V", "--delays-ps", "V=9999999999999999999"), "whole number of picoseconds"),
        (("rates", "--bin-s", "0"), "bin_s is 0"),
        (("rates", "--start-s", 3, "--stop-s", 1), "stop must be after start"),
        (("rates", "--format", "csv"), "leave out format"),
        (("rates", "--output", "rates.doc"), "end it in .svg, .png, .pdf, .csv"),
        (("rates", "--output", "/absent/rates.svg"), "/absent is no directory"),
    ],
)
def test_bad_input_is_one_sentence(console: Console, recording: Path, words: tuple[object, ...], sentence: str) -> None:
    command, *rest = words
    code, output, errors = console.run(command, recording, *rest)
    assert (code, output) == (2, "")
    assert errors.startswith("groundstation: ")
    assert errors.count("\n") == 1
    assert sentence in errors


def test_what_is_read_is_never_written_over(console: Console, tmp_path: Path) -> None:
    path = save_csv(tmp_path / "tags.csv", small_tags(seconds=1))
    before = path.read_bytes()
    code, _, errors = console.run("rates", path, "--output", tmp_path / "." / "tags.csv")
    assert code == 2
    assert "is what is to be read" in errors
    assert path.read_bytes() == before
