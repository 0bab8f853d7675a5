"""S-Fifteen TDC1 time tagger on its USB serial line, or behind a TCP bridge to it.

Commands are separated by `;` and end with CR LF; what a question ends in `?` for is answered by one line, but for
`counts?` in timestamp mode, which begins an endless binary stream (`tdc1_words.py`) that `abort` ends. Sources: pyS15
`usb_counter_fpga.py`; Timestamp_TDC1 `usbcount_class.py`.

The counter turns every 0.268 s, and the words alone cannot tell how often it turned while nothing came. So the time
of arrival is watched as well (`Arrivals`). A silence longer than a turn, during which this program was listening all
the time, is told in a note, which becomes a gap, and its turns are counted by the host's clock. Where the host's
clock cannot count them, `read` raises WireError: the acquisition then connects anew, which resets the counter, leaves
a gap, and finds the time base again by the 1PPS.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drivers.settings import LinkSettings, parse_settings, require_positive
from drivers.tdc1_arrivals import SILENT_WALL_S, Arrivals
from drivers.tdc1_words import TICK_PS, TURN_PS, Tdc1Decoder
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_ns, monotonic_s
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.instruments import DriverDescription, Identity, PatternBlock, Settings, TimeTagger

DRIVER = DriverDescription(
    instrument="S-Fifteen TDC1",
    capability="tagger",
    schemes=("serial", "tcp"),
    documentation="the vendor's Python clients (pyS15, Timestamp_TDC1); no complete list of commands is published",
    inputs=4,
    tested_with="our simulator, which the vendor's S15lib reads too",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

END = b"\r\n"
_MODES = {0: "singles", 1: "pairs", 3: "timestamp"}
_CLOCKS = ("auto", "external", "internal")  # REFCLK 0, 1, 2
_LONGEST_MS = 65535


class PairCounts(NamedTuple):
    """Counts of the four inputs, and of the pairs 1-3, 1-4, 2-3 and 2-4."""

    singles: tuple[int, int, int, int]
    pairs: tuple[int, int, int, int]


def level_command(level: str, threshold_v: float | None) -> str:
    """`NIM`, `TTL`, or a threshold with its sign twice, as the vendor's client writes it: `NEG -0.5`."""
    if threshold_v is None:
        return level
    return f"{'NEG' if threshold_v < 0 else 'POS'} {threshold_v:.4g}"


def stream_command(level: str) -> bytes:
    """Start the endless stream of events."""
    return f"INPKT;{level};time 0;timestamp;counts?;".encode("ascii") + END


def parse_identity(line: bytes) -> Identity:
    """The answer to *IDN?, any text that contains TDC1. Raises WireError."""
    text = line.strip().decode("ascii", "replace")
    if "TDC1" not in text:
        raise WireError(f"the answer to *IDN? is {text[:80]!r}, expected one that contains TDC1")
    return Identity("S-Fifteen TDC1", firmware=text.partition("TDC1")[2].strip(" -,:"))


def parse_integers(line: bytes, count: int) -> tuple[int, ...]:
    """So many whole numbers on a line. Raises WireError."""
    words = line.split()
    if len(words) != count or not all(word.removeprefix(b"-").isdigit() and len(word) < 20 for word in words):
        raise WireError(f"the TDC1 answered {line[:80]!r}, expected {count} whole numbers")
    return tuple(int(word) for word in words)


def parse_counts(line: bytes, count: int) -> tuple[int, ...]:
    """So many counts, none negative. Raises WireError."""
    counts = parse_integers(line, count)
    if min(counts) < 0:
        raise WireError(f"the TDC1 answered {line[:80]!r}, expected {count} counts")
    return counts


def parse_time_ms(line: bytes) -> int:
    """The answer to `time?`: a signed 16-bit number where an unsigned one is meant. Raises WireError."""
    (value,) = parse_integers(line, 1)
    if not -32768 <= value <= _LONGEST_MS:
        raise WireError(f"the TDC1 answered {line[:80]!r} to time?, expected milliseconds of 16 bits")
    return value if value >= 0 else value + 65536


def parse_mode(line: bytes) -> str:
    """The answer to `MODE?`. Raises WireError."""
    (number,) = parse_integers(line, 1)
    if number not in _MODES:
        raise WireError(f"the TDC1 answered {line[:80]!r} to MODE?, expected 0, 1 or 3")
    return _MODES[number]


def parse_level_v(line: bytes) -> float:
    """The answer to `LEVEL?`: volts, then a unit. Raises WireError."""
    try:
        value = float(line.split()[0])
    except (ValueError, IndexError):
        value = math.nan
    if not math.isfinite(value):
        raise WireError(f"the TDC1 answered {line[:80]!r} to LEVEL?, expected volts")
    return value


# --- Driver ------------------------------------------------------------------------------------------------

_QUIET_S = 0.05  # wall time without a byte after which no late answer is expected
_PROOF_WORDS = 4
_COLLECTED_S = 0.05  # wall time: after a silence, the words of so long are looked at together


@dataclass(frozen=True)
class Tdc1Settings(LinkSettings):
    """Settings of the station file.

    `level`: "NIM" or "TTL"; instead of either, `threshold_v`, a voltage whose sign is the polarity.
    `reference_clock`: "auto", "external" (10 MHz; refused when there is none) or "internal".
    """

    timeout_s: float = 5.0
    level: str = "NIM"
    threshold_v: float | None = None
    threshold_tolerance_v: float = 0.1
    reference_clock: str = "auto"


class Tdc1Device:
    """A TDC1 while it does not stream: settings and counters. All calls may raise our transport errors."""

    def __init__(self, link: Link, clock: Clock, settings: Tdc1Settings) -> None:
        self.link = link
        self._clock, self._settings = clock, settings
        self.level = level_command(settings.level.upper(), settings.threshold_v)

    def begin(self) -> Identity:
        """Stop what runs, reset, identify and set up. Raises WrongInstrument and InstrumentFault."""
        with self.link.exchange():
            self._command("\r\nabort")  # also behind half a command
            self._command("*RST")
            identity = self.identify()
            self._set_level()
            self._set_clock()
            return identity

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers."""
        try:
            return parse_identity(self._ask("*IDN?"))
        except WireError as error:
            raise WrongInstrument(
                f"{self.link.address} is not an S-Fifteen TDC1: {error}; check the address"
            ) from error

    def mode(self) -> str:
        """What `counts?` would do now: singles, pairs or timestamp."""
        return parse_mode(self._ask("MODE?"))

    def integration_s(self) -> float:
        """How long `counts?` counts; 0 is for ever."""
        return parse_time_ms(self._ask("time?")) / 1000

    def level_v(self) -> float:
        """The threshold of the inputs."""
        return parse_level_v(self._ask("LEVEL?"))

    def counts(self, integration_s: float) -> tuple[int, ...]:
        """Counts of the four inputs over `integration_s` of world time, 1 ms to 65.535 s. Not repeated."""
        return self._count("singles", integration_s, 4)

    def pair_counts(self, integration_s: float) -> PairCounts:
        """Counts of inputs and pairs over `integration_s` of world time, 1 ms to 65.535 s. Not repeated."""
        a, b, c, d, *pairs = self._count("pairs", integration_s, 8)
        return PairCounts((a, b, c, d), (pairs[0], pairs[1], pairs[2], pairs[3]))

    def close(self) -> None:
        self.link.close()

    def _count(self, mode: str, integration_s: float, numbers: int) -> tuple[int, ...]:
        milliseconds = round(integration_s * 1000) if math.isfinite(integration_s) else 0
        if not 1 <= milliseconds <= _LONGEST_MS:
            raise BadInput(f"the TDC1 cannot integrate for {integration_s} s; give 0.001 to 65.535 s")
        with self.link.exchange():
            self._command(f"{mode};time {milliseconds}")
            found = self.mode(), round(self.integration_s() * 1000)
            if found != (mode, milliseconds):
                raise InstrumentFault(
                    f"the TDC1 at {self.link.address} is in mode {found[0]} with {found[1]} ms after it was told "
                    f"{mode} with {milliseconds} ms; reset it"
                )
            wait_s = milliseconds / 1000 / self._clock.speed + self.link.timeout_s
            return parse_counts(self._ask("counts?", wait_s), numbers)

    def _set_level(self) -> None:
        self._command(self.level)
        found_v, wanted_v = self.level_v(), self._settings.threshold_v
        if wanted_v is None:
            right = (found_v > 0) == (self.level == "TTL")
        else:
            right = abs(found_v - wanted_v) <= self._settings.threshold_tolerance_v
        if not right:
            raise InstrumentFault(
                f"the TDC1 at {self.link.address} was told {self.level} and has its threshold at {found_v:g} V; "
                "choose a level in its range"
            )

    def _set_clock(self) -> None:
        number, name = _CLOCKS.index(self._settings.reference_clock), self._settings.reference_clock
        self._command(f"REFCLK {number}")
        (found,) = parse_integers(self._ask("REFCLK?"), 1)
        if found != number:
            raise InstrumentFault(f"the TDC1 at {self.link.address} answers REFCLK {found} after REFCLK {number}")
        if name == "external" and parse_integers(self._ask("ECLOCK?"), 1) == (0,):
            raise InstrumentFault(
                f'the TDC1 at {self.link.address} finds no external clock; connect 10 MHz or choose "auto"'
            )

    def _command(self, text: str) -> None:
        """Send a command; whatever it says is of no interest, as in the vendor's client."""
        self.link.write(text.encode("ascii") + END)
        deadline = monotonic_s() + self.link.timeout_s
        while self.link.read_available(_QUIET_S):
            if monotonic_s() > deadline:
                raise WireError(f"{self.link.address} does not stop sending; check that it is a TDC1")

    def _ask(self, text: str, timeout_s: float | None = None) -> bytes:
        """A question and its line; once more after a timeout, if it is no measurement."""
        with self.link.exchange():
            self.link.flush_input()
            self.link.write(text.encode("ascii") + END)
            try:
                return self.link.read_until(END, timeout_s)[: -len(END)]
            except TransportTimeout:
                if timeout_s is not None:
                    raise
            self._command("")
            self.link.write(text.encode("ascii") + END)
            return self.link.read_until(END)[: -len(END)]


class Tdc1Tagger:
    """A TDC1 that streams its events: a `TimeTagger`."""

    def __init__(self, device: Tdc1Device, identity: Identity, clock: Clock) -> None:
        """Start the stream and watch until it proves itself. Raises TransportTimeout and WireError."""
        self._device, self._link, self._identity = device, device.link, identity
        self._speed = clock.speed
        self._decoder, self._arrivals = Tdc1Decoder(), Arrivals(clock.speed)
        self._closed = False
        self._link.flush_input()
        self._link.write(stream_command(device.level))
        self._kept = self._proof()

    @property
    def resolution_ps(self) -> float:
        return TICK_PS

    @property
    def slips(self) -> int:
        """How often lost bytes had moved the word boundary, which was repaired."""
        return self._decoder.slips

    def identify(self) -> Identity:
        """What it said before the stream began; nothing can be asked while it runs."""
        return self._identity

    def read(self, timeout_s: float) -> PatternBlock:
        """What has arrived. Raises TransportLost, and WireError when its time is lost or it speaks in words."""
        if self._kept:
            kept, self._kept = self._kept, []
            return _joined(kept)
        data = self._link.read_available(timeout_s)
        now_ps = self._now_ps()
        if not data:
            self._arrivals.listened(now_ps)
            return self._decoder.settle() if self._arrivals.silent(now_ps) else self._decoder.feed(b"")
        if self._arrivals.silent(now_ps):
            return self._after_silence(data)
        block = self._decoder.feed(data)
        self._arrivals.heard(self._decoder.heard_ps, now_ps)
        return block

    def close(self) -> None:
        """Stop the stream and give the link back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(GroundStationError):  # whoever connects next aborts it too
            self._link.write(b"abort" + END)
        self._kept = []
        self._link.close()

    def _proof(self) -> list[PatternBlock]:
        """The first blocks."""
        blocks, received = [], 0
        deadline = monotonic_s() + self._link.timeout_s
        while self._decoder.words < _PROOF_WORDS:
            left_s = deadline - monotonic_s()
            if left_s <= 0.0:
                raise TransportTimeout(
                    f"the TDC1 at {self._link.address} sent {received} bytes of events in {self._link.timeout_s:g} s; "
                    "check that it is not switched off"
                )
            data = self._link.read_available(min(left_s, SILENT_WALL_S))
            received += len(data)
            blocks.append(self._decoder.feed(data) if data else self._decoder.settle())
        self._arrivals.begin(self._decoder.heard_ps, self._now_ps())
        return blocks

    def _after_silence(self, data: bytes) -> PatternBlock:
        """Settle what came before it, and count the turns by the host's clock."""
        held = self._decoder.settle()
        deadline = monotonic_s() + _COLLECTED_S
        while (left_s := deadline - monotonic_s()) > 0.0:
            data += self._link.read_available(left_s)
        now_ps, before_ps = self._now_ps(), held.latest_ps
        block = _joined([self._decoder.feed(data), self._decoder.settle()])
        turns = self._arrivals.turns(before_ps, block.latest_ps, now_ps)
        if turns:
            self._decoder.add_turns(turns)
            shift_ps, notes = turns * TURN_PS, block.notes
            silent_s = (int(block.time_ps[0]) if block.time_ps.size else block.latest_ps) + shift_ps - before_ps
            note = (
                f"the tagger was silent for {silent_s / 1e12:.2f} s, longer than its counter's turn of 0.27 s: "
                "its turns were counted by the host's clock"
            )
            block = PatternBlock(
                block.time_ps + shift_ps, block.pattern, block.latest_ps + shift_ps, None, (note, *notes)
            )
        self._arrivals.heard(self._decoder.heard_ps, now_ps)
        return _joined([held, block])

    def _now_ps(self) -> int:
        return round(monotonic_ns() * 1000 * self._speed)


def probe(address: str, clock: Clock, settings: Settings) -> Identity:
    """Who answers; what is set stays. Whether a stream that runs outlives the question is not documented."""
    with contextlib.closing(_opened(address, clock, settings)) as device:
        return device.identify()


def connect(address: str, clock: Clock, settings: Settings) -> TimeTagger:
    """Reset, identify and set up the tagger, and start its stream; `clock` tells how fast the world runs."""
    device, identity = _begun(address, clock, settings)
    try:
        return Tdc1Tagger(device, identity, clock)
    except BaseException:
        device.close()
        raise


def connect_counter(address: str, clock: Clock, settings: Settings) -> Tdc1Device:
    """The same without the stream, for its counters: to adjust a detector or a threshold by hand."""
    return _begun(address, clock, settings)[0]


def _begun(address: str, clock: Clock, settings: Settings) -> tuple[Tdc1Device, Identity]:
    device = _opened(address, clock, settings)
    try:
        return device, device.begin()
    except BaseException:
        device.close()
        raise


def _opened(address: str, clock: Clock, settings: Settings) -> Tdc1Device:
    driver = "tagger_tdc1"
    chosen = parse_settings(Tdc1Settings, settings, driver)
    require_positive(chosen.timeout_s, "timeout_s", driver)
    require_positive(chosen.threshold_tolerance_v, "threshold_tolerance_v", driver)
    if chosen.level.upper() not in ("NIM", "TTL"):
        raise BadInput(
            f'setting "level" of driver {driver} is "{chosen.level}"; it must be "NIM" or "TTL", and another threshold '
            "is given as threshold_v = -0.5"
        )
    if chosen.threshold_v is not None and not 0.0 < abs(chosen.threshold_v) < 10.0:
        raise BadInput(f'setting "threshold_v" of driver {driver} is {chosen.threshold_v} V; give a voltage but 0')
    if chosen.reference_clock not in _CLOCKS:
        raise BadInput(
            f'setting "reference_clock" of driver {driver} is "{chosen.reference_clock}"; it must be one of '
            + ", ".join(f'"{name}"' for name in _CLOCKS)
        )
    return Tdc1Device(open_link(address, timeout_s=chosen.timeout_s, baud=115200, log=chosen.log), clock, chosen)


def _joined(blocks: list[PatternBlock]) -> PatternBlock:
    return PatternBlock(
        np.concatenate([block.time_ps for block in blocks]),
        np.concatenate([block.pattern for block in blocks]),
        blocks[-1].latest_ps,
        None,
        tuple(note for block in blocks for note in block.notes),
    )
