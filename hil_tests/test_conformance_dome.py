"""What every dome must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from groundstation.errors import BadInput
from groundstation.instruments import Dome

Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture(scope="module")
def dome(device) -> Iterator[Dome]:
    """One connection for the suite; at its end the dome is closed if it could be opened at all."""
    dome: Dome = device.connect()
    with contextlib.closing(dome):
        try:
            yield dome
        finally:
            if device.max_disturb >= 2:
                dome.stop()
                dome.close_shutter()


def test_it_reads_azimuth_and_shutter(dome: Dome) -> None:
    assert 0.0 <= dome.azimuth_deg() < 360.0
    assert dome.shutter() in ("open", "opening", "closed", "closing", "error")


@pytest.mark.disturb(2)
def test_it_turns_to_an_azimuth(dome: Dome, eventually: Eventually) -> None:
    for azimuth_deg in (90.0, 350.0):
        dome.go_to(azimuth_deg)
        eventually(lambda: not dome.is_moving(), 120.0)
        assert (dome.azimuth_deg() - azimuth_deg + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=2.0)


@pytest.mark.disturb(2)
def test_its_shutter_opens_and_closes(dome: Dome, eventually: Eventually) -> None:
    dome.open_shutter()
    eventually(lambda: dome.shutter() == "open", 120.0)
    dome.close_shutter()
    eventually(lambda: dome.shutter() == "closed", 120.0)


@pytest.mark.disturb(1)
@pytest.mark.parametrize("azimuth_deg", [float("nan"), float("inf")])
def test_an_azimuth_that_is_none_is_refused(dome: Dome, azimuth_deg: float) -> None:
    with pytest.raises(BadInput):
        dome.go_to(azimuth_deg)
