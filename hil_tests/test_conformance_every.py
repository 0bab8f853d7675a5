"""What every driver must do, whatever its capability and model."""

import contextlib
import pkgutil
import statistics
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import drivers.simulators
from groundstation.errors import BadInput, GroundStationError

SIMULATORS = Path(__file__).with_name("simulators.toml")
THREADS, QUESTIONS = 2, 20
#: A question that needs an answer of its own, by capability; the drivers without one only listen.
QUESTION: dict[str, Callable[[Any], object]] = {
    "mount": lambda device: device.read_position(),
    "detector": lambda device: device.temperature_setpoint_c(),
    "nanowires": lambda device: device.bias_ua(1),
    "supply": lambda device: device.voltage_v(device.outputs[0]),
    "rotator": lambda device: device.angle_deg(),
    "dome": lambda device: device.azimuth_deg(),
    "weather": lambda device: device.read(),
}


@pytest.fixture(scope="module")
def connected(device) -> Iterator[Any]:
    """One connection for the suite."""
    with contextlib.closing(device.connect()) as instrument:
        yield instrument


def test_it_says_what_it_is_and_always_the_same(
    connected: Any, device, measured: Callable[[str, object], None]
) -> None:
    if device.capability == "transmitter":
        assert connected.terms() == connected.terms()
        measured("identity", connected.terms().transmitter)
        return
    identity = connected.identify()
    assert identity.model
    assert connected.identify() == identity
    measured("identity", " ".join(filter(None, (identity.model, identity.serial))))
    measured("firmware", identity.firmware or "not told")


def test_it_answers_within_its_deadline(connected: Any, device, measured: Callable[[str, object], None]) -> None:
    ask = QUESTION.get(device.capability)
    if ask is None:
        pytest.skip(f"a {device.capability} is listened to, not asked")
    spans_s = []
    for _ in range(QUESTIONS):
        began_s = time.monotonic()
        ask(connected)
        spans_s.append(time.monotonic() - began_s)
    assert max(spans_s) < 5.0
    measured("latency", f"{1e3 * statistics.median(spans_s):.1f} ms (median), {1e3 * max(spans_s):.1f} ms (worst)")


def test_two_threads_never_get_each_others_answers(connected: Any, device) -> None:
    """One thread asks who it is, the other one for a value: a crossed answer is no answer to either."""
    ask = QUESTION.get(device.capability)
    if ask is None:
        pytest.skip(f"a {device.capability} is listened to, not asked")
    identity, troubles = connected.identify(), []

    def repeat(question: Callable[[], object]) -> None:
        try:
            for _ in range(QUESTIONS):
                question()
        except Exception as error:  # to be shown in the test's own thread
            troubles.append(error)

    def who() -> None:
        assert connected.identify() == identity

    threads = [threading.Thread(target=repeat, args=(question,)) for question in (who, lambda: ask(connected))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads)
    assert troubles == []


def test_an_unknown_setting_is_refused_before_anything_is_opened(device) -> None:
    with pytest.raises(BadInput, match="has no key"):
        device.connect(no_such_setting=1)


def test_every_simulator_stands_in_the_list_of_those_that_are_tested() -> None:
    """So that a new instrument cannot be forgotten."""
    listed = {table["driver"] for table in tomllib.loads(SIMULATORS.read_text())["instruments"].values()}
    modules = {module.name for module in pkgutil.iter_modules(drivers.__path__)}
    assert {module.name for module in pkgutil.iter_modules(drivers.simulators.__path__)} & modules == listed


def test_closing_twice_is_closing_once_and_it_can_be_connected_again(connected: Any, device) -> None:
    connected.close()
    connected.close()
    ask = QUESTION.get(device.capability)
    if ask is not None:
        with pytest.raises(GroundStationError, match="closed"):
            ask(connected)
    with contextlib.closing(device.connect()):
        pass
