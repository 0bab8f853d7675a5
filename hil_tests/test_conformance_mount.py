"""What every mount must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, TransportLost
from groundstation.instruments import Mount, MountReading

ARCSEC = 1 / 3600
POINTING_ARCSEC = 10.0  # a go-to of this class of mounts arrives this close
Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture(scope="module")
def mount(device) -> Iterator[Mount]:
    """One connection for the suite; a mount that was moved is stopped at its end, whatever happens."""
    mount: Mount = device.connect()
    with contextlib.closing(mount):
        try:
            yield mount
        finally:
            if device.max_disturb >= 2:
                with contextlib.suppress(TransportLost):  # the last test closes it, standing still
                    mount.stop()


def difference_deg(a: float, b: float) -> float:
    return (a - b + 180.0) % 360.0 - 180.0


def go_to(mount: Mount, azimuth_deg: float, elevation_deg: float, eventually: Eventually) -> MountReading:
    mount.go_to(azimuth_deg, elevation_deg)
    eventually(lambda: not mount.is_slewing(), 60.0)
    return mount.read_position()


def mean_rates_arcsec_s(first: MountReading, second: MountReading) -> tuple[float, float]:
    seconds = (second.utc_ns - first.utc_ns) / NS_PER_S
    return (
        difference_deg(second.azimuth_deg, first.azimuth_deg) / ARCSEC / seconds,
        (second.elevation_deg - first.elevation_deg) / ARCSEC / seconds,
    )


def test_it_says_what_it_is(mount: Mount) -> None:
    identity = mount.identify()
    assert identity.model
    assert mount.identify() == identity


def test_its_capabilities_are_those_of_a_mount(mount: Mount) -> None:
    can = mount.capabilities
    assert can.max_rate_deg_s > 0
    assert can.max_acceleration_deg_s2 > 0
    assert 0 < can.rate_quantum_arcsec_s < 60
    assert 0 <= can.command_latency_s < 1


def test_readings_follow_each_other_in_time_and_know_their_uncertainty(mount: Mount, device) -> None:
    before_ns = device.clock.utc_ns()
    readings = [mount.read_position() for _ in range(50)]
    after_ns = device.clock.utc_ns()
    times = [before_ns, *(reading.utc_ns for reading in readings), after_ns]
    assert times == sorted(set(times))
    for reading in readings:
        assert 0 <= reading.azimuth_deg < 360
        assert -90 <= reading.elevation_deg <= 90
        assert 0 <= reading.uncertainty_s < 1.0 * device.clock.speed


@pytest.mark.disturb(2)
def test_a_go_to_arrives(mount: Mount, eventually: Eventually) -> None:
    for azimuth_deg, elevation_deg in ((30.0, 20.0), (350.0, 60.0), (10.0, 45.0)):
        arrived = go_to(mount, azimuth_deg, elevation_deg, eventually)
        assert difference_deg(arrived.azimuth_deg, azimuth_deg) == pytest.approx(0, abs=POINTING_ARCSEC * ARCSEC)
        assert arrived.elevation_deg == pytest.approx(elevation_deg, abs=POINTING_ARCSEC * ARCSEC)


@pytest.mark.disturb(2)
def test_it_turns_at_the_commanded_rates_until_told_otherwise(mount: Mount, eventually: Eventually, device) -> None:
    go_to(mount, 100.0, 45.0, eventually)
    can = mount.capabilities
    for azimuth_arcsec_s, elevation_arcsec_s in ((900.0, -600.0), (-1800.25, 300.0), (37.5, 0.0)):
        mount.set_rates(azimuth_arcsec_s, elevation_arcsec_s)
        device.clock.sleep_s(2.0)  # to get up to speed
        first = mount.read_position()
        device.clock.sleep_s(10.0)
        second = mount.read_position()
        seconds = (second.utc_ns - first.utc_ns) / NS_PER_S
        rates = mean_rates_arcsec_s(first, second)
        for found, wanted in zip(rates, (azimuth_arcsec_s, elevation_arcsec_s), strict=True):
            timing = abs(wanted) * (first.uncertainty_s + second.uncertainty_s) / seconds
            assert found == pytest.approx(
                wanted, abs=can.rate_quantum_arcsec_s + timing + 2 * POINTING_ARCSEC / seconds
            )
    mount.stop()


@pytest.mark.disturb(2)
def test_it_is_never_faster_than_it_says(mount: Mount, eventually: Eventually, device) -> None:
    go_to(mount, 200.0, 45.0, eventually)
    mount.set_rates(1e6, 0.0)
    device.clock.sleep_s(2.0)
    readings = [mount.read_position()]
    for _ in range(4):
        device.clock.sleep_s(2.0)
        readings.append(mount.read_position())
    mount.stop()
    limit = mount.capabilities.max_rate_deg_s / ARCSEC
    for first, second in pairwise(readings):
        seconds = (second.utc_ns - first.utc_ns) / NS_PER_S
        margin = limit * (first.uncertainty_s + second.uncertainty_s) / seconds + 2 * POINTING_ARCSEC
        assert abs(mean_rates_arcsec_s(first, second)[0]) <= limit + margin


@pytest.mark.disturb(2)
@pytest.mark.parametrize("motion", ["rates", "go_to"])
def test_stopping_ends_every_motion_by_readback(mount: Mount, eventually: Eventually, device, motion: str) -> None:
    go_to(mount, 100.0, 45.0, eventually)
    if motion == "rates":
        mount.set_rates(3600.0, 1200.0)
    else:
        mount.go_to(280.0, 30.0)
    device.clock.sleep_s(1.0)
    mount.stop()
    device.clock.sleep_s(2.0)
    assert not mount.is_slewing()
    first = mount.read_position()
    device.clock.sleep_s(10.0)
    second = mount.read_position()
    assert np.hypot(*mean_rates_arcsec_s(first, second)) < 2 * POINTING_ARCSEC / 10.0


@pytest.mark.disturb(1)
@pytest.mark.parametrize("rates", [(float("nan"), 0.0), (0.0, float("inf"))])
def test_a_rate_that_is_none_is_refused(mount: Mount, rates: tuple[float, float]) -> None:
    with pytest.raises(BadInput):
        mount.set_rates(*rates)


@pytest.mark.disturb(1)
@pytest.mark.parametrize("place", [(float("nan"), 45.0), (0.0, 91.0), (0.0, -91.0)])
def test_a_place_outside_the_sky_is_refused(mount: Mount, place: tuple[float, float]) -> None:
    with pytest.raises(BadInput):
        mount.go_to(*place)


def test_an_unknown_setting_is_refused_before_anything_is_opened(device) -> None:
    with pytest.raises(BadInput, match="has no key"):
        device.connect(no_such_setting=1)


def test_closing_twice_is_closing_once_and_it_can_be_connected_again(mount: Mount, device) -> None:
    mount.close()
    mount.close()
    with pytest.raises(TransportLost, match="closed"):
        mount.read_position()
    again: Mount = device.connect()
    with contextlib.closing(again):
        assert again.identify().model
