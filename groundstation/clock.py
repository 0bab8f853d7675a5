"""The sole reader of the system's time, and the text form of UTC.

A real station runs on the system clock. A simulated world runs N times faster: every one of its programs
is started with the same (t0, m0, N) and computes world time = t0 + N x (CLOCK_MONOTONIC - m0), so all of
them agree without talking to each other.
"""

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from groundstation.errors import BadInput

NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """World time in integer nanoseconds since 1970-01-01T00:00:00Z, and how fast it runs."""

    @property
    def speed(self) -> float:
        """World seconds per wall second."""

    def utc_ns(self) -> int:
        """World time now."""

    def sleep_s(self, world_s: float) -> None:
        """Sleep for a span of world time."""

    def text(self) -> str:
        """The form in which the clock is handed to another program (see `clock_from_text`)."""


@dataclass(frozen=True)
class SystemClock:
    """The clock of a real station."""

    speed: float = 1.0

    def utc_ns(self) -> int:
        return time.time_ns()

    def sleep_s(self, world_s: float) -> None:
        time.sleep(max(0.0, world_s))

    def text(self) -> str:
        return "system"


@dataclass(frozen=True)
class SimulatedClock:
    """The clock of a simulated world: `t0_utc_ns` at CLOCK_MONOTONIC = `m0_ns`, then `speed` times faster."""

    t0_utc_ns: int
    m0_ns: int
    speed: float

    def utc_ns(self) -> int:
        return self.t0_utc_ns + round(self.speed * (time.monotonic_ns() - self.m0_ns))

    def sleep_s(self, world_s: float) -> None:
        time.sleep(max(0.0, world_s / self.speed))

    def text(self) -> str:
        return f"{self.t0_utc_ns}:{self.m0_ns}:{self.speed!r}"


def clock_from_text(text: str) -> Clock:
    """Rebuild a clock from `Clock.text()`: "system" or "t0_utc_ns:m0_ns:speed"."""
    if text == "system":
        return SystemClock()
    try:
        t0, m0, speed = text.split(":")
        clock = SimulatedClock(int(t0), int(m0), float(speed))
    except ValueError as error:
        raise BadInput(f'clock "{text}" is neither "system" nor "t0_ns:m0_ns:speed"') from error
    if not 0.0 < clock.speed < math.inf:
        raise BadInput(f'clock "{text}" runs at speed {clock.speed}; it must be above 0')
    return clock


def monotonic_s() -> float:
    """Wall time for deadlines of the software, which never scale with the world's speed."""
    return time.monotonic()


def monotonic_ns() -> int:
    """Wall time in nanoseconds, the m0 of a `SimulatedClock`."""
    return time.monotonic_ns()


def sleep_wall_s(wall_s: float) -> None:
    """Sleep for a span of wall time."""
    time.sleep(max(0.0, wall_s))


def utc_text(utc_ns: int, digits: int = 3) -> str:
    """UTC as `2016-12-19T16:52:13.500Z` with 0 to 9 digits of a second, rounded to nearest."""
    step = 10 ** (9 - digits)
    rounded = (utc_ns + step // 2) // step * step
    seconds, fraction_ns = divmod(rounded, NS_PER_S)
    stamp = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return stamp + (f".{fraction_ns:09d}"[: digits + 1] if digits else "") + "Z"


def parse_utc(text: str) -> int:
    """Nanoseconds since 1970 of `2016-12-19T16:52:13Z` (a Z or an offset is required), to the nanosecond."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f'time "{text}" is not of the form 2016-12-19T16:52:13Z') from error
    if moment.tzinfo is None:
        raise BadInput(f'time "{text}" names no time zone; write UTC with a Z at the end')
    since = moment.astimezone(UTC) - _EPOCH
    below_us = re.search(r"[.,]\d{6}(\d{1,3})", text)  # what datetime cuts off
    below_us_ns = int(below_us[1].ljust(3, "0")) if below_us else 0
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000 + below_us_ns
