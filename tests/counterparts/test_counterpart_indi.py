"""Debian's INDI drivers, which know nothing of us, drive our simulated mounts over pseudo-terminals.

What they cannot witness: they speak of right ascension and declination only (so azimuth, elevation and the rates of a
satellite are proven by other tests), they use no trajectory of points and no live offsets of the 10Micron, and for
the NexStar only the fixed rates. Their clock is the machine's, whatever the world's is.
"""

import numpy as np
import pytest
from indi import driving

from groundstation.clock import NS_PER_S, clock_from_text
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.passes.prediction import find_passes

SITE = Site("Xinglong", 40.39587, 117.57746, 890.0)
MICIUS = ElementSet.parse(
    "MICIUS",
    "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
    "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
)
EVENING_NS = 1_482_163_200 * NS_PER_S  # 2016-12-19T16:00:00Z


def is_at(hours, degrees, tolerance_deg):
    """Whether the coordinates are these; hours wrap at 24."""

    def good(elements):
        off_deg = (float(elements["RA"]) - hours + 12.0) % 24.0 * 15.0 - 180.0
        return abs(off_deg) < tolerance_deg and abs(float(elements["DEC"]) - degrees) < tolerance_deg

    return good


@pytest.mark.counterpart("indi_celestron_gps")
def test_the_celestron_driver_reads_slews_moves_and_aborts_our_nexstar(start_serial, fast_clock, tmp_path):
    path = start_serial("mount_nexstar", "--clock", fast_clock(20, EVENING_NS))
    with driving("indi_celestron_gps", "Celestron GPS", tmp_path) as client:
        client.connect_serial(path, 9600)
        client.wait("Firmware Info")
        client.wait("EQUATORIAL_EOD_COORD", is_at(0.0, 0.0, 0.01))
        client.switch("ON_COORD_SET", "SLEW")
        client.number("EQUATORIAL_EOD_COORD", RA=3.0, DEC=45.0)  # INDI's unit test: r20000000,20000000
        client.wait_state("EQUATORIAL_EOD_COORD", "Busy")
        client.wait("EQUATORIAL_EOD_COORD", is_at(3.0, 45.0, 0.01))
        client.wait_state("EQUATORIAL_EOD_COORD", "Ok", "Idle")
        client.switch("TELESCOPE_SLEW_RATE", "5x")
        client.switch("TELESCOPE_MOTION_NS", "MOTION_NORTH")
        client.wait("EQUATORIAL_EOD_COORD", lambda elements: abs(float(elements["DEC"]) - 45.0) > 0.5)
        client.switch("TELESCOPE_ABORT_MOTION", "ABORT")
        client.next_value("EQUATORIAL_EOD_COORD", "DEC")
        rest = client.next_value("EQUATORIAL_EOD_COORD", "DEC")
        assert client.next_value("EQUATORIAL_EOD_COORD", "DEC") == pytest.approx(rest, abs=0.001)
        client.number("EQUATORIAL_EOD_COORD", RA=15.0, DEC=10.0)
        client.wait_state("EQUATORIAL_EOD_COORD", "Busy")
        client.switch("TELESCOPE_ABORT_MOTION", "ABORT")
        client.wait_state("EQUATORIAL_EOD_COORD", "Ok", "Idle", "Alert")


@pytest.mark.counterpart("indi_ioptronv3_telescope")
def test_the_ioptron_driver_reads_slews_tracks_moves_and_aborts_ours(start_serial, fast_clock, tmp_path):
    path = start_serial("mount_ioptron")
    with driving("indi_ioptronv3_telescope", "iOptronV3", tmp_path) as client:
        client.connect_serial(path, 115200)
        assert client.wait("Firmware Info", lambda e: e["Model"])["Model"] == "AZ Mount Pro"
        place = client.wait("GEOGRAPHIC_COORD", lambda e: float(e["LAT"]))
        assert (float(place["LAT"]), float(place["LONG"])) == pytest.approx((40.39587, 117.57722), abs=1e-4)
        # At rest at azimuth 0, elevation 0: declination is the colatitude, right ascension follows the stars.
        client.wait("EQUATORIAL_EOD_COORD", lambda e: abs(float(e["DEC"]) - 49.60413) < 0.001)
        ascension = client.next_value("EQUATORIAL_EOD_COORD", "RA")
        client.switch("ON_COORD_SET", "TRACK")
        target = (ascension + 0.5) % 24.0
        client.number("EQUATORIAL_EOD_COORD", RA=target, DEC=60.0)
        client.wait_state("EQUATORIAL_EOD_COORD", "Busy")
        client.wait("EQUATORIAL_EOD_COORD", is_at(target, 60.0, 0.01))
        client.wait_state("EQUATORIAL_EOD_COORD", "Ok", "Idle")
        client.wait("TELESCOPE_TRACK_STATE", lambda e: e["TRACK_ON"] == "On")
        client.switch("TELESCOPE_MOTION_NS", "MOTION_NORTH")
        client.wait("EQUATORIAL_EOD_COORD", lambda e: abs(float(e["DEC"]) - 60.0) > 0.5)
        client.switch("TELESCOPE_MOTION_NS", "MOTION_NORTH", "Off")
        client.switch("TELESCOPE_ABORT_MOTION", "ABORT")
        client.next_value("EQUATORIAL_EOD_COORD", "DEC")
        rest = client.next_value("EQUATORIAL_EOD_COORD", "DEC")
        assert client.next_value("EQUATORIAL_EOD_COORD", "DEC") == pytest.approx(rest, abs=0.01)


@pytest.mark.counterpart("indi_lx200_10micron")
def test_the_10micron_driver_uploads_elements_computes_the_pass_and_ours_follows_the_satellite(
    start_serial, fast_clock, tmp_path
):
    """Where the mount is, as the driver reports it, against our own prediction of Micius."""
    orbit = Orbit(MICIUS, SITE, EarthOrientation(0.0, 0.0, 0.0, "none", "as in the simulated mount"))
    rise = find_passes(orbit, EVENING_NS, EVENING_NS + 7200 * NS_PER_S, 0.0)[0].rise
    text = fast_clock(5, rise.utc_ns - 75 * NS_PER_S)
    place = ("--latitude", str(SITE.latitude_deg), "--longitude", str(SITE.longitude_deg), "--height", "890")
    path, clock = start_serial("mount_10micron", "--clock", text, *place), clock_from_text(text)
    with driving("indi_lx200_10micron", "10micron", tmp_path) as client:
        client.connect_serial(path, 9600)
        assert client.wait("PRODUCT_INFO", lambda e: e["NAME"])["NAME"].startswith("10micron")
        client.wait_message("Gstat initialized at 1")
        client.text("SAT_TLE_TEXT", TLE=f"{MICIUS.name}\n{MICIUS.line1}\n{MICIUS.line2}")
        client.wait_state("SAT_TLE_TEXT", "Ok")
        client.text(
            "SAT_PASS_WINDOW", SAT_PASS_WINDOW_START="2016-12-19T16:00:00", SAT_PASS_WINDOW_END="2016-12-19T18:00:00"
        )
        client.wait_state("SAT_PASS_WINDOW", "Ok")
        client.switch("SAT_TRACKING_STAT", "SAT_TRACK")
        client.wait_message("to 10")  # Gstat: following a satellite
        client.properties.pop("EQUATORIAL_EOD_COORD")
        for _ in range(3):
            coordinates = client.wait("EQUATORIAL_EOD_COORD")
            now_ns = clock.utc_ns()
            assert now_ns > rise.utc_ns
            # The report is some time old when it arrives: it must lie on the path of the last world second.
            times = now_ns - np.arange(0, 3 * NS_PER_S, NS_PER_S // 50)
            assert _degrees_from_path(orbit, times, coordinates).min() < 0.01
            client.properties.pop("EQUATORIAL_EOD_COORD")


def _degrees_from_path(orbit, times, coordinates):
    """How far the coordinates are from where the satellite is seen at these times (n,)."""
    look = orbit.geometric(times)
    azimuth, elevation, latitude = np.radians([look.azimuth_deg, look.elevation_deg, np.full(times.size, 40.39587)])
    # East, north and up turned by the latitude: west, meridian and pole.
    north, east, up = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
    pole, meridian = north * np.cos(latitude) + up * np.sin(latitude), up * np.cos(latitude) - north * np.sin(latitude)
    julian_day = times / (86_400 * NS_PER_S) + 2_440_587.5
    sidereal = 280.46061837 + 360.98564736629 * (julian_day - 2_451_545.0) + SITE.longitude_deg  # Meeus, ch. 12
    ascension = sidereal - np.degrees(np.arctan2(-east, meridian))
    off_deg = (ascension - float(coordinates["RA"]) * 15.0 + 180.0) % 360.0 - 180.0
    declination = np.degrees(np.arcsin(pole))
    return np.hypot(off_deg * np.cos(np.radians(declination)), declination - float(coordinates["DEC"]))
