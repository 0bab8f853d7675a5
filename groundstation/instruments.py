"""The capabilities that a driver may offer to the station. Nothing here knows a wire or a model.

A driver module offers `connect(address, clock, settings)`, which returns an object with one of these capabilities,
and a constant `DRIVER` that describes it. `settings` is the entry's own table of the station file. One whose
`connect` sets something at the instrument offers `probe(address, clock, settings)` too, which only asks who it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Capability = Literal[
    "tagger", "detector", "nanowires", "supply", "mount", "transmitter", "time_base", "weather", "rotator", "dome"
]


@dataclass(frozen=True)
class DriverDescription:
    """What a driver module says of itself, for whoever chooses one.

    `schemes`: the kinds of address that it can be given. `documentation`: what the protocol was taken from, and
    how complete that is. `tested_with`: everything but our own simulator that has spoken with either end of it.
    `inputs`: of a tagger, how many it has at most for the patterns, which have room for 8. `follows`: of a mount,
    False when it can only point.
    """

    instrument: str
    capability: Capability
    schemes: tuple[str, ...]
    documentation: str
    tested_with: str = "our simulator only"
    inputs: int = 8
    follows: bool = True


@dataclass(frozen=True)
class Identity:
    """What an instrument says it is."""

    model: str
    firmware: str = ""
    serial: str = ""


class PatternBlock(NamedTuple):
    """A run of tagger events in time order.

    `time_ps` int64, picoseconds on the device's own unwrapped time scale; `pattern` uint8, the set of inputs
    (bit 0 = input 1) that fired together. `latest_ps`: no later event is older than this (also known from
    words without an event), -1 while nothing was received. `missed`: events that the hardware says it lost
    since the last block; None when it cannot tell. `notes`: what the decoder had to skip or repair.
    """

    time_ps: NDArray[np.int64]
    pattern: NDArray[np.uint8]
    latest_ps: int
    missed: int | None
    notes: tuple[str, ...] = ()


class TimeTagger(Protocol):
    """A device that gives each electrical event a time."""

    @property
    def resolution_ps(self) -> float:
        """The device's tick."""

    def identify(self) -> Identity:
        """Ask or, where a stream is all there is, watch until the stream proves what it is."""

    def read(self, timeout_s: float) -> PatternBlock:
        """What has arrived, at once if anything has, else after at most `timeout_s` (then possibly empty)."""

    def close(self) -> None:
        """Stop the stream and give the link back. Idempotent."""


@dataclass(frozen=True)
class MountReading:
    """Encoder angles and the moment at which the mount read them, known to `uncertainty_s` (world time)."""

    azimuth_deg: float
    elevation_deg: float
    utc_ns: int
    uncertainty_s: float


@dataclass(frozen=True)
class MountCapabilities:
    """What a mount can do, for planning and for the tracking loop."""

    max_rate_deg_s: float
    max_acceleration_deg_s2: float
    rate_quantum_arcsec_s: float
    command_latency_s: float
    #: How it can be made to follow a satellite: by rates from the station's loop, by a `Trajectory` of its own, by
    #: positions sent again and again, or not at all.
    follows: Literal["rates", "trajectory", "positions", "nothing"] = "rates"
    #: So close to where it was sent it has arrived.
    tolerance_deg: float = 0.05


class Mount(Protocol):
    """An altitude-azimuth mount. One that does not follow by rates raises InstrumentFault from `set_rates`."""

    @property
    def capabilities(self) -> MountCapabilities: ...

    def identify(self) -> Identity: ...

    def read_position(self) -> MountReading: ...

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Turn at these rates from now on; many mounts keep them for ever."""

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None: ...

    def is_slewing(self) -> bool: ...

    def stop(self) -> None:
        """Cancel every motion and command rate zero on both axes."""

    def close(self) -> None: ...


class TrajectoryMount(Mount, Protocol):
    """A mount that follows a path which it was given beforehand, by its own clock."""

    def load_trajectory(
        self, utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]
    ) -> None:
        """Give it the path: (n,) each, times ascending, azimuth continuous (it may leave 0 to 360)."""

    def load_elements(self, name: str, line1: str, line2: str) -> None:
        """Give it a two-line element set instead, from which it computes the path itself."""

    def start_trajectory(self) -> None:
        """Go to the beginning of what was loaded and follow it from its first moment on."""

    def set_time_offset_s(self, offset_s: float) -> None:
        """From now on point to where the path is so much later: the live along-track correction."""

    def set_axis_offsets_arcsec(self, azimuth_arcsec: float, elevation_arcsec: float) -> None:
        """Add to both axes' angles: the live correction across the track."""


class Detector(Protocol):
    """A single-photon detector with its bias, threshold and cooler."""

    def identify(self) -> Identity: ...

    def bias_v(self) -> float: ...

    def set_bias_v(self, bias_v: float) -> None: ...

    def threshold_v(self) -> float: ...

    def set_threshold_v(self, threshold_v: float) -> None: ...

    def temperature_c(self) -> float: ...

    def temperature_setpoint_c(self) -> float: ...

    def set_temperature_setpoint_c(self, temperature_c: float) -> None: ...

    def is_cooling(self) -> bool:
        """Whether the temperature is held at the setpoint."""

    def switch_cooling(self, on: bool) -> None: ...

    def counts(self, integration_s: float) -> int:
        """Counts over a fresh integration; blocks until it is over."""

    def close(self) -> None: ...


class NanowireDetector(Protocol):
    """Superconducting nanowire detectors behind one controller; `channel` counts from 1."""

    @property
    def channels(self) -> int: ...

    def identify(self) -> Identity: ...

    def bias_ua(self, channel: int) -> float: ...

    def set_bias_ua(self, channel: int, bias_ua: float) -> None: ...

    def trigger_mv(self, channel: int) -> float: ...

    def set_trigger_mv(self, channel: int, trigger_mv: float) -> None: ...

    def counts(self, integration_s: float) -> tuple[int, ...]:
        """Counts of every channel over a fresh integration; blocks until it is over."""

    def latched(self, channel: int) -> bool:
        """Whether the wire stays resistive: bias is on, and not even dark counts come."""

    def reset(self, channel: int) -> None:
        """Take the bias away and give it back, which ends a latch. InstrumentFault if it does not."""

    def close(self) -> None: ...


class Supply(Protocol):
    """A bias or power supply with numbered outputs, from 1."""

    @property
    def outputs(self) -> tuple[int, ...]: ...

    def identify(self) -> Identity: ...

    def voltage_v(self, output: int) -> float: ...

    def set_voltage_v(self, output: int, voltage_v: float) -> None: ...

    def is_on(self, output: int) -> bool: ...

    def switch(self, output: int, on: bool) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TimeBaseStatus:
    """How well a time base keeps UTC. None: it did not say. `trouble` is empty when all is well."""

    locked: bool
    in_holdover: bool
    utc_ns: int | None = None
    offset_ns: float | None = None
    frequency_error: float | None = None
    leap_s: int | None = None
    holdover_s: float | None = None
    trouble: str = ""


class TimeBase(Protocol):
    """A source of UTC and of the 10 MHz and 1PPS that the taggers hang on."""

    def identify(self) -> Identity: ...

    def status(self) -> TimeBaseStatus: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class WeatherReading:
    """What the weather is. None: not measured, or the instrument calls its own value invalid."""

    temperature_c: float | None = None
    humidity_percent: float | None = None
    pressure_hpa: float | None = None
    wind_m_s: float | None = None
    wind_direction_deg: float | None = None
    rain_mm_h: float | None = None


class Weather(Protocol):
    """A weather station at the telescope."""

    def identify(self) -> Identity: ...

    def read(self) -> WeatherReading: ...

    def close(self) -> None: ...


class Rotator(Protocol):
    """A rotation stage, for instance with the half-wave plate of the polarisation frame."""

    def identify(self) -> Identity: ...

    def angle_deg(self) -> float: ...

    def go_to(self, angle_deg: float) -> None:
        """Begin to turn to an angle; returns at once."""

    def is_moving(self) -> bool: ...

    def home(self) -> None:
        """Begin to look for the reference mark; returns at once."""

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Dome(Protocol):
    """A dome with a shutter that turns with the telescope."""

    def identify(self) -> Identity: ...

    def azimuth_deg(self) -> float: ...

    def go_to(self, azimuth_deg: float) -> None:
        """Begin to turn; returns at once."""

    def is_moving(self) -> bool: ...

    def shutter(self) -> Literal["open", "opening", "closed", "closing", "error"]: ...

    def open_shutter(self) -> None: ...

    def close_shutter(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TransmitterTerms:
    """What the transmitter says of its signal before the first slot is asked for."""

    transmitter: str
    epoch_utc_ns: int
    slot_rate_hz: int
    beacon_rate_hz: int
    intensities: tuple[float, float, float]
    probabilities: tuple[float, float, float]
    disclosed_signal_fraction: float


class Answer(NamedTuple):
    """What the transmitter answered to one batch, in the order of the slots that were asked: uint8 each,
    in the form of `groundstation.core.sifting`."""

    batch: int
    answers: NDArray[np.uint8]


class Transmitter(Protocol):
    """The sending party's end of the classical channel (docs/classical-channel.md)."""

    def terms(self) -> TransmitterTerms: ...

    def ask(self, batch: int, slots: NDArray[np.int64], bases: NDArray[np.uint8]) -> None:
        """Send one batch of strictly ascending slots; returns without waiting for the answer. Safe to repeat."""

    def answers(self, timeout_s: float) -> Sequence[Answer]:
        """The batches answered since the last call; waits at most `timeout_s` (wall time) for the first."""

    def close(self) -> None: ...


Settings = Mapping[str, object]
