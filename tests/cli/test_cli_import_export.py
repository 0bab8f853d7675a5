"""`import`, `export`, and the other commands on an imported recording."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tables
from phconvert.hdf5 import assert_valid_photon_hdf5

from groundstation.cli import main
from groundstation.core.ledger import Ledger
from groundstation.pipeline.intake import TagIntake
from groundstation.recording.channels import channel_names
from groundstation.recording.reader import open_recording

ROWS = [(125 * k, 1 + k % 3) for k in range(1, 140_000)]  # more than one segment


def swabian(*rows: tuple[int, int, int, int]) -> bytes:
    """Records of type, missed, channel, time."""
    return b"".join(struct.pack("<BBHiq", kind, 0, missed, channel, time) for kind, missed, channel, time in rows)


def read_back(recording: Path) -> tuple[TagIntake, list[tuple[int, int]]]:
    """What the analysis's own reader finds in a recording."""
    intake = TagIntake(open_recording(recording).stream("tags"))
    while not intake.ended:
        intake.poll()
    assert intake.complete
    block = intake.take_until(1 << 62)
    return intake, list(zip(block.time_ps.tolist(), block.channel.tolist(), strict=True))


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported recording of `ROWS`."""
    folder = tmp_path_factory.mktemp("long")
    np.save(folder / "in.npy", np.array(ROWS))
    assert run("import", folder / "in.npy", "--output", folder) == 0
    return folder / "recording.h5"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A Swabian dump with an overflow."""
    path = tmp_path / "dump.bin"
    path.write_bytes(swabian((0, 0, 1, 10), (2, 0, 0, 20), (4, 9, 0, 25), (3, 0, 0, 30), (0, 0, -2, 40), (0, 0, 1, 50)))
    return path


def test_an_imported_file_is_a_sealed_recording_with_gaps_ledger_and_channels(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", dump, "--channels", "alice=1,bob=130", "--start-utc", "2020-01-01T00:00:00Z") == 0
    said = capsys.readouterr().out
    assert "dump.bin, Swabian raw dump: 3 tags" in said
    assert "resolution 1 ps; channels 1 alice, 130 bob" in said
    recording = tmp_path / "dump-recording" / "recording.h5"
    assert [p.name for p in recording.parent.iterdir()] == ["recording.h5"]
    intake, rows = read_back(recording)
    assert rows == [(10, 1), (40, 130), (50, 1)]
    (gap,) = intake.gaps
    assert (gap.start_ps, gap.stop_ps, gap.missed, gap.cause) == (20, 30, 9, "overflow")
    assert intake.ledger == Ledger(seen=3, recorded=3, dropped={}, missed=9)
    assert intake.label is not None
    assert (intake.label.time_ps, intake.label.utc_ns) == (10, 1_577_836_800 * 10**9)
    manifest = open_recording(recording).manifest
    assert manifest["mode"] == "imported"
    assert channel_names(manifest) == {1: "alice", 130: "bob"}
    assert manifest["resolution_ps"] == 1.0
    with tables.open_file(str(recording)) as file:
        assert_valid_photon_hdf5(file, warnings=False, skip_measurement_specs=True, require_rootformat=True)
        assert file.root.setup.detectors.label[:].tolist() == [b"alice", b"bob"]
    assert run("info", recording) == 0
    said = capsys.readouterr().out
    assert "imported from dump.bin (swabian)" in said
    assert "channels  1 alice, 130 bob" in said
    assert "1 gaps, 3 tags; 1 segments; closed in order" in said


def test_a_time_far_from_zero_is_recorded_from_a_later_zero_and_exported_as_it_was(tmp_path: Path) -> None:
    first = 260_000 * 10**12 + 7
    (tmp_path / "far.csv").write_text(f"# gap {first} {first + 1} - a loss\n{first},3\n{first + 5},4\n")
    assert run("import", tmp_path / "far.csv", "--output", tmp_path / "far") == 0
    intake, rows = read_back(tmp_path / "far" / "recording.h5")
    assert rows == [(7, 3), (12, 4)]
    assert intake.zero_device_ps == 260_000 * 10**12
    assert (intake.gaps[0].start_ps, intake.gaps[0].stop_ps) == (7, 8)
    assert run("export", tmp_path / "far" / "recording.h5", tmp_path / "back.csv") == 0
    lines = (tmp_path / "back.csv").read_text().splitlines()
    assert lines[-2:] == [f"{first},3", f"{first + 5},4"]
    assert f"# gap {first} {first + 1} - a loss" in lines


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ptu", "npy", "qutag", "csv", "photon-hdf5", "swabian", "a1", "a2", "qcrypto-1"])
def test_a_recording_goes_out_and_comes_in_again(
    name: str, long_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", long_recording, tmp_path / "file", "--format", name) == 0
    assert run("import", tmp_path / "file", "--output", tmp_path / "second") == 0
    _, found = read_back(tmp_path / "second" / "recording.h5")
    assert found == ROWS
    assert f"kept to {3.90625 if name in ('a1', 'a2', 'qcrypto-1') else 1:g} ps" in capsys.readouterr().out


def test_our_own_sealed_recording_can_be_imported_with_its_gaps(dump: Path, tmp_path: Path) -> None:
    assert run("import", dump, "--channels", "alice=1", "--output", tmp_path / "first") == 0
    assert run("import", tmp_path / "first" / "recording.h5", "--output", tmp_path / "second") == 0
    intake, rows = read_back(tmp_path / "second" / "recording.h5")
    assert rows == [(10, 1), (40, 130), (50, 1)]
    assert len(intake.gaps) == 1
    assert channel_names(open_recording(tmp_path / "second" / "recording.h5").manifest) == {1: "alice", 130: "-2"}


def test_what_a_format_has_no_place_for_is_said(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", dump, "--channels", "alice=1", "--output", tmp_path / "r") == 0
    assert run("export", tmp_path / "r" / "recording.h5", tmp_path / "x.a1", "--channels", "alice=4") == 0
    said = capsys.readouterr().out
    assert "note: 1 gaps were left out, the format has no place for them" in said
    assert "note: 1 tags were left out: channel not chosen" in said
    assert run("import", tmp_path / "x.a1") == 0
    assert "channels 1, 2, 3, 4" in capsys.readouterr().out


def test_sifted_rows_go_through_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packet = np.array([0x103, 7, 5, 1, 0b10110 << 27], "<u4").tobytes()
    (tmp_path / "kept").write_bytes(packet)
    assert run("import", tmp_path / "kept") == 0
    assert "0 tags and 5 rows of sifting" in capsys.readouterr().out
    recording = tmp_path / "kept-recording" / "recording.h5"
    assert open_recording(recording).streams() == ("sifting", "tags")
    assert run("info", recording) == 0
    assert "sifting   5 bits; 2 segments; closed in order" in capsys.readouterr().out
    assert run("export", recording, tmp_path / "again", "--format", "qcrypto-3") == 0
    assert (tmp_path / "again").read_bytes() == packet


def test_extended_epochs_go_through_a_recording_with_their_utc(tmp_path: Path) -> None:
    epoch = 0xBA1F36C0
    event = (epoch & 0x1FFFF) << 47 | 8 << 15 | 1
    packet = np.array([0x101, epoch, 1, 49, 4, event >> 32, event & 0xFFFFFFFF, 0, 0], "<u4").tobytes()
    (tmp_path / f"{epoch:08x}").write_bytes(packet)
    assert run("import", tmp_path / f"{epoch:08x}", "--output", tmp_path / "r") == 0
    intake, rows = read_back(tmp_path / "r" / "recording.h5")
    assert rows == [(1000, 1)]
    assert intake.label is not None
    assert intake.label.utc_ns == epoch << 29
    assert run("export", tmp_path / "r" / "recording.h5", tmp_path / "again", "--format", "qcrypto-1") == 0
    assert (tmp_path / "again").read_bytes() == packet


def test_replay_says_that_an_imported_recording_has_no_pass(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", dump, "--output", tmp_path / "r") == 0
    assert run("replay", tmp_path / "r" / "recording.h5", "--output", tmp_path / "report") == 2
    said = capsys.readouterr().err
    assert said.startswith("groundstation: the recording was imported: it has no pass plan")
    assert said.count("\n") == 1


def ptu_t3() -> bytes:
    entries = b"PQTTTR\0\x001.0.00\0\0"
    entries += struct.pack("<32siIq", b"TTResultFormat_TTTRRecType", -1, 0x10000008, 0x01010304)
    return entries + struct.pack("<32siIq", b"Header_End", -1, 0xFFFF0008, 0)


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        (b"", [], "is empty; there is nothing to import"),
        (b"\x93NUMPY", [], "no whole .npy file"),
        (b"PQTTTR\0\0" + bytes(20), [], "header has no end"),
        (ptu_t3(), [], "T3 records"),
        (np.random.default_rng(1).bytes(5000), [], "of no format that is known by its content"),
        (b"1,1\n", ["--format", "ptu"], "is no PTU file"),
        (b"1,1\n", ["--channels", "alice"], 'has "alice"; write NAME=NUMBER'),
        (b"1,1\n", ["--channels", "a=1,a=2"], "there before"),
        (b"1,1\n", ["--channels", "a=7"], "names channel 7, but the file's channels are 1"),
        (b"1,1\n", ["--start-utc", "yesterday"], 'time "yesterday" is not of the form'),
        (b"1,1\n", ["--format", "ttbin"], "invalid choice"),
        (b"time_ps,channel\n", [], "holds no tags"),
        (b"5,1\n" + b"20000000000000,1\n" * 300_000 + b"6,1\n", [], "tag 300,002 goes back by"),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_sentence_and_leaves_nothing(
    content: bytes, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert run("import", tmp_path / "file", *words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_second_import_does_not_touch_the_first(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", dump) == 0
    before = (tmp_path / "dump-recording" / "recording.h5").read_bytes()
    assert run("import", dump) == 2
    assert "already holds a recording" in capsys.readouterr().err
    assert (tmp_path / "dump-recording" / "recording.h5").read_bytes() == before


def test_what_cannot_be_exported_is_said_in_a_sentence(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", dump, "--output", tmp_path / "r") == 0
    recording = tmp_path / "r" / "recording.h5"
    for words, sentence in (
        (["x.a1"], "no channel 130, only 1 to 4"),
        (["x.unknown"], "does not say a format"),
        (["dump.bin", "--format", "csv"], "is there already"),
        (["x.csv", "--channels", "carol=1"], 'has no channel "carol"; it has 1, -2'),
        (["nowhere/x.csv"], "cannot write"),
    ):
        assert run("export", recording, tmp_path / words[0], *words[1:]) == 2
        assert sentence in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dump.bin", "r"]
