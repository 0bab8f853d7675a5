"""Jackson Labs GPS-disciplined oscillator, by its SCPI console over serial line, TCP or VISA.

A command ends with CR LF, an answer with the same. The console may echo the command and print a prompt (`scpi > `,
after an error `E-230> `), which has no end of line. Sources: Mini-JLT GNSS User Manual (80200549) pp. 26, 27, 30;
Micro-JLT GNSS User Manual (80200550) pp. 40, 42, 44; a recording of an LN Rb GPSDO, firmware 1.17, for the forms of
the answers.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from drivers.conversation import Conversation, await_silence
from drivers.scpi import parse_error, parse_number
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s
from groundstation.errors import InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Settings, TimeBase, TimeBaseStatus

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="Jackson Labs GPS-disciplined oscillator (Mini-JLT, Micro-JLT, LN Rb GPSDO and sisters), SCPI",
    capability="time_base",
    schemes=("serial", "tcp", "visa"),
    documentation="Pages of two user manuals, and a recording of a third model. Health bits above 0x200 are reported "
    "as undocumented. The HP 58503/Z3801A family has other questions for lock and health and is refused",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\r\n"
STALE = -230
_PROMPT = re.compile(r"\s*(?:scpi|(?P<error>E-\d{1,4}))\s*>[ ]?", re.IGNORECASE)
_TRACE = re.compile(r"\d\d-\d\d-\d\d(\s+\S+){5,}")  # a line of SERV:TRAC, which comes unasked once it was switched on
_HEALTH: Mapping[int, str] = MappingProxyType(
    {
        0x1: "coarse tuning at its upper end",
        0x2: "coarse tuning at its lower end",
        0x4: "phase more than 250 ns off UTC",
        0x8: "running for less than 300 s",
        0x10: "in holdover for more than 60 s",
        0x20: "frequency estimate out of bounds",
        0x40: "supply or oscillator voltage too high",
        0x80: "supply or oscillator voltage too low",
        0x100: "drift above 100 ns in 100 s",
        0x200: "phase reset or coarse tuning less than 3 minutes ago",
    }
)
"""Micro-JLT manual p. 44."""


class Reply(NamedTuple):
    """The answer to one question, or the code of the error (0: it has none) that came instead."""

    text: str
    refused: bool = False
    code: int = 0


def find_reply(received: bytes, question: str) -> Reply | None:
    """The reply among prompts, echo and blank lines; None while it is not complete."""
    *lines, rest = received.split(b"\n")
    for number, line in enumerate([*lines, rest]):
        text = line.decode("ascii", "replace")
        while prompt := _PROMPT.match(text):
            if prompt["error"]:
                return Reply("", True, int(prompt["error"][1:]))
            text = text[prompt.end() :]
        text = text.strip()
        if not text or text.upper() == question.upper() or number == len(lines) or _TRACE.match(text):
            continue
        error = re.match(r"(?:command )?error\b|(-\d{3})(?:,|$)", text, re.IGNORECASE)
        if error and not question.startswith("SYST:ERR"):
            return Reply(text, True, int(error[1] or 0))
        return Reply(text)
    return None


def parse_identity(text: str) -> Identity:
    """`Jackson Labs, LN Rb GPSDO (PRE), Firmware Rev 1.17`. Raises WireError."""
    fields = [field.strip() for field in text.split(",")]
    if not re.search(r"jackson\s*labs", fields[0], re.IGNORECASE) or len(fields) < 2:
        raise WireError(f"the answer to *IDN? is {text[:80]!r}, expected Jackson Labs, model, firmware")
    return Identity(f"Jackson Labs {fields[1]}", firmware=fields[-1] if len(fields) > 2 else "")


def parse_flag(text: str) -> bool:
    """`1` or `0`. Raises WireError."""
    if text not in ("0", "1"):
        raise WireError(f"the oscillator answered {text[:40]!r} where 0 or 1 was expected; check the cable")
    return text == "1"


def parse_health(text: str) -> int:
    """`0x54`, always hexadecimal. Raises WireError."""
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,8}", text):
        raise WireError(f"the oscillator answered {text[:40]!r} where its health (0x0) was expected; check the cable")
    return int(text, 16)


def parse_holdover(text: str) -> tuple[float, bool]:
    """`191,0`: length of this or the last holdover in seconds, and whether it is this one. Raises WireError."""
    seconds, comma, state = text.partition(",")
    if not comma:
        raise WireError(f"the oscillator answered {text[:40]!r} where seconds,state was expected; check the cable")
    return parse_float(seconds), parse_flag(state.strip())


def parse_float(text: str) -> float:
    """A finite number. Raises WireError."""
    return parse_number(text.encode("ascii", "replace"))


def parse_three(text: str) -> tuple[int, int, int]:
    """`2026,9,2` or `7,46,13`. Raises WireError."""
    if not re.fullmatch(r"\+?\d{1,4}(,\s*\+?\d{1,2}){2}", text, re.ASCII):
        raise WireError(f"the oscillator answered {text[:40]!r} where a date or time of three numbers was expected")
    first, second, third = (int(item) for item in text.split(","))
    return first, second, third


def utc_ns(date: tuple[int, int, int], time: tuple[int, int, int]) -> int:
    """Nanoseconds since 1970. Raises WireError for what is no moment of UTC; second 60 of a leap second is one."""
    try:
        day = datetime(*date, tzinfo=UTC)
    except ValueError as error:
        raise WireError(f"the oscillator says that today is {date}, which is no date") from error
    hour, minute, second = time
    if hour > 23 or minute > 59 or second > 60:
        raise WireError(f"the oscillator says that it is {time}, which is no time of day")
    return (round(day.timestamp()) + 3600 * hour + 60 * minute + second) * NS_PER_S


def health_text(bits: int) -> list[str]:
    """What each bit complains of."""
    known = [text for bit, text in _HEALTH.items() if bits & bit]
    unknown = bits & ~sum(_HEALTH)
    return known + ([f"undocumented health bits {unknown:#x}"] if unknown else [])


# --- Driver ----------------------------------------------------------------------------------------------

_BAUD = 115200  # Mini-JLT: the console's default; others are set by ?baud= in the address
_LONGEST_QUEUE = 32
_OPTIONAL_WAIT_S = 1.0  # for values that may be refused without a word
_SAME_OFFSET_NS, _SAME_FREQUENCY = 100.0, 1e-9  # by which two readings of one moment may differ


class Refused(InstrumentFault):
    """The oscillator has no answer to this question now."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class JacksonTimeBase:
    """A GPS-disciplined oscillator: a `TimeBase`. All calls may raise TransportTimeout, TransportLost and WireError.

    The wire has no checksum, so every value is asked for until two answers agree. A call on a lost link first tries
    to make it again, once.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link, self._clock = link, clock
        self._conversation = Conversation(link, self.identify, self._resynchronise)

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = self._ask("*IDN?", parse_identity)
        except (WireError, Refused) as error:
            raise WrongInstrument(
                f"{self._link.address} is no Jackson Labs oscillator: {error}; check the address"
            ) from error
        return self._conversation.recognise(found)

    def status(self) -> TimeBaseStatus:
        """Lock, holdover, health and time. What it has no fresh value for is None, and `trouble` says so.

        `leap_s` is GPS minus UTC. The time of day is given while it follows GPS or holds over, never before.
        """
        notes: list[str] = []
        with self._link.exchange():
            locked = self._agreed("SYNC:LOCK?", parse_flag)
            seconds, in_holdover = self._agreed("SYNC:HOLD:DUR?", parse_holdover, _same_holdover)
            health = self._optional("health", "SYNC:HEA?", parse_health, notes)
            offset_s = self._optional(
                "time interval", "SYNC:TINT?", parse_float, notes, _within(_SAME_OFFSET_NS * 1e-9)
            )
            error = self._optional("frequency estimate", "SYNC:FEE?", parse_float, notes, _within(_SAME_FREQUENCY))
            leap = self._optional("leap seconds", "PTIM:LEAP:ACC?", parse_float, notes)
            moment = self._moment(notes) if locked or in_holdover else None
        if not locked:
            notes.insert(0, "not locked")
        if in_holdover:
            notes.insert(0, f"in holdover for {seconds:.0f} s")
        return TimeBaseStatus(
            locked=locked and not in_holdover,
            in_holdover=in_holdover,
            utc_ns=moment,
            offset_ns=None if offset_s is None else offset_s * 1e9,
            frequency_error=error,
            leap_s=None if leap is None else round(leap),
            holdover_s=seconds if in_holdover else None,
            trouble="; ".join(notes + health_text(health or 0)),
        )

    def close(self) -> None:
        """Give the link back; changes nothing."""
        self._link.close()

    def _moment(self, notes: list[str]) -> int | None:
        """Date and time twice: on one day, and not further apart than the asking took."""
        readings: list[tuple[int, int]] = []
        try:
            for _ in range(4):
                date = self._ask("PTIM:DATE?", parse_three, wait_s=_OPTIONAL_WAIT_S)
                time = self._ask("PTIM:TIME?", parse_three, wait_s=_OPTIONAL_WAIT_S)
                heard_ns, moment = self._clock.utc_ns(), utc_ns(date, time)
                if any(abs((moment - other) - (heard_ns - then_ns)) <= 2 * NS_PER_S for then_ns, other in readings):
                    return moment
                readings.append((heard_ns, moment))
        except Refused as refused:
            notes.append(f"no time of day: {refused}")
            return None
        raise WireError(f"{self._link.address} does not tell the same time twice ({readings}); check the cable")

    def _optional(
        self,
        what: str,
        question: str,
        parse: Callable[[str], T],
        notes: list[str],
        same: Callable[[T, T], bool] = lambda a, b: a == b,
    ) -> T | None:
        try:
            return self._agreed(question, parse, same, _OPTIONAL_WAIT_S)
        except Refused as refused:
            notes.append(f"{what} is stale" if refused.code == STALE else f"no {what}: {refused}")
            return None

    def _agreed(
        self,
        question: str,
        parse: Callable[[str], T],
        same: Callable[[T, T], bool] = lambda a, b: a == b,
        wait_s: float | None = None,
    ) -> T:
        """Ask until two answers agree; the later one."""
        return self._conversation.agreed(lambda: self._ask(question, parse, wait_s=wait_s), question, same)

    def _ask(self, question: str, parse: Callable[[str], T], attempts: int = 2, wait_s: float | None = None) -> T:
        """One question, one answer; asked once more, in step again, when that failed. Raises Refused."""
        with self._link.exchange():
            self._conversation.get_ready()
            try:
                reply = self._exchange(question, wait_s)
                if not reply.refused:
                    return parse(reply.text)
                raise Refused(f"{question} is refused ({reply.text or reply.code})", reply.code)
            except TransportTimeout:
                code = self._why(question)
                if code == STALE or (code and attempts <= 1):
                    raise Refused(f"{question} is refused ({code})", code) from None
                if attempts <= 1:
                    raise
            except WireError:
                self._link.mark_in_step(False)
                if attempts <= 1:
                    raise
            return self._ask(question, parse, attempts - 1, wait_s)

    def _why(self, question: str) -> int:
        """After no answer: some firmware queues an error instead. -230 if that is among them, 0 when there is none."""
        codes = [0]
        if question != "*IDN?":
            self._conversation.get_ready()
            while len(codes) < _LONGEST_QUEUE and not (reply := self._exchange("SYST:ERR?", None)).refused:
                if (code := parse_error(reply.text.encode("ascii", "replace")).code) == 0:
                    break
                codes.append(code)
        return STALE if STALE in codes else codes[-1]

    def _exchange(self, question: str, wait_s: float | None) -> Reply:
        self._link.flush_input()
        self._link.write(question.encode("ascii") + END)
        deadline = monotonic_s() + min(self._link.timeout_s, wait_s or self._link.timeout_s)
        received = b""
        while (reply := find_reply(received, question)) is None:
            came = self._link.read_available(max(0.0, deadline - monotonic_s()))
            if not came and monotonic_s() >= deadline:
                self._link.mark_silent()
                raise TransportTimeout(
                    f"{self._link.address} does not answer {question} (got {received[:40]!r}); check that it is on"
                )
            received += came
        return reply

    def _resynchronise(self) -> None:
        """Ask who it is and skip late answers until that one comes and silence follows."""
        deadline = monotonic_s() + self._link.timeout_s
        self._link.flush_input()
        self._link.write(b"*IDN?" + END)
        received = b""
        while not re.search(rb"jackson\s*labs[^\n]*\n", received, re.IGNORECASE):
            came = self._link.read_available(max(0.0, deadline - monotonic_s()))
            if not came and monotonic_s() >= deadline:
                if received.strip():
                    raise WireError(f"{self._link.address} answers {received[:60]!r} to *IDN?, expected Jackson Labs")
                self._link.mark_silent()
                raise TransportTimeout(f"{self._link.address} does not answer *IDN?; check that it is on")
            received = (received + came)[-4096:]
        await_silence(self._link, deadline)
        self._link.mark_in_step()


def _same_holdover(first: tuple[float, bool], second: tuple[float, bool]) -> bool:
    return first[1] == second[1] and (abs(first[0] - second[0]) <= 60.0 if first[1] else first[0] == second[0])


def _within(limit: float) -> Callable[[float, float], bool]:
    return lambda first, second: abs(first - second) <= limit


def connect(address: str, clock: Clock, settings: Settings) -> TimeBase:
    """Connect and identify the oscillator; `clock` is what its time of day is compared with between two questions."""
    chosen = parse_settings(LinkSettings, settings, "time_base_jackson", ("timeout_s",))
    time_base = JacksonTimeBase(open_link(address, timeout_s=chosen.timeout_s, baud=_BAUD, log=chosen.log), clock)
    with closed_on_error(time_base):
        time_base.identify()
    return time_base
