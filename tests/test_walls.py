"""The walls of the architecture stand: who imports whom, and who may read the time."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_SOURCES = sorted(path for top in ("groundstation", "drivers") for path in (_ROOT / top).rglob("*.py"))
_TIME = {"time", "datetime"}
#: These handle dates, or ask how fine a clock is, and read none.
_DATES_ONLY = {
    "groundstation/passes/elements.py",
    "groundstation/cli/doctor.py",
    "drivers/simulators/mount_nexstar.py",
    "drivers/simulators/mount_alpaca.py",
    "drivers/simulators/nanowires_websq.py",
    "drivers/simulators/time_base_jackson.py",
    "drivers/simulators/time_base_nmea.py",
    "drivers/pwi4.py",
    "drivers/time_base_jackson.py",
    "drivers/time_base_nmea.py",
}


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_contracts_between_the_packages_are_kept() -> None:
    beside = Path(sys.executable).with_name("lint-imports")
    program = str(beside) if beside.exists() else shutil.which("lint-imports")
    if program is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([program, "--no-cache"], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_simulators_share_no_code_with_drivers() -> None:
    simulators = [path for path in _SOURCES if path.parent == _ROOT / "drivers" / "simulators"]
    assert len(simulators) >= 5
    for path in simulators:
        ours = [module for module in imported_modules(path) if module.partition(".")[0] == "drivers"]
        assert all(module.startswith("drivers.simulators.") for module in ours), f"{path} imports {ours}"


def test_one_file_reads_the_clock_of_the_system() -> None:
    readers = {
        str(path.relative_to(_ROOT))
        for path in _SOURCES
        if _TIME & {module.partition(".")[0] for module in imported_modules(path)}
    }
    assert readers - _DATES_ONLY == {"groundstation/clock.py"}


@pytest.mark.parametrize("name", sorted(_DATES_ONLY))
def test_files_that_handle_dates_read_no_clock(name: str) -> None:
    readings = {"time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "sleep"}
    readings |= {"now", "utcnow", "today", "gmtime", "localtime"}
    tree = ast.parse((_ROOT / name).read_text(encoding="utf-8"))
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    assert not called & readings
