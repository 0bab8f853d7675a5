"""What a stream holds, counted by reading it once: rows, damages, gaps, and whether its ledger balances.

Recovery and verification tell the same story from it. Nothing of the stream stays in memory.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from groundstation.core.ledger import Ledger
from groundstation.errors import RecordingDamaged
from groundstation.recording.reader import StreamReader
from groundstation.recording.segment import NO_HASH, Damage, Segment

#: The stream and table that a ledger counts.
_TAGS = "tags"
#: Segments in memory at a time: 4 of a million tags each keep the program below 150 MB.
_AT_ONCE = 4


@dataclass
class GapTotal:
    """All gaps of one cause. `missed` counts the tags that the hardware says it lost, `unknown` the gaps of
    which it cannot say."""

    gaps: int = 0
    missed: int = 0
    unknown: int = 0
    lasting_ps: int = 0


@dataclass
class StreamAccount:
    """One stream, as far as it can be read."""

    stream: str
    segments: int = 0
    #: Of each table, what can be read.
    rows: Counter[str] = field(default_factory=Counter)
    damages: list[Damage] = field(default_factory=list)
    #: By cause.
    gaps: dict[str, GapTotal] = field(default_factory=dict)
    #: That of the last segment which has one.
    ledger: Ledger | None = None
    #: Segment and sentence of the first place where the ledger breaks its law; None when it never does.
    ledger_fault: tuple[int, str] | None = None
    #: Number and hash of the last good segment.
    last_number: int = 0
    last_hash: str = NO_HASH
    #: Rows of each table up to that segment, the lost ones too.
    rows_written: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    #: Why the stream was ended by somebody else than its writer; empty when it was not.
    abandoned: str = ""
    #: Why a sealed file could be read no further; empty when it could.
    unreadable: str = ""

    @property
    def whole(self) -> bool:
        """Whether everything that is there can be read, and is in its place."""
        return not self.damages and not self.unreadable

    @property
    def rows_lost(self) -> Counter[str]:
        """Of each table, the rows of damaged segments, as far as they are known."""
        return sum((Counter(damage.rows_lost or {}) for damage in self.damages), Counter())

    @property
    def lost_uncounted(self) -> int:
        """Damaged segments of which nobody knows what they held."""
        return sum(damage.rows_lost is None for damage in self.damages)

    def take(self, segment: Segment) -> None:
        """Count one more segment."""
        self.segments += 1
        self.rows.update(segment.rows)
        self.last_number, self.last_hash = segment.number, segment.hash
        self.rows_written = {name: rows + segment.rows.get(name, 0) for name, rows in segment.first_row.items()}
        self.ended = segment.end
        self.abandoned = str(segment.notes.get("abandoned", ""))
        self._take_gaps(segment)
        if isinstance(notes := segment.notes.get("ledger"), dict):
            self._take_ledger(segment, notes)

    def _take_gaps(self, segment: Segment) -> None:
        table = segment.tables.get("gaps", {})
        if not {"start_ps", "stop_ps", "missed", "cause"} <= table.keys():
            return
        columns = (table[name].tolist() for name in ("start_ps", "stop_ps", "missed", "cause"))
        for start_ps, stop_ps, missed, cause in zip(*columns, strict=True):
            total = self.gaps.setdefault(bytes(cause).decode("utf-8", "replace"), GapTotal())
            total.gaps += 1
            total.lasting_ps += stop_ps - start_ps
            if missed < 0:
                total.unknown += 1
            else:
                total.missed += missed

    def _take_ledger(self, segment: Segment, notes: Mapping[str, object]) -> None:
        """Check seen = recorded + dropped + in flight, and that recorded is what there is."""
        try:
            ledger = Ledger.from_notes(notes)
            waiting = int(str(notes.get("in_flight", 0)))  # a segment's ledger counts up to the segment itself
        except ValueError:
            self._blame(segment, "holds something that is no number")
            return
        before, self.ledger = self.ledger, ledger
        dropped, written = sum(ledger.dropped.values()), self.rows_written.get(_TAGS, 0)
        if waiting < 0 or ledger.in_flight() != waiting:
            sum_of = f"recorded {ledger.recorded:,} + dropped {dropped:,} + in flight {waiting:,}"
            self._blame(segment, f"does not balance: seen {ledger.seen:,} is not {sum_of}")
        elif before is not None and (ledger.seen, ledger.recorded) < (before.seen, before.recorded):
            self._blame(segment, f"runs backwards: recorded {ledger.recorded:,} after {before.recorded:,}")
        elif segment.stream == _TAGS and ledger.recorded != written:
            self._blame(segment, f"says recorded {ledger.recorded:,}, but {written:,} tags were written by then")

    def _blame(self, segment: Segment, what: str) -> None:
        if self.ledger_fault is None:
            self.ledger_fault = (segment.number, f"the ledger in segment {segment.number} of {segment.stream} {what}")


def account_of(reader: StreamReader, stream: str) -> StreamAccount:
    """Read a stream to where it ends now."""
    reader.stop_following()
    account = StreamAccount(stream)
    try:
        while not reader.ended:
            for item in reader.poll(_AT_ONCE):
                if isinstance(item, Damage):
                    account.damages.append(item)
                    account.ended = False
                else:
                    account.take(item)
    except RecordingDamaged as error:  # of a sealed file: what comes behind cannot be had
        account.unreadable = str(error)
    return account
