"""The transmitter's clock from the quantum signal itself, when there is no beacon.

The photons come in slots of 10 ns. Seen as a rotation at the slot rate, clicks that belong to slots add up in one
direction and noise cancels, so a periodogram shows the clock's frequency and its phase within a slot, once the
predicted time of flight is removed. Which slot it is remains open: any whole number of slots fits equally well.
That number follows from the states that the transmitter discloses (`find_slot_offset`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from groundstation.core.refusal import ClockRefused
from groundstation.core.synchronisation import ClockFit, WindowedClock, fit_of, ill_conditioned, median
from groundstation.core.timebase import PS_PER_S

_FEWEST_CLICKS = 200
#: |sum of n unit vectors|^2 / n of noise passes this once in e^25 = 7e10 trials; a look makes some 1e4.
_SURE_POWER = 35.0
#: Half of a window's clicks must confirm what the other half found.
_CONFIRMING_POWER = 12.0
#: A window's clock is used only if it is known this well (1 sigma) at its worst edge; the gate is 1,000 ps.
_EDGE_UNCERTAINTY_PS = 150.0
#: From window to window the clock is followed within this part of a slot, or its slots are counted anew.
_FOLLOWED_PART = 0.2

#: Of slots (n,): basis 0 or 1, bit 0 or 1, and whether the transmitter has disclosed the bit, (n,) each.
DisclosedStates = Callable[[NDArray[np.int64]], tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]]


class SlotOffset(NamedTuple):
    """Slots to add to the receiver's slot numbers; `significance` of it and of the next best in sigmas;
    `compared` clicks and the share of `errors` among them."""

    slots: int
    significance: float
    runner_up: float
    compared: int
    errors: float


class _Tone(NamedTuple):
    """Offset (ps) and frequency offset at the window's middle, and the power that they stand out with."""

    offset_ps: float
    slope: float
    power: float


class SignalClock(WindowedClock):
    """Follows the clock from window to window, as `synchronisation.BeaconClock` does: feed windows in order.

    The fits gate clicks into slots; `run` counts the uninterrupted stretches. Within one, one whole number of
    slots is missing in all fits alike.
    """

    def __init__(self, slot_period_ps: int, window_ps: int, max_frequency_offset: float = 1e-5) -> None:
        """`max_frequency_offset`: of the transmitter's clock and the error of the predicted Doppler together."""
        if slot_period_ps <= 0 or window_ps < 1_000 * slot_period_ps or not 0 < max_frequency_offset < 1e-3:
            raise ValueError(
                "a signal clock needs a window of 1,000 slots at least and a frequency offset below 1e-3, but got "
                f"{slot_period_ps} ps, {window_ps} ps and {max_frequency_offset}"
            )
        super().__init__(window_ps)
        self._slot_ps = slot_period_ps
        self._max_slope = max_frequency_offset
        self.run = 0

    def fit(self, window: int, emitted_ps: NDArray[np.int64]) -> ClockFit | None:
        """The clock over window number `window` from its clicks (n,); None, and `refusal` why, if not sure.

        The fit is that of `synchronisation`: offset(u) = c0 + c1 u + c2 u^2 in ps, u = -1..1 over the window.
        """
        local = (emitted_ps - self.centre_ps(window)).astype(np.float64)
        tone, sentence = self._tone(emitted_ps, local)
        fitted = None if tone is None else self._fitted(emitted_ps, local, tone)
        if fitted is None:
            self.refusal = sentence or "the clicks of this window do not lie on one line of slots"
            return None
        self.refusal = ""
        fitted = self._continued(window, fitted)
        self._last = (window, fitted)
        return fitted

    def _tone(self, emitted_ps: NDArray[np.int64], local: NDArray[np.float64]) -> tuple[_Tone | None, str]:
        """The strongest rotation near the slot rate, confirmed by both halves of the clicks apart."""
        if local.size < _FEWEST_CLICKS:
            return None, f"{local.size} clicks in a window tell nothing of the slots: {_FEWEST_CLICKS} are needed"
        turn = 2j * np.pi / self._slot_ps
        vector = np.exp(turn * np.mod(emitted_ps, self._slot_ps).astype(np.float64))
        tone = _strongest(vector, local, self._slot_ps, self._window_ps, self._max_slope)
        aligned = vector * np.exp(-turn * tone.slope * local)
        powers = [_power(aligned[half::2]) for half in (0, 1)]
        if tone.power < _SURE_POWER or min(powers) < _CONFIRMING_POWER:
            return None, (
                f"no slot rate stands out of {local.size} clicks (power {tone.power:.0f}, {_SURE_POWER:g} needed): "
                "check the predicted time of flight and the slot period"
            )
        return tone, ""

    def _fitted(self, emitted_ps: NDArray[np.int64], local: NDArray[np.float64], tone: _Tone) -> ClockFit | None:
        """Least squares of 1, u, u^2 through the clicks near the middle of their slots, in two or three rounds."""
        u = local / (self._window_ps / 2)
        since = np.mod(emitted_ps, self._slot_ps).astype(np.float64)
        coefficients = np.array([tone.offset_ps, tone.slope * self._window_ps / 2, 0.0])
        basis = np.vander(u, 3, increasing=True)
        limit = self._slot_ps / 4
        for _ in range(12):
            residual = since - basis @ coefficients
            residual -= np.rint(residual / self._slot_ps) * self._slot_ps
            inside = np.flatnonzero(np.abs(residual) <= limit)
            if inside.size < _FEWEST_CLICKS / 2:
                return None
            normal = basis[inside].T @ basis[inside]
            if ill_conditioned(normal, 1e6):
                return None
            change = np.linalg.solve(normal, basis[inside].T @ residual[inside])
            coefficients = coefficients + change
            scatter = median(np.abs(residual[inside])) * 1.4826 + 1.0
            next_limit = float(np.clip(4 * scatter, 50.0, self._slot_ps / 4))
            if float(np.abs(change).sum()) < 0.1 and abs(next_limit - limit) < 0.02 * limit:
                break
            limit = next_limit
        fitted = fit_of(coefficients, normal, residual[inside], local.size)
        return fitted if fitted.edge_uncertainty_ps <= _EDGE_UNCERTAINTY_PS else None

    def _continued(self, window: int, fitted: ClockFit) -> ClockFit:
        """The fit moved by whole slots so that it continues the last one; a new run where that is not certain."""
        if self._last is None:
            self.run += 1
            return fitted._replace(c0=float(np.remainder(fitted.c0, self._slot_ps)))
        ago, last = window - self._last[0], self._last[1]
        expected = last.c0 + (last.c1 + last.c2 * 2 * ago) * 2 * ago
        # How far the old clock may be off here: its own error, and the drift of a low orbit that no one predicted.
        half_s = self._window_ps * 0.5e-12
        known = 3 * last.edge_uncertainty_ps * (2 * ago + 1) ** 2 + 0.5 * 1e-8 * PS_PER_S * (2 * ago * half_s) ** 3 / 3
        slots = round((expected - fitted.c0) / self._slot_ps)
        moved = fitted._replace(c0=fitted.c0 + slots * self._slot_ps)
        if known > self._slot_ps / 2 or abs(moved.c0 - expected) > max(known, _FOLLOWED_PART * self._slot_ps):
            self.run += 1
        return moved


def _strongest(
    vector: NDArray[np.complex128], local: NDArray[np.float64], slot_ps: int, window_ps: int, max_slope: float
) -> _Tone:
    """The frequency near the slot rate at which the clicks' vectors add up best.

    The vectors are summed in cells of time so short that the largest frequency offset turns them by an eighth;
    a transform over the cells is the periodogram.
    """
    cell = slot_ps / (8 * max_slope)
    cells = max(int(np.ceil(window_ps / cell)), 8)
    index = np.clip(((local + window_ps / 2) * (cells / window_ps)).astype(np.int64), 0, cells - 1)
    rows = [np.bincount(index, part, minlength=cells) for part in (vector.real, vector.imag)]
    size = scipy.fft.next_fast_len(4 * cells)
    spectrum = np.abs(scipy.fft.fft(rows[0] + 1j * rows[1], size)) ** 2
    frequency = scipy.fft.fftfreq(size, window_ps / cells)  # turns per ps
    spectrum[np.abs(frequency) * slot_ps > max_slope] = 0
    peak = int(np.argmax(spectrum))
    around = spectrum[[peak - 1, peak, (peak + 1) % size]]
    bend = around[0] - 2 * around[1] + around[2]
    finer = 0.5 * (around[0] - around[2]) / bend if bend < 0 else 0.0
    slope = float((frequency[peak] + np.clip(finer, -0.5, 0.5) / (size * window_ps / cells)) * slot_ps)
    total = np.sum(vector * np.exp(-2j * np.pi / slot_ps * slope * local))
    return _Tone(float(np.angle(total)) / (2 * np.pi) * slot_ps, slope, float(abs(total) ** 2 / vector.size))


def _power(vector: NDArray[np.complex128]) -> float:
    return float(abs(vector.sum()) ** 2 / max(vector.size, 1))


_FIRST_CLICKS = 256
_MOST_ASKED = 2_000_000
_SURE_SIGMAS = 7.0
_AHEAD_SIGMAS = 3.0
_FEWEST_COMPARED = 40


def find_slot_offset(
    slot: NDArray[np.int64],
    basis: NDArray[np.uint8],
    bit: NDArray[np.uint8],
    disclosed: DisclosedStates,
    max_slots: int,
) -> SlotOffset:
    """How many slots to add to the receiver's numbers, from -max_slots to +max_slots, so that its clicks (n,)
    (slot, basis 0 or 1, bit 0 or 1) agree with the states that the transmitter discloses.

    Only equal bases and disclosed bits are compared; a wrong offset agrees in half of them. Candidates are
    narrowed down on every second click, and the winner must prove itself on the others.
    Raises ClockRefused when no offset stands out, or not clearly against the next.
    """
    if not slot.shape == basis.shape == bit.shape or max_slots < 0:
        raise ValueError(
            f"one basis and one bit are needed for each slot, but there are {slot.size}, {basis.size} and {bit.size}"
        )
    search, proof = np.arange(0, slot.size, 2), np.arange(1, slot.size, 2)
    candidates = np.arange(-max_slots, max_slots + 1, dtype=np.int64)
    agreed, compared = (np.zeros(candidates.size) for _ in range(2))
    done, step = 0, _FIRST_CLICKS
    while done < search.size:
        chosen = search[done : done + step]
        more = _agreement(slot[chosen], basis[chosen], bit[chosen], disclosed, candidates)
        agreed, compared = agreed + more[0], compared + more[1]
        done, step = done + chosen.size, 2 * step
        # A right offset is never among the worst three quarters but by a chance of 1e-7 (error rates up to 11 %).
        sigmas = _sigmas(agreed, compared)
        if candidates.size > 64 and sigmas.max() > 5:
            kept = np.argsort(-sigmas, kind="stable")[: max(64, candidates.size // 4)]
            candidates, agreed, compared = candidates[kept], agreed[kept], compared[kept]
    more = _agreement(slot[proof], basis[proof], bit[proof], disclosed, candidates)
    proven = _sigmas(*more)
    total = _sigmas(agreed + more[0], compared + more[1])
    ranked = np.argsort(-total, kind="stable")
    best, second = int(ranked[0]), float(total[ranked[1]]) if total.size > 1 else 0.0
    count = int(compared[best] + more[1][best])
    if (
        count < _FEWEST_COMPARED
        or total[best] < _SURE_SIGMAS
        or proven[best] < 4
        or total[best] < second + _AHEAD_SIGMAS
    ):
        raise ClockRefused(
            f"no slot offset within +-{max_slots} stands out: the best agrees {total[best]:.1f} sigma above chance in "
            f"{count} compared clicks ({_SURE_SIGMAS:g} needed), the next best {second:.1f}; give more clicks or a "
            "wider range"
        )
    errors = 1 - float(agreed[best] + more[0][best]) / count
    return SlotOffset(int(candidates[best]), float(total[best]), second, count, errors)


def _agreement(
    slot: NDArray[np.int64],
    basis: NDArray[np.uint8],
    bit: NDArray[np.uint8],
    disclosed: DisclosedStates,
    candidates: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each candidate (m,) how many of the clicks (n,) agree and how many were compared."""
    agreed, compared = np.zeros(candidates.size), np.zeros(candidates.size)
    if slot.size == 0:
        return agreed, compared
    rows = max(_MOST_ASKED // max(slot.size, 1), 1)
    for start in range(0, candidates.size, rows):
        part = slice(start, min(start + rows, candidates.size))
        asked = (candidates[part, None] + slot[None, :]).ravel()
        their_basis, their_bit, known = (np.asarray(answer).reshape(-1, slot.size) for answer in disclosed(asked))
        usable = known.astype(bool) & (their_basis == basis)
        compared[part] = usable.sum(axis=1)
        agreed[part] = (usable & (their_bit == bit)).sum(axis=1)
    return agreed, compared


def _sigmas(agreed: NDArray[np.float64], compared: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the agreement lies above one half."""
    return (2 * agreed - compared) / np.sqrt(np.maximum(compared, 1.0))
