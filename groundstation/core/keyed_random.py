"""Random numbers that are a function of a key and a counter, so that no order of asking can change them.

Philox4x32-10 of J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11 (2011), section 4.3.
The state of any slot can be had without storing the others, and a random choice keyed by slot number is the
same however the tags were cut into blocks.
"""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
_ROUNDS = 10


def philox4x32(counters: NDArray[np.uint64], key: int, stream: int = 0) -> NDArray[np.uint32]:
    """Four random 32-bit words for each counter.

    `counters` (n,) uint64 fill the low 64 bits of Philox's 128-bit counter and `stream` (64 bits) the high
    ones; `key` has 64 bits. Returns (4, n) uint32.
    """
    counters = np.asarray(counters, dtype=np.uint64)
    c0, c1 = counters & _LOW32, counters >> _SHIFT32
    c2 = np.full_like(counters, stream & 0xFFFFFFFF)
    c3 = np.full_like(counters, stream >> 32 & 0xFFFFFFFF)
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _SHIFT32) ^ c1 ^ np.uint64(k0)
        c2 = (product0 >> _SHIFT32) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW32, product0 & _LOW32
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3)).astype(np.uint32)
