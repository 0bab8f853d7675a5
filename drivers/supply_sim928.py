"""SRS SIM928 isolated voltage sources in a SIM900 mainframe, on its serial line or behind a bridge.

The mainframe passes commands on (`SNDT 3,"VOLT?"`) and hands out what a module has answered so far (`GETN? 3,128`) as
a block `#3007+1.234\\n`; the block ends with the module's own line end, so one more follows. The output's number is
the slot. Sources: QCoDeS contrib `StanfordResearchSystems/SIM928.py`; SIM928 manual p. 2-2 (commands), 2-16 (TERM).
"""

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from drivers.conversation import Conversation, skip_late_answers
from drivers.latching import latched, silence_s
from drivers.scpi import parse_identity, parse_integer, parse_number, parse_switch, read_block
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.instruments import DriverDescription, Identity, Settings, Supply

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="SRS SIM928 in a SIM900",
    capability="supply",
    schemes=("serial", "visa", "tcp"),
    documentation=(
        "QCoDeS driver and the manual's command index. The source measures neither voltage nor current: VOLT? is what "
        "was set, and a latched nanowire behind it shows only in the counts that `latched` is given. The "
        "format of BATS? is not at hand; the battery shows in OVSR? only"
    ),
    tested_with="our simulator, which pyvisa-py drives too",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

RANGE_V = 20.0
RESOLUTION_V = 0.001
_EXECUTION = {1: "illegal value", 2: "wrong token", 3: "invalid bit"}
_COMMAND = {
    1: "illegal command",
    2: "undefined command",
    3: "illegal query",
    4: "illegal set",
    5: "missing parameter",
    6: "extra parameter",
    7: "null parameter",
    8: "parameter buffer overflow",
    9: "bad floating-point number",
    10: "bad integer",
    11: "bad integer token",
    12: "bad token value",
    13: "bad hex block",
    14: "unknown token",
}
_OVERLOADS = ("current overload", "voltage overload", "battery switched", "battery fault")  # bits 0 to 3 of OVSR?


def to_module(slot: int, command: str) -> bytes:
    """`SNDT 3,"VOLT?"` with its end."""
    return f'SNDT {slot},"{command}"\n'.encode("ascii")


def fetch(slot: int) -> bytes:
    """`GETN? 3,128` with its end."""
    return f"GETN? {slot},128\n".encode("ascii")


def parse_slots(line: bytes) -> tuple[int, ...]:
    """The occupied slots from the answer to CTCR?; bit n is slot n, from 1 to 9. Raises WireError."""
    mask = parse_integer(line)
    if not 0 <= mask < 1 << 16:
        raise WireError(f"the mainframe answered {line[:40]!r} to CTCR?, which is no mask of slots")
    return tuple(slot for slot in range(1, 10) if mask >> slot & 1)


def parse_overloads(line: bytes) -> tuple[str, ...]:
    """What the answer to OVSR? says has happened since the last time. Raises WireError."""
    bits = parse_integer(line)
    return tuple(name for bit, name in enumerate(_OVERLOADS) if bits >> bit & 1)


# --- Mainframe -------------------------------------------------------------------------------------------

_MODULE_S = 0.1  # world time that a module takes to answer (QCoDeS waits as long)
_RESET_S = 0.5  # world time; SRST breaks the modules' lines for 0.1 s, QCoDeS waits 0.5 s


class Mainframe:
    """Questions to the SIM900 and, through it, to its modules."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link, self._clock = link, clock
        self._conversation = Conversation(link, self._come_back, self._resynchronise)
        self.on_reconnect: Callable[[], object] = lambda: None
        """What must be done when the link was made again, after the same mainframe has answered."""

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = self.ask("*IDN?", parse_identity)
        except WireError as error:
            raise WrongInstrument(f"{self._link.address} is no SIM900: {error}; check the address") from error
        if "SIM900" not in found.model:
            raise WrongInstrument(f"{self._link.address} is a {found.model}, expected a SIM900; check the address")
        return self._conversation.recognise(found)

    def exchange(self) -> contextlib.AbstractContextManager[object]:
        return self._link.exchange()

    def reset(self) -> None:
        """Clear the interface of the mainframe and of its modules; their outputs stay as they are."""
        with self._link.exchange():
            self._conversation.tell(b"*DCL\nFLSH\nSRST\n")
            self._clock.sleep_s(_RESET_S)

    def ask(self, question: str, parse: Callable[[bytes], T]) -> T:
        """One question to the mainframe, one line; asked once more, in step again, when that failed."""

        return self._conversation.ask(
            question.encode("ascii") + b"\n", lambda: parse(self._link.read_until(b"\n").rstrip(b"\r\n"))
        )

    def ask_module(self, slot: int, question: str, parse: Callable[[bytes], T], attempts: int = 2) -> T:
        """The same to a module. A register that reading clears is asked once only: the second answer would be 0."""

        def read() -> T:
            answer, deadline = b"", monotonic_s() + self._link.timeout_s
            while not answer.endswith(b"\n"):
                if monotonic_s() > deadline:
                    raise TransportTimeout(
                        f"slot {slot} at {self._link.address} does not answer {question} (got {answer!r})"
                    )
                self._clock.sleep_s(_MODULE_S)
                self._link.write(fetch(slot))
                answer += read_block(self._link)
                if (extra := self._link.read_until(b"\n")).strip():
                    raise WireError(f"{self._link.address} sent {extra[:40]!r} where a block should end")
            return parse(answer.rstrip(b"\r\n"))

        return self._conversation.ask(to_module(slot, question), read, attempts)

    def tell_module(self, slot: int, command: str) -> None:
        """A command that nothing answers."""
        self._conversation.tell(to_module(slot, command))

    def close(self) -> None:
        self._link.close()

    def _come_back(self) -> None:
        self.identify()
        self.on_reconnect()

    def _resynchronise(self) -> None:
        """Flush what the modules have said, and ask who it is."""
        skip_late_answers(self._link, b"FLSH\n*IDN?\n", b"\n", lambda line: b"SIM900" in line, "SIM900")


# --- Driver ----------------------------------------------------------------------------------------------

_SETTLE_S = 1.0  # world time in which a setting must read back
_STEP_S = 0.05  # world time between the steps of a ramp


@dataclass(frozen=True)
class Sim928Settings(LinkSettings):
    """Settings of the station file: the highest voltage allowed, either sign; the speed of a change (0: at once).

    `slots`: where the SIM928 are; empty: look into all that CTCR? calls occupied, which must answer *IDN?.
    `dark_hz`: the least that a healthy, biased nanowire counts in the dark; `latch_bias_v`: below it a wire is not
    called latched; `latch_false_alarm`: the chance to call a healthy one latched.
    """

    max_voltage_v: float = RANGE_V
    ramp_v_s: float = 0.0
    slots: tuple[int, ...] = ()
    dark_hz: float = 20.0
    latch_bias_v: float = 0.1
    latch_false_alarm: float = 1e-6
    reset_off_s: float = 0.5


class Sim928:
    """A `Supply` of all SIM928 in one mainframe. All calls may raise TransportTimeout, TransportLost, WireError."""

    def __init__(self, mainframe: Mainframe, clock: Clock, settings: Sim928Settings) -> None:
        self._mainframe, self._clock, self._settings = mainframe, clock, settings
        self._outputs: tuple[int, ...] = ()
        self._changing = threading.RLock()  # one change of a voltage at a time; reading goes on between its steps

    @property
    def outputs(self) -> tuple[int, ...]:
        return self._outputs

    def start(self) -> None:
        """Identify the mainframe and find its sources. Raises WrongInstrument when there are none."""
        self._mainframe.identify()
        self._mainframe.reset()
        occupied = self._mainframe.ask("CTCR?", parse_slots)
        wanted = self._settings.slots or occupied
        models = ((slot, self._mainframe.ask_module(slot, "*IDN?", parse_identity).model) for slot in wanted)
        found = dict(models) if set(wanted) <= set(occupied) else {}
        self._outputs = tuple(slot for slot, model in found.items() if "SIM928" in model)
        if not self._outputs or (self._settings.slots and len(self._outputs) != len(wanted)):
            seen = ", ".join(f"{slot}: {model}" for slot, model in found.items()) or f"slots {list(occupied)} occupied"
            raise WrongInstrument(f"SIM928 expected in slots {list(wanted)}, found {seen}; check the slots")
        self._end_lines()
        self._mainframe.on_reconnect = self._end_lines

    def identify(self) -> Identity:
        """The mainframe. Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        found = self._mainframe.identify()
        slots = ", ".join(map(str, self._outputs))
        return Identity(f"{found.model} with SIM928 in slot {slots}", found.firmware, found.serial)

    def voltage_v(self, output: int) -> float:
        """The voltage that is set."""
        return self._mainframe.ask_module(self._slot(output), "VOLT?", parse_number)

    def set_voltage_v(self, output: int, voltage_v: float) -> None:
        """Raises BadInput above the station's limit, InstrumentFault when it does not read back.

        With a ramp it takes the time of the way; when the link fails on it, the voltage stays where it was then.
        """
        slot = self._slot(output)
        self._check_limit(voltage_v)
        with self._changing:
            if self._settings.ramp_v_s > 0.0:
                self._ramp(slot, voltage_v)
            self._mainframe.tell_module(slot, f"VOLT {voltage_v:.3f}")
            self._confirm(slot, "VOLT?", parse_number, lambda found: abs(found - voltage_v) < RESOLUTION_V, voltage_v)

    def is_on(self, output: int) -> bool:
        return self._mainframe.ask_module(self._slot(output), "EXON?", parse_switch)

    def switch(self, output: int, on: bool) -> None:
        """Raises InstrumentFault when it does not read back."""
        slot = self._slot(output)
        with self._changing:
            self._mainframe.tell_module(slot, "OPON" if on else "OPOF")
            self._confirm(slot, "EXON?", parse_switch, lambda found: found is on, on)

    def latched(self, output: int, counts: int, integration_s: float) -> bool:
        """Whether the nanowire that this output biases is latched, when it gave so many counts in so long.

        The source cannot see it; whoever counts can. Raises BadInput for a silence too short to tell: count for
        `latch_seen_s` (see `drivers.latching`).
        """
        chosen = self._settings
        if not self.is_on(output) or abs(self.voltage_v(output)) < chosen.latch_bias_v:
            return False
        return latched(counts, integration_s, chosen.dark_hz, chosen.latch_false_alarm)

    @property
    def latch_seen_s(self) -> float:
        """How long to count for `latched`."""
        return silence_s(self._settings.dark_hz, self._settings.latch_false_alarm)

    def reset(self, output: int, count: Callable[[float], int]) -> None:
        """To 0 V, wait `reset_off_s` (world time), and back by the ramp if there is one: this ends a latch.

        `count(integration_s)` counts the wire's pulses afterwards, for as long as it takes to tell. Raises
        InstrumentFault without a bias to cycle and BadInput for one above the station's limit, nothing was set then;
        InstrumentFault for a wire that is latched still, its bias is back then. When it fails on the way the voltage
        may stay at 0, with a ramp also between 0 and what it was.
        """
        with self._changing:
            before_v = self.voltage_v(output)
            if not self.is_on(output) or abs(before_v) < self._settings.latch_bias_v:
                raise InstrumentFault(f"slot {output} has no bias to cycle ({before_v:g} V); switch it on and set one")
            self._check_limit(before_v)  # else it could not come back
            self.set_voltage_v(output, 0.0)
            self._clock.sleep_s(self._settings.reset_off_s)
            self.set_voltage_v(output, before_v)
        if self.latched(output, count(self.latch_seen_s), self.latch_seen_s):
            raise InstrumentFault(
                f"the wire at slot {output} stays silent at {before_v:g} V after its bias was cycled; lower the bias "
                "or the light"
            )

    def troubles(self, output: int) -> tuple[str, ...]:
        """Overloads, switches and faults of the battery since the last time; reading forgets them."""
        return self._mainframe.ask_module(self._slot(output), "OVSR?", parse_overloads, attempts=1)

    def close(self) -> None:
        """Give the link back; the outputs stay as they are. Idempotent."""
        self._mainframe.close()

    def _slot(self, output: int) -> int:
        if output not in self._outputs:
            raise BadInput(f"there is no SIM928 in slot {output}; there are {list(self._outputs)}")
        return output

    def _check_limit(self, voltage_v: float) -> None:
        limit_v = self._settings.max_voltage_v
        if not abs(voltage_v) <= min(limit_v, RANGE_V):
            raise BadInput(f'{voltage_v} V is beyond the limit "max_voltage_v" = {limit_v:g} V; nothing was set')

    def _end_lines(self) -> None:
        for slot in self._outputs:
            self._mainframe.tell_module(slot, "TERM LF")

    def _ramp(self, slot: int, voltage_v: float) -> None:
        """All the way but the last step, each step as far as the time since the last one allows."""
        start_v, start_ns = self.voltage_v(slot), self._clock.utc_ns()
        while True:
            self._clock.sleep_s(_STEP_S)
            gone_v = self._settings.ramp_v_s * (self._clock.utc_ns() - start_ns) / NS_PER_S
            if gone_v >= abs(voltage_v - start_v):
                return
            self._mainframe.tell_module(slot, f"VOLT {start_v + math.copysign(gone_v, voltage_v - start_v):.3f}")

    def _confirm(
        self, slot: int, question: str, parse: Callable[[bytes], T], reached: Callable[[T], bool], wanted: object
    ) -> None:
        deadline_ns = self._clock.utc_ns() + round(_SETTLE_S * NS_PER_S)
        while True:
            asked_ns = self._clock.utc_ns()
            if reached(found := self._mainframe.ask_module(slot, question, parse)):
                return
            if asked_ns > deadline_ns:
                raise InstrumentFault(
                    f"slot {slot} refused {wanted}: {question} reads back {found}{self._reason(slot)}; check the module"
                )

    def _reason(self, slot: int) -> str:
        """What the module's error registers say, "" when they say nothing."""
        try:
            events = self._mainframe.ask_module(slot, "*ESR?", parse_integer, attempts=1)
            reasons = [
                names.get(code, f"{question} {code}")
                for bit, question, names in ((16, "LEXE?", _EXECUTION), (32, "LCME?", _COMMAND))
                if events & bit and (code := self._mainframe.ask_module(slot, question, parse_integer, attempts=1))
            ]
        except GroundStationError:  # the refusal is what counts
            return ""
        return f" ({', '.join(reasons)})" if reasons else ""


def probe(address: str, clock: Clock, settings: Settings) -> Identity:
    """Who answers; the interface is not cleared."""
    chosen = parse_settings(Sim928Settings, settings, "supply_sim928", ("timeout_s",))
    link = open_link(address, timeout_s=chosen.timeout_s, log=chosen.log)
    with contextlib.closing(Mainframe(link, clock)) as mainframe:
        return mainframe.identify()


def connect(address: str, clock: Clock, settings: Settings) -> Supply:
    """Connect, clear the interface, identify the mainframe and find its SIM928. The outputs stay as they are."""
    driver = "supply_sim928"
    positive = ("timeout_s", "max_voltage_v", "latch_bias_v", "reset_off_s")
    chosen = parse_settings(Sim928Settings, settings, driver, positive)
    silence_s(chosen.dark_hz, chosen.latch_false_alarm)
    if not 0.0 <= chosen.ramp_v_s < math.inf:
        raise BadInput(f'setting "ramp_v_s" of driver {driver} is {chosen.ramp_v_s}; it must be 0 or above')
    if not all(1 <= slot <= 9 for slot in chosen.slots):
        raise BadInput(f'setting "slots" of driver {driver} is {list(chosen.slots)}; slots are 1 to 9')
    supply = Sim928(Mainframe(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), clock), clock, chosen)
    with closed_on_error(supply):
        supply.start()
    return supply
