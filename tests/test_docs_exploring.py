"""The page on exploring and the README keep their word: their code runs as written, and gives what it says."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from api_samples import record, save_npy, seal, small_tags

import groundstation
from groundstation.cli import main

PAGE = Path(groundstation.__file__).parent / "docs" / "exploring.md"
README = Path(__file__).parents[1] / "README.md"


def test_the_page_on_exploring_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A fence after an output would be taken for a part of it.
    text = re.sub(r"(?m)^```.*$", "", PAGE.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=report.append)
    assert not report, "".join(report)
    assert runner.summarize(verbose=False).attempted > 30
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.npy", "rates.svg", "delays.png", "together.svg"}


def test_every_line_of_code_of_the_page_is_run() -> None:
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8")):
        assert block.startswith(">>> ")


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `recording.h5` of the README, in the directory where its code runs."""
    monkeypatch.chdir(tmp_path)
    return seal(record(tmp_path / "recording", small_tags()))


def for_physicists() -> str:
    section = re.search(r"(?ms)^## For physicists\n(.*?)^## ", README.read_text(encoding="utf-8"))
    assert section is not None
    return section[1]


def test_the_python_of_the_readme_runs_as_written(recording: Path) -> None:
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", for_physicists())
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (recording.parent / "rates.svg").exists()


def test_the_commands_of_the_readme_run_as_written(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"(?ms)^```\n(.*?)^```", for_physicists())
    for line in block.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "groundstation"
        assert main(words) == 0, line
        assert capsys.readouterr().out
    assert {"rates.svg", "delays.png"} <= {path.name for path in recording.parent.iterdir()}


def test_the_commands_of_the_page_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = small_tags()
    save_npy(tmp_path / "pairs.npy", small._replace(channel=small.channel + 1))
    lines = re.findall(r"(?m)^groundstation .*$", PAGE.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
        assert capsys.readouterr().out
