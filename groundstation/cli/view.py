"""Gathers what the live view shows from the flight, the recorder and the analysis."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from groundstation.cli.planning import PlannedPass
from groundstation.clock import Clock, monotonic_s
from groundstation.config import StationConfig
from groundstation.console.status import PassStatus
from groundstation.operation.children import Child
from groundstation.operation.detector_watch import DetectorWatch
from groundstation.operation.flight import Flight
from groundstation.operation.logbook import Logbook


class PassView:
    """Makes a `PassStatus` whenever asked."""

    def __init__(
        self,
        config: StationConfig,
        planned: PlannedPass,
        clock: Clock,
        directory: Path,
        flight: Flight,
        watch: DetectorWatch,
        logbook: Logbook,
        children: Mapping[str, Child],
    ) -> None:
        self._config, self._planned, self._clock = config, planned, clock
        self._directory, self._flight, self._watch = directory, flight, watch
        self._logbook, self._children = logbook, children

    def status(self) -> PassStatus:
        """The pass at this moment; what is unknown is None."""
        now = self._clock.utc_ns()
        flight, acquisition, analysis = (
            self._flight.status,
            self._children["acquisition"],
            self._children["analysis"],
        )
        recorder, result = acquisition.status, analysis.status
        counts = recorder.get("counts_hz")
        counts_hz = {str(k): float(v) for k, v in counts.items()} if isinstance(counts, dict) else {}
        free = shutil.disk_usage(self._directory).free
        errors, bits = _integer(result.get("errors")), _integer(result.get("bits"))
        qber = errors / bits if errors is not None and bits else None
        analysed = _integer(result.get("analysed_utc_ns"))
        behind_s = (now - analysed) * 1e-9 / self._clock.speed if analysed else None
        return PassStatus(
            mode="SIMULATION" if self._config.simulated else "LIVE",
            state=str(flight.state),
            station=self._config.station.name,
            satellite=self._config.satellite.name,
            speed=self._clock.speed,
            utc_ns=now,
            start_utc_ns=self._planned.window_start_utc_ns,
            stop_utc_ns=self._planned.window_stop_utc_ns,
            culmination_utc_ns=self._planned.prediction.culmination.utc_ns,
            azimuth_deg=flight.azimuth_deg,
            elevation_deg=flight.elevation_deg,
            range_km=self._range_km(now),
            pointing_error_arcsec=flight.pointing_error_arcsec,
            mount_age_s=monotonic_s() - flight.read_at_s if flight.read_at_s else None,
            counts_hz=counts_hz,
            detector_age_s=acquisition.status_age_s,
            gated_hz=_number(result.get("gated_hz")),
            sifted_hz=_number(result.get("sifted_hz")),
            sifted_bits=_integer(result.get("sifted_bits")),
            qber=qber,
            qber_standard_error=math.sqrt(qber * (1 - qber) / bits) if qber is not None and bits else None,
            analysis_lag_s=behind_s,
            analysis_age_s=analysis.status_age_s,
            recorded_tags=_integer(recorder.get("tags")),
            dropped=_integer(recorder.get("dropped")),
            disk_free_gb=free / 1e9,
            disk_minutes_left=_number(recorder.get("disk_minutes_left")),
            buffer_fill=_number(recorder.get("buffer_fill")),
            acknowledge_p50_s=_number(recorder.get("acknowledge_p50_s")),
            acknowledge_p99_s=_number(recorder.get("acknowledge_p99_s")),
            alarms=(*flight.alarms, *self._watch.alarms, *alarms_of(recorder).values()),
            last_event=self._logbook.last_event,
        )

    def _range_km(self, utc_ns: int) -> float | None:
        path = self._planned.path
        if not path.utc_ns[0] <= utc_ns <= path.utc_ns[-1]:
            return None
        nearest = min((utc_ns - int(path.utc_ns[0]) + 500_000_000) // 1_000_000_000, path.utc_ns.size - 1)
        return float(path.range_km[nearest])


def alarms_of(recorder: Mapping[str, object]) -> dict[str, str]:
    """What is wrong with the recorder, by what it is wrong with, as in its status line."""
    alarms = recorder.get("alarms")
    return {str(about): str(sentence) for about, sentence in alarms.items()} if isinstance(alarms, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None
