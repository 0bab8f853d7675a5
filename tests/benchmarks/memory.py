"""How much memory each streaming stage needs for a hundred million tags.

    python tests/benchmarks/memory.py [--tags 100_000_000]

The stream is made and dropped block by block, so what is left is the stage's own. The figure is the peak that Python
and numpy had allocated at once, the block being fed (1.2 MB) included.
"""

import argparse
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from works import BEACON_CHANNEL, BEACON_PS, HALF_WIDTH_PS, SLOT_PS, SLOTS_PER_PULSE

from groundstation.core.bb84 import Bb84Chain, record_of
from groundstation.core.beacon_line import BeaconTracker
from groundstation.core.correlation import Correlation
from groundstation.core.gating import SlotGate
from groundstation.core.histograms import ChannelRates, IntervalHistogram, PhaseHistogram
from groundstation.core.tags import TagBlock

_BLOCK = 1 << 17
Feed = Callable[[TagBlock], object]


def stream(tags: int) -> Iterator[TagBlock]:
    """Four detectors at 1 Mtag/s together, and a beacon pulse every 100 us."""
    rng = np.random.default_rng(1)
    start_ps, pulse = 0, 0
    for _ in range(0, tags, _BLOCK):
        stop_ps = start_ps + _BLOCK * 1_000_000
        pulses = np.arange(pulse, -(-stop_ps // BEACON_PS)) * BEACON_PS
        time = np.concatenate((rng.integers(start_ps, stop_ps, _BLOCK - pulses.size), pulses))
        channel = np.concatenate((rng.integers(0, 4, _BLOCK - pulses.size), np.full(pulses.size, BEACON_CHANNEL)))
        order = np.argsort(time, kind="stable")
        yield TagBlock(time[order], channel[order].astype(np.uint8))
        start_ps, pulse = stop_ps, pulse + pulses.size


def stages() -> dict[str, Callable[[], Feed]]:
    """Each stage's feed, made anew."""
    gate = SLOTS_PER_PULSE, SLOT_PS, HALF_WIDTH_PS
    record = record_of(np.zeros(0, np.uint8))
    return {
        "Correlation +-100 ns": lambda: Correlation(0, 1, 100_000, 100).feed,
        "Correlation +-1 ms, 1 us bins": lambda: Correlation(0, 1, 10**9, 10**6).feed,
        "ChannelRates 10 ms": lambda: ChannelRates(10**10, 5).feed,
        "PhaseHistogram": lambda: PhaseHistogram(0, Fraction(12495603, 1000), 1000).feed,
        "IntervalHistogram": lambda: IntervalHistogram(0, 10**7, 10**4).feed,
        "SlotGate": lambda: SlotGate(BeaconTracker(BEACON_PS), BEACON_CHANNEL, *gate).feed,
        "Bb84Chain": lambda: Bb84Chain(BeaconTracker(BEACON_PS), *gate, record, 1, BEACON_CHANNEL).feed,
    }


def peak_mb(make: Callable[[], Feed], tags: int) -> float:
    """Highest sum of allocations while a stage is fed."""
    tracemalloc.start()
    feed = make()
    for block in stream(tags):
        feed(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tags", type=int, default=100_000_000)
    tags = parser.parse_args().tags
    for name, make in stages().items():
        sys.stdout.write(f"{name:32s} {peak_mb(make, tags):7.1f} MB\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
