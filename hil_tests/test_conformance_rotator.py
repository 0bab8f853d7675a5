"""What every rotation stage must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from groundstation.errors import BadInput
from groundstation.instruments import Rotator

ARRIVES_WITHIN_DEG = 0.05
Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture(scope="module")
def rotator(device, eventually: Eventually) -> Iterator[Rotator]:
    """One connection for the suite, to a stage that knows where it is if it may be moved."""
    rotator: Rotator = device.connect()
    with contextlib.closing(rotator):
        if device.max_disturb >= 2:
            rotator.home()
            eventually(lambda: not rotator.is_moving(), 120.0)
        try:
            yield rotator
        finally:
            if device.max_disturb >= 2:
                rotator.stop()


def turned_deg(a: float, b: float) -> float:
    return (a - b + 180.0) % 360.0 - 180.0


def test_it_reads_an_angle(rotator: Rotator) -> None:
    assert -720.0 <= rotator.angle_deg() <= 720.0


@pytest.mark.disturb(2)
@pytest.mark.parametrize("angle_deg", [45.0, 22.5, 0.0])
def test_it_goes_to_an_angle(rotator: Rotator, eventually: Eventually, angle_deg: float) -> None:
    rotator.go_to(angle_deg)
    eventually(lambda: not rotator.is_moving(), 60.0)
    assert turned_deg(rotator.angle_deg(), angle_deg) == pytest.approx(0.0, abs=ARRIVES_WITHIN_DEG)


@pytest.mark.disturb(2)
def test_stopping_ends_the_motion_on_the_way(rotator: Rotator, eventually: Eventually, device) -> None:
    rotator.go_to(170.0)
    eventually(rotator.is_moving, 5.0)
    rotator.stop()
    eventually(lambda: not rotator.is_moving(), 10.0)
    here = rotator.angle_deg()
    device.clock.sleep_s(5.0)
    assert turned_deg(rotator.angle_deg(), here) == pytest.approx(0.0, abs=ARRIVES_WITHIN_DEG)
    assert abs(turned_deg(here, 170.0)) > 1.0


@pytest.mark.disturb(1)
@pytest.mark.parametrize("angle_deg", [float("nan"), float("inf"), 1e9])
def test_an_angle_that_is_none_is_refused(rotator: Rotator, angle_deg: float) -> None:
    with pytest.raises(BadInput):
        rotator.go_to(angle_deg)
