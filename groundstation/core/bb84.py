"""From a merged stream of tags to the tallies of a BB84 link, when what was sent is at hand for every slot.

This is the whole chain for tests, calibrations and simulations: beacon clock, gate, one click per slot, match to the
transmitter's record, one table of counts from which yields, sifted bits and errors follow. A real pass never has the
record of undisclosed slots: there the transmitter answers (see `pipeline.analysis`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.beacon_line import BeaconLine, BeaconTracker
from groundstation.core.gating import PIECE, LinedTags, SlotRuler, Slots, empty_slots
from groundstation.core.sifting import one_click_per_slot
from groundstation.core.tags import CHANNEL_NUMBER, DETECTORS, TagBlock

#: What was sent in each slot (n,) int64, ascending: uint8 (n,), see `sent_state`.
Record = Callable[[NDArray[np.int64]], NDArray[np.uint8]]

_STATES = 16
_UNKNOWN = 3 << 2
#: What memory gives at a time: of clicks further apart than this, reading all between them would be a waste.
_LINE_BYTES = 64
#: The detector of clicks that share a slot, until they are settled.
_PUT_BY = len(DETECTORS)
_EARLIEST_SLOT = -(1 << 63)
#: Pieces whose shared slots are settled together.
_LOT = 64


def sent_state(basis: NDArray[np.uint8], bit: NDArray[np.uint8], intensity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The byte of a record: `basis` 0 rectilinear, 1 diagonal; `bit`; `intensity` 0 signal, 1 decoy, 2 vacuum, and
    3 where nothing is known of the slot."""
    state: NDArray[np.uint8] = basis | bit << np.uint8(1) | intensity << np.uint8(2)
    return state


def record_of(states: NDArray[np.uint8], first_slot: int = 0) -> Record:
    """A record held as one array for the slots from `first_slot` on, two slots to a byte, the earlier one low: clicks
    are so far apart that nearly all of it must come from memory. Nothing is known of other slots; see `packed`."""
    slots = 2 * states.size

    def look_up(slot: NDArray[np.int64]) -> NDArray[np.uint8]:
        place = slot - first_slot if first_slot else slot
        if slot.size == 0 or (place[0] >= 0 and place[-1] < slots):
            return _unpacked(states, place)
        start, stop = np.searchsorted(place, (0, slots))
        sent = np.full(slot.size, _UNKNOWN, np.uint8)
        sent[start:stop] = _unpacked(states, place[start:stop])
        return sent

    return look_up


def packed(state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """States (n,) below 16 as the array of a record (n / 2, rounded up); a last odd slot gets an unknown neighbour."""
    if state.size and state.max() >= _STATES:
        raise ValueError(f"a record holds states below {_STATES}, found {state.max()}")
    state = np.concatenate((state, np.full(state.size % 2, _UNKNOWN, np.uint8)))
    pairs: NDArray[np.uint8] = state[::2] | state[1::2] << np.uint8(4)
    return pairs


def _unpacked(states: NDArray[np.uint8], place: NDArray[np.int64]) -> NDArray[np.uint8]:
    half = place >> 1
    if half.size and 0 < half[-1] - half[0] < _LINE_BYTES * half.size:
        # Once through in order, at the memory's full speed: then what the clicks need is in the cache (5 to 7 instead
        # of 8 to 9 ns a click).
        states[half[0] : half[-1]].max()
    pair = states.take(half)
    upper = np.bitwise_and(place, 1, out=half).astype(np.uint8)
    upper <<= np.uint8(2)
    pair >>= upper
    pair &= np.uint8(_STATES - 1)
    return pair


class Tally(NamedTuple):
    """Counts. `clicks` inside the gate of a numbered clock; `double_clicks` slots in which different detectors
    clicked; `unmatched` clicks inside the gate of a later numbering, for which the record has no slots; `outside`
    detector tags outside the gate or without a clock; `table[detector, intensity, bit, basis]` (4, 4, 2, 2) one
    entry per slot with a click, by the detector (H V D A) taken for it and by what was sent."""

    clicks: int
    double_clicks: int
    unmatched: int
    outside: int
    table: NDArray[np.int64]

    def sifted(self, intensity: int) -> int:
        """Slots of this intensity in which both used the same basis."""
        sent = self.table[:, intensity]
        return int(sent[:2, :, 0].sum() + sent[2:, :, 1].sum())

    def errors(self, intensity: int) -> int:
        """Sifted slots of this intensity in which the bits differ."""
        sent = self.table[:, intensity]
        return int(sent[0, 1, 0] + sent[1, 0, 0] + sent[2, 1, 1] + sent[3, 0, 1])


class Bb84Chain:
    """Feed the tags of detectors (channels 0 to 3) with the beacon among them or beside; `finish` gives the tally.

    Of each tag as little as possible is kept: once gated, only the clicks inside go on, a piece at a time.
    """

    def __init__(
        self,
        tracker: BeaconTracker,
        slots_per_pulse: int,
        slot_ps: float,
        half_width_ps: float,
        record: Record,
        double_click_seed: int,
        beacon_channel: int = CHANNEL_NUMBER["sync"],
    ) -> None:
        """Slots are counted from the first beacon pulse of the stream, and so must `record` count them."""
        self._lined = LinedTags(tracker, beacon_channel)
        self._ruler = SlotRuler(slots_per_pulse, slot_ps, half_width_ps)
        self._record = record
        self._seed = double_click_seed
        self._room = empty_slots(PIECE)
        self._newest_slot = _EARLIEST_SLOT
        self._unsettled: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []
        self._clicks = self._double_clicks = self._unmatched = self._outside = 0
        self._table = np.zeros((_PUT_BY + 1) * _STATES, np.int64)

    def feed(self, block: TagBlock, beacon_ps: NDArray[np.int64] | None = None) -> None:
        """Count what has a clock by now. `beacon_ps` (n,): pulses that are not in the block, as far as the block
        reaches; UnsortedTags when either does not continue the stream."""
        self._add(self._lined.feed(block, beacon_ps))

    def finish(self) -> Tally:
        """The tally of the whole stream."""
        self._add(self._lined.finish())
        self._settle(self._newest_slot)
        return self.tally

    @property
    def tally(self) -> Tally:
        """What is counted so far: without the tags that wait for their line, and the clicks of the last slot."""
        self._settle(self._newest_slot - 1)
        table = self._table[: _PUT_BY * _STATES].reshape(len(DETECTORS), 4, 2, 2).copy()
        return Tally(self._clicks, self._double_clicks, self._unmatched, self._outside, table)

    def _add(self, runs: list[tuple[TagBlock, BeaconLine]]) -> None:
        for (time, channel), line in runs:
            for start in range(0, time.size, PIECE):
                part = slice(start, start + PIECE)
                self._gate(time[part], channel[part], line)

    def _gate(self, time: NDArray[np.int64], channel: NDArray[np.uint8], line: BeaconLine) -> None:
        room, size = self._room, time.size
        slots = Slots(room.slot[:size], room.phase_ps[:size], room.inside[:size])
        self._ruler.measure(time, line, slots)
        detectors = channel < len(DETECTORS)
        tags = int(np.count_nonzero(detectors))
        inside = np.flatnonzero(np.logical_and(slots.inside, detectors, out=detectors))
        self._outside += tags - inside.size
        if line.numbering > 1:
            self._unmatched += inside.size
        elif inside.size:
            self._clicks += inside.size
            self._match(slots.slot.take(inside, mode="clip"), channel.take(inside, mode="clip"))

    def _match(self, slot: NDArray[np.int64], detector: NDArray[np.uint8]) -> None:
        """Tally the slots with one click; put by the others, which are few and dear, to be settled in a lot, and the
        first and the last slot, which may have more clicks in the pieces before and after.

        Overwrites its arguments.
        """
        if slot[0] < self._newest_slot:  # two lines meet inside a gate as wide as the slot
            np.maximum(slot, self._newest_slot, out=slot)
        self._newest_slot = int(slot[-1])
        shared = np.empty(slot.size, np.bool_)
        np.equal(slot[1:], slot[:-1], out=shared[1:])
        shared[0] = True
        shared[:-1] |= shared[1:]
        shared[-1] = True
        several = np.flatnonzero(shared)
        self._unsettled.append((slot.take(several), detector.take(several)))
        detector[several] = _PUT_BY
        self._count(slot, detector)
        if len(self._unsettled) >= _LOT:
            self._settle(self._newest_slot - 1)

    def _settle(self, until_slot: int) -> None:
        """One click per slot by the keyed rule of `sifting`, for what was put by up to a slot."""
        if not self._unsettled:
            return
        slot, detector = (np.concatenate(column) for column in zip(*self._unsettled, strict=True))
        ready = int(np.searchsorted(slot, until_slot, side="right"))
        self._unsettled = [(slot[ready:], detector[ready:])] if ready < slot.size else []
        if ready:
            settled = one_click_per_slot(slot[:ready], detector[:ready], self._seed)
            self._double_clicks += settled.double_clicks
            self._count(settled.slot, np.uint8(2) * settled.basis + settled.bit)

    def _count(self, slot: NDArray[np.int64], detector: NDArray[np.uint8]) -> None:
        sent = self._record(slot)
        if sent.size and sent.max() >= _STATES:
            raise ValueError(f"a record holds states below {_STATES}, found {sent.max()}")
        self._table += np.bincount(sent | detector << np.uint8(4), minlength=self._table.size)
