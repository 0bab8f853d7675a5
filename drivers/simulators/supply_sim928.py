"""A Stanford Research SIM900 mainframe with SIM928 isolated voltage sources, on its serial line.

    python -m drivers.simulators.supply_sim928 --slots 1,2,4

The mainframe's own commands and answers end with LF. A module is reached by SNDT n,"command"; its answer, with the
module's own terminator (CR LF until TERM LF), collects in the mainframe's buffer for that slot and is fetched with
GETN? n,128 -> #3LLL<data>. Slot 8 holds another kind of module. Sources: QCoDeS contrib driver `SIM928.py`; SIM928
manual pp. 2-2, 2-14, 2-16, 2-17. The answer's form of BATS?, and the serial speed between modules, are ours.
What goes wrong on request (`special`): "stale_buffer" (every slot's buffer holds an answer to an earlier user),
"overload" (every output is shorted), "battery" (the battery is empty and the module swaps it), "deaf" (modules
take no new voltage and report no error), "latch" (with --bias-ohm: the first nanowire latches when it is first biased),
"latch_again" (it does so after every reset).
"""

import math
import re
from collections.abc import Callable, Sequence

from drivers.simulators.faults import Faults
from drivers.simulators.nanowire import Nanowire
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.scpi_face import CommandLines
from drivers.simulators.wire import Line, Receiver, serve_lines
from groundstation.clock import NS_PER_S, Clock
from groundstation.errors import BadInput

_LATENCY_S = 0.002  # free: of the mainframe
_BYTE_S = 10 / 9600  # a module talks to its mainframe at 9600 baud
_RESET_S = 0.1  # QCoDeS: SRST takes 100 ms
_TERMINATORS = {"NONE": "", "CR": "\r", "LF": "\n", "CRLF": "\r\n", "LFCR": "\n\r"}  # manual p. 2-16, 0 to 4
_LIMIT_V, _LIMIT_A = 20.0, 0.01  # manual: +-20 V; the current is free
_TIME_CONSTANT_S = 0.005  # free: how the output settles
_BATTERY_HOURS = 12.0  # free
_UPDATE_WALL_S = 0.1
_OTHER_SLOT = 8
_SLOTS = 9
_ILLEGAL_VALUE, _WRONG_TOKEN = 1, 2  # answers of LEXE?
_UNDEFINED_COMMAND, _ILLEGAL_QUERY, _MISSING, _EXTRA, _BAD_FLOAT = 2, 3, 5, 6, 9  # answers of LCME?
_EXE, _CME, _PON = 0x10, 0x20, 0x80  # bits of *ESR?
_OVERLOAD, _BATTERY_SWAP = 0x01, 0x04  # bits of OVCR? and OVSR?


class Sim928:
    """One voltage source: answers its own commands, knows its output and batteries."""

    def __init__(self, slot: int, clock: Clock, faults: Faults, load_ohm: float) -> None:
        self._slot, self._clock, self._faults = slot, clock, faults
        self._load_ohm = 1.0 if "overload" in faults.special else load_ohm
        self._set_v, self._on = 0.0, False
        self._from_v, self._since_ns = 0.0, clock.utc_ns()
        self._started_ns = clock.utc_ns()
        self._esr, self._ovsr, self._lexe, self._lcme = _PON, 0, 0, 0
        self.terminator = "CRLF"

    def reset_interface(self) -> None:
        """What a break on its line does."""
        self.terminator = "CRLF"

    def obey(self, line: str) -> str:
        """The answers to a line, each with its terminator; "" when there is none."""
        answers = ""
        for command in line.split(";"):
            words = command.replace(",", " ").split()
            answer = self._obey(words[0].upper(), words[1:]) if words else None
            if answer is not None:
                answers += answer + _TERMINATORS[self.terminator]
        return answers

    def output_v(self) -> float:
        """At the terminals now."""
        target_v = self._set_v if self._on else 0.0
        elapsed_s = (self._clock.utc_ns() - self._since_ns) / NS_PER_S
        return target_v + (self._from_v - target_v) * math.exp(-max(0.0, elapsed_s) / _TIME_CONSTANT_S)

    def _obey(self, name: str, given: Sequence[str]) -> str | None:
        if name.endswith("?"):
            return self._ask(name, given)
        if name == "VOLT":
            self._set_voltage(given)
        elif name == "TERM":
            self._set_terminator(given)
        elif name in ("OPON", "OPOF"):
            self._switch(name == "OPON")
        elif name == "EXON":
            self._switch(bool(given) and given[0].upper() in ("ON", "1"))
        elif name in ("*RST", "*CLS"):
            self._esr = self._ovsr = self._lexe = self._lcme = 0
            if name == "*RST":
                self._move(0.0, False)
        else:
            self._wrong_command(_UNDEFINED_COMMAND)
        return None

    def _set_voltage(self, given: Sequence[str]) -> None:
        if len(given) != 1:
            self._wrong_command(_EXTRA if given else _MISSING)
        elif not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", given[0]):
            self._wrong_command(_BAD_FLOAT)
        elif not abs(float(given[0])) <= _LIMIT_V:
            self._esr, self._lexe = self._esr | _EXE, _ILLEGAL_VALUE
        elif "deaf" not in self._faults.special:
            self._move(round(float(given[0]), 3), self._on)

    def _set_terminator(self, given: Sequence[str]) -> None:
        token = given[0].upper() if given else ""
        names = list(_TERMINATORS)
        token = names[int(token)] if token in ("0", "1", "2", "3", "4") else token
        if token in names:
            self.terminator = token
        else:
            self._esr, self._lexe = self._esr | _EXE, _WRONG_TOKEN

    def _switch(self, on: bool) -> None:
        self._move(self._set_v, on)

    def _move(self, set_v: float, on: bool) -> None:
        self._from_v, self._since_ns = self.output_v(), self._clock.utc_ns()
        self._set_v, self._on = set_v, on

    def _ask(self, name: str, given: Sequence[str]) -> str | None:
        self._ovsr |= self._condition()
        if name in ("*ESR?", "OVSR?", "LEXE?", "LCME?"):
            return self._clear_on_read(name)
        model = "SIM922" if self._faults.wrong_model else "SIM928"
        answers = {
            "*IDN?": f"Stanford Research Systems,{model},s/n{3000 + self._slot:06d},ver1.1",
            "VOLT?": f"{self._set_v:+.3f}",
            "EXON?": str(int(self._on)),
            "TERM?": str(list(_TERMINATORS).index(self.terminator)),
            "BATS?": self._batteries(),
            "OVCR?": str(self._condition()),
            "CESR?": "0",
            "*STB?": "0",
            "*OPC?": "1",
        }
        if name not in answers:
            known = name.removesuffix("?") in ("OPON", "OPOF", "BCOR", "*RST", "*CLS")
            self._wrong_command(_ILLEGAL_QUERY if known else _UNDEFINED_COMMAND)
            return None
        return answers[name]

    def _clear_on_read(self, name: str) -> str:
        value = {"*ESR?": self._esr, "OVSR?": self._ovsr, "LEXE?": self._lexe, "LCME?": self._lcme}[name]
        if name == "*ESR?":
            self._esr = 0
        elif name == "OVSR?":
            self._ovsr = 0
        elif name == "LEXE?":
            self._lexe = 0
        else:
            self._lcme = 0
        return str(value)

    def _condition(self) -> int:
        bits = _OVERLOAD if abs(self.output_v()) > _LIMIT_A * self._load_ohm else 0
        return bits | (_BATTERY_SWAP if "battery" in self._faults.special else 0)

    def _batteries(self) -> str:
        """1 in use, 2 charging, 3 ready for A and B, then whether service is needed; they swap when one is empty."""
        hours = (self._clock.utc_ns() - self._started_ns) / NS_PER_S / 3600.0
        first_in_use = int(hours / _BATTERY_HOURS) % 2 == 0
        charging = hours % _BATTERY_HOURS < _BATTERY_HOURS / 2 and hours >= _BATTERY_HOURS
        other = "2" if charging else "3"
        both = ("1", other) if first_in_use else (other, "1")
        return ",".join((*both, str(int("battery" in self._faults.special))))

    def _wrong_command(self, code: int) -> None:
        self._esr, self._lcme = self._esr | _CME, code


class OtherModule(Sim928):
    """A module of another kind: it says who it is."""

    def obey(self, line: str) -> str:
        if line.strip().upper() != "*IDN?":
            return ""
        return "Stanford_Research_Systems,SIM970,s/n000970,ver2.5" + _TERMINATORS[self.terminator]


class Slot:
    """A module and the mainframe's buffer of what it has said: (when it has arrived, byte)."""

    def __init__(self, module: Sim928, clock: Clock, stale: bytes) -> None:
        self.module, self._clock = module, clock
        self._buffer = [(0, byte) for byte in stale]
        self._free_ns = 0

    def send(self, text: str) -> None:
        """Pass a line on; the answer arrives byte by byte."""
        heard_ns = max(self._clock.utc_ns(), self._free_ns) + round((len(text) + 1) * _BYTE_S * NS_PER_S)
        answer = self.module.obey(text).encode("ascii")
        self._free_ns = heard_ns + round(len(answer) * _BYTE_S * NS_PER_S)
        step_ns = round(_BYTE_S * NS_PER_S)
        self._buffer += [(heard_ns + (number + 1) * step_ns, byte) for number, byte in enumerate(answer)]

    def waiting(self) -> int:
        return sum(when_ns <= self._clock.utc_ns() for when_ns, _ in self._buffer)

    def fetch(self, most: int) -> bytes:
        count = min(most, self.waiting())
        data = bytes(byte for _, byte in self._buffer[:count])
        del self._buffer[:count]
        return data

    def flush(self) -> None:
        self._buffer.clear()

    def reset(self) -> None:
        self.flush()
        self.module.reset_interface()


class Mainframe:
    """The SIM900: its commands and its slots. What it does not understand gets no answer."""

    def __init__(self, clock: Clock, faults: Faults, slots: Sequence[int], load_ohm: float) -> None:
        self._clock, self._busy_until_ns = clock, 0
        self.changed: Callable[[], None] = lambda: None
        """Called before each command, when time has passed for the outputs."""
        stale = b"+19.999\r\n" if "stale_buffer" in faults.special else b""
        self._slots = {n: Slot(Sim928(n, clock, faults, load_ohm), clock, stale) for n in slots}
        self._slots.setdefault(_OTHER_SLOT, Slot(OtherModule(_OTHER_SLOT, clock, faults, load_ohm), clock, stale))

    @property
    def sources(self) -> list[Sim928]:
        """The SIM928 by slot."""
        return [slot.module for number, slot in sorted(self._slots.items()) if number != _OTHER_SLOT]

    def receiver(self) -> Receiver:
        """What receives the bytes of one line."""
        lines = CommandLines()

        def receive(line: Line, data: bytes) -> None:
            for command in lines.feed(data):
                self.changed()
                answer = self._obey(command)
                if answer is not None:
                    busy_s = max(0, self._busy_until_ns - self._clock.utc_ns()) / NS_PER_S
                    line.reply(answer + b"\n", _LATENCY_S + busy_s)

        return receive

    def _obey(self, command: str) -> bytes | None:
        sent = re.fullmatch(r'SNDT\s+(\d)\s*,\s*(?:"([^"]*)"|\'([^\']*)\')', command, re.IGNORECASE)
        if sent:
            if int(sent[1]) in self._slots:
                self._slots[int(sent[1])].send(sent[2] or sent[3] or "")
            return None
        name, _, rest = command.upper().partition(" ")
        numbers = [int(item) for item in re.findall(r"\d+", rest)]
        if name == "GETN?" and len(numbers) == 2:
            data = self._slots[numbers[0]].fetch(min(numbers[1], 999)) if numbers[0] in self._slots else b""
            return b"#3%03d" % len(data) + data
        if name == "NINP?" and len(numbers) == 1:
            return b"%d" % (self._slots[numbers[0]].waiting() if numbers[0] in self._slots else 0)
        if name in ("FLSH", "SRST"):
            self._clean(name, numbers)
            return None
        modules = sum(1 << slot for slot in self._slots)
        answers = {
            "*IDN?": b"Stanford_Research_Systems,SIM900,s/n152741,ver3.6",
            "*OPC?": b"1",
            "CTCR?": b"%d" % modules,
        }
        return answers.get(name)

    def _clean(self, name: str, numbers: Sequence[int]) -> None:
        for number, slot in self._slots.items():
            if not numbers or number in numbers:
                slot.flush() if name == "FLSH" else slot.reset()
        if name == "SRST":
            self._busy_until_ns = self._clock.utc_ns() + round(_RESET_S * NS_PER_S)


class Nanowires:
    """What the outputs bias: detectors 0 to 3 of the world, in the order of the slots."""

    def __init__(self, world: World, loop: Loop, sources: Sequence[Sim928], bias_ohm: float) -> None:
        self._world, self._loop, self._bias_ohm = world, loop, bias_ohm
        dark_hz = world.parameters.detectors.dark_hz
        self._biased = [(source, Nanowire(dark_hz)) for source in sources[:4]]
        special = world.faults.special
        self._latches = math.inf if "latch_again" in special else int("latch" in special)
        self._follow_for_ever()

    def follow(self) -> None:
        """Bring wires and detectors up to what flows now."""
        now_ns = self._loop.clock.utc_ns()
        for number, (source, wire) in enumerate(self._biased):
            wire.bias_ua, wire.enabled = source.output_v() / self._bias_ohm * 1e6, True
            began = wire.biased_ns
            wire.update(now_ns, cold=True)
            if number == 0 and began is None and wire.biased_ns is not None and self._latches > 0:
                wire.latched, self._latches = True, self._latches - 1
            self._world.board.set_detector(number, wire.efficiency(), wire.dark_hz(), now_ns)

    def _follow_for_ever(self) -> None:
        self.follow()
        self._loop.after_wall_s(_UPDATE_WALL_S, self._follow_for_ever)


def main() -> None:
    parser = arguments("A simulated SIM900 mainframe with SIM928 voltage sources.")
    parser.add_argument("--slots", default="1,2,3,4", help="slots of 1 to 9 with a SIM928 (default 1,2,3,4)")
    parser.add_argument("--load-ohm", type=float, default=1e5, help="what hangs on each output (default 100 kOhm)")
    parser.add_argument("--bias-ohm", type=float, metavar="OHM", help="a nanowire hangs behind each, through so much")
    options = parser.parse_args()
    slots = sorted({int(item) for item in options.slots.split(",") if item.strip().isdecimal()})
    if not slots or slots[0] < 1 or slots[-1] > _SLOTS or not min(options.load_ohm, options.bias_ohm or 1.0) > 0.0:
        raise BadInput("--slots, --load-ohm and --bias-ohm: give slots of 1 to 9, ohms above 0")
    world = world_of(options)
    loop = Loop(world.clock)
    mainframe = Mainframe(world.clock, world.faults, slots, options.load_ohm)
    if options.bias_ohm is not None:
        mainframe.changed = Nanowires(world, loop, mainframe.sources, options.bias_ohm).follow
    address = serve_lines(loop, world.faults, options, mainframe.receiver)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
