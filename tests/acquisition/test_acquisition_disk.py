"""What the recorder does when the disk is full, slow or broken: it goes on, counts what is lost, and never lies."""

import errno
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from acquisition_samples import WIRED, Counted, CountingTagger, Recorded, check_recording

from groundstation.acquisition.buffer import BUFFER_FULL
from groundstation.acquisition.daemon import Acquisition
from groundstation.acquisition.space import DISK_FULL, RESERVE_NAME, Space, SpaceState, require_room
from groundstation.clock import SystemClock
from groundstation.errors import BadInput
from groundstation.recording.files import POSIX, Files, FsyncFailed
from groundstation.recording.manifest import create_recording
from groundstation.recording.writer import RecordingFailed, StreamWriter

TAGS = Counted()
MB = 1_000_000


class Disk:
    """A disk that can be told to be full, broken or slow."""

    def __init__(self) -> None:
        self.full = self.broken = False
        self.fsync_s = 0.0
        self.files = Files(write=self._write, fsync=self._fsync)

    def _write(self, descriptor: int, data: memoryview) -> int:
        if self.full and len(data) > 100_000:  # a small segment still fits, as on a disk with a reserve
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return POSIX.write(descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        time.sleep(self.fsync_s)
        POSIX.fsync(descriptor)


class Recorder:
    """An acquisition in a thread, which a test can watch and end."""

    def __init__(self, directory: Path, tagger: CountingTagger, files: Files, buffer_bytes: int) -> None:
        self.directory = directory
        self.statuses = []
        self.raised: BaseException | None = None
        self.stop = threading.Event()
        run_id = create_recording(directory, {})
        self._writer = StreamWriter(directory, "tags", run_id, files)
        self.space = Space(directory, MB, 10.0)
        self._acquisition = Acquisition(
            tagger, WIRED, self._writer, SystemClock(), 0.02, 1e-6, buffer_bytes=buffer_bytes, space=self.space
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._writer):
                self._acquisition.run(self.stop.is_set, self.statuses.append)
        except RecordingFailed as error:
            self.raised = error

    def wait_for(self, fits: Callable[[object], bool], what: str) -> None:
        deadline = time.monotonic() + 30.0
        while not (self.statuses and fits(self.statuses[-1])):
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(0.01)

    def end(self) -> Recorded:
        self.stop.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        return check_recording(self.directory, TAGS)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    recorders: list[Recorder] = []

    def start(files: Files = POSIX, buffer_mb: float = 64.0, rate_hz: float = 1e6, folder: Path = tmp_path) -> Recorder:
        tagger = CountingTagger(TAGS, 100_000, rate_hz=rate_hz)
        recorders.append(Recorder(folder / "recording", tagger, files, round(buffer_mb * MB)))
        return recorders[-1]

    yield start
    for recorder in recorders:
        recorder.stop.set()
        recorder._thread.join(30.0)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 8 MB, which only root can mount."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system; the injected one is tested in any case")
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def assert_exact(found: Recorded) -> None:
    """The ledger and the gaps say what is there and what is not."""
    assert found.ledger.recorded == found.tags
    assert found.missing == found.counted <= sum(found.ledger.dropped.values())
    assert found.ended


def test_a_full_disk_costs_nothing_that_memory_can_hold(record):
    disk = Disk()
    recorder = record(disk.files)
    recorder.wait_for(lambda s: s.tags > 0, "the first tags")
    disk.full = True
    recorder.wait_for(lambda s: s.disk == "reserved" and s.in_flight > 300_000, "tags that wait")
    assert "make room" in recorder.statuses[-1].alarms["disk"]
    disk.full = False
    recorder.wait_for(lambda s: s.disk == "ok" and s.buffer_fill < 0.1, "the disk that takes tags again")
    found = recorder.end()
    assert_exact(found)
    assert (found.missing, found.gaps, found.ledger.dropped) == (0, {}, {})
    assert not (recorder.directory / RESERVE_NAME).exists()


def test_what_memory_cannot_hold_while_the_disk_is_full_is_dropped_counted_and_a_gap(record):
    disk = Disk()
    recorder = record(disk.files, buffer_mb=2.0)
    recorder.wait_for(lambda s: s.tags > 0, "the first tags")
    disk.full = True
    recorder.wait_for(lambda s: s.dropped > 100_000, "dropped tags")
    alarms = recorder.statuses[-1].alarms
    assert "dropped and counted" in alarms["tags dropped"]
    disk.full = False
    tags = recorder.statuses[-1].tags
    recorder.wait_for(lambda s: s.tags > tags + 400_000, "tags behind the gap")
    found = recorder.end()
    assert_exact(found)
    assert found.ledger.dropped[DISK_FULL] > 100_000
    assert found.missing == sum(found.ledger.dropped.values())
    assert 1 <= found.gaps[DISK_FULL] < 5


def test_a_disk_that_stays_full_still_gets_the_end_and_the_count_of_what_is_lost(record):
    disk = Disk()
    recorder = record(disk.files, buffer_mb=2.0)
    recorder.wait_for(lambda s: s.tags > 0, "the first tags")
    disk.full = True
    recorder.wait_for(lambda s: s.dropped > 0, "dropped tags")
    found = recorder.end()
    assert found.ended
    assert found.gaps[DISK_FULL] >= 1
    assert found.ledger.seen == found.tags + sum(found.ledger.dropped.values())


def test_the_ledger_balances_in_every_status_whatever_the_disk_does(record):
    disk = Disk()
    recorder = record(disk.files, buffer_mb=1.0)
    for full in (True, False):
        disk.full = full
        seen = recorder.statuses[-1].seen if recorder.statuses else 0
        recorder.wait_for(lambda s, seen=seen: s.seen > seen + 200_000, "more tags")
    recorder.end()
    assert len(recorder.statuses) >= 3
    assert all("ledger" not in status.alarms for status in recorder.statuses)
    assert all(s.seen == s.tags + s.dropped + s.in_flight for s in recorder.statuses[-1:])


def test_a_failing_disk_ends_the_recording_and_nothing_is_written_again(record):
    disk = Disk()
    recorder = record(disk.files)
    recorder.wait_for(lambda s: s.tags > 0, "the first tags")
    disk.broken = True
    recorder._thread.join(10.0)
    assert isinstance(recorder.raised, FsyncFailed)
    assert "the disk may be failing" in str(recorder.raised)
    found = check_recording(recorder.directory, TAGS)
    assert found.tags > 0
    assert not found.ended


def test_a_disk_too_slow_for_the_rate_costs_counted_tags_and_recovers_by_itself(record):
    disk = Disk()
    recorder = record(disk.files, buffer_mb=1.5)
    recorder.wait_for(lambda s: s.tags > 0, "the first tags")
    disk.fsync_s = 0.4  # 1.5 MB are 0.17 s of tags
    recorder.wait_for(lambda s: s.dropped > 100_000, "dropped tags")
    disk.fsync_s = 0.0
    since = len(recorder.statuses)
    recorder.wait_for(
        lambda s: any(s.tags >= e.tags + 300_000 and s.dropped == e.dropped for e in recorder.statuses[since:]),
        "a while without a loss",
    )
    found = recorder.end()
    assert_exact(found)
    assert found.missing == found.ledger.dropped[BUFFER_FULL] > 100_000
    assert found.gaps[BUFFER_FULL] < 20


@pytest.mark.slow
def test_a_tagger_faster_than_any_disk_is_recorded_as_well_as_possible(record):
    recorder = record(buffer_mb=8.0, rate_hz=0.0)
    recorder.wait_for(lambda s: s.dropped > 1_000_000, "dropped tags")
    found = recorder.end()
    assert_exact(found)
    assert found.missing > 0


def test_a_small_disk_that_fills_up_and_is_cleared_loses_nothing_but_what_it_says(record, small_disk):
    recorder = record(folder=small_disk, buffer_mb=2.0)
    recorder.wait_for(lambda s: s.disk == "reserved", "the full disk")
    recorder.wait_for(lambda s: s.dropped > 0, "dropped tags")
    held = recorder.statuses[-1].tags
    segments = sorted((recorder.directory / "tags").glob("*.h5"))
    kept = Path(tempfile.mkdtemp())
    for segment in segments[:-1]:  # the operator moves them away, and later back
        (kept / segment.name).write_bytes(segment.read_bytes())
        segment.unlink()
    recorder.wait_for(lambda s: s.tags > held, "tags in the new room")
    recorder.stop.set()
    recorder._thread.join(30.0)
    assert recorder.raised is None
    whole = kept / "recording"
    whole.mkdir()
    (whole / "manifest.json").write_bytes((recorder.directory / "manifest.json").read_bytes())
    (whole / "tags").mkdir()
    for segment in (recorder.directory / "tags").glob("*.h5"):
        (whole / "tags" / segment.name).write_bytes(segment.read_bytes())
    for segment in kept.glob("*.h5"):
        segment.rename(whole / "tags" / segment.name)
    found = check_recording(whole, TAGS)
    assert found.ended
    assert found.gaps[DISK_FULL] >= 1
    assert found.ledger.seen == found.tags + sum(found.ledger.dropped.values())


def test_no_recording_is_begun_where_it_does_not_fit(small_disk):
    with pytest.raises(BadInput, match="make room"):
        require_room(small_disk / "recording", 10e6)
    require_room(small_disk / "recording", 6e6)
    with pytest.raises(BadInput, match="has no room"):
        Space(small_disk, 10 * MB, 10.0)
    assert not (small_disk / RESERVE_NAME).exists()


def test_the_minutes_left_follow_the_rate_and_too_few_are_an_alarm(tmp_path):
    free = [9_000_000 * 60]  # a minute at 1 Mtag/s
    space = Space(tmp_path, MB, 10.0, lambda _: free[0])
    for second in range(30):
        space.look(float(second), second * 1_000_000, 0)
    assert space.minutes_left == pytest.approx(1.0)
    assert space.state is SpaceState.LOW
    assert space.trouble == "about 1 minutes of disk space left"
    free[0] *= 100
    space.look(30.0, 30_000_000, 0)
    assert space.state is SpaceState.OK
