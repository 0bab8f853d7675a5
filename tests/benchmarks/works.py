"""The streams that the benchmarks measure on: W1 to W3 of the measured comparison, a link for the whole chain.

W1 and W3 share two streams, W1m has them merged (`bench_coincidence`); W2 is gating against a beacon.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.bb84 import Record, packed, record_of
from groundstation.core.merging import merge
from groundstation.core.tags import TagBlock

SLOT_PS, SLOTS_PER_PULSE, HALF_WIDTH_PS = 10_000, 10_000, 1_000
BEACON_PS = SLOT_PS * SLOTS_PER_PULSE
BEACON_CHANNEL = 4


class Transmission(NamedTuple):
    """W2: tags of four detectors and, apart, of the beacon; `slot` (n,) is the true one, -1 for noise."""

    detectors: TagBlock
    beacon_ps: NDArray[np.int64]
    slot: NDArray[np.int64]

    def merged(self) -> TagBlock:
        """Detectors and beacon as one stream."""
        channel = np.full(self.beacon_ps.size, BEACON_CHANNEL, np.uint8)
        return merge([self.detectors, TagBlock(self.beacon_ps, channel)])


def transmission(tags: int = 10_000_000, seed: int = 2) -> Transmission:
    """Half signals (300 ps rms) at random slots of a 100 MHz grid, half noise, at 1 Mtag/s, through a receiver's clock
    that runs 5e-6 fast and gains 1e-7 a second; beacon every 100 us, 50 ps rms."""
    rng = np.random.default_rng(seed)
    length_ps = tags * 1_000_000
    slot = rng.integers(0, length_ps // SLOT_PS, tags // 2)
    signal = slot * SLOT_PS + np.rint(rng.normal(0, 300, slot.size)).astype(np.int64)
    sent = np.concatenate((signal, rng.integers(0, length_ps, tags - slot.size)))
    slot = np.concatenate((slot, np.full(tags - slot.size, -1)))
    order = np.argsort(sent, kind="stable")
    pulse = np.arange(0, length_ps + 1, BEACON_PS)
    beacon_ps = _seen(pulse) + np.rint(rng.normal(0, 50, pulse.size)).astype(np.int64)
    detectors = TagBlock(_seen(sent[order]), rng.integers(0, 4, tags).astype(np.uint8))
    return Transmission(detectors, beacon_ps, slot[order])


def _seen(sent_ps: NDArray[np.int64]) -> NDArray[np.int64]:
    late = sent_ps * 5e-6 + 1e-19 * sent_ps.astype(np.float64) ** 2 / 2
    return sent_ps + 7_000_000_000_123 + np.rint(late).astype(np.int64)


def link(sent: Transmission, error_rate: float = 0.01, seed: int = 5) -> tuple[Transmission, Record]:
    """W2 as a BB84 link: detectors click as the states sent make them, with errors, in a basis chosen at random.

    The record of 2^27 slots (67 MB, beyond the caches) is used over and over.
    """
    rng = np.random.default_rng(seed)
    states = rng.integers(0, 12, 1 << 27, dtype=np.uint8)
    mask = states.size - 1
    record = record_of(packed(states))
    signal = np.flatnonzero(sent.slot >= 0)
    state = states[sent.slot[signal] & mask]
    ours = rng.integers(0, 2, signal.size)
    wrong = rng.random(signal.size) < np.where(ours == (state & 1), error_rate, 0.5)
    channel = sent.detectors.channel.copy()
    channel[signal] = 2 * ours + ((state >> 1 & 1) ^ wrong)
    return sent._replace(detectors=TagBlock(sent.detectors.time_ps, channel)), lambda slot: record(slot & mask)
