"""`recover` and `verify` say what is there in a short table and one plain sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from groundstation.cli import main
from groundstation.cli.planning import manifest_without_pass
from groundstation.clock import SystemClock
from groundstation.config import DEFAULT_CONFIG, load_config
from groundstation.recording.channels import IMPORTED
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import seal_in_child
from groundstation.recording.segment import Damage
from groundstation.recording.writer import QUARANTINE, StreamWriter


def run(*words: object) -> int:
    return main([str(word) for word in words])


def _record(directory: Path, end: bool) -> Path:
    create_recording(directory, {"run_id": "r"})
    with StreamWriter(directory, "tags", "r") as writer:
        for k in range(5):
            table = {"time_ps": np.arange(1, 1001) + 1000 * k, "channel": np.zeros(1000, np.uint8)}
            gap = {"start_ps": np.array([5]), "stop_ps": np.array([10**9 + 5]), "missed": np.array([7])}
            gaps = {"gaps": {**gap, "cause": np.array([b"overflow"])}} if k == 2 else {}
            recorded = 1000 * (k + 1)
            ledger = {"seen": recorded + 3, "recorded": recorded, "dropped": {"buffer full": 3}, "missed": 7}
            writer.publish({"tags": table} | gaps, {"ledger": ledger}, end=end and k == 4)
    return directory


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """The directory of a recording whose writer died."""
    return _record(tmp_path / "recording", end=False)


@pytest.fixture(scope="module")
def pass_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that ended well, sealed beside its directory."""
    folder = tmp_path_factory.mktemp("pass")
    seal_in_child(_record(folder / "recording", end=True), folder / "recording.h5")
    return folder


def _fingerprint(said: str) -> str:
    return next(line.split()[1] for line in said.splitlines() if line.startswith("fingerprint"))


def test_recover_says_that_all_is_here_and_says_it_again(abandoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recover", abandoned) == 0
    said = capsys.readouterr().out
    assert run("recover", abandoned) == 0
    assert capsys.readouterr().out == said
    lines = said.splitlines()
    assert lines[2].split("  ")[0] == "tags"
    assert "ended for its writer" in lines[2]
    assert "gaps      1 x overflow: 7 tags missed, 0.001 s in all" in lines
    assert any("seen 5,003 = recorded 5,000 + dropped 3 (3 buffer full); missed by the hardware: 7" in x for x in lines)
    assert lines[-1].startswith("ALL IS HERE: every tag that was acknowledged can be read.")
    assert "what it had not acknowledged" in lines[-1]


def test_recover_names_what_is_lost_and_where_it_is_kept(abandoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    third = abandoned / "tags" / "000003.h5"
    third.write_bytes(third.read_bytes()[:-1])
    assert run("recover", abandoned) == 1
    said = capsys.readouterr().out
    assert "LOST      segment tags/000003.h5 is damaged" in said
    assert "1 gaps, 1,000 tags lost; kept as quarantine/tags/000003.h5" in said
    assert said.splitlines()[-1].startswith("LOST: 1 gaps, 1,000 tags; everything else is here exactly as it was")
    assert run("recover", abandoned) == 1
    assert capsys.readouterr().out == said


def test_recover_refuses_while_somebody_records_and_what_is_none(
    abandoned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StreamWriter(abandoned, "tags", "r"):
        assert run("recover", abandoned) == 2
    assert run("recover", tmp_path) == 2
    assert run("recover", tmp_path / "absent") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 3
    assert "is being recorded into" in captured.err.splitlines()[0]


def test_recovery_changes_nothing_of_what_is_read(abandoned: Path) -> None:
    """So the report of a damaged recording stays the same to the letter."""
    (abandoned / "tags" / "000002.h5").write_bytes(b"")
    third = abandoned / "tags" / "000003.h5"
    third.write_bytes(third.read_bytes()[:-1])
    (abandoned / "tags" / "000001.h5").rename(third.with_name("000006.h5"))
    before = open_recording(abandoned).stream("tags").poll(100)
    assert run("recover", abandoned) == 1
    assert len(list((abandoned / QUARANTINE / "tags").iterdir())) == 3
    after = open_recording(abandoned).stream("tags").poll(100)
    assert [item for item in after if isinstance(item, Damage)] == [i for i in before if isinstance(i, Damage)]


def test_verify_says_intact_and_compares_fingerprints(pass_: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", pass_ / "recording.h5") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("INTACT in itself")
    mark = _fingerprint(said)
    on_paper = " ".join(mark[k : k + 8].upper() for k in range(0, 64, 8))
    assert run("verify", pass_ / "recording", "--fingerprint", on_paper) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("INTACT: every segment is whole, and it is the recording")
    )
    assert run("verify", pass_ / "recording.h5", "--fingerprint", "0" * 64) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("NOT THE RECORDING that was written down")
    assert run("verify", pass_ / "recording.h5", "--fingerprint", "12ab") == 2
    assert "give the 64 digits" in capsys.readouterr().err


def test_verify_names_the_first_break(pass_: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "recording"
    shutil.copytree(pass_ / "recording", directory)
    (directory / "tags" / "000002.h5").unlink()
    (directory / "tags" / "000005.h5").unlink()
    assert run("verify", directory) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["BROKEN", "BROKEN", "NOT"]
    assert lines[-1] == "NOT INTACT: segment tags/000002.h5 is missing, though later ones are there."


def test_verify_remarks_on_a_file_that_can_be_changed(
    pass_: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.h5"
    shutil.copyfile(pass_ / "recording.h5", copy)
    copy.chmod(0o600)
    assert run("verify", copy) == 0
    assert "note      the file can be written to (mode 0600)" in capsys.readouterr().out


def test_verify_refuses_what_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert run("verify", tmp_path / "broken.h5") == 1
    assert run("verify", tmp_path / "absent") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2


def test_info_names_what_is_damaged_and_goes_on(
    pass_: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "recording"
    create_recording(directory, {"run_id": "r", "mode": IMPORTED})
    shutil.copytree(pass_ / "recording" / "tags", directory / "tags")
    (directory / "tags" / "000002.h5").write_bytes(b"")
    assert run("info", directory) == 1
    said = capsys.readouterr().out
    assert "4 segments; DAMAGED" in said
    assert "segment tags/000002.h5 is damaged" in said


def test_info_and_replay_of_the_tagger_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `acquire` records it: info says what is there, replay why there is nothing to analyse."""
    directory = tmp_path / "recording"
    config = load_config(DEFAULT_CONFIG)
    create_recording(directory, {**manifest_without_pass(config, SystemClock()), "run_id": "r"})
    with StreamWriter(directory, "tags", "r") as writer:
        table = {"time_ps": np.arange(1, 1001), "channel": np.zeros(1000, np.uint8)}
        writer.publish({"tags": table}, {"ledger": {"seen": 1000, "recorded": 1000, "dropped": {}}}, end=True)
    assert run("info", directory) == 0
    said = capsys.readouterr().out
    for expected in (
        "the tagger of Xinglong alone, without a pass, run r",
        "tagger    tagger_tdc2 at tcp://127.0.0.1:0, simulated",
        "channels  H, V, D, A, sync, pps",
        "tags      1,000 tags; 1 segments; closed in order",
        "ledger    tags: seen 1,000 = recorded 1,000 + dropped 0; missed by the hardware: unknown",
    ):
        assert expected in said.splitlines()
    assert run("replay", directory) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "tagger alone" in captured.err
