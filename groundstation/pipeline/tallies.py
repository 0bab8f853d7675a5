"""The integers that a pass adds up to. Sums only, so the order in which answers arrive cannot matter."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from groundstation.core.sifting import Sifted
from groundstation.pipeline.result import PHASE_BINS


class Tallies:
    """Counts over the counting window, in whole and per started second of it."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.detections = 0
        self.gated = 0
        self.double_clicks = 0
        self.asked = 0
        self.answered = np.zeros(3, np.int64)
        self.sifted = np.zeros((3, 2, 2), np.int64)
        self.errors = np.zeros((3, 2), np.int64)
        self.tags_per_second = np.zeros((seconds, 6), np.int64)
        self.gated_per_second = np.zeros(seconds, np.int64)
        self.signal_per_second = np.zeros(seconds, np.int64)
        self.disclosed_per_second = np.zeros(seconds, np.int64)
        self.errors_per_second = np.zeros(seconds, np.int64)
        self.phase_histogram = np.zeros((4, PHASE_BINS), np.int64)

    def add_tags(self, second: NDArray[np.int64], channel: NDArray[np.uint8]) -> None:
        """Tags inside the window: `second` (n,) since its start, `channel` (n,)."""
        joint = np.bincount(second * 6 + channel, minlength=self.seconds * 6)
        self.tags_per_second += joint.reshape(self.seconds, 6)
        self.detections += int(np.count_nonzero(channel < 4))

    def add_phases(self, phase_ps: NDArray[np.float64], detector: NDArray[np.uint8], slot_period_ps: int) -> None:
        """Arrival phases of clicks, -slot/2 to +slot/2."""
        bins = ((phase_ps / slot_period_ps + 0.5) * PHASE_BINS).astype(np.int64)
        bins = np.clip(bins, 0, PHASE_BINS - 1)
        joint = np.bincount(detector * np.int64(PHASE_BINS) + bins, minlength=4 * PHASE_BINS)
        self.phase_histogram += joint.reshape(4, PHASE_BINS)

    def add_gated(self, second: NDArray[np.int64]) -> None:
        """Clicks inside the gate and the window."""
        self.gated += int(second.size)
        self.gated_per_second += np.bincount(second, minlength=self.seconds)

    def add_sifted(self, sifted: Sifted, basis: NDArray[np.uint8], second: NDArray[np.int64]) -> None:
        """Answered clicks, one entry each; `second` of the click."""
        self.answered += np.bincount(sifted.intensity, minlength=3)
        match = np.flatnonzero(sifted.match)
        intensity, match_basis = sifted.intensity[match].astype(np.int64), basis[match].astype(np.int64)
        disclosed, error = sifted.disclosed[match], sifted.error[match]
        cell = (intensity * 2 + match_basis) * 2 + disclosed
        self.sifted += np.bincount(cell, minlength=12).reshape(3, 2, 2)
        wrong = np.flatnonzero(error)
        self.errors += np.bincount(intensity[wrong] * 2 + match_basis[wrong], minlength=6).reshape(3, 2)
        signal = intensity == 0
        when = second[match]
        self.signal_per_second += np.bincount(when[signal], minlength=self.seconds)
        self.disclosed_per_second += np.bincount(when[signal & disclosed], minlength=self.seconds)
        self.errors_per_second += np.bincount(when[signal & error], minlength=self.seconds)

    def signal_qber(self) -> tuple[int, int]:
        """Errors and bits over the disclosed sifted signal slots."""
        return int(self.errors[0].sum()), int(self.sifted[0, :, 1].sum())


@dataclass
class SyncBook:
    """How synchronisation went, summed over the fitted windows."""

    used: int = 0
    rejected: int = 0
    square_sum_ps2: float = 0.0
    #: Intervals (ps since the window's start) of which no click may count: tags are missing, or there is no clock.
    excluded_ps: list[tuple[int, int]] = field(default_factory=list)
    without_clock_ps: list[tuple[int, int]] = field(default_factory=list)
