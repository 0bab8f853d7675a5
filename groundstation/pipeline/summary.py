"""From tallies, telemetry and the books to the result of a pass, with plain sentences about what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from groundstation.core.timebase import PS_PER_NS, PS_PER_S
from groundstation.pipeline.intake import TagIntake
from groundstation.pipeline.link import Link
from groundstation.pipeline.result import GapRecord, PassResult, numbering_confirmed
from groundstation.pipeline.settings import PassPlan
from groundstation.pipeline.tallies import SyncBook, Tallies
from groundstation.pipeline.telemetry import Telemetry

#: The last tag of a whole recording may be this much before the end of the window.
_LAST_TAG_WITHIN_S = 0.1


def summarise(
    plan: PassPlan,
    tallies: Tallies,
    sync: SyncBook,
    intake: TagIntake,
    telemetry: Telemetry,
    link: Link | None,
    refusal: str,
    answers_damages: Sequence[str],
) -> PassResult:
    """Everything the report is made of. `refusal`: why no clock is given; `answers_damages`: what is lost there."""
    terms = link.terms if link else None
    gaps = _placed(intake.gaps, link, plan.window_start_utc_ns)
    losses = _losses(plan, intake, link, gaps)
    losses += [f"Telemetry is lost: {sentence}." for sentence in telemetry.damages]
    losses += [f"Answers are lost: {sentence}." for sentence in answers_damages]
    gate_half_width_ps = link.gate_half_width_ps if link else plan.analysis.gate_half_width_ps
    remarks = losses + _analysis_remarks(tallies, refusal)
    if gate_half_width_ps > plan.analysis.gate_half_width_ps:
        remarks.append(
            f"The gate is {gate_half_width_ps} ps to either side instead of {plan.analysis.gate_half_width_ps} ps, "
            f"as wide as the tagger's tick of {intake.resolution_ps:g} ps."
        )
    path = telemetry.path or {c: np.empty(0) for c in ("utc_ns", "azimuth_deg", "elevation_deg", "range_km")}
    mount = telemetry.mount(plan.window_start_utc_ns, plan.window_stop_utc_ns)
    duration_ps = (plan.window_stop_utc_ns - plan.window_start_utc_ns) * PS_PER_NS
    rms = float(np.sqrt(sync.square_sum_ps2 / sync.used)) if sync.used else 0.0
    ledger = intake.ledger
    return PassResult(
        mode=plan.mode,
        complete=not losses,
        remarks=tuple(remarks),
        station=plan.station,
        satellite=plan.satellite,
        window_start_utc_ns=plan.window_start_utc_ns,
        window_stop_utc_ns=plan.window_stop_utc_ns,
        slot_period_ps=PS_PER_S // terms.slot_rate_hz if terms else 0,
        gate_half_width_ps=gate_half_width_ps,
        detections=tallies.detections,
        gated=tallies.gated,
        double_clicks=tallies.double_clicks,
        unanswered=tallies.asked - int(tallies.answered.sum()),
        sifted=tallies.sifted,
        errors=tallies.errors,
        answered=tallies.answered,
        tags_per_second=tallies.tags_per_second,
        gated_per_second=tallies.gated_per_second,
        signal_per_second=tallies.signal_per_second,
        disclosed_per_second=tallies.disclosed_per_second,
        errors_per_second=tallies.errors_per_second,
        unused_s_per_second=_unused_per_second(plan, sync, intake, link),
        range_km_per_second=_range_per_second(plan, tallies.seconds, path),
        phase_histogram=tallies.phase_histogram,
        path_utc_ns=path["utc_ns"].astype(np.int64),
        path_azimuth_deg=path["azimuth_deg"].astype(np.float64),
        path_elevation_deg=path["elevation_deg"].astype(np.float64),
        path_range_km=path["range_km"].astype(np.float64),
        mount_utc_ns=mount["utc_ns"].astype(np.int64),
        mount_azimuth_deg=mount["azimuth_deg"].astype(np.float64),
        mount_elevation_deg=mount["elevation_deg"].astype(np.float64),
        pointing_error_arcsec=mount["error_arcsec"].astype(np.float64),
        beacon_residual_rms_ps=rms,
        beacon_pulses_used=sync.used,
        beacon_pulses_rejected=sync.rejected,
        unsynchronised_s=_inside_ps(sync.without_clock_ps, 0, duration_ps) * 1e-12,
        excluded_s=_inside_ps(sync.excluded_ps, 0, duration_ps) * 1e-12,
        ledger_seen=ledger.seen,
        ledger_recorded=ledger.recorded,
        ledger_dropped=ledger.dropped,
        ledger_missed=ledger.missed,
        gaps=gaps,
    )


def _losses(plan: PassPlan, intake: TagIntake, link: Link | None, gaps: Sequence[GapRecord]) -> list[str]:
    """Why the recording does not hold the whole planned window; empty when it does."""
    sentences = []
    if not intake.complete:
        sentences.append("The recording of tags was not closed in order or parts of it are damaged.")
    if link is None or intake.first_ps is None:
        sentences.append("Nothing could be placed in UTC, so it is not known whether the window was recorded.")
    else:
        late_s = link.since_ps(intake.first_ps, plan.window_start_utc_ns) * 1e-12
        early_s = -link.since_ps(intake.last_ps, plan.window_stop_utc_ns) * 1e-12
        if late_s > 0:
            sentences.append(f"Recording began {late_s:.1f} s after the window opened.")
        if early_s > _LAST_TAG_WITHIN_S:
            sentences.append(f"Recording ended {early_s:.1f} s before the window closed.")
    duration_ps = (plan.window_stop_utc_ns - plan.window_start_utc_ns) * PS_PER_NS
    if inside := sum(link is None or (gap.start_ps < duration_ps and gap.stop_ps > 0) for gap in gaps):
        sentences.append(f"{inside} gaps with unaccounted tags are excluded.")
    if dropped := sum(intake.ledger.dropped.values()):
        sentences.append(f"{dropped} tags were seen and not recorded.")
    if intake.ledger.missed:
        sentences.append(f"The tagger lost {intake.ledger.missed} events.")
    return sentences


def _analysis_remarks(tallies: Tallies, refusal: str) -> list[str]:
    sentences = []
    if refusal:
        sentences.append(f"Synchronisation refused: {refusal}.")
    if unanswered := tallies.asked - int(tallies.answered.sum()):
        sentences.append(f"The transmitter did not answer for {unanswered} slots; they are left out.")
    errors, bits = tallies.signal_qber()
    confirmed = numbering_confirmed(*tallies.signal_qber())
    if confirmed is None and tallies.asked:
        sentences.append(f"Only {bits} disclosed bits are known: the slot numbering is not confirmed.")
    if confirmed is False:
        sentences.append(
            f"{errors} of {bits} disclosed bits differ: the slot numbering is not confirmed, "
            "and no key may be made of these bits."
        )
    return sentences


def _placed(gaps: list[GapRecord], link: Link | None, window_start_utc_ns: int) -> tuple[GapRecord, ...]:
    """The gaps in ps after the window's start, as far as UTC is known."""
    if link is None:
        return tuple(gaps)
    moved = (
        replace(
            gap,
            start_ps=link.since_ps(gap.start_ps, window_start_utc_ns),
            stop_ps=link.since_ps(gap.stop_ps, window_start_utc_ns),
        )
        for gap in gaps
    )
    return tuple(moved)


def _unused_per_second(plan: PassPlan, sync: SyncBook, intake: TagIntake, link: Link | None) -> NDArray[np.float64]:
    """What the analysis could not use, and what was not recorded at all."""
    duration_ps = (plan.window_stop_utc_ns - plan.window_start_utc_ns) * PS_PER_NS
    intervals = [(0, duration_ps)]
    if link is not None and intake.first_ps is not None:
        first_ps, last_ps = (link.since_ps(t, plan.window_start_utc_ns) for t in (intake.first_ps, intake.last_ps))
        intervals = [*sync.excluded_ps, *sync.without_clock_ps, (0, first_ps)]
        if last_ps < duration_ps - _LAST_TAG_WITHIN_S * PS_PER_S:
            intervals.append((last_ps, duration_ps))
    edges_ps = [*range(0, duration_ps, PS_PER_S), duration_ps]
    return np.array([_inside_ps(intervals, start, stop) * 1e-12 for start, stop in pairwise(edges_ps)])


def _inside_ps(intervals: Iterable[tuple[int, int]], start_ps: int, stop_ps: int) -> int:
    """How much of [start, stop) the intervals cover together, none of it counted twice."""
    covered, reached = 0, start_ps
    for start, stop in sorted(intervals):
        covered += max(0, min(stop, stop_ps) - max(start, reached))
        reached = max(reached, min(stop, stop_ps))
    return covered


def _range_per_second(plan: PassPlan, seconds: int, path: dict[str, np.ndarray]) -> np.ndarray:
    """Range in the middle of each second of the window, in km."""
    if path["utc_ns"].size < 4:
        return np.zeros(seconds)
    knots_s = (path["utc_ns"] - plan.window_start_utc_ns) * 1e-9
    spline = CubicSpline(knots_s, path["range_km"])
    return np.asarray(spline(np.arange(seconds) + 0.5), dtype=np.float64)
