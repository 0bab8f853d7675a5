"""A file system whose N-th call fails, and every N: for the proof that no failure loses what was acknowledged.

    for case in every_failure(tmp_path, prepare, act):
        ...  # look at case.directory: what `act` left there when that one call failed

`prepare(directory)` fills a directory once, it is copied for every case; `act(directory, files, acknowledge)` is the
program under test: it changes files only through `files` and says what it takes for safe with `acknowledge(...)`.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from groundstation.errors import GroundStationError
from groundstation.recording.files import POSIX, Files

Acknowledge = Callable[[Any], None]
Act = Callable[[Path, Files, Acknowledge], None]


class Death(BaseException):
    """The process dies here: nothing in the code under test may catch it, and nothing it does later takes effect."""


class Failure(NamedTuple):
    """Which call fails, counted from 0, and how: `once`, `for good` (that and all later ones) or by `death`."""

    at: int
    after: bool = False
    kind: Literal["once", "for good", "death"] = "once"
    number: int = errno.ENOSPC


class Call(NamedTuple):
    """One call on the file system: its name in `Files`, and the path or the number of the file it is about.

    Files are numbered as they are created, for a name may be used again.
    """

    name: str
    subject: str | int


#: Without bringing anything to the disk: the death of a process does not touch what the kernel holds.
UNSYNCED = replace(POSIX, fsync=lambda descriptor: None, fsync_directory=lambda path: None)


class FailingFiles:
    """`files` with one failure in it; `calls` is the log of what was called. Short writes are the rule here."""

    def __init__(self, failure: Failure | None = None, base: Files = UNSYNCED, write_bytes: int = 2000) -> None:
        self.calls: list[Call] = []
        self._failure = failure
        self._base = base
        self._write_bytes = write_bytes
        self._created: dict[int, int] = {}
        self._dead = False
        self.files = Files(**{each.name: self._wrapped(each.name) for each in fields(Files)})

    def _wrapped(self, name: str) -> Callable[..., Any]:
        call = getattr(self._base, name)

        def wrapped(*arguments: Any) -> Any:
            if self._dead:
                raise Death
            if name == "write":
                arguments = (arguments[0], arguments[1][: self._write_bytes])
            self.calls.append(Call(name, self._subject(arguments[0])))
            self._fail(after=False)
            result = call(*arguments)
            if name == "create":
                self._created[result] = len([c for c in self.calls if c.name == "create"])
            self._fail(after=True)
            return result

        return wrapped

    def _subject(self, argument: Path | int) -> str | int:
        return self._created.get(argument, -1) if isinstance(argument, int) else str(argument)

    def _fail(self, after: bool) -> None:
        failure, number = self._failure, len(self.calls) - 1
        if failure is None or failure.after != after:
            return
        if number == failure.at or (number > failure.at and failure.kind == "for good"):
            if failure.kind == "death":
                self._dead = True
                raise Death
            raise OSError(failure.number, os.strerror(failure.number))


@dataclass
class Case:
    """What one failure led to. `error` is how the program ended; None when it came through."""

    failure: Failure
    directory: Path
    calls: list[Call] = field(default_factory=list)
    acknowledged: list[Any] = field(default_factory=list)
    error: BaseException | None = None


def every_failure(
    tmp_path: Path,
    prepare: Callable[[Path], object],
    act: Act,
    numbers: tuple[int, ...] = (errno.ENOSPC,),
    base: Files = UNSYNCED,
) -> Iterator[Case]:
    """Run `act` once for each call that it makes, each time with that call failing in one of the possible ways.

    An error that is none of ours is not caught: the program under test must turn it into one of ours.
    """
    template = tmp_path / "template"
    template.mkdir()
    prepare(template)
    for number, failure in enumerate(
        _failures(_calls_of_a_clean_run(tmp_path / "clean", template, act, base), numbers)
    ):
        case = Case(failure, tmp_path / f"case{number}")
        shutil.copytree(template, case.directory)
        failing = FailingFiles(failure, base)
        try:
            act(case.directory, failing.files, case.acknowledged.append)
        except (GroundStationError, Death) as error:
            case.error = error
        case.calls = failing.calls
        yield case
        shutil.rmtree(case.directory)


def _calls_of_a_clean_run(directory: Path, template: Path, act: Act, base: Files) -> int:
    shutil.copytree(template, directory)
    clean = FailingFiles(None, base)
    act(directory, clean.files, lambda what: None)
    return len(clean.calls)


def _failures(calls: int, numbers: tuple[int, ...]) -> Iterator[Failure]:
    for at in range(calls):
        for after in (False, True):
            yield Failure(at, after, "death")
            for number in numbers:
                yield Failure(at, after, "once", number)
                yield Failure(at, after, "for good", number)
