"""No streaming stage keeps what it has seen: ten times the tags take the same memory."""

import sys

import pytest
from memory import MOST_MB, STAGES, measured_mb


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("stage", STAGES)
def test_ten_times_the_tags_take_no_more_memory(stage):
    few, many = (1_000_000, 10_000_000) if stage != "correlation-1-ms" else (500_000, 2_000_000)
    grown = measured_mb(stage, many)
    assert grown < MOST_MB / 4
    assert grown < measured_mb(stage, few) + 5
