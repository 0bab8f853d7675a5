"""Tags that nobody would wish for, by every command of exploration: an answer, or one sentence and no traceback."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from api_samples import S, record, save_npy
from flights import Console

from groundstation.core.tags import TagBlock

FAR = 1 << 62

COMMANDS: dict[str, tuple[object, ...]] = {
    "rates": (),
    "correlate": (0, 1),
    "histogram": (0, "--period-ps", "12345.6789012345"),
    "histogram ": (0, "--sync", 1, "--range-ns", 100),
    "histogram  ": (0, "--intervals"),
    "coincidences": (0, 1),
    "coincidences ": (0, 1, 2, "--veto", 3),
}

#: What can be answered: times and channels.
ANSWERED: dict[str, tuple[list[int], list[int]]] = {
    "one tag of each": ([5, 6, 7, 8], [0, 1, 2, 3]),
    "all at once": ([S] * 200, [0, 1, 2, 3] * 50),
    "before zero": ([-3 * S, -2 * S, -S, -S], [0, 1, 2, 3]),
    "weeks apart": ([-FAR // 4, -FAR // 4 + 1, 0, FAR // 4], [0, 1, 2, 3]),
    "at the far end": ([FAR - 9, FAR - 5, FAR - 2, FAR - 2], [0, 1, 2, 3]),
    "at the far beginning": ([-FAR + 2, -FAR + 2, -FAR + 5, -FAR + 9], [0, 1, 2, 3]),
    "a gap longer than any window": ([0, 1, 10**15, 10**15 + 1] * 2, [0, 1, 2, 3] * 2),
}


def run(console: Console, command: str, path: Path, *words: object) -> tuple[int, str, str]:
    wide = ("--bin-s", 10_000) if command == "rates" else ()
    return console.run(command.strip(), path, *COMMANDS[command], *wide, *words)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("ours", [False, True])
def test_strange_tags_have_an_answer(console: Console, tmp_path: Path, command: str, name: str, ours: bool) -> None:
    times, channel = ANSWERED[name]
    block = TagBlock(np.sort(np.array(times, np.int64)), np.array(channel, np.uint8))
    path = record(tmp_path / "r", block) if ours else save_npy(tmp_path / "tags.npy", block)
    code, output, errors = run(
        console, command, path, "--json", *(() if ours else ("--output", tmp_path / "figure.svg"))
    )
    assert (code, errors) == (0, "")
    found = json.loads(output)
    if command == "correlate":
        differences = np.subtract.outer(block.time_ps[block.channel == 1], block.time_ps[block.channel == 0])
        inside = (differences >= -100_000) & (differences < 100_000)
        assert found["pairs"] == sum(found["counts"]) == inside.sum()
    if command == "coincidences":
        differences = np.subtract.outer(block.time_ps[block.channel == 1], block.time_ps[block.channel == 0])
        assert found["count"] == np.count_nonzero(abs(differences) <= 1000)
    if command.strip() == "histogram":
        assert found["tags"] + found["outside"] == np.count_nonzero(block.channel == 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_tags_have_an_answer(console: Console, tmp_path: Path, command: str) -> None:
    path = record(tmp_path / "empty", TagBlock(np.empty(0, np.int64), np.empty(0, np.uint8)))
    for words in ((), ("--json",), ("--output", tmp_path / "figure.svg")):
        code, output, errors = run(console, command, path, *words)
        assert (code, errors) == (0, "")
        assert output
        assert "nan" not in output.lower()


@pytest.mark.parametrize("command", COMMANDS)
def test_one_channel_alone_has_an_answer_where_it_is_known(console: Console, tmp_path: Path, command: str) -> None:
    path = record(tmp_path / "one", TagBlock(np.array([7]), np.array([0], np.uint8)))
    code, output, errors = run(console, command, path)
    assert (code, errors) == (0, "")
    assert "nan" not in output.lower()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *product(COMMANDS, ["unsorted", "unsorted recording", "far apart", "beyond"]),
        *product([command for command in COMMANDS if command != "rates"], ["empty"]),
        *product(["coincidences", "coincidences "], ["crowd"]),
    ],
)
def test_what_has_no_answer_is_one_sentence(console: Console, tmp_path: Path, command: str, name: str) -> None:
    path, expected = _refused(tmp_path, name)
    code, output, errors = run(console, command, path)
    assert (code, output) == (2, "")
    assert errors.startswith("groundstation: ")
    assert errors.count("\n") == 1
    assert expected in errors
    assert "Traceback" not in errors


def _refused(tmp_path: Path, name: str) -> tuple[Path, str]:
    zeros = np.arange(3, dtype=np.uint8)
    backwards = np.array([S, 3 * S, 2 * S])
    path = tmp_path / "tags.npy"
    if name == "unsorted":
        return save_npy(
            path, TagBlock(backwards, zeros)
        ), "is not in order of time: tag 3 goes back by 1,000,000,000,000"
    if name == "unsorted recording":
        return record(tmp_path / "r", TagBlock(backwards, zeros)), "tag 2 is 1,000,000,000,000 ps before tag 1"
    if name == "far apart":
        return save_npy(
            path, TagBlock(np.array([1 - FAR, 0, FAR - 1]), zeros)
        ), "tags more than 2^62 ps (53 days) apart"
    if name == "empty":
        return save_npy(path, TagBlock(np.empty(0, np.int64), zeros[:0])), "no channel"
    if name == "beyond":
        return save_npy(path, TagBlock(np.array([0, 1, FAR + 1]), zeros)), "beyond 2^62 ps (53 days)"
    crowd = TagBlock(np.full(100_000, S), (np.arange(100_000) % 4).astype(np.uint8))
    return save_npy(path, crowd), "more than 256 tags of these channels"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "rates"])
def test_a_channel_that_is_not_there_is_named(console: Console, tmp_path: Path, command: str) -> None:
    path = save_npy(tmp_path / "tags.npy", TagBlock(np.arange(8) * S, (np.arange(8) % 4).astype(np.uint8)))
    words = ["nobody" if word == 0 else word for word in COMMANDS[command]]
    code, output, errors = console.run(command.strip(), path, *words)
    assert (code, output) == (2, "")
    assert errors == 'groundstation: tags.npy, numpy array has no channel "nobody"; its channels are 0, 1, 2, 3\n'
