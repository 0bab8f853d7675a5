"""How fast tags become durable, beside plain h5py that promises nothing, and how long a tag waits until it is safe.

    python tests/benchmarks/bench_recording.py [--tags 30000000] [--seconds 10] [--directory DIR]

* `h5py`: two resizable datasets of one file, appended to 100 ms worth at a time, flushed and closed at the end; a kill
  or a full disk would lose some or all of it.
* `daemon`: the same tags through the daemon's buffer and committer: every segment is written, fsynced, renamed and the
  directory fsynced before its tags are acknowledged. The source waits when the daemon is 4 million tags behind, so
  nothing is dropped and the figure is what can be sustained.
* latency: at 1 Mtag/s in reads of 10 ms with commits every 100 ms, from the end of the read to the return of the
  publication that holds the tag, over all tags.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np

from groundstation.acquisition.daemon import Acquisition
from groundstation.acquisition.space import Space
from groundstation.clock import SystemClock
from groundstation.instruments import PatternBlock
from groundstation.recording.manifest import create_recording
from groundstation.recording.segment import Segment, Table
from groundstation.recording.writer import StreamWriter

WIRED = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000}
BLOCK = 100_000
STEP_PS = 1_000_000
_BEHIND = 4_000_000


class TimedWriter(StreamWriter):
    """Remembers when how many tags were acknowledged."""

    def publish(
        self, tables: Mapping[str, Table], notes: Mapping[str, object] | None = None, end: bool = False
    ) -> Segment:
        segment = super().publish(tables, notes, end)
        self.acknowledgements = [*getattr(self, "acknowledgements", []), (time.monotonic(), self.acknowledged["tags"])]
        return segment


class Source:
    """Blocks of tags: as fast as the daemon takes them (`rate_hz` 0), or in step with time."""

    resolution_ps = 1.0

    def __init__(self, block: int, total: int, rate_hz: float, writer: StreamWriter) -> None:
        self._time_ps = np.arange(block, dtype=np.int64) * STEP_PS
        self._pattern = (1 << (np.arange(block) % 4)).astype(np.uint8)
        self._block, self._total, self._rate_hz, self._writer = block, total, rate_hz, writer
        self._began_s = 0.0
        self.given: list[float] = []
        self.over = threading.Event()

    def read(self, timeout_s: float) -> PatternBlock:
        self._began_s = self._began_s or time.monotonic()
        number = len(self.given) * self._block
        behind = number - self._writer.acknowledged.get("tags", 0)
        late_s = time.monotonic() - self._began_s - (number + self._block) / (self._rate_hz or 1e18)
        if number >= self._total or late_s < 0 or (not self._rate_hz and behind > _BEHIND):
            if number >= self._total:
                self.over.set()
            time.sleep(0.001 if late_s >= 0 else min(timeout_s, -late_s))
            return PatternBlock(self._time_ps[:0], self._pattern[:0], max(0, number * STEP_PS - 1), None)
        self.given.append(time.monotonic())
        time_ps = self._time_ps + number * STEP_PS
        return PatternBlock(time_ps, self._pattern, int(time_ps[-1]), None)


def plain_h5py(folder: Path, total: int) -> float:
    """Seconds to append `total` tags to one file, without any promise."""
    time_ps, channel = np.arange(BLOCK, dtype=np.int64) * STEP_PS, (np.arange(BLOCK) % 4).astype(np.uint8)
    began_s = time.monotonic()
    with h5py.File(folder / "plain.h5", "w") as file:
        shape = {"shape": (0,), "maxshape": (None,), "chunks": (1 << 16,)}
        times = file.create_dataset("time_ps", dtype=np.int64, **shape)
        channels = file.create_dataset("channel", dtype=np.uint8, **shape)
        for first in range(0, total, BLOCK):
            for dataset, values in ((times, time_ps + first * STEP_PS), (channels, channel)):
                dataset.resize((first + BLOCK,))
                dataset[first:] = values
    return time.monotonic() - began_s


def daemon(folder: Path, block: int, total: int, rate_hz: float) -> tuple[TimedWriter, Source, int]:
    """Record `total` tags; the writer and the source tell when, the number how many were dropped."""
    run_id, statuses = create_recording(folder, {}), []
    with closing(TimedWriter(folder, "tags", run_id)) as writer:
        source = Source(block, total, rate_hz, writer)
        acquisition = Acquisition(source, WIRED, writer, SystemClock(), 0.1, 1e-6, space=Space(folder, 16_000_000, 0.0))
        acquisition.run(source.over.is_set, statuses.append)
    assert writer.acknowledged["tags"] + statuses[-1].dropped == total
    return writer, source, statuses[-1].dropped


def latencies_s(writer: TimedWriter, source: Source, block: int) -> np.ndarray:
    """For each block, from its read to its acknowledgement."""
    when, rows = (np.array(column) for column in zip(*writer.acknowledgements, strict=True))
    blocks = np.arange(1, len(source.given) + 1) * block
    return when[np.searchsorted(rows, blocks)] - np.array(source.given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=30_000_000)
    parser.add_argument("--seconds", type=int, default=10, help="of the latency measurement")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--directory", type=Path, help="on the disk to be measured (default: the temporary one)")
    options = parser.parse_args()
    total = options.tags // BLOCK * BLOCK
    plain, durable = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            plain.append(total / plain_h5py(Path(name), total) / 1e6)
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            writer, source, dropped = daemon(Path(name) / "recording", BLOCK, total, 0.0)
            durable.append(total / (writer.acknowledgements[-1][0] - source.given[0]) / 1e6)
            assert dropped == 0
    say = sys.stdout.write
    say(f"h5py, no promise     {max(plain):6.1f} Mtag/s   (rounds {', '.join(f'{rate:.1f}' for rate in plain)})\n")
    say(f"daemon, durable      {max(durable):6.1f} Mtag/s   (rounds {', '.join(f'{rate:.1f}' for rate in durable)})\n")
    say(f"ratio                {max(durable) / max(plain):6.2f}\n")
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        block = 10_000
        writer, source, dropped = daemon(Path(name) / "recording", block, options.seconds * 1_000_000, 1e6)
        waits_ms = 1e3 * latencies_s(writer, source, block)
    p50, p99 = np.percentile(waits_ms, (50, 99))
    say(f"acknowledged after   p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {waits_ms.max():.0f} ms at 1 Mtag/s")
    say(f", dropped {dropped}\n")


if __name__ == "__main__":
    main()
