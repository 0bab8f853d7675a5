"""The reading thread: from what a tagger says to accounted parcels in the buffer. It never waits for the disk."""

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from groundstation.acquisition.buffer import Gap, Parcel, Progress, TagBuffer
from groundstation.acquisition.continuation import Earlier, check_time_goes_on
from groundstation.acquisition.labelling import UtcLabeller
from groundstation.clock import Clock, monotonic_s
from groundstation.core.ledger import Ledger
from groundstation.core.tags import CHANNEL_NUMBER, CHANNELS, PatternMap
from groundstation.core.timebase import PS_PER_NS, PS_PER_S
from groundstation.instruments import PatternBlock, TimeTagger

_READ_TIMEOUT_S = 0.02
#: The recording's zero lies this long before the first word, so no tag has time 0 or less.
_LEAD_PS = PS_PER_S
#: 32 ticks of 1/256 ns: a zero on this grid keeps the rounding of device times to whole picoseconds.
_ZERO_GRID_PS = 125
_PPS = CHANNEL_NUMBER["pps"]
INTERRUPTED = "the recorder was interrupted"


class Receiver:
    """Reads one tagger into a buffer, in a thread of its own, until told to stop or the tagger fails."""

    def __init__(
        self,
        tagger: TimeTagger,
        patterns: Mapping[str, int],
        buffer: TagBuffer,
        clock: Clock,
        pps_uncertainty_s: float,
        earlier: Earlier | None = None,
    ) -> None:
        """`patterns`: logical channel -> set of inputs; `earlier`: the recorder that began this recording."""
        self._tagger, self._buffer, self._clock = tagger, buffer, clock
        self._map = PatternMap(patterns)
        self._labeller = UtcLabeller(pps_uncertainty_s)
        self._earlier = earlier if earlier and earlier.progress.zero_device_ps is not None else None
        self._zero_ps: int | None = None
        self._latest_ps = 0
        self._host_minus_device_ps: int | None = None  # the least seen: that of the least delayed read
        if self._earlier is not None:
            before = self._earlier.progress
            self._zero_ps, self._latest_ps = before.zero_device_ps, before.latest_ps
            self._host_minus_device_ps = before.host_utc_ns * PS_PER_NS - before.latest_ps
            self._labeller.label = before.label
        self._counts = np.zeros(len(CHANNELS), np.int64)
        #: Where on the recording's time scale this one began to read; None before the first word.
        self.began_ps: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self.error: BaseException | None = None
        #: When the thread last came back from a read (wall time); a stalled one is not to be taken for a silent tagger.
        self.turned_at_s = monotonic_s()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Tags of each logical channel so far."""
        return self._counts.copy()

    @property
    def latest_ps(self) -> int:
        """How far the tagger's time has come."""
        return self._latest_ps

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it hangs in a read."""
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                block = self._tagger.read(_READ_TIMEOUT_S)
                self.turned_at_s = monotonic_s()
                if block.latest_ps >= 0:
                    self._take(block)
        except BaseException as error:  # whatever it is, the committing thread publishes what was read and raises it
            self.error = error

    def _take(self, block: PatternBlock) -> None:
        """Account for what was read and make it tags."""
        host_utc_ns = self._clock.utc_ns()
        first = int(block.time_ps[0]) if block.time_ps.size else block.latest_ps
        gaps: list[Gap] = []
        if self._zero_ps is None:
            self._zero_ps = first // _ZERO_GRID_PS * _ZERO_GRID_PS - _LEAD_PS
            self._latest_ps = first - self._zero_ps
        start_ps = self._latest_ps
        if self._earlier is not None:
            check_time_goes_on(self._earlier.progress, first, block.latest_ps, host_utc_ns, self._clock.speed)
            self._earlier = None
            self._latest_ps = first - self._zero_ps
            gaps.append(Gap(start_ps, self._latest_ps, None, INTERRUPTED))
        if self.began_ps is None:
            self.began_ps = self._latest_ps
        tags, unmapped = self._map.apply(block.time_ps - self._zero_ps, block.pattern)
        account = Ledger(seen=tags.time_ps.size + unmapped)
        account.drop(unmapped, "input without a channel")
        account.miss(block.missed)
        for cause, count in _take_dropped(self._tagger).items():
            account.seen += count
            account.drop(count, cause)
        latest_ps = block.latest_ps - self._zero_ps
        if block.missed or block.notes:  # tags are missing somewhere among those of this block, nobody knows where
            cause = "; ".join(block.notes) or "lost by the tagger"
            gaps.append(Gap(self._latest_ps, latest_ps, block.missed or None, cause))
        self._latest_ps = latest_ps
        difference_ps = host_utc_ns * PS_PER_NS - latest_ps
        self._host_minus_device_ps = min(difference_ps, self._host_minus_device_ps or difference_ps)
        self._counts += np.bincount(tags.channel, minlength=len(CHANNELS))
        pulses = np.flatnonzero(tags.channel == _PPS)
        first_pulse = int(tags.time_ps[pulses[0]]) if pulses.size else None
        self._labeller.feed(latest_ps, first_pulse, host_utc_ns)
        told_utc_ns = (latest_ps + self._host_minus_device_ps) // PS_PER_NS
        progress = Progress(self._zero_ps, latest_ps, told_utc_ns, self._labeller.label, self._tagger.resolution_ps)
        self._buffer.put(Parcel(tags, start_ps, progress, account, tuple(gaps), self.turned_at_s))


def _take_dropped(tagger: TimeTagger) -> dict[str, int]:
    """What a link that mends itself received and could not place in time; a plain driver drops nothing."""
    take = getattr(tagger, "take_dropped", None)
    return dict(take()) if take is not None else {}
