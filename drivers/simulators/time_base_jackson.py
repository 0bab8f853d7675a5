"""A GPS-disciplined oscillator of the Jackson Labs family, seen from the far end of its serial line.

    python -m drivers.simulators.time_base_jackson --pty --age-s 0

SCPI in lines; headers in their long or short form, in any case. A question answers one line (`SYNC?` and `PTIM?`
several), a command nothing, and whatever it cannot do `Command Error`; the reason is then in the queue of
`SYST:ERR?`. Physics: the oven warms up, the loop pulls the 1PPS to that of GPS and locks; without GPS the oscillator
coasts with the frequency it has then. Options say how long it has been on and when GPS goes.

Faults of its own: `gps_loss` (GPS is gone from --gps-loss-after-s on, for --gps-loss-for-s), `prompt` (it begins with
echo and the prompt `scpi > `, as it leaves the factory; `SYST:COMM:SER:ECHO OFF` and `SYST:COMM:SER:PRO OFF` end them).

Sources: mini-JLT and micro-JLT GNSS manuals, sections 3.5, 3.6 and 3.10 (commands, health bits, trace line); a
recording of an LN Rb GPSDO, firmware 1.17 (forms of the answers; `Command Error`, also where a value is not to be
had); a public client of the FireFly (prompt, echo); Z3801A guide, table 4-2 (-230 for a stale interval; the Jackson
Labs manuals have no SYST:ERR?); SCPI-99 volume 2, 21.8 (error queue). The numbers of the physics are ours.
"""

import math
import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, serve_lines
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput

_LATENCY_S = 0.02  # free
_WARM_FREQUENCY = 4e-9  # free: error of a cold oven, in parts of one
_COAST_FREQUENCY = 3e-11  # free: what the loop did not know when GPS went
_AGING_PER_S = 2e-15  # free
_PULL_S = 40.0  # free: time constant of the loop
_WANDER_NS = 6.0  # free: as the recording, about +-12 ns
_FEE_BOUND = 1e-9  # free: "out of bounds" is not told
_LOCK_NS = 220.0  # TIME INTERVAL THRESHOLD of the recording
_PHASE_ALARM_NS = 250.0  # health bit 0x4
_YOUNG_S, _LONG_HOLDOVER_S, _AFTER_RESET_S = 300, 60, 180  # health bits 0x8, 0x10, 0x200
_QUEUE = 10  # free
_LONGEST_LINE = 256
_GPS_EPOCH_LEAPS = ((2017, 1, 18), (2015, 7, 17), (2012, 7, 16), (2009, 1, 15))  # from that month on: GPS minus UTC


class ScpiProblem(Exception):
    """What goes into the error queue."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code},"{text}"')


class Oscillator:
    """The oscillator, its loop and the GPS receiver on world time; phase and offsets in ns, time in s since the start.

    `advance` goes on in steps; everything else reads the state.
    """

    _STEP_S = 1.0

    def __init__(self, age_s: float, warm_up_s: float, loss: tuple[float, float], seed: int) -> None:
        self._age_s, self._warm_up_s, self._loss = age_s, warm_up_s, loss
        self._phases = np.random.default_rng((seed, 55)).uniform(0.0, 2 * math.pi, 4)
        self._now_s = 0.0
        self._offset_ns = 0.0 if age_s > warm_up_s else 900.0  # free
        self._frequency = 0.0
        self.forced_holdover = False
        self.holdover_s = 0.0
        self._coasting = False
        self._reset_s = -math.inf

    @property
    def run_time_s(self) -> float:
        return self._age_s + self._now_s

    @property
    def warm(self) -> bool:
        return self.run_time_s >= self._warm_up_s

    @property
    def gps(self) -> bool:
        start, span = self._loss
        return not start <= self._now_s < start + span

    @property
    def in_holdover(self) -> bool:
        return self._coasting

    @property
    def locked(self) -> bool:
        return self.warm and not self._coasting and abs(self.phase_ns) <= _LOCK_NS

    @property
    def phase_ns(self) -> float:
        """The 1PPS against UTC."""
        return self._offset_ns + self._wander(self._now_s)

    @property
    def frequency_error(self) -> float:
        """The estimate is the size of it, with some noise."""
        return abs(self._frequency) + 1e-11 * (1.2 + math.sin(self._now_s / 37.0 + self._phases[3]))

    def jam_sync(self) -> None:
        """Set the 1PPS to that of GPS at once."""
        self._offset_ns, self._reset_s = 0.0, self._now_s

    def health(self) -> int:
        return sum(
            bit
            for bit, bad in (
                (0x4, abs(self.phase_ns) > _PHASE_ALARM_NS),
                (0x8, self.run_time_s < _YOUNG_S),
                (0x10, self._coasting and self.holdover_s > _LONG_HOLDOVER_S),
                (0x20, self.frequency_error > _FEE_BOUND),
                (0x200, self._now_s - self._reset_s < _AFTER_RESET_S),
            )
            if bad
        )

    def lock_state(self) -> int:
        """As in the trace: 0 warming up, 1 holdover, 2 locking, 5 holdover but in phase, 6 locked."""
        if not self.warm:
            return 0
        if self._coasting:
            return 5 if self.holdover_s < 100 else 1
        return 6 if self.locked else 2

    def advance(self, now_s: float) -> None:
        """Go on to a later moment."""
        while self._now_s < now_s:
            step_s = min(self._STEP_S, now_s - self._now_s)
            self._now_s += step_s
            self._go_on(step_s)

    def _go_on(self, step_s: float) -> None:
        if not self.warm:
            self._frequency = _WARM_FREQUENCY * math.exp(-5 * self.run_time_s / self._warm_up_s)
            self._offset_ns += self._frequency * step_s * NS_PER_S
            return
        coasting = self.forced_holdover or not self.gps
        if coasting and not self._coasting:
            self.holdover_s, self._frequency = 0.0, _COAST_FREQUENCY
        self._coasting = coasting
        if coasting:
            self.holdover_s += step_s
            self._frequency += _AGING_PER_S * step_s
            self._offset_ns += self._frequency * step_s * NS_PER_S
        else:
            self._frequency = 0.0
            self._offset_ns *= math.exp(-step_s / _PULL_S)

    def _wander(self, now_s: float) -> float:
        periods_s = (11.0, 47.0, 230.0)
        return float(
            _WANDER_NS
            * sum(math.sin(2 * math.pi * now_s / p + a) for p, a in zip(periods_s, self._phases[:3], strict=True))
            / 2
        )


class Command(NamedTuple):
    """What a header does: answers lines, or raises ScpiProblem. `takes`: it has a parameter."""

    header: re.Pattern[str]
    act: Callable[[str], list[str]]
    takes: bool


class Gpsdo:
    """One port of the device: its commands, its error queue, its echo and prompt."""

    def __init__(self, world: World, loop: Loop, oscillator: Oscillator, start_ns: int) -> None:
        self._world, self._loop, self._oscillator, self._start_ns = world, loop, oscillator, start_ns
        self._echo = self._prompt = "prompt" in world.faults.special
        self._errors: deque[str] = deque()
        self._received = b""
        self._commands = self._table()

    def receive(self, line: Line, data: bytes) -> None:
        if self._echo:
            line.send(data)
        *commands, rest = re.split(rb"\r\n|[\r\n]", self._received + data)
        self._received = rest[-_LONGEST_LINE:]
        for command in commands:
            if answer := self._obey(command.decode("ascii", "replace").strip()):
                line.reply(answer, _LATENCY_S)

    def trace_line(self) -> bytes:
        """What SERV:TRAC would say of this second."""
        self._advance()
        osc, now = self._oscillator, self._utc()
        sats = (14, 10) if osc.gps else (0, 0)
        return (
            f"{now:%y-%m-%d} {int(osc.run_time_s)} 60685 {osc.phase_ns:.2f} {osc.frequency_error:.2E} "
            f"{sats[0]} {sats[1]} {osc.lock_state()} 0x{osc.health():X}\r\n"
        ).encode()

    def _obey(self, text: str) -> bytes:
        answer: list[str] = []
        if text:
            try:
                answer = self._act(text)
            except ScpiProblem as problem:
                self._remember(str(problem))
                answer = ["Command Error"]
        return "".join(f"{line}\r\n" for line in answer).encode() + (b"scpi > " if self._prompt else b"")

    def _act(self, text: str) -> list[str]:
        self._advance()
        header, _, value = text.partition(" ")
        for command in self._commands:
            if command.header.fullmatch(header):
                if command.takes and not value.strip():
                    raise ScpiProblem(-109, "Missing parameter")
                if value.strip() and not command.takes:
                    raise ScpiProblem(-108, "Parameter not allowed")
                return command.act(value.strip().upper())
        raise ScpiProblem(-113, "Undefined header")

    def _remember(self, error: str) -> None:
        if len(self._errors) >= _QUEUE:
            self._errors[-1] = '-350,"Queue overflow"'
        else:
            self._errors.append(error)

    def _table(self) -> list[Command]:
        osc = self._oscillator
        questions: dict[str, Callable[[], object]] = {
            "*IDN?": self._identity,
            "SYNChronization?": self._sync,
            "SYNChronization:SOURce:MODE?": lambda: "GPS",
            "SYNChronization:SOURce:STATE?": lambda: "GPS" if osc.gps else "NONE",
            "SYNChronization:LOCKed?": lambda: int(osc.locked),
            "SYNChronization:HEAlth?": lambda: f"0x{osc.health():X}",
            "SYNChronization:TINTerval?": self._interval,
            "PTIMe:TINTerval?": self._interval,
            "SYNChronization:FEEstimate?": lambda: f"{osc.frequency_error:.2E}",
            "SYNChronization:HOLDover:DURation?": self._holdover,
            "SYNChronization:HOLDover:STATe?": lambda: "ON" if osc.in_holdover else "NONE",
            "PTIMe?": self._ptime,
            "PTIMe:DATE?": lambda: f"{self._utc():%Y},{self._utc().month},{self._utc().day}",
            "PTIMe:TIME?": lambda: self._time(","),
            "PTIMe:TIME:STRing?": lambda: self._time(":"),
            "PTIMe:LEAPsecond:ACCumulated?": lambda: _leap_seconds(self._utc()),
            "PTIMe:LEAPsecond:PENDing?": lambda: int(self._leap_comes(183)),
            "PTIMe:LEAPsecond:DURation?": lambda: 61 if self._leap_comes(31) else 60,
            "GPS:SATellite:TRAcking:COUNt?": lambda: 10 if osc.gps else 0,
            "GPS:SATellite:VISible:COUNt?": lambda: 14 if osc.gps else 0,
            "SYSTem:ERRor?": lambda: self._errors.popleft() if self._errors else '+0,"No error"',
        }
        actions: dict[str, Callable[[], None]] = {
            "*CLS": self._errors.clear,
            "SYNChronization:HOLDover:INITiate": lambda: self._force(True),
            "SYNChronization:HOLDover:RECovery:INITiate": lambda: self._force(False),
            "SYNChronization:IMMEdiate": self._jam_sync,
        }
        switches: dict[str, Callable[[bool], None]] = {
            "SYSTem:COMMunicate:SERial:ECHO": lambda on: setattr(self, "_echo", on),
            "SYSTem:COMMunicate:SERial:PROmpt": lambda on: setattr(self, "_prompt", on),
        }
        return [
            *(Command(_pattern(name), _answering(ask), False) for name, ask in questions.items()),
            *(Command(_pattern(name), _doing(do), False) for name, do in actions.items()),
            *(Command(_pattern(name), _switching(switch), True) for name, switch in switches.items()),
        ]

    def _advance(self) -> None:
        self._oscillator.advance((self._loop.clock.utc_ns() - self._start_ns) / NS_PER_S)

    def _utc(self) -> datetime:
        return datetime.fromtimestamp(self._loop.clock.utc_ns() // NS_PER_S, UTC)

    def _time(self, between: str) -> str:
        now = self._utc()
        if between == ":":
            return f"{now.hour}:{now.minute:02d}:{now.second:02d}"
        return f"{now.hour},{now.minute},{now.second}"

    def _leap_comes(self, days: int) -> bool:
        now = self._utc()
        return _leap_seconds(now + timedelta(days=days)) > _leap_seconds(now)

    def _identity(self) -> str:
        if self._world.faults.wrong_model:
            return "SYMMETRICOM,58503B,3625A02931,1.01"
        return "Jackson Labs, LN Rb GPSDO (PRE), Firmware Rev 1.17"

    def _interval(self) -> str:
        """GPS and own 1PPS compared; without GPS there is nothing to compare."""
        if not self._oscillator.gps:
            raise ScpiProblem(-230, "Data corrupt or stale")
        return f"{self._oscillator.phase_ns * 1e-9:.3E}"

    def _holdover(self) -> str:
        return f"{int(self._oscillator.holdover_s)},{int(self._oscillator.in_holdover)}"

    def _sync(self) -> list[str]:
        osc = self._oscillator
        interval = f"{osc.phase_ns * 1e-9:.3E}" if osc.gps else "0.000E+00"
        return [
            "1PPS SOURCE MODE  : GPS     ",
            f"1PPS SOURCE STATE : {'GPS' if osc.gps else 'NONE'}",
            "1PPS on RESET : OFF",
            "1PPS DOMAIN : CSAC",
            f"1PPS LOCK STATUS  : {int(osc.locked)}",
            f"HOLDOVER STATE: {'ON' if osc.in_holdover else 'NONE'}",
            f"LAST HOLDOVER DURATION : {self._holdover()}",
            f"FREQ ERROR ESTIMATE : {osc.frequency_error:.2E}",
            f"TIME INTERVAL DIFFERENCE : {interval}",
            f"TIME INTERVAL THRESHOLD : {_LOCK_NS:.0f}",
            "PHASE NOISE FILTER : ON  ",
            f"HEALTH STATUS : 0x{osc.health():X}",
        ]

    def _ptime(self) -> list[str]:
        now = self._utc()
        interval = f"{self._oscillator.phase_ns * 1e-9:.3E}" if self._oscillator.gps else "0.000E+00"
        return [
            f"DATE :{now.year},{now.month},{now.day}",
            f"TIME :{self._time(':')}",
            f"TINTerval :{interval}",
            "OUTput :0",
            f"LEAPSECOND :{_leap_seconds(now)}",
        ]

    def _force(self, on: bool) -> None:
        self._oscillator.forced_holdover = on
        self._advance()

    def _jam_sync(self) -> None:
        if not self._oscillator.gps:
            raise ScpiProblem(-221, "Settings conflict")
        self._oscillator.jam_sync()


def _answering(ask: Callable[[], object]) -> Callable[[str], list[str]]:
    def act(_value: str) -> list[str]:
        answer = ask()
        return [str(line) for line in answer] if isinstance(answer, list) else [str(answer)]

    return act


def _doing(do: Callable[[], None]) -> Callable[[str], list[str]]:
    def act(_value: str) -> list[str]:
        do()
        return []

    return act


def _switching(switch: Callable[[bool], None]) -> Callable[[str], list[str]]:
    def act(value: str) -> list[str]:
        if value not in ("ON", "OFF"):
            raise ScpiProblem(-224, "Illegal parameter value")
        switch(value == "ON")
        return []

    return act


def _pattern(header: str) -> re.Pattern[str]:
    """Of `SYNChronization:TINTerval?`: each word in its short or its long form, in any case."""
    words = []
    for word in header.rstrip("?").split(":"):
        short = re.match(r"[*A-Z0-9]+", word)
        assert short is not None  # every header of the table begins so
        words.append(
            re.escape(short[0]) + (f"(?:{re.escape(word[short.end() :])})?" if short.end() < len(word) else "")
        )
    return re.compile(":?" + ":".join(words) + (r"\?" if header.endswith("?") else ""), re.IGNORECASE)


def _leap_seconds(utc: datetime) -> int:
    """GPS time minus UTC."""
    return next((leaps for year, month, leaps in _GPS_EPOCH_LEAPS if (utc.year, utc.month) >= (year, month)), 14)


def main() -> None:
    parser = arguments("A simulated GPS-disciplined oscillator (SCPI) on a serial line or TCP.")
    parser.add_argument("--age-s", metavar="S", type=float, default=86_400.0, help="how long it has been on")
    parser.add_argument("--warm-up-s", metavar="S", type=float, default=180.0, help="how long its oven needs")
    parser.add_argument("--gps-loss-after-s", metavar="S", type=float, default=30.0, help="for the fault gps_loss")
    parser.add_argument("--gps-loss-for-s", metavar="S", type=float, default=math.inf, help="for the fault gps_loss")
    options = parser.parse_args()
    if options.age_s < 0 or options.warm_up_s <= 0:
        raise BadInput("--age-s must not be negative, and --warm-up-s must be above 0")
    world = world_of(options)
    loop = Loop(world.clock)
    loss = (options.gps_loss_after_s, options.gps_loss_for_s) if "gps_loss" in world.faults.special else (math.inf, 0.0)
    oscillator = Oscillator(options.age_s, options.warm_up_s, loss, world.parameters.seed)
    start_ns = world.clock.utc_ns()
    ports: list[Gpsdo] = []

    def new_port() -> Callable[[Line, bytes], None]:
        ports.append(Gpsdo(world, loop, oscillator, start_ns))
        return ports[-1].receive

    def joined(line: Line) -> None:
        line.unsolicited = ports[-1].trace_line

    address = serve_lines(loop, world.faults, options, new_port, joined=joined)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
