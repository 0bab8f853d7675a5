"""What every time base must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from groundstation.clock import NS_PER_S
from groundstation.instruments import TimeBase


@pytest.fixture(scope="module")
def time_base(device, eventually: Callable[[Callable[[], bool], float], None]) -> Iterator[TimeBase]:
    """One connection for the suite, to a time base that has found its satellites."""
    time_base: TimeBase = device.connect()
    with contextlib.closing(time_base):
        eventually(lambda: time_base.status().locked, 120.0)
        yield time_base


def test_a_locked_one_has_no_trouble(time_base: TimeBase, measured: Callable[[str, object], None]) -> None:
    status = time_base.status()
    assert status.locked
    assert not status.in_holdover
    assert status.trouble == ""
    measured("status", status)


def test_its_utc_is_that_of_the_station(time_base: TimeBase, device) -> None:
    status = time_base.status()
    if status.utc_ns is None:
        pytest.skip("this one does not tell the time of day")
    assert abs(status.utc_ns - device.clock.utc_ns()) < 2 * NS_PER_S * device.clock.speed


def test_what_it_measures_is_plausible(time_base: TimeBase) -> None:
    status = time_base.status()
    assert status.offset_ns is None or abs(status.offset_ns) < 1e6
    assert status.frequency_error is None or abs(status.frequency_error) < 1e-6
    assert status.leap_s is None or 0 <= status.leap_s < 60
