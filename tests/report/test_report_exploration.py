"""The figures of an exploration: valid, deterministic, at home in any width."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from groundstation.errors import BadInput
from groundstation.report.exploration import (
    Bar,
    Caption,
    Level,
    RateRow,
    coincidences_figure,
    correlation_figure,
    histogram_figure,
    rates_figure,
    save_figure,
)

CAPTION = Caption("A title", "a rather long name of a file.ptu, PicoQuant T2, with $ and _ and ü in it", "SIMULATION")


def rates(width_in: float = 6.2, bins: int = 300) -> Figure:
    rate_hz = np.random.default_rng(1).poisson(5_000, bins).astype(float)
    rate_hz[[0, bins // 2, -1]] = np.nan
    rows = [RateRow("H", rate_hz, 4999.7), RateRow("odd channel", np.full(bins, np.nan), float("nan"))]
    return rates_figure(CAPTION, np.arange(bins + 1.0), rows, [(20.0, 30.5)], width_in)


def delays(width_in: float = 6.2, bins: int = 2000) -> Figure:
    counts = np.random.default_rng(2).poisson(4, bins)
    edges_ns = np.linspace(-100, 100, bins + 1)
    level = Level(4.0, "if independent", is_g2_of_one=True)
    return correlation_figure(CAPTION, edges_ns, counts, level, "peak at +12.35 ns", width_in)


def intervals(width_in: float = 6.2, bins: int = 500) -> Figure:
    counts = np.random.default_rng(3).poisson(1e4 * np.exp(-np.arange(bins) / 50))
    return histogram_figure(CAPTION, np.arange(bins + 1) * 1e4, counts, "time since the click before", True, width_in)


def together(width_in: float = 6.2, bins: int = 3) -> Figure:
    bars = [
        Bar("H, V, D, A without sync", 12_345, 0.3, 0.1),
        Bar("H, V", 0, 0.0, 0.1),
        Bar("a long name, V", 7, 9.0, 1.0),
    ]
    return coincidences_figure(CAPTION, bars[:bins], width_in)


DRAWN: list[Callable[..., Figure]] = [rates, delays, intervals, together]


def svg(path: Path, draw: Callable[[], Figure]) -> str:
    save_figure(path, draw)
    return path.read_text(encoding="utf-8")


def texts_outside(figure: Figure) -> list[str]:
    """What is written over the edge of the sheet."""
    figure.canvas.draw()
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.findobj(matplotlib.text.Text)]
    return [text for text, box in boxes if text.strip() and (box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1)]


@pytest.mark.parametrize("draw", DRAWN)
def test_a_figure_is_valid_stamped_and_the_same_again(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    first = svg(tmp_path / "one.svg", draw)
    said = " ".join("".join(text.itertext()) for text in ElementTree.fromstring(first).iter() if "text" in text.tag)
    assert "SIMULATION" in said
    assert "with $ and _ and ü" in said
    with matplotlib.rc_context({"font.size": 31.0, "svg.fonttype": "path"}):
        assert svg(tmp_path / "two.svg", draw) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "two.svg"]


@pytest.mark.parametrize("width_in", [3.0, 3.4, 6.2, 12.0])
@pytest.mark.parametrize("draw", DRAWN)
def test_nothing_is_written_beside_the_sheet(draw: Callable[..., Figure], width_in: float) -> None:
    outside: list[str] = []

    def look() -> Figure:
        figure = draw(width_in)
        outside.extend(texts_outside(figure))
        return figure

    from groundstation.report.drawing import house_style

    with house_style():
        look()
    assert outside == []


@pytest.mark.parametrize("draw", DRAWN)
def test_many_bins_are_drawn_as_fewer(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    assert len(svg(tmp_path / "many.svg", lambda: draw(bins=1_000_003))) < 400_000


@pytest.mark.parametrize("width_in", [3.0, 6.2])
def test_the_words_of_a_caption_do_not_run_into_each_other(width_in: float) -> None:
    from groundstation.report.drawing import house_style

    with house_style():
        figure = rates_figure(CAPTION._replace(title="Coincidences within ±123.4 ns"), np.arange(2.0), [], [], width_in)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_the_axes_say_their_units(tmp_path: Path) -> None:
    assert "pairs per 100 ps" in svg(tmp_path / "a.svg", delays)
    assert "delay (ns)" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    said = svg(tmp_path / "b.svg", intervals)
    assert "time since the click before (ms)" in said
    assert "tags per 10 µs" in said
    assert "rates in bins of 1 s, in Hz" in svg(tmp_path / "c.svg", rates)
    assert "12,345 (0.3 ± 0.1)" in svg(tmp_path / "d.svg", together)
    assert "5 kHz" in (tmp_path / "c.svg").read_text(encoding="utf-8")


def test_nothing_to_draw_says_so(tmp_path: Path) -> None:
    empty = np.zeros(0)
    assert "There are no tags in this range." in svg(
        tmp_path / "r.svg", lambda: rates_figure(CAPTION, empty, [], [], 6.2)
    )
    nothing = correlation_figure(CAPTION, np.arange(11.0), np.zeros(10, np.int64), Level(float("nan"), ""))
    assert "There are no pairs in this range." in svg(tmp_path / "c.svg", lambda: nothing)


def test_other_kinds_of_figure_are_written_by_their_suffix(tmp_path: Path) -> None:
    save_figure(tmp_path / "a.png", delays)
    save_figure(tmp_path / "a.PDF", delays)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.PDF").read_bytes().startswith(b"%PDF")
    with pytest.raises(BadInput, match=r'"a\.jpeg"'):
        save_figure(tmp_path / "a.jpeg", delays)
