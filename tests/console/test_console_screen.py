"""The picture: it fits the terminal, says the mode first, and never passes old values off as new."""

import io
from dataclasses import replace

import pytest
from console_samples import MID_PASS, statuses
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from groundstation.console.screen import big_letters, progress_bar, render
from groundstation.console.status import PassStatus

WORST = replace(
    MID_PASS,
    mode="SIMULATION",
    station="A station with a name much longer than any terminal has room for, on a hill",
    mount_age_s=700.0,
    detector_age_s=12.0,
    analysis_age_s=120.0,
    dropped=10**9,
    recorded_tags=10**10,
    alarms=("The link to the time tagger is lost: nothing for 5 s;\ncheck the cable " * 3,) * 9,
)


def rows_of(status, width, **options):
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(render(status, width, **options))
    return captured.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("status", [MID_PASS, WORST, PassStatus()], ids=["mid", "worst", "unknown"])
@pytest.mark.parametrize("width", [76, 80, 120, 200])
def test_it_fits_under_24_rows_and_inside_the_width(status, width):
    rows = rows_of(status, width)
    assert len(rows) <= 23
    assert max(map(len, rows)) <= width


@settings(max_examples=40)
@given(statuses, st.sampled_from([1, 40, 79, 80, 120]))
def test_any_snapshot_can_be_drawn(status, width):
    rows = rows_of(status, width)
    assert width < 76 or len(rows) <= 23
    assert all(row.isprintable() for row in rows)


def test_a_narrow_terminal_stacks_the_panels():
    rows = rows_of(MID_PASS, 50)
    assert max(map(len, rows)) <= 50
    assert any("elevation" in row for row in rows)


def test_every_value_of_the_pass_is_on_the_screen():
    shown = "\n".join(rows_of(MID_PASS, 80))
    for words in ("342.42°", "31.05°", "893 km", "2.4″", "3.12 kHz", "9.90 kHz", "12.43 kHz", "11.58 kHz",
                  "5.53 kHz", "172,345", "1.09 ± 0.08 %", "0.3 s", "1,456,021", "412.6 GB", "48,000 min",
                  "time left 03:27", "highest 16:52:14Z", "TRACKING", "×5",
                  "Micius over Xinglong"):  # fmt: skip
        assert words in shown


def test_old_values_are_marked_beside_fresh_ones():
    shown = "\n".join(rows_of(replace(MID_PASS, mount_age_s=7.2), 80))
    assert "mount STALE 7 s" in shown
    assert shown.count("STALE") == 1


def test_alarms_are_spelled_out_and_the_rest_counted():
    shown = "\n".join(rows_of(replace(MID_PASS, alarms=("one", "two", "three", "four")), 80))
    assert "ALARM  one" in shown
    assert "ALARM  two" in shown
    assert "and 2 more alarms" in shown


@pytest.mark.parametrize("mode", ["SIMULATION", "LIVE", "REPLAY"])
def test_the_mode_is_drawn_large_or_spelled_out_where_only_ascii_will_do(mode):
    large = big_letters(mode).plain.split("\n")
    assert len(large) == 2
    assert len(large[0]) == len(large[1]) <= 40
    assert " ".join(mode) in big_letters(mode, ascii_only=True).plain
    assert progress_bar(MID_PASS, 40, ascii_only=True).plain.isascii()


def test_the_bar_fills_with_the_pass_and_marks_the_culmination():
    start, stop = MID_PASS.start_utc_ns, MID_PASS.stop_utc_ns
    half = replace(MID_PASS, culmination_utc_ns=start + (stop - start) * 3 // 4, utc_ns=(start + stop) // 2)
    assert progress_bar(half, 20, ascii_only=True).plain == "#" * 10 + "-" * 5 + "^" + "-" * 4
    before, after = replace(half, utc_ns=0), replace(half, utc_ns=2 * stop)
    assert progress_bar(before, 8, ascii_only=True).plain == "------^-"
    assert progress_bar(after, 8, ascii_only=True).plain == "######^#"
