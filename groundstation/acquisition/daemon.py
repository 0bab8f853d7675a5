"""From the tagger to acknowledged segments. Knows nothing of passes, mounts or analysis.

Who holds what:

    Receiver   a thread: reads the tagger, maps inputs to channels, counts, puts parcels into the buffer; never waits
    TagBuffer  bounded memory between them, with the account of everything seen: recorded, dropped or in flight
    Committer  this thread: publishes what waits once per commit interval, keeps and retries what the disk refuses
    Space      how much room is left, and the reserve

Tags wait in memory for at most one commit interval; after `StreamWriter.publish` returns they are safe. Each segment
carries the ledger up to and including itself, the UTC label once it is known, and how far time has come.
"""

from collections.abc import Callable, Mapping

from groundstation.acquisition.buffer import Fill, TagBuffer
from groundstation.acquisition.committer import SEGMENT_BYTES, Committer
from groundstation.acquisition.continuation import Earlier
from groundstation.acquisition.receiver import Receiver
from groundstation.acquisition.service import Service
from groundstation.acquisition.space import Space
from groundstation.acquisition.status import AcquisitionStatus
from groundstation.clock import Clock, monotonic_s, sleep_wall_s
from groundstation.core.tags import CHANNELS
from groundstation.core.timebase import PS_PER_NS, PS_PER_S
from groundstation.errors import GroundStationError
from groundstation.instruments import TimeTagger
from groundstation.recording.writer import StreamWriter

DEFAULT_BUFFER_BYTES = 256_000_000
_STATUS_INTERVAL_S = 0.25
#: How often it is asked whether to stop.
_TURN_S = 0.02
#: A buffer as full as this is an alarm.
_ALARM_FILL = 0.75
#: A receiver that has not come back from a read for so long hangs.
_HANGS_AFTER_S = 5.0


class Acquisition:
    """Records one tagger into the `tags` stream until told to stop."""

    def __init__(
        self,
        tagger: TimeTagger,
        patterns: Mapping[str, int],
        writer: StreamWriter,
        clock: Clock,
        commit_interval_s: float,
        pps_uncertainty_s: float,
        *,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        space: Space | None = None,
        service: Service | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        """`patterns`: logical channel -> set of inputs; intervals in wall time. Without `space` any failure of the
        disk ends the recording; `earlier` is the interrupted recorder of the same recording."""
        self._tagger, self._commit_interval_s = tagger, commit_interval_s
        self._space, self._service = space, service or Service(None)
        self._buffer = TagBuffer(buffer_bytes, earlier.ledger if earlier else None)
        self._receiver = Receiver(tagger, patterns, self._buffer, clock, pps_uncertainty_s, earlier)
        self._committer = Committer(self._buffer, writer, space, earlier, self._published)
        self._counted = self._receiver.counts
        self._counted_to_ps: int | None = None

    @property
    def recorded_to_utc_ns(self) -> int | None:
        """Up to when (UTC) the tags are safe; None until the recording has its UTC label."""
        return self._utc_ns_of(self._committer.progress.latest_ps)

    def run(self, stop: Callable[[], bool], report: Callable[[AcquisitionStatus], None]) -> None:
        """Record until `stop()`. Whatever happens, what was read is published first; the stream is closed
        with its END only in good order.

        Raises what the tagger raised, FsyncFailed when the disk fails, RecordingFailed when not even the END could
        be written.
        """
        self._receiver.start()
        commit_at = status_at = monotonic_s()
        while self._receiver.running and not stop():
            self._await(commit_at)
            now_s = monotonic_s()
            due = now_s >= commit_at or self._buffer.waiting_bytes >= SEGMENT_BYTES
            if due and self._committer.commit():
                in_step = commit_at + self._commit_interval_s
                commit_at = in_step if in_step > now_s else now_s + self._commit_interval_s
            if now_s >= status_at:
                report(self._status())
                status_at = now_s + _STATUS_INTERVAL_S
        self._finish()
        report(self._status())

    def _await(self, commit_at: float) -> None:
        """Until there is something to commit, or for a short while."""
        early_s = commit_at - monotonic_s()
        if self._committer.blocked:
            sleep_wall_s(_TURN_S)
        elif early_s > 0:
            self._buffer.wait(SEGMENT_BYTES, min(_TURN_S, early_s))
        else:
            self._buffer.wait(1, _TURN_S)

    def _finish(self) -> None:
        self._service.stopping()
        hangs = not self._receiver.stop(_HANGS_AFTER_S)
        error = self._receiver.error
        self._committer.finish(end=error is None and not hangs)
        if self._space is not None:
            self._space.release()
        if error is not None:
            raise error
        if hangs:
            raise GroundStationError("the tagger's driver hangs in a read; what was read before is recorded")

    def _published(self) -> None:
        """The watchdog is fed only by what is durable, and only while the receiver turns."""
        if monotonic_s() - self._receiver.turned_at_s < _HANGS_AFTER_S:
            self._service.ready()
            self._service.alive()

    def _utc_ns_of(self, time_ps: int) -> int | None:
        label = self._committer.progress.label
        return None if label is None else label.utc_ns + (time_ps - label.time_ps) // PS_PER_NS

    def _status(self) -> AcquisitionStatus:
        fill, latency = self._buffer.fill(), self._committer.latencies.take()
        latest_ps = self._receiver.latest_ps
        return AcquisitionStatus(
            tags=self._committer.recorded,
            counts_hz=self._counts_hz(latest_ps),
            acknowledge_s=latency.longest_s,
            read_until_utc_ns=self._utc_ns_of(latest_ps) or 0,
            dropped=sum(fill.ledger.dropped.values()),
            seen=fill.ledger.seen,
            in_flight=fill.in_flight,
            dropped_by_cause=fill.ledger.dropped,
            missed=fill.ledger.missed,
            acknowledge_p50_s=latency.p50_s,
            acknowledge_p99_s=latency.p99_s,
            buffer_fill=fill.fraction,
            disk=str(self._space.state) if self._space else "ok",
            disk_minutes_left=self._space.minutes_left if self._space else None,
            alarms=self._alarms(fill),
        )

    def _counts_hz(self, latest_ps: int) -> dict[str, float]:
        """Per second of the tagger's time since the last status."""
        since_ps = self._receiver.began_ps if self._counted_to_ps is None else self._counted_to_ps
        if since_ps is None or latest_ps <= since_ps:
            return dict.fromkeys(CHANNELS, 0.0)
        counts = self._receiver.counts
        rates = (counts - self._counted) / ((latest_ps - since_ps) / PS_PER_S)
        self._counted, self._counted_to_ps = counts, latest_ps
        return dict(zip(CHANNELS, rates.tolist(), strict=True))

    def _alarms(self, fill: Fill) -> dict[str, str]:
        alarms = {}
        if self._buffer.dropping:
            alarms["tags dropped"] = f"new tags are dropped and counted: {self._buffer.cause}"
        elif fill.fraction >= _ALARM_FILL:
            alarms["buffer"] = f"the tag buffer is {100 * fill.fraction:.0f} % full"
        if self._space is not None and self._space.trouble:
            alarms["disk"] = self._space.trouble
        # A link that mends itself says here what is wrong with it; a plain driver has nothing to say.
        if trouble := str(getattr(self._tagger, "trouble", "")):
            alarms["tagger"] = trouble
        if not fill.balances:
            alarms["ledger"] = f"the ledger is off by {fill.ledger.in_flight() - fill.in_flight:,} tags: report this"
        return alarms
