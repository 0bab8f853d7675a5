"""One station of two that share entangled pairs: its recorded clicks on a time that both have in common.

With GPS time and a predicted path the common time is that of emission at the satellite, so that range, Doppler and
clocks are gone to within a microsecond; otherwise it is the recording's own time, and the clocks are compared blindly.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.filters import DelayCompensation
from groundstation.core.tags import CHANNEL_NUMBER, DETECTORS, TagBlock
from groundstation.core.timebase import PS_PER_NS, PS_PER_S, EmissionTime, UtcLabel
from groundstation.errors import BadInput
from groundstation.pipeline.intake import TagIntake
from groundstation.pipeline.telemetry import Telemetry
from groundstation.recording.channels import channel_names
from groundstation.recording.reader import Recording

_FOREVER_PS = 1 << 62
_MOST_PULSES = 600
_EMPTY = np.empty(0, np.int64)


class Clicks(NamedTuple):
    """Clicks of the four detectors in order: `time_ps` (n,) of the recording, `detector` (n,) 0 to 3 for H V D A."""

    time_ps: NDArray[np.int64]
    detector: NDArray[np.uint8]


class StationAbout(NamedTuple):
    """What a recording says of its station; an imported one says little."""

    name: str
    mode: str
    state: str | None
    analyser_deg: float | None
    dark_hz: float
    has_prediction: bool


class CommonTime(NamedTuple):
    """From the recording's time to the common one: through UTC and the predicted path, or as it is."""

    emission: EmissionTime | None = None
    label_ps: int = 0
    tagger_rate: float = 0.0

    def of(self, time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Common time of recorded times (n,)."""
        if self.emission is None:
            return time_ps
        since = time_ps - self.label_ps
        slow = np.rint(since * (self.tagger_rate / (1 + self.tagger_rate))).astype(np.int64)
        return self.emission.emitted_ps(time_ps - slow)

    def covered(self, time_ps: NDArray[np.int64]) -> slice:
        """Which of some sorted times (n,) the prediction covers."""
        if self.emission is None:
            return slice(None)
        received = self.emission.received_ps(time_ps)
        first_s, last_s = self.emission.predicted_s
        low, high = np.searchsorted(received, [first_s * PS_PER_S, last_s * PS_PER_S])
        return slice(int(low), int(high))


class PairStation:
    """Follows one recording: call `poll`, look at `known_until_ps`, take `clicks`."""

    def __init__(self, recording: Recording) -> None:
        manifest = recording.manifest
        self.about = _about(manifest)
        self._detector = _detector_of(manifest)
        self._delays = DelayCompensation(_delays_ps(manifest))
        self._pps = CHANNEL_NUMBER["pps"] if self.about.has_prediction else -1
        self.intake = TagIntake(recording.stream("tags"))
        self.telemetry = Telemetry(recording.stream("telemetry"))
        self._pulses: list[NDArray[np.int64]] = []
        self.clicks: list[Clicks] = []
        self.clicks_read = 0

    @property
    def ended(self) -> bool:
        """Whether everything that will ever be recorded has been read."""
        return self.intake.ended and (self.telemetry.ended or not self.about.has_prediction)

    @property
    def known_until_ps(self) -> int:
        """No click before this time of the recording is still to come."""
        known = self._delays.watermark_ps
        return _FOREVER_PS if self.intake.ended else -_FOREVER_PS if known is None else known

    @property
    def read_ps(self) -> int:
        """How far the recording has been read, from its first tag on."""
        return self.intake.last_ps - (self.intake.first_ps or 0) if self.intake.tags_read else -1

    @property
    def ready(self) -> bool:
        """Whether everything is there that the common time is made of."""
        has_both = self.intake.label is not None and bool(self.telemetry.path)
        return has_both or not self.about.has_prediction or self.ended

    def stop_following(self) -> None:
        """Nobody records any more: what is there is all."""
        self.intake.stop_following()
        self.telemetry.stop_following()

    def poll(self) -> bool:
        """Read what is new; True if anything was."""
        busy = self.intake.poll()
        if self.about.has_prediction:
            busy |= self.telemetry.poll()
        block = self.intake.take_until(self.intake.last_ps + 1)
        pulses = block.time_ps[block.channel == self._pps]
        if pulses.size and sum(p.size for p in self._pulses) < _MOST_PULSES:
            self._pulses.append(pulses)
        clicks = np.flatnonzero(self._detector[block.channel] < len(DETECTORS))
        clicked = TagBlock(block.time_ps[clicks], block.channel[clicks])
        self._keep(self._delays.feed(clicked, self.intake.last_ps if self.intake.tags_read else None))
        if self.intake.ended:
            self._keep(self._delays.finish())
        return busy

    def _keep(self, block: TagBlock) -> None:
        if block.time_ps.size:
            self.clicks.append(Clicks(block.time_ps, self._detector[block.channel]))
            self.clicks_read += block.time_ps.size

    def first_predicted_utc_ns(self) -> int | None:
        """UTC from which the path is predicted; None when this recording cannot be put on UTC."""
        if self.intake.label is None or not self.telemetry.path:
            return None
        return int(self.telemetry.path["utc_ns"][0])

    def common_time(self, epoch_utc_ns: int | None, pulses_until_utc_ns: int) -> CommonTime:
        """The common time since an epoch, by the 1PPS pulses until some UTC; without an epoch the recording's own."""
        label, path = self.intake.label, self.telemetry.path
        if epoch_utc_ns is None or label is None:
            return CommonTime()
        pulses = np.concatenate(self._pulses or [_EMPTY])
        last_ps = label.time_ps + (pulses_until_utc_ns - label.utc_ns) * PS_PER_NS
        moved_ps, rate = _disciplined(pulses[pulses < last_ps], label)
        fitted = UtcLabel(label.time_ps + moved_ps, label.utc_ns, label.uncertainty_s)
        emission = EmissionTime(
            fitted, epoch_utc_ns, path["utc_ns"].astype(np.int64), path["time_of_flight_s"].astype(np.float64)
        )
        return CommonTime(emission, fitted.time_ps, rate)


def _disciplined(pulses_ps: NDArray[np.int64], label: UtcLabel) -> tuple[int, float]:
    """How late the labelled pulse was (ps), and the tagger's frequency offset: robust line through 1PPS pulses (n,).

    Theil's median of all slopes: single pulses that are wrong change nothing.
    """
    since = pulses_ps - label.time_ps
    second = np.rint(since * 1e-12)
    late_ps = (since - second.astype(np.int64) * PS_PER_S).astype(np.float64)
    i, j = np.triu_indices(second.size, 1)
    apart = second[j] - second[i]
    i, j, apart = i[apart > 0], j[apart > 0], apart[apart > 0]
    if apart.size < 3:
        return 0, 0.0
    slope = float(np.median((late_ps[j] - late_ps[i]) / apart))
    return round(float(np.median(late_ps - slope * second))), slope * 1e-12


def _about(manifest: Mapping[str, object]) -> StationAbout:
    station, satellite, mode = manifest.get("station"), manifest.get("satellite"), str(manifest.get("mode"))
    imported, pairs = manifest.get("imported"), manifest.get("entanglement")
    name = station.get("name") if isinstance(station, dict) else None
    if name is None:
        name = imported.get("file") if isinstance(imported, dict) else "unnamed station"
    patterns = manifest.get("patterns")
    has_pps = isinstance(patterns, dict) and "pps" in patterns
    flown = isinstance(satellite, dict) and "tle" in satellite
    given = pairs if isinstance(pairs, dict) else {}
    analyser = given.get("analyser_deg")
    return StationAbout(
        str(name),
        mode,
        str(given["state"]) if "state" in given else None,
        None if analyser is None else float(analyser),
        float(given.get("dark_hz", 0.0)),
        flown and has_pps,
    )


def _detector_of(manifest: Mapping[str, object]) -> NDArray[np.uint8]:
    """Detector 0 to 3 of each channel number, 255 for the others. BadInput unless H, V, D and A are all there."""
    detector = np.full(256, 255, np.uint8)
    names = channel_names(manifest)
    for number, name in names.items():
        if name in DETECTORS:
            detector[number] = DETECTORS.index(name)
    missing = sorted(set(DETECTORS) - set(names.values()), key=DETECTORS.index)
    if missing:
        known = ", ".join(names.values()) or "none"
        raise BadInput(
            f"a recording has no channel {missing[0]} (its channels: {known}); both need H, V, D and A: import it with "
            "these names"
        )
    return detector


def _delays_ps(manifest: Mapping[str, object]) -> dict[int, int]:
    """Delay by channel number."""
    listed = manifest.get("delays_ps")
    if not isinstance(listed, dict):
        return {}
    return {number: int(listed.get(name, 0)) for number, name in channel_names(manifest).items()}
