"""Verification finds every change that somebody made to a recording, and says where."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from recording_samples import read_all, tags, times_in

from groundstation.errors import BadInput
from groundstation.recording.manifest import create_recording
from groundstation.recording.photon_hdf5 import DETECTOR_IDS, TIMESTAMPS
from groundstation.recording.reader import open_recording
from groundstation.recording.sealed_reader import GROUP
from groundstation.recording.sealing import part_of, seal, seal_in_child
from groundstation.recording.segment import NO_HASH, Damage, Segment, decode, encode
from groundstation.recording.verification import Verification, fingerprint, verify
from groundstation.recording.writer import StreamWriter

SEGMENTS = 6


def _record(directory: Path) -> Path:
    create_recording(directory, {"run_id": "r"})
    with StreamWriter(directory, "tags", "r") as writer:
        for k in range(SEGMENTS):
            count = 10 * k + 10
            ledger = {"seen": count + 2, "recorded": count, "dropped": {"input without a channel": 2}, "missed": None}
            writer.publish(tags(10 * k, 10), {"ledger": ledger}, end=k == SEGMENTS - 1)
    with StreamWriter(directory, "events", "r") as writer:
        writer.publish({"events": {"text": np.array([b"started", b"stopped"])}}, end=True)
    return directory


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording's directory, and beside it the file it was sealed into."""
    folder = tmp_path_factory.mktemp("verified")
    seal_in_child(_record(folder / "recording"), folder / "recording.h5")
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return _record(tmp_path / "recording")


def _file(directory: Path, number: int) -> Path:
    return directory / "tags" / f"{number:06d}.h5"


def _segment(directory: Path, number: int) -> Segment:
    return decode(_file(directory, number).read_bytes(), "")


def _changed(segment: Segment, **more: object) -> Segment:
    """The segment with its third tag half a nanosecond later, with a good hash and a good checksum."""
    times = segment.tables["tags"]["time_ps"].copy()
    times[2] += 500
    return replace(segment, tables={"tags": {**segment.tables["tags"], "time_ps": times}}, **more)


def _only_break(found: Verification) -> tuple[str, int]:
    assert not found.intact
    assert len(found.breaks) == 1, found.breaks
    return found.breaks[0].stream, found.breaks[0].number


def test_a_recording_is_intact_and_has_one_fingerprint_in_both_forms(template: Path) -> None:
    grown, sealed = verify(template / "recording"), verify(template / "recording.h5")
    assert (grown.breaks, grown.remarks, sealed.breaks, sealed.remarks) == ((), (), (), ())
    assert grown.fingerprint == sealed.fingerprint == fingerprint(open_recording(template / "recording.h5"))
    assert [(a.stream, a.segments, a.rows) for a in sealed.streams] == [
        ("events", 1, {"events": 2}),
        ("tags", 6, {"tags": 60}),
    ]


def test_a_flipped_bit_is_found(directory: Path) -> None:
    content = bytearray(_file(directory, 3).read_bytes())
    content[2000] ^= 1
    _file(directory, 3).write_bytes(content)
    found = verify(directory)
    assert _only_break(found) == ("tags", 3)
    assert "do not match its checksum" in found.breaks[0].sentence


def test_a_tail_that_was_cut_off_has_no_end(directory: Path) -> None:
    whole = verify(directory).fingerprint
    _file(directory, 6).unlink()
    _file(directory, 5).unlink()
    found = verify(directory)
    assert _only_break(found) == ("tags", 5)
    assert "cut off behind segment 4" in found.breaks[0].sentence
    assert found.fingerprint != whole


def test_a_segment_that_was_removed_is_named(directory: Path) -> None:
    _file(directory, 3).unlink()
    assert _only_break(verify(directory)) == ("tags", 3)


def test_swapped_segments_are_both_named(directory: Path) -> None:
    second, fourth = _file(directory, 2).read_bytes(), _file(directory, 4).read_bytes()
    _file(directory, 2).write_bytes(fourth)
    _file(directory, 4).write_bytes(second)
    assert [found.number for found in verify(directory).breaks] == [2, 4]


def test_a_segment_of_another_run_is_named(directory: Path) -> None:
    foreign = replace(_segment(directory, 3), run_id="another")
    _file(directory, 3).write_bytes(encode(foreign))
    found = verify(directory)
    assert _only_break(found) == ("tags", 3)
    assert "in the wrong place" in found.breaks[0].sentence


def test_a_changed_segment_with_a_new_hash_shows_in_the_next_one(directory: Path) -> None:
    _file(directory, 3).write_bytes(encode(_changed(_segment(directory, 3))))
    found = verify(directory)
    assert _only_break(found) == ("tags", 4)
    assert "segment tags/000004.h5 does not continue the one before it" in found.breaks[0].sentence


def test_a_chain_that_was_made_anew_shows_in_the_fingerprint_only(directory: Path) -> None:
    whole = verify(directory).fingerprint
    last = _changed(_segment(directory, 3))
    _file(directory, 3).write_bytes(encode(last))
    for number in range(4, SEGMENTS + 1):
        last = replace(_segment(directory, number), previous_hash=last.hash)
        _file(directory, number).write_bytes(encode(last))
    found = verify(directory)
    assert found.intact
    assert found.fingerprint != whole


def test_a_new_end_for_a_cut_recording_and_a_changed_manifest_show_in_the_fingerprint(directory: Path) -> None:
    whole = verify(directory).fingerprint
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"]
    (directory / "manifest.json").write_text(json.dumps({**manifest, "satellite": "Jinan-1"}))
    assert verify(directory).intact
    assert verify(directory).fingerprint != whole
    for number in (6, 5):
        _file(directory, number).unlink()
    _file(directory, 4).write_bytes(encode(replace(_segment(directory, 4), end=True)))
    assert verify(directory).intact
    assert verify(directory).fingerprint != whole


def test_segments_after_the_end_are_named(directory: Path) -> None:
    end = _segment(directory, 6)
    late = Segment("tags", 7, "r", {"tags": 60}, tags(60, 3), {}, True, end.hash)
    _file(directory, 7).write_bytes(encode(late))
    assert _only_break(verify(directory)) == ("tags", 7)


@pytest.mark.parametrize(
    ("ledger", "sentence"),
    [
        (
            {"seen": 12, "recorded": 10, "dropped": {"full": 1}},
            "does not balance: seen 12 is not recorded 10 + dropped 1",
        ),
        ({"seen": 11, "recorded": 11, "dropped": {}}, "says recorded 11, but 10 tags were written by then"),
        ({"seen": "many", "recorded": 10, "dropped": {}}, "holds something that is no number"),
    ],
)
def test_a_ledger_that_breaks_its_law_is_named_with_its_segment(
    tmp_path: Path, ledger: dict[str, object], sentence: str
) -> None:
    create_recording(tmp_path / "new", {"run_id": "r"})
    with StreamWriter(tmp_path / "new", "tags", "r") as writer:
        writer.publish(tags(0, 10), {"ledger": ledger}, end=True)
    found = verify(tmp_path / "new")
    assert _only_break(found) == ("tags", 1)
    assert sentence in found.breaks[0].sentence


def test_what_recovery_left_is_remarked_and_breaks_nothing(directory: Path) -> None:
    with StreamWriter(directory, "truth", "r") as writer:
        writer.publish({}, {"abandoned": "its writer died"}, end=True)
    (directory / "tags" / "000007.part").write_bytes(b"half")
    found = verify(directory)
    assert found.intact
    assert "stream truth was not ended by its writer: its writer died" in found.remarks
    assert any("1 half-written" in remark for remark in found.remarks)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("tags")
    for path in (tmp_path, tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(BadInput):
            verify(path)


@dataclass
class Archive:
    """The tags of a sealed file as a forger has them: lines of the index, and the rows that each stands for."""

    path: Path
    lines: list[dict[str, object]]
    times: list[np.ndarray]

    @classmethod
    def taken_from(cls, sealed: Path, path: Path) -> "Archive":
        path.write_bytes(sealed.read_bytes())
        path.chmod(0o400)
        with h5py.File(path, "r") as file:
            lines = [json.loads(line) for line in bytes(file[_INDEX][()].tobytes()).splitlines()]
            return cls(path, lines, np.split(file[TIMESTAMPS][()], range(10, 60, 10)))

    def put_back(self) -> Path:
        """Write it with checksums as good as the sealing's."""
        self.path.chmod(0o600)
        text = b"\n".join(json.dumps(line).encode() for line in self.lines)
        times = np.concatenate(self.times)
        numbers = (times // 1000 - 1) % 6
        with h5py.File(self.path, "r+") as file:
            for path, values in (
                (_INDEX, np.frombuffer(text, np.uint8)),
                (TIMESTAMPS, times),
                (DETECTOR_IDS, numbers.astype(np.uint8)),
            ):
                del file[path]
                file.create_dataset(path, data=values, compression="gzip", shuffle=True, fletcher32=True)
        self.path.chmod(0o400)
        return self.path

    def rehash(self, at: int) -> None:
        """Give a segment the hash of what it says now."""
        header = self.lines[at]["header"]
        assert isinstance(header, dict)
        channel = ((self.times[at] // 1000 - 1) % 6).astype(np.uint8)
        table = {"tags": {"time_ps": self.times[at], "channel": channel}}
        fields = ("stream", "number", "run_id", "first_row", "notes", "end", "previous_hash")
        self.lines[at]["hash"] = Segment(tables=table, **{name: header[name] for name in fields}).hash


_INDEX = f"{GROUP}/streams/tags/index"


@pytest.fixture
def archive(template: Path, tmp_path: Path) -> Archive:
    return Archive.taken_from(template / "recording.h5", tmp_path / "recording.h5")


def _numbers(items: list[Segment | Damage]) -> list[int]:
    return [item.number if isinstance(item, Segment) else -item.number for item in items]


def test_an_archive_that_was_unpacked_and_packed_again_is_still_intact(archive: Archive) -> None:
    before = verify(archive.path).fingerprint
    assert verify(archive.put_back()).intact
    assert verify(archive.path).fingerprint == before


def test_a_segment_cut_out_of_an_archive_is_damage_with_its_rows(archive: Archive) -> None:
    for at in (2, 2):
        del archive.lines[at], archive.times[at]
    found = verify(archive.put_back())
    assert _only_break(found) == ("tags", 3)
    assert "segment 3 and those up to 4 of stream tags cut out" in found.breaks[0].sentence
    items = read_all(open_recording(archive.path), "tags")
    assert _numbers(items) == [1, 2, -3, 5, 6]
    assert items[2].rows_lost == {"tags": 20}  # type: ignore[union-attr]
    assert not open_recording(archive.path).stream("tags").complete


def test_a_tail_cut_off_an_archive_has_no_end(archive: Archive) -> None:
    before = verify(archive.path).fingerprint
    del archive.lines[4:], archive.times[4:]
    found = verify(archive.put_back())
    assert _only_break(found) == ("tags", 5)
    assert found.fingerprint != before


def test_segments_swapped_in_an_archive_are_damage(archive: Archive) -> None:
    for content in (archive.lines, archive.times):
        content[2], content[3] = content[3], content[2]
    items = read_all(open_recording(archive.put_back()), "tags")
    assert _numbers(items) == [1, 2, -3, 4, -3, 5, 6]
    assert not verify(archive.path).intact


def test_a_changed_row_of_an_archive_costs_its_segment(archive: Archive) -> None:
    archive.times[2][4] += 500
    found = verify(archive.put_back())
    assert _only_break(found) == ("tags", 3)
    assert "its content does not match its hash" in found.breaks[0].sentence
    items = read_all(open_recording(archive.path), "tags")
    assert _numbers(items) == [1, 2, -3, 4, 5, 6]
    assert times_in(items) == [1000 * (k + 1) for k in range(60) if not 20 <= k < 30]


def test_a_changed_row_with_a_new_hash_shows_in_the_next_segment(archive: Archive) -> None:
    archive.times[2][4] += 500
    archive.rehash(2)
    found = verify(archive.put_back())
    assert _only_break(found) == ("tags", 4)
    assert "segment 4 of stream tags does not continue" in found.breaks[0].sentence


def test_an_archive_that_was_made_anew_shows_in_the_fingerprint_only(archive: Archive) -> None:
    before = verify(archive.path).fingerprint
    archive.times[2][4] += 500
    archive.rehash(2)
    for at in range(3, SEGMENTS):
        archive.lines[at]["header"]["previous_hash"] = archive.lines[at - 1]["hash"]  # type: ignore[index]
        archive.rehash(at)
    found = verify(archive.put_back())
    assert found.intact
    assert found.fingerprint != before


def test_a_segment_of_another_run_in_an_archive_is_damage(archive: Archive) -> None:
    archive.lines[2]["header"]["run_id"] = "another"  # type: ignore[index]
    archive.rehash(2)
    assert _only_break(verify(archive.put_back())) == ("tags", 3)


def test_a_segment_that_is_there_twice_is_damage(archive: Archive) -> None:
    archive.lines.insert(3, archive.lines[2])
    archive.times.insert(3, archive.times[2])
    assert _numbers(read_all(open_recording(archive.put_back()), "tags")) == [1, 2, 3, -3, 4, 5, 6]


def test_rows_that_no_segment_accounts_for_are_found(archive: Archive) -> None:
    archive.times.append(np.array([10**9, 10**9 + 1]))
    found = verify(archive.put_back())
    assert [each.stream for each in found.breaks] == ["", ""]
    assert "has 62 rows, but the segments account for 60" in found.breaks[0].sentence


def test_more_cut_out_beside_a_damage_is_found(directory: Path, tmp_path: Path) -> None:
    """The sealing counted what the damage cost, so nothing can be hidden behind it."""
    _file(directory, 3).write_bytes(b"")
    seal(directory, tmp_path / "recording.h5")
    sealed = part_of(tmp_path / "recording.h5")
    assert _only_break(verify(sealed)) == ("tags", 3)
    archive = Archive.taken_from(sealed, tmp_path / "forged.h5")
    del archive.lines[3], archive.times[2]
    found = verify(archive.put_back())
    assert [each.number for each in found.breaks] == [3, 4]
    assert "more than the damage" in found.breaks[1].sentence


def test_damage_that_stands_for_several_numbers_survives_the_sealing(directory: Path, tmp_path: Path) -> None:
    for number in (2, 3, 4):
        _file(directory, number).unlink()
    seal_in_child(directory, tmp_path / "recording.h5")
    ours, theirs = open_recording(directory), open_recording(tmp_path / "recording.h5")
    assert read_all(ours, "tags") == read_all(theirs, "tags")
    assert fingerprint(ours) == fingerprint(theirs)


def test_a_file_that_can_be_changed_or_has_no_checksums_is_remarked(archive: Archive) -> None:
    archive.path.chmod(0o644)
    with h5py.File(archive.path, "r+") as file:
        times = file[TIMESTAMPS][()]
        del file[TIMESTAMPS]
        file[TIMESTAMPS] = times
    found = verify(archive.path)
    assert found.intact
    said = " ".join(found.remarks)
    for part in ("can be written to (mode 0644)", "others than its owner", f"no checksum (/{TIMESTAMPS} is the first)"):
        assert part in said


def test_a_damaged_dataset_is_a_break_where_it_lies(archive: Archive) -> None:
    with h5py.File(archive.path, "r") as file:
        chunk = file[TIMESTAMPS].id.get_chunk_info(0)
    content = bytearray(archive.path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    archive.path.chmod(0o600)
    archive.path.write_bytes(content)
    found = verify(archive.path)
    assert _only_break(found) == ("tags", 1)
    assert f"dataset /{TIMESTAMPS}" in found.breaks[0].sentence
    assert found.streams[0].whole, "the other streams are still checked"


def test_the_fingerprint_is_what_the_readme_says(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"]
    with h5py.File(_file(directory, 6), "r") as tags_end, h5py.File(directory / "events" / "000001.h5", "r") as events:
        hashes = {"events": events["hash"][()].decode(), "tags": tags_end["hash"][()].decode()}
    text = json.dumps({"manifest": manifest, "streams": hashes}, sort_keys=True, separators=(",", ":"))
    assert verify(directory).fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert NO_HASH not in hashes.values()


#: Its own peak in kB: getrusage would count the process that started it as well.
_VERIFY = """
import re, sys
from groundstation.cli import main
code = main(["verify", sys.argv[1]])
sys.stderr.write(re.search('VmHWM:[^0-9]+([0-9]+)', open('/proc/self/status').read())[1])
sys.exit(code)
"""


@pytest.mark.slow
def test_a_long_archive_is_verified_quickly_in_little_memory(tmp_path: Path) -> None:
    create_recording(tmp_path / "recording", {"run_id": "r"})
    source = np.random.default_rng(3)
    with StreamWriter(tmp_path / "recording", "tags", "r") as writer:
        for k in range(300):
            time_ps = np.cumsum(source.integers(1, 10**6, 100_000)) + k * 10**11
            channel = source.integers(0, 6, 100_000).astype(np.uint8)
            writer.publish({"tags": {"time_ps": time_ps, "channel": channel}}, end=k == 299)
    seal_in_child(tmp_path / "recording", tmp_path / "recording.h5")
    for path in (tmp_path / "recording", tmp_path / "recording.h5"):
        child = subprocess.run([sys.executable, "-c", _VERIFY, str(path)], check=True, capture_output=True, text=True)
        assert int(child.stderr) < 200_000  # kB
