"""The page on exploring keeps its word: its code runs, and gives what it says."""

import doctest
import re
from pathlib import Path

import pytest

import groundstation

PAGE = Path(groundstation.__file__).parent / "docs" / "exploring.md"


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
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.npy", "rates.svg", "delays.png"}


def test_every_line_of_code_of_the_page_is_run() -> None:
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8")):
        assert block.startswith(">>> ")
