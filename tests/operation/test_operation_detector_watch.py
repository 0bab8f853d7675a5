"""Detectors are read in turn; one that falls silent is told of once, and again after it came back."""

import pytest
from operation_samples import FakeDetector, eventually

from groundstation.clock import SystemClock
from groundstation.operation import detector_watch
from groundstation.operation.detector_watch import DetectorWatch


class Notes:
    """A logbook that is only looked at."""

    def __init__(self):
        self.events, self.rows = [], []

    def event(self, kind, sentence):
        self.events.append((kind, sentence))

    def detector(self, *row):
        self.rows.append(row)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(detector_watch, "_INTERVAL_S", 0.005)
    detectors = {name: FakeDetector() for name in "HVDA"}
    notes = Notes()
    watch = DetectorWatch(detectors, notes, SystemClock())
    watch.start()
    yield detectors, notes, watch
    watch.stop()


def test_every_detector_is_read_again_and_again(watched):
    detectors, notes, _ = watched
    detectors["D"].set_bias_v(190.0)
    eventually(lambda: any(row[1:3] == (2, 190.0) for row in notes.rows))
    eventually(lambda: len(notes.rows) > 12)
    assert {row[1] for row in notes.rows} == {0, 1, 2, 3}
    assert [row[0] for row in notes.rows] == sorted(row[0] for row in notes.rows)
    assert {row[3:] for row in notes.rows} == {(20.0, 1_000.0)}, "temperature and rate"
    assert notes.events == []


def test_a_silent_detector_is_told_of_once_each_time(watched):
    detectors, notes, watch = watched
    eventually(lambda: len(notes.rows) > 4)
    detectors["V"].broken = True
    eventually(lambda: notes.events)
    read = len(notes.rows)
    eventually(lambda: len(notes.rows) > read + 9)
    assert notes.events == [("alarm", "detector V: the detector does not answer")]
    (alarm,) = watch.alarms
    assert alarm.startswith("detector V does not answer since 20")
    detectors["V"].broken = False
    read = len(notes.rows)
    eventually(lambda: 1 in {row[1] for row in notes.rows[read:]})
    assert notes.events[1:] == [("alarm", "detector V answers again; its bias is 0 V")]
    assert watch.alarms == ()
    detectors["V"].broken = True
    eventually(lambda: len(notes.events) == 3)


def test_stop_returns_when_nothing_is_asked_any_more(watched):
    _, notes, watch = watched
    watch.stop()
    read = len(notes.rows)
    assert not watch._thread.is_alive()
    assert len(notes.rows) == read
