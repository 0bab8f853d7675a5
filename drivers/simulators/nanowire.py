"""A superconducting nanowire: what its bias makes of efficiency and dark counts, and how it latches. All free."""

import math

_CRITICAL_UA = 20.0  # above this the wire is resistive
_RETRAPPING_UA = 1.0  # below this it becomes superconducting again
_OPERATING_UA = 15.0  # efficiency 1 and the world's dark rate
_HALF_EFFICIENCY_UA, _EFFICIENCY_WIDTH_UA = 9.0, 1.0  # of the sigmoid
_DARK_E_FOLD_UA = 2.0
_NOISE_MV, _PULSE_MV_PER_UA = 5.0, 10.0  # triggers below count noise, above the pulse nothing
_NOISE_HZ = 1e6
_RESISTIVE_MV_PER_UA = 5.0


class Nanowire:
    """One detector: its bias decides on efficiency and dark counts, until it latches."""

    def __init__(self, dark_hz: float) -> None:
        self._dark_hz = dark_hz
        self.bias_ua, self.trigger_mv = 0.0, 20.0
        self.enabled = self.latched = False
        self.biased_ns: int | None = None

    def update(self, utc_ns: int, cold: bool) -> None:
        """Follow the current through the wire: too much latches it, next to none ends that."""
        current_ua = abs(self.bias_ua) if self.enabled else 0.0
        if current_ua < _RETRAPPING_UA:
            self.latched, self.biased_ns = False, None
        elif self.biased_ns is None:
            self.biased_ns = utc_ns
        if current_ua > _CRITICAL_UA or (current_ua >= _RETRAPPING_UA and not cold):
            self.latched = True

    def efficiency(self) -> float:
        """Relative to the operating point."""
        if not self._counts():
            return 0.0
        return 1.0 / (1.0 + math.exp((_HALF_EFFICIENCY_UA - abs(self.bias_ua)) / _EFFICIENCY_WIDTH_UA))

    def dark_hz(self) -> float:
        """Grows exponentially with the bias; a trigger inside the noise counts that."""
        if self.enabled and self.trigger_mv < _NOISE_MV:
            return _NOISE_HZ
        if not self._counts():
            return 0.0
        return self._dark_hz * math.exp((abs(self.bias_ua) - _OPERATING_UA) / _DARK_E_FOLD_UA)

    def bias_for(self, dark_hz: float) -> float:
        """The bias that gives so many dark counts, at most a little below the critical current."""
        wanted_ua = _OPERATING_UA + _DARK_E_FOLD_UA * math.log(max(dark_hz, 1e-3) / self._dark_hz)
        return min(max(0.0, wanted_ua), 0.95 * _CRITICAL_UA)

    def voltage_mv(self) -> float:
        return self.bias_ua * _RESISTIVE_MV_PER_UA if self.latched else 0.0

    def _counts(self) -> bool:
        biased = self.enabled and abs(self.bias_ua) >= _RETRAPPING_UA
        return biased and not self.latched and self.trigger_mv < _PULSE_MV_PER_UA * abs(self.bias_ua)
