"""From the recording's time to UTC, and from UTC to the moment at which the light left the transmitter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PS_PER_S = 1_000_000_000_000
PS_PER_NS = 1_000


@dataclass(frozen=True)
class UtcLabel:
    """One 1PPS tag and the UTC second that it marks.

    `uncertainty_s` is what remains once the second is singled out: receiver, cable and trigger.
    """

    time_ps: int
    utc_ns: int
    uncertainty_s: float


class EmissionTime:
    """Maps tag times to emission times, both in picoseconds, emission counted from the transmitter's epoch.

    A click at UTC x left the transmitter at x - tof(x), with the time of flight predicted from the orbit. This
    takes out range and Doppler (slew 22 us/s, curvature 307 ns/s^2 over Xinglong); what is left, the clocks and
    the error of the prediction, is smooth and small and is found from the beacon (`synchronisation`).
    """

    def __init__(
        self,
        label: UtcLabel,
        epoch_utc_ns: int,
        path_utc_ns: NDArray[np.int64],
        time_of_flight_s: NDArray[np.float64],
    ) -> None:
        """`path_utc_ns` (n,) and `time_of_flight_s` (n,): the predicted path by time of reception."""
        self._shift_ps = (label.utc_ns - epoch_utc_ns) * PS_PER_NS - label.time_ps
        self._first_ps = int(path_utc_ns[0] - epoch_utc_ns) * PS_PER_NS
        self._last_ps = int(path_utc_ns[-1] - epoch_utc_ns) * PS_PER_NS
        from scipy.interpolate import CubicSpline  # here: a recorder that starts again must not wait for it

        seconds = (path_utc_ns - path_utc_ns[0]) * 1e-9
        self._time_of_flight_ps = CubicSpline(seconds, time_of_flight_s * PS_PER_S)

    @property
    def predicted_s(self) -> tuple[int, int]:
        """First and last whole second of reception (from the epoch) for which there is a prediction."""
        return -(-self._first_ps // PS_PER_S), self._last_ps // PS_PER_S

    def received_ps(self, time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """UTC of reception in ps since the epoch (n,)."""
        return time_ps + self._shift_ps

    def emitted_ps(self, time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """UTC of emission in ps since the epoch (n,), by the predicted time of flight."""
        received = self.received_ps(time_ps)
        flight = self._time_of_flight_ps((received - self._first_ps) * 1e-12)
        return received - np.rint(flight).astype(np.int64)

    def tag_time_of_emission(self, emitted_ps: int) -> int:
        """The first tag time (ps) whose emission time is not before `emitted_ps`."""
        time_ps = emitted_ps - self._shift_ps
        for _ in range(4):  # time of flight changes by 2e-5 per second: each round gains five digits
            behind = emitted_ps - int(self.emitted_ps(np.array([time_ps]))[0])
            time_ps += behind
        probe = np.arange(time_ps - 4, time_ps + 5)
        return int(probe[np.searchsorted(self.emitted_ps(probe), emitted_ps)])
