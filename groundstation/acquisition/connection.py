"""A tagger whose cable may be pulled: reconnects while the recorder goes on, and keeps its times on one scale.

To the recorder it is a `TimeTagger` that never fails: while the link is down it gives out nothing, and then a block
that names the cause, so that a gap spans the outage. A connection is made in a thread of its own, for it may take
seconds to find that nobody answers, and the recorder must go on committing.
"""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from groundstation.acquisition.time_base import TimeBase
from groundstation.clock import Clock, monotonic_ns, monotonic_s, sleep_wall_s, utc_text
from groundstation.errors import GroundStationError, TransportLost, WrongInstrument
from groundstation.instruments import Identity, PatternBlock, TimeTagger

#: How long to wait before the next attempt (wall time): twice as long each time, up to the second number.
_BACK_OFF_S = (0.1, 5.0)
#: A link that held for so long was a good one: the next outage begins with short waits again.
_GOOD_S = 5.0
#: A tagger tells the time even when nothing clicks; one that does not for so long is gone without a word.
_SILENT_S = 5.0


class TaggerConnection:
    """The tagger behind a link that is made again whenever it is lost: a `TimeTagger`. For one thread."""

    def __init__(self, connect: Callable[[], TimeTagger], pps_pattern: int | None, clock: Clock) -> None:
        """`connect` gives an identified tagger, now and after every outage; its errors are raised here the first time.

        `pps_pattern`: the inputs that fire together at a 1PPS, None when there is none.
        """
        self._connect, self._clock = connect, clock
        self._tagger: TimeTagger | None = connect()
        self._identity = self._tagger.identify()
        self._resolution_ps = self._tagger.resolution_ps
        self._base = TimeBase(pps_pattern, clock.speed)
        self._ready: deque[PatternBlock] = deque()
        self._attempt: _Attempt | None = None
        self._back_off_s = _BACK_OFF_S[0]
        self._not_before_s = 0.0
        self._up_since_s = self._heard_s = monotonic_s()
        self._heard_ps = -1
        self._down_since_utc_ns = 0
        self._cause = ""
        self._closed = False
        #: How often the link was lost so far.
        self.outages = 0

    @property
    def resolution_ps(self) -> float:
        return self._resolution_ps

    @property
    def trouble(self) -> str:
        """What is wrong, for the operator; empty while all is well."""
        if self._tagger is None:
            return f"the tagger is gone since {utc_text(self._down_since_utc_ns, 0)}, trying again: {self._cause}"
        return self._base.trouble

    def identify(self) -> Identity:
        """What the tagger said it is."""
        return self._identity

    def take_dropped(self) -> dict[str, int]:
        """Events that were received since the last call and could not be placed in time, by cause."""
        return self._base.take_dropped()

    def read(self, timeout_s: float) -> PatternBlock:
        """What has arrived, on one time scale; without events while the link is down. Raises nothing of a link."""
        if self._closed:
            raise TransportLost("the connection to the tagger is closed; connect again")
        if not self._ready:
            tagger = self._tagger or self._reconnected(timeout_s)
            if tagger is not None:
                self._ready.extend(self._received(tagger, timeout_s))
        return self._ready.popleft() if self._ready else _nothing(self._base.latest_ps)

    def close(self) -> None:
        """Give the link back. Idempotent."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.abandon()
        if self._tagger is not None:
            self._tagger.close()
            self._tagger = None

    def _received(self, tagger: TimeTagger, timeout_s: float) -> list[PatternBlock]:
        try:
            block = tagger.read(timeout_s)
        except GroundStationError as error:  # also a tagger whose clock was restarted: it is found again like a new one
            self._lose(str(error))
            return []
        now_s = monotonic_s()
        if block.latest_ps != self._heard_ps:
            self._heard_ps, self._heard_s = block.latest_ps, now_s
        elif now_s - self._heard_s > _SILENT_S:
            self._lose(f"the tagger has been silent for {_SILENT_S:.0f} s")
            return []
        return self._base.feed(block, round(monotonic_ns() * 1000 * self._clock.speed))

    def _lose(self, cause: str) -> None:
        tagger, self._tagger = self._tagger, None
        if tagger is not None:
            tagger.close()
        self.outages += 1
        now_s = monotonic_s()
        self._back_off_s = _BACK_OFF_S[0] if now_s - self._up_since_s >= _GOOD_S else self._back_off_s
        self._down_since_utc_ns, self._cause = self._clock.utc_ns(), cause
        self._base.interrupted(cause, getattr(tagger, "wrap_ps", None))
        self._wait_before_next(now_s)

    def _wait_before_next(self, now_s: float) -> None:
        self._not_before_s = now_s + self._back_off_s
        self._back_off_s = min(2 * self._back_off_s, _BACK_OFF_S[1])

    def _reconnected(self, timeout_s: float) -> TimeTagger | None:
        """The tagger, if it is back; waits no longer than `timeout_s`."""
        if self._attempt is None:
            wait_s = self._not_before_s - monotonic_s()
            sleep_wall_s(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
            self._attempt = _Attempt(self._connect, self._identity)
        if not self._attempt.over.wait(timeout_s):
            return None
        attempt, self._attempt = self._attempt, None
        if attempt.mistake is not None:
            raise attempt.mistake
        if attempt.tagger is None:
            self._cause = attempt.failure
            self._wait_before_next(monotonic_s())
            return None
        self._tagger = attempt.tagger
        self._up_since_s = self._heard_s = monotonic_s()
        self._heard_ps = -1
        return self._tagger


class _Attempt:
    """One attempt to connect, in a thread. `over`: it succeeded (`tagger`) or not (`failure`)."""

    def __init__(self, connect: Callable[[], TimeTagger], expected: Identity) -> None:
        self._connect, self._expected = connect, expected
        self._lock = threading.Lock()
        self._abandoned = False
        self.over = threading.Event()
        self.tagger: TimeTagger | None = None
        self.failure = ""
        self.mistake: Exception | None = None
        threading.Thread(target=self._work, name="tagger connection", daemon=True).start()

    def abandon(self) -> None:
        """Nobody waits any more: what comes of it is closed."""
        with self._lock:
            self._abandoned = True
            if self.tagger is not None:
                self.tagger.close()

    def _work(self) -> None:
        try:
            tagger = self._connected()
            with self._lock:
                if self._abandoned:
                    tagger.close()
                self.tagger = tagger
        except GroundStationError as error:
            self.failure = str(error)
        except Exception as error:  # a mistake in the program, to be raised where it is seen
            self.mistake = error
        finally:
            self.over.set()

    def _connected(self) -> TimeTagger:
        tagger = self._connect()
        try:
            found, expected = tagger.identify(), self._expected
            if (found.model, found.serial) != (expected.model, expected.serial):
                raise WrongInstrument(
                    f"now {found.model} {found.serial} answers where {expected.model} {expected.serial} did; "
                    "connect the tagger with which this recording began"
                )
        except BaseException:
            tagger.close()
            raise
        return tagger


def _nothing(latest_ps: int) -> PatternBlock:
    return PatternBlock(np.empty(0, np.int64), np.empty(0, np.uint8), latest_ps, None)
