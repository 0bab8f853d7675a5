"""Rotators of radio amateurs and others behind Hamlib's `rotctld` (TCP): they go to positions, one after the other.

`+` before a command asks for the extended reply: the command, its values a line each, and `RPRT n` at the end (0 is
well done). The daemon never answers a command that it does not know. Sources: rotctld(1) and rotctl(1) of
Hamlib 4.5.4, and what its dummy rotator answered.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from drivers.conversation import Conversation, await_silence
from drivers.mounts import Way, reading_between
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="rotators behind Hamlib's rotctld",
    capability="mount",
    schemes=("tcp",),
    documentation="rotctld(1) of Hamlib 4.5.4, extended response protocol; positions only (rates are not part of it); "
    "whether it moves is seen in its positions, because the status flags of its own dummy are always set",
    tested_with="Hamlib 4.5.4: rotctld with the dummy rotator",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\n"
GET_POSITION, STOP, GET_INFO, DUMP_STATE = "get_pos", "stop", "get_info", "dump_state"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_REPORT = re.compile(r"RPRT (-?\d{1,3})")
_MOST_LINES = 200  # dump_caps, the longest answer, has fewer

ERRORS: Mapping[int, str] = MappingProxyType(
    {
        -1: "it calls a parameter invalid",
        -2: "its configuration is invalid",
        -3: "it has no memory left",
        -4: "it does not implement this",
        -5: "its rotator did not answer in time",
        -6: "it cannot reach its rotator",
        -7: "it has an internal error",
        -8: "it did not understand its rotator",
        -9: "its rotator rejected the command",
        -10: "a value was truncated",
        -11: "it does not offer this",
    }
)
"""`enum rig_errcode_e` of Hamlib's rig.h."""


@dataclass(frozen=True)
class Limits:
    """Where the rotator can go, from `dump_state`; a full circle and 0 to 90 deg where it does not say."""

    azimuth_deg: tuple[float, float] = (0.0, 360.0)
    elevation_deg: tuple[float, float] = (0.0, 90.0)

    def reach(self, azimuth_deg: float, from_deg: float) -> float | None:
        """The turn of an azimuth that lies in the limits, the nearest to `from_deg`; None when none does."""
        low, high = self.azimuth_deg
        turns = (azimuth_deg % 360.0 + 360.0 * k for k in range(-3, 4))
        return min((a for a in turns if low <= a <= high), key=lambda a: abs(a - from_deg), default=None)


def request(command: str, *values: float) -> bytes:
    r"""`+\set_pos 120.50 45.25` with its end."""
    return b"+\\" + " ".join((command, *(f"{value:.2f}" for value in values))).encode("ascii") + END


def parse_report(line: bytes) -> int | None:
    """The number of `RPRT n`, None for any other line."""
    found = _REPORT.fullmatch(line.decode("ascii", "replace"))
    return int(found[1]) if found else None


def parse_values(command: str, lines: list[bytes]) -> dict[str, str]:
    """The values by name of an answer whose `RPRT 0` has been taken off. Raises WireError."""
    first, *rest = [line.decode("ascii", "replace").strip() for line in lines] or [""]
    if first.partition(":")[0] != command or ":" not in first:
        raise WireError(f"rotctld answered {first!r}, which is not the answer to {command}")
    values = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            name, _, value = line.partition("=")
        values[name.strip()] = value.strip()
    return values


def parse_position(lines: list[bytes]) -> tuple[float, float]:
    """Azimuth and elevation in degrees. Raises WireError."""
    values = parse_values(GET_POSITION, lines)
    if list(values) != ["Azimuth", "Elevation"]:
        raise WireError(f"rotctld answered {values!r} where Azimuth and Elevation were expected")
    azimuth_deg, elevation_deg = _number(values["Azimuth"]), _number(values["Elevation"])
    if not (-720.0 <= azimuth_deg <= 720.0 and -360.0 <= elevation_deg <= 360.0):
        raise WireError(f"rotctld answered {azimuth_deg} and {elevation_deg} deg, which is no position")
    return azimuth_deg, elevation_deg


def parse_state(lines: list[bytes]) -> tuple[str, Limits]:
    """Model number and limits of `dump_state`. Raises WireError."""
    values = parse_values(DUMP_STATE, lines)
    model = values.get("Rotor Model", "")
    if not model.isdecimal():
        raise WireError(f"rotctld answered the model {model!r}, expected a number")
    known = Limits()
    return model, Limits(
        _range(values, "Minimum Azimuth", "Maximum Azimuth", known.azimuth_deg),
        _range(values, "Minimum Elevation", "Maximum Elevation", known.elevation_deg),
    )


def _range(values: Mapping[str, str], low: str, high: str, unsaid: tuple[float, float]) -> tuple[float, float]:
    if low not in values or high not in values:
        return unsaid
    limits = _number(values[low]), _number(values[high])
    if limits[0] >= limits[1]:
        raise WireError(f"rotctld says that the rotator goes from {limits[0]} to {limits[1]} deg, which is no range")
    return limits


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise WireError(f"rotctld answered {text[:40]!r} where a number was expected")
    return float(text)


# --- Driver ----------------------------------------------------------------------------------------------

_STILL_DEG = 0.02  # two readings so close are the same place: they come in steps of 0.01 deg


@dataclass(frozen=True)
class RotctldSettings(LinkSettings):
    """Settings of the station file; the defaults are those of Hamlib's dummy rotator.

    `expected_model`: Hamlib's number of the rotator. `tolerance_deg`: so close to its target it has arrived.
    `settling_s`: so long (world time) without motion short of its target it has failed. `rests_after_s`: near its
    target, it must not have moved for so long.
    """

    expected_model: int | None = None
    max_rate_deg_s: float = 6.0
    max_acceleration_deg_s2: float = 5.0
    command_latency_s: float = 0.1
    tolerance_deg: float = 0.5
    settling_s: float = 3.0
    rests_after_s: float = 0.3


class RotctldMount:
    """A rotator behind rotctld: a `Mount` that follows by positions.

    All calls may raise TransportTimeout, TransportLost, WireError and InstrumentFault. A call on a lost link first
    tries to make it again, once; nothing that was commanded before is repeated.
    """

    def __init__(self, link: Link, clock: Clock, settings: RotctldSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self._conversation = Conversation(link, self.identify, self._resynchronise)
        self._limits = Limits()
        self._way = Way(link.address, _STILL_DEG, settings.tolerance_deg, settings.rests_after_s, settings.settling_s)
        self._capabilities = MountCapabilities(
            settings.max_rate_deg_s,
            settings.max_acceleration_deg_s2,
            rate_quantum_arcsec_s=36.0,  # the 0.01 deg of a position, in a second
            command_latency_s=settings.command_latency_s,
            follows="positions",
            tolerance_deg=settings.tolerance_deg,
        )

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    @property
    def limits(self) -> Limits:
        """Where it can go, as it says."""
        return self._limits

    def identify(self) -> Identity:
        """Model number, name and limits. Raises WrongInstrument for anything but the rotator meant."""
        with self._link.exchange():
            try:
                model, limits = self._ask(DUMP_STATE, parse_state)
                try:
                    name = self._ask(GET_INFO, lambda lines: parse_values(GET_INFO, lines).get("Info", ""))
                except InstrumentFault:  # many rotators have none
                    name = ""
            except (WireError, InstrumentFault) as error:
                raise WrongInstrument(f"{self._link.address} does not answer as rotctld does: {error}") from error
        wanted = self._settings.expected_model
        if wanted is not None and int(model) != wanted:
            raise WrongInstrument(
                f"{self._link.address} drives Hamlib's rotator model {model}, the settings expect {wanted}; check the "
                f'address, or set "expected_model" = {model}'
            )
        found = Identity(f"Hamlib rotator {model}" + (f": {name}" if name else ""))
        self._conversation.recognise(found)
        self._limits = limits
        return found

    def read_position(self) -> MountReading:
        """Both angles, of some moment between question and answer."""
        position, sent_ns, received_ns = self._conversation.ask_timed(
            request(GET_POSITION), lambda: self._answer(GET_POSITION, parse_position), self._clock
        )
        return reading_between(*position, sent_ns, received_ns)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Always InstrumentFault: the protocol has no rates."""
        raise InstrumentFault(f"the rotator at {self._link.address} takes positions, no rates; nothing was commanded")

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start to move, by the turn nearest to where it is; not repeated when rotctld is silent.

        Raises BadInput outside the limits that rotctld names.
        """
        low, high = self._limits.elevation_deg
        if not (math.isfinite(azimuth_deg) and low <= elevation_deg <= high):
            raise BadInput(
                f"the rotator cannot go to azimuth {azimuth_deg} deg, elevation {elevation_deg} deg; "
                f"its elevation is limited to {low:g}..{high:g} deg"
            )
        here = self.read_position()
        azimuth = self._limits.reach(azimuth_deg, here.azimuth_deg)
        if azimuth is None:
            low, high = self._limits.azimuth_deg
            raise BadInput(f"the rotator cannot go to azimuth {azimuth_deg} deg; it is limited to {low:g}..{high:g}")
        self._way.begin(azimuth, elevation_deg, self._clock.utc_ns())
        self._ask("set_pos", lambda lines: parse_values("set_pos", lines), (azimuth, elevation_deg), attempts=1)

    def is_slewing(self) -> bool:
        """Whether it is still on its way to the last target, as its positions tell.

        Raises InstrumentFault when it rests short of the target for `settling_s`.
        """
        return self._way.goes_on(self.read_position)

    def stop(self) -> None:
        """Stop at once; the rotator forgets its target."""
        self._ask(STOP, lambda lines: parse_values(STOP, lines))
        self._way.end()

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _ask(
        self,
        command: str,
        parse: Callable[[list[bytes]], T],
        values: tuple[float, ...] = (),
        attempts: int = 2,
    ) -> T:
        """One question and its answer; asked once more, in step again, when that failed and may be repeated."""
        return self._conversation.ask(request(command, *values), lambda: self._answer(command, parse), attempts)

    def _answer(self, command: str, parse: Callable[[list[bytes]], T]) -> T:
        """Raises InstrumentFault when rotctld refuses."""
        code, lines = self._read_answer(monotonic_s() + self._link.timeout_s)
        if code == 0:
            return parse(lines)
        parse_values(command, lines)  # is it the answer to this command at all?
        why = ERRORS.get(code, "it does not say why")
        raise InstrumentFault(f"rotctld at {self._link.address} refused {command}: {why} (RPRT {code})")

    def _read_answer(self, deadline: float) -> tuple[int, list[bytes]]:
        """The number of the report, and the lines before it."""
        lines: list[bytes] = []
        while len(lines) < _MOST_LINES:
            line = self._link.read_until(END, max(0.0, deadline - monotonic_s())).rstrip(b"\r\n")
            if (code := parse_report(line)) is not None:
                return code, lines
            lines.append(line)
        raise WireError(f"{self._link.address} does not end its answer; check that rotctld listens there")

    def _resynchronise(self) -> None:
        """Ask for the state, and skip late answers until that one comes and silence follows."""
        deadline = monotonic_s() + self._link.timeout_s
        self._link.flush_input()
        self._link.write(request(DUMP_STATE))
        lines: list[bytes] = []
        while not any(line.startswith(DUMP_STATE.encode()) for line in lines):
            _, lines = self._read_answer(deadline)
        await_silence(self._link, deadline)
        self._link.mark_in_step()


def connect(address: str, clock: Clock, settings: Settings) -> Mount:
    """Connect and identify the rotator; `clock` gives the world time of each reading."""
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "tolerance_deg", "settling_s")
    chosen = parse_settings(RotctldSettings, settings, "mount_rotctld", positive)
    mount = RotctldMount(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    with closed_on_error(mount):
        mount.identify()
    return mount
