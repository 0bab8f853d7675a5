"""What the simulated world knows better: compares the analysis with the `truth` stream, for the report only."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from groundstation.pipeline.result import SimulationTruth
from groundstation.recording.reader import StreamReader
from groundstation.recording.segment import Segment

Ints = NDArray[np.int64]


class TruthJudge:
    """Fed with gated clicks in order of time; reads the truth about them as it becomes available."""

    def __init__(self, stream: StreamReader, window_start_utc_ns: int, window_stop_utc_ns: int) -> None:
        self._stream = stream
        self._window = (window_start_utc_ns, window_stop_utc_ns)
        self._zero_device_ps = 0
        self._claims: deque[tuple[Ints, Ints]] = deque()
        self._device_ps: Ints = np.empty(0, np.int64)
        self._slot: Ints = np.empty(0, np.int64)
        self._photons = self._wrong = self._sifted = self._errors = 0
        self._pointing: list[tuple[Ints, NDArray[np.float64]]] = []

    @property
    def ended(self) -> bool:
        """True when the whole truth has been read."""
        return self._stream.ended

    def stop_following(self) -> None:
        """The world has ended: what is there is all."""
        self._stream.stop_following()

    def claim(self, zero_device_ps: int, time_ps: Ints, slot: Ints) -> None:
        """The analysis assigned the clicks at these tag times (n,) to these slots (n,)."""
        self._claims.append((time_ps + zero_device_ps, slot))

    def poll(self) -> bool:
        """Read what is new and judge what can be judged; True if anything was read."""
        items = self._stream.poll()
        for item in items:
            if isinstance(item, Segment):
                self._take(item)
        while self._claims and (self._stream.ended or self._known_up_to(self._claims[0][0])):
            self._judge(*self._claims.popleft())
        return bool(items)

    def truth(self) -> SimulationTruth:
        """The verdict on everything claimed and read so far."""
        utc_ns = np.concatenate([np.empty(0, np.int64), *(t for t, _ in self._pointing)])
        error = np.concatenate([np.empty(0), *(e for _, e in self._pointing)])
        return SimulationTruth(self._photons, self._wrong, self._sifted, self._errors, utc_ns, error)

    def _take(self, segment: Segment) -> None:
        clicks, tallies, pointing = (segment.tables.get(n) for n in ("clicks", "tallies", "pointing"))
        if clicks is not None:
            self._device_ps = np.concatenate((self._device_ps, clicks["device_ps"]))
            self._slot = np.concatenate((self._slot, clicks["slot"]))
        if tallies is not None:
            inside = self._inside(tallies["utc_ns"])
            self._sifted += int(tallies["signal_sifted"][inside].sum())
            self._errors += int(tallies["signal_errors"][inside].sum())
        if pointing is not None:
            inside = self._inside(pointing["utc_ns"])
            self._pointing.append((pointing["utc_ns"][inside], pointing["error_arcsec"][inside]))

    def _known_up_to(self, device_ps: Ints) -> bool:
        """Whether the truth that has been read reaches beyond the last of these clicks."""
        return device_ps.size == 0 or (self._device_ps.size > 0 and bool(device_ps[-1] < self._device_ps[-1]))

    def _inside(self, utc_ns: Ints) -> NDArray[np.bool_]:
        return (utc_ns >= self._window[0]) & (utc_ns < self._window[1])

    def _judge(self, device_ps: Ints, slot: Ints) -> None:
        """Claims are ascending in time, so truth before them is not needed again."""
        if device_ps.size == 0 or self._device_ps.size == 0:
            return
        at = np.minimum(np.searchsorted(self._device_ps, device_ps), self._device_ps.size - 1)
        known = (self._device_ps[at] == device_ps) & (self._slot[at] >= 0)
        # Two detectors may have clicked in the same tick: the claim is right if it is right about either.
        after = np.minimum(at + 1, self._device_ps.size - 1)
        right = (self._slot[at] == slot) | ((self._device_ps[after] == device_ps) & (self._slot[after] == slot))
        self._photons += int(known.sum())
        self._wrong += int((known & ~right).sum())
        self._device_ps, self._slot = self._device_ps[at[0] :], self._slot[at[0] :]
