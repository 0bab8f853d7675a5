"""Writing the report: whole files, numbers first, one clear sentence when it cannot be done."""

import json

import pytest
from report_samples import empty_result, plausible_result

from groundstation.errors import GroundStationError
from groundstation.report.write import write_report

FILES = ["arrival.svg", "qber.svg", "rates.svg", "report.html", "report.json", "sky.svg"]


def test_a_report_is_six_files_in_a_directory_made_for_it(tmp_path):
    write_report(plausible_result(), tmp_path / "season" / "pass")
    assert sorted(path.name for path in (tmp_path / "season" / "pass").iterdir()) == FILES


def test_live_and_replay_differ_in_provenance_only(tmp_path):
    write_report(plausible_result(provenance={"command": "run"}), tmp_path / "live")
    write_report(plausible_result(provenance={"command": "replay"}), tmp_path / "replay")
    live, replay = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("live", "replay"))
    assert live.pop("provenance") != replay.pop("provenance")
    assert live == replay
    for name in FILES:
        if name.endswith(".svg"):
            assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "replay" / name).read_bytes()


def test_an_older_report_is_replaced(tmp_path):
    (tmp_path / "report.json").write_text("old")
    write_report(empty_result(), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["mode"] == "live"


def test_a_report_that_cannot_be_written_says_where_and_what_to_do(tmp_path):
    (tmp_path / "taken").write_text("a file where the directory should be")
    with pytest.raises(GroundStationError, match=r"taken.*replay it"):
        write_report(plausible_result(), tmp_path / "taken")


def test_a_figure_that_cannot_be_written_leaves_the_numbers_and_no_half_file(tmp_path):
    (tmp_path / "rates.svg" / "in the way").mkdir(parents=True)
    with pytest.raises(GroundStationError, match=r"rates\.svg"):
        write_report(plausible_result(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.svg", "report.json"]
