"""Photons and noise of a steady sky against the click model Q = 1 - (1 - Y0) e^(-eta mu), E Q = Y0/2 + e_d (1 - e^..).

W. Ma et al., Phys. Rev. A 72, 012326 (2005); the published source and detectors of Liao 2017. Statistical bounds are
five standard errors.
"""

import numpy as np
import pytest
from light_samples import IDEAL, SLOT_PS, ZERO_UTC_NS, light, run, world

from groundstation.simulation.blackboard import Blackboard, Motion
from groundstation.simulation.light import Truth
from groundstation.simulation.link import channel_transmittance
from groundstation.simulation.sky import SteadySky
from groundstation.simulation.states import TransmitterStates

RANGE_KM = 700.0
ETA = 0.5 * 10**-3.054  # detector of 50 % behind the published 30.54 dB at 700 km
FLIGHT_PS = round(RANGE_KM / 299_792.458 * 1e12)
INTENSITIES = (0.8, 0.1, 0.0)
SLOTS_SENT = (0.5, 0.25, 0.25)


def poisson(count, expected):
    assert abs(count - expected) <= 5 * np.sqrt(expected) + 1, f"{count} instead of {expected:.1f}"


def transmittance(parameters):
    return 0.5 * channel_transmittance(np.array([RANGE_KM]), parameters.link)[0]


def in_gate(seen):
    """Slot, detector and |phase| <= 1 ns of every click, by plain rounding."""
    sent_ps = seen.time_ps[seen.channel < 4] - FLIGHT_PS
    slot = np.rint(sent_ps / SLOT_PS).astype(np.int64)
    inside = np.abs(sent_ps - slot * SLOT_PS) <= 1_000
    return slot[inside], seen.detector[inside]


def gains_and_errors(parameters, seconds):
    """Per intensity: clicked slots, and of the clicks in the sender's basis how many there are and are wrong."""
    slot, detector = in_gate(run(parameters, seconds))
    state = TransmitterStates(parameters.seed, parameters.source).of(slot)
    match = state.basis == detector // 2
    wrong = match & (state.bit != detector % 2)
    return [
        (np.unique(slot[which]).size, int((match & which).sum()), int((wrong & which).sum()))
        for which in (state.intensity == kind for kind in range(3))
    ]


@pytest.mark.parametrize("background_hz", [0.0, 20_000.0])
def test_the_gain_of_each_intensity_is_that_of_the_click_model(background_hz):
    parameters, seconds = world(detectors={"background_hz": background_hz}), 5.0
    eta, y0 = transmittance(parameters), 1 - np.exp(-4 * background_hz * 2e-9)
    for kind, (clicked, _, _) in enumerate(gains_and_errors(parameters, seconds)):
        sent = 100e6 * seconds * SLOTS_SENT[kind]
        poisson(clicked, sent * (1 - (1 - y0) * np.exp(-eta * INTENSITIES[kind])))


def test_the_transmittance_is_the_published_one():
    assert transmittance(IDEAL) == pytest.approx(ETA, rel=0.03)


@pytest.mark.parametrize(
    ("contrast", "misalignment_deg", "background_hz", "optical_error"),
    [
        (280.0, 0.0, 0.0, 1 / 281),  # the published floor
        (1e12, 4.4, 0.0, np.sin(np.radians(4.4)) ** 2),  # Malus
        (280.0, 4.4, 5_000.0, np.sin(np.radians(4.4)) ** 2 * (1 - 2 / 281) + 1 / 281),
    ],
)
def test_errors_are_those_of_contrast_misalignment_and_background(
    contrast, misalignment_deg, background_hz, optical_error
):
    parameters = world(
        source={"polarisation_contrast": contrast},
        link={"misalignment_deg": misalignment_deg},
        detectors={"background_hz": background_hz},
    )
    eta, y0 = transmittance(parameters), 4 * background_hz * 2e-9
    for kind, (_, matched, wrong) in enumerate(gains_and_errors(parameters, 5.0)):
        sent = 100e6 * 5.0 * SLOTS_SENT[kind] / 2  # the receiver's basis agrees in half of them
        light_share = -np.expm1(-eta * INTENSITIES[kind])
        poisson(matched, sent * (y0 + light_share))
        poisson(wrong, sent * (y0 / 2 + optical_error * light_share))


def test_the_wrong_basis_tells_nothing():
    seen = run(seconds=5.0)
    state = TransmitterStates(IDEAL.seed, IDEAL.source).of(seen.slot)
    other = state.basis != seen.detector // 2
    poisson(int(other.sum()), seen.slot.size / 2)
    poisson(int((other & (state.bit == seen.detector % 2)).sum()), other.sum() / 2)


def test_photons_stay_in_their_slot_with_the_published_jitter():
    """350 ps FWHM of the detector and 200 ps of the pulse are 171 ps rms (and 1.1 ps of the tagger's tick)."""
    seen = run(seconds=3.0)
    phase_ps = seen.click_ps - FLIGHT_PS - seen.slot * SLOT_PS
    assert phase_ps.std() == pytest.approx(171.2, abs=5 * 171 / np.sqrt(2 * phase_ps.size))
    assert phase_ps.mean() == pytest.approx(-2.4, abs=5 * 171 / np.sqrt(phase_ps.size))  # ticks are rounded down
    assert (np.abs(phase_ps) <= 1_000).mean() > 0.9999


def test_noise_has_the_rate_of_each_detector_and_no_place_of_its_own():
    board = Blackboard.alone()
    for detector in range(4):
        board.set_detector(detector, 0.5 * (detector > 0), 1_000.0 * detector)
    parameters = world(link={"cloud_transmittance": 0.0}, detectors={"background_hz": 400.0})
    seen = run(parameters, 10.0, board=board)
    for detector, rate_hz in enumerate((0.0, 1_200.0, 2_200.0, 3_200.0)):
        poisson(seen.of(detector).size, 10 * rate_hz)
    assert (seen.slot == -1).all()
    slot, _ = in_gate(seen)
    poisson(slot.size, 0.2 * seen.slot.size)
    first_half = (np.mod(seen.time_ps[seen.channel < 4], 1e12) < 5e11).sum()
    poisson(int(first_half), seen.slot.size / 2)


def test_a_detector_that_is_off_sees_nothing_and_the_others_as_before():
    board = Blackboard.alone(dark_hz=0.0)
    board.set_detector(1, 0.0, 0.0)
    seen, all_on = run(seconds=3.0, board=board), run(seconds=3.0)
    assert seen.of(1).size == 0
    for detector in (0, 2, 3):
        poisson(seen.of(detector).size, all_on.of(detector).size)


def test_photons_that_are_made_late_meet_the_bias_of_their_own_time():
    """All of them are made after the bias was switched off in the middle of their time."""
    board = Blackboard.alone(dark_hz=0.0)
    board.set_detector(1, 0.0, 0.0, ZERO_UTC_NS + 1_500_000_000)
    seen, all_on = run(seconds=3.0, board=board), run(seconds=3.0)
    clicks_s = (seen.of(1) - all_on.of(0).min()) * 1e-12
    assert clicks_s.max() == pytest.approx(1.5, abs=0.06)
    poisson(seen.of(1).size, all_on.of(1).size / 2)


def test_no_detector_clicks_within_its_dead_time_and_the_rest_are_those_of_a_paralysable_one():
    """G. F. Knoll, Radiation Detection and Measurement, 4.VII: m = n exp(-n tau)."""
    parameters = world(link={"cloud_transmittance": 0.0}, detectors={"background_hz": 400_000.0, "dead_time_ns": 500.0})
    seen = run(parameters, 1.0)
    for detector in range(4):
        apart_ps = np.diff(seen.of(detector))
        assert apart_ps.min() >= 500_000 - 4
        assert apart_ps.size == pytest.approx(400_000 * np.exp(-0.2), rel=0.01)


def test_the_dead_time_reaches_across_the_seam_of_two_blocks():
    parameters = world(
        link={"cloud_transmittance": 0.0}, detectors={"background_hz": 5_000.0, "dead_time_ns": 100_000.0}
    )
    seen = run(parameters, 5.0)
    assert min(np.diff(seen.of(detector)).min() for detector in range(4)) >= 100_000_000 - 4


def test_afterpulses_follow_their_click_after_the_dead_time():
    parameters = world(
        link={"cloud_transmittance": 0.0},
        detectors={
            "background_hz": 10_000.0,
            "dead_time_ns": 50.0,
            "afterpulse_probability": 0.05,
            "afterpulse_time_ns": 100.0,
        },
    )
    seen = run(parameters, 5.0)
    apart_ns = np.concatenate([np.diff(seen.of(detector)) for detector in range(4)]) / 1000
    primary = 4 * 10_000 * 5.0
    for first_ns, last_ns in ((50, 150), (150, 250), (250, 1_050)):
        early, late = (np.exp(-(edge - 50) / 100) for edge in (first_ns, last_ns))
        chance = 10_000 * (last_ns - first_ns) * 1e-9
        count = int(((apart_ns >= first_ns) & (apart_ns < last_ns)).sum())
        assert count == pytest.approx(primary * (0.05 * (early - late) + chance), rel=0.02, abs=5 * np.sqrt(count))


def test_a_laser_s_delay_moves_its_own_photons_and_no_others():
    delays_ps = (0.0, 300.0, 0.0, -80.0, 0.0, 0.0, 200.0, 0.0)
    means, errors = [], []
    for source in ({}, {"laser_delay_ps": delays_ps}):
        seen = run(world(source=source), 10.0)
        state = TransmitterStates(IDEAL.seed, IDEAL.source).of(seen.slot)
        laser = state.intensity * 4 + state.basis * 2 + state.bit
        phase_ps = seen.click_ps - FLIGHT_PS - seen.slot * SLOT_PS
        means.append([phase_ps[laser == which].mean() for which in range(8)])
        errors.append([172 / np.sqrt((laser == which).sum()) for which in range(8)])
    moved = np.subtract(means[1], means[0])
    assert (np.abs(moved - delays_ps) < 5 * np.hypot(*errors)).all()


def test_what_the_world_calls_sifted_is_what_a_perfect_clock_gates():
    parameters = world(detectors={"background_hz": 2_000.0}, source={"polarisation_contrast": 280.0})
    seen = run(parameters, 2.0)
    slot, detector = in_gate(seen)
    state = TransmitterStates(parameters.seed, parameters.source).of(slot)
    signal = (state.intensity == 0) & (state.basis == detector // 2)
    assert seen.tally("detections") == seen.slot.size
    assert abs(seen.tally("signal_sifted") - signal.sum()) <= 5  # clicks within a tick of the gate's edge
    assert abs(seen.tally("signal_errors") - (signal & (state.bit != detector % 2)).sum()) <= 2


def test_the_truth_holds_no_bit_and_no_basis_of_any_slot():
    assert set(Truth._fields) == {
        "click_device_ps",
        "click_slot",
        "utc_ns",
        "detections",
        "signal_sifted",
        "signal_errors",
        "pointing_error_arcsec",
    }
    truth = run(seconds=0.05).blocks[0].truth
    assert truth.click_device_ps.dtype == truth.click_slot.dtype == np.int64
    assert truth.utc_ns == ZERO_UTC_NS


def board_pointing(*motions):
    board = Blackboard.alone(dark_hz=0.0)
    for motion in motions:
        board.add_motion(motion)
    return board


def test_a_telescope_that_leaves_the_satellite_loses_the_light_and_the_beacon():
    second = 1_000_000_000
    board = board_pointing(Motion(ZERO_UTC_NS, 0.0, 90.0, 0.0, 0.0), Motion(ZERO_UTC_NS + second, 0.0, 90.0, 0.0, -1.0))
    seen = run(seconds=3.0, board=board)
    clicks_ps, beacon_ps = seen.click_ps, seen.of(4)
    assert (clicks_ps < 1e12).sum() > 10_000
    assert (beacon_ps < 1e12).sum() > 9_000
    assert (clicks_ps > 1.3e12).sum() == (beacon_ps > 1.3e12).sum() == 0
    assert seen.of(5).size == 3  # the GPS receiver does not look at the satellite
    assert seen.blocks[20].truth.pointing_error_arcsec == pytest.approx(0.0, abs=1e-6)
    assert seen.blocks[40].truth.pointing_error_arcsec == pytest.approx(3_600.0)


def test_twenty_arcsec_beside_the_satellite_cost_less_than_one_percent():
    beside = board_pointing(Motion(ZERO_UTC_NS, 0.0, 90.0 - 20 / 3600, 0.0, 0.0))
    on_target, off_target = (run(seconds=10.0, board=board).slot.size for board in (None, beside))
    poisson(off_target, on_target * np.exp(-2 * (20 / 300) ** 2))
    assert off_target > 0.98 * on_target


def test_azimuth_is_measured_on_the_sky_not_on_the_circle():
    """Near the zenith a turn in azimuth moves the line of sight by cos(elevation) only; a whole turn not at all."""

    class Sixty(SteadySky):
        def direction_deg(self, received_s):
            return np.full(received_s.shape, 359.9), np.full(received_s.shape, 60.0)

    board = board_pointing(Motion(ZERO_UTC_NS, 0.1, 60.0, 0.0, 0.0))
    block = light(sky=Sixty(RANGE_KM), board=board).block(0)
    assert block.truth.pointing_error_arcsec == pytest.approx(0.2 * 0.5 * 3600)
