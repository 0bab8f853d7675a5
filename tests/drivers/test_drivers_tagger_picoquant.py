"""The PicoQuant driver: T2 files through the vendor's own library against two other readers; devices by a stand-in."""

import contextlib
import json
import os
import shutil
import struct
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.picoquant_frames import ClickDecoder, FrameReader, parse_ptu_header
from drivers.tagger_picoquant import connect, parse_place
from groundstation.clock import SystemClock
from groundstation.core.tags import TagBlock
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.recording.formats import ptu
from groundstation.recording.formats.tag_file import About, TagFile

CLOCK = SystemClock()


def write_ptu(path, time_ps, channel):
    ptu.write(path, TagFile(About("ptu", 1.0), iter([TagBlock(time_ps, channel)])))
    return path


def read_all(tagger):
    """Every event until the end of the file."""
    blocks = []
    with pytest.raises(TransportLost, match="come to its end"):
        blocks.extend(iter(lambda: tagger.read(10.0), None))
    assert all(block.missed == 0 and not block.notes for block in blocks)
    latest = [block.latest_ps for block in blocks]
    assert latest == sorted(latest)
    return np.concatenate([b.time_ps for b in blocks]), np.concatenate([b.pattern for b in blocks]), latest[-1]


@pytest.fixture
def pass_file(tmp_path):
    """Five inputs for 4 s with silences longer than the 25-bit time, and equal times."""
    rng = np.random.default_rng(8)
    times = np.cumsum(rng.choice([0, 300_000, 40_000_000, 90_000_000], 60_000, p=[0.02, 0.3, 0.66, 0.02]))
    channels = rng.choice([0, 1, 2, 3, 64], 60_000).astype(np.uint8)
    return write_ptu(tmp_path / "pass.ptu", times.astype(np.int64), channels)


@pytest.mark.counterpart("snAPI")
def test_the_library_our_reader_and_ptufile_agree_on_a_file(pass_file):
    ptufile = pytest.importorskip("ptufile")
    tagger = connect(f"picoquant:{pass_file}", CLOCK, {"inputs": [1, 2, 3, 4, 0]})
    assert tagger.identify().model == "PicoQuant HydraHarp 400"
    assert tagger.resolution_ps == 1.0
    times, patterns, _ = read_all(tagger)
    tagger.close()

    ours = list(ptu.read(pass_file).blocks)
    own_times = np.concatenate([block.time_ps for block in ours])
    own_bits = 1 << np.minimum(np.concatenate([block.channel for block in ours]), 4).astype(np.int64)
    with ptufile.PtuFile(pass_file) as file:
        records = file.decode_records()
    records = records[records["channel"] >= 0]
    assert np.array_equal(own_times, records["time"].astype(np.int64))

    # Equal times of different inputs are one event: compare the clicks that the events stand for.
    clicks = [(t, bit) for t, p in zip(times.tolist(), patterns.tolist(), strict=True) for bit in _bits(p)]
    assert sorted(clicks) == sorted(zip(own_times.tolist(), own_bits.tolist(), strict=True))
    assert len(times) < len(own_times)


def _bits(pattern):
    return [1 << n for n in range(8) if pattern >> n & 1]


@pytest.mark.counterpart("snAPI")
def test_a_published_measurement_comes_out_whole(tmp_path):
    folder = os.environ.get("GROUNDSTATION_REFERENCE_DATA")
    source = Path(folder or "absent") / "200204_HH400_T2_320MHz_HBT.timeres"
    if not source.exists():
        pytest.skip("GROUNDSTATION_REFERENCE_DATA does not lead to the HydraHarp file of timetag/ETA")
    copy = tmp_path / "hbt.ptu"
    shutil.copy(source, copy)
    tagger = connect(f"picoquant://{copy}", CLOCK, {})
    times, patterns, latest_ps = read_all(tagger)
    tagger.close()
    ours = list(ptu.read(copy).blocks)
    assert np.array_equal(times, np.concatenate([block.time_ps for block in ours]))
    assert np.array_equal(patterns, 1 << np.concatenate([block.channel for block in ours]))
    assert times.size == 384_019
    assert latest_ps >= times[-1]


@pytest.mark.counterpart("snAPI")
def test_times_are_picoseconds_also_where_the_resolution_is_not(tmp_path):
    """The resolution in the header is changed to that of a MultiHarp, 5 ps; the same words then mean later times."""
    times = np.array([100, 10**7, 10**9], np.int64)
    path = write_ptu(tmp_path / "five.ptu", times, np.array([0, 1, 0], np.uint8))
    data = bytearray(path.read_bytes())
    for name in (b"MeasDesc_GlobalResolution", b"MeasDesc_Resolution", b"HW_BaseResolution"):
        struct.pack_into("<d", data, data.find(name) + 40, 5e-12)
    path.write_bytes(data)
    tagger = connect(f"picoquant:{path}", CLOCK, {})
    assert tagger.resolution_ps == 5.0
    assert read_all(tagger)[0].tolist() == (5 * times).tolist()
    tagger.close()


@pytest.mark.counterpart("snAPI")
def test_markers_are_inputs_on_request_and_overflows_never(tmp_path):
    times = np.array([10, 20, 10**9, 10**9 + 5, 2 * 10**9], np.int64)
    path = write_ptu(tmp_path / "markers.ptu", times, np.array([65, 0, 66, 79, 1], np.uint8))
    tagger = connect(f"picoquant:{path}", CLOCK, {"inputs": [1, 2, -1, -2]})
    found, patterns, latest_ps = read_all(tagger)
    tagger.close()
    assert found.tolist() == times.tolist()
    assert patterns.tolist() == [0b100, 0b1, 0b1000, 0b1100, 0b10]
    assert latest_ps == 2 * 10**9


@pytest.mark.counterpart("snAPI")
def test_without_a_device_the_library_finds_none():
    started = time.monotonic()
    with pytest.raises(TransportLost, match="no PicoQuant device 1045483"):
        connect("picoquant:1045483", CLOCK, {})
    assert time.monotonic() - started < 15.0


def test_files_that_the_library_would_not_play_to_their_end_are_refused(tmp_path):
    times = np.arange(1000, dtype=np.int64) * 1000
    good = write_ptu(tmp_path / "good.ptu", times, np.zeros(1000, np.uint8)).read_bytes()
    spoiled = tmp_path / "spoiled.ptu"
    for data, why in [
        (good[:-400], "holds 900 records and announces 1000"),
        (good[: good.find(b"Header_End")], "no end"),
        (b"", "no PTU file"),
        (b"PQTTTR\0\0" + bytes(8) + b"Header_End".ljust(48, b"\0"), "how many records"),
    ]:
        spoiled.write_bytes(data)
        with pytest.raises(BadInput, match=why):
            connect(f"picoquant:{spoiled}", CLOCK, {})
    t3 = bytearray(good)
    struct.pack_into("<q", t3, t3.find(b"Measurement_Mode") + 40, 3)
    spoiled.write_bytes(t3)
    with pytest.raises(BadInput, match="T3"):
        connect(f"picoquant:{spoiled}", CLOCK, {})
    with pytest.raises(BadInput, match="No such file"):
        connect(f"picoquant:{tmp_path}/none.ptu", CLOCK, {})


# --- A device, by a stand-in of the library's package -------------------------------------------------------

MAIN = """
    import json, os, time
    import numpy as np
    PLAN = json.loads(os.environ["STAND_IN_PLAN"])
    if PLAN.get("missing"):
        raise ImportError("libsnAPI4Linux.so: cannot open shared object file")
    class Part: pass
    class snAPI:
        def __init__(self, ini):
            self.folder = ini.rsplit("/", 1)[0]
            print("the library prints to the standard output", flush=True)
            self.unfold, self.device = self, Device(self)
            self.deviceConfig = {"Model": "MultiHarp 150 8N", "Version": "3.1", "BaseResolution": 5.0, "MeasMode": 2,
                "ID": PLAN.get("id", "1045483"), "SyncTrigLvl": 0, "SyncTrigEdge": 0,
                "ChansCfg": [{"TrigLvl": 0, "TrigEdge": 0, "ChanOffs": 0, "DeadTime": 0} for _ in range(8)]}
            self.blocks = PLAN.get("blocks", [])
            self.n = 0
        def getDevice(self, *serial):
            while PLAN.get("hang") == "open": time.sleep(1)
            if PLAN.get("hang") == "crash": os.abort()
            return True
        def initDevice(self, mode, reference): return reference.name == PLAN.get("reference", "Internal")
        def getDeviceConfig(self): return True
        def startBlock(self, acqTime, size, savePTU=False): return acqTime == 0 and size > 0
        def isFinished(self): return False
        def getBlock(self):
            block = self.blocks.pop(0) if self.blocks else {}
            if "log" in block:
                os.makedirs(self.folder + "/Logs", exist_ok=True)
                with open(self.folder + "/Logs/1.log", "a") as log: log.write(block["log"] + "\\n")
            if block.get("die"): os._exit(3)
            self.times = np.array(block.get("times", []), np.uint64)
            self.channels = np.array(block.get("channels", []), np.uint8)
            self.n = len(self.times)
            return self.times, self.channels
        def numRead(self): return self.n
        def stopMeasure(self): pass
        def closeDevice(self): open(PLAN["closed"], "w").close()
    class Device:
        def __init__(self, parent): self.parent = parent
        def set(self, channel, **values):
            if PLAN.get("refuse"): return False
            if not PLAN.get("forget"): self.parent.deviceConfig["ChansCfg"][channel].update(values)
            return True
        def setSyncEdgeTrig(self, syncTrigLvl=-50, syncTrigEdge=1):
            self.parent.deviceConfig.update(SyncTrigLvl=syncTrigLvl, SyncTrigEdge=syncTrigEdge)
            return True
        def setInputEdgeTrig(self, channel=-1, trigLvl=-50, trigEdge=1):
            return self.set(channel, TrigLvl=trigLvl, TrigEdge=trigEdge)
        def setInputCFD(self, channel=-1, discrLvl=50, zeroXLvl=20):
            return self.set(channel, DiscrLvl=discrLvl, ZeroXLvl=zeroXLvl)
        def setInputChannelOffset(self, channel=-1, chanOffs=0): return self.set(channel, ChanOffs=chanOffs)
        def setInputDeadTime(self, channel=-1, deadTime=800): return self.set(channel, DeadTime=deadTime)
"""
CONSTANTS = """
    from enum import Enum
    class MeasMode(Enum):
        T2 = 2
    class RefSource(Enum):
        Internal = 0
        External_10MHz = 1
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Begin a stand-in library with a plan of what it does; gives the file that tells of its proper end."""
    package = tmp_path / "path" / "snAPI"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "Main.py").write_text(textwrap.dedent(MAIN))
    (package / "Constants.py").write_text(textwrap.dedent(CONSTANTS))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))

    def plan(**what):
        closed = tmp_path / "closed"
        monkeypatch.setenv("STAND_IN_PLAN", json.dumps({"closed": str(closed), **what}))
        return closed

    return plan


def collect(tagger, done):
    """Blocks until one satisfies `done`."""
    blocks, deadline = [], time.monotonic() + 10.0
    while not blocks or not done(blocks[-1]):
        assert time.monotonic() < deadline
        blocks.append(tagger.read(1.0))
    return blocks


def test_a_device_streams_with_its_settings_and_is_closed_properly(stand_in):
    wraps = [{"times": [7, 7, 90, 2**40], "channels": [1, 3, 0, 255]}, {"times": [2**40 + 5], "channels": [2]}]
    closed = stand_in(blocks=[*wraps, {"times": [2**41], "channels": [255]}])
    settings = {
        "inputs": [1, 2, 3, 0],
        "trigger_mv": {"0": -100, "1": -80},
        "offset_ps": {"2": -4000},
        "dead_time_ps": {"1": 20_000},
        "cfd_mv": {"3": [60, 10]},
    }
    tagger = connect("picoquant:1045483", CLOCK, settings)
    assert tagger.identify().serial == "1045483"
    assert tagger.resolution_ps == 5.0
    blocks = collect(tagger, lambda block: block.latest_ps == 2**41)
    assert [t for block in blocks for t in block.time_ps.tolist()] == [7, 90, 2**40 + 5]
    assert [p for block in blocks for p in block.pattern.tolist()] == [0b101, 0b1000, 0b10]
    assert all(block.missed == 0 for block in blocks)
    assert tagger.config["ChansCfg"][0]["TrigLvl"] == -80
    tagger.close()
    tagger.close()
    assert closed.exists()
    with pytest.raises(TransportLost):
        tagger.read(0.0)
    with pytest.raises(TransportLost):
        tagger.identify()


def test_an_overrun_in_the_librarys_log_is_a_loss_of_unknown_size(stand_in):
    warning = "231124_00:24:16.228 WRN Device: UfStore buffer overrun - clearing! @1045483"
    harmless = "231124_00:24:16.228 INF Device: Sync_Lost @1045483"
    stand_in(
        blocks=[{"times": [5], "channels": [1]}, {"log": harmless}, {"log": warning}, {"times": [9], "channels": [1]}]
    )
    tagger = connect("picoquant:", CLOCK, {})
    blocks = collect(tagger, lambda block: block.latest_ps == 9)
    lost = [block for block in blocks if block.notes]
    assert len(lost) == 1
    assert lost[0].missed is None
    assert lost[0].notes == ("PicoQuant: UfStore buffer overrun - clearing!",)
    tagger.close()


@pytest.mark.parametrize(
    ("plan", "settings", "error", "match"),
    [
        ({"missing": True}, {}, BadInput, "pip install snAPI"),
        ({"refuse": True}, {"trigger_mv": {"1": -80}}, InstrumentFault, r"refuses Edge \[-80, 0\] for input 1"),
        ({"forget": True}, {"offset_ps": {"1": 500}}, InstrumentFault, "ChanOffs of input 1 .* is 0, told was 500"),
        ({"id": "99"}, {}, WrongInstrument, "serial number 99"),
        ({}, {"reference": "moon"}, InstrumentFault, "known are external_10mhz, internal"),
        ({"reference": "External_10MHz"}, {}, InstrumentFault, "T2 mode"),
        ({"hang": "open"}, {"timeout_s": 1.0}, TransportTimeout, "within 1 s"),
        ({"hang": "crash"}, {}, TransportLost, "died"),
        ({}, {"inputs": [65]}, BadInput, "channel 65"),
        ({}, {"trigger_mv": {"x": 1}}, BadInput, "trigger_mv"),
        ({}, {"join_ps": -1}, BadInput, "join_ps"),
        ({}, {"buffer_tags": 2**30}, BadInput, "buffer_tags"),
    ],
)
def test_what_cannot_be_connected_says_why_in_time(stand_in, plan, settings, error, match):
    stand_in(**plan)
    with pytest.raises(error, match=match):
        connect("picoquant:1045483", CLOCK, settings)


def test_a_library_that_dies_or_loses_its_device_is_a_lost_link(stand_in):
    stand_in(blocks=[{"times": [5], "channels": [1]}, {"die": True}])
    tagger = connect("picoquant:", CLOCK, {})
    with pytest.raises(TransportLost, match="died"):
        collect(tagger, lambda block: False)
    tagger.close()
    stand_in(blocks=[{"log": "231124_00:24:16 ERR Device: Device lost @1"}])
    tagger = connect("picoquant:", CLOCK, {})
    with pytest.raises(TransportLost, match="lost"):
        collect(tagger, lambda block: False)
    tagger.close()


# --- The pure parts ---------------------------------------------------------------------------------------


def frame(says, times=(), channels=()):
    body = np.array(times, "<u8").tobytes() + bytes(channels)
    return json.dumps({**says, "tags": len(times)}).encode() + b"\n" + body


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 255)), max_size=5), max_size=4),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_any_cut_of_the_frames_gives_the_same(frames, cuts):
    data = b"".join(frame({}, [t for t, _ in tags], [c for _, c in tags]) for tags in frames)
    reader, found = FrameReader(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        found += reader.feed(data[start:stop])
    read = [list(zip(f.time_ps.tolist(), f.channel.tolist(), strict=True)) for f in found]
    assert read == frames


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b'{"tags": 1}\n' + rest))
def test_bytes_that_are_no_frames_raise_only_ours(data):
    decoder = ClickDecoder((1, 2), 0)
    try:
        for found in FrameReader().feed(data + b"\n"):
            decoder.feed(found)
    except WireError:
        pass


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"PQTTTR\0\0" + rest))
def test_any_header_is_read_or_bad_input(data):
    with contextlib.suppress(BadInput):
        parse_ptu_header(data)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda rest: f"picoquant:{rest}"))
def test_any_address_is_a_place_or_bad_input(address):
    with contextlib.suppress(GroundStationError):
        parse_place(address)
