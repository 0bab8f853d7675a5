"""What an analysed pass amounts to: integer tallies and the telemetry behind the figures, nothing derived."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

INTENSITIES = ("signal", "decoy", "vacuum")
BASES = ("rectilinear", "diagonal")
#: Bins of the arrival-phase histograms; they span one slot, centred on the expected arrival.
PHASE_BINS = 100


#: With a wrong numbering the transmitter's states are unrelated to ours and half of the bits differ.
_CONFIRM_BITS, _CONFIRM_QBER = 200, 0.25


def numbering_confirmed(errors: int, bits: int) -> bool | None:
    """Whether so many errors among disclosed signal bits agree with the slot numbers; None while too few are known."""
    return None if bits < _CONFIRM_BITS else errors <= _CONFIRM_QBER * bits


@dataclass(frozen=True)
class GapRecord:
    """An interval without (all of its) tags, in ps after the start of the window (after the recording's zero
    when its UTC is not known); `missed` None when nobody knows how many."""

    start_ps: int
    stop_ps: int
    missed: int | None
    cause: str


@dataclass(frozen=True)
class SimulationTruth:
    """What the simulated world says about the same pass (from the `truth` stream)."""

    photon_clicks_gated: int
    slots_assigned_wrongly: int
    signal_sifted: int
    signal_errors: int
    pointing_utc_ns: NDArray[np.int64]
    pointing_error_arcsec: NDArray[np.float64]


@dataclass(frozen=True)
class PassResult:
    """Everything the report is made of. Seconds are counted from `window_start_utc_ns`; arrays "per second"
    have one entry for each started second of the window."""

    mode: str  # "live" | "simulation" | "imported"
    complete: bool
    remarks: tuple[str, ...]  # why it is incomplete, what was excluded, in plain sentences
    station: str
    satellite: str
    window_start_utc_ns: int
    window_stop_utc_ns: int
    slot_period_ps: int
    gate_half_width_ps: int

    detections: int
    gated: int
    double_clicks: int
    unanswered: int
    #: (3, 2, 2) gated clicks of same basis by intensity, basis, and disclosed (0 no, 1 yes).
    sifted: NDArray[np.int64]
    #: (3, 2) errors among the disclosed sifted bits, by intensity and basis.
    errors: NDArray[np.int64]
    #: (3,) all answered gated slots by intensity, whatever the basis.
    answered: NDArray[np.int64]

    #: (seconds, 6) tags per channel H V D A sync pps.
    tags_per_second: NDArray[np.int64]
    gated_per_second: NDArray[np.int64]
    #: (seconds,) sifted signal bits, disclosed or not.
    signal_per_second: NDArray[np.int64]
    #: (seconds,) disclosed sifted signal bits, and the errors among them.
    disclosed_per_second: NDArray[np.int64]
    errors_per_second: NDArray[np.int64]
    #: (seconds,) how much of each second's part of the window could not be used: gaps, no clock, no recording.
    unused_s_per_second: NDArray[np.float64]
    #: (seconds,) range in the middle of each second.
    range_km_per_second: NDArray[np.float64]
    #: (4, PHASE_BINS) clicks of each detector by arrival phase, from -slot/2 to +slot/2.
    phase_histogram: NDArray[np.int64]

    #: Predicted path (the telemetry's own knots) and the mount's readings with their errors.
    path_utc_ns: NDArray[np.int64]
    path_azimuth_deg: NDArray[np.float64]
    path_elevation_deg: NDArray[np.float64]
    path_range_km: NDArray[np.float64]
    mount_utc_ns: NDArray[np.int64]
    mount_azimuth_deg: NDArray[np.float64]
    mount_elevation_deg: NDArray[np.float64]
    pointing_error_arcsec: NDArray[np.float64]

    #: Residual of the beacon pulses against the fitted clock, root mean square in ps, and how it went.
    beacon_residual_rms_ps: float
    beacon_pulses_used: int
    beacon_pulses_rejected: int
    unsynchronised_s: float
    excluded_s: float

    ledger_seen: int
    ledger_recorded: int
    ledger_dropped: dict[str, int]
    ledger_missed: int | None
    gaps: tuple[GapRecord, ...]
    simulation: SimulationTruth | None = None
    provenance: dict[str, object] = field(default_factory=dict)

    @property
    def trustworthy(self) -> bool:
        """The whole window was recorded, and the disclosed states confirm the slot numbers."""
        confirmed = numbering_confirmed(int(self.errors[0].sum()), int(self.sifted[0, :, 1].sum()))
        return self.complete and confirmed is True
