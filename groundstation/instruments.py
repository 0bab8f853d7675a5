"""The capabilities that a driver may offer to the station. Nothing here knows a wire or a model.

A driver module offers `connect(address, clock, settings)` and returns an object with one of these
capabilities. `settings` is the entry's own table of the station file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


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


class Mount(Protocol):
    """An altitude-azimuth mount driven by rates."""

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

    def counts(self, integration_s: float) -> int:
        """Counts over a fresh integration; blocks until it is over."""

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
