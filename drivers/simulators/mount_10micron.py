"""A 10Micron AZ2000 HPS seen from the far end of its wire, with a telescope behind it.

    python -m drivers.simulators.mount_10micron --address tcp://127.0.0.1:3492

A command is `:NAME...#`; what stands before a colon is skipped, several may come in one write. Answers are of three
kinds: none, one character without `#`, or text that ends in `#`. An unknown command is not answered (free). The mount
computes passes of an element set by itself (`:TLEP`), or takes a path of points one second apart (`:TRNEW`), and
follows either on its own clock. Special faults: "needs_user_ok" (Gstat 11) and "motors_cold" (Gstat 8), both of which
refuse every motion, "more_ginfo_fields" (`:Ginfo` has more fields than today's), "deaf_to_stop" (`:STOP` and `:Q` do
nothing).
Sources: INDI `lx200_10micron.cpp` (quotes the vendor's command text), MountWizzard4 @55e9761 `mountcontrol/`, and the
Go client gotenmicron for spacing and number of points, units and ranges of the offsets.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

from drivers.simulators.following import Follower
from drivers.simulators.horizon import Horizon
from drivers.simulators.lx200_text import angle_of, number_of, sexagesimal
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.sky_paths import Transit, julian
from drivers.simulators.telescope import Telescope
from drivers.simulators.tenmicron_paths import Offsets, Paths
from drivers.simulators.wire import Line, Receiver, serve_with_guard
from groundstation.clock import utc_text
from groundstation.passes.orbit import Site
from groundstation.simulation.mount import Axis

_REPLY_LATENCY_S = 0.005  # free
_MAX_COMMAND = 1024
_ENCODER_COUNTS = 1 << 24
_ACK = 0x06
_SIDEREAL_ARCSEC_S = 15.041
_PRODUCT, _WRONG_PRODUCT = "10micron AZ2000 HPS", "LX200 Classic"
_ARROW_RATES = {"RG": 0.5, "RC": 16.0, "RM": 256.0, "RS": None}  # free: of the sidereal one; None: as fast as it can
_AT_TARGET_DEG = 0.02  # free: so close to the satellite the mount calls it tracking
_AXES: tuple[Axis, Axis] = ("azimuth", "elevation")

TRACKING, STOPPED, PARKING, TO_HOME, PARKED, SLEWING, NOT_TRACKING = 0, 1, 2, 4, 5, 6, 7
MOTORS_COLD, SATELLITE, NEEDS_USER_OK = 8, 10, 11
_COMMAND = re.compile(rb"[\x06]|:([^#]*)#")


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
        self._paths = Paths(loop, site)
        self._state = STOPPED
        self._arrival: int | None = None  # the state when the slew is over
        self._equator, self._horizon = [0.0, 0.0], [0.0, 0.0]  # targets: ra, dec and azimuth, elevation (deg)
        self._latest: Literal["equator", "horizon"] = "equator"
        self._ultra = False
        self._arrow_rate: float | None = None
        self._stored = {"RTMP": "+0010.0", "RPRS": "0950.0", "uaf": "0", "dat": "0", "REF": "0", "G": "+00:00:00.0"}
        self._flight: _Flight | None = None
        self._caught = False
        self._offsets = Offsets()

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
        if command.startswith("TROFF"):
            follows = self._flight is not None and self._phase() == "T"
            return (self._offsets.answer(command[5:]) if follows else "E") + "#"
        if command.startswith("TR"):
            return self._paths.points(command[2:]) + "#"
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
        site, text = self._paths.site, partial(sexagesimal, ultra=self._ultra)
        match command:
            case "Ginfo":
                return self._ginfo(now_ns)
            case "Gstat":
                return str(self._gstat())
            case "D":
                return "\x7f" if self._moves() else ""
            case "GR" | "GS":
                ascension = self._equatorial(now_ns)[0] if command == "GR" else self._place.sidereal_deg(now_ns)
                return text(ascension / 15.0, 2, "", 24.0)
            case "GD":
                return text(self._equatorial(now_ns)[1], 2, "+")
            case "GA":
                return text(self._pointing(now_ns)[1], 2, "+")
            case "GZ":
                return text(self._pointing(now_ns)[0], 3, "", 360.0)
            case "Gt":
                return text(site.latitude_deg, 2, "+")
            case "Gg":
                return text(-site.longitude_deg, 3, "+")  # LX200: west is positive
            case "Gev":
                return f"{site.altitude_m:+07.1f}"
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
        return Horizon(self._paths.site.latitude_deg, self._paths.site.longitude_deg)

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
            return {"V": SLEWING, "P": NOT_TRACKING, "S": SLEWING, "T": SATELLITE, "Q": NOT_TRACKING}[self._phase()]
        return self._state

    def _moves(self) -> bool:
        return self._gstat() in (PARKING, TO_HOME, SLEWING)

    def _blocked(self) -> bool:
        return "needs_user_ok" in self._special or "motors_cold" in self._special

    def _catch_up(self) -> None:
        """What is over by now becomes what follows."""
        now_ns = self._loop.clock.utc_ns()
        if self._arrival is not None and self._rests(now_ns):
            self._state, self._arrival = self._arrival, None
            if self._state == TRACKING:
                self._track()
        if self._state == SATELLITE:
            self._phase()

    def _rests(self, utc_ns: int) -> bool:
        """No slew is under way, and neither axis turns."""
        axes = self._axes
        turns = any(axis.state(utc_ns)[1] for axis in (axes.azimuth, axes.elevation))
        return not (turns or any(axes.is_slewing(axis, utc_ns) for axis in _AXES))

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
                value = angle_of(command[2:])
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
        value = angle_of(text) if name != "ev" else number_of(text)
        if value is None:
            return "0"
        site = self._paths.site
        if name == "t":
            self._paths.site = replace(site, latitude_deg=value)
        elif name == "g":
            self._paths.site = replace(site, longitude_deg=(-value + 180.0) % 360.0 - 180.0)
        else:
            self._paths.site = replace(site, altitude_m=value)
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
            case "STOP" | "Q" if "deaf_to_stop" in self._special:
                pass
            case "STOP" | "Q":
                self._come_to_rest()
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
        self._leave_motion()
        now_ns = self._loop.clock.utc_ns()
        self._state, self._arrival = meanwhile, then
        self._axes.go_to("azimuth", azimuth_deg, now_ns)
        self._axes.go_to("elevation", elevation_deg, now_ns)
        return True

    def _halt(self, state: int) -> None:
        self._leave_motion()
        self._axes.stop(self._loop.clock.utc_ns())
        if self._state != PARKED:
            self._state = state

    def _come_to_rest(self) -> None:
        """Brake; until it stands it is slewing, as Gstat 6 means both."""
        self._halt(STOPPED)
        if self._state != PARKED and not self._rests(self._loop.clock.utc_ns()):
            self._state, self._arrival = SLEWING, STOPPED

    def _track(self) -> None:
        """Follow the stars from where it points."""
        if self._state == PARKED or self._blocked():
            return
        self._leave_motion()
        ascension, declination = self._equatorial(self._loop.clock.utc_ns())
        place = self._place
        self._state = TRACKING
        self._follower.follow(lambda utc_ns: place.to_horizon(ascension, declination, utc_ns))

    def _press(self, arrow: str) -> None:
        if self._state == PARKED or self._blocked():
            return
        self._leave_motion()
        fastest = self._telescope.parameters.max_rate_deg_s * 3600.0
        rate = fastest if self._arrow_rate is None else self._arrow_rate * _SIDEREAL_ARCSEC_S
        self._state = NOT_TRACKING
        axis = _AXES[arrow in "ns"]
        self._axes.set_rate(axis, rate if arrow in "ne" else -rate, self._loop.clock.utc_ns())

    def _leave_motion(self) -> None:
        self._follower.release()
        self._arrival = None
        self._flight = None
        self._caught = False

    # --- Satellites and paths of points

    def _satellite(self, command: str) -> str:
        """What follows `:TLE`; the answer without its `#`."""
        if command == "S":
            return self._start()
        if command == "SCK":
            return self._phase()
        return self._paths.satellite(command)

    def _start(self) -> str:
        """`:TLES`."""
        if self._paths.transit is None:
            return "E"
        if self._state == PARKED or self._blocked():
            return "F"
        now_ns, transit = self._loop.clock.utc_ns(), self._paths.transit
        if now_ns > transit.stop_ns:
            return "Q"
        self._leave_motion()
        self._state = SATELLITE
        self._offsets.clear()
        self._flight = _Flight(transit, began_late=now_ns > transit.start_ns)
        self._follower.follow(self._offsets.added_to(transit.path))
        return "S" if self._flight.began_late else "V"

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


def main() -> None:
    parser = arguments("A simulated 10Micron AZ2000 HPS on a loopback port or a serial line.")
    parser.add_argument("--latitude", type=float, default=40.39587, help="degrees north (default: Xinglong)")
    parser.add_argument("--longitude", type=float, default=117.57722, help="degrees east")
    parser.add_argument("--height", type=float, default=890.0, help="metres above the ellipsoid")
    options = parser.parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    mount = Mount(world, loop, Site("of the mount", options.latitude, options.longitude, options.height))
    address, guard_address = serve_with_guard(loop, world.faults, options, mount.receiver, over_tcp=True)
    loop.supervise(options)
    announce(address=address, guard_address=guard_address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
