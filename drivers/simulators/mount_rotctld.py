"""An azimuth-elevation rotator behind Hamlib's daemon rotctld (TCP, text), with a telescope behind it.

    python -m drivers.simulators.mount_rotctld --address tcp://127.0.0.1:4533

A command is one letter or `\\name` and its values; `+` in front asks for the extended answer. What it is told to reach
outside of its ranges is answered with `RPRT -1`, an unknown command with nothing at all, and missing values are waited
for in what comes next. Several clients may be connected. The answers are those that Hamlib 4.5.4 with its dummy
rotator gave (`rotctld -m 1`). Special faults: "unknown_position" (`p` is answered with `RPRT -6`, as when the daemon
has lost its rotator).
"""

import math
from dataclasses import replace

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.telescope import Telescope
from drivers.simulators.wire import Line, Receiver, serve_lines
from groundstation.simulation.mount import Axis

_REPLY_LATENCY_S = 0.002  # free
_MAX_WAITING = 4096
_ENCODER_COUNTS = 1 << 24
_RATE_DEG_S = 6.0  # of Hamlib's dummy
_ACCELERATION_DEG_S2 = 6.0  # free
_AZIMUTH_DEG, _ELEVATION_DEG = (-180.0, 450.0), (0.0, 90.0)  # of Hamlib's dummy
_AXES: tuple[Axis, Axis] = ("azimuth", "elevation")
_INVALID, _IO_ERROR = -1, -6
#: Letter -> long name and number of values.
_COMMANDS = {
    "p": ("get_pos", 0),
    "P": ("set_pos", 2),
    "S": ("stop", 0),
    "K": ("park", 0),
    "R": ("reset", 1),
    "M": ("move", 2),
    "_": ("get_info", 0),
    "s": ("get_status", 0),
    "D": ("dump_state", 0),  # it has no letter; ours is not reachable by one
}
_BY_NAME = {name: letter for letter, (name, _) in _COMMANDS.items()}
_UP, _DOWN, _LEFT, _RIGHT = 2, 4, 8, 16


class Rotator:
    """What each command does and what is answered to it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop, self._faults = loop, world.faults
        parameters = replace(
            world.parameters.mount, max_rate_deg_s=_RATE_DEG_S, max_acceleration_deg_s2=_ACCELERATION_DEG_S2
        )
        self._telescope = Telescope(world, loop, parameters)
        self._axes = self._telescope.axes
        self._turns = 0.0  # that the azimuth asked for last lies outside of 0 to 360, in degrees

    def receiver(self) -> Receiver:
        """For one client, with a buffer of its own."""
        waiting = bytearray()

        def receive(line: Line, data: bytes) -> None:
            waiting.extend(data)
            while (command := _next_command(waiting)) is not None:
                extended, letter, values = command
                reply = self._answer(letter, values, extended)
                if reply:
                    line.reply(reply.encode("ascii"), _REPLY_LATENCY_S)
                if letter in "qQ":
                    line.hang_up()
            del waiting[:-_MAX_WAITING]
            self._telescope.publish()

        return receive

    def _answer(self, letter: str, values: list[str], extended: bool) -> str:
        if letter not in _COMMANDS:
            return "RPRT -1\n" if letter in "qQ" else ""
        name, _ = _COMMANDS[letter]
        head = f"{name}:{''.join(f' {value}' for value in values)}\n" if extended else ""
        lines = self._question(letter, extended)
        if lines is None:
            return f"{head}RPRT {self._told(letter, values)}\n"
        if letter == "p" and "unknown_position" in self._faults.special:
            return f"{head}RPRT {_IO_ERROR}\n"
        if not extended:
            return "".join(f"{value}\n" for _, value in lines)
        return head + "".join(f"{key}: {value}\n" if key else f"{value}\n" for key, value in lines) + "RPRT 0\n"

    def _question(self, letter: str, extended: bool) -> list[tuple[str, str]] | None:
        """Keys of the extended answer and values; None for a command."""
        match letter:
            case "p":
                azimuth, elevation = self._pointing()
                return [("Azimuth", f"{azimuth:.2f}"), ("Elevation", f"{elevation:.2f}")]
            case "_":
                return [("Info", "Rotator of another make" if self._faults.wrong_model else "Dummy rotator")]
            case "s":
                return [("Status flags", "")]
            case "D":
                return self._state(extended)
        return None

    def _state(self, extended: bool) -> list[tuple[str, str]]:
        """What `dump_state` says: values with names of their own, other ones in the extended form."""
        model = "601" if self._faults.wrong_model else "1"
        limits = {
            ("min_az", "Minimum Azimuth"): _AZIMUTH_DEG[0],
            ("max_az", "Maximum Azimuth"): _AZIMUTH_DEG[1],
            ("min_el", "Minimum Elevation"): _ELEVATION_DEG[0],
            ("max_el", "Maximum Elevation"): _ELEVATION_DEG[1],
        }
        if extended:
            named = [(name, f"{value:.6f}") for (_, name), value in limits.items()]
            head = [("rotctld Protocol Ver", "1"), ("Rotor Model", model), *named, ("South Zero", "0")]
        else:
            named = [("", f"{name}={value:.6f}") for (name, _), value in limits.items()]
            head = [("", "1"), ("", model), *named, ("", "south_zero=0")]
        return [*head, ("", "rot_type=AzEl"), ("", "done")]

    def _told(self, letter: str, values: list[str]) -> int:
        """Carry out a command; 0 or a code of Hamlib's."""
        now_ns = self._loop.clock.utc_ns()
        match letter:
            case "P":
                return self._go_to(values)
            case "S":
                self._axes.stop(now_ns)
            case "K":
                return self._go_to(["0", "0"])
            case "M":
                return self._move(values)
        return 0

    def _go_to(self, values: list[str]) -> int:
        angles = [_number(value) for value in values]
        for angle, (low, high) in zip(angles, (_AZIMUTH_DEG, _ELEVATION_DEG), strict=True):
            if not low <= angle <= high:
                return _INVALID
        self._turns = math.floor(angles[0] / 360.0) * 360.0
        for axis, angle in zip(_AXES, angles, strict=True):
            self._axes.go_to(axis, angle, self._loop.clock.utc_ns())
        return 0

    def _move(self, values: list[str]) -> int:
        direction, speed = (_number(value) for value in values)
        rates = {_UP: (1, 1.0), _DOWN: (1, -1.0), _LEFT: (0, -1.0), _RIGHT: (0, 1.0)}
        if direction not in rates or not (speed == -1 or 1 <= speed <= 100):
            return _INVALID
        index, sign = rates[int(direction)]
        rate_deg_s = sign * _RATE_DEG_S * (1.0 if speed == -1 else speed / 100.0)
        self._axes.set_rate(_AXES[index], rate_deg_s * 3600.0, self._loop.clock.utc_ns())
        return 0

    def _pointing(self) -> tuple[float, float]:
        now_ns = self._loop.clock.utc_ns()
        azimuth, elevation = (self._axes.encoder(axis, now_ns) / _ENCODER_COUNTS * 360.0 for axis in _AXES)
        return round(azimuth, 2) % 360.0 + self._turns, round((elevation + 180.0) % 360.0 - 180.0, 2)


def _next_command(waiting: bytearray) -> tuple[bool, str, list[str]] | None:
    """Take the next command, its letter and its values out of what has arrived; None while it is not complete."""
    text = waiting.decode("latin-1")
    rest = text.lstrip(" \t\r\n")
    extended = rest.startswith("+")
    rest = rest[1:] if extended else rest
    if not rest:
        return None
    if rest.startswith("#"):
        end = rest.find("\n")
        if end < 0:
            return None
        return _taken(waiting, rest[end:], extended, "#", [])
    if rest.startswith("\\"):
        name, _, _ = rest[1:].partition("\n")
        if "\n" not in rest:
            return None
        name = name.split()[0] if name.split() else ""
        letter, rest = _BY_NAME.get(name, "?"), rest[1 + len(name) :]
    else:
        letter, rest = (rest[0] if rest[0] != "D" else "?"), rest[1:]
    count = _COMMANDS.get(letter, ("", 0))[1]
    values: list[str] = []
    for _ in range(count):
        rest = rest.lstrip(" \t\r\n")
        value = rest.split(maxsplit=1)[0] if rest else ""
        if len(value) == len(rest):  # nothing follows: it may go on
            return None
        values.append(value)
        rest = rest[len(value) :]
    return _taken(waiting, rest, extended, letter, values)


def _taken(
    waiting: bytearray, rest: str, extended: bool, letter: str, values: list[str]
) -> tuple[bool, str, list[str]]:
    del waiting[: len(waiting) - len(rest)]
    return extended, letter, values


def _number(text: str) -> float:
    """Not a number when it is none, which no range contains."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def main() -> None:
    options = arguments("A simulated rotator behind Hamlib's rotctld.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    rotator = Rotator(world, loop)
    address = serve_lines(loop, world.faults, options, rotator.receiver, over_tcp=True)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
