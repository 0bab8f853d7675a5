"""Find all pairs of two sorted streams within a range of delays, without a search per tag.

For every tag of a `window_search.Buckets` names the last b in its range, or one shortly after. From there the walk goes
back b by b, in step for all tags of a, until the last has left its range. Distances are carried on by adding the steps
between neighbours, so neither times nor channels are fetched again. Measured by tests/benchmarks/compare.py (W3).
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import require_sorted

#: Tags of one stream that are worked on at a time, so that the buffers of both stay in the processor's cache.
PIECE = 1 << 15
#: No piece spans more than this, so that its local times and their multiples stay far inside int64.
SPAN_PS = 1 << 58
#: Steps back after which a tag of a that has not yet reached its range is placed by a search.
_STEPS_BEFORE_SEARCH = 2
#: Further than any pair.
FAR = 1 << 61

Int64s = NDArray[np.int64]


class Walk:
    """Goes back through a stream from many places in step while they are in range. The distances met are
    collected and binned in large lots."""

    def __init__(self, add: Callable[[Int64s], None], bins: int) -> None:
        """`add` takes a lot and may overwrite it; a lot is not small against the number of bins."""
        self._add = add
        self._met = np.empty(max(bins, 2 * PIECE), np.int64)
        self._filled = 0
        self._scratch = np.empty(PIECE, np.int64)
        self._near = np.empty(PIECE, np.bool_)
        self._distances = (np.empty(PIECE, np.int64), np.empty(PIECE, np.int64))
        self._places = (np.empty(PIECE, np.int64), np.empty(PIECE, np.int64))

    def back(
        self,
        distance: Int64s,
        at: Int64s,
        steps: Int64s,
        limit: int,
        search: Callable[[Int64s, Int64s], None] | None = None,
    ) -> None:
        """Emit each distance (k,); add the step at `at` (k,), go on from the tag before while within `limit`.

        Exact because the stream is sorted: the tag before one out of range is out of range. k <= PIECE. Both
        arrays are overwritten. `search` moves those that are still before their range into it, so that a burst costs
        no walk.
        """
        turn = 0
        while distance.size:
            if turn == _STEPS_BEFORE_SEARCH and search is not None:
                search(distance, at)
            self.emit(distance)
            step = steps.take(at, out=self._scratch[: at.size], mode="clip")
            np.add(distance, step, out=distance)
            near = np.less_equal(distance, limit, out=self._near[: at.size]).nonzero()[0]
            into, onto = self._distances[turn & 1][: near.size], self._places[turn & 1][: near.size]
            distance = distance.take(near, out=into, mode="clip")
            at = at.take(near, out=onto, mode="clip")
            np.subtract(at, 1, out=at)
            turn += 1

    def one_by_one(self, time: Int64s, partners: Int64s, low: Int64s, high: Int64s) -> None:
        """Emit time[i] - partners[low[i]:high[i]] for each of a few (k,) with many partners."""
        for one, start, stop in zip(time.tolist(), low.tolist(), high.tolist(), strict=True):
            for part in range(start, stop, PIECE):
                self.emit(one - partners[part : min(part + PIECE, stop)])

    def emit(self, distance: Int64s) -> None:
        """Collect distances (k,), k <= PIECE."""
        if self._filled + distance.size > self._met.size:
            self.flush()
        self._met[self._filled : self._filled + distance.size] = distance
        self._filled += distance.size

    def flush(self) -> None:
        """Bin what is collected."""
        if self._filled:
            self._add(self._met[: self._filled])
        self._filled = 0


def tiles(a_ps: Int64s, b_ps: Int64s, half_range_ps: int) -> Iterator[tuple[Int64s, Int64s]]:
    """Cut two streams into tiles that hold every pair within range once: up to PIECE of a, twice that of b, these
    with one tag more in front that is before the range of every a.

    Checks the order of each part of a just before it is used, when it must come into the cache anyway; b inside a tile
    is left to the caller, who looks at its steps.
    """
    at, checked = 0, 0
    while at < a_ps.size:
        a = a_ps[at : at + PIECE]
        _check_order(a_ps, max(0, at - 1), at + a.size)
        if int(a[-1]) - int(a[0]) > SPAN_PS:
            a = a[: int(np.searchsorted(a, int(a[0]) + SPAN_PS, side="right"))]
        low = int(np.searchsorted(b_ps, int(a[0]) - half_range_ps))
        high = int(np.searchsorted(b_ps, int(a[-1]) + half_range_ps, side="right"))
        if high - low > 2 * PIECE:
            a = a[: max(1, int(np.searchsorted(a, int(b_ps[low + 2 * PIECE]) - half_range_ps)))]
            high = int(np.searchsorted(b_ps, int(a[-1]) + half_range_ps, side="right"))
        for start in range(low, high, 2 * PIECE):
            stop = min(start + 2 * PIECE, high)
            _check_order(b_ps, checked, start + 1)
            checked = max(checked, stop - 1)
            before = int(a[0]) - half_range_ps - 1
            if start > low or low == 0 or int(b_ps[low - 1]) < before - SPAN_PS:
                yield a, np.concatenate(([before], b_ps[start:stop]))
            else:
                yield a, b_ps[start - 1 : stop]
        at += a.size
    _check_order(b_ps, checked, b_ps.size)


def _check_order(time_ps: Int64s, start: int, stop: int) -> None:
    if (time_ps[start + 1 : stop] < time_ps[start : max(start, stop - 1)]).any():
        require_sorted(time_ps)  # finds the step again and names it
