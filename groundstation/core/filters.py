"""Stages that change or thin out a stream of tags before anything is searched in it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.merging import merge
from groundstation.core.tags import EMPTY_BLOCK, TagBlock, concatenate, require_sorted

_PIECE = 1 << 16  # tags worked on at once, so that the arrays in between stay in cache
_LONGEST_PS = 1 << 60


class _Order:
    """Refuses a stream that steps backwards, within a block or from one to the next."""

    def __init__(self) -> None:
        self._last_ps: int | None = None
        self._seen = 0

    def check(self, block: TagBlock) -> None:
        require_sorted(block.time_ps, self._last_ps, self._seen)
        if block.time_ps.size:
            self._last_ps = int(block.time_ps[-1])
            self._seen += block.time_ps.size


class DelayCompensation:
    """Subtracts each channel's delay and gives the tags in order again; equal times keep the order of the input.

    Tags that a later one of a longer delay may still overtake are held back.
    Benchmark: tests/benchmarks/bench_coincidence.py (delays).
    """

    def __init__(self, delays_ps: Mapping[int, int]) -> None:
        """`delays_ps`: channel -> delay, any sign; other channels have none. Raises ValueError beyond 2^60 ps."""
        for channel, delay_ps in delays_ps.items():
            if not 0 <= channel <= 255 or abs(delay_ps) > _LONGEST_PS:
                raise ValueError(f"channel {channel}, delay {delay_ps:,} ps: give channels 0 to 255, delays to 2^60 ps")
        self._delay_ps = np.zeros(256, np.int64)
        self._delay_ps[list(delays_ps)] = list(delays_ps.values())
        self._longest_ps = max(0, int(self._delay_ps.max()))
        self._order = _Order()
        self._held = EMPTY_BLOCK
        self._watermark_ps: int | None = None

    @property
    def watermark_ps(self) -> int | None:
        """No tag before this time will come out any more; to be passed on to a merger. None before the first tag."""
        return None if self._watermark_ps is None else self._watermark_ps - self._longest_ps

    def feed(self, block: TagBlock, watermark_ps: int | None = None) -> TagBlock:
        """The tags whose place is certain. `watermark_ps`: of the input, by default its last time.

        Raises UnsortedTags.
        """
        self._order.check(block)
        if not self._delay_ps.any():
            self._raise_watermark(block, watermark_ps)
            return block
        parts = []
        for start in range(0, block.time_ps.size, _PIECE):
            piece = TagBlock(block.time_ps[start : start + _PIECE], block.channel[start : start + _PIECE])
            self._raise_watermark(piece, None)
            parts.append(self._released(self._compensated(piece)))
        if watermark_ps is not None:
            self._raise_watermark(EMPTY_BLOCK, watermark_ps)
            parts.append(self._released(self._held))
        return concatenate(parts)

    def finish(self) -> TagBlock:
        """The tags held back."""
        held, self._held = self._held, EMPTY_BLOCK
        return held

    def _raise_watermark(self, block: TagBlock, given_ps: int | None) -> None:
        newest = [int(block.time_ps[-1])] if block.time_ps.size else []
        known = [time for time in (*newest, given_ps, self._watermark_ps) if time is not None]
        self._watermark_ps = max(known, default=None)

    def _compensated(self, piece: TagBlock) -> TagBlock:
        """The held tags and the piece, in order: tags seldom out of place are sorted, else each delay is a run."""
        delay_ps = self._delay_ps.take(piece.channel)
        time = np.subtract(piece.time_ps, delay_ps, out=delay_ps)
        run = concatenate([self._held, TagBlock(time, piece.channel)])
        backwards = int(np.count_nonzero(run.time_ps[1:] < run.time_ps[:-1]))
        if backwards * 16 <= run.time_ps.size:
            return _put_in_order(run) if backwards else run
        return merge([self._held, *(self._of_delay(piece, delay) for delay in np.unique(self._delay_ps).tolist())])

    def _of_delay(self, piece: TagBlock, delay_ps: int) -> TagBlock:
        index = (self._delay_ps == delay_ps).take(piece.channel).nonzero()[0]
        return TagBlock(piece.time_ps.take(index) - delay_ps, piece.channel.take(index))

    def _released(self, run: TagBlock) -> TagBlock:
        cut = int(run.time_ps.searchsorted(self.watermark_ps)) if self.watermark_ps is not None else 0
        self._held = TagBlock(run.time_ps[cut:].copy(), run.channel[cut:].copy())
        return TagBlock(run.time_ps[:cut], run.channel[:cut])


def _put_in_order(run: TagBlock) -> TagBlock:
    """A stable sort; of time and place packed into one number where that has room, since it is much faster."""
    low_ps, bits = int(run.time_ps.min()), run.time_ps.size.bit_length()
    if int(run.time_ps.max()) - low_ps >= 1 << (63 - bits):
        order = np.argsort(run.time_ps, kind="stable")
        return TagBlock(run.time_ps.take(order), run.channel.take(order))
    packed = (run.time_ps - low_ps) << bits
    packed |= np.arange(packed.size)
    packed.sort(kind="stable")
    return TagBlock((packed >> bits) + low_ps, run.channel.take(packed & ((1 << bits) - 1)))


class DeadTimeFilter:
    """Keeps a tag when it comes at least a dead time after the last kept tag of its channel (non-paralysable).

    Benchmark: tests/benchmarks/bench_coincidence.py (dead time).
    """

    def __init__(self, dead_time_ps: Mapping[int, int]) -> None:
        """`dead_time_ps`: channel -> dead time; others pass. Raises ValueError for one outside 0 to 2^60 ps."""
        for channel, dead_ps in dead_time_ps.items():
            if not 0 <= channel <= 255 or not 0 <= dead_ps <= _LONGEST_PS:
                raise ValueError(
                    f"channel {channel}, dead time {dead_ps:,} ps: give channels 0 to 255 and 0 to 2^60 ps"
                )
        self._dead_ps = {channel: dead_ps for channel, dead_ps in dead_time_ps.items() if dead_ps}
        self._longest_ps = max(self._dead_ps.values(), default=0)
        self._last_kept_ps: dict[int, int] = {}
        self._last_ps: int | None = None  # of all channels
        self._order = _Order()

    def feed(self, block: TagBlock) -> TagBlock:
        """The tags that are kept. Raises UnsortedTags."""
        self._order.check(block)
        parts = []
        for start in range(0, block.time_ps.size, _PIECE):
            stop = start + _PIECE
            parts.append(self._thinned(TagBlock(block.time_ps[start:stop], block.channel[start:stop])))
        return concatenate(parts)

    def finish(self) -> TagBlock:
        """Nothing is ever held back."""
        return EMPTY_BLOCK

    def _thinned(self, block: TagBlock) -> TagBlock:
        crowded = self._crowded(block.time_ps)
        channels = block.channel.take(crowded)
        lost = [np.empty(0, np.int64)]
        for channel, dead_ps in self._dead_ps.items():
            index = crowded.take((channels == channel).nonzero()[0])
            if index.size:
                lost.append(index[self._lost(channel, block.time_ps.take(index), dead_ps)])
        place = np.concatenate(lost)
        if place.size == 0:
            return block
        keep = np.ones(block.time_ps.size, bool)
        keep[place] = False
        place = keep.nonzero()[0]
        return TagBlock(block.time_ps.take(place), block.channel.take(place))

    def _crowded(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the tags with another, of whatever channel, less than the longest dead time away.

        The others are kept and cost no other tag. At both ends the neighbours may be in another piece.
        """
        near = np.zeros(time.size + 1, bool)
        near[1:-1] = (time[1:] - time[:-1]).view(np.uint64) < self._longest_ps
        near[:-1] |= near[1:]
        if self._last_ps is not None:
            near[: time.searchsorted(self._last_ps + self._longest_ps)] = True
        self._last_ps = int(time[-1])
        near[time.searchsorted(self._last_ps - self._longest_ps) :] = True
        return near[:-1].nonzero()[0]

    def _lost(self, channel: int, time: NDArray[np.int64], dead_ps: int) -> NDArray[np.int64]:
        """Places of the tags of one channel that fall into a dead time.

        A tag with no other in the dead time before it is kept whatever came before. Only the tags that follow a
        neighbour closely are in doubt.
        """
        last_ps = self._last_kept_ps.get(channel)
        begin = 0 if last_ps is None else int(time.searchsorted(last_ps + dead_ps))
        rest = time[begin:]
        doubtful = np.flatnonzero((rest[1:] - rest[:-1]).view(np.uint64) < dead_ps) + 1
        if rest.size == 0:
            return np.arange(begin)
        kept = _kept(rest, doubtful, dead_ps)
        lost = doubtful[~kept[doubtful]]
        last = rest.size - 1 - int(kept[::-1].argmax())
        self._last_kept_ps[channel] = int(rest[last])
        return np.concatenate((np.arange(begin), lost + begin))


def _kept(time: NDArray[np.int64], doubtful: NDArray[np.int64], dead_ps: int) -> NDArray[np.bool_]:
    """Which tags a non-paralysable detector keeps; `doubtful` closely follow a neighbour, the first never does.

    From every tag in or before a doubtful run the next one kept is known: the first a dead time later. Following all
    those steps from the certain tags, in strides of 1, 2, 4, ... steps, reaches every kept tag.
    """
    kept = np.ones(time.size, bool)
    kept[doubtful] = False
    in_run = ~kept
    in_run[doubtful - 1] = True
    involved = in_run.nonzero()[0]
    following = np.arange(time.size + 1)
    following[involved] = time.searchsorted(time[involved] + dead_ps)
    reached = involved[kept[involved]]
    while reached.size:
        target = following[reached]
        target = target[target < time.size]
        fresh = target[~kept[target]]
        kept[fresh] = True
        if fresh.size == 0:
            break
        reached = involved[kept[involved]]
        following[involved] = following[following[involved]]
    return kept


class ConditionalFilter:
    """Of the `kept` channel only tags shortly after a tag of the `trigger` channel pass; other channels all do.

    A tag passes when a trigger stands before it in the stream and 0 <= t - t_trigger <= `window_ps`.
    """

    def __init__(self, trigger: int, kept: int, window_ps: int) -> None:
        """Raises ValueError for one channel in both parts, or a window outside 0 to 2^60 ps."""
        if trigger == kept or not 0 <= window_ps <= _LONGEST_PS:
            raise ValueError(
                f"trigger {trigger}, kept {kept}, window {window_ps:,} ps: give two channels, a window of 0 to 2^60 ps"
            )
        self._trigger, self._kept, self._window_ps = trigger, kept, window_ps
        self._trigger_ps: int | None = None
        self._order = _Order()

    def feed(self, block: TagBlock) -> TagBlock:
        """The tags that pass. Raises UnsortedTags."""
        self._order.check(block)
        time, channel = block
        trigger = (channel == self._trigger).nonzero()[0]
        wanted = (channel == self._kept).nonzero()[0]
        before = trigger.searchsorted(wanted) - 1
        last_ps = time.take(trigger.take(before, mode="clip")) if trigger.size else np.zeros(wanted.size, np.int64)
        if self._trigger_ps is not None:
            last_ps[before < 0] = self._trigger_ps
        passes = (time.take(wanted) - last_ps).view(np.uint64) <= self._window_ps
        if self._trigger_ps is None:
            passes &= before >= 0
        if trigger.size:
            self._trigger_ps = int(time[trigger[-1]])
        keep = np.ones(time.size, bool)
        keep[wanted[~passes]] = False
        place = keep.nonzero()[0]
        return TagBlock(time.take(place), channel.take(place))

    def finish(self) -> TagBlock:
        """Nothing is ever held back."""
        return EMPTY_BLOCK


class Bursts(NamedTuple):
    """Intervals from `start_ps` to `stop_ps` (a tag at each) that hold `tags` tags."""

    start_ps: NDArray[np.int64]
    stop_ps: NDArray[np.int64]
    tags: NDArray[np.int64]


class RateBursts:
    """Intervals in which the rate exceeds a limit: `tags` or more within any `window_ps`, both ends included.

    Windows that share a tag are one burst. A burst is given when the stream has shown that it is over.
    """

    def __init__(self, tags: int, window_ps: int, channel: int | None = None) -> None:
        """`channel`: None for all together. Raises ValueError for fewer than two tags or a negative window."""
        if tags < 2 or not 0 <= window_ps <= _LONGEST_PS:
            raise ValueError(f"{tags} tags in {window_ps:,} ps is no limit: give at least 2 tags in 0 to 2^60 ps")
        self._tags, self._window_ps, self._channel = tags, window_ps, channel
        self._tail = np.empty(0, np.int64)
        self._tail_first = 0  # place of the tail's first tag among those of the channel
        self._open: tuple[int, int, int, int] | None = None  # start_ps, stop_ps, first and last place
        self._order = _Order()

    def feed(self, block: TagBlock) -> Bursts:
        """The bursts known to be over. Raises UnsortedTags."""
        self._order.check(block)
        time = block.time_ps
        if self._channel is not None:
            time = time.take((block.channel == self._channel).nonzero()[0])
        time = np.concatenate((self._tail, time))
        span = self._tags - 1
        full = np.flatnonzero((time[span:] - time[: max(time.size - span, 0)]).view(np.uint64) <= self._window_ps)
        over = self._close(time, full) if full.size else []
        done = max(time.size - span, 0)
        self._tail, self._tail_first = time[done:].copy(), self._tail_first + done
        if self._open is not None and self._open[3] < self._tail_first:
            over += [self._open]
            self._open = None
        return _bursts(over)

    def finish(self) -> Bursts:
        """The burst that the stream ended in, if any."""
        over, self._open = [self._open] if self._open is not None else [], None
        return _bursts(over)

    def _close(self, time: NDArray[np.int64], full: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        """Join full windows that share a tag; all bursts but the last are over."""
        span, first = self._tags - 1, self._tail_first
        parted = np.flatnonzero(full[1:] > full[:-1] + span) + 1
        starts = full[np.concatenate(([0], parted))]
        stops = full[np.concatenate((parted - 1, [full.size - 1]))] + span
        found = [
            (int(time[i]), int(time[j]), first + i, first + j)
            for i, j in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
        if self._open is not None:
            start_ps, _, first_place, last_place = self._open
            if found[0][2] <= last_place:
                found[0] = (start_ps, found[0][1], first_place, found[0][3])
            else:
                found.insert(0, self._open)
        self._open = found.pop()
        return found


def _bursts(found: list[tuple[int, int, int, int]]) -> Bursts:
    table = np.array([(start, stop, last - first + 1) for start, stop, first, last in found], np.int64).reshape(-1, 3)
    return Bursts(table[:, 0], table[:, 1], table[:, 2])
