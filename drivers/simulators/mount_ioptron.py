"""An iOptron AZ Mount Pro (protocol RS-232 v3) seen from the far end of its serial line, with a telescope behind it.

    python -m drivers.simulators.mount_ioptron

A command is `:NAME...#`, case matters, and an unknown one is not answered. Angles travel in 0.01 arcsec. Two serial
lines lead to the same mount: one for the station, one for its guard. Special faults: "az0_runaway" (firmware
20200305: a slew to azimuth 0 from the east never ends, one from the west makes the next slew run away, until a
reset), "altitude_limit" (an altitude limit of 0 refuses altitude 0).
Sources: iOptron RS-232 Command Language 3.10 (2021), INDI `ioptronv3driver.cpp` @3371fae, Hamlib `rotators/ioptron`
(the quirks).
"""

import math
import re
from typing import Literal

from drivers.simulators.following import Follower
from drivers.simulators.horizon import Horizon
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.telescope import Telescope
from drivers.simulators.wire import Line, Receiver, serve_with_guard
from groundstation.clock import NS_PER_S
from groundstation.simulation.mount import Axis

_REPLY_LATENCY_S = 0.01  # free
_MAX_COMMAND = 64
_UNITS_PER_DEG = 360_000  # of 0.01 arcsec
_TURN = 360 * _UNITS_PER_DEG
_ENCODER_COUNTS = 1 << 24
_J2000_NS = 946_728_000 * NS_PER_S  # 2000-01-01T12:00:00Z
_SIDEREAL_ARCSEC_S = 15.041
_MODEL_AZ_MOUNT_PRO, _MODEL_CEM120 = "5035", "0120"  # INDI's table; the CEM120 is equatorial
_MAIN_FIRMWARE, _AXIS_FIRMWARE = "210105210105", "210105210105"
_ARROW_SPEEDS = (1, 2, 8, 16, 64, 128, 256, 512, None)  # of the sidereal rate, None: as fast as it can
_TRACK_RATES = (1.0, 0.9661, 0.9973, 0.99997)  # free, but the first: sidereal, lunar, solar, King
_STOPPED, _TRACKING, _SLEWING, _PARKED, _AT_HOME = 0, 1, 2, 6, 7
_AXES_OF_ARROWS: dict[str, tuple[Axis, ...]] = {
    "qD": ("elevation",),
    "qR": ("azimuth",),
    "q": ("azimuth", "elevation"),
}

_Goal = Literal["stopped", "tracking", "parked", "home"]
_COMMAND = re.compile(rb":([^:#]*)#")


class Mount:
    """What each command does and what is answered to it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop, self._faults = loop, world.faults
        self._telescope = Telescope(world, loop)
        self._axes = self._telescope.axes
        self._follower = Follower(self._telescope, loop)
        self._site = Horizon(40.39587, 117.57722)  # free: Xinglong
        self._state = _STOPPED
        self._arrival: _Goal | None = None  # what it becomes when the slew is over
        self._equator_target: tuple[float, float] | None = None
        self._latest: Literal["equator", "horizon"] = "equator"
        self._coordinates = {"SRA": 0, "Sd": 0, "Sz": 0, "Sa": 0}
        self._park = (0.0, 0.0)
        self._home = (0.0, 0.0)  # free
        self._altitude_limit_deg = 0
        self._tracked_before = False  # whether it was tracking when the slew began
        self._arrow_speed, self._track_rate, self._custom_rate = 5, 0, 1.0
        self._most_speed = "9"  # of slews; without effect here
        self._guide_rates, self._meridian = "5050", "010"  # INDI's working replies
        self._zone_minutes, self._daylight_saving = "+000", "0"
        self._clock_ahead_ns = 0
        self._shift_deg = [0.0, 0.0]  # what a sync has added to both axes
        self._arrows: set[Axis] = set()
        self._poisoned = False

    def receiver(self) -> Receiver:
        """For one line, with a buffer of its own."""
        waiting = bytearray()

        def receive(line: Line, data: bytes) -> None:
            waiting.extend(data)
            while found := _COMMAND.search(waiting):
                command = found[1].decode("ascii", "replace")
                del waiting[: found.end()]
                reply = self._answer(command)
                if reply:
                    line.reply(reply.encode("ascii"), _REPLY_LATENCY_S)
            del waiting[:-_MAX_COMMAND]
            self._telescope.publish()

        return receive

    # --- Questions

    def _answer(self, command: str) -> str:
        self._catch_up()
        match command:
            case "MountInfo":
                return _MODEL_CEM120 if self._faults.wrong_model else _MODEL_AZ_MOUNT_PRO
            case "FW1":
                return _MAIN_FIRMWARE + "#"
            case "FW2":
                return _AXIS_FIRMWARE + "#"
            case "GLS":
                return self._status()
            case "GEP":
                return self._equatorial()
            case "GAC":
                azimuth, elevation = self._pointing()
                altitude = elevation if elevation <= 90.0 else 180.0 - elevation  # 80 and 100 both read 80
                return f"{_signed(altitude)}{_turn(azimuth)}#"
            case "GUT":
                now_ms = (self._loop.clock.utc_ns() + self._clock_ahead_ns - _J2000_NS) // 1_000_000
                return f"{self._zone_minutes}{self._daylight_saving}{now_ms:013d}#"
            case "AG":
                return self._guide_rates + "#"
            case "GMT":
                return self._meridian + "#"
            case "GAL":
                return f"{self._altitude_limit_deg:+03d}#"
            case "GPC":
                return f"{round(self._park[1] * _UNITS_PER_DEG):08d}{_turn(self._park[0])}#"
            case "GSR":
                return self._most_speed + "#"
            case "GTR":
                return f"{round(self._custom_rate * 10_000):05d}#"
            case "GPE" | "GPR":
                return "0"
        return self._set(command)

    def _status(self) -> str:
        longitude, latitude = _signed(self._site.longitude_deg), round((self._site.latitude_deg + 90) * _UNITS_PER_DEG)
        north = "1" if self._site.latitude_deg >= 0 else "0"
        return f"{longitude}{latitude:08d}2{self._state}{self._track_rate}{self._arrow_speed}2{north}#"

    def _equatorial(self) -> str:
        azimuth, elevation = self._pointing()
        ascension, declination = self._site.to_equator(azimuth, elevation, self._loop.clock.utc_ns())
        return f"{_signed(declination)}{_turn(ascension)}11#"

    def _pointing(self) -> tuple[float, float]:
        """As the mount believes: encoder angles and what a sync has added."""
        now_ns = self._loop.clock.utc_ns()
        azimuth, elevation = (self._axes.encoder(axis, now_ns) / _ENCODER_COUNTS for axis in ("azimuth", "elevation"))
        elevation_deg = ((elevation + 0.5) % 1.0 - 0.5) * 360.0 + self._shift_deg[1]
        return (azimuth * 360.0 + self._shift_deg[0]) % 360.0, elevation_deg

    # --- Settings and motions; each answers 1, or 0 when it cannot be

    def _set(self, command: str) -> str:
        if found := re.fullmatch(r"(SRA|Sz)(\d{9})|(Sd|Sa)([+-]\d{8})", command):
            name, digits = (found[1], found[2]) if found[1] else (found[3], found[4])
            self._coordinates[name] = int(digits)
            self._latest = "equator" if name in ("SRA", "Sd") else "horizon"
            return "1"
        if found := re.fullmatch(r"(SPA|SPH|SLO|SLA|SUT|SG|SAL)([+-]?\d+)", command):
            return self._set_number(found[1], found[2])
        if found := re.fullmatch(r"M([nsew])(\d{5})", command):  # guide pulse, without effect
            return ""
        if found := re.fullmatch(r"m([nsew])", command):
            self._press(found[1])
            return ""
        return "1" if self._obey(command) else "" if not self._known(command) else "0"

    def _known(self, command: str) -> bool:
        return command in ("MS1", "MS2", "MSS", "MP1", "MH", "MSH", "ST1")

    def _set_number(self, name: str, text: str) -> str:
        value = int(text)
        match name:
            case "SPA":
                self._park = (value / _UNITS_PER_DEG, self._park[1])
            case "SPH":
                self._park = (self._park[0], value / _UNITS_PER_DEG)
            case "SLO":
                self._site = self._site._replace(longitude_deg=value / _UNITS_PER_DEG)
            case "SLA":
                self._site = self._site._replace(latitude_deg=value / _UNITS_PER_DEG)
            case "SUT":
                self._clock_ahead_ns = value * 1_000_000 + _J2000_NS - self._loop.clock.utc_ns()
            case "SG":
                self._zone_minutes = f"{value:+04d}"
            case _:
                self._altitude_limit_deg = value
        return "1"

    def _obey(self, command: str) -> bool:
        """Whether it was done."""
        if found := re.fullmatch(r"SR([1-9])|RT([0-4])|RR(\d{5})|RG(\d{4})|SDS([01])|MSR([789])", command):
            self._set_rate(found)
            return True
        match command:
            case "MS1" | "MS2":
                return self._slew_to_stars()
            case "MSS":
                units = self._coordinates
                return self._slew(units["Sz"] / _UNITS_PER_DEG, units["Sa"] / _UNITS_PER_DEG, "stopped")
            case "CM":
                return self._sync()
            case "Q":
                self._end_slew()
            case "qD" | "qR" | "q":
                self._release(*_AXES_OF_ARROWS[command])
            case "ST0" | "ST1":
                return self._track(command == "ST1")
            case "MP1":
                return self._slew(*self._park, "parked", beyond_limit=True)
            case "MP0":
                self._state = _STOPPED if self._state == _PARKED else self._state
            case "MH" | "MSH":
                return self._slew(*self._home, "home", beyond_limit=True)
            case "SZP":
                self._home = self._pointing()
            case _:
                return False
        return True

    def _set_rate(self, found: re.Match[str]) -> None:
        arrows, track, custom, guide, daylight_saving, most = found.groups()
        if arrows:
            self._arrow_speed = int(arrows)
        elif track:
            self._track_rate = int(track)
        elif custom:
            self._custom_rate = int(custom) / 10_000
        elif guide:
            self._guide_rates = guide
        elif most:
            self._most_speed = most
        else:
            self._daylight_saving = daylight_saving

    def _slew_to_stars(self) -> bool:
        units = self._coordinates
        self._equator_target = units["SRA"] / _UNITS_PER_DEG, units["Sd"] / _UNITS_PER_DEG
        return self._slew(*self._site.to_horizon(*self._equator_target, self._loop.clock.utc_ns()), "tracking")

    def _slew(self, azimuth_deg: float, altitude_deg: float, then: _Goal, beyond_limit: bool = False) -> bool:
        limit = self._altitude_limit_deg
        refused = altitude_deg < limit or (
            "altitude_limit" in self._faults.special and limit == altitude_deg == 0  # Hamlib: "may refuse"
        )
        if self._state == _PARKED or (refused and not beyond_limit) or not -90.0 <= altitude_deg <= 90.0:
            return False
        self._follower.release()
        now_ns = self._loop.clock.utc_ns()
        if self._state != _SLEWING:
            self._tracked_before = self._state == _TRACKING
        self._state, self._arrival = _SLEWING, then
        target = azimuth_deg - self._shift_deg[0]
        if self._runs_away(azimuth_deg):
            self._arrival = None  # it never arrives
            self._axes.set_rate("azimuth", -self._telescope.parameters.max_rate_deg_s * 3600.0, now_ns)
        else:
            self._axes.go_to("azimuth", target, now_ns)
        self._axes.go_to("elevation", altitude_deg - self._shift_deg[1], now_ns)
        return True

    def _runs_away(self, azimuth_deg: float) -> bool:
        if "az0_runaway" not in self._faults.special:
            return False
        if self._poisoned:
            return True
        to_zero = round(azimuth_deg * _UNITS_PER_DEG) % _TURN == 0
        from_west = self._pointing()[0] > 180.0
        self._poisoned = to_zero and from_west
        return to_zero and not from_west

    def _catch_up(self) -> None:
        """A slew that has arrived by now becomes what it was for."""
        now_ns = self._loop.clock.utc_ns()
        if self._arrival is None or any(self._axes.is_slewing(axis, now_ns) for axis in ("azimuth", "elevation")):
            return
        then, self._arrival = self._arrival, None
        self._state = {"stopped": _STOPPED, "parked": _PARKED, "home": _AT_HOME, "tracking": _TRACKING}[then]
        if then == "tracking":
            self._track(True)

    def _track(self, on: bool) -> bool:
        if self._state == _PARKED:
            return not on
        if not on:
            self._stop()
            return True
        now_ns = self._loop.clock.utc_ns()
        ascension, declination = self._equator_target or self._site.to_equator(*self._pointing(), now_ns)
        factor = self._custom_rate if self._track_rate == 4 else _TRACK_RATES[self._track_rate]
        drift_deg_s = (1.0 - factor) * _SIDEREAL_ARCSEC_S / 3600.0
        shift = tuple(self._shift_deg)

        def target(utc_ns: int) -> tuple[float, float]:
            moved = ascension + drift_deg_s * (utc_ns - now_ns) / NS_PER_S
            azimuth, elevation = self._site.to_horizon(moved, declination, utc_ns)
            return azimuth - shift[0], elevation - shift[1]

        self._state, self._equator_target = _TRACKING, None
        self._follower.follow(target)
        return True

    def _sync(self) -> bool:
        now_ns, units = self._loop.clock.utc_ns(), self._coordinates
        if self._latest == "equator":
            target = self._site.to_horizon(units["SRA"] / _UNITS_PER_DEG, units["Sd"] / _UNITS_PER_DEG, now_ns)
        else:
            target = units["Sz"] / _UNITS_PER_DEG, units["Sa"] / _UNITS_PER_DEG
        here = self._pointing()
        for axis in range(2):
            self._shift_deg[axis] += math.remainder(target[axis] - here[axis], 360.0)
        if self._state == _TRACKING:
            self._equator_target = None
            self._track(True)
        return True

    def _press(self, arrow: str) -> None:
        if self._state == _PARKED:
            return
        factor = _ARROW_SPEEDS[self._arrow_speed - 1]
        fastest = self._telescope.parameters.max_rate_deg_s * 3600.0
        rate = fastest if factor is None else min(fastest, factor * _SIDEREAL_ARCSEC_S)
        axis: Axis = "elevation" if arrow in "ns" else "azimuth"
        self._follower.release()
        self._arrows.add(axis)
        self._axes.set_rate(axis, rate if arrow in "ne" else -rate, self._loop.clock.utc_ns())

    def _release(self, *axes: Axis) -> None:
        for axis in axes:
            if axis in self._arrows:
                self._arrows.discard(axis)
                self._axes.set_rate(axis, 0.0, self._loop.clock.utc_ns())
        if not self._arrows and self._state == _TRACKING and not self._follower.follows:
            self._track(True)

    def _end_slew(self) -> None:
        """Slews and arrows end; whether it tracks is left as it was before them."""
        tracks = self._state == _TRACKING or (self._state == _SLEWING and self._tracked_before)
        if tracks and self._state == _TRACKING and not self._arrows:
            return
        self._stop()
        if tracks:
            self._equator_target = None
            self._track(True)

    def _stop(self) -> None:
        self._follower.release()
        self._arrows.clear()
        self._axes.stop(self._loop.clock.utc_ns())
        self._arrival = None
        if self._state != _PARKED:
            self._state = _STOPPED


def _signed(angle_deg: float) -> str:
    """Sign and 8 digits of 0.01 arcsec."""
    return f"{round(angle_deg * _UNITS_PER_DEG):+09d}"


def _turn(angle_deg: float) -> str:
    """9 digits of 0.01 arcsec, below a turn."""
    return f"{round(angle_deg * _UNITS_PER_DEG) % _TURN:09d}"


def main() -> None:
    options = arguments("A simulated iOptron AZ Mount Pro on two serial lines.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    mount = Mount(world, loop)
    address, guard_address = serve_with_guard(loop, world.faults, options, mount.receiver)
    loop.supervise(options)
    announce(address=address, guard_address=guard_address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
