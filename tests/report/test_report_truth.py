"""The judge of the simulated world counts what a slow and obvious comparison counts, however its truth arrives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.clock import NS_PER_S
from groundstation.recording.segment import NO_HASH, Damage, Segment
from groundstation.report.truth import TruthJudge

ZERO_PS = 4_320_000_000_000_125
START_NS, STOP_NS = 100 * NS_PER_S, 110 * NS_PER_S


class Stream:
    """A stream that grows when told to."""

    def __init__(self, *items):
        self.items, self.ended = list(items), False

    def poll(self, limit=16):
        taken, self.items = self.items[:limit], self.items[limit:]
        return taken

    def stop_following(self):
        self.ended = True


def clicks(device_ps, slot):
    table = {"device_ps": np.asarray(device_ps, np.int64), "slot": np.asarray(slot, np.int64)}
    return Segment("truth", 1, "r", {}, {"clicks": table}, {}, False, NO_HASH)


def tallies(utc_ns, sifted, errors):
    table = {
        "utc_ns": np.asarray(utc_ns, np.int64),
        "detections": np.zeros(len(utc_ns), np.int64),
        "signal_sifted": np.asarray(sifted, np.int64),
        "signal_errors": np.asarray(errors, np.int64),
    }
    return Segment("truth", 1, "r", {}, {"tallies": table}, {}, False, NO_HASH)


def pointing(utc_ns, error_arcsec):
    table = {"utc_ns": np.asarray(utc_ns, np.int64), "error_arcsec": np.asarray(error_arcsec, np.float64)}
    return Segment("truth", 1, "r", {}, {"pointing": table}, {}, False, NO_HASH)


def judge_of(*items):
    stream = Stream(*items)
    return TruthJudge(stream, START_NS, STOP_NS), stream


def verdict(judge):
    truth = judge.truth()
    return truth.photon_clicks_gated, truth.slots_assigned_wrongly


def claim(judge, device_ps, slot):
    judge.claim(ZERO_PS, np.asarray(device_ps, np.int64) - ZERO_PS, np.asarray(slot, np.int64))


def test_right_wrong_noise_and_unknown_clicks_are_told_apart():
    at = ZERO_PS + np.array([10, 20, 30, 40]) * 1_000
    judge, stream = judge_of(clicks(at, [1, 2, -1, 4]))
    claim(judge, [at[0], at[1], at[2], at[3], at[3] + 1], [1, 7, 3, 4, 5])
    stream.stop_following()
    judge.poll()
    assert verdict(judge) == (3, 1)


def test_of_two_clicks_in_one_tick_either_slot_is_right():
    judge, stream = judge_of(clicks([5_000, 5_000, 9_000], [1, 2, 3]))
    judge.claim(0, np.array([5_000, 5_000]), np.array([1, 2]))
    stream.stop_following()
    judge.poll()
    assert verdict(judge) == (2, 0)


def test_claims_wait_until_the_truth_has_come_as_far():
    judge, stream = judge_of()
    judge.claim(0, np.array([1_000, 2_000]), np.array([1, 2]))
    assert not judge.poll()
    stream.items.append(clicks([1_000], [1]))
    judge.poll()
    assert verdict(judge) == (0, 0)
    stream.items.append(clicks([2_000], [3]))
    judge.poll()
    assert verdict(judge) == (0, 0), "another click of the same tick may still come"
    stream.items.append(clicks([3_000], [4]))
    judge.poll()
    assert verdict(judge) == (2, 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_verdict_is_that_of_a_slow_comparison_however_truth_and_claims_are_cut(data):
    ticks = sorted(data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True)))
    slots = data.draw(st.lists(st.integers(-1, 5), min_size=len(ticks), max_size=len(ticks)))
    claimed = sorted(data.draw(st.lists(st.integers(0, 300), max_size=40)))
    guesses = data.draw(st.lists(st.integers(0, 5), min_size=len(claimed), max_size=len(claimed)))
    true_slot = dict(zip(ticks, slots, strict=True))
    photons = [true_slot.get(tick, -1) >= 0 for tick in claimed]
    wrong = sum(p and true_slot[t] != g for p, t, g in zip(photons, claimed, guesses, strict=True))
    stream = Stream()
    judge = TruthJudge(stream, START_NS, STOP_NS)
    truth_left, claims_left = list(zip(ticks, slots, strict=True)), list(zip(claimed, guesses, strict=True))
    while truth_left or claims_left:
        size = data.draw(st.integers(1, 20))
        if truth_left and (not claims_left or data.draw(st.booleans())):
            part, truth_left = truth_left[:size], truth_left[size:]
            stream.items.append(clicks(*zip(*part, strict=True)))
        elif claims_left:
            part, claims_left = claims_left[:size], claims_left[size:]
            times, named = np.array(part, np.int64).T
            judge.claim(0, times, named)
        judge.poll()
    stream.stop_following()
    judge.poll()
    assert verdict(judge) == (sum(photons), wrong)


def test_counts_and_pointing_are_those_inside_the_window():
    times = [START_NS - 1, START_NS, STOP_NS - 1, STOP_NS]
    judge, _ = judge_of(tallies(times, [1, 10, 100, 1_000], [1, 2, 3, 4]), pointing(times, [9.0, 1.0, 2.0, 9.0]))
    judge.poll()
    truth = judge.truth()
    assert (truth.signal_sifted, truth.signal_errors) == (110, 5)
    assert truth.pointing_utc_ns.tolist() == times[1:3]
    assert truth.pointing_error_arcsec.tolist() == [1.0, 2.0]
    assert not judge.ended
    judge.stop_following()
    assert judge.ended


@pytest.mark.parametrize("items", [(), (Damage("truth", 1, "000001.h5", "it is damaged", None),)])
def test_without_truth_there_is_an_empty_verdict(items):
    judge, stream = judge_of(*items)
    judge.claim(0, np.array([1]), np.array([1]))
    judge.claim(0, np.empty(0, np.int64), np.empty(0, np.int64))
    stream.stop_following()
    judge.poll()
    truth = judge.truth()
    assert verdict(judge) == (0, 0)
    assert truth.pointing_utc_ns.dtype == np.int64
    assert truth.pointing_error_arcsec.size == 0


def test_what_has_been_judged_is_not_kept():
    """The truth of a whole pass would be tens of megabytes."""
    per_second = 1_000
    judge, stream = judge_of()
    for second in range(50):
        at = second * 10**12 + np.arange(per_second) * 10**8
        stream.items.append(clicks(at, np.arange(per_second)))
        judge.claim(0, at[:-1], np.arange(per_second)[:-1])
        judge.poll()
    assert judge._device_ps.size <= 2 * per_second
    assert verdict(judge)[1] == 0
