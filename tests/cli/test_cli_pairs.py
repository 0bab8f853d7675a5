"""`groundstation pairs` and `groundstation coincide` as their users see them."""

import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from flights import PROGRAM, Console, wait_until

from groundstation.cli.pairs import DEFAULT_CONFIG

_LABORATORY = ("--scene", "laboratory")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 s between two rooms."""
    path = tmp_path_factory.mktemp("experiment") / "experiment.toml"
    text = DEFAULT_CONFIG.read_text(encoding="utf-8").replace("duration_s = 20.0", "duration_s = 5.0")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recorded(experiment: Path, console: Console, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its two recordings, with the settings of BBM92."""
    output = tmp_path_factory.mktemp("recorded")
    options = ("--config", experiment, "--output", output, "--settings", "bbm92")
    code, said, errors = console.run("pairs", *options, *_LABORATORY)
    assert (code, errors) == (0, "")
    assert re.search(
        r"Recording \S+/delingha.h5: [\d,]+ tags, sealed\nRecording \S+/lijiang.h5: [\d,]+ tags, sealed\n$", said
    )
    return output


def _document(directory: Path) -> dict[str, object]:
    document = json.loads((directory / "coincidences.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_pairs_of_two_recordings_are_found_told_drawn_and_kept(
    recorded: Path, console: Console, tmp_path: Path
) -> None:
    output = tmp_path / "result"
    code, said, errors = console.run("coincide", recorded / "delingha.h5", recorded / "lijiang.h5", "--output", output)
    assert (code, errors) == (0, "")
    assert re.search(r"(?m)^clock +found blindly in 4 s at \d+\.\d sigma", said)
    assert re.search(r"(?m)^sifted +[\d,]+ bits, QBER 1\.\d\d ± 0\.\d\d %", said)
    document = _document(output)
    assert list(document)[:7] == ["stations", "mode", "complete", "remarks", "state", "analyser_deg", "half_window_ps"]
    assert list(document)[-1] == "provenance"
    assert document["stations"] == {"a": "Delingha", "b": "Lijiang"}
    assert document["chsh"] is None
    assert "<svg" in (output / "coincidences.svg").read_text(encoding="utf-8")
    keys = []
    for name in ("sifted-a.npz", "sifted-b.npz"):
        assert (output / name).stat().st_mode & 0o777 == 0o600
        with np.load(output / name) as columns:
            keys.append({column: columns[column] for column in ("time_ps", "basis", "bit")})
    bits = document["sifted_bits"]
    assert isinstance(bits, dict)
    assert keys[0]["bit"].size == keys[1]["bit"].size == bits["overall"]
    assert np.array_equal(keys[0]["basis"], keys[1]["basis"])


def test_no_key_bit_is_in_the_document(recorded: Path, console: Console, tmp_path: Path) -> None:
    assert console.run("coincide", recorded / "delingha.h5", recorded / "lijiang.h5", "--output", tmp_path)[0] == 0
    text = (tmp_path / "coincidences.json").read_text(encoding="utf-8")
    with np.load(tmp_path / "sifted-a.npz") as columns:
        assert not any(str(time) in text for time in columns["time_ps"][:100])
    assert re.findall(r'"(?:bit|bits|key)\w*"', text) == []


def test_a_narrower_window_finds_fewer(recorded: Path, console: Console, tmp_path: Path) -> None:
    found = []
    for half_window_ps in (300, 1250):
        output = tmp_path / str(half_window_ps)
        options = ("--half-window-ps", half_window_ps, "--output", output)
        assert console.run("coincide", recorded / "delingha.h5", recorded / "lijiang.h5", *options)[0] == 0
        found.append(_document(output)["coincidences"])
    assert found[0] / found[1] == pytest.approx(0.524, abs=0.03)  # type: ignore[operator]  # erf(300 / 420 / sqrt 2)


@pytest.mark.slow
def test_recordings_that_are_still_growing_are_followed_to_the_same_result(
    experiment: Path, tmp_path: Path, console: Console
) -> None:
    options = ["--config", str(experiment), "--output", str(tmp_path), *_LABORATORY, "--speed", "2"]
    recorder = subprocess.Popen([*PROGRAM, "pairs", *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        a, b = tmp_path / "delingha", tmp_path / "lijiang"
        wait_until(lambda: (a / "manifest.json").exists() and (b / "manifest.json").exists(), what="the recording")
        live = subprocess.run(
            [*PROGRAM, "coincide", str(a), str(b), "--follow", "--output", str(tmp_path / "live")],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert recorder.wait(60) == 0
    finally:
        recorder.kill()
        recorder.communicate()
    assert (live.returncode, live.stderr) == (0, "")
    sealed = tmp_path / "delingha.h5", tmp_path / "lijiang.h5"  # the followed directories are left where they are
    assert console.run("coincide", *sealed, "--output", tmp_path / "archive")[0] == 0
    one, other = _document(tmp_path / "live"), _document(tmp_path / "archive")
    assert one.pop("provenance") != other.pop("provenance")
    assert one == other
    for name in ("sifted-a.npz", "sifted-b.npz", "coincidences.svg"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "archive" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("nowhere", "lijiang"), r"recording \S+nowhere does not exist"),
        (("delingha", "delingha"), "both recordings are of the same run; coincidences need two stations"),
        (("delingha", "lijiang", "--half-window-ps", "0"), "the half window is 0 ps; give a whole number from 1 to"),
        (("delingha", "lijiang", "--half-window-ps", "100001"), "the half window is 100001 ps; give .* to 100000"),
        (("delingha", "lijiang", "--state", "chi"), "argument --state: invalid choice: 'chi'"),
        (("delingha", "lijiang", "--analyser-deg", "nan", "0"), "--analyser-deg must be two finite angles"),
        (("delingha",), "the following arguments are required: b"),
    ],
)
def test_bad_input_is_one_sentence(
    recorded: Path, console: Console, options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    files = {"nowhere": "nowhere", "delingha": "delingha.h5", "lijiang": "lijiang.h5"}
    words = [str(recorded / files[word]) if word in files else word for word in options]
    code, said, errors = console.run("coincide", *words, "--output", tmp_path)
    assert (code, said) == (2, "")
    assert re.fullmatch(f"groundstation: .*{sentence}.*\n", errors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("visibility = 0.97", "visibility = 1.5"), r"\[laboratory\] visibility is 1.5; it must be from 0 to 1"),
        (("loss_db = 10.0", "los_db = 10.0"), 'has no key "los_db"; the nearest valid key is "loss_db"'),
        (('settings = "chsh"', 'settings = "e91"'), 'settings is "e91"; choose one of chsh, bbm92'),
        (("[source]", "[source"), "is not valid TOML"),
    ],
)
def test_an_experiment_that_cannot_be_is_one_sentence(
    experiment: Path, console: Console, tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    path = tmp_path / "bad.toml"
    text = experiment.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    output = tmp_path / "out"
    code, said, errors = console.run("pairs", "--config", path, "--output", output, *_LABORATORY)
    assert (code, said) == (2, "")
    assert re.fullmatch(f"groundstation: .*{sentence}.*\n", errors)
    assert not output.exists()


def test_recordings_are_not_overwritten(recorded: Path, experiment: Path, console: Console) -> None:
    code, _, errors = console.run("pairs", "--config", experiment, "--output", recorded, *_LABORATORY)
    assert code == 2
    assert "delingha.h5 is there already; choose another --output" in errors


def test_info_understands_such_a_recording(recorded: Path, console: Console) -> None:
    code, said, errors = console.run("info", recorded / "lijiang.h5")
    assert (code, errors) == (0, "")
    assert said.startswith("laboratory source over Lijiang, simulation, run ")


@pytest.mark.slow
def test_an_interrupt_ends_following_with_what_is_there(tmp_path: Path) -> None:
    options = ["--output", str(tmp_path), *_LABORATORY, "--speed", "2"]
    recorder = subprocess.Popen([*PROGRAM, "pairs", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        a, b = tmp_path / "delingha", tmp_path / "lijiang"
        wait_until(lambda: (a / "manifest.json").exists() and (b / "manifest.json").exists(), what="the recording")
        command = [*PROGRAM, "coincide", str(a), str(b), "--follow", "--output", str(tmp_path / "live")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as live:
            assert live.stdout is not None
            wait_until(lambda: re.match(r"following: [1-9]", live.stdout.readline()), what="the clock")  # type: ignore[union-attr]
            live.send_signal(signal.SIGINT)
            said = live.communicate(timeout=60)[0]
        assert recorder.poll() is None
    finally:
        recorder.kill()
        recorder.communicate()
    assert live.returncode == 1
    assert "Traceback" not in said
    document = _document(tmp_path / "live")
    assert document["complete"] is False
    assert isinstance(document["coincidences"], int)
    assert document["coincidences"] > 1000
