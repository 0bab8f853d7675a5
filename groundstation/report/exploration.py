"""Figures of an exploration: rates, a correlation, a histogram, coincidences. A sheet each, in the look of a report.

Each takes arrays and a caption and returns a matplotlib `Figure` of any width from 3 inches; `save_figure` writes it
as SVG, PNG or PDF by the name's suffix. More bins than can be seen are drawn as fewer, wider ones, and the axis says
so.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from groundstation.errors import BadInput, GroundStationError
from groundstation.report.drawing import WIDTH_IN, house_style, panel, say_nothing_to_draw, svg_text
from groundstation.report.palette import DETECTOR_COLOURS, INK, MUTED, PAPER, SKY, WARNING

SUFFIXES = (".svg", ".png", ".pdf")
_MOST_BINS = 2_000
_PNG_DPI = 200
_ROOM_FOR_TWO_IN = 4.5  # width at which two notes fit beside each other
_CHARACTER_IN = 0.078  # of 9 point text, a little more than the mean
_BOLD = 1.1
_TITLE_CHARACTER_IN = 0.106  # of bold 12 point text, likewise

#: Nanoseconds of the larger units of time.
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))

Floats = NDArray[np.float64]


class Caption(NamedTuple):
    """`title`: what is drawn; `source`: of what; `stamp`: SIMULATION or nothing."""

    title: str
    source: str
    stamp: str = ""


class RateRow(NamedTuple):
    """A channel's line: `rate_hz` (n,), NaN where it is not known; `mean_hz` NaN when no bin is known."""

    name: str
    rate_hz: Floats
    mean_hz: float


class Level(NamedTuple):
    """`pairs` per bin to compare with, NaN if unknown; its `name`; whether that is what g2 = 1 means."""

    pairs: float
    name: str
    is_g2_of_one: bool = False


class Bar(NamedTuple):
    """Coincidences `found` of the channels in `name`, and how many chance gives with its standard error."""

    name: str
    found: int
    accidentals: float
    accidentals_error: float


def rates_figure(
    caption: Caption,
    edges_s: Floats,
    rows: Sequence[RateRow],
    gaps_s: Sequence[tuple[float, float]],
    width_in: float = WIDTH_IN,
) -> Figure:
    """A small panel for each channel over common time; intervals of loss in orange. `edges_s` (n + 1,)."""
    panel_in = 0.72
    height_in = 1.2 + panel_in * max(len(rows), 1)
    figure = _sheet(caption, width_in, height_in)
    top: Axes | None = None
    for place, row in enumerate(rows):
        bottom_in = 0.52 + panel_in * (len(rows) - 1 - place)
        axes = panel(figure, bottom_in, panel_in - 0.14, share_x=top)
        top = top or axes
        colour = DETECTOR_COLOURS.get(row.name, INK)
        edges, rate = _thinned(edges_s, row.rate_hz)
        axes.stairs(rate, edges, color=colour, lw=1.1, baseline=None)
        highest = float(np.nanmax(rate, initial=0.0, where=np.isfinite(rate)))
        axes.set_ylim(0, highest * 1.75 if highest else 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        for start_s, stop_s in gaps_s:
            axes.axvspan(start_s, stop_s, color=WARNING, alpha=0.25, lw=0)
        mean = "unknown" if np.isnan(row.mean_hz) else f"{_engineering(row.mean_hz)}Hz"
        _corner(axes, f"{row.name}: {mean}", INK)
        axes.tick_params(labelbottom=place == len(rows) - 1)
    if top is None:
        say_nothing_to_draw(panel(figure, 0.52, panel_in - 0.14), "There are no tags in this range.")
        return figure
    top.set_xlim(edges_s[0], edges_s[-1])
    axes.set_xlabel(f"time (s); rates in bins of {edges_s[1] - edges_s[0]:g} s, in Hz")
    return figure


def correlation_figure(
    caption: Caption,
    edges_ns: Floats,
    counts: NDArray[np.int64],
    level: Level,
    remark: str = "",
    width_in: float = WIDTH_IN,
) -> Figure:
    """Pairs by delay, with a level to compare them with dashed. `edges_ns` (n + 1,), `counts` (n,)."""
    figure = _sheet(caption, width_in, 3.6)
    axes = panel(figure, 0.52, 2.4)
    known = np.isfinite(level.pairs) and level.pairs > 0
    edges, drawn, merged = _summed(edges_ns, counts)
    level_pairs = level.pairs * merged if known else 0.0
    _draw_histogram(axes, edges, drawn, 0.0)
    axes.set_ylim(0, max(1.0, float(drawn.max(initial=0)), level_pairs) * 1.22)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _label_histogram(figure, axes, edges, "delay", "pairs")
    if remark:
        _corner(axes, remark, INK)
    if known:
        axes.axhline(level_pairs, color=MUTED, lw=1.0, ls=(0, (5, 3)))
        beside = width_in >= _ROOM_FOR_TWO_IN or not remark
        axes.annotate(
            f"dashed: {level.name}", (1, 1), (-6, -4 if beside else -17), xycoords="axes fraction",
            textcoords="offset points", color=MUTED, size=9, ha="right", va="top",
        )  # fmt: skip
    if not drawn.any():
        say_nothing_to_draw(axes, "There are no pairs in this range.")
    if known and level.is_g2_of_one:
        _add_g2_axis(figure, axes, level_pairs)
    return figure


def histogram_figure(
    caption: Caption,
    edges_ns: Floats,
    counts: NDArray[np.int64],
    axis: str,
    logarithmic: bool = False,
    width_in: float = WIDTH_IN,
) -> Figure:
    """Tags by time within a period, since a sync or since the click before. `axis` names it, without a unit."""
    figure = _sheet(caption, width_in, 3.6)
    axes = panel(figure, 0.52, 2.4)
    edges, drawn, _ = _summed(edges_ns, counts)
    highest = float(drawn.max(initial=0))
    if logarithmic:
        floor = 0.5
        _draw_histogram(axes, edges, drawn, floor)
        axes.set_yscale("log")
        axes.set_ylim(floor, max(highest, 10.0) * 4)
        axes.minorticks_off()
    else:
        _draw_histogram(axes, edges, drawn, 0.0)
        axes.set_ylim(0, max(highest, 1.0) * 1.22)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _label_histogram(figure, axes, edges, axis, "tags")
    if not drawn.any():
        say_nothing_to_draw(axes, "There are no tags in this range.")
    return figure


def coincidences_figure(caption: Caption, bars: Sequence[Bar], width_in: float = WIDTH_IN) -> Figure:
    """A bar for each set of channels on a logarithmic axis, with what chance gives marked on it."""
    row_in = 0.5
    figure = _sheet(caption, width_in, 1.2 + row_in * len(bars))
    axes = panel(figure, 0.52, row_in * len(bars))
    box = axes.get_position()  # names stand above their bars, not beside them
    axes.set_position((0.16 / width_in, box.y0, 1 - 0.32 / width_in, box.height))
    known = [value for bar in bars for value in (bar.found, bar.accidentals) if value > 0]
    low, high = 10.0 ** np.floor(np.log10(min([1.0, *known]) * 0.7)), max([10.0, *known])
    axes.set_xscale("log")
    axes.set_xlim(low, high * 2)
    axes.set_ylim(len(bars), 0)
    for row, bar in enumerate(bars):
        middle, colour = row + 0.7, SKY if row else INK
        axes.barh(middle, max(bar.found, low) - low, 0.36, left=low, color=colour, alpha=0.45, lw=0)
        if bar.accidentals > 0:
            axes.plot([bar.accidentals] * 2, [middle - 0.2, middle + 0.2], color=WARNING, lw=1.8)
        chance = f"{bar.found:,} ({_rounded(bar.accidentals, bar.accidentals_error)})"
        room = int(((width_in - 0.4) / _CHARACTER_IN - len(chance) - 1) / _BOLD)
        axes.annotate(
            _cut(bar.name, room), (0, row + 0.32), (2, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=INK, weight="bold", size=9, va="center",
        )  # fmt: skip
        axes.annotate(
            chance, (1, row + 0.32), (-2, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=MUTED, size=9, ha="right", va="center",
        )  # fmt: skip
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(10, numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.minorticks_off()
    axes.set_xlabel("coincidences (by chance, in orange)")
    return figure


def save_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw and write it as the suffix says, replacing an older file in one step.

    Raises BadInput for another suffix, GroundStationError when it cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise BadInput(f'no figure can be written as "{path.name}"; end the name in {", ".join(SUFFIXES)}')
    with house_style():
        figure = draw()
        if kind == ".svg":
            content = svg_text(figure, "figure").encode()
        else:
            buffer = BytesIO()
            dates = {"CreationDate": None} if kind == ".pdf" else None
            figure.savefig(buffer, format=kind[1:], dpi=_PNG_DPI, metadata=dates)
            content = buffer.getvalue()
    save_content(path, content)


def save_content(path: Path, content: bytes) -> None:
    """Put bytes in place of `path` in one step. Raises GroundStationError when they cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise GroundStationError(f"{path} cannot be written ({error.strerror}); name a place where it can") from error


def _sheet(caption: Caption, width_in: float, height_in: float) -> Figure:
    """An empty figure on paper with its caption, cut to the width."""
    figure = Figure(figsize=(width_in, height_in), facecolor=PAPER)
    left = 0.12 / width_in
    figure.text(left, 1 - 0.24 / height_in, caption.title, size=12, weight="bold", va="center")
    title_in, stamp_in = len(caption.title) * _TITLE_CHARACTER_IN, len(caption.stamp) * _TITLE_CHARACTER_IN
    below = title_in + stamp_in > width_in - 0.3  # the stamp beside the source, where the title leaves no room
    source = _cut(caption.source, int((width_in - 0.24 - stamp_in * below) / _CHARACTER_IN))
    figure.text(left, 1 - 0.46 / height_in, source, size=9, color=MUTED, va="center")
    if caption.stamp:
        figure.text(
            1 - left, 1 - (0.46 if below else 0.24) / height_in, caption.stamp,
            size=12, weight="bold", color=WARNING, ha="right", va="center",
        )  # fmt: skip
    return figure


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1].rstrip()}…"


def _corner(axes: Axes, text: str, colour: str) -> None:
    axes.annotate(
        text, (0, 1), (6, -4), xycoords="axes fraction", textcoords="offset points",
        color=colour, weight="bold", size=9, va="top",
    )  # fmt: skip


def _draw_histogram(axes: Axes, edges_ns: Floats, counts: NDArray[np.int64], floor: float) -> None:
    drawn = np.maximum(counts, floor)
    axes.stairs(drawn, edges_ns, color=SKY, fill=True, alpha=0.3, baseline=floor)
    axes.stairs(drawn, edges_ns, color=SKY, lw=1.1, baseline=floor)
    axes.set_xlim(edges_ns[0], edges_ns[-1])


def _label_histogram(figure: Figure, axes: Axes, edges_ns: Floats, axis: str, things: str) -> None:
    """Times in their natural unit, counts with their thousands as a letter."""
    reach_ns = float(np.abs(edges_ns[[0, -1]]).max())
    unit_ns, unit = next((known for known in _UNITS if reach_ns >= 2 * known[0]), (1.0, "ns"))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / unit_ns:.10g}".replace("-", "\N{MINUS SIGN}"))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel(f"{axis} ({unit})")
    axes.set_ylabel(f"{things} per {_width(edges_ns)}")
    _place_label(figure, axes.yaxis, 0.16)


def _add_g2_axis(figure: Figure, axes: Axes, level_pairs: float) -> None:
    """The same histogram in units of the level, on the right; the panel makes room."""
    box, width_in = axes.get_position(), float(figure.get_size_inches()[0])
    axes.set_position((box.x0, box.y0, box.width - 0.52 / width_in, box.height))
    to_g2, to_pairs = (lambda pairs: np.asarray(pairs) / level_pairs), (lambda g2: np.asarray(g2) * level_pairs)
    right = axes.secondary_yaxis("right", functions=(to_g2, to_pairs))
    right.yaxis.set_major_locator(MaxNLocator(5))
    right.yaxis.set_major_formatter(FuncFormatter(_tick))
    right.tick_params(length=3)
    right.set_ylabel("g²")
    _place_label(figure, right.yaxis, width_in - 0.18)


def _place_label(figure: Figure, axis: Axis, left_in: float) -> None:
    """The name of a vertical axis at a fixed place, however long its numbers are."""
    middle = figure.axes[0].get_position()
    across = left_in / figure.get_size_inches()[0]
    axis.set_label_coords(across, (middle.y0 + middle.y1) / 2, transform=figure.transFigure)


def _thinned(edges: Floats, values: Floats) -> tuple[Floats, Floats]:
    """At most _MOST_BINS steps: the mean of the known ones among those that fall together, NaN if there is none."""
    together = -(-values.size // _MOST_BINS)
    if together <= 1:
        return edges, values
    starts = np.arange(0, values.size, together)
    known = np.isfinite(values)
    count = np.add.reduceat(known.astype(np.int64), starts)
    total = np.add.reduceat(np.where(known, values, 0.0), starts)
    return np.append(edges[starts], edges[-1]), np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _summed(edges: Floats, counts: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64], int]:
    """At most _MOST_BINS bins of equal width, and how many of the given ones each holds; a last part is not drawn."""
    together = max(1, -(-counts.size // _MOST_BINS))
    whole = counts.size // together * together
    return edges[: whole + 1 : together], counts[:whole].reshape(-1, together).sum(axis=1), together


def _width(edges_ns: Floats) -> str:
    """The width of a bin in its natural unit."""
    width_ns = edges_ns[1] - edges_ns[0]
    unit_ns, unit = next((known for known in (*_UNITS, (1.0, "ns")) if width_ns >= known[0]), (1e-3, "ps"))
    return f"{width_ns / unit_ns:.4g} {unit}"


def _rounded(value: float, error: float) -> str:
    """A value and its error with one digit of that."""
    digits = max(0, -int(np.floor(np.log10(error)))) if error > 0 else 0
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _tick(value: float, place: object) -> str:
    return _engineering(value).rstrip()


def _engineering(value: float) -> str:
    """A number with its thousands as a letter, for axes and labels: 12.5 k, 3 M. The unit may follow at once."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g} {letter}"
    return f"{value:.4g} " if value else "0 "
