"""Thorlabs rotation stage (K10CR1; PRM1Z8 on a KDC101 or TDC001) by the APT binary protocol, 115200 baud.

The device also sends messages unasked (move completed, homed, stopped), which are counted and skipped. The messages and
their sources: `apt_messages`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from drivers import apt_messages as apt
from drivers.apt_messages import Message, StageInfo, StageStatus
from drivers.settings import LinkSettings, closed_on_error, parse_settings, require_positive
from drivers.transport import Link, open_link
from groundstation.clock import NS_PER_S, Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Rotator, Settings

DRIVER = DriverDescription(
    instrument="Thorlabs rotation stage (K10CR1, PRM1Z8 on KDC101 or TDC001), APT protocol",
    capability="rotator",
    schemes=("serial", "tcp"),
    documentation="Thorlabs' APT protocol document as pyLabLib and thorlabs-apt-protocol implement it. Not done: the "
    "toggle of RTS that pyLabLib opens with, for the transport leaves modem lines alone (use a TCP bridge that toggles "
    "if a stage stays silent); rack systems; the polarisation controller MPC320",
    tested_with="our simulator; its messages are those of the codec thorlabs-apt-protocol 29.0.0",
)

_BAUD = 115200
_WRITE_GAP_S = 0.003  # pyLabLib; wall time
_TAIL_S = 0.004  # a byte too many follows within this
_QUIET_S = 0.05
_POLL_S = 0.02
_BEGINS_WITHIN_S = 2.0  # world time in which a motion must show
_STOPS_WITHIN_S = 5.0


@dataclass(frozen=True)
class AptSettings(LinkSettings):
    """`stage`: "K10CR1" or "PRM1Z8", for a controller that does not say what hangs on it, or `counts_per_deg` for any
    other. `require_home`: refuse to turn to an angle before the reference mark was found. `tolerance_deg`: at the
    angle when so close."""

    timeout_s: float = 2.0
    stage: str | None = None
    counts_per_deg: float | None = None
    require_home: bool = True
    tolerance_deg: float = 0.01


class AptRotator:
    """A rotation stage: a `Rotator`. All calls may raise TransportTimeout, TransportLost and WireError.

    A call on a lost link first tries to make it again, once; a motion is not commanded again. Angles count from the
    reference mark and are not wrapped.
    """

    def __init__(self, link: Link, clock: Clock, settings: AptSettings) -> None:
        self._link, self._clock, self._settings = link, clock, settings
        self._info: StageInfo | None = None
        self._counts_per_deg = settings.counts_per_deg or 1.0
        self._target: int | None = None
        self._written_s = 0.0
        self._homed_seen = False
        self.skipped: dict[int, int] = {}
        """How often each message came unasked."""

    def identify(self) -> Identity:
        """Raises WrongInstrument when it is no stage whose counts per degree are known."""
        with self._link.exchange():
            info = self._resynchronise()
            self._counts_per_deg = self._scale(info)
            self._info = info
        return Identity(f"Thorlabs {info.model}", firmware=info.firmware, serial=str(info.serial))

    def angle_deg(self) -> float:
        return self._status().position / self._counts_per_deg

    def angle_error_deg(self) -> float | None:
        """How far the stage is from where it was last told to go; None when it was not told to go anywhere."""
        target, position = self._target, self._status().position
        return None if target is None else (position - target) / self._counts_per_deg

    def go_to(self, angle_deg: float) -> None:
        """Raises BadInput for an angle that the counter cannot hold, InstrumentFault when it does not begin to turn."""
        counts = round(angle_deg * self._counts_per_deg) if math.isfinite(angle_deg) else 1 << 31
        if not -(1 << 31) <= counts < 1 << 31:
            limit_deg = ((1 << 31) - 1) / self._counts_per_deg
            raise BadInput(f"the stage cannot turn to {angle_deg} deg; give an angle of at most {limit_deg:.0f} deg")
        with self._link.exchange():
            if self._settings.require_home and not self._status().bits & apt.IS_HOMED:
                raise InstrumentFault(f"the stage at {self._link.address} does not know its zero; home it first")
            self._write(apt.move_request(counts))
            self._target = counts
            near = abs(self._settings.tolerance_deg * self._counts_per_deg) + 1
            self._wait_for(lambda status: self._turns(status) or abs(status.position - counts) <= near, "turn")

    def is_moving(self) -> bool:
        """Also while it looks for its reference mark. Raises InstrumentFault when the stage is in trouble."""
        status = self._status()
        if found := apt.troubles(status.bits):
            raise InstrumentFault(f"the stage at {self._link.address} reports: {found}; look at it before it is used")
        return self._turns(status)

    def home(self) -> None:
        """Raises InstrumentFault when it does not begin."""
        with self._link.exchange():
            self._get_ready()
            self._homed_seen, self._target = False, None
            self._write(apt.short_message(apt.HOME, apt.CHANNEL))
            self._wait_for(lambda status: self._turns(status) or self._homed_seen, "home")

    def stop(self) -> None:
        """Slow down and stand still. Raises InstrumentFault when it still turns 5 s (world time) later."""
        with self._link.exchange():
            self._get_ready()
            self._target = None
            self._write(apt.short_message(apt.STOP, apt.CHANNEL, 2))
            self._wait_for(lambda status: not self._turns(status), "stop", _STOPS_WITHIN_S)

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._link.close()

    def _scale(self, info: StageInfo) -> float:
        if self._settings.counts_per_deg is not None:
            return self._settings.counts_per_deg
        stage = self._settings.stage
        if stage is None:
            servo = info.model.startswith(apt.SERVOS) and info.stage == apt.PRM1Z8
            models = ("PRM1Z8",) if servo else tuple(apt.COUNTS_PER_DEG)
            stage = next((name for name in models if servo or info.model.startswith(name)), "")
        if stage not in apt.COUNTS_PER_DEG:
            raise WrongInstrument(
                f"{self._link.address} is a {info.model!r} with stage {info.stage}, expected a K10CR1 or a PRM1Z8; "
                'check the address, or set "stage" or "counts_per_deg"'
            )
        return apt.COUNTS_PER_DEG[stage]

    def _status(self) -> StageStatus:
        """Asked once more, in step again, when that failed."""
        with self._link.exchange():
            try:
                return self._ask_status()
            except (TransportTimeout, WireError):
                self._link.mark_in_step(False)
            return self._ask_status()

    def _ask_status(self) -> StageStatus:
        self._get_ready()
        stepper = self._info is None or not self._info.model.startswith(apt.SERVOS)
        question, answer = (
            (apt.ASK_STEPPER_STATUS, apt.STEPPER_STATUS) if stepper else (apt.ASK_SERVO_STATUS, apt.SERVO_STATUS)
        )
        return apt.parse_status(self._ask(apt.short_message(question, apt.CHANNEL), answer))

    def _turns(self, status: StageStatus) -> bool:
        return bool(status.bits & (apt.MOVING | apt.HOMING))

    def _wait_for(self, done: Callable[[StageStatus], bool], what: str, within_s: float = _BEGINS_WITHIN_S) -> None:
        """Until the status shows it: world time, but not less than some exchanges."""
        deadline_ns = self._clock.utc_ns() + round(within_s * NS_PER_S)
        for attempt in range(1 << 30):
            status = self._status()
            if done(status):
                return
            if self._clock.utc_ns() > deadline_ns and attempt >= 3:
                found = apt.troubles(status.bits) or "it reports no trouble"
                raise InstrumentFault(
                    f"the stage at {self._link.address} does not {what} within {within_s:g} s: {found}"
                )
            sleep_wall_s(_POLL_S)

    def _write(self, message: bytes) -> None:
        sleep_wall_s(self._written_s + _WRITE_GAP_S - monotonic_s())
        self._link.write(message)
        self._written_s = monotonic_s()

    def _ask(self, question: bytes, answer: int) -> bytes:
        """The data of the answer. What is there already was not asked for."""
        try:
            messages, _ = self._messages_in(self._link.read_available(0.0))
            self._pick(messages, -1)
            self._write(question)
            deadline, rest, found = monotonic_s() + self._link.timeout_s, b"", None
            while found is None:
                came = self._link.read_available(max(0.0, deadline - monotonic_s()))
                if not came and monotonic_s() >= deadline:
                    self._time_out(rest)
                messages, rest = self._messages_in(rest + came)
                found = self._pick(messages, answer)
            if rest or (rest := self._link.read_available(_TAIL_S)):
                self._check_tail(rest)
        except WireError:
            self._link.mark_in_step(False)
            raise
        return found.data

    def _time_out(self, rest: bytes) -> NoReturn:
        self._link.mark_silent()
        raise TransportTimeout(
            f"{self._link.address} did not answer in time ({len(rest)} bytes of a message came); check that the stage "
            "is on and the address right"
        )

    def _pick(self, messages: list[Message], answer: int) -> Message | None:
        found = None
        for message in messages:
            if message.number == answer and found is None:
                found = message
            else:
                self._skip(message)
        return found

    def _check_tail(self, rest: bytes) -> None:
        """WireError unless whole messages follow: a byte too many would mean that one was doubled in the answer."""
        while True:
            messages, rest = self._messages_in(rest)
            for message in messages:
                self._skip(message)
            if not rest:
                return
            more = self._link.read_available(_QUIET_S)
            if not more:
                raise WireError(
                    f"the stage's answer is {len(rest)} bytes too long ({rest[:20].hex(' ')}); check the cable"
                )
            rest += more

    def _messages_in(self, received: bytes) -> tuple[list[Message], bytes]:
        messages: list[Message] = []
        while True:
            message, received = apt.split_message(received)
            if message is None:
                return messages, received
            messages.append(message)

    def _skip(self, message: Message) -> None:
        self.skipped[message.number] = self.skipped.get(message.number, 0) + 1
        self._homed_seen |= message.number == apt.HOMED
        if message.number in (apt.COMPLAINT, apt.RICH_COMPLAINT):
            text = message.data[4:].partition(b"\0")[0].decode("ascii", "replace") or "no reason given"
            raise InstrumentFault(f"the stage at {self._link.address} complains: {text}")

    def _get_ready(self) -> None:
        """A link on which the next message of the right kind answers the next question."""
        if self._link.lost:
            self._link.reconnect(self.identify)
        if not self._link.in_step:
            self._resynchronise()

    def _resynchronise(self) -> StageInfo:
        """Silence its updates, wait for silence, and ask who it is. Raises WrongInstrument when it is another one."""
        deadline = monotonic_s() + self._link.timeout_s
        self._link.flush_input()
        self._write(apt.short_message(apt.STOP_UPDATES))
        while True:
            while self._link.read_available(_QUIET_S):
                if monotonic_s() > deadline:
                    raise WireError(f"{self._link.address} does not stop sending; check that it is a rotation stage")
            try:
                info = apt.parse_info(self._ask(apt.short_message(apt.ASK_INFO), apt.INFO))
                break
            except WireError as error:
                if monotonic_s() > deadline:
                    raise WrongInstrument(f"{self._link.address} does not answer as a stage: {error}") from error
        known = self._info or info
        if (info.model, info.serial) != (known.model, known.serial):
            raise WrongInstrument(
                f"{self._link.address} now answers as {info.model} {info.serial}, it was {known.model} {known.serial}; "
                "check the plugs"
            )
        self._link.mark_in_step()
        return info


def connect(address: str, clock: Clock, settings: Settings) -> Rotator:
    """Connect and identify the stage; `clock` is the world time in which it turns."""
    driver = "rotator_apt"
    chosen = parse_settings(AptSettings, settings, driver, ("timeout_s", "tolerance_deg"))
    if chosen.counts_per_deg is not None:
        require_positive(chosen.counts_per_deg, "counts_per_deg", driver)
    if chosen.stage is not None and chosen.stage not in apt.COUNTS_PER_DEG:
        raise BadInput(
            f'setting "stage" of driver {driver} is "{chosen.stage}"; it must be one of {list(apt.COUNTS_PER_DEG)}'
        )
    link = open_link(address, timeout_s=chosen.timeout_s, baud=_BAUD, log=chosen.log)
    rotator = AptRotator(link, clock, chosen)
    with closed_on_error(rotator):
        rotator.identify()
    return rotator
