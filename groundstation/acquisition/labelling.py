"""Which UTC second the first 1PPS tag marks, from the host's clock and the least delayed words.

A word is read some time after its event: the delay is never negative but may be large while the machine is
busy. The least delay seen so far therefore tells best how device time and host time belong together, as in
NTP's clock filter. On a busy machine all words may be late for a while, so the least delay is believed only when it
has stopped shrinking. The host's clock only has to single out the second; the pulse itself carries the accuracy.
"""

from groundstation.core.timebase import PS_PER_NS, PS_PER_S, UtcLabel

_READS_NEEDED = 30
#: The host's clock is watched for so long at least, and the least delay must have been the least for so long.
_WATCHED_S, _SETTLED_S = 20.0, 10.0
#: A delay that is less by no more than this is the same one.
_SAME_DELAY_S = 0.02
#: The pulse must fall this close to a whole second of the host's clock.
_CLEAR_OF_AMBIGUITY_S = 0.35


class UtcLabeller:
    """Feed every read; `label` is there as soon as the second is singled out."""

    def __init__(self, uncertainty_s: float) -> None:
        """`uncertainty_s`: what remains once the second is known (receiver, cable, trigger)."""
        self._uncertainty_s = uncertainty_s
        self._reads = 0
        self._host_minus_device_ps: int | None = None
        self._began_utc_ns = 0
        self._settled_since_utc_ns = 0
        self._first_pps_ps: int | None = None
        self.label: UtcLabel | None = None

    def feed(self, latest_ps: int, first_pps_ps: int | None, host_utc_ns: int) -> None:
        """One read: the newest device time in it, its first 1PPS tag if any, and the host's UTC after it."""
        if self.label is not None:
            return
        difference = host_utc_ns * PS_PER_NS - latest_ps
        known = self._host_minus_device_ps
        if known is None:
            self._began_utc_ns = host_utc_ns
        if known is None or difference < known - _SAME_DELAY_S * PS_PER_S:
            self._settled_since_utc_ns = host_utc_ns
        self._host_minus_device_ps = difference if known is None else min(known, difference)
        self._reads += 1
        if self._first_pps_ps is None:
            self._first_pps_ps = first_pps_ps
        if self._reads < _READS_NEEDED or self._first_pps_ps is None or not self._is_settled(host_utc_ns):
            return
        pulse_ps = self._first_pps_ps + self._host_minus_device_ps
        second = round(pulse_ps / PS_PER_S)
        if abs(pulse_ps - second * PS_PER_S) < _CLEAR_OF_AMBIGUITY_S * PS_PER_S:
            self.label = UtcLabel(self._first_pps_ps, second * 1_000_000_000, self._uncertainty_s)

    def _is_settled(self, host_utc_ns: int) -> bool:
        watched_s = (host_utc_ns - self._began_utc_ns) * 1e-9
        return watched_s >= _WATCHED_S and (host_utc_ns - self._settled_since_utc_ns) * 1e-9 >= _SETTLED_S
