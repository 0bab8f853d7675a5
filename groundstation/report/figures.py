"""The four figures of a pass report: rates and range, QBER, arrival times, and the sky.

Each function takes a `PassResult` and returns a matplotlib `Figure`; `draw_figures` returns all of them as
SVG text. They are drawn while the operator waits for the report, so they avoid what is slow in matplotlib
(automatic layout, polar axes, mathematical text).
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from groundstation.clock import NS_PER_S, utc_text
from groundstation.core.tags import CHANNEL_NUMBER
from groundstation.pipeline.result import PassResult
from groundstation.report.document import error_rate, rate_hz, readings_in_window, report_document
from groundstation.report.drawing import (
    WIDTH_IN,
    house_style,
    key,
    panel,
    say_nothing_to_draw,
    sheet,
    svg_text,
    time_axis,
)
from groundstation.report.palette import DETECTOR_COLOURS, FILL, HAIRLINE, INK, MUTED, PAPER, SKY, WARNING

QBER_BIN_S = 10
#: Above this no key is left, whatever the rest: one-way BB84, P. W. Shor and J. Preskill, PRL 85, 441 (2000).
QBER_ABORT_LIMIT = 0.11


def draw_figures(result: PassResult) -> dict[str, str]:
    """All figures as SVG text by name: rates, sky, qber, arrival. The same result gives the same bytes."""
    drawn = {"rates": rates_figure, "sky": sky_figure, "qber": qber_figure, "arrival": arrival_figure}
    with house_style():
        return {name: svg_text(draw(result), name) for name, draw in drawn.items()}


def rates_figure(result: PassResult) -> Figure:
    """Detections, gated clicks and sifted signal bits; each detector alone; range below."""
    figure = sheet(result, "Rates and range over the pass", 6.0)
    rates = panel(figure, 2.72, 2.6)
    detectors = panel(figure, 1.57, 0.95, share_x=rates)
    distance = panel(figure, 0.52, 0.85, share_x=rates)
    for axes, name in ((rates, "rate (kHz)"), (detectors, "rate (kHz)"), (distance, "range (km)")):
        time_axis(axes, result, labels=axes is distance)
        axes.set_ylabel(name)
    if not len(result.signal_per_second):
        say_nothing_to_draw(rates, "No second of the window was recorded.")
        return figure
    middle_s = np.arange(len(result.signal_per_second), dtype=np.float64) + 0.5
    clicks = result.tags_per_second[:, : len(DETECTOR_COLOURS)]
    total_khz = rate_hz(clicks.sum(axis=1), result) / 1e3
    rates.fill_between(middle_s, total_khz, step="mid", color=FILL, alpha=0.55, lw=0)
    rates.step(middle_s, rate_hz(result.gated_per_second, result) / 1e3, where="mid", color=SKY, lw=1.1)
    rates.step(middle_s, rate_hz(result.signal_per_second, result) / 1e3, where="mid", color=INK, lw=1.6)
    key(
        rates,
        (
            (f"{result.detections:,} detections", MUTED),
            (f"{result.gated:,} inside the gate", SKY),
            (f"{int(result.sifted[0].sum()):,} sifted signal bits", INK),
        ),
    )
    for name, colour in DETECTOR_COLOURS.items():
        khz = rate_hz(result.tags_per_second[:, CHANNEL_NUMBER[name]], result) / 1e3
        detectors.step(middle_s, khz, where="mid", color=colour, lw=0.9)
    _letters(detectors)
    distance.plot(middle_s, result.range_km_per_second, color=INK, lw=1.4)
    for axes in (rates, detectors):
        axes.set_ylim(bottom=0)
    detectors.yaxis.set_major_locator(MaxNLocator(3))
    distance.yaxis.set_major_locator(MaxNLocator(3))
    _mark_closest(distance, middle_s, result.range_km_per_second)
    return figure


def qber_figure(result: PassResult) -> Figure:
    """QBER of the disclosed signal bits in 10 s bins with standard errors, its mean, and the abort limit."""
    figure = sheet(result, "Quantum bit error rate over the pass", 4.2)
    axes = panel(figure, 0.52, 3.0)
    time_axis(axes, result)
    axes.set_ylabel("QBER (%)")
    middle_s, percent, error = _qber_bins(result)
    top = max(12.5, float(np.max(percent + error, initial=0.0)) * 1.1)
    axes.set_ylim(0, top)
    limit = QBER_ABORT_LIMIT * 100
    axes.axhline(limit, color=WARNING, lw=1.2, ls=(0, (5, 3)))
    axes.annotate(
        f"abort limit {limit:.0f} %: no key above", (1, limit), (-4, -4), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=WARNING, size=9, ha="right", va="top",
    )  # fmt: skip
    qber = report_document(result)["qber"]
    mean = qber["overall"]
    if mean["value"] is None:
        say_nothing_to_draw(axes, "No disclosed signal bit: the QBER is unknown.")
        return figure
    axes.axhline(mean["value"] * 100, color=SKY, lw=1.2)
    axes.errorbar(middle_s, percent, error, fmt="o", color=INK, ms=3.5, lw=1.1, zorder=3)
    lines = [(f"{_percent(mean)} over the pass", SKY)]
    lines += [(f"{_percent(qber[basis])} {basis}", MUTED) for basis in ("rectilinear", "diagonal")]
    key(axes, lines, below=limit)
    return figure


def arrival_figure(result: PassResult) -> Figure:
    """Clicks of each detector against the expected arrival in their slot, the gate shaded."""
    figure = sheet(result, "Arrival times within a slot", 4.2)
    half_ns, gate_ns = result.slot_period_ps / 2e3, result.gate_half_width_ps / 1e3
    bins = result.phase_histogram.shape[1]
    edges_ns = np.linspace(-half_ns, half_ns, bins + 1)
    top = max(10.0, float(result.phase_histogram.max(initial=0)) * 3)
    floor = max(0.5, float(result.phase_histogram.min()) / 3)
    for number, (name, colour) in enumerate(DETECTOR_COLOURS.items()):
        row, column = divmod(number, 2)
        axes = panel(figure, 2.1 - 1.58 * row, 1.42)
        box = axes.get_position()
        axes.set_position((box.x0 + column * box.width * 0.53, box.y0, box.width * 0.47, box.height))
        axes.axvspan(-gate_ns, gate_ns, color=FILL, alpha=0.4, lw=0)
        clicks = result.phase_histogram[number]
        axes.stairs(clicks, edges_ns, color=colour, fill=True, alpha=0.3, baseline=floor)
        axes.stairs(clicks, edges_ns, color=colour, lw=1.2, baseline=floor)
        axes.set_yscale("log")
        axes.set_ylim(floor, top)
        axes.set_xlim(-half_ns, half_ns)
        _plain_decades(axes)
        axes.tick_params(labelleft=column == 0, labelbottom=row == 1)
        key(axes, ((name, colour),))
        axes.annotate(
            f"{int(clicks.sum()):,}", (1, 1), (-4, -4), xycoords="axes fraction",
            textcoords="offset points", size=9, color=MUTED, ha="right", va="top",
        )  # fmt: skip
        if column == 0:
            axes.set_ylabel(f"clicks per {1e3 * 2 * half_ns / bins:.0f} ps")
        if row == 1:
            axes.set_xlabel("after the expected arrival (ns)")
    figure.text(
        1 - 0.12 / WIDTH_IN, 1 - 0.46 / 4.2, f"shaded: the gate, ±{gate_ns:g} ns",
        size=9, color=MUTED, ha="right", va="center",
    )  # fmt: skip
    return figure


def sky_figure(result: PassResult) -> Figure:
    """The predicted path and where the mount really was, as seen looking up; pointing error below."""
    height_in = 6.0
    figure = sheet(result, "Path across the sky", height_in)
    dome = figure.add_axes((0.0, 1.4 / height_in, 1.0, 4.0 / height_in))
    dome.set_axis_off()
    dome.set_aspect("equal")
    dome.set_xlim(-100 * WIDTH_IN / 4.0, 100 * WIDTH_IN / 4.0)
    dome.set_ylim(-100, 100)
    _draw_dome(dome)
    figure.text(
        1 - 0.12 / WIDTH_IN, 1 - 0.46 / height_in, "as seen looking up: north up, east left",
        size=9, color=MUTED, ha="right", va="center",
    )  # fmt: skip
    _draw_path(dome, result)
    error = panel(figure, 0.52, 0.8)
    time_axis(error, result)
    error.set_ylabel("arcsec")
    inside = readings_in_window(result)
    if not inside.any():
        say_nothing_to_draw(error, "The mount was never read.")
        return figure
    since_s = (result.mount_utc_ns[inside] - result.window_start_utc_ns) / NS_PER_S
    arcsec = result.pointing_error_arcsec[inside]
    error.plot(since_s, np.maximum(arcsec, 0.1), color=SKY, lw=0.8)
    error.set_yscale("log")
    error.set_ylim(0.1, max(100.0, float(arcsec.max()) * 2))
    _plain_decades(error)
    error.annotate(
        "pointing error of the mount", (1, 1), (-4, -4), xycoords="axes fraction",
        textcoords="offset points", size=9, color=SKY, weight="bold", ha="right", va="top",
    )  # fmt: skip
    return figure


def _letters(axes: Axes) -> None:
    for place, (name, colour) in enumerate(DETECTOR_COLOURS.items()):
        axes.annotate(
            name, (0, 1), (6 + 14 * place, -4), xycoords="axes fraction", textcoords="offset points",
            color=colour, weight="bold", size=9, va="top",
        )  # fmt: skip


def _mark_closest(axes: Axes, middle_s: NDArray[np.float64], range_km: NDArray[np.float64]) -> None:
    if not np.isfinite(range_km).any():
        return
    nearest = int(np.nanargmin(range_km))
    axes.plot(middle_s[nearest], range_km[nearest], "o", color=INK, ms=4)
    axes.annotate(
        f"closest: {range_km[nearest]:.0f} km", (middle_s[nearest], range_km[nearest]), (0, 7),
        textcoords="offset points", ha="center", size=9,
    )  # fmt: skip


def _qber_bins(
    result: PassResult,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Middle in s, QBER and standard error in percent of every bin of `QBER_BIN_S` with disclosed bits."""
    starts = np.arange(0, len(result.disclosed_per_second), QBER_BIN_S)
    if not starts.size:
        return np.empty(0), np.empty(0), np.empty(0)
    bits = np.add.reduceat(result.disclosed_per_second, starts).tolist()
    errors = np.add.reduceat(result.errors_per_second, starts).tolist()
    rows = [
        (start + QBER_BIN_S / 2, 100 * rate["value"], 100 * rate["standard_error"])
        for start, wrong, count in zip(starts.tolist(), errors, bits, strict=True)
        if (rate := error_rate(wrong, count))["value"] is not None
    ]
    middle_s, percent, error = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return middle_s, percent, error


def _percent(rate: dict[str, float]) -> str:
    return f"{rate['value'] * 100:.2f} ± {rate['standard_error'] * 100:.2f} %"


def _plain_decades(axes: Axes) -> None:
    """Ticks of a logarithmic axis at powers of ten only, written out; every second one if many."""
    low, high = np.log10(axes.get_ylim())
    powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    step = 1 if len(powers) <= 4 else 2
    values = [10.0**power for power in powers[::step]]
    axes.set_yticks(values, [f"{value / 1e3:g}k" if value >= 1000 else f"{value:g}" for value in values])
    axes.set_yticks([], minor=True)


def _on_dome(azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, n) place on the dome: zenith in the middle, horizon at 90, north up, east left."""
    away, azimuth = 90.0 - elevation_deg, np.radians(azimuth_deg)
    return np.array((-away * np.sin(azimuth), away * np.cos(azimuth)))


def _draw_dome(axes: Axes) -> None:
    turn = np.linspace(0, 360, 181)
    for elevation_deg in (0.0, 30.0, 60.0):
        ring = _on_dome(turn, np.full(turn.size, elevation_deg))
        axes.plot(*ring, color=MUTED if elevation_deg == 0 else HAIRLINE, lw=0.9)
        if elevation_deg > 0:
            axes.text(
                0, -(90 - elevation_deg), f"{elevation_deg:.0f}°",
                color=MUTED, size=8.5, ha="center", va="center", bbox=_behind_text(),
            )  # fmt: skip
    for azimuth_deg in (0, 45, 90, 135):
        ends = _on_dome(np.array([azimuth_deg, azimuth_deg + 180]), np.zeros(2))
        axes.plot(*ends, color=HAIRLINE, lw=0.7)
    for name, (x, y) in {"N": (0, 96), "E": (-97, 0), "S": (0, -96), "W": (97, 0)}.items():
        axes.text(x, y, name, weight="bold", ha="center", va="center")


def _draw_path(axes: Axes, result: PassResult) -> None:
    if not result.path_utc_ns.size:
        axes.text(0, 20, "No predicted path in the recording.", color=MUTED, ha="center", va="center")
        return
    x, y = _on_dome(result.path_azimuth_deg, result.path_elevation_deg)
    counted = (result.path_utc_ns >= result.window_start_utc_ns) & (result.path_utc_ns <= result.window_stop_utc_ns)
    axes.plot(x, y, color=INK, lw=1.0)
    axes.plot(x[counted], y[counted], color=FILL, lw=7, solid_capstyle="round", zorder=1.5)
    inside = readings_in_window(result)
    if inside.any():
        mount = _on_dome(result.mount_azimuth_deg[inside], result.mount_elevation_deg[inside])
        axes.plot(*mount, color=SKY, lw=2.2)
    culmination = int(np.argmax(result.path_elevation_deg))
    _label_path(axes, result, 0, "rise")
    _label_path(axes, result, culmination, "highest")
    _label_path(axes, result, len(x) - 1, "set")
    for row, (name, colour) in enumerate((("predicted path", INK), ("counting window (band)", MUTED), ("mount", SKY))):
        axes.text(-150, -84 - 8 * row, name, color=colour, size=9, weight="bold")


def _label_path(axes: Axes, result: PassResult, knot: int, word: str) -> None:
    """Word, time and elevation beside a knot of the path, on the side away from the zenith."""
    elevation_deg = result.path_elevation_deg[knot]
    x, y = _on_dome(result.path_azimuth_deg[knot : knot + 1], result.path_elevation_deg[knot : knot + 1])[:, 0]
    axes.plot(x, y, "o", color=INK, ms=5, zorder=4)
    side = 1 if x >= 0 else -1
    axes.annotate(
        f"{word} {utc_text(int(result.path_utc_ns[knot]), 0)[11:]}\n{elevation_deg:.0f}° up", (x, y),
        (10 * side, 0), textcoords="offset points", ha="left" if side > 0 else "right", va="center", size=9,
        bbox=_behind_text(), zorder=3,
    )  # fmt: skip


def _behind_text() -> dict[str, object]:
    return {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.85}
