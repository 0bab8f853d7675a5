"""What every format makes of a file: a stream of blocks in time order, and what the file says besides.

Also what the formats share: whole records from a file, exact conversion between a device's ticks and
picoseconds, counters that wrap, and files whose tags are nearly but not quite in order.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import EMPTY_BLOCK, TagBlock, concatenate
from groundstation.errors import BadInput
from groundstation.recording.segment import Table

#: Times lie within this many picoseconds of zero (53 days), so that differences fit into int64.
LIMIT_PS = 1 << 62
#: Tags may be this late in a file and are still put in their place. Real files: 86 ns (quTAG).
DISORDER_PS = 10_000_000_000
BLOCK_RECORDS = 1 << 17
#: Channel of a set of inputs that has one only, else 0.
_SINGLE_INPUT = np.array([0, 1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0], np.uint8)


class Gap(NamedTuple):
    """An interval of loss; `missed` is None when nobody knows how many."""

    start_ps: int
    stop_ps: int
    missed: int | None
    cause: str


@dataclass
class About:
    """What a file says besides its tags. Filled while the blocks are read, whole after the last one.

    `resolution_ps` is the device's; `channels` names channel numbers; `gaps` and `tables` (rows that are no
    tags: sifted bits, indices, key) may be taken out between blocks; `dropped` counts by cause what was read and
    is in no block; `missed` is what the device says it lost, None if it says nothing; `details` are JSON values
    that a later export needs. Time 0 of the blocks is `zero_ps` (any size) of the device, `zero_utc_ns` in UTC.
    """

    format: str
    resolution_ps: float
    channels: dict[int, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    tables: dict[str, list[Table]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    missed: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    zero_ps: int = 0
    zero_utc_ns: int | None = None

    def drop(self, count: int, cause: str) -> None:
        """Account for records that become no tag."""
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def take_gaps(self) -> list[Gap]:
        """Remove and return the gaps found so far."""
        taken, self.gaps = self.gaps, []
        return taken

    def take_tables(self) -> dict[str, list[Table]]:
        """Remove and return the rows found so far."""
        taken, self.tables = self.tables, {}
        return taken


class TagFile(NamedTuple):
    """A file that is being read: blocks in time order; a block may be empty when only `about` has news."""

    about: About
    blocks: Iterator[TagBlock]


def records(path: Path, dtype: np.dtype[Any], about: About, offset: int = 0) -> Iterator[NDArray[Any]]:
    """The records after `offset` bytes, many at a time; a cut record at the end is left out and noted."""
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(BLOCK_RECORDS * dtype.itemsize):
            whole, rest = divmod(len(data), dtype.itemsize)
            if rest:
                about.notes.append(f"the file ends inside a record; its last {rest} bytes were left out")
            yield np.frombuffer(data, dtype, whole)


def in_time_order(blocks: Iterable[TagBlock], about: About, where: str) -> Iterator[TagBlock]:
    """The same tags in order, equal times as they came; how many steps backward there were is noted.

    Holds back what lies less than `DISORDER_PS` before the newest tag. Raises BadInput for a tag later than that.
    """
    waiting, last_ps, newest_ps, steps, read = EMPTY_BLOCK, None, -LIMIT_PS, 0, 0
    for block in blocks:
        if block.time_ps.size == 0:
            yield block
            continue
        back = int(np.count_nonzero(block.time_ps[1:] < block.time_ps[:-1]))
        back += last_ps is not None and int(block.time_ps[0]) < last_ps
        last_ps = int(block.time_ps[-1])
        waiting = concatenate([waiting, block])
        if back:
            late_ps = np.maximum.accumulate(np.maximum(block.time_ps, newest_ps)) - block.time_ps
            if late_ps.max() > DISORDER_PS:
                first = int(np.argmax(late_ps > DISORDER_PS))
                raise BadInput(
                    f"{where} is not in order of time: tag {read + first + 1:,} goes back by {late_ps[first]:,} ps, "
                    f"more than the {DISORDER_PS:,} ps that can be put right; is it of another format?"
                )
            steps += back
            order = np.argsort(waiting.time_ps, kind="stable")
            waiting = TagBlock(waiting.time_ps[order], waiting.channel[order])
        read += block.time_ps.size
        newest_ps = int(waiting.time_ps[-1])
        cut = int(np.searchsorted(waiting.time_ps, newest_ps - DISORDER_PS))
        if cut:
            yield TagBlock(waiting.time_ps[:cut], waiting.channel[:cut])
            waiting = TagBlock(waiting.time_ps[cut:], waiting.channel[cut:])
    if waiting.time_ps.size:
        yield waiting
    if steps:
        about.notes.append(f"{steps} tags came earlier than the tag before them; they were put in order of time")


def to_ps(ticks: NDArray[np.int64], unit_ps: Fraction, where: str) -> NDArray[np.int64]:
    """floor(ticks x unit) in whole numbers only. Raises BadInput beyond `LIMIT_PS`."""
    if ticks.size and max(abs(int(ticks.min())), abs(int(ticks.max()))) * unit_ps >= LIMIT_PS:
        raise BadInput(f"{where} has times beyond 2^62 ps (53 days) from zero; is it of another format?")
    up, down = unit_ps.numerator, unit_ps.denominator
    if down == 1:
        return ticks if up == 1 else ticks * up
    shift = down.bit_length() - 1
    if down == 1 << shift:  # ten times faster than the division
        return (ticks >> shift) * up + ((ticks & (down - 1)) * up >> shift)
    whole, rest = np.divmod(ticks, down)
    time_ps: NDArray[np.int64] = whole * up + rest * up // down
    return time_ps


def to_ticks(time_ps: NDArray[np.int64], unit_ps: Fraction) -> NDArray[np.int64]:
    """The nearest tick, in whole numbers only; the inverse of `to_ps` for units of 1 ps and of 2 ps and more."""
    if unit_ps == 1:
        return time_ps
    up, down = unit_ps.numerator, unit_ps.denominator
    whole, rest = np.divmod(time_ps, up)
    ticks: NDArray[np.int64] = whole * down + (2 * rest * down + up) // (2 * up)
    return ticks


def exact_unit(unit_ps: float) -> Fraction:
    """The unit that a float meant: whole picoseconds where it is one but for rounding, else a near fraction."""
    nearest = round(unit_ps)
    if nearest and abs(unit_ps - nearest) < 1e-6 * unit_ps:
        return Fraction(nearest)
    return Fraction(unit_ps).limit_denominator(1000)


class Unwrapper:
    """Continues a counter of some bits: of all possible steps between two records the smallest is taken."""

    def __init__(self, bits: int) -> None:
        self._half, self._mask = 1 << (bits - 1), (1 << bits) - 1
        self._last: int | None = None

    def feed(self, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ticks as counted (n,) to ticks since the first one's zero."""
        if ticks.size == 0:
            return ticks
        if self._last is None:
            self._last = int(ticks[0])
        steps = np.diff(ticks, prepend=self._last & self._mask)
        steps = ((steps + self._half) & self._mask) - self._half
        continued: NDArray[np.int64] = self._last + np.cumsum(steps)
        self._last = int(continued[-1])
        return continued


def from_patterns(ticks: NDArray[np.int64], pattern: NDArray[np.uint8], about: About) -> TagBlock:
    """Events of 4 inputs at once -> tags of the channels 1 to 4 (times stay in ticks), lowest input first."""
    channel = _SINGLE_INPUT[pattern]
    if channel.all():
        return TagBlock(ticks, channel)
    about.drop(int(np.count_nonzero(pattern == 0)), "no input")
    bits = np.unpackbits(pattern[:, np.newaxis], axis=1, bitorder="little")[:, :4]
    event, line = np.nonzero(bits)
    return TagBlock(ticks[event], (line + 1).astype(np.uint8))


def to_patterns(ticks: NDArray[np.int64], channel: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The inverse: rising channels at one tick become one event. Raises BadInput for other channels than 1 to 4."""
    require_channels(channel, range(1, 5), "this format")
    if ticks.size == 0:
        return ticks, channel
    first = np.flatnonzero(np.concatenate(([True], (np.diff(ticks) != 0) | (channel[1:] <= channel[:-1]))))
    return ticks[first], np.bitwise_or.reduceat(np.left_shift(1, channel - 1).astype(np.uint8), first)


def require_channels(channel: NDArray[np.uint8], allowed: Sequence[int], where: str) -> None:
    """Raise BadInput when a channel number cannot be written."""
    wrong = np.setdiff1d(channel, np.asarray(allowed))
    if wrong.size:
        raise BadInput(
            f"{where} has no channel {wrong[0]}, only {allowed[0]} to {allowed[-1]}; "
            "choose channels and their numbers with --channels NAME=N,..."
        )


def require_positive(time_ps: NDArray[np.int64], where: str) -> None:
    """Raise BadInput when there are times before zero (they are in order)."""
    if time_ps.size and time_ps[0] < 0:
        raise BadInput(f"{where} has no times before zero, but the first is {int(time_ps[0]):,} ps")
