"""What every weather station must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import astuple

import pytest

from groundstation.instruments import Weather


@pytest.fixture(scope="module")
def weather(device) -> Iterator[Weather]:
    """One connection for the suite."""
    weather: Weather = device.connect()
    with contextlib.closing(weather):
        yield weather


def test_it_measures_something_and_what_it_measures_is_possible(
    weather: Weather, measured: Callable[[str, object], None]
) -> None:
    reading = weather.read()
    assert any(value is not None for value in astuple(reading))
    limits = ((-90, 60), (0, 100), (500, 1100), (0, 100), (0, 360), (0, 2000))
    for value, (low, high) in zip(astuple(reading), limits, strict=True):
        assert value is None or low <= value <= high
    measured("reading", reading)


def test_it_reads_again_and_again(weather: Weather) -> None:
    temperatures = [weather.read().temperature_c for _ in range(20)]
    assert all(t is not None for t in temperatures) or all(t is None for t in temperatures)
