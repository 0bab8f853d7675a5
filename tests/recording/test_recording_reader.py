"""A reader returns what was published, in order, and names what is damaged or missing."""

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from recording_samples import read_all, tags, times_in

from groundstation.clock import monotonic_s
from groundstation.errors import BadInput
from groundstation.recording.manifest import create_recording, read_manifest
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import NO_HASH, Damage, Segment, encode
from groundstation.recording.writer import StreamWriter


def _flip(path: Path, at: int = 2000) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def _shape(items: list[Segment | Damage]) -> list[tuple[str, int]]:
    return [("damage" if isinstance(item, Damage) else "good", item.number) for item in items]


def test_following_returns_segments_in_order_as_they_appear(directory: Path) -> None:
    reader = open_recording(directory, follow=True).stream("tags")
    assert reader.poll() == []
    assert not reader.ended
    with StreamWriter(directory, "tags", "r") as writer:
        assert reader.poll() == []
        published = []
        for k in range(5):
            published.append(writer.publish(tags(10 * k, 10), {"k": k}, end=k == 4))
            assert not reader.ended
            assert reader.poll() == published[-1:]
    assert reader.ended
    assert reader.complete
    assert reader.poll() == []


def test_a_poll_returns_at_most_its_limit(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(10)
    reader = open_recording(directory, follow=True).stream("tags")
    assert [len(reader.poll(4)) for _ in range(4)] == [4, 4, 2, 0]


def test_what_is_not_published_yet_is_never_read(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(2, end=False)
    (directory / "tags" / "000003.part").write_bytes((directory / "tags" / "000002.h5").read_bytes())
    reader = open_recording(directory, follow=True).stream("tags")
    assert _shape(reader.poll()) == [("good", 1), ("good", 2)]
    reader.stop_following()
    assert reader.poll() == []
    assert reader.ended
    assert not reader.complete


def test_without_following_a_stream_ends_where_it_stops(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(3, end=False)
    recording = open_recording(directory)
    assert recording.streams() == ("tags",)
    assert recording.run_id == "r"
    assert recording.manifest["mode"] == "simulation"
    reader = recording.stream("tags")
    assert len(reader.poll()) == 3
    assert reader.ended
    assert not reader.complete


def test_an_absent_stream_has_ended_and_is_not_complete(directory: Path) -> None:
    reader = open_recording(directory).stream("telemetry")
    assert reader.poll() == []
    assert reader.ended
    assert not reader.complete


def test_a_flipped_bit_costs_one_segment_which_is_named_with_its_rows(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(5)
    _flip(directory / "tags" / "000003.h5")
    reader = open_recording(directory).stream("tags")
    items = reader.poll()
    assert _shape(items) == [("good", 1), ("good", 2), ("damage", 3), ("good", 4), ("good", 5)]
    damage = items[2]
    assert isinstance(damage, Damage)
    assert (damage.stream, damage.file_name, damage.rows_lost) == ("tags", "000003.h5", {"tags": 10})
    assert "000003.h5 is damaged: its bytes do not match its checksum" in damage.sentence
    assert times_in(items) == [1000 * (k + 1) for k in range(50) if not 20 <= k < 30]
    assert not reader.complete


def test_damages_in_a_row_are_counted_by_the_first(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(5)
    (directory / "tags" / "000001.h5").unlink()
    _flip(directory / "tags" / "000002.h5")
    items = read_all(open_recording(directory), "tags")
    assert [item.rows_lost for item in items if isinstance(item, Damage)] == [{"tags": 20}, {}]
    assert "missing, though later ones are there" in items[0].sentence
    assert _shape(items)[2:] == [("good", 3), ("good", 4), ("good", 5)]


def test_damage_waits_for_the_next_good_segment_to_tell_what_it_cost(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(3, end=False)
    _flip(directory / "tags" / "000003.h5")
    live = open_recording(directory, follow=True)
    patient, impatient = live.stream("tags"), live.stream("tags")
    assert _shape(patient.poll()) == _shape(impatient.poll()) == [("good", 1), ("good", 2)]
    impatient.stop_following()
    (last,) = impatient.poll()
    assert isinstance(last, Damage)
    assert last.rows_lost is None
    assert impatient.ended
    later = Segment("tags", 4, "r", {"tags": 30}, tags(30, 10), {}, True, "f" * 64)
    (directory / "tags" / "000004.h5").write_bytes(encode(later))
    damage, good = patient.poll()
    assert isinstance(damage, Damage)
    assert damage.rows_lost == {"tags": 10}
    assert good == later
    assert patient.ended


def test_segments_under_each_others_names_are_not_taken(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(5)
    two, three = (directory / "tags" / f"00000{k}.h5" for k in (2, 3))
    content = two.read_bytes()
    two.write_bytes(three.read_bytes())
    three.write_bytes(content)
    items = read_all(open_recording(directory), "tags")
    assert _shape(items) == [("good", 1), ("damage", 2), ("damage", 3), ("good", 4), ("good", 5)]
    assert "in the wrong place" in items[1].sentence


def test_a_segment_of_another_run_is_not_taken(directory: Path, record_tags: Callable[..., None]) -> None:
    record_tags(3)
    foreign = Segment("tags", 2, "another run", {"tags": 10}, tags(10, 10), {}, False, NO_HASH)
    (directory / "tags" / "000002.h5").write_bytes(encode(foreign))
    items = read_all(open_recording(directory), "tags")
    assert _shape(items) == [("good", 1), ("damage", 2), ("good", 3)]


def test_a_well_formed_segment_that_breaks_the_chain_is_not_taken(
    directory: Path, record_tags: Callable[..., None]
) -> None:
    record_tags(4)
    forged = Segment("tags", 2, "r", {"tags": 10}, tags(999, 10), {}, False, NO_HASH)
    (directory / "tags" / "000002.h5").write_bytes(encode(forged))
    items = read_all(open_recording(directory), "tags")
    assert _shape(items) == [("good", 1), ("damage", 2), ("good", 3), ("good", 4)]
    assert "chain of hashes is broken" in items[1].sentence


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "manifest.json cannot be read"),
        (lambda path: path.write_text("some text"), "neither a recording's directory nor an HDF5 file"),
        (lambda path: path.write_bytes(b""), "neither a recording's directory nor an HDF5 file"),
        (lambda path: h5py.File(path, "w").close(), "is none of ours"),
        (
            lambda path: path.write_bytes(encode(Segment("tags", 1, "r", {}, {}, {}, True, NO_HASH))),
            "is one segment of a recording; give the recording's directory",
        ),
    ],
)
def test_what_is_no_recording_is_refused_with_a_sentence(
    tmp_path: Path, make: Callable[[Path], object], sentence: str, follow: bool
) -> None:
    make(tmp_path / "x")
    with pytest.raises(BadInput, match=sentence):
        open_recording(tmp_path / "x", follow)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "no JSON"),
        ("[]", "format"),
        ('{"format": "other"}', "format"),
        ('{"format": "groundstation recording", "version": 2}', "version 2, this software reads version 1"),
        ('{"format": "groundstation recording", "version": 1}', "run_id"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_foreign_manifest_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BadInput, match=sentence):
        open_recording(tmp_path)


def test_a_recording_starts_in_an_empty_place_with_a_name_of_its_own(tmp_path: Path) -> None:
    first = create_recording(tmp_path / "deep" / "a", {"mode": "live"})
    second = create_recording(tmp_path / "b", {"mode": "live"})
    assert first != second
    assert len(first) == 32
    assert read_manifest(tmp_path / "deep" / "a") == {
        "mode": "live",
        "format": "groundstation recording",
        "version": 1,
        "run_id": first,
    }
    with pytest.raises(BadInput, match="is not empty"):
        create_recording(tmp_path / "b", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot record into"):
        create_recording(tmp_path / "file", {})
    with pytest.raises(BadInput, match="no JSON value"):
        create_recording(tmp_path / "c", {"bad": float("nan")})


@pytest.mark.slow
def test_a_thousand_segments_are_read_in_little_more_than_a_second(directory: Path) -> None:
    (directory / "tags").mkdir()
    previous = NO_HASH
    for k in range(1000):
        segment = Segment("tags", k + 1, "r", {"tags": 10 * k}, tags(10 * k, 10), {}, k == 999, previous)
        (directory / "tags" / f"{k + 1:06d}.h5").write_bytes(encode(segment))
        previous = segment.hash
    start = monotonic_s()
    assert len(read_all(open_recording(directory, follow=True), "tags")) == 1000
    assert monotonic_s() - start < 1.3
