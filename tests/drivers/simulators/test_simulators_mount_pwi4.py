"""The PWI4 simulator, asked as the vendor's client asks."""

import http.client
import math
import time
from urllib.parse import quote, urlencode

import numpy as np
import pytest

from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site

T0_NS = 1_482_166_140_000_000_000
ISS = (
    "ISS (ZARYA)",
    "1 25544U 98067A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927",
    "2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391563537",
)
XINGLONG = Site("Xinglong", 40.39587, 117.57746, 890.0)


class Client:
    def __init__(self, program):
        self._where = program.ready["address"].removeprefix("http://")

    def ask(self, path, form=None, **query):
        connection = http.client.HTTPConnection(self._where, timeout=5.0)
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        connection.request("POST" if form else "GET", target, body=urlencode(form) if form else None)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, dict(line.split("=", 1) for line in body.splitlines() if "=" in line)

    def status(self):
        return self.ask("/status")[1]

    def ready(self):
        for path, query in (("/mount/connect", {}), ("/mount/enable", {"axis": 0}), ("/mount/enable", {"axis": 1})):
            assert self.ask(path, **query)[0] == 200


@pytest.fixture
def fast(start, fast_clock):
    """A connected mount in a world five times as fast, whose axes are enabled."""
    client = Client(start("mount_pwi4", "--clock", fast_clock(5)))
    client.ready()
    return client


def utc_s(status):
    """Of the status's Julian date, seconds since T0."""
    return (float(status["mount.julian_date"]) - 2440587.5) * 86400.0 - T0_NS / 1e9


def settled(client):
    return lambda: client.status()["mount.is_slewing"] == "false"


def test_every_command_answers_the_status_and_unknown_ones_404(start):
    client = Client(start("mount_pwi4"))
    code, status = client.ask("/mount/connect")
    assert (code, status["mount.is_connected"], status["pwi4.version"]) == (200, "true", "4.0.13")
    assert client.ask("/mount/enable", axis=1)[1]["mount.axis1.is_enabled"] == "true"
    assert client.ask("/command/notfound")[0] == 404
    assert client.ask("/internal/crash")[0] == 500
    assert client.ask("/mount/goto_ra_dec_apparent")[0] == 400
    for query in ({"axis": 2}, {"axis": "x"}, {}):
        assert client.ask("/mount/enable", **query)[0] == 400
    assert client.ask("/mount/goto_alt_az", alt_degs="nan", az_degs=0)[0] == 400
    assert client.ask("/mount/goto_alt_az", alt_degs=45, az_degs=100)[0] == 500  # axis 0 is not enabled


def test_the_version_decides_which_keys_there_are(start):
    old = Client(start("mount_pwi4", "--version", "4.0.8")).status()
    assert old["pwi4.version"] == "4.0.8"
    assert not {"mount.timestamp_utc", "mount.offsets.path_arcsec.total"} & set(old)
    bare = Client(start("mount_pwi4", "--faults", '{"special": ["missing_keys"]}')).status()
    assert "pwi4.version" not in bare
    assert "mount.azimuth_degs" in bare


def test_it_goes_to_a_direction_and_stays_there(fast, eventually):
    status = fast.ask("/mount/goto_alt_az", alt_degs=45.0, az_degs=350.0)[1]
    assert status["mount.is_slewing"] == "true"
    eventually(settled(fast))
    time.sleep(0.1)
    status = fast.status()
    assert float(status["mount.azimuth_degs"]) == pytest.approx(350.0, abs=0.002)
    assert float(status["mount.altitude_degs"]) == pytest.approx(45.0, abs=0.002)
    assert status["mount.is_tracking"] == "false"


def test_an_offset_of_an_axis_moves_it_and_a_rate_goes_on(fast, eventually):
    fast.ask("/mount/goto_alt_az", alt_degs=1.0, az_degs=1.0)
    eventually(settled(fast))
    fast.ask("/mount/offset", axis0_add_arcsec=360, axis1_set_rate_arcsec_per_sec=36)
    begun = utc_s(fast.status())
    eventually(lambda: utc_s(fast.status()) > begun + 5.0)
    status = fast.status()
    elapsed = utc_s(status) - begun
    assert float(status["mount.azimuth_degs"]) == pytest.approx(1.1, abs=0.002)
    assert float(status["mount.altitude_degs"]) == pytest.approx(1.0 + 0.01 * elapsed, abs=0.004)
    assert float(status["mount.offsets.axis0_arcsec.total"]) == 360.0
    assert float(status["mount.offsets.axis1_arcsec.rate"]) == 36.0
    assert (
        fast.ask("/mount/offset", axis0_reset=0, axis1_stop_rate=0)[1]["mount.offsets.axis1_arcsec.rate"] == "0.000000"
    )
    for query in ({}, {"axis0_jump": 1}, {"axis7_add_arcsec": 1}, {"path_add_arcsec": "x"}):
        assert fast.ask("/mount/offset", **query)[0] == 400


@pytest.mark.slow
def test_a_path_is_followed_and_takes_offsets_along_and_across_the_motion(fast, eventually):
    """Due east at an altitude of 60 degrees: along is azimuth, halved by the cosine; to its left is up."""
    zero = utc_s(fast.status()) + 20.0
    days = [2440587.5 + (T0_NS / 1e9 + zero + s) / 86400.0 for s in range(0, 200, 5)]
    lines = "\n".join(f"{day:.10f},{10.0 + 0.1 * 5 * k},60.0" for k, day in enumerate(days))
    assert fast.ask("/mount/custom_path/add_point_list", form={"data": lines})[0] == 400  # no new path
    assert fast.ask("/mount/custom_path/new", type="galactic")[0] == 400
    assert fast.ask("/mount/custom_path/new", type="altaz")[0] == 200
    assert fast.ask("/mount/custom_path/add_point_list", form={"data": "1,2"})[0] == 400
    assert fast.ask("/mount/custom_path/add_point_list", form={"data": lines})[0] == 200
    assert fast.ask("/mount/custom_path/apply")[0] == 200
    eventually(lambda: utc_s(fast.status()) > zero + 3.0 and fast.status()["mount.is_tracking"] == "true", 15.0)

    def error_deg():
        status = fast.status()
        azimuth = 10.0 + 0.1 * (utc_s(status) - zero)
        return float(status["mount.azimuth_degs"]) - azimuth, float(status["mount.altitude_degs"]) - 60.0

    assert error_deg() == pytest.approx((0.0, 0.0), abs=0.01)
    fast.ask("/mount/offset", path_add_arcsec=720, transverse_add_arcsec=360)
    eventually(lambda: error_deg() == pytest.approx((0.4, 0.1), abs=0.01))
    assert fast.ask("/mount/stop")[1]["mount.is_tracking"] == "false"


def test_a_path_in_right_ascension_is_followed_on_the_sky(fast, eventually):
    """A star that does not move: the direction is that of goto_ra_dec_j2000, within the servo's error."""
    star = {"ra_j2000_hours": 1.8, "dec_j2000_degs": 60.0}
    now = utc_s(fast.status())
    fast.ask("/mount/radecpath/new")
    for s in (0, 100, 200):
        day = f"{2440587.5 + (T0_NS / 1e9 + now + s) / 86400.0:.10f}"
        assert fast.ask("/mount/radecpath/add_point", jd=day, **star)[0] == 200
    assert fast.ask("/mount/radecpath/apply")[0] == 200
    eventually(settled(fast), 15.0)
    status = fast.status()
    assert float(status["mount.ra_j2000_hours"]) == pytest.approx(1.8, abs=0.002)
    assert float(status["mount.dec_j2000_degs"]) == pytest.approx(60.0, abs=0.02)


@pytest.mark.slow
def test_an_element_set_is_followed_as_sgp4_predicts(start, fast_clock, eventually):
    """At a moment at which the station sees it, 12 hours before its epoch."""
    orbit = Orbit(ElementSet.parse(*ISS), XINGLONG, EarthOrientation(0.0, 0.0, 0.0, "none", "UT1 = UTC"))
    epoch_ns = ElementSet.parse(*ISS).epoch_utc_ns
    times = epoch_ns + np.arange(-86_400, 0, 10) * 10**9
    elevation = orbit.geometric(times).elevation_deg
    seen_ns = int(times[np.argmax((elevation > 10.0) & (elevation < 60.0) & (np.gradient(elevation) > 0.0))])
    client = Client(start("mount_pwi4", "--clock", fast_clock(5, seen_ns - 20 * 10**9)))
    client.ready()
    assert client.ask("/mount/follow_tle", line1=ISS[0], line2=ISS[1], line3=ISS[2][:-1] + "0")[0] == 400
    assert client.ask("/mount/follow_tle", line1=ISS[0], line2=ISS[1], line3=ISS[2])[0] == 200
    eventually(lambda: client.status()["mount.is_tracking"] == "true", 15.0)
    status = client.status()
    utc_ns = round((float(status["mount.julian_date"]) - 2440587.5) * 86400e9)
    look = orbit.geometric(utc_ns)
    across = math.cos(math.radians(float(look.elevation_deg[0])))
    wrong = math.remainder(float(status["mount.azimuth_degs"]) - float(look.azimuth_deg[0]), 360.0) * across
    assert wrong == pytest.approx(0.0, abs=0.03)
    assert float(status["mount.altitude_degs"]) == pytest.approx(float(look.elevation_deg[0]), abs=0.03)


def test_disabling_an_axis_or_disconnecting_ends_every_motion(fast):
    fast.ask("/mount/goto_alt_az", alt_degs=45.0, az_degs=170.0)
    assert fast.ask("/mount/disable", axis=0)[1]["mount.is_slewing"] == "false"
    fast.ready()
    fast.ask("/mount/goto_alt_az", alt_degs=45.0, az_degs=170.0)
    assert fast.ask("/mount/disconnect")[1]["mount.is_slewing"] == "false"


def test_another_program_on_that_port_is_no_pwi4(start):
    client = Client(start("mount_pwi4", "--faults", '{"wrong_model": true}'))
    assert client.status() == {}
