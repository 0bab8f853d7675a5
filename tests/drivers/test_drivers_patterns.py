"""Clicks of single inputs become events with sets of inputs, as a plain model says, whatever the pieces."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.patterns import Joiner, require_inputs
from groundstation.errors import BadInput

CLICKS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=40)


def model(clicks, join_ps):
    """One click after the other: it joins the event at hand, or begins one."""
    events = []
    for time_ps, number in clicks:
        bit = 1 << number
        if events and time_ps - events[-1][0] <= join_ps and not events[-1][1] & bit:
            events[-1][1] |= bit
        else:
            events.append([time_ps, bit])
    return [tuple(event) for event in events]


def joined(clicks, join_ps, cuts):
    joiner, events, latest_ps = Joiner(join_ps), [], -1
    edges = [0, *sorted(min(cut, len(clicks)) for cut in cuts), len(clicks)]
    for start, stop in pairwise(edges):
        part = clicks[start:stop]
        times = np.array([time for time, _ in part], np.int64)
        bits = np.array([1 << number for _, number in part], np.uint8)
        now_ps = int(times[-1]) if part else latest_ps
        time_ps, patterns, latest_ps = joiner.feed(times, bits, now_ps)
        assert not time_ps.size or time_ps[-1] <= latest_ps
        assert all(time >= latest_ps for time, _ in clicks[stop:])
        events += zip(time_ps.tolist(), patterns.tolist(), strict=True)
    time_ps, patterns, _ = joiner.feed(np.empty(0, np.int64), np.empty(0, np.uint8), 10**6)
    return events + list(zip(time_ps.tolist(), patterns.tolist(), strict=True))


@given(CLICKS, st.integers(0, 9), st.lists(st.integers(0, 40), max_size=4))
def test_any_cut_gives_the_events_of_the_model(clicks, join_ps, cuts):
    clicks = sorted(clicks, key=lambda click: click[0])
    assert joined(clicks, join_ps, cuts) == model(clicks, join_ps)


def test_no_click_is_lost():
    rng = np.random.default_rng(3)
    clicks = list(zip(np.cumsum(rng.integers(0, 40, 5000)).tolist(), rng.integers(0, 8, 5000).tolist(), strict=True))
    assert sum(bits.bit_count() for _, bits in joined(clicks, 30, [17, 999, 3000])) == 5000


@pytest.mark.parametrize("inputs", [(), (1,) * 2, tuple(range(1, 10)), (1, 70), (-9,)])
def test_inputs_out_of_range_or_named_twice_are_bad_input(inputs):
    with pytest.raises(BadInput, match="inputs"):
        require_inputs(inputs, -4, 64, "some")
