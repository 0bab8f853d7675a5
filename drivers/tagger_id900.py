"""IDQ ID900/ID1000 Time Controller: SCPI over ZeroMQ, tags through IDQ's DataLinkTarget service.

The device pushes the tags of each channel to the service, which passes them on as one ZeroMQ stream per channel, one
message for each sub-acquisition. The wire format from device to service is not published, so without the service there
are only counters and histograms. How the messages become absolute times: `id900_protocol.SubAcquisitions`.
Sources: IDQ Time Controller Python examples (`utils/common.py`, `utils/acquisitions.py`, merge on the fly);
Time Controller Series User Manual, the pages that are in the reference; for the texts of answers, the range of
integration times and the steps of thresholds MSLNZ/pr-single-photons, `photons/equipment/idq_time_controller.py`.
"""

import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from drivers import id900_protocol as protocol
from drivers.id900_protocol import LinkStatus, SubAcquisitions, Times
from drivers.settings import LinkSettings, parse_settings, require_positive
from drivers.transport import open_messages
from drivers.transport.addresses import host_and_port
from drivers.transport.messages import MessageLink
from groundstation.clock import Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, TransportTimeout, WireError
from groundstation.instruments import DriverDescription, Identity, PatternBlock, Settings, TimeTagger

DRIVER = DriverDescription(
    instrument="IDQ ID900, ID1000 Time Controller",
    capability="tagger",
    schemes=("zmq",),
    documentation="IDQ's Python examples, and the manual in part (its SCPI pages 78-87 and 89 were not at hand). Tags "
    "need IDQ's DataLinkTarget service. What an input without a single tag sends in a period is not documented: times "
    "are refused then. Between sub-acquisitions it is blind, 0.4 us every 0.25 s, which is not corrected for. Firmware "
    "with TSST# commands is refused.",
    tested_with="our simulator, and a far end that speaks ZeroMQ by hand; never a device or IDQ's service",
    inputs=4,
)

T = TypeVar("T")
_INPUTS = (1, 2, 3, 4)
_PS_PER_S = 1_000_000_000_000
_SHORTEST_S = 0.2  # a sub-acquisition must be longer (IDQ's example)
_LONGEST_S = 4.0  # the recorder takes a tagger for gone when it does not tell the time for 5 s
_LEAST_DEAD_PS = 40_000
_MOST_DELAY_PS = 4_000_000  # longer ones are unsafe at high rates
_MOST_BINS = 16_383
_VOLTS_APART = 0.02  # a threshold is set by a DAC; 1 V read back as 0.999424 V from an ID900 of MSL
_SETTLED_SHARE = 1 / 8  # of a period: so close together come the messages of one period
_PATIENCE_PERIODS, _PATIENCE_S = 2, 1.0
_POLL_S = 0.05
_MOST_COUNTING_MS = 65_535
#: Names of errors as IDQ's multi-device example and MSL's client find them in answers; a link to nothing is refused so.
_REFUSAL = re.compile(rb"SCPI_ERR_|\bERROR\b|No connection", re.IGNORECASE)


@dataclass(frozen=True)
class InputSettings:
    """One input; what is absent stays as it is on the device. `source`: a generator (GEN1 to GEN4) in its place."""

    threshold_v: float | None = None
    edge: str | None = None
    coupling: str | None = None
    delay_ps: int = 0
    source: str = ""


@dataclass(frozen=True)
class GeneratorSettings:
    """A built-in generator of pulses, to test with or to keep an input alive."""

    period_ps: int = 10_000_000
    width_ps: int = 20_000


@dataclass(frozen=True)
class Id900Settings(LinkSettings):
    """The station file's table. `inputs`: those in use, "1" to "4"; `stream_ports`: of inputs 1 to 4, on the host of
    the data link; `device_address`: the device as the data link sees it, by default the host of the address. The last
    `dead_time_ps` of each `period_s` record nothing, by design. `join_ps`: clicks so close are one event."""

    inputs: dict[str, InputSettings] = field(default_factory=lambda: {str(n): InputSettings() for n in _INPUTS})
    generators: dict[str, GeneratorSettings] = field(default_factory=dict)
    dlt_address: str = "zmq://127.0.0.1:6060"
    stream_ports: tuple[int, ...] = (4242, 4243, 4244, 4245)
    device_address: str = ""
    period_s: float = 0.25
    dead_time_ps: int = 400_000
    join_ps: int = 1_000

    @property
    def period_ps(self) -> int:
        return round(self.period_s * _PS_PER_S)

    def numbered(self) -> dict[int, InputSettings]:
        """The inputs by their numbers."""
        return {int(number): one for number, one in self.inputs.items()}


def _checked(settings: Settings) -> Id900Settings:
    chosen = parse_settings(Id900Settings, settings, "tagger_id900")
    require_positive(chosen.timeout_s, "timeout_s", "tagger_id900")
    names = [str(number) for number in _INPUTS]
    _require(bool(chosen.inputs) and all(n in names for n in chosen.inputs), "inputs", list(chosen.inputs), "1 to 4")
    _require(all(n in names for n in chosen.generators), "generators", list(chosen.generators), "1 to 4")
    for one in chosen.inputs.values():
        _require(one.edge is None or one.edge.upper() in ("RISING", "FALLING"), "edge", one.edge, "rising, falling")
        _require(one.coupling is None or one.coupling.upper() in ("DC", "AC"), "coupling", one.coupling, "DC or AC")
        _require(0 <= one.delay_ps <= _MOST_DELAY_PS, "delay_ps", one.delay_ps, f"0 to {_MOST_DELAY_PS}")
        _require(one.source in ("", *(f"GEN{n}" for n in chosen.generators)), "source", one.source, "a generator")
        level = one.threshold_v
        _require(level is None or abs(level) <= 10.0, "threshold_v", level, "-10 to 10")
    for generator in chosen.generators.values():
        _require(0 < generator.width_ps < generator.period_ps, "width_ps", generator.width_ps, "less than period_ps")
    ports = chosen.stream_ports
    _require(len(set(ports)) == len(ports) == 4 and all(0 < p < 65536 for p in ports), "stream_ports", ports, "4 ports")
    _require(chosen.dead_time_ps >= _LEAST_DEAD_PS, "dead_time_ps", chosen.dead_time_ps, f"{_LEAST_DEAD_PS} or more")
    _require(0 <= chosen.join_ps < chosen.dead_time_ps, "join_ps", chosen.join_ps, "less than dead_time_ps")
    longest = chosen.period_ps - chosen.dead_time_ps >= _SHORTEST_S * _PS_PER_S and chosen.period_s <= _LONGEST_S
    _require(longest, "period_s", chosen.period_s, f"above {_SHORTEST_S:g} (without the dead time) to {_LONGEST_S:g}")
    return chosen


def _require(good: bool, key: str, value: object, wanted: str) -> None:
    if not good:
        raise BadInput(f'setting "{key}" of driver tagger_id900 is {value}; give {wanted}')


class Controller:
    """The device's own commands, each one message and one answer."""

    def __init__(self, link: MessageLink) -> None:
        self._link = link

    def prove(self) -> Identity:
        """Who it is. Raises WrongInstrument, and InstrumentFault for a firmware that has other commands."""
        identity = self.ask("*IDN?", protocol.parse_identity)
        try:
            self.ask("RAW1:ERRORS?", protocol.parse_integer)
        except WireError as error:
            with suppress(WireError):
                self.ask("TSST1:DATA:RAW:ERRORS?", protocol.parse_integer)
                raise InstrumentFault(
                    "the time controller has an older firmware (TSST# commands), which this driver does not speak; "
                    "update it with IDQ's software"
                ) from error
            raise
        return identity

    def ask(self, question: str, parse: Callable[[bytes], T]) -> T:
        """The answer to a question, which is asked once more when it is lost."""
        try:
            return parse(self._link.query(question.encode()))
        except TransportTimeout:
            return parse(self._link.query(question.encode()))

    def tell(self, command: str) -> None:
        """Give a command. It answers "Value set to ...", something else or nothing; an error is told by its name."""
        answer = self._link.query(command.encode())
        if _REFUSAL.search(answer):
            raise InstrumentFault(f"the time controller refuses {command}: {answer[:80].decode('ascii', 'replace')}")

    def set_word(self, path: str, word: str) -> None:
        """Set and read back."""
        self.tell(f"{path} {word}")
        told = self.ask(f"{path}?", protocol.parse_word)
        self._require(protocol.same_word(told, word), path, told, word)

    def set_integer(self, path: str, value: int) -> None:
        """Set and read back."""
        self.tell(f"{path} {value}")
        told = self.ask(f"{path}?", protocol.parse_integer)
        self._require(told == value, path, told, value)

    def set_volts(self, path: str, volts: float) -> None:
        """Set and read back."""
        self.tell(f"{path} {volts:g}V")
        told = self.ask(f"{path}?", protocol.parse_volts)
        self._require(abs(told - volts) <= _VOLTS_APART, path, told, volts)

    def close(self) -> None:
        self._link.close()

    def _require(self, good: bool, path: str, told: object, wanted: object) -> None:
        if not good:
            raise InstrumentFault(f"the time controller has {path} at {told} after it was set to {wanted}")


class DataLink:
    """IDQ's DataLinkTarget service."""

    def __init__(self, link: MessageLink, device: str) -> None:
        self._link, self._device = link, device

    def start(self, number: int, port: int) -> str:
        """Pass the tags of a channel on at a port; the id of this transfer."""
        command = f"start-stream --address {self._device} --channel {number} --stream-port {port}"
        return self._ask(command, protocol.parse_link_id)

    def stop_earlier(self) -> None:
        """End what another program, or an earlier run, has left of this device."""
        for name in self._ask("list", protocol.parse_link_list):
            if name.rpartition(":")[0] == self._device:
                self.stop(name)

    def stop(self, name: str) -> None:
        self._ask(f"stop --id {name}", protocol.parse_link_answer)

    def status(self, name: str) -> LinkStatus:
        return self._ask(f"status --id {name}", protocol.parse_link_status)

    def close(self) -> None:
        self._link.close()

    def _ask(self, command: str, parse: Callable[[bytes], T]) -> T:
        return parse(self._link.query(command.encode()))


class Id900Tagger:
    """The time controller: a `TimeTagger`, and its counters, histograms and generators."""

    def __init__(self, controller: Controller, data_link: DataLink, settings: Id900Settings, speed: float) -> None:
        """`speed`: of world time, at which the periods pass."""
        self._controller, self._data_link, self._settings = controller, data_link, settings
        self._inputs = settings.numbered()
        period_s = settings.period_s / speed
        patience_s = max(_PATIENCE_PERIODS * period_s, _PATIENCE_S)
        self._tags = SubAcquisitions(
            tuple(self._inputs),
            settings.period_ps,
            settings.join_ps,
            period_s,
            _SETTLED_SHARE * period_s,
            patience_s,
        )
        self._streams: dict[int, MessageLink] = {}
        self._transfers: dict[int, str] = {}
        self._lost: dict[int, int] = {}
        self._complaints: set[str] = set()
        self._identity = controller.prove()
        self._resolution_ps = controller.ask("DEVI:RES:BWID?", protocol.parse_integer)
        self._fault: GroundStationError | None = None

    @property
    def resolution_ps(self) -> float:
        return float(self._resolution_ps)

    def identify(self) -> Identity:
        """What it said it is."""
        return self._identity

    def configure(self) -> None:
        """Stop what runs, and set inputs, delays, generators and the period. Raises InstrumentFault."""
        controller = self._controller
        controller.tell("REC:STOP")
        self._data_link.stop_earlier()
        for name, generator in self._settings.generators.items():
            self.generate(int(name), generator.period_ps, generator.width_ps)
        for number in _INPUTS:
            controller.tell(f"RAW{number}:SEND OFF")
            controller.set_word(f"INPU{number}:ENAB", "ON" if number in self._inputs else "OFF")
            if number in self._inputs:
                self._configure_input(number, self._inputs[number])
        controller.tell("REC:TRIG:ARM:MODE MANUAL")
        controller.tell("REC:ENAB ON")
        controller.tell("REC:NUM INF")
        controller.set_integer("REC:PWID", self._settings.period_ps - self._settings.dead_time_ps)
        controller.set_integer("REC:PPER", self._settings.period_ps)

    def start(self) -> None:
        """Connect the streams and begin the acquisition: time 0 of the tags."""
        host, _ = host_and_port(self._settings.dlt_address, "zmq")
        for number in self._inputs:
            self._controller.tell(f"RAW{number}:ERRORS:CLEAR")
            self._lost[number] = 0
            port, log = self._settings.stream_ports[number - 1], self._settings.log
            log = log and Path(f"{log}.input{number}")
            address = f"zmq://[{host}]:{port}" if ":" in host else f"zmq://{host}:{port}"
            self._streams[number] = open_messages(address, "pair", timeout_s=self._settings.timeout_s, log=log)
            self._transfers[number] = self._data_link.start(number, port)
            self._controller.tell(f"RAW{number}:SEND ON")
        self._controller.tell("REC:PLAY")
        deadline = monotonic_s() + self._settings.timeout_s
        while (stage := self._controller.ask("REC:STAG?", protocol.parse_word)) != "PLAYING":
            if monotonic_s() > deadline:
                raise InstrumentFault(f"the acquisition does not start: its stage is {stage}, not PLAYING")
            sleep_wall_s(_POLL_S)

    def read(self, timeout_s: float) -> PatternBlock:
        """Whole periods, about as long after their end as the messages of one period are apart.

        Raises InstrumentFault as soon as absolute times are not known any more, and then for ever; TransportTimeout.
        """
        if self._fault is not None:
            raise self._fault
        deadline = monotonic_s() + timeout_s
        try:
            while True:
                quiet = self._receive()
                if quiet and self._tags.is_ready(monotonic_s()):
                    return self._block()
                if monotonic_s() >= deadline:
                    nothing = np.empty(0, np.int64), np.empty(0, np.uint8)
                    return PatternBlock(*nothing, self._tags.begun_ps or -1, 0)
        except (InstrumentFault, WireError) as error:
            self._fault = error
            raise

    def input_counts(self) -> dict[int, int]:
        """The counters of the inputs, over their integration time (`set_counting_time`)."""
        return {n: self._controller.ask(f"INPU{n}:COUN?", protocol.parse_integer) for n in self._inputs}

    def set_counting_time(self, milliseconds: int) -> None:
        """How long the counters count, again and again."""
        _require(0 < milliseconds <= _MOST_COUNTING_MS, "milliseconds", milliseconds, f"1 to {_MOST_COUNTING_MS}")
        for number in self._inputs:
            self._controller.tell(f"INPU{number}:COUN:MODE CYCL")
            self._controller.set_integer(f"INPU{number}:COUN:INTE", milliseconds)

    def start_histogram(
        self, number: int, first: int, second: int, bin_ps: int, bins: int, minimum_ps: int = 0
    ) -> None:
        """Count the delays from one input to another in the device; `bin_ps`: a multiple of the resolution."""
        _require(number in _INPUTS, "number", number, "1 to 4")
        _require({first, second} <= set(self._inputs), "inputs", (first, second), "inputs in use")
        _require(bin_ps > 0 and bin_ps % self._resolution_ps == 0, "bin_ps", bin_ps, "a multiple of the resolution")
        _require(0 < bins <= _MOST_BINS, "bins", bins, f"1 to {_MOST_BINS}")
        self._controller.set_word(f"HIST{number}:REF:LINK", f"TSCO{first}")
        self._controller.set_word(f"HIST{number}:STOP:LINK", f"TSCO{second}")
        self._controller.set_word(f"HIST{number}:ENAB:LINK", "REC")
        self._controller.set_integer(f"HIST{number}:MIN", minimum_ps)
        self._controller.set_integer(f"HIST{number}:BWID", bin_ps)
        self._controller.set_integer(f"HIST{number}:BCOU", bins)
        self._controller.tell(f"HIST{number}:FLUS")

    def histogram(self, number: int) -> Times:
        """The bins so far (bins,)."""
        return self._controller.ask(f"HIST{number}:DATA?", protocol.parse_histogram)

    def generate(self, number: int, period_ps: int, width_ps: int) -> None:
        """Start a generator; inputs get its pulses by their setting `source`."""
        self._controller.set_integer(f"GEN{number}:PPER", period_ps)
        self._controller.set_integer(f"GEN{number}:PWID", width_ps)
        for command in ("PNUM INF", "TRIG:LINK NONE", "ENAB ON", "PLAY"):
            self._controller.tell(f"GEN{number}:{command}")

    def close(self) -> None:
        """End the acquisition and the transfers, as far as somebody still answers. Idempotent."""
        transfers, self._transfers = self._transfers, {}
        with suppress(GroundStationError):
            if transfers:
                self._controller.tell("REC:STOP")
            for number in transfers:
                self._controller.tell(f"RAW{number}:SEND OFF")
        with suppress(GroundStationError):
            for name in transfers.values():
                self._data_link.stop(name)
        for stream in self._streams.values():
            stream.close()
        self._data_link.close()
        self._controller.close()

    def _configure_input(self, number: int, one: InputSettings) -> None:
        controller = self._controller
        if one.coupling is not None:
            controller.set_word(f"INPU{number}:COUP", one.coupling.upper())
        if one.edge is not None:
            controller.set_word(f"INPU{number}:EDGE", one.edge.upper())
        if one.threshold_v is not None:
            controller.set_volts(f"INPU{number}:THRE", one.threshold_v)
        controller.set_word(f"DELA{number}:INPO:LINK", f"INPU{number}")
        controller.set_integer(f"DELA{number}:VALU", one.delay_ps)
        controller.set_word(f"TSCO{number}:FIR:LINK", one.source or f"DELA{number}")
        for command in ("OPIN ONLYFIR", "OPOU ONLYFIR", "WIND:ENAB OFF"):
            controller.tell(f"TSCO{number}:{command}")
        controller.set_word(f"RAW{number}:STOP:LINK", f"TSCO{number}")
        controller.set_word(f"RAW{number}:REF:LINK", "NONE")

    def _receive(self) -> bool:
        """Take every message that is there; whether there was none."""
        quiet = True
        for number, stream in self._streams.items():
            while (message := stream.receive(0.0)) is not None:
                quiet = False
                self._tags.feed(number, message, monotonic_s())
        return quiet

    def _block(self) -> PatternBlock:
        times, patterns = self._tags.take()
        missed, notes = self._losses()
        return PatternBlock(times, patterns, self._tags.begun_ps, missed, notes)

    def _losses(self) -> tuple[int, tuple[str, ...]]:
        """How many tags were lost since the last call, and what the data link newly complains of."""
        missed, notes = 0, []
        for number, name in self._transfers.items():
            lost = self._controller.ask(f"RAW{number}:ERRORS?", protocol.parse_integer)
            missed += max(0, lost - self._lost[number])
            self._lost[number] = lost
            for complaint in self._data_link.status(name).errors:
                note = f"input {number}: {complaint}"
                if note not in self._complaints:
                    self._complaints.add(note)
                    notes.append(note)
        return missed, tuple(notes)


def probe(address: str, clock: Clock, settings: Settings) -> Identity:
    """Who answers; an acquisition that runs goes on."""
    chosen = parse_settings(Id900Settings, settings, "tagger_id900", ("timeout_s",))
    with closing(Controller(open_messages(address, "req", timeout_s=chosen.timeout_s, log=chosen.log))) as controller:
        return controller.prove()


def connect(address: str, clock: Clock, settings: Settings) -> TimeTagger:
    """Connect, prove what it is, set it up and start the acquisition."""
    chosen = _checked(settings)
    device = chosen.device_address or host_and_port(address, "zmq")[0]
    log = chosen.log
    controller = Controller(open_messages(address, "req", timeout_s=chosen.timeout_s, log=log))
    data_link: DataLink | None = None
    tagger: Id900Tagger | None = None
    try:
        dlt_log = log and Path(f"{log}.dlt")
        link = open_messages(chosen.dlt_address, "req", timeout_s=chosen.timeout_s, log=dlt_log)
        data_link = DataLink(link, device)
        tagger = Id900Tagger(controller, data_link, chosen, clock.speed)
        tagger.configure()
        tagger.start()
        return tagger
    except BaseException:
        for part in (tagger, data_link, controller):
            if part is not None:
                part.close()
        raise
