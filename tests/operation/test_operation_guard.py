"""The guard stops the mount when the main process dies or hangs, and proves that it stands still."""

import os
import threading
import time

import pytest
from operation_samples import DynamicsMount, eventually

from groundstation.clock import SystemClock
from groundstation.errors import TransportLost, TransportTimeout
from groundstation.operation import guard
from groundstation.operation.guard import DISMISSED, HEARTBEAT, stop_and_verify, watch

FAST_ARCSEC_S = 3600.0


class Watch:
    """A guard in a thread, at the far end of a real pipe."""

    def __init__(self, mount, timeout_s):
        self.reports = []
        reading, self._writing = os.pipe()
        self._reading = reading
        self.thread = threading.Thread(target=watch, args=(mount, reading, timeout_s, self.reports.append))
        self.thread.start()

    def say(self, data):
        os.write(self._writing, data)

    def die(self):
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def end(self):
        self.die()
        self.thread.join(15.0)
        os.close(self._reading)
        assert not self.thread.is_alive()


@pytest.fixture
def moving():
    mount = DynamicsMount(SystemClock())
    mount.set_rates(FAST_ARCSEC_S, FAST_ARCSEC_S)
    mount.commands.clear()
    return mount


@pytest.fixture
def guarding():
    """Start a guard; it ends with the test."""
    started = []

    def start(mount, timeout_s):
        started.append(Watch(mount, timeout_s))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_the_end_of_the_pipe_stops_the_mount_within_a_second(moving, guarding):
    guarded = guarding(moving, 60.0)
    guarded.say(HEARTBEAT)
    began_s = time.monotonic()
    guarded.die()
    eventually(lambda: guarded.reports)
    assert time.monotonic() - began_s < 1.0
    assert guarded.reports == [{"guard": "main process is gone", "stopped": True}]
    assert moving.rates_deg_s == (0.0, 0.0)
    guarded.thread.join(5.0)
    assert not guarded.thread.is_alive()


def test_silence_stops_the_mount_once(moving, guarding):
    guarded = guarding(moving, 0.2)
    eventually(lambda: guarded.reports)
    assert moving.rates_deg_s == (0.0, 0.0)
    moving.commands.clear()
    time.sleep(0.4)  # two more times of silence: the mount may be somebody else's by now
    assert guarded.reports == [{"guard": "main process is silent", "stopped": True}]
    assert moving.commands == []


def test_a_main_process_that_wakes_up_is_watched_again(moving, guarding):
    guarded = guarding(moving, 0.2)
    eventually(lambda: len(guarded.reports) == 1)
    moving.set_rates(FAST_ARCSEC_S, 0.0)
    guarded.say(HEARTBEAT)
    eventually(lambda: len(guarded.reports) == 2)
    assert moving.rates_deg_s == (0.0, 0.0)


def test_as_long_as_there_are_heartbeats_nothing_is_touched(moving, guarding):
    guarded = guarding(moving, 0.5)
    for _ in range(30):
        guarded.say(HEARTBEAT)
        time.sleep(0.02)
    assert guarded.reports == []
    assert moving.commands == []
    guarded.say(DISMISSED)


@pytest.mark.parametrize("last_words", [DISMISSED, HEARTBEAT * 5 + DISMISSED])
def test_a_guard_that_is_dismissed_leaves_the_mount_alone(moving, guarding, last_words):
    guarded = guarding(moving, 60.0)
    guarded.say(last_words)
    guarded.die()
    guarded.thread.join(5.0)
    assert not guarded.thread.is_alive()
    assert guarded.reports == []
    assert moving.commands == []
    assert moving.rates_deg_s != (0.0, 0.0)


@pytest.mark.parametrize("error", [TransportTimeout("no answer"), TransportLost("unplugged")])
def test_a_link_that_fails_at_first_is_tried_again(moving, guarding, error):
    failures = iter([error] * 4)

    def fail(command):
        if (failure := next(failures, None)) is not None:
            raise failure

    moving.fail = fail
    guarded = guarding(moving, 60.0)
    guarded.die()
    eventually(lambda: guarded.reports)
    assert guarded.reports == [{"guard": "main process is gone", "stopped": True}]
    assert moving.rates_deg_s == (0.0, 0.0)


def test_a_mount_that_does_not_answer_at_all_is_not_said_to_stand_still(moving, monkeypatch):
    monkeypatch.setattr(guard, "_PATIENCE_S", 0.3)

    def fail(command):
        raise TransportLost("unplugged")

    moving.fail = fail
    assert stop_and_verify(moving) is False
    assert moving.commands.count("stop") >= 3


def test_a_mount_that_ignores_the_command_is_told_again_and_not_believed(moving, monkeypatch):
    """It accepts `stop` and goes on: only the second reading tells."""
    monkeypatch.setattr(guard, "_PATIENCE_S", 0.5)
    deaf = []
    stop = moving.stop
    moving.stop = lambda: deaf.append(1)
    assert stop_and_verify(moving) is False
    assert len(deaf) >= 2
    moving.stop = lambda: (deaf.append(1), stop() if len(deaf) > 8 else None)
    monkeypatch.setattr(guard, "_PATIENCE_S", 5.0)
    assert stop_and_verify(moving) is True
    assert moving.rates_deg_s == (0.0, 0.0)


def test_a_mount_that_stands_still_is_verified_across_north():
    mount = DynamicsMount(SystemClock())  # parks at azimuth 0, where encoder noise reads 359.9999 as well
    for _ in range(3):
        assert stop_and_verify(mount)
