"""Several sorted streams (taggers, stations) become one, as far as all of them are known to have come."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import EMPTY_BLOCK, TagBlock, concatenate, require_sorted

_CHUNK = 1 << 16  # tags merged at once
_NEVER = (1 << 63) - 1  # watermark of a stream that has ended


class Merger:
    """Merges streams by time; equal times keep the order of the streams, and inside a stream its own.

    A stream's watermark promises that no earlier tag of it will come. What is before the smallest watermark is given
    out, the rest is held: a stream that stays behind makes the others wait, which `held` shows.
    """

    def __init__(self, streams: int, channel_offsets: Sequence[int] | None = None) -> None:
        """`streams`: how many; `channel_offsets`: added to each stream's channels, so that stations stay apart.

        Raises ValueError for no stream, or offsets of another number.
        """
        self._offsets = tuple(channel_offsets) if channel_offsets is not None else (0,) * streams
        if streams < 1 or len(self._offsets) != streams or not all(0 <= offset <= 255 for offset in self._offsets):
            raise ValueError(
                f"{streams} streams with channel offsets {list(self._offsets)}: "
                "give at least one stream, and for each an offset from 0 to 255"
            )
        self._waiting: list[list[TagBlock]] = [[] for _ in range(streams)]
        self._last_ps: list[int | None] = [None] * streams
        self._watermark_ps: list[int | None] = [None] * streams

    @property
    def held(self) -> int:
        """Tags that wait for another stream."""
        return sum(block.time_ps.size for blocks in self._waiting for block in blocks)

    def feed(self, stream: int, block: TagBlock, watermark_ps: int | None = None) -> TagBlock:
        """The tags that may go on now. `watermark_ps`: by default the stream's last time.

        Raises UnsortedTags for times that step backwards or come before the stream's watermark, and ValueError for a
        stream that has ended, a watermark that retreats, or channels that the offset carries beyond 255.
        """
        last_ps, promised_ps = self._last_ps[stream], self._watermark_ps[stream]
        if promised_ps == _NEVER:
            raise ValueError(f"stream {stream} has ended: no tag may follow finish")
        require_sorted(block.time_ps, promised_ps)
        if block.time_ps.size:
            last_ps = int(block.time_ps[-1])
            self._waiting[stream].append(self._shifted(stream, block))
        watermark_ps = _later(last_ps, promised_ps) if watermark_ps is None else watermark_ps
        if watermark_ps is not None and promised_ps is not None and watermark_ps < promised_ps:
            raise ValueError(
                f"stream {stream}: watermark {watermark_ps:,} ps is before the {promised_ps:,} ps promised"
            )
        self._last_ps[stream], self._watermark_ps[stream] = last_ps, watermark_ps
        return self._release()

    def finish(self, stream: int | None = None) -> TagBlock:
        """The tags that may go on when one stream has ended, or all have."""
        for ended in range(len(self._waiting)) if stream is None else (stream,):
            self._watermark_ps[ended] = _NEVER
        return self._release()

    def _shifted(self, stream: int, block: TagBlock) -> TagBlock:
        offset = self._offsets[stream]
        if offset == 0:
            return block
        highest = int(block.channel.max())
        if highest + offset > 255:
            raise ValueError(f"stream {stream}: channel {highest} plus offset {offset} is beyond 255; lower the offset")
        return TagBlock(block.time_ps, block.channel + np.uint8(offset))

    def _release(self) -> TagBlock:
        """Everything before the smallest watermark; at it, an earlier stream may still have a tag to come."""
        known = [watermark for watermark in self._watermark_ps if watermark is not None]
        if len(known) < len(self._waiting):
            return EMPTY_BLOCK
        until_ps = min(known)
        if until_ps == _NEVER:
            ready = [concatenate(blocks) for blocks in self._waiting]
            self._waiting = [[] for _ in ready]
        else:
            ready = [concatenate(take_before(blocks, until_ps)) for blocks in self._waiting]
        return merge(ready)


def _later(one_ps: int | None, other_ps: int | None) -> int | None:
    return max((t for t in (one_ps, other_ps) if t is not None), default=None)


def take_before(blocks: list[TagBlock], until_ps: int) -> list[TagBlock]:
    """Remove the tags before a time from the blocks and return them."""
    taken = []
    while blocks and blocks[0].time_ps[-1] < until_ps:
        taken.append(blocks.pop(0))
    if blocks:
        time, channel = blocks[0]
        cut = int(time.searchsorted(until_ps))
        if cut:
            taken.append(TagBlock(time[:cut], channel[:cut]))
            blocks[0] = TagBlock(time[cut:], channel[cut:])
    return taken


def merge(blocks: Sequence[TagBlock]) -> TagBlock:
    """One block of several sorted ones, by time; equal times by the order of the blocks, then as inside them.

    Sorted runs laid one after the other are merged by a stable sort of `time << bits | place` in chunks that stay in
    cache; the number of bits follows from the chunk. Benchmark: tests/benchmarks/bench_coincidence.py (merge).
    """
    blocks = [block for block in blocks if block.time_ps.size]
    if len(blocks) <= 1:
        return blocks[0] if blocks else EMPTY_BLOCK
    total = sum(block.time_ps.size for block in blocks)
    merged = TagBlock(np.empty(total, np.int64), np.empty(total, np.uint8))
    edges = _edges(blocks)
    packed = np.empty(int(np.diff(edges.sum(axis=0)).max()), np.int64)
    place = np.arange(packed.size)
    done = 0
    for start, stop in zip(edges[:, :-1].T.tolist(), edges[:, 1:].T.tolist(), strict=True):
        parts = [
            TagBlock(block.time_ps[i:j], block.channel[i:j])
            for block, i, j in zip(blocks, start, stop, strict=True)
            if j > i
        ]
        size = sum(part.time_ps.size for part in parts)
        out = TagBlock(merged.time_ps[done : done + size], merged.channel[done : done + size])
        _merge_chunk(parts, packed[:size], place[:size], out)
        done += size
    return merged


def _edges(blocks: Sequence[TagBlock]) -> NDArray[np.int64]:
    """(blocks, chunks + 1) places to cut each block, all at the same times; equal times are never parted."""
    longest = max(blocks, key=lambda block: block.time_ps.size)
    step = max(1, _CHUNK // len(blocks))
    cut_ps = np.unique(longest.time_ps[step::step])
    rows = [np.concatenate(([0], block.time_ps.searchsorted(cut_ps), [block.time_ps.size])) for block in blocks]
    return np.array(rows)


def _merge_chunk(parts: list[TagBlock], packed: NDArray[np.int64], place: NDArray[np.int64], out: TagBlock) -> None:
    if len(parts) <= 1:
        for part in parts:
            out.time_ps[:], out.channel[:] = part
        return
    first_ps = min(int(part.time_ps[0]) for part in parts)
    last_ps = max(int(part.time_ps[-1]) for part in parts)
    bits = int(place[-1]).bit_length()
    channel = np.concatenate([part.channel for part in parts])
    if last_ps - first_ps >= 1 << (63 - bits):  # so few tags in so long a time: speed does not matter
        time = np.concatenate([part.time_ps for part in parts])
        order = np.argsort(time, kind="stable")
        time.take(order, out=out.time_ps, mode="clip")
        channel.take(order, out=out.channel, mode="clip")
        return
    start = 0
    for part in parts:
        stop = start + part.time_ps.size
        np.subtract(part.time_ps, first_ps, out=packed[start:stop])
        start = stop
    np.left_shift(packed, bits, out=packed)
    np.bitwise_or(packed, place, out=packed)
    packed.sort(kind="stable")
    np.right_shift(packed, bits, out=out.time_ps)
    np.add(out.time_ps, first_ps, out=out.time_ps)
    np.bitwise_and(packed, (1 << bits) - 1, out=packed)
    channel.take(packed, out=out.channel, mode="clip")
