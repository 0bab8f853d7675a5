"""Emission times against the orbit itself: light is sent off and the moment of its arrival is computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.clock import NS_PER_S, parse_utc
from groundstation.core.timebase import PS_PER_S, EmissionTime, UtcLabel
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.passes.prediction import predict_path

START = parse_utc("2016-12-19T16:48:44Z")
STOP = parse_utc("2016-12-19T16:55:41Z")
EPOCH = parse_utc("2016-12-19T16:48:00Z")
LABEL = UtcLabel(123_456_789, START + NS_PER_S, 1e-6)
TLE = (
    "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
    "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
)
ORBIT = Orbit(
    ElementSet.parse("MICIUS", *TLE),
    Site("Xinglong", 40.39587, 117.57746, 890.0),
    EarthOrientation(-0.3961798, 0.107025, 0.265979, "2016-12-19", "IERS Bulletin B"),
)
PATH = predict_path(ORBIT, START, STOP)


def emission(label=LABEL, epoch=EPOCH):
    return EmissionTime(label, epoch, PATH.utc_ns, PATH.time_of_flight_s)


EMISSION = emission()
tag_times = st.integers(0, (STOP - START - 2 * NS_PER_S) * 1000)


def test_light_sent_off_by_the_orbit_is_dated_back_to_within_two_picoseconds():
    sent_utc_ns = np.random.default_rng(1).integers(START + NS_PER_S, STOP - NS_PER_S, 5_000)
    arrival_ps = (sent_utc_ns - EPOCH) * 1000 + np.rint(ORBIT.emitted(sent_utc_ns) * PS_PER_S).astype(np.int64)
    time_ps = arrival_ps - (LABEL.utc_ns - EPOCH) * 1000 + LABEL.time_ps
    error_ps = EMISSION.emitted_ps(time_ps) - (sent_utc_ns - EPOCH) * 1000
    assert np.abs(error_ps).max() <= 2


def test_what_is_taken_out_slews_and_curves_as_a_pass_at_645_km_must():
    """On a straight line at 7.7 km/s the light's time curves by v^2 / r / c = 307 ns/s^2; gravity, 8.4 m/s^2 at
    this height, of which sin(50 deg) lies along the line of sight, bends the line towards the station."""
    time_ps = np.arange(0, 400 * PS_PER_S, PS_PER_S) + LABEL.time_ps
    flight_us = (EMISSION.received_ps(time_ps) - EMISSION.emitted_ps(time_ps)) * 1e-6
    assert np.abs(np.diff(flight_us)).max() == pytest.approx(22, abs=1)
    assert 1000 * np.diff(flight_us, 2).max() == pytest.approx(307 - 8.4 * np.sin(np.radians(50)) / 0.2998, rel=0.02)


@given(st.lists(tag_times, min_size=2, max_size=50))
def test_order_is_kept(times):
    times = np.sort(np.array(times, np.int64))
    assert (np.diff(EMISSION.emitted_ps(times)) >= 0).all()


@given(tag_times)
def test_order_is_kept_from_one_picosecond_to_the_next(time_ps):
    assert set(np.diff(EMISSION.emitted_ps(time_ps + np.arange(200)))) <= {0, 1, 2}


@given(tag_times, st.integers(-2, 2))
def test_the_first_tag_time_of_an_emission_is_the_first(time_ps, beside):
    wanted = int(EMISSION.emitted_ps(np.array([time_ps]))[0]) + beside
    found = EMISSION.tag_time_of_emission(wanted)
    around = np.arange(found - 20, found + 20)
    assert (EMISSION.emitted_ps(around) >= wanted).tolist() == [False] * 20 + [True] * 20


@given(tag_times, st.integers(-(2**62), 2**62), st.integers(-(2**20), 2**20))
def test_not_a_picosecond_is_lost_however_far_the_zeros_lie(time_ps, shift_ps, epoch_s):
    """The tagger's zero and the transmitter's epoch are conventions; moving both shifts integers only."""
    far = emission(UtcLabel(LABEL.time_ps + shift_ps, LABEL.utc_ns, 1e-6), EPOCH + epoch_s * NS_PER_S)
    near_ps = int(EMISSION.emitted_ps(np.array([time_ps]))[0])
    far_ps = int(far.emitted_ps(np.array([time_ps + shift_ps]))[0])
    assert far_ps == near_ps - epoch_s * PS_PER_S


def test_the_label_s_tag_is_received_at_the_label_s_utc():
    received_ps = EMISSION.received_ps(np.array([LABEL.time_ps, LABEL.time_ps + PS_PER_S + 1]))
    assert received_ps.tolist() == [(LABEL.utc_ns - EPOCH) * 1000, (LABEL.utc_ns - EPOCH) * 1000 + PS_PER_S + 1]


def test_the_predicted_interval_is_that_of_the_path_in_whole_seconds():
    first, last = EMISSION.predicted_s
    assert (first, last) == (44, 461)
    assert emission(epoch=EPOCH + 1).predicted_s == (44, 460)
