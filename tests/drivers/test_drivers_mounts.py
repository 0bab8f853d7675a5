"""What the drivers of mounts share: a reading's moment lies where the encoders can have been read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.mounts import Way, reading_between, require_direction, try_all
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, InstrumentFault, WireError
from groundstation.instruments import MountReading

NS = st.integers(0, 10**9)


@given(NS, NS, NS, NS)
def test_the_moment_of_reading_lies_between_question_and_answer(there_ns, think_before_ns, think_after_ns, back_ns):
    sent_ns = 1_482_166_140_000_000_000
    read_ns = sent_ns + there_ns + think_before_ns
    received_ns = read_ns + think_after_ns + back_ns
    plain = reading_between(1.0, 2.0, sent_ns, received_ns)
    narrow = reading_between(1.0, 2.0, sent_ns, received_ns, there_ns, back_ns)
    for reading in (plain, narrow):
        assert abs(reading.utc_ns - read_ns) <= reading.uncertainty_s * 1e9 + 1.5
    assert narrow.uncertainty_s <= plain.uncertainty_s


def test_a_line_faster_than_was_said_narrows_nothing():
    assert reading_between(0.0, 0.0, 0, 100, 80, 80) == reading_between(0.0, 0.0, 0, 100)


@pytest.mark.parametrize("elevation_deg", [-90.1, 90.1, math.nan, math.inf])
def test_no_direction_is_refused(elevation_deg):
    require_direction(-720.0, -90.0)
    with pytest.raises(BadInput, match="give an azimuth"):
        require_direction(0.0, elevation_deg)
    with pytest.raises(BadInput, match="give an azimuth"):
        require_direction(math.inf, 0.0)


def test_a_stop_tries_everything_and_tells_the_first_error():
    tried = []

    def fail(error):
        tried.append(error)
        raise error

    first = WireError("azimuth")
    with pytest.raises(WireError) as told:
        try_all(lambda: fail(first), lambda: fail(InstrumentFault("elevation")), lambda: tried.append("last"))
    assert told.value is first
    assert len(tried) == 3
    try_all(lambda: None)


@pytest.mark.parametrize(
    ("rests_at_deg", "says"),
    [((359.9, 45.0), [True, True, True, False, False]), ((0.1, 45.2), [True, True, True, False, False])],
)
def test_a_rotator_that_rests_near_its_target_has_arrived_also_beyond_north(rests_at_deg, says):
    way = Way("the address", 0.02, 0.5, 2.0, 5.0)
    way.begin(0.0, 45.0, 0)
    places = iter([(350.0, 40.0), (355.0, 43.0), rests_at_deg, rests_at_deg])
    moments_s = iter([1, 2, 3, 6])
    assert [way.goes_on(lambda: MountReading(*next(places), next(moments_s) * NS_PER_S, 0.0)) for _ in says] == says


def test_a_rotator_that_rests_elsewhere_has_failed_once():
    way = Way("the address", 0.02, 0.5, 2.0, 5.0)
    way.begin(30.0, 45.0, 0)
    stuck = lambda second: lambda: MountReading(5.0, 5.0, second * NS_PER_S, 0.0)  # noqa: E731  a reading of it
    assert [way.goes_on(stuck(second)) for second in (1, 4, 6)] == [True] * 3
    with pytest.raises(InstrumentFault, match="the rotator at the address rests at azimuth 5 deg"):
        way.goes_on(stuck(7))
    assert not way.goes_on(stuck(8))
