"""Celestron NexStar alt-azimuth mount on the serial line of its hand control (9600 baud, 8N1), or a bridge to it.

A request has no terminator: its length follows from its first byte. A reply ends in `#`, but `#` may also be
one of its data bytes, so replies are read by length. A rate is kept for ever, until the next one.
Sources: NexStar communication protocol (NexStar 8i manual p. 65); INDI `celestrondriver.cpp`, its unit test.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from drivers.conversation import Conversation, ask_until_answered
from drivers.mounts import reading_between, require_direction, try_all
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

DRIVER = DriverDescription(
    instrument="Celestron NexStar mount, hand control (also SynScan)",
    capability="mount",
    schemes=("serial", "tcp"),
    documentation="the maker's protocol document and manual: complete but for the firmware's rate limit",
    tested_with="INDI indi_celestron_gps and Hamlib rotctl (clients of the simulator)",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

AZIMUTH, ELEVATION = 16, 17  # AUX devices
MAX_RATE_WORD = 0xFFFC  # INDI uses 0xFFFD and above for the lunar, solar and sidereal rates
GET_VERSION, GET_MODEL, GET_POSITION, IS_SLEWING, CANCEL_GO_TO = b"V", b"m", b"z", b"L", b"M"
POSITION_BYTES = len("12AB0500,40000500#")
_TURN = 1 << 32
_HEX = frozenset(b"0123456789abcdefABCDEF")

MODELS: Mapping[int, str] = MappingProxyType(
    {
        1: "NexStar GPS",
        3: "NexStar i-Series",
        4: "NexStar i-Series SE",
        5: "CGE",
        6: "Advanced GT",
        7: "SLT",
        9: "CPC",
        10: "GT",
        11: "NexStar 4/5 SE",
        12: "NexStar 6/8 SE",
        13: "CGE Pro",
        14: "CGEM DX",
        15: "LCM",
        16: "Sky Prodigy",
        17: "CPC Deluxe",
        18: "GT 16",
        19: "StarSeeker",
        20: "Advanced VX",
        21: "Cosmos",
        22: "NexStar Evolution",
        23: "CGX",
        24: "CGX-L",
        25: "Astro Fi",
    }
)
"""Numbers answered to `m` (INDI `celestrondriver.cpp`)."""


def echo_request(byte: int) -> bytes:
    """`Kx`, answered by `x#`."""
    return bytes((ord("K"), byte))


def go_to_request(azimuth_deg: float, elevation_deg: float) -> bytes:
    """`b`: angles as fractions of a turn x 2^32, rounded to nearest; -90 deg is C0000000."""
    return b"b%08X,%08X" % (_turn_fraction(azimuth_deg), _turn_fraction(elevation_deg))


def variable_rate_request(axis: int, rate_arcsec_s: float) -> bytes:
    """Pass-through 6 (positive) or 7: arcsec/s x 4, rounded to nearest, capped below the special words."""
    word = min(math.floor(abs(rate_arcsec_s) * 4 + 0.5), MAX_RATE_WORD)
    return bytes((ord("P"), 3, axis, 7 if rate_arcsec_s < 0 else 6, word >> 8, word & 0xFF, 0, 0))


def fixed_rate_stop_request(axis: int) -> bytes:
    """Pass-through 36 with fixed rate 0."""
    return bytes((ord("P"), 2, axis, 36, 0, 0, 0, 0))


def parse_position(reply: bytes) -> tuple[float, float]:
    """Azimuth 0..360 deg and elevation -180..180 deg of `12AB0500,40000500#`. Raises WireError."""
    azimuth, comma, elevation, end = reply[:8], reply[8:9], reply[9:17], reply[17:]
    if comma != b"," or end != b"#" or not _HEX.issuperset(azimuth + elevation):
        raise WireError(f"the mount answered {reply!r} where 12AB0500,40000500# was expected; check the cable")
    elevation_deg = int(elevation, 16) * 360.0 / _TURN
    return int(azimuth, 16) * 360.0 / _TURN, elevation_deg - 360.0 if elevation_deg > 180.0 else elevation_deg


def parse_slewing(reply: bytes) -> bool:
    """`0#` or `1#` (ASCII). Raises WireError."""
    if reply not in (b"0#", b"1#"):
        raise WireError(f"the mount answered {reply!r} where 0# or 1# was expected; check the cable")
    return reply == b"1#"


def parse_binary(reply: bytes) -> bytes:
    """The data bytes before the final `#`. Raises WireError."""
    if reply[-1:] != b"#":
        raise WireError(f"the mount answered {reply!r}, which does not end in #; check the cable")
    return reply[:-1]


def _turn_fraction(angle_deg: float) -> int:
    return math.floor(angle_deg / 360.0 * _TURN + 0.5) % _TURN


# --- Driver ----------------------------------------------------------------------------------------------

_ECHO_BYTES = bytes(range(ord("g"), ord("z") + 1))  # none of them occurs in an ASCII reply
_BITS_PER_BYTE = 10  # with start and stop bit
_ECHO_WAIT_S = 0.7  # per attempt: a reply takes 20 ms at 9600 baud


@dataclass(frozen=True)
class NexStarSettings(LinkSettings):
    """Settings of the station file. The defaults are those of the NexStar class.

    `expected_model`: number that the mount must answer to `m`. `timeout_s`: 3.5 s is the worst case that the
    protocol document allows. `line_baud`: how fast bytes really travel, which a USB adapter may hide.
    """

    timeout_s: float = 3.5
    expected_model: int | None = None
    max_rate_deg_s: float = 4.5
    max_acceleration_deg_s2: float = 10.0
    rate_quantum_arcsec_s: float = 0.25
    command_latency_s: float = 0.03
    line_baud: int = 9600


class NexStarMount:
    """A NexStar mount: a `Mount`. All calls may raise TransportTimeout, TransportLost and WireError.

    A call on a lost link first tries to make it again, once; nothing that was commanded before is repeated.
    """

    def __init__(self, link: Link, clock: Clock, settings: NexStarSettings) -> None:
        self._link, self._clock = link, clock
        self._conversation = Conversation(link, self.identify, self._resynchronise)
        self._expected_model = settings.expected_model
        self._capabilities = MountCapabilities(
            settings.max_rate_deg_s,
            settings.max_acceleration_deg_s2,
            settings.rate_quantum_arcsec_s,
            settings.command_latency_s,
        )
        self._echoes = 0
        self._byte_ns = round(_BITS_PER_BYTE / settings.line_baud * NS_PER_S)

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    def identify(self) -> Identity:
        """Echo, firmware version and model. Raises WrongInstrument for anything but the mount meant."""
        with self._link.exchange():
            try:
                self._resynchronise()
                version = self._conversation.ask(GET_VERSION, lambda: parse_binary(self._link.read(3)))
                model = self._conversation.ask(GET_MODEL, lambda: parse_binary(self._link.read(2)))[0]
            except WireError as error:
                raise WrongInstrument(f"{self._link.address} does not answer as a NexStar mount: {error}") from error
        wanted = self._expected_model
        if model != wanted if wanted is not None else model not in MODELS:
            expected = f"model {wanted}, which the settings name" if wanted is not None else "a known NexStar"
            raise WrongInstrument(
                f"{self._link.address} answers as mount model {model} ({MODELS.get(model, 'unknown')}), "
                f'expected {expected}; check the address, or set "expected_model" = {model}'
            )
        name = MODELS.get(model, f"NexStar-compatible model {model}")
        return self._conversation.recognise(Identity(name, f"{version[0]}.{version[1]}"))

    def read_position(self) -> MountReading:
        """Both angles."""
        position, sent_ns, received_ns = self._conversation.ask_timed(
            GET_POSITION, lambda: parse_position(self._link.read(POSITION_BYTES)), self._clock
        )
        there_ns, back_ns = len(GET_POSITION) * self._byte_ns, POSITION_BYTES * self._byte_ns
        return reading_between(*position, sent_ns, received_ns, there_ns, back_ns)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Turn at these rates for ever; capped at the capability. Not repeated when the mount is silent.

        Raises BadInput for a rate that is no number, InstrumentFault when an axis does not take it.
        """
        requests = (
            variable_rate_request(AZIMUTH, self._capped(azimuth_arcsec_s)),
            variable_rate_request(ELEVATION, self._capped(elevation_arcsec_s)),
        )
        with self._link.exchange():
            for request in requests:
                self._conversation.ask(request, self._read_pass_through, attempts=1)

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start a slew. Not repeated when the mount is silent. BadInput beyond -90..90 deg elevation."""
        require_direction(azimuth_deg, elevation_deg)
        self._conversation.ask(go_to_request(azimuth_deg, elevation_deg), self._read_done, attempts=1)

    def is_slewing(self) -> bool:
        """Whether a go-to is under way."""
        return self._conversation.ask(IS_SLEWING, lambda: parse_slewing(self._link.read(2)))

    def stop(self) -> None:
        """Cancel the go-to and command rate zero on both axes; tries all three before it raises.

        Raises InstrumentFault when an axis did not take it. Standstill itself shows in `read_position`.
        """
        ask = self._conversation.ask
        with self._link.exchange():
            try_all(
                lambda: ask(CANCEL_GO_TO, self._read_done),
                lambda: ask(fixed_rate_stop_request(AZIMUTH), self._read_pass_through),
                lambda: ask(fixed_rate_stop_request(ELEVATION), self._read_pass_through),
            )

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _resynchronise(self) -> None:
        """Ask for an echo, another byte each time, until nothing but its answer comes last."""
        ask_until_answered(self._link, self._ask_for_echo, "the echo request K", "mount")

    def _ask_for_echo(self, deadline_s: float) -> bytes | None:
        byte = _ECHO_BYTES[self._echoes % len(_ECHO_BYTES)]
        self._echoes += 1
        self._link.flush_input()
        self._link.write(echo_request(byte))
        return self._listen_for(bytes((byte, ord("#"))), min(deadline_s, monotonic_s() + _ECHO_WAIT_S))

    def _listen_for(self, echo: bytes, until_s: float) -> bytes | None:
        """None once the last bytes are the echo, else what came instead."""
        heard = b""
        while (left := until_s - monotonic_s()) > 0.0:
            heard = (heard + self._link.read_available(left))[-64:]
            if heard.endswith(echo):
                return None
        return heard

    def _read_done(self) -> None:
        if (reply := self._link.read(1)) != b"#":
            raise WireError(f"the mount answered {reply!r} where # was expected; check the cable")

    def _read_pass_through(self) -> None:
        """`#`; a motor controller that does not answer shows as an extra 0 byte (or the digit 0)."""
        reply = self._link.read(1)
        if reply == b"#":
            return
        reply += self._link.read(1)
        if reply in (b"\0#", b"0#"):
            raise InstrumentFault(
                f"an axis of the mount at {self._link.address} did not take a rate; check the motor cable"
            )
        raise WireError(f"the mount answered {reply!r} where # was expected; check the cable")

    def _capped(self, rate_arcsec_s: float) -> float:
        if not math.isfinite(rate_arcsec_s):
            raise BadInput(f"a rate of {rate_arcsec_s} arcsec/s is no rate; nothing was commanded")
        limit = self._capabilities.max_rate_deg_s * 3600.0
        return max(-limit, min(limit, rate_arcsec_s))


def connect(address: str, clock: Clock, settings: Settings) -> Mount:
    """Connect and identify the mount; `clock` gives the world time of each reading."""
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "rate_quantum_arcsec_s")
    chosen = parse_settings(NexStarSettings, settings, "mount_nexstar", positive)
    mount = NexStarMount(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    with closed_on_error(mount):
        mount.identify()
    return mount
