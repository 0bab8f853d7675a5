"""Which slot of the transmitter a click belongs to, and whether it falls inside the coincidence window."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.synchronisation import ClockFit


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
