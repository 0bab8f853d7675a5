"""10Micron GM and AZ mounts, over TCP (port 3490 or 3492) or a serial line: an LX200 dialect that knows satellites.

The mount follows a satellite by itself, on its own clock: along a path that it is given (one point a second) or from an
element set, and takes offsets in time and on its axes meanwhile. Its words and their sources: `tenmicron`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from drivers import tenmicron
from drivers.conversation import Conversation, skip_late_answers
from drivers.mounts import reading_between, require_direction
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.tenmicron import END, INFO, PARKED, STATES, STEP_NS, Info, Pass, parse_info
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s, sleep_wall_s, utc_text
from groundstation.errors import BadInput, InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import (
    DriverDescription,
    Identity,
    MountCapabilities,
    MountReading,
    Settings,
    TrajectoryMount,
)

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="10Micron GM HPS and AZ mounts (firmware 2.14.9 or later; own trajectories from 3.0)",
    capability="mount",
    schemes=("tcp", "serial"),
    documentation="the vendor's command text as quoted by INDI, MountWizzard4 and mikefsq/lx200; not documented: "
    "the sign of the time offset, and whether the mount refracts the points of a trajectory",
    tested_with="INDI indi_lx200_10micron (client of the simulator)",
)

_AT_ONCE = 20  # points in one write; MountWizzard4 sends them all and counts the replies
_POLL_S = 0.05
_BRAKING_MARGIN = 2.0  # times what its highest rate and acceleration say
_NEAR_DEG = 0.02


@dataclass(frozen=True)
class TenMicronSettings(LinkSettings):
    """Settings of the station file; the limits are those of the mount's data sheet.

    `clock_uncertainty_s`: how well the mount's own clock keeps UTC (by GPS or NTP), when that is known: then a reading
    carries its stamp. None: readings are timed by the link. `max_clock_offset_s`: no trajectory is begun when its
    clock is seen to be further off. `axes_are_azimuth_elevation`: None goes by the product's name (AZ... has such
    axes), else axis offsets are refused. `pass_search_min`: how far ahead a pass of an element set is looked for.
    """

    max_rate_deg_s: float = 12.0
    max_acceleration_deg_s2: float = 5.0
    command_latency_s: float = 0.05
    clock_uncertainty_s: float | None = None
    max_clock_offset_s: float = 0.02
    axes_are_azimuth_elevation: bool | None = None
    pass_search_min: int = 60
    allow_flip: bool = False


class TenMicronMount:
    """A 10Micron mount: a `TrajectoryMount`. All calls may raise TransportTimeout, TransportLost and WireError.

    Questions are repeated once when they fail, in step again; commands that move the mount are not.
    """

    def __init__(self, link: Link, clock: Clock, settings: TenMicronSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self._conversation = Conversation(link, self.identify, self._resynchronise)
        self._loaded: Literal["", "trajectory", "elements"] = ""
        self._capabilities = MountCapabilities(
            settings.max_rate_deg_s, settings.max_acceleration_deg_s2, 0.0, settings.command_latency_s, "trajectory"
        )

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    def identify(self) -> Identity:
        """Product and firmware. Raises WrongInstrument for anything but a 10Micron mount."""
        with self._link.exchange():
            try:
                self._tell("U2")
                product = self._query(tenmicron.IDENTITY, str.strip)
                firmware = self._query(tenmicron.FIRMWARE, str.strip)
            except WireError as error:
                raise WrongInstrument(
                    f"{self._link.address} is no 10Micron mount: {error}; check the address"
                ) from error
        found = Identity(product, firmware)
        if "10micron" not in product.lower():
            raise WrongInstrument(f'{self._link.address} answers as "{product[:40]}", expected a 10micron mount')
        return self._conversation.recognise(found)

    def read_position(self) -> MountReading:
        """Both angles. Timed by the link (half the exchange is the uncertainty), unless the settings say how good the
        mount's clock is: then by its stamp, whose last digit is 0.864 ms and may be cut off or rounded."""
        info, sent_ns, received_ns = self._timed_info()
        known_s = self._settings.clock_uncertainty_s
        if known_s is None or info.leap:
            return reading_between(info.azimuth_deg, info.elevation_deg, sent_ns, received_ns)
        uncertainty_s = known_s + STEP_NS / NS_PER_S
        self._check_clock(info, sent_ns, received_ns, uncertainty_s)
        return MountReading(info.azimuth_deg, info.elevation_deg, info.utc_ns, uncertainty_s)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Raises InstrumentFault always: no command for it is documented."""
        raise InstrumentFault(
            "a 10Micron mount has no documented command for variable rates on its axes; "
            "let it follow a trajectory of its own (load_trajectory, start_trajectory)"
        )

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Begin to slew and see it begin; a parked mount is unparked first. Not repeated.

        Raises BadInput beyond -90..90 deg elevation, InstrumentFault when the mount refuses.
        """
        require_direction(azimuth_deg, elevation_deg)
        with self._link.exchange():
            if self._ready_to_move().state == PARKED:
                self._tell("PO")
            for command in (tenmicron.target_elevation(elevation_deg), tenmicron.target_azimuth(azimuth_deg)):
                if self._query(command, tenmicron.parse_flag) == "0":
                    raise InstrumentFault(f"the mount refused the target :{command}#; choose another direction")
            answer = self._query("MA", str, attempts=1)
            if answer != "0":
                raise InstrumentFault(f"the mount does not slew: {answer[1:].strip() or answer}")
            self._confirm(
                lambda info: _slews(info) or _near(info, azimuth_deg, elevation_deg),
                "it accepted the slew but does not move",
            )

    def is_slewing(self) -> bool:
        """Whether a slew is under way. InstrumentFault when the mount cannot move at all."""
        return _slews(self._ready_to_move())

    def stop(self) -> None:
        """Halt every motion, tracking too, and return when the mount says that it is at rest.

        That is at once when it stands, and after the seconds of world time that it needs to brake when it slews. The
        command may be lost on the way, so it is repeated meanwhile. Raises InstrumentFault when the mount goes on.
        """
        braking_s = self._settings.max_rate_deg_s / self._settings.max_acceleration_deg_s2
        patience_s = _BRAKING_MARGIN * braking_s + self._link.timeout_s * self._clock.speed
        with self._link.exchange():
            deadline_ns = self._clock.utc_ns() + round(patience_s * NS_PER_S)
            while True:
                self._tell("STOP")
                info = self._query(INFO, parse_info)
                if not (info.slewing or info.state in tenmicron.MOVING):
                    return
                if self._clock.utc_ns() > deadline_ns:
                    raise InstrumentFault(
                        f"the mount was told to stop and is still {STATES[info.state]}; use its stop key"
                    )
                sleep_wall_s(_POLL_S)

    def park(self) -> None:
        """Begin to slew to the park position of the mount's own settings."""
        with self._link.exchange():
            self._ready_to_move()
            self._tell("hP")
            self._confirm(lambda info: info.state in (2, PARKED), "it does not park")

    def load_trajectory(
        self, utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]
    ) -> None:
        """Give it the path, interpolated to the mount's grid of one point a second.

        Raises BadInput for a path that does not fit, InstrumentFault when the mount refuses a point or the whole.
        """
        start_ns, points = tenmicron.resampled(utc_ns, azimuth_deg, elevation_deg)
        with self._link.exchange():
            self._require_firmware((3, 0), "trajectories of its own")
            self._loaded = ""
            try:
                found = self._send_trajectory(start_ns, points)
            except (TransportTimeout, WireError):  # a trajectory begun anew replaces what arrived of the last one
                self._link.mark_in_step(False)
                found = self._send_trajectory(start_ns, points)
            self._check_pass(found)
            self._loaded = "trajectory"

    def load_elements(self, name: str, line1: str, line2: str) -> None:
        """Give it an element set. InstrumentFault when the mount finds a fault in it."""
        command = tenmicron.element_set(name, line1, line2)
        with self._link.exchange():
            self._loaded = ""
            self._accepted(command, f'the element set "{name}"; copy it again from its source')
            self._loaded = "elements"

    def start_trajectory(self) -> None:
        """Go to the beginning of what was loaded and follow it by the mount's clock, which is checked first."""
        with self._link.exchange():
            if not self._loaded:
                raise InstrumentFault("the mount was given no path to follow; load one first")
            info, sent_ns, received_ns = self._timed_info()
            self._require_able(info)
            self._check_clock(info, sent_ns, received_ns, self._settings.max_clock_offset_s)
            if info.state == PARKED:
                self._tell("PO")
            if self._loaded == "elements":
                now = tenmicron.julian_date(self._clock.utc_ns())
                self._check_pass(self._query(f"TLEP{now},{self._settings.pass_search_min}", tenmicron.parse_pass))
            answer = self._query("TLES", str, attempts=1)
            if answer not in ("V", "S"):
                why = tenmicron.SLEW_ANSWERS.get(answer, f'it answered "{answer[:40]}"')
                raise InstrumentFault(f"the mount does not begin to follow: {why}")
            state = self._query("TLESCK", str)
            if state not in ("V", "P", "S", "T"):
                raise InstrumentFault(f'the mount was told to follow and says "{state[:40]}"; stop it and try again')

    def following(self) -> bool:
        """Whether it is on the path now (and not on the way to it, or done)."""
        return self._query("TLESCK", str) == "T"

    def set_time_offset_s(self, offset_s: float) -> None:
        """Up to 1 s either way, to 0.1 ms. InstrumentFault while the mount follows nothing."""
        value_ms = _limited(offset_s * 1000.0, tenmicron.LARGEST_OFFSET_MS, "a time offset", "ms")
        self._accepted(
            tenmicron.offset_command(tenmicron.TIME_OFFSET, value_ms),
            "a time offset; it takes one only while it follows",
        )

    def set_axis_offsets_arcsec(self, azimuth_arcsec: float, elevation_arcsec: float) -> None:
        """Up to 1800 arcsec either way, to 0.1 arcsec. InstrumentFault while the mount follows nothing."""
        values = [
            _limited(value, tenmicron.LARGEST_OFFSET_ARCSEC, "an axis offset", "arcsec")
            for value in (azimuth_arcsec, elevation_arcsec)
        ]
        with self._link.exchange():
            self._require_horizontal_axes()
            for axis, value in zip((tenmicron.AXIS_1, tenmicron.AXIS_2), values, strict=True):
                self._accepted(
                    tenmicron.offset_command(axis, value), "an axis offset; it takes one only while it follows"
                )

    def clear_offsets(self) -> None:
        """Take all offsets back."""
        self._accepted("TROFFCLR", "to clear its offsets; it has some only while it follows")

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    # What the above is made of

    def _send_trajectory(self, start_ns: int, points: list[str]) -> Pass:
        self._accepted(f"TRNEW{tenmicron.julian_date(start_ns)}", "a new trajectory")
        for first in range(0, len(points), _AT_ONCE):
            batch = points[first : first + _AT_ONCE]
            self._link.write(b"".join(_bytes(f"TRADD{point}") for point in batch))
            for number in range(first + 1, first + len(batch) + 1):
                answer = tenmicron.parse_text(self._link.read_until(END))
                if answer == "E":
                    raise InstrumentFault(f"the mount refused point {number} of {len(points)}: {points[number - 1]}")
                if answer != "V" and answer != str(number):
                    raise WireError(f'the mount answered "{answer[:40]}" to point {number} of a trajectory')
        return self._query("TRP", tenmicron.parse_pass)

    def _check_pass(self, found: Pass) -> None:
        if found.flips and not self._settings.allow_flip:
            raise InstrumentFault(
                f"the mount would turn over during the pass from {utc_text(found.start_utc_ns)} to "
                f"{utc_text(found.end_utc_ns)} and lose the satellite meanwhile; choose another part of it, "
                'or set "allow_flip" = true'
            )

    def _check_clock(self, info: Info, sent_ns: int, received_ns: int, allowed_s: float) -> None:
        """InstrumentFault when the mount's stamp lies outside the exchange by more than is allowed."""
        before_ns, after_ns = sent_ns - info.utc_ns, info.utc_ns - received_ns
        off_s = max(before_ns, after_ns) / NS_PER_S
        if off_s > allowed_s + STEP_NS / NS_PER_S:
            raise InstrumentFault(
                f"the mount's clock is {off_s:.3f} s {'behind' if before_ns > 0 else 'ahead'}: it says "
                f"{utc_text(info.utc_ns)} at {utc_text(received_ns)}; set it by GPS or NTP"
            )

    def _require_firmware(self, needed: tuple[int, ...], what: str) -> None:
        firmware = (self._conversation.known or self.identify()).firmware
        if tuple(int(number) for number in re.findall(r"\d+", firmware)[:3]) < needed:
            raise InstrumentFault(
                f"{what} need firmware {'.'.join(map(str, needed))}, the mount has {firmware}; update it"
            )

    def _require_horizontal_axes(self) -> None:
        chosen = self._settings.axes_are_azimuth_elevation
        model = (self._conversation.known or self.identify()).model
        if not ("AZ" in model if chosen is None else chosen):
            raise InstrumentFault(
                f"the axes of {model} are not azimuth and elevation, so it cannot take offsets in them; if it "
                'stands as an altazimuth mount, set "axes_are_azimuth_elevation" = true'
            )

    def _ready_to_move(self) -> Info:
        info = self._query(INFO, parse_info)
        self._require_able(info)
        return info

    def _require_able(self, info: Info) -> None:
        if info.state in tenmicron.TROUBLE:
            raise InstrumentFault(f"the mount at {self._link.address} cannot move: {tenmicron.TROUBLE[info.state]}")

    def _confirm(self, begun: Callable[[Info], bool], complaint: str) -> None:
        """Wait until a command shows in the mount's state; InstrumentFault when it does not."""
        deadline = monotonic_s() + self._link.timeout_s
        while not begun(info := self._ready_to_move()):
            if monotonic_s() > deadline:
                raise InstrumentFault(f"the mount is {STATES[info.state]}: {complaint}; look at its hand control")
            sleep_wall_s(_POLL_S)

    def _timed_info(self) -> tuple[Info, int, int]:
        """Its state, and the world time just before the question and just after the answer."""
        return self._conversation.ask_timed(_bytes(INFO), lambda: parse_info(self._reply(INFO)), self._clock)

    def _accepted(self, command: str, what: str) -> None:
        try:
            self._query(command, tenmicron.parse_accepted)
        except InstrumentFault as error:
            raise InstrumentFault(f"the mount at {self._link.address} refused {what}") from error

    def _tell(self, command: str) -> None:
        """A command without an answer."""
        self._conversation.tell(_bytes(command))

    def _query(self, command: str, parse: Callable[[str], T], attempts: int = 2) -> T:
        """One command and its reply; once more in step again when it failed and may be repeated."""
        return self._conversation.ask(_bytes(command), lambda: parse(self._reply(command)), attempts)

    def _reply(self, command: str) -> str:
        if tenmicron.reply_class(command) == "text":
            return tenmicron.parse_text(self._link.read_until(END))
        reply = self._link.read(1)
        if command in tenmicron.SLEWS and reply != b"0":
            reply += self._link.read_until(END)
        return tenmicron.parse_text(reply)

    def _resynchronise(self) -> None:
        """Ask for the product, in the long form of angles."""
        question = _bytes("U2") + _bytes(tenmicron.IDENTITY)
        skip_late_answers(self._link, question, END, lambda line: b"10micron" in line.lower(), "a 10micron mount")


def _bytes(command: str) -> bytes:
    return f":{command}#".encode("ascii")


def _slews(info: Info) -> bool:
    return info.slewing or info.state in tenmicron.SLEWING


def _near(info: Info, azimuth_deg: float, elevation_deg: float) -> bool:
    around = math.remainder(info.azimuth_deg - azimuth_deg, 360.0) * math.cos(math.radians(elevation_deg))
    return math.hypot(around, info.elevation_deg - elevation_deg) < _NEAR_DEG


def _limited(value: float, limit: float, what: str, unit: str) -> float:
    if not abs(value) <= limit:
        raise BadInput(f"{what} of {value:g} {unit} is beyond what the mount takes, {limit:g} {unit} either way")
    return value


def connect(address: str, clock: Clock, settings: Settings) -> TrajectoryMount:
    """Connect and identify the mount; `clock` gives the world time of each reading."""
    driver = "mount_10micron"
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "max_clock_offset_s")
    chosen = parse_settings(TenMicronSettings, settings, driver, positive)
    if not 1 <= chosen.pass_search_min <= 1440:
        raise BadInput(
            f'setting "pass_search_min" of driver {driver} is {chosen.pass_search_min}; it must be 1 to 1440'
        )
    mount = TenMicronMount(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
    with closed_on_error(mount):
        mount.identify()
        mount._require_firmware((2, 14, 9), "status replies")
    return mount
