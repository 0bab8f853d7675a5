"""Single Quantum Eos or Atlas: superconducting nanowire detectors behind the WebSQ control server.

Two TCP connections. Control (12000) talks in JSON objects: ours stand bare, the server's end with 0x17 (ETB), may be
glued (`}{`) and come unasked whenever a value changes. Counts (12345) are a line of comma-separated numbers per
measurement period: Unix time, channel 1, channel 2, ... Source: the vendor's client `WebSQControl.py`.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from drivers.json_stream import JsonSplitter
from drivers.latching import latched, silence_s
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import Link, open_link
from drivers.websq_messages import (
    BIAS,
    COUNT,
    ENABLE,
    PERIOD,
    REQUEST_ALL,
    SHORTEST_PERIOD_MS,
    TRIGGER,
    command,
    number,
    numbers,
    parse_counts,
    parse_message,
)
from groundstation.clock import NS_PER_S, Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, NanowireDetector, Settings

V = TypeVar("V")

DRIVER = DriverDescription(
    instrument="Single Quantum Eos or Atlas (WebSQ)",
    capability="nanowires",
    schemes=("tcp",),
    documentation=(
        "the vendor's client only, no protocol document: labels, commands and their form are known; ranges, error "
        "texts and the meaning of a counts line while the period changes are not. A latch shows as silence only. "
        "IV scans and the newer Retina (HTTP and websocket) are not supported"
    ),
)

_SETTLE_S = 1.0  # world time in which a setting must read back
_AUTO_BIAS_BEGINS_S = 1.0  # world time; the vendor's client waits as long before it believes that it is over
_POLL_S = 0.02
_QUIET_S = 0.05  # wall time without a byte after which nothing late is expected


@dataclass(frozen=True)
class WebSqSettings(LinkSettings):
    """Settings of the station file.

    `dark_hz`: the least that a healthy, biased wire counts in the dark; `latch_bias_ua`: below it a wire is not
    called latched; `latch_false_alarm`: the chance to call a healthy wire latched.
    """

    counts_port: int = 12345
    max_bias_ua: float | None = None
    bias_tolerance_ua: float = 0.05
    trigger_tolerance_mv: float = 0.5
    dark_hz: float = 20.0
    latch_bias_ua: float = 1.0
    latch_false_alarm: float = 1e-6
    reset_off_s: float = 0.5
    auto_bias_s: float = 120.0


class WebSq:
    """A `NanowireDetector`. All calls may raise TransportTimeout, TransportLost and WireError.

    Whatever call first sees an error message of the instrument raises it as InstrumentFault.
    """

    def __init__(self, link: Link, counts_link: Callable[[], Link], clock: Clock, settings: WebSqSettings) -> None:
        """`counts_link` opens a fresh connection to the stream of counts."""
        self._link, self._open_counts, self._clock, self._settings = link, counts_link, clock, settings
        self._splitter = JsonSplitter()
        self._values: dict[str, object] = {}
        self._channels: int | None = None
        self._heard = False
        self._counting = threading.RLock()
        self._counts: Link | None = None

    @property
    def channels(self) -> int:
        return self._channels or 0

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        try:
            found = int(number(self._fresh(COUNT), COUNT))
        except (WireError, TransportTimeout) as error:
            if self._channels is not None or not self._heard:
                raise
            raise WrongInstrument(
                f"{self._link.address} answers, but not like a WebSQ server ({error}); check the address"
            ) from error
        if found < 1 or found != (self._channels or found):
            raise WrongInstrument(
                f"{self._link.address} has {found} detectors now, expected {self._channels or 'some'}; check the plugs"
            )
        self._channels = found
        return Identity(f"Single Quantum WebSQ with {found} detectors")

    def bias_ua(self, channel: int) -> float:
        index = self._index(channel)
        return self._list(BIAS)[index]

    def set_bias_ua(self, channel: int, bias_ua: float) -> None:
        """Raises BadInput above the station's limit, InstrumentFault when it does not read back."""
        self._check_limit(bias_ua)
        self._set_one(channel, "SetAllBiasCurrents", BIAS, bias_ua, self._settings.bias_tolerance_ua, "uA")

    def trigger_mv(self, channel: int) -> float:
        index = self._index(channel)
        return self._list(TRIGGER)[index]

    def set_trigger_mv(self, channel: int, trigger_mv: float) -> None:
        """Raises InstrumentFault when it does not read back."""
        if not math.isfinite(trigger_mv):
            raise BadInput(f"a trigger level of {trigger_mv} mV is none; give a number")
        self._set_one(channel, "SetAllTriggerLevels", TRIGGER, trigger_mv, self._settings.trigger_tolerance_mv, "mV")

    def is_enabled(self) -> bool:
        """Whether the bias is on at all, for all channels."""
        if not isinstance(state := self._fresh(ENABLE), bool):
            raise WireError(f"{ENABLE} is {str(state)[:60]}, expected true or false")
        return state

    def enable(self, on: bool) -> None:
        """Switch the bias of all channels. Raises InstrumentFault when it does not read back."""
        with self._link.exchange():
            self._send(command(ENABLE, on, ENABLE))
            self._settle(self.is_enabled, lambda found: found is on, f"{ENABLE} {on}")

    def counts(self, integration_s: float) -> tuple[int, ...]:
        """Sets the measurement period (whole ms, 10 or more) and waits for one that has begun after that.

        Not repeated. Raises BadInput and, when the period does not read back, InstrumentFault.
        """
        period_ms = round(integration_s * 1000.0) if 0.0 <= integration_s < 1e9 else 0
        if period_ms < SHORTEST_PERIOD_MS:
            raise BadInput(f"an integration of {integration_s} s is too short or none; the shortest is 0.01 s")
        with self._counting:
            changed = self._set_period(period_ms)
            # The first line began before we came; after a change, so may the one that the next took over from.
            return self._fresh_line(2 if changed else 1, period_ms / 1000.0)

    def latched(self, channel: int) -> bool:
        """True for a biased wire that stays silent longer than chance allows (see `drivers.latching`)."""
        index, chosen = self._index(channel), self._settings
        if abs(self.bias_ua(channel)) < chosen.latch_bias_ua or not self.is_enabled():
            return False
        needed_ms = math.ceil(1000 * silence_s(chosen.dark_hz, chosen.latch_false_alarm))
        integration_s = max(SHORTEST_PERIOD_MS, needed_ms) / 1000.0
        counted = self.counts(integration_s)[index]
        return latched(counted, integration_s, chosen.dark_hz, chosen.latch_false_alarm)

    def reset(self, channel: int) -> None:
        """Bias to 0, wait `reset_off_s` (world time), and back. InstrumentFault when the wire is latched still.

        When it fails on the way the bias may stay at 0.
        """
        bias_ua = self.bias_ua(channel)
        if abs(bias_ua) < self._settings.latch_bias_ua:
            raise InstrumentFault(f"channel {channel} at {self._link.address} has no bias to cycle; set one first")
        self._check_limit(bias_ua)  # else it could not come back
        self.set_bias_ua(channel, 0.0)
        self._clock.sleep_s(self._settings.reset_off_s)
        self.set_bias_ua(channel, bias_ua)
        if self.latched(channel):
            raise InstrumentFault(
                f"channel {channel} at {self._link.address} stays silent at {bias_ua:g} uA after its bias was cycled; "
                "lower the bias or the light"
            )

    def auto_bias(self, dark_counts: Sequence[float]) -> tuple[float, ...]:
        """Let it search the bias at which each dark wire gives so many counts per period; tell what it found, in uA.

        Raises InstrumentFault when it takes longer than `auto_bias_s` (world time). No light may fall on the wires.
        """
        if len(dark_counts) != self.channels or not all(0.0 < value < math.inf for value in dark_counts):
            raise BadInput(f"{list(dark_counts)} are no dark counts of {self.channels} channels; give one above 0 each")
        with self._link.exchange():
            self._send(command("DarkCountsAutoIV", [float(value) for value in dark_counts], "DarkCountsAutoIV"))
            self._send(command("AutoCaliBiasCurrents", True))
        began_ns, seen = self._clock.utc_ns(), False
        while True:
            running = self._fresh("StartAutoIV")
            seen = seen or running is True
            elapsed_s = (self._clock.utc_ns() - began_ns) / NS_PER_S
            if running is False and (seen or elapsed_s > _AUTO_BIAS_BEGINS_S):
                return numbers(self._fresh("BiasCurrentAutoIV"), "BiasCurrentAutoIV", self.channels)
            if elapsed_s > self._settings.auto_bias_s:
                raise InstrumentFault(f"{self._link.address} still searches its bias; wait longer (auto_bias_s)")
            self._clock.sleep_s(0.1)

    def close(self) -> None:
        """Give the links back; changes nothing. Idempotent."""
        if counts := self._counts:
            counts.close()
        self._link.close()

    # ---- settings

    def _check_limit(self, bias_ua: float) -> None:
        limit = self._settings.max_bias_ua
        if not math.isfinite(bias_ua) or (limit is not None and abs(bias_ua) > limit):
            raise BadInput(f'a bias of {bias_ua} uA is beyond the limit "max_bias_ua" = {limit}; nothing was set')

    def _index(self, channel: int) -> int:
        if not 1 <= channel <= self.channels:
            raise BadInput(f"there is no channel {channel} at {self._link.address}; it has 1 to {self.channels}")
        return channel - 1

    def _list(self, label: str) -> tuple[float, ...]:
        return numbers(self._fresh(label), label, self.channels)

    def _set_one(self, channel: int, name: str, label: str, value: float, tolerance: float, unit: str) -> None:
        """All channels are set at once, the others to what they have."""
        index = self._index(channel)
        with self._link.exchange():
            wanted = list(self._list(label))
            wanted[index] = value
            self._send(command(name, wanted, label))
            self._settle(
                lambda: self._list(label),
                lambda found: all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True)),
                f"{label} {value:g} {unit} of channel {channel}",
            )

    def _set_period(self, period_ms: int) -> bool:
        """True when it was another one."""
        with self._link.exchange():
            if number(self._fresh(PERIOD), PERIOD) == period_ms:
                return False
            self._send(command("SetMeasurementPeriod", period_ms, PERIOD))
            self._settle(
                lambda: number(self._fresh(PERIOD), PERIOD),
                lambda found: found == period_ms,
                f"{PERIOD} {period_ms} ms",
            )
            return True

    def _settle(self, read: Callable[[], V], reached: Callable[[V], bool], what: str) -> None:
        deadline = monotonic_s() + max(_SETTLE_S / self._clock.speed, 5 * _POLL_S)
        while True:
            asked_s = monotonic_s()
            if reached(found := read()):
                return
            if asked_s > deadline:
                raise InstrumentFault(
                    f"{self._link.address} refused {what}: it reads back {found}; choose a value in its range"
                )
            sleep_wall_s(_POLL_S)

    def _fresh_line(self, skip: int, period_s: float) -> tuple[int, ...]:
        timeout_s = (skip + 1) * period_s / self._clock.speed + self._link.timeout_s
        deadline = monotonic_s() + timeout_s
        self._counts = link = self._open_counts()
        try:
            for _ in range(skip):
                link.read_until(b"\n", max(0.0, deadline - monotonic_s()))
            return parse_counts(link.read_until(b"\n", max(0.0, deadline - monotonic_s())), self.channels)
        finally:
            self._counts = None
            link.close()

    # ---- control connection

    def _send(self, message: bytes) -> None:
        self._get_ready()
        self._absorb(0.0)  # what was garbled before concerns nobody
        self._link.write(message)

    def _fresh(self, label: str, attempts: int = 2) -> object:
        """The value of a label as told after the question; asked once more, in step again, when that failed."""
        with self._link.exchange():
            try:
                self._send(REQUEST_ALL)
                self._values.pop(label, None)
                deadline = monotonic_s() + self._link.timeout_s
                while label not in self._values:
                    if (left := deadline - monotonic_s()) <= 0.0:
                        self._link.mark_silent()
                        raise TransportTimeout(f"{self._link.address} does not tell its {label}; check that it is on")
                    if not self._absorb(left):
                        raise WireError(f"{self._link.address} sent what is no JSON object; check the network")
                return self._values[label]
            except (TransportTimeout, WireError):
                self._link.mark_in_step(False)
                if attempts <= 1:
                    raise
            return self._fresh(label, attempts - 1)

    def _absorb(self, wait_s: float) -> bool:
        """Take in what has come, the first of it within `wait_s`; False when some of it was garbled."""
        data, complaints = self._link.read_available(wait_s), []
        self._heard = self._heard or bool(data)
        broken = self._splitter.broken
        for text in self._splitter.feed(data):
            try:
                message = parse_message(text)
            except WireError:
                broken -= 1
                continue
            self._values[message.label] = message.value
            if message.complaint:
                complaints.append(message.complaint)
        if complaints:
            raise InstrumentFault(f"{self._link.address} complains: {'; '.join(complaints)}")
        return self._splitter.broken == broken

    def _get_ready(self) -> None:
        if self._link.lost:
            self._splitter = JsonSplitter()
            self._link.reconnect(self.identify)
        if not self._link.in_step:
            deadline = monotonic_s() + self._link.timeout_s
            while data := self._link.read_available(_QUIET_S):
                self._splitter.feed(data)  # late answers; each says what it is, but they are old
                if monotonic_s() > deadline:
                    break
            self._link.mark_in_step()


def connect(address: str, clock: Clock, settings: Settings) -> NanowireDetector:
    """Connect to `tcp://HOST:12000`; it must tell how many detectors it has. Integrations take world time."""
    positive = ("timeout_s", "bias_tolerance_ua", "trigger_tolerance_mv", "reset_off_s", "auto_bias_s")
    chosen = parse_settings(WebSqSettings, settings, "nanowires_websq", positive)
    silence_s(chosen.dark_hz, chosen.latch_false_alarm)
    counts_log = chosen.log.with_name(chosen.log.name + ".counts") if chosen.log else None

    def counts_link() -> Link:
        host = urlsplit(address).hostname or ""
        host = f"[{host}]" if ":" in host else host
        return open_link(f"tcp://{host}:{chosen.counts_port}", timeout_s=chosen.timeout_s, log=counts_log)

    detector = WebSq(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), counts_link, clock, chosen)
    with closed_on_error(detector):
        detector.identify()
    return detector
