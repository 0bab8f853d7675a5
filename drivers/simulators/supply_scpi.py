"""A bench power supply with a SCPI face, a resistor at each of its three outputs.

    python -m drivers.simulators.supply_scpi --address tcp://127.0.0.1:5025 --load-ohm 100

Commands end with LF. Outputs are chosen by INST:NSEL or by a list such as (@1,2) after the value. Source: the
commands of the reference (VOLT CURR OUTP MEAS INST:NSEL SYST:ERR?), SCPI-99 for the rest; every number of the supply
itself is free. What goes wrong on request (`special`): "old_errors" (the error queue holds -222 and -113 of an earlier
user), "overflow" (it is full), "refuses" (every setting of a voltage is out of range), "trips" (an output that is
switched on goes off after 0.5 s by itself).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.simulators.faults import Faults
from drivers.simulators.program import Loop, announce, arguments, run_program, world_of
from drivers.simulators.scpi_face import CommandLines, Handler, ScpiError, ScpiFace, boolean, channel_list, number
from drivers.simulators.wire import Line, Receiver, serve_lines
from groundstation.clock import NS_PER_S, Clock
from groundstation.errors import BadInput

_LATENCY_S = 0.002  # free
_TIME_CONSTANT_S = 0.02  # free: of the output capacitor
_TRIPS_AFTER_S = 0.5  # free
_SUFFIXES = {"V": 1.0, "MV": 1e-3, "A": 1.0, "MA": 1e-3}
_RATINGS = ((6.18, 5.15), (25.75, 1.03), (25.75, 1.03))  # free: V and A of each output


@dataclass
class Output:
    """One output with its load; moves exponentially from where it was to where it is told to be."""

    highest_v: float
    highest_a: float
    load_ohm: float
    set_v: float = 0.0
    limit_a: float = 0.1  # free
    on: bool = False
    trips_ns: int | None = None
    _from_v: float = 0.0
    _since_ns: int = 0

    def change(self, utc_ns: int, **settings: object) -> None:
        """Set `set_v`, `limit_a` or `on` at a moment of world time."""
        self._from_v, self._since_ns = self.voltage_v(utc_ns), utc_ns
        for name, value in settings.items():
            setattr(self, name, value)

    def voltage_v(self, utc_ns: int) -> float:
        """At the terminals, by constant voltage or, when the load takes too much, by constant current."""
        target_v = min(self.set_v, self.limit_a * self.load_ohm) if self.on else 0.0
        return target_v + (self._from_v - target_v) * math.exp(
            -max(0, utc_ns - self._since_ns) / NS_PER_S / _TIME_CONSTANT_S
        )

    def is_limited(self) -> bool:
        """Whether the current limit holds the voltage down."""
        return self.on and self.set_v > self.limit_a * self.load_ohm


class ScpiSupply:
    """The supply: its outputs, and what each command does."""

    def __init__(self, clock: Clock, faults: Faults, load_ohm: float) -> None:
        self._clock, self._faults = clock, faults
        self._outputs = [Output(volts, amperes, load_ohm) for volts, amperes in _RATINGS]
        self._selected = 1
        voltage, current = (f"[SOURce:]{what}[:LEVel][:IMMediate][:AMPLitude]" for what in ("VOLTage", "CURRent"))
        commands: dict[str, Handler] = {
            "*IDN?": lambda given: self._identity(),
            "*RST": self._reset,
            "*CLS": lambda given: self.face.errors.clear(),
            "*OPC?": lambda given: "1",
            "SYSTem:ERRor[:NEXT]?": lambda given: self.face.errors.next(),
            "SYSTem:VERSion?": lambda given: "1999.0",
            "INSTrument:NSELect": self._select,
            "INSTrument:NSELect?": lambda given: str(self._selected),
            voltage: self._set_voltage,
            voltage + "?": self._ask_level(lambda output: output.set_v, lambda output: output.highest_v),
            current: self._set_current,
            current + "?": self._ask_level(lambda output: output.limit_a, lambda output: output.highest_a),
            "OUTPut[:STATe]": self._switch,
            "OUTPut[:STATe]?": self._ask(lambda output: str(int(output.on))),
            "MEASure[:SCALar][:VOLTage][:DC]?": self._ask(lambda output: _digits(output.voltage_v(self._now()))),
            "MEASure[:SCALar]:CURRent[:DC]?": self._ask(
                lambda output: _digits(output.voltage_v(self._now()) / output.load_ohm)
            ),
            "STATus:QUEStionable:CONDition?": self._ask(lambda output: str(int(output.is_limited()))),
        }
        self.face = ScpiFace(commands)
        for code in [-222, -113] if "old_errors" in faults.special else []:
            self.face.errors.add(code)
        for _ in range(30 if "overflow" in faults.special else 0):
            self.face.errors.add(-222)

    def receiver(self) -> Receiver:
        """What receives the bytes of one line."""
        lines = CommandLines()

        def receive(line: Line, data: bytes) -> None:
            for command in lines.feed(data):
                self._trip()
                answer = self.face.execute(command)
                if answer is not None:
                    line.reply(answer.encode("ascii", "replace") + b"\n", _LATENCY_S)

        return receive

    def _identity(self) -> str:
        model = "34465A" if self._faults.wrong_model else "E36312A"
        return f"Keysight Technologies,{model},MY00000001,simulated-1.0"

    def _reset(self, given: Sequence[str]) -> None:
        _count(given, 0)
        self._selected = 1
        for output in self._outputs:
            output.change(self._now(), set_v=0.0, limit_a=0.1, on=False)

    def _select(self, given: Sequence[str]) -> None:
        _count(given, 1)
        wanted = number(given[0], {})
        if wanted not in range(1, len(self._outputs) + 1):
            raise ScpiError(-222)
        self._selected = int(wanted)

    def _set_voltage(self, given: Sequence[str]) -> None:
        for output, volts in self._levels(given, lambda output: output.highest_v, refused="refuses"):
            output.change(self._now(), set_v=volts)

    def _set_current(self, given: Sequence[str]) -> None:
        for output, amperes in self._levels(given, lambda output: output.highest_a):
            output.change(self._now(), limit_a=amperes)

    def _levels(
        self, given: Sequence[str], highest: Callable[[Output], float], refused: str = ""
    ) -> list[tuple[Output, float]]:
        """Each output meant and its new value; ScpiError before anything is set."""
        _count(given, 1, 2)
        found = []
        for output in self._meant(given[1:]):
            bounds = {"MIN": 0.0, "MINIMUM": 0.0, "MAX": highest(output), "MAXIMUM": highest(output)}
            word = given[0].upper()
            value = bounds[word] if word in bounds else number(given[0], _SUFFIXES)
            if not 0.0 <= value <= highest(output) or refused in self._faults.special:
                raise ScpiError(-222)
            found.append((output, value))
        return found

    def _switch(self, given: Sequence[str]) -> None:
        _count(given, 1, 2)
        on, trips_ns = boolean(given[0]), None
        if on and "trips" in self._faults.special:
            trips_ns = self._now() + round(_TRIPS_AFTER_S * NS_PER_S)
        for output in self._meant(given[1:]):
            output.change(self._now(), on=on, trips_ns=trips_ns)

    def _trip(self) -> None:
        for output in self._outputs:
            if output.trips_ns is not None and self._now() >= output.trips_ns:
                output.change(self._now(), on=False, trips_ns=None)

    def _ask(self, tell: Callable[[Output], str]) -> Callable[[Sequence[str]], str]:
        def answer(given: Sequence[str]) -> str:
            _count(given, 0, 1)
            return ",".join(tell(output) for output in self._meant(given))

        return answer

    def _ask_level(self, level: Callable[[Output], float], highest: Callable[[Output], float]) -> Handler:
        def answer(given: Sequence[str]) -> str:
            bounds: dict[str, Callable[[Output], float]] = {"MIN": lambda output: 0.0, "MAX": highest}
            word = given[0][:3].upper() if given else ""
            tell, lists = (bounds[word], given[1:]) if word in bounds else (level, given)
            return self._ask(lambda output: _digits(tell(output)))(lists)

        return answer

    def _meant(self, lists: Sequence[str]) -> list[Output]:
        """The outputs of a list, or the selected one."""
        wanted = channel_list(lists[0]) if lists else [self._selected]
        if any(not 1 <= output <= len(self._outputs) for output in wanted):
            raise ScpiError(-222)
        return [self._outputs[output - 1] for output in wanted]

    def _now(self) -> int:
        return self._clock.utc_ns()


def _count(given: Sequence[str], least: int, most: int | None = None) -> None:
    if len(given) < least:
        raise ScpiError(-109)
    if len(given) > (least if most is None else most):
        raise ScpiError(-108)


def _digits(value: float) -> str:
    return f"{value:+.6E}"


def main() -> None:
    parser = arguments("A simulated bench power supply that understands SCPI.")
    parser.add_argument("--load-ohm", type=float, default=1000.0, help="what hangs on each output (default 1000)")
    options = parser.parse_args()
    if not 0.0 < options.load_ohm < math.inf:
        raise BadInput(f"--load-ohm is {options.load_ohm}; it must be a number above 0")
    world = world_of(options)
    loop = Loop(world.clock)
    supply = ScpiSupply(world.clock, world.faults, options.load_ohm)
    address = serve_lines(loop, world.faults, options, supply.receiver, over_tcp=True)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
