"""The weather transmitter's driver against the messages in Vaisala's user guides, on a pseudo-terminal."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, Reply, Step, reply, scripted_pty

from drivers.weather_wxt import (
    checksum,
    connect,
    parse_fields,
    parse_settings_reply,
    parse_weather,
    without_checksum,
)
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import WeatherReading

CLOCK = SystemClock()
IDENTIFY: tuple[Step, ...] = (
    Expect(b"0XU\r\n"),
    reply(b"0XU,A=0,M=P,T=0,C=2,I=0,B=19200,D=8,P=N,S=1,L=25,N=WXT520,V=1.00\r\n"),
)
PRINTED = b"0R0,Dx=009D,Sx=0.2M,Ta=23.3C,Ua=37.5P,Pa=996.8H,Rc=0.000I,Vs=12.0V,Vh=0.0N"


def checked(message: bytes) -> bytes:
    return message + checksum(message) + b"\r\n"


def test_the_checksum_is_that_of_the_printed_example() -> None:
    assert without_checksum(b"0r2,Ta=22.7C,Ua=55.5P,Pa=1004.7H@Fn") == b"0r2,Ta=22.7C,Ua=55.5P,Pa=1004.7H"
    with pytest.raises(WireError, match="checksum"):
        without_checksum(b"0r2,Ta=22.8C,Ua=55.5P,Pa=1004.7H@Fn")


def test_the_printed_message_is_read_with_and_without_checksum() -> None:
    expected = WeatherReading(
        temperature_c=23.3, humidity_percent=37.5, pressure_hpa=996.8, wind_m_s=0.2, wind_direction_deg=9.0
    )
    with scripted_pty(
        *IDENTIFY, Expect(b"0R0\r\n"), reply(PRINTED[:20], PRINTED[20:] + b"\r\n", pause_s=0.02)
    ) as address:
        weather = connect(address, CLOCK, {"checksum": False})
        assert weather.read() == expected
        weather.close()
    lower = b"0r0" + PRINTED[3:]
    with scripted_pty(*IDENTIFY, Expect(b"0r0Kld\r\n"), reply(checked(lower))) as address:
        weather = connect(address, CLOCK, {})
        assert weather.read() == expected
        weather.close()
        weather.close()


@given(st.permutations(PRINTED.split(b",")[1:]))
def test_the_order_of_the_fields_does_not_matter(fields: list[bytes]) -> None:
    assert parse_weather(b",".join([b"0R0", *fields])) == parse_weather(PRINTED)


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        (b"Ta=74.6F", "Ta", 23.667),
        (b"Ta=-40.0F", "Ta", -40.0),
        (b"Sm=36.0K", "Sm", 10.0),
        (b"Sm=10.0S", "Sm", 4.4704),
        (b"Sm=10.0N", "Sm", 5.1444),
        (b"Pa=101325.0P", "Pa", 1013.25),
        (b"Pa=1.01325B", "Pa", 1013.25),
        (b"Pa=760.0M", "Pa", 1013.25),
        (b"Pa=29.921I", "Pa", 1013.25),
        (b"Ri=1.0I", "Ri", 25.4),
        (b"Ri=2.7M", "Ri", 2.7),
    ],
)
def test_every_unit_letter_of_the_guide_is_converted(field: bytes, name: str, value: float) -> None:
    assert parse_fields(b"0R0," + field)[name] == pytest.approx(value, abs=0.01)


def test_an_invalid_value_is_none_and_a_missing_one_too() -> None:
    found = parse_weather(b"0R0,Dm=000#,Sm=0.0#,Sx=3.0M,Ta=21.0C,Pa=0.0#,Id=HEL___")
    assert found == WeatherReading(temperature_c=21.0)  # an average that is invalid is not replaced by the maximum


@pytest.mark.parametrize(
    "field", [b"Ta=23.3K", b"Sm=1.0C", b"Ta=C", b"Ta=2.3.3C", b"Ta=23.3", b"Ta=1C,Ta=2C", b"garbage", b"Ta=nanC"]
)
def test_what_no_guide_describes_is_a_wire_error(field: bytes) -> None:
    with pytest.raises(WireError):
        parse_weather(b"0R0," + field)


@given(st.binary(max_size=80))
def test_any_line_is_understood_or_refused_as_a_wire_error(line: bytes) -> None:
    for parse in (parse_weather, without_checksum, parse_settings_reply):
        with contextlib.suppress(WireError):
            parse(line)


@given(st.integers(0, 70), st.sampled_from(["drop", "double", "change"]))
def test_a_damaged_message_never_passes_its_checksum(place: int, how: str) -> None:
    good = checked(b"0r0" + PRINTED[3:])[:-2]
    byte = good[place : place + 1]
    instead = {"drop": b"", "double": byte * 2, "change": bytes((byte[0] ^ 1,))}[how]
    with pytest.raises(WireError):
        without_checksum(good[:place] + instead + good[place + 1 :])


def test_automatic_messages_and_news_in_between_are_skipped() -> None:
    news = b"0R1,Dn=236D,Dm=283D,Dx=031D,Sn=0.0M,Sm=1.0M,Sx=2.2M\r\n0TX,Start-up\r\n"
    with scripted_pty(*IDENTIFY, Expect(b"0r0Kld\r\n"), reply(news + checked(b"0r0,Ta=1.5C"))) as address:
        weather = connect(address, CLOCK, {})
        assert weather.read() == WeatherReading(temperature_c=1.5)
        weather.close()


def test_a_damaged_message_is_asked_for_again_and_an_error_is_a_fault() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"0r0Kld\r\n"),
        reply(checked(b"0r0,Ta=1.5C").replace(b"1.5", b"7.5")),
        Expect(b"0r0Kld\r\n"),
        reply(checked(b"0r0,Ta=1.5C")),
        Expect(b"0r0Kld\r\n"),
        reply(b"0TX,Unable to measure error\r\n"),
    ) as address:
        weather = connect(address, CLOCK, {})
        assert weather.read() == WeatherReading(temperature_c=1.5)
        with pytest.raises(InstrumentFault, match="Unable to measure"):
            weather.read()
        weather.close()


def test_silence_and_another_instrument_each_have_their_error() -> None:
    with scripted_pty(Expect(b"0XU\r\n0XU\r\n")) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.1})
    wind = Reply((b"0XU,A=0,M=P,N=WMT52,V=1.00\r\n",))
    with scripted_pty(Expect(b"0XU\r\n"), wind) as address, pytest.raises(WrongInstrument, match="WMT52"):
        connect(address, CLOCK, {})
    other = Reply((b"0TX,Unknown cmd error\r\n",))
    with scripted_pty(Expect(b"0XU\r\n"), other) as address, pytest.raises(WrongInstrument, match="Unknown cmd"):
        connect(address, CLOCK, {})
    with pytest.raises(BadInput, match="device_address"):
        connect("serial:/dev/no-such-line", CLOCK, {"device_address": "00"})
