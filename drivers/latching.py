"""When a superconducting nanowire counts as latched: it is biased, and longer silent than chance allows.

A latched wire stays resistive and gives no pulses until its bias is taken away. All that the instruments here can
see of it is the silence, and blinding light silences a wire as well; to cycle the bias does no harm then.
"""

import math

from groundstation.errors import BadInput


def silence_s(dark_hz: float, false_alarm: float = 1e-6) -> float:
    """How long to count: a healthy wire with at least `dark_hz` is that long silent with chance `false_alarm`."""
    _check(dark_hz, false_alarm)
    return -math.log(false_alarm) / dark_hz


def latched(counts: int, integration_s: float, dark_hz: float, false_alarm: float = 1e-6) -> bool:
    """Whether a biased wire with so many counts is latched; `dark_hz`: the least that a healthy one gives in the dark.

    Dark counts follow Poisson's law, so a healthy wire is silent with the chance exp(-dark_hz x integration_s).
    Raises BadInput for a silence that is too short to tell.
    """
    _check(dark_hz, false_alarm)
    if counts < 0 or not 0.0 < integration_s < math.inf:
        raise BadInput(f"{counts} counts in {integration_s} s are no measurement; give counts and seconds above 0")
    if counts > 0:
        return False
    needed_s = silence_s(dark_hz, false_alarm)
    if integration_s < needed_s * (1 - 1e-9):
        raise BadInput(
            f"no count in {integration_s:g} s says nothing when {dark_hz:g} Hz of dark counts are expected; "
            f"count for at least {needed_s:.3g} s"
        )
    return True


def _check(dark_hz: float, false_alarm: float) -> None:
    if not 0.0 < dark_hz < math.inf or not 0.0 < false_alarm < 1.0:
        raise BadInput(
            f"a dark count rate of {dark_hz} Hz and a chance of {false_alarm} cannot tell a latch; the rate must be "
            "above 0, the chance between 0 and 1"
        )
