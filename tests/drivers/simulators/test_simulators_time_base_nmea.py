"""The NMEA receiver's simulator: sentences as gpsd describes them, once in a second of the world."""

import json
from datetime import UTC, datetime

from drivers.simulators.time_base_nmea import angle, checksum
from groundstation.clock import clock_from_text

EPOCH_NS = 1_482_166_140_000_000_000  # 2016-12-19T16:49:00Z


def is_right(sentence):
    body, told = sentence.removeprefix("$").removesuffix("\r\n").split("*")
    total = 0
    for byte in body.encode():
        total ^= byte
    return total == int(told, 16)


def read(line, count):
    return [line.read_line().decode() for _ in range(count)]


def test_the_checksum_is_that_of_published_sentences():
    assert checksum("GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,") == "47"
    assert checksum("GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W") == "6A"


def test_angles_are_degrees_and_minutes():
    assert angle(48.1173, 2, "NS") == "4807.0380,N"
    assert angle(-11.516666, 3, "EW") == "01131.0000,W"
    assert angle(59.99999999, 2, "NS") == "6000.0000,N"


def test_three_sentences_tell_each_second_of_the_world(start, fast_clock):
    clock = fast_clock(5, EPOCH_NS + 400_000_000)
    line = start("time_base_nmea", "--pty", "--clock", clock).line()
    seconds = []
    for _ in range(4):
        rmc, gga, zda = read(line, 3)
        assert is_right(rmc)
        assert is_right(gga)
        assert is_right(zda)
        time, status, date = (rmc.split(",")[index] for index in (1, 2, 9))
        assert status == "A"
        assert (gga.split(",")[1], gga.split(",")[6]) == (time, "1")
        assert zda.split(",")[1:5] == [time, "19", "12", "2016"]
        seconds.append(datetime.strptime(date + time, "%d%m%y%H%M%S.%f").replace(tzinfo=UTC).timestamp())
    assert seconds == [seconds[0] + n for n in range(4)]
    assert EPOCH_NS / 1e9 < seconds[-1] < clock_from_text(clock).utc_ns() / 1e9 < seconds[-1] + 5.0


def test_its_own_faults(start, fast_clock):
    def lines(*special, count=9):
        faults = json.dumps({"special": special})
        options = ("--pty", "--clock", fast_clock(10), "--stale-after-s", 2)
        return read(start("time_base_nmea", *options, "--faults", faults).line(), count)

    assert [is_right(sentence) for sentence in lines("bad_checksum")] == [True, True, False] * 3
    rmc, gga, _ = lines("no_fix", count=3)
    assert rmc.split(",")[2:7] == ["V", "", "", "", ""]
    assert gga.split(",")[6] == "0"
    times = [sentence.split(",")[1] for sentence in lines("stale_time", count=18)[::3]]
    assert times[-1] == times[-2] == times[-3]
    assert "164902.00" <= times[-1] < "164930.00"  # two seconds after its start, which took a moment itself


def test_another_receiver_tells_no_time(start, fast_clock):
    faults = json.dumps({"wrong_model": True})
    line = start("time_base_nmea", "--pty", "--clock", fast_clock(5), "--faults", faults).line()
    assert line.read_line().startswith(b"$WIMWV")


def test_bytes_can_be_lost_on_the_way(start, fast_clock):
    faults = json.dumps({"drop_byte_every": 1})
    line = start("time_base_nmea", "--pty", "--clock", fast_clock(5), "--faults", faults).line()
    assert len(b"".join(line.read_line() for _ in range(3))) < 230
