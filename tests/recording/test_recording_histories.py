"""Any history of publications, failures, deaths and power cuts: what was acknowledged is a prefix of what is read."""

import errno
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest
from failing_files import Death, FailingFiles, Failure
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from power_cut import Disk
from recording_samples import read_all

from groundstation.recording.files import Files, FsyncFailed, RecordingFailed
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Damage, Table
from groundstation.recording.writer import StreamWriter

_Tag = tuple[int, int]
_TAGS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 255)), max_size=5)
_ERRORS = st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE])


class Histories(RuleBasedStateMachine):
    """A station of one stream. `acknowledged`: the tags it was told are safe; `waiting`: those still in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="histories"))
        self.worlds = 0
        self.acknowledged: list[_Tag] = []
        self.attempted: list[_Tag] = []  # published without an answer: they may be there or not
        self.waiting: list[_Tag] = []
        self.writer: StreamWriter | None = None

    @initialize()
    def begin(self) -> None:
        self.root = self.place / "0"
        self.root.mkdir()
        create_recording(self.root / "recording", {"run_id": "r"})
        self.disk = Disk(self.root)
        self.open_again()

    def teardown(self) -> None:
        self.process_ends()
        shutil.rmtree(self.place)

    def open_again(self) -> None:
        """The program is started and goes on behind what is there; what only its memory held is gone."""
        self.files = self.disk.files()
        self.writer = StreamWriter(self.root / "recording", "tags", "r", _Redirected(self).files)
        found = self.tags_read()
        assert self.writer.acknowledged.get("tags", 0) == len(found)
        self.acknowledge(found)
        self.waiting = []

    def acknowledge(self, tags: list[_Tag]) -> None:
        self.acknowledged, self.attempted = tags, []
        self.disk.acknowledge(len(tags))

    def process_ends(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    def tags_read(self) -> list[_Tag]:
        tags: list[_Tag] = []
        for item in read_all(open_recording(self.root / "recording"), "tags"):
            assert not isinstance(item, Damage)
            tags += zip(item.tables["tags"]["time_ps"].tolist(), item.tables["tags"]["channel"].tolist(), strict=True)
        return tags

    @rule(tags=_TAGS)
    def append(self, tags: list[_Tag]) -> None:
        self.waiting += tags

    @precondition(lambda self: self.writer is not None)
    @rule()
    def publish(self) -> None:
        self.writer.publish(_table(self.waiting))
        self.acknowledge(self.acknowledged + self.waiting)
        self.waiting = []

    @precondition(lambda self: self.writer is not None)
    @rule(write_bytes=st.integers(500, 5000))
    def publish_in_short_writes(self, write_bytes: int) -> None:
        self.files = FailingFiles(None, self.disk.files(), write_bytes).files
        self.publish()
        self.files = self.disk.files()

    @precondition(lambda self: self.writer is not None)
    @rule(
        at=st.integers(0, 8),
        after=st.booleans(),
        kind=st.sampled_from(["once", "for good", "death"]),
        number=_ERRORS,
    )
    def publish_with_a_failure(self, at: int, after: bool, kind: str, number: int) -> None:
        self.files = FailingFiles(Failure(at, after, kind, number), self.disk.files(), 3000).files
        self.attempted = list(self.waiting)
        try:
            self.publish()
        except (FsyncFailed, Death):
            self.process_ends()
        except RecordingFailed:
            assert self.tags_read() == self.acknowledged  # it said that nothing was recorded
            self.attempted = []
        self.files = self.disk.files()

    @rule()
    def die_and_start_again(self) -> None:
        self.process_ends()
        self.open_again()

    @rule(at=st.integers(0, 4), after=st.booleans(), number=_ERRORS)
    def fail_to_start(self, at: int, after: bool, number: int) -> None:
        self.process_ends()
        self.files = FailingFiles(Failure(at, after, "once", number), self.disk.files()).files
        with suppress(RecordingFailed):
            StreamWriter(self.root / "recording", "tags", "r", self.files).close()
        self.open_again()

    @rule(seed=st.integers(0, 2**32))
    def cut_the_power(self, seed: int) -> None:
        self.process_ends()
        self.worlds += 1
        self.root = self.place / str(self.worlds)
        told = self.disk.cut(Random(seed), self.root)
        everything = self.acknowledged + self.attempted
        found = self.tags_read()
        assert found == everything[: len(found)]
        assert len(found) >= max(told, default=0)
        self.disk = Disk(self.root)
        self.acknowledged, self.attempted = found, []
        self.open_again()

    @invariant()
    def what_was_acknowledged_is_a_prefix_of_what_is_read(self) -> None:
        if hasattr(self, "disk"):
            found = self.tags_read()
            assert found[: len(self.acknowledged)] == self.acknowledged
            assert found[len(self.acknowledged) :] in ([], self.attempted)


class _Redirected:
    """The files of a writer that lives longer than one rule: each call goes to the machine's files of the moment."""

    def __init__(self, machine: Histories) -> None:
        names = Files.__dataclass_fields__
        self.files = Files(**{name: lambda *a, name=name: getattr(machine.files, name)(*a) for name in names})


def _table(tags: list[_Tag]) -> dict[str, Table]:
    time_ps, channel = zip(*tags, strict=True) if tags else ((), ())
    return {"tags": {"time_ps": np.array(time_ps, np.int64), "channel": np.array(channel, np.uint8)}}


_SETTINGS = settings(stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))

TestHistories = Histories.TestCase
TestHistories.settings = settings(_SETTINGS, max_examples=40)


class ManyHistories(Histories):
    """The same, for longer."""


TestManyHistories = pytest.mark.slow(ManyHistories.TestCase)
TestManyHistories.settings = settings(_SETTINGS, max_examples=1000)
