"""gpsd takes our simulated NMEA receiver for a real one, and tells position and time as it has them from us.

What it cannot do: it takes the 1PPS from a line of the serial port, which a pseudo-terminal has not; it believes a date
before 2017 to be one of a later turn of the GPS week counter, so the world has the machine's own clock here. For that
too: gpsd offers the time to the machine's NTP through shared memory, which must not be that of another year. An
AppArmor profile, as on a desktop, may forbid it pseudo-terminals; the socket stays.
"""

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from datetime import datetime

import pytest

pytestmark = pytest.mark.counterpart("gpsd")

PATH = "/usr/sbin:/usr/bin"


@contextmanager
def gpsd_reads(source):
    """What gpsd reports of that source; its reports as they come, each a dictionary, or a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["gpsd", "-N", "-n", "-D0", "-S", str(port), source]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={"PATH": PATH})
    try:
        with _connected(port) as client, client.makefile("rw", encoding="ascii", newline="\n") as lines:
            lines.write('?WATCH={"enable":true,"json":true,"nmea":true}\n')
            lines.flush()
            yield (json.loads(line) if line.startswith("{") else line.strip() for line in lines)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _connected(port):
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20.0)
        except OSError:
            assert time.monotonic() < deadline, "gpsd does not listen"
            time.sleep(0.02)


def fixes(reports):
    return (report for report in reports if isinstance(report, dict) and report["class"] == "TPV")


@pytest.mark.parametrize("carrier", [("--pty",), ("--address", "tcp://127.0.0.1:0")])
def test_it_reads_position_and_time(start, carrier):
    with gpsd_reads(start("time_base_nmea", *carrier).removeprefix("serial:")) as reports:
        seconds = []
        for fix in fixes(reports):
            if fix["mode"] == 3:
                assert (fix["lat"], fix["lon"]) == pytest.approx((40.396, 117.577), abs=1e-5)
                seconds.append(datetime.fromisoformat(fix["time"]).timestamp())
                assert abs(seconds[-1] - time.time()) < 5.0
            if len(set(seconds)) == 3:
                break
    assert sorted(set(seconds)) == [seconds[0] + n for n in range(3)]


def test_it_sees_that_there_is_no_position(start):
    path = start("time_base_nmea", "--pty", "--faults", '{"special": ["no_fix"]}').removeprefix("serial:")
    with gpsd_reads(path) as reports:
        fix = next(fix for fix in fixes(reports) if "time" in fix)
    assert fix["mode"] == 1
    assert "lat" not in fix


def test_it_drops_the_sentences_with_a_wrong_checksum(start):
    path = start("time_base_nmea", "--pty", "--faults", '{"special": ["bad_checksum"]}').removeprefix("serial:")
    with gpsd_reads(path) as reports:
        sentences = []
        for report in reports:
            if isinstance(report, str):
                sentences.append(report[:6])
            if len(sentences) == 5:
                break
    assert set(sentences) == {"$GPRMC", "$GPGGA"}, "each third one, $GPZDA, is wrong"
