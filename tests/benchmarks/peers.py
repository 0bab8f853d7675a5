"""The other tools, each behind one function that makes a contender of it for given streams.

A contender gives a histogram or a count. `exact` says whether it must equal ours; where it does not, the remark tells
why. Nobody needs any of these tools: those that are not installed are left out and named.
"""

import importlib
import importlib.util
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock

Run = Callable[[], NDArray[np.int64] | int]


class Contender(NamedTuple):
    """One way to do a work. `run` returns what it found, `tags` is how many it went through."""

    name: str
    tags: int
    run: Run
    exact: bool = True
    remark: str = ""


class Missing(NamedTuple):
    """A tool that is not installed here, or does not start."""

    name: str
    reason: str


def offered(makers: list[tuple[str, str, Callable[[], Contender]]]) -> tuple[list[Contender], list[Missing]]:
    """Make the contenders (module, name, maker) whose module is installed."""
    contenders, missing = [], []
    for module, name, maker in makers:
        if importlib.util.find_spec(module) is None:
            missing.append(Missing(name, "not installed"))
            continue
        try:
            contenders.append(maker())
        except Exception as error:  # whatever a foreign tool raises, the comparison of the others goes on
            missing.append(Missing(name, f"{type(error).__name__}: {error}"))
    return contenders, missing


def numba_histogram(a: NDArray[np.int64], b: NDArray[np.int64], half_range_ps: int, bin_ps: int) -> Contender:
    """The yardstick: the obvious loop with two pointers, compiled."""
    numba = importlib.import_module("numba")

    @numba.njit
    def loop(a, b, half_range_ps, bin_ps):
        counts = np.zeros(2 * half_range_ps // bin_ps, np.int64)
        low = 0
        for i in range(a.size):
            first = a[i] - half_range_ps
            while low < b.size and b[low] < first:
                low += 1
            j = low
            while j < b.size and b[j] < a[i] + half_range_ps:
                counts[(b[j] - first) // bin_ps] += 1
                j += 1
        return counts

    return Contender("numba, two pointers", a.size + b.size, lambda: loop(a, b, half_range_ps, bin_ps))


def pytimetag_histogram(a: NDArray[np.int64], b: NDArray[np.int64], half_range_ps: int, bin_ps: int) -> Contender:
    pytimetag = importlib.import_module("pytimetag")
    analyser = pytimetag.HistogramAnalyser(2)
    view = {"Sync": 0, "Signals": [1], "ViewStart": -half_range_ps, "ViewStop": half_range_ps}
    analyser.turnOn({**view, "BinCount": 2 * half_range_ps // bin_ps, "Divide": 1})
    block = pytimetag.DataBlock.create([a, b], 0, 0, int(max(a[-1], b[-1])) + 1)

    def run() -> NDArray[np.int64]:
        return np.array(analyser.dataIncome(block)["Histograms"][0], np.int64)

    return Contender("pytimetag (numba)", a.size + b.size, run, False, "its last bin includes the end of the range")


def pytimetag_gate(time_ps: NDArray[np.int64], beacon_ps: NDArray[np.int64], slots_per_pulse: int, slot_ps: int) -> Run:
    """Number of the slot since the beacon tag, and time since the slot's beginning, by a fixed period from each tag."""
    encoding = importlib.import_module("pytimetag.analysers.EncodingAnalyser")
    numbers = np.arange(slots_per_pulse, dtype=np.int32)
    return lambda: encoding.metaJIT(beacon_ps, time_ps, float(slot_ps), numbers, slots_per_pulse)[1]


def tttrlib_correlator(a: NDArray[np.int64], b: NDArray[np.int64], half_range_ps: int, bin_ps: int) -> Contender:
    tttrlib = importlib.import_module("tttrlib")
    first, second = (a // bin_ps).astype(np.uint64), ((b + half_range_ps) // bin_ps).astype(np.uint64)
    weights = np.ones(a.size), np.ones(b.size)

    def run() -> int:
        correlator = tttrlib.Correlator()
        correlator.method, correlator.n_casc, correlator.n_bins = "wahl", 1, 2 * half_range_ps // bin_ps
        correlator.set_macrotimes(first, second)
        correlator.set_weights(*weights)
        correlator.run()
        return int(np.sum(correlator.get_corr()))

    return Contender("tttrlib (C++)", a.size + b.size, run, False, f"times rounded to {bin_ps} ps first")


def s15lib_delta_loop(a: NDArray[np.int64], b: NDArray[np.int64], half_range_ps: int, bin_ps: int) -> Contender:
    g2lib = importlib.import_module("S15lib.g2lib.g2lib")
    first, second = a / 1000, (b + half_range_ps) / 1000

    def run() -> int:
        return int(np.sum(g2lib.delta_loop(first, second, 2 * half_range_ps // bin_ps, bin_ps / 1000)))

    return Contender("s15lib (Cython)", a.size + b.size, run, False, "float64 nanoseconds")


def pycorrelate_histogram(a: NDArray[np.int64], b: NDArray[np.int64], half_range_ps: int, bin_ps: int) -> Contender:
    """It searches each bin by itself: with many bins it gets a part of the streams, or it would take minutes."""
    pycorrelate = importlib.import_module("pycorrelate")
    bins = 2 * half_range_ps // bin_ps
    part = max(1, bins // 40)
    end = a[a.size // part - 1]
    first, second = a[: a.size // part], b[: int(np.searchsorted(b, end))]
    edges = np.arange(-half_range_ps, half_range_ps + bin_ps, bin_ps)

    def run() -> int:
        return round(float(np.sum(pycorrelate.pcorrelate(first, second, edges))) * bin_ps)

    remark = "float edges" if part == 1 else f"on 1/{part} of the streams"
    return Contender("pycorrelate (numba)", first.size + second.size, run, False, remark)


def tangy_count(a: NDArray[np.int64], b: NDArray[np.int64], merged: TagBlock, half_window_ps: int) -> Contender:
    tangy = importlib.import_module("tangy")
    size = merged.time_ps.size
    buffer = tangy.TangyBuffer("comparison", 1e-12, 1.0, 4, size + 16, tangy.TangyBufferType.Standard)
    for start in range(0, size, 1_000_000):
        part = slice(start, start + 1_000_000)
        buffer.push(merged.channel[part] + np.uint8(1), merged.time_ps[part].astype(np.uint64))
    seconds = (int(merged.time_ps[-1]) - int(merged.time_ps[0])) * 1e-12 + 1

    def run() -> int:
        return int(buffer.coincidence_count(seconds, half_window_ps / 2 * 1e-12, [1, 2]))

    return Contender("tangy (Rust)", size, run, False, "one pair per group of tags; filling its buffer not counted")


def trattoria_g2(merged: TagBlock, folder: Path, half_range_ps: int, bin_ps: int) -> Contender:
    trattoria = importlib.import_module("trattoria")
    path = folder / "merged.ptu"
    if not path.exists():
        write_ptu(path, TagBlock(merged.time_ps, merged.channel + np.uint8(1)))
    file = trattoria.PTUFile(str(path))
    parameters = trattoria.G2Parameters(2, 3, half_range_ps * 1e-12, bin_ps * 1e-12, None)  # its channel 0 is the sync

    def run() -> int:
        return int(np.sum(np.asarray(file.g2(parameters, mode="symmetric").g2, np.int64)))

    return Contender("trattoria (Rust)", merged.time_ps.size, run, False, "reads a PTU file; two bins fewer")


def write_ptu(path: Path, block: TagBlock) -> None:
    """A PTU file of T2 records of 1 ps (HydraHarp, version 2) for the tools that read nothing else."""
    wraps = block.time_ps >> 25
    step = np.diff(wraps, prepend=0)
    place = np.arange(wraps.size) + np.cumsum(step > 0)
    record = np.empty(wraps.size + np.count_nonzero(step), np.uint32)
    record[place] = block.channel.astype(np.uint32) << 25 | (block.time_ps & 0x1FFFFFF).astype(np.uint32)
    record[place[step > 0] - 1] = 0xFE000000 | step[step > 0].astype(np.uint32)
    whole, real = 0x10000008, 0x20000008
    head = [
        ("TTResultFormat_TTTRRecType", whole, 0x01010204),
        ("TTResultFormat_BitsPerRecord", whole, 32),
        ("Measurement_Mode", whole, 2),
        ("MeasDesc_GlobalResolution", real, 1e-12),
        ("MeasDesc_Resolution", real, 1e-12),
        ("MeasDesc_AcquisitionTime", whole, int(block.time_ps[-1]) // 10**9 + 1),
        ("HW_InpChannels", whole, 4),
        ("HWSync_Divider", whole, 1),
        ("TTResult_SyncRate", whole, 0),
        ("TTResult_NumberOfRecords", whole, record.size),
        ("Header_End", 0xFFFF0008, 0),
    ]
    with path.open("wb") as file:
        file.write(b"PQTTTR\0\0" + b"1.0.00\0\0")
        for name, kind, value in head:
            file.write(
                struct.pack("<32siI", name.encode(), -1, kind) + struct.pack("<d" if kind == real else "<q", value)
            )
        record.tofile(file)


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Where files for the tools go."""
    return tempfile.TemporaryDirectory(prefix="groundstation-comparison-")
