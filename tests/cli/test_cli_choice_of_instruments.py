"""The short pass with every tagger and every mount that has a simulator, as an operator would choose it in the config.

Nothing but one entry of the station file changes. What comes out must agree with the table in the README.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choice_table import (
    HEADS,
    Figure,
    choices,
    has_simulator,
    hold_against_readme,
    is_as_rendered,
    named,
    not_flown,
    refused,
    told,
)
from flights import FlownPass, report_of, run_command, station_text

from groundstation.core.tags import CHANNELS
from groundstation.pipeline.settings import AnalysisSettings
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Segment

Fly = Callable[..., FlownPass]

_ANYWHERE = {
    "serial": "serial:any",
    "tcp": "tcp://127.0.0.1:0",
    "http": "http://127.0.0.1:0",
    "zmq": "zmq://127.0.0.1:0",
}
_SPEED = 10.0
#: A rotator takes several exchanges for each place: so fast, much of its error would be that of the fast world.
#: A pseudo-terminal holds few bytes: a TDC1 ten times as fast overruns it when the machine is busy for a moment.
_SLOWER = {"mount_rotctld": 5.0, "mount_easycomm": 5.0, "tagger_tdc1": 3.0}

_TAGGERS = [driver for driver in choices("tagger") if has_simulator(driver)]
_MOUNTS = [driver for driver in choices("mount") if has_simulator(driver)]
_FOLLOWING_MOUNTS = [driver for driver in _MOUNTS if choices("mount")[driver].follows]
_POINTING_MOUNTS = [driver for driver in _MOUNTS if not choices("mount")[driver].follows]


def station_with(name: str, driver: str) -> str:
    """The station with another driver for one instrument, simulated."""
    scheme = choices(name)[driver].schemes[0]
    table = f'[instruments.{name}]\ndriver = "{driver}"\naddress = "{_ANYWHERE[scheme]}"\nsimulate = true\n'
    text, found = re.subn(rf"\[instruments\.{name}\]\n(?:\w.*\n)*", table, station_text())
    assert found == 1
    return text


def flown_with(request: pytest.FixtureRequest, fly: Fly, name: str, driver: str) -> FlownPass:
    """A whole pass with that instrument, in good order; the undisturbed one if that is what is in the station file."""
    if f'[instruments.{name}]\ndriver = "{driver}"\n' in station_text():
        flight = request.getfixturevalue("flown")
    else:
        flight = fly(station_with(name, driver), speed=_SLOWER.get(driver, _SPEED))
    assert flight.wait() == 0, flight.stdout + flight.stderr
    assert flight.stderr == ""
    assert flight.processes() == {}
    assert {
        path.name: path.read_text() for path in (flight.output / "programs").glob("*.log") if path.stat().st_size
    } == {}
    return flight


def assert_good_key(report: dict[str, Any]) -> None:
    """Sifted bits with an error rate that agrees with what the simulated world knows, and all of the pass."""
    assert report["complete"] is True
    assert report["remarks"] == []
    assert report["gaps"] == []
    assert report["sifted_bits"]["signal"] > 50_000
    assert report["simulation"]["slot_error_fraction"] < 1e-4
    estimate, truth = report["qber"]["overall"], report["simulation"]["qber"]
    assert abs(estimate["value"] - truth["value"]) < 4 * estimate["standard_error"]


def key_figures(report: dict[str, Any], share_of_bits: float) -> tuple[Figure, Figure]:
    """Sifted bits (may be off by a share of them) and QBER (four standard errors)."""
    bits, qber = report["sifted_bits"]["signal"], 100 * report["qber"]["overall"]["value"]
    within = 4 * 100 * report["qber"]["overall"]["standard_error"]
    return Figure(f"{round(bits, -3):,}", share_of_bits * bits), Figure(f"{qber:.1f} %", within + 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("driver", _TAGGERS)
def test_a_pass_is_recorded_by_the_tagger_as_the_readme_says(
    request: pytest.FixtureRequest, fly: Fly, driver: str
) -> None:
    flight = flown_with(request, fly, "tagger", driver)
    report = report_of(flight.output)
    assert_good_key(report)
    tick_ps, gate_ps = tick_of(flight.sealed), 2 * AnalysisSettings().gate_half_width_ps
    assert tick_ps <= gate_ps
    why = (
        "finer than the light's own jitter"
        if tick_ps < 250
        else f"as coarse as the gate: some clicks fall beside it (gate_half_width_ps = {tick_ps:.0f} keeps them)"
    )
    hold_against_readme(
        driver,
        (
            named(driver),
            str(choices("tagger")[driver].inputs),
            f"{tick_ps:g} ps",
            Figure(f"{100 * report['gated'] / report['detections']:.1f} %", 1.0),
            *key_figures(report, 0.03),
            why,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("driver", _FOLLOWING_MOUNTS)
def test_a_satellite_is_followed_by_the_mount_as_the_readme_says(
    request: pytest.FixtureRequest, fly: Fly, driver: str
) -> None:
    flight = flown_with(request, fly, "mount", driver)
    report = report_of(flight.output)
    assert_good_key(report)
    off_arcsec = report["simulation"]["pointing_error_arcsec"]["rms"]
    follows = re.search(r"the mount follows by (\w+)", log_of(flight.sealed))
    assert follows is not None
    why = {
        "rates": "the station's own loop steers both axes",
        "trajectory": "it interpolates the path by its own clock",
        "positions": "it is sent from place to place, and light is lost beside it",
    }[follows[1]]
    hold_against_readme(
        driver,
        (
            named(driver),
            follows[1],
            Figure(
                f"{off_arcsec:.2g} arcsec" if off_arcsec < 10 else f"{off_arcsec:.0f} arcsec", 10 + 0.7 * off_arcsec
            ),
            *key_figures(report, 0.4 if follows[1] == "positions" else 0.03),
            why,
        ),
    )


@pytest.mark.parametrize("driver", _POINTING_MOUNTS)
def test_a_mount_that_cannot_follow_is_refused_before_the_pass_as_the_readme_says(tmp_path: Path, driver: str) -> None:
    station, output = tmp_path / "station.toml", tmp_path / "pass"
    station.write_text(station_with("mount", driver), encoding="utf-8")
    code, said, errors, left = run_command("run", "--config", station, "--output", output)
    assert (code, said, left) == (2, "", {})
    assert not output.exists()
    sentence = errors.removeprefix("groundstation: ").rstrip("\n")
    assert "\n" not in sentence
    assert "can point but not follow" in sentence
    hold_against_readme(driver, refused(driver, sentence))


def test_the_readme_has_a_row_for_every_tagger_and_mount_and_no_other() -> None:
    every = {driver for capability in HEADS for driver in choices(capability)}
    for driver in every:
        if not has_simulator(driver):
            hold_against_readme(driver, not_flown(driver))
    assert set(told()) == every
    assert is_as_rendered()


@pytest.mark.slow
def test_two_taggers_record_one_pass(fly: Fly) -> None:
    """The detectors D and A are plugged into the second one, which shares the 1PPS with the first."""
    text = station_text().replace("D = { inputs = [3] }", "D = { inputs = [7] }")
    text = text.replace("A = { inputs = [4] }", "A = { inputs = [8] }")
    text += '\n[instruments.tagger_2]\ndriver = "tagger_tdc2"\naddress = "tcp://127.0.0.1:0"\nsimulate = true\n'
    text += "settings = { common_inputs = [3, 4] }\n"
    flight = fly(text, speed=_SPEED)
    assert flight.wait() == 0, flight.stdout + flight.stderr
    report = report_of(flight.output)
    assert_good_key(report)
    assert report["sifted_bits"]["signal"] > 200_000  # as many as one tagger gives
    assert report["ledger"]["dropped"] == 0
    counts, lasted_s = counts_of(flight.sealed)
    assert counts["pps"] == pytest.approx(lasted_s, abs=2.0)  # each second once, not twice
    for one, other in (("H", "D"), ("V", "A")):
        assert counts[other] == pytest.approx(counts[one], rel=0.2)


def tick_of(recording: Path) -> float:
    """The tagger's resolution in ps, as it was recorded."""
    return float(str(_segments(recording, "tags")[-1].notes["resolution_ps"]))


def counts_of(recording: Path) -> tuple[dict[str, int], float]:
    """Tags of each channel, and for how many seconds."""
    tags = [segment.tables["tags"] for segment in _segments(recording, "tags")]
    counts = np.bincount(np.concatenate([table["channel"] for table in tags]), minlength=len(CHANNELS))
    lasted_ps = int(tags[-1]["time_ps"][-1]) - int(tags[0]["time_ps"][0])
    return dict(zip(CHANNELS, counts.tolist(), strict=True)), lasted_ps * 1e-12


def log_of(recording: Path) -> str:
    """The log of a recording, as text."""
    texts = [segment.tables["events"]["text"].tolist() for segment in _segments(recording, "events")]
    return "\n".join(line.decode() for lines in texts for line in lines)


def _segments(recording: Path, stream: str) -> list[Segment]:
    """Those with rows."""
    reader, found = open_recording(recording).stream(stream), []
    while not reader.ended:
        for segment in reader.poll():
            assert isinstance(segment, Segment)
            if stream in segment.tables:
                found.append(segment)
    return found
