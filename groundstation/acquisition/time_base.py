"""One time scale across every outage of the tagger's link: after each, the tagger's time is proved or found again.

While the link was down the tagger may have gone on counting, or it was restarted and counts from anywhere. The host's
clock says roughly what time it is on the old scale, the 1PPS says it exactly. What arrives is held until then, for a
bounded while; what cannot be placed in time is dropped and counted. Pure: the host's time comes in as a number.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from groundstation.acquisition.pulse_train import PulseTrain, find_train
from groundstation.core.timebase import PS_PER_S
from groundstation.instruments import PatternBlock

RESTARTED = "no time base since the tagger restarted"
UNCONFIRMED = "no 1PPS confirmed the time base after the link was lost"
OLDER = "older than what was recorded before the link was lost"
INTERRUPTED = "the link was lost again before the time base was known"

_PULSES_KEPT = 64
#: Without a 1PPS, the time must be where the host's clock puts it; with one, the second must be the right one (wall).
_SAME_TIME_S, _SAME_SECOND_S = 0.5, 10.0
#: A pulse keeps its phase when it is so near to where it was expected, by the length of the outage.
_PHASE_PS, _PHASE_DRIFT = 10_000_000, 5e-8
#: A restarted tagger is watched for so long, and its least delay must have been the least for so long (wall time).
_WATCHED_S, _SETTLED_S = 2.0, 1.0
_SAME_DELAY_S = 0.02
#: The first pulse of a restarted tagger must fall this close to a second of the old scale.
_CLEAR_OF_AMBIGUITY_S = 0.25
#: Bounds of what is held: tags (9 bytes each), and the time that they span (wall time).
_HELD_TAGS, _HELD_S = 4_000_000, 20.0
#: The host's clock and the tagger's drift apart: their difference is the one of this last while (wall time).
_WINDOW_S = 30.0

_NO_TIMES, _NO_PATTERNS = np.empty(0, np.int64), np.empty(0, np.uint8)


class _Ahead:
    """How far the tagger's time is ahead of the host's: the greatest difference, for words only come late."""

    def __init__(self, window_ps: int, same_ps: float) -> None:
        self._window_ps, self._same_ps = window_ps, same_ps
        self._older: int | None = None
        self._newer: int | None = None
        self._newer_since_ps = self.began_ps = self.settled_since_ps = 0

    def feed(self, device_ps: int, host_ps: int) -> None:
        ahead_ps, best_ps = device_ps - host_ps, self.ps
        if best_ps is None:
            self.began_ps = self._newer_since_ps = host_ps
        if best_ps is None or ahead_ps > best_ps + self._same_ps:
            self.settled_since_ps = host_ps
        if host_ps - self._newer_since_ps > self._window_ps:
            self._older, self._newer, self._newer_since_ps = self._newer, None, host_ps
        self._newer = ahead_ps if self._newer is None else max(self._newer, ahead_ps)

    def shift(self, shift_ps: int) -> None:
        """The tagger's times are counted from elsewhere now."""
        self._older = None if self._older is None else self._older + shift_ps
        self._newer = None if self._newer is None else self._newer + shift_ps

    @property
    def ps(self) -> int | None:
        """None before the first word."""
        known = [value for value in (self._older, self._newer) if value is not None]
        return max(known) if known else None


@dataclass
class _Held:
    """What has come since the link is back, on the tagger's scale as it is now."""

    ahead: _Ahead
    blocks: deque[PatternBlock] = field(default_factory=deque)
    tags: int = 0
    pulses: deque[int] = field(default_factory=lambda: deque(maxlen=_PULSES_KEPT))


class TimeBase:
    """Feed every block of the tagger with the host's time; what comes out is on one scale and never goes back."""

    def __init__(self, pps_pattern: int | None, speed: float = 1.0) -> None:
        """`pps_pattern`: the set of inputs that is the 1PPS; `speed`: world seconds per second of the host's clock."""
        self._pps_pattern = pps_pattern
        self._world_ps = speed * PS_PER_S  # one second of the wall
        #: Tolerances count in the wall's seconds, which a faster world multiplies.
        self._slack_ps = max(1.0, speed) * PS_PER_S
        self._shift_ps = 0
        self._ahead = self._new_ahead()
        self._pulses: deque[int] = deque(maxlen=_PULSES_KEPT)
        self._train: PulseTrain | None = None
        self._held: _Held | None = None
        self._wrap_ps: int | None = None
        self._cause = ""
        self._fed_host_ps = 0
        self._dropped: Counter[str] = Counter()
        #: How far time has come on the scale that is given out; -1 before the first word.
        self.latest_ps = -1

    @property
    def trouble(self) -> str:
        """Why nothing is given out although words may arrive; empty while all is well."""
        if self._held is None:
            return ""
        if self._pps_pattern is None or self._train is None:
            return "the tagger was restarted and no 1PPS tells its time: begin a new recording"
        return "the tagger's link was lost; waiting for the 1PPS to know its time again"

    def take_dropped(self) -> dict[str, int]:
        """How many events were dropped since the last call, by cause."""
        dropped, self._dropped = dict(self._dropped), Counter()
        return dropped

    def interrupted(self, cause: str, wrap_ps: int | None = None) -> None:
        """The link is lost. `wrap_ps`: when the tagger's counter wraps, which a new link cannot know of."""
        if self.latest_ps < 0:
            return
        if self._held is None:
            self._train = find_train(list(self._pulses))
            self._cause, self._wrap_ps = cause, wrap_ps
        else:
            self._drop(self._held.tags, INTERRUPTED)
        self._held = _Held(self._new_ahead())

    def feed(self, block: PatternBlock, host_ps: int) -> list[PatternBlock]:
        """What can be given out now. `host_ps`: world time that passed by the host's clock, from anywhere.

        After an outage: first a block without events that reaches to the first one and names the cause.
        """
        if block.latest_ps < 0:
            return []
        if self._held is None:
            out = _shifted(block, self._shift_ps)
            self._ahead.feed(out.latest_ps, host_ps)
            self._fed_host_ps = host_ps
            self._pulses.extend(self._pulses_of(out))
            self.latest_ps = out.latest_ps
            return [out]
        self._hold(self._held, block, host_ps)
        return self._settle(self._held, host_ps)

    def _hold(self, held: _Held, block: PatternBlock, host_ps: int) -> None:
        held.ahead.feed(block.latest_ps, host_ps)
        held.pulses.extend(self._pulses_of(block))
        held.blocks.append(block)
        held.tags += block.time_ps.size
        while len(held.blocks) > 1 and (
            held.tags > _HELD_TAGS or block.latest_ps - held.blocks[0].latest_ps > _HELD_S * self._slack_ps
        ):
            self._forget(held, UNCONFIRMED if self._same_scale(held, host_ps) is not None else RESTARTED)

    def _forget(self, held: _Held, cause: str) -> None:
        dropped = held.blocks.popleft()
        held.tags -= dropped.time_ps.size
        self._drop(dropped.time_ps.size, cause)

    def _settle(self, held: _Held, host_ps: int) -> list[PatternBlock]:
        """Give out what is held if its time is known."""
        same_ps = self._same_scale(held, host_ps)
        if self._pps_pattern is None or self._train is None:
            if same_ps is not None:
                return self._release(held, same_ps, "its time went on, as far as the host's clock can tell")
            while held.blocks and host_ps - held.ahead.began_ps > _WATCHED_S * self._world_ps:
                self._forget(held, RESTARTED)
            return []
        if same_ps is not None and self._keeps_phase(held, self._train, same_ps):
            return self._release(held, same_ps, "its time went on, as the 1PPS confirms")
        found_ps = self._found_scale(held, self._train, host_ps)
        if found_ps is not None:
            return self._release(held, found_ps, "it was restarted, its time was found again by the 1PPS", anew=True)
        return []

    def _same_scale(self, held: _Held, host_ps: int) -> int | None:
        """The shift with which times go on where the host's clock expects them; None when they do not."""
        ahead_ps, now_ps = self._ahead_ps(host_ps), held.ahead.ps
        if ahead_ps is None or now_ps is None:
            return None
        wraps = round((ahead_ps - now_ps - self._shift_ps) / self._wrap_ps) if self._wrap_ps else 0
        shift_ps = self._shift_ps + wraps * (self._wrap_ps or 0)
        within_s = _SAME_TIME_S if self._train is None else _SAME_SECOND_S
        near = abs(now_ps + shift_ps - ahead_ps) <= within_s * self._slack_ps
        return shift_ps if near and held.blocks[-1].latest_ps + shift_ps >= self.latest_ps else None

    def _keeps_phase(self, held: _Held, train: PulseTrain, shift_ps: int) -> bool:
        """Whether any pulse comes when the old ones say: by chance, one in 50,000 would."""
        return any(
            abs(train.off_ps(pulse + shift_ps)) <= _PHASE_PS + _PHASE_DRIFT * (pulse + shift_ps - train.last_ps)
            for pulse in held.pulses
        )

    def _found_scale(self, held: _Held, train: PulseTrain, host_ps: int) -> int | None:
        """The shift that puts the pulses of a restarted tagger on the seconds at which the host's clock has them."""
        watched = host_ps - held.ahead.began_ps >= _WATCHED_S * self._world_ps
        if not watched or host_ps - held.ahead.settled_since_ps < _SETTLED_S * self._world_ps:
            return None
        ahead_ps, now_ps, new = self._ahead_ps(host_ps), held.ahead.ps, find_train(list(held.pulses))
        if ahead_ps is None or now_ps is None or new is None:
            return None
        expected_ps = new.last_ps - now_ps + ahead_ps
        if abs(train.off_ps(expected_ps)) > _CLEAR_OF_AMBIGUITY_S * PS_PER_S:
            return None
        return train.nearest_ps(expected_ps) - new.last_ps

    def _ahead_ps(self, host_ps: int) -> int | None:
        """How far the old scale is ahead of the host's time by now: the tagger's oscillator may be 50 ppm off."""
        known = self._ahead.ps
        if known is None or self._train is None:
            return known
        return known + round((host_ps - self._fed_host_ps) * (self._train.period_ps / PS_PER_S - 1.0))

    def _release(self, held: _Held, shift_ps: int, how: str, anew: bool = False) -> list[PatternBlock]:
        blocks = [self._not_older(_shifted(block, shift_ps)) for block in held.blocks]
        if anew:
            self._pulses.clear()
        self._pulses.extend(pulse + shift_ps for pulse in held.pulses)
        held.ahead.shift(shift_ps)
        self._ahead, self._shift_ps, self._held = held.ahead, shift_ps, None
        data = _joined(blocks)
        first_ps = int(data.time_ps[0]) if data.time_ps.size else data.latest_ps
        lead = PatternBlock(_NO_TIMES, _NO_PATTERNS, first_ps, None, (f"{self._cause}; the tagger is back: {how}",))
        self.latest_ps = data.latest_ps
        return [lead, data]

    def _not_older(self, block: PatternBlock) -> PatternBlock:
        first = int(np.searchsorted(block.time_ps, self.latest_ps))
        self._drop(first, OLDER)
        later_ps = max(block.latest_ps, self.latest_ps)
        return block._replace(time_ps=block.time_ps[first:], pattern=block.pattern[first:], latest_ps=later_ps)

    def _drop(self, count: int, cause: str) -> None:
        if count:
            self._dropped[cause] += count

    def _pulses_of(self, block: PatternBlock) -> list[int]:
        if self._pps_pattern is None:
            return []
        is_pulse = (block.pattern & self._pps_pattern) == self._pps_pattern
        found: list[int] = block.time_ps[np.flatnonzero(is_pulse)[-_PULSES_KEPT:]].tolist()
        return found

    def _new_ahead(self) -> _Ahead:
        return _Ahead(round(_WINDOW_S * self._world_ps), _SAME_DELAY_S * self._slack_ps)


def _shifted(block: PatternBlock, shift_ps: int) -> PatternBlock:
    if shift_ps == 0:
        return block
    return block._replace(time_ps=block.time_ps + shift_ps, latest_ps=block.latest_ps + shift_ps)


def _joined(blocks: list[PatternBlock]) -> PatternBlock:
    missed = [block.missed for block in blocks if block.missed is not None]
    times: list[NDArray[np.int64]] = [block.time_ps for block in blocks]
    return PatternBlock(
        np.concatenate(times),
        np.concatenate([block.pattern for block in blocks]),
        blocks[-1].latest_ps,
        sum(missed) if missed else None,
        tuple(dict.fromkeys(note for block in blocks for note in block.notes)),
    )
