"""How fast the event streams of TDC1 and TDC2 are decoded, beside a copy of the same bytes in the same process.

    python tests/benchmarks/bench_decoding.py [--words 8000000] [--rounds 5] [--read 1048576]

Each stream is fed in reads of one size, as it arrives from a socket. CPU time, pinned to one core, the best of the
rounds. The target is 100 million words a second; `x copy` moves less with the machine than words per second. One
stream is as it should be, one has 1 % dummies, one loses two bytes a hundred times; TDC2's skewed one is put in order.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from drivers.a1_words import A1Decoder
from drivers.tdc1_words import Tdc1Decoder

TARGET_M_WORDS_S = 100
DUMMY = 16
SLIPS = 100


def a_stream(words: int, dummies: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Times in 2 ns at 2 million events a second, and low bits."""
    rng = np.random.default_rng(seed)
    ticks = np.cumsum(rng.integers(1, 500, words))
    low = rng.choice([1, 2, 4, 8, 5], words)
    low[rng.random(words) < dummies] = DUMMY
    low[np.flatnonzero(np.diff(ticks >> 27, prepend=0))] = DUMMY  # a TDC1 tells each turn of its counter
    return ticks, low


def tdc1(ticks: np.ndarray, low: np.ndarray) -> bytes:
    return (((ticks & ((1 << 27) - 1)) << 5) | low).astype("<u4").tobytes()


def a1(ticks: np.ndarray, low: np.ndarray) -> bytes:
    fine = ticks.astype(np.uint64) * np.uint64(512) + np.random.default_rng(2).integers(512, size=len(ticks)).astype(
        "u8"
    )
    return ((fine << np.uint64(10)) | low.astype(np.uint64)).astype("<u8").tobytes()


def slipped(data: bytes) -> bytes:
    step = len(data) // SLIPS
    return b"".join(data[at : at + step - 2] for at in range(0, len(data), step))


def cpu_s(task: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        task()
        best = min(best, time.process_time() - begun)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=8_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--read", type=int, default=1 << 20, help="bytes of a read")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clean, dummies = a_stream(options.words, 0.0), a_stream(options.words, 0.01)
    cases = {
        "TDC1": (tdc1(*clean), 4, Tdc1Decoder),
        "TDC1, 1 % dummies": (tdc1(*dummies), 4, Tdc1Decoder),
        f"TDC1, {SLIPS} slips": (slipped(tdc1(*clean)), 4, Tdc1Decoder),
        "a1": (a1(*clean), 8, A1Decoder),
        "a1, 1 % dummies": (a1(*dummies), 8, A1Decoder),
        f"a1, {SLIPS} slips": (slipped(a1(*clean)), 8, A1Decoder),
        "a1, skews": (a1(*clean), 8, lambda: A1Decoder((0, 100, -100, 50))),
    }
    say = sys.stdout.write
    say(f"{'stream':24s} {'Mwords/s':>9s} {'x copy':>7s}  target {TARGET_M_WORDS_S}\n")
    for name, (data, size, decoder) in cases.items():
        source = np.frombuffer(data, np.uint8)
        copy = np.empty_like(source)
        copy_s = cpu_s(lambda into=copy, of=source: np.copyto(into, of), 3 * options.rounds)

        def decode(data: bytes = data, make: Callable[[], A1Decoder | Tdc1Decoder] = decoder) -> None:
            found = make()
            for at in range(0, len(data), options.read):
                found.feed(data[at : at + options.read])

        seconds = cpu_s(decode, options.rounds)
        rate = len(data) / size / seconds / 1e6
        say(f"{name:24s} {rate:9.0f} {seconds / copy_s:7.1f}  {'met' if rate >= TARGET_M_WORDS_S else 'MISSED'}\n")


if __name__ == "__main__":
    main()
