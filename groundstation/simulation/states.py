"""What the transmitter sends in each slot: a function of the seed and the slot number, never stored.

Thirty billion slots pass during five minutes; the transmitter's record of any of them is computed on demand.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.keyed_random import philox4x32
from groundstation.simulation.parameters import SourceParameters

_STREAM_STATE, _STREAM_DISCLOSURE = 1, 2
_TWO32 = float(1 << 32)


class States(NamedTuple):
    """One entry per slot, all (n,) uint8: `basis` 0 rectilinear, 1 diagonal; `bit` (H, D = 0; V, A = 1);
    `intensity` 0 signal, 1 decoy, 2 vacuum."""

    basis: NDArray[np.uint8]
    bit: NDArray[np.uint8]
    intensity: NDArray[np.uint8]


class TransmitterStates:
    """The transmitter's random choices."""

    def __init__(self, seed: int, source: SourceParameters) -> None:
        self._key = seed
        self._signal_below = source.probability_signal
        self._decoy_below = source.probability_signal + source.probability_decoy
        self._disclosed_fraction = source.disclosed_signal_fraction

    def of(self, slots: NDArray[np.int64]) -> States:
        """The states sent in `slots` (n,)."""
        words = philox4x32(slots.astype(np.uint64), self._key, _STREAM_STATE)
        share = words[1] / _TWO32
        intensity = (share >= self._signal_below).astype(np.uint8)
        intensity += share >= self._decoy_below
        return States((words[0] & 1).astype(np.uint8), (words[0] >> 1 & 1).astype(np.uint8), intensity)

    def disclosed(self, slots: NDArray[np.int64], intensity: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which slots are disclosed: every decoy and vacuum slot, and a keyed sample of the signal slots."""
        words = philox4x32(slots.astype(np.uint64), self._key, _STREAM_DISCLOSURE)
        return np.asarray((intensity != 0) | (words[0] / _TWO32 < self._disclosed_fraction))
