"""Each way of following on a mount that has nothing else: the error must vanish, or be as large as it must be."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from groundstation.clock import NS_PER_S
from groundstation.config import load_config
from groundstation.errors import BadInput, InstrumentFault
from groundstation.instruments import Identity, MountCapabilities, MountReading
from groundstation.operation.following import following_of
from groundstation.passes.prediction import fit_azimuth, predict_path
from groundstation.simulation.mount import MountDynamics
from groundstation.simulation.parameters import MountParameters

CULMINATION_NS = 1_482_166_333 * NS_PER_S
START_NS, STOP_NS = CULMINATION_NS - 20 * NS_PER_S, CULMINATION_NS + 20 * NS_PER_S


@pytest.fixture(scope="module")
def path():
    orbit = load_config(Path(__file__).parents[2] / "config" / "simulated.toml").orbit()
    return fit_azimuth(predict_path(orbit, CULMINATION_NS - 60 * NS_PER_S, CULMINATION_NS + 60 * NS_PER_S))


@dataclass
class InterpolatingMount:
    """Follows its trajectory by a clock that is wrong, on axes that are misaligned; takes corrections."""

    clock_late_s: float = 0.0
    axes_off_arcsec: tuple[float, float] = (0.0, 0.0)
    follows: str = "trajectory"
    time_offset_s: float = 0.0
    axis_offsets: tuple[float, float] = (0.0, 0.0)
    started: int = 0
    went_to: list[tuple[float, float]] = field(default_factory=list)

    @property
    def capabilities(self) -> MountCapabilities:
        return MountCapabilities(4.5, 10.0, 0.25, 0.05, self.follows)

    def identify(self) -> Identity:
        return Identity("interpolating mount")

    def load_trajectory(self, utc_ns, azimuth_deg, elevation_deg) -> None:
        self.points = utc_ns, azimuth_deg, elevation_deg

    def start_trajectory(self) -> None:
        self.started += 1

    def set_time_offset_s(self, offset_s: float) -> None:
        self.time_offset_s = offset_s

    def set_axis_offsets_arcsec(self, azimuth_arcsec: float, elevation_arcsec: float) -> None:
        self.axis_offsets = (azimuth_arcsec, elevation_arcsec)

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        self.went_to.append((azimuth_deg, elevation_deg))

    def reading(self, utc_ns: int) -> MountReading:
        times, *angles = self.points
        at_s = (utc_ns - times[0]) / NS_PER_S + self.time_offset_s - self.clock_late_s
        seconds = (times - times[0]) / NS_PER_S
        azimuth, elevation = (
            float(np.interp(at_s, seconds, angle)) + (self.axis_offsets[axis] + self.axes_off_arcsec[axis]) / 3600.0
            for axis, angle in enumerate(angles)
        )
        return MountReading(azimuth % 360.0, elevation, utc_ns, 0.0)


def fly(mount, path, good=True):
    """The error on the sky in arcseconds at every turn."""
    following = following_of(mount, path, START_NS, STOP_NS, 0.1)
    following.load()
    following.begin()
    errors = []
    for utc_ns in range(START_NS, STOP_NS, NS_PER_S // 10):
        command = following.turn(utc_ns, mount.reading(utc_ns), good)
        errors.append(np.hypot(command.error_azimuth_arcsec, command.error_elevation_arcsec))
    return np.array(errors)


def test_a_trajectory_covers_the_pass_and_is_straight_between_its_points(path) -> None:
    mount = InterpolatingMount()
    errors = fly(mount, path)
    assert mount.started == 1
    assert mount.points[0][0] <= START_NS
    assert mount.points[0][-1] >= STOP_NS
    assert errors.max() < 10.0  # a degree per second bends by less within a second


def test_a_mount_whose_clock_is_late_is_brought_back_onto_the_path_in_time(path) -> None:
    mount = InterpolatingMount(clock_late_s=0.08)
    errors = fly(mount, path)
    assert errors[0] > 100.0
    assert np.median(errors[-50:]) < 5.0
    assert mount.time_offset_s == pytest.approx(0.08, abs=0.005)


def test_misaligned_axes_are_corrected_across_the_track(path) -> None:
    errors = fly(InterpolatingMount(axes_off_arcsec=(60.0, -90.0)), path)
    assert errors[0] > 80.0
    assert np.median(errors[-50:]) < 8.0


def test_readings_of_unknown_time_correct_nothing(path) -> None:
    mount = InterpolatingMount(clock_late_s=0.08)
    fly(mount, path, good=False)
    assert mount.time_offset_s == 0.0
    assert mount.axis_offsets == (0.0, 0.0)


def test_a_mount_that_is_still_slewing_is_not_corrected(path) -> None:
    mount = InterpolatingMount(axes_off_arcsec=(0.0, 3 * 3600.0))
    fly(mount, path)
    assert mount.axis_offsets == (0.0, 0.0)


def test_a_rotator_is_sent_to_where_the_path_will_be(path) -> None:
    mount = InterpolatingMount(follows="positions")
    following = following_of(mount, path, START_NS, STOP_NS, 0.1)
    following.turn(CULMINATION_NS, MountReading(0.0, 45.0, CULMINATION_NS, 0.0), True)
    azimuth, elevation = path.at(CULMINATION_NS + 150_000_000)
    assert mount.went_to == [(pytest.approx(float(azimuth) % 360.0), pytest.approx(float(elevation)))]


def test_a_mount_that_cannot_follow_is_refused_before_the_pass(path) -> None:
    with pytest.raises(BadInput, match="another mount"):
        following_of(InterpolatingMount(follows="nothing"), path, START_NS, STOP_NS, 0.1)


def test_a_refused_trajectory_is_a_fault_of_the_mount(path) -> None:
    class Refusing(InterpolatingMount):
        def load_trajectory(self, utc_ns, azimuth_deg, elevation_deg) -> None:
            raise InstrumentFault("the mount refused point 3")

    with pytest.raises(InstrumentFault, match="point 3"):
        fly(Refusing(), path)


def lagging(path, period_s):
    """The errors in arcseconds of a rotator that brakes before every place and tells hundredths of a degree."""
    parameters = replace(MountParameters(), max_rate_deg_s=6.0, max_acceleration_deg_s2=6.0)
    axes = MountDynamics(parameters, START_NS - 60 * NS_PER_S)

    class Rotator(InterpolatingMount):
        def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
            axes.go_to("azimuth", round(azimuth_deg, 2), self.now_ns)
            axes.go_to("elevation", round(elevation_deg, 2), self.now_ns)

    mount = Rotator(follows="positions")
    mount.now_ns = START_NS - 59 * NS_PER_S
    mount.go_to(*(float(angle) for angle in path.at(START_NS)))
    following = following_of(mount, path, START_NS, STOP_NS, 0.1)
    errors = []
    for utc_ns in range(START_NS, STOP_NS, round(period_s * NS_PER_S)):
        mount.now_ns = utc_ns
        azimuth, elevation = axes.pointing_deg(utc_ns)
        command = following.turn(
            utc_ns, MountReading(round(azimuth % 360.0, 2), round(elevation, 2), utc_ns, 0.0), True
        )
        errors.append(np.hypot(command.error_azimuth_arcsec, command.error_elevation_arcsec))
    return np.array(errors)


@pytest.mark.parametrize(("period_s", "within_arcsec"), [(0.1, 40.0), (0.3, 150.0)])
def test_a_rotators_lag_is_learnt_however_long_a_turn_takes(path, period_s, within_arcsec) -> None:
    """Sent one nominal period ahead it would be off by 50 and by 380 arcsec."""
    errors = lagging(path, period_s)
    after = errors[errors.size // 4 :]
    assert np.sqrt(np.mean(after**2)) < within_arcsec


def test_a_rotator_that_stands_still_does_not_wind_the_correction_up(path) -> None:
    mount = InterpolatingMount(follows="positions")
    following = following_of(mount, path, START_NS, STOP_NS, 0.1)
    azimuth, elevation = (float(angle) for angle in path.at(START_NS))
    for utc_ns in range(START_NS, STOP_NS, NS_PER_S // 10):
        following.turn(utc_ns, MountReading(azimuth % 360.0, elevation, utc_ns, 0.0), True)
    there, _ = path.at(STOP_NS)
    assert abs(mount.went_to[-1][0] - float(there) % 360.0) < 2.0


def test_readings_tell_an_error_as_well_as_the_mount_can_follow(path) -> None:
    good_to = {
        follows: following_of(InterpolatingMount(follows=follows), path, START_NS, STOP_NS, 0.1).reading_good_to_arcsec
        for follows in ("rates", "trajectory", "positions")
    }
    assert good_to["rates"] < good_to["trajectory"] < good_to["positions"]


def test_a_reading_that_is_good_enough_to_tell_an_error_may_be_too_bad_to_correct_by(path) -> None:
    mount = InterpolatingMount(axes_off_arcsec=(60.0, -90.0))
    following = following_of(mount, path, START_NS, STOP_NS, 0.1)
    following.load()
    following.begin()
    for utc_ns in range(START_NS, STOP_NS, NS_PER_S // 10):
        command = following.turn(utc_ns, replace(mount.reading(utc_ns), uncertainty_s=0.006), True)  # 15 arcsec
    assert mount.axis_offsets == (0.0, 0.0)
    assert np.hypot(command.error_azimuth_arcsec, command.error_elevation_arcsec) > 80.0
