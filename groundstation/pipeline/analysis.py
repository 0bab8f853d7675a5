"""The one analysis of a pass: live, replay and simulation differ only in what it is given to read.

It follows the recording, second by second of emission time: numbers the beacon and fits the transmitter's
clock, gates the clicks into slots, gets the slots answered, sifts, tallies. It cannot tell whether the
recording is still growing, and cutting the tags in other places changes nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundstation.core.gating import gate
from groundstation.core.sifting import one_click_per_slot, sift
from groundstation.core.synchronisation import BeaconClock, ClockFit
from groundstation.core.tags import CHANNEL_NUMBER, TagBlock
from groundstation.core.timebase import PS_PER_NS, PS_PER_S, EmissionTime
from groundstation.errors import BadInput
from groundstation.instruments import Transmitter, TransmitterTerms
from groundstation.pipeline.exchange import (
    MAX_INCREMENT,
    MAX_SLOTS_PER_ASK,
    Answered,
    Exchange,
    RecordedAnswers,
)
from groundstation.pipeline.intake import TagIntake
from groundstation.pipeline.link import Link
from groundstation.pipeline.result import PassResult
from groundstation.pipeline.settings import PassPlan
from groundstation.pipeline.summary import summarise
from groundstation.pipeline.tallies import SyncBook, Tallies
from groundstation.pipeline.telemetry import Telemetry
from groundstation.recording.reader import Recording
from groundstation.recording.writer import StreamWriter

#: Told of every gated click: tag times and slots, in order of time.
Observer = Callable[[NDArray[np.int64], NDArray[np.int64]], None]

_SYNC = CHANNEL_NUMBER["sync"]


@dataclass
class Progress:
    """Where the analysis is, for the live view."""

    analysed_utc_ns: int = 0
    tags_read: int = 0


@dataclass(frozen=True)
class _Asked:
    """What is kept of a batch until its answer comes."""

    bit: NDArray[np.uint8]
    basis: NDArray[np.uint8]
    second: NDArray[np.int64]


class Analysis:
    """Call `step` until `finished`, then `result`."""

    def __init__(
        self,
        plan: PassPlan,
        intake: TagIntake,
        telemetry: Telemetry,
        exchange: Exchange,
        observer: Observer | None = None,
    ) -> None:
        self._plan = plan
        self._intake = intake
        self._telemetry = telemetry
        self._exchange = exchange
        self._observer = observer
        self._link: Link | None = None
        self._second = 0
        self._last_second = 0
        #: Tag times of that second, kept since they are asked for many times until its tags are there.
        self._edges_ps: tuple[int, int] | None = None
        self._carry = _no_clicks()
        #: Slots this close to the newest one may still get a click: channel delays reach over a second's edge.
        self._carried_slots = 0
        self._too_coarse = ""
        self._asked: dict[int, _Asked] = {}
        window_ns = plan.window_stop_utc_ns - plan.window_start_utc_ns
        self.tallies = Tallies(-(-window_ns // 1_000_000_000))
        self.sync = SyncBook()
        self.progress = Progress()
        self.finished = False

    @property
    def zero_device_ps(self) -> int | None:
        """The tagger's own time at the recording's zero."""
        return self._intake.zero_device_ps

    def stop_following(self) -> None:
        """The recording will not grow any more: finish with what is there."""
        self._intake.stop_following()
        self._telemetry.stop_following()

    @property
    def unanswered_batches(self) -> int:
        """How many batches are still waiting for the transmitter's answer."""
        return self._exchange.unanswered_batches

    def step(self, wait_answers_s: float = 0.0) -> bool:
        """Do a bounded piece of work; True when anything was done."""
        busy = self._intake.poll()
        busy |= self._telemetry.poll()
        self.progress.tags_read = self._intake.tags_read
        if self._link is None:
            self._link = self._connect()
        if self._link is not None:
            busy |= self._process(self._link)
        answered = self._exchange.poll(wait_answers_s)
        for item in answered:
            self._sift(item)
        if self._intake.ended and self._telemetry.ended and not busy and not self.finished:
            self._finish()
            busy = True
        return busy or bool(answered)

    def result(self) -> PassResult:
        """The pass as analysed so far; final once `finished` and nothing is awaited."""
        return summarise(
            self._plan,
            self.tallies,
            self.sync,
            self._intake,
            self._telemetry,
            self._link,
            self._refusal(),
            self._exchange.damages,
        )

    def close(self) -> None:
        """End the `answers` stream and the connection."""
        self._exchange.close()

    def _refusal(self) -> str:
        """Why nothing could be synchronised; empty when something was."""
        if self._link is None:
            return self._missing()
        return "" if self.sync.used else self._link.clock.refusal

    def _missing(self) -> str:
        if self._intake.label is None:
            return "the recording has no 1PPS tag with a UTC label"
        return self._too_coarse or "the transmitter's terms are not in the recording"

    def _connect(self) -> Link | None:
        label, path = self._intake.label, self._telemetry.path
        if label is None or not path:
            return None
        terms = self._exchange.terms()
        if terms is None:
            return None
        settings = self._plan.analysis
        _check_whole_periods(terms, settings.beacon_pulses_per_fit)
        slot_period_ps = PS_PER_S // terms.slot_rate_hz
        tick_ps = self._intake.resolution_ps
        if tick_ps > slot_period_ps:
            self._too_coarse = f"the tagger's tick of {tick_ps:g} ps is longer than a slot of {slot_period_ps} ps"
            return None
        emission = EmissionTime(
            label,
            terms.epoch_utc_ns,
            path["utc_ns"].astype(np.int64),
            path["time_of_flight_s"].astype(np.float64),
        )
        uncertainty_s = (
            label.uncertainty_s + settings.time_of_flight_uncertainty_s + settings.transmitter_clock_uncertainty_s
        )
        clock = BeaconClock(PS_PER_S // terms.beacon_rate_hz, settings.beacon_pulses_per_fit, uncertainty_s * PS_PER_S)
        self._second, self._last_second = emission.predicted_s
        self._carried_slots = 2 * max(abs(delay) for delay in self._plan.delays_ps) // slot_period_ps + 1
        # A gate narrower than a tick would keep or lose whole runs of clicks, as the beat of tick and slot has it.
        gate_half_width_ps = max(settings.gate_half_width_ps, math.ceil(tick_ps / 2))
        return Link(terms, emission, clock, slot_period_ps, gate_half_width_ps)

    def _process(self, link: Link) -> bool:
        """Analyse the next whole second of emission time, if all its tags are there."""
        if self._second >= self._last_second or self._intake.first_ps is None:
            return False
        if self._edges_ps is None:
            self._edges_ps = self._second_edges_ps(link)
        start_ps, stop_ps = self._edges_ps
        if self._intake.last_ps < stop_ps and not (self._intake.ended and self._intake.last_ps >= start_ps):
            return False
        self._analyse(link, self._second, self._intake.take_until(stop_ps))
        self._second += 1
        self._edges_ps = None
        self.progress.analysed_utc_ns = link.terms.epoch_utc_ns + self._second * 1_000_000_000
        return True

    def _second_edges_ps(self, link: Link) -> tuple[int, int]:
        """Tag times between which the next second of emission lies."""
        start_ps, stop_ps = (link.emission.tag_time_of_emission(s * PS_PER_S) for s in (self._second, self._second + 1))
        return start_ps, stop_ps

    def _analyse(self, link: Link, second: int, block: TagBlock) -> None:
        """One second of emission time: count, synchronise, gate, ask."""
        window_start_ps = (self._plan.window_start_utc_ns - link.terms.epoch_utc_ns) * PS_PER_NS
        window_stop_ps = (self._plan.window_stop_utc_ns - link.terms.epoch_utc_ns) * PS_PER_NS
        received = link.emission.received_ps(block.time_ps)
        counted = (received >= window_start_ps) & (received < window_stop_ps)
        bins = (received - window_start_ps) // PS_PER_S
        self.tallies.add_tags(bins[counted], block.channel[counted])

        emitted = link.emission.emitted_ps(block.time_ps)
        delays = np.array(self._plan.delays_ps, np.int64)
        emitted_of_light = emitted - delays[block.channel]
        edges_ps = np.arange(second * PS_PER_S, (second + 1) * PS_PER_S + 1, link.clock.window_ps)
        cuts = np.searchsorted(emitted, edges_ps)
        cuts[0], cuts[-1] = 0, block.time_ps.size
        slots, kept = [], []
        for number, (start, stop) in enumerate(pairwise(cuts)):
            window = int(edges_ps[number]) // link.clock.window_ps
            part = slice(int(start), int(stop))
            channel, light = block.channel[part], emitted_of_light[part]
            fit = link.clock.fit(window, light[channel == _SYNC])
            inside_window = self._overlaps_window(link, int(edges_ps[number]), window_start_ps, window_stop_ps)
            if not self._usable(link, fit, int(edges_ps[number]), inside_window):
                continue
            assert fit is not None
            clicks = np.flatnonzero((channel < 4) & counted[part])
            gated = gate(
                light[clicks],
                fit,
                link.clock.centre_ps(window),
                link.clock.window_ps / 2,
                link.slot_period_ps,
                link.gate_half_width_ps,
            )
            self.tallies.add_phases(gated.phase_ps, channel[clicks], link.slot_period_ps)
            inside = np.flatnonzero(gated.inside)
            slots.append(gated.slot[inside])
            kept.append(clicks[inside] + int(start))
        if not kept:
            return
        where = np.concatenate(kept)
        slot = np.concatenate(slots)
        self.tallies.add_gated(bins[where])
        if self._observer is not None:
            self._observer(block.time_ps[where], slot)
        self._ask(second, np.stack((slot, block.channel[where].astype(np.int64), bins[where])))

    def _overlaps_window(self, link: Link, edge_ps: int, start_ps: int, stop_ps: int) -> bool:
        time_of_flight_ps = 10**10  # at most: light comes from less than 3,000 km
        return edge_ps + link.clock.window_ps + time_of_flight_ps > start_ps and edge_ps < stop_ps

    def _usable(self, link: Link, fit: ClockFit | None, edge_ps: int, inside_window: bool) -> bool:
        """Whether clicks of this synchronisation window may count, and the books about it."""
        if not inside_window:
            return fit is not None
        if fit is not None:
            self.sync.used += fit.pulses_used
            self.sync.rejected += fit.pulses_rejected
            self.sync.square_sum_ps2 += fit.residual_square_sum_ps2
            if not self._intake.gaps:
                return True
        start = link.emission.tag_time_of_emission(edge_ps)
        stop = link.emission.tag_time_of_emission(edge_ps + link.clock.window_ps)
        lossy = any(gap.start_ps < stop and gap.stop_ps > start for gap in self._intake.gaps)
        recorded = self._intake.first_ps is not None and self._intake.first_ps < stop and start <= self._intake.last_ps
        zero_utc_ns = self._plan.window_start_utc_ns
        interval_ps = (link.since_ps(start, zero_utc_ns), link.since_ps(stop, zero_utc_ns))
        if lossy:
            self.sync.excluded_ps.append(interval_ps)
        elif fit is None and recorded:
            self.sync.without_clock_ps.append(interval_ps)
        return fit is not None and not lossy

    def _ask(self, second: int, clicks: NDArray[np.int64], last: bool = False) -> None:
        """Merge clicks of one slot and ask for them; the last slots wait, the next second may add to them."""
        clicks = np.concatenate((self._carry, clicks), axis=1)
        if clicks.shape[1] == 0:
            return
        held = np.zeros(clicks.shape[1], bool) if last else clicks[0] > clicks[0].max() - self._carried_slots
        self._carry, clicks = clicks[:, held], clicks[:, ~held]
        merged = one_click_per_slot(clicks[0], clicks[1].astype(np.uint8), self._plan.analysis.double_click_seed)
        self.tallies.double_clicks += merged.double_clicks
        self.tallies.asked += merged.slot.size
        for piece, part in enumerate(_pieces(merged.slot)):
            batch = 1000 * second + piece
            self._asked[batch] = _Asked(merged.bit[part], merged.basis[part], clicks[2][merged.first[part]])
            self._exchange.request(batch, merged.slot[part], merged.basis[part])

    def _sift(self, answered: Answered) -> None:
        asked = self._asked.pop(answered.batch)
        at = answered.position
        self.tallies.add_sifted(sift(asked.bit[at], answered.answer), asked.basis[at], asked.second[at])

    def _finish(self) -> None:
        self._ask(self._last_second, _no_clicks(), last=True)
        self.finished = True


def _check_whole_periods(terms: TransmitterTerms, pulses_per_fit: int) -> None:
    """Seconds, fits, beacon periods and slots nest without a rest, or nothing could be numbered. BadInput."""
    if PS_PER_S % terms.slot_rate_hz or PS_PER_S % terms.beacon_rate_hz:
        raise BadInput(
            f"the transmitter sends {terms.slot_rate_hz} slots and {terms.beacon_rate_hz} beacon pulses a second; "
            "only rates whose periods are whole picoseconds can be analysed"
        )
    if terms.beacon_rate_hz % pulses_per_fit:
        raise BadInput(
            f"[analysis] beacon_pulses_per_fit is {pulses_per_fit}, which does not divide the {terms.beacon_rate_hz} "
            "pulses of a second; choose a number that does"
        )


def _pieces(slots: NDArray[np.int64]) -> list[slice]:
    """Where to cut ascending slots (n,) so that each piece is a batch that can be asked for."""
    jumps = np.flatnonzero(np.diff(slots) > MAX_INCREMENT) + 1
    edges = np.union1d(np.arange(0, slots.size, MAX_SLOTS_PER_ASK), jumps).tolist()
    return [slice(start, stop) for start, stop in pairwise([*edges, slots.size])]


def _no_clicks() -> NDArray[np.int64]:
    """Rows: slot, detector, second of the window."""
    return np.empty((3, 0), np.int64)


def build(
    recording: Recording,
    transmitter: Transmitter | None = None,
    answers_writer: StreamWriter | None = None,
    observer: Observer | None = None,
    earlier_answers: Recording | None = None,
) -> Analysis:
    """The analysis of a recording. Live, `transmitter` and `answers_writer` are given, and `earlier_answers`
    is the same recording opened without following, for what a predecessor had been answered."""
    answers = (earlier_answers or recording).stream("answers")
    return Analysis(
        PassPlan.from_manifest(recording.manifest),
        TagIntake(recording.stream("tags")),
        Telemetry(recording.stream("telemetry")),
        Exchange(RecordedAnswers(answers), transmitter, answers_writer),
        observer,
    )
