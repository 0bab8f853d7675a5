"""Flies one pass by the state table: slews, waits, tracks, parks. Runs in a thread of its own.

Every exit path commands rate zero; parking is verified by readback, never by the end of motion.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from groundstation.clock import NS_PER_S, Clock, monotonic_s, sleep_wall_s, utc_text
from groundstation.errors import GroundStationError, InstrumentFault
from groundstation.instruments import Detector, Mount, MountReading
from groundstation.operation.following import following_of
from groundstation.operation.guard import stop_and_verify
from groundstation.operation.logbook import Logbook
from groundstation.operation.pointing_watch import PointingWatch
from groundstation.operation.reach import LINK_ERRORS, Reach
from groundstation.passes.prediction import PredictedPath
from groundstation.passes.states import Event, PassState, State

_SLEW_TIMEOUT_S = 180.0
#: After a longer outage nobody knows what the mount did meanwhile: following begins anew.
_LOOP_GOOD_FOR_S = 1.0
#: So long is tried to switch the bias of one detector off when its link is down (wall time).
_BIAS_OFF_PATIENCE_S = 5.0
_COOLING_TIMEOUT_S = 120.0
_COOL_WITHIN_C = 1.0
_SHORTEST_PERIOD_WALL_S = 0.02

T = TypeVar("T")


@dataclass(frozen=True)
class FlightPlan:
    """Where to point and when (UTC ns): tracking from start to stop; bias and temperature of the detectors."""

    path: PredictedPath
    start_utc_ns: int
    stop_utc_ns: int
    park_azimuth_deg: float
    park_elevation_deg: float
    tracking_period_s: float
    detector_bias_v: float
    detector_temperature_c: float


@dataclass(frozen=True)
class FlightStatus:
    """What the live view shows of the telescope; replaced as a whole, so a reader never sees half of it."""

    state: State = State.IDLE
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    pointing_error_arcsec: float | None = None
    read_at_s: float = 0.0
    alarms: tuple[str, ...] = ()


class Flight:
    """One pass. `run` in a thread; `request_stop` and `stop_now` from any other."""

    def __init__(
        self,
        plan: FlightPlan,
        mount: Mount,
        detectors: dict[str, Detector],
        logbook: Logbook,
        clock: Clock,
        heartbeat: Callable[[], None],
        unsafe: Callable[[], str],
    ) -> None:
        """`heartbeat` is called with every turn; `unsafe` returns why the pass must end, or nothing.

        Raises BadInput for a mount that cannot follow a satellite.
        """
        self._plan, self._mount, self._detectors = plan, mount, detectors
        self._following = following_of(mount, plan.path, plan.start_utc_ns, plan.stop_utc_ns, plan.tracking_period_s)
        self._logbook, self._clock = logbook, clock
        self._heartbeat, self._unsafe = heartbeat, unsafe
        self._pass = PassState()
        self._stop = threading.Event()
        self._at_once = threading.Event()
        self._log_lost = False
        self._reach = Reach(clock, lambda sentence: logbook.event("note", sentence), self._alarm)
        self.status = FlightStatus()
        self.tracking_over = threading.Event()
        #: Whether the mount was read twice at the same place after the last stop.
        self.stands_still = False

    def request_stop(self) -> None:
        """The operator ends the pass: stop, park, keep everything."""
        self._stop.set()

    def stop_now(self) -> None:
        """The operator wants no motion at all: stop and leave it at that."""
        self._at_once.set()
        self._stop.set()

    @property
    def ended_well(self) -> bool:
        """Parked after the whole window."""
        return self._pass.state is State.PARKED and not self._stop.is_set() and not self.status.alarms

    def run(self) -> None:
        """The whole pass, in order."""
        try:
            self._fly()
        except _Ended as end:
            self._advance(end.event, str(end))
        except Exception as error:  # also what nobody foresaw ends with the mount at rest
            self._alarm(str(error) if isinstance(error, GroundStationError) else f"{type(error).__name__}: {error}")
            self._advance(Event.FAILED, str(error))
        finally:
            self._secure()

    def _fly(self) -> None:
        self._advance(Event.PLANNED, f"pass planned from {utc_text(self._plan.start_utc_ns)}")
        self._advance(Event.CHECK_STARTED, "instruments are checked")
        for name, detector in self._detectors.items():
            self._turn()
            detector.set_temperature_setpoint_c(self._plan.detector_temperature_c)
            detector.switch_cooling(True)
            detector.set_bias_v(self._plan.detector_bias_v)
            self._logbook.event("command", f"detector {name}: bias {self._plan.detector_bias_v} V")
        self._asked(self._following.load)
        self._advance(Event.CHECKED, f"instruments answer; the mount follows by {self._mount.capabilities.follows}")
        azimuth, elevation = self._plan.path.at(np.array([self._plan.start_utc_ns]))
        self._go_to(float(azimuth[0]), float(elevation[0]))
        self._advance(Event.ON_TARGET, "on target, waiting for the satellite")
        self._await_cold()
        self._asked(self._following.begin)
        while self._clock.utc_ns() < self._plan.start_utc_ns:
            self._turn()
            self._read(self._asked(self._mount.read_position))
            self._pause(monotonic_s())
        self._advance(Event.STARTED, "tracking")
        self._track()
        self._advance(Event.WINDOW_OVER, "the window is over")

    def _track(self) -> None:
        """A lost link does not end the pass: it is made again, and following begins anew.

        Meanwhile the guard hears no heartbeat, so it stops a mount that would turn for ever.
        """
        watch, told, begun = PointingWatch(self._following.too_large_arcsec), "", True
        while self._clock.utc_ns() < self._plan.stop_utc_ns:
            began_s = monotonic_s()
            self._turn(steering=not self._reach.down)
            error_arcsec = None
            try:
                if not begun:
                    self._following.begin()
                    begun = True
                error_arcsec = self._steer()
            except LINK_ERRORS as error:
                self._reach.failed(error)
            else:
                begun = self._reach.answered() <= _LOOP_GOOD_FOR_S
            if sentence := watch.feed(error_arcsec):
                self._alarm(sentence, told)
                told = sentence
            self._pause(began_s)

    def _asked(self, question: Callable[[], T], give_up: bool = True) -> T:
        """The mount's answer, also when its link has to be made again first."""
        while True:
            try:
                answer = question()
            except LINK_ERRORS as error:
                began_s = monotonic_s()
                self._reach.failed(error)
                self._turn(give_up, steering=False)
                self._pause(began_s)
                continue
            self._reach.answered()
            return answer

    def _steer(self) -> float | None:
        """One turn: read, correct, write it down. The pointing error, if the reading tells one."""
        reading = self._mount.read_position()
        known_to_arcsec = reading.uncertainty_s * self._path_rate_arcsec_s(reading)
        used = known_to_arcsec <= self._following.reading_good_to_arcsec
        command = self._following.turn(self._clock.utc_ns(), reading, used)
        error = math.hypot(command.error_azimuth_arcsec, command.error_elevation_arcsec)
        self._logbook.mount(
            reading.utc_ns,
            reading.azimuth_deg,
            reading.elevation_deg,
            reading.uncertainty_s,
            command.azimuth_arcsec_s,
            command.elevation_arcsec_s,
            error,
            used,
        )
        self._read(reading, error if used else None)
        return error if used else None

    def _path_rate_arcsec_s(self, reading: MountReading) -> float:
        azimuth, elevation = self._plan.path.rates_at(np.array([reading.utc_ns]))
        across = float(azimuth[0]) * math.cos(math.radians(reading.elevation_deg))
        return 3600.0 * math.hypot(across, float(elevation[0]))

    def _go_to(self, azimuth_deg: float, elevation_deg: float, give_up: bool = True) -> None:
        """Slew and wait for it; `give_up`: on a stop request."""
        deadline_ns = self._clock.utc_ns() + round(_SLEW_TIMEOUT_S * NS_PER_S)
        while True:
            outages = self._reach.outages
            self._asked(lambda: self._mount.go_to(azimuth_deg % 360.0, elevation_deg), give_up)
            self._await_arrival(deadline_ns, give_up)
            if outages == self._reach.outages:
                break  # else the guard may have stopped it while nobody could
        self._verify_arrival(azimuth_deg, elevation_deg)

    def _await_arrival(self, deadline_ns: int, give_up: bool) -> None:
        while self._asked(self._mount.is_slewing, give_up):
            began_s = monotonic_s()
            self._turn(give_up)
            self._read(self._asked(self._mount.read_position, give_up))
            if self._clock.utc_ns() > deadline_ns:
                raise InstrumentFault(
                    f"the mount is still slewing after {_SLEW_TIMEOUT_S:.0f} s; look at it before you go on"
                )
            self._pause(began_s)

    def _await_cold(self) -> None:
        """Wait for the coolers while there is time; a warm or silent detector is an alarm, not a reason to stop."""
        deadline_ns = min(self._clock.utc_ns() + round(_COOLING_TIMEOUT_S * NS_PER_S), self._plan.start_utc_ns)
        for name, detector in self._detectors.items():
            try:
                while abs(detector.temperature_c() - self._plan.detector_temperature_c) > _COOL_WITHIN_C:
                    self._turn()
                    if self._clock.utc_ns() > deadline_ns:
                        self._alarm(f"detector {name} is at {detector.temperature_c():.1f} C, too warm")
                        break
                    sleep_wall_s(_SHORTEST_PERIOD_WALL_S)
            except GroundStationError as error:
                self._alarm(f"detector {name}: {error}")

    def _turn(self, give_up: bool = True, steering: bool = True) -> None:
        """Once in every turn of every loop. The guard hears of it only while the mount can be steered."""
        if steering:
            self._heartbeat()
        if self._logbook.failure and not self._log_lost:
            self._log_lost = True
            self._alarm(f"the log of this pass can no longer be written: {self._logbook.failure}")
        if self._at_once.is_set():
            raise _Ended(Event.OPERATOR_STOP, "stopped at once by the operator")
        if give_up and self._stop.is_set():
            raise _Ended(Event.OPERATOR_STOP, "stopped by the operator")
        if give_up and (reason := self._unsafe()):
            self._alarm(reason)
            raise _Ended(Event.UNSAFE, reason)

    def _pause(self, began_s: float) -> None:
        period_s = max(self._plan.tracking_period_s / self._clock.speed, _SHORTEST_PERIOD_WALL_S)
        sleep_wall_s(began_s + period_s - monotonic_s())

    def _secure(self) -> None:
        """Rate zero, then parked and verified, then bias off, whatever happened before."""
        try:
            self.stands_still = stop_and_verify(self._mount)
            if not self.stands_still:
                self._alarm("the mount does not stand still after the stop command; stop it by hand")
            self.tracking_over.set()
            if self._at_once.is_set() or not self.stands_still or not self._pass.accepts(Event.PARK_STARTED):
                return
            self._advance(Event.PARK_STARTED, "parking")
            self._go_to(self._plan.park_azimuth_deg, self._plan.park_elevation_deg, give_up=False)
            self._advance(Event.PARKED, "parked")
        except Exception as error:  # whatever it was, the mount must not be left in motion
            self._alarm(f"not parked: {error}")
            self._advance(Event.FAILED, str(error))
            self.stands_still = stop_and_verify(self._mount)
        finally:
            self.tracking_over.set()
            self._bias_off()

    def _bias_off(self) -> None:
        """Every detector is tried; one that does not obey is an alarm."""
        for name, detector in self._detectors.items():
            try:
                self._insist(partial(detector.set_bias_v, 0.0))
                self._logbook.event("command", f"detector {name}: bias off")
            except GroundStationError as error:
                self._alarm(f"detector {name} keeps its bias: {error}")

    def _insist(self, command: Callable[[], None]) -> None:
        """Repeat a command that may be repeated while its link is down."""
        deadline_s = monotonic_s() + _BIAS_OFF_PATIENCE_S
        while True:
            try:
                return command()
            except LINK_ERRORS:
                if monotonic_s() > deadline_s:
                    raise
                sleep_wall_s(_SHORTEST_PERIOD_WALL_S)

    def _verify_arrival(self, azimuth_deg: float, elevation_deg: float) -> None:
        """The end of motion proves nothing: the encoders must say that this is the place."""
        reading = self._mount.read_position()
        self._read(reading)
        turned = (reading.azimuth_deg - azimuth_deg + 180.0) % 360.0 - 180.0
        off_deg = max(abs(turned), abs(reading.elevation_deg - elevation_deg))
        if off_deg > self._mount.capabilities.tolerance_deg:
            raise InstrumentFault(
                f"the mount says that it arrived but stands at azimuth {reading.azimuth_deg:.3f}, elevation "
                f"{reading.elevation_deg:.3f} deg instead of {azimuth_deg % 360.0:.3f}, {elevation_deg:.3f}"
            )

    def _read(self, reading: MountReading, error_arcsec: float | None = None) -> None:
        self.status = replace(
            self.status,
            azimuth_deg=reading.azimuth_deg,
            elevation_deg=reading.elevation_deg,
            # A reading whose time is too uncertain tells no error: the last one that did stays.
            pointing_error_arcsec=self.status.pointing_error_arcsec if error_arcsec is None else error_arcsec,
            read_at_s=monotonic_s(),
        )

    def _advance(self, event: Event, sentence: str) -> None:
        self.status = replace(self.status, state=self._pass.advance(event))
        self._logbook.event("state", sentence, state=str(self.status.state))

    def _alarm(self, sentence: str, instead_of: str = "") -> None:
        """Show and write down; `instead_of`: the sentence that it follows up."""
        others = tuple(alarm for alarm in self.status.alarms if alarm != instead_of)
        self.status = replace(self.status, alarms=(*others, sentence))
        self._logbook.event("alarm", sentence)


class _Ended(Exception):
    """The pass ends early, in order."""

    def __init__(self, event: Event, sentence: str) -> None:
        super().__init__(sentence)
        self.event = event
