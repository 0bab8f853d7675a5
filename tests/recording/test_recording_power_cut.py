"""Whatever a power cut may leave of what was not synced: all that was acknowledged is there, nothing read is wrong.

And a writer that leaves out what it takes is found out: these are the tests of the test.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from failing_files import Acknowledge, Death, FailingFiles, Failure
from power_cut import PAGE, Disk
from recorders import RUN, Lost, check_whole, record

from groundstation.errors import BadInput, GroundStationError
from groundstation.recording.files import POSIX, Files, write_durably
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import part_of, publish_sealed, remove_segments, seal

#: Changes the file system of one program; a broken writer is a good one on a file system that deceives it.
Break = Callable[[Files], Files]
_CUTS = 5
_GENERATIONS = 2


def _unbroken(files: Files) -> Files:
    return files


def _world(place: Path, seed: int, broken: Break = _unbroken) -> int:
    """One life of a station: it begins, records, some of its programs die or meet errors and are started again, and
    the power is cut. Of several such ends one is gone on with, until the power is cut again.

    Returns how many power cuts were looked at. Raises Lost.
    """
    random = Random(seed)
    known: list[tuple[str, int]] = []
    root = place
    for _ in range(_GENERATIONS):
        root.mkdir(exist_ok=True)
        disk = Disk(root)
        _live(disk, root, random, broken)
        ends = [root.with_name(f"{root.name}-{cut}") for cut in range(_CUTS)]
        for end in ends:
            found = [*known, *disk.cut(random, end)]
            _check(end / "new" / "recording", found)
        root, known = end, found
    return _CUTS * _GENERATIONS


def _many_worlds(tmp_path: Path, seeds: range, broken: Break = _unbroken) -> int:
    return sum(_world(tmp_path / str(seed), seed, broken) for seed in seeds)


def _live(disk: Disk, root: Path, random: Random, broken: Break) -> None:
    directory = root / "new" / "recording"
    if not (directory / "manifest.json").exists():
        create_recording(directory, {"run_id": RUN}, broken(disk.files()))
        disk.acknowledge(("manifest", 0))
    for _ in range(3):
        disk.begin_phase()
        for stream in ("tags", "events", "telemetry"):
            sizes = [random.choice((1, 10, 300, 3000)) for _ in range(random.randint(0, 2))]
            _record(disk, directory, stream, sizes, random, broken)


def _record(disk: Disk, directory: Path, stream: str, sizes: list[int], random: Random, broken: Break) -> None:
    """One program, which does not come to its end in most cases."""
    kind = random.choice(("once", "for good", "death"))
    failure = Failure(random.randint(0, 60), random.random() < 0.5, kind)
    failing = FailingFiles(failure, broken(disk.files(stream)), write_bytes=random.choice((900, PAGE, 10_000)))
    with suppress(GroundStationError, Death):
        end = random.random() < 0.3
        record(directory, stream, sizes, failing.files, lambda rows: disk.acknowledge((stream, rows), stream), end)


def _check(directory: Path, acknowledged: list[tuple[str, int]]) -> None:
    try:
        recording = open_recording(directory)
    except BadInput:
        if acknowledged:
            raise Lost("a recording was begun and is not there") from None
        return
    for stream in {*recording.streams(), *(name for name, _ in acknowledged)} - {"manifest"}:
        check_whole(recording, stream, [rows for name, rows in acknowledged if name == stream])


def test_a_power_cut_at_any_time_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert _many_worlds(tmp_path, range(40)) >= 400


@pytest.mark.slow
def test_neither_do_many_more_power_cuts(tmp_path: Path) -> None:
    assert _many_worlds(tmp_path, range(1000, 1400)) >= 4000


def _without_fsync(files: Files) -> Files:
    return replace(files, fsync=lambda descriptor: None)


def _without_fsync_of_directories(files: Files) -> Files:
    return replace(files, fsync_directory=lambda path: None)


def _acknowledging_before_the_rename(files: Files) -> Files:
    """What renames and syncs the directory is done only when the next file is begun, after the acknowledgement."""
    late: list[Callable[[], None]] = []

    def create(path: Path) -> int:
        while late:
            late.pop(0)()
        return files.create(path)

    return replace(
        files,
        create=create,
        rename=lambda source, target: late.append(lambda: files.rename(source, target)),
        fsync_directory=lambda path: late.append(lambda: files.fsync_directory(path)),
    )


def _renaming_before_the_fsync_of_the_next(files: Files) -> Files:
    """A file is brought to the disk only when the one after it is: "the kernel will do that soon enough"."""
    previous: list[Path] = []

    def rename(source: Path, target: Path) -> None:
        files.rename(source, target)
        previous.append(target)

    def fsync(descriptor: int) -> None:
        while previous:
            path = previous.pop()
            with path.open("rb") as file:
                files.fsync(file.fileno())

    return replace(files, rename=rename, fsync=fsync)


def _syncing_the_directory_before_the_rename(files: Files) -> Files:
    def rename(source: Path, target: Path) -> None:
        files.fsync_directory(target.parent)
        files.rename(source, target)

    return replace(files, rename=rename, fsync_directory=lambda path: None)


@pytest.mark.parametrize(
    "broken",
    [
        _without_fsync,
        _without_fsync_of_directories,
        _acknowledging_before_the_rename,
        _renaming_before_the_fsync_of_the_next,
        _syncing_the_directory_before_the_rename,
    ],
)
def test_a_broken_writer_is_found_out(tmp_path: Path, broken: Break) -> None:
    with pytest.raises(Lost):
        _many_worlds(tmp_path, range(20), broken)


def test_the_model_tears_pages_and_keeps_what_was_synced(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root)
    files = disk.files()
    descriptor = files.create(root / "a")
    files.write(descriptor, memoryview(b"1" * PAGE))
    files.fsync(descriptor)
    files.fsync_directory(root)
    disk.acknowledge("first page")
    for digit in (b"2", b"3"):
        files.write(descriptor, memoryview(digit * PAGE))
    files.rename(root / "a", root / "b")
    seen = set()
    for seed in range(500):
        left = tmp_path / f"left{seed}"
        if disk.cut(Random(seed), left) == ["first page"]:
            (path,) = left.iterdir()
            seen.add((path.name, path.read_bytes()[::PAGE]))
    # Pages 2 and 3 are there, were never written (zero), or are behind the end of the file; page 1 always is there.
    contents = {b"1", b"12", b"1\0", b"123", b"12\0", b"1\0" + b"3", b"1\0\0"}
    assert seen == {(name, content) for name in "ab" for content in contents}


def test_a_name_stays_in_doubt_until_its_directory_is_synced(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root)
    disk.files().make_directory(root / "d", 0o700)
    write_durably(disk.files(), root / "d" / "x.part", root / "d" / "x", b"content")
    disk.acknowledge("x")
    left = [tmp_path / f"left{seed}" for seed in range(60)]
    whole = [path for seed, path in enumerate(left) if disk.cut(Random(seed), path)]
    assert {(path / "d" / "x").exists() for path in whole} == {True, False}  # nobody synced the directory's own name
    assert all((path / "d" / "x").read_bytes() == b"content" for path in whole if (path / "d").exists())


def test_a_power_cut_while_sealing_leaves_the_segments_or_the_sealed_file(tmp_path: Path) -> None:
    root, sealed = tmp_path / "disk", tmp_path / "recording.h5"
    create_recording(root / "recording", {"run_id": RUN})
    for stream, size in (("tags", 500), ("events", 20)):
        record(root / "recording", stream, [size, size], POSIX, lambda rows: None)
    seal(root / "recording", sealed)
    disk = Disk(root)
    _seal_and_remove(root, part_of(sealed).read_bytes(), disk.files(), disk.acknowledge)
    for seed in range(80):
        left = tmp_path / f"left{seed}"
        acknowledged = disk.cut(Random(seed), left)
        assert "sealed" not in acknowledged or (left / "recording.h5").exists()
        assert "sealed" in acknowledged or (left / "recording" / "manifest.json").exists()
        for path in (left / "recording.h5", left / "recording"):
            if path.is_file() or (path / "manifest.json").exists():  # never half a recording
                recording = open_recording(path)
                assert check_whole(recording, "tags", [-1]) == 1000
                assert check_whole(recording, "events", [-1]) == 40
                recording.close()
        assert not ("removed" in acknowledged and (left / "recording").exists())


def _seal_and_remove(root: Path, content: bytes, files: Files, acknowledge: Acknowledge) -> None:
    target = root / "recording.h5"
    descriptor = files.create(part_of(target))  # what the child does
    for start in range(0, len(content), PAGE):
        files.write(descriptor, memoryview(content)[start : start + PAGE])
    files.fsync(descriptor)
    publish_sealed(part_of(target), target, files)
    acknowledge("sealed")
    remove_segments(root / "recording", files)
    acknowledge("removed")
