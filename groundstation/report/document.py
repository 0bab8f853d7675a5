"""The pass report as data: `report.json`, the interface that scripts rely on.

Only here do the integer tallies of an analysis become floating-point numbers. The field order is fixed, units
stand in names, a number that cannot be known is null, and the same result always gives the same bytes.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundstation.clock import NS_PER_S, utc_text
from groundstation.pipeline.result import BASES, INTENSITIES, PassResult, SimulationTruth

PS_PER_S = 1_000_000_000_000
#: Time that the tracking loop is given to settle before the simulated world judges it.
SETTLING_S = 30
_SIGNIFICANT_DIGITS = 9
#: Less than this of a second is rounding of its ends, not observation.
_SHORTEST_S = 1e-6

Document = dict[str, Any]


def report_document(result: PassResult) -> Document:
    """The report of a pass as plain dicts, lists, strings, numbers and None, in the order of `report.json`.

    Definitions beyond the names:

    * `sifted_bits.disclosed` and `.undisclosed` count over all intensities, so that
      signal + decoy + vacuum = disclosed + undisclosed; all undisclosed bits are signal bits.
    * `qber` counts errors over disclosed signal slots; see `error_rate`.
    * `sifted_rate.time_s` and `.range_km` are of the middle of each second of the window; the rate is over
      its observed part (shorter at the window's end and beside a gap), null where there is none.
    * `pointing_error_arcsec` is of the mount's readings inside the window.
    * `gaps` are in seconds after `window.start_utc`.
    * `simulation` is absent for a pass that has no truth stream.
    """
    document: Document = {
        "mode": result.mode,
        "complete": result.complete,
        "remarks": list(result.remarks),
        "station": result.station,
        "satellite": result.satellite,
        "window": _window(result),
        "detections": result.detections,
        "gated": result.gated,
        "double_clicks": result.double_clicks,
        "unanswered": result.unanswered,
        "answered_slots": dict(zip(INTENSITIES, result.answered.tolist(), strict=True)),
        "sifted_bits": _sifted_bits(result),
        "qber": _qber(result),
        "sifted_rate": _sifted_rate(result),
        "pointing_error_arcsec": _pointing(result),
        "synchronisation": {
            "beacon_residual_rms_ps": result.beacon_residual_rms_ps,
            "beacon_pulses_used": result.beacon_pulses_used,
            "beacon_pulses_rejected": result.beacon_pulses_rejected,
            "unsynchronised_s": result.unsynchronised_s,
            "excluded_s": result.excluded_s,
        },
        "ledger": {
            "seen": result.ledger_seen,
            "recorded": result.ledger_recorded,
            "dropped": sum(result.ledger_dropped.values()),
            "dropped_by_cause": dict(sorted(result.ledger_dropped.items())),
            "missed": result.ledger_missed,
        },
        "gaps": [
            {
                "start_s": gap.start_ps / PS_PER_S,
                "stop_s": gap.stop_ps / PS_PER_S,
                "missed": gap.missed,
                "cause": gap.cause,
            }
            for gap in result.gaps
        ],
    }
    if result.simulation is not None:
        document["simulation"] = _simulation(result.simulation, result)
    document["provenance"] = result.provenance
    return {name: _plain(value) for name, value in document.items()}


def report_text(document: Document) -> str:
    """The document as JSON text: one space of indent, lists of numbers on one line, a newline at the end."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # A line break inside JSON text is always layout, never content: strings hold theirs escaped.
    flat = re.sub(r'\[\n\s*([^\[\]{}"]*?)\n\s*\]', lambda found: f"[{_one_line(found[1])}]", text)
    return flat + "\n"


def error_rate(errors: int, bits: int) -> Document:
    """An error rate with its standard error and the counts behind both.

    The standard error is binomial, sqrt(q (1 - q) / bits). Without a single error (or without a single right
    bit) that would be zero, a certainty nobody has; the standard deviation of the posterior of q under a
    uniform prior, Beta(errors + 1, bits - errors + 1), stands in: about 1 / bits. Null without bits.
    """
    if bits <= 0:
        return {"value": None, "standard_error": None, "errors": errors, "bits": bits}
    rate = errors / bits
    spread = math.sqrt(rate * (1.0 - rate) / bits)
    if errors in (0, bits):
        a, b = errors + 1, bits - errors + 1
        spread = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return {"value": rate, "standard_error": spread, "errors": errors, "bits": bits}


def observed_s(result: PassResult) -> NDArray[np.float64]:
    """How much of each second of the window was observed and could be used: (seconds,), each 0 to 1."""
    edges_s = np.arange(len(result.signal_per_second) + 1, dtype=np.float64)
    duration_s = (result.window_stop_utc_ns - result.window_start_utc_ns) / NS_PER_S
    observed = np.diff(np.minimum(edges_s, duration_s)) - result.unused_s_per_second
    return np.where(observed > _SHORTEST_S, observed, 0.0)


def rate_hz(counts: NDArray[np.int64], result: PassResult) -> NDArray[np.float64]:
    """Counts per second of the window as rates over the observed part; NaN where nothing was observed."""
    length_s = observed_s(result)
    rate: NDArray[np.float64] = np.full(len(counts), np.nan)
    np.divide(counts, length_s, out=rate, where=length_s > 0.0)
    return rate


def readings_in_window(result: PassResult) -> NDArray[np.bool_]:
    """Which of the mount's readings fall into the window; before it the mount waits, after it it parks."""
    utc_ns = result.mount_utc_ns
    return (utc_ns >= result.window_start_utc_ns) & (utc_ns <= result.window_stop_utc_ns)


def _window(result: PassResult) -> Document:
    return {
        "start_utc": utc_text(result.window_start_utc_ns),
        "stop_utc": utc_text(result.window_stop_utc_ns),
        "duration_s": (result.window_stop_utc_ns - result.window_start_utc_ns) / NS_PER_S,
    }


def _sifted_bits(result: PassResult) -> Document:
    by_intensity = result.sifted.sum(axis=(1, 2)).tolist()
    undisclosed, disclosed = result.sifted.sum(axis=(0, 1)).tolist()
    return dict(zip(INTENSITIES, by_intensity, strict=True)) | {
        "disclosed": disclosed,
        "undisclosed": undisclosed,
    }


def _qber(result: PassResult) -> Document:
    errors = result.errors[0].tolist()
    bits = result.sifted[0, :, 1].tolist()
    by_basis = {basis: error_rate(errors[i], bits[i]) for i, basis in enumerate(BASES)}
    return {"overall": error_rate(sum(errors), sum(bits)), **by_basis}


def _sifted_rate(result: PassResult) -> Document:
    return {
        "time_s": np.arange(len(result.signal_per_second)) + 0.5,
        "rate_hz": rate_hz(result.signal_per_second, result),
        "range_km": result.range_km_per_second,
    }


def _pointing(result: PassResult) -> Document:
    error = result.pointing_error_arcsec[readings_in_window(result)]
    return {"rms": _rms(error), "max": _largest(error), "readings": int(error.size)}


def _simulation(truth: SimulationTruth, result: PassResult) -> Document:
    since_start_ns = truth.pointing_utc_ns - result.window_start_utc_ns
    inside = (since_start_ns >= 0) & (truth.pointing_utc_ns <= result.window_stop_utc_ns)
    settled = inside & (since_start_ns >= SETTLING_S * NS_PER_S)
    clicks = truth.photon_clicks_gated
    return {
        "slot_error_fraction": truth.slots_assigned_wrongly / clicks if clicks else None,
        "qber": error_rate(truth.signal_errors, truth.signal_sifted),
        "pointing_error_arcsec": {
            "rms": _rms(truth.pointing_error_arcsec[inside]),
            "max": _largest(truth.pointing_error_arcsec[inside]),
            "rms_after_30_s": _rms(truth.pointing_error_arcsec[settled]),
        },
    }


def _rms(values: NDArray[np.float64]) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else None


def _largest(values: NDArray[np.float64]) -> float | None:
    return float(np.max(values)) if values.size else None


def _plain(value: object) -> Any:
    """JSON's own types only; floats of a stable number of digits, null for what is not a finite number."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _one_line(rows: str) -> str:
    return re.sub(r",\n\s*", ", ", rows)
