"""The splines of the sky against the orbit they were made from, and light sent and received."""

import numpy as np
import pytest

from groundstation.clock import NS_PER_S, parse_utc
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.simulation.parameters import ClockParameters
from groundstation.simulation.sky import PS_PER_S, SatelliteClock, Sky, SteadySky

START, STOP = parse_utc("2016-12-19T16:49:50Z"), parse_utc("2016-12-19T16:54:40Z")
TLE = (
    "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
    "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
)
ORBIT = Orbit(
    ElementSet.parse("MICIUS", *TLE),
    Site("Xinglong", 40.39587, 117.57746, 890.0),
    EarthOrientation(-0.3961798, 0.107025, 0.265979, "2016-12-19", "IERS Bulletin B"),
)
SKY = Sky(ORBIT, START, START, STOP)
TIMES = np.random.default_rng(1).integers(START, STOP, 3_000)
SECONDS = (TIMES - START) * 1e-9


def test_the_time_of_flight_is_the_orbit_s_to_a_fraction_of_a_picosecond():
    error_ps = SKY.flight_ps(SECONDS) - ORBIT.emitted(TIMES) * PS_PER_S
    assert np.abs(error_ps).max() < 0.2


def test_light_goes_out_and_comes_back_to_the_same_picosecond():
    received = (TIMES - START) * 1000
    emitted = SKY.emitted_ps(received)
    again = emitted + np.rint(SKY.flight_ps(emitted * 1e-12)).astype(np.int64)
    assert np.abs(again - received).max() <= 1


def test_the_way_there_and_the_way_back_are_the_same_light():
    """`received` moves the satellite back in time, `emitted` the station forward: two routes to one number."""
    flight_ps = (TIMES - START) * 1000 - SKY.emitted_ps((TIMES - START) * 1000)
    assert np.abs(flight_ps - ORBIT.received(TIMES).time_of_flight_s * PS_PER_S).max() < 2.0


def test_range_and_direction_are_the_orbit_s():
    look, light = ORBIT.geometric(TIMES), ORBIT.received(TIMES)
    azimuth, elevation = SKY.direction_deg(SECONDS)
    assert np.abs(SKY.range_km(SECONDS) - look.range_km).max() < 1e-6
    assert np.abs(elevation - light.elevation_deg).max() * 3600 < 0.01
    turned = np.mod(azimuth - light.azimuth_deg + 180, 360) - 180
    assert np.abs(turned).max() * 3600 < 0.01


def test_the_published_minimum_of_the_range_lies_in_this_pass():
    assert SKY.range_km(np.linspace(0, 290, 29_001)).min() == pytest.approx(645.37, abs=0.01)


def test_a_satellite_clock_reads_offset_rate_and_drift_too_much():
    clock = SatelliteClock(
        ClockParameters(satellite_offset_s=1e-6, satellite_frequency_offset=2e-9, satellite_frequency_drift_per_s=4e-11)
    )
    # 1 us + 2 ns/s x 100 s + 1/2 x 40 ps/s^2 x (100 s)^2 = 1 us + 0.2 us + 0.2 us
    assert clock.error_ps(np.array([0.0, 100.0])) == pytest.approx([1.0e6, 1.4e6])


def test_the_laboratory_s_satellite_stands_still():
    sky = SteadySky(299.792458)
    assert sky.emitted_ps(np.array([0, 5])).tolist() == [-(10**9), 5 - 10**9]
    assert sky.flight_ps(np.zeros(2)).tolist() == [1e9, 1e9]
    assert sky.direction_deg(np.zeros(1))[1].tolist() == [90.0]
    assert NS_PER_S * 1000 == PS_PER_S
