"""What the analysis needs to know beforehand, all of it from the recording's manifest, nothing from outside."""

from collections.abc import Mapping
from dataclasses import dataclass

from groundstation.core.tags import CHANNELS
from groundstation.errors import BadInput
from groundstation.recording.channels import is_imported
from groundstation.tables import record


@dataclass(frozen=True)
class AnalysisSettings:
    """How a pass is analysed; part of the station file (`[analysis]`) and of every recording."""

    #: Half the coincidence window; Liao 2017 uses a window of 2 ns.
    gate_half_width_ps: int = 1_000
    #: Beacon pulses in one fit of the transmitter's clock: 0.1 s at 10 kHz.
    beacon_pulses_per_fit: int = 1_000
    #: How far the predicted time of flight may be off: 1e-5 s is 3 km of range.
    time_of_flight_uncertainty_s: float = 1e-5
    #: How far the transmitter's clock may be off UTC.
    transmitter_clock_uncertainty_s: float = 1e-5
    #: Seed of the keyed choice of bits for double clicks.
    double_click_seed: int = 1


@dataclass(frozen=True)
class PassPlan:
    """What was planned: where, what, and when the counting window is."""

    mode: str
    station: str
    satellite: str
    window_start_utc_ns: int
    window_stop_utc_ns: int
    delays_ps: tuple[int, ...]
    analysis: AnalysisSettings

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, object]) -> "PassPlan":
        """Read the plan that was recorded; BadInput names what is missing."""
        if is_imported(manifest):
            raise BadInput(
                "the recording was imported: it has no pass plan and nothing of a transmitter, so there is no pass to "
                "analyse; look at its tags with histogram, correlate, rates or coincide"
            )
        try:
            window = _table(manifest, "window")
            delays = _table(manifest, "delays_ps")
            plan = cls(
                str(manifest["mode"]),
                str(_table(manifest, "station")["name"]),
                str(_table(manifest, "satellite")["name"]),
                int(str(window["start_utc_ns"])),
                int(str(window["stop_utc_ns"])),
                tuple(int(str(delays.get(name, 0))) for name in CHANNELS),
                record(AnalysisSettings, manifest["analysis"], "analysis"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"the recording's manifest cannot be used: {error} is missing or wrong") from error
        if plan.window_stop_utc_ns <= plan.window_start_utc_ns:
            raise BadInput("the recording's manifest cannot be used: its window does not end after its start")
        return plan


def _table(manifest: Mapping[str, object], name: str) -> dict[str, object]:
    table = manifest[name]
    if not isinstance(table, dict):
        raise TypeError(name)
    return table
