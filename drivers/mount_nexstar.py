"""Celestron NexStar alt-azimuth mount on the serial line of its hand control (9600 baud, 8N1), or a bridge to it.

A request has no terminator: its length follows from its first byte. A reply ends in `#`, but `#` may also be
one of its data bytes, so replies are read by length. A rate is kept for ever, until the next one.
Sources: NexStar communication protocol (NexStar 8i manual p. 65); INDI `celestrondriver.cpp`, its unit test.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from drivers.settings import LinkSettings, parse_settings, require_positive
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="Celestron NexStar mount, hand control (also SynScan)",
    capability="mount",
    schemes=("serial", "tcp"),
    documentation="the maker's protocol document and manual: complete but for the firmware's rate limit",
    tested_with="simulator: INDI indi_celestron_gps, Hamlib rotctl",
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
        self._link = link
        self._clock = clock
        self._expected_model = settings.expected_model
        self._identity: Identity | None = None
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
                version = self._query(GET_VERSION, lambda: parse_binary(self._link.read(3)))
                model = self._query(GET_MODEL, lambda: parse_binary(self._link.read(2)))[0]
            except WireError as error:
                raise WrongInstrument(f"{self._link.address} does not answer as a NexStar mount: {error}") from error
        wanted = self._expected_model
        if model != wanted if wanted is not None else model not in MODELS:
            expected = f"model {wanted}, which the settings name" if wanted is not None else "a known NexStar"
            raise WrongInstrument(
                f"{self._link.address} answers as mount model {model} ({MODELS.get(model, 'unknown')}), "
                f'expected {expected}; check the address, or set "expected_model" = {model}'
            )
        found = Identity(MODELS.get(model, f"NexStar-compatible model {model}"), f"{version[0]}.{version[1]}")
        self._identity = self._identity or found
        if found.model != self._identity.model:
            raise WrongInstrument(
                f"{self._link.address} now answers as {found.model}, it was {self._identity.model}; check the address"
            )
        return found

    def read_position(self) -> MountReading:
        """Both angles. The mount reads them after the request's byte has arrived and before the reply's bytes
        leave, so the time on the line at both ends narrows down when that was."""

        def read() -> MountReading:
            azimuth_deg, elevation_deg = parse_position(self._link.read(POSITION_BYTES))
            earliest_ns, latest_ns = sent_ns[-1], self._clock.utc_ns()
            on_line_ns = (len(GET_POSITION) + POSITION_BYTES) * self._byte_ns
            if latest_ns - earliest_ns >= on_line_ns:  # else the line is faster than the settings say
                earliest_ns += len(GET_POSITION) * self._byte_ns
                latest_ns -= POSITION_BYTES * self._byte_ns
            half_ns = (latest_ns - earliest_ns) // 2
            return MountReading(azimuth_deg, elevation_deg, earliest_ns + half_ns, half_ns / NS_PER_S)

        sent_ns: list[int] = []
        return self._query(GET_POSITION, read, before=lambda: sent_ns.append(self._clock.utc_ns()))

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
                self._query(request, self._read_pass_through, attempts=1)

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start a slew. Not repeated when the mount is silent. BadInput beyond -90..90 deg elevation."""
        if not (math.isfinite(azimuth_deg) and -90.0 <= elevation_deg <= 90.0):
            raise BadInput(
                f"the mount cannot go to azimuth {azimuth_deg} deg, elevation {elevation_deg} deg; "
                "give an azimuth in degrees and an elevation of -90 to 90 deg"
            )
        self._query(go_to_request(azimuth_deg, elevation_deg), self._read_done, attempts=1)

    def is_slewing(self) -> bool:
        """Whether a go-to is under way."""
        return self._query(IS_SLEWING, lambda: parse_slewing(self._link.read(2)))

    def stop(self) -> None:
        """Cancel the go-to and command rate zero on both axes; tries all three before it raises.

        Raises InstrumentFault when an axis did not take it. Standstill itself shows in `read_position`.
        """
        errors: list[GroundStationError] = []
        with self._link.exchange():
            for request, read in (
                (CANCEL_GO_TO, self._read_done),
                (fixed_rate_stop_request(AZIMUTH), self._read_pass_through),
                (fixed_rate_stop_request(ELEVATION), self._read_pass_through),
            ):
                try:
                    self._query(request, read)
                except GroundStationError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _query(
        self,
        request: bytes,
        read: Callable[[], T],
        attempts: int = 2,
        before: Callable[[], None] | None = None,
    ) -> T:
        """One exchange: one write, one read; once more in step again when it failed and may be repeated."""
        with self._link.exchange():
            if self._link.lost:
                self._link.reconnect(self.identify)
            if not self._link.in_step:
                self._resynchronise()
            self._link.flush_input()
            if before:
                before()
            try:
                self._link.write(request)
                return read()
            except (TransportTimeout, WireError):
                self._link.mark_in_step(False)
                if attempts <= 1:
                    raise
            return self._query(request, read, attempts - 1, before)

    def _resynchronise(self) -> None:
        """Ask for an echo, another byte each time, until nothing but its answer comes last."""
        deadline = monotonic_s() + self._link.timeout_s
        heard = b""
        while True:
            byte = _ECHO_BYTES[self._echoes % len(_ECHO_BYTES)]
            self._echoes += 1
            self._link.flush_input()
            self._link.write(echo_request(byte))
            answer = self._listen_for(bytes((byte, ord("#"))), min(deadline, monotonic_s() + _ECHO_WAIT_S))
            if answer is None:
                self._link.mark_in_step()
                return
            heard = answer or heard
            if monotonic_s() >= deadline:
                break
        if heard:
            raise WireError(f"{self._link.address} answers {heard[:20]!r} to the echo request K{chr(byte)}")
        self._link.mark_silent()
        raise TransportTimeout(
            f"no mount answers at {self._link.address} within {self._link.timeout_s:g} s; check that the "
            "mount is on, its hand control connected and the address right"
        )

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
    driver = "mount_nexstar"
    chosen = parse_settings(NexStarSettings, settings, driver)
    for key in ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "rate_quantum_arcsec_s"):
        require_positive(getattr(chosen, key), key, driver)
    mount = NexStarMount(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    try:
        mount.identify()
    except BaseException:
        mount.close()
        raise
    return mount
