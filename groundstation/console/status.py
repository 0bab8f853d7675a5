"""What the live view shows: one frozen snapshot of the pass, and its two plain-text forms.

Every value may be None: unknown. A value whose source has fallen silent is old, and an old value that still
looks fresh is the worst thing a console can show; so the ages of the sources travel with the snapshot.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from groundstation.clock import NS_PER_S, utc_text
from groundstation.core.tags import DETECTORS

Mode = Literal["SIMULATION", "LIVE", "REPLAY"]
#: A source that has been silent for longer (wall time) is shown as stale.
STALE_AFTER_S = 3.0
UNKNOWN = "–"


@dataclass(frozen=True)
class PassStatus:
    """A snapshot of a running pass; times are world time, ages and lag are wall time."""

    mode: Mode | None = None
    state: str | None = None
    station: str | None = None
    satellite: str | None = None
    speed: float | None = None

    utc_ns: int | None = None
    start_utc_ns: int | None = None
    stop_utc_ns: int | None = None
    culmination_utc_ns: int | None = None

    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    range_km: float | None = None
    pointing_error_arcsec: float | None = None
    mount_age_s: float | None = None

    #: Counts per second of each logical channel, by name.
    counts_hz: Mapping[str, float] = field(default_factory=dict)
    detector_age_s: float | None = None

    gated_hz: float | None = None
    sifted_hz: float | None = None
    sifted_bits: int | None = None
    #: QBER of all disclosed signal bits so far, and its standard error.
    qber: float | None = None
    qber_standard_error: float | None = None
    analysis_lag_s: float | None = None
    analysis_age_s: float | None = None

    recorded_tags: int | None = None
    dropped: int | None = None
    disk_free_gb: float | None = None
    disk_minutes_left: float | None = None
    #: How full the memory is in which tags wait for the disk: 0 to 1.
    buffer_fill: float | None = None
    #: How long half of the newest tags, and 99 % of them, waited until they were safe (wall time).
    acknowledge_p50_s: float | None = None
    acknowledge_p99_s: float | None = None

    alarms: tuple[str, ...] = ()
    last_event: str | None = None


def is_stale(age_s: float | None) -> bool:
    """Whether a source of this age is too old to believe; an unknown age is not called stale."""
    return age_s is not None and age_s > STALE_AFTER_S


def countdown(status: PassStatus) -> tuple[str, str]:
    """What is being waited for and how long: ("starts in", "01:23"), ("left", "04:32") or ("ended", "")."""
    now, start, stop = status.utc_ns, status.start_utc_ns, status.stop_utc_ns
    if now is None or start is None or stop is None:
        return "time left", UNKNOWN
    if now < start:
        return "starts in", minutes_text(start - now)
    if now < stop:
        return "time left", minutes_text(stop - now)
    return "ended", ""


def minutes_text(span_ns: int) -> str:
    """A span as mm:ss or h:mm:ss, rounded up so that it reaches zero when the time has come."""
    seconds = -(-span_ns // NS_PER_S)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute:02d}:{second:02d}"


def rate_text(rate_hz: float | None) -> str:
    """A rate with its unit: `98 Hz`, `12.36 kHz`, `1234.5 kHz`."""
    if rate_hz is None or not math.isfinite(rate_hz):
        return UNKNOWN
    if rate_hz < 999.5:
        return f"{rate_hz:.0f} Hz"
    return f"{rate_hz / 1e3:.{2 if rate_hz < 99_995 else 1}f} kHz"


def number_text(value: float | None, pattern: str) -> str:
    """`pattern` filled with the value (`"{:.1f}°"`), or a dash when it is unknown or not a number."""
    return UNKNOWN if value is None or not math.isfinite(value) else pattern.format(value)


def qber_text(status: PassStatus) -> str:
    """`1.09 ± 0.03 %`."""
    if status.qber is None:
        return UNKNOWN
    error = status.qber_standard_error
    return f"{100 * status.qber:.2f} %" if error is None else f"{100 * status.qber:.2f} ± {100 * error:.2f} %"


def safe_text(status: PassStatus) -> str:
    """How long 99 % of the tags waited until they were safe on the disk: `104 ms`."""
    p99_s = status.acknowledge_p99_s
    return number_text(None if p99_s is None else 1e3 * p99_s, "{:.0f} ms")


def percent_text(part: float | None) -> str:
    """`3 %` of 1."""
    return number_text(None if part is None else 100 * part, "{:.0f} %")


def one_line(text: str) -> str:
    """The text without line breaks and control characters, which may come from a wire."""
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))


def detections_hz(status: PassStatus) -> float | None:
    """Sum of the four detectors; None when any of them is unknown."""
    counts = [status.counts_hz.get(name) for name in DETECTORS]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def plain_line(status: PassStatus) -> str:
    """The snapshot as one line of text for logs and pipes; what is unknown is left out."""
    word, left = countdown(status)
    utc = None if status.utc_ns is None else utc_text(status.utc_ns, 0)
    head = [text for text in (utc, status.mode, status.state) if text]
    parts = [" ".join(head)]
    if left != UNKNOWN:
        parts.append(f"{word} {left}".strip())
    parts += [
        _group(
            status.mount_age_s,
            ("az", number_text(status.azimuth_deg, "{:.2f}°")),
            ("el", number_text(status.elevation_deg, "{:.2f}°")),
            ("error", number_text(status.pointing_error_arcsec, "{:.1f} arcsec")),
        ),
        _group(status.detector_age_s, ("clicks", rate_text(detections_hz(status)))),
        _group(
            status.analysis_age_s,
            ("gated", rate_text(status.gated_hz)),
            ("sifted", rate_text(status.sifted_hz)),
            ("bits", number_text(status.sifted_bits, "{:,}")),
            ("QBER", qber_text(status)),
        ),
        _group(
            None,
            ("safe in", safe_text(status)),
            ("buffer", percent_text(status.buffer_fill)),
            ("dropped", number_text(status.dropped or None, "{:,}")),
        ),
        *(f"ALARM: {alarm}" for alarm in status.alarms),
    ]
    return one_line(" | ".join(part for part in parts if part))


def json_line(status: PassStatus) -> str:
    """The snapshot as one JSON object on one line: every field, always in this order, null for unknown."""
    document = {
        "mode": status.mode,
        "state": status.state,
        "station": status.station,
        "satellite": status.satellite,
        "speed": status.speed,
        "utc": _utc_or_none(status.utc_ns),
        "start_utc": _utc_or_none(status.start_utc_ns),
        "stop_utc": _utc_or_none(status.stop_utc_ns),
        "culmination_utc": _utc_or_none(status.culmination_utc_ns),
        "azimuth_deg": status.azimuth_deg,
        "elevation_deg": status.elevation_deg,
        "range_km": status.range_km,
        "pointing_error_arcsec": status.pointing_error_arcsec,
        "mount_age_s": status.mount_age_s,
        "counts_hz": dict(status.counts_hz),
        "detector_age_s": status.detector_age_s,
        "gated_hz": status.gated_hz,
        "sifted_hz": status.sifted_hz,
        "sifted_bits": status.sifted_bits,
        "qber": status.qber,
        "qber_standard_error": status.qber_standard_error,
        "analysis_lag_s": status.analysis_lag_s,
        "analysis_age_s": status.analysis_age_s,
        "recorded_tags": status.recorded_tags,
        "dropped": status.dropped,
        "disk_free_gb": status.disk_free_gb,
        "disk_minutes_left": status.disk_minutes_left,
        "buffer_fill": status.buffer_fill,
        "acknowledge_p50_s": status.acknowledge_p50_s,
        "acknowledge_p99_s": status.acknowledge_p99_s,
        "alarms": list(status.alarms),
        "last_event": status.last_event,
    }
    return json.dumps(_finite(document), ensure_ascii=False, allow_nan=False)


def _group(age_s: float | None, *values: tuple[str, str]) -> str:
    """Known values of one source as `name value`, marked when the source is stale."""
    shown = " ".join(f"{name} {value}" for name, value in values if value != UNKNOWN)
    return f"{shown} (STALE {age_s:.0f} s)" if shown and age_s is not None and is_stale(age_s) else shown


def _utc_or_none(utc_ns: int | None) -> str | None:
    return None if utc_ns is None else utc_text(utc_ns)


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity: both are unknown."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
