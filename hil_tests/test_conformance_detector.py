"""What every single-photon detector must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from groundstation.errors import BadInput, GroundStationError
from groundstation.instruments import Detector


@pytest.fixture(scope="module")
def detector(device) -> Iterator[Detector]:
    """One connection for the suite."""
    detector: Detector = device.connect()
    with contextlib.closing(detector):
        yield detector


def test_it_reads_plausible_values(detector: Detector) -> None:
    assert 0 <= detector.bias_v() < 2000
    assert -10 < detector.threshold_v() < 10
    assert -120 < detector.temperature_c() < 60
    assert -120 < detector.temperature_setpoint_c() < 60


def test_counting_takes_the_integration_time_and_gives_a_whole_number(
    detector: Detector, device, measured: Callable[[str, object], None]
) -> None:
    for integration_s in (0.1, 1.0):
        started_ns = device.clock.utc_ns()
        counts = detector.counts(integration_s)
        assert isinstance(counts, int)
        assert counts >= 0
        assert device.clock.utc_ns() - started_ns >= 0.9 * integration_s * 1e9
        measured(f"counts in {integration_s:g} s", counts)


@pytest.mark.parametrize("integration_s", [0.0, -1.0, float("nan")])
def test_an_integration_that_is_none_is_refused(detector: Detector, integration_s: float) -> None:
    with pytest.raises(BadInput):
        detector.counts(integration_s)


@pytest.mark.disturb(1)
def test_the_threshold_keeps_what_it_is_given_and_is_put_back(detector: Detector) -> None:
    assert_kept(detector.threshold_v, detector.set_threshold_v, 0.02, 0.005)


@pytest.mark.disturb(1)
def test_the_temperature_setpoint_keeps_what_it_is_given_and_is_put_back(detector: Detector) -> None:
    assert_kept(detector.temperature_setpoint_c, detector.set_temperature_setpoint_c, 2.0, 0.1)


@pytest.mark.disturb(2)
def test_the_bias_keeps_what_it_is_given_and_is_put_back(detector: Detector) -> None:
    assert_kept(detector.bias_v, detector.set_bias_v, -5.0 if detector.bias_v() > 5.0 else 5.0, 0.5)


@pytest.mark.disturb(2)
def test_the_cooling_is_switched_and_put_back(detector: Detector) -> None:
    before = detector.is_cooling()
    try:
        detector.switch_cooling(not before)
        assert detector.is_cooling() is not before
    finally:
        detector.switch_cooling(before)
    assert detector.is_cooling() is before


def assert_kept(get: Callable[[], float], set_value: Callable[[float], None], step: float, tolerance: float) -> None:
    before = get()
    try:
        set_value(before + step)
        assert get() == pytest.approx(before + step, abs=tolerance)
    finally:
        set_value(before)
    assert get() == pytest.approx(before, abs=tolerance)


@pytest.mark.disturb(2)
@pytest.mark.parametrize("value", [1e6, -1e6, float("nan")])
@pytest.mark.parametrize("name", ["bias_v", "threshold_v", "temperature_setpoint_c"])
def test_a_setting_out_of_range_is_refused_and_changes_nothing(detector: Detector, name: str, value: float) -> None:
    before = getattr(detector, name)()
    with pytest.raises(GroundStationError):
        getattr(detector, f"set_{name}")(value)
    assert getattr(detector, name)() == pytest.approx(before, abs=0.5)
