"""What simulated SCPI instruments share: short and long headers, compound messages, parameters, the error queue.

Source: SCPI-99 volume 1 (6.2 headers and their path after a semicolon, 8.3 channel lists) and volume 2 (21.8, the
error queue and its numbers), IEEE 488.2. A device is a table from header patterns to functions.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence

Handler = Callable[[Sequence[str]], "str | None"]
"""Obeys one command with its parameters; the answer of a query, None of a command. May raise ScpiError."""

MEANINGS: Mapping[int, str] = {
    -102: "Syntax error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -131: "Invalid suffix",
    -221: "Settings conflict",
    -222: "Data out of range",
    -224: "Illegal parameter value",
    -230: "Data corrupt or stale",
    -350: "Queue overflow",
}
_QUEUE_ENTRIES = 20  # free: what several supplies keep
_LONGEST_LINE = 4096  # free


class ScpiError(Exception):
    """A command failed with this error number."""

    def __init__(self, code: int) -> None:
        super().__init__(MEANINGS[code])
        self.code = code


class ErrorQueue:
    """First in, first out; when it is full the newest entry turns into -350."""

    def __init__(self) -> None:
        self._codes: deque[int] = deque()

    def add(self, code: int) -> None:
        if len(self._codes) < _QUEUE_ENTRIES:
            self._codes.append(code)
        else:
            self._codes[-1] = -350

    def next(self) -> str:
        """The oldest entry in the form of SYST:ERR?, which forgets it."""
        code = self._codes.popleft() if self._codes else 0
        return f'{code:+d},"{MEANINGS[code] if code else "No error"}"'

    def clear(self) -> None:
        self._codes.clear()


class ScpiFace:
    """Finds the function for each command of a message and joins the answers."""

    def __init__(self, commands: Mapping[str, Handler]) -> None:
        """`commands`: patterns such as `[SOURce:]VOLTage[:LEVel]` or `*IDN?`; capitals are the short form."""
        self.errors = ErrorQueue()
        self._commands = [(_pattern(header), handler) for header, handler in commands.items()]

    def execute(self, message: str) -> str | None:
        """Obey one line. A command error (-1xx) discards what follows in the line, an execution error does not."""
        answers, path = [], ""
        for unit in split_outside(message, ";"):
            header, _, rest = unit.strip().replace("\t", " ").partition(" ")
            if not header:
                continue
            if not header.startswith("*"):
                header = header[1:] if header.startswith(":") else path + header
                path = header[: header.rfind(":") + 1]
            try:
                answer = self._handler(header)([item.strip() for item in split_outside(rest, ",") if rest.strip()])
            except ScpiError as error:
                self.errors.add(error.code)
                if -199 <= error.code <= -100:
                    break
                continue
            if answer is not None:
                answers.append(answer)
        return ";".join(answers) if answers else None

    def _handler(self, header: str) -> Handler:
        for pattern, handler in self._commands:
            if pattern.fullmatch(header):
                return handler
        raise ScpiError(-113)


class CommandLines:
    """Cuts received bytes into lines at LF; CR and other blanks at the ends do not count."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        return [line.decode("ascii", "replace").strip() for line in lines]


def split_outside(text: str, separator: str) -> list[str]:
    """Split at a character that stands neither in quotes nor in parentheses."""
    parts, depth, quoted = [""], 0, ""
    for sign in text:
        if quoted:
            quoted = "" if sign == quoted else quoted
        elif sign in "\"'":
            quoted = sign
        depth += (sign == "(") - (sign == ")") if not quoted else 0
        if sign == separator and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def number(text: str, suffixes: Mapping[str, float]) -> float:
    """A decimal number with one of the suffixes (upper case -> factor) or none. Raises ScpiError."""
    matched = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)", text)
    if not matched:
        raise ScpiError(-104)
    value, suffix = float(matched[1]), matched[2].upper()
    if suffix and suffix not in suffixes:
        raise ScpiError(-131)
    if not math.isfinite(value):
        raise ScpiError(-222)
    return value * suffixes.get(suffix, 1.0)


def boolean(text: str) -> bool:
    """ON, OFF or a number (0 is off). Raises ScpiError."""
    word = text.upper()
    return word == "ON" if word in ("ON", "OFF") else bool(round(number(text, {})))


def channel_list(text: str) -> list[int]:
    """`(@1,3:5)`. Raises ScpiError."""
    matched = re.fullmatch(r"\(@\s*(\d+(?:\s*[,:]\s*\d+)*)\s*\)", text)
    if not matched:
        raise ScpiError(-102)
    channels: list[int] = []
    for item in matched[1].split(","):
        first, _, last = item.partition(":")
        if len(last) > 3 or int(last or first) - int(first) > 99:
            raise ScpiError(-222)
        channels.extend(range(int(first), int(last or first) + 1))
    return channels


def _pattern(header: str) -> re.Pattern[str]:
    """`OUTPut[:STATe]?` as a regular expression that takes OUTP, OUTPUT, OUTP:STAT, ... but not OUTPU."""

    def forms(mnemonic: re.Match[str]) -> str:
        long = mnemonic[0]
        short = "".join(sign for sign in long if not sign.islower())
        return long if long == short else f"(?:{short}|{long})"

    escaped = header.replace("*", r"\*").replace("?", r"\?").replace("[", "(?:").replace("]", ")?")
    return re.compile(re.sub(r"[A-Z]+[a-z]+", forms, escaped), re.IGNORECASE)
