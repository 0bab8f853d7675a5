"""However a recording was damaged, what is read are true rows in their true places; the rest is named or refused."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from corruption import corrupt_directory
from failing_files import UNSYNCED
from recorders import RUN, check_subset, record, rows_of

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import part_of, seal
from groundstation.recording.writer import StreamWriter

_SIZES = {"tags": [10, 400, 0, 60, 1, 900, 30, 30], "events": [3, 5, 1, 1], "telemetry": [40]}
_EXPECTED = {stream: sum(sizes) for stream, sizes in _SIZES.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of the same streams: `ours`, and `foreign` with a good manifest and other rows."""
    place = tmp_path_factory.mktemp("corruption")
    create_recording(place / "ours", {"run_id": RUN, "mode": "live", "gain_db": 1.5})
    for stream, sizes in _SIZES.items():
        record(place / "ours", stream, sizes, UNSYNCED, lambda rows: None, end=stream != "events")
    create_recording(place / "foreign", {"run_id": "another"})
    for stream, sizes in _SIZES.items():
        with StreamWriter(place / "foreign", stream, "another", UNSYNCED) as writer:
            for size in sizes:
                writer.publish(rows_of(stream, 10**6, size))
    return place


def _read_corrupted_directories(place: Path, scratch: Path, cases: range) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for case in cases:
        random = Random(case)
        directory = scratch / str(case)
        shutil.copytree(place / "ours", directory)
        for _ in range(random.choice((1, 1, 2, 4))):
            corrupt_directory(directory, place / "foreign", random)
        outcomes[_outcome(directory)] += 1
        if random.random() < 0.3:
            _go_on(directory)
        shutil.rmtree(directory)
    return outcomes


def _outcome(directory: Path) -> str:
    try:
        read = check_subset(open_recording(directory), _EXPECTED)
    except (BadInput, RecordingDamaged):
        return "refused"
    return "whole" if read == sum(_EXPECTED.values()) else "part"


def _go_on(directory: Path) -> None:
    """The stream that had no end is gone on with, whatever became of it."""
    with suppress(BadInput, RecordingDamaged):
        with StreamWriter(directory, "events", RUN, UNSYNCED) as writer:
            writer.publish(rows_of("events", writer.acknowledged.get("events", 0), 20))
        check_subset(open_recording(directory), {**_EXPECTED, "events": _EXPECTED["events"] + 20})


def test_a_corrupted_directory_never_gives_other_rows(place: Path, tmp_path: Path) -> None:
    outcomes = _read_corrupted_directories(place, tmp_path, range(200))
    assert outcomes.total() == 200
    assert outcomes["part"] > 100


@pytest.mark.slow
def test_neither_do_two_thousand_corrupted_directories(place: Path, tmp_path: Path) -> None:
    assert _read_corrupted_directories(place, tmp_path, range(1000, 3000)).total() == 2000


def _read_corrupted_files(place: Path, tmp_path: Path, first: int, stop: int) -> Counter[str]:
    sealed = tmp_path / "recording.h5"
    seal(place / "ours", sealed)
    program = Path(__file__).with_name("sealed_corruption.py")
    command = [
        sys.executable,
        str(program),
        str(part_of(sealed)),
        str(tmp_path / "corrupted.h5"),
        json.dumps(_EXPECTED),
    ]
    result = subprocess.run([*command, str(first), str(stop)], capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, f"after {result.stdout.split()[-1:]}: {result.stderr[-2000:]}"
    words = Counter(result.stdout.split())
    assert words["read"] + words["refused"] == stop - first
    return words


def test_a_corrupted_sealed_file_never_gives_other_rows_nor_takes_the_process_with_it(
    place: Path, tmp_path: Path
) -> None:
    assert _read_corrupted_files(place, tmp_path, 0, 200)["refused"] > 100


@pytest.mark.slow
def test_neither_do_two_thousand_corrupted_sealed_files(place: Path, tmp_path: Path) -> None:
    assert _read_corrupted_files(place, tmp_path, 1000, 3000)["refused"] > 1000


def test_a_number_far_away_is_one_damage_and_not_a_million(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "ours", tmp_path / "ours")
    events = tmp_path / "ours" / "events"
    (events / "000004.h5").rename(events / f"{10**17}.h5")
    (events / "0000001.h5").write_bytes(b"no name of a segment")
    items = open_recording(tmp_path / "ours").stream("events").poll()
    assert [item.number for item in items] == [1, 2, 3, 4, 10**17]
    assert items[3].sentence == (
        "segment events/000004.h5 and those up to 99999999999999999.h5 are missing, though later ones are there"
    )


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_in_place_of_a_stream_is_an_empty_stream(place: Path, tmp_path: Path, follow: bool) -> None:
    shutil.copytree(place / "ours", tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours" / "tags")
    (tmp_path / "ours" / "tags").write_bytes(b"")
    reader = open_recording(tmp_path / "ours", follow).stream("tags")
    assert reader.poll() == []
    assert not reader.complete
    assert reader.ended is not follow


def test_a_changed_manifest_is_refused_with_a_sentence(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "ours", tmp_path / "ours")
    manifest = tmp_path / "ours" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1.5", "1.7"))
    with pytest.raises(RecordingDamaged, match=r"manifest.json is damaged: its content does not match its checksum"):
        open_recording(tmp_path / "ours")
