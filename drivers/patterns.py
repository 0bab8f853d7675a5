"""From single clicks of numbered inputs to events with the set of inputs that fired together.

Taggers with a vendor's library report one input at a time, while a logical channel of the station may be a pattern of
inputs (one signal split onto two of them). So clicks that lie close together are joined into one event.
"""

import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput

Times = NDArray[np.int64]
Bits = NDArray[np.uint8]

MOST_INPUTS = 8


def require_inputs(inputs: tuple[int, ...], lowest: int, highest: int, driver: str) -> None:
    """BadInput unless these are 1 to 8 different channels of the device within its range."""
    if not 1 <= len(inputs) <= MOST_INPUTS or len(set(inputs)) != len(inputs):
        raise BadInput(f'setting "inputs" of driver {driver} is {list(inputs)}; name 1 to 8 different channels')
    for channel in inputs:
        if not lowest <= channel <= highest:
            raise BadInput(f'setting "inputs" of driver {driver} names channel {channel}; give {lowest} to {highest}')


class Joiner:
    """Joins clicks into events, whatever the pieces in which they come.

    An event begins with a click; a later one joins it while it is at most `join_ps` after that first click and on an
    input that the event does not have yet. The event has the time of its first click.
    """

    def __init__(self, join_ps: int) -> None:
        self._join_ps = join_ps
        self._time_ps: Times = np.empty(0, np.int64)  # clicks of an event that may still grow
        self._bits: Bits = np.empty(0, np.uint8)

    def feed(self, time_ps: Times, bits: Bits, latest_ps: int) -> tuple[Times, Bits, int]:
        """Events that cannot grow any more, and up to when they are complete.

        `time_ps` not decreasing, `bits` the inputs of each click; no later click is older than `latest_ps`.
        """
        if self._time_ps.size:
            time_ps, bits = np.concatenate([self._time_ps, time_ps]), np.concatenate([self._bits, bits])
        if not time_ps.size:
            return time_ps, bits, latest_ps
        first = self._firsts(time_ps, bits)
        open_from = time_ps.size
        if latest_ps - int(time_ps[first[-1]]) <= self._join_ps:
            open_from = int(first[-1])
            first = first[:-1]
        self._time_ps, self._bits = time_ps[open_from:].copy(), bits[open_from:].copy()
        if self._time_ps.size:
            latest_ps = min(latest_ps, int(self._time_ps[0]))
        joined = np.bitwise_or.reduceat(bits[:open_from], first) if first.size else bits[:0]
        return time_ps[first], joined, latest_ps

    def _firsts(self, time_ps: Times, bits: Bits) -> NDArray[np.intp]:
        """Where events begin. Runs of clicks with large steps between them are events, but for a few."""
        begins = np.empty(time_ps.size, np.bool_)
        begins[0] = True
        np.greater(np.diff(time_ps), self._join_ps, out=begins[1:])
        first = np.flatnonzero(begins)
        counts = np.diff(np.append(first, time_ps.size))
        if int(counts.max()) == 1:
            return first
        last = first + counts - 1
        too_long = time_ps[last] - time_ps[first] > self._join_ps
        told = np.add.reduceat(np.bitwise_count(bits), first, dtype=np.intp)
        repeats = np.bitwise_count(np.bitwise_or.reduceat(bits, first)) < told
        for run in np.flatnonzero(too_long | repeats).tolist():
            for index in self._split(time_ps, bits, int(first[run]), int(last[run])):
                begins[index] = True
        return np.flatnonzero(begins)

    def _split(self, time_ps: Times, bits: Bits, first: int, last: int) -> list[int]:
        """Where further events begin in a run of clicks."""
        found, start_ps, seen = [], int(time_ps[first]), int(bits[first])
        for index in range(first + 1, last + 1):
            if int(time_ps[index]) - start_ps > self._join_ps or seen & int(bits[index]):
                found.append(index)
                start_ps, seen = int(time_ps[index]), 0
            seen |= int(bits[index])
        return found
