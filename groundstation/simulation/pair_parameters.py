"""Every number of the simulated distribution of entangled pairs, with its source; "free" where no paper prints one.

Yin 2017 is J. Yin et al., "Satellite-based entanglement distribution over 1200 kilometers", Science 356, 1140 (2017):
Micius over Delingha and Lijiang. Printed there and met here: 1203 km between the stations, 1600 to 2400 km of summed
links, S = 2.37 +- 0.09. Yin 2020 is J. Yin et al., Nature 582, 501 (2020), which prints Delingha's coordinates.
"""

from dataclasses import dataclass, field

from groundstation.core.entanglement import BELL_STATES
from groundstation.errors import BadInput
from groundstation.passes.orbit import EarthOrientation, Site

SCENES = ("satellite", "laboratory")
#: Measurement settings -> how far station B's analyser is turned. CHSH: 0 and 45 deg against 22.5 and 67.5 deg.
ANALYSER_B_DEG = {"chsh": 22.5, "bbm92": 0.0}


@dataclass(frozen=True)
class PairSourceParameters:
    """The source of polarisation-entangled pairs."""

    state: str = "psi+"  # Yin 2020: (HV + VH) / sqrt2
    pair_rate_hz: float = 6e6  # free
    #: Free: with the accidentals of both stations it leaves the 0.838 that S = 2.37 stands for (Yin 2017).
    visibility: float = 0.878


@dataclass(frozen=True)
class LaboratoryParameters:
    """Instead of the satellite: the source between two rooms, stations without GPS. All free."""

    pair_rate_hz: float = 200_000.0
    visibility: float = 0.97
    loss_db: float = 10.0  # of each arm, detector included
    duration_s: float = 20.0
    start_utc: str = "2017-06-16T12:00:00Z"
    #: Tagger against tagger: two quartz oscillators, which nobody disciplines.
    frequency_offset: tuple[float, float] = (2.1e-6, -1.3e-6)
    frequency_drift_per_s: tuple[float, float] = (1e-10, -2e-10)


@dataclass(frozen=True)
class PassSearch:
    """Which pass: the first one after `search_from` that both stations see well enough."""

    search_from: str = "2016-12-21T12:00:00Z"
    search_hours: float = 24.0
    min_elevation_deg: float = 10.0  # at both stations at once
    #: Yin 2017: the summed links were 1600 to 2400 km long.
    max_summed_range_km: float = 2400.0
    #: A shorter common pass is not worth flying.
    min_duration_s: float = 200.0
    #: Count only so much of it (s), for short demonstrations; 0: all.
    limit_s: float = 0.0


@dataclass(frozen=True)
class PairStationParameters:
    """One receiving station."""

    site: Site
    #: Loss of this downlink at a range of 1000 km from the source to the clicks, detectors included; it grows with
    #: the square of the range. Free: chosen so that 1 to 2 coincidences a second are left (Yin 2017: about one).
    loss_db_at_1000_km: float = 34.6
    dark_hz: float = 25.0  # free, per detector; Liao 2017 prints below 25 Hz for Micius's BB84 receivers
    background_hz: float = 500.0  # free, per detector: moonlight is said to give 500 to 2000 Hz
    jitter_fwhm_ps: float = 700.0  # free: detector and electronics together
    dead_time_ns: float = 50.0  # free
    #: The recording's time zero is this much after the UTC at which the world begins.
    start_s: float = 0.0  # free
    tagger_frequency_offset: float = 2e-10  # free: a GPS-disciplined oscillator
    tagger_frequency_drift_per_s: float = 0.0  # free
    pps_error_ns: float = 0.0  # free: receiver and cables
    pps_jitter_rms_ns: float = 15.0  # free


@dataclass(frozen=True)
class PairSatelliteParameters:
    """The satellite that carries the source."""

    name: str
    tle: tuple[str, ...]
    #: It is early on its orbit by this much, the prediction does not know. Free: 15 m, a GPS receiver on board.
    orbit_time_error_s: float = 0.002


@dataclass(frozen=True)
class PairWorldParameters:
    """The whole world; everything random in it derives from `seed`. The first station is A, the second is B."""

    satellite: PairSatelliteParameters
    earth_orientation: EarthOrientation
    stations: dict[str, PairStationParameters]
    scene: str = "satellite"
    settings: str = "chsh"
    seed: int = 20170616
    window: PassSearch = field(default_factory=PassSearch)
    source: PairSourceParameters = field(default_factory=PairSourceParameters)
    laboratory: LaboratoryParameters = field(default_factory=LaboratoryParameters)

    @property
    def analyser_deg(self) -> tuple[float, float]:
        """By how much each station's polarisation analysis is turned."""
        return 0.0, ANALYSER_B_DEG[self.settings]

    def check(self) -> None:
        """Raise BadInput naming the first value that makes no world."""
        for name, value, known in (
            ("scene", self.scene, SCENES),
            ("settings", self.settings, tuple(ANALYSER_B_DEG)),
            ("source.state", self.source.state, tuple(BELL_STATES)),
        ):
            if value not in known:
                raise BadInput(f'{name} is "{value}"; choose one of {", ".join(known)}')
        if len(self.stations) != 2:
            raise BadInput(f"[stations] has {len(self.stations)} tables; entangled pairs need exactly two stations")
        for name, visibility in (
            ("source", self.source.visibility),
            ("laboratory", self.laboratory.visibility),
        ):
            if not 0.0 <= visibility <= 1.0:
                raise BadInput(f"[{name}] visibility is {visibility}; it must be from 0 to 1")
        if not 0 <= self.seed < 1 << 63:
            raise BadInput(f"seed is {self.seed}; give a whole number from 0 to 2^63 - 1")
