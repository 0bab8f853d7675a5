"""The station file: what the station is, which instruments stand where, and how a pass is flown.

`config/simulated.toml` is the commented example; a real station differs in addresses only.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from groundstation.core.tags import CHANNELS
from groundstation.errors import BadInput
from groundstation.instruments import Capability
from groundstation.passes.elements import ElementSet, read_element_file
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.pipeline.settings import AnalysisSettings
from groundstation.simulation.parameters import WorldParameters
from groundstation.tables import BadKey, record

#: The simulated station: beside the installed package, or in the source tree.
DEFAULT_CONFIG = next(
    (path for path in (Path(__file__).parent / "simulated.toml",) if path.exists()),
    Path(__file__).parents[1] / "config" / "simulated.toml",
)
#: Numbers outside of which the program could not work or would wait for ever.
_LIMITS = {
    ("station", "latitude_deg"): (-90.0, 90.0),
    ("station", "longitude_deg"): (-180.0, 360.0),
    ("station", "altitude_m"): (-500.0, 9_000.0),
    ("window", "search_hours"): (0.01, 10_000.0),
    ("window", "min_elevation_deg"): (-1.0, 89.0),
    ("window", "max_range_km"): (1.0, 1e6),
    ("window", "max_sun_elevation_deg"): (-90.0, 90.0),
    ("window", "margin_s"): (0.0, 600.0),
    ("recording", "commit_interval_s"): (0.001, 60.0),
    ("recording", "pps_uncertainty_s"): (0.0, 1.0),
    ("recording", "space_factor"): (0.0, 1e3),
    ("recording", "max_rate_hz"): (1.0, 1e9),
    ("recording", "buffer_mb"): (1, 100_000),
    ("recording", "reserve_mb"): (0, 10_000),
    ("recording", "low_space_minutes"): (0.0, 1e6),
    ("operation", "tracking_period_s"): (0.01, 10.0),
    ("operation", "park_azimuth_deg"): (-360.0, 360.0),
    ("operation", "park_elevation_deg"): (-90.0, 90.0),
    ("operation", "guard_timeout_s"): (0.1, 5.0),
    ("analysis", "gate_half_width_ps"): (1, 10**6),
    ("analysis", "beacon_pulses_per_fit"): (30, 10**6),
    ("analysis", "time_of_flight_uncertainty_s"): (0.0, 1.0),
    ("analysis", "transmitter_clock_uncertainty_s"): (0.0, 1.0),
    ("simulation", "seed"): (0, (1 << 64) - 1),
}
#: Entries of [instruments] without which no pass is flown.
INSTRUMENTS = ("tagger", "mount", "detector_h", "detector_v", "detector_d", "detector_a", "transmitter")
#: Further ones, by their capability; any of them may come more than once, as `weather_roof`.
_MORE_INSTRUMENTS: dict[str, Capability] = {
    "tagger_2": "tagger",
    "time_base": "time_base",
    "weather": "weather",
    "rotator": "rotator",
    "dome": "dome",
    "supply": "supply",
    "nanowires": "nanowires",
}


@dataclass(frozen=True)
class SatelliteConfig:
    """Which satellite: an element set in the file itself (`tle`, two lines) or in another one."""

    name: str
    tle: tuple[str, ...] = ()
    tle_file: str = ""


@dataclass(frozen=True)
class PassConfig:
    """Which pass, and how much of it."""

    #: The first pass after this moment; "now" for a real station.
    search_from: str = "now"
    search_hours: float = 24.0
    min_elevation_deg: float = 10.0
    #: The counting window: as long as the satellite is closer than this.
    max_range_km: float = 1200.0
    #: Daylight would blind the detectors: passes with the Sun higher than this at culmination are left out.
    max_sun_elevation_deg: float = -6.0
    #: Tracking and recording begin this long before the window and end this long after it.
    margin_s: float = 10.0


@dataclass(frozen=True)
class InstrumentConfig:
    """One instrument: its driver (a module of `drivers`), where it is, and the driver's own settings."""

    driver: str
    address: str
    #: Start the driver's simulator at that address instead of expecting hardware there.
    simulate: bool = False
    #: A second link to a mount for the process that stops it in an emergency.
    guard_address: str = ""
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelConfig:
    """Where a logical channel is plugged in: one input of the tagger or several at once, and its delay."""

    inputs: tuple[int, ...]
    #: Subtracted from the tag's time by the analysis: cables, detector, electronics.
    delay_ps: int = 0


@dataclass(frozen=True)
class RecordingConfig:
    """How tags become durable."""

    #: Acknowledge tags at least this often (wall time).
    commit_interval_s: float = 0.1
    #: What is left of UTC's uncertainty once the second of a 1PPS is known: GPS receiver, cable, trigger.
    pps_uncertainty_s: float = 1e-6
    #: Bytes per tag times this is demanded as free space before a pass.
    space_factor: float = 1.5
    #: For that demand: tags per second at most.
    max_rate_hz: float = 200_000.0
    #: Tags that wait for the disk take no more memory than this; then they are dropped and counted.
    buffer_mb: int = 256
    #: Kept free in the recording's directory for what must be said when the disk is full.
    reserve_mb: int = 16
    #: An alarm when the disk will be full in less time, at the present rate.
    low_space_minutes: float = 10.0


@dataclass(frozen=True)
class OperationConfig:
    """How the pass is flown."""

    tracking_period_s: float = 0.1
    park_azimuth_deg: float = 0.0
    park_elevation_deg: float = 0.0
    detector_bias_v: float = 190.0
    detector_temperature_c: float = -20.0
    #: The guard stops the mount when the main process is silent for so long (wall time).
    guard_timeout_s: float = 2.0


@dataclass(frozen=True)
class StationConfig:
    """The whole station file."""

    station: Site
    satellite: SatelliteConfig
    earth_orientation: EarthOrientation
    instruments: dict[str, InstrumentConfig]
    channels: dict[str, ChannelConfig]
    window: PassConfig = field(default_factory=PassConfig)
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    operation: OperationConfig = field(default_factory=OperationConfig)
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    simulation: WorldParameters | None = None

    @property
    def simulated(self) -> bool:
        """True when any instrument is simulated: such a pass is marked SIMULATION everywhere."""
        return any(entry.simulate for entry in self.instruments.values())

    def elements(self) -> ElementSet:
        """The satellite's element set, checked."""
        if self.satellite.tle_file:
            return read_element_file(Path(self.satellite.tle_file))
        if len(self.satellite.tle) != 2:
            raise BadInput('[satellite] needs either "tle" with the two lines or "tle_file"')
        return ElementSet.parse(self.satellite.name, *self.satellite.tle)

    def orbit(self) -> Orbit:
        """The satellite as seen from the station."""
        return Orbit(self.elements(), self.station, self.earth_orientation)

    def patterns(self) -> dict[str, int]:
        """Logical channel -> set of tagger inputs (bit 0 = input 1)."""
        return {name: sum(1 << (i - 1) for i in set(c.inputs)) for name, c in self.channels.items()}

    def delays_ps(self) -> dict[str, int]:
        return {name: channel.delay_ps for name, channel in self.channels.items()}


def load_config(path: Path) -> StationConfig:
    """Read and check a station file. BadInput names the file, the line and what to do."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise BadInput(f"the station file {path} cannot be read: {reason}") from error
    try:
        config = record(StationConfig, tomllib.loads(text))
        _check(config)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"the station file {path} is not valid TOML: {error}") from error
    except BadKey as error:
        raise BadInput(f"{path}{_line_of(text, error.path)}: {error}") from error
    return config


def capability_of(name: str) -> Capability | None:
    """What an entry of [instruments] must be able to do; None when there is no such entry."""
    capabilities: dict[str, Capability] = {"tagger": "tagger", "mount": "mount", "transmitter": "transmitter"}
    if name in INSTRUMENTS:
        return capabilities.get(name, "detector")
    return next((able for kind, able in _MORE_INSTRUMENTS.items() if name == kind or name.startswith(f"{kind}_")), None)


def _check(config: StationConfig) -> None:
    for name in config.instruments:
        if capability_of(name) is None:
            sentence = (
                f'there is no instrument "{name}"; known: {", ".join(INSTRUMENTS)}, and, with or without a suffix '
                f"(weather_roof): {', '.join(_MORE_INSTRUMENTS)}"
            )
            raise BadKey(("instruments", name), sentence)
    for name in INSTRUMENTS:
        if name not in config.instruments:
            raise BadKey(("instruments", name), f"[instruments.{name}] is missing; add it")
    if set(config.channels) != set(CHANNELS):
        raise BadKey(("channels",), f"[channels] must name exactly {', '.join(CHANNELS)}")
    for name, channel in config.channels.items():
        if not channel.inputs or not all(1 <= i <= 8 for i in channel.inputs):
            raise BadKey(("channels", name), f"[channels.{name}] inputs must be numbers from 1 to 8")
    patterns = config.patterns()
    if len(set(patterns.values())) < len(patterns):
        raise BadKey(("channels",), "two [channels] have the same inputs; each needs its own pattern")
    if config.simulated and config.simulation is None:
        raise BadKey(("simulation",), "an instrument is simulated, but there is no table [simulation]")
    for (table, key), (low, high) in _LIMITS.items():
        value = getattr(getattr(config, table), key, low)
        if not low <= value <= high:
            raise BadKey((table, key), f"[{table}] {key} is {value}; it must be from {low:g} to {high:g}")


def _line_of(text: str, path: tuple[str, ...]) -> str:
    """`, line N` of the key that `path` leads to; empty when it does not stand in the text."""
    table: tuple[str, ...] = ()
    best = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        if header:
            table = tuple(part.strip(" \"'") for part in header[1].split("."))
            if table == path[: len(table)]:
                best = f", line {number}"
        key = re.match(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=", line)
        if key and (*table, key[1]) == path[: len(table) + 1]:
            return f", line {number}"
    return best
