"""An S-Fifteen single-photon detector module seen from the far end of its serial line, one program each.

    python -m drivers.simulators.detector_spd --detector 0 --pty

Detectors 0 to 3 are H, V, D, A. Commands end with ";", CR LF or LF; queries answer one line ended by CR LF,
settings answer nothing. Source of the commands: pyS15 `S15lib/instruments/single_photon_detector.py`. What it
does not say (error texts, ranges, the answer of `save`) is ours.
"""

import math
import re
from collections.abc import Callable

import numpy as np

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, Receiver, serve_lines
from groundstation.clock import NS_PER_S, monotonic_s
from groundstation.errors import BadInput
from groundstation.simulation.parameters import SpdParameters

_REPLY_LATENCY_S = 0.002  # free
_UPDATE_WALL_S = 0.1  # how often the world hears of the temperature
_COUNTS_WALL_S = 0.08  # how long to wait for the photons to be counted up to the end of an integration
_DARK_DOUBLES_C = 10.0  # free: a common rule for silicon avalanche diodes
_EFFICIENCY_LIMIT = 1.2  # free
_MAX_COMMAND = 80
_NAMES = "HVDA"  # of the detectors 0 to 3

#: Setting -> lowest and highest value that is accepted. All free.
_RANGES = {
    "hvolt": (0.0, 300.0),
    "threshvolt": (0.0, 3.3),
    "settemp": (-50.0, 40.0),
    "loop": (0.0, 1.0),
    "pvolt": (0.0, 5.0),
    "constp": (0.0, 1e6),
    "consti": (0.0, 1e6),
    "delay": (0.0, 1e6),
    "time": (1.0, 600_000.0),
}
_HELP = ["*IDN?", *(f"{name} <value> / {name}?" for name in _RANGES), "temp?", "counts?", "save", "HELP"]


class Diode:
    """The avalanche diode and its cooler. Times are world time."""

    def __init__(self, spd: SpdParameters, dark_hz: float, utc_ns: int) -> None:
        """Bias off, at ambient temperature, the cooler just switched on; `dark_hz` at the operating point."""
        self._spd, self._dark_hz = spd, dark_hz
        self.bias_v = 0.0
        self._target_c = spd.set_temperature_c
        self._from_c, self._from_ns = spd.ambient_c, utc_ns

    def cool(self, target_c: float | None, utc_ns: int) -> None:
        """Head for a temperature; None lets the diode drift to ambient."""
        self._from_c, self._from_ns = self.temperature_c(utc_ns), utc_ns
        self._target_c = self._spd.ambient_c if target_c is None else target_c

    def temperature_c(self, utc_ns: int) -> float:
        elapsed_s = max(0, utc_ns - self._from_ns) / NS_PER_S
        left = math.exp(-elapsed_s / self._spd.settling_time_s)
        return self._target_c + (self._from_c - self._target_c) * left

    def relative_efficiency(self) -> float:
        """0 below breakdown, 1 at the operating bias, linear in the overvoltage up to a limit."""
        return min(self._overvoltage(), _EFFICIENCY_LIMIT)

    def dark_rate_hz(self, utc_ns: int) -> float:
        """Proportional to the overvoltage; doubles every so many degrees."""
        warmer_c = self.temperature_c(utc_ns) - self._spd.set_temperature_c
        return self._dark_hz * self._overvoltage() * math.exp2(warmer_c / _DARK_DOUBLES_C)

    def _overvoltage(self) -> float:
        """Above breakdown, 1 at the operating bias."""
        operating_v = self._spd.operating_bias_v - self._spd.breakdown_v
        return max(0.0, self.bias_v - self._spd.breakdown_v) / operating_v


class Spd:
    """The module: its settings and its commands, on whatever lines they come."""

    def __init__(self, world: World, loop: Loop, detector: int) -> None:
        self._world, self._loop, self._detector = world, loop, detector
        spd = world.parameters.spd
        self._diode = Diode(spd, world.parameters.detectors.dark_hz, loop.clock.utc_ns())
        self._values: dict[str, float] = dict.fromkeys(_RANGES, 0)
        self._values |= {"threshvolt": spd.threshold_v, "settemp": spd.set_temperature_c}
        self._values |= {"loop": 1, "constp": 1.0, "consti": 0.1, "time": 1000.0}
        self._random = np.random.default_rng((world.parameters.seed, detector))
        self._update_for_ever()

    def receiver(self) -> Receiver:
        """For one new line."""
        unfinished = b""

        def receive(line: Line, data: bytes) -> None:
            nonlocal unfinished
            *commands, rest = re.split(rb"[;\r\n]", unfinished + data)
            unfinished = rest[-_MAX_COMMAND:]
            for command in commands:
                words = command.decode("ascii", "replace").split()
                if words:
                    self._obey(line, words[0].lower(), words[1:])

        return receive

    def _obey(self, line: Line, name: str, values: list[str]) -> None:
        setting = name.removesuffix("?")
        if name == "counts?" and not values:
            self._start_counting(line)
        elif name in self._queries() and not values:
            _say(line, self._queries()[name]())
        elif name in _RANGES and len(values) == 1:
            self._set(line, name, values[0])
        elif name.endswith("?") and setting in _RANGES and not values:
            _say(line, f"{self._values[setting]:.7g}")
        else:
            _say(line, f"error: unknown command {' '.join([name, *values])[:_MAX_COMMAND]}")

    def _queries(self) -> dict[str, Callable[[], str]]:
        model = "Optical power meter" if self._world.faults.wrong_model else "SPD"
        return {
            "*idn?": lambda: f"S-Fifteen Instruments {model} simulated-{_NAMES[self._detector]}",
            "temp?": lambda: f"{self._diode.temperature_c(self._loop.clock.utc_ns()):.3f}",
            "save": lambda: "settings saved",
            "help": lambda: "\r\n".join(_HELP),
        }

    def _set(self, line: Line, name: str, text: str) -> None:
        lowest, highest = _RANGES[name]
        try:
            value = float(text)
        except ValueError:
            _say(line, f"error: {name} needs a number, not {text[:_MAX_COMMAND]}")
            return
        if not lowest <= value <= highest:
            _say(line, f"error: {name} must be {lowest} to {highest}, not {value}")
            return
        self._values[name] = value
        if name == "hvolt":
            self._diode.bias_v = value
        if name in ("settemp", "loop"):
            target_c = self._values["settemp"] if self._values["loop"] else None
            self._diode.cool(target_c, self._loop.clock.utc_ns())
        self._update()

    def _start_counting(self, line: Line) -> None:
        start_ns = self._loop.clock.utc_ns()
        stop_ns = start_ns + round(self._values["time"] * 1e-3 * NS_PER_S)
        deadline_s = monotonic_s() + (stop_ns - start_ns) / NS_PER_S / self._loop.clock.speed + _COUNTS_WALL_S

        def finish() -> None:
            if self._photons_lag_behind(stop_ns) and monotonic_s() < deadline_s:
                self._loop.after_wall_s(_COUNTS_WALL_S / 16, finish)
            else:
                _say(line, str(self._counts(start_ns, stop_ns)))

        self._loop.at(stop_ns, finish)

    def _photons_lag_behind(self, utc_ns: int) -> bool:
        """True while a world with photons has counted none, in any detector, after `utc_ns`."""
        board, for_ever_ns = self._world.board, utc_ns + 1_000_000 * NS_PER_S
        return all(board.clicks_between(detector, utc_ns, for_ever_ns) == 0 for detector in range(4))

    def _counts(self, start_ns: int, stop_ns: int) -> int:
        clicks = self._world.board.clicks_between(self._detector, start_ns, stop_ns)
        if clicks is None:  # no photons run in this world: dark counts are all there is
            rate_hz = self._diode.dark_rate_hz((start_ns + stop_ns) // 2)
            return int(self._random.poisson(rate_hz * (stop_ns - start_ns) / NS_PER_S))
        return round(clicks)

    def _update(self) -> None:
        now_ns = self._loop.clock.utc_ns()
        dark_hz = self._diode.dark_rate_hz(now_ns)
        self._world.board.set_detector(self._detector, self._diode.relative_efficiency(), dark_hz, now_ns)

    def _update_for_ever(self) -> None:
        self._update()
        self._loop.after_wall_s(_UPDATE_WALL_S, self._update_for_ever)


def _say(line: Line, text: str) -> None:
    line.reply(text.encode("ascii", "replace") + b"\r\n", _REPLY_LATENCY_S)


def main() -> None:
    parser = arguments("A simulated S-Fifteen single-photon detector on a serial line, or behind a TCP bridge.")
    parser.add_argument("--detector", type=int, default=0, help="0 to 3 for H, V, D, A")
    options = parser.parse_args()
    if options.detector not in range(len(_NAMES)):
        raise BadInput(f"--detector is {options.detector}; it must be 0 to 3, for H, V, D, A")
    world = world_of(options)
    loop = Loop(world.clock)
    detector = Spd(world, loop, options.detector)
    address = serve_lines(loop, world.faults, options, detector.receiver)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
