"""The conformance suites as whoever has the hardware runs them: a station file, a limit, and a report at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def station(tmp_path: Path):
    """A station file whose supply is hardware, as far as the suites can see."""
    command = [sys.executable, "-m", "drivers.simulators.supply_scpi", "--supervised", "--linger", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as supply:
        assert supply.stdin
        assert supply.stdout
        ready = json.loads(supply.stdout.readline())
        path = tmp_path / "mine.toml"
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in ready.get("settings", {}).items())
        path.write_text(
            f'[instruments.bias]\ndriver = "supply_scpi"\naddress = "{ready["address"]}"\nsettings = {{ {settings} }}\n'
        )
        yield path
        supply.stdin.close()


def run_suites(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "hil_tests", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_hardware_is_named_measured_and_not_disturbed_more_than_allowed(station: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run_suites("--station", station, "--hil", "supply", "--hil-report", path, "-k", "bias")
    assert done.returncode == 0, done.stdout
    bias = json.loads(path.read_text())["bias"]
    assert (bias["driver"], bias["kind"]) == ("supply_scpi", "hardware")
    assert {"identity", "firmware", "latency"} <= set(bias["measured"])
    assert "an output that does not exist is refused" in bias["tests"]["passed"]
    refused = "disturbs at level 2, allowed is 0 (--max-disturb)"
    assert f"an output is switched on and off ({refused})" in bias["tests"]["skipped"]
    shown = done.stdout.partition(" devices ")[2]
    assert "bias (supply_scpi, hardware): " in shown
    assert f"    skipped: an output is switched on and off ({refused})\n" in shown
    assert f"    latency: {bias['measured']['latency']}\n" in shown


def test_what_is_allowed_is_tested(station: Path) -> None:
    done = run_suites("--station", station, "--max-disturb", "2", "-k", "bias and out_of_range")
    assert done.returncode == 0, done.stdout
    assert "    passed: a voltage out of range is refused and changes nothing (-1000000.0)\n" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--hil", "mount"), "has no real mount"), (("--hil", "bias", "--station", "no.toml"), "no.toml cannot be read")],
)
def test_a_wrong_option_ends_the_run_before_the_first_test(station: Path, options: tuple[str, ...], told: str) -> None:
    done = run_suites("--station", station, *options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert told in done.stderr
