"""What the pairs of two recordings amount to: integers and the clock between them, nothing derived."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairSettings:
    """How two recordings are searched for pairs."""

    #: A coincidence is |t_B - t_A| <= this, after the clocks were brought together.
    half_window_ps: int = 1_250
    #: Accidentals are counted with B shifted by +-1 to +-`shifts_each_way` times this.
    shift_ps: int = 500_000
    shifts_each_way: int = 10
    #: The delay histogram reaches this many half windows to both sides, in bins of a tenth of one.
    histogram_half_windows: int = 8
    #: Without prediction: how far the recordings' zeros and frequencies may be apart.
    blind_offset_s: float = 1.0
    blind_frequency_offset: float = 1e-5
    #: With GPS time and predicted path on both sides: what receivers and prediction may leave.
    predicted_offset_s: float = 1e-6
    predicted_frequency_offset: float = 5e-9


@dataclass(frozen=True)
class SiftedSide:
    """One station's sifted key, (n,) each: `time_ps` of its own recording, `basis`, `bit`. Secret."""

    time_ps: NDArray[np.int64]
    basis: NDArray[np.uint8]
    bit: NDArray[np.uint8]


@dataclass(frozen=True)
class FollowedClock:
    """The clock of B against A: as found (on the common time), and how it was followed."""

    predicted: bool
    searched_s: int
    offset_ps: int
    frequency_offset: float
    drift_per_s: float
    reference_ps: int
    significance: float
    jitter_ps: float
    window_s: int
    windows_followed: int = 0
    windows_without_clock: int = 0


@dataclass(frozen=True)
class PairResult:
    """Two recordings, analysed."""

    stations: tuple[str, str]
    modes: tuple[str, str]
    complete: bool
    remarks: tuple[str, ...]
    state: str
    analyser_deg: tuple[float, float]
    settings: PairSettings
    clock: FollowedClock
    #: Coincidences by channel of A (row) and B (column), H V D A; accidentals summed over all shifts; single clicks.
    counts: NDArray[np.int64]
    accidental_counts: NDArray[np.int64]
    shifts: int
    singles: NDArray[np.int64]  # (2, 4)
    double_clicks: tuple[int, int]  # clicks with another detector's beside them: their outcome was drawn
    dark_hz: tuple[float, float]
    #: Time that was searched for coincidences; time without a sure clock; time beside gaps, all of A's clock.
    analysed_ps: int
    unsynchronised_ps: int
    excluded_ps: int
    #: All pairs of tags by delay B - A: counts of bins of `histogram_bin_ps`, centred on delay 0.
    histogram: NDArray[np.int64]
    histogram_bin_ps: int
    #: Coincidences in each started second of the common time, from `first_second` on.
    first_second: int
    per_second: NDArray[np.int64]
    sifted: tuple[SiftedSide, SiftedSide]
    provenance: dict[str, object] = field(default_factory=dict)
