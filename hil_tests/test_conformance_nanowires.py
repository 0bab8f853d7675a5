"""What every controller of superconducting nanowire detectors must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from groundstation.errors import GroundStationError
from groundstation.instruments import NanowireDetector


@pytest.fixture(scope="module")
def nanowires(device) -> Iterator[NanowireDetector]:
    """One connection for the suite."""
    nanowires: NanowireDetector = device.connect()
    with contextlib.closing(nanowires):
        yield nanowires


def test_every_channel_reads_its_settings(nanowires: NanowireDetector) -> None:
    assert nanowires.channels >= 1
    for channel in range(1, nanowires.channels + 1):
        assert -1000.0 <= nanowires.bias_ua(channel) <= 1000.0
        assert -10_000.0 <= nanowires.trigger_mv(channel) <= 10_000.0


def test_counting_gives_a_whole_number_for_each_channel(
    nanowires: NanowireDetector, measured: Callable[[str, object], None]
) -> None:
    counts = nanowires.counts(1.0)
    assert len(counts) == nanowires.channels
    assert all(isinstance(n, int) and n >= 0 for n in counts)
    measured("counts in 1 s", ", ".join(map(str, counts)))


@pytest.mark.disturb(1)
def test_a_trigger_level_is_kept_and_put_back(nanowires: NanowireDetector) -> None:
    assert_kept(lambda: nanowires.trigger_mv(1), lambda mv: nanowires.set_trigger_mv(1, mv), 5.0)


@pytest.mark.disturb(2)
def test_a_bias_is_kept_and_put_back(nanowires: NanowireDetector) -> None:
    others = [nanowires.bias_ua(channel) for channel in range(2, nanowires.channels + 1)]
    assert_kept(lambda: nanowires.bias_ua(1), lambda ua: nanowires.set_bias_ua(1, ua), -1.0)
    assert [nanowires.bias_ua(channel) for channel in range(2, nanowires.channels + 1)] == others


def assert_kept(get: Callable[[], float], set_value: Callable[[float], None], step: float) -> None:
    before = get()
    try:
        set_value(before + step)
        assert get() == pytest.approx(before + step, abs=0.2)
    finally:
        set_value(before)
    assert get() == pytest.approx(before, abs=0.2)


@pytest.mark.disturb(2)
def test_a_reset_gives_the_bias_back(nanowires: NanowireDetector) -> None:
    before = nanowires.bias_ua(1)
    if not before:
        pytest.skip("channel 1 has no bias; set its operating point first")
    try:
        nanowires.reset(1)
        assert nanowires.bias_ua(1) == pytest.approx(before, abs=0.2)
        assert not nanowires.latched(1)
    finally:
        nanowires.set_bias_ua(1, before)


def test_a_channel_that_does_not_exist_is_refused(nanowires: NanowireDetector) -> None:
    for channel in (0, nanowires.channels + 1):
        with pytest.raises(GroundStationError):
            nanowires.bias_ua(channel)
