"""The first clock of station B against A: from the first seconds of both recordings, more of them if need be.

Around the prediction the search is narrow, without one it is blind. What it looks at is fixed by the common time of
the first clicks alone, so it finds the same however the recordings grow and are cut.
"""

from typing import NamedTuple

import numpy as np

from groundstation.core.coincidence import pairs
from groundstation.core.pair_clock import PairClock, find_pair_clock
from groundstation.core.refusal import ClockRefused
from groundstation.core.timebase import PS_PER_NS, PS_PER_S
from groundstation.errors import SynchronisationRefused
from groundstation.pipeline.pair_books import NO_CLICKS, CommonClicks
from groundstation.pipeline.pair_result import PairSettings
from groundstation.pipeline.pair_station import CommonTime, PairStation

#: The clock is searched in the first so many seconds, then in more, as long as it is refused: blindly, and around a
#: prediction, where so few pairs may come that less is not worth a try.
_BLIND_S = (4, 8, 16, 32, 64, 128)
_PREDICTED_S = (16, 32, 64, 128)
#: No longer search is begun with more clicks of one station than this.
_MOST_CLICKS = 10_000_000
#: The rough common time differs from the one that the 1PPS pulses give by less than this.
_ROUGH_PS = PS_PER_S // 10


class Acquired(NamedTuple):
    """The clock, on what times it holds, how long a search it took, and how many pairs come in a second."""

    clock: PairClock
    times: tuple[CommonTime, CommonTime]
    searched_s: int
    pair_rate_hz: float


class PairAcquisition:
    """Call `attempt` whenever something was read, until it gives the clock."""

    def __init__(self, stations: tuple[PairStation, PairStation], settings: PairSettings, predicted: bool) -> None:
        self._stations = stations
        self._settings = settings
        self._predicted = predicted
        self._max_offset_s = settings.predicted_offset_s if predicted else settings.blind_offset_s
        self._search_s = _PREDICTED_S if predicted else _BLIND_S
        self._rung = 0

    def attempt(self) -> Acquired | None:
        """The clock, once enough is known and it stands out. Raises SynchronisationRefused when it never will."""
        if not all(station.ready and (station.clicks or station.ended) for station in self._stations):
            return None
        for station in self._stations:
            if not station.clicks:
                raise SynchronisationRefused(f"{station.about.name} has no click in H, V, D or A, so there is no clock")
        epoch = self._epoch_utc_ns()
        rough = [station.common_time(epoch, 0) for station in self._stations]
        both = list(zip(self._stations, rough, strict=True))
        begin = max(int(time.of(station.clicks[0].time_ps[:1])[0]) for station, time in both)
        while self._rung < len(self._search_s):
            stop = begin + self._search_s[self._rung] * PS_PER_S
            if any(known_until_ps(station, time) < stop + self._margin_ps + _ROUGH_PS for station, time in both):
                return None
            acquired = self._search(begin, stop, epoch)
            if acquired is not None:
                return acquired
            self._rung += 1
        raise AssertionError("the last search gives a clock or refuses")

    @property
    def _margin_ps(self) -> int:
        return round(self._max_offset_s * PS_PER_S)

    def _search(self, begin_ps: int, stop_ps: int, epoch_utc_ns: int | None) -> Acquired | None:
        """Search one stretch of common time; None when a longer one may do better."""
        pulses_until = 0 if epoch_utc_ns is None else epoch_utc_ns + stop_ps // PS_PER_NS
        a_time, b_time = (station.common_time(epoch_utc_ns, pulses_until) for station in self._stations)
        margin = self._margin_ps
        a = on_common_time(a_time, self._stations[0]).between(begin_ps, stop_ps)
        b = on_common_time(b_time, self._stations[1]).between(begin_ps - margin, stop_ps + margin)
        settings = self._settings
        slope = settings.predicted_frequency_offset if self._predicted else settings.blind_frequency_offset
        try:
            clock = find_pair_clock(
                a.common_ps, b.common_ps, max_offset_s=self._max_offset_s, max_frequency_offset=slope
            )
        except ClockRefused as refusal:
            there_is_more = all(
                _last_ps(station, time) >= stop_ps
                for station, time in zip(self._stations, (a_time, b_time), strict=True)
            )
            longest = self._rung + 1 == len(self._search_s) or max(a.common_ps.size, b.common_ps.size) > _MOST_CLICKS
            if there_is_more and not longest:
                return None
            names = " and ".join(station.about.name for station in self._stations)
            raise SynchronisationRefused(f"{names} get no common clock: {refusal}") from None
        return Acquired(clock, (a_time, b_time), self._search_s[self._rung], self._pair_rate_hz(clock, a, b))

    def _epoch_utc_ns(self) -> int | None:
        """The zero of the common time, if both can be put on UTC; None for a blind search."""
        if not self._predicted:
            return None
        for station in self._stations:
            if station.first_predicted_utc_ns() is None:
                raise SynchronisationRefused(
                    f"the recording of {station.about.name} has no 1PPS tag with a UTC label or no predicted path"
                )
        return self._stations[0].first_predicted_utc_ns()

    def _pair_rate_hz(self, clock: PairClock, a: CommonClicks, b: CommonClicks) -> float:
        b_ps = clock.to_a(b.common_ps)
        near, far = (
            pairs(a.common_ps, b_ps + shift, self._settings.half_window_ps)[0].size
            for shift in (0, self._settings.shift_ps)
        )
        return max(near - far, 1) / (max(int(a.common_ps[-1] - a.common_ps[0]), 1) * 1e-12)


def known_until_ps(station: PairStation, time: CommonTime) -> int:
    """No click of the station before this common time is still to come."""
    known = station.known_until_ps
    return known if abs(known) >= 1 << 62 else int(time.of(np.array([known]))[0])


def on_common_time(time: CommonTime, station: PairStation) -> CommonClicks:
    """All clicks that a station holds, on the common time, as far as that is defined: block by block, since a minute
    of clicks at once would take ten times their own memory."""
    parts = [NO_CLICKS]
    for clicks in station.clicks:
        covered = time.covered(clicks.time_ps)
        time_ps = clicks.time_ps[covered]
        parts.append(CommonClicks(time.of(time_ps), clicks.detector[covered], time_ps))
    return CommonClicks(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _last_ps(station: PairStation, time: CommonTime) -> int:
    return int(time.of(np.array([station.intake.last_ps]))[0])
