"""Azimuth-elevation rotators of radio amateurs by EasyComm II (serial, or TCP): they go to one position after another.

Commands are two letters and a value, in lines; an answer echoes the letters of its question. Nothing acknowledges a
command, though many firmwares answer one with the position: so before the first question after it the driver asks for
the version and passes over what comes before that. Sources: C. Jackson's specification (easycomm.txt of WiSP, kept in
Hamlib under rotators/easycomm), what Hamlib 4.5.4 sends (`rotctl -m 202`), and public logs of controllers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from drivers.conversation import Conversation
from drivers.mounts import Way, reading_between
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="EasyComm II antenna rotators (SatNOGS and others)",
    capability="mount",
    schemes=("serial", "tcp"),
    documentation="The published specification, one page: positions in steps of 0.1 deg and stop, complete. It has no "
    "rates, limits, acknowledgement or status (GS is of EasyComm III) and leaves open how an answer ends: a line is "
    "expected. Whether it moves is seen in its positions; a controller that does not answer VE is refused",
    tested_with="our simulator, which Hamlib 4.5.4 drives too (rotctl -m 202)",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

POSITION, VERSION, STOP = b"AZ EL\n", b"VE\n", b"SA SE\n"
_ANGLES = re.compile(r"AZ([+-]?\d{1,3}(?:\.\d{1,6})?) ?EL([+-]?\d{1,3}(?:\.\d{1,6})?)")


def go_to(azimuth_deg: float, elevation_deg: float) -> bytes:
    """`AZ120.5 EL45.3` with its end: not of fixed width, one decimal place."""
    return f"AZ{azimuth_deg:.1f} EL{elevation_deg:.1f}\n".encode("ascii")


def parse_position(answer: bytes) -> tuple[float, float]:
    """Azimuth and elevation in degrees, of any turn, from `AZ120.5 EL45.3`. Raises WireError."""
    text = " ".join(answer.decode("ascii", "replace").split())
    if not (found := _ANGLES.fullmatch(text)):
        raise WireError(f"the rotator answered {text[:40]!r} where AZ and EL with their angles were expected")
    return float(found[1]), float(found[2])


def parse_version(answer: bytes) -> str:
    """The text after `VE`. Raises WireError."""
    text = answer.decode("ascii", "replace").strip()
    if not text.startswith("VE"):
        raise WireError(f"the rotator answered {text[:40]!r} where VE and its version were expected")
    return text[2:].strip()


# --- Driver ----------------------------------------------------------------------------------------------

_STILL_DEG = 0.15  # two readings so close are the same place: they come in steps of 0.1 deg


@dataclass(frozen=True)
class EasycommSettings(LinkSettings):
    """Settings of the station file; what the rotator can do, the protocol does not tell.

    `rests_after_s`: so long (world time) without motion it is at rest, and either within `tolerance_deg` of its target
    or has failed.
    """

    timeout_s: float = 1.0
    elevation_deg: tuple[float, float] = (0.0, 90.0)
    max_rate_deg_s: float = 3.0
    max_acceleration_deg_s2: float = 3.0
    command_latency_s: float = 0.1
    tolerance_deg: float = 0.5
    rests_after_s: float = 2.0


class EasycommMount:
    """An EasyComm II rotator: a `Mount` that follows by positions.

    All calls may raise TransportTimeout, TransportLost, WireError and InstrumentFault (an alarm). A call on a lost link
    first tries to make it again, once; nothing that was commanded before is repeated.
    """

    def __init__(self, link: Link, clock: Clock, settings: EasycommSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self._conversation = Conversation(link, self.identify, self._get_into_step)
        self._version: str | None = None
        self._way = Way(
            link.address, _STILL_DEG, settings.tolerance_deg, settings.rests_after_s, settings.rests_after_s
        )
        self.capabilities = MountCapabilities(
            settings.max_rate_deg_s,
            settings.max_acceleration_deg_s2,
            rate_quantum_arcsec_s=0.0,  # it takes no rates
            command_latency_s=settings.command_latency_s,
            follows="positions",
            tolerance_deg=settings.tolerance_deg,
        )

    def identify(self) -> Identity:
        """Its version, which is all that it says of itself. Raises WrongInstrument if that or the position is none."""
        try:
            version, _, _ = self._ask(VERSION, parse_version)
            self._ask(POSITION, parse_position)
        except WireError as error:
            raise WrongInstrument(f"{self._link.address} does not answer as EasyComm II does: {error}") from error
        self._version = self._version or version
        if version != self._version:
            raise WrongInstrument(
                f'{self._link.address} now answers as version "{version}", it was "{self._version}"; check the address'
            )
        return Identity("EasyComm II rotator", firmware=version)

    def read_position(self) -> MountReading:
        """Both angles in steps of 0.1 deg, of some moment between question and answer."""
        (azimuth_deg, elevation_deg), sent_ns, received_ns = self._ask(POSITION, parse_position)
        return reading_between(azimuth_deg % 360.0, elevation_deg, sent_ns, received_ns)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Always InstrumentFault: the protocol has no rates."""
        raise InstrumentFault(f"the rotator at {self._link.address} takes positions, no rates; nothing was commanded")

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start to move; which way round is up to the rotator. Raises BadInput outside the settings' elevations."""
        low, high = self._settings.elevation_deg
        if not (math.isfinite(azimuth_deg) and low <= elevation_deg <= high):
            place = f"azimuth {azimuth_deg}, elevation {elevation_deg} deg"
            raise BadInput(f"the rotator cannot go to {place}; its elevation is limited to {low:g}..{high:g} deg")
        self._way.begin(azimuth_deg, elevation_deg, self._clock.utc_ns())
        self._tell(go_to(azimuth_deg % 360.0, elevation_deg))

    def is_slewing(self) -> bool:
        """Whether it is still on its way, as its positions tell. InstrumentFault when it rests short of its target."""
        return self._way.goes_on(self.read_position)

    def stop(self) -> None:
        """Stop both axes, and hear from the rotator afterwards, for it does not acknowledge."""
        self._tell(STOP)
        self._way.end()
        self.read_position()

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _tell(self, command: bytes) -> None:
        """At once, in step or not: a stop does not wait."""
        with self._link.exchange():
            if self._link.lost:
                self._link.reconnect(self.identify)
            self._link.write(command)
            self._link.mark_in_step(False)  # it may answer, or not

    def _ask(self, question: bytes, parse: Callable[[bytes], T]) -> tuple[T, int, int]:
        """The answer, and when (UTC ns) the question was sent and the answer received; asked again when that failed."""
        return self._conversation.ask_timed(question, lambda: parse(self._answer(question)), self._clock)

    def _get_into_step(self) -> None:
        self._link.write(VERSION)
        self._answer(VERSION)
        self._link.mark_in_step()

    def _answer(self, question: bytes) -> bytes:
        """The next line with the letters of the question; others are passed over. InstrumentFault for an alarm."""
        deadline = monotonic_s() + self._link.timeout_s
        line = b""
        while (left_s := deadline - monotonic_s()) > 0.0 or not line:
            line = self._link.read_until(b"\n", max(0.0, left_s)).strip()
            if line.startswith(b"AL"):
                self._link.mark_in_step(False)
                raise InstrumentFault(f"the rotator at {self._link.address} raises an alarm: {line[2:42]!r}")
            if line.startswith(question[:2]) and line != question.strip():  # that would be an echo
                whole = question != POSITION or b"EL" in line
                return line if whole else line + b" " + self._link.read_until(b"\n", max(0.0, left_s))
        raise WireError(f"{self._link.address} answered {line[:40]!r} to {question!r}; check what is connected there")


def connect(address: str, clock: Clock, settings: Settings) -> Mount:
    """Connect and identify the rotator; `clock` gives the world time of each reading."""
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "tolerance_deg", "rests_after_s")
    chosen = parse_settings(EasycommSettings, settings, "mount_easycomm", positive)
    mount = EasycommMount(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    with closed_on_error(mount):
        mount.identify()
    return mount
