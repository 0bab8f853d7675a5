"""Which slot of the transmitter a click belongs to, and whether it falls inside the coincidence window.

`gate` serves one synchronisation window with its quadratic clock. `SlotGate` and `assign_slots` gate whole streams
against a line for each run of beacon pulses: all constants of a line are scalars, so a tag costs a dozen operations
on arrays that stay in the cache and no search (tests/benchmarks/compare.py, W2: 6 to 8 copies per tag).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.beacon_line import BeaconLine, BeaconTracker
from groundstation.core.merging import take_before
from groundstation.core.synchronisation import ClockFit
from groundstation.core.tags import TagBlock, require_sorted

#: Tags gated at a time, so that the intermediate arrays stay in the cache.
PIECE = 1 << 15
_LATEST_PS = (1 << 63) - 1
#: A float64 of 1.5 * 2^52 + n has n in its lowest bits, for |n| < 2^51: adding bits makes a float of an integer and
#: adding the number rounds a float to one, at a quarter of the price of numpy's conversions.
_MAGIC = 1.5 * 2.0**52
_MAGIC_BITS = 0x4338000000000000


class Gated(NamedTuple):
    """One entry per click: `slot` (n,) int64; `phase_ps` (n,) distance from the slot's expected arrival;
    `inside` (n,) bool: |phase_ps| <= half_width_ps, both ends included."""

    slot: NDArray[np.int64]
    phase_ps: NDArray[np.float64]
    inside: NDArray[np.bool_]


def gate(
    emitted_ps: NDArray[np.int64],
    clock: ClockFit,
    centre_ps: int,
    half_window_ps: float,
    slot_period_ps: int,
    half_width_ps: float,
) -> Gated:
    """Assign the clicks of one synchronisation window to slots.

    `emitted_ps` (n,): emission times by prediction; `clock` holds around `centre_ps` over +-`half_window_ps`.
    Differences are taken in int64 before floating point begins, so nothing is lost far from the epoch.
    """
    local = emitted_ps - centre_ps
    u = local / half_window_ps
    offset = clock.c0 + u * (clock.c1 + u * clock.c2)
    first_slot, remainder_ps = divmod(centre_ps, slot_period_ps)
    position = local - offset + remainder_ps
    nearest = np.rint(position / slot_period_ps)
    phase = position - nearest * slot_period_ps
    return Gated(nearest.astype(np.int64) + first_slot, phase, np.abs(phase) <= half_width_ps)


class Slots(NamedTuple):
    """One entry per tag: `slot` (n,) int64 counted from the beacon pulse that began the numbering, `phase_ps` (n,)
    float32 from the slot's expected arrival, `inside` (n,) bool: |phase_ps| <= half_width_ps. Where there is no
    clock: slot -1, phase not a number, not inside."""

    slot: NDArray[np.int64]
    phase_ps: NDArray[np.float32]
    inside: NDArray[np.bool_]


class GatedRun(NamedTuple):
    """Consecutive tags of one stream that share one line of the beacon, with their slots."""

    tags: TagBlock
    slots: Slots
    line: BeaconLine


class LinedTags:
    """Pairs tags with the beacon's lines. Tags wait until the line of their time is known.

    The beacon is part of the stream, or comes beside it: then nothing needs to be merged. Every tag comes out once
    and in order. Memory: the tags of one line and a beacon period.
    """

    def __init__(self, tracker: BeaconTracker, beacon_channel: int) -> None:
        self._tracker = tracker
        self._beacon = beacon_channel
        self._waiting: list[TagBlock] = []
        self._last_ps: int | None = None

    def feed(self, block: TagBlock, beacon_ps: NDArray[np.int64] | None = None) -> list[tuple[TagBlock, BeaconLine]]:
        """The runs of tags that are complete, each with its line.

        `beacon_ps` (n,): pulses that are not in the block. Block and pulses must then reach to the same moment: the
        next ones come after both. Raises UnsortedTags when either does not continue the stream.
        """
        require_sorted(block.time_ps, self._last_ps)
        if beacon_ps is None:
            beacon_ps = block.time_ps[np.flatnonzero(block.channel == self._beacon)]
        else:
            require_sorted(beacon_ps, self._last_ps)
        newest = [int(times[-1]) for times in (block.time_ps, beacon_ps) if times.size]
        if not newest:
            return []
        self._last_ps = max(newest)
        if block.time_ps.size:
            self._waiting.append(block)
        return [run for line in self._tracker.feed(beacon_ps, self._last_ps) for run in self._release(line)]

    def finish(self) -> list[tuple[TagBlock, BeaconLine]]:
        """The rest: on the last lines, or without a clock."""
        lines = self._tracker.finish()
        lines.append(_no_clock_after(lines))
        return [run for line in lines for run in self._release(line)]

    def _release(self, line: BeaconLine) -> list[tuple[TagBlock, BeaconLine]]:
        return [(tags, line) for tags in take_before(self._waiting, line.stop_ps)]


class SlotGate:
    """Gates a stream against its beacon, which is part of it or comes beside it (see LinedTags).

    Every tag comes out once and in order; beacon tags are never inside. The slots do not depend on how the stream
    is cut.
    """

    def __init__(
        self, tracker: BeaconTracker, beacon_channel: int, slots_per_pulse: int, slot_ps: float, half_width_ps: float
    ) -> None:
        """`slots_per_pulse`: slots from one beacon pulse to the next, `slot_ps` the nominal length of one."""
        self._lined = LinedTags(tracker, beacon_channel)
        self._beacon = beacon_channel
        self._ruler = SlotRuler(slots_per_pulse, slot_ps, half_width_ps)

    def feed(self, block: TagBlock, beacon_ps: NDArray[np.int64] | None = None) -> list[GatedRun]:
        """The runs that are complete; raises UnsortedTags when the block does not continue the stream."""
        return [self._gated(*run) for run in self._lined.feed(block, beacon_ps)]

    def finish(self) -> list[GatedRun]:
        """The rest: on the last lines, or without a clock."""
        return [self._gated(*run) for run in self._lined.finish()]

    def _gated(self, tags: TagBlock, line: BeaconLine) -> GatedRun:
        slots = empty_slots(tags.time_ps.size)
        self._ruler.measure(tags.time_ps, line, slots)
        np.logical_and(slots.inside, tags.channel != self._beacon, out=slots.inside)
        return GatedRun(tags, slots, line)


def assign_slots(
    time_ps: NDArray[np.int64],
    beacon_ps: NDArray[np.int64],
    tracker: BeaconTracker,
    slots_per_pulse: int,
    slot_ps: float,
    half_width_ps: float,
    out: Slots | None = None,
) -> Slots:
    """The slots of a sorted stream (n,) against the beacon of another (m,); a fresh `tracker`, else as SlotGate.

    `out`: arrays (n,) of an earlier result to use again, since fresh memory costs as much as a third of the work.
    """
    require_sorted(beacon_ps)
    slots = out or empty_slots(time_ps.size)
    ruler = SlotRuler(slots_per_pulse, slot_ps, half_width_ps)
    lines = tracker.feed(beacon_ps, int(beacon_ps[-1])) if beacon_ps.size else []
    lines += tracker.finish()
    lines.append(_no_clock_after(lines))
    stops = np.searchsorted(time_ps, [line.stop_ps for line in lines[:-1]]).tolist()
    start = 0
    for line, stop in zip(lines, [*stops, time_ps.size], strict=True):
        require_sorted(time_ps[max(0, start - 1) : stop], first=max(0, start - 1))
        part = slice(start, stop)
        ruler.measure(time_ps[part], line, Slots(slots.slot[part], slots.phase_ps[part], slots.inside[part]))
        start = max(start, stop)
    return slots


class SlotRuler:
    """Slot and phase by a line, with the buffers for it."""

    def __init__(self, slots_per_pulse: int, slot_ps: float, half_width_ps: float) -> None:
        if slots_per_pulse < 1 or not 0 < half_width_ps <= slot_ps / 2:
            raise ValueError(
                f"a gate needs a slot or more per beacon pulse and a half width of at most half a slot: found "
                f"{slots_per_pulse} slots per pulse, half_width_ps = {half_width_ps:g}, slot_ps = {slot_ps:g}"
            )
        self._slots_per_pulse = slots_per_pulse
        self._slot_ps = np.float32(slot_ps)
        self._half_width_ps = np.float32(half_width_ps)
        self._place, self._whole = np.empty(PIECE), np.empty(PIECE)
        self._distance = np.empty(PIECE, np.float32)

    def measure(self, time_ps: NDArray[np.int64], line: BeaconLine, out: Slots) -> None:
        """Write the slots of tags (n,) of the line's time into `out` (n,).

        Differences are taken in int64 first; counted from the line's first pulse, a place stays below 1e7 slots and
        float64 keeps it to 1e-5 ps.
        """
        if line.period_ps == 0:
            out.slot.fill(-1)
            out.phase_ps.fill(math.nan)
            out.inside.fill(False)
            return
        slots_per_ps = self._slots_per_pulse / line.period_ps
        for start in range(0, time_ps.size, PIECE):
            part = slice(start, min(start + PIECE, time_ps.size))
            slot, phase, inside = out.slot[part], out.phase_ps[part], out.inside[part]
            place, whole = self._place[: slot.size], self._whole[: slot.size]
            np.subtract(time_ps[part], _wrapped(line.zero_ps - _MAGIC_BITS), out=slot)
            np.subtract(slot.view(np.float64), _MAGIC, out=place)
            np.subtract(place, line.fraction_ps, out=place)
            np.multiply(place, slots_per_ps, out=place)
            np.add(place, _MAGIC, out=whole)
            np.add(whole.view(np.int64), line.first * self._slots_per_pulse - _MAGIC_BITS, out=slot)
            np.subtract(whole, _MAGIC, out=whole)
            np.subtract(place, whole, out=place)
            np.copyto(phase, place, casting="same_kind")
            np.multiply(phase, self._slot_ps, out=phase)
            np.less_equal(np.abs(phase, out=self._distance[: slot.size]), self._half_width_ps, out=inside)


def _wrapped(integer: int) -> int:
    """As int64 arithmetic would have it, modulo 2^64."""
    return (integer + (1 << 63)) % (1 << 64) - (1 << 63)


def empty_slots(size: int) -> Slots:
    """Room for the slots of so many tags."""
    return Slots(np.empty(size, np.int64), np.empty(size, np.float32), np.empty(size, np.bool_))


def _no_clock_after(lines: list[BeaconLine]) -> BeaconLine:
    """What holds after the last line: no clock."""
    numbering = lines[-1].numbering if lines else 0
    return BeaconLine(_LATEST_PS, 0, 0, 0.0, 0.0, numbering, 0, 0, math.nan)
