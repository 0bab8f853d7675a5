"""What two stations share, for people and scripts: `coincidences.json`, its figure, a few lines of text."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from groundstation.core.entanglement import (
    BASES,
    Accidentals,
    ErrorCount,
    Estimate,
    chsh,
    coincidence_to_accidental,
    correlations,
    expected_correlations,
    heralding,
    qber,
    sifted_errors,
    visibility,
)
from groundstation.core.tags import DETECTORS
from groundstation.errors import GroundStationError
from groundstation.pipeline.pair_result import PairResult
from groundstation.report.document import PS_PER_S, report_text
from groundstation.report.drawing import WIDTH_IN, house_style, key, panel, say_nothing_to_draw, svg_text
from groundstation.report.palette import FILL, INK, MUTED, PAPER, SKY, WARNING

Document = dict[str, Any]
_SIGNIFICANT_DIGITS = 9
_RATE_BINS = 60


def pairs_document(result: PairResult) -> Document:
    """The result as plain dicts, lists, strings, numbers and None, in the order of `coincidences.json`.

    `counts` are coincidences by channel of A (row) and B (column). Nothing has accidentals subtracted but
    `coincidence_to_accidental` and `heralding`. `qber` and `visibility` are of the sifted bits by A's basis, null for
    settings that share no basis; `chsh` is null for settings that test nothing. Without a standard error nothing is
    known.
    """
    accidentals = Accidentals(result.accidental_counts, result.shifts)
    total = int(result.counts.sum())
    analysed_s = result.analysed_ps / PS_PER_S
    expected = expected_correlations(result.state, *result.analyser_deg)
    rectilinear, diagonal = sifted_errors(result.counts, expected)
    overall = ErrorCount(rectilinear.bits + diagonal.bits, rectilinear.errors + diagonal.errors)
    kinds = {"overall": overall, "rectilinear": rectilinear, "diagonal": diagonal}
    s = chsh(result.counts, expected)
    document: Document = {
        "stations": _sides(result.stations),
        "mode": _sides(result.modes),
        "complete": result.complete,
        "remarks": list(result.remarks),
        "state": result.state,
        "analyser_deg": _sides(result.analyser_deg),
        "half_window_ps": result.settings.half_window_ps,
        "analysed_s": analysed_s,
        "unsynchronised_s": result.unsynchronised_ps / PS_PER_S,
        "excluded_s": result.excluded_ps / PS_PER_S,
        "clock": vars(result.clock),
        "singles": _sides([dict(zip(DETECTORS, row, strict=True)) for row in result.singles.tolist()]),
        "double_clicks": _sides(result.double_clicks),
        "coincidences": total,
        "coincidence_rate_hz": total / analysed_s if analysed_s else None,
        "counts": result.counts.tolist(),
        "accidentals": {
            "expected": accidentals.expected,
            "counts": result.accidental_counts.tolist(),
            "shifts": result.shifts,
            "shift_ps": result.settings.shift_ps,
        },
        "coincidence_to_accidental": _estimate(coincidence_to_accidental(total, accidentals)),
        "heralding": _sides(_heralding(result, total, accidentals)),
        "correlations": _correlations(result),
        "chsh": None if s is None else {**_estimate(s), "sigmas_above_2": (s.value - 2) / s.sigma},
        "sifted_bits": {name: count.bits for name, count in kinds.items()},
        "errors": {name: count.errors for name, count in kinds.items()},
        "qber": {name: _estimate(qber(count)) for name, count in kinds.items()},
        "qber_from_accidentals": accidentals.expected / (2 * total) if total else None,
        "visibility": {name: _estimate(visibility(count)) for name, count in kinds.items()},
        "delay_histogram": {"bin_ps": result.histogram_bin_ps, "counts": result.histogram.tolist()},
        "coincidences_per_second": {"first_second": result.first_second, "counts": result.per_second.tolist()},
        "provenance": result.provenance,
    }
    return {name: _rounded(value) for name, value in document.items()}


def pairs_text(result: PairResult) -> str:
    """The outcome in a few lines."""
    document = pairs_document(result)
    clock, a, b = result.clock, *result.stations
    how = "around the prediction" if clock.predicted else "blindly"
    lines = [
        f"{a} and {b}: {document['analysed_s']:.1f} s analysed, "
        f"{document['unsynchronised_s']:.1f} s without a sure clock",
        f"clock         found {how} in {clock.searched_s} s at {clock.significance:.1f} sigma: offset "
        f"{clock.offset_ps * 1e-3:,.3f} ns, {clock.frequency_offset * 1e6:.6f} ppm, jitter {clock.jitter_ps:.0f} ps",
        f"coincidences  {document['coincidences']:,} ({document['coincidence_rate_hz'] or 0:.2f} a second), "
        f"accidentals {document['accidentals']['expected']:.1f}, "
        f"CAR {_with_error(document['coincidence_to_accidental'], 1)}",
        f"heralding     {a} {_with_error(document['heralding']['a'], 4, True)}, "
        f"{b} {_with_error(document['heralding']['b'], 4, True)}",
    ]
    if document["chsh"] is not None:
        s = document["chsh"]
        lines.append(f"CHSH          S = {_with_error(s, 3)}, {s['sigmas_above_2']:.1f} sigma above 2")
    if document["sifted_bits"]["overall"]:
        q = document["qber"]
        lines.append(
            f"sifted        {document['sifted_bits']['overall']:,} bits, QBER {_with_error(q['overall'], 2, True)} "
            f"(H/V {_with_error(q['rectilinear'], 2, True)}, D/A {_with_error(q['diagonal'], 2, True)})"
        )
    lines += [f"remark        {remark}" for remark in result.remarks]
    return "\n".join(lines) + "\n"


def write_pairs(result: PairResult, directory: Path) -> None:
    """Write `coincidences.json`, `coincidences.svg` and, mode 0600, each side's sifted bits as `sifted-a.npz` and
    `sifted-b.npz` (`time_ps` of its own recording, `basis`, `bit`; the rows of both belong together).

    Raises GroundStationError when a file cannot be written.
    """
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "coincidences.json"
        path.write_text(report_text(pairs_document(result)), encoding="utf-8")
        for name, side in zip(("a", "b"), result.sifted, strict=True):
            path = directory / f"sifted-{name}.npz"
            with open(path, "wb", opener=_private) as file:
                np.savez(file, time_ps=side.time_ps, basis=side.basis, bit=side.bit)
        path = directory / "coincidences.svg"
        with house_style():
            svg = svg_text(pairs_figure(result), "coincidences")
        # Opened by itself on a narrow screen it shrinks instead of being cut.
        svg = svg.replace("<svg ", '<svg style="max-width: 100%; height: auto" ', 1)
        path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise GroundStationError(f"the result could not be written: {path}: {error.strerror}") from error


def pairs_figure(result: PairResult) -> Figure:
    """Delay histogram with the window shaded, counts by channels, coincidences over time."""
    height_in = 5.6
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="none")
    left = 0.12 / WIDTH_IN
    title = f"Coincidences of {result.stations[0]} and {result.stations[1]}"
    figure.text(left, 1 - 0.24 / height_in, title, size=12, weight="bold", va="center")
    if "simulation" in result.modes:
        figure.text(
            1 - left, 1 - 0.24 / height_in, "SIMULATION", size=12, weight="bold", color=WARNING, ha="right", va="center"
        )
    figure.text(left, 1 - 0.5 / height_in, _outcome(result), size=10, color=INK, va="center")
    _draw_delays(panel(figure, 2.95, 1.95), result)
    counts = figure.add_axes((0.66 / WIDTH_IN, 0.5 / height_in, 1.8 / WIDTH_IN, 1.8 / height_in))
    _draw_counts(counts, result)
    rate = figure.add_axes((3.3 / WIDTH_IN, 0.5 / height_in, 2.7 / WIDTH_IN, 1.8 / height_in))
    _draw_rate(rate, result)
    return figure


def _outcome(result: PairResult) -> str:
    """What the pairs prove, in one line: S, the error rate, or that these settings give neither."""
    document = pairs_document(result)
    if document["chsh"] is not None:
        s = document["chsh"]
        return f"CHSH S = {_with_error(s, 3)}, {s['sigmas_above_2']:.1f} sigma above 2"
    if document["sifted_bits"]["overall"]:
        rate = _with_error(document["qber"]["overall"], 2, True)
        return f"QBER {rate} of {document['sifted_bits']['overall']:,} sifted bits"
    return "These analyser angles give neither S nor sifted bits."


def _draw_delays(axes: Axes, result: PairResult) -> None:
    bins = result.histogram.size
    delay_ns = (np.arange(bins) - bins // 2) * result.histogram_bin_ps * 1e-3
    half_ns = result.settings.half_window_ps * 1e-3
    axes.axvspan(-half_ns, half_ns, color=SKY, alpha=0.25, lw=0)
    axes.step(delay_ns, result.histogram, where="mid", color=INK, lw=1.1)
    axes.set_xlim(float(delay_ns[0]), float(delay_ns[-1]))
    axes.set_ylim(0, max(1.0, float(result.histogram.max(initial=0)) * 1.15))
    axes.set_xlabel(f"delay of {result.stations[1]} against {result.stations[0]} (ns)")
    axes.set_ylabel(f"pairs in {result.histogram_bin_ps} ps")
    expected = float(result.accidental_counts.sum()) / result.shifts
    key(
        axes,
        (
            (f"{int(result.counts.sum()):,} coincidences", INK),
            (f"{expected:,.1f} of them by accident", MUTED),
            (f"window ±{half_ns:g} ns", SKY),
        ),
    )


def _draw_counts(axes: Axes, result: PairResult) -> None:
    top = max(int(result.counts.max(initial=0)), 1)
    for row in range(4):
        for column in range(4):
            count = int(result.counts[row, column])
            axes.fill_between((column, column + 1), row, row + 1, color=SKY, alpha=0.75 * count / top, lw=0)
            axes.text(column + 0.5, row + 0.5, f"{count}", ha="center", va="center", size=8, color=INK)
    angles = [[base + turn for turn in (0.0, 90.0, 45.0, 135.0)] for base in result.analyser_deg]
    names = [[f"{angle:g}°" for angle in side] for side in angles]
    axes.set_xticks(np.arange(4) + 0.5, names[1])
    axes.set_yticks(np.arange(4) + 0.5, names[0])
    axes.set_xlim(0, 4)
    axes.set_ylim(4, 0)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel(f"analyser at {result.stations[1]}")
    axes.set_ylabel(f"at {result.stations[0]}")
    axes.spines[:].set_color(PAPER)


def _draw_rate(axes: Axes, result: PairResult) -> None:
    axes.set_xlabel("time since the first coincidence (s)")
    axes.set_ylabel("coincidences a second")
    axes.tick_params(length=3)
    if not result.per_second.size:
        say_nothing_to_draw(axes, "No coincidence.")
        return
    width_s = -(-result.per_second.size // _RATE_BINS)
    padded = np.pad(result.per_second, (0, -result.per_second.size % width_s))
    rate = padded.reshape(-1, width_s).sum(axis=1) / width_s
    edges = np.arange(rate.size + 1) * width_s
    axes.stairs(rate, edges, fill=True, color=FILL)
    axes.set_ylim(bottom=0)


def _heralding(result: PairResult, total: int, accidentals: Accidentals) -> list[Document | None]:
    """Of A by B's clicks, and of B by A's; dark counts are taken off as far as the recording names them."""
    singles = result.singles.sum(axis=1).tolist()
    dark = [4 * rate * result.analysed_ps / PS_PER_S for rate in result.dark_hz]
    return [_estimate(heralding(total, accidentals, singles[1 - side], dark[1 - side])) for side in (0, 1)]


def _correlations(result: PairResult) -> list[Document]:
    measured = correlations(result.counts)
    return [
        {
            "basis_a": BASES[i],
            "basis_b": BASES[j],
            "angle_a_deg": result.analyser_deg[0] + 45.0 * i,
            "angle_b_deg": result.analyser_deg[1] + 45.0 * j,
            "value": None if (cell := measured[i][j]) is None else cell.value,
            "standard_error": None if cell is None else cell.sigma,
            "coincidences": int(result.counts[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum()),
        }
        for i in (0, 1)
        for j in (0, 1)
    ]


def _sides(both: Any) -> Document:
    a, b = both
    return {"a": a, "b": b}


def _estimate(estimate: Estimate | None) -> Document:
    if estimate is None:
        return {"value": None, "standard_error": None}
    return {"value": estimate.value, "standard_error": estimate.sigma}


def _with_error(estimate: Document, digits: int, percent: bool = False) -> str:
    value, error = estimate["value"], estimate["standard_error"]
    if value is None:
        return "unknown"
    scale, sign = (100, " %") if percent else (1, "")
    return f"{value * scale:.{digits}f} ± {error * scale:.{digits}f}{sign}"


def _rounded(value: Any) -> Any:
    """Floats of a stable number of digits, all the way down."""
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
