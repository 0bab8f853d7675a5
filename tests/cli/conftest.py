"""One short pass that many tests look at, and passes for the drills."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flights import Console, FlownPass, station_text


@pytest.fixture(scope="session")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlownPass]:
    """A short pass that was flown without any disturbance, at the speed of the demonstration."""
    flight = FlownPass(tmp_path_factory.mktemp("flown"), station_text(), speed=10.0)
    try:
        flight.watch_until_end()
        yield flight
    finally:
        flight.clean_up()


@pytest.fixture(scope="session")
def console() -> Iterator[Console]:
    """Runs commands that start no programs, quickly."""
    running = Console()
    yield running
    running.close()


@pytest.fixture
def fly(tmp_path: Path) -> Iterator[Callable[..., FlownPass]]:
    """Starts a pass; what is left of it at the end of the test is killed."""
    flights: list[FlownPass] = []

    def start(station: str = "", *options: object, **more: object) -> FlownPass:
        folder = tmp_path / f"flight-{len(flights)}"
        folder.mkdir()
        flights.append(FlownPass(folder, station or station_text(), *options, **more))  # type: ignore[arg-type]
        return flights[-1]

    yield start
    for flight in flights:
        flight.clean_up()
