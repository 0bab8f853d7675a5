"""Bytes to and from an instrument, whatever carries them: one small link over a serial line, TCP, VISA or a wire log.

The libraries below fail in a dozen ways (SerialException, OSError, VisaIOError, an empty read, ...). Here
each becomes TransportTimeout or TransportLost, and after any timeout the link says that it is out of step:
the late answer may still arrive and would be taken for the next one, so the driver resynchronises first.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import NoReturn

from drivers.transport.ports import Port
from drivers.transport.wire_log import Direction, WireLog
from groundstation.clock import monotonic_s
from groundstation.errors import GroundStationError, TransportLost, TransportTimeout, WireError

_WRITE_WAIT_S = 0.005  # how long a blocked write waits before it looks for incoming bytes again
_BACK_OFF_S = (0.1, 2.0)  # before the next attempt to open a lost link again: twice as long each time
_UNREAD_BYTES = 32 << 20  # no answer is that long: a far end that sends more without being read babbles
_SILENCES = 3  # so many timeouts in succession, without a byte between them, and the link counts as lost


class Link:
    """A byte link with deadlines (wall time), a lock for whole exchanges and an optional wire log.

    Every call raises TransportTimeout when the deadline passes, TransportLost when the link is gone or closed, and
    WireError when the far end does not stop sending. Bytes that arrived before a timeout stay in the link until they
    are read or flushed. A link that is `lost` stays so until the driver calls `reconnect`.
    """

    def __init__(
        self,
        address: str,
        port: Port,
        timeout_s: float,
        log: WireLog | None = None,
        opener: Callable[[], Port] | None = None,
    ) -> None:
        """`opener` opens the same address again; without it a lost link stays lost. The link closes its `log`."""
        self.address = address
        self.timeout_s = timeout_s
        self._port = port
        self._opener = opener
        self._lost = ""  # why
        self._silences = 0
        self._back_off_s, self._not_before_s = _BACK_OFF_S[0], 0.0
        self._input = bytearray()
        self._lock = threading.RLock()
        self._closed = False
        self._in_step = True
        self._log = log

    @property
    def in_step(self) -> bool:
        """False after a timeout, until the driver has resynchronised."""
        return self._in_step

    def mark_in_step(self, in_step: bool = True) -> None:
        """The driver's word on whether the next bytes belong to its next question."""
        self._in_step = in_step

    def mark_silent(self) -> None:
        """A question was not answered in time; so many in succession and the link counts as lost."""
        self._in_step = False
        self._silences += 1
        if self._silences >= _SILENCES:
            self._lost = self._lost or f"it has been silent {self._silences} times in succession"

    @property
    def lost(self) -> bool:
        """True from the moment at which the link broke or fell silent for good, until it is made again."""
        return bool(self._lost)

    def reconnect(self, prove: Callable[[], object]) -> None:
        """Open a lost link again; `prove` asks who is there now and raises if it is not the same instrument.

        Makes one attempt, or none when the last one was too short a while ago (0.1 s, then 0.2 ... 2 s). Raises
        TransportLost when that was in vain, and what `prove` raises; the link is lost as before then.
        """
        with self._lock:
            self._check_closed()
            if self._opener is None or monotonic_s() < self._not_before_s:
                raise TransportLost(f"the link to {self.address} is gone ({self._lost}); it is tried again soon")
            self._not_before_s = monotonic_s() + self._back_off_s
            self._back_off_s = min(2 * self._back_off_s, _BACK_OFF_S[1])
            self._release_port()
            self._input.clear()
            try:
                self._port = opened(self.address, self._opener)
                self._lost, self._silences, self._in_step = "", 0, False
                prove()
            except GroundStationError as error:
                self._lost = str(error)
                raise
            finally:
                if self._closed:  # meanwhile, in another thread
                    self._release_port()
            self._back_off_s = _BACK_OFF_S[0]

    def exchange(self) -> contextlib.AbstractContextManager[object]:
        """Hold the link for a question and its answer; re-entrant."""
        return self._lock

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        """Send all of `data`. Keeps receiving meanwhile, so two full pipes cannot block each other."""
        with self._lock:
            self._check_open()
            deadline = monotonic_s() + (self.timeout_s if timeout_s is None else timeout_s)
            rest = memoryview(data)
            self._record("out", data)
            while rest:
                sent = self._send(rest)
                rest = rest[sent:]
                if rest and not sent:
                    self._pull(0.0)
                    if monotonic_s() > deadline:
                        self._time_out(f"took no more bytes ({len(rest)} of {len(data)} unsent)")

    def read(self, n: int, timeout_s: float | None = None) -> bytes:
        """Exactly `n` bytes."""
        with self._lock:
            self._fill(lambda: len(self._input) >= n, timeout_s, f"{n} bytes")
            return self._take(n)

    def read_until(self, terminator: bytes, timeout_s: float | None = None) -> bytes:
        """Everything up to and including the first `terminator`."""
        with self._lock:
            self._fill(lambda: terminator in self._input, timeout_s, f"a line ending in {terminator!r}")
            return self._take(self._input.index(terminator) + len(terminator))

    def read_available(self, timeout_s: float) -> bytes:
        """Whatever is there, at once if anything is; b"" when nothing came within `timeout_s`."""
        with self._lock:
            if not self._input:
                self._pull(max(0.0, timeout_s))
            return self._take(len(self._input))

    def flush_input(self) -> None:
        """Throw away what has arrived and not been read."""
        with self._lock:
            flushed = len(self._input)
            self._input.clear()
            while received := self._pull(0.0):
                flushed += received
                self._input.clear()
                if flushed > _UNREAD_BYTES:
                    self._complain_of_babble()

    def close(self) -> None:
        """Give the link back. Idempotent; a call in another thread ends with TransportLost."""
        if self._closed:
            return
        self._closed = True
        self._release_port()
        if self._log:
            self._log.close()

    def _release_port(self) -> None:
        with contextlib.suppress(Exception):  # closing a link that is already gone is fine
            self._port.close()

    def _fill(self, enough: Callable[[], bool], timeout_s: float | None, wanted: str) -> None:
        deadline = monotonic_s() + (self.timeout_s if timeout_s is None else timeout_s)
        while not enough():
            left = deadline - monotonic_s()
            if not self._pull(max(0.0, left)) and left <= 0.0:
                got = bytes(self._input[:40]).hex(" ") or "nothing"
                self._time_out(f"did not answer in time (waiting for {wanted}, got {got})")

    def _take(self, n: int) -> bytes:
        data = bytes(self._input[:n])
        del self._input[:n]
        return data

    def _pull(self, wait_s: float) -> int:
        self._check_open()
        try:
            data = self._port.receive(wait_s)
        except Exception as error:
            self._lose(error)
        if data:
            self._record("in", data)
            self._input += data
            self._silences = 0
            if len(self._input) > _UNREAD_BYTES:
                self._input.clear()
                self._complain_of_babble()
        return len(data)

    def _complain_of_babble(self) -> NoReturn:
        self._in_step = False
        raise WireError(f"{self.address} does not stop sending; check that the right instrument is connected there")

    def _send(self, rest: memoryview) -> int:
        self._check_open()
        try:
            return self._port.send(rest, _WRITE_WAIT_S)
        except Exception as error:
            self._lose(error)

    def _check_open(self) -> None:
        self._check_closed()
        if self._lost:
            raise TransportLost(f"the link to {self.address} is gone ({self._lost}); check cable and power")

    def _check_closed(self) -> None:
        if self._closed:
            raise TransportLost(f"the link to {self.address} is closed; connect again")

    def _time_out(self, what: str) -> NoReturn:
        self.mark_silent()
        raise TransportTimeout(f"{self.address} {what}; check that the instrument is on and the address right")

    def _lose(self, error: Exception) -> NoReturn:
        self._in_step = False
        self._lost = str(error) or type(error).__name__
        if isinstance(error, GroundStationError):  # a replay, which has said it all
            raise error
        raise TransportLost(
            f"the link to {self.address} is gone ({error}); check cable and power, then connect again"
        ) from error

    def _record(self, direction: Direction, data: bytes) -> None:
        if self._log:
            self._log.record(direction, data)


def opened(address: str, opener: Callable[[], Port]) -> Port:
    """What `opener` opens, its failures as our two errors."""
    try:
        return opener()
    except TimeoutError as error:
        raise TransportTimeout(f"{address} does not answer; check that the instrument is on") from error
    except GroundStationError:
        raise
    except Exception as error:  # every library has its own; all mean the same here
        raise TransportLost(f"{address} cannot be opened ({error}); check address, cable and power") from error
