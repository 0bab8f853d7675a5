"""The orbit against a published table, against skyfield and against astropy's topocentric path."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import erfa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sgp4.api import WGS84

from groundstation.clock import NS_PER_S, parse_utc
from groundstation.errors import BadInput
from groundstation.passes import orbit as orbit_module
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import SPEED_OF_LIGHT_KM_S, EarthOrientation, Look, Orbit, Site
from groundstation.passes.sun import sun_direction, sun_elevation_deg, sunlit
from groundstation.passes.tracking import pointing_error_arcsec

RISE, SET = parse_utc("2016-12-19T16:48:44Z"), parse_utc("2016-12-19T16:55:40Z")
PASS_NS = RISE + np.arange(0, (SET - RISE) // NS_PER_S + 1, dtype=np.int64) * NS_PER_S
TAI_MINUS_UTC_S = 36.0  # from July 2015 to December 2016


def differences(one: Look, other: Look) -> tuple[float, float]:
    """Largest separation in arcseconds and largest difference of range in metres."""
    separation = pointing_error_arcsec(one.azimuth_deg, one.elevation_deg, other.azimuth_deg, other.elevation_deg)
    return float(separation.max()), float(np.abs(one.range_km - other.range_km).max() * 1000.0)


@pytest.mark.parametrize(
    ("utc", "azimuth_deg", "elevation_deg", "range_km"),
    [
        ("2016-12-19T16:48:44Z", 0.2399, 10.0262, 1683.828),
        ("2016-12-19T16:52:13Z", 286.2199, 47.8317, 645.396),
        ("2016-12-19T16:55:41Z", 210.9884, 9.9890, 1666.534),
    ],
)
def test_the_reference_pass_is_where_two_other_programs_saw_it(
    orbit: Orbit, utc: str, azimuth_deg: float, elevation_deg: float, range_km: float
) -> None:
    look = orbit.geometric(parse_utc(utc))
    assert look.azimuth_deg[0] == pytest.approx(azimuth_deg, abs=0.6e-4)
    assert look.elevation_deg[0] == pytest.approx(elevation_deg, abs=0.6e-4)
    assert look.range_km[0] == pytest.approx(range_km, abs=0.6e-3)


@pytest.fixture(scope="module")
def skyfield_pass(micius: ElementSet, xinglong: Site, earth_orientation: EarthOrientation) -> Any:
    """(satellite, station, times) of skyfield, given our Earth orientation."""
    from skyfield.api import EarthSatellite, load, wgs84

    eop = earth_orientation
    scale = load.timescale(delta_t=32.184 + TAI_MINUS_UTC_S - eop.ut1_minus_utc_s, builtin=True)
    always = np.array([0.0, 1e7])
    scale.polar_motion_table = (always, np.full(2, eop.x_arcsec), np.full(2, eop.y_arcsec))
    satellite = EarthSatellite(micius.line1, micius.line2, micius.name, scale)
    station = wgs84.latlon(xinglong.latitude_deg, xinglong.longitude_deg, xinglong.altitude_m)
    seconds = (PASS_NS - parse_utc("2016-12-19T00:00:00Z")) / NS_PER_S
    return satellite, station, scale, scale.utc(2016, 12, 19, 0, 0, seconds)


def test_skyfield_agrees_within_a_twentieth_of_an_arcsecond(orbit: Orbit, skyfield_pass: Any) -> None:
    satellite, station, _, times = skyfield_pass
    elevation, azimuth, distance = (satellite - station).at(times).altaz()
    arcsec, metres = differences(orbit.geometric(PASS_NS), Look(azimuth.degrees, elevation.degrees, distance.km))
    assert arcsec < 0.05
    assert metres < 1.0


def test_received_light_agrees_with_skyfield_positions_and_erfa_aberration(orbit: Orbit, skyfield_pass: Any) -> None:
    """Light time in GCRS from skyfield's positions, aberration by erfa's relativistic formula."""
    satellite, station, scale, times = skyfield_pass
    received = orbit.received(PASS_NS)
    flight_s = received.time_of_flight_s
    emission = scale.tt_jd(times.whole, times.tt_fraction - flight_s / 86400.0)
    at_station = station.at(times)
    line_km = satellite.at(emission).position.km - at_station.position.km
    np.testing.assert_allclose(np.linalg.norm(line_km, axis=0) / SPEED_OF_LIGHT_KM_S, flight_s, atol=2e-12)

    beta = at_station.velocity.km_per_s / SPEED_OF_LIGHT_KM_S
    natural = (line_km / np.linalg.norm(line_km, axis=0)).T
    apparent = erfa.ab(natural, beta.T, 1.0, np.sqrt(1.0 - (beta**2).sum(axis=0)))
    north, east, up = np.einsum("ijt,tj->it", station.rotation_at(times), apparent)
    azimuth, elevation = np.degrees(np.arctan2(east, north)), np.degrees(np.arcsin(up))
    arcsec = pointing_error_arcsec(received.azimuth_deg, received.elevation_deg, azimuth, elevation)
    assert arcsec.max() < 0.005


@pytest.fixture
def offline_astropy() -> Iterator[Any]:
    """astropy with its bundled Earth orientation only: it takes both settings to stay off the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy warns of at its import is not ours to fix
        from astropy.utils import iers
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        yield iers


def test_astropy_agrees_within_a_twentieth_of_an_arcsecond(orbit: Orbit, offline_astropy: Any) -> None:
    from astropy import units
    from astropy.coordinates import ITRS, TEME, AltAz, CartesianRepresentation, EarthLocation
    from astropy.time import Time

    start = Time("2016-12-19T16:48:44", scale="utc")
    times = start + (PASS_NS - RISE) / NS_PER_S * units.s
    site = orbit.site
    place = EarthLocation.from_geodetic(site.longitude_deg, site.latitude_deg, site.altitude_m)
    teme = TEME(CartesianRepresentation(orbit.inertial_km(PASS_NS) * units.km), obstime=times)
    line = teme.transform_to(ITRS(obstime=times)).cartesian - place.get_itrs(times).cartesian
    seen = ITRS(line, obstime=times, location=place).transform_to(AltAz(obstime=times, location=place))
    theirs = Look(seen.az.deg, seen.alt.deg, seen.distance.to_value(units.km))
    arcsec, metres = differences(orbit.geometric(PASS_NS), theirs)
    assert arcsec < 0.05
    assert metres < 1.0


def test_the_earth_orientation_of_the_reference_pass_is_the_one_of_iers(
    earth_orientation: EarthOrientation, offline_astropy: Any
) -> None:
    from astropy.time import Time

    table = offline_astropy.IERS_Auto.open()
    culmination = Time("2016-12-19T16:52:13.5", scale="utc")
    assert table.ut1_utc(culmination).value == pytest.approx(earth_orientation.ut1_minus_utc_s, abs=1e-6)
    x, y = table.pm_xy(culmination)
    assert x.value == pytest.approx(earth_orientation.x_arcsec, abs=1e-5)
    assert y.value == pytest.approx(earth_orientation.y_arcsec, abs=1e-5)


def test_ignoring_ut1_costs_what_it_is_known_to_cost(orbit: Orbit) -> None:
    careless = replace(orbit, earth_orientation=replace(orbit.earth_orientation, ut1_minus_utc_s=0.0))
    arcsec, metres = differences(orbit.geometric(PASS_NS), careless.geometric(PASS_NS))
    assert arcsec == pytest.approx(38.0, abs=1.0)
    assert metres == pytest.approx(99.0, abs=1.0)


def test_ignoring_polar_motion_costs_what_it_is_known_to_cost(orbit: Orbit) -> None:
    eop = replace(orbit.earth_orientation, x_arcsec=0.0, y_arcsec=0.0)
    arcsec, metres = differences(orbit.geometric(PASS_NS), replace(orbit, earth_orientation=eop).geometric(PASS_NS))
    assert arcsec == pytest.approx(3.0, abs=0.1)
    assert metres == pytest.approx(8.7, abs=0.1)


def test_the_gravity_constants_are_those_of_element_sets(orbit: Orbit, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = orbit.geometric(PASS_NS)
    monkeypatch.setattr(orbit_module, "WGS72", WGS84)
    arcsec, metres = differences(ours, replace(orbit).geometric(PASS_NS))
    assert arcsec == pytest.approx(18.0, abs=1.0)
    assert metres == pytest.approx(51.0, abs=1.0)


@given(st.integers(0, SET - RISE))
def test_light_emitted_is_light_received(orbit: Orbit, since_rise_ns: int) -> None:
    emission_ns = RISE + since_rise_ns
    flight_s = float(orbit.emitted(emission_ns)[0])
    # Reception falls between two nanoseconds; both of them bracket it.
    before = emission_ns + int(flight_s * 1e9)
    rest_s = flight_s - (before - emission_ns) / 1e9
    around = orbit.received(np.array([before, before + 1])).time_of_flight_s
    assert around[0] + (around[1] - around[0]) * rest_s * 1e9 == pytest.approx(flight_s, abs=1e-12)


def test_time_is_not_quantised(orbit: Orbit) -> None:
    """Range rate is below 8 km/s: in steps of 1 ns the range changes by less than 8 micrometres."""
    times = PASS_NS[30] + np.arange(1000, dtype=np.int64)
    steps_km = np.diff(orbit.geometric(times).range_km)
    assert np.abs(steps_km).max() < 2.5e-8
    assert steps_km.sum() == pytest.approx(-7.0e-9 * 999, rel=0.1)


def test_a_satellite_that_is_early_is_seen_where_it_would_be_later(orbit: Orbit) -> None:
    early = replace(orbit, time_error_s=0.25)
    np.testing.assert_allclose(
        early.inertial_km(PASS_NS), orbit.inertial_km(PASS_NS + NS_PER_S // 4), rtol=0, atol=1e-8
    )


def test_a_whole_pass_at_ten_hertz_takes_milliseconds(orbit: Orbit) -> None:
    times = RISE + np.arange(3000, dtype=np.int64) * 100_000_000
    orbit.received(times)
    best_s = min(_seconds(orbit, times) for _ in range(5))
    assert best_s < 0.03


def _seconds(orbit: Orbit, times: NDArray[np.int64]) -> float:
    began = time.perf_counter()
    orbit.received(times)
    return time.perf_counter() - began


def test_an_orbit_that_has_decayed_is_bad_input(orbit: Orbit) -> None:
    decaying = ElementSet.parse(
        "MICIUS",
        "1 41731U 16051A   25265.33409832  .00080539  00000-0  89175-3 0  9999",
        "2 41731  97.2945 187.6583 0004596  12.3887 347.7483 15.62724089508176",
    )
    with pytest.raises(BadInput, match=r'"MICIUS" gives no position at 2026-09-22T08:00:00.*decayed'):
        replace(orbit, elements=decaying).geometric(parse_utc("2026-09-22T08:00:00Z"))


def test_the_sun_is_where_astropy_sees_it(offline_astropy: Any) -> None:
    from astropy.coordinates import TETE, get_sun
    from astropy.time import Time

    days = np.arange(0, 3650, 73)
    times = Time(57388.0 + days, format="mjd", scale="utc")  # from 2016-01-01
    sun = get_sun(times).transform_to(TETE(obstime=times))
    theirs = sun.cartesian.xyz / sun.cartesian.norm()
    ours = sun_direction(parse_utc("2016-01-01T00:00:00Z") + days.astype(np.int64) * 86_400 * NS_PER_S)
    assert np.degrees(np.linalg.norm(ours - theirs.value, axis=0)).max() < 0.02


def test_the_reference_pass_is_dark(orbit: Orbit) -> None:
    assert sun_elevation_deg(orbit.site, PASS_NS).max() < -70.0
    culmination = sun_elevation_deg(orbit.site, parse_utc("2016-12-19T16:52:13Z"))
    assert culmination[0] == pytest.approx(-70.6, abs=0.06)
    assert not sunlit(orbit, PASS_NS).any()
