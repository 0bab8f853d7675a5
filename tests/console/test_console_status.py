"""The plain and the JSON line: one line each, units in names, old values marked."""

import json
from dataclasses import fields, replace

import pytest
from console_samples import MID_PASS, statuses
from hypothesis import given

from groundstation.console.status import (
    STALE_AFTER_S,
    PassStatus,
    countdown,
    is_stale,
    json_line,
    minutes_text,
    plain_line,
    qber_text,
    rate_text,
)

NS = 1_000_000_000


def test_the_plain_line_of_a_pass_in_full_flight():
    assert plain_line(MID_PASS) == (
        "2016-12-19T16:51:03Z SIMULATION tracking | time left 03:27 | az 342.42° el 31.05° error 2.4 arcsec"
        " | clicks 12.43 kHz | gated 11.58 kHz sifted 5.53 kHz bits 172,345 QBER 1.09 ± 0.08 %"
    )


def test_the_plain_line_leaves_out_what_is_unknown():
    assert plain_line(PassStatus(mode="LIVE", state="slewing")) == "LIVE slewing"


def test_the_plain_line_marks_old_values_and_ends_with_the_alarms():
    old = replace(MID_PASS, mount_age_s=STALE_AFTER_S + 4, dropped=812, alarms=("disk nearly full",))
    line = plain_line(old)
    assert "error 2.4 arcsec (STALE 7 s)" in line
    assert line.endswith("| dropped 812 | ALARM: disk nearly full")


def test_the_json_line_has_every_field_in_a_fixed_order_with_units():
    full, empty = json.loads(json_line(MID_PASS)), json.loads(json_line(PassStatus()))
    assert list(full) == list(empty)
    assert len(full) == len(fields(PassStatus))
    assert full["utc"] == "2016-12-19T16:51:03.400Z"
    assert full["counts_hz"]["H"] == 3120.0
    assert full["sifted_bits"] == 172345
    assert empty["qber"] is None


def test_the_json_line_says_null_for_what_json_cannot_say():
    assert json.loads(json_line(PassStatus(azimuth_deg=float("nan"))))["azimuth_deg"] is None


@given(statuses)
def test_any_snapshot_is_one_line_in_both_forms(status):
    assert plain_line(status).isprintable()
    assert "\n" not in json_line(status)
    json.loads(json_line(status))


def test_the_countdown_runs_to_the_start_then_to_the_end():
    at = {"start_utc_ns": 100 * NS, "stop_utc_ns": 400 * NS}
    assert countdown(PassStatus(utc_ns=35 * NS, **at)) == ("starts in", "01:05")
    assert countdown(PassStatus(utc_ns=100 * NS, **at)) == ("time left", "05:00")
    assert countdown(PassStatus(utc_ns=400 * NS - 1, **at)) == ("time left", "00:01")
    assert countdown(PassStatus(utc_ns=400 * NS, **at)) == ("ended", "")


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [(0, "00:00"), (1, "00:01"), (3599 * NS, "59:59"), (3600 * NS, "1:00:00"), (90061 * NS, "25:01:01")],
)
def test_spans_read_like_a_clock(span_ns, text):
    assert minutes_text(span_ns) == text


@pytest.mark.parametrize(
    ("rate_hz", "text"),
    [(None, "–"), (0.0, "0 Hz"), (998.9, "999 Hz"), (999.6, "1.00 kHz"), (12_361.0, "12.36 kHz"),
     (1_234_560.0, "1234.6 kHz")],
)  # fmt: skip
def test_rates_carry_their_unit(rate_hz, text):
    assert rate_text(rate_hz) == text


def test_a_qber_without_error_is_still_shown():
    assert qber_text(PassStatus(qber=0.0109)) == "1.09 %"
    assert qber_text(PassStatus(qber=0.0109, qber_standard_error=0.0008)) == "1.09 ± 0.08 %"


def test_stale_begins_after_the_limit_and_unknown_is_not_stale():
    assert not is_stale(None)
    assert not is_stale(STALE_AFTER_S)
    assert is_stale(STALE_AFTER_S + 0.01)
