"""The look that the figures of a report share: palette, sheet, time axis, and deterministic SVG text.

Figures are built from matplotlib's objects, without pyplot and so without its global list of figures; the
style is set for the length of a `house_style()` block only. Text stays text in the SVG, so that it can be
searched and the page can recolour it for the night.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from groundstation.clock import NS_PER_S, utc_text
from groundstation.pipeline.result import PassResult
from groundstation.report.document import PS_PER_S
from groundstation.report.palette import HAIRLINE, INK, MUTED, WARNING

WIDTH_IN = 6.2
_LEFT_AT_VALUE = ("axes fraction", "data")
_MARGIN_IN = (0.66, 0.16)  # left, right

#: Any, for the keys are of a Literal type that matplotlib does not export.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "groundstation",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout everywhere
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.7,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever a user's matplotlibrc says; restored afterwards.

    Names may be in any script: text stays text, and the reader's fonts show what DejaVu Sans lacks.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from font", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def sheet(result: PassResult, title: str, height_in: float) -> Figure:
    """An empty figure with its title, the pass it belongs to, and SIMULATION stamped where it is one."""
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="none")
    day = utc_text(result.window_start_utc_ns, 0)[:10]
    left = 0.12 / WIDTH_IN
    figure.text(left, 1 - 0.24 / height_in, title, size=12, weight="bold", va="center")
    below = f"{result.satellite} over {result.station}, {day}"
    figure.text(left, 1 - 0.46 / height_in, below, size=9, color=MUTED, va="center")
    if result.mode != "live":
        figure.text(
            1 - left, 1 - 0.24 / height_in, result.mode.upper(),
            size=12, weight="bold", color=WARNING, ha="right", va="center",
        )  # fmt: skip
    return figure


def panel(figure: Figure, bottom_in: float, height_in: float, share_x: Axes | None = None) -> Axes:
    """A panel over the width of the sheet, its place given in inches from the bottom."""
    width_in, total_in = figure.get_size_inches()
    left_in, right_in = _MARGIN_IN
    box = (
        left_in / width_in,
        bottom_in / total_in,
        (width_in - left_in - right_in) / width_in,
        height_in / total_in,
    )
    axes = figure.add_axes(box, sharex=share_x)
    axes.grid(axis="y")
    axes.tick_params(length=3)
    return axes


def time_axis(axes: Axes, result: PassResult, labels: bool = True) -> None:
    """Seconds after the window's start as UTC: round ticks, the window's limits, gaps in orange."""
    start_ns = result.window_start_utc_ns
    duration_s = max((result.window_stop_utc_ns - start_ns) / NS_PER_S, 1.0)
    step_s = next((step for step in (10, 20, 30, 60, 120, 300, 600) if duration_s / step <= 7), 1800)
    first = -(-start_ns // (step_s * NS_PER_S)) * step_s * NS_PER_S
    ticks = range(first, start_ns + round(duration_s * NS_PER_S) + 1, step_s * NS_PER_S)
    axes.set_xlim(0.0, duration_s)
    axes.set_xticks([(tick - start_ns) / NS_PER_S for tick in ticks])
    if labels:
        clock_text = slice(11, 16) if step_s >= 60 else slice(11, 19)
        axes.set_xticklabels([utc_text(tick, 0)[clock_text] for tick in ticks])
        axes.set_xlabel("UTC")
    else:
        axes.tick_params(labelbottom=False)
    for gap in result.gaps:
        axes.axvspan(gap.start_ps / PS_PER_S, gap.stop_ps / PS_PER_S, color=WARNING, alpha=0.25, lw=0)


def key(axes: Axes, entries: Sequence[tuple[str, str]], below: float | None = None) -> None:
    """(text, colour) lines in the upper left corner: the legend, without a box to decipher.

    `below`: start under this value of the vertical axis instead of under the top.
    """
    corner, coordinates = ((0.0, 1.0), "axes fraction") if below is None else ((0.0, below), _LEFT_AT_VALUE)
    for row, (text, colour) in enumerate(entries):
        axes.annotate(
            text, corner, (6, -4 - 13 * row), xycoords=coordinates, textcoords="offset points",
            color=colour, weight="bold", size=9, va="top",
        )  # fmt: skip


def say_nothing_to_draw(axes: Axes, sentence: str) -> None:
    """An empty panel says why it is empty."""
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def svg_text(figure: Figure, name: str) -> str:
    """The figure as SVG: no date, no program name, identifiers that begin with `name` and never collide."""
    buffer = StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", buffer.getvalue())
