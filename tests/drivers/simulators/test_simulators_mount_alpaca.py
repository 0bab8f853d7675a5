"""The Alpaca simulators of mount and dome, asked over plain HTTP for what alpyca never asks: bad requests."""

import http.client
import json
import time
from urllib.parse import urlencode

import pytest


class Client:
    def __init__(self, program, kind):
        self._where, self._kind = program.ready["address"].removeprefix("http://"), kind

    def raw(self, method, path, values):
        connection = http.client.HTTPConnection(self._where, timeout=5.0)
        text = urlencode(values)
        target, body = (path + "?" + text, None) if method == "GET" else (path, text)
        connection.request(method, path if not text else target, body=body)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def get(self, name, **values):
        status, body = self.raw("GET", f"/api/v1/{self._kind}/0/{name}", values)
        return json.loads(body) if status == 200 else status

    def put(self, name, **values):
        status, body = self.raw("PUT", f"/api/v1/{self._kind}/0/{name}", values)
        return json.loads(body) if status == 200 else status

    def value(self, name, **values):
        return self.get(name, **values)["Value"]


@pytest.fixture
def mount(start, fast_clock):
    client = Client(start("mount_alpaca", "--clock", fast_clock(20)), "telescope")
    assert client.put("connected", Connected="True")["ErrorNumber"] == 0
    return client


@pytest.fixture
def dome(start, fast_clock):
    client = Client(start("dome_alpaca", "--clock", fast_clock(20)), "dome")
    assert client.put("connected", Connected="true")["ErrorNumber"] == 0
    return client


def test_names_have_case_in_a_put_and_none_in_a_get(mount):
    assert mount.value("canmoveaxis", aXiS=0) is True
    assert mount.put("moveaxis", axis=0, rate=0.0) == 400
    assert mount.put("moveaxis", Axis=0, Rate=0.0)["ErrorNumber"] == 0


def test_bad_parameters_are_400_and_unknown_routes_404(mount):
    assert mount.put("moveaxis", Axis="x", Rate=0.0) == 400
    assert mount.put("moveaxis", Axis=0) == 400
    assert mount.put("tracking", Tracking="perhaps") == 400
    assert mount.get("axisrates") == 400
    assert mount.get("warpfactor") == 404
    assert mount.get("Azimuth") == 404  # routes are lower case
    assert mount.raw("GET", "/api/v1/telescope/1/azimuth", {})[0] == 400
    assert mount.raw("DELETE", "/api/v1/telescope/0/azimuth", {})[0] == 400


def test_transaction_numbers_come_back_or_are_0(mount):
    first, second = mount.get("azimuth", ClientTransactionID=77), mount.get("azimuth", clienttransactionid="-3")
    assert first["ClientTransactionID"] == 77
    assert second["ClientTransactionID"] == 0
    assert second["ServerTransactionID"] == first["ServerTransactionID"] + 1


def test_what_needs_a_connection_says_so(start):
    client = Client(start("mount_alpaca"), "telescope")
    assert client.get("azimuth")["ErrorNumber"] == 0x407
    assert client.value("interfaceversion") == 3
    assert client.value("connected") is False


def test_a_rate_goes_on_until_the_next_and_counts_as_slewing(mount, eventually):
    assert mount.value("axisrates", Axis=1) == [{"Maximum": 4.5, "Minimum": 0.0}]
    assert mount.value("axisrates", Axis=2) == []
    mount.put("moveaxis", Axis=1, Rate=1.0)
    assert mount.value("slewing") is True
    eventually(lambda: mount.value("altitude") > 5.0)
    mount.put("moveaxis", Axis=1, Rate=0)
    assert mount.value("slewing") is False
    time.sleep(0.05)
    assert mount.value("altitude") == pytest.approx(mount.value("altitude"), abs=0.001)
    for axis, rate in ((0, 4.6), (0, -4.6), (2, 0.0), (5, 0.0)):
        assert mount.put("moveaxis", Axis=axis, Rate=rate)["ErrorNumber"] == 0x401


def test_what_excludes_what(mount, eventually):
    assert mount.put("tracking", Tracking="True")["ErrorNumber"] == 0
    assert mount.put("slewtoaltazasync", Azimuth=10, Altitude=20)["ErrorNumber"] == 0x40B
    assert mount.put("tracking", Tracking="False")["ErrorNumber"] == 0
    assert mount.put("slewtoaltazasync", Azimuth=10, Altitude=91)["ErrorNumber"] == 0x401
    assert mount.put("slewtoaltazasync", Azimuth=10, Altitude=20)["ErrorNumber"] == 0
    eventually(lambda: not mount.value("slewing"))
    assert mount.value("azimuth") == pytest.approx(10.0, abs=0.001)
    assert mount.put("park")["ErrorNumber"] == 0
    eventually(lambda: mount.value("atpark"))
    assert mount.put("moveaxis", Axis=0, Rate=1.0)["ErrorNumber"] == 0x408
    mount.put("unpark")
    assert mount.put("moveaxis", Axis=0, Rate=1.0)["ErrorNumber"] == 0
    assert mount.put("abortslew")["ErrorNumber"] == 0
    assert mount.value("slewing") is False
    assert mount.put("synctoaltaz", Azimuth=0, Altitude=0)["ErrorNumber"] == 0x400


def test_its_clock_can_be_set(mount):
    assert mount.put("utcdate", UTCDate="2030-01-02T03:04:05.0000000Z")["ErrorNumber"] == 0
    assert mount.value("utcdate").startswith("2030-01-02T03:04:")
    assert mount.put("utcdate", UTCDate="yesterday")["ErrorNumber"] == 0x401


def test_keys_are_missing_when_told_so(start):
    client = Client(start("mount_alpaca", "--faults", '{"special": ["missing_keys"]}'), "telescope")
    assert ["ErrorNumber" in client.get("connected") for _ in range(3)] == [True, True, False]


def test_another_device_is_not_the_one_meant(start):
    client = Client(start("dome_alpaca", "--faults", '{"wrong_model": true}'), "dome")
    assert client.get("connected") == 400


def test_the_dome_turns_the_shorter_way_and_the_shutter_takes_its_time(dome, eventually):
    assert dome.value("shutterstatus") == 1
    dome.put("openshutter")
    dome.put("slewtoazimuth", Azimuth=350.0)
    assert dome.value("shutterstatus") == 2
    assert dome.value("azimuth") > 300.0 or dome.value("azimuth") == 0.0
    eventually(lambda: dome.value("shutterstatus") == 0)
    assert dome.value("azimuth") == pytest.approx(350.0)
    assert dome.value("slewing") is False
    assert dome.put("slewtoazimuth", Azimuth=360.0)["ErrorNumber"] == 0x401
    assert dome.put("slewtoaltitude", Altitude=10.0)["ErrorNumber"] == 0x400


def test_a_shutter_stopped_half_way_is_in_error(dome):
    dome.put("openshutter")
    dome.put("abortslew")
    assert dome.value("shutterstatus") == 4
    dome.put("closeshutter")
    assert dome.value("shutterstatus") in (1, 3)


def test_a_stuck_shutter_never_opens(start, fast_clock, eventually):
    client = Client(
        start("dome_alpaca", "--clock", fast_clock(50), "--faults", '{"special": ["shutter_stuck"]}'), "dome"
    )
    client.put("connected", Connected="true")
    client.put("openshutter")
    eventually(lambda: client.value("shutterstatus") == 4)
