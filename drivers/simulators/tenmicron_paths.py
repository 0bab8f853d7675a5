"""What a simulated 10Micron mount can be told to follow: passes of an element set, paths of points, and live offsets.

Each answers the rest of a command, without the `#` at the end. Sources: those of `mount_10micron`.
"""

import math
import re
from collections.abc import Callable

from drivers.simulators.horizon import Horizon
from drivers.simulators.lx200_text import number_of
from drivers.simulators.program import Loop
from drivers.simulators.sky_paths import SkyPath, Transit, julian, satellite_pass, utc_of
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site

_NO_EARTH_ORIENTATION = EarthOrientation(0.0, 0.0, 0.0, "none", "the mount takes UT1 = UTC")
_MOST_POINTS = 900  # gotenmicron
_OFFSET_LIMITS = {"1": 1800.0, "2": 1800.0, "3": 1800.0, "4": 1000.0}  # arcsec, and ms for 4 (gotenmicron)


class Paths:
    """Element set and points that the mount was given, and the transit that it computed last."""

    def __init__(self, loop: Loop, site: Site) -> None:
        self._clock = loop.clock
        self.site = site
        self.transit: Transit | None = None
        self._elements: ElementSet | None = None
        self._points: list[tuple[float, float]] | None = None
        self._points_start_ns = 0

    def satellite(self, command: str) -> str:
        """What follows `:TLE` and is no motion."""
        if command.startswith("L0"):
            return self._load_elements(command[2:])
        if command == "G":
            elements = self._elements
            return "E" if elements is None else f"{elements.name}$0A{elements.line1}$0A{elements.line2}$0A"
        try:
            if found := re.fullmatch(r"G(AZ|EQ)(\d{7}(?:\.\d*)?)", command):
                return self._where(found[1], utc_of(found[2]))
            if found := re.fullmatch(r"P(\d{7}(?:\.\d*)?),(\d{1,4})", command):
                return self._predict(utc_of(found[1]), int(found[2]))
        except BadInput:  # the elements are too old
            pass
        return "E"  # TLEDL too: the data base is empty

    def points(self, command: str) -> str:
        """What follows `:TR` and is no offset."""
        if found := re.fullmatch(r"NEW(\d{7}(?:\.\d*)?)", command):
            self._points, self._points_start_ns = [], utc_of(found[1])
            return "V"
        if found := re.fullmatch(r"ADD([^,]*),([^,]*)", command):
            return self._add_point(number_of(found[1]), number_of(found[2]))
        if command not in ("P", "REPLAY") or self._points is None or len(self._points) < 2:
            return "E"
        now_ns = self._clock.utc_ns()
        start_ns = now_ns if command == "REPLAY" else self._points_start_ns
        path = SkyPath.of_points(start_ns, self._points)
        stop_ns = start_ns + (len(self._points) - 1) * NS_PER_S
        self.transit = Transit(start_ns, stop_ns, path) if stop_ns > now_ns else None
        return self._announced()

    def _load_elements(self, text: str) -> str:
        plain = re.sub(r"\$([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)
        lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
        if len(lines) not in (2, 3):
            return "E"
        try:
            self._elements = ElementSet.parse(lines[0].strip() if len(lines) == 3 else "", lines[-2], lines[-1])
        except BadInput:
            return "E"
        self.transit = None
        return "V"

    def _orbit(self) -> Orbit | None:
        return Orbit(self._elements, self.site, _NO_EARTH_ORIENTATION) if self._elements else None

    def _where(self, what: str, utc_ns: int) -> str:
        orbit = self._orbit()
        if orbit is None:
            return "E"
        look = orbit.geometric(utc_ns)
        azimuth, elevation = float(look.azimuth_deg[0]), float(look.elevation_deg[0])
        if what == "AZ":
            return f"{elevation:+.5f},{azimuth:.5f}"
        place = Horizon(self.site.latitude_deg, self.site.longitude_deg)
        ascension, declination = place.to_equator(azimuth, elevation, utc_ns)
        return f"{ascension / 15.0:.5f},{declination:+.5f}"

    def _predict(self, from_ns: int, minutes: int) -> str:
        orbit = self._orbit()
        if orbit is None or not 1 <= minutes <= 1440:
            return "E"
        self.transit = satellite_pass(orbit, from_ns, minutes)
        return self._announced()

    def _announced(self) -> str:
        """`JDstart,JDend,flags` of what was computed, `N` for nothing; this mount never flips."""
        transit = self.transit
        return "N" if transit is None else f"{julian(transit.start_ns)},{julian(transit.stop_ns)},"

    def _add_point(self, azimuth_deg: float | None, elevation_deg: float | None) -> str:
        if self._points is None or len(self._points) >= _MOST_POINTS or azimuth_deg is None or elevation_deg is None:
            return "E"
        if not (-360.0 <= azimuth_deg <= 720.0 and -5.0 <= elevation_deg <= 90.0):  # free
            return "E"
        self._points.append((azimuth_deg, elevation_deg))
        return str(len(self._points))


class Offsets:
    """On both axes (1, 2) and on the sky (3) in arcseconds, in time (4) in milliseconds; live while it follows."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(_OFFSET_LIMITS, 0.0)

    def clear(self) -> None:
        self._values = dict.fromkeys(_OFFSET_LIMITS, 0.0)

    def answer(self, command: str) -> str:
        """What follows `:TROFF`."""
        if command == "CLR":
            self.clear()
            return "V"
        if found := re.fullmatch(r"GET([1-4])", command):
            return f"{self._values[found[1]]:+07.1f}"
        found = re.fullmatch(r"(SET|ADD)([1-4]),(.*)", command)
        value = number_of(found[3]) if found else None
        if found is None or value is None:
            return "E"
        value = round(value + (self._values[found[2]] if found[1] == "ADD" else 0.0), 1)
        if abs(value) > _OFFSET_LIMITS[found[2]]:
            return "E"
        self._values[found[2]] = value
        return "V"

    def added_to(self, path: SkyPath) -> Callable[[int], tuple[float, float]]:
        """Where the path is with the live offsets. A positive time offset points to where it is later (free)."""

        def target(utc_ns: int) -> tuple[float, float]:
            first, second, on_sky, time_ms = self._values.values()
            azimuth, elevation = path.at(utc_ns + round(time_ms * 1e6))
            level = max(0.01, math.cos(math.radians(elevation)))
            return azimuth + (first + on_sky / level) / 3600.0, elevation + second / 3600.0

        return target
