"""The tracking loop flies a simulated mount whose physics is written down here a second time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundstation.clock import NS_PER_S
from groundstation.instruments import MountCapabilities, MountReading
from groundstation.passes.prediction import PredictedPath
from groundstation.passes.tracking import RateCommand, TrackingLoop, limited_rate, pointing_error_arcsec

NEXSTAR = MountCapabilities(
    max_rate_deg_s=4.5, max_acceleration_deg_s2=10.0, rate_quantum_arcsec_s=0.25, command_latency_s=0.03
)
FAST = replace(NEXSTAR, max_rate_deg_s=12.0)
ENCODER_NOISE_DEG = 0.3 / 3600.0
STEP_NS = 5_000_000


class MountAxis:
    """Ramps at full acceleration to the rate it was told; degrees and seconds."""

    def __init__(self, angle: float) -> None:
        self.angle, self.rate, self.target, self.jammed = angle, 0.0, 0.0, False

    def run(self, duration: float, acceleration: float) -> None:
        change = self.target - self.rate
        ramp = min(abs(change) / acceleration, duration)
        after = self.rate + np.copysign(acceleration * ramp, change)
        if not self.jammed:
            self.angle += (self.rate + after) / 2.0 * ramp + after * (duration - ramp)
        self.rate = float(after)


class Flight:
    """A mount flown along a stretch of a path by the loop, with everything that happened on the way."""

    def __init__(
        self,
        path: PredictedPath,
        period_s: float,
        *,
        mount: MountCapabilities = NEXSTAR,
        believed: MountCapabilities | None = None,
        start_s: float = 130.0,
        duration_s: float = 120.0,
        offset_deg: float = 0.0,
        timing_error_s: float = 0.0,
        period_jitter: float = 0.0,
        disturb: Callable[[float, "Flight", MountReading], MountReading | None] | None = None,
    ) -> None:
        self.path, self.mount, self._pending = path, mount, []
        self.commands: list[RateCommand] = []
        self.command_ns: list[int] = []
        random = np.random.default_rng(7)
        self.start_ns = self.now_ns = int(path.utc_ns[0]) + round(start_s * NS_PER_S)
        self.axes = [MountAxis(float(angle) + offset_deg) for angle in path.at(self.start_ns)]
        self.history = [(self.now_ns, self.axes[0].angle, self.axes[1].angle)]
        loop = TrackingLoop(path, believed or mount, period_s)
        moment = self.start_ns
        while moment < self.start_ns + duration_s * NS_PER_S:
            self._run_until(moment)
            azimuth, elevation = (axis.angle + random.normal(0.0, ENCODER_NOISE_DEG) for axis in self.axes)
            stamp = moment + round(random.uniform(-timing_error_s, timing_error_s) * NS_PER_S)
            reading: MountReading | None = MountReading(azimuth % 360.0, elevation, stamp, timing_error_s)
            if disturb:
                reading = disturb((moment - self.start_ns) / NS_PER_S, self, reading)
            command = loop.command(moment, reading)
            late_s = mount.command_latency_s + random.uniform(0.0, timing_error_s)
            self._pending.append((moment + round(late_s * NS_PER_S), command))
            self.commands.append(command)
            self.command_ns.append(moment)
            moment += round(period_s * (1.0 + period_jitter * random.uniform(-1.0, 1.0)) * NS_PER_S)

    def _run_until(self, stop_ns: int) -> None:
        while self.now_ns < stop_ns:
            due_ns = self._pending[0][0] if self._pending else stop_ns
            until_ns = min(self.now_ns + STEP_NS, stop_ns, max(due_ns, self.now_ns))
            for axis in self.axes:
                axis.run((until_ns - self.now_ns) / NS_PER_S, self.mount.max_acceleration_deg_s2)
            self.now_ns = until_ns
            self.history.append((self.now_ns, self.axes[0].angle, self.axes[1].angle))
            while self._pending and self._pending[0][0] <= self.now_ns:
                _, command = self._pending.pop(0)
                self.axes[0].target = command.azimuth_arcsec_s / 3600.0
                self.axes[1].target = command.elevation_arcsec_s / 3600.0

    def errors_arcsec(self, after_s: float, before_s: float = 1e9) -> NDArray[np.float64]:
        """True distance of the mount from the path, every few ms, `after_s` from the beginning."""
        times = np.array([row[0] for row in self.history])
        angles = np.array([row[1:] for row in self.history])
        seconds = (times - self.start_ns) / NS_PER_S
        inside = (seconds >= after_s) & (seconds <= before_s)
        return pointing_error_arcsec(*angles[inside].T, *self.path.at(times[inside]))

    def rms_arcsec(self, after_s: float = 30.0) -> float:
        return float(np.sqrt(np.mean(self.errors_arcsec(after_s) ** 2)))


@pytest.mark.parametrize(("period_s", "largest_rms"), [(0.1, 1.0), (0.2, 1.0), (0.5, 3.0)])
def test_the_reference_pass_is_followed_to_arcseconds(
    reference_path: PredictedPath, period_s: float, largest_rms: float
) -> None:
    assert Flight(reference_path, period_s).rms_arcsec() < largest_rms


def test_a_pass_of_84_degrees_is_followed_by_a_mount_that_is_fast_enough(high_path: PredictedPath) -> None:
    flight = Flight(high_path, 0.1, mount=FAST, start_s=160.0)
    assert flight.rms_arcsec() < 1.0
    assert flight.errors_arcsec(30.0).max() < 5.0


def test_readings_with_honest_but_bad_times_are_not_followed(reference_path: PredictedPath) -> None:
    ten_times_too_fast = 10 * 0.001
    for period_s in (0.1, 0.5):
        flight = Flight(reference_path, period_s, timing_error_s=ten_times_too_fast)
        assert flight.rms_arcsec() < 10.0
        assert flight.errors_arcsec(30.0).max() < 20.0


def test_a_varying_period_is_followed(reference_path: PredictedPath) -> None:
    assert Flight(reference_path, 0.2, period_jitter=0.8).rms_arcsec() < 2.0


def test_a_long_known_latency_does_no_harm(reference_path: PredictedPath) -> None:
    slow = replace(NEXSTAR, command_latency_s=0.4)
    assert Flight(reference_path, 0.1, mount=slow).rms_arcsec() < 1.0


def test_a_latency_that_is_not_what_it_is_believed_to_be_does_not_make_the_loop_swing(
    reference_path: PredictedPath,
) -> None:
    slow = replace(NEXSTAR, command_latency_s=0.15)
    flight = Flight(reference_path, 0.1, mount=slow, believed=NEXSTAR)
    assert flight.rms_arcsec() < 5.0


def test_a_mount_that_turns_a_little_too_slowly_is_brought_back(reference_path: PredictedPath) -> None:
    class Slipping(Flight):
        def _run_until(self, stop_ns: int) -> None:
            super()._run_until(stop_ns)
            for axis in self.axes:
                axis.angle -= 0.002 * axis.rate * 0.1

    assert Slipping(reference_path, 0.1).rms_arcsec() < 2.0


def test_the_loop_catches_up_from_a_degree_away(reference_path: PredictedPath) -> None:
    flight = Flight(reference_path, 0.1, offset_deg=1.0, duration_s=20.0)
    assert flight.errors_arcsec(0.0, 0.1).max() > 3000.0
    assert flight.errors_arcsec(5.0).max() < 5.0


def test_one_garbled_reading_does_not_move_the_mount(reference_path: PredictedPath) -> None:
    def garble(seconds: float, flight: Flight, reading: MountReading) -> MountReading:
        return replace(reading, azimuth_deg=17.0) if 40.0 < seconds < 40.15 else reading

    flight = Flight(reference_path, 0.1, duration_s=60.0, disturb=garble)
    assert flight.errors_arcsec(30.0).max() < 3.0
    assert [command.used for command in flight.commands].count(False) == 1


def test_a_jammed_mount_shows_in_the_error_and_is_caught_up_when_it_is_free(
    reference_path: PredictedPath,
) -> None:
    def jam(seconds: float, flight: Flight, reading: MountReading) -> MountReading:
        for axis in flight.axes:
            axis.jammed = 30.0 < seconds < 35.0
        return reading

    flight = Flight(reference_path, 0.1, duration_s=80.0, disturb=jam)
    shown = [abs(command.error_azimuth_arcsec) for command in flight.commands]
    assert max(shown[340:351]) > 5000.0
    assert flight.errors_arcsec(50.0).max() < 5.0


def test_without_readings_the_loop_flies_on_what_it_knows(reference_path: PredictedPath) -> None:
    def lose(seconds: float, flight: Flight, reading: MountReading) -> MountReading | None:
        return reading if seconds < 20.0 else None

    flight = Flight(reference_path, 0.1, duration_s=60.0, disturb=lose)
    assert flight.errors_arcsec(30.0).max() < 10.0
    assert np.isnan(flight.commands[-1].error_azimuth_arcsec)
    assert not flight.commands[-1].used


def test_the_pass_is_followed_through_north(reference_path: PredictedPath) -> None:
    through_north = Flight(reference_path, 0.1, start_s=-5.0, duration_s=40.0)
    azimuths = np.array([row[1] for row in through_north.history])
    assert azimuths[0] > 0.0 > azimuths[-1]
    assert np.ptp(azimuths) < 30.0
    assert through_north.errors_arcsec(15.0).max() < 3.0


def test_the_reported_error_is_the_true_error(reference_path: PredictedPath) -> None:
    flight = Flight(reference_path, 0.5, offset_deg=0.01, duration_s=0.5)
    first = flight.commands[0]
    assert first.error_elevation_arcsec == pytest.approx(-36.0, abs=1.5)
    elevation = float(reference_path.at(flight.start_ns)[1])
    assert first.error_azimuth_arcsec == pytest.approx(-36.0 * np.cos(np.radians(elevation)), abs=1.5)


def test_a_known_delay_shows_as_exactly_that_delay(reference_path: PredictedPath) -> None:
    """Comparing a position with the target of another moment would show here: 5 ms are a few arcseconds."""
    moment = int(reference_path.utc_ns[0]) + 200 * NS_PER_S
    azimuth, elevation = reference_path.at(moment - 5_000_000)
    reading = MountReading(float(azimuth) % 360.0, float(elevation), moment, 0.0)
    command = TrackingLoop(reference_path, NEXSTAR, 0.1).command(moment + 40_000_000, reading)
    rates = [float(rate) * 3600.0 * 0.005 for rate in reference_path.rates_at(moment)]
    assert command.error_azimuth_arcsec == pytest.approx(rates[0] * np.cos(np.radians(float(elevation))), abs=0.02)
    assert command.error_elevation_arcsec == pytest.approx(rates[1], abs=0.02)


@given(
    wanted=st.floats(-1e6, 1e6),
    previous_steps=st.integers(-60000, 60000),
    elapsed_s=st.floats(0.0, 2.0),
    max_rate=st.floats(0.1, 20.0),
    max_acceleration=st.floats(0.01, 30.0),
    quantum=st.sampled_from([0.0, 0.25, 1.0, 15.0]),
)
def test_a_limited_rate_is_within_every_limit(
    wanted: float,
    previous_steps: int,
    elapsed_s: float,
    max_rate: float,
    max_acceleration: float,
    quantum: float,
) -> None:
    mount = MountCapabilities(max_rate, max_acceleration, quantum, 0.0)
    fastest = max_rate * 3600.0
    previous = np.clip(previous_steps * 0.25, -fastest, fastest)
    if quantum:
        previous = np.trunc(previous / quantum) * quantum
    rate = limited_rate(wanted, float(previous), elapsed_s, mount)
    assert abs(rate) <= fastest
    assert abs(rate - previous) <= max_acceleration * 3600.0 * elapsed_s + 1e-6
    if quantum:
        assert rate % quantum == 0.0


@given(
    readings=st.lists(
        st.tuples(st.floats(0.0, 360.0), st.floats(-10.0, 90.0), st.floats(0.0, 0.1), st.integers(-500, 2000)),
        min_size=1,
        max_size=20,
    )
)
def test_no_sequence_of_readings_makes_the_loop_exceed_the_mount(
    high_path: PredictedPath, readings: list[tuple[float, float, float, int]]
) -> None:
    loop = TrackingLoop(high_path, NEXSTAR, 0.1)
    moment, previous = int(high_path.utc_ns[0]) + 215 * NS_PER_S, np.zeros(2)
    elapsed_s = 0.1
    for azimuth, elevation, uncertainty_s, step_ms in readings:
        command = loop.command(moment, MountReading(azimuth, elevation, moment, uncertainty_s))
        rates = np.array(command[:2])
        assert np.all(np.isfinite(rates))
        assert np.abs(rates).max() <= 4.5 * 3600.0
        assert np.abs(rates - previous).max() <= 10.0 * 3600.0 * elapsed_s + 1e-6
        previous, elapsed_s = rates, max(step_ms, 0) / 1000.0
        moment += step_ms * 1_000_000


@pytest.mark.parametrize(
    ("first", "second", "expected_arcsec"),
    [
        ((0.0, 0.0), (0.0, 1.0), 3600.0),
        ((359.9, 0.0), (0.1, 0.0), 720.0),
        ((10.0, 60.0), (10.0 + 1.0 / 3600.0, 60.0), 0.5),
        ((0.0, 89.0), (180.0, 89.0), 7200.0),
        ((40.0, 20.0), (400.0, 20.0), 0.0),
    ],
)
def test_a_pointing_error_is_measured_on_the_sky(
    first: tuple[float, float], second: tuple[float, float], expected_arcsec: float
) -> None:
    assert pointing_error_arcsec(*first, *second) == pytest.approx(expected_arcsec, abs=1e-3)
