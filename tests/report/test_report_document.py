"""report.json: its fields and their order, its definitions, and what it says when something is unknown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import broken_result, empty_result, plausible_result
from scipy.stats import beta

from groundstation.clock import NS_PER_S
from groundstation.report.document import error_rate, observed_s, rate_hz, report_document, report_text


def test_the_fields_stand_in_the_published_order():
    document = report_document(plausible_result())
    assert list(document) == [
        "mode", "complete", "remarks", "station", "satellite", "window", "detections", "gated",
        "double_clicks", "unanswered", "answered_slots", "sifted_bits", "qber", "sifted_rate",
        "pointing_error_arcsec", "synchronisation", "ledger", "gaps", "simulation", "provenance",
    ]  # fmt: skip
    assert list(document["window"]) == ["start_utc", "stop_utc", "duration_s"]
    assert list(document["sifted_bits"]) == ["signal", "decoy", "vacuum", "disclosed", "undisclosed"]
    assert list(document["qber"]) == ["overall", "rectilinear", "diagonal"]
    for rate in (*document["qber"].values(), document["simulation"]["qber"]):
        assert list(rate) == ["value", "standard_error", "errors", "bits"]
    assert list(document["sifted_rate"]) == ["time_s", "rate_hz", "range_km"]
    assert list(document["pointing_error_arcsec"]) == ["rms", "max", "readings"]
    assert list(document["synchronisation"]) == [
        "beacon_residual_rms_ps", "beacon_pulses_used", "beacon_pulses_rejected", "unsynchronised_s",
        "excluded_s",
    ]  # fmt: skip
    assert list(document["ledger"]) == ["seen", "recorded", "dropped", "dropped_by_cause", "missed"]
    assert list(document["simulation"]) == ["slot_error_fraction", "qber", "pointing_error_arcsec"]


def test_everything_is_a_json_type_and_survives_the_way_through_text():
    for result in (plausible_result(), broken_result(), empty_result()):
        document = report_document(result)
        text = report_text(document)
        assert text.endswith("}\n")
        assert json.loads(text) == document


def test_counts_are_integers_and_the_window_is_utc():
    document = report_document(plausible_result())
    assert type(document["detections"]) is int
    assert type(document["sifted_bits"]["signal"]) is int
    assert document["window"] == {
        "start_utc": "2016-12-19T16:49:57.550Z",
        "stop_utc": "2016-12-19T16:54:30.050Z",
        "duration_s": 272.5,
    }


def test_every_sifted_bit_is_either_disclosed_or_not():
    bits = report_document(plausible_result())["sifted_bits"]
    assert bits["signal"] + bits["decoy"] + bits["vacuum"] == bits["disclosed"] + bits["undisclosed"]


def test_the_ledger_balances():
    ledger = report_document(broken_result())["ledger"]
    assert ledger["seen"] == ledger["recorded"] + ledger["dropped"]
    assert ledger["dropped_by_cause"] == {"bad word": 12, "queue full": 800}
    assert ledger["missed"] is None


def test_the_qber_counts_disclosed_signal_slots_only():
    sifted = np.zeros((3, 2, 2), np.int64)
    sifted[:, :, 0] = 1000
    sifted[:, :, 1] = [[400, 600], [50, 50], [10, 10]]
    errors = np.array([[4, 12], [25, 25], [5, 5]])
    qber = report_document(plausible_result(sifted=sifted, errors=errors))["qber"]
    assert qber["rectilinear"]["value"] == 0.01
    assert qber["diagonal"]["value"] == 0.02
    assert qber["overall"] == {
        "value": 0.016,
        "standard_error": pytest.approx((0.016 * 0.984 / 1000) ** 0.5, rel=1e-8),
        "errors": 16,
        "bits": 1000,
    }


@pytest.mark.parametrize(("errors", "bits"), [(0, 1), (0, 250), (250, 250)])
def test_no_error_at_all_is_not_certainty(errors, bits):
    expected = beta(errors + 1, bits - errors + 1).std()
    assert error_rate(errors, bits)["standard_error"] == pytest.approx(expected)


def test_a_rate_without_bits_is_null():
    assert error_rate(0, 0) == {"value": None, "standard_error": None, "errors": 0, "bits": 0}


def test_the_last_second_of_the_window_may_be_short_and_its_rate_is_not():
    counts = np.full(273, 1000)
    counts[-1] = 500
    document = report_document(plausible_result(signal_per_second=counts))
    assert document["sifted_rate"]["rate_hz"] == [1000.0] * 273
    assert document["sifted_rate"]["time_s"][:2] == [0.5, 1.5]


def test_seconds_that_could_not_be_used_have_no_rate_and_parts_of_one_the_rate_of_what_was_observed():
    counts, unused_s = np.full(273, 1000), np.zeros(273)
    counts[10:12], unused_s[10:12] = (400, 0), (0.6, 1.0)
    result = plausible_result(signal_per_second=counts, unused_s_per_second=unused_s)
    rate = report_document(result)["sifted_rate"]["rate_hz"]
    assert rate[9:13] == [1000.0, 1000.0, None, 1000.0]


@given(st.lists(st.floats(0.0, 1.0), min_size=30, max_size=30), st.integers(1, 10))
def test_observed_time_is_the_window_less_what_could_not_be_used(unused_s, tenths_of_the_last):
    start = PLAUSIBLE.window_start_utc_ns
    inside_s = np.append(np.ones(29), tenths_of_the_last / 10)
    unused = np.minimum(unused_s, inside_s)
    result = replace(
        PLAUSIBLE,
        window_stop_utc_ns=start + 29 * NS_PER_S + tenths_of_the_last * NS_PER_S // 10,
        signal_per_second=np.ones(30, np.int64),
        unused_s_per_second=unused,
    )
    assert observed_s(result) == pytest.approx(inside_s - unused, abs=2e-6)
    nothing_seen = observed_s(result) == 0.0
    assert np.isnan(rate_hz(result.signal_per_second, result)).tolist() == nothing_seen.tolist()


def test_a_rounding_error_of_a_second_is_no_observation():
    unused_s = np.full(273, 1.0 - 1e-9)
    rate = report_document(plausible_result(unused_s_per_second=unused_s))["sifted_rate"]["rate_hz"]
    assert rate == [None] * 273


def test_pointing_counts_the_readings_of_the_window_only():
    start, stop = PLAUSIBLE.window_start_utc_ns, PLAUSIBLE.window_stop_utc_ns
    result = plausible_result(
        mount_utc_ns=np.array([start - 1, start, stop, stop + 1]),
        pointing_error_arcsec=np.array([5000.0, 3.0, 4.0, 7000.0]),
    )
    pointing = report_document(result)["pointing_error_arcsec"]
    assert pointing == {"rms": pytest.approx(12.5**0.5), "max": 4.0, "readings": 2}


def test_the_simulated_world_has_thirty_seconds_to_settle():
    start = PLAUSIBLE.window_start_utc_ns
    truth = replace(
        PLAUSIBLE.simulation,
        photon_clicks_gated=1000,
        slots_assigned_wrongly=2,
        pointing_utc_ns=start + np.array([-1, 0, 29, 30, 31]) * NS_PER_S,
        pointing_error_arcsec=np.array([999.0, 50.0, 10.0, 2.0, 2.0]),
    )
    section = report_document(plausible_result(simulation=truth))["simulation"]
    assert section["slot_error_fraction"] == 0.002
    assert section["pointing_error_arcsec"]["rms_after_30_s"] == 2.0
    assert section["pointing_error_arcsec"]["max"] == 50.0


def test_a_real_pass_has_no_simulation_section():
    assert "simulation" not in report_document(plausible_result(mode="live", simulation=None))


def test_what_cannot_be_known_is_null():
    document = report_document(empty_result())
    assert document["qber"]["overall"]["value"] is None
    assert document["pointing_error_arcsec"] == {"rms": None, "max": None, "readings": 0}
    assert document["synchronisation"]["beacon_residual_rms_ps"] is None
    assert document["sifted_rate"] == {"time_s": [], "rate_hz": [], "range_km": []}


def test_the_same_result_gives_the_same_bytes_whatever_its_memory_looks_like():
    one, other = plausible_result(), plausible_result()
    other = replace(
        other,
        sifted=np.asfortranarray(other.sifted),
        signal_per_second=np.repeat(other.signal_per_second, 2)[::2],
        ledger_dropped=dict(reversed(other.ledger_dropped.items())),
    )
    assert report_text(report_document(one)) == report_text(report_document(other))


def test_provenance_is_last_and_may_hold_anything():
    provenance = {"when": None, "versions": {"numpy": np.float64(2.5)}, "files": ("a", "b"), 3: object}
    document = report_document(plausible_result(provenance=provenance))
    assert list(document)[-1] == "provenance"
    assert document["provenance"]["versions"] == {"numpy": 2.5}
    assert document["provenance"]["files"] == ["a", "b"]
    json.loads(report_text(document))


@given(st.text())
def test_layout_never_touches_what_a_string_says(text):
    assert json.loads(report_text({"remarks": [text, "[\n 1,\n 2\n]"]})) == {"remarks": [text, "[\n 1,\n 2\n]"]}


PLAUSIBLE = plausible_result()
