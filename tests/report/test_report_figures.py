"""The figures: valid, deterministic, quick, honest about what is missing."""

import hashlib
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from report_samples import broken_result, empty_result, plausible_result

from groundstation.report.figures import _on_dome, draw_figures

NAMES = ["rates", "sky", "qber", "arrival"]


@pytest.fixture(scope="module")
def drawn():
    return {
        "whole": draw_figures(plausible_result()),
        "broken": draw_figures(broken_result()),
        "empty": draw_figures(empty_result()),
    }


def said_in(svg):
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(svg).iter() if is_text(text))


def is_text(element):
    return element.tag == "{http://www.w3.org/2000/svg}text"


@pytest.mark.parametrize("kind", ["whole", "broken", "empty"])
def test_every_figure_is_valid_svg(drawn, kind):
    assert list(drawn[kind]) == NAMES
    for svg in drawn[kind].values():
        assert ElementTree.fromstring(svg.encode()).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_simulation_is_stamped_on_every_figure_and_a_live_pass_on_none(drawn):
    assert all("SIMULATION" in said_in(svg) for svg in drawn["whole"].values())
    assert not any("SIMULATION" in said_in(svg) for svg in drawn["empty"].values())


def test_the_figures_say_their_units_and_what_they_show(drawn):
    whole = {name: said_in(svg) for name, svg in drawn["whole"].items()}
    assert "range (km)" in whole["rates"]
    assert "closest: 645 km" in whole["rates"]
    assert "abort limit 11 %" in whole["qber"]
    assert "the gate, ±1 ns" in whole["arrival"]
    assert "clicks per 100 ps" in whole["arrival"]
    assert "east left" in whole["sky"]
    assert "highest 16:52:14Z" in whole["sky"]


def test_an_empty_figure_says_why(drawn):
    empty = {name: said_in(svg) for name, svg in drawn["empty"].items()}
    assert "No second of the window was recorded." in empty["rates"]
    assert "the QBER is unknown" in empty["qber"]
    assert "No predicted path" in empty["sky"]
    assert "The mount was never read." in empty["sky"]


def test_looking_up_east_is_left_and_north_is_up():
    azimuth_deg = np.array([0.0, 90.0, 180.0, 270.0])
    places = _on_dome(azimuth_deg, np.zeros(4)).T
    assert places == pytest.approx(np.array([[0, 90], [-90, 0], [0, -90], [90, 0]]), abs=1e-9)
    assert _on_dome(np.array([123.0]), np.array([90.0]))[:, 0] == pytest.approx([0, 0])


def test_a_users_matplotlib_settings_change_nothing_and_are_left_as_they_were(drawn):
    with matplotlib.rc_context({"font.size": 31.0, "lines.linewidth": 9.0, "svg.fonttype": "path"}):
        assert draw_figures(plausible_result()) == drawn["whole"]
        assert matplotlib.rcParams["font.size"] == 31.0


def test_another_process_draws_the_same_bytes_within_two_and_a_half_seconds(drawn):
    program = (
        "import hashlib, time\n"
        "from report_samples import plausible_result\n"
        "result = plausible_result()\n"
        "began_s = time.process_time()\n"
        "from groundstation.report.figures import draw_figures\n"
        "drawn = ''.join(draw_figures(result).values())\n"
        "print(time.process_time() - began_s, hashlib.sha256(drawn.encode()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(Path(__file__).parent)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    taken_s, digest = answer.stdout.split()
    assert digest == hashlib.sha256("".join(drawn["whole"].values()).encode()).hexdigest()
    assert float(taken_s) < 2.5


@pytest.mark.parametrize("seconds", [1, 12, 60, 900])
def test_windows_of_any_length_are_drawn(seconds):
    short = plausible_result()
    stop_ns = short.window_start_utc_ns + seconds * 1_000_000_000
    arrays = {
        name: np.resize(getattr(short, name), (seconds, *getattr(short, name).shape[1:]))
        for name in ("tags_per_second", "gated_per_second", "signal_per_second", "disclosed_per_second",
                     "errors_per_second", "unused_s_per_second", "range_km_per_second")
    }  # fmt: skip
    for svg in draw_figures(plausible_result(window_stop_utc_ns=stop_ns, **arrays)).values():
        ElementTree.fromstring(svg)


def test_a_useless_pass_with_half_its_bits_wrong_stays_on_the_paper():
    result = plausible_result()
    half = plausible_result(errors_per_second=result.disclosed_per_second // 2, errors=result.sifted[:, :, 1] // 2)
    assert "50.00 ± " in said_in(draw_figures(half)["qber"])
