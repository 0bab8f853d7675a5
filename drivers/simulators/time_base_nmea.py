"""A GNSS receiver that tells the time in NMEA 0183 sentences, seen from the far end of its serial line.

    python -m drivers.simulators.time_base_nmea --pty

Once in each second of the world's time, a moment after its beginning, come `$GPRMC`, `$GPGGA` and `$GPZDA`; it
listens to nothing. It stands still at --latitude and --longitude. A reader who joins late, or a world that runs too
fast for every second, misses some.

Faults of its own: `bad_checksum` (every third sentence has a wrong one), `no_fix` (the receiver sees no satellites:
status V, quality 0, no position; it still tells the time that it keeps), `stale_time` (sentences go on with the time
of --stale-after-s after the start).

Sources: NMEA 0183 (sentences and checksum, as gpsd describes them in "NMEA Revealed").
"""

import math
from datetime import UTC, datetime

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, serve_lines
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput

_LATENCY_S = 0.06  # free
_SATELLITES = 10  # free
_BAD_EVERY = 3


def checksum(body: str) -> str:
    """Of what stands between $ and *: all bytes exclusive-ored, in two hexadecimal digits."""
    total = 0
    for byte in body.encode("ascii"):
        total ^= byte
    return f"{total:02X}"


def angle(value_deg: float, digits: int, letters: str) -> str:
    """Degrees and minutes, as `4807.0380,N`; `digits` of the degrees."""
    ten_thousandths = round(abs(value_deg) * 600_000)
    degrees, minutes = divmod(ten_thousandths, 600_000)
    return f"{degrees:0{digits}d}{minutes / 10_000:07.4f},{letters[value_deg < 0]}"


class Receiver:
    """What it says in a second."""

    def __init__(self, world: World, latitude_deg: float, longitude_deg: float, stale_ns: int) -> None:
        self._special = world.faults.special
        self._wrong_model = world.faults.wrong_model
        self._position = f"{angle(latitude_deg, 2, 'NS')},{angle(longitude_deg, 3, 'EW')}"
        self._stale_ns = stale_ns
        self._sentences = 0

    def sentences(self, utc_ns: int) -> bytes:
        if "stale_time" in self._special:
            utc_ns = min(utc_ns, self._stale_ns)
        now = datetime.fromtimestamp(utc_ns // NS_PER_S, UTC)
        if self._wrong_model:
            return self._sentence("WIMWV,270,R,003.4,N,A")
        fix = "no_fix" not in self._special
        position = self._position if fix else ",,,"
        time = f"{now:%H%M%S}.00"
        quality = f"1,{_SATELLITES:02d},0.9,120.0,M,47.0,M" if fix else "0,00,99.9,,M,,M"
        return (
            self._sentence(f"GPRMC,{time},{'AV'[not fix]},{position},0.02,0.00,{now:%d%m%y},,,{'AN'[not fix]}")
            + self._sentence(f"GPGGA,{time},{position},{quality},,")
            + self._sentence(f"GPZDA,{time},{now:%d,%m,%Y},00,00")
        )

    def _sentence(self, body: str) -> bytes:
        self._sentences += 1
        told = checksum(body)
        if "bad_checksum" in self._special and self._sentences % _BAD_EVERY == 0:
            told = f"{int(told, 16) ^ 0x11:02X}"
        return f"${body}*{told}\r\n".encode()


def main() -> None:
    parser = arguments("A simulated GNSS receiver (NMEA 0183) on a serial line or TCP.")
    parser.add_argument("--latitude", metavar="DEG", type=float, default=40.396, help="north is positive")
    parser.add_argument("--longitude", metavar="DEG", type=float, default=117.577, help="east is positive")
    parser.add_argument("--stale-after-s", metavar="S", type=float, default=5.0, help="for the fault stale_time")
    options = parser.parse_args()
    if not (abs(options.latitude) <= 90 and abs(options.longitude) <= 180 and math.isfinite(options.stale_after_s)):
        raise BadInput("--latitude must be -90 to 90, --longitude -180 to 180, --stale-after-s a number")
    world = world_of(options)
    loop = Loop(world.clock)
    stale_ns = world.clock.utc_ns() + round(options.stale_after_s * NS_PER_S)
    receiver = Receiver(world, options.latitude, options.longitude, stale_ns)
    lines: list[Line] = []

    def joined(line: Line) -> None:
        line.unsolicited = lambda: receiver.sentences(loop.clock.utc_ns())
        lines.append(line)

    def speak(due_ns: int) -> None:
        second_ns = loop.clock.utc_ns() // NS_PER_S * NS_PER_S
        if second_ns >= due_ns:  # a timer may be a little early
            said = receiver.sentences(second_ns)
            for line in lines:
                line.reply(said, _LATENCY_S)
            due_ns = second_ns + NS_PER_S
        loop.at(due_ns, lambda: speak(due_ns))

    address = serve_lines(loop, world.faults, options, lambda: lambda line, data: None, joined=joined)
    speak((loop.clock.utc_ns() // NS_PER_S + 1) * NS_PER_S)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
