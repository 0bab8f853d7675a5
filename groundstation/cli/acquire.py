"""`groundstation acquire`: one tagger into the `tags` stream of a recording; alone, as a service, or for `run`.

What was interrupted is continued: a recording without an end is checked first, and goes on with a gap.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from groundstation.acquisition.connection import TaggerConnection
from groundstation.acquisition.continuation import TimeBaseLost, earlier_recorder
from groundstation.acquisition.daemon import Acquisition
from groundstation.acquisition.service import Service
from groundstation.acquisition.space import Space, bytes_needed, require_room
from groundstation.acquisition.status import AcquisitionStatus
from groundstation.acquisition.two_taggers import common_signal, connect_two, split_settings
from groundstation.cli.acquiring import CaughtUp, StatusPrinter, place_of
from groundstation.cli.checking import check_channels
from groundstation.cli.child import Ending, Teller, job_of
from groundstation.cli.loading import connect, simulate_tagger
from groundstation.cli.planning import manifest_without_pass
from groundstation.clock import Clock, SystemClock
from groundstation.config import DEFAULT_CONFIG, InstrumentConfig, RecordingConfig, StationConfig, load_config
from groundstation.errors import BadInput, TransportLost, TransportTimeout
from groundstation.instruments import TimeTagger
from groundstation.recording.manifest import create_recording, read_manifest
from groundstation.recording.recovery import recover_stream
from groundstation.recording.writer import StreamWriter, close_abandoned

#: Without --duration there must be room for so long.
_ROOM_FOR_S = 3600.0
#: An interrupted recording of more than this is left to `groundstation recover`: new tags do not wait for old ones.
_CHECKED_AT_START_BYTES = 256_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="station file (default: the simulated one)")
    parser.add_argument(
        "--output", type=Path, help="the recording's directory; one that was interrupted is continued (default: "
        "the interrupted tags-* here, else a new one named by the time)",
    )  # fmt: skip
    parser.add_argument("--duration", type=float, metavar="S", help="record so long (default: until Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="status as JSON lines")
    parser.add_argument("--clock", default="system", help=argparse.SUPPRESS)  # these two are for `run`
    parser.add_argument("--job", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Record until told to end; 0 when the stream was closed in order."""
    return _as_child(options) if options.job is not None else _alone(options)


def _as_child(options: argparse.Namespace) -> int:
    """For `run`, which made the recording and watches over this program."""
    clock, job = job_of(options)
    ending, teller = Ending(supervised=True), Teller()
    _record(
        Path(job["recording"]),
        InstrumentConfig(**job["instrument"]),
        InstrumentConfig(**job["instrument_2"]) if job.get("instrument_2") else None,
        RecordingConfig(**job["settings"]),
        clock,
        lambda acquisition: CaughtUp(acquisition, ending.asked.is_set, clock),
        lambda model: teller.say(json.dumps({"ready": True, "model": model})),
        lambda status: teller.say(json.dumps(asdict(status))),
    )
    teller.finish()
    return 0


def _alone(options: argparse.Namespace) -> int:
    """Without a pass: the station file's tagger, until Ctrl-C or for a while."""
    config, clock = load_config(options.config), SystemClock()
    duration_s = options.duration
    if duration_s is not None and not 0.0 < duration_s < 1e9:
        raise BadInput(f"--duration is {duration_s:g}; give seconds above 0")
    ending = Ending(supervised=False)
    directory, continued = place_of(options.output, clock)
    check_channels(config)
    _require_room(config.recording, directory, duration_s)
    entry, second = config.instruments["tagger"], config.instruments.get("tagger_2")
    with ExitStack() as programs:
        if entry.simulate:
            entry = simulate_tagger(entry, clock, programs)
        if second is not None and second.simulate:
            second = simulate_tagger(second, clock, programs)
        if continued:
            _check_same_station(config, directory)
        else:
            create_recording(directory, manifest_without_pass(config, clock))
        stop_utc_ns = None if duration_s is None else clock.utc_ns() + round(duration_s * 1e9)
        asked: Callable[[], bool] = lambda: (  # noqa: E731  two conditions
            ending.asked.is_set() or (stop_utc_ns is not None and clock.utc_ns() >= stop_utc_ns)
        )
        printer = StatusPrinter(directory, continued, options.json, clock)
        try:
            _record(
                directory,
                entry,
                second,
                config.recording,
                clock,
                lambda acquisition: CaughtUp(acquisition, asked, clock),
                printer.ready,
                printer.status,
            )
        except TimeBaseLost as error:  # nobody can go on in it any more; the next start begins a new one
            close_abandoned(directory, "tags", str(read_manifest(directory)["run_id"]), str(error))
            raise
        ending.over()
        printer.ended()
    return 0


def _record(
    directory: Path,
    entry: InstrumentConfig,
    second: InstrumentConfig | None,
    settings: RecordingConfig,
    clock: Clock,
    stop: Callable[[Acquisition], Callable[[], bool]],
    ready: Callable[[str], None],
    report: Callable[[AcquisitionStatus], None],
) -> None:
    """From the lock on the stream to its END."""
    manifest = read_manifest(directory)
    run_id, patterns = str(manifest["run_id"]), manifest["patterns"]
    with ExitStack() as held:
        _check_what_is_there(directory)
        writer = held.enter_context(StreamWriter(directory, "tags", run_id))
        earlier = earlier_recorder(directory)
        tagger = _connected(entry, second, patterns, clock)
        held.callback(tagger.close)
        ready(tagger.identify().model)
        acquisition = Acquisition(
            tagger,
            patterns,
            writer,
            clock,
            settings.commit_interval_s,
            settings.pps_uncertainty_s,
            buffer_bytes=settings.buffer_mb * 1_000_000,
            space=Space(directory, settings.reserve_mb * 1_000_000, settings.low_space_minutes),
            service=Service(os.environ.get("NOTIFY_SOCKET")),
            earlier=earlier,
        )
        acquisition.run(stop(acquisition), report)


def _connected(
    entry: InstrumentConfig, second: InstrumentConfig | None, patterns: Mapping[str, int], clock: Clock
) -> TaggerConnection:
    """The tagger, or two as one. TransportLost when it does not answer: it may later, so a supervisor should retry."""

    def connect_first() -> TimeTagger:
        return connect("tagger", entry, clock)  # type: ignore[no-any-return]  # drivers are loaded by name

    def connect_both() -> TimeTagger:
        assert second is not None
        common, settings = split_settings(second.settings)
        own, signal = replace(second, settings=settings), common_signal(common, patterns)
        second_of = lambda: connect("tagger_2", own, clock)  # noqa: E731  as short as it can be
        return connect_two(connect_first, second_of, signal, clock.speed, common.common_wait_s)

    try:
        return TaggerConnection(connect_first if second is None else connect_both, patterns.get("pps"), clock)
    except BadInput as error:
        if isinstance(error.__cause__, TransportLost | TransportTimeout):
            raise TransportLost(str(error)) from error
        raise


def _check_what_is_there(directory: Path) -> None:
    """Put an interrupted stream in order, unless reading it would keep the tags of now waiting."""
    files = [path.stat().st_size for path in (directory / "tags").glob("*.h5")]
    if files and sum(files) <= _CHECKED_AT_START_BYTES:
        recover_stream(directory, "tags")


def _require_room(settings: RecordingConfig, directory: Path, duration_s: float | None) -> None:
    seconds = _ROOM_FOR_S if duration_s is None else duration_s
    require_room(directory, bytes_needed(settings.max_rate_hz, seconds, settings.space_factor))


def _check_same_station(config: StationConfig, directory: Path) -> None:
    """What is continued must mean the same."""
    manifest: dict[str, Any] = read_manifest(directory)
    if manifest.get("patterns") != config.patterns():
        raise BadInput(f"{directory} was begun with other [channels]; choose another --output")
    if manifest.get("mode") == "live" and config.instruments["tagger"].simulate:
        raise BadInput(f"{directory} holds tags of a real tagger, this one is simulated; choose another --output")
