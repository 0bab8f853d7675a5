"""A short pass from end to end: what it leaves behind, its report, its replay and its memory."""

import json
import socket
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tables
from flights import DEADLINE_S, FlownPass, replay, report_of, result_bytes, run_command
from phconvert.hdf5 import assert_valid_photon_hdf5

_NUMBER = (int, float)
_RATE = {"value": _NUMBER, "standard_error": _NUMBER}
#: The interface of report.json that scripts rely on: fields in their order, and their types.
_INTERFACE: dict[str, Any] = {
    "mode": str,
    "complete": bool,
    "window": {"start_utc": str, "stop_utc": str, "duration_s": _NUMBER},
    "detections": int,
    "gated": int,
    "sifted_bits": {"signal": int, "decoy": int, "vacuum": int, "disclosed": int, "undisclosed": int},
    "qber": {"overall": _RATE, "rectilinear": _RATE, "diagonal": _RATE},
    "sifted_rate": {"time_s": list, "rate_hz": list, "range_km": list},
    "pointing_error_arcsec": {"rms": (*_NUMBER, type(None)), "max": (*_NUMBER, type(None))},
    "ledger": {"seen": int, "recorded": int, "dropped": int, "missed": (int, type(None))},
    "gaps": list,
    "simulation": {
        "slot_error_fraction": _NUMBER,
        "qber": _RATE,
        "pointing_error_arcsec": {"rms": _NUMBER, "max": _NUMBER},
    },
    "provenance": dict,
}


def test_the_pass_is_flown_to_its_end(flown: FlownPass) -> None:
    assert flown.process.returncode == 0, flown.stdout + flown.stderr
    assert flown.stderr == ""
    states = [line["state"] for line in flown.lines() if "state" in line]
    assert [state for state in dict.fromkeys(states) if state in ("ARMED", "TRACK", "PARKED")] == [
        "ARMED",
        "TRACK",
        "PARKED",
    ]
    assert all(line["mode"] == "SIMULATION" for line in flown.lines() if "mode" in line)


def test_it_leaves_a_sealed_recording_and_a_report_and_nothing_half_done(flown: FlownPass) -> None:
    names = {path.name for path in flown.output.iterdir()}
    figures = {"arrival.svg", "qber.svg", "rates.svg", "sky.svg"}
    assert names == {"recording.h5", "report.json", "report.html", "programs"} | figures
    assert stat.S_IMODE(flown.sealed.stat().st_mode) == 0o400


def test_no_program_and_no_listener_outlives_it(flown: FlownPass) -> None:
    assert flown.processes() == {}
    assert len(flown.seen_ports) == 2  # the tagger's and the transmitter's
    for port in flown.seen_ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1.0)


def test_no_program_complained(flown: FlownPass) -> None:
    logs = {path.name: path.read_text() for path in (flown.output / "programs").glob("*.log")}
    assert len(logs) == 10
    assert set(logs.values()) == {""}


def test_no_process_needs_more_than_500_mb(flown: FlownPass) -> None:
    expected = {
        "run",
        "acquire",
        "analyse",
        "guard",
        "tagger_tdc2",
        "transmitter_sdp1",
        "mount_nexstar",
        "detector_spd",
    }
    assert expected <= set(flown.peak_memory_kb)
    assert max(flown.peak_memory_kb.values()) < 500_000, flown.peak_memory_kb


def test_the_report_has_the_fields_that_scripts_rely_on(flown: FlownPass) -> None:
    _assert_fields(report_of(flown.output), _INTERFACE, "report")


def _assert_fields(found: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    assert [name for name in found if name in expected] == list(expected), where
    for name, kind in expected.items():
        if isinstance(kind, dict):
            _assert_fields(found[name], kind, f"{where}.{name}")
        else:
            assert isinstance(found[name], kind), f"{where}.{name} is {found[name]!r}"
            assert isinstance(found[name], bool) == (kind is bool)


def test_the_page_needs_nothing_but_itself(flown: FlownPass) -> None:
    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href", "data", "srcset")]

    links = Links()
    links.found = []
    page = (flown.output / "report.html").read_text(encoding="utf-8")
    links.feed(page)
    assert all(link.startswith(("#", "data:")) for link in links.found), links.found
    assert "<script" not in page
    assert "@import" not in page
    assert page.count("<svg") >= 4


def test_the_numbers_of_the_pass_agree_with_the_simulated_world(flown: FlownPass) -> None:
    report = report_of(flown.output)
    assert report["mode"] == "simulation"
    assert report["complete"] is True
    assert report["gaps"] == []
    assert report["simulation"]["slot_error_fraction"] < 1e-4
    assert report["simulation"]["pointing_error_arcsec"]["rms"] < 20.0
    # Around culmination and ten times too fast, few readings' times are known well enough to tell, or none.
    if report["pointing_error_arcsec"]["readings"] > 10:
        assert report["pointing_error_arcsec"]["rms"] < 20.0
    estimate, truth = report["qber"]["overall"], report["simulation"]["qber"]
    assert abs(estimate["value"] - truth["value"]) < 3 * estimate["standard_error"]
    assert report["sifted_bits"]["signal"] == pytest.approx(truth["bits"], rel=0.01)  # light far outside the gate


def test_the_counts_of_the_report_add_up(flown: FlownPass) -> None:
    report = report_of(flown.output)
    sifted, ledger = report["sifted_bits"], report["ledger"]
    assert sifted["signal"] + sifted["decoy"] + sifted["vacuum"] == sifted["disclosed"] + sifted["undisclosed"]
    assert ledger["seen"] == ledger["recorded"] + ledger["dropped"]
    assert report["detections"] >= report["gated"] >= sum(report["answered_slots"].values()) > sifted["signal"]
    with h5py.File(flown.sealed) as file:
        assert file["photon_data/timestamps"].shape == (ledger["recorded"],)


def test_a_replay_gives_the_same_report_and_loads_no_instrument(flown: FlownPass, tmp_path: Path) -> None:
    program = (
        "import json, sys; from groundstation.cli import main; code = main(sys.argv[1:]); "
        "print(json.dumps([code, sorted({m.partition('.')[0] for m in sys.modules})]))"
    )
    words = ["replay", str(flown.sealed), "--speed", "max", "--output", str(tmp_path / "again"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert done.stderr == ""
    assert not {"drivers", "serial", "pyvisa"} & set(modules)
    assert result_bytes(tmp_path / "again") == result_bytes(flown.output)
    provenance = report_of(tmp_path / "again")["provenance"]
    assert provenance["how"] == "replay"
    assert provenance["run_id"] == report_of(flown.output)["provenance"]["run_id"]


@pytest.mark.slow
def test_a_replay_keeps_the_speed_it_is_given(flown: FlownPass, tmp_path: Path) -> None:
    assert replay(flown.sealed, tmp_path / "again", "--speed", "30") == 0
    assert result_bytes(tmp_path / "again") == result_bytes(flown.output)


def test_the_recording_opens_in_plain_h5py(flown: FlownPass) -> None:
    with h5py.File(flown.sealed, "r") as file:
        time_ps, channel = file["photon_data/timestamps"][:], file["photon_data/detectors"][:]
    assert time_ps.dtype == np.int64
    assert np.all(np.diff(time_ps) >= 0)
    pulses_per_second = np.count_nonzero(channel == 4) / ((time_ps[-1] - time_ps[0]) * 1e-12)
    assert set(np.unique(channel)) == set(range(6))
    assert np.count_nonzero(channel == 5) >= 1.0
    assert pulses_per_second < 10_100  # the beacon's 10 kHz, when the telescope sees it


def test_phconvert_accepts_the_recording(flown: FlownPass) -> None:
    with tables.open_file(str(flown.sealed)) as file:
        assert_valid_photon_hdf5(file, warnings=False, skip_measurement_specs=True, require_rootformat=True)


def test_info_says_that_every_stream_was_closed_in_order(flown: FlownPass) -> None:
    code, output, errors, _ = run_command("info", flown.sealed)
    assert (code, errors) == (0, "")
    lines = {line.split()[0]: line for line in output.splitlines()}
    for stream in ("tags", "telemetry", "events", "answers", "truth"):
        assert lines[stream].endswith("closed in order")
        assert "NOT" not in lines[stream]


def test_its_last_word_is_the_fingerprint_by_which_the_archive_is_known(flown: FlownPass) -> None:
    (said,) = [line for line in flown.lines() if "fingerprint" in line]
    assert said["message"].startswith(f"Fingerprint {said['fingerprint']} ")
    code, output, errors, _ = run_command("verify", flown.sealed, "--fingerprint", said["fingerprint"])
    assert (code, errors) == (0, "")
    assert "it is the recording whose fingerprint was written down" in output


def test_an_output_directory_is_not_used_twice(flown: FlownPass) -> None:
    before = {path: path.stat().st_mtime_ns for path in flown.output.rglob("*")}
    code, _, errors, left = run_command("run", "--config", flown.config, "--output", flown.output)
    assert code == 2
    assert errors.count("\n") == 1
    assert "choose another --output" in errors
    assert not left
    assert {path: path.stat().st_mtime_ns for path in flown.output.rglob("*")} == before
