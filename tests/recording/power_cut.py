"""A model of what a power cut leaves of a directory: harsher than any disk, and it can come after every operation.

`Disk.files()` does everything for real, without a sync, and writes it down. `Disk.cut` replays what was written down
up to a random operation, and makes a directory of what may be left then:

* of a file, what was there at its last fsync is on the disk; of each page of 4 KiB written to since, a random one of
  its versions is, and the length is a random one too;
* that something was created, renamed or removed is on the disk once all directories concerned were synced after it;
  until then it happened or did not, each on its own.

Programs that run at the same time (`Disk.files("name")`) use different files, so they are interleaved at random.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from groundstation.recording.files import POSIX, Files

PAGE = 4096
_Operation = tuple[Any, ...]


class Disk:
    """Everything under `root`; what is there already is on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._initial: list[tuple[Path, bytes | None]] = []
        self._numbers: dict[int, int] = {}  # by inode; a number is never used again
        self._count = 0
        self._phases: list[dict[str, list[_Operation]]] = [{}]
        for path in sorted(root.rglob("*")):
            self._initial.append((path.relative_to(root), None if path.is_dir() else path.read_bytes()))
            self._new_number(path.stat().st_ino)

    def begin_phase(self) -> None:
        """Whatever programs do from now on comes after all that was done before."""
        self._phases.append({})

    def acknowledge(self, what: Any, program: str = "") -> None:
        """Somebody was told that `what` is safe."""
        self._log(program, "acknowledge", what)

    def cut(self, random: Random, target: Path) -> list[Any]:
        """Make a new directory as a power cut might leave `root`; returns what was acknowledged until then."""
        operations = list(self._interleaved(random))
        left, acknowledged = _after_cut(self._initial, operations[: random.randint(0, len(operations))], random)
        target.mkdir()
        for path, content in sorted(left.items()):
            if not (target / path).parent.is_dir():
                continue  # its directory is gone
            if content is None:
                (target / path).mkdir()
            else:
                (target / path).write_bytes(content)
        return acknowledged

    def files(self, program: str = "") -> Files:
        """The file system as one program uses it."""

        def create(path: Path) -> int:
            descriptor = POSIX.create(path)
            self._log(program, "create", self._name(path), self._new_number(os.fstat(descriptor).st_ino))
            return descriptor

        def open_lock(path: Path) -> int:
            new = not path.exists()
            descriptor = POSIX.open_lock(path)
            if new:
                self._log(program, "create", self._name(path), self._new_number(os.fstat(descriptor).st_ino))
            return descriptor

        def write(descriptor: int, data: memoryview) -> int:
            written = POSIX.write(descriptor, data)
            self._log(program, "write", self._number(os.fstat(descriptor)), bytes(data[:written]))
            return written

        def fsync(descriptor: int) -> None:
            self._log(program, "fsync", self._number(os.fstat(descriptor)))

        def fsync_directory(path: Path) -> None:
            self._log(program, "fsync_directory", self._name(path))

        def rename(source: Path, target: Path) -> None:
            POSIX.rename(source, target)
            self._log(program, "rename", self._name(source), self._name(target), self._number(target.stat()))

        def unlink(path: Path) -> None:
            POSIX.unlink(path)
            self._log(program, "remove", self._name(path))

        def remove_directory(path: Path) -> None:
            POSIX.remove_directory(path)
            self._log(program, "remove", self._name(path))

        def make_directory(path: Path, mode: int) -> None:
            POSIX.make_directory(path, mode)
            self._log(program, "create", self._name(path), None)

        return Files(
            create=create,
            write=write,
            fsync=fsync,
            rename=rename,
            fsync_directory=fsync_directory,
            unlink=unlink,
            make_directory=make_directory,
            remove_directory=remove_directory,
            open_lock=open_lock,
        )

    def _log(self, program: str, *operation: Any) -> None:
        self._phases[-1].setdefault(program, []).append(operation)

    def _name(self, path: Path) -> Path:
        return path.relative_to(self._root)

    def _number(self, status: os.stat_result) -> int:
        return self._numbers[status.st_ino]

    def _new_number(self, inode: int) -> int:
        self._numbers[inode] = self._count
        self._count += 1
        return self._count - 1

    def _interleaved(self, random: Random) -> Iterator[_Operation]:
        """One possible order of what all programs did."""
        for phase in self._phases:
            turns = [program for program, log in phase.items() for _ in log]
            random.shuffle(turns)
            logs = {program: iter(log) for program, log in phase.items()}
            for program in turns:
                yield next(logs[program])


def _after_cut(
    initial: list[tuple[Path, bytes | None]], operations: list[_Operation], random: Random
) -> tuple[dict[Path, bytes | None], list[Any]]:
    """What is left, and what was acknowledged."""
    versions: dict[int | None, list[bytes]] = {n: [c] for n, (_, c) in enumerate(initial) if c is not None}
    changes: list[tuple[_Operation, set[Path]]] = []  # with the directories that were not synced since
    acknowledged: list[Any] = []
    for operation in operations:
        match operation:
            case ("acknowledge", what):
                acknowledged.append(what)
            case ("write", number, data):
                versions[number].append(versions[number][-1] + data)
            case ("fsync", number):
                del versions[number][:-1]
            case ("fsync_directory", directory):
                for _, waits_for in changes:
                    waits_for.discard(directory)
            case ("create", path, number):
                versions[number] = [b""]
                changes.append((operation, {path.parent}))
            case ("rename", source, target, _):
                changes.append((operation, {source.parent, target.parent}))
            case ("remove", path):
                changes.append((operation, {path.parent}))
    names = {path: None if content is None else number for number, (path, content) in enumerate(initial)}
    for operation, waits_for in changes:
        if not waits_for or random.random() < 0.5:
            _apply(names, operation)
    left = {path: None if n is None else _some_version(versions[n], random) for path, n in names.items()}
    return left, acknowledged


def _apply(names: dict[Path, int | None], operation: _Operation) -> None:
    match operation:
        case ("create", path, number):
            names[path] = number
        case ("rename", source, target, number):
            if names.get(source) == number:
                del names[source]
            names[target] = number
        case ("remove", path):
            names.pop(path, None)


def _some_version(versions: list[bytes], random: Random) -> bytes:
    length = len(random.choice(versions))
    pages = (random.choice(versions)[start : start + PAGE] for start in range(0, length, PAGE))
    return b"".join(page.ljust(PAGE, b"\0") for page in pages)[:length]
