"""The daemon for a long time at 1 Mtag/s, killed again and again: memory and open files flat, ledger exact.

`SOAK_S` is how long (default 30 s) and `SOAK_RESTART_S` how often it is killed (default 10 s); the issue's hour:

    SOAK_S=3600 SOAK_RESTART_S=300 pytest -m slow -s tests/acquisition/test_acquisition_soak.py

which needs 35 GB of disk.
"""

import os
import time
from pathlib import Path

import pytest
from acquisition_samples import Counted, check_recording
from daemon_process import Daemon, Source, station

from groundstation.acquisition.receiver import INTERRUPTED

RATE_HZ = 1_000_000
#: After so long a life has allocated what it ever will.
_WARM_S = 4.0
#: Memory that may come and go: a few segments and what the allocator keeps.
_BREATHING_MB = 48


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_memory_and_open_files_stay_flat_and_the_ledger_exact(tmp_path: Path) -> None:
    soak_s, life_s = float(os.environ.get("SOAK_S", "30")), float(os.environ.get("SOAK_RESTART_S", "10"))
    source, output = Source(RATE_HZ), tmp_path / "recording"
    config = station(tmp_path, source.address, space_factor=0.0)
    end_s, acknowledged, lives = time.monotonic() + soak_s, 0, []
    while time.monotonic() < end_s:
        daemon = Daemon(config, output)
        daemon.wait_for_tags(acknowledged)
        lives.append(_watch(daemon, min(life_s, max(_WARM_S + 2.0, end_s - time.monotonic()))))
        daemon.kill()
        acknowledged = daemon.acknowledged
        alarms = [status["alarms"] for status in daemon.statuses if status.get("alarms")]
        assert not alarms, alarms[:3]
    daemon = Daemon(config, output)
    daemon.wait_for_tags(acknowledged)
    assert daemon.end() == 0, daemon.errors()
    source.close()
    found = check_recording(output, Counted(RATE_HZ))
    for memory, files in lives:
        assert max(memory) - memory[0] < _BREATHING_MB, memory
        assert max(files) - min(files) <= 4, files  # the file, the directory, and what numpy opens for a moment
    first, last = lives[0][0], lives[-1][0]
    assert abs(max(last) - max(first)) < _BREATHING_MB
    assert found.ended
    assert found.gaps == {INTERRUPTED: len(lives)}
    assert found.ledger.seen == found.ledger.recorded == found.tags >= acknowledged
    peaks = [max(memory) for memory, _ in lives]
    print(  # noqa: T201  the figures of a long run, seen with -s
        f"\n{len(lives)} lives, {found.tags:,} tags in {found.segments:,} segments, {found.missing:,} missed while it "
        f"was dead; memory {min(peaks):.0f} to {max(peaks):.0f} MB"
    )


def _watch(daemon: Daemon, seconds: float) -> tuple[list[float], list[int]]:
    """Memory and open files of a life, once it is warm."""
    time.sleep(_WARM_S)
    memory, files, until_s = [], [], time.monotonic() + seconds - _WARM_S
    while time.monotonic() < until_s:
        memory.append(memory_mb(daemon.process.pid))
        files.append(open_files(daemon.process.pid))
        time.sleep(0.2)
    return memory, files
