"""How often the TDC1's counter turned while it sent nothing, by the host's clock: the words alone cannot tell.

Pure: the host's time comes in as a number.
"""

from drivers.tdc1_words import TURN_PS
from groundstation.errors import WireError

_PS_PER_S = 1_000_000_000_000
_JITTER_S = 0.05  # wall time: how much later than other words some may come
SILENT_WALL_S = 3 * _JITTER_S
_STABLE_S = 2.0  # wall time: what lasts so long is no jitter
_DRIFT = 1e-4  # host and tagger run apart by less; 50 ppm are the tagger's by its vendor


class Arrivals:
    """Compares the tagger's time with the host's, both in ps; `host_ps` is world time that has passed, from anywhere.

    In a world that runs faster than about 1.3 times the wall, the host's jitter spans too much of a turn to count
    turns by it. Then only a silence that surely holds a turn is found, and is an error.
    """

    def __init__(self, speed: float) -> None:
        """`speed`: world seconds per second of the host's clock."""
        wall_ps = speed * _PS_PER_S
        self._countable = _JITTER_S * wall_ps <= TURN_PS / 4
        self._tolerance_ps = max(TURN_PS / 4, _JITTER_S * wall_ps)
        self._silent_ps = max(TURN_PS / 2, SILENT_WALL_S * wall_ps)
        self._hopeless_ps = max(TURN_PS, 4 * SILENT_WALL_S * wall_ps)
        self._stable_ps = _STABLE_S * wall_ps
        self._began_ps = 0
        self._heard_ps = 0  # when words came last
        self._listened_ps = 0  # up to when this program has listened since then
        self._ahead_ps = 0.0  # how far the tagger's time is ahead of the host's: of the words that were least late
        self._apart_since_ps: int | None = None

    def begin(self, device_ps: int, host_ps: int) -> None:
        """The stream has proved itself."""
        self._ahead_ps = device_ps - host_ps
        self._began_ps = self._heard_ps = self._listened_ps = host_ps

    def listened(self, host_ps: int) -> None:
        """Nothing has come until now."""
        self._listened_ps = host_ps

    def silent(self, host_ps: int) -> bool:
        """Whether the last words came so long ago that a turn may have been missed."""
        return host_ps - self._heard_ps > self._silent_ps

    def turns(self, before_ps: int, device_ps: int, host_ps: int) -> int:
        """Turns that were missed between two words, the later of which came just now, the earlier before a silence.

        Raises WireError when the host's clock cannot tell.
        """
        silent_ps = host_ps - self._heard_ps
        missed_ps = silent_ps - (device_ps - before_ps)
        turns = max(0, round(missed_ps / TURN_PS)) if self._countable else 0
        certain = turns == 0 or (
            # Who did not listen all the time cannot know where among the words the missing turns belong.
            self._listened_ps - self._heard_ps > silent_ps - 2 * self._tolerance_ps
            and abs(missed_ps - turns * TURN_PS) < self._tolerance_ps
        )
        if not certain or (not self._countable and silent_ps > self._hopeless_ps):
            raise WireError(
                f"no word of the TDC1 for {silent_ps / _PS_PER_S:.2f} s, longer than its counter's turn of 0.27 s, "
                "and the host's clock cannot tell how often it turned: its time is lost; connect again"
            )
        return turns

    def heard(self, device_ps: int, host_ps: int) -> None:
        """Words have come. Raises WireError when their time has been apart from the host's for some while."""
        expected_ps = self._ahead_ps - _DRIFT * (host_ps - self._heard_ps)
        apart_ps = device_ps - host_ps - expected_ps
        self._heard_ps = self._listened_ps = host_ps
        if abs(apart_ps) < 2 * self._tolerance_ps or host_ps - self._began_ps < self._stable_ps:
            self._ahead_ps = expected_ps + max(0.0, apart_ps)
            self._apart_since_ps = None
            return
        self._ahead_ps = expected_ps
        if self._apart_since_ps is None:
            self._apart_since_ps = host_ps
        elif host_ps - self._apart_since_ps > self._stable_ps:
            raise WireError(
                f"the TDC1's time has been {abs(apart_ps) / _PS_PER_S:.2f} s "
                f"{'ahead of' if apart_ps > 0 else 'behind'} the host's for a while: turns of its counter were "
                "miscounted; connect again"
            )
