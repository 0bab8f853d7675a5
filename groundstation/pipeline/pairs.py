"""The one analysis of two recordings that share entangled pairs: live and on archives it is the same.

It waits until the first seconds of both are there, finds the clock of B against A in them (narrowly around the
prediction where there is one, blindly otherwise, in twice as many seconds each time it is refused), follows it window
by window, and counts coincidences. Every decision is anchored on the common time and on how much of both recordings
is known, never on when or in what pieces they were read.
"""

import hashlib
import math
from dataclasses import replace

import numpy as np

from groundstation.core.entanglement import BELL_STATES, expected_correlations
from groundstation.core.pair_clock import PairClock
from groundstation.core.pair_tracking import PairClockTracker, TrackedWindow
from groundstation.core.timebase import PS_PER_S
from groundstation.errors import BadInput, SynchronisationRefused
from groundstation.pipeline.pair_acquisition import Acquired, PairAcquisition, on_common_time
from groundstation.pipeline.pair_books import NO_CLICKS, CommonClicks, PairBooks, Window, excluded_time_ps
from groundstation.pipeline.pair_result import FollowedClock, PairResult, PairSettings
from groundstation.pipeline.pair_station import CommonTime, PairStation
from groundstation.recording.reader import Recording

#: The tracker's window holds about so many pairs, within limits.
_PAIRS_PER_WINDOW = 16
_LONGEST_WINDOW_S = 32
_FORGET_AFTER_S = 120.0
#: How much the drift of the clock may change per second in one second: with prediction, and without (a bare orbit).
_DRIFT_CHANGE = {True: 1e-11, False: 1e-8}
#: A tracked window is complete only when B is known at least this far beyond its end (see `PairClockTracker`).
_KNOWN_BEYOND_PS = 40_000_000
_ASSUMED_STATE = "psi+"
_FOREVER_PS = 1 << 62


class PairAnalysis:
    """Call `step` until `finished`, then `result`."""

    def __init__(
        self,
        a: Recording,
        b: Recording,
        settings: PairSettings,
        state: str | None = None,
        analyser_deg: tuple[float, float] | None = None,
    ) -> None:
        """`state` and `analyser_deg` override what the recordings say. Raises BadInput when these do not belong
        together."""
        if a.run_id == b.run_id:
            raise BadInput("both recordings are of the same run; coincidences need two stations")
        _check(settings)
        self._stations = (PairStation(a), PairStation(b))
        self._settings = settings
        self._remarks: list[str] = []
        self.state = self._state(state)
        self.analyser_deg = self._analysers(analyser_deg)
        self.books = PairBooks(
            settings, expected_correlations(self.state, *self.analyser_deg), (_key_of(a.run_id), _key_of(b.run_id))
        )
        self._times: tuple[CommonTime, CommonTime] | None = None
        self._held: list[CommonClicks] = [NO_CLICKS, NO_CLICKS]
        self._acquisition = PairAcquisition(self._stations, settings, self.predicted)
        self._tracker: PairClockTracker | None = None
        self._followed: FollowedClock | None = None
        self._clock: PairClock
        self._first_ps: list[int] = []
        self.unsynchronised_ps = self.excluded_ps = 0
        self.finished = False

    @property
    def predicted(self) -> bool:
        """Whether both recordings have GPS time and a predicted path."""
        return all(station.about.has_prediction for station in self._stations)

    @property
    def clock_found(self) -> bool:
        """Whether the clock has been found and is followed."""
        return self._tracker is not None

    @property
    def names(self) -> tuple[str, str]:
        """Of the two stations."""
        return self._stations[0].about.name, self._stations[1].about.name

    def stop_following(self) -> None:
        """The recordings will not grow any more: finish with what is there."""
        for station in self._stations:
            station.stop_following()

    def step(self) -> bool:
        """Do a bounded piece of work; True when anything was done. Raises SynchronisationRefused without a clock."""
        if self.finished:
            return False
        # Not further in one recording than in the other: what is read ahead has to be held.
        first, second = sorted(self._stations, key=lambda station: (station.ended, station.read_ps))
        busy = first.poll() or second.poll()
        if self._tracker is None:
            acquired = self._acquisition.attempt()
            if acquired is None:
                return busy
            self._begin(acquired)
        return self._follow() or busy

    def _state(self, given: str | None) -> str:
        said = {station.about.state for station in self._stations if station.about.state is not None}
        if given is None and len(said) > 1:
            raise BadInput(f"the recordings name different states ({', '.join(sorted(said))}); say which with --state")
        state = given or next(iter(said), None)
        if state is None:
            state = _ASSUMED_STATE
            self._remarks.append(f"No recording names the state of the pairs; {state} is assumed.")
        if state not in BELL_STATES:
            raise BadInput(f'the state "{state}" is none of {", ".join(BELL_STATES)}; give one with --state')
        return state

    def _analysers(self, given: tuple[float, float] | None) -> tuple[float, float]:
        if given is not None:
            return given
        said = [station.about.analyser_deg for station in self._stations]
        if None in said:
            self._remarks.append("A recording does not say how its analyser is turned; 0 deg is assumed.")
        return said[0] or 0.0, said[1] or 0.0

    def _begin(self, acquired: Acquired) -> None:
        clock = acquired.clock
        window_s = min(max(math.ceil(_PAIRS_PER_WINDOW / acquired.pair_rate_hz), 1), _LONGEST_WINDOW_S)
        self._tracker = PairClockTracker(
            clock,
            window_ps=window_s * PS_PER_S,
            drift_change=_DRIFT_CHANGE[self.predicted],
            forget_after_s=_FORGET_AFTER_S,
        )
        self._followed = FollowedClock(
            predicted=self.predicted,
            searched_s=acquired.searched_s,
            offset_ps=clock.offset_ps,
            frequency_offset=clock.frequency_offset,
            drift_per_s=clock.drift_per_s,
            reference_ps=clock.reference_ps,
            significance=clock.significance,
            jitter_ps=clock.jitter_ps,
            window_s=window_s,
        )
        self._times = acquired.times
        self._clock = clock

    def _follow(self) -> bool:
        """Take what is new, and count the windows that it completes."""
        assert self._tracker is not None
        assert self._times is not None
        fresh = []
        for station, time in zip(self._stations, self._times, strict=True):
            clicks = on_common_time(time, station)
            station.clicks.clear()
            fresh.append(clicks)
        self._held = [held.joined(clicks) for held, clicks in zip(self._held, fresh, strict=True)]
        if not self._first_ps:
            first_b = self._clock.to_a(self._held[1].common_ps[:1])
            self._first_ps = [int(self._held[0].common_ps[0]), int(first_b[0])]
        done = self._tracker.feed(fresh[0].common_ps, fresh[1].common_ps)
        over = all(station.ended for station in self._stations) and not any(s.clicks for s in self._stations)
        if over:
            done += self._tracker.finish()
        for window in done:
            self._count(window)
        self.finished = over
        return bool(done) or any(clicks.common_ps.size for clicks in fresh) or over

    def _count(self, window: TrackedWindow) -> None:
        assert self._followed is not None
        (a, b), followed, clock = self._held, self._followed, window.clock
        if clock is None:
            self._followed = replace(followed, windows_without_clock=followed.windows_without_clock + 1)
            first, last = self._recorded_within(window, self._clock)
            self.unsynchronised_ps += max(last - first, 0)
        else:
            self._followed = replace(followed, windows_followed=followed.windows_followed + 1)
            self._clock = clock
            first, last = self._recorded_within(window, clock)
            counted = Window(first, max(first, last), clock, self._excluded(clock))
            reach = self.books.reach_ps
            edges = clock.to_b(np.array([window.start_ps - reach, window.stop_ps + reach]))
            self.books.add(counted, a.between(window.start_ps, window.stop_ps), b.between(int(edges[0]), int(edges[1])))
            self.excluded_ps += excluded_time_ps(counted)
        left = int(self._clock.to_b(np.array([window.stop_ps]))[0]) - _KNOWN_BEYOND_PS
        self._held = [a.between(window.stop_ps, _FOREVER_PS), b.between(left, _FOREVER_PS)]

    def _recorded_within(self, window: TrackedWindow, clock: PairClock) -> tuple[int, int]:
        """The part of a window in which both stations recorded: from their first click to their last."""
        last = [window.stop_ps]
        for number, held in enumerate(self._held):
            if held.common_ps.size and self._stations[number].ended:
                end = held.common_ps[-1:]
                last.append(int((clock.to_a(end) if number else end)[0]) + 1)
        return max(window.start_ps, *self._first_ps), min(last)

    def _excluded(self, clock: PairClock) -> tuple[tuple[int, int], ...]:
        """Where tags of either recording are missing, on A's common time."""
        assert self._times is not None
        found = []
        for number, (station, time) in enumerate(zip(self._stations, self._times, strict=True)):
            for gap in station.intake.gaps:
                edges = time.of(np.array([gap.start_ps, gap.stop_ps]))
                edges = clock.to_a(edges) if number else edges
                found.append((int(edges[0]), int(edges[1]) + 1))
        return tuple(found)

    def result(self) -> PairResult:
        """What was found so far; final once `finished`. Raises SynchronisationRefused before there is a clock."""
        if self._followed is None:
            raise SynchronisationRefused("the clock of the two stations has not been found yet")
        books, (a, b) = self.books, self._stations
        found = sorted(books.per_second)
        first = found[0] if found else 0
        per_second = np.zeros(found[-1] - first + 1 if found else 0, np.int64)
        per_second[[second - first for second in found]] = [books.per_second[second] for second in found]
        remarks = list(self._remarks)
        for station in self._stations:
            remarks += [f"{station.about.name}: {gap.cause}" for gap in station.intake.gaps]
            remarks += station.telemetry.damages
        return PairResult(
            stations=self.names,
            modes=(a.about.mode, b.about.mode),
            complete=all(s.intake.complete and not s.intake.gaps for s in self._stations),
            remarks=tuple(remarks),
            state=self.state,
            analyser_deg=self.analyser_deg,
            settings=self._settings,
            clock=self._followed,
            counts=books.counts.copy(),
            accidental_counts=books.accidental_counts.copy(),
            shifts=books.shifts,
            singles=books.singles.copy(),
            double_clicks=(int(books.double_clicks[0]), int(books.double_clicks[1])),
            dark_hz=(a.about.dark_hz, b.about.dark_hz),
            analysed_ps=books.analysed_ps,
            unsynchronised_ps=self.unsynchronised_ps,
            excluded_ps=self.excluded_ps,
            histogram=books.histogram.copy(),
            histogram_bin_ps=books.bin_ps,
            first_second=first,
            per_second=per_second,
            sifted=books.sifted(),
        )


def _key_of(run_id: str) -> int:
    """The key of a recording's random choices: the same whenever and however it is analysed."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big")


def _check(settings: PairSettings) -> None:
    """Raise BadInput unless the shifted windows lie clear of the true one and within what is known of B."""
    widest = settings.shift_ps // 5
    if not 1 <= settings.half_window_ps <= widest:
        raise BadInput(f"the half window is {settings.half_window_ps} ps; give a whole number from 1 to {widest}")
    farthest = settings.shift_ps * (settings.shifts_each_way + 2) + settings.histogram_half_windows * widest
    if farthest >= _KNOWN_BEYOND_PS:
        raise BadInput(f"the windows reach {farthest:,} ps, but at most {_KNOWN_BEYOND_PS:,} ps are at hand")
