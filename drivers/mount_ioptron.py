"""iOptron mounts by their RS-232 protocol, version 3 (115200 baud, 8N1).

Commands end in `#`; answers are a fixed number of characters, most of them with `#` at the end, `:MountInfo#` and the
answers to settings without. Angles travel in 0.01 arcsec. The mount slews to a direction and stands still there; it
has nine fixed speeds and no other ones, so it cannot follow a satellite. Sources: iOptron RS-232 Command Language 3.10
(2021); INDI `ioptronv3driver.cpp`; the runaway at azimuth 0: Hamlib `rotators/ioptron`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

from drivers.conversation import QUIET_S, Conversation, ask_until_answered
from drivers.mounts import reading_between, require_direction, try_all
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s, utc_text
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="iOptron mounts with RS-232 protocol 3 (AZ Mount Pro, CEM, GEM, iEQ45 Pro, Cube II)",
    capability="mount",
    schemes=("serial", "tcp"),
    documentation="the vendor's command language 3.10 and INDI; not documented: whether a new slew may replace one "
    "under way, and which way the arrows of an altazimuth mount turn",
    follows=False,
    tested_with="INDI indi_ioptronv3_telescope (client of the simulator)",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"#"
UNITS_PER_DEG = 360_000  # of 0.01 arcsec
TURN = 360 * UNITS_PER_DEG
J2000_NS = 946_728_000 * NS_PER_S  # 2000-01-01T12:00:00Z
MODEL, STATUS, POSITION, TIME = ":MountInfo#", ":GLS#", ":GAC#", ":GUT#"
MODEL_BYTES, POSITION_BYTES = 4, len("+32400000000000000#")
STOPPED, TRACKING, SLEWING, GUIDING, FLIPPING, TRACKING_WITH_PEC, PARKED, HOME = range(8)

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "0010": "Cube II EQ",
        "0011": "SmartEQ Pro+",
        "0025": "CEM25",
        "0026": "CEM26",  # INDI: CEM25-EC
        "0027": "CEM26-EC",
        "0028": "GEM28",
        "0029": "GEM28-EC",
        "0030": "iEQ30 Pro",
        "0040": "CEM40",
        "0041": "CEM40-EC",
        "0043": "GEM45",
        "0044": "GEM45-EC",
        "0045": "iEQ45 Pro EQ",
        "0046": "iEQ45 Pro AA",
        "0060": "CEM60",
        "0061": "CEM60-EC",
        "0070": "CEM70",
        "0071": "CEM70-EC",
        "0120": "CEM120",
        "0121": "CEM120-EC",
        "0122": "CEM120-EC2",
        "5010": "Cube II AA",
        "5035": "AZ Mount Pro",
        "5045": "iEQ45 Pro AA",
    }
)
ALT_AZIMUTH = frozenset(("0046", "5010", "5035", "5045"))
_STATUS = re.compile(rb"[+-]\d{8}\d{8}[0-2]([0-7])[0-4]\d[1-3][01]#")
_POSITION = re.compile(rb"([+-]\d{8})(\d{9})#")
_TIME = re.compile(rb"[+-]\d{3}[01](\d{13})#")
_FIRMWARE = re.compile(rb"(\d{6})(\d{6})#")
_LIMIT = re.compile(rb"([+-]\d\d)#")


class Direction(NamedTuple):
    """Azimuth 0 to 360 and altitude -90 to 90 deg; beyond the zenith the mount reports the mirrored altitude."""

    azimuth_deg: float
    altitude_deg: float


def parse_model(reply: bytes) -> str:
    """Four digits without `#`, one of the known models. Raises WireError."""
    text = reply.decode("ascii", "replace")
    if text not in MODELS:
        raise WireError(f"the answer to :MountInfo# is {reply[:20]!r}, which is no known model")
    return text


def parse_system_status(reply: bytes) -> int:
    """The system status in the answer to `:GLS#`. Raises WireError."""
    return int(_matched(_STATUS, reply, "the 23 characters of :GLS#")[1])


def parse_position(reply: bytes) -> Direction:
    """`+TTTTTTTTTTTTTTTTT#`: altitude, then azimuth. Raises WireError."""
    found = _matched(_POSITION, reply, "the 18 characters of :GAC#")
    altitude, azimuth = int(found[1]), int(found[2])
    if abs(altitude) > 90 * UNITS_PER_DEG or azimuth > TURN:
        raise WireError(f"the mount answered {reply!r}, which is no direction; check the cable")
    return Direction(azimuth % TURN / UNITS_PER_DEG, altitude / UNITS_PER_DEG)


def parse_time(reply: bytes) -> int:
    """UTC in ns of the answer to `:GUT#`. Raises WireError."""
    return int(_matched(_TIME, reply, "the 18 characters of :GUT#")[1]) * 1_000_000 + J2000_NS


def parse_firmware(reply: bytes) -> str:
    """The main board's date, YYMMDD, of the answer to `:FW1#`. Raises WireError."""
    return _matched(_FIRMWARE, reply, "12 digits")[1].decode("ascii")


def parse_limit(reply: bytes) -> int:
    """Whole degrees of the answer to `:GAL#`. Raises WireError."""
    return int(_matched(_LIMIT, reply, "a sign and 2 digits")[1])


def parse_done(reply: bytes) -> bool:
    """`1` accepted, `0` refused. Raises WireError."""
    if reply not in (b"0", b"1"):
        raise WireError(f"the mount answered {reply[:20]!r}, expected 0 or 1; check the cable")
    return reply == b"1"


def target_azimuth(azimuth_deg: float, from_deg: float) -> str:
    """`:Sz`, never with 0, where some firmware does not stop: the nearest value on the side of `from_deg` instead."""
    units = round(azimuth_deg % 360.0 * UNITS_PER_DEG) % TURN
    if units == 0:
        units = 1 if from_deg <= 180.0 else TURN - 1
    return f":Sz{units:09d}#"


def target_altitude(altitude_deg: float) -> str:
    """`:Sa` with sign."""
    return f":Sa{round(altitude_deg * UNITS_PER_DEG):+09d}#"


def set_time(utc_ns: int) -> str:
    """`:SUT` with milliseconds since J2000, rounded to nearest."""
    return f":SUT{(utc_ns - J2000_NS + 500_000) // 1_000_000:013d}#"


def _matched(pattern: re.Pattern[bytes], reply: bytes, expected: str) -> re.Match[bytes]:
    found = pattern.fullmatch(reply)
    if not found:
        raise WireError(f"the mount answered {reply[:40]!r}, expected {expected}; check the cable")
    return found


# --- Driver ----------------------------------------------------------------------------------------------

_BITS_PER_BYTE = 10  # with start and stop bit
_POLL_S = 0.05  # world time
_REST_S = 20.0  # world time in which a stopped mount must have come to rest
_CLOCK_TOLERANCE_S = 0.5
_UNTIRING = (TRACKING, GUIDING, FLIPPING, TRACKING_WITH_PEC)


@dataclass(frozen=True)
class IoptronSettings(LinkSettings):
    """Settings of the station file. `max_rate_deg_s`: of the slew, 1440 x sidereal for a CEM26, 900 for a CEM70.

    `expected_model`: the four digits that the mount must answer; None: any altazimuth mount. `altitude_limit_deg`: set
    in the mount when connecting (-89 to 89; with 0, some refuse altitude 0). `set_clock`: set the mount's clock to the
    station's when connecting.
    """

    expected_model: str | None = None
    max_rate_deg_s: float = 4.0
    max_acceleration_deg_s2: float = 4.0
    command_latency_s: float = 0.03
    altitude_limit_deg: int | None = None
    set_clock: bool = False
    line_baud: int = 115_200


class IoptronMount:
    """An iOptron mount: a `Mount` that follows nothing. All calls may raise TransportTimeout, TransportLost, WireError.

    Questions and settings are repeated once when they fail, in step again; slews are not.
    """

    def __init__(self, link: Link, clock: Clock, settings: IoptronSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self._conversation = Conversation(link, self.identify, self._resynchronise)
        self._byte_ns = round(_BITS_PER_BYTE / settings.line_baud * NS_PER_S)
        self._capabilities = MountCapabilities(
            settings.max_rate_deg_s, settings.max_acceleration_deg_s2, 0.0, settings.command_latency_s, "nothing"
        )

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    def identify(self) -> Identity:
        """Model and firmware. Raises WrongInstrument for anything but the mount meant."""
        with self._link.exchange():
            try:
                model = self._query(MODEL, self._read_model)
                firmware = self._query(":FW1#", lambda: parse_firmware(self._link.read_until(END)))
            except WireError as error:
                raise WrongInstrument(
                    f"{self._link.address} does not answer as an iOptron mount: {error}; check the address"
                ) from error
        wanted = self._settings.expected_model
        if wanted is not None and model != wanted:
            raise WrongInstrument(
                f"{self._link.address} answers as model {model} ({MODELS[model]}), expected {wanted}; check the address"
            )
        if wanted is None and model not in ALT_AZIMUTH:
            raise WrongInstrument(
                f"{self._link.address} answers as model {model} ({MODELS[model]}), whose axes are not azimuth and "
                f'elevation; if it is the one meant, set "expected_model" = "{model}"'
            )
        return self._conversation.recognise(Identity(MODELS[model], firmware))

    def read_position(self) -> MountReading:
        """Both angles."""
        direction, sent_ns, received_ns = self._conversation.ask_timed(
            POSITION.encode("ascii"), lambda: parse_position(self._link.read_until(END)), self._clock
        )
        there_ns, back_ns = len(POSITION) * self._byte_ns, POSITION_BYTES * self._byte_ns
        return reading_between(*direction, sent_ns, received_ns, there_ns, back_ns)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Raises InstrumentFault always."""
        raise InstrumentFault(
            "an iOptron mount turns at nine fixed speeds only (1 to 512 x sidereal and its fastest), so it cannot take "
            "a rate; it can go to a direction (go_to), and cannot follow a satellite"
        )

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Begin to slew; a parked mount is unparked first. Not repeated.

        Raises BadInput beyond -90..90 deg, InstrumentFault below the mount's altitude limit or beyond its axes.
        """
        require_direction(azimuth_deg, elevation_deg)
        with self._link.exchange():
            if self._system_status() == PARKED:
                self._set(":MP0#", "to unpark")
            here_deg = self._query(POSITION, lambda: parse_position(self._link.read_until(END))).azimuth_deg
            self._set(target_altitude(elevation_deg), "the altitude")
            self._set(target_azimuth(azimuth_deg, here_deg), "the azimuth")
            if not self._query(":MSS#", self._read_done, attempts=1):
                raise InstrumentFault(
                    f"the mount refuses to slew to azimuth {azimuth_deg:g} deg, elevation {elevation_deg:g} deg: it "
                    'lies below its altitude limit ("altitude_limit_deg" sets that) or beyond the reach of its axes'
                )

    def is_slewing(self) -> bool:
        """Whether a slew is under way."""
        return self._system_status() in (SLEWING, FLIPPING)

    def move(self, arrow: Literal["n", "s", "e", "w"], speed: int) -> None:
        """Press an arrow of the hand control, at one of the speeds 1 to 9, until `stop`: by hand, with eyes on it."""
        if arrow not in ("n", "s", "e", "w") or not 1 <= speed <= 9:
            raise BadInput(f'the mount has the arrows n, s, e, w and the speeds 1 to 9, not "{arrow}" and {speed}')
        with self._link.exchange():
            self._set(f":SR{speed}#", "the speed")
            self._link.write(f":m{arrow}#".encode("ascii"))  # has no answer

    def stop(self) -> None:
        """End slew, arrows and tracking, all four tried before it raises, and see the mount come to rest.

        Raises InstrumentFault when it goes on.
        """
        with self._link.exchange():
            try_all(*(partial(self._set, command, "to stop") for command in (":Q#", ":qR#", ":qD#", ":ST0#")))
            deadline_ns = self._clock.utc_ns() + round(_REST_S * NS_PER_S)
            while (status := self._system_status()) in (SLEWING, *_UNTIRING):
                if self._clock.utc_ns() > deadline_ns:
                    raise InstrumentFault(
                        f"the mount was told to stop and still reports status {status}; take its power away"
                    )
                self._clock.sleep_s(_POLL_S)

    def park(self) -> None:
        """Begin to slew to the park position of the mount's own settings."""
        if not self._query(":MP1#", self._read_done, attempts=1):
            raise InstrumentFault("the mount refuses to park; look at its hand control")

    def clock_utc_ns(self) -> int:
        """What the mount's clock says, to 1 ms."""
        return self._query(TIME, lambda: parse_time(self._link.read_until(END)))

    def set_clock(self) -> None:
        """Set the mount's clock to the station's. InstrumentFault when it does not read back."""
        with self._link.exchange():
            self._set(set_time(self._clock.utc_ns()), "the time")
            found_ns, now_ns = self.clock_utc_ns(), self._clock.utc_ns()
            if abs(found_ns - now_ns) > _CLOCK_TOLERANCE_S * max(1.0, self._clock.speed) * NS_PER_S:
                raise InstrumentFault(f"the mount's clock was set and reads {utc_text(found_ns)} at {utc_text(now_ns)}")

    def altitude_limit_deg(self) -> int:
        """Below it the mount refuses to slew."""
        return self._query(":GAL#", lambda: parse_limit(self._link.read_until(END)))

    def set_altitude_limit_deg(self, limit_deg: int) -> None:
        """-89 to 89 (BadInput). InstrumentFault when it does not read back."""
        if not -89 <= limit_deg <= 89:
            raise BadInput(f"an altitude limit of {limit_deg} deg is none; give whole degrees from -89 to 89")
        with self._link.exchange():
            self._set(f":SAL{limit_deg:+03d}#", "the altitude limit")
            if (found := self.altitude_limit_deg()) != limit_deg:
                raise InstrumentFault(f"the altitude limit was set to {limit_deg} deg and reads back {found} deg")

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _system_status(self) -> int:
        return self._query(STATUS, lambda: parse_system_status(self._link.read_until(END)))

    def _set(self, command: str, what: str) -> None:
        if not self._query(command, self._read_done):
            raise InstrumentFault(f"the mount at {self._link.address} refused {what} ({command})")

    def _read_done(self) -> bool:
        return parse_done(self._link.read(1))

    def _read_model(self) -> str:
        """Four characters and then silence: a lost or doubled one would make another model."""
        reply = self._link.read(MODEL_BYTES)
        return parse_model(reply + self._link.read_available(QUIET_S))

    def _query(self, request: str, read: Callable[[], T], attempts: int = 2) -> T:
        return self._conversation.ask(request.encode("ascii"), read, attempts)

    def _resynchronise(self) -> None:
        """Ask for the model until it comes last, and silence after it."""
        ask_until_answered(self._link, self._ask_for_model, MODEL, "mount")

    def _ask_for_model(self, deadline_s: float) -> bytes | None:
        self._link.flush_input()
        self._link.write(MODEL.encode("ascii"))
        answer, wait_s = b"", self._link.timeout_s / 3.0
        while more := self._link.read_available(max(0.0, wait_s)):
            answer, wait_s = (answer + more)[-64:], QUIET_S
            if monotonic_s() > deadline_s:
                raise WireError(f"{self._link.address} does not stop sending; check that it is a mount")
        return None if answer[-MODEL_BYTES:].decode("ascii", "replace") in MODELS else answer


def connect(address: str, clock: Clock, settings: Settings) -> Mount:
    """Connect and identify the mount; `clock` gives the world time of each reading."""
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "line_baud")
    chosen = parse_settings(IoptronSettings, settings, "mount_ioptron", positive)
    link = open_link(address, timeout_s=chosen.timeout_s, baud=chosen.line_baud, log=chosen.log)
    mount = IoptronMount(link, clock, chosen)
    with closed_on_error(mount):
        mount.identify()
        if chosen.altitude_limit_deg is not None:
            mount.set_altitude_limit_deg(chosen.altitude_limit_deg)
        if chosen.set_clock:
            mount.set_clock()
    return mount
