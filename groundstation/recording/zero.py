"""The zero of a foreign file's times: the same for an import and for a look at the file in place."""

import numpy as np
from numpy.typing import NDArray

from groundstation.errors import BadInput

_FAR_PS = 3_600 * 10**12
_GRID_PS = 10**12
_LATEST_PS = 1 << 62


def zero_of(first_ps: int) -> int:
    """From where to count times whose first is `first_ps`: the file's own zero or, an hour or more away from it, the
    whole second before the first tag, so that others may read the times as float64."""
    return first_ps // _GRID_PS * _GRID_PS if abs(first_ps) >= _FAR_PS else 0


def since_zero(time_ps: NDArray[np.int64], zero_ps: int, where: str) -> NDArray[np.int64]:
    """The times (n,), in order, counted from `zero_ps`. Raises BadInput when they reach beyond 2^62 ps from it."""
    if time_ps.size and int(time_ps[-1]) - zero_ps > _LATEST_PS:
        raise BadInput(
            f"{where} has tags more than 2^62 ps (53 days) apart, too far for one recording; is its unit of time right?"
        )
    return time_ps - zero_ps
