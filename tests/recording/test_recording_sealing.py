"""The sealed file holds the same segments as the directory, and is what other programs expect."""

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tables
from phconvert.hdf5 import assert_valid_photon_hdf5
from recording_samples import read_all, tags, times_in

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.files import RecordingFailed
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import part_of, remove_segments, seal, seal_in_child, verify
from groundstation.recording.segment import Damage
from groundstation.recording.writer import StreamLocked, StreamWriter


@pytest.fixture
def full_directory(directory: Path, record_tags: Callable[..., None]) -> Path:
    """A recording with all kinds of columns, a damaged segment, an abandoned, an open and an empty stream."""
    record_tags(6)
    damaged = directory / "tags" / "000004.h5"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with StreamWriter(directory, "events", "r") as writer:
        for k in range(1, 5):
            # Texts grow from segment to segment; a segment reads back with the width it had.
            texts = np.array([b"x" * 3**k, b"y"])
            writer.publish({"events": {"sequence": np.arange(2) + 2 * k, "text": texts}}, {"k": k})
        writer.publish({}, {"abandoned": "its process died"}, end=True)
    with StreamWriter(directory, "telemetry", "r") as writer:
        for k in range(3):
            mount = {"utc_ns": np.arange(k), "azimuth_deg": np.arange(k) / 7, "moving": np.arange(k) % 2 == 0}
            writer.publish({"mount": mount} | ({"path": {"range_km": np.ones(4)}} if k == 1 else {}))
    StreamWriter(directory, "answers", "r").close()
    return directory


def test_the_sealed_file_gives_back_the_same_segments(full_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "pass.h5"
    seal_in_child(full_directory, target)
    grown, sealed = open_recording(full_directory), open_recording(target)
    assert sealed.manifest == grown.manifest
    assert sealed.streams() == grown.streams() == ("answers", "events", "tags", "telemetry")
    for stream in grown.streams():
        ours, theirs = grown.stream(stream), sealed.stream(stream)
        assert ours.poll(2) + ours.poll(100) == theirs.poll(2) + theirs.poll(100)
        assert (ours.poll(), theirs.poll()) == ([], [])
        assert ours.ended
        assert theirs.ended
        assert ours.complete == theirs.complete == False  # noqa: E712 -- all three, not a truth value
    (damage,) = [item for item in read_all(sealed, "tags") if isinstance(item, Damage)]
    assert (damage.file_name, damage.rows_lost) == ("000004.h5", {"tags": 10})
    texts = [item.tables["events"]["text"].dtype.str for item in read_all(sealed, "events")[:4]]
    assert texts == ["|S3", "|S9", "|S27", "|S81"]
    absent = sealed.stream("truth")
    assert (absent.poll(), absent.ended, absent.complete) == ([], True, False)
    sealed.close()


def test_a_stream_that_was_complete_stays_so(directory: Path, record_tags: Callable[..., None], tmp_path: Path) -> None:
    record_tags(3)
    seal_in_child(directory, tmp_path / "pass.h5")
    reader = open_recording(tmp_path / "pass.h5", follow=True).stream("tags")
    assert times_in(reader.poll()) == [1000 * (k + 1) for k in range(30)]
    assert reader.complete


def test_rows_that_fill_many_chunks_come_back(directory: Path, tmp_path: Path) -> None:
    random_source = np.random.default_rng(5)
    with StreamWriter(directory, "events", "r") as writer:
        for k in range(12):
            count = int(random_source.integers(0, 60_000))
            text = random_source.integers(0, 9, count).astype(f"S{1 + k // 4}")
            writer.publish({"events": {"sequence": random_source.integers(0, 1 << 60, count), "text": text}})
        writer.publish({"events": {"sequence": np.zeros(1, np.int64), "text": np.array([b"z" * 90])}}, end=True)
    seal(directory, tmp_path / "pass.h5")
    verify(directory, part_of(tmp_path / "pass.h5"))


def test_the_sealed_file_is_valid_photon_hdf5(full_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "pass.h5"
    seal_in_child(full_directory, target)
    _assert_valid(target)


def _assert_valid(path: Path) -> None:
    # Quiet about fields that are optional and mean nothing here: laser wavelengths, authors, measurement_specs.
    with tables.open_file(str(path)) as file:
        assert_valid_photon_hdf5(file, warnings=False, skip_measurement_specs=True, require_rootformat=True)


def test_any_hdf5_reader_finds_the_tags(full_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "pass.h5"
    seal_in_child(full_directory, target)
    with h5py.File(target, "r") as file:
        kept = np.array([k for k in range(60) if not 30 <= k < 40])
        assert file["photon_data/timestamps"][()].tolist() == ((kept + 1) * 1000).tolist()
        assert file["photon_data/timestamps"].dtype == np.int64
        assert file["photon_data/detectors"].dtype == np.uint8
        assert file["photon_data/timestamps_specs/timestamps_unit"][()] == 1e-12
        assert file["acquisition_duration"][()] == pytest.approx(59e-9)
        assert file["setup/detectors/counts"][()].tolist() == np.bincount(kept % 6).tolist()
        assert "tags" not in file["user/groundstation/streams/tags"].get("tables", {})
        for path in ("photon_data/timestamps", "user/groundstation/streams/tags/index"):
            dataset = file[path]
            assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == ("gzip", True, True)


def test_the_target_is_read_only_and_never_written_over(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(2)
    target = tmp_path / "pass.h5"
    seal_in_child(directory, target)
    assert target.stat().st_mode & 0o777 == 0o400
    assert not part_of(target).exists()
    with pytest.raises(BadInput, match="is there already"):
        seal_in_child(directory, target)


def test_a_recording_without_any_stream_can_be_sealed(directory: Path, tmp_path: Path) -> None:
    seal_in_child(directory, tmp_path / "pass.h5")
    assert open_recording(tmp_path / "pass.h5").streams() == ()
    _assert_valid(tmp_path / "pass.h5")


def test_a_failure_leaves_the_segments_and_no_target(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(2)
    before = {path: path.read_bytes() for path in directory.rglob("*.h5")}
    with pytest.raises(RecordingFailed, match=r"cannot seal .* segments are untouched"):
        seal_in_child(directory, tmp_path / "nowhere" / "pass.h5")
    with pytest.raises(RecordingFailed, match="not a recording"):
        seal_in_child(tmp_path, tmp_path / "pass.h5")
    assert not (tmp_path / "pass.h5").exists()
    assert not part_of(tmp_path / "pass.h5").exists()
    assert {path: path.read_bytes() for path in directory.rglob("*.h5")} == before


def test_verification_names_the_first_segment_that_differs(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(3, end=False)
    seal(directory, tmp_path / "pass.h5")
    verify(directory, part_of(tmp_path / "pass.h5"))
    with StreamWriter(directory, "tags", "r") as writer:
        writer.publish(tags(30, 1))
    with pytest.raises(RecordingDamaged, match="in segment 4 of stream tags"):
        verify(directory, part_of(tmp_path / "pass.h5"))


def test_segments_go_only_when_nobody_writes_them(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(2)
    with StreamWriter(directory, "events", "r"), pytest.raises(StreamLocked):
        remove_segments(directory)
    assert len(list((directory / "tags").glob("*.h5"))) == 2
    remove_segments(directory)
    assert not directory.exists()
    with pytest.raises(BadInput):
        remove_segments(tmp_path)
    assert tmp_path.exists()


def test_a_sealed_file_with_changed_bytes_never_gives_other_data(tmp_path: Path) -> None:
    directory = tmp_path / "big"
    create_recording(directory, {"run_id": "r"})
    random_source = np.random.default_rng(2)
    with StreamWriter(directory, "tags", "r") as writer:
        for k in range(5):
            time_ps = np.cumsum(random_source.integers(1, 10**6, 2000))
            writer.publish({"tags": {"time_ps": time_ps, "channel": np.zeros(2000, np.uint8)}}, {"k": k})
    seal(directory, tmp_path / "pass.h5")
    good = part_of(tmp_path / "pass.h5").read_bytes()
    expected = read_all(open_recording(directory), "tags")
    draw, refused = random.Random(1), list[str]()
    altered = tmp_path / "altered.h5"
    for _ in range(200):
        bad = bytearray(good)
        at = draw.randrange(len(bad))
        if draw.random() < 0.1:
            del bad[at:]
        else:
            bad[at] ^= 1 << draw.randrange(8)
        altered.write_bytes(bad)
        try:
            recording = open_recording(altered)
            try:
                assert read_all(recording, "tags") == expected
            finally:
                recording.close()
        except (RecordingDamaged, BadInput) as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(str(altered) in sentence for sentence in refused)


def test_damaged_compressed_data_names_its_dataset(
    directory: Path, record_tags: Callable[..., None], tmp_path: Path
) -> None:
    record_tags(3)
    seal(directory, tmp_path / "pass.h5")
    part = part_of(tmp_path / "pass.h5")
    with h5py.File(part, "r") as file:
        chunk = file["photon_data/timestamps"].id.get_chunk_info(0)
    content = bytearray(part.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(RecordingDamaged, match=r"dataset /photon_data/timestamps of .* cannot be read"):
        read_all(open_recording(part), "tags")
