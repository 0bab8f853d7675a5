"""Small tag files for the tests of formats, and ways to look at what was read."""

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from groundstation.core.tags import TagBlock, concatenate
from groundstation.recording.formats.tag_file import About, Gap, TagFile


def tags(rows: Iterable[tuple[int, int]]) -> TagBlock:
    """A block of (time_ps, channel)."""
    pairs = list(rows)
    return TagBlock(np.array([t for t, _ in pairs], np.int64), np.array([c for _, c in pairs], np.uint8))


def source_of(
    rows: Iterable[tuple[int, int]],
    cuts: Sequence[int] = (),
    gaps: Sequence[Gap] = (),
    names: dict[int, str] | None = None,
) -> TagFile:
    """A file of these tags, in blocks that begin at `cuts`."""
    block = tags(rows)
    edges = [0, *sorted(min(c, block.time_ps.size) for c in cuts), block.time_ps.size]
    about = About("test", 1.0, dict(names or {}), list(gaps))
    blocks = (TagBlock(block.time_ps[a:b], block.channel[a:b]) for a, b in itertools.pairwise(edges))
    return TagFile(about, iter(blocks))


def everything(source: TagFile) -> list[tuple[int, int]]:
    """All tags of a file as (time_ps, channel), having looked that the blocks are in order."""
    block = concatenate(list(source.blocks))
    assert block.time_ps.dtype == np.int64
    assert block.channel.dtype == np.uint8
    assert not np.any(np.diff(block.time_ps) < 0)
    return list(zip(block.time_ps.tolist(), block.channel.tolist(), strict=True))


def reference_file(name: str) -> Path:
    """A published file that is not ours to give away; the test is skipped where it is not at hand."""
    folder = os.environ.get("GROUNDSTATION_REFERENCE_DATA")
    if not folder:
        pytest.skip("GROUNDSTATION_REFERENCE_DATA does not name the folder of the published sample files")
    return Path(folder) / name
