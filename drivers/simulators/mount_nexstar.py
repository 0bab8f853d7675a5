"""A Celestron NexStar hand control seen from the far end of its serial line, with a telescope behind it.

    python -m drivers.simulators.mount_nexstar --pty
    python -m drivers.simulators.mount_nexstar --address tcp://127.0.0.1:0

Two serial lines lead to the same mount: one for the station, one for its guard. Over TCP it is a bridge to them,
which takes several clients. A request has no terminator,
its length follows from its first byte; a reply ends with "#", which may also occur inside a binary reply.
Rates last for ever. Without a sky of its own, right ascension and declination stand for azimuth and elevation
plus what a sync has shifted. Sources: NexStar 8i manual p. 65, SynScan manual p. 9, INDI's celestrondriver.
"""

from datetime import UTC, datetime, timedelta

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.telescope import Telescope
from drivers.simulators.wire import Line, Receiver, serve_with_guard
from groundstation.clock import NS_PER_S
from groundstation.simulation.mount import Axis, MountDynamics
from groundstation.simulation.parameters import MountParameters

_BITS_PER_BYTE = 10  # with start and stop bit

_REQUEST_LENGTH = dict.fromkeys(b"VvmZzEeLJMtwhipxyYu", 1)
_REQUEST_LENGTH |= {ord("K"): 2, ord("T"): 2, ord("P"): 8, ord("W"): 9, ord("H"): 9, ord("I"): 9}
_REQUEST_LENGTH |= {ord("B"): 10, ord("R"): 10, ord("S"): 10, ord("b"): 18, ord("r"): 18, ord("s"): 18}
_STALE_NS = 3_500_000_000  # free: a request left unfinished for the hand control's worst answer time is dropped

_MODEL_SLT, _MODEL_AVX = 7, 20  # INDI celestrondriver.cpp; the AVX stands on an equatorial mount
_VARIANT_NEXSTAR, _VARIANT_STARSENSE = 0x11, 0x13
_AXES: dict[int, Axis] = {0x10: "azimuth", 0x11: "elevation"}
_AXIS_VERSION = {0x10: bytes((5, 7)), 0x11: bytes((3, 38))}  # INDI's test vectors
_NAMED_RATES_ARCSEC_S = {0xFFFF: 15.041, 0xFFFE: 15.0, 0xFFFD: 14.685}  # sidereal, solar, lunar
_FIXED_RATES_DEG_S = (
    0.0,
    0.008,
    0.017,
    0.033,
    0.067,
    0.13,
    0.5,
    1.0,
    2.0,
    90.0,
)  # free; 9 is as fast as it can
_SLOW_GOTO_DEG_S = 0.25  # free


class RequestReader:
    """Cuts the bytes of one line into requests. A byte that begins no request is ignored."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._last_ns = 0

    def feed(self, data: bytes, utc_ns: int) -> list[bytes]:
        """The requests completed by `data`, which arrived at `utc_ns`."""
        if utc_ns - self._last_ns > _STALE_NS:
            self._bytes.clear()
        self._last_ns = utc_ns
        self._bytes += data
        requests = []
        while self._bytes:
            length = _REQUEST_LENGTH.get(self._bytes[0], 0)
            if length > len(self._bytes):
                break
            if length:
                requests.append(bytes(self._bytes[:length]))
            del self._bytes[: max(length, 1)]
        return requests


class HandClock:
    """The hand control's clock: world time until it is set."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._zone_quarters, self._daylight_saving = 0, 0

    def set(self, data: bytes, quarters: int, utc_ns: int) -> None:
        """Eight bytes: h m s, month, day, year - 2000, zone in units of `quarters` quarter hours, DST."""
        hour, minute, second, month, day, year, zone, daylight_saving = data
        try:
            local = datetime(2000 + year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return  # the answer to an impossible date is not documented: the clock stays as it was
        self._zone_quarters, self._daylight_saving = (zone - 256 * (zone > 127)) * quarters, daylight_saving
        self._ahead = local - self._shift() - _moment(utc_ns)

    def read(self, quarters: int, utc_ns: int) -> bytes:
        """The same eight bytes for now."""
        local = _moment(utc_ns) + self._ahead + self._shift()
        zone = self._zone_quarters // quarters % 256
        date = (local.month, local.day, local.year % 100)
        return bytes((local.hour, local.minute, local.second, *date, zone, self._daylight_saving))

    def _shift(self) -> timedelta:
        return timedelta(minutes=15 * self._zone_quarters, hours=self._daylight_saving)


def _moment(utc_ns: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(utc_ns + 500) // 1000)


class HandControl:
    """What each request does and what is answered to it."""

    def __init__(self, mount: MountDynamics, parameters: MountParameters, wrong_model: bool) -> None:
        self._mount, self._parameters, self._wrong_model = mount, parameters, wrong_model
        self._clock = HandClock()
        self._location = bytes((40, 23, 45, 0, 117, 34, 39, 0))  # free: Xinglong
        self._tracking_mode = b"\0"
        self._guide_rate = b"\x80"
        self._sync_shift_deg: dict[Axis, float] = {"azimuth": 0.0, "elevation": 0.0}

    def answer(self, request: bytes, received_ns: int) -> bytes | None:
        """Carry out a whole request; None when it gets no answer."""
        letter, data = chr(request[0]), request[1:]
        if letter in "ZzEe":
            return self._angles(letter, received_ns)
        if letter in "BbRrSs":
            return self._aim(letter, data, received_ns)
        if letter == "P":
            return self._pass_through(data, received_ns)
        if letter in "TWHIMu":
            self._set(letter, data, received_ns)
            return b"#"
        return self._status(letter, data, received_ns) + b"#"

    def _status(self, letter: str, data: bytes, received_ns: int) -> bytes:
        match letter:
            case "K":
                return data
            case "V":
                return bytes((self._parameters.firmware_major, self._parameters.firmware_minor))
            case "v":
                return bytes((_VARIANT_STARSENSE if self._wrong_model else _VARIANT_NEXSTAR,))
            case "m":
                return bytes((_MODEL_AVX if self._wrong_model else _MODEL_SLT,))
            case "L":
                slewing = any(self._mount.is_slewing(axis, received_ns) for axis in _AXES.values())
                return b"1" if slewing else b"0"
            case "J":
                return b"\1"
            case "t":
                return self._tracking_mode
            case "w":
                return self._location
            case "h" | "i":
                return self._clock.read(4 if letter == "h" else 1, received_ns)
            case "p":
                return b"W"
            case _:  # x y Y: hibernate, wake up, last alignment
                return b""

    def _set(self, letter: str, data: bytes, received_ns: int) -> None:
        match letter:
            case "T":
                self._tracking_mode = data
            case "W":
                self._location = data
            case "H" | "I":
                self._clock.set(data, 4 if letter == "H" else 1, received_ns)
            case "M":
                self._mount.cancel_goto(received_ns)
            case "u":
                self._sync_shift_deg = {"azimuth": 0.0, "elevation": 0.0}

    def _angles(self, letter: str, read_ns: int) -> bytes:
        words = []
        for axis in _AXES.values():
            counts = self._mount.encoder(axis, read_ns)
            if letter in "Ee":
                counts = round(counts + self._sync_shift_deg[axis] / 360.0 * (1 << 24)) % (1 << 24)
            words.append(f"{counts >> 8:04X}" if letter in "ZE" else f"{counts << 8:08X}")
        return ",".join(words).encode() + b"#"

    def _aim(self, letter: str, data: bytes, received_ns: int) -> bytes | None:
        """Go to, or sync on, two angles in hexadecimal fractions of a turn; ignore what cannot be read."""
        first, comma, second = data.partition(b",")
        try:
            turns = [int(word, 16) / 16 ** len(word) for word in (first, second)]
        except ValueError:
            return None
        if not comma or len(first) != len(second):
            return None
        for axis, turn in zip(_AXES.values(), turns, strict=True):
            angle_deg = _signed(turn) * 360.0
            if letter in "Bb":
                self._mount.go_to(axis, angle_deg, received_ns)
            elif letter in "Rr":
                self._mount.go_to(axis, angle_deg - self._sync_shift_deg[axis], received_ns)
            else:
                here_deg = self._mount.encoder(axis, received_ns) / (1 << 24) * 360.0
                self._sync_shift_deg[axis] = angle_deg - here_deg
        return b"#"

    def _pass_through(self, data: bytes, received_ns: int) -> bytes:
        """To a device on the mount's own bus: length, device, command, three data bytes, bytes of reply."""
        length, device, command, reply_length = data[0], data[1], data[2], data[6]
        arguments = data[3 : 3 + min(max(length - 1, 0), 3)]
        if device in _AXES:
            if command == 0x01:
                return _sized(self._mount.encoder(_AXES[device], received_ns).to_bytes(3, "big"), reply_length)
            reply = self._axis_command(device, command, arguments, received_ns)
            if reply is not None:
                return _sized(reply, reply_length)
        return bytes(reply_length + 1) + b"#"  # a failed one has one more zero byte (INDI)

    def _axis_command(self, device: int, command: int, data: bytes, received_ns: int) -> bytes | None:
        """What a motor controller answers; None when it does not know the command or misses data."""
        axis, number = _AXES[device], int.from_bytes(data, "big")
        match command, len(data):
            case (0x06 | 0x07, 2):  # variable rate, quarter arcseconds per second
                rate_arcsec_s = _NAMED_RATES_ARCSEC_S.get(number, number / 4)
                self._mount.set_rate(axis, rate_arcsec_s if command == 0x06 else -rate_arcsec_s, received_ns)
            case (0x24 | 0x25, 1) if number <= 9:  # fixed rate
                rate_arcsec_s = _FIXED_RATES_DEG_S[number] * 3600.0
                self._mount.set_rate(axis, rate_arcsec_s if command == 0x24 else -rate_arcsec_s, received_ns)
            case (0x02 | 0x17, 2 | 3):  # goto fast, slow
                angle_deg = _signed(number / 256 ** len(data)) * 360.0
                max_rate_deg_s = None if command == 0x02 else _SLOW_GOTO_DEG_S
                self._mount.go_to(axis, angle_deg, received_ns, max_rate_deg_s)
            case (0x13, 0):  # slew done
                return b"\0" if self._mount.is_slewing(axis, received_ns) else b"\xff"
            case (0x12, 0):  # level done
                return b"\xff"
            case (0x27, 0):  # guide pulse active
                return b"\0"
            case (0x46, 1):
                self._guide_rate = data
            case (0x47, 0):
                return self._guide_rate
            case (0xFE, 0):
                return _AXIS_VERSION[device]
            case (0x0B, 0) | (0x26, 2):  # level, guide pulse: accepted, without effect
                pass
            case _:
                return None
        return b""


def _signed(turn: float) -> float:
    """A fraction of a turn from -1/2 to 1/2."""
    return (turn + 0.5) % 1.0 - 0.5


def _sized(reply: bytes, length: int) -> bytes:
    return reply[:length].ljust(length, b"\0") + b"#"


class NexStar:
    """The mount and its hand control, whatever lines lead to it."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._world, self._loop = world, loop
        self._telescope = Telescope(world, loop)
        self._hand_control = HandControl(self._telescope.axes, world.parameters.mount, world.faults.wrong_model)

    def receiver(self) -> Receiver:
        """For one new line."""
        reader = RequestReader()
        byte_s = _BITS_PER_BYTE / self._world.parameters.mount.line_baud

        def receive(line: Line, data: bytes) -> None:
            # A pseudo-terminal is instantaneous, so the time on the line is added here: a request is there
            # with its last byte, and an answer is ready for its reader with its last byte.
            now_ns = self._loop.clock.utc_ns()
            for request in reader.feed(data, now_ns):
                on_line_s = len(request) * byte_s
                reply = self._hand_control.answer(request, now_ns + round(on_line_s * NS_PER_S))
                if reply is not None:
                    line.reply(reply, on_line_s + len(reply) * byte_s)
            self._telescope.publish()

        return receive


def main() -> None:
    options = arguments("A simulated Celestron NexStar mount on two serial lines, or behind a TCP bridge.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    mount = NexStar(world, loop)
    address, guard_address = serve_with_guard(loop, world.faults, options, mount.receiver)
    loop.supervise(options)
    announce(address=address, guard_address=guard_address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
