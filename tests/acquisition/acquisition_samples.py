"""Tags that are a known function of their number, taggers that give them out, and the check of what was recorded.

Tag n has the time 125 ps x (n x step + (n x 7919) mod step) after the device's zero and comes on detector n mod 4, so
of every recorded tag it is known which one it should be, and of every missing one when it was.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from groundstation.core.ledger import Ledger
from groundstation.instruments import PatternBlock
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Segment

#: As in config/simulated.toml.
WIRED = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000, "sync": 0b0011, "pps": 0b1100}
#: 32 ticks of 1/256 ns.
GRID_PS = 125
GRID_PER_S = 8_000_000_000


@dataclass(frozen=True)
class Counted:
    """The tags of a device that clicks `rate_hz` times a second."""

    rate_hz: int = 1_000_000

    @property
    def step(self) -> int:
        return GRID_PER_S // self.rate_hz

    def grid(self, number: np.ndarray) -> np.ndarray:
        """Time in units of 125 ps."""
        return number * self.step + number * 7919 % self.step

    def time_ps(self, number: np.ndarray) -> np.ndarray:
        return self.grid(number) * GRID_PS

    def channel(self, number: np.ndarray) -> np.ndarray:
        return (number % 4).astype(np.uint8)

    def number_at(self, time_ps: np.ndarray) -> np.ndarray:
        """Which tag has its time there; any time between two belongs to the one before."""
        return time_ps // GRID_PS // self.step

    def block(self, first: int, count: int) -> PatternBlock:
        number = np.arange(first, first + count, dtype=np.int64)
        time_ps = self.time_ps(number)
        return PatternBlock(time_ps, (1 << self.channel(number)).astype(np.uint8), int(time_ps[-1]), None)

    def words(self, first: int, count: int) -> bytes:
        """The same on the wire: words of the a1 format."""
        number = np.arange(first, first + count, dtype=np.int64)
        return (self.grid(number) * 32 << 10 | 1 << (number % 4)).astype("<u8").tobytes()


class CountingTagger:
    """A tagger that gives out counted tags: in step with time, or (`rate_hz` 0) as fast as it is read."""

    resolution_ps = 1000 / 256

    def __init__(self, tags: Counted, blocks: int, block: int = 10_000, rate_hz: float = 0.0, first: int = 1_000_000):
        self._tags, self._block, self._rate_hz = tags, block, rate_hz
        self._next, self._end = first, first + blocks * block
        self._first = first
        self._began_s = 0.0
        self.exhausted = False

    @property
    def given(self) -> int:
        return self._next - self._first

    def read(self, timeout_s: float) -> PatternBlock:
        self._began_s = self._began_s or time.monotonic()
        due_s = self._began_s + self.given / self._rate_hz if self._rate_hz else 0.0
        wait_s = due_s - time.monotonic()
        if self._next >= self._end or wait_s > timeout_s:
            self.exhausted = self._next >= self._end
            time.sleep(min(timeout_s, 0.002))
            latest_ps = int(self._tags.time_ps(np.array(self._next))) - 1
            return PatternBlock(np.empty(0, np.int64), np.empty(0, np.uint8), latest_ps, None)
        time.sleep(max(0.0, wait_s))
        block = self._tags.block(self._next, self._block)
        self._next += self._block
        return block


@dataclass
class Recorded:
    """What a recording of counted tags holds."""

    tags: int = 0
    #: Numbers of the first and of the last tag.
    first: int = -1
    last: int = -1
    #: Missing between these two.
    missing: int = 0
    #: By cause: how many gaps.
    gaps: dict[str, int] = field(default_factory=dict)
    #: Missing tags that the gaps count.
    counted: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    segments: int = 0
    ended: bool = False


def check_recording(directory: Path, tags: Counted) -> Recorded:
    """Every tag is exactly the one that it should be, none comes twice, every missing one lies in a gap, and the
    ledger is exact in every segment."""
    found = Recorded()
    missing: list[tuple[int, int]] = []
    gaps: list[tuple[int, int, int]] = []
    zero_ps = 0
    reader = open_recording(directory).stream("tags")
    while not reader.ended:
        for segment in reader.poll():
            assert isinstance(segment, Segment), segment
            zero_ps = segment.notes["zero_device_ps"] or 0
            _check_tags(segment, tags, zero_ps, found, missing)
            if "gaps" in segment.tables:
                columns = (segment.tables["gaps"][name].tolist() for name in ("start_ps", "stop_ps", "missed", "cause"))
                for start_ps, stop_ps, missed, cause in zip(*columns, strict=True):
                    gaps.append((start_ps, stop_ps, missed))
                    found.gaps[cause.decode()] = found.gaps.get(cause.decode(), 0) + 1
            found.ledger = Ledger.from_notes(segment.notes["ledger"])
            assert found.ledger.in_flight() == 0, f"segment {segment.number}: {found.ledger}"
            assert found.ledger.recorded == found.tags
            found.segments, found.ended = found.segments + 1, segment.end and "abandoned" not in segment.notes
    _check_gaps(tags, zero_ps, found, missing, gaps)
    return found


def _check_tags(segment: Segment, tags: Counted, zero_ps: int, found: Recorded, missing: list[tuple[int, int]]) -> None:
    table = segment.tables["tags"]
    if not segment.rows["tags"]:
        return
    time_ps = table["time_ps"] + zero_ps
    number = tags.number_at(time_ps)
    np.testing.assert_array_equal(tags.time_ps(number), time_ps)
    np.testing.assert_array_equal(tags.channel(number), table["channel"])
    if found.last >= 0:
        number = np.concatenate(([found.last], number))
    steps = np.diff(number)
    assert np.all(steps > 0), "a tag came twice or too late"
    holes = np.flatnonzero(steps > 1)
    missing += [(int(number[hole]) + 1, int(number[hole + 1])) for hole in holes]
    found.first = int(number[0]) if found.first < 0 else found.first
    found.last = int(number[-1])
    found.tags += segment.rows["tags"]


def _check_gaps(
    tags: Counted, zero_ps: int, found: Recorded, missing: list[tuple[int, int]], gaps: list[tuple[int, int, int]]
) -> None:
    """Missing tags lie in gaps, and a gap that counts them counts them exactly."""
    for first, behind in missing:
        found.missing += behind - first
        hole_ps = tags.time_ps(np.array([first, behind - 1])) - zero_ps
        over = [gap for gap in gaps if gap[0] <= hole_ps[1] and gap[1] >= hole_ps[0]]
        assert over, f"tags {first} to {behind - 1} are missing and no gap says so"
        assert min(gap[0] for gap in over) <= hole_ps[0], "the gap begins too late"
        assert max(gap[1] for gap in over) >= hole_ps[1], "the gap ends too early"
        counts = [gap[2] for gap in over]
        if min(counts) >= 0:
            assert sum(counts) == behind - first
            found.counted += behind - first
