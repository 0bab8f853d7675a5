"""The dialect that most laboratory instruments share: lines ended by LF, an error queue, `*IDN?`, binary blocks.

Sources: IEEE 488.2-1992 (*IDN?, *CLS, definite length blocks) and SCPI-99 volume 2, 21.8 (SYSTem:ERRor).
"""

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

from drivers.conversation import Conversation, skip_late_answers
from drivers.transport import Link
from groundstation.errors import BadInput, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import Identity

T = TypeVar("T")

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\n"
LONGEST_BLOCK_BYTES = 8 << 20
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_INFINITY = 9.9e37


class ScpiError(NamedTuple):
    """One entry of the error queue; code 0 means that the queue is empty."""

    code: int
    text: str


def parse_identity(line: bytes) -> Identity:
    """The answer to *IDN?, `maker,model,serial,firmware`. Raises WireError."""
    fields = [field.strip() for field in _text(line).split(",", 3)]
    if len(fields) != 4 or not fields[0] or not fields[1]:
        raise WireError(f"the answer to *IDN? is {line[:80]!r}, expected maker,model,serial,firmware")
    return Identity(f"{fields[0]} {fields[1]}", firmware=fields[3], serial=fields[2])


def parse_error(line: bytes) -> ScpiError:
    """The answer to SYST:ERR?, `-113,"Undefined header"`. Raises WireError."""
    found = re.fullmatch(r'\s*([+-]?\d{1,6})\s*,\s*"(.*)"\s*', _text(line), re.ASCII)
    if not found:
        raise WireError(f'the answer to SYST:ERR? is {line[:80]!r}, expected a number and a text, like 0,"No error"')
    return ScpiError(int(found[1]), found[2])


def parse_number(line: bytes) -> float:
    """A decimal number on a line of its own. Raises WireError, also for what SCPI-99 says instead: 9.9E37 is infinity,
    9.91E37 no number."""
    value = float(line) if _NUMBER.fullmatch(line := line.strip()) else math.nan
    if not abs(value) < _INFINITY:
        raise WireError(f"the instrument answered {line[:80]!r} where a number was expected; check the cable")
    return value


def parse_integer(line: bytes) -> int:
    """A whole number on a line of its own, `+1` or `1.0` too. Raises WireError."""
    value = parse_number(line)
    if value != int(value):
        raise WireError(f"the instrument answered {line[:80]!r} where a whole number was expected")
    return int(value)


def parse_switch(line: bytes) -> bool:
    """`1`, `0`, `ON` or `OFF`. Raises WireError."""
    states = {b"1": True, b"ON": True, b"0": False, b"OFF": False}
    if (word := line.strip().upper()) not in states:
        raise WireError(f"the instrument answered {line[:80]!r} where 1 or 0 was expected")
    return states[word]


def parse_block(data: bytes) -> bytes:
    """The content of a definite length block `#3005HELLO`, all of which is in `data`. Raises WireError."""
    if re.fullmatch(rb"#[1-9]", data[:2]):
        start = 2 + int(data[1:2])
        length = data[2:start]
        if len(length) == start - 2 and re.fullmatch(rb"\d+", length) and len(data) == start + int(length):
            return data[start:]
    raise WireError(f"the instrument sent {data[:40]!r} ({len(data)} bytes), which is no block of the length it says")


#: Relative; what a number may lose on its way to the instrument and back.
ROUNDING = 0.01


def number_text(value: float) -> str:
    """At most six decimals and never an exponent, which some instruments do not take.

    Raises BadInput for a value that would be another one then.
    """
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    if abs(float(text) - value) > ROUNDING * abs(value):
        raise BadInput(f"{value:g} cannot be told to the instrument in steps of 1e-06; give a larger value, or 0")
    return text if value else "0"


def _text(line: bytes) -> str:
    return line.decode("ascii", "replace").strip()


# --- Exchange over a link --------------------------------------------------------------------------------

_LONGEST_QUEUE = 64  # entries; IEEE 488.2 leaves the length to the instrument, all known ones hold fewer


class ScpiLink:
    """Questions and commands to one instrument, in step and with its error queue.

    All calls may raise TransportTimeout, TransportLost and WireError. A call on a lost link first tries to make it
    again, once, and proves that the same instrument answers.
    """

    def __init__(self, link: Link, accept: Callable[[Identity], None]) -> None:
        """`accept` raises WrongInstrument for an identity that the driver is not for."""
        self._link, self._accept = link, accept
        self._conversation = Conversation(link, self.identify, self._resynchronise)

    @property
    def address(self) -> str:
        return self._link.address

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = self.ask("*IDN?", parse_identity)
        except WireError as error:
            raise WrongInstrument(f"{self.address} does not say who it is: {error}; check the address") from error
        self._accept(found)
        return self._conversation.recognise(found)

    def exchange(self) -> AbstractContextManager[object]:
        """Hold the link for several questions; re-entrant."""
        return self._link.exchange()

    def ask(self, question: str, parse: Callable[[bytes], T], attempts: int = 2, timeout_s: float | None = None) -> T:
        """One question, one line; asked once more, in step again, when that failed."""
        return self._conversation.ask(
            question.encode("ascii") + END,
            lambda: parse(self._link.read_until(END, timeout_s)[: -len(END)]),
            attempts,
        )

    def ask_twice(self, question: str, parse: Callable[[bytes], T]) -> T:
        """The same, until two answers agree: the wire has no checksum. For what does not change by itself."""
        return self._conversation.agreed(lambda: self.ask(question, parse), question)

    def command(self, *commands: str) -> None:
        """Send commands, then empty the error queue. Raises InstrumentFault that holds all its entries."""
        with self._link.exchange():
            self._conversation.tell(b"".join(command.encode("ascii") + END for command in commands))
            if errors := self.errors():
                found = "; ".join(f'{error.code},"{error.text}"' for error in errors)
                raise InstrumentFault(f"{self.address} refused {'; '.join(commands)}: {found}")

    def errors(self) -> list[ScpiError]:
        """Empty the error queue. An entry that is lost on the way is lost, so this is never asked again by itself."""
        errors: list[ScpiError] = []
        with self._link.exchange():
            while (error := self.ask("SYST:ERR?", parse_error, attempts=1)).code != 0:
                errors.append(error)
                if len(errors) > _LONGEST_QUEUE:
                    raise WireError(f"{self.address} has no end of errors, the last is {error.code},{error.text}")
        return errors

    def close(self) -> None:
        """Idempotent; changes nothing."""
        self._link.close()

    def _resynchronise(self) -> None:
        """Clear it, and ask who it is."""
        skip_late_answers(self._link, b"*CLS\n*IDN?\n", END, self._is_identity, "an identity")

    def _is_identity(self, line: bytes) -> bool:
        try:
            found = parse_identity(line)
        except WireError:
            return False
        return self._conversation.known in (None, found)


def read_block(link: Link, timeout_s: float | None = None) -> bytes:
    """Read the content of a definite length block; what ends the message stays. Raises WireError."""
    head = link.read(2, timeout_s)
    digits = link.read(int(head[1:]), timeout_s) if re.fullmatch(rb"#[1-9]", head) else b""
    if not re.fullmatch(rb"\d+", digits) or int(digits) > LONGEST_BLOCK_BYTES:
        link.mark_in_step(False)
        raise WireError(f"{link.address} sent {(head + digits)!r} where a binary block was expected")
    return link.read(int(digits), timeout_s)
