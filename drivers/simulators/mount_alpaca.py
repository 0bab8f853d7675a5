"""An altazimuth mount behind ASCOM Alpaca (HTTP, JSON), with a telescope behind it.

    python -m drivers.simulators.mount_alpaca --address http://127.0.0.1:11111

`MoveAxis` keeps its rate until the next one, and `Slewing` is true meanwhile; a slew to azimuth and altitude is refused
while `Tracking` is on; neither works when parked. Special faults: those of `http_face` and `alpaca_face`.
Sources: as `alpaca_face`; ASCOM's documentation of ITelescopeV3 for what excludes what.
"""

from datetime import UTC, datetime

from drivers.simulators.alpaca_face import (
    INVALID_OPERATION,
    INVALID_VALUE,
    PARKED,
    AlpacaError,
    AlpacaFace,
    Device,
    Parameters,
    not_implemented,
)
from drivers.simulators.following import Follower
from drivers.simulators.horizon import Horizon
from drivers.simulators.http_face import serve_http
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.telescope import Telescope
from groundstation.clock import parse_utc, utc_text
from groundstation.errors import BadInput
from groundstation.simulation.mount import Axis

_ENCODER_COUNTS = 1 << 24
_AXES: tuple[Axis, Axis] = ("azimuth", "elevation")
_LATITUDE_DEG, _LONGITUDE_DEG, _HEIGHT_M = 40.39587, 117.57746, 890.0  # free: Xinglong
_SIDEREAL = 0
_CAN = ("canpark", "canunpark", "cansetpark", "cansettracking", "canslewaltaz", "canslewaltazasync", "canslewasync")
_CANNOT = (
    *("canfindhome", "canpulseguide", "cansetdeclinationrate", "cansetguiderates", "cansetpierside"),
    *("cansetrightascensionrate", "canslew", "cansync", "cansyncaltaz", "athome", "doesrefraction", "ispulseguiding"),
)
_LEFT_OUT_GET = (
    *("aperturearea", "aperturediameter", "focallength", "guideratedeclination", "guideraterightascension"),
    *("sideofpier", "slewsettletime", "targetdeclination", "targetrightascension", "destinationsideofpier"),
)
_LEFT_OUT_PUT = (
    *("findhome", "pulseguide", "slewtoaltaz", "slewtocoordinates", "slewtotarget", "slewtotargetasync"),
    *("synctoaltaz", "synctocoordinates", "synctotarget", "declinationrate", "rightascensionrate", "sideofpier"),
    *("slewsettletime", "targetdeclination", "targetrightascension", "doesrefraction", "guideratedeclination"),
    *("guideraterightascension", "siteelevation", "sitelatitude", "sitelongitude"),
)


class Mount:
    """What a client can ask and tell it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop = loop
        self._telescope = Telescope(world, loop)
        self._axes = self._telescope.axes
        self._follower = Follower(self._telescope, loop)
        self._place = Horizon(_LATITUDE_DEG, _LONGITUDE_DEG)
        parameters = self._telescope.parameters
        self._park = (parameters.park_azimuth_deg, parameters.park_elevation_deg)
        self._at_park = self._parking = self._tracking = False
        self._rates = [0.0, 0.0]
        self._clock_ahead_ns = 0

    def device(self) -> Device:
        """Its routes."""
        fastest = self._telescope.parameters.max_rate_deg_s
        get = {
            **{name: lambda _: True for name in _CAN},
            **{name: lambda _: False for name in _CANNOT},
            **dict.fromkeys(_LEFT_OUT_GET, not_implemented),
            "alignmentmode": lambda _: 0,  # altazimuth
            "altitude": lambda _: self._pointing()[1],
            "azimuth": lambda _: self._pointing()[0],
            "atpark": lambda _: self._parked(),
            "axisrates": lambda p: [{"Maximum": fastest, "Minimum": 0.0}] if _axis(p) < 2 else [],
            "canmoveaxis": lambda p: _axis(p) < 2,
            "declination": lambda _: self._equatorial()[1],
            "declinationrate": lambda _: 0.0,
            "equatorialsystem": lambda _: 1,  # of date
            "rightascension": lambda _: self._equatorial()[0] / 15.0,
            "rightascensionrate": lambda _: 0.0,
            "siderealtime": lambda _: self._place.sidereal_deg(self._now_ns()) / 15.0,
            "siteelevation": lambda _: _HEIGHT_M,
            "sitelatitude": lambda _: _LATITUDE_DEG,
            "sitelongitude": lambda _: _LONGITUDE_DEG,
            "slewing": lambda _: self._slewing(),
            "tracking": lambda _: self._tracking,
            "trackingrate": lambda _: _SIDEREAL,
            "trackingrates": lambda _: [_SIDEREAL],
            "utcdate": lambda _: utc_text(self._now_ns() + self._clock_ahead_ns, 7),
        }
        put = {
            **dict.fromkeys(_LEFT_OUT_PUT, not_implemented),
            "abortslew": lambda _: self._abort(),
            "moveaxis": self._move_axis,
            "park": lambda _: self._begin_to_park(),
            "unpark": lambda _: self._unpark(),
            "setpark": lambda _: self._set_park(),
            "slewtoaltazasync": self._slew_to_horizon,
            "slewtocoordinatesasync": self._slew_to_equator,
            "tracking": self._set_tracking,
            "trackingrate": self._set_tracking_rate,
            "utcdate": self._set_utc_date,
        }
        return Device("telescope", "Simulated altazimuth mount", 3, get, put)

    # --- Questions

    def _now_ns(self) -> int:
        return self._loop.clock.utc_ns()

    def _pointing(self) -> tuple[float, float]:
        azimuth, elevation = (self._axes.encoder(axis, self._now_ns()) / _ENCODER_COUNTS for axis in _AXES)
        return azimuth * 360.0, ((elevation + 0.5) % 1.0 - 0.5) * 360.0

    def _equatorial(self) -> tuple[float, float]:
        return self._place.to_equator(*self._pointing(), self._now_ns())

    def _goes_somewhere(self) -> bool:
        return any(self._axes.is_slewing(axis, self._now_ns()) for axis in _AXES)

    def _slewing(self) -> bool:
        return self._goes_somewhere() or any(self._rates) or self._follower.error_deg(self._now_ns()) > 0.02

    def _parked(self) -> bool:
        if self._parking and not self._goes_somewhere():
            self._parking, self._at_park = False, True
        return self._at_park

    # --- Commands

    def _free(self) -> None:
        """Give up what it does; the axes go on until they are told otherwise."""
        if self._parked():
            raise AlpacaError(PARKED, "The mount is parked")
        self._parking = False
        self._follower.release()

    def _move_axis(self, parameters: Parameters) -> None:
        axis, rate_deg_s = _axis(parameters), parameters.number("Rate")
        if axis > 1 or not abs(rate_deg_s) <= self._telescope.parameters.max_rate_deg_s:
            raise AlpacaError(INVALID_VALUE, f"Axis {axis} cannot turn at {rate_deg_s} degrees per second")
        self._free()
        for index in range(2):  # a slew under way ends on both axes
            if index == axis or self._axes.is_slewing(_AXES[index], self._now_ns()) or self._tracking:
                self._rates[index] = rate_deg_s if index == axis else self._rates[index]
                self._axes.set_rate(_AXES[index], self._rates[index] * 3600.0, self._now_ns())
        if self._tracking and not any(self._rates):
            self._track()
        self._telescope.publish()

    def _slew_to_horizon(self, parameters: Parameters) -> None:
        azimuth_deg, altitude_deg = parameters.number("Azimuth"), parameters.number("Altitude")
        if not (0.0 <= azimuth_deg <= 360.0 and -90.0 <= altitude_deg <= 90.0):
            raise AlpacaError(INVALID_VALUE, f"There is no azimuth {azimuth_deg}, altitude {altitude_deg}")
        if self._tracking:
            raise AlpacaError(INVALID_OPERATION, "Cannot slew to azimuth and altitude while tracking is on")
        self._go_to(azimuth_deg, altitude_deg)

    def _go_to(self, azimuth_deg: float, altitude_deg: float) -> None:
        self._free()
        self._rates = [0.0, 0.0]
        for axis, angle_deg in zip(_AXES, (azimuth_deg, altitude_deg), strict=True):
            self._axes.go_to(axis, angle_deg, self._now_ns())
        self._telescope.publish()

    def _slew_to_equator(self, parameters: Parameters) -> None:
        hours, declination_deg = parameters.number("RightAscension"), parameters.number("Declination")
        if not (0.0 <= hours < 24.0 and -90.0 <= declination_deg <= 90.0):
            raise AlpacaError(INVALID_VALUE, f"There is no right ascension {hours}, declination {declination_deg}")
        if not self._tracking:
            raise AlpacaError(INVALID_OPERATION, "Cannot slew to coordinates while tracking is off")
        self._free()
        self._rates = [0.0, 0.0]
        self._follower.follow(lambda utc_ns: self._place.to_horizon(hours * 15.0, declination_deg, utc_ns))

    def _abort(self) -> None:
        self._free()
        self._rates = [0.0, 0.0]
        self._axes.stop(self._now_ns())
        if self._tracking:
            self._track()
        self._telescope.publish()

    def _set_tracking(self, parameters: Parameters) -> None:
        on = parameters.truth("Tracking")
        self._free()
        self._tracking = on
        if on:
            self._track()
        elif not any(self._rates):
            self._axes.stop(self._now_ns())
        self._telescope.publish()

    def _track(self) -> None:
        ascension, declination = self._equatorial()
        self._follower.follow(lambda utc_ns: self._place.to_horizon(ascension, declination, utc_ns))

    def _set_tracking_rate(self, parameters: Parameters) -> None:
        if parameters.whole("TrackingRate") != _SIDEREAL:
            raise AlpacaError(INVALID_VALUE, "It tracks at the sidereal rate only")

    def _begin_to_park(self) -> None:
        if self._parked():
            return
        self._tracking = False
        self._go_to(*self._park)
        self._parking = True

    def _unpark(self) -> None:
        self._parked()
        self._at_park = self._parking = False

    def _set_park(self) -> None:
        self._park = self._pointing()

    def _set_utc_date(self, parameters: Parameters) -> None:
        text = parameters.text("UTCDate")
        try:
            moment = datetime.fromisoformat(text)
            utc_ns = parse_utc(text if moment.tzinfo else moment.replace(tzinfo=UTC).isoformat())
        except (ValueError, BadInput):
            raise AlpacaError(INVALID_VALUE, f"{text} is no date") from None
        self._clock_ahead_ns = utc_ns - self._now_ns()


def _axis(parameters: Parameters) -> int:
    axis = parameters.whole("Axis")
    if axis not in range(3):
        raise AlpacaError(INVALID_VALUE, f"There is no axis {axis}")
    return axis


def main() -> None:
    options = arguments("A simulated altazimuth mount behind ASCOM Alpaca.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    face = AlpacaFace(Mount(world, loop).device(), world.faults)
    address = serve_http(loop, world.faults, options, face.answer)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
