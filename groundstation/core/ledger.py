"""The balance of every recording: seen = recorded + dropped (by cause); true = seen + missed (by the hardware)."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts of tags. `missed` is None when the hardware cannot say what it lost."""

    seen: int = 0
    recorded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    missed: int | None = None

    def drop(self, count: int, cause: str) -> None:
        """Account for tags that were seen and will not be recorded."""
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def miss(self, count: int | None) -> None:
        """Add what the hardware says it lost; None changes nothing."""
        if count is not None:
            self.missed = (self.missed or 0) + count

    def add(self, other: "Ledger") -> None:
        """Take over what another ledger counted."""
        self.seen += other.seen
        self.recorded += other.recorded
        for cause, count in other.dropped.items():
            self.drop(count, cause)
        self.miss(other.missed)

    def copy(self) -> "Ledger":
        """One that can be changed without changing this one."""
        return Ledger(self.seen, self.recorded, dict(self.dropped), self.missed)

    def in_flight(self) -> int:
        """Seen, not yet recorded and not dropped; 0 at the end of a recording."""
        return self.seen - self.recorded - sum(self.dropped.values())

    def as_notes(self) -> dict[str, object]:
        """The form in which a segment carries it, zeros included."""
        return {
            "seen": self.seen,
            "recorded": self.recorded,
            "dropped": dict(sorted(self.dropped.items())),
            "missed": self.missed,
        }

    @classmethod
    def from_notes(cls, notes: Mapping[str, object]) -> "Ledger":
        """The inverse of `as_notes`."""
        dropped = notes.get("dropped")
        missed = notes.get("missed")
        return cls(
            int(str(notes.get("seen", 0))),
            int(str(notes.get("recorded", 0))),
            {str(k): int(v) for k, v in dropped.items()} if isinstance(dropped, dict) else {},
            None if missed is None else int(str(missed)),
        )
