"""`groundstation run`: fly one pass. Starts every other program, steers the mount, shows what happens, seals."""

import argparse
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from groundstation.acquisition.space import require_room
from groundstation.cli.archiving import archive
from groundstation.cli.checking import check_channels, check_mount, space_needed
from groundstation.cli.loading import DETECTORS, Simulators, connect
from groundstation.cli.planning import PlannedPass, manifest_of, plan_pass
from groundstation.cli.programs import Programs
from groundstation.cli.view import PassView, alarms_of
from groundstation.clock import (
    NS_PER_S,
    Clock,
    SimulatedClock,
    SystemClock,
    monotonic_ns,
    monotonic_s,
    sleep_wall_s,
    utc_text,
)
from groundstation.config import DEFAULT_CONFIG, InstrumentConfig, StationConfig, load_config
from groundstation.console.terminal import TerminalView, style_for
from groundstation.errors import BadInput, GroundStationError
from groundstation.operation.detector_watch import DetectorWatch
from groundstation.operation.flight import Flight, FlightPlan
from groundstation.operation.guard import DISMISSED, HEARTBEAT
from groundstation.operation.logbook import Logbook
from groundstation.passes.prediction import check_mount_can_follow
from groundstation.passes.states import State
from groundstation.recording.manifest import create_recording
from groundstation.recording.writer import StreamWriter, close_abandoned

DEFAULT_SPEED = 10.0
#: Faster, and one wall millisecond is too long a world time for the tracking loop.
_MAX_SPEED = 30.0
#: World time for slewing and cooling, and wall time for starting all programs, before the pass begins.
_LEAD_S, _STARTUP_WALL_S = 45.0, 6.0
#: A real station connects its instruments this long before tracking begins.
_REAL_LEAD_S = 180
_VIEW_INTERVAL_S = {"rich": 0.25, "plain": 2.0, "json": 1.0}
#: The last tags of a pass are waited for so long after it (wall time).
_TAGS_LATE_S = 20.0
_FINISH_TIMEOUT_S = 120.0
_GUARD_PATIENCE_S = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="station file (default: the simulated one)")
    parser.add_argument("--speed", type=float, help="world seconds per second, simulation only (default 10)")
    parser.add_argument("--seed", type=int, help="seed of the simulated world")
    parser.add_argument("--output", type=Path, help="directory for recording and report (default: named by the pass)")
    parser.add_argument("--json", action="store_true", help="status as JSON lines")


def run(options: argparse.Namespace) -> int:
    """Fly the pass; 0 when it is complete, 1 when it ended early or failed."""
    config = _configured(load_config(options.config), options.seed)
    speed = _speed(config, options.speed)
    planned = plan_pass(config)
    directory = options.output or _named_by(config, planned)
    clock = _clock(config, planned, speed)
    require_room(directory, space_needed(config, planned))
    check_mount(config)
    check_channels(config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{directory} cannot be made ({error.strerror}); choose another --output") from error
    recording = directory / "recording"
    if (directory / "recording.h5").exists():
        raise BadInput(f"{directory} already holds a pass; choose another --output")
    run_id = create_recording(recording, manifest_of(config, planned, clock))
    return Run(config, planned, clock, directory, recording, run_id, options.json).fly()


def _configured(config: StationConfig, seed: int | None) -> StationConfig:
    if seed is None:
        return config
    if config.simulation is None:
        raise BadInput("--seed belongs to a simulated world; this station file has none")
    if not 0 <= seed < 1 << 64:
        raise BadInput(f"--seed is {seed}; give a whole number from 0 to 2^64 - 1")
    return replace(config, simulation=replace(config.simulation, seed=seed))


def _speed(config: StationConfig, speed: float | None) -> float:
    everything = all(entry.simulate for entry in config.instruments.values())
    if speed is None:
        return DEFAULT_SPEED if everything else 1.0
    if not 0.1 <= speed <= _MAX_SPEED:
        raise BadInput(f"--speed is {speed:g}; give a number from 0.1 to {_MAX_SPEED:g}")
    if speed != 1.0 and not everything:
        raise BadInput("--speed other than 1 needs a station in which every instrument is simulated")
    return speed


def _clock(config: StationConfig, planned: PlannedPass, speed: float) -> Clock:
    if not config.simulated:
        return SystemClock()
    lead_ns = round((_LEAD_S + _STARTUP_WALL_S * speed) * NS_PER_S)
    return SimulatedClock(planned.start_utc_ns - lead_ns, monotonic_ns(), speed)


def _named_by(config: StationConfig, planned: PlannedPass) -> Path:
    stamp = utc_text(planned.window_start_utc_ns, 0).replace("-", "").replace(":", "")
    return Path(f"{config.satellite.name.lower()}-{stamp}")


class Run:
    """Everything that lives while one pass is flown."""

    def __init__(
        self,
        config: StationConfig,
        planned: PlannedPass,
        clock: Clock,
        directory: Path,
        recording: Path,
        run_id: str,
        machine: bool,
    ) -> None:
        self._config, self._planned, self._clock = config, planned, clock
        self._directory, self._recording, self._run_id = directory, recording, run_id
        self._simulators = Simulators(config, clock, directory / "programs")
        self._programs = Programs(clock, directory / "programs")
        self._instruments: dict[str, InstrumentConfig] = {}
        self._alarms: set[str] = set()
        self._flown_well = False
        self._interrupts = 0
        self._style = style_for(sys.stdout, machine)

    def fly(self) -> int:
        """The whole pass, from starting the programs to the sealed recording."""
        flying = False
        for number in (signal.SIGINT, signal.SIGTERM):  # until the flight takes them over
            signal.signal(number, signal.default_int_handler)
        try:
            self._await_pass()
            self._start_programs()
            mount = connect("mount", self._instruments["mount"], self._clock)
            detectors = {n: connect(e, self._instruments[e], self._clock) for n, e in DETECTORS.items()}
            self._programs.wait_ready()
            flying = True
            return self._fly(mount, detectors)
        finally:
            self._programs.end(at_once=not flying or self._interrupts > 1)
            self._simulators.end_all()
            if not flying:  # then nothing of a pass is in it, and the same directory can be used again
                shutil.rmtree(self._recording, ignore_errors=True)

    def _await_pass(self) -> None:
        """A real pass may be hours away: until shortly before it nothing is connected and nothing recorded."""
        begin_utc_ns = self._planned.start_utc_ns - _REAL_LEAD_S * NS_PER_S
        if self._config.simulated or self._clock.utc_ns() >= begin_utc_ns:
            return
        with TerminalView(sys.stdout, "json" if self._style == "json" else "plain") as terminal:
            terminal.message(
                f"The window opens at {utc_text(self._planned.window_start_utc_ns, 0)}; instruments are connected at "
                f"{utc_text(begin_utc_ns, 0)}. Ctrl-C gives up."
            )
        while self._clock.utc_ns() < begin_utc_ns:
            sleep_wall_s(min(1.0, (begin_utc_ns - self._clock.utc_ns()) / NS_PER_S))

    def _start_programs(self) -> None:
        world_start = self._clock.utc_ns() - 5 * NS_PER_S
        self._simulators.start(
            world_start,
            self._planned.stop_utc_ns + 600 * NS_PER_S,
            self._planned.epoch_utc_ns,
            self._recording,
        )
        self._instruments = entries = self._simulators.addressed()
        recording, second, mount = str(self._recording), entries.get("tagger_2"), entries["mount"]
        self._programs.start(
            "acquisition",
            "acquire",
            {
                "recording": recording,
                "instrument": asdict(entries["tagger"]),
                "instrument_2": asdict(second) if second else None,
                "settings": asdict(self._config.recording),
            },
        )
        transmitter = asdict(entries["transmitter"])
        self._programs.start(
            "analysis", "analyse", {"recording": recording, "output": str(self._directory), "instrument": transmitter}
        )
        guarded = replace(mount, guard_address=mount.guard_address or mount.address)  # else a second connection to it
        timeout_s = self._config.operation.guard_timeout_s
        self._programs.start("guard", "guard", {"instrument": asdict(guarded), "timeout_s": timeout_s})

    def _fly(self, mount: Any, detectors: dict[str, Any]) -> int:
        """From connected instruments on."""
        telemetry = StreamWriter(self._recording, "telemetry", self._run_id)
        events = StreamWriter(self._recording, "events", self._run_id)
        logbook = Logbook(telemetry, events, self._clock)
        logbook.begin(self._planned.path.table())
        operation = self._config.operation
        plan = FlightPlan(
            self._planned.path,
            self._planned.start_utc_ns,
            self._planned.stop_utc_ns,
            operation.park_azimuth_deg,
            operation.park_elevation_deg,
            operation.tracking_period_s,
            operation.detector_bias_v,
            operation.detector_temperature_c,
        )
        heartbeat: Callable[[], None] = lambda: self._programs["guard"].say(HEARTBEAT)  # noqa: E731  three words
        flight = Flight(plan, mount, detectors, logbook, self._clock, heartbeat, self._unsafe)
        watch = DetectorWatch(detectors, logbook, self._clock)
        view = PassView(
            self._config, self._planned, self._clock, self._directory, flight, watch, logbook, self._programs.children
        )
        with TerminalView(sys.stdout, self._style) as terminal:
            for sentence in self._warnings(mount):
                terminal.message(sentence)
                logbook.event("note", sentence)
            self._catch_signals(flight, terminal)
            thread = threading.Thread(target=flight.run, name="flight")
            thread.start()
            watch.start()
            try:
                self._attend(flight, thread, view, terminal, logbook)
            finally:  # whatever happened here, the flight ends in order and the guard outlives it
                flight.request_stop()
                thread.join()
                watch.stop()
            self._close(logbook)
            mount.close()
            for detector in detectors.values():
                detector.close()
            if self._interrupts > 1:
                terminal.message(f"Stopped at once. What was acknowledged is safe: replay {self._recording} to see it.")
                return 1
            return self._finish(flight, view, terminal)

    def _warnings(self, mount: Any) -> list[str]:
        limits = mount.capabilities
        return check_mount_can_follow(self._planned.path, limits.max_rate_deg_s, limits.max_acceleration_deg_s2)

    def _catch_signals(self, flight: Flight, terminal: TerminalView) -> None:
        def interrupted(_number: int, _frame: object) -> None:
            self._interrupts += 1
            if self._interrupts == 1:
                flight.request_stop()
            else:
                flight.stop_now()

        signal.signal(signal.SIGINT, interrupted)
        signal.signal(signal.SIGTERM, interrupted)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that is closed does not end a pass

    def _unsafe(self) -> str:
        """Why the pass must end; empty while it may go on."""
        acquisition = self._programs["acquisition"]
        if acquisition.exit_code == 0 or self._programs.given_up("acquisition"):
            return f"acquisition ended: {acquisition.last_words()}"
        return ""

    def _attend(
        self,
        flight: Flight,
        thread: threading.Thread,
        view: PassView,
        terminal: TerminalView,
        logbook: Logbook,
    ) -> None:
        """While the flight lasts: show it, end the recording when tracking is over, restart programs that died."""
        interval_s = _VIEW_INTERVAL_S[self._style]
        shown_s = 0.0
        told = 0
        recording = True
        while thread.is_alive():
            if self._interrupts > told:
                told = self._interrupts
                terminal.message(
                    "Stopping: the mount stops and parks, the recording is sealed. Ctrl-C again ends at once."
                    if told == 1
                    else "Ending at once."
                )
            if recording and flight.tracking_over.is_set() and self._everything_is_recorded():
                self._programs["acquisition"].ask_to_end()
                recording = False
            if recording:
                self._programs.keep_alive("acquisition", logbook)
            self._log_alarms(logbook)
            self._programs.keep_alive("analysis", logbook)
            self._programs.keep_alive("guard", logbook)
            if monotonic_s() - shown_s >= interval_s:
                shown_s = monotonic_s()
                terminal.update(view.status())
            thread.join(0.02)
        self._dismiss_guard(flight, terminal)
        self._flown_well = flight.ended_well

    def _log_alarms(self, logbook: Logbook) -> None:
        """Each alarm of the recorder, once when it begins; what it says may change while it lasts."""
        alarms = alarms_of(self._programs["acquisition"].status)
        for about in alarms.keys() - self._alarms:
            logbook.event("alarm", f"acquisition: {alarms[about]}")
        self._alarms = set(alarms)

    def _everything_is_recorded(self) -> bool:
        """Whether the tags of the whole pass have been read: on a busy machine the newest ones are late."""
        if self._interrupts or self._clock.utc_ns() < self._planned.stop_utc_ns:
            return True  # it ends early: what matters now is the end
        late_s = (self._clock.utc_ns() - self._planned.stop_utc_ns) * 1e-9 / self._clock.speed
        read_until = self._programs["acquisition"].status.get("read_until_utc_ns")
        arrived = isinstance(read_until, int) and read_until >= self._planned.stop_utc_ns
        return arrived or late_s > _TAGS_LATE_S or not self._programs["acquisition"].running

    def _dismiss_guard(self, flight: Flight, terminal: TerminalView) -> None:
        """The guard goes when the mount stands still; else its own link is the last means to stop it."""
        guard = self._programs["guard"]
        if flight.stands_still:
            guard.say(DISMISSED)
            return
        guard.close_stdin()
        guard.join(_GUARD_PATIENCE_S)
        stopped = bool(guard.status.get("stopped"))
        terminal.message("The guard stopped the mount." if stopped else "THE MOUNT MAY BE MOVING: stop it by hand.")

    def _close(self, logbook: Logbook) -> None:
        """End every stream, those of programs that are gone too."""
        while not self._everything_is_recorded():
            sleep_wall_s(0.02)
        self._programs["acquisition"].end(1.0 if self._interrupts > 1 else 10.0)
        close_abandoned(self._recording, "tags", self._run_id, "acquisition ended without closing the stream")
        self._simulators.end("tagger")
        logbook.close()
        for stream in ("telemetry", "events"):  # a logbook that could not write has not ended them
            close_abandoned(self._recording, stream, self._run_id, "the logbook could not be written")

    def _finish(self, flight: Flight, view: PassView, terminal: TerminalView) -> int:
        """Wait for the report, seal, say how it went."""
        parked = "Parked. " if flight.status.state is State.PARKED else ""
        terminal.message(f"{parked}Waiting for the last answers and the report.")
        deadline_s = monotonic_s() + _FINISH_TIMEOUT_S
        analysis = self._programs["analysis"]
        while analysis.running or analysis.exit_code != 0:
            if monotonic_s() > deadline_s or self._programs.given_up("analysis"):
                terminal.message(f"No report: {analysis.last_words()}. Replay {self._recording} to get one.")
                return 1
            if self._interrupts > 1:
                terminal.message(f"Ended without a report. Replay {self._recording} to get one.")
                return 1
            self._programs.keep_alive("analysis", None)
            analysis = self._programs["analysis"]
            analysis.join(0.05)
        analysis.join(1.0)
        self._simulators.end_all()
        terminal.update(view.status())
        sealed = self._directory / "recording.h5"
        try:
            mark = archive(self._recording, sealed, terminal.message)
        except GroundStationError as error:
            terminal.message(f"Not sealed: {error}. The recording is safe in {self._recording}.")
            return 1
        trustworthy = bool(analysis.status.get("trustworthy"))
        for sentence in (*flight.status.alarms, *_sentences(analysis.status.get("remarks"))):
            terminal.message(sentence)
        terminal.message(f"Recording {sealed}")
        terminal.message(f"Report    {self._directory / 'report.html'}")
        terminal.message(f"Fingerprint {mark}  (write it down: verify --fingerprint)", fingerprint=mark)
        return 0 if trustworthy and self._flown_well else 1


def _sentences(remarks: object) -> list[str]:
    return [str(r) for r in remarks] if isinstance(remarks, list) else []
