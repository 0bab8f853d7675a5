"""One-to-one pairing in time order, without a step of Python per tag.

A tag of A may take the tags of B numbered `first` to `last`, which both never fall from one tag of A to the next, and
takes the first that is free: one more than the last one taken, but at least `first`. If that is beyond `last` it goes
without. So the last one taken, counted from what it would be if every tag of A took one, is held between two walls that
move: y[i] = min(max(y[i-1], low[i]), high[i]). Two such steps in a row are again one such step, so stretches of tags
are first made into one step each, all stretches at once, and walked through when it is known where each begins.
"""

import numpy as np
from numpy.typing import NDArray

_FAR = 1 << 62

Int64s = NDArray[np.int64]


def taken(first: Int64s, last: Int64s, before: int) -> tuple[Int64s, Int64s]:
    """Which tags of A take one, and the number of that: for windows (n,) of numbers with first <= last, neither
    falling. `before`: the last number taken already, below all that are free and not above `last[0]`."""
    if first.size == 0:
        return first, first
    contested = np.zeros(first.size + 1, bool)
    contested[1:-1] = first[1:] <= last[:-1]
    contested[0] = first[0] <= before
    contested[:-1] |= contested[1:]
    place = contested[:-1].nonzero()[0]
    if place.size == 0:
        return np.arange(first.size), first
    number = first.copy()
    low, high = first.take(place), last.take(place)
    count = np.arange(place.size)
    number[place] = _between_walls(low - count, high - count, before + 1) + count
    previous = np.concatenate(([before], number[:-1]))
    place = (number > previous).nonzero()[0]
    return place, number.take(place)


def _between_walls(low: Int64s, high: Int64s, start: int) -> Int64s:
    """y[i] = min(max(y[i-1], low[i]), high[i]) with y[-1] = `start`, for low <= high (n,)."""
    size, length = low.size, 1 << min(low.size.bit_length() // 2, 7)
    count = -(-size // length)
    walls = np.empty((2, count * length), np.int64)
    walls[:, :size] = low, high
    walls[:, size:] = [[-_FAR], [_FAR]]
    lows, highs = np.ascontiguousarray(walls.reshape(2, count, length).transpose(0, 2, 1))  # a stretch is a column
    lowest, highest = np.full(count, -_FAR), np.full(count, _FAR)
    for low, high in zip(lows, highs, strict=True):
        for end in (lowest, highest):
            np.minimum(np.maximum(end, low, out=end), high, out=end)
    begin = []
    for least, most in zip(lowest.tolist(), highest.tolist(), strict=True):
        begin.append(start)
        start = min(max(start, least), most)
    held = np.array(begin)
    for low, high in zip(lows, highs, strict=True):
        np.minimum(np.maximum(held, low, out=held), high, out=held)
        low[:] = held
    by_stretch: Int64s = lows.T.ravel()
    return by_stretch[:size]
