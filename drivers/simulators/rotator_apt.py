"""A Thorlabs K10CR1 rotation stage seen from the far end of its serial line (APT protocol, 115200 baud).

    python -m drivers.simulators.rotator_apt --pty

A message has a header of 6 bytes, `<HBBBB` id, two parameters, destination, source; with bit 7 of the destination set
the parameters are the length of the data that follow. What is not addressed to 0x50 or not known is ignored.
Sources: pyLabLib `devices/Thorlabs/kinesis.py`; thorlabs-apt-protocol 29 (layouts, status bits; pyLabLib calls bit 4
and 5 the other way round); Quantum Measurement Infrastructure (QuTech) `thorlabs/k10cr1.py` with its unit test for the
scales (409600/3 microsteps per degree) and the limits of 10 deg/s and 20 deg/s2.

The counter does not wrap at a turn. At the start it says 0 wherever the stage stands; homing turns to the index.

Special faults: `stuck` (the motor does not turn; the status says motion error, nothing is ever completed),
`no_index` (homing never finds the index), `short_completion` (the end of a move is told without status).
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, Receiver, serve_lines
from groundstation.clock import NS_PER_S
from groundstation.simulation.mount import AxisMotion

HOST, STAGE = 0x01, 0x50
COUNTS_PER_DEG = 409600 / 3
COUNTS_PER_DEG_S = 7329109.0
COUNTS_PER_DEG_S2 = 1502.0
MAX_DEG_S, MAX_DEG_S2 = 10.0, 20.0

_LATENCY_S = 0.002  # free
_BYTE_S = 10 / 115200
_UPDATE_S = 0.1  # between the status messages that 0x0011 switches on
_LONGEST_DATA = 255  # "no data packet exceeds 255 bytes" (thorlabs-apt-protocol, quoting the vendor)
_SERIAL = 55000001  # 55: K10CR1 (pyLabLib)
_FORWARD, _REVERSE = 1, 2
_CHANNEL = 1

# Status bits
_MOVING_FORWARD, _MOVING_REVERSE, _CONNECTED = 0x10, 0x20, 0x100
_HOMING, _HOMED, _SETTLED, _MOTION_ERROR, _ENABLED = 0x200, 0x400, 0x2000, 0x4000, 0x80000000


class Message(NamedTuple):
    """One message; `data` is empty for a message of the header alone."""

    number: int
    one: int
    two: int
    data: bytes = b""

    @property
    def channel(self) -> int:
        return int.from_bytes(self.data[:2], "little") if self.data else self.one

    def pack(self) -> bytes:
        """From the stage to the host."""
        if self.data:
            return struct.pack("<HHBB", self.number, len(self.data), HOST | 0x80, STAGE) + self.data
        return struct.pack("<HBBBB", self.number, self.one, self.two, HOST, STAGE)


def take_messages(buffer: bytearray) -> list[Message]:
    """The complete messages to this stage at the head of `buffer`, which they leave."""
    found = []
    while len(buffer) >= 6:
        number, length, destination, _ = struct.unpack_from("<HHBB", buffer)
        end = 6 + (length if destination & 0x80 else 0)
        if end > 6 + _LONGEST_DATA:
            buffer.clear()  # free: what the device does with nonsense is not known
            break
        if len(buffer) < end:
            break
        if destination & 0x7F == STAGE:
            found.append(Message(number, buffer[2], buffer[3], bytes(buffer[6:end])))
        del buffer[:end]
    return found


@dataclass
class Parameters:
    """What the host can set, in device units."""

    velocity: int = round(MAX_DEG_S * COUNTS_PER_DEG_S)  # free
    acceleration: int = round(MAX_DEG_S * COUNTS_PER_DEG_S2)  # free
    least_velocity: int = 0
    home_direction: int = _REVERSE
    home_switch: int = 1  # free
    home_velocity: int = round(0.5 * MAX_DEG_S * COUNTS_PER_DEG_S)  # free
    home_offset: int = 0
    relative: int = 0
    absolute: int = 0
    backlash: int = 0


class Stage:
    """The motor on its axis: counter, index and motion. Angles in degrees, times in ns of world time."""

    def __init__(self, utc_ns: int, start_deg: float, stuck: bool = False, index_found: bool = True) -> None:
        """At rest, `start_deg` away from the index, with a counter of 0."""
        self.parameters = Parameters()
        self.homed = self.homing = self.error = False
        self.enabled = True
        self._stuck, self._index_found = stuck, index_found
        self._zero_deg = start_deg
        self._axis = self._axis_at(utc_ns, start_deg)

    def angle_deg(self, utc_ns: int) -> float:
        """From the index."""
        return self._axis.state(utc_ns)[0]

    def counter(self, utc_ns: int) -> int:
        """Signed, 32 bits."""
        counts = round((self.angle_deg(utc_ns) - self._zero_deg) * COUNTS_PER_DEG)
        return (counts + (1 << 31)) % (1 << 32) - (1 << 31)

    def set_counter(self, counts: int, utc_ns: int) -> None:
        """Call the place where it is `counts`."""
        self._zero_deg = self.angle_deg(utc_ns) - counts / COUNTS_PER_DEG

    def rate_deg_s(self, utc_ns: int) -> float:
        return self._axis.state(utc_ns)[1]

    def go_to(self, counts: int, utc_ns: int) -> int | None:
        """Begin to move; tells when it will be there, None when never."""
        return self._travel(self._zero_deg + counts / COUNTS_PER_DEG, self._velocity_deg_s(), utc_ns)

    def turn(self, direction: int, utc_ns: int) -> None:
        """Turn for ever."""
        self._begin(utc_ns)
        if not self._stuck:
            sign = 1.0 if direction == _FORWARD else -1.0
            self._axis.turn(sign * self._velocity_deg_s(), utc_ns)

    def home(self, utc_ns: int) -> int | None:
        """Begin to look for the index; tells when it will be found, None when never. `found_home` ends it."""
        turns = self.angle_deg(utc_ns) / 360.0
        forward = self.parameters.home_direction == _FORWARD
        index_deg = 360.0 * (math.ceil(turns) if forward else math.floor(turns))
        speed_deg_s = min(self.parameters.home_velocity / COUNTS_PER_DEG_S, MAX_DEG_S)
        target_deg = index_deg + self.parameters.home_offset / COUNTS_PER_DEG
        arrival_ns = None
        if self._index_found:
            arrival_ns = self._travel(target_deg, speed_deg_s, utc_ns)
        else:
            self.turn(self.parameters.home_direction, utc_ns)
        self.homing, self.homed = True, False
        return arrival_ns

    def found_home(self, utc_ns: int) -> None:
        self.homing, self.homed = False, True
        self.set_counter(0, utc_ns)

    def stop(self, at_once: bool, utc_ns: int) -> int:
        """Tells when it will stand."""
        self.homing = False
        if at_once:
            self._axis = self._axis_at(utc_ns, self.angle_deg(utc_ns))
        else:
            self._axis.turn(0.0, utc_ns)
        return max(utc_ns, self._axis.pieces[-1].utc_ns)

    def status(self, utc_ns: int) -> int:
        rate_deg_s = self.rate_deg_s(utc_ns)
        bits = _CONNECTED | (_ENABLED if self.enabled else 0) | (_MOTION_ERROR if self.error else 0)
        bits |= (_HOMING if self.homing else 0) | (_HOMED if self.homed else 0)
        if rate_deg_s == 0.0:
            return bits | _SETTLED
        return bits | (_MOVING_FORWARD if rate_deg_s > 0.0 else _MOVING_REVERSE)

    def _travel(self, target_deg: float, speed_deg_s: float, utc_ns: int) -> int | None:
        self._begin(utc_ns)
        if self._stuck:
            return None
        self._axis.go_to(target_deg, speed_deg_s, utc_ns)
        return max(utc_ns, self._axis.pieces[-1].utc_ns)

    def _begin(self, utc_ns: int) -> None:
        """Before a move. A new acceleration holds from the next start at rest on (free)."""
        self.homing, self.error = False, self._stuck
        if self.rate_deg_s(utc_ns) == 0.0:
            self._axis = self._axis_at(utc_ns, self.angle_deg(utc_ns))

    def _axis_at(self, utc_ns: int, angle_deg: float) -> AxisMotion:
        acceleration = min(max(self.parameters.acceleration, 1) / COUNTS_PER_DEG_S2, MAX_DEG_S2)
        return AxisMotion(utc_ns, angle_deg, (-math.inf, math.inf), acceleration)

    def _velocity_deg_s(self) -> float:
        return min(max(self.parameters.velocity, 1) / COUNTS_PER_DEG_S, MAX_DEG_S)


class Rotator:
    """The controller: messages in, answers and reports out."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._loop, self._faults = loop, world.faults
        start_deg = float(np.random.default_rng((world.parameters.seed, _SERIAL)).uniform(0.0, 360.0))
        stuck, lost = ("stuck" in world.faults.special), ("no_index" in world.faults.special)
        self.stage = Stage(loop.clock.utc_ns(), start_deg, stuck, index_found=not lost)
        self._motions = 0
        self._reports_ends = True
        self._updated: set[Line] = set()
        self._actions: dict[int, Callable[[Line, Message], None]] = {
            0x0005: lambda line, _: self._say(line, Message(0x0006, 0, 0, self._hardware())),
            0x0011: self._start_updates,
            0x0012: lambda line, _: self._updated.discard(line),
            0x0210: self._enable,
            0x0211: self._tell_enabled,
            0x0410: self._set_counter,
            0x0443: self._home,
            0x0448: self._move_relative,
            0x0453: self._move_absolute,
            0x0457: self._move_velocity,
            0x0465: self._stop,
            0x046B: lambda _line, _message: self._report_ends(False),
            0x046C: lambda _line, _message: self._report_ends(True),
        }
        self._layouts = {  # set, ask, answer: number and fields of the parameters
            0x0413: (0x0414, 0x0415, "<lll", ("least_velocity", "acceleration", "velocity")),
            0x0440: (0x0441, 0x0442, "<HHll", ("home_direction", "home_switch", "home_velocity", "home_offset")),
            0x0445: (0x0446, 0x0447, "<l", ("relative",)),
            0x0450: (0x0451, 0x0452, "<l", ("absolute",)),
            0x043A: (0x043B, 0x043C, "<l", ("backlash",)),
        }
        self._answers: dict[int, Callable[[], Message]] = {
            0x0411: lambda: self._message(0x0412, "<l", self.stage.counter(self._now())),
            0x040A: lambda: self._message(0x040B, "<l", self.stage.counter(self._now())),
            0x0429: lambda: self._message(0x042A, "<L", self.stage.status(self._now())),
            0x0480: lambda: self._status(0x0481),
            0x0490: lambda: self._status(0x0491, velocity=True),
        }

    def receiver(self) -> Receiver:
        buffer = bytearray()

        def receive(line: Line, data: bytes) -> None:
            buffer.extend(data)
            for message in take_messages(buffer):
                self._obey(line, message)

        return receive

    def joined(self, line: Line) -> None:
        line.unsolicited = lambda: self._status(0x0481).pack()

    def _obey(self, line: Line, message: Message) -> None:
        number = message.number
        if number in self._actions:
            self._actions[number](line, message)
        elif number in self._answers and message.channel == _CHANNEL:
            self._say(line, self._answers[number]())
        elif number in self._layouts and message.channel == _CHANNEL:
            self._set_parameters(message)
        else:
            for ask, answer, layout, names in self._layouts.values():
                if number == ask and message.channel == _CHANNEL:
                    values = [getattr(self.stage.parameters, name) for name in names]
                    self._say(line, self._message(answer, layout, *values))

    # ---- motion

    def _home(self, line: Line, message: Message) -> None:
        if self._may_move(message):
            self._follow(line, self.stage.home(self._now()), self._ended_home)

    def _move_absolute(self, line: Line, message: Message) -> None:
        if self._may_move(message):
            target = self._distance(message, "absolute")
            self._follow(line, self.stage.go_to(target, self._now()), self._ended_move)

    def _move_relative(self, line: Line, message: Message) -> None:
        if self._may_move(message):
            target = self.stage.counter(self._now()) + self._distance(message, "relative")
            self._follow(line, self.stage.go_to(target, self._now()), self._ended_move)

    def _move_velocity(self, _line: Line, message: Message) -> None:
        if self._may_move(message):
            self._motions += 1
            self.stage.turn(message.two, self._now())

    def _stop(self, line: Line, message: Message) -> None:
        if message.channel == _CHANNEL:
            self._follow(line, self.stage.stop(message.two == 1, self._now()), self._ended_stop)

    def _follow(self, line: Line, end_ns: int | None, ended: Callable[[Line], None]) -> None:
        """Report the end of a motion, unless another one has begun by then."""
        self._motions += 1
        number = self._motions
        if end_ns is not None:
            self._loop.at(end_ns, lambda: ended(line) if number == self._motions else None)

    def _ended_home(self, line: Line) -> None:
        self.stage.found_home(self._now())
        if self._reports_ends:
            self._say(line, Message(0x0444, _CHANNEL, 0))

    def _ended_move(self, line: Line) -> None:
        self._report(line, 0x0464)

    def _ended_stop(self, line: Line) -> None:
        self._report(line, 0x0466)

    def _report(self, line: Line, number: int) -> None:
        if not self._reports_ends:
            return
        short = "short_completion" in self._faults.special
        self._say(line, Message(number, _CHANNEL, 0) if short else self._status(number))

    def _report_ends(self, yes: bool) -> None:
        self._reports_ends = yes

    def _may_move(self, message: Message) -> bool:
        return message.channel == _CHANNEL and self.stage.enabled

    def _distance(self, message: Message, name: str) -> int:
        """From the data, or what was set beforehand for a message of the header alone."""
        if len(message.data) >= 6:
            return int(struct.unpack_from("<l", message.data, 2)[0])
        return int(getattr(self.stage.parameters, name))

    # ---- settings and answers

    def _set_parameters(self, message: Message) -> None:
        _, _, layout, names = self._layouts[message.number]
        if len(message.data) == 2 + struct.calcsize(layout):
            for name, value in zip(names, struct.unpack_from(layout, message.data, 2), strict=True):
                setattr(self.stage.parameters, name, value)

    def _set_counter(self, _line: Line, message: Message) -> None:
        if len(message.data) == 6 and message.channel == _CHANNEL:
            self.stage.set_counter(struct.unpack_from("<l", message.data, 2)[0], self._now())

    def _enable(self, _line: Line, message: Message) -> None:
        if message.one == _CHANNEL:
            self.stage.enabled = message.two == 1

    def _tell_enabled(self, line: Line, message: Message) -> None:
        if message.one == _CHANNEL:
            self._say(line, Message(0x0212, _CHANNEL, 1 if self.stage.enabled else 2))

    def _start_updates(self, line: Line, _message: Message) -> None:
        if line not in self._updated:
            self._updated.add(line)
            self._update(line)

    def _update(self, line: Line) -> None:
        if line in self._updated:
            self._say(line, self._status(0x0481))
            self._loop.at(self._now() + round(_UPDATE_S * NS_PER_S), lambda: self._update(line))

    def _hardware(self) -> bytes:
        model = b"KDC101\0\0" if self._faults.wrong_model else b"K10CR1\0\0"
        firmware = bytes((7, 1, 2, 0))  # free: 2.1.7
        notes = b"Simulated rotation stage".ljust(60, b"\0")
        return struct.pack("<l8sH4s60sHHH", _SERIAL, model, 16, firmware, notes, 1, 0, 1)  # type and state free

    def _status(self, number: int, velocity: bool = False) -> Message:
        """Position and status bits; between them the encoder's count (steppers) or the velocity (0x0491)."""
        now_ns = self._now()
        counter, bits = self.stage.counter(now_ns), self.stage.status(now_ns)
        if velocity:
            rate = round(self.stage.rate_deg_s(now_ns) * 100.0)  # free: its unit is the model's own
            return self._message(number, "<lhHL", counter, rate, 0, bits)
        return self._message(number, "<llL", counter, counter, bits)

    def _message(self, number: int, layout: str, *values: int) -> Message:
        return Message(number, 0, 0, struct.pack("<H", _CHANNEL) + struct.pack(layout, *values))

    def _say(self, line: Line, message: Message) -> None:
        data = message.pack()
        line.reply(data, _LATENCY_S + len(data) * _BYTE_S)

    def _now(self) -> int:
        return self._loop.clock.utc_ns()


def main() -> None:
    options = arguments("A simulated Thorlabs K10CR1 rotation stage on a serial line.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    rotator = Rotator(world, loop)
    address = serve_lines(loop, world.faults, options, rotator.receiver, joined=rotator.joined)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
