"""What the drivers of mounts share: a reading's moment lies where the encoders can have been read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.mounts import reading_between, require_direction, try_all
from groundstation.errors import BadInput, InstrumentFault, WireError

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
