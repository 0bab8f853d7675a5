"""Any receiver that sends NMEA 0183 sentences (RMC, ZDA, GGA) once a second, 4800 baud unless the address says other.

Nothing is asked: the receiver talks. A sentence is `$GPRMC,...*5A` CR LF, its checksum the exclusive or of what stands
between `$` and `*`; a sentence without one is not believed. Sources: NMEA 0183 as in gpsd's `www/NMEA.adoc` (RMC, ZDA,
GGA, mode indicators) and the sentence tables of Garmin's GPS 35 manual p. 24 (GGA quality).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s, utc_text
from groundstation.errors import TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Settings, TimeBase, TimeBaseStatus

DRIVER = DriverDescription(
    instrument="NMEA 0183 receiver (sentences RMC, ZDA, GGA)",
    capability="time_base",
    schemes=("serial", "tcp"),
    documentation="The sentences are documented openly. They tell of a fix, not of the lock of an oscillator, its "
    "offset or holdover; and a receiver that has no almanac yet may be wrong by leap seconds without saying so",
    tested_with="our simulator, which gpsd reads too",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

_LONGEST_LINE = 400  # the standard says 82; receivers exceed it
_RMC_FIX_MODES = frozenset("ADPRF")  # autonomous, differential, precise, kinematic; not E, M, S, N
_GGA_FIX = frozenset("123459")  # not 0 invalid, 6 estimated, 7 manual, 8 simulator


class Sentence(NamedTuple):
    """What one sentence says; None where it says nothing of it. `time_ns`: UTC of day; `date_ns`: UTC at 0 h."""

    kind: str
    talker: str
    time_ns: int | None = None
    date_ns: int | None = None
    fix: bool | None = None


def checksum(body: bytes) -> int:
    """The exclusive or of the characters between `$` and `*`."""
    total = 0
    for byte in body:
        total ^= byte
    return total


def parse_sentence(line: bytes) -> Sentence | None:
    """One line without its end; None for a sentence that is none of ours. Raises WireError."""
    found = re.fullmatch(rb"\$([A-Z]{1,2})([A-Z0-9]{3}),([\x20-\x7e]*)\*([0-9A-Fa-f]{2})\s*", line)
    if not found or len(line) > _LONGEST_LINE:
        if re.fullmatch(rb"\$P[A-Z0-9]+,[\x20-\x7e]*\s*|[!#%][\x20-\x7e]*\s*", line):
            return None  # of its maker
        raise WireError(f"the receiver sent {line[:60]!r}, which is no NMEA sentence with a checksum")
    body = line[1 : line.rindex(b"*")]
    if checksum(body) != int(found[4], 16):
        raise WireError(f"the checksum of {line[:60]!r} is not {checksum(body):02X}")
    talker, kind = found[1].decode("ascii"), found[2].decode("ascii")
    fields = found[3].decode("ascii").split(",")
    if kind == "RMC" and len(fields) >= 9:
        valid = fields[1] == "A" and (len(fields) < 12 or fields[11] in _RMC_FIX_MODES)
        return Sentence(
            kind, talker, _time_ns(fields[0]), _date_ns(fields[8][:2], fields[8][2:4], fields[8][4:]), valid
        )
    if kind == "ZDA" and len(fields) >= 4:
        return Sentence(kind, talker, _time_ns(fields[0]), _date_ns(*fields[1:4]))
    if kind == "GGA" and len(fields) >= 6:
        return Sentence(kind, talker, _time_ns(fields[0]), fix=fields[5] in _GGA_FIX)
    if kind in ("RMC", "ZDA", "GGA"):
        raise WireError(f"the receiver sent {line[:60]!r}, which has too few fields")
    return None


class Epoch(NamedTuple):
    """What the sentences of one second say together. `complaint`: why it cannot be believed, "" when it can."""

    utc_ns: int | None
    fix: bool | None
    complaint: str


def judge(sentences: Iterable[Sentence]) -> Epoch:
    """Put the sentences of one second together; they must not contradict each other."""
    heard = list(sentences)
    fixes = {sentence.fix for sentence in heard if sentence.fix is not None}
    dates = {sentence.date_ns for sentence in heard if sentence.date_ns is not None}
    times = {sentence.time_ns for sentence in heard if sentence.time_ns is not None}
    if len(dates) > 1 or len(times) > 1:
        return Epoch(None, False, "its sentences name different times")
    fix = all(fixes) if fixes else None
    moment = next(iter(dates)) + next(iter(times)) if dates and times else None
    if len(fixes) > 1:
        return Epoch(None, False, "some sentences claim a fix and some do not")
    return Epoch(moment, fix, "" if fix or fix is None else "no fix")


def _time_ns(text: str) -> int | None:
    """`hhmmss` or `hhmmss.sss`; second 60 of a leap second is one."""
    if not text:
        return None
    found = re.fullmatch(r"(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9})\d*)?", text, re.ASCII)
    if not found or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3]) > 60:
        raise WireError(f"the receiver names {text[:20]!r} as time of day, expected hhmmss")
    seconds = 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3])
    return seconds * NS_PER_S + int((found[4] or "0").ljust(9, "0"))


def _date_ns(day: str, month: str, year: str) -> int | None:
    """Of ZDA's four-digit year or RMC's two-digit one, which is of this century."""
    if not day + month + year:
        return None
    try:
        if not (day + month + year).isascii() or len(year) not in (2, 4):
            raise ValueError
        date = datetime(int(year) + (2000 if len(year) == 2 else 0), int(month), int(day), tzinfo=UTC)
    except ValueError as error:
        raise WireError(f"the receiver names day {day} month {month} year {year} as date") from error
    return round(date.timestamp()) * NS_PER_S


# --- Driver ----------------------------------------------------------------------------------------------

_BAUD = 4800  # NMEA 0183
_BURST_GAP_S = 0.2  # wall time without a byte after which the sentences of a second are complete
_READ_LATE_S = 0.3  # wall time, on a busy machine
_LEAST_WAIT_S = 0.5  # wall time


@dataclass(frozen=True)
class NmeaSettings(LinkSettings):
    """`max_age_s`: world time that `status` listens for a second that is complete; nothing older counts.
    `max_clock_difference_s`: further away from the station's clock the receiver's time is not believed (a receiver
    that is too old for the GPS week counter is wrong by 1024 weeks)."""

    max_age_s: float = 2.5
    max_clock_difference_s: float = 86_400.0


class NmeaTimeBase:
    """An NMEA receiver: a `TimeBase` that listens. All calls may raise TransportLost and WireError.

    `status` never uses what came before it was called, so it takes until the next second is complete. A call on a lost
    link first tries to make it again, once.
    """

    def __init__(self, link: Link, clock: Clock, settings: NmeaSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self.refused = 0
        """Lines that were no sentence with a correct checksum."""
        self._first: tuple[int, int] | None = None  # what it said first, and what the station's clock said then

    def identify(self) -> Identity:
        """Watch until a sentence of ours comes. Raises WrongInstrument when other bytes come, TransportTimeout when
        none do."""
        with self._link.exchange():
            self._get_ready()
            return self._watch()

    def status(self) -> TimeBaseStatus:
        """Fix and UTC of a second heard now. `locked` is False while nothing is heard that can be believed."""
        with self._link.exchange():
            self._get_ready()
            self._link.flush_input()
            before = self.refused
            epoch, heard = self._listen()
        if heard == 0:
            garbled = f" ({self.refused - before} lines were garbled)" if self.refused > before else ""
            return TimeBaseStatus(
                False, False, trouble=f"no sentence for {self._settings.max_age_s:g} s{garbled}: stale"
            )
        if epoch.complaint:
            return TimeBaseStatus(False, False, trouble=epoch.complaint)
        if epoch.fix is None or epoch.utc_ns is None:
            missing = "whether there is a fix" if epoch.fix is None else "date and time"
            return TimeBaseStatus(False, False, trouble=f"no sentence says {missing}")
        difference_s = (epoch.utc_ns - self._clock.utc_ns()) / NS_PER_S
        if abs(difference_s) > self._settings.max_clock_difference_s:
            said = utc_text(epoch.utc_ns, 0)
            return TimeBaseStatus(False, False, trouble=f"it says {said}, {difference_s:.0f} s off the station's clock")
        now_utc_ns = self._clock.utc_ns()
        said_first, clock_first = self._first = self._first or (epoch.utc_ns, now_utc_ns)
        behind_s = ((now_utc_ns - clock_first) - (epoch.utc_ns - said_first)) / NS_PER_S
        if abs(behind_s) > self._settings.max_age_s + _READ_LATE_S * self._clock.speed:
            return TimeBaseStatus(False, False, trouble=f"its time does not go on: {behind_s:.0f} s behind by now")
        return TimeBaseStatus(True, False, utc_ns=epoch.utc_ns)

    def close(self) -> None:
        self._link.close()

    def _listen(self) -> tuple[Epoch, int]:
        """The first second that says all, else the last one; and how many sentences came. Sentences of one second
        come in one burst."""
        best, burst, heard, rest = Epoch(None, None, ""), list[Sentence](), 0, b""
        deadline = monotonic_s() + max(self._settings.max_age_s / self._clock.speed, _LEAST_WAIT_S)
        while True:
            left = deadline - monotonic_s()
            came = self._link.read_available(max(0.0, min(left, _BURST_GAP_S) if burst else left))
            *lines, rest = (rest + came).split(b"\n")
            rest = rest[-_LONGEST_LINE:]
            for line in lines:
                if (sentence := self._understood(line)) is None or sentence.time_ns is None:
                    continue
                heard += 1
                if burst and sentence.time_ns != burst[0].time_ns:
                    best, burst = judge(burst), []
                    if _says_all(best):
                        return best, heard
                burst.append(sentence)
            if burst and (not came or left <= 0.0):
                best, burst = judge(burst), []
            if _says_all(best) or left <= 0.0:
                return best, heard

    def _understood(self, line: bytes) -> Sentence | None:
        try:
            return parse_sentence(line.strip()) if line.strip() else None
        except WireError:
            self.refused += 1
            return None

    def _watch(self) -> Identity:
        deadline, received, before = monotonic_s() + self._link.timeout_s, b"", self.refused
        while (left := deadline - monotonic_s()) > 0.0:
            received += self._link.read_available(left)
            *lines, received = received.split(b"\n")
            for line in lines:
                if sentence := self._understood(line):
                    return Identity(f"NMEA 0183 receiver, talker {sentence.talker}")
            if len(received) > _LONGEST_LINE or len(lines) > 1000:
                break
        if self.refused > before or received:
            raise WrongInstrument(
                f"{self._link.address} sends no RMC, ZDA or GGA with a checksum; check address and baud rate"
            )
        self._link.mark_silent()
        raise TransportTimeout(f"{self._link.address} sends nothing; check that the receiver is on and the baud rate")

    def _get_ready(self) -> None:
        if self._link.lost:
            self._link.reconnect(self._watch)
        self._link.mark_in_step()  # each line stands for itself


def _says_all(epoch: Epoch) -> bool:
    return bool(epoch.complaint) or (epoch.utc_ns is not None and epoch.fix is not None)


def connect(address: str, clock: Clock, settings: Settings) -> TimeBase:
    """Connect and wait for the first sentence; `clock` is what the receiver's time must be near to."""
    positive = ("timeout_s", "max_age_s", "max_clock_difference_s")
    chosen = parse_settings(NmeaSettings, settings, "time_base_nmea", positive)
    link = open_link(address, timeout_s=chosen.timeout_s, baud=_BAUD, log=chosen.log)
    time_base = NmeaTimeBase(link, clock, chosen)
    with closed_on_error(time_base):
        time_base.identify()
    return time_base
