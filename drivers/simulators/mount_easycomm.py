"""An antenna rotator that speaks EasyComm II, seen from the far end of its serial line, with a telescope behind it.

    python -m drivers.simulators.mount_easycomm --pty
    python -m drivers.simulators.mount_easycomm --address tcp://127.0.0.1:0

Commands are two letters and a value; a line holds one or several, with spaces between them, and is carried out at its
end (CR or LF). `AZ` and `EL` alone ask, `VE` asks for the version, `ML MR MU MD` turn without end, `SA SE` stop one
axis. What a line asks is answered in one line. Commands of the radio (`UP`, `DN`, ...), unknown ones and places out of
reach are passed over in silence: a controller need not implement everything. Two lines lead to the same rotator on a
pseudo-terminal, one for the station and one for its guard; over TCP it is a bridge to them.

Faults of its own: `no_version` (`VE` is not answered), `separate_lines` (each question has an answer of its own line),
`acknowledging` (a command is answered with the position, as several firmwares do), `jammed` (the azimuth does not
turn). What it says unasked is an alarm, `ALxxx`.

Source: C. Jackson's specification of EasyComm (easycomm.txt of WiSP, as kept in Hamlib 4.5.4). It leaves open how an
answer ends and how many answers a line has; these are as Hamlib's backend expects them.
"""

import re
from dataclasses import replace

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.telescope import Telescope
from drivers.simulators.wire import Line, Receiver, SerialLine, name_line, serial_path, serve_lines
from groundstation.simulation.mount import Axis

_REPLY_LATENCY_S = 0.02  # free: some twenty characters at 9600 baud
_LONGEST_LINE = 256  # free
_RATE_DEG_S, _ACCELERATION_DEG_S2 = 5.0, 5.0  # free
_RANGES_DEG = {"azimuth": (0.0, 360.0), "elevation": (0.0, 90.0)}  # free: the standard has none
_ENCODER_COUNTS = 1 << 24
_ANGLE = re.compile(r"(AZ|EL)(-?\d+\.?\d*)?")
_AXES: dict[str, Axis] = {"AZ": "azimuth", "EL": "elevation"}
_MOVES: dict[str, tuple[Axis, float]] = {
    "ML": ("azimuth", -1.0),
    "MR": ("azimuth", 1.0),
    "MU": ("elevation", 1.0),
    "MD": ("elevation", -1.0),
}
_STOPS: dict[str, Axis] = {"SA": "azimuth", "SE": "elevation"}


class Rotator:
    """What each command does and what is answered to it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop, self._faults = loop, world.faults
        parameters = replace(
            world.parameters.mount, max_rate_deg_s=_RATE_DEG_S, max_acceleration_deg_s2=_ACCELERATION_DEG_S2
        )
        self._telescope = Telescope(world, loop, parameters)
        self._axes = self._telescope.axes

    def receiver(self) -> Receiver:
        """For one line, with a buffer of its own."""
        waiting = bytearray()

        def receive(line: Line, data: bytes) -> None:
            waiting.extend(data.replace(b"\r", b"\n"))
            *lines, rest = bytes(waiting).split(b"\n")
            waiting[:] = rest[-_LONGEST_LINE:]
            for text in lines:
                reply = self._answer(text.decode("ascii", "replace").split())
                if reply:
                    line.reply(reply.encode("ascii"), _REPLY_LATENCY_S)
            self._telescope.publish()

        return receive

    def _answer(self, commands: list[str]) -> str:
        answers = [answer for command in commands if (answer := self._carry_out(command))]
        if not answers and commands and "acknowledging" in self._faults.special:
            answers = [self._angle("AZ"), self._angle("EL")]
        end = "\n" if "separate_lines" in self._faults.special else " "
        return end.join(answers) + "\n" if answers else ""

    def _carry_out(self, command: str) -> str | None:
        """What is answered to it, None for nothing."""
        if found := _ANGLE.fullmatch(command):
            name, value = found.groups()
            if value is None:
                return self._angle(name)
            self._go_to(_AXES[name], float(value))
        if command == "VE" and "no_version" not in self._faults.special:
            return "VEAnotherRotator-1.0" if self._faults.wrong_model else "VESimulated-2.0"
        if command in _MOVES:
            axis, sign = _MOVES[command]
            self._turn(axis, sign * _RATE_DEG_S * 3600.0)
        elif command in _STOPS:
            self._turn(_STOPS[command], 0.0)
        return None

    def _angle(self, name: str) -> str:
        turn = self._axes.encoder(_AXES[name], self._loop.clock.utc_ns()) / _ENCODER_COUNTS
        if name == "AZ":
            return f"AZ{round(turn * 360.0, 1) % 360.0:.1f}"
        return f"EL{round((turn + 0.5) % 1.0 * 360.0 - 180.0, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"

    def _go_to(self, axis: Axis, angle_deg: float) -> None:
        low, high = _RANGES_DEG[axis]
        if low <= angle_deg <= high and not self._is_jammed(axis):
            self._axes.go_to(axis, angle_deg, self._loop.clock.utc_ns())

    def _turn(self, axis: Axis, rate_arcsec_s: float) -> None:
        if not self._is_jammed(axis):
            self._axes.set_rate(axis, rate_arcsec_s, self._loop.clock.utc_ns())

    def _is_jammed(self, axis: Axis) -> bool:
        return axis == "azimuth" and "jammed" in self._faults.special


def _may_raise_alarm(line: Line) -> None:
    line.unsolicited = lambda: b"ALjam\n"


def main() -> None:
    options = arguments("A simulated EasyComm II rotator on two serial lines, or behind a TCP bridge.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    rotator = Rotator(world, loop)
    address = guard_address = serve_lines(loop, world.faults, options, rotator.receiver, joined=_may_raise_alarm)
    if not address.startswith("tcp:"):
        guard = SerialLine(loop, world.faults, rotator.receiver())
        if not options.pty and (path := serial_path(options.address)):
            name_line(guard, path.with_name(path.name + ".guard"))
        guard_address = guard.address
    loop.supervise(options)
    announce(address=address, guard_address=guard_address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
