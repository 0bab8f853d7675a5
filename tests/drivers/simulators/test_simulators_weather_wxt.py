"""The weather transmitter's simulator, spoken to in the words of the WXT520 and WXT530 manuals."""

import json
import re

import pytest

from drivers.simulators.weather_wxt import Sky, crc

FIELD = re.compile(r"([A-Z][a-z])=(-?[0-9.]+)([A-Za-z#])")


def fields(line):
    assert line.endswith("\r\n")
    return {name: (float(value), unit) for name, value, unit in FIELD.findall(line)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # WXT520 manual M210906EN-C, pages 78 and 79
        ("0r1,Sn=0.1M,Sm=0.1M,Sx=0.1M", "GOG"),
        ("0r2,Ta=22.7C,Ua=55.5P,Pa=1004.7H", "@Fn"),
        ("0r3,Rc=0.00M,Rd=0s,Ri=0.0M", "Ilm"),
        ("0r5,Th=25.0C,Vh=10.6#,Vs=10.8V,Vr=3.369V", "O]T"),
        ("0tX,Use chksum Goe", "IU~"),
        ("0r0", "Kld"),
        ("0r1", "Goe"),
        ("0r2", "Gje"),
        ("0r3", "Kid"),
        ("0r5", "Kcd"),
        ("0r", "BVT"),
    ],
)
def test_the_crc_is_that_of_the_manuals_examples(text, told):
    assert crc(text) == told


def test_it_answers_polls_in_the_form_of_the_manual(start):
    line = start("weather_wxt", "--pty").line()
    assert line.ask_line(b"?\r\n") == "0\r\n"
    assert line.ask_line(b"0\r\n") == "0\r\n"
    ptu = line.ask_line(b"0R2\r\n")
    assert ptu.startswith("0R2,Ta=")
    assert {name: unit for name, (_, unit) in fields(ptu).items()} == {"Ta": "C", "Ua": "P", "Pa": "H"}
    wind = fields(line.ask_line(b"0R1\r\n"))
    assert list(wind) == ["Dn", "Dm", "Dx", "Sn", "Sm", "Sx"]
    assert wind["Sn"][0] <= wind["Sm"][0] <= wind["Sx"][0]
    assert list(fields(line.ask_line(b"0R3\r\n"))) == ["Rc", "Rd", "Ri", "Hc", "Hd", "Hi"]
    composite = line.ask_line(b"0R0\r\n")
    assert composite.startswith("0R0,")
    assert {"Dx", "Sx", "Ta", "Ua", "Pa", "Rc", "Vs", "Vh"} <= set(fields(composite))
    line.write(b"0R\r\n")
    assert [line.read_line()[:3] for _ in range(4)] == [b"0R1", b"0R2", b"0R3", b"0R5"]


def test_a_small_r_brings_the_crc_and_needs_its_own(start):
    line = start("weather_wxt", "--pty").line()
    answer = line.ask_line(b"0r0Kld\r\n").removesuffix("\r\n")
    assert answer.startswith("0r0,")
    assert answer[-3:] == crc(answer[:-3])
    assert line.ask_line(b"0r1yyy\r\n") == "0tX,Use chksum GoeIU~\r\n"  # WXT520 manual, page 78
    assert line.ask_line(b"0r1\r\n") == "0tX,Use chksum GoeIU~\r\n"


def test_errors_are_the_manuals_texts(start):
    line = start("weather_wxt", "--pty").line()
    assert line.ask_line(b"0XO!\r\n") == "0TX,Unknown cmd error\r\n"
    assert line.ask_line(b"5R1\r\n") == "0TX,Sync/address error\r\n"
    assert line.ask_line(b"\xff\xfe\r\n").endswith("error\r\n")


def test_settings_are_told_and_the_mode_is_changed(start, fast_clock):
    line = start("weather_wxt", "--pty", "--clock", fast_clock(100)).line()
    # WXT530 manual M211840EN-C, page 80
    assert line.ask_line(b"0XU\r\n") == "0XU,A=0,M=P,T=0,C=2,I=0,B=19200,D=8,P=N,S=1,L=25,N=WXT530,V=1.00\r\n"
    assert line.ask_line(b"0XU,M=A\r\n") == "0XU,M=A\r\n"
    heard = [line.read_line()[:3] for _ in range(8)]
    assert heard.count(b"0R1") > heard.count(b"0R2")
    line.write(b"0XU,M=P\r\n")
    while line.read_line() != b"0XU,M=P\r\n":
        pass
    assert line.read(1, timeout_s=0.3) == b""


def test_its_own_faults(start, fast_clock):
    faults = json.dumps({"special": ["invalid_values", "automatic"]})
    line = start("weather_wxt", "--pty", "--faults", faults, "--clock", fast_clock(100)).line()
    heard = line.read_line().decode()
    while not heard.startswith("0R2"):
        heard = line.read_line().decode()
    assert {unit for _, unit in fields(heard).values()} == {"#"}
    imperial = start("weather_wxt", "--pty", "--faults", json.dumps({"special": ["imperial"]})).line()
    metric = start("weather_wxt", "--pty").line()
    told, meant = fields(imperial.ask_line(b"0R0\r\n")), fields(metric.ask_line(b"0R0\r\n"))
    assert told["Ta"][1] == "F"
    assert (told["Ta"][0] - 32) / 1.8 == pytest.approx(meant["Ta"][0], abs=0.2)
    assert told["Pa"][0] * 33.8639 == pytest.approx(meant["Pa"][0], abs=0.6)  # hPa in an inch of mercury
    assert told["Pa"][1] == "I"


def test_unasked_messages_can_stand_in_front_of_replies(start):
    faults = json.dumps({"unsolicited_every": 1})
    line = start("weather_wxt", "--pty", "--faults", faults).line()
    line.write(b"0R2\r\n")
    assert [line.read_line()[:3] for _ in range(2)] == [b"0R1", b"0R2"]


def test_the_weather_is_slow_and_rain_only_adds_up():
    sky = Sky(20161219)
    rain, showers = 0.0, 0
    for minute in range(3 * 1440):
        now_s = 60.0 * minute
        assert abs(sky.temperature_c(now_s + 60) - sky.temperature_c(now_s)) < 0.2
        assert -30 < sky.temperature_c(now_s) < 50
        assert 0 < sky.humidity_percent(now_s) <= 100
        assert 960 < sky.pressure_hpa(now_s) < 1060
        assert 0 <= sky.wind_direction_deg(now_s) < 360
        sky.advance(now_s)
        assert sky.rain_mm >= rain
        rain, showers = sky.rain_mm, showers + (sky.rain_mm_h(now_s) > 0)
    assert rain > 0
    assert 0 < showers < 2 * 1440
    assert rain == pytest.approx(sum(sky.rain_mm_h(60.0 * m) for m in range(3 * 1440)) / 60, rel=0.05)
