"""Swabian Instruments Time Tagger (20, Ultra, X), through the vendor's library: no wire protocol is published.

The library is the optional extra `swabian` (package Swabian-TimeTagger) and is imported when a tagger is connected.
Addresses: `swabian:` is any tagger on this computer, `swabian:SERIAL` that one, `swabian://HOST:41101` the network
server that the vendor's software runs beside a tagger. Tags are int64 picoseconds since the device's start; channels
count from 1, negative ones are falling edges. Tests use a stand-in of the documented interface; the library itself
refuses every tagger, also its virtual one, without hardware or a licence.

Sources: docstrings of Swabian-TimeTagger 2.22.6; its manual, "Time-tag streaming" (format of a tag) and "The
TimeTagger Library" (channels, times); libtcspc `swabian_tag_event` (numbers of the tag types).
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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivers.patterns import Bits, Joiner, Times, require_inputs
from drivers.settings import parse_settings, require_positive
from groundstation.clock import Clock, monotonic_s, sleep_wall_s
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
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

# --- Protocol: what the library reports, to blocks -------------------------------------------------------

_TAG, _ERROR, _OVERFLOW_BEGIN, _OVERFLOW_END, _MISSED = range(5)
_OVERFLOW_NOTE = "the tagger's buffer overflowed"
_ERROR_NOTE = "the tagger reports an error of its time base or its data"


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


class StreamDecoder:
    """Buffers of the library's tag stream to blocks; a block that is not whole is one of its own.

    `inputs`: the channel of each bit of a pattern. An overflow, from its begin to its end, becomes one block (or more,
    where buffers end), so that the loss has its true place in time; its count is what the tagger says it missed.
    """

    def __init__(self, inputs: tuple[int, ...], join_ps: int) -> None:
        order = np.argsort(inputs)
        self._channels: NDArray[np.int32] = np.array(inputs, np.int32)[order]
        self._bits: Bits = (1 << order).astype(np.uint8)
        self._joiner = Joiner(join_ps)
        self._overflow = False
        self._missed = 0
        self._notes: set[str] = set()
        self._last_ps = 0
        self.latest_ps = -1
        """Up to when the events so far are complete."""

    def feed(
        self, time_ps: ArrayLike, channel: ArrayLike, kind: ArrayLike, missed: ArrayLike, now_ps: int, full: bool
    ) -> list[PatternBlock]:
        """Decode one buffer: (n,) each; `now_ps` the stream's time when it was taken, `full`: it had no more room.

        Raises WireError when the times go back, since nothing can be placed any more.
        """
        times, kinds = np.asarray(time_ps, np.int64), np.asarray(kind, np.uint8)
        channels, counts = np.asarray(channel, np.int32), np.asarray(missed, np.int64)
        if not times.size == kinds.size == channels.size == counts.size:
            raise WireError("the library's buffer has arrays of unequal lengths")
        if times.size:
            self._check_order(times)
        if full:
            self._notes.add("the library's buffer was full")
        latest_ps = max(now_ps, self._last_ps, self.latest_ps)
        pieces, start = [], 0
        for index in np.flatnonzero(kinds != _TAG).tolist():
            what = int(kinds[index])
            if what == _OVERFLOW_BEGIN and not self._overflow:
                pieces.append(self._piece(times, channels, kinds, slice(start, index), int(times[index])))
                self._overflow, start = True, index
            elif what == _OVERFLOW_END:
                self._overflow = True  # also when its begin was never seen
                pieces.append(self._piece(times, channels, kinds, slice(start, index), int(times[index])))
                self._overflow, start = False, index
            elif what == _MISSED:
                self._missed += int(counts[index])
            elif what == _ERROR:
                self._notes.add(_ERROR_NOTE)
            elif what > _MISSED:
                self._notes.add(f"the library reports a tag of unknown type {what}")
        pieces.append(self._piece(times, channels, kinds, slice(start, times.size), latest_ps))
        return pieces

    def _check_order(self, times: Times) -> None:
        before_ps, self._last_ps = self._last_ps, int(times[-1])
        if times[0] < before_ps or (times[1:] < times[:-1]).any():
            raise WireError(
                "the times of the tagger go back: it was restarted, or its 64 bits rolled over after 107 days; "
                "connect again and begin a new recording"
            )

    def _piece(
        self, times: Times, channels: NDArray[np.int32], kinds: NDArray[np.uint8], part: slice, latest_ps: int
    ) -> PatternBlock:
        """A run of tags as one block, with what was lost in it."""
        where = np.searchsorted(self._channels, channels[part])
        where[where == self._channels.size] = 0
        ours = (self._channels[where] == channels[part]) & (kinds[part] == _TAG)
        time_ps, patterns, complete_ps = self._joiner.feed(times[part][ours], self._bits[where[ours]], latest_ps)
        self.latest_ps = max(self.latest_ps, complete_ps)
        missed, notes = self._missed, {*self._notes, _OVERFLOW_NOTE} if self._overflow else self._notes
        self._missed, self._notes = 0, set()
        unknown = bool(notes) and missed == 0
        return PatternBlock(
            time_ps, patterns, self.latest_ps, None if unknown else missed, tuple(sorted(notes)) if notes else ()
        )


# --- Driver ----------------------------------------------------------------------------------------------

_POLL_S = 0.005
_TRIGGER_TOLERANCE_V = 0.02  # the DAC's steps are not documented; much coarser than any of its models needs


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
    chosen = parse_settings(SwabianSettings, settings, _NAME)
    _check(chosen)
    library = _library()
    thread = LibraryThread(chosen.timeout_s)
    tagger = SwabianTagger(library, thread, _open(library, thread, place, address), chosen, address)
    try:
        identity = tagger.identify()
        if place.serial and identity.serial != place.serial:
            raise WrongInstrument(f"{address} is a {identity.model} with serial number {identity.serial}")
        tagger.set_up(chosen)
    except BaseException:
        tagger.close()
        raise
    return tagger


def _check(chosen: SwabianSettings) -> None:
    require_positive(chosen.timeout_s, "timeout_s", _NAME)
    require_positive(chosen.buffer_tags, "buffer_tags", _NAME)
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
