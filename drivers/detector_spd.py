"""S-Fifteen SPD single-photon detector (avalanche photodiode module) on its USB serial line.

A command ends with CR LF; a question (it ends in `?`) is answered by one line, a setting by nothing, so every
setting is read back. Source: pyS15 `single_photon_detector.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from drivers.conversation import Conversation, skip_late_answers
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import Detector, DriverDescription, Identity, Settings

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="S-Fifteen SPD single-photon detector (avalanche photodiode)",
    capability="detector",
    schemes=("serial", "tcp"),
    documentation="the vendor's client pyS15: every command; ranges and error texts are not documented, and the lines "
    "carry no checksum: settings are read until two answers agree, a measured value that lost a digit cannot be told",
    tested_with="our simulator, which the vendor's S15lib drives too",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\r\n"
IDENTIFY = "*IDN?"


def command(name: str, value: float) -> bytes:
    """`hvolt 210.5` with its end; at most six decimals, never an exponent."""
    return f"{name} {value:.6f}".rstrip("0").rstrip(".").encode("ascii") + END


def question(text: str) -> bytes:
    """`hvolt?` with its end."""
    return text.encode("ascii") + END


def parse_identity(line: bytes) -> Identity:
    """The answer to *IDN?, `maker,model,serial,firmware` or any text that contains SPD. Raises WireError."""
    text = line.strip().decode("ascii", "replace")
    if "SPD" not in text:
        raise WireError(f"the answer to *IDN? is {text!r}, expected one that contains SPD")
    fields = [field.strip() for field in text.split(",")]
    if len(fields) == 4:
        return Identity(f"{fields[0]} {fields[1]}", firmware=fields[3], serial=fields[2])
    return Identity(text)


def parse_number(line: bytes) -> float:
    """A finite number on a line of its own. Raises WireError."""
    try:
        value = float(line.decode("ascii"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise WireError(f"the detector answered {line!r} where a number was expected; check the cable")
    return value


def parse_switch(line: bytes) -> bool:
    """0 or 1. Raises WireError."""
    if line.strip() not in (b"0", b"1"):
        raise WireError(f"the detector answered {line!r} where 0 or 1 was expected; check the cable")
    return line.strip() == b"1"


def parse_counts(line: bytes) -> int:
    """A whole number, not negative. Raises WireError."""
    value = parse_number(line)
    if value < 0 or value != int(value):
        raise WireError(f"the detector answered {line!r} where a number of counts was expected")
    return int(value)


# --- Driver ----------------------------------------------------------------------------------------------

_SETTLE_S = 1.0  # world time in which a setting must read back; the high voltage takes 0.1 s
_POLL_S = 0.02
_TIME_TOLERANCE_MS = 0.5  # of the integration, as it reads back


@dataclass(frozen=True)
class SpdSettings(LinkSettings):
    """Settings of the station file: the highest bias allowed, and how exactly a setting must read back."""

    timeout_s: float = 2.0
    max_bias_v: float | None = None
    bias_tolerance_v: float = 0.5
    threshold_tolerance_v: float = 0.005
    temperature_tolerance_c: float = 0.1


class SpdDetector:
    """An SPD: a `Detector`. All calls may raise TransportTimeout, TransportLost and WireError.

    A call on a lost link first tries to make it again, once; nothing that was set before is set again.
    """

    def __init__(self, link: Link, clock: Clock, settings: SpdSettings) -> None:
        self._link = link
        self._clock = clock
        self._settings = settings
        self._conversation = Conversation(link, self.identify, self._resynchronise)

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = self._query(IDENTIFY, parse_identity)
        except WireError as error:
            raise WrongInstrument(
                f"{self._link.address} is not an S-Fifteen SPD: {error}; check the address"
            ) from error
        return self._conversation.recognise(found)

    def bias_v(self) -> float:
        return self._setting("hvolt", self._settings.bias_tolerance_v)

    def set_bias_v(self, bias_v: float) -> None:
        """Raises BadInput above the station's limit, InstrumentFault when it does not read back."""
        limit = self._settings.max_bias_v
        if limit is not None and bias_v > limit:
            raise BadInput(f'a bias of {bias_v} V is above the limit "max_bias_v" = {limit} V; nothing was set')
        self._set("hvolt", bias_v, self._settings.bias_tolerance_v, "V")

    def threshold_v(self) -> float:
        return self._setting("threshvolt", self._settings.threshold_tolerance_v)

    def set_threshold_v(self, threshold_v: float) -> None:
        """Raises InstrumentFault when it does not read back."""
        self._set("threshvolt", threshold_v, self._settings.threshold_tolerance_v, "V")

    def temperature_c(self) -> float:
        return self._query("temp?", parse_number)

    def temperature_setpoint_c(self) -> float:
        return self._setting("settemp", self._settings.temperature_tolerance_c)

    def set_temperature_setpoint_c(self, temperature_c: float) -> None:
        """Cools only while `is_cooling`. Raises InstrumentFault when it does not read back."""
        self._set("settemp", temperature_c, self._settings.temperature_tolerance_c, "C")

    def is_cooling(self) -> bool:
        """Whether its control loop holds the temperature at the setpoint; else the diode is as warm as the room."""
        return self._conversation.agreed(lambda: self._query("loop?", parse_switch), "loop?")

    def switch_cooling(self, on: bool) -> None:
        """Raises InstrumentFault when it does not read back."""
        with self._link.exchange():
            self._conversation.tell(command("loop", on))
            if self.is_cooling() is not on:
                raise InstrumentFault(
                    f"the detector at {self._link.address} did not switch its cooling {'on' if on else 'off'}; "
                    "switch it off and on, then try again"
                )

    def counts(self, integration_s: float) -> int:
        """Counts over `integration_s` of world time; the answer comes when it is over. Not repeated."""
        if not 0.0 < integration_s < math.inf:
            raise BadInput(f"an integration of {integration_s} s is none; give a number of seconds above 0")
        wait_s = integration_s / self._clock.speed + self._link.timeout_s
        with self._link.exchange():
            self._set("time", integration_s * 1000.0, _TIME_TOLERANCE_MS, "ms")
            return self._query("counts?", parse_counts, attempts=1, timeout_s=wait_s)

    def close(self) -> None:
        """Give the link back; changes nothing."""
        self._link.close()

    def _set(self, name: str, value: float, tolerance: float, unit: str) -> None:
        if not math.isfinite(value):
            raise BadInput(f"{name} cannot be {value}; give a number")
        with self._link.exchange():
            self._conversation.tell(command(name, value))
            deadline = monotonic_s() + max(_SETTLE_S / self._clock.speed, 5 * _POLL_S)
            while abs((found := self._query(f"{name}?", parse_number)) - value) > tolerance:
                if monotonic_s() > deadline:
                    raise InstrumentFault(
                        f"the detector at {self._link.address} refused {name} {value:g} {unit}: it reads "
                        f"back {found:g} {unit}; choose a value in its range"
                    )
                sleep_wall_s(_POLL_S)

    def _setting(self, name: str, tolerance: float) -> float:
        """What is set does not change by itself, so a digit that was lost on the way is seen by asking again."""
        return self._conversation.agreed(
            lambda: self._query(f"{name}?", parse_number), f"{name}?", lambda a, b: abs(a - b) <= tolerance
        )

    def _query(self, text: str, parse: Callable[[bytes], T], attempts: int = 2, timeout_s: float | None = None) -> T:
        """One question, one line; asked once more, in step again, when that failed."""
        return self._conversation.ask(
            question(text), lambda: parse(self._link.read_until(END, timeout_s)[: -len(END)]), attempts
        )

    def _resynchronise(self) -> None:
        skip_late_answers(self._link, question(IDENTIFY), END, lambda line: b"SPD" in line, "an SPD")


def connect(address: str, clock: Clock, settings: Settings) -> Detector:
    """Connect and identify the detector; integration and settling take the world time of `clock`."""
    positive = ("timeout_s", "bias_tolerance_v", "threshold_tolerance_v", "temperature_tolerance_c")
    chosen = parse_settings(SpdSettings, settings, "detector_spd", positive)
    detector = SpdDetector(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    with closed_on_error(detector):
        detector.identify()
    return detector
