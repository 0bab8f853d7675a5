"""Ours beside every other tool that is installed: same arrays, same process, in turns. See the README beside this.

python tests/benchmarks/compare.py [--works W1 W1m W2 W3 W8 BB84] [--rounds 7] [--share 1.0]
                                   [--eta PYTHON_WITH_ETABACKEND]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import peers
from bench_coincidence import TWO_FOLD, eight_channels, merged_stream, two_streams, with_numba
from peers import Contender, Missing
from works import BEACON_CHANNEL, BEACON_PS, HALF_WIDTH_PS, SLOT_PS, SLOTS_PER_PULSE, Transmission, link, transmission

from groundstation.core.bb84 import Bb84Chain
from groundstation.core.beacon_line import BeaconTracker
from groundstation.core.coincidence import merged_pairs, pairs
from groundstation.core.correlation import Correlation, correlate
from groundstation.core.gating import SlotGate, Slots, assign_slots
from groundstation.core.merging import Merger, merge
from groundstation.core.patterns import PatternCoincidences
from groundstation.core.tags import EMPTY_BLOCK, TagBlock

OURS = "groundstation"
HALF_WINDOW_PS, HALF_RANGE_PS, BIN_PS = 1_000, 100_000, 100
_BLOCK = 1 << 17


class Target(NamedTuple):
    """What a contender of ours should reach: at most so many copies, and at least a rate or a ratio to the fastest."""

    name: str
    copies: float | None = None
    ratio: float | None = None
    mtags_per_s: float | None = None


class Work(NamedTuple):
    """A task and all that do it; the first contender's result is the reference for the others."""

    title: str
    contenders: list[Contender]
    missing: list[Missing]
    targets: list[Target]


class Measured(NamedTuple):
    """Median CPU seconds of a contender and of the copies around it, for its number of tags."""

    contender: Contender
    seconds: float
    copy_seconds: float
    found: np.ndarray

    @property
    def mtags_per_s(self) -> float:
        return self.contender.tags / self.seconds / 1e6

    @property
    def copies(self) -> float:
        return self.seconds / self.copy_seconds


def blocks_of(stream: TagBlock) -> list[TagBlock]:
    """A stream in pieces as a tagger would give them."""
    parts = [slice(start, start + _BLOCK) for start in range(0, stream.time_ps.size, _BLOCK)]
    return [TagBlock(stream.time_ps[part], stream.channel[part]) for part in parts]


def coincidences(a: np.ndarray, b: np.ndarray, folder: Path) -> Work:
    """W1: two separate streams, all pairs within +-1 ns as indices (others count or bin them)."""
    merged = merged_stream(a, b)
    found, missing = peers.offered(
        [
            ("numba", "numba, two pointers", lambda: _numba_pairs(a, b)),
            ("pytimetag", "pytimetag", lambda: peers.pytimetag_histogram(a, b, HALF_WINDOW_PS, BIN_PS)),
            ("tangy", "tangy", lambda: peers.tangy_count(a, b, merged, HALF_WINDOW_PS)),
            ("trattoria", "trattoria", lambda: peers.trattoria_g2(merged, folder, HALF_WINDOW_PS, BIN_PS)),
            ("tttrlib", "tttrlib", lambda: peers.tttrlib_correlator(a, b, HALF_WINDOW_PS, BIN_PS)),
            ("S15lib", "s15lib", lambda: peers.s15lib_delta_loop(a, b, HALF_WINDOW_PS, BIN_PS)),
            ("pycorrelate", "pycorrelate", lambda: peers.pycorrelate_histogram(a, b, HALF_WINDOW_PS, BIN_PS)),
        ]
    )
    tags = a.size + b.size
    ours = Contender(f"{OURS}, two streams", tags, lambda: pairs(a, b, HALF_WINDOW_PS)[0].size)
    on_merged = Contender(f"{OURS}, merged stream", tags, lambda: merged_pairs(merged, 0, 1, HALF_WINDOW_PS)[0].size)
    targets = [Target(ours.name, copies=10, ratio=0.9), Target(on_merged.name, copies=6, ratio=1.3)]
    return Work("W1, W1m: coincidences within +-1 ns", [ours, on_merged, *found], missing, targets)


def _numba_pairs(a: np.ndarray, b: np.ndarray) -> Contender:
    loop = with_numba()
    assert loop is not None
    for ours, theirs in zip(pairs(a, b, HALF_WINDOW_PS), loop(a, b, HALF_WINDOW_PS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return Contender("numba, two pointers", a.size + b.size, lambda: loop(a, b, HALF_WINDOW_PS)[0].size)


def correlation(a: np.ndarray, b: np.ndarray, folder: Path) -> Work:
    """W3: histogram of the delays within +-100 ns in bins of 100 ps."""
    merged = merged_stream(a, b)
    found, missing = peers.offered(
        [
            ("numba", "numba, two pointers", lambda: peers.numba_histogram(a, b, HALF_RANGE_PS, BIN_PS)),
            ("pytimetag", "pytimetag", lambda: peers.pytimetag_histogram(a, b, HALF_RANGE_PS, BIN_PS)),
            ("trattoria", "trattoria", lambda: peers.trattoria_g2(merged, folder, HALF_RANGE_PS, BIN_PS)),
            ("tttrlib", "tttrlib", lambda: peers.tttrlib_correlator(a, b, HALF_RANGE_PS, BIN_PS)),
            ("S15lib", "s15lib", lambda: peers.s15lib_delta_loop(a, b, HALF_RANGE_PS, BIN_PS)),
            ("pycorrelate", "pycorrelate", lambda: peers.pycorrelate_histogram(a, b, HALF_RANGE_PS, BIN_PS)),
        ]
    )
    blocks = blocks_of(merged)

    def stage() -> np.ndarray:
        correlation = Correlation(0, 1, HALF_RANGE_PS, BIN_PS)
        for block in blocks:
            correlation.feed(block)
        return correlation.finish().counts

    tags = a.size + b.size
    ours = Contender(f"{OURS}, two streams", tags, lambda: correlate(a, b, HALF_RANGE_PS, BIN_PS).counts)
    on_merged = Contender(f"{OURS}, merged stream", tags, stage)
    targets = [Target(ours.name, copies=11, ratio=0.8)]
    return Work("W3: delays within +-100 ns, bins of 100 ps", [ours, on_merged, *found], missing, targets)


def gating(sent: Transmission) -> Work:
    """W2: slot, phase and gate of every tag against the beacon; the number found is that of tags in the gate."""
    time_ps, beacon_ps = sent.detectors.time_ps, sent.beacon_ps
    blocks = blocks_of(sent.merged())

    kept: list[Slots | None] = [None]

    def arrays() -> int:
        settings = SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS
        kept[0] = assign_slots(time_ps, beacon_ps, BeaconTracker(BEACON_PS), *settings, kept[0])
        return int(np.count_nonzero(kept[0].inside))

    def stage() -> int:
        gate = SlotGate(BeaconTracker(BEACON_PS), BEACON_CHANNEL, SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS)
        runs = [run for block in blocks for run in _counted(gate.feed(block))]
        return sum(runs) + sum(_counted(gate.finish()))

    def peer() -> Contender:
        run = peers.pytimetag_gate(time_ps, beacon_ps, SLOTS_PER_PULSE, SLOT_PS)
        since = run()
        inside = int(np.count_nonzero((since <= HALF_WIDTH_PS) | (since >= SLOT_PS - HALF_WIDTH_PS)))
        remark = f"by a fixed period from each pulse; {inside:,d} in the gate"
        return Contender("pytimetag (numba)", time_ps.size, lambda: run().size, False, remark)

    found, missing = peers.offered([("pytimetag", "pytimetag", peer)])
    ours = Contender(f"{OURS}, arrays", time_ps.size, arrays, remark="into the arrays of the run before")
    on_stream = Contender(f"{OURS}, merged stream", time_ps.size + beacon_ps.size, stage)
    targets = [Target(ours.name, copies=9, ratio=1.7)]
    return Work("W2: slots and gate against a beacon", [ours, on_stream, *found], missing, targets)


def _counted(runs: list) -> list[int]:
    return [int(np.count_nonzero(run.slots.inside)) for run in runs]


def patterns(share: float) -> Work:
    """W8: all 28 two-fold patterns over eight channels at once."""
    stream = merge(eight_channels())
    size = int(stream.time_ps.size * share)
    stream = TagBlock(stream.time_ps[:size], stream.channel[:size])

    def run() -> np.ndarray:
        stage = PatternCoincidences(range(8), HALF_WINDOW_PS, TWO_FOLD)
        stage.feed(stream)
        stage.finish()
        return stage.counts

    ours = Contender(f"{OURS}, 28 patterns", stream.time_ps.size, run)
    return Work("W8: patterns over 8 channels within +-1 ns", [ours], [], [Target(ours.name, mtags_per_s=100)])


def chain(sent: Transmission) -> Work:
    """The whole BB84 chain: detectors and beacon, as two streams or to be merged first, clock, gate, match to the
    record, tallies. The chain itself needs no merged stream, only to hear of both."""
    sent, record = link(sent)
    detectors = blocks_of(sent.detectors)
    beacon_ps = sent.beacon_ps
    cuts = np.searchsorted(beacon_ps, [block.time_ps[-1] for block in detectors], side="right").tolist()
    pulses = [beacon_ps[start:stop] for start, stop in pairwise([0, *cuts, beacon_ps.size])]
    syncs = [TagBlock(times, np.full(times.size, BEACON_CHANNEL, np.uint8)) for times in pulses]

    def stage() -> Bb84Chain:
        return Bb84Chain(BeaconTracker(BEACON_PS), SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS, record, 7, BEACON_CHANNEL)

    def beside() -> np.ndarray:
        chain = stage()
        for block, times in zip([*detectors, EMPTY_BLOCK], pulses, strict=True):
            chain.feed(block, times)
        return chain.finish().table

    def merging() -> np.ndarray:
        merger, chain = Merger(2), stage()
        for clicks, times in zip(detectors, syncs[:-1], strict=True):
            chain.feed(merger.feed(0, clicks))
            chain.feed(merger.feed(1, times, int(clicks.time_ps[-1])))
        chain.feed(merger.feed(1, syncs[-1]))
        chain.feed(merger.finish())
        return chain.finish().table

    tags = sent.detectors.time_ps.size + beacon_ps.size
    ours = Contender(f"{OURS}, two streams", tags, beside)
    merged_first = Contender(f"{OURS}, merged first", tags, merging)
    targets = [Target(ours.name, mtags_per_s=60)]
    return Work("BB84: beacon and detectors, clock, gate, match, tallies", [ours, merged_first], [], targets)


def measure(work: Work, rounds: int) -> list[Measured]:
    """Each contender in turn, each time after an untimed run so that its memory is in place; medians of CPU time."""
    source = np.arange(10_000_000)
    target = np.empty_like(source)
    spent: dict[str, list[float]] = {contender.name: [] for contender in work.contenders}
    copying: list[float] = []
    found = {}
    for _ in range(rounds):
        for contender in work.contenders:
            found[contender.name] = np.asarray(contender.run())
            begin = time.process_time()
            np.copyto(target, source)
            middle = time.process_time()
            contender.run()
            spent[contender.name].append(time.process_time() - middle)
            copying.append(middle - begin)
    copy_s = float(np.median(copying)) / source.size
    measured = []
    for contender in work.contenders:
        if contender.exact:
            np.testing.assert_array_equal(found[contender.name], found[work.contenders[0].name], contender.name)
        seconds = float(np.median(spent[contender.name]))
        measured.append(Measured(contender, seconds, copy_s * contender.tags, found[contender.name]))
    return measured


def eta_measured(python: str, merged: TagBlock, folder: Path, half_range_ps: int, rounds: int) -> Measured:
    """ETA runs in an environment of its own, on a file; its copies are taken there too."""
    path = folder / "merged.ptu"
    if not path.exists():
        peers.write_ptu(path, TagBlock(merged.time_ps, merged.channel + np.uint8(1)))
    arguments = [python, str(Path(__file__).with_name("eta_peer.py")), str(path), str(half_range_ps), str(BIN_PS)]
    output = subprocess.run([*arguments, str(rounds)], check=True, capture_output=True, text=True).stdout
    answer = json.loads(output.splitlines()[-1])
    tags = merged.time_ps.size
    contender = Contender("ETA (LLVM)", tags, lambda: 0, False, "own process; reads a PTU file; loses about 1/10,000")
    copy_seconds = float(np.median(answer["copy_s"])) / 10_000_000 * tags
    return Measured(contender, float(np.median(answer["seconds"])), copy_seconds, np.asarray(answer["found"]))


def report(work: Work, measured: list[Measured]) -> str:
    """The table of one work, fastest first, and how its targets were met."""
    rate = {row.contender.name: row.mtags_per_s for row in measured}
    fastest = max((rate[name] for name in rate if not name.startswith(OURS)), default=None)
    reference = int(measured[0].found.sum())
    lines = [work.title, f"  {'':32s} {'Mtags/s':>8s} {'x copy':>7s} {'to peer':>8s} {'found':>12s}"]
    for row in sorted(measured, key=lambda row: -row.mtags_per_s):
        total = int(row.found.sum())
        ratio = f"{row.mtags_per_s / fastest:8.2f}" if fastest else f"{'':8s}"
        same = "" if row.contender.exact or total == reference else f" ({total / reference - 1:+.3%})"
        line = f"  {row.contender.name:32s} {row.mtags_per_s:8.1f} {row.copies:7.1f} {ratio} {total:12,d}{same}"
        lines.append(f"{line}  {row.contender.remark}".rstrip())
    lines += [f"  {peer.name}: {peer.reason}" for peer in work.missing]
    by_name = {row.contender.name: row for row in measured}
    for target in work.targets:
        row = by_name[target.name]
        wishes: list[tuple[str, float, float, bool]] = []
        if target.copies is not None:
            wishes.append(("x copy", row.copies, target.copies, row.copies <= target.copies))
        if target.ratio is not None and fastest:
            found = row.mtags_per_s / fastest
            wishes.append(("of the fastest peer", found, target.ratio, found >= target.ratio))
        if target.mtags_per_s is not None:
            wishes.append(("Mtags/s", row.mtags_per_s, target.mtags_per_s, row.mtags_per_s >= target.mtags_per_s))
        for unit, found, wanted, met in wishes:
            lines.append(f"  {'met   ' if met else 'MISSED'} {target.name}: {found:.2f} {unit}, wanted {wanted:g}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--works", nargs="+", default=["W1", "W2", "W3", "W8", "BB84"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=float, default=1.0, help="of the tags, for a quick look")
    parser.add_argument("--eta", help="a Python that has etabackend, which needs an older numpy")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with peers.scratch() as name:
        run(arguments, Path(name))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure the works asked for and print each as soon as it is done."""
    streams = tuple(stream[: int(stream.size * arguments.share)] for stream in two_streams())
    size = int(10_000_000 * arguments.share)
    makers: dict[str, Callable[[], Work]] = {
        "W1": lambda: coincidences(*streams, folder),
        "W3": lambda: correlation(*streams, folder),
        "W2": lambda: gating(transmission(size)),
        "W8": lambda: patterns(arguments.share),
        "BB84": lambda: chain(transmission(size)),
    }
    ranges = {"W1": HALF_WINDOW_PS, "W3": HALF_RANGE_PS}
    for name in (name for name in makers if name in arguments.works):
        work = makers[name]()
        measured = measure(work, arguments.rounds)
        if arguments.eta and name in ranges:
            measured.append(
                eta_measured(arguments.eta, merged_stream(*streams), folder, ranges[name], arguments.rounds)
            )
        sys.stdout.write(report(work, measured) + "\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
