"""World time: one reader of the system's clocks, and UTC as text without a nanosecond lost."""

import ast
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.clock import (
    NS_PER_S,
    SimulatedClock,
    SystemClock,
    clock_from_text,
    monotonic_ns,
    monotonic_s,
    parse_utc,
    sleep_wall_s,
    utc_text,
)
from groundstation.errors import BadInput

ROOT = Path(__file__).parents[1]
T0 = 1_482_166_333_000_000_000  # 2016-12-19T16:52:13Z, as `date -u -d @1482166333` says
MOMENTS = st.integers(0, 2**62)  # until 2116


def test_a_moment_everybody_knows():
    assert utc_text(T0, 0) == "2016-12-19T16:52:13Z"
    assert parse_utc("2016-12-19T16:52:13Z") == T0
    assert parse_utc("1970-01-01T00:00:00Z") == 0


@given(MOMENTS)
def test_text_with_nine_digits_loses_nothing(utc_ns):
    assert parse_utc(utc_text(utc_ns, 9)) == utc_ns


@given(MOMENTS, st.integers(0, 9))
def test_text_with_fewer_digits_is_the_nearest_moment(utc_ns, digits):
    text = utc_text(utc_ns, digits)
    step = 10 ** (9 - digits)
    assert abs(parse_utc(text) - utc_ns) <= step // 2
    assert parse_utc(text) % step == 0
    assert len(text) == len("2016-12-19T16:52:13Z") + (digits + 1 if digits else 0)


@given(MOMENTS)
def test_text_agrees_with_the_calendar_of_the_standard_library(utc_ns):
    seconds = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=utc_ns // NS_PER_S)
    assert utc_text(utc_ns, 9).startswith(seconds.strftime("%Y-%m-%dT%H:%M:%S"))


def test_rounding_carries_into_the_next_day():
    assert utc_text(parse_utc("2016-12-31T23:59:59.9996Z"), 3) == "2017-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "since_t0_ns"),
    [
        ("2016-12-20T00:52:13+08:00", 0),
        ("2016-12-19T16:52:13.5Z", 500_000_000),
        ("2016-12-19T16:52:13.123456789Z", 123_456_789),
        ("2016-12-19T16:52:13.1234567Z", 123_456_700),
        ("2016-12-20T00:52:13.123456789+08:00", 123_456_789),
        ("2016-12-19 16:52:13Z", 0),
    ],
)
def test_times_may_be_written_with_an_offset_or_a_fraction(text, since_t0_ns):
    assert parse_utc(text) == T0 + since_t0_ns


@pytest.mark.parametrize(
    "text", ["", "now", "2016-12-19", "2016-12-19T16:52:13", "2016-13-19T16:52:13Z", "12:00Z", "🛰"]
)
def test_what_is_no_moment_is_bad_input_that_says_how_to_write_one(text):
    with pytest.raises(BadInput, match=r"2016-12-19T16:52:13Z|write UTC with a Z"):
        parse_utc(text)


@given(st.text(max_size=30))
def test_no_text_gives_anything_but_a_moment_or_bad_input(text):
    with contextlib.suppress(BadInput):
        assert isinstance(parse_utc(text), int)


@pytest.mark.parametrize("speed", [0.1, 1.0, 7.3, 20.0, 1000.0])
def test_a_simulated_world_runs_so_many_times_faster_than_the_wall(speed):
    clock = SimulatedClock(T0, monotonic_ns() - 5 * NS_PER_S, speed)
    before = monotonic_ns()
    now = clock.utc_ns()
    after = monotonic_ns()
    assert T0 + speed * (before - clock.m0_ns) - 1 <= now <= T0 + speed * (after - clock.m0_ns) + 1


@given(MOMENTS, st.integers(0, 2**60), st.floats(0.01, 1e4))
def test_another_program_gets_exactly_the_same_clock(t0_utc_ns, m0_ns, speed):
    clock = SimulatedClock(t0_utc_ns, m0_ns, speed)
    assert clock_from_text(clock.text()) == clock


def test_the_system_clock_goes_by_its_name():
    assert clock_from_text(SystemClock().text()) == SystemClock()
    assert abs(SystemClock().utc_ns() - parse_utc(datetime.now(UTC).isoformat())) < 5 * NS_PER_S


@pytest.mark.parametrize(
    "text", ["", "sytem", "1:2", "1:2:3:4", "a:b:c", "1:2:", "1:2:0", "1:2:-1.0", "1:2:nan", "1:2:inf"]
)
def test_what_is_no_clock_is_bad_input(text):
    with pytest.raises(BadInput, match=r"clock \""):
        clock_from_text(text)


def test_sleep_takes_world_time_on_a_clock_and_wall_time_on_the_wall():
    began_s = monotonic_s()
    SimulatedClock(T0, monotonic_ns(), 100.0).sleep_s(2.0)
    assert 0.02 <= monotonic_s() - began_s < 1.0
    for sleep in (SystemClock().sleep_s, SimulatedClock(T0, 0, 2.0).sleep_s, sleep_wall_s):
        began_s = monotonic_s()
        sleep(-5.0)
        assert monotonic_s() - began_s < 1.0


def test_nobody_else_reads_the_systems_time():
    """DESIGN: `groundstation/clock.py` is the sole reader."""
    readers = []
    for path in [*ROOT.glob("groundstation/**/*.py"), *ROOT.glob("drivers/**/*.py")]:
        if path != ROOT / "groundstation" / "clock.py":
            readers += [f"{path.relative_to(ROOT)}:{line}" for line in reads_of_time(ast.parse(path.read_text()))]
    assert readers == []


def reads_of_time(tree):
    """The lines on which a program uses the module `time`, or asks `datetime` what time it is."""
    nodes = list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # What a clock is like may be asked, but not what it says.
            of_time = node.value.id == "time" and "time" in imported and node.attr != "get_clock_info"
            if of_time or (node.value.id in ("datetime", "date") and node.attr in ("now", "utcnow", "today")):
                yield node.lineno
