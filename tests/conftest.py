"""Settings for all tests, and what becomes of a test whose witness is not there.

A witness is a program or a library of others that speaks with our drivers or simulators; its tests are marked
`counterpart("name", ...)`. Without it they are skipped with a sentence that says what to install. In CI they fail with
that sentence: GROUNDSTATION_WITNESSES=required; where nobody may install Debian's packages, =libraries, and only
those fail whose witness comes by pip.
"""

import importlib.util
import os
import shutil
import time
from functools import partial

import pytest
from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

#: Program -> the package of Debian that has it.
PROGRAMS = {
    "gpsd": "gpsd",
    "indi_celestron_gps": "indi-bin",
    "indi_ioptronv3_telescope": "indi-bin",
    "indi_lx200_10micron": "indi-bin",
    "rotctl": "libhamlib-utils",
    "rotctld": "libhamlib-utils",
}
#: Module -> the package of the Python package index that has it; all are in the extra `counterpart`.
LIBRARIES = {
    "S15lib": "S15lib",
    "Swabian": "Swabian-TimeTagger",
    "alpaca": "alpyca",
    "pwi": "pwi",
    "pyvisa_py": "pyvisa-py",
    "snAPI": "snAPI",
    "thorlabs_apt_protocol": "thorlabs-apt-protocol",
}


def pytest_configure() -> None:
    if _required() not in ("", "libraries", "required"):
        raise pytest.UsageError('GROUNDSTATION_WITNESSES can be "required", "libraries" or not be set')


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Programs of others take their time, so what needs them is slow."""
    for item in items:
        if item.get_closest_marker("counterpart"):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = list(item.iter_markers("counterpart"))
    witnesses = [name for mark in marks for name in mark.args]
    if marks and not witnesses:
        pytest.fail('the mark counterpart names no witness; write counterpart("rotctl"), say', pytrace=False)
    for name in witnesses:
        if not _is_there(name):
            complain = partial(pytest.fail, pytrace=False) if _required() in ("required", _kind(name)) else pytest.skip
            complain(f"{name} is not installed: {_how_to_install(name)}")


def _required() -> str:
    return os.environ.get("GROUNDSTATION_WITNESSES", "")


def _kind(witness: str) -> str:
    return "libraries" if witness in LIBRARIES else "programs"


def _is_there(witness: str) -> bool:
    if witness in LIBRARIES:
        return importlib.util.find_spec(witness) is not None
    # Daemons live in /usr/sbin, which is not on the path of every user.
    return shutil.which(witness, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


def _how_to_install(witness: str) -> str:
    if witness in LIBRARIES:
        return f"pip install {LIBRARIES[witness]}"
    return f"apt-get install --no-install-recommends {PROGRAMS[witness]}"


@pytest.fixture
def fast_clock():
    """The text of a clock whose world runs so many times faster than the wall."""
    return lambda speed, utc_ns=1_482_166_140_000_000_000: f"{utc_ns}:{time.monotonic_ns()}:{float(speed)}"
