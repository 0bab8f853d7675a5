"""One small experiment in all the forms in which it can be explored."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundstation.core.tags import TagBlock
from groundstation.recording.formats.registry import read_file
from groundstation.recording.importing import import_tags
from groundstation.recording.manifest import create_recording
from groundstation.recording.sealing import seal_in_child
from groundstation.recording.segment import Table
from groundstation.recording.writer import StreamWriter

S = 10**12
RUN = "0" * 32
PASS = {
    "run_id": RUN,
    "mode": "simulation",
    "station": {"name": "Xinglong"},
    "satellite": {"name": "Micius"},
    "window": {"start_utc_ns": 1_482_166_197_000_000_000, "stop_utc_ns": 1_482_166_200_000_000_000},
}


def small_tags(start_ps: int = S, seconds: int = 3) -> TagBlock:
    """Channels 0 and 1 see pairs (1 is 12.3 ns later, 150 ps jitter) and noise, 4 a clock of 10 kHz."""
    random = np.random.default_rng(7)
    span_ps = seconds * S
    pairs = random.integers(0, span_ps, 2_000 * seconds)
    noise = random.integers(0, span_ps, (2, 3_000 * seconds))
    a = np.concatenate((pairs, noise[0]))
    b = np.concatenate((pairs + 12_300 + np.rint(random.normal(0, 150, pairs.size)).astype(np.int64), noise[1]))
    clock = np.arange(0, span_ps, S // 10_000)
    time_ps = np.concatenate((a, b, clock)) + start_ps
    channel = np.repeat(np.array([0, 1, 4], np.uint8), [a.size, b.size, clock.size])
    order = np.argsort(time_ps, kind="stable")
    return TagBlock(time_ps[order], channel[order])


def record(
    directory: Path,
    block: TagBlock,
    cuts: Sequence[int] = (),
    gaps: Sequence[tuple[int, int]] = (),
    end: bool = True,
    manifest: dict[str, object] | None = None,
) -> Path:
    """The directory of a recording with a segment for each piece; all gaps are told in the last one."""
    create_recording(directory, PASS | (manifest or {}))
    edges = [0, *cuts, block.time_ps.size]
    with StreamWriter(directory, "tags", RUN) as writer:
        for start, stop in pairwise(edges):
            tables: dict[str, Table] = {
                "tags": {"time_ps": block.time_ps[start:stop], "channel": block.channel[start:stop]}
            }
            last = stop == edges[-1]
            if gaps and last:
                tables["gaps"] = {
                    "start_ps": np.array([gap[0] for gap in gaps], np.int64),
                    "stop_ps": np.array([gap[1] for gap in gaps], np.int64),
                    "missed": np.full(len(gaps), -1, np.int64),
                    "cause": np.array([b"overflow"] * len(gaps)),
                }
            writer.publish(tables, end=end and last)
    return directory


def seal(directory: Path) -> Path:
    """The sealed file of a directory, beside it."""
    target = directory.with_suffix(".h5")
    seal_in_child(directory, target)
    return target


def save_npy(path: Path, block: TagBlock) -> Path:
    """A tag file of another program."""
    np.save(path, np.stack((block.time_ps, block.channel.astype(np.int64)), axis=1))
    return path


def save_csv(path: Path, block: TagBlock, comments: Sequence[str] = ()) -> Path:
    """A tag file that anybody can write."""
    lines = [*comments, "time_ps,channel", *map("{},{}".format, block.time_ps.tolist(), block.channel.tolist())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def imported(path: Path, output: Path) -> Path:
    """What `groundstation import` makes of a file."""
    return import_tags(read_file(path), path, output, {}, None).recording
