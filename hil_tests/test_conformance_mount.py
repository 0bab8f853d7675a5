"""What every mount must do, whatever its model."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, InstrumentFault, TransportLost
from groundstation.instruments import Mount, MountReading, TrajectoryMount

ARCSEC = 1 / 3600
#: A go-to arrives this close, by the way in which the mount follows: a radio rotator tells hundredths of a degree.
POINTING_ARCSEC = {"rates": 10.0, "trajectory": 10.0, "positions": 72.0, "nothing": 10.0}
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


@pytest.fixture
def pointing_arcsec(mount: Mount) -> float:
    return POINTING_ARCSEC[mount.capabilities.follows]


def needs(mount: Mount, follows: str) -> None:
    if mount.capabilities.follows != follows:
        pytest.skip(f"this mount follows by {mount.capabilities.follows}, not by {follows}")


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


def test_its_capabilities_are_those_of_a_mount(mount: Mount) -> None:
    can = mount.capabilities
    assert can.max_rate_deg_s > 0
    assert can.max_acceleration_deg_s2 > 0
    assert 0 <= can.rate_quantum_arcsec_s < 60
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
def test_a_go_to_arrives(mount: Mount, eventually: Eventually, pointing_arcsec: float) -> None:
    for azimuth_deg, elevation_deg in ((30.0, 20.0), (350.0, 60.0), (10.0, 45.0)):
        arrived = go_to(mount, azimuth_deg, elevation_deg, eventually)
        assert difference_deg(arrived.azimuth_deg, azimuth_deg) == pytest.approx(0, abs=pointing_arcsec * ARCSEC)
        assert arrived.elevation_deg == pytest.approx(elevation_deg, abs=pointing_arcsec * ARCSEC)


@pytest.mark.disturb(2)
def test_it_turns_at_the_commanded_rates_until_told_otherwise(
    mount: Mount, eventually: Eventually, device, pointing_arcsec: float
) -> None:
    needs(mount, "rates")
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
                wanted, abs=can.rate_quantum_arcsec_s + timing + 2 * pointing_arcsec / seconds
            )
    mount.stop()


@pytest.mark.disturb(2)
def test_it_is_never_faster_than_it_says(mount: Mount, eventually: Eventually, device, pointing_arcsec: float) -> None:
    needs(mount, "rates")
    go_to(mount, 200.0, 45.0, eventually)
    try:
        mount.set_rates(1e6, 0.0)
    except BadInput:
        return  # refusing is as good as capping
    device.clock.sleep_s(2.0)
    readings = [mount.read_position()]
    for _ in range(4):
        device.clock.sleep_s(2.0)
        readings.append(mount.read_position())
    mount.stop()
    limit = mount.capabilities.max_rate_deg_s / ARCSEC
    for first, second in pairwise(readings):
        seconds = (second.utc_ns - first.utc_ns) / NS_PER_S
        margin = limit * (first.uncertainty_s + second.uncertainty_s) / seconds + 2 * pointing_arcsec
        assert abs(mean_rates_arcsec_s(first, second)[0]) <= limit + margin


@pytest.mark.disturb(2)
@pytest.mark.parametrize("motion", ["rates", "go_to"])
def test_stopping_ends_every_motion_by_readback(
    mount: Mount, eventually: Eventually, device, motion: str, pointing_arcsec: float
) -> None:
    if motion == "rates":
        needs(mount, "rates")
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
    assert np.hypot(*mean_rates_arcsec_s(first, second)) < 2 * pointing_arcsec / 10.0


@pytest.mark.disturb(1)
@pytest.mark.parametrize("rates", [(float("nan"), 0.0), (0.0, float("inf"))])
def test_a_rate_that_is_none_is_refused(mount: Mount, rates: tuple[float, float]) -> None:
    needs(mount, "rates")
    with pytest.raises(BadInput):
        mount.set_rates(*rates)


@pytest.mark.disturb(1)
@pytest.mark.parametrize("place", [(float("nan"), 45.0), (0.0, 91.0), (0.0, -91.0)])
def test_a_place_outside_the_sky_is_refused(mount: Mount, place: tuple[float, float]) -> None:
    with pytest.raises(BadInput):
        mount.go_to(*place)


@pytest.mark.disturb(1)
def test_a_mount_without_free_rates_says_so(mount: Mount) -> None:
    if mount.capabilities.follows == "rates":
        pytest.skip("this mount takes rates")
    with pytest.raises(InstrumentFault):
        mount.set_rates(100.0, 0.0)


@pytest.mark.disturb(2)
def test_it_follows_a_trajectory_by_its_own_clock_and_takes_live_corrections(
    mount: TrajectoryMount, eventually: Eventually, device
) -> None:
    needs(mount, "trajectory")
    go_to(mount, 120.0, 40.0, eventually)
    start_ns = device.clock.utc_ns() + 60 * NS_PER_S
    times = start_ns + np.arange(0, 241) * NS_PER_S
    seconds = np.arange(0, 241).astype(float)
    azimuth, elevation = 120.0 + 0.25 * seconds, 40.0 + 0.05 * seconds
    mount.load_trajectory(times, azimuth, elevation)
    mount.start_trajectory()
    try:
        device.clock.sleep_s(90.0)
        plain = behind_arcsec(mount, times, azimuth, elevation)
        assert np.hypot(*plain) < 120.0 + 0.25 / ARCSEC * mount.read_position().uncertainty_s
        mount.set_time_offset_s(0.4)  # 0.1 deg of azimuth
        device.clock.sleep_s(20.0)
        ahead = behind_arcsec(mount, times, azimuth, elevation) - plain
        assert ahead == pytest.approx([0.1 / ARCSEC, 0.02 / ARCSEC], abs=60.0)
        mount.set_time_offset_s(0.0)
        mount.set_axis_offsets_arcsec(-200.0, 300.0)
        device.clock.sleep_s(20.0)
        aside = behind_arcsec(mount, times, azimuth, elevation) - plain
        assert aside == pytest.approx([-200.0, 300.0], abs=60.0)
    finally:
        mount.set_axis_offsets_arcsec(0.0, 0.0)
        mount.stop()


def behind_arcsec(mount: Mount, utc_ns: np.ndarray, azimuth_deg: np.ndarray, elevation_deg: np.ndarray) -> np.ndarray:
    """Reading minus trajectory on both axes, the mean of eight."""
    found = []
    for _ in range(8):
        reading = mount.read_position()
        seconds = (reading.utc_ns - utc_ns[0]) / NS_PER_S
        knots = (utc_ns - utc_ns[0]) / NS_PER_S
        there = np.interp(seconds, knots, azimuth_deg), np.interp(seconds, knots, elevation_deg)
        found.append((difference_deg(reading.azimuth_deg, there[0]), reading.elevation_deg - there[1]))
    return np.mean(found, axis=0) / ARCSEC
