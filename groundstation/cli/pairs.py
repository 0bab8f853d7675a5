"""`groundstation pairs`: a simulated source of entangled pairs, and the sealed recordings that two stations make of it.

The wires between instruments and recorder are not simulated here (`groundstation run` does that): the world is
written as two recordings, at once or growing in step with the world's time, so that they can be followed live.
"""

import argparse
import platform
import sys
import tomllib
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from groundstation import __version__
from groundstation.clock import NS_PER_S, Clock, SimulatedClock, monotonic_ns, monotonic_s, utc_text
from groundstation.core.ledger import Ledger
from groundstation.core.tags import CHANNEL_NUMBER, CHANNELS
from groundstation.core.timebase import PS_PER_S
from groundstation.errors import BadInput, GroundStationError
from groundstation.pipeline.settings import AnalysisSettings
from groundstation.recording.manifest import create_recording
from groundstation.recording.sealing import remove_segments, seal_in_child
from groundstation.recording.segment import Table
from groundstation.recording.writer import StreamWriter
from groundstation.simulation.pair_parameters import ANALYSER_B_DEG, SCENES, PairStationParameters, PairWorldParameters
from groundstation.simulation.pair_scene import PairScene, pair_scene
from groundstation.simulation.pairs import BLOCK_NS, StationBlock
from groundstation.tables import BadKey, record

#: The simulated experiment: beside the installed package, or in the source tree.
DEFAULT_CONFIG = next(
    (path for path in (Path(__file__).parents[1] / "simulated-entanglement.toml",) if path.exists()),
    Path(__file__).parents[2] / "config" / "simulated-entanglement.toml",
)
#: World time in one segment when nobody waits for it; in step with the world, what came in so much wall time.
_SEGMENT_NS = NS_PER_S
_COMMIT_WALL_S = 0.1
_PPS_UNCERTAINTY_S = 1e-7
_PPS = CHANNEL_NUMBER["pps"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="the experiment (default: the shipped one)")
    parser.add_argument("--output", type=Path, required=True, help="directory for the two recordings")
    parser.add_argument("--scene", choices=SCENES, help="instead of the file's")
    parser.add_argument("--settings", choices=tuple(ANALYSER_B_DEG), help="instead of the file's")
    parser.add_argument("--seed", type=int, help="seed of the simulated world")
    parser.add_argument("--speed", type=float, help="world seconds per second (default: as fast as it goes)")
    parser.add_argument(
        "--keep-segments",
        action="store_true",
        help="leave the directories beside the sealed files (always with --speed: somebody may be following them)",
    )


def run(options: argparse.Namespace) -> int:
    """Write both recordings to their end and seal them; 0 when both are sealed, 1 when one is only a directory."""
    parameters = _chosen(load_pair_world(options.config), options)
    if options.speed is not None and not 0.1 <= options.speed <= 100.0:
        raise BadInput(f"--speed is {options.speed:g}; give a number from 0.1 to 100")
    scene = pair_scene(parameters)
    clock = SimulatedClock(scene.zero_utc_ns, monotonic_ns(), options.speed) if options.speed else None
    directories = [options.output / name for name in parameters.stations]
    for target in (_sealed_path(directory) for directory in directories):
        if target.exists():
            raise BadInput(f"{target} is there already; choose another --output")
    duration_s = (scene.stop_utc_ns - scene.zero_utc_ns) / NS_PER_S
    sys.stdout.write(
        f"Simulating {duration_s:.0f} s from {utc_text(scene.zero_utc_ns, 0)}: "
        f"{parameters.scene}, settings {parameters.settings}\n"
    )
    sys.stdout.flush()
    with ExitStack() as closing:
        recorders = [
            closing.enter_context(_Recorder(directory, parameters, scene, number))
            for number, directory in enumerate(directories)
        ]
        _write(scene, recorders, clock)
    keep = options.keep_segments or clock is not None
    sealed = [_sealed(directory, r.recorded, keep) for directory, r in zip(directories, recorders, strict=True)]
    return 0 if all(sealed) else 1


def _sealed_path(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.h5")


def _sealed(directory: Path, tags: int, keep_segments: bool) -> bool:
    """Make one file of a recording's directory and say where it is; False when that failed."""
    target = _sealed_path(directory)
    try:
        seal_in_child(directory, target)
        if not keep_segments:
            remove_segments(directory)
    except GroundStationError as error:
        sys.stdout.write(f"Not sealed: {error}. The recording is safe in {directory}.\n")
        return False
    beside = f"; its segments stay in {directory}" if keep_segments else ""
    sys.stdout.write(f"Recording {target}: {tags:,} tags, sealed{beside}\n")
    return True


def load_pair_world(path: Path) -> PairWorldParameters:
    """Read the description of an experiment. BadInput names the file and what to do."""
    try:
        return record(PairWorldParameters, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise BadInput(f"the experiment file {path} cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the experiment file {path} is not valid TOML: {error}") from error
    except BadKey as error:
        raise BadInput(f"{path}: {error}") from error


def _chosen(parameters: PairWorldParameters, options: argparse.Namespace) -> PairWorldParameters:
    given = {name: getattr(options, name) for name in ("scene", "settings", "seed")}
    return replace(parameters, **{name: value for name, value in given.items() if value is not None})


def _write(scene: PairScene, recorders: list["_Recorder"], clock: Clock | None) -> None:
    """All blocks of the world, in step with its time when there is a clock."""
    blocks = -(-(scene.stop_utc_ns - scene.zero_utc_ns) // BLOCK_NS)
    published_ns, published_s = 0, monotonic_s()
    for number in range(blocks):
        for recorder, block in zip(recorders, scene.light.block(), strict=True):
            recorder.take(block)
        come_ns = (number + 1) * BLOCK_NS
        if clock is not None:
            clock.sleep_s((scene.zero_utc_ns + come_ns - clock.utc_ns()) * 1e-9)
            due = monotonic_s() - published_s >= _COMMIT_WALL_S
        else:
            due = come_ns - published_ns >= _SEGMENT_NS
        if due:
            for recorder in recorders:
                recorder.publish()
            published_ns, published_s = come_ns, monotonic_s()
    for recorder in recorders:
        recorder.publish(end=True)


class _Recorder:
    """One station's recording: tags and what the world knows of them; the predicted path is written first."""

    def __init__(self, directory: Path, parameters: PairWorldParameters, scene: PairScene, number: int) -> None:
        run_id = create_recording(directory, _manifest(parameters, scene, number))
        path = None if scene.paths is None else scene.paths[number]
        with StreamWriter(directory, "telemetry", run_id) as telemetry:
            telemetry.publish({} if path is None else {"path": dict(path.table())}, end=True)
        self._tags = StreamWriter(directory, "tags", run_id)
        self._truth = StreamWriter(directory, "truth", run_id)
        self._station = list(parameters.stations.values())[number]
        self._zero_utc_ns = scene.zero_utc_ns
        self._waiting: list[StationBlock] = []
        self._ledger = Ledger(missed=0)
        self._label: dict[str, object] | None = None

    @property
    def recorded(self) -> int:
        """Tags that are safe on the disk."""
        return self._ledger.recorded

    def take(self, block: StationBlock) -> None:
        """Keep a block until it is published."""
        self._waiting.append(block)
        pulses = np.flatnonzero(block.channel == _PPS)
        if self._label is None and pulses.size:
            self._label = _label(int(block.time_ps[pulses[0]]), self._station, self._zero_utc_ns)

    def publish(self, end: bool = False) -> None:
        """Make what waits durable."""
        time_ps, channel, pair = (
            np.concatenate([block[column] for block in self._waiting] or [np.empty(0, kind)])
            for column, kind in enumerate((np.int64, np.uint8, np.int64))
        )
        self._ledger.seen += time_ps.size
        self._ledger.recorded += time_ps.size
        notes: dict[str, object] = {"zero_device_ps": 0, "ledger": self._ledger.as_notes()}
        if self._waiting:
            notes["latest_ps"] = self._waiting[-1].latest_ps
        if self._label is not None:
            notes["utc_label"] = self._label
        known = np.flatnonzero(pair >= 0)
        truth: Table = {"time_ps": time_ps[known], "pair": pair[known]}
        self._truth.publish({"pairs": truth}, end=end)
        self._tags.publish({"tags": {"time_ps": time_ps, "channel": channel}}, notes, end=end)
        self._waiting = []

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self._tags.close()
        self._truth.close()


def _label(pulse_ps: int, station: PairStationParameters, zero_utc_ns: int) -> dict[str, object]:
    """The second of a 1PPS tag; the host's clock only has to single it out."""
    second = round(pulse_ps / PS_PER_S + station.start_s)
    return {
        "time_ps": pulse_ps,
        "utc_ns": zero_utc_ns + second * NS_PER_S,
        "uncertainty_s": _PPS_UNCERTAINTY_S,
    }


def _manifest(parameters: PairWorldParameters, scene: PairScene, number: int) -> dict[str, object]:
    """What a station's recording says of itself."""
    station = list(parameters.stations.values())[number]
    orbit = scene.paths is not None
    satellite: dict[str, object] = {"name": parameters.satellite.name if orbit else "laboratory source"}
    if orbit:
        satellite["tle"] = list(parameters.satellite.tle)
    return {
        "mode": "simulation",
        "kind": "entanglement",
        "created_utc": utc_text(scene.zero_utc_ns),
        "software": {"groundstation": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "station": asdict(station.site),
        "satellite": satellite,
        "earth_orientation": asdict(parameters.earth_orientation),
        "window": {"start_utc_ns": scene.zero_utc_ns, "stop_utc_ns": scene.stop_utc_ns},
        "patterns": {name: 1 << i for i, name in enumerate(CHANNELS) if name != "sync" and (orbit or name != "pps")},
        "delays_ps": dict.fromkeys(CHANNELS, 0),
        "analysis": asdict(AnalysisSettings()),
        "entanglement": {
            "state": parameters.source.state,
            "analyser_deg": parameters.analyser_deg[number],
            "dark_hz": station.dark_hz,
        },
        "simulation": {**asdict(parameters), "stations": {n: asdict(s) for n, s in parameters.stations.items()}},
    }
