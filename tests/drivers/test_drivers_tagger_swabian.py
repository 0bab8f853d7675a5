"""The Swabian driver against a stand-in of the library's documented interface; its names against the library itself."""

import importlib
import inspect
import sys
import threading
import time
import types
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.swabian_stream import StreamDecoder
from drivers.tagger_swabian import DRIVER, connect, parse_place
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import Identity

CLOCK = SystemClock()
TAG, ERROR, BEGIN, END, MISSED = range(5)


class StandInBuffer:
    """`TimeTagStreamBuffer`: (time, channel, type, missed) of each row."""

    def __init__(self, rows, now_ps):
        self._rows, self.tGetData = rows, now_ps
        self.size = len(rows)

    def _column(self, index, kind):
        return np.array([row[index] for row in self._rows], kind)

    def getTimestamps(self):  # noqa: N802  # the vendor's names
        return self._column(0, np.int64)

    def getChannels(self):  # noqa: N802
        return self._column(1, np.int32)

    def getEventTypes(self):  # noqa: N802
        return self._column(2, np.uint8)

    def getMissedEvents(self):  # noqa: N802
        return self._column(3, np.uint16)


class StandInTagger:
    """`TimeTagger` with four inputs and their falling edges."""

    def __init__(self, serial="1910000ABC"):
        self._serial = serial
        self.told = {}
        self.connected = True

    def getSerial(self):  # noqa: N802
        return self._serial

    def getModel(self):  # noqa: N802
        return "Time Tagger Ultra"

    def getFirmwareVersion(self):  # noqa: N802
        return "TT-Ultra, FW 3"

    def getChannelList(self, type=0):  # noqa: N802
        return [1, 2, 3, 4, -1, -2, -3, -4]

    def getPsPerClock(self):  # noqa: N802
        return 2000

    def setTriggerLevel(self, channel, voltage):  # noqa: N802
        if abs(voltage) > 2.5:
            raise ValueError("voltage out of range")
        self.told["trigger", channel] = round(voltage * 500) / 500

    def getTriggerLevel(self, channel):  # noqa: N802
        return self.told["trigger", channel]

    def setInputDelay(self, channel, delay):  # noqa: N802
        self.told["delay", channel] = delay

    def getInputDelay(self, channel):  # noqa: N802
        return self.told["delay", channel]

    def setDeadtime(self, channel, deadtime):  # noqa: N802
        self.told["dead", channel] = max(2000, deadtime)
        return self.told["dead", channel]

    def getDeadtime(self, channel):  # noqa: N802
        return self.told["dead", channel]

    def setTestSignal(self, channel, enabled):  # noqa: N802
        self.told["test", channel] = enabled

    def getTestSignal(self, channel):  # noqa: N802
        return self.told["test", channel]

    def setConditionalFilter(self, trigger, filtered):  # noqa: N802
        self.told["filter"] = (trigger, filtered)

    def getConditionalFilterTrigger(self):  # noqa: N802
        return self.told["filter"][0]

    def getConditionalFilterFiltered(self):  # noqa: N802
        return self.told["filter"][1]

    def sync(self, timeout=-1):
        return True


class StandInNetwork(StandInTagger):
    """`TimeTaggerNetwork`."""

    def isConnected(self):  # noqa: N802
        return self.connected


class StandIn(types.ModuleType):
    """The module `Swabian.TimeTagger`; `buffers` are what the stream will give, one after the other."""

    def __init__(self):
        super().__init__("Swabian.TimeTagger")
        self.tagger = StandInTagger()
        self.buffers, self.freed, self.channels, self.now_ps = [], [], None, 0
        self.hang = threading.Event()
        self.hang.set()
        stand_in = self

        class TimeTagStream:
            def __init__(self, tagger, n_max_events, channels):
                stand_in.channels = channels

            def getData(self):  # noqa: N802
                stand_in.hang.wait()
                rows = stand_in.buffers.pop(0) if stand_in.buffers else []
                stand_in.now_ps = max([stand_in.now_ps, *(row[0] for row in rows)])
                return StandInBuffer(rows, stand_in.now_ps)

            def stop(self):
                pass

        self.TimeTagStream = TimeTagStream

    def createTimeTagger(self, serial="", resolution=0):  # noqa: N802
        if serial == "absent":
            raise RuntimeError("The serial number argument 'absent' is not a valid Time Tagger serial number.")
        return self.tagger

    def createTimeTaggerNetwork(self, address):  # noqa: N802
        self.server = address
        self.tagger = StandInNetwork()
        return self.tagger

    def freeTimeTagger(self, tagger):  # noqa: N802
        self.freed.append(tagger)


@pytest.fixture
def library(mocker):
    stand_in = StandIn()
    package = types.ModuleType("Swabian")
    package.TimeTagger = stand_in
    mocker.patch.dict(sys.modules, {"Swabian": package, "Swabian.TimeTagger": stand_in})
    yield stand_in
    stand_in.hang.set()


@pytest.fixture
def tagger(library):
    tagger = connect("swabian:", CLOCK, {})
    yield tagger
    tagger.close()


def tags(*rows):
    return [(*row, TAG, 0) if len(row) == 2 else row for row in rows]


def test_it_says_what_it_is_and_streams_the_first_inputs(library, tagger):
    assert tagger.identify() == Identity("Time Tagger Ultra", "TT-Ultra, FW 3", "1910000ABC")
    assert library.channels == [1, 2, 3, 4]
    assert tagger.resolution_ps == 1.0


def test_clicks_become_patterns_and_equal_times_one_event(library, tagger):
    library.buffers = [tags((1000, 1), (1500, 3), (1500, 1), (2**54 + 1, 2), (2**54 + 9, 4))]
    block = tagger.read(1.0)
    assert block.time_ps.tolist() == [1000, 1500, 2**54 + 1]
    assert block.pattern.tolist() == [1, 0b101, 2]
    assert block.missed == 0
    assert not block.notes
    library.now_ps = 2**54 + 10  # the stream has gone on: the last click stands alone
    later = tagger.read(0.01)
    assert (later.time_ps.tolist(), later.pattern.tolist()) == ([2**54 + 9], [8])


def test_close_clicks_are_joined_and_falling_edges_are_inputs(library):
    tagger = connect("swabian:", CLOCK, {"inputs": [-2, 1], "join_ps": 100})
    assert library.channels == [-2, 1]
    library.buffers = [tags((1000, 1), (1090, -2), (1100, 1), (5000, -2), (9000, 1))]
    block = tagger.read(1.0)
    assert block.time_ps.tolist() == [1000, 1100, 5000]
    assert block.pattern.tolist() == [0b11, 0b10, 0b01]
    tagger.close()


def test_a_silent_stream_still_tells_the_time(library, tagger):
    library.now_ps = 10**12
    started = time.monotonic()
    block = tagger.read(0.05)
    assert not block.time_ps.size
    assert block.latest_ps == 10**12
    assert time.monotonic() - started < 1.0


def test_an_overflow_is_a_block_of_its_own_with_its_count(library, tagger):
    library.buffers = [
        [*tags((100, 1), (200, 2)), (1000, 0, BEGIN, 0), (1500, 1, TAG, 0), (2000, 1, MISSED, 700)],
        [(2500, 2, MISSED, 41), (3000, 0, END, 0), *tags((3100, 1), (3200, 2))],
    ]
    blocks = [tagger.read(0.1) for _ in range(5)]
    whole, first, second, after, _ = blocks
    assert (whole.latest_ps, whole.missed, whole.notes) == (1000, 0, ())
    assert whole.time_ps.tolist() == [100, 200]
    assert (first.latest_ps, first.missed) == (2000, 700)
    assert first.time_ps.tolist() == [1500]
    assert (second.latest_ps, second.missed) == (3000, 41)
    assert "overflowed" in first.notes[0]
    assert "overflowed" in second.notes[0]
    assert (after.missed, after.notes) == (0, ())
    assert after.time_ps.tolist() == [3100]


def test_an_overflow_without_a_count_is_a_loss_of_unknown_size(library, tagger):
    library.buffers = [[(1000, 0, BEGIN, 0), (2000, 0, END, 0), *tags((3000, 1), (3001, 1))]]
    assert tagger.read(0.1).notes == ()
    lost = tagger.read(0.1)
    assert (lost.latest_ps, lost.missed) == (2000, None)
    assert lost.notes


def test_error_tags_and_a_full_buffer_are_noted(library):
    tagger = connect("swabian:", CLOCK, {"buffer_tags": 3})
    library.buffers = [[(10, 1, TAG, 0), (20, 0, ERROR, 0), (30, 1, TAG, 0)]]
    block = tagger.read(0.1)
    assert block.missed is None
    assert len(block.notes) == 2
    tagger.close()


def test_times_that_go_back_are_a_wire_error(library, tagger):
    library.buffers = [tags((10**8, 1), (10**9, 1)), tags((5, 1))]
    tagger.read(0.1)
    with pytest.raises(WireError, match="go back"):
        tagger.read(0.1)


def test_settings_reach_the_tagger_and_are_read_back(library):
    settings = {
        "trigger_v": {"1": 0.5, "2": -0.1},
        "delay_ps": {"1": -1250},
        "dead_time_ps": {"3": 50_000},
        "test_signal": [4],
        "filter_triggers": [1],
        "filtered": [2, 3],
    }
    tagger = connect("swabian:1910000ABC", CLOCK, settings)
    assert library.tagger.told == {
        ("trigger", 1): 0.5,
        ("trigger", 2): -0.1,
        ("delay", 1): -1250,
        ("dead", 3): 50_000,
        ("test", 4): True,
        "filter": ([1], [2, 3]),
    }
    tagger.close()
    tagger.close()
    assert library.freed == [library.tagger]
    with pytest.raises(TransportLost, match="closed"):
        tagger.read(0.0)


def test_a_setting_that_is_refused_or_not_kept_is_a_fault(library, mocker):
    with pytest.raises(InstrumentFault, match="refuses 9"):
        connect("swabian:", CLOCK, {"trigger_v": {"1": 9.0}})
    mocker.patch.object(StandInTagger, "getInputDelay", return_value=7)
    with pytest.raises(InstrumentFault, match=r"input delay of channel 2 .* is 7, told was 8"):
        connect("swabian:", CLOCK, {"delay_ps": {"2": 8}})
    mocker.patch.object(StandInTagger, "getConditionalFilterFiltered", return_value=[])
    with pytest.raises(InstrumentFault, match="conditional filter"):
        connect("swabian:", CLOCK, {"filter_triggers": [1], "filtered": [2]})
    assert len(library.freed) == 3


@pytest.mark.parametrize(
    ("address", "settings", "error", "match"),
    [
        ("swabian:absent", {}, TransportLost, "not a valid"),
        ("swabian:other", {}, WrongInstrument, "serial number 1910000ABC"),
        ("swabian:", {"inputs": [1, 9]}, BadInput, r"names \[9\]"),
        ("swabian:", {"inputs": [1, 1]}, BadInput, "different"),
        ("swabian:", {"join_ps": -1}, BadInput, "join_ps"),
        ("swabian:", {"trigger_v": {"one": 1.0}}, BadInput, "trigger_v"),
        ("swabian:", {"buffer_tags": 0}, BadInput, "buffer_tags"),
        ("swabian:", {"speed": 1}, BadInput, "speed"),
        ("tcp://localhost:1", {}, BadInput, "swabian:SERIAL"),
    ],
)
def test_what_cannot_be_connected_says_why(library, address, settings, error, match):
    with pytest.raises(error, match=match):
        connect(address, CLOCK, settings)


def test_a_server_is_reached_by_host_and_port_and_its_end_is_told(library):
    tagger = connect("swabian://tagger.local", CLOCK, {})
    assert library.server == "tagger.local:41101"
    library.tagger.connected = False
    with pytest.raises(TransportLost, match=r"server at swabian://tagger\.local is gone"):
        tagger.read(0.1)
    tagger.close()


def test_a_library_that_hangs_meets_the_deadline_and_stays_lost(library):
    tagger = connect("swabian:", CLOCK, {"timeout_s": 0.2})
    library.hang.clear()
    started = time.monotonic()
    with pytest.raises(TransportTimeout, match=r"within 0\.2 s"):
        tagger.read(0.0)
    with pytest.raises(TransportLost, match="hangs"):
        tagger.read(0.0)
    tagger.close()
    assert time.monotonic() - started < 2.0


def test_without_the_library_it_says_what_to_install(mocker):
    mocker.patch.dict(sys.modules, {"Swabian": None, "Swabian.TimeTagger": None})
    with pytest.raises(BadInput, match="pip install Swabian-TimeTagger"):
        connect("swabian:", CLOCK, {})


def test_two_threads_never_get_the_same_tag(library, tagger):
    library.buffers = [tags(*((1000 * n + k, 1 + k % 4) for k in range(100))) for n in range(200)]
    seen: list[int] = []
    lock = threading.Lock()

    def reader():
        while library.buffers:
            times = tagger.read(0.01).time_ps.tolist()
            with lock:
                seen.extend(times)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    library.now_ps += 1
    seen += tagger.read(0.05).time_ps.tolist() + tagger.read(0.05).time_ps.tolist()
    assert sorted(seen) == [1000 * n + k for n in range(200) for k in range(100)]


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda rest: f"swabian:{rest}"))
def test_any_address_is_a_place_or_bad_input(address):
    try:
        server, serial = parse_place(address)
    except BadInput:
        return
    assert address.startswith("swabian:")
    assert not (server and serial)


ROWS = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from([1, 2, -3, 7, 0]), st.integers(0, 6), st.integers(0, 65535)),
    max_size=30,
)


@given(ROWS, st.lists(st.integers(0, 30), max_size=3), st.integers(0, 20))
def test_any_cut_of_the_stream_gives_the_same_events_and_the_same_loss(rows, cuts, join_ps):
    rows = sorted(rows, key=lambda row: row[0])

    def decoded(edges):
        decoder, events, missed, before_ps = StreamDecoder((1, 2, -3), join_ps), [], 0, -1
        for start, stop in pairwise(edges):
            part = rows[start:stop]
            columns = [[row[index] for row in part] for index in range(4)]
            for block in decoder.feed(*columns, now_ps=part[-1][0] if part else 0, full=False):
                assert block.latest_ps >= before_ps
                assert all(before_ps <= t <= block.latest_ps for t in block.time_ps.tolist())
                before_ps = block.latest_ps
                missed += block.missed or 0
                events += zip(block.time_ps.tolist(), block.pattern.tolist(), strict=True)
        for block in decoder.feed([], [], [], [], now_ps=10**6, full=False):
            events += zip(block.time_ps.tolist(), block.pattern.tolist(), strict=True)
        return events, missed

    whole = decoded([0, len(rows)])
    assert decoded([0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]) == whole
    assert whole[1] == sum(row[3] for row in rows if row[2] == MISSED)


@pytest.mark.counterpart("Swabian")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_the_stand_in_has_the_names_and_arguments_of_the_real_library():
    real = importlib.import_module("Swabian.TimeTagger")

    pairs = [
        (StandInTagger, real.TimeTagger),
        (StandInNetwork, real.TimeTaggerNetwork),
        (StandInBuffer, real.TimeTagStreamBuffer),
        (type(StandIn().TimeTagStream(None, 1, [])), real.TimeTagStream),
    ]
    for stand_in, original in pairs:
        for name in (name for name in dir(stand_in) if not name.startswith("_")):
            assert hasattr(original, name), f"{original.__name__} has no {name}"
            told = list(inspect.signature(getattr(original, name)).parameters)
            if told[-1:] not in (["args"], ["kwargs"]):  # an overload tells no arguments
                assert list(inspect.signature(getattr(stand_in, name)).parameters) == told
    for name in ("size", "tGetData"):
        assert isinstance(inspect.getattr_static(real.TimeTagStreamBuffer, name), property)
    assert list(inspect.signature(real.TimeTagStream).parameters) == ["tagger", "n_max_events", "channels"]
    for name in ("createTimeTagger", "createTimeTaggerNetwork", "freeTimeTagger"):
        assert callable(getattr(real, name))
    types_told = (real.Tag.Type_TimeTag, real.Tag.Type_Error, real.Tag.Type_OverflowBegin, real.Tag.Type_OverflowEnd)
    assert (*types_told, real.Tag.Type_MissedEvents) == (TAG, ERROR, BEGIN, END, MISSED)


@pytest.mark.counterpart("Swabian")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.parametrize("address", ["swabian:no-such-serial", "swabian://127.0.0.1:9"])
def test_the_real_library_without_a_tagger_is_a_lost_link(address):
    with pytest.raises(TransportLost, match="no Time Tagger"):
        connect(address, CLOCK, {})


def test_the_description_says_that_it_was_never_on_hardware():
    assert "stand-in" in DRIVER.documentation
    assert DRIVER.capability == "tagger"
