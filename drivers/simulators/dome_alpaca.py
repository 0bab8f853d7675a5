"""A dome with a shutter behind ASCOM Alpaca (HTTP, JSON).

    python -m drivers.simulators.dome_alpaca --address http://127.0.0.1:11112

It turns the shorter way, at a finite rate; the shutter takes its time, too, and `Slewing` is true while either moves.
A shutter stopped half-way is in error until it is told to open or close. Special faults: "shutter_stuck" (it stops
half-way by itself) and those of `http_face` and `alpaca_face`. Sources: as `alpaca_face`; ASCOM's IDomeV2.
"""

import math

from drivers.simulators.alpaca_face import (
    INVALID_VALUE,
    AlpacaError,
    AlpacaFace,
    Device,
    Parameters,
    not_implemented,
)
from drivers.simulators.http_face import serve_http
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from groundstation.clock import NS_PER_S
from groundstation.simulation.mount import AxisMotion

_MAX_RATE_DEG_S, _ACCELERATION_DEG_S2 = 6.0, 2.0  # free
_SHUTTER_S = 20.0  # free: from closed to open
_STUCK_AT = 0.5  # free
_OPEN, _CLOSED, _OPENING, _CLOSING, _ERROR = range(5)


class Shutter:
    """How far it is open (0 to 1), and where it is going."""

    def __init__(self, stuck: bool, utc_ns: int) -> None:
        self._stuck = stuck
        self._from, self._to, self._since_ns = 0.0, 0.0, utc_ns

    def go(self, to: float, utc_ns: int) -> None:
        """Begin to move to a fraction."""
        self._from, self._to, self._since_ns = self.opened(utc_ns), to, utc_ns

    def opened(self, utc_ns: int) -> float:
        """The fraction that is open."""
        way = (utc_ns - self._since_ns) / NS_PER_S / _SHUTTER_S
        here = self._from + math.copysign(min(way, abs(self._to - self._from)), self._to - self._from)
        if self._stuck and (self._from - _STUCK_AT) * (here - _STUCK_AT) <= 0.0:
            return _STUCK_AT
        return here

    def status(self, utc_ns: int) -> int:
        """ShutterStatus."""
        opened = self.opened(utc_ns)
        if opened != self._to and not (self._stuck and opened == _STUCK_AT):
            return _OPENING if self._to > opened else _CLOSING
        return {1.0: _OPEN, 0.0: _CLOSED}.get(opened, _ERROR)


class Dome:
    """What a client can ask and tell it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop = loop
        self._turning = AxisMotion(self._now_ns(), 0.0, (-math.inf, math.inf), _ACCELERATION_DEG_S2)
        self._shutter = Shutter("shutter_stuck" in world.faults.special, self._now_ns())
        self._park_deg = self._home_deg = 0.0  # free

    def device(self) -> Device:
        """Its routes."""
        can = ("canfindhome", "canpark", "cansetazimuth", "cansetpark", "cansetshutter")
        cannot = ("cansetaltitude", "canslave", "cansyncazimuth", "slaved")
        get = {
            **{name: lambda _: True for name in can},
            **{name: lambda _: False for name in cannot},
            "altitude": not_implemented,
            "athome": lambda _: self._stands_at(self._home_deg),
            "atpark": lambda _: self._stands_at(self._park_deg),
            "azimuth": lambda _: self._azimuth_deg(),
            "shutterstatus": lambda _: self._shutter.status(self._now_ns()),
            "slewing": lambda _: self._moves(),
        }
        put = {
            **dict.fromkeys(("slewtoaltitude", "synctoazimuth"), not_implemented),
            "abortslew": lambda _: self._abort(),
            "closeshutter": lambda _: self._shutter.go(0.0, self._now_ns()),
            "findhome": lambda _: self._turn_to(self._home_deg),
            "openshutter": lambda _: self._shutter.go(1.0, self._now_ns()),
            "park": lambda _: self._turn_to(self._park_deg),
            "setpark": lambda _: self._set_park(),
            "slaved": self._set_slaved,
            "slewtoazimuth": self._slew_to_azimuth,
        }
        return Device("dome", "Simulated dome", 2, get, put)

    def _now_ns(self) -> int:
        return self._loop.clock.utc_ns()

    def _azimuth_deg(self) -> float:
        return self._turning.state(self._now_ns())[0] % 360.0

    def _turns(self) -> bool:
        return self._turning.state(self._now_ns())[1] != 0.0 or self._turning.slews(self._now_ns())

    def _moves(self) -> bool:
        return self._turns() or self._shutter.status(self._now_ns()) in (_OPENING, _CLOSING)

    def _stands_at(self, azimuth_deg: float) -> bool:
        return not self._turns() and abs(math.remainder(self._azimuth_deg() - azimuth_deg, 360.0)) < 0.1

    def _slew_to_azimuth(self, parameters: Parameters) -> None:
        azimuth_deg = parameters.number("Azimuth")
        if not 0.0 <= azimuth_deg < 360.0:
            raise AlpacaError(INVALID_VALUE, f"There is no azimuth {azimuth_deg}")
        self._turn_to(azimuth_deg)

    def _turn_to(self, azimuth_deg: float) -> None:
        now_ns = self._now_ns()
        here_deg = self._turning.state(now_ns)[0]
        target_deg = here_deg + math.remainder(azimuth_deg - here_deg, 360.0)
        self._turning.go_to(target_deg, _MAX_RATE_DEG_S, now_ns)

    def _abort(self) -> None:
        now_ns = self._now_ns()
        self._turning.turn(0.0, now_ns)
        self._shutter.go(self._shutter.opened(now_ns), now_ns)

    def _set_park(self) -> None:
        self._park_deg = self._azimuth_deg()

    def _set_slaved(self, parameters: Parameters) -> None:
        if parameters.truth("Slaved"):
            not_implemented(parameters)


def main() -> None:
    options = arguments("A simulated dome behind ASCOM Alpaca.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    face = AlpacaFace(Dome(world, loop).device(), world.faults)
    address = serve_http(loop, world.faults, options, face.answer)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
