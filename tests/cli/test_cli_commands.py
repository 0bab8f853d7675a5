"""The small commands: what they print and how they end."""

import json
import socket
from pathlib import Path

import pytest
from flights import Console, edited, instrument, station_text

from groundstation import __version__
from groundstation.cli.doctor import _reach
from groundstation.errors import BadInput

_COMMANDS = ["run", "replay", "info", "passes", "doctor", "instruments", "simulate"]


@pytest.fixture
def station(tmp_path: Path) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(station_text(), encoding="utf-8")
    return path


def test_the_version_is_printed(console: Console) -> None:
    assert console.run("--version") == (0, f"groundstation {__version__}\n", "")


def test_help_names_the_commands_of_people_and_not_those_of_programs(console: Console) -> None:
    code, output, errors = console.run("--help")
    assert (code, errors) == (0, "")
    commands = [line.split()[0] for line in output.splitlines() if line.startswith("    ") and line[4] != " "]
    assert set(_COMMANDS) <= set(commands)
    assert not {"analyse", "guard"} & set(commands)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_explains_its_options(console: Console, command: str) -> None:
    code, output, errors = console.run(command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith(f"usage: groundstation {command} ")


def test_passes_lists_the_published_pass(console: Console, station: Path) -> None:
    # Micius over Xinglong, 19 December 2016: culmination 16:52:13.5Z at 47.83 deg, 645.37 km, 272.5 s within 1200 km.
    station.write_text(edited(station_text(), "max_range_km", "1200.0"), encoding="utf-8")
    begin = ("--from", "2016-12-19T16:00:00Z", "--hours", "2")
    code, output, errors = console.run("passes", "--config", station, *begin, "--json")
    assert (code, errors) == (0, "")
    (line,) = output.splitlines()
    found = json.loads(line)
    assert found["culmination_utc"] in ("2016-12-19T16:52:13Z", "2016-12-19T16:52:14Z")
    assert found["max_elevation_deg"] == pytest.approx(47.83, abs=0.01)
    assert found["min_range_km"] == pytest.approx(645.37, abs=0.01)
    assert found["window_s"] == pytest.approx(272.5, abs=0.1)


def test_passes_are_a_table_for_people(console: Console, station: Path) -> None:
    code, output, _ = console.run("passes", "--config", station, "--from", "2016-12-19T00:00:00Z", "--hours", "24")
    assert code == 0
    title, heading, *rows = output.splitlines()
    assert title.startswith("Micius over Xinglong, 24 h from 2016-12-19T00:00:00Z")
    assert "culmination" in heading
    assert 2 <= len(rows) <= 6
    assert any("2016-12-19T16:52:1" in row for row in rows)


def test_passes_warn_of_old_elements(console: Console, station: Path) -> None:
    _, output, _ = console.run("passes", "--config", station, "--from", "2017-01-19T00:00:00Z")
    assert "renew it" in output.splitlines()[-1]


def test_passes_say_when_there_is_none(console: Console, station: Path) -> None:
    code, output, _ = console.run("passes", "--config", station, "--from", "2016-12-19T17:10:00Z", "--hours", "0.5")
    assert code == 0
    assert output.rstrip().endswith("no pass above 10 deg")


@pytest.mark.parametrize(
    "options", [("--hours", "0"), ("--hours", "1e9"), ("--from", "yesterday"), ("--from", "2016-12-19T16:00:00")]
)
def test_passes_refuse_a_time_that_is_none(console: Console, station: Path, options: tuple[str, str]) -> None:
    code, _, errors = console.run("passes", "--config", station, *options)
    assert code == 2
    assert errors.count("\n") == 1
    assert options[1].removesuffix("e9") in errors


def test_doctor_finds_the_simulated_station_well(console: Console, station: Path, tmp_path: Path) -> None:
    code, output, errors = console.run("doctor", "--config", station, "--output", tmp_path)
    assert (code, errors) == (0, "")
    checks = {line[6:].split("  ")[0].strip(): line for line in output.splitlines()}
    assert {"station file", "libraries", "next pass", "disk", "clock", "tagger", "mount", "transmitter"} <= set(checks)
    assert all(line.startswith("ok ") for line in checks.values())
    assert "2016-12-19T16:52:03Z" in checks["next pass"]
    assert "simulated" in checks["mount"]


def test_doctor_names_the_addresses_that_do_not_exist(console: Console, station: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    text = instrument(station_text(), "detector_h", f"serial:{tmp_path / 'ttyUSB0'}")
    text = instrument(text, "tagger", nobody)
    station.write_text(text, encoding="utf-8")
    code, output, errors = console.run("doctor", "--config", station, "--output", tmp_path)
    assert (code, errors) == (1, "")
    failed = [line for line in output.splitlines() if line.startswith("FAIL ")]
    assert len(failed) == 2
    assert f"{nobody} does not answer" in failed[0]
    assert f"{tmp_path / 'ttyUSB0'} does not exist" in failed[1]


def test_doctor_names_an_output_that_is_not_there(console: Console, station: Path, tmp_path: Path) -> None:
    code, output, _ = console.run("doctor", "--config", station, "--output", tmp_path / "absent")
    assert code == 1
    (failed,) = (line for line in output.splitlines() if line.startswith("FAIL "))
    assert str(tmp_path / "absent") in failed


@pytest.mark.parametrize(
    ("driver", "address", "sentence"),
    [
        ("detector_spd", "serial://{folder}/ttyUSB0", "ttyUSB0 does not exist"),
        ("detector_spd", "tcp://127.0.0.1:{port}", "does not answer"),
        ("detector_spd", "wirelog://{folder}/wire.jsonl", "cannot be read"),
        ("detector_spd", "http://127.0.0.1:{port}", "its kinds are serial, tcp, wirelog"),
        ("mount_nexstar", "tcp://127.0.0.1:{port}", "which is for a mount, not for a detector"),
        ("settings", "tcp://127.0.0.1:{port}", "which is no driver"),
    ],
)
def test_doctor_says_what_is_wrong_with_an_instrument(
    console: Console, station: Path, tmp_path: Path, driver: str, address: str, sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address.format(folder=tmp_path, port=server.getsockname()[1])
    text = instrument(station_text(), "detector_h", address)
    table = '[instruments.detector_h]\ndriver = "'
    station.write_text(text.replace(f"{table}detector_spd", f"{table}{driver}"), encoding="utf-8")
    code, output, _ = console.run("doctor", "--config", station, "--output", tmp_path)
    assert code == 1
    (failed,) = (line for line in output.splitlines() if line.startswith("FAIL "))
    assert "detector_h" in failed
    assert sentence in failed


def test_doctor_looks_at_every_kind_of_address(tmp_path: Path) -> None:
    line = tmp_path / "line"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        log = tmp_path / "wire.jsonl"
        for path in (line, log):
            path.touch()
        kinds = ["tcp://{0}:{1}", "http://{0}:{1}", "zmq://{0}:{1}", "visa:TCPIP0::{0}::{1}::SOCKET"]
        kinds += [f"{scheme}{{2}}" for scheme in ("serial:", "serial://", "visa://ASRL", "wirelog:", "wirelog://")]
        kinds = [kind.format("127.0.0.1", port, line) for kind in kinds]
        for address in (*kinds, "program:sh -c true", "program://sh", "visa://USB0::1::2::INSTR", "swabian:12"):
            _reach(address)
    line.unlink()
    for address in (*kinds, "program:no-such-reader -a 1"):
        with pytest.raises((OSError, BadInput)):
            _reach(address)


def test_doctor_checks_further_instruments(console: Console, station: Path, tmp_path: Path) -> None:
    entry = f'[instruments.supply_roof]\ndriver = "supply_scpi"\naddress = "serial://{tmp_path}/absent"\n\n[recording]'
    station.write_text(station_text().replace("[recording]", entry), encoding="utf-8")
    code, output, _ = console.run("doctor", "--config", station, "--output", tmp_path)
    assert code == 1
    assert [line.split()[1] for line in output.splitlines() if line.startswith("FAIL")] == ["supply_roof"]
