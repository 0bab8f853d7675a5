"""What all witnesses share: simulators to speak with, and what must be installed for them.

Without a program of others its tests are skipped, each with what to install. Where GROUNDSTATION_WITNESSES=required,
as in CI, that is an error instead.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

PROGRAMS = {"indi_celestron_gps": "indi-bin", "rotctl": "libhamlib-utils", "gpsdecode": "gpsd-clients"}
MODULES = ("alpaca", "pwi", "pyvisa_py", "S15lib", "snAPI", "Swabian.TimeTagger", "thorlabs_apt_protocol")


def _there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


missing = [f"{program} (Debian: {package})" for program, package in PROGRAMS.items() if not shutil.which(program)]
missing += [f"{module} (pip install '.[counterpart]')" for module in MODULES if not _there(module)]
if missing and os.environ.get("GROUNDSTATION_WITNESSES") == "required":
    raise pytest.UsageError(f"GROUNDSTATION_WITNESSES=required, but these are not installed: {', '.join(missing)}")


@pytest.fixture
def start():
    """`start(module, *options)`: the address of a simulator that ends with the test."""
    programs = []

    def run(module, *options):
        command = [sys.executable, "-m", f"drivers.simulators.{module}", *options]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return json.loads(programs[-1].stdout.readline())["address"]

    yield run
    for program in programs:
        program.terminate()
        program.communicate(timeout=10)
