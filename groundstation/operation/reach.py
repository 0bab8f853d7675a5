"""Keeps account of a mount that is out of reach: told when it begins and when it ends, given up when it lasts."""

from collections.abc import Callable

from groundstation.clock import Clock, monotonic_s, utc_text
from groundstation.errors import GroundStationError, TransportLost, TransportTimeout, WireError, WrongInstrument

#: What a bad cable does; the driver tries to make the link again with every call.
LINK_ERRORS = (TransportTimeout, TransportLost, WireError, WrongInstrument)
#: Out of reach for so long is an alarm, however it began, and for so long is the end (wall time).
_QUIETLY_S, _AT_MOST_S = 1.0, 30.0


class Reach:
    """Told of every question's success or failure. One garbled reply is a note, a lost link an alarm at once."""

    def __init__(self, clock: Clock, note: Callable[[str], None], alarm: Callable[[str, str], None]) -> None:
        """`alarm(sentence, instead_of)`: the second is the sentence that the first one follows up."""
        self._clock, self._note, self._alarm = clock, note, alarm
        self._down_since_s: float | None = None
        self._told = ""
        self._standing = False
        #: How often the mount was out of reach so far.
        self.outages = 0

    @property
    def down(self) -> bool:
        """Whether the last question was in vain."""
        return self._down_since_s is not None

    def failed(self, error: GroundStationError) -> None:
        """A question was in vain. Raises `error` when that has lasted too long."""
        now_s = monotonic_s()
        if self._down_since_s is None:
            self._down_since_s = now_s
            self.outages += 1
            self._note(f"the mount missed a turn: {error}")
        down_s = now_s - self._down_since_s
        if not self._standing and (isinstance(error, TransportLost | WrongInstrument) or down_s > _QUIETLY_S):
            since = utc_text(self._clock.utc_ns(), 0)
            self._tell(f"the mount is out of reach since {since}, trying again: {error}")
            self._standing = True
        if down_s > _AT_MOST_S:
            raise error

    def answered(self) -> float:
        """A question was answered; for how long none was (wall time)."""
        if self._down_since_s is None:
            return 0.0
        down_s, self._down_since_s = monotonic_s() - self._down_since_s, None
        if self._standing:
            self._tell(f"the mount answers again after {down_s:.1f} s")
            self._standing = False
        return down_s

    def _tell(self, sentence: str) -> None:
        self._alarm(sentence, self._told)
        self._told = sentence
