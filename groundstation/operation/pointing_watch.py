"""Says when the telescope points beside the satellite for too long, or when nobody knows where it points."""

from groundstation.clock import monotonic_s

#: A large error for so long, or no reading that tells one for so long (wall time), is an alarm. On a simulated
#: station that runs fast, a moment of the world is over before any reading could show it.
_TOO_LARGE_S = 2.0
_UNKNOWN_S = 5.0


class PointingWatch:
    """Feed it every turn of the tracking loop. `alarm` is the sentence that stands now, empty when all is well."""

    def __init__(self, too_large_arcsec: float) -> None:
        self._too_large_arcsec = too_large_arcsec
        now_s = monotonic_s()
        self._good_s = self._known_s = now_s
        self._worst_arcsec = 0.0
        self.alarm = ""

    def feed(self, error_arcsec: float | None) -> str:
        """One turn; None when it told no error. A new sentence when an alarm begins or ends, else nothing."""
        now_s = monotonic_s()
        if error_arcsec is not None:
            self._known_s = now_s
            if error_arcsec <= self._too_large_arcsec:
                return self._end(now_s)
            self._worst_arcsec = max(self._worst_arcsec, error_arcsec)
        if self.alarm:
            return ""
        if now_s - self._known_s > _UNKNOWN_S:
            self.alarm = f"the pointing error is unknown for more than {_UNKNOWN_S:.0f} s"
        elif self._worst_arcsec and error_arcsec is not None and now_s - self._good_s > _TOO_LARGE_S:
            self.alarm = (
                f"the pointing error is above {self._too_large_arcsec:.0f} arcsec for more than {_TOO_LARGE_S:.0f} s: "
                f"{error_arcsec:.0f} arcsec"
            )
        return self.alarm

    def _end(self, now_s: float) -> str:
        over, worst_arcsec, lasted_s = self.alarm, self._worst_arcsec, now_s - self._good_s
        self._good_s, self._worst_arcsec, self.alarm = now_s, 0.0, ""
        if not over:
            return ""
        worst = f", {worst_arcsec:.0f} arcsec at worst" if worst_arcsec else ""
        return f"the pointing error is below {self._too_large_arcsec:.0f} arcsec again after {lasted_s:.1f} s{worst}"
