"""What an IDQ ID900/ID1000 and its DataLinkTarget service say, and how the tags of its channels become one stream.

Pure: bytes and times in, meaning out. Sources: IDQ Time Controller Python examples, `utils/common.py`,
`utils/acquisitions.py` and the merge-on-the-fly example.
"""

import json
import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.patterns import Joiner
from groundstation.errors import InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import Identity

Times = NDArray[np.int64]
Bits = NDArray[np.uint8]

#: The data link sends a message early once it holds so many tags; from then on messages count no periods.
MOST_TAGS = 100_000_000
_MODEL = re.compile(r"\bID\s?(?:900|1000)\b|Time Controller", re.IGNORECASE)
_VOLTS = {"V": 1.0, "MV": 1e-3, "": 1.0}
_SWITCHES = {"1": "ON", "0": "OFF"}
_SHOWN = 60
_CHUNK = 1 << 15  # tags merged at once; of 2^13 to 2^17 the best, with a stable sort (tests/benchmarks/bench_id900.py)
_MOST_DRIFT = 1e-4  # of the device's clock against the host's
_BITS = 4  # below the time, while it is sorted


def parse_identity(answer: bytes) -> Identity:
    """The answer to `*IDN?`: four fields, or a line of text that names the model. Raises WrongInstrument."""
    text = _text(answer)
    if not _MODEL.search(text):
        raise WrongInstrument(
            f'the instrument says it is "{text[:_SHOWN]}", not an IDQ ID900 or ID1000; check the address'
        )
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 4:
        return Identity(text)
    return Identity(f"{fields[0]} {fields[1]}", firmware=fields[3], serial=fields[2])


def parse_integer(answer: bytes) -> int:
    """A whole number; a time carries the unit TB (1 ps). Raises WireError."""
    text = _text(answer).upper().removesuffix("TB").strip()
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise WireError(f'the time controller answered "{_text(answer)[:_SHOWN]}" where a whole number was expected')
    return int(text)


def parse_volts(answer: bytes) -> float:
    """A voltage: `1.5`, `1.5V`, `1500mV`. Raises WireError."""
    parts = re.fullmatch(r"([+-]?\d{1,9}\.?\d{0,12}(?:E[+-]?\d{1,2})?)\s*(M?V|)", _text(answer).upper())
    if parts is None:
        raise WireError(f'the time controller answered "{_text(answer)[:_SHOWN]}" where a voltage was expected')
    return float(parts[1]) * _VOLTS[parts[2]]


def parse_word(answer: bytes) -> str:
    """One word (`ON`, `PLAYING`, `TSCO1`), in capitals. Raises WireError."""
    text = _text(answer).upper()
    if not re.fullmatch(r"[A-Z0-9_:]{1,40}", text):
        raise WireError(f'the time controller answered "{text[:_SHOWN]}" where a word was expected')
    return text


def same_word(told: str, wanted: str) -> bool:
    """Whether two words of SCPI are the same, one of them perhaps in its short form."""
    short, long = sorted((_SWITCHES.get(told.upper(), told.upper()), wanted.upper()), key=len)
    return long == short or (len(short) >= 2 and short.isalpha() and long.startswith(short))


def parse_histogram(answer: bytes) -> Times:
    """The bins of `HIST#:DATA?`, a list in brackets. Raises WireError."""
    text = _text(answer)
    if not re.fullmatch(r"\[(\s*\d{1,18}\s*(,\s*\d{1,18}\s*)*)?\]", text):
        raise WireError(f'the time controller answered "{text[:_SHOWN]}" where a list of counts was expected')
    return np.array(re.findall(r"\d+", text), np.int64)


class LinkStatus(NamedTuple):
    """How a channel's transfer goes: what the data link complains of, and how many tags it has passed on."""

    errors: tuple[str, ...]
    tags: int


def parse_link_answer(answer: bytes) -> object:
    """The data link's JSON; None when it has nothing to say. Raises WireError, and InstrumentFault for an error."""
    if not answer.strip():
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the data link answered {answer[:_SHOWN]!r}, which is not JSON") from error
    if isinstance(value, dict) and "error" in value:
        raise InstrumentFault(f"the data link refuses: {_description(value['error'])}")
    return value


def parse_link_id(answer: bytes) -> str:
    """The identifier that `start-stream` gives. Raises WireError and InstrumentFault."""
    value = parse_link_answer(answer)
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise WireError(f"the data link answered {answer[:_SHOWN]!r} where an id was expected")
    return str(value["id"])


def parse_link_list(answer: bytes) -> list[str]:
    """The identifiers of the transfers that run. Raises WireError and InstrumentFault."""
    value = parse_link_answer(answer)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WireError(f"the data link answered {answer[:_SHOWN]!r} where a list of ids was expected")
    return value


def parse_link_status(answer: bytes) -> LinkStatus:
    """The answer to `status` and `stop`: the fields at the top or under "status". Raises WireError, InstrumentFault."""
    value = parse_link_answer(answer)
    if isinstance(value, dict) and isinstance(value.get("status"), dict):
        value = value["status"]
    errors, tags = (value.get("errors"), value.get("timestamps_count")) if isinstance(value, dict) else (None, None)
    if not isinstance(errors, list) or type(tags) is not int:
        raise WireError(f"the data link answered {answer[:_SHOWN]!r} where a status was expected")
    return LinkStatus(tuple(_description(error) for error in errors), tags)


def _description(error: object) -> str:
    """What an error says, as one line."""
    said = error.get("description") if isinstance(error, dict) else error
    return " ".join(str(said).split())[:200]


def _text(answer: bytes) -> str:
    """As one line."""
    return " ".join(answer.decode("ascii", "replace").split()).strip('"')


class SubAcquisitions:
    """Messages of every input to one stream of patterns on the time since the acquisition began (sans-IO).

    The k-th message of an input holds its times since the beginning of the k-th period, so nothing but the count of
    messages tells the absolute time. An input that skips a period would be late by a period for ever; but then the
    inputs never have the same count for longer than a moment. So periods are given out only when all counts are
    equal and have been so for `settled_s`; when that does not come true within `patience_s`, InstrumentFault.
    A period that every input skips is seen by the host's clock: all later ones come late by a period.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        period_ps: int,
        join_ps: int,
        period_wall_s: float,
        settled_s: float,
        patience_s: float,
    ) -> None:
        """`inputs`: numbers from 1. `join_ps`: tags of several inputs so close become one pattern. `period_wall_s`:
        how long a period takes on the clock of `now_s`."""
        self._period_ps, self._period_wall_s = period_ps, period_wall_s
        self._settled_s, self._patience_s = settled_s, patience_s
        self._waiting: dict[int, deque[Times]] = {number: deque() for number in inputs}
        self._joiner = Joiner(join_ps)
        self._period = 0
        self._last_message_s = 0.0
        self._unsettled_since_s: float | None = None
        self._promptest_s: tuple[float, float] | None = None  # delay of a period, and when that was

    @property
    def begun_ps(self) -> int:
        """The beginning of the first period that was not given out: no later tag is older."""
        return self._period * self._period_ps

    def feed(self, number: int, message: bytes, now_s: float) -> None:
        """The next message of an input. Raises InstrumentFault at the end of the acquisition, WireError."""
        if not message:
            raise InstrumentFault(
                f"input {number} sent an empty message: the acquisition has ended, or a period passed without a single "
                "tag on it, and absolute times are unknown from then on; keep every input alive and connect again"
            )
        if len(message) % 8 or len(message) >= 8 * MOST_TAGS:
            raise WireError(
                f"a message of input {number} has {len(message)} bytes; whole 64-bit times are expected, "
                f"fewer than {MOST_TAGS:,}"
            )
        times = np.frombuffer(message, "<i8")
        if (times[1:] < times[:-1]).any():
            times = np.sort(times)
        if times[0] < 0 or times[-1] >= self._period_ps:
            worst = int(times[0]) if times[0] < 0 else int(times[-1])
            raise WireError(
                f"input {number} sent a time of {worst} ps, outside of a period of {self._period_ps} ps; "
                "the device does not restart its times as it was told"
            )
        self._waiting[number].append(times)
        self._last_message_s = now_s
        if self._unsettled_since_s is None:
            self._unsettled_since_s = now_s

    def is_ready(self, now_s: float) -> bool:
        """Whether whole periods can be given out. Raises InstrumentFault when it lasts too long."""
        if self._unsettled_since_s is None:
            return False
        counts = {number: len(messages) for number, messages in self._waiting.items()}
        equal = len(set(counts.values())) == 1
        if equal and now_s - self._last_message_s >= self._settled_s:
            late_s = self._late_s(self._period + min(counts.values()))
            if late_s <= self._period_wall_s / 2:
                return True
        if now_s - self._unsettled_since_s > self._patience_s:
            silent = [str(number) for number, count in counts.items() if count < max(counts.values())]
            what = f"input {', '.join(silent)}" if silent else "every input"
            raise InstrumentFault(
                f"{what} sent no message for a period, or too late, so absolute times are unknown; keep every input "
                "alive (beacon, dark counts, a generator) and connect again"
            )
        return False

    def take(self) -> tuple[Times, Bits]:
        """The events of all periods that every input has sent: times in ps since the beginning, and patterns."""
        parts: list[tuple[Times, Bits]] = []
        while all(self._waiting.values()):
            messages = {number: waiting.popleft() for number, waiting in self._waiting.items()}
            parts += self._merged(messages)
            self._period += 1
        self._unsettled_since_s = None
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.uint8)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _late_s(self, periods: int) -> float:
        """How much later than the promptest one the last of so many periods came, but for the drift of two clocks."""
        delay_s = self._last_message_s - periods * self._period_wall_s
        if self._promptest_s is not None:
            promptest_s, then_s = self._promptest_s
            late_s = delay_s - promptest_s - _MOST_DRIFT * (self._last_message_s - then_s)
            if late_s > 0.0:
                return late_s
        self._promptest_s = delay_s, self._last_message_s
        return 0.0

    def _merged(self, messages: dict[int, Times]) -> list[tuple[Times, Bits]]:
        """One period, in chunks that stay in cache: runs laid one after the other, with their input's bit below the
        time, make one sorted run by a stable sort."""
        base_ps = self._period * self._period_ps
        longest = max(messages.values(), key=len)
        step = max(1, _CHUNK // len(messages))
        cut_ps = np.unique(longest[step::step])
        edges = {number: [0, *times.searchsorted(cut_ps).tolist(), len(times)] for number, times in messages.items()}
        until_ps = [*(cut_ps + base_ps).tolist(), base_ps + self._period_ps]
        parts = []
        for chunk, latest_ps in enumerate(until_ps):
            runs = {
                number: times[edges[number][chunk] : edges[number][chunk + 1]] for number, times in messages.items()
            }
            packed = np.empty(sum(map(len, runs.values())), np.int64)
            start = 0
            for number, run in runs.items():
                part = packed[start : start + len(run)]
                np.left_shift(run, _BITS, out=part)
                np.bitwise_or(part, 1 << (number - 1), out=part)
                start += len(run)
            packed.sort(kind="stable")
            bits = (packed & 0xF).astype(np.uint8)
            np.right_shift(packed, _BITS, out=packed)
            np.add(packed, base_ps, out=packed)
            parts.append(self._joiner.feed(packed, bits, latest_ps)[:2])
        return parts
