"""From gated clicks and the transmitter's answers to sifted bits. Every choice is keyed by slot number."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.keyed_random import philox4x32

#: The bits of an answer byte (docs/classical-channel.md).
MATCH, DISCLOSED, VALUE = 1, 8, 16
_INTENSITY_SHIFT, _INTENSITY_MASK = 1, 3
_STREAM_DOUBLE_CLICK = 3


class Clicks(NamedTuple):
    """One entry per slot with a click, slots strictly ascending: `basis` 0 rectilinear, 1 diagonal; `bit`
    (H, D = 0; V, A = 1), uint8; `first` (n,) position of the slot's first click in the input."""

    slot: NDArray[np.int64]
    basis: NDArray[np.uint8]
    bit: NDArray[np.uint8]
    first: NDArray[np.int64]
    double_clicks: int


def one_click_per_slot(slot: NDArray[np.int64], detector: NDArray[np.uint8], seed: int) -> Clicks:
    """Merge clicks that share a slot: never discarded, counted once.

    When different detectors clicked in one slot, the bit is random (and the basis too, if both bases clicked),
    keyed by the slot number and the recorded `seed`; N. Lutkenhaus, Phys. Rev. A 59, 3301 (1999): discarding
    double clicks would open a side channel. `slot` (n,) and `detector` (n,) 0..3 for H V D A, in any order.
    """
    order = np.argsort(slot, kind="stable")
    ordered = slot[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if slot.size else order
    bits_seen = np.left_shift(1, detector[order]).astype(np.uint8)
    seen = np.bitwise_or.reduceat(bits_seen, first) if slot.size else bits_seen
    basis = ((seen & 0b1100) != 0).astype(np.uint8)
    bit = ((seen & 0b1010) != 0).astype(np.uint8)
    doubles = np.flatnonzero(np.bitwise_count(seen) > 1)
    if doubles.size:
        words = philox4x32(ordered[first[doubles]].astype(np.uint64), seed, _STREAM_DOUBLE_CLICK)
        both_bases = ((seen[doubles] & 0b0011) != 0) & ((seen[doubles] & 0b1100) != 0)
        bit[doubles] = words[0] & 1
        basis[doubles] = np.where(both_bases, words[1] & 1, basis[doubles])
    return Clicks(ordered[first], basis, bit, order[first], int(doubles.size))


class Sifted(NamedTuple):
    """The decoded answers to clicks, one entry each (n,): `match` same basis; `intensity` 0 signal, 1 decoy,
    2 vacuum; `disclosed`; `error` the disclosed bit differs from ours (False where nothing is disclosed)."""

    match: NDArray[np.bool_]
    intensity: NDArray[np.uint8]
    disclosed: NDArray[np.bool_]
    error: NDArray[np.bool_]


def sift(bit: NDArray[np.uint8], answer: NDArray[np.uint8]) -> Sifted:
    """Compare our bits (n,) with the answers (n,)."""
    disclosed = (answer & DISCLOSED) != 0
    value = ((answer & VALUE) != 0).astype(np.uint8)
    return Sifted(
        (answer & MATCH) != 0,
        (answer >> _INTENSITY_SHIFT & _INTENSITY_MASK).astype(np.uint8),
        disclosed,
        disclosed & (value != bit),
    )
