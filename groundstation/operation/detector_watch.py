"""Reads the detectors in turn, a little, all through the pass: bias, temperature and counts for the telemetry.

A detector whose link is lost is tried again with every visit; its driver makes the link anew.
"""

import threading

from groundstation.clock import Clock, utc_text
from groundstation.errors import GroundStationError
from groundstation.instruments import Detector
from groundstation.operation.logbook import Logbook

_INTERVAL_S = 1.0
_INTEGRATION_S = 0.5


class DetectorWatch:
    """A thread that visits one detector after the other; a silent one is an alarm, and one more when it is back."""

    def __init__(self, detectors: dict[str, Detector], logbook: Logbook, clock: Clock) -> None:
        self._detectors, self._logbook, self._clock = detectors, logbook, clock
        self._ending = threading.Event()
        self._silent: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, name="detector watch", daemon=True)

    @property
    def alarms(self) -> tuple[str, ...]:
        """The detectors that do not answer now, since when and why, a sentence each."""
        return tuple(self._silent.values())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last question has been answered."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ending.is_set():
            for number, (name, detector) in enumerate(self._detectors.items()):
                if self._ending.is_set():
                    return
                self._visit(number, name, detector)
            self._ending.wait(_INTERVAL_S)

    def _visit(self, number: int, name: str, detector: Detector) -> None:
        try:
            bias_v, temperature_c = detector.bias_v(), detector.temperature_c()
            counts_hz = detector.counts(_INTEGRATION_S) / _INTEGRATION_S
        except GroundStationError as error:
            if name not in self._silent:
                self._logbook.event("alarm", f"detector {name}: {error}")
                since = utc_text(self._clock.utc_ns(), 0)
                self._silent = self._silent | {name: f"detector {name} does not answer since {since}: {error}"}
            return
        if name in self._silent:
            self._silent = {other: sentence for other, sentence in self._silent.items() if other != name}
            self._logbook.event("alarm", f"detector {name} answers again; its bias is {bias_v:g} V")
        self._logbook.detector(self._clock.utc_ns(), number, bias_v, temperature_c, counts_hz)
