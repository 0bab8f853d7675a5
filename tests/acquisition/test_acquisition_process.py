"""The daemon as a process: killed, refused, ended, supervised; every acknowledged tag is still there, bit for bit."""

import argparse
import configparser
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acquisition_samples import Counted, check_recording
from daemon_process import Daemon, Source, station

from groundstation.acquisition.receiver import INTERRUPTED
from groundstation.cli import acquire
from groundstation.config import DEFAULT_CONFIG
from groundstation.recording.writer import segment_name, segment_numbers

RATE_HZ = 1_000_000
#: No room for an hour is demanded here.
SMALL = {"space_factor": 0.0}


@pytest.fixture
def source() -> Iterator[Source]:
    running = Source(RATE_HZ)
    yield running
    running.close()


def kill_and_go_on(tmp_path: Path, source: Source, kills: int, seed: int, longest: int) -> None:
    """Each life is killed when it has acknowledged up to `longest` tags more."""
    config, output, at_random = station(tmp_path, source.address, **SMALL), tmp_path / "recording", random.Random(seed)
    acknowledged = 0
    for _ in range(kills):
        daemon = Daemon(config, output)
        daemon.wait_for_tags(acknowledged + at_random.randrange(longest))
        daemon.kill()
        assert daemon.acknowledged > acknowledged
        acknowledged = daemon.acknowledged
    daemon = Daemon(config, output)
    daemon.wait_for_tags(acknowledged)
    assert daemon.end() == 0, daemon.errors()
    found = check_recording(output, Counted(RATE_HZ))
    assert found.ended
    assert found.tags >= daemon.acknowledged
    assert found.gaps == {INTERRUPTED: kills}
    assert found.ledger.dropped == {}


def test_a_kill_costs_nothing_that_was_acknowledged(tmp_path: Path, source: Source) -> None:
    kill_and_go_on(tmp_path, source, 1, seed=1, longest=200_000)


@pytest.mark.slow
def test_thirty_kills_cost_nothing_that_was_acknowledged(tmp_path: Path, source: Source) -> None:
    kill_and_go_on(tmp_path, source, 30, seed=2, longest=1_000_000)


def test_an_error_of_fsync_ends_the_process_loudly(tmp_path: Path, source: Source) -> None:
    """The twelfth fsync, in mid-recording, says EIO."""
    code = (
        "import os, errno\n"
        "real, calls = os.fsync, []\n"
        "def failing(descriptor):\n"
        "    calls.append(descriptor)\n"
        "    if len(calls) == 12: raise OSError(errno.EIO, os.strerror(errno.EIO))\n"
        "    real(descriptor)\n"
        "os.fsync = failing\n"
    )
    output = tmp_path / "recording"
    daemon = Daemon(station(tmp_path, source.address, **SMALL), output, code=code)
    assert daemon.wait() == 1
    assert daemon.errors().count("\n") == 1
    assert "the disk may be failing" in daemon.errors()
    found = check_recording(output, Counted(RATE_HZ))
    assert found.tags >= daemon.acknowledged > 0
    assert not found.ended


@pytest.mark.slow
def test_a_recording_that_does_not_fit_is_not_begun(tmp_path: Path, source: Source) -> None:
    config, output = station(tmp_path, source.address, max_rate_hz=1e9, space_factor=1000.0), tmp_path / "recording"
    daemon = Daemon(config, output)
    assert daemon.wait() == 2
    assert "make room" in daemon.errors()
    assert not output.exists()


@pytest.mark.slow
def test_whoever_does_not_listen_does_not_hold_up_the_recorder(tmp_path: Path, source: Source) -> None:
    """A stopped terminal: nobody reads what it says, and the pipe is full after a few statuses."""
    config, output = station(tmp_path, source.address, **SMALL), tmp_path / "recording"
    heard, said = os.pipe()
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 4096)
    os.write(said, bytes(4096))
    line = [sys.executable, "-m", "groundstation.cli", "acquire", "--config", str(config), "--output", str(output)]
    with subprocess.Popen([*line, "--json"], stdout=said, stderr=subprocess.PIPE) as daemon:
        deadline = time.monotonic() + 60.0
        while len(list(output.glob("tags/*.h5"))) < 4:  # after the first status
            assert time.monotonic() < deadline, "the recorder stands still"
            time.sleep(0.01)
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(60.0) == 0
    os.close(said)
    os.close(heard)
    assert check_recording(output, Counted(RATE_HZ)).ended


def test_a_tagger_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    """Exit code 1: the unit does not try again after 2."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
    daemon = Daemon(station(tmp_path, address, **SMALL), tmp_path / "recording")
    assert daemon.wait() == 1
    assert "check address, cable and power" in daemon.errors()
    assert daemon.errors().count("\n") == 1


@pytest.mark.slow
def test_a_recording_has_one_recorder_only(tmp_path: Path, source: Source) -> None:
    config, output = station(tmp_path, source.address, **SMALL), tmp_path / "recording"
    first = Daemon(config, output)
    first.wait_for_tags(0)
    second = Daemon(config, output)
    assert second.wait() == 2
    assert "stop" in second.errors()
    first.wait_for_tags(first.acknowledged)
    assert first.end(signal.SIGTERM) == 0
    third = Daemon(config, output)
    assert third.wait() == 2
    assert "has ended" in third.errors()
    assert check_recording(output, Counted(RATE_HZ)).gaps == {}


def test_systemd_hears_that_it_is_ready_alive_and_stopping(tmp_path: Path, source: Source) -> None:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(30.0)
        config, output = station(tmp_path, source.address, **SMALL), tmp_path / "recording"
        daemon = Daemon(config, output, "--duration", 0.4, NOTIFY_SOCKET=str(tmp_path / "notify"))
        heard = [ear.recv(1000).decode()]
        while heard[-1] != "STOPPING=1":
            heard.append(ear.recv(1000).decode())
        assert daemon.wait() == 0, daemon.errors()
    assert heard[0] == "READY=1"
    assert heard.count("READY=1") == heard.count("STOPPING=1") == 1
    assert set(heard) == {"READY=1", "WATCHDOG=1", "STOPPING=1"}
    assert heard.count("WATCHDOG=1") <= len(list((output / "tags").glob("*.h5")))


def test_the_shipped_unit_starts_the_daemon_as_it_wants_to_be_started() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys of systemd have capitals
    unit.read(DEFAULT_CONFIG.parent / "groundstation-acquire.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["WatchdogSec"]) > 2 * 10  # one segment in ten seconds while the disk is full
    words = service["ExecStart"].split()[1:]
    parser = argparse.ArgumentParser()
    acquire.add_arguments(parser)
    assert words[0] == "acquire"
    assert parser.parse_args(words[1:]).json


@pytest.mark.slow
def test_alone_with_a_simulated_tagger_it_records_and_without_a_name_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "groundstation.cli", "acquire", "--duration", "1"]
    first = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (first.returncode, first.stderr) == (0, "")
    (ended,) = tmp_path.glob("tags-*")
    assert f"Recorded in {ended.name}." in first.stdout
    number = max(segment_numbers(ended / "tags"))
    (ended / "tags" / segment_name(number)).unlink()  # as if it had been killed before its end
    (ended / "tags" / segment_name(1)).rename(ended / "moved")
    for path in (ended / "tags").glob("*.h5"):
        path.unlink()
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (second.returncode, second.stderr) == (0, "")
    assert f"Goes on in {ended.name}" in second.stdout
    assert list(tmp_path.glob("tags-*")) == [ended]
