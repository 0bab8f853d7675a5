"""The stream that the tagger sees: beacon, 1PPS, order, blocks that need no predecessor, and the books."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from light_samples import (
    BLOCKS_PER_S,
    IDEAL,
    PATTERNS,
    PPS,
    SYNC,
    TRUE_CLOCKS,
    ZERO_UTC_NS,
    Seen,
    light,
    run,
    world,
)

from groundstation.clock import NS_PER_S
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.light import TDC2_TICK_PS, Light
from groundstation.simulation.parameters import WorldParameters
from groundstation.simulation.sky import SteadySky

PERIOD_PS = 100_000_000
FLIGHT_PS = round(700.0 / 299_792.458 * 1e12)
BLOCK_TICKS = 256 * 50_000_000
HELD_TICKS = 256 * 1_000
#: Everything at its default, wires of the laboratory.
DEFAULT = WorldParameters()


def beacon_phase_ps(seen):
    """Distance of each beacon tag from the nearest pulse of a perfect train."""
    since = seen.of(SYNC) - FLIGHT_PS
    return since - np.rint(since / PERIOD_PS) * PERIOD_PS


def test_the_beacon_has_its_rate_and_its_jitter():
    seen = run(seconds=5.0)
    assert seen.of(SYNC).size == pytest.approx(50_000 - FLIGHT_PS / PERIOD_PS, abs=1)  # light on its way at the zero
    phase = beacon_phase_ps(seen)
    assert phase.std() == pytest.approx(500.0, abs=5 * 500 / np.sqrt(2 * phase.size))
    assert phase.mean() == pytest.approx(-2.0, abs=5 * 500 / np.sqrt(phase.size))


def test_pulses_drop_out_and_spurious_ones_come_as_often_as_set():
    seen = run(world(beacon={"dropout_probability": 0.2, "spurious_hz": 1_000.0}), 5.0, first=BLOCKS_PER_S)
    true = np.abs(beacon_phase_ps(seen)) < 4_000
    assert true.sum() == pytest.approx(40_000, abs=5 * np.sqrt(50_000 * 0.16) + 5)
    assert (~true).sum() == pytest.approx(5_000, abs=5 * np.sqrt(5_000))


@pytest.mark.parametrize(("rate_hz", "duration_s"), [(1.0, 0.03), (0.1, 3.0)])
def test_fades_last_as_long_as_set_also_beyond_their_block(rate_hz, duration_s):
    seconds = 30.0
    seen = run(world(beacon={"fade_rate_hz": rate_hz, "fade_duration_s": duration_s}), seconds, first=BLOCKS_PER_S)
    holes_s = np.diff(seen.of(SYNC)) * 1e-12
    holes_s = holes_s[holes_s > 1.5e-4]
    assert holes_s.size > 0
    assert holes_s.min() == pytest.approx(duration_s, abs=2e-4)
    lost = seconds * 10_000 - seen.of(SYNC).size
    faded = -np.expm1(-rate_hz * duration_s)
    assert lost == pytest.approx(seconds * 10_000 * faded, rel=0.8)


def test_fades_take_the_beacon_only():
    parameters = world(beacon={"fade_rate_hz": 20.0, "fade_duration_s": 1.0})
    seen, clear = run(parameters, 1.0), run(seconds=1.0)
    assert seen.of(SYNC).size < 1_000
    assert seen.slot.size == pytest.approx(clear.slot.size, rel=0.05)


def test_the_pps_comes_once_a_second_within_its_jitter():
    seen = run(seconds=20.0)
    assert seen.of(PPS).size == 20
    late_ps = seen.of(PPS) - np.arange(20) * 1e12
    assert np.abs(late_ps).max() < 5 * 15_000
    assert late_ps.std() > 5_000


def test_satellite_and_tagger_clocks_show_in_the_tags_as_set():
    clocks = {"satellite_offset_s": 2e-6, "satellite_frequency_offset": 1e-7, "tagger_frequency_offset": 3e-8}
    seen = run(world(clocks={**clocks, "satellite_frequency_drift_per_s": 0.0}), 4.0)
    # A clock that reads too much by 2 us + 0.1 us/s sends that much too early; the tagger stretches by 0.03 us/s.
    age_s = seen.of(SYNC) * 1e-12
    expected_ps = -2e6 - 0.1e6 * (age_s - FLIGHT_PS * 1e-12) + 0.03e6 * age_s
    assert np.abs(beacon_phase_ps(seen) - expected_ps).max() < 3_000
    assert seen.of(PPS)[3] - 3e12 == pytest.approx(0.09e6, abs=5 * 15_000)


def test_the_tagger_starts_at_its_own_time():
    seen = run(replace(IDEAL, clocks=replace(TRUE_CLOCKS, tagger_start_s=4321.0)), 0.1)
    assert seen.ticks[0] == pytest.approx(4321 * 256e9, abs=256 * PERIOD_PS / 1000)


def test_ticks_ascend_and_nothing_comes_after_time_was_declared_complete():
    parameters = world(replace(DEFAULT, clocks=TRUE_CLOCKS), detectors={"background_hz": 200_000.0})
    source = light(parameters, patterns={"H": 1, "V": 2, "D": 4, "A": 8, "sync": 3, "pps": 12})
    complete, last = -1, -1
    for number in range(40):
        block = source.block(number)
        assert (np.diff(block.ticks) > 0).all()
        assert block.ticks[0] > last
        assert block.ticks[0] >= complete
        complete, last = block.complete_ticks, block.ticks[-1]
        assert last < complete == 256 * NS_PER_S + (number + 1) * BLOCK_TICKS - HELD_TICKS
        assert (block.pattern != 0).all()


def test_events_of_one_tick_share_a_word():
    """At 2 Mcps on each detector coincidences within 3.9 ps are frequent; no event is lost in merging."""
    parameters = world(link={"cloud_transmittance": 0.0}, detectors={"background_hz": 2e6, "dead_time_ns": 0.0})
    seen = run(parameters, 0.2)
    shared = np.bitwise_count(seen.pattern) > 1
    pairs = 6 * (2e6) ** 2 * 3.90625e-12 * 0.2
    assert shared.sum() == pytest.approx(pairs, abs=5 * np.sqrt(pairs))
    same_twice = seen.tally("detections") - (seen.channel < 4).sum()
    assert 0 <= same_twice <= 4 * 2e6 * 2e6 * 3.90625e-12 * 0.2  # one detector twice in a tick is one event


def same(one, other):
    return one.ticks.tolist() == other.ticks.tolist() and one.pattern.tolist() == other.pattern.tolist()


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    first, second, other = (run(replace(DEFAULT, seed=seed), 0.5) for seed in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first.blocks, second.blocks, strict=True))
    assert not any(same(a, b) for a, b in zip(first.blocks, other.blocks, strict=True))


@pytest.mark.parametrize("fade_duration_s", [0.03, 0.4])
def test_a_block_needs_no_predecessor_but_for_what_its_first_microsecond_inherits(fade_duration_s):
    """Events that jitter and afterpulsing carry over the end of a block are held for the next: who begins in the
    middle misses those, and the dead time that the last click of the block before would have caused."""
    parameters = replace(
        DEFAULT,
        clocks=TRUE_CLOCKS,
        beacon=replace(DEFAULT.beacon, fade_rate_hz=2.0, fade_duration_s=fade_duration_s),
    )
    whole, late = light(parameters), light(parameters)
    blocks = [whole.block(number) for number in range(30)]
    for number in (5, 6, 7, 20, 29, 3):  # left out and gone back: nobody looked
        block = late.block(number)
        expected = blocks[number]
        if number in (6, 7):
            assert same(block, expected)
        start = 256 * NS_PER_S + number * BLOCK_TICKS + HELD_TICKS
        for ours, theirs in ((block.ticks, expected.ticks), (block.pattern, expected.pattern)):
            assert ours[block.ticks >= start].tolist() == theirs[expected.ticks >= start].tolist()
        assert block.ticks.size > 0


def test_the_board_counts_the_clicks_that_the_tagger_gets():
    board = Blackboard.alone()
    parameters = replace(DEFAULT, clocks=TRUE_CLOCKS)
    source = light(parameters, board=board)
    seen = Seen(source.block(number) for number in range(40))
    first_block_ns = NS_PER_S // BLOCKS_PER_S
    for detector in range(4):
        counted = board.clicks_between(detector, ZERO_UTC_NS + first_block_ns, ZERO_UTC_NS + 2 * NS_PER_S)
        delivered = int((seen.of(detector) >= first_block_ns * 1000).sum())
        assert abs(counted - delivered) <= 2  # those held for the next block are counted at once
    assert seen.tally("detections") == (seen.channel < 4).sum()


def test_truth_and_events_tell_of_the_same_clicks():
    seen = run(replace(DEFAULT, clocks=TRUE_CLOCKS), 2.0, sky=SteadySky(700.0))
    assert np.abs(seen.click_ps - seen.time_ps[seen.channel < 4]).max() < 1.0
    photons = seen.slot >= 0
    phase_ps = seen.click_ps[photons] - FLIGHT_PS - seen.slot[photons] * 10_000
    assert np.abs(phase_ps).max() < 1_500
    assert [b.truth.utc_ns for b in seen.blocks] == [ZERO_UTC_NS + n * 50_000_000 for n in range(40)]


@pytest.mark.parametrize("tick_ps", [Fraction(1), Fraction(2000)])
def test_another_taggers_tick_gives_the_same_light_at_its_own_resolution(tick_ps):
    """Truth has what that tagger's driver will say: the beginning of the tick, in whole picoseconds."""

    def blocks(tick):
        light = Light(IDEAL, SteadySky(), Blackboard.alone(0.0), PATTERNS, ZERO_UTC_NS, ZERO_UTC_NS, tick)
        return [light.block(number) for number in range(3)]

    fine, given = blocks(Fraction(1)), blocks(tick_ps)
    for exact, block in zip(fine, given, strict=True):
        step = int(tick_ps)
        assert np.array_equal(np.unique(exact.ticks // step), block.ticks)
        assert np.array_equal(exact.truth.click_device_ps // step * step, block.truth.click_device_ps)
        assert block.complete_ticks == exact.complete_ticks // step
    default = blocks(TDC2_TICK_PS)
    assert np.array_equal(fine[1].truth.click_device_ps * 32 // 125 * 125 // 32, default[1].truth.click_device_ps)
