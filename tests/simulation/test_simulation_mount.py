"""The telescope's motion against kinematics: v^2 = 2as, areas under trapezoids, limits never exceeded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.mount import MountDynamics
from groundstation.simulation.parameters import MountParameters

S = 1_000_000_000
T0 = 1_482_166_140 * S
PARAMETERS = MountParameters(max_rate_deg_s=4.0, max_acceleration_deg_s2=2.0, command_latency_s=0.03)
EFFECT = 30_000_000


def positions(mount, axis, times_ns):
    return np.array([getattr(mount, axis).state(t)[0] for t in times_ns])


def test_nothing_moves_before_the_command_latency_has_passed():
    mount = MountDynamics(PARAMETERS, T0)
    mount.set_rate("azimuth", 3600.0, T0)
    assert mount.pointing_deg(T0 + EFFECT) == (0.0, 0.0)
    assert mount.pointing_deg(T0 + EFFECT + 1_000_000)[0] > 0.0


def test_a_ramp_covers_v_squared_over_two_a():
    mount = MountDynamics(PARAMETERS, T0)
    mount.set_rate("azimuth", 3.0 * 3600, T0)
    ramp_ns = round(3.0 / 2.0 * S)
    azimuth, rate = mount.azimuth.state(T0 + EFFECT + ramp_ns)
    assert azimuth == pytest.approx(3.0**2 / (2 * 2.0))
    assert rate == pytest.approx(3.0)
    assert mount.azimuth.state(T0 + EFFECT + ramp_ns + 10 * S)[0] == pytest.approx(azimuth + 30.0)


def test_a_long_goto_takes_the_time_of_a_trapezoid():
    mount = MountDynamics(PARAMETERS, T0)
    mount.go_to("azimuth", 100.0, T0)
    takes_s = 100.0 / 4.0 + 4.0 / 2.0  # distance / v + v / a
    before, after = (T0 + EFFECT + round((takes_s + d) * S) for d in (-0.01, 0.01))
    assert mount.is_slewing("azimuth", T0)
    assert mount.is_slewing("azimuth", before)
    assert not mount.is_slewing("azimuth", after)
    assert mount.azimuth.state(after) == (100.0, 0.0)


def test_a_short_goto_takes_the_time_of_a_triangle():
    mount = MountDynamics(PARAMETERS, T0)
    mount.go_to("elevation", 2.0, T0)
    half_way_ns = T0 + EFFECT + round((2.0 / 2.0) ** 0.5 * S)  # s/2 = a t^2 / 2
    assert mount.elevation.state(half_way_ns) == pytest.approx((1.0, 2.0))
    assert mount.elevation.state(half_way_ns + 2 * S) == (2.0, 0.0)


def test_azimuth_takes_the_shorter_way_round_and_may_leave_the_circle():
    mount = MountDynamics(PARAMETERS, T0)
    mount.go_to("azimuth", 350.0, T0)
    assert mount.azimuth.state(T0 + 60 * S) == (-10.0, 0.0)
    assert mount.encoder("azimuth", T0 + 60 * S) / 2**24 * 360 == pytest.approx(350.0, abs=0.01)


def test_a_rate_is_rounded_to_the_quantum_and_capped():
    mount = MountDynamics(PARAMETERS, T0)
    mount.set_rate("azimuth", 100.1, T0)
    mount.set_rate("elevation", -1e6, T0)
    assert mount.azimuth.state(T0 + S)[1] * 3600 == pytest.approx(100.0)
    mount.set_rate("elevation", 1e6, T0 + S)
    assert mount.elevation.state(T0 + 6 * S)[1] == pytest.approx(4.0)


def test_a_rate_lasts_for_ever_in_azimuth_and_ends_at_the_limits_in_elevation():
    mount = MountDynamics(PARAMETERS, T0)
    mount.set_rate("azimuth", 7200.0, T0)
    mount.set_rate("elevation", 7200.0, T0)
    azimuth, elevation = mount.pointing_deg(T0 + 1000 * S)
    assert azimuth == pytest.approx(2.0 * (1000 - 0.03) - 1.0)
    assert elevation == 95.0
    mount.set_rate("elevation", -7200.0, T0 + 1000 * S)
    assert mount.pointing_deg(T0 + 2000 * S)[1] == -5.0


def test_cancelling_a_goto_stops_it_and_leaves_rates_alone():
    mount = MountDynamics(PARAMETERS, T0)
    mount.go_to("azimuth", 100.0, T0)
    mount.set_rate("elevation", 36.0, T0)
    mount.cancel_goto(T0 + 10 * S)
    assert not mount.is_slewing("azimuth", T0 + 10 * S)
    assert mount.azimuth.state(T0 + 20 * S)[1] == 0.0
    assert 30.0 < mount.azimuth.state(T0 + 20 * S)[0] < 50.0
    assert mount.elevation.state(T0 + 20 * S)[1] == pytest.approx(0.01)


def test_the_encoder_has_the_noise_of_the_parameters_and_24_bits():
    mount = MountDynamics(PARAMETERS, T0, seed=5)
    mount.go_to("elevation", 45.0, T0)
    counts = np.array([mount.encoder("elevation", T0 + 60 * S) for _ in range(4000)])
    arcsec = counts / 2**24 * 360 * 3600
    assert counts.dtype.kind == "i"
    assert arcsec.mean() == pytest.approx(45 * 3600 - 360 * 3600 / 2**25, abs=0.03)  # floor: half a step low
    assert arcsec.std() == pytest.approx(PARAMETERS.encoder_noise_rms_arcsec, rel=0.05)


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["rate", "goto", "stop", "cancel"]),
        st.sampled_from(["azimuth", "elevation"]),
        st.floats(-400.0, 400.0),
        st.integers(0, 8 * S),
    ),
    max_size=12,
)


def obey(mount, command, axis, value, now_ns):
    if command == "rate":
        mount.set_rate(axis, value * 50, now_ns)
    elif command == "goto":
        mount.go_to(axis, value, now_ns)
    elif command == "stop":
        mount.stop(now_ns)
    else:
        mount.cancel_goto(now_ns)


@given(COMMANDS)
def test_no_command_sequence_exceeds_a_limit_or_makes_the_telescope_jump(commands):
    mount = MountDynamics(PARAMETERS, T0)
    now_ns = T0
    for command, axis, value, wait_ns in commands:
        obey(mount, command, axis, value, now_ns)
        now_ns += wait_ns
    for axis in (mount.azimuth, mount.elevation):
        ends = [*axis.pieces[1:], None]
        for piece, following in zip(axis.pieces, ends, strict=True):
            end_ns = following.utc_ns if following else piece.utc_ns + 1000 * S
            position, rate = piece.at(end_ns)
            assert abs(piece.acceleration_deg_s2) in (0.0, 2.0)
            assert max(abs(piece.rate_deg_s), abs(rate)) <= 4.0 + 1e-6
            assert axis.limits_deg[0] - 1e-6 <= position <= axis.limits_deg[1] + 1e-6
            if following:
                assert end_ns >= piece.utc_ns
                assert following.position_deg == pytest.approx(position, abs=1e-7)
                assert following.rate_deg_s == pytest.approx(rate, abs=1e-6)


@given(COMMANDS)
def test_the_published_motion_is_the_true_one_whenever_it_is_looked_at(commands):
    """The pieces go out as a program gives them: after each command, and when told that there is more."""
    mount, board, truth = MountDynamics(PARAMETERS, T0), Blackboard.alone(), MountDynamics(PARAMETERS, T0)
    published = []

    def publish(now_ns):
        for motion in mount.motions(now_ns):
            published.append(motion.utc_ns)
            board.add_motion(motion)

    now_ns = T0
    publish(now_ns)
    for command, axis, value, wait_ns in commands:
        obey(mount, command, axis, value, now_ns)
        obey(truth, command, axis, value, now_ns)
        publish(now_ns)
        now_ns += wait_ns
        while (wake_ns := mount.next_motions_utc_ns()) is not None and wake_ns < now_ns:
            publish(wake_ns)
        moments = np.linspace(now_ns - wait_ns + EFFECT, now_ns, 7).astype(np.int64)
        seen = board.pointing_deg(moments)
        for index, axis_name in enumerate(("azimuth", "elevation")):
            expected = positions(truth, axis_name, moments)
            np.testing.assert_allclose(seen[index], expected, rtol=0, atol=1e-6 / 3.6)  # 0.001 arcsec
    assert published == sorted(published)


def test_a_long_time_of_tracking_needs_bounded_memory():
    mount = MountDynamics(PARAMETERS, T0)
    for tick in range(2000):
        now_ns = T0 + tick * S // 20
        mount.set_rate("azimuth", 100.0 + tick, now_ns)
        mount.set_rate("elevation", 50.0, now_ns)
        assert len(list(mount.motions(now_ns))) <= 4
    assert len(mount.azimuth.pieces) < 300
    assert mount.pointing_deg(now_ns)[0] > 0.0
