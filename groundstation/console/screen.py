"""The picture of the live view: what an operator must see at a glance, in 80 columns and 24 rows.

Top to bottom: the mode in big letters, the countdown with the pass as a bar, pointing beside rates, what the
analysis says, recording and disk, alarms. The layout never moves: an unknown value is a dash, a stale one is
dimmed and says so.
"""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from groundstation.clock import utc_text
from groundstation.console.status import (
    UNKNOWN,
    PassStatus,
    countdown,
    detections_hz,
    is_stale,
    number_text,
    one_line,
    percent_text,
    qber_text,
    rate_text,
    safe_text,
)
from groundstation.core.tags import CHANNELS

_MODE_STYLE = {"SIMULATION": "bold dark_orange", "LIVE": "bold green", "REPLAY": "bold deep_sky_blue1"}
#: Two rows of half blocks per letter.
_LETTERS = {
    "A": ("▄▀█", "█▀█"), "E": ("█▀▀", "██▄"), "I": ("█", "█"), "L": ("█  ", "█▄▄"),
    "M": ("█▀▄▀█", "█ ▀ █"), "N": ("█▄ █", "█ ▀█"), "O": ("█▀█", "█▄█"), "P": ("█▀█", "█▀▀"),
    "R": ("█▀█", "█▀▄"), "S": ("█▀", "▄█"), "T": ("▀█▀", " █ "), "U": ("█ █", "█▄█"),
    "V": ("█ █", "▀▄▀"), "Y": ("█▄█", " █ "),
}  # fmt: skip
#: So many alarms are spelled out; the rest is counted.
_ALARMS_SHOWN = 2
_NARROWEST = 40
_PANEL_ROWS = 7


def render(status: PassStatus, width: int, *, ascii_only: bool = False) -> RenderableType:
    """The view as a rich renderable: at most 21 rows from 76 columns on; narrower, the panels are stacked."""
    width = max(width, _NARROWEST)
    head, progress = _head(status, width, ascii_only), _progress(status, width, ascii_only)
    rows: list[RenderableType] = [head, Text(), progress, Text()]
    panels = (_pointing(status), _rates(status), _analysis(status))
    if width >= 76:
        grid = Table.grid(expand=True)
        for ratio in (21, 34, 25):
            grid.add_column(ratio=ratio)
        grid.add_row(*panels)
        rows.append(grid)
    else:
        rows.extend(panels)
    rows.extend((_recording(status), _alarms(status)))
    return Group(*rows)


def big_letters(word: str, ascii_only: bool = False) -> Text:
    """A word in letters of two rows; spaced capitals where only ASCII will do."""
    if ascii_only or any(letter not in _LETTERS for letter in word):
        return Text(f"** {' '.join(word.upper())} **\n")
    return Text("\n".join(" ".join(_LETTERS[letter][row] for letter in word) for row in range(2)))


def progress_bar(status: PassStatus, width: int, ascii_only: bool = False) -> Text:
    """The counting window as a bar of `width` cells: done, to come, and a mark at the culmination."""
    done_cell, open_cell, mark = ("#", "-", "^") if ascii_only else ("━", "─", "▲")
    cells = [(open_cell, "bright_black")] * width
    start, stop, now = status.start_utc_ns, status.stop_utc_ns, status.utc_ns
    if start is not None and stop is not None and stop > start:
        done = 0 if now is None else round(width * min(max((now - start) / (stop - start), 0.0), 1.0))
        cells[:done] = [(done_cell, "bold cyan")] * done
        if status.culmination_utc_ns is not None and start <= status.culmination_utc_ns < stop:
            at = int(width * (status.culmination_utc_ns - start) / (stop - start))
            cells[at] = (mark, "bold yellow")
    return Text.assemble(*cells)


def _head(status: PassStatus, width: int, ascii_only: bool) -> RenderableType:
    if status.mode is None:
        mode = Text("** MODE UNKNOWN **\n", style="bold red")
    else:
        mode = big_letters(status.mode, ascii_only)
        mode.stylize(_MODE_STYLE[status.mode])
    speed = "" if status.speed in (None, 1.0) else f"  ×{status.speed:g}"
    utc = UNKNOWN if status.utc_ns is None else utc_text(status.utc_ns, 0).replace("T", " ")
    facts = Text.assemble(
        (one_line(f"{status.satellite or UNKNOWN} over {status.station or UNKNOWN}") + "\n", "bold"),
        f"{utc}{speed}\n",
        (one_line(status.state or "state unknown").upper(), "bold cyan"),
        justify="right",
        no_wrap=True,
        overflow="ellipsis",
    )
    if width < 60:
        return Group(mode, facts)
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", ratio=1)
    grid.add_row(mode, facts)
    return grid


def _progress(status: PassStatus, width: int, ascii_only: bool) -> RenderableType:
    word, left = countdown(status)
    times = [
        UNKNOWN if utc_ns is None else utc_text(utc_ns, 0)[11:]
        for utc_ns in (status.start_utc_ns, status.culmination_utc_ns, status.stop_utc_ns)
    ]
    heading = Text.assemble((f"{word} ", ""), (left, "bold reverse" if left != UNKNOWN else ""))
    legend = Table.grid(expand=True)
    legend.add_column()
    legend.add_column(justify="center", ratio=1)
    legend.add_column(justify="right")
    legend.add_row(f"start {times[0]}", f"highest {times[1]}", f"stop {times[2]}", style="bright_black")
    return Group(heading, progress_bar(status, width, ascii_only), legend)


def _pointing(status: PassStatus) -> Panel:
    rows = (
        ("azimuth", number_text(status.azimuth_deg, "{:z.2f}°")),
        ("elevation", number_text(status.elevation_deg, "{:z.2f}°")),
        ("range", number_text(status.range_km, "{:.0f} km")),
        ("error", number_text(status.pointing_error_arcsec, "{:.1f}″")),
    )
    return _panel("mount", rows, status.mount_age_s)


def _rates(status: PassStatus) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for column in range(4):
        table.add_column(justify="right" if column % 2 else "left", no_wrap=True)
    pairs = [(name, rate_text(status.counts_hz.get(name))) for name in CHANNELS]
    for left, right in zip(pairs[::2], pairs[1::2], strict=True):
        table.add_row(*left, *right)
    table.add_row("sum", rate_text(detections_hz(status)), "", "")
    return _framed("count rates", table, status.detector_age_s)


def _analysis(status: PassStatus) -> Panel:
    rows = (
        ("gated", rate_text(status.gated_hz)),
        ("sifted", rate_text(status.sifted_hz)),
        ("bits", number_text(status.sifted_bits, "{:,}")),
        ("QBER", qber_text(status)),
        ("behind", number_text(status.analysis_lag_s, "{:.1f} s")),
    )
    return _panel("analysis", rows, status.analysis_age_s)


def _recording(status: PassStatus) -> Panel:
    dropped = Text(number_text(status.dropped, "{:,}"), style="bold red" if status.dropped else "")
    line = Text.assemble(
        "tags ", (number_text(status.recorded_tags, "{:,}"), "bold"), "  dropped ", dropped,
        "  buffer ", percent_text(status.buffer_fill), "  safe ", safe_text(status),
        "  disk ", (number_text(status.disk_free_gb, "{:.1f} GB"), "bold"),
        "" if status.disk_minutes_left is None else f" {number_text(status.disk_minutes_left, '{:,.0f} min')}",
    )  # fmt: skip
    line.no_wrap, line.overflow = True, "ellipsis"
    return Panel(line, title="recording", title_align="left", border_style="bright_black", padding=(0, 1))


def _alarms(status: PassStatus) -> RenderableType:
    shown = [Text(f"ALARM  {one_line(alarm)}", style="bold white on red") for alarm in status.alarms[:_ALARMS_SHOWN]]
    more = len(status.alarms) - len(shown)
    last = Text(f"last event: {one_line(status.last_event or UNKNOWN)}", style="bright_black")
    if more > 0:
        last = Text(f"and {more} more alarm{'s' if more > 1 else ''}", style="bold red")
    lines = [*shown, last]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _panel(title: str, rows: tuple[tuple[str, str], ...], age_s: float | None) -> Panel:
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    for name, value in rows:
        table.add_row(name, value)
    return _framed(title, table, age_s)


def _framed(title: str, content: RenderableType, age_s: float | None) -> Panel:
    """A panel; when its source is silent the values are dimmed and the title says since when."""
    if age_s is not None and is_stale(age_s):
        heading = Text.assemble(f"{title} ", (f"STALE {age_s:.0f} s", "bold black on yellow"))
        return Panel(
            content,
            title=heading,
            title_align="left",
            border_style="yellow",
            style="dim",
            padding=(0, 1),
            height=_PANEL_ROWS,
        )
    return Panel(
        content, title=title, title_align="left", border_style="bright_black", padding=(0, 1),
        height=_PANEL_ROWS,
    )  # fmt: skip
