"""The published pass that every test here measures against: Micius over Xinglong, 19 December 2016."""

import pytest

from groundstation.clock import NS_PER_S, parse_utc
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.passes.prediction import PredictedPath, predict_path


@pytest.fixture(scope="session")
def micius() -> ElementSet:
    return ElementSet.parse(
        "MICIUS",
        "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
        "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
    )


@pytest.fixture(scope="session")
def xinglong() -> Site:
    return Site("Xinglong", 40.39587, 117.57746, 890.0)


@pytest.fixture(scope="session")
def earth_orientation() -> EarthOrientation:
    """IERS Bulletin B, interpolated to the culmination."""
    return EarthOrientation(-0.3961798, 0.107025, 0.265979, "2016-12-19", "IERS finals2000A, Bulletin B")


@pytest.fixture(scope="session")
def orbit(micius: ElementSet, xinglong: Site, earth_orientation: EarthOrientation) -> Orbit:
    return Orbit(micius, xinglong, earth_orientation)


@pytest.fixture(scope="session")
def reference_path(orbit: Orbit) -> PredictedPath:
    """From rise to set at 10 degrees."""
    return predict_path(orbit, parse_utc("2016-12-19T16:48:44Z"), parse_utc("2016-12-19T16:55:41Z"))


@pytest.fixture(scope="session")
def high_path(orbit: Orbit) -> PredictedPath:
    """The same satellite two months later, 84.2 degrees high."""
    start = parse_utc("2017-02-19T16:26:13Z")
    return predict_path(orbit, start, start + 444 * NS_PER_S)
