"""Swabian Instruments Time Tagger (20, Ultra, X), through the vendor's library: no wire protocol is published.

The library is the optional extra `swabian` (package Swabian-TimeTagger) and is imported when a tagger is connected.
Addresses: `swabian:` is any tagger on this computer, `swabian:SERIAL` that one, `swabian://HOST:41101` the network
server that the vendor's software runs beside a tagger. Tags are int64 picoseconds since the device's start; channels
count from 1, negative ones are falling edges. Tests use a stand-in of the documented interface; the library itself
refuses every tagger, also its virtual one, without hardware or a licence.

Sources: docstrings of Swabian-TimeTagger 2.22.6; its manual, "The TimeTagger Library" (channels, times).
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from drivers.patterns import require_inputs
from drivers.settings import closed_on_error, parse_settings
from drivers.swabian_stream import StreamDecoder
from groundstation.clock import Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, PatternBlock, Settings, TimeTagger

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="Swabian Time Tagger 20, Ultra, X",
    capability="tagger",
    schemes=("swabian",),
    documentation="the vendor's library and its docstrings (2.22.6); there is no published wire protocol. Tested "
    "with a stand-in of the documented interface, never with hardware or a running server",
    tested_with="a stand-in; the names and arguments of the real library where it is installed",
)
_NAME = "tagger_swabian"
_PORT = 41101

_POLL_S = 0.005
_TRIGGER_TOLERANCE_V = 0.02  # the DAC's steps are not documented; much coarser than any of its models needs


class Place(NamedTuple):
    """Where a tagger is: at a network server, or here with a serial number ("" is any)."""

    server: str
    serial: str


def parse_place(address: str) -> Place:
    """Of an address. Raises BadInput."""
    try:
        url = urlsplit(address)
        if url.scheme == "swabian" and url.hostname and url.path in ("", "/") and not (url.query or url.username):
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return Place(f"{host}:{_PORT if url.port is None else url.port}", "")
        if url.scheme == "swabian" and not url.netloc and not (url.query or url.fragment) and "/" not in url.path:
            return Place("", url.path)
    except ValueError:  # a port that is no number
        pass
    raise BadInput(f'address "{address}" is none of swabian:, swabian:SERIAL, swabian://HOST:{_PORT}')


class LibraryThread:
    """Calls into a library that may hang, one after the other in a thread of their own, each with a deadline."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stuck = False
        threading.Thread(target=self._work, name="Swabian library", daemon=True).start()

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Raises what `function` raises; TransportTimeout at the deadline, and TransportLost ever after."""
        if self._stuck:
            raise TransportLost("the Swabian library hangs in an earlier call; restart the program")
        answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answer.put((function(), None))
            except BaseException as error:
                answer.put((None, error))

        self._calls.put(work)
        try:
            value, error = answer.get(timeout=self._timeout_s)
        except queue.Empty:
            self._stuck = True
            raise TransportTimeout(f"the Swabian library did not {what} within {self._timeout_s:g} s") from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where the function returns it

    def end(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


@dataclass(frozen=True)
class SwabianSettings:
    """Settings of the station file. Keys of tables are channel numbers; times ps, voltages V.

    `inputs`: which channels are inputs 1 to 8 of the patterns (negative: falling edges); default: the rising edges of
    the first eight. `join_ps`: clicks so close are one event. `filter_triggers`, `filtered`: the conditional filter
    passes a click of a filtered channel only after one of a trigger. `buffer_tags`: room between two reads.
    """

    inputs: tuple[int, ...] = ()
    trigger_v: dict[str, float] = field(default_factory=dict)
    delay_ps: dict[str, int] = field(default_factory=dict)
    dead_time_ps: dict[str, int] = field(default_factory=dict)
    filter_triggers: tuple[int, ...] = ()
    filtered: tuple[int, ...] = ()
    test_signal: tuple[int, ...] = ()
    join_ps: int = 0
    buffer_tags: int = 1 << 22
    timeout_s: float = 10.0


class SwabianTagger:
    """A Time Tagger: a `TimeTagger`."""

    def __init__(self, library: Any, thread: LibraryThread, handle: Any, settings: SwabianSettings, where: str) -> None:
        """`handle`: what the library made of the address, and the tagger's from now on."""
        self._library, self._thread, self._where = library, thread, where
        self._handle: Any = handle
        self._stream: Any = None
        self._room = settings.buffer_tags
        self._ready: deque[PatternBlock] = deque()
        self._lock = threading.Lock()
        self._identity = self._ask("say what it is", self._read_identity)
        self._decoder = StreamDecoder(self._choose_inputs(settings), settings.join_ps)

    @property
    def resolution_ps(self) -> float:
        """Of the library's times; how exact they are depends on the model."""
        return 1.0

    def identify(self) -> Identity:
        self._identity = self._ask("say what it is", self._read_identity)
        return self._identity

    def set_up(self, settings: SwabianSettings) -> None:
        """Give it the settings and begin to stream. Raises InstrumentFault for one that it does not take."""
        for channel, volt in _numbered(settings.trigger_v, "trigger_v"):
            self._set("trigger level", channel, volt, _TRIGGER_TOLERANCE_V, "setTriggerLevel", "getTriggerLevel")
        for channel, delay_ps in _numbered(settings.delay_ps, "delay_ps"):
            self._set("input delay", channel, delay_ps, 0, "setInputDelay", "getInputDelay")
        clock_ps = self._ask("tell its clock", lambda: int(self._handle.getPsPerClock()))
        for channel, dead_ps in _numbered(settings.dead_time_ps, "dead_time_ps"):
            self._set("dead time", channel, dead_ps, clock_ps, "setDeadtime", "getDeadtime")
        for channel in settings.test_signal:
            self._set("test signal", channel, True, 0, "setTestSignal", "getTestSignal")
        if settings.filtered or settings.filter_triggers:
            self._set_filter(list(settings.filter_triggers), list(settings.filtered))
        self._stream = self._ask("start to stream", self._start)

    def read(self, timeout_s: float) -> PatternBlock:
        deadline = monotonic_s() + timeout_s
        with self._lock:
            while not self._ready:
                blocks = self._take()
                left_s = deadline - monotonic_s()
                if left_s <= 0.0 or any(block.time_ps.size or block.missed or block.notes for block in blocks):
                    self._ready.extend(blocks)
                else:
                    sleep_wall_s(min(_POLL_S, left_s))
            return self._ready.popleft()

    def close(self) -> None:
        with self._lock:
            handle, self._handle, stream, self._stream = self._handle, None, self._stream, None
            if handle is None:
                return

            def free() -> None:
                if stream is not None:
                    stream.stop()
                self._library.freeTimeTagger(handle)

            with contextlib.suppress(Exception):  # whatever the library says now, the tagger is no longer ours
                self._thread.call("let go of the tagger", free)
            self._thread.end()

    def _take(self) -> list[PatternBlock]:
        """What has arrived since the last time."""
        stream = self._stream
        if stream is None:
            raise TransportLost(f"the connection to {self._where} is closed; connect again")
        connected = getattr(self._handle, "isConnected", None)

        def take() -> tuple[Any, ...]:
            if connected is not None and not connected():
                raise TransportLost(f"the Time Tagger server at {self._where} is gone")
            buffer = stream.getData()
            arrays = (buffer.getTimestamps(), buffer.getChannels(), buffer.getEventTypes(), buffer.getMissedEvents())
            return (*arrays, int(buffer.tGetData), int(buffer.size) >= self._room)

        return self._decoder.feed(*self._ask("give its tags", take))

    def _ask(self, what: str, function: Callable[[], T]) -> T:
        """Call the library; its exceptions become TransportLost."""
        if self._handle is None:
            raise TransportLost(f"the connection to {self._where} is closed; connect again")
        try:
            return self._thread.call(what, function)
        except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
            raise TransportLost(f"{self._where} did not {what}: {error}") from error

    def _set(self, what: str, channel: int, value: float, tolerance: float, setter: str, getter: str) -> None:
        handle = self._handle

        def change() -> float:
            getattr(handle, setter)(channel, value)
            return float(getattr(handle, getter)(channel))

        found = self._change(f"{what} of channel {channel}", value, change)
        if abs(found - value) > tolerance:
            raise InstrumentFault(f"the {what} of channel {channel} of {self._where} is {found:g}, told was {value:g}")

    def _set_filter(self, triggers: list[int], filtered: list[int]) -> None:
        def change() -> tuple[list[int], list[int]]:
            self._handle.setConditionalFilter(triggers, filtered)
            found = (self._handle.getConditionalFilterTrigger(), self._handle.getConditionalFilterFiltered())
            return sorted(found[0]), sorted(found[1])

        if self._change("conditional filter", filtered, change) != (sorted(triggers), sorted(filtered)):
            raise InstrumentFault(f"{self._where} did not take the conditional filter {triggers} on {filtered}")

    def _change(self, what: str, value: object, change: Callable[[], T]) -> T:
        try:
            return self._thread.call(f"take the {what}", change)
        except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
            raise InstrumentFault(f"{self._where} refuses {value} for the {what}: {error}") from error

    def _read_identity(self) -> Identity:
        handle = self._handle
        return Identity(str(handle.getModel()), str(handle.getFirmwareVersion()), str(handle.getSerial()))

    def _choose_inputs(self, settings: SwabianSettings) -> tuple[int, ...]:
        offered = self._ask("list its channels", lambda: [int(channel) for channel in self._handle.getChannelList()])
        inputs = settings.inputs or tuple(sorted(channel for channel in offered if channel > 0)[:8])
        if unknown := sorted(set(inputs) - set(offered)):
            raise BadInput(f'setting "inputs" of driver {_NAME} names {unknown}; {self._where} has {sorted(offered)}')
        self._inputs = inputs
        return inputs

    def _start(self) -> Any:
        stream = self._library.TimeTagStream(self._handle, self._room, list(self._inputs))
        self._handle.sync()  # from here on, all settings are at work
        stream.getData()  # what came before
        return stream


# --- Connection ------------------------------------------------------------------------------------------


def connect(address: str, clock: Clock, settings: Settings) -> TimeTagger:
    """Find the tagger, prove that it is the one, give it its settings, start to stream. Device time needs no `clock`.

    Raises BadInput without the library, TransportLost when there is no such tagger, WrongInstrument for another one,
    InstrumentFault when it does not take a setting.
    """
    place = parse_place(address)
    chosen = parse_settings(SwabianSettings, settings, _NAME, ("timeout_s", "buffer_tags"))
    _check(chosen)
    library = _library()
    thread = LibraryThread(chosen.timeout_s)
    tagger = SwabianTagger(library, thread, _open(library, thread, place, address), chosen, address)
    with closed_on_error(tagger):
        identity = tagger.identify()
        if place.serial and identity.serial != place.serial:
            raise WrongInstrument(f"{address} is a {identity.model} with serial number {identity.serial}")
        tagger.set_up(chosen)
    return tagger


def _check(chosen: SwabianSettings) -> None:
    if chosen.inputs:
        require_inputs(chosen.inputs, -1_000_000, 1_000_000, _NAME)
    if chosen.join_ps < 0:
        raise BadInput(f'setting "join_ps" of driver {_NAME} is {chosen.join_ps}; it must not be negative')
    for name in ("trigger_v", "delay_ps", "dead_time_ps"):
        _numbered(getattr(chosen, name), name)


def _numbered(table: dict[str, T], name: str) -> list[tuple[int, T]]:
    """A table by channel numbers. Raises BadInput for a key that is none."""
    try:
        return [(int(key), value) for key, value in table.items()]
    except ValueError as error:
        raise BadInput(f'setting "{name}" of driver {_NAME} has a key that is no channel number: {error}') from error


def _library() -> Any:
    try:
        return import_module("Swabian.TimeTagger")
    except (ImportError, OSError) as error:
        raise BadInput(
            f"driver {_NAME} needs the vendor's library, which cannot be loaded ({error}); install it: "
            "pip install Swabian-TimeTagger"
        ) from error


def _open(library: Any, thread: LibraryThread, place: Place, address: str) -> Any:
    def find() -> Any:
        if place.server:
            return library.createTimeTaggerNetwork(place.server)
        return library.createTimeTagger(place.serial)

    try:
        return thread.call(f"connect to {address}", find)
    except (RuntimeError, ValueError, OSError) as error:
        thread.end()
        raise TransportLost(f"there is no Time Tagger at {address}: {error}") from error
