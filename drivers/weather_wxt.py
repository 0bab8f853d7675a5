"""Vaisala WXT510, WXT520, WXT530 series: the weather in one polled ASCII message, 19200 baud, CR LF.

`0r0` is answered by `0r0,Dx=009D,Sx=0.2M,Ta=23.3C,...` and three characters of a checksum (`0R0` by the same without).
The letter after a value is its unit, `#` says that the value is invalid. In automatic mode other messages come unasked.
Sources: WXT520 User's Guide M210906EN-C pp. 64, 65, 76, 118; WXT510 User's Guide M210470EN-D pp. 90, 95; WXT530 User
Guide M211840EN-C pp. 80, 170, 199 (checksum).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from drivers.conversation import QUIET_S, Conversation
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Settings, Weather, WeatherReading

DRIVER = DriverDescription(
    instrument="Vaisala weather transmitter WXT510, WXT520, WXT530 series, ASCII protocol",
    capability="weather",
    schemes=("serial", "tcp"),
    documentation="Pages of Vaisala's user guides: messages, units, errors and the checksum with a published example. "
    "Not used: SDI-12 and NMEA modes. Which parameters a message holds is set in the instrument",
)

T = TypeVar("T")

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\r\n"

#: Unit letter -> factor and offset to our unit. WXT510 guide p. 90, WXT520 guide p. 118.
_WIND = {"M": (1.0, 0.0), "K": (1 / 3.6, 0.0), "S": (0.44704, 0.0), "N": (1852 / 3600, 0.0)}
_PRESSURE = {"H": (1.0, 0.0), "P": (0.01, 0.0), "B": (1000.0, 0.0), "M": (1.333224, 0.0), "I": (33.86389, 0.0)}
_TEMPERATURE = {"C": (1.0, 0.0), "F": (5 / 9, -160 / 9)}
_UNITS: Mapping[str, Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "Ta": _TEMPERATURE,
        "Ua": {"P": (1.0, 0.0)},
        "Pa": _PRESSURE,
        "Sm": _WIND,
        "Sx": _WIND,
        "Dm": {"D": (1.0, 0.0)},
        "Dx": {"D": (1.0, 0.0)},
        "Ri": {"M": (1.0, 0.0), "I": (25.4, 0.0)},
    }
)
_FIELD = re.compile(r"([A-Z][a-z])=([-+]?\d+(?:\.\d+)?)([A-Za-z#])")
_ERRORS = ("Unable to measure", "Sync/address", "Unknown cmd", "Use chksum")  # the other texts are news, not answers


class Transmitter(NamedTuple):
    """What the instrument says of itself."""

    model: str
    firmware: str


def checksum(data: bytes) -> bytes:
    """The three characters after `data`, which begins with the address: CRC-16 with 0xA001 (WXT530 guide p. 199)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return bytes((0x40 | crc >> 12, 0x40 | crc >> 6 & 0x3F, 0x40 | crc & 0x3F))


def parse_fields(line: bytes) -> dict[str, float | None]:
    """The values that we know of `0R0,...` (without checksum) in our units; None is invalid. Raises WireError.

    Fields may come in any order. An unknown field is passed over; an unknown unit of a known one is an error.
    """
    values: dict[str, float | None] = {}
    _, *fields = _text(line).split(",")
    for field in fields:
        name = field[:2]
        if name not in _UNITS:
            if not re.fullmatch(r"[A-Z][a-z]=.*", field):
                raise WireError(f"the weather message holds {field[:40]!r}, which is no value; check the cable")
            continue
        found = _FIELD.fullmatch(field)
        if not found or name in values or (found[3] != "#" and found[3] not in _UNITS[name]):
            raise WireError(
                f"the weather message holds {field[:40]!r}, expected {name} once, a number and one of "
                f"{'#'.join(('', *_UNITS[name]))} as its unit"
            )
        if found[3] == "#":
            values[name] = None
        else:
            factor, offset = _UNITS[name][found[3]]
            values[name] = float(found[2]) * factor + offset
    return values


def parse_weather(line: bytes) -> WeatherReading:
    """The reading of a composite message without checksum. Raises WireError."""
    values = parse_fields(line)
    return WeatherReading(
        temperature_c=values.get("Ta"),
        humidity_percent=values.get("Ua"),
        pressure_hpa=values.get("Pa"),
        wind_m_s=values["Sm"] if "Sm" in values else values.get("Sx"),
        wind_direction_deg=values["Dm"] if "Dm" in values else values.get("Dx"),
        rain_mm_h=values.get("Ri"),
    )


def without_checksum(line: bytes) -> bytes:
    """The message before its three checksum characters. Raises WireError when they are wrong."""
    message, sent = line[:-3], line[-3:]
    if sent != checksum(message):
        raise WireError(
            f"the checksum of {line[:60]!r} is {sent!r}, computed is {checksum(message)!r}; check the cable"
        )
    return message


def parse_settings_reply(line: bytes) -> Transmitter:
    """`0XU,A=0,M=P,...,N=WXT520,V=1.00` -> model and firmware. Raises WireError."""
    fields = dict(field.partition("=")[::2] for field in _text(line).split(",")[1:])
    if not fields.get("N"):
        raise WireError(f"the answer to the question for its settings is {line[:80]!r}, which names no device")
    return Transmitter(fields["N"], fields.get("V", ""))


def _text(line: bytes) -> str:
    return line.decode("ascii", "replace").strip()


# --- Driver ----------------------------------------------------------------------------------------------

_BAUD = 19200


@dataclass(frozen=True)
class WxtSettings(LinkSettings):
    """`device_address`: the one character that the instrument answers to. `checksum`: ask for messages with one."""

    device_address: str = "0"
    checksum: bool = True


class WxtWeather:
    """A weather transmitter: `Weather`. Wind is the average when the message holds it, else the maximum.

    All calls may raise TransportTimeout, TransportLost and WireError. A call on a lost link first tries to make it
    again, once.
    """

    def __init__(self, link: Link, settings: WxtSettings) -> None:
        self._link, self._settings = link, settings
        self._conversation = Conversation(link, self.identify, self._quieten)
        self.unsolicited = 0
        """Lines that came unasked."""

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = self._ask("XU", parse_settings_reply)
        except (WireError, InstrumentFault) as error:
            raise WrongInstrument(
                f"{self._link.address} does not answer as a Vaisala WXT: {error}; check address and settings"
            ) from error
        if not found.model.startswith("WXT"):
            raise WrongInstrument(f"{self._link.address} is a {found.model[:40]}, expected a WXT; check the address")
        return self._conversation.recognise(Identity(f"Vaisala {found.model}", firmware=found.firmware))

    def read(self) -> WeatherReading:
        """Raises InstrumentFault when the instrument says that it cannot measure."""
        if not self._settings.checksum:
            return self._ask("R0", parse_weather)
        return self._ask("r0", lambda line: parse_weather(without_checksum(line)))

    def close(self) -> None:
        self._link.close()

    def _ask(self, question: str, parse: Callable[[bytes], T]) -> T:
        """One question, one line that begins like it; asked once more, in step again, when that failed."""
        return self._conversation.ask(self._command(question), lambda: parse(self._answer(question)))

    def _command(self, question: str) -> bytes:
        """With its end; a question in a small letter carries a checksum of its own (`0r0Kld`)."""
        command = (self._settings.device_address + question).encode("ascii")
        return command + (checksum(command) if question.startswith("r") else b"") + END

    def _answer(self, question: str) -> bytes:
        """The first line that answers; what comes unasked meanwhile is counted and skipped."""
        wanted = (self._settings.device_address + question).encode("ascii") + b","
        deadline = monotonic_s() + self._link.timeout_s
        while True:
            line = self._link.read_until(END, max(0.0, deadline - monotonic_s()))[: -len(END)]
            if line.startswith(wanted):
                return line
            text = line[3:].decode("ascii", "replace")
            if line[1:4].upper() == b"TX," and text.lstrip(",").startswith(_ERRORS):
                raise InstrumentFault(f"{self._link.address} answers {question} with {text.lstrip(',')[:40]!r}")
            self.unsolicited += 1

    def _quieten(self) -> None:
        """Skip a late answer, which would be taken for the next one: every answer names its question only."""
        deadline = monotonic_s() + self._link.timeout_s
        while self._link.read_available(QUIET_S):
            if monotonic_s() > deadline:
                break  # automatic messages come all the time; lines find their question themselves
        self._link.mark_in_step()


def connect(address: str, clock: Clock, settings: Settings) -> Weather:
    """Connect and identify the transmitter."""
    driver = "weather_wxt"
    chosen = parse_settings(WxtSettings, settings, driver, ("timeout_s",))
    if not re.fullmatch(r"[0-9A-Za-z]", chosen.device_address):
        raise BadInput(
            f'setting "device_address" of driver {driver} is "{chosen.device_address}"; give one of 0-9 A-Z a-z'
        )
    weather = WxtWeather(open_link(address, timeout_s=chosen.timeout_s, baud=_BAUD, log=chosen.log), chosen)
    with closed_on_error(weather):
        weather.identify()
    return weather
