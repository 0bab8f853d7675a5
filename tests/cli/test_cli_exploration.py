"""`rates`, `correlate` and `histogram` on the command line: the answer first, and one sentence when there is none."""

import json
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
