"""Between the tagger and the disk: tags wait here until they are durable, in bounded memory.

The reading thread puts parcels in and never waits; the committing thread takes them out in order and gives their room
back once they are acknowledged. When there is no room, the newest tags are dropped, counted, and become one gap that
grows until a quarter of the buffer is free again, so that an overload leaves few long gaps and not thousands.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from groundstation.core.ledger import Ledger
from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.core.timebase import UtcLabel

BUFFER_FULL = "tag buffer full"
#: In memory and in a segment: eight of time, one of channel.
BYTES_PER_TAG = 9
#: What a parcel takes beside its tags, generously.
_PARCEL_BYTES = 1024
#: Of a gap made of many, for memory is bounded.
_LONGEST_CAUSE = 400
#: After it was full, tags are kept again when less than this is used.
_KEEP_AGAIN = 0.75


class Gap(NamedTuple):
    """An interval of loss on the recording's time scale; `missed` None: nobody knows how many."""

    start_ps: int
    stop_ps: int
    missed: int | None
    cause: str


class Progress(NamedTuple):
    """How far the recorder has come: everything in a segment's notes but the ledger."""

    #: The device's own time at the recording's zero; None while it never said anything.
    zero_device_ps: int | None = None
    #: No later tag is older than this.
    latest_ps: int = 0
    #: The host's UTC when the device's time was that, by the least delayed read so far.
    host_utc_ns: int = 0
    label: UtcLabel | None = None
    #: The device's tick; 0 while nobody said it.
    resolution_ps: float = 0.0


@dataclass(frozen=True)
class Parcel:
    """What one read of the tagger brought, accounted for: `account` counts all but `recorded`."""

    tags: TagBlock
    #: How far time had come before it.
    start_ps: int
    progress: Progress
    account: Ledger = field(default_factory=Ledger)
    gaps: tuple[Gap, ...] = ()
    #: When it was read (wall time).
    read_at_s: float = 0.0

    @property
    def count(self) -> int:
        return self.tags.time_ps.size

    @property
    def bytes(self) -> int:
        return BYTES_PER_TAG * self.count + _PARCEL_BYTES

    def lost(self, cause: str) -> "Parcel":
        """The same without its tags, which are dropped, and become a gap."""
        if not self.count:
            return self
        account = self.account.copy()
        account.drop(self.count, cause)
        gap = _one_gap((*self.gaps, Gap(self.start_ps, self.progress.latest_ps, self.count, cause)))
        return replace(self, tags=EMPTY_BLOCK, account=account, gaps=(gap,))

    def followed_by(self, later: "Parcel") -> "Parcel":
        """Both as one; not both may have tags, nor `later` tags behind this one's gaps."""
        account = self.account.copy()
        account.add(later.account)
        tags = later.tags if later.count else self.tags
        gaps = (*self.gaps, *later.gaps)
        if self.gaps and later.gaps:
            gaps = (_one_gap(gaps),)
        return Parcel(tags, self.start_ps, later.progress, account, gaps, self.read_at_s)


class Fill(NamedTuple):
    """The buffer at one moment: the whole account so far (seen = recorded + dropped + in flight), and its fill."""

    ledger: Ledger
    in_flight: int
    used_bytes: int
    limit_bytes: int

    @property
    def fraction(self) -> float:
        return self.used_bytes / self.limit_bytes

    @property
    def balances(self) -> bool:
        return self.ledger.in_flight() == self.in_flight


class TagBuffer:
    """A bounded queue of parcels from one thread to another, with the books of everything that went through."""

    def __init__(self, limit_bytes: int, ledger: Ledger | None = None) -> None:
        """`ledger`: what an earlier recorder accounted for."""
        self.cause = BUFFER_FULL  # why tags are dropped when there is no room; the committing thread knows better
        self._limit = limit_bytes
        self._parcels: deque[Parcel] = deque()
        self._ledger = ledger.copy() if ledger else Ledger()
        self._used = self._waiting = 0  # bytes: all until acknowledged, and of those not yet taken
        self._in_flight = 0
        self._content = 0  # tags and gaps waiting to be taken
        self._enough = 0  # bytes for which the committing thread waits
        self._dropping = False
        self._drop_cause = BUFFER_FULL
        self._changed = threading.Condition()

    @property
    def dropping(self) -> bool:
        """Whether new tags are dropped at present."""
        return self._dropping and self._used >= _KEEP_AGAIN * self._limit

    @property
    def has_content(self) -> bool:
        """Whether tags or gaps wait to be taken, and not only the progress of time."""
        return self._content > 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all waits to be taken."""
        return not self._parcels

    @property
    def waiting_bytes(self) -> int:
        """What waits to be taken."""
        return self._waiting

    def fill(self) -> Fill:
        """A consistent look at it."""
        with self._changed:
            return Fill(self._ledger.copy(), self._in_flight, self._used, self._limit)

    def put(self, parcel: Parcel) -> None:
        """Keep it, or account for its tags as dropped; never waits for the disk."""
        with self._changed:
            self._ledger.add(parcel.account)
            if self._dropping and self._used < _KEEP_AGAIN * self._limit:
                self._dropping = False
            if (parcel.count or parcel.gaps) and self._used + parcel.bytes > self._limit:
                self._dropping = True
            if not self._dropping or self.cause != BUFFER_FULL:
                self._drop_cause = self.cause  # what comes while a full disk is being caught up with is its fault too
            if self._dropping and parcel.count:
                self._ledger.drop(parcel.count, self._drop_cause)
                parcel = parcel.lost(self._drop_cause)
            self._in_flight += parcel.count
            if self._parcels and not parcel.count and (self._dropping or not parcel.gaps):
                self._join_to_last(parcel)
            else:
                self._append(parcel)
            self._content += parcel.count + len(parcel.gaps)
            if self._content and self._waiting >= self._enough:
                self._changed.notify_all()

    def take(self, limit_bytes: int) -> list[Parcel]:
        """Remove the oldest parcels, about as many bytes as given; they count as used until `acknowledge`."""
        with self._changed:
            taken: list[Parcel] = []
            size = 0
            while self._parcels and size < limit_bytes:
                taken.append(self._parcels.popleft())
                size += taken[-1].bytes
            self._waiting -= size
            self._content = self._content - sum(p.count + len(p.gaps) for p in taken) if self._parcels else 0
            return taken

    def acknowledge(self, taken: Sequence[Parcel], recorded: bool = True, cause: str = "") -> None:
        """What was taken is durable, or (not `recorded`) is given up for this cause: its room is free again."""
        count = sum(parcel.count for parcel in taken)
        with self._changed:
            self._used -= sum(parcel.bytes for parcel in taken)
            self._in_flight -= count
            if recorded:
                self._ledger.recorded += count
            else:
                self._ledger.drop(count, cause)

    def wait(self, enough_bytes: int, timeout_s: float) -> None:
        """Until content of so many bytes waits to be taken, or the time is over."""
        with self._changed:
            self._enough = enough_bytes
            if not (self._content and self._waiting >= enough_bytes):
                self._changed.wait(timeout_s)

    def _append(self, parcel: Parcel) -> None:
        self._parcels.append(parcel)
        self._used += parcel.bytes
        self._waiting += parcel.bytes

    def _join_to_last(self, parcel: Parcel) -> None:
        last = self._parcels[-1]
        if parcel.gaps and last.count:
            self._append(parcel)  # a gap never moves in front of tags that came before it
        else:
            self._parcels[-1] = last.followed_by(parcel)


def _one_gap(gaps: Sequence[Gap]) -> Gap:
    """One gap in place of several between the same two tags."""
    counts = [gap.missed for gap in gaps]
    known = [count for count in counts if count is not None]
    return Gap(
        min(gap.start_ps for gap in gaps),
        max(gap.stop_ps for gap in gaps),
        sum(known) if len(known) == len(counts) else None,
        "; ".join(sorted({gap.cause for gap in gaps}))[:_LONGEST_CAUSE],
    )
