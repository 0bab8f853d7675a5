"""How much memory each streaming stage needs for a hundred million tags.

    python tests/benchmarks/memory.py [--tags 100_000_000] [--stages NAME ...]

Each stage runs in a fresh process. The tags are made and dropped block by block, so what is left is the stage's own:
the figure is how far the process grew at its highest point (resident memory, /proc/self/status), above what it had
with everything imported and the first block made.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from works import BEACON_CHANNEL, BEACON_PS, HALF_WIDTH_PS, SLOT_PS, SLOTS_PER_PULSE

from groundstation.core.bb84 import Bb84Chain, packed, record_of
from groundstation.core.beacon_line import BeaconTracker
from groundstation.core.coincidence import MergedPairs
from groundstation.core.correlation import Correlation
from groundstation.core.filters import ConditionalFilter, DeadTimeFilter, DelayCompensation, RateBursts
from groundstation.core.g2 import g2_continuous, g2_pulsed
from groundstation.core.gating import SlotGate
from groundstation.core.histograms import ChannelRates, IntervalHistogram, PhaseHistogram
from groundstation.core.merging import Merger
from groundstation.core.patterns import Pattern, PatternCoincidences
from groundstation.core.tags import TagBlock

MOST_MB = 200
_BLOCK = 1 << 17
_GATE = SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS


class Stage(NamedTuple):
    """What a measurement calls: each block goes to `feed`, then comes `finish`; what they give is dropped."""

    feed: Callable[[TagBlock], object]
    finish: Callable[[], object]


def stream(tags: int) -> Iterator[TagBlock]:
    """Four detectors at 1 Mtag/s together, and a beacon pulse every 100 us."""
    rng = np.random.default_rng(1)
    start_ps, pulse = 0, 0
    for _ in range(0, tags, _BLOCK):
        stop_ps = start_ps + _BLOCK * 1_000_000
        pulses = np.arange(pulse, -(-stop_ps // BEACON_PS)) * BEACON_PS
        gaps = rng.integers(0, 2_000_000, _BLOCK - pulses.size)
        clicks = np.minimum(start_ps + np.cumsum(gaps), stop_ps - 1)
        time_ps = np.concatenate((clicks, pulses))
        channel = np.concatenate((rng.integers(0, 4, clicks.size), np.full(pulses.size, BEACON_CHANNEL)))
        order = np.argsort(time_ps, kind="stable")
        yield TagBlock(time_ps[order], channel[order].astype(np.uint8))
        start_ps, pulse = stop_ps, pulse + pulses.size


def _merge() -> Stage:
    """Two stations, one of them always a block behind."""
    merger, late = Merger(2), [TagBlock(np.empty(0, np.int64), np.empty(0, np.uint8))]

    def feed(block: TagBlock) -> None:
        ours = (block.channel < 2).nonzero()[0]
        theirs = (block.channel >= 2).nonzero()[0]
        merger.feed(0, TagBlock(block.time_ps[ours], block.channel[ours]))
        merger.feed(1, late[0])
        late[0] = TagBlock(block.time_ps[theirs], block.channel[theirs])

    return Stage(feed, merger.finish)


def _g2_continuous() -> Stage:
    stage = Correlation(0, 1, 100_000, 100)
    return Stage(
        stage.feed, lambda: g2_continuous(stage.finish(), stage.tags_a, stage.tags_b, max(stage.duration_ps, 1))
    )


def _g2_pulsed() -> Stage:
    stage = Correlation(0, 1, 100_000, 100)
    return Stage(stage.feed, lambda: g2_pulsed(stage.finish(), SLOT_PS, HALF_WIDTH_PS))


def _bb84_chain() -> Stage:
    states = np.random.default_rng(3).integers(0, 12, 1 << 20, dtype=np.uint8)
    record = record_of(packed(states))
    tracker = BeaconTracker(BEACON_PS)
    return _of(
        Bb84Chain(tracker, *_GATE, lambda slot: record(slot & (states.size - 1)), 7, beacon_channel=BEACON_CHANNEL)
    )


def _of(stage: object) -> Stage:
    return Stage(stage.feed, stage.finish)  # type: ignore[attr-defined]  # every stage of the core has both


STAGES: dict[str, Callable[[], Stage]] = {
    "merge": _merge,
    "dead-time": lambda: _of(DeadTimeFilter(dict.fromkeys(range(4), 50_000))),
    "delay": lambda: _of(DelayCompensation({0: 700, 1: -20_000, 2: 10**9})),
    "gate": lambda: _of(SlotGate(BeaconTracker(BEACON_PS), BEACON_CHANNEL, *_GATE)),
    "two-fold": lambda: _of(MergedPairs(0, 1, 1_000)),
    "two-fold-one-to-one": lambda: _of(MergedPairs(0, 1, 1_000_000, "one_to_one")),
    "n-fold": lambda: _of(
        PatternCoincidences(range(4), 1_000, [Pattern((0, 1)), Pattern((0, 1, 2), (3,))], with_indices=True)
    ),
    "correlation": lambda: _of(Correlation(0, 1, 100_000, 100)),
    "correlation-1-ms": lambda: _of(Correlation(0, 1, 10**9, 10**6)),
    "start-stop": lambda: _of(Correlation(0, 1, 10**7, 10**4, "start_stop")),
    "g2-continuous": _g2_continuous,
    "g2-pulsed": _g2_pulsed,
    "rates": lambda: _of(ChannelRates(10**10, 5)),
    "phase": lambda: _of(PhaseHistogram(0, Fraction(12495603, 1000), 1000)),
    "interval": lambda: _of(IntervalHistogram(0, 10**7, 10**4)),
    "conditional": lambda: _of(ConditionalFilter(0, 1, 1_000_000)),
    "bursts": lambda: _of(RateBursts(20, 10_000_000)),
    "bb84-chain": _bb84_chain,
}


def resident_kb(name: str) -> int:
    """A line of /proc/self/status: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}: this measurement needs Linux")


def grown_kb(name: str, tags: int) -> int:
    """Run one stage in this process."""
    next(stream(1))
    before = resident_kb("VmRSS")
    stage = STAGES[name]()
    for block in stream(tags):
        stage.feed(block)
    stage.finish()
    return resident_kb("VmHWM") - before


def measured_mb(name: str, tags: int) -> float:
    """Run one stage in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--here", name, "--tags", str(tags)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tags", type=int, default=100_000_000)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME")
    parser.add_argument("--here", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        sys.stdout.write(f"{grown_kb(arguments.here, arguments.tags)}\n")
        return
    sys.stdout.write(f"{arguments.tags:,} tags; wanted below {MOST_MB} MB\n{'stage':22s} {'MB':>7s} {'s':>6s}\n")
    for name in arguments.stages:
        begin = time.perf_counter()
        grown = measured_mb(name, arguments.tags)
        over = "" if grown < MOST_MB else "  TOO MUCH"
        sys.stdout.write(f"{name:22s} {grown:7.1f} {time.perf_counter() - begin:6.1f}{over}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
