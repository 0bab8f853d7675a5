"""Across any outage a tag has its true time or was dropped and counted. Truth: the moments at which things happened."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.acquisition.pulse_train import PulseTrain, find_train
from groundstation.acquisition.time_base import RESTARTED, TimeBase
from groundstation.instruments import PatternBlock

PS = 10**12
PPS, CLICK = 0b1100, 0b0001
PPS_UNCERTAINTY_PS = 1_000_000
WRAP_PS = (1 << 49) * 125


class Bench:
    """Clicks and pulses at known moments (ps of true time), a tagger whose counter can be restarted, and a host."""

    def __init__(self, base, rng, offset=0.0, phase_ps=4321 * PS + 777, pulses=True):
        self.base, self.rng, self.offset, self.pulses = base, rng, offset, pulses
        self.first_phase_ps = self.phase_ps = phase_ps
        self.now_ps = 0
        self.given, self.fed = [], 0
        self.happened = np.empty(0, np.int64)

    def reading(self, true_ps, phase_ps):
        return true_ps + np.rint(true_ps * self.offset).astype(np.int64) + phase_ps

    def run(self, seconds, up=True, late_s=0.02):
        """Time passes in reads of a tenth of a second; while the link is down nobody reads."""
        for _ in range(round(seconds * 10)):
            start_ps, self.now_ps = self.now_ps, self.now_ps + PS // 10
            clicks = np.sort(self.rng.integers(start_ps, self.now_ps, 3))
            second = np.arange(-(-start_ps // PS), -(-self.now_ps // PS)) * PS
            pulse = second + np.rint(self.rng.normal(0.0, 15_000.0, second.size)).astype(np.int64)
            if not self.pulses:
                pulse = pulse[:0]
            both = np.concatenate((clicks, pulse))
            order = np.argsort(both, kind="stable")
            pattern = np.concatenate((np.full(clicks.size, CLICK), np.full(pulse.size, PPS)))[order].astype(np.uint8)
            if self.rng.random() < 0.02:
                pattern[np.flatnonzero(pattern == CLICK)[0]] = 0b1101  # two detectors at once look like a pulse
            self.happened = np.append(self.happened, both[order])
            if up:
                device = self.reading(both[order], self.phase_ps)
                latest = int(self.reading(np.array([self.now_ps]), self.phase_ps)[0]) - PS // 1000
                latest = max(latest, int(device[-1]))
                host_ps = self.now_ps + round(self.rng.random() * late_s * PS)
                self.fed += device.size
                self.given += self.base.feed(PatternBlock(device, pattern, latest, None), host_ps)

    def restart(self, phase_ps):
        self.phase_ps = phase_ps - self.now_ps

    def check(self):
        """Every time that was given out is a true one on the first scale, and times never go back."""
        times = np.concatenate([np.empty(0, np.int64), *(block.time_ps for block in self.given)])
        assert np.all(np.diff(times) >= 0)
        latest = [block.latest_ps for block in self.given]
        assert latest == sorted(latest)
        truth = self.reading(self.happened, self.first_phase_ps)
        after = np.clip(np.searchsorted(truth, times), 1, truth.size - 1)
        off = np.minimum(np.abs(truth[after] - times), np.abs(truth[after - 1] - times))
        assert off.max(initial=0) <= PPS_UNCERTAINTY_PS
        held = self.base._held.tags if self.base._held else 0
        assert self.fed == times.size + sum(self.base.take_dropped().values()) + held
        return times


def a_bench(seed=1, pps=PPS, **more):
    return Bench(TimeBase(pps), np.random.default_rng(seed), **more)


outages = st.lists(
    st.tuples(st.floats(3.0, 15.0), st.floats(0.1, 40.0), st.one_of(st.none(), st.integers(0, 10**17))),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), plan=outages, ppm=st.floats(-20.0, 20.0), pulses=st.booleans())
def test_a_tag_has_its_true_time_or_was_dropped_and_counted(seed, plan, ppm, pulses):
    """Unplugged at any moment, restarted meanwhile or not, with a 1PPS or without, oscillator off by up to 20 ppm."""
    bench = a_bench(seed, pps=PPS if pulses else None, offset=ppm * 1e-6, pulses=pulses)
    bench.run(bench.rng.random() * 2.0 + 6.0)
    for up_s, down_s, restart_ps in plan:
        bench.base.interrupted("unplugged", WRAP_PS)
        bench.run(down_s, up=False)
        if restart_ps is not None:
            bench.restart(restart_ps)
        bench.run(up_s)
    bench.check()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), down_s=st.floats(0.1, 60.0), phase_ps=st.integers(0, 10**17))
def test_a_restarted_tagger_with_a_1pps_goes_on_within_seconds_and_nothing_is_dropped(seed, down_s, phase_ps):
    bench = a_bench(seed)
    bench.run(12.0)
    bench.base.interrupted("unplugged")
    before, lost_ps = len(bench.given), bench.base.latest_ps
    bench.run(down_s, up=False)
    back_ps = bench.now_ps
    bench.restart(phase_ps)
    bench.run(6.0)
    assert bench.base.trouble == ""
    lead, data = bench.given[before : before + 2]
    assert lead.time_ps.size == 0
    assert "unplugged" in lead.notes[0]
    assert "found again by the 1PPS" in lead.notes[0]
    assert lost_ps <= bench.reading(np.array([back_ps]), bench.first_phase_ps)[0] <= lead.latest_ps + PPS_UNCERTAINTY_PS
    assert lead.latest_ps == data.time_ps[0]
    assert bench.check().size == bench.fed


@pytest.mark.parametrize("pps", [PPS, None])
def test_a_tagger_that_went_on_keeps_every_tag_to_the_picosecond(pps):
    bench = a_bench(pps=pps)
    bench.run(5.0)
    bench.base.interrupted("unplugged")
    bench.run(3.0, up=False)
    bench.run(3.0)
    times = bench.check()
    assert times.size == bench.fed
    assert np.isin(times, bench.reading(bench.happened, bench.first_phase_ps)).all()


def test_without_a_1pps_a_restarted_tagger_is_never_believed_and_says_so():
    bench = a_bench(pps=None, pulses=False)
    bench.run(5.0)
    bench.base.interrupted("unplugged")
    before = len(bench.given)
    bench.restart(0)
    bench.run(30.0)
    assert len(bench.given) == before
    assert "begin a new recording" in bench.base.trouble
    assert bench.base.take_dropped() == {RESTARTED: 30 * 30}


def test_a_tagger_whose_time_only_seems_to_go_on_is_found_out_by_the_phase_of_its_pulse():
    """A reader program that takes the host's time at its start is off by milliseconds each time."""
    bench = a_bench()
    bench.run(8.0)
    bench.base.interrupted("unplugged")
    bench.run(2.0, up=False)
    bench.phase_ps += 3 * PS // 1000
    bench.run(6.0)
    assert bench.base.trouble == ""
    bench.check()


def test_a_counter_that_wrapped_during_the_outage_is_unwrapped():
    bench = a_bench(phase_ps=WRAP_PS - 10 * PS)
    bench.run(5.0)
    bench.base.interrupted("unplugged", WRAP_PS)
    bench.run(10.0, up=False)
    bench.phase_ps -= WRAP_PS
    bench.run(4.0)
    times = bench.check()
    assert times.size == bench.fed
    assert np.isin(times, bench.reading(bench.happened, bench.first_phase_ps)).all()


def test_what_is_held_is_bounded_while_the_1pps_is_missing():
    bench = a_bench()
    bench.run(5.0)
    bench.base.interrupted("unplugged")
    bench.pulses = False
    bench.run(120.0)
    assert bench.base._held.tags < 22 * 30
    assert "waiting for the 1PPS" in bench.base.trouble
    bench.pulses = True
    bench.run(3.0)
    assert bench.base.trouble == ""
    assert bench.check().size < bench.fed


def test_a_host_whose_reads_are_all_late_by_half_a_second_is_not_believed():
    bench = a_bench()
    bench.run(8.0)
    bench.base.interrupted("unplugged")
    bench.restart(0)
    before = len(bench.given)
    base, bench.base = bench.base, LateHost(bench.base)
    bench.run(6.0)
    assert len(bench.given) == before
    bench.base = base
    bench.run(6.0)
    assert len(bench.given) > before
    bench.check()


class LateHost:
    def __init__(self, base):
        self._base = base

    def feed(self, block, host_ps):
        return self._base.feed(block, host_ps + PS // 2)


@given(
    st.integers(4, 64), st.floats(-9e-5, 9e-5), st.lists(st.integers(-64 * PS, 0), max_size=1), st.integers(0, 10**18)
)
def test_the_pulses_are_told_from_what_only_looks_like_one(count, off, spurious, at_ps):
    spurious = [s for s in spurious if abs(s - round(s / PS) * PS) > 2e-4 * PS * 64]
    true = [at_ps - round(n * PS * (1 + off)) for n in range(count)]
    train = find_train(sorted([*true, *(at_ps + s for s in spurious)]))
    assert abs(train.off_ps(at_ps)) <= 1_000_000
    assert train.period_ps / PS - 1 == pytest.approx(off, abs=2e-7)


def test_a_train_needs_three_pulses_that_are_whole_seconds_apart():
    assert find_train([]) is None
    assert find_train([0, PS]) is None
    assert find_train([0, PS // 3, PS]) is None
    assert find_train([0, PS, 3 * PS]) == PulseTrain(3 * PS, float(PS))
