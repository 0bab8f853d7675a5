"""The first pulse gets the right UTC second or none, however late the words are read."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from groundstation.acquisition.labelling import UtcLabeller

PS = 10**12
SECOND = 1_482_166_140  # of UTC, at which the device's time is 4321.25 s
DEVICE_PS = 4321 * PS + PS // 4
BLOCK_S = 0.05


def label_after(delays_s, speed, host_off_s, pulse_after_s=0.3, reads=None):
    """Feed one read per block of 50 ms of the world; `delays_s`: of each, in wall time, again and again."""
    labeller = UtcLabeller(1e-6)
    first_pulse_ps = DEVICE_PS + round(pulse_after_s * PS)
    # The pulse is at a whole second of UTC.
    device_minus_utc_s = (first_pulse_ps / PS) - SECOND
    for number in range(reads or 520):
        latest_ps = DEVICE_PS + round((number + 1) * BLOCK_S * PS)
        world_s = latest_ps / PS - device_minus_utc_s
        host_s = world_s + delays_s[number % len(delays_s)] * speed + host_off_s
        pulse_ps = first_pulse_ps if latest_ps - round(BLOCK_S * PS) <= first_pulse_ps < latest_ps else None
        labeller.feed(latest_ps, pulse_ps, round(host_s * 1e9))
    return labeller.label, first_pulse_ps


@settings(max_examples=300, deadline=None)
@given(
    delays_s=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=60),
    speed=st.sampled_from([1.0, 5.0, 10.0, 20.0]),
    host_off_s=st.floats(-0.2, 0.2),
    pulse_after_s=st.floats(0.06, 0.95),
)
def test_the_right_second_or_none(delays_s, speed, host_off_s, pulse_after_s):
    """Of the reads that it watches, one must be quick: 6 ms of the host at twenty times real time."""
    assume(min(delays_s) * speed < 0.13)
    label, pulse_ps = label_after(delays_s, speed, host_off_s, pulse_after_s)
    if label is not None:
        assert (label.time_ps, label.utc_ns) == (pulse_ps, SECOND * 10**9)
        assert label.uncertainty_s == 1e-6


@settings(max_examples=100, deadline=None)
@given(delays_s=st.lists(st.floats(0.0, 0.0065), min_size=1, max_size=60), host_off_s=st.floats(-0.2, 0.2))
def test_a_machine_that_is_never_very_late_always_gets_a_label(delays_s, host_off_s):
    label, _ = label_after(delays_s, 20.0, host_off_s)
    assert label is not None


@pytest.mark.parametrize("late_s", [0.36, 0.4, 0.5, 0.6, 0.64])
def test_a_pulse_between_two_seconds_of_the_hosts_clock_is_not_labelled(late_s):
    assert label_after([late_s], 1.0, 0.0)[0] is None


def test_a_busy_start_is_forgotten_once_reads_are_quick():
    """The least delayed word decides, so the label comes later and is right."""
    delays_s = [0.5] * 200 + [0.001] * 400
    assert label_after(delays_s, 1.0, 0.0, reads=395)[0] is None
    label, _ = label_after(delays_s, 1.0, 0.0, reads=420)
    assert label.utc_ns == SECOND * 10**9


def test_words_that_are_all_two_seconds_late_at_first_do_not_shift_the_label_by_two_seconds():
    """A busy machine at ten times real time: 0.2 s of wall time are two whole seconds of the world."""
    label, _ = label_after([0.2] * 150 + [0.21, 0.004] * 300, 10.0, 0.0, reads=600)
    assert label.utc_ns == SECOND * 10**9


@pytest.mark.parametrize("reads", [5, 29, 390])
def test_a_few_reads_are_no_evidence(reads):
    assert label_after([0.0], 1.0, 0.0, reads=reads)[0] is None


def test_what_came_after_the_label_cannot_change_it():
    labeller = UtcLabeller(1e-6)
    for number in range(2_100):
        labeller.feed(number * 10**10, 5 if number == 0 else None, 10**18 + number * 10**7)
    label = labeller.label
    for number in range(40):
        labeller.feed(number * 10**10, 7, 10**18 - 10**12 + number * 10**7)
    assert label is not None
    assert labeller.label is label
