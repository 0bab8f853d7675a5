"""A pointing error that is large or unknown for long is told once, and its end is told once."""

import pytest

from groundstation.operation import pointing_watch
from groundstation.operation.pointing_watch import PointingWatch


@pytest.fixture
def clock(monkeypatch):
    """Wall time that the test moves."""
    now = [100.0]
    monkeypatch.setattr(pointing_watch, "monotonic_s", lambda: now[0])
    return now


def fed(watch, clock, *turns):
    """Sentences of turns (error, seconds that it lasts), ten turns a second."""
    told = []
    for error, seconds in turns:
        for _ in range(round(seconds * 10)):
            clock[0] += 0.1
            told.append(watch.feed(error))
    return [sentence for sentence in told if sentence]


def test_a_good_pass_says_nothing(clock):
    assert fed(PointingWatch(30.0), clock, (0.4, 60), (29.9, 60), (None, 4.9), (3.0, 1)) == []


def test_a_large_error_counts_after_two_seconds_and_once(clock):
    watch = PointingWatch(30.0)
    assert fed(watch, clock, (1.0, 1), (80.0, 1.9), (1.0, 1)) == []
    (begin,) = fed(watch, clock, (80.0, 60))
    assert begin == watch.alarm == "the pointing error is above 30 arcsec for more than 2 s: 80 arcsec"
    (end,) = fed(watch, clock, (130.0, 1), (5.0, 10))
    assert end == "the pointing error is below 30 arcsec again after 61.1 s, 130 arcsec at worst"
    assert watch.alarm == ""


def test_an_unknown_error_counts_after_five_seconds(clock):
    watch = PointingWatch(30.0)
    assert fed(watch, clock, (1.0, 1), (None, 4.9)) == []
    assert fed(watch, clock, (None, 60)) == ["the pointing error is unknown for more than 5 s"]
    (end,) = fed(watch, clock, (5.0, 1))
    assert end == "the pointing error is below 30 arcsec again after 65.0 s"


def test_turns_that_tell_nothing_do_not_hide_a_large_error(clock):
    watch = PointingWatch(30.0)
    told = fed(watch, clock, *[(90.0, 0.1), (None, 0.1)] * 20)
    assert [sentence[:30] for sentence in told] == ["the pointing error is above 30"]
