"""PlaneWave's PWI4 with an altazimuth mount, seen from the far end of its HTTP port, with a telescope behind it.

    python -m drivers.simulators.mount_pwi4 --address http://127.0.0.1:8220 --version 4.0.13

Every command is answered with the status, `key=value` lines; 404 for an unknown one, 400 for bad parameters, 500 when
the mount is not connected or an axis not enabled (free). It goes to a direction, follows stars, an element set or a
path of points on its own clock, and takes offsets along and across the motion meanwhile. `--version` decides which keys
and offset commands there are. Special faults: "missing_keys" (none of the keys that came after the first version) and
those of `http_face`.
Sources: the vendor's `pwi4_client.py` (in taylorhogan/srt), INDI `planewave_mount.cpp`.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from drivers.simulators.following import Follower
from drivers.simulators.horizon import Horizon, from_j2000, to_j2000
from drivers.simulators.http_face import HttpAnswer, HttpRequest, serve_http
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.pwi4_offsets import AXES, Offsets
from drivers.simulators.pwi4_paths import Points, Refused, bad, number
from drivers.simulators.sky_paths import SkyPath
from drivers.simulators.telescope import Telescope
from groundstation.clock import NS_PER_S, utc_text
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.simulation.mount import Axis

_ENCODER_COUNTS = 1 << 24
_AXES: tuple[Axis, Axis] = ("azimuth", "elevation")
_NO_EARTH_ORIENTATION = EarthOrientation(0.0, 0.0, 0.0, "none", "PWI4 takes UT1 = UTC here")
_AT_TARGET_DEG, _SETTLING_NS = 0.02, 200_000_000  # free: so close to its target, so long, it calls the slew over
_ELEMENTS_S, _KNOT_S = 1200, 0.5  # free: how far ahead an element set is computed
_STEP_NS = 50_000_000
_DAY_NS = 86_400 * NS_PER_S
_JD_1970 = 2_440_587.5
_WITHOUT_MOUNT = ("/mount/connect", "/mount/disconnect", "/mount/stop", "/mount/tracking_off")  # free

Path = Callable[[int], tuple[float, float]]


class _Target(NamedTuple):
    """What the mount was told to point at; `until_ns`: when a path ends."""

    path: Path
    moves: bool
    until_ns: int | None = None


class Pwi4:
    """The program and its mount."""

    def __init__(self, world: World, loop: Loop, site: Site, version: tuple[int, ...]) -> None:
        self._loop, self._site = loop, site
        self._wrong_model = world.faults.wrong_model
        self._version = (4, 0, 4) if "missing_keys" in world.faults.special else version
        self._telescope = Telescope(world, loop)
        self._axes = self._telescope.axes
        self._follower = Follower(self._telescope, loop)
        self._place = Horizon(site.latitude_deg, site.longitude_deg)
        parameters = self._telescope.parameters
        self._park = (parameters.park_azimuth_deg, parameters.park_elevation_deg)
        self._connected = False
        self._enabled = [False, False]
        self._target: _Target | None = None
        self._slewing = False
        self._near_since_ns: int | None = None
        self._offsets = Offsets(self._version >= (4, 0, 11))
        self._points = Points(site)

    # --- Requests

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """One request; its reply is the status."""
        if self._wrong_model:
            return HttpAnswer(200, b"<html><body>It works!</body></html>", "text/html")
        commands: Mapping[str, Callable[[Mapping[str, str]], None]] = {
            "/status": lambda _: None,
            "/mount/connect": lambda _: self._connect(),
            "/mount/disconnect": lambda _: self._disconnect(),
            "/mount/enable": lambda q: self._enable(q, True),
            "/mount/disable": lambda q: self._enable(q, False),
            "/mount/stop": lambda _: self._stop(),
            "/mount/park": lambda _: self._go_to(*self._park),
            "/mount/find_home": lambda _: self._go_to(0.0, 0.0),  # free: where home is
            "/mount/set_park_here": lambda _: self._set_park(),
            "/mount/tracking_on": lambda _: self._track(),
            "/mount/tracking_off": lambda _: self._stop(),
            "/mount/goto_alt_az": lambda q: self._go_to(number(q, "az_degs"), number(q, "alt_degs")),
            "/mount/goto_coord_pair": self._go_to_pair,
            "/mount/goto_ra_dec_apparent": lambda q: self._follow_star(q, self._place.to_horizon),
            "/mount/goto_ra_dec_j2000": lambda q: self._follow_star(q, partial(from_j2000, self._site)),
            "/mount/follow_tle": self._follow_elements,
            "/mount/radecpath/new": lambda _: self._points.begin("radec"),
            "/mount/radecpath/add_point": self._points.add_star,
            "/mount/radecpath/apply": lambda _: self._apply_path(),
            "/mount/custom_path/new": self._points.begin_custom,
            "/mount/custom_path/add_point_list": lambda _: self._points.add_list(request.form),
            "/mount/custom_path/apply": lambda _: self._apply_path(),
            "/mount/offset": self._offset,
            "/mount/set_slew_time_constant": lambda q: None if number(q, "value") >= 0.0 else bad("value"),
        }
        command = commands.get(request.path)
        if request.path == "/internal/crash":
            return HttpAnswer(500, b"Internal Server Error")
        if command is None:
            return HttpAnswer(404, b"Command not found")
        try:
            if request.path.startswith("/mount/") and request.path not in _WITHOUT_MOUNT and not self._connected:
                raise Refused(500, "Mount is not connected")
            command(request.query)
        except Refused as refusal:
            return HttpAnswer(refusal.status, str(refusal).encode())
        except (ValueError, ArithmeticError, BadInput) as error:
            return HttpAnswer(400, f"Invalid parameters: {error}".encode())
        self._telescope.publish()
        return HttpAnswer(200, "".join(f"{key}={value}\n" for key, value in self._status().items()).encode())

    def _connect(self) -> None:
        self._connected = True

    def _disconnect(self) -> None:
        self._stop()
        self._connected, self._enabled = False, [False, False]

    def _enable(self, query: Mapping[str, str], on: bool) -> None:
        axis = query.get("axis")
        if axis not in ("0", "1"):
            bad("axis")
        self._enabled[axis == "1"] = on
        if not on:
            self._stop()

    # --- What it points at

    def _now_ns(self) -> int:
        return self._loop.clock.utc_ns()

    def _point_at(self, target: _Target) -> None:
        if not all(self._enabled):
            raise Refused(500, "An axis is not enabled")
        self._offsets.clear()  # free: what a new target does to the offsets of the last one
        self._target, self._slewing, self._near_since_ns = target, True, None
        if target.moves:
            self._follower.follow(lambda utc_ns: self._with_offsets(target, utc_ns))
        else:
            self._follower.release()
            now_ns = self._now_ns()
            for axis, angle_deg in zip(_AXES, target.path(now_ns), strict=True):
                self._axes.go_to(axis, angle_deg, now_ns)
        if target.until_ns is not None:
            self._loop.at(target.until_ns, lambda: self._stop() if self._target is target else None)

    def _stop(self) -> None:
        self._target, self._slewing = None, False
        self._follower.release()
        self._axes.stop(self._now_ns())
        self._telescope.publish()

    def _set_park(self) -> None:
        self._park = self._pointing(self._now_ns())

    def _go_to(self, azimuth_deg: float, altitude_deg: float) -> None:
        if not -90.0 <= altitude_deg <= 90.0:
            bad("altitude")
        self._point_at(_Target(lambda _: (azimuth_deg, altitude_deg), moves=False))

    def _go_to_pair(self, query: Mapping[str, str]) -> None:
        if query.get("type") not in ("altaz", "raw"):
            bad("type")
        self._go_to(number(query, "c0"), number(query, "c1"))

    def _follow_star(
        self, query: Mapping[str, str], to_horizon: Callable[[float, float, int], tuple[float, float]]
    ) -> None:
        ascension_deg, declination_deg = number(query, "ra_hours") * 15.0, number(query, "dec_degs")
        if not (0.0 <= ascension_deg <= 360.0 and -90.0 <= declination_deg <= 90.0):
            bad("ra_hours or dec_degs")
        if to_horizon(ascension_deg, declination_deg, self._now_ns())[1] < 0.0:
            raise Refused(500, "The target is below the horizon")  # free
        self._point_at(_Target(lambda utc_ns: to_horizon(ascension_deg, declination_deg, utc_ns), moves=True))

    def _track(self) -> None:
        """Follow the stars from where it points."""
        now_ns = self._now_ns()
        ascension, declination = self._place.to_equator(*self._pointing(now_ns), now_ns)
        self._point_at(_Target(lambda utc_ns: self._place.to_horizon(ascension, declination, utc_ns), moves=True))
        self._slewing = False

    def _follow_elements(self, query: Mapping[str, str]) -> None:
        elements = ElementSet.parse(*(query[f"line{n}"] if f"line{n}" in query else bad("line") for n in (1, 2, 3)))
        orbit = Orbit(elements, self._site, _NO_EARTH_ORIENTATION)
        times = self._now_ns() + np.arange(0, _ELEMENTS_S * NS_PER_S, round(_KNOT_S * NS_PER_S), dtype=np.int64)
        look = orbit.geometric(times)
        path = SkyPath(times, look.azimuth_deg, np.maximum(look.elevation_deg, 0.0))  # free: waits at the horizon
        self._point_at(_Target(path.at, moves=True, until_ns=int(times[-1])))

    def _apply_path(self) -> None:
        path, until_ns = self._points.path()
        self._point_at(_Target(path.at, moves=True, until_ns=until_ns))

    # --- Offsets

    def _offset(self, query: Mapping[str, str]) -> None:
        self._offsets.command(query, self._now_ns())
        if (target := self._target) is not None and not self._follower.follows:
            self._follower.follow(lambda utc_ns: self._with_offsets(target, utc_ns))

    def _with_offsets(self, target: _Target, utc_ns: int) -> tuple[float, float]:
        """Azimuth and elevation of the target with what the offsets add."""
        azimuth, elevation = target.path(utc_ns)
        total = {axis: self._offsets.total(axis, utc_ns) / 3600.0 for axis in AXES}
        if total["ra"] or total["dec"]:
            ascension, declination = self._place.to_equator(azimuth, elevation, utc_ns)
            moved = self._place.to_horizon(ascension + total["ra"], declination + total["dec"], utc_ns)
            azimuth, elevation = azimuth + math.remainder(moved[0] - azimuth, 360.0), moved[1]
        if target.moves and (total["path"] or total["transverse"]):
            before, after = target.path(utc_ns - _STEP_NS), target.path(utc_ns + _STEP_NS)
            across = max(math.cos(math.radians(elevation)), 1e-6)
            right, up = math.remainder(after[0] - before[0], 360.0) * across, after[1] - before[1]
            speed = math.hypot(right, up)
            if speed > 0.0:  # free: transverse is to the left of the motion, seen from below
                right, up = right / speed, up / speed
                azimuth += (total["path"] * right - total["transverse"] * up) / across
                elevation += total["path"] * up + total["transverse"] * right
        return azimuth + total["axis0"], elevation + total["axis1"]

    # --- The status

    def _pointing(self, utc_ns: int) -> tuple[float, float]:
        azimuth, elevation = (self._axes.encoder(axis, utc_ns) / _ENCODER_COUNTS * 360.0 for axis in _AXES)
        return azimuth, (elevation + 180.0) % 360.0 - 180.0

    def _settle(self, now_ns: int) -> None:
        """Notice that a slew is over."""
        if not self._follower.follows:
            self._slewing = any(self._axes.is_slewing(axis, now_ns) for axis in _AXES)
            return
        if self._follower.error_deg(now_ns) > _AT_TARGET_DEG:
            self._near_since_ns = None
            return
        self._near_since_ns = self._near_since_ns or now_ns
        if now_ns - self._near_since_ns > _SETTLING_NS:
            self._slewing = False

    def _status(self) -> dict[str, object]:
        now_ns = self._now_ns()
        self._settle(now_ns)
        moves = self._target is not None and self._target.moves
        azimuth, altitude = self._pointing(now_ns)
        apparent = self._place.to_equator(azimuth, altitude, now_ns)
        j2000 = to_j2000(self._site, azimuth, altitude, now_ns)
        stamp = utc_text(now_ns, 6).replace("T", " ")[:-1]
        days, rest_ns = divmod(now_ns, _DAY_NS)
        keys: list[tuple[tuple[int, ...], str, object]] = [
            ((4, 0, 5), "pwi4.version", ".".join(map(str, self._version))),
            *(((4, 0, 9), f"pwi4.version_field[{i}]", n) for i, n in enumerate((*self._version, 0, 0)[:4])),
            ((4, 0, 9), "response.timestamp_utc", stamp),
            ((), "site.latitude_degs", self._site.latitude_deg),
            ((), "site.longitude_degs", self._site.longitude_deg),
            ((), "site.height_meters", self._site.altitude_m),
            ((), "site.lmst_hours", f"{self._place.sidereal_deg(now_ns) / 15.0:.9f}"),
            ((), "mount.is_connected", _truth(self._connected)),
            ((), "mount.geometry", 0),
            ((4, 0, 9), "mount.timestamp_utc", stamp),
            ((4, 0, 9), "mount.julian_date", f"{days + _JD_1970 + rest_ns / _DAY_NS:.9f}"),
            ((), "mount.ra_apparent_hours", f"{apparent[0] / 15.0:.10f}"),
            ((), "mount.dec_apparent_degs", f"{apparent[1]:.10f}"),
            ((), "mount.ra_j2000_hours", f"{j2000[0] / 15.0:.10f}"),
            ((), "mount.dec_j2000_degs", f"{j2000[1]:.10f}"),
            ((), "mount.azimuth_degs", f"{azimuth:.10f}"),
            ((), "mount.altitude_degs", f"{altitude:.10f}"),
            ((), "mount.is_slewing", _truth(self._slewing)),
            ((), "mount.is_tracking", _truth(moves and not self._slewing)),
            *(key for axis in range(2) for key in self._axis_keys(axis, now_ns, stamp)),
            *(key for axis in AXES for key in self._offset_keys(axis, now_ns)),
        ]
        return {name: value for since, name, value in keys if self._version >= since}

    def _axis_keys(self, index: int, now_ns: int, stamp: str) -> list[tuple[tuple[int, ...], str, object]]:
        here = self._axes.pointing_deg(now_ns)[index]
        there = self._with_offsets(self._target, now_ns)[index] if self._target else here
        error_arcsec = math.remainder(there - here, 360.0) * 3600.0
        motion = (self._axes.azimuth, self._axes.elevation)[index]
        prefix, parameters = f"mount.axis{index}.", self._telescope.parameters
        return [
            ((), prefix + "is_enabled", _truth(self._enabled[index])),
            ((), prefix + "rms_error_arcsec", f"{abs(error_arcsec):.4f}"),
            ((), prefix + "dist_to_target_arcsec", f"{error_arcsec:.4f}"),
            ((), prefix + "servo_error_arcsec", f"{error_arcsec:.4f}"),
            ((), prefix + "position_degs", f"{here:.8f}"),
            ((4, 0, 9), prefix + "position_timestamp", stamp),
            ((4, 0, 13), prefix + "max_velocity_degs_per_sec", parameters.max_rate_deg_s),
            ((4, 0, 13), prefix + "measured_velocity_degs_per_sec", f"{motion.state(now_ns)[1]:.8f}"),
            ((4, 0, 13), prefix + "acceleration_degs_per_sec_sqr", parameters.max_acceleration_deg_s2),
        ]

    def _offset_keys(self, axis: str, now_ns: int) -> list[tuple[tuple[int, ...], str, object]]:
        offset, prefix, since = self._offsets[axis], f"mount.offsets.{axis}_arcsec.", (4, 0, 11)
        return [
            (since, prefix + "total", f"{offset.at(now_ns):.6f}"),
            (since, prefix + "rate", f"{offset.rate_arcsec_s:.6f}"),
            (since, prefix + "gradual_offset_progress", f"{offset.progress(now_ns):.6f}"),
        ]


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _options() -> argparse.Namespace:
    parser = arguments("A simulated PlaneWave PWI4 with an altazimuth mount.")
    parser.add_argument("--version", default="4.0.13", help="of PWI4: decides which status keys there are")
    parser.add_argument("--site", default="40.39587,117.57746,890", help="latitude, longitude (deg) and height (m)")
    return parser.parse_args()


def _numbers(text: str, separator: str, count: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != count:
        raise BadInput(f'{option} is "{text}"; it must be {count} numbers with "{separator}" between them')
    return values


def main() -> None:
    options = _options()
    version = tuple(int(number) for number in _numbers(options.version, ".", 3, "--version"))
    site = Site("of the mount", *_numbers(options.site, ",", 3, "--site"))
    world = world_of(options)
    loop = Loop(world.clock)
    program = Pwi4(world, loop, site, version)
    address = serve_http(loop, world.faults, options, program.answer)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
