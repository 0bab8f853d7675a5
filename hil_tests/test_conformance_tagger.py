"""What every time tagger must do, whatever its model. Some signal must be connected (beacon, 1PPS or dark counts)."""

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from groundstation.instruments import PatternBlock, TimeTagger

WATCH_S = 2.0  # wall time


@pytest.fixture(scope="module")
def tagger(device) -> Iterator[TimeTagger]:
    """One connection for the suite."""
    tagger: TimeTagger = device.connect()
    with contextlib.closing(tagger):
        yield tagger


@pytest.fixture(scope="module")
def blocks(tagger: TimeTagger) -> list[PatternBlock]:
    """Two seconds of what arrives."""
    deadline = time.monotonic() + WATCH_S
    found = []
    while time.monotonic() < deadline:
        found.append(tagger.read(0.2))
    return found


def test_its_tick_is_that_of_a_time_tagger(tagger: TimeTagger) -> None:
    assert 0.01 <= tagger.resolution_ps <= 10_000


def test_blocks_are_two_parallel_arrays_of_integers(blocks: list[PatternBlock]) -> None:
    for block in blocks:
        assert block.time_ps.dtype == np.int64
        assert block.pattern.dtype == np.uint8
        assert block.time_ps.shape == block.pattern.shape
        assert block.missed is None or block.missed >= 0


def test_times_never_decrease_and_no_event_is_older_than_promised(blocks: list[PatternBlock]) -> None:
    latest_ps = -1
    for block in blocks:
        times = np.concatenate(([latest_ps], block.time_ps, [block.latest_ps]))
        assert np.all(np.diff(times) >= 0)
        latest_ps = block.latest_ps


def test_the_device_time_advances_as_fast_as_the_world(tagger: TimeTagger, device) -> None:
    first = tagger.read(1.0).latest_ps
    started_ns = device.clock.utc_ns()
    time.sleep(1.0)  # what is measured is elapsed time
    last = max(tagger.read(1.0).latest_ps for _ in range(20))
    world_s = (device.clock.utc_ns() - started_ns) * 1e-9
    assert (last - first) * 1e-12 == pytest.approx(world_s, abs=0.5 * device.clock.speed)


def test_the_rates_are_plausible(blocks: list[PatternBlock], measured: Callable[[str, object], None]) -> None:
    patterns = np.concatenate([block.pattern for block in blocks])
    span_s = (blocks[-1].latest_ps - min(b.time_ps[0] for b in blocks if b.time_ps.size)) * 1e-12
    assert 1.0 <= patterns.size / span_s < 100e6
    inputs = {number: np.count_nonzero(patterns >> (number - 1) & 1) / span_s for number in range(1, 9)}
    measured("rates", ", ".join(f"input {number} {hz:.0f} Hz" for number, hz in inputs.items() if hz))
    assert 0 not in patterns


def test_nothing_had_to_be_repaired(blocks: list[PatternBlock]) -> None:
    assert [note for block in blocks for note in block.notes] == []


def test_it_says_what_it_is_and_keeps_the_events_it_watched(tagger: TimeTagger) -> None:
    before_ps = tagger.read(1.0).latest_ps
    assert tagger.identify().model
    block = tagger.read(1.0)
    assert np.all(block.time_ps >= before_ps)
    assert tagger.identify() == tagger.identify()
