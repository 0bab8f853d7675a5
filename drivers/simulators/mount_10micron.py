"""A 10Micron AZ2000 HPS seen from the far end of its wire, with a telescope behind it.

    python -m drivers.simulators.mount_10micron --address tcp://127.0.0.1:3492

A command is `:NAME...#`; what stands before a colon is skipped, several may come in one write. Answers are of three
kinds: none, one character without `#`, or text that ends in `#`. An unknown command is not answered (free). The mount
computes passes of an element set by itself (`:TLEP`), or takes a path of points one second apart (`:TRNEW`), and
follows either on its own clock. Special faults: "needs_user_ok" (Gstat 11) and "motors_cold" (Gstat 8), both of which
refuse every motion, "more_ginfo_fields" (`:Ginfo` has more fields than today's).
Sources: INDI `lx200_10micron.cpp` (quotes the vendor's command text), MountWizzard4 @55e9761 `mountcontrol/`, and the
Go client gotenmicron for spacing and number of points, units and ranges of the offsets.
"""

import math
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from drivers.simulators.following import Follower
from drivers.simulators.horizon import Horizon
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.sky_paths import SkyPath, Transit, julian, satellite_pass, utc_of
from drivers.simulators.telescope import Telescope
from drivers.simulators.wire import Line, Receiver, SerialLine, name_line, serial_path, serve_lines
from groundstation.clock import NS_PER_S, utc_text
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.simulation.mount import Axis

_REPLY_LATENCY_S = 0.005  # free
_MAX_COMMAND = 1024
_ENCODER_COUNTS = 1 << 24
_ACK = 0x06
_SIDEREAL_ARCSEC_S = 15.041
_PRODUCT, _WRONG_PRODUCT = "10micron AZ2000 HPS", "LX200 Classic"
_ARROW_RATES = {"RG": 0.5, "RC": 16.0, "RM": 256.0, "RS": None}  # free: of the sidereal one; None: as fast as it can
_AT_TARGET_DEG = 0.02  # free: so close to the satellite the mount calls it tracking
_NO_EARTH_ORIENTATION = EarthOrientation(0.0, 0.0, 0.0, "none", "the mount takes UT1 = UTC")
_MOST_POINTS = 900  # gotenmicron
_OFFSET_LIMITS = {"1": 1800.0, "2": 1800.0, "3": 1800.0, "4": 1000.0}  # arcsec, and ms for 4 (gotenmicron)
_AXES: tuple[Axis, Axis] = ("azimuth", "elevation")

TRACKING, STOPPED, PARKING, TO_HOME, PARKED, SLEWING, NOT_TRACKING = 0, 1, 2, 4, 5, 6, 7
MOTORS_COLD, SATELLITE, NEEDS_USER_OK = 8, 10, 11
_COMMAND = re.compile(rb"[\x06]|:([^#]*)#")
_ANGLE = re.compile(r"\s*([+-]?)(\d{1,3})(?:\D(\d{1,2}))?(?:\D(\d{1,2}(?:\.\d*)?))?\s*")


class _Flight(NamedTuple):
    """A transit that the mount was told to follow."""

    transit: Transit
    began_late: bool


class Mount:
    """What each command does and what is answered to it."""

    def __init__(self, world: World, loop: Loop, site: Site) -> None:
        self._loop, self._faults, self._special = loop, world.faults, set(world.faults.special)
        self._telescope = Telescope(world, loop)
        self._axes = self._telescope.axes
        self._follower = Follower(self._telescope, loop)
        self._site = site
        self._state = STOPPED
        self._arrival: int | None = None  # the state when the slew is over
        self._equator, self._horizon = [0.0, 0.0], [0.0, 0.0]  # targets: ra, dec and azimuth, elevation (deg)
        self._latest: Literal["equator", "horizon"] = "equator"
        self._ultra = False
        self._arrow_rate: float | None = None
        self._stored = {"RTMP": "+0010.0", "RPRS": "0950.0", "uaf": "0", "dat": "0", "REF": "0", "G": "+00:00:00.0"}
        self._elements: ElementSet | None = None
        self._points: list[tuple[float, float]] | None = None
        self._points_start_ns = 0
        self._transit: Transit | None = None
        self._flight: _Flight | None = None
        self._caught = False
        self._offsets = dict.fromkeys(_OFFSET_LIMITS, 0.0)

    def receiver(self) -> Receiver:
        """For one line, with a buffer of its own."""
        waiting = bytearray()

        def receive(line: Line, data: bytes) -> None:
            waiting.extend(data)
            while found := _COMMAND.search(waiting):
                command = found[1]
                del waiting[: found.end()]
                reply = "A" if command is None else self._answer(command.decode("latin-1"))
                if reply:
                    line.reply(reply.encode("latin-1"), _REPLY_LATENCY_S)
            del waiting[:-_MAX_COMMAND]
            self._telescope.publish()

        return receive

    # --- Which command

    def _answer(self, command: str) -> str:
        self._catch_up()
        if (text := self._identity(command)) is not None or (text := self._question(command)) is not None:
            return text + "#"
        if command.startswith("TLE"):
            return self._satellite(command[3:]) + "#"
        if command.startswith("TR"):
            return self._trajectory(command[2:]) + "#"
        if command in ("Guaf", "Gdat", "GREF"):
            return self._stored[command[1:]]
        if (character := self._setting(command)) is not None:
            return character
        return self._motion(command) or ""

    def _identity(self, command: str) -> str | None:
        return {
            "GVP": _WRONG_PRODUCT if self._faults.wrong_model else _PRODUCT,
            "GVZ": "Q-TYPE2012",
            "GVN": "3.1.4",
            "GVD": "Mar 19 2020",
            "GVT": "12:00:00",
            "GT": "60.1",
            "GRTMP": self._stored["RTMP"],
            "GRPRS": self._stored["RPRS"],
            "GG": self._stored["G"],
            "modelcnt": "0",
            "getalst": "0",
            "TLEDN": "0",
            "CM": "Coordinates     matched.        ",  # 32 characters; a sync changes nothing here (free)
            "CMCFG0": "0",
            "CMCFG1": "1",
        }.get(command)

    def _question(self, command: str) -> str | None:
        now_ns = self._loop.clock.utc_ns()
        date, time = utc_text(now_ns, 2)[:-1].split("T")
        match command:
            case "Ginfo":
                return self._ginfo(now_ns)
            case "Gstat":
                return str(self._gstat())
            case "D":
                return "\x7f" if self._moves() else ""
            case "GR" | "GS":
                ascension = self._equatorial(now_ns)[0] if command == "GR" else self._place.sidereal_deg(now_ns)
                return self._sexagesimal(ascension / 15.0, 2, "", 24.0)
            case "GD":
                return self._sexagesimal(self._equatorial(now_ns)[1], 2, "+")
            case "GA":
                return self._sexagesimal(self._pointing(now_ns)[1], 2, "+")
            case "GZ":
                return self._sexagesimal(self._pointing(now_ns)[0], 3, "", 360.0)
            case "Gt":
                return self._sexagesimal(self._site.latitude_deg, 2, "+")
            case "Gg":
                return self._sexagesimal(-self._site.longitude_deg, 3, "+")  # LX200: west is positive
            case "Gev":
                return f"{self._site.altitude_m:+07.1f}"
            case "GL":
                return time
            case "GC":
                return date
            case "GJD" | "GJD1" | "GJD2":
                return julian(now_ns)
            case "pS":
                return "West"
        return None

    # --- Where it is and what it does

    @property
    def _place(self) -> Horizon:
        return Horizon(self._site.latitude_deg, self._site.longitude_deg)

    def _pointing(self, utc_ns: int) -> tuple[float, float]:
        azimuth, elevation = (self._axes.encoder(axis, utc_ns) / _ENCODER_COUNTS for axis in _AXES)
        return azimuth * 360.0, ((elevation + 0.5) % 1.0 - 0.5) * 360.0

    def _equatorial(self, utc_ns: int) -> tuple[float, float]:
        return self._place.to_equator(*self._pointing(utc_ns), utc_ns)

    def _ginfo(self, utc_ns: int) -> str:
        azimuth, elevation = self._pointing(utc_ns)
        ascension, declination = self._place.to_equator(azimuth, elevation, utc_ns)
        hours, azimuth = round(ascension / 15.0, 5) % 24.0, round(azimuth, 4) % 360.0
        more = ",0,+000.0" if "more_ginfo_fields" in self._special else ""
        return (
            f"{hours:08.5f},{declination:+08.4f},W,{azimuth:08.4f},{elevation:+08.4f},"
            f"{julian(utc_ns)},{self._gstat()},{int(self._moves())}{more}"
        )

    def _gstat(self) -> int:
        if self._blocked():
            return NEEDS_USER_OK if "needs_user_ok" in self._special else MOTORS_COLD
        if self._flight is not None and self._state == SATELLITE:
            return {"V": SLEWING, "P": NOT_TRACKING, "S": SLEWING, "T": SATELLITE}[self._phase()]
        return self._state

    def _moves(self) -> bool:
        return self._gstat() in (PARKING, TO_HOME, SLEWING)

    def _blocked(self) -> bool:
        return bool(self._special & {"needs_user_ok", "motors_cold"})

    def _catch_up(self) -> None:
        """What is over by now becomes what follows."""
        now_ns = self._loop.clock.utc_ns()
        if self._arrival is not None and not any(self._axes.is_slewing(axis, now_ns) for axis in _AXES):
            self._state, self._arrival = self._arrival, None
            if self._state == TRACKING:
                self._track()
        if self._state == SATELLITE:
            self._phase()

    # --- Settings: one character

    def _setting(self, command: str) -> str | None:
        if command in ("shutdown", "FLIP"):
            return "1" if command == "shutdown" else "0"
        for name, (targets, index, scale, low, high) in {
            "Sr": (self._equator, 0, 15.0, 0.0, 24.0),
            "Sd": (self._equator, 1, 1.0, -90.0, 90.0),
            "Sz": (self._horizon, 0, 1.0, 0.0, 360.0),
            "Sa": (self._horizon, 1, 1.0, -90.0, 90.0),
        }.items():
            if command.startswith(name) and not command.startswith("Sdat"):
                value = _angle(command[2:])
                if value is None or not low <= value <= high:
                    return "0"
                targets[index] = value * scale
                self._latest = "equator" if targets is self._equator else "horizon"
                return "1"
        if found := re.fullmatch(r"S(t|g|ev)(.*)", command):
            return self._set_site(found[1], found[2])
        if found := re.fullmatch(r"S(RTMP|RPRS|dat|REF|G)(.+)", command):
            self._stored[found[1]] = found[2].strip()
            return "1"
        if found := re.fullmatch(r"Suaf([01])", command):
            self._stored["uaf"] = found[1]
            return ""
        if re.match(r"S(C|L|h|o|lmt|lms|w|UDT|stm|WOL)", command):  # accepted, without effect; its clock stays right
            return "1"
        return None

    def _set_site(self, name: str, text: str) -> str:
        value = _angle(text) if name != "ev" else _number(text)
        if value is None:
            return "0"
        latitude, longitude, height = self._site.latitude_deg, self._site.longitude_deg, self._site.altitude_m
        if name == "t":
            latitude = value
        elif name == "g":
            longitude = (-value + 180.0) % 360.0 - 180.0
        else:
            height = value
        self._site = Site("of the mount", latitude, longitude, height)
        return "1"

    # --- Motions

    def _motion(self, command: str) -> str | None:
        match command:
            case "U" | "U0" | "U1" | "U2":
                self._ultra = command == "U2"
            case "MS":
                return self._slew_to_target(self._latest, TRACKING)
            case "MA":
                return self._slew_to_target("horizon", NOT_TRACKING)
            case "KA" | "hP":
                parameters = self._telescope.parameters
                self._slew(parameters.park_azimuth_deg, parameters.park_elevation_deg, PARKED, PARKING)
            case "PO":
                self._state = STOPPED if self._state == PARKED else self._state
            case "hS" | "hF":
                self._slew(0.0, 0.0, STOPPED, TO_HOME)  # free
            case "AP":
                self._track()
            case "AL" | "RT9":
                self._halt(NOT_TRACKING)
            case "STOP" | "Q":
                self._halt(STOPPED)
            case "Qe" | "Qw" | "Qn" | "Qs":
                self._axes.set_rate("azimuth" if command[1] in "ew" else "elevation", 0.0, self._loop.clock.utc_ns())
            case "RG" | "RC" | "RM" | "RS":
                self._arrow_rate = _ARROW_RATES[command]
            case "Me" | "Mw" | "Mn" | "Ms":
                self._press(command[1])
        return None

    def _slew_to_target(self, kind: str, then: int) -> str:
        """`0`, or `1` and why not, with `#`."""
        if kind == "equator":
            ascension, declination = self._equator
            azimuth, elevation = self._place.to_horizon(ascension, declination, self._loop.clock.utc_ns())
        else:
            azimuth, elevation = self._horizon
        if elevation < 0.0:  # free: its lower limit
            return "1Object Below Horizon            #"
        if not self._slew(azimuth, elevation, then, SLEWING):
            return "1Mount is parked or not ready    #"
        return "0"

    def _slew(self, azimuth_deg: float, elevation_deg: float, then: int, meanwhile: int) -> bool:
        if self._state == PARKED or self._blocked():
            return False
        self._leave_satellite()
        now_ns = self._loop.clock.utc_ns()
        self._state, self._arrival = meanwhile, then
        self._axes.go_to("azimuth", azimuth_deg, now_ns)
        self._axes.go_to("elevation", elevation_deg, now_ns)
        return True

    def _halt(self, state: int) -> None:
        self._leave_satellite()
        self._axes.stop(self._loop.clock.utc_ns())
        self._arrival = None
        if self._state != PARKED:
            self._state = state

    def _track(self) -> None:
        """Follow the stars from where it points."""
        if self._state == PARKED or self._blocked():
            return
        self._leave_satellite()
        ascension, declination = self._equatorial(self._loop.clock.utc_ns())
        place = self._place
        self._state = TRACKING
        self._follower.follow(lambda utc_ns: place.to_horizon(ascension, declination, utc_ns))

    def _press(self, arrow: str) -> None:
        if self._state == PARKED or self._blocked():
            return
        self._leave_satellite()
        fastest = self._telescope.parameters.max_rate_deg_s * 3600.0
        rate = fastest if self._arrow_rate is None else self._arrow_rate * _SIDEREAL_ARCSEC_S
        self._state = NOT_TRACKING
        axis = _AXES[arrow in "ns"]
        self._axes.set_rate(axis, rate if arrow in "ne" else -rate, self._loop.clock.utc_ns())

    def _leave_satellite(self) -> None:
        self._follower.release()
        self._flight = None
        self._caught = False

    # --- Satellites and paths of points

    def _satellite(self, command: str) -> str:
        """What follows `:TLE`; the answer without its `#`."""
        if command.startswith("L0"):
            return self._load_elements(command[2:])
        if command == "G":
            set_ = self._elements
            return "E" if set_ is None else f"{set_.name}$0A{set_.line1}$0A{set_.line2}$0A"
        if found := re.fullmatch(r"G(AZ|EQ)(\d{7}(?:\.\d*)?)", command):
            return self._where(found[1], utc_of(found[2]))
        if found := re.fullmatch(r"P(\d{7}(?:\.\d*)?),(\d{1,4})", command):
            return self._predict(utc_of(found[1]), int(found[2]))
        if command == "S":
            return self._start()
        if command == "SCK":
            return self._phase()
        return "E"  # TLEDL: the data base is empty

    def _load_elements(self, text: str) -> str:
        plain = re.sub(r"\$([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)
        lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
        if len(lines) not in (2, 3):
            return "E"
        try:
            self._elements = ElementSet.parse(lines[0].strip() if len(lines) == 3 else "", lines[-2], lines[-1])
        except BadInput:
            return "E"
        self._transit = None
        return "V"

    def _orbit(self) -> Orbit | None:
        return Orbit(self._elements, self._site, _NO_EARTH_ORIENTATION) if self._elements else None

    def _where(self, what: str, utc_ns: int) -> str:
        orbit = self._orbit()
        if orbit is None:
            return "E"
        try:
            look = orbit.geometric(utc_ns)
        except BadInput:
            return "E"
        azimuth, elevation = float(look.azimuth_deg[0]), float(look.elevation_deg[0])
        if what == "AZ":
            return f"{elevation:+.5f},{azimuth:.5f}"
        ascension, declination = self._place.to_equator(azimuth, elevation, utc_ns)
        return f"{ascension / 15.0:.5f},{declination:+.5f}"

    def _predict(self, from_ns: int, minutes: int) -> str:
        orbit = self._orbit()
        if orbit is None or not 1 <= minutes <= 1440:
            return "E"
        try:
            self._transit = satellite_pass(orbit, from_ns, minutes)
        except BadInput:
            return "E"
        return self._announced()

    def _announced(self) -> str:
        """`JDstart,JDend,flags` of what was computed, `N` for nothing; this mount never flips."""
        transit = self._transit
        return "N" if transit is None else f"{julian(transit.start_ns)},{julian(transit.stop_ns)},"

    def _start(self) -> str:
        """`:TLES`."""
        if self._transit is None:
            return "E"
        if self._state == PARKED or self._blocked():
            return "F"
        now_ns, transit = self._loop.clock.utc_ns(), self._transit
        if now_ns > transit.stop_ns:
            return "Q"
        self._leave_satellite()
        self._arrival, self._state = None, SATELLITE
        self._offsets = dict.fromkeys(_OFFSET_LIMITS, 0.0)
        self._flight = _Flight(transit, began_late=now_ns > transit.start_ns)
        self._follower.follow(self._followed(transit.path))
        return "S" if self._flight.began_late else "V"

    def _followed(self, path: SkyPath) -> Callable[[int], tuple[float, float]]:
        """Where the path is, with the live offsets. A positive time offset points to where it is later (free)."""

        def target(utc_ns: int) -> tuple[float, float]:
            first, second, on_sky, time_ms = self._offsets.values()
            azimuth, elevation = path.at(utc_ns + round(time_ms * 1e6))
            level = max(0.01, math.cos(math.radians(elevation)))
            return azimuth + (first + on_sky / level) / 3600.0, elevation + second / 3600.0

        return target

    def _phase(self) -> str:
        """As `:TLESCK` says: V slewing to the start, P waiting, S catching, T tracking, Q ended, E none asked for."""
        if self._flight is None:
            return "E"
        now_ns, transit = self._loop.clock.utc_ns(), self._flight.transit
        if now_ns > transit.stop_ns:
            if self._state == SATELLITE:
                self._follower.release()
                self._axes.stop(now_ns)
                self._telescope.publish()
                self._state = NOT_TRACKING
            return "Q"
        there = self._follower.error_deg(now_ns) <= _AT_TARGET_DEG
        if now_ns < transit.start_ns:
            return "P" if there else "V"
        self._caught = self._caught or there
        return "T" if self._caught else "S"

    def _trajectory(self, command: str) -> str:
        """What follows `:TR`; the answer without its `#`."""
        if found := re.fullmatch(r"NEW(\d{7}(?:\.\d*)?)", command):
            self._points, self._points_start_ns = [], utc_of(found[1])
            return "V"
        if found := re.fullmatch(r"ADD([^,]*),([^,]*)", command):
            return self._add_point(_number(found[1]), _number(found[2]))
        if command in ("P", "REPLAY"):
            if self._points is None or len(self._points) < 2:
                return "E"
            start_ns = self._loop.clock.utc_ns() if command == "REPLAY" else self._points_start_ns
            path = SkyPath.of_points(start_ns, self._points)
            stop_ns = start_ns + (len(self._points) - 1) * NS_PER_S
            self._transit = Transit(start_ns, stop_ns, path) if stop_ns > self._loop.clock.utc_ns() else None
            return self._announced()
        if command.startswith("OFF"):
            return self._offset(command[3:])
        return "E"

    def _add_point(self, azimuth_deg: float | None, elevation_deg: float | None) -> str:
        if self._points is None or len(self._points) >= _MOST_POINTS or azimuth_deg is None or elevation_deg is None:
            return "E"
        if not (-360.0 <= azimuth_deg <= 720.0 and -5.0 <= elevation_deg <= 90.0):  # free
            return "E"
        self._points.append((azimuth_deg, elevation_deg))
        return str(len(self._points))

    def _offset(self, command: str) -> str:
        """They exist only while it follows."""
        if self._flight is None or self._phase() != "T":
            return "E"
        if command == "CLR":
            self._offsets = dict.fromkeys(_OFFSET_LIMITS, 0.0)
            return "V"
        if found := re.fullmatch(r"GET([1-4])", command):
            return f"{self._offsets[found[1]]:+07.1f}"
        found = re.fullmatch(r"(SET|ADD)([1-4]),(.*)", command)
        value = _number(found[3]) if found else None
        if found is None or value is None:
            return "E"
        value = round(value + (self._offsets[found[2]] if found[1] == "ADD" else 0.0), 1)
        if abs(value) > _OFFSET_LIMITS[found[2]]:
            return "E"
        self._offsets[found[2]] = value
        return "V"

    def _sexagesimal(self, value: float, digits: int, plus: str, turn: float = math.inf) -> str:
        """Ultra precision has tenths (hundredths of a time second) and colons everywhere."""
        places = (2 if turn == 24.0 else 1) if self._ultra else 0
        units = round(abs(value) * 3600 * 10**places)
        if math.isfinite(turn):
            units %= round(turn * 3600 * 10**places)
        seconds, fraction = divmod(units, 10**places)
        sign = "-" if value < 0 and units else plus
        separator = ":" if self._ultra or turn == 24.0 else "*"
        text = f"{sign}{seconds // 3600:0{digits}d}{separator}{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return text + (f".{fraction:0{places}d}" if places else "")


def _angle(text: str) -> float | None:
    """`+12*34:56.7` with any separators; None for anything else."""
    found = _ANGLE.fullmatch(text)
    if found is None:
        return None
    value = int(found[2]) + int(found[3] or 0) / 60.0 + float(found[4] or 0) / 3600.0
    return -value if found[1] == "-" else value


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*[+-]?\d{1,6}(\.\d*)?\s*", text) else None


def main() -> None:
    parser = arguments("A simulated 10Micron AZ2000 HPS on a loopback port or a serial line.")
    parser.add_argument("--latitude", type=float, default=40.39587, help="degrees north (default: Xinglong)")
    parser.add_argument("--longitude", type=float, default=117.57722, help="degrees east")
    parser.add_argument("--height", type=float, default=890.0, help="metres above the ellipsoid")
    options = parser.parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    mount = Mount(world, loop, Site("of the mount", options.latitude, options.longitude, options.height))
    address = guard_address = serve_lines(loop, world.faults, options, mount.receiver, over_tcp=True)
    if not address.startswith("tcp:"):
        guard = SerialLine(loop, world.faults, mount.receiver())
        if not options.pty and (path := serial_path(options.address)):
            name_line(guard, path.with_name(path.name + ".guard"))
        guard_address = guard.address
    loop.supervise(options)
    announce(address=address, guard_address=guard_address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
