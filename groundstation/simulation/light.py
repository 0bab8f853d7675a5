"""The light of one pass as the time tagger sees it: photons, noise, beacon and 1PPS, block by block.

The world is cut into blocks of a fixed length of arrival time, each with a random generator of its own
(seed, block number), so the same seed gives the same photons however fast the world runs; only the telescope's
pointing, which depends on how the station steered, enters from outside.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.keyed_random import philox4x32
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.link import channel_transmittance, coupling
from groundstation.simulation.parameters import WorldParameters
from groundstation.simulation.sky import PS_PER_S, SatelliteClock, Sky, SteadySky
from groundstation.simulation.states import TransmitterStates

BLOCK_NS = 50_000_000
#: The tick of an S-Fifteen TDC2, 1/256 ns.
TDC2_TICK_PS = Fraction(125, 32)
_BLOCK_PS = BLOCK_NS * 1000
#: Jitter moves events across a block's edge by less than this; they are held until the next block.
_HOLD_PS = 1_000_000
_FWHM_PER_SIGMA = 2.354_820_045
_NODES = 6
_STREAM_FADE = 4
#: Below this share of the light even the bright beacon is lost.
_BEACON_NEEDS_COUPLING = 0.01
#: The gate in which the world counts what a perfect clock would have sifted (Liao 2017: 2 ns).
_TRUE_GATE_HALF_PS = 1_000.0

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


class Truth(NamedTuple):
    """What only the world knows of a block. `click_device_ps` is the tagger's reading, rounded down; `click_slot`
    is -1 for noise; no bit of any slot is in here."""

    click_device_ps: Ints
    click_slot: Ints
    utc_ns: int
    detections: int
    signal_sifted: int
    signal_errors: int
    pointing_error_arcsec: float


class LightBlock(NamedTuple):
    """Events in time order: `ticks` (n,) of the tagger's clock, `pattern` (n,) uint8 of inputs.
    No later event is older than `complete_ticks`."""

    ticks: Ints
    pattern: NDArray[np.uint8]
    complete_ticks: int
    truth: Truth


class _Events(NamedTuple):
    """Events of one kind before they are merged: arrival (ps since the world's zero), input, true slot."""

    arrival_ps: Ints
    source: NDArray[np.int8]
    slot: Ints

    def at(self, rows: Ints | slice) -> "_Events":
        """Some of the events, or all in another order."""
        return _Events(self.arrival_ps[rows], self.source[rows], self.slot[rows])


class Light:
    """Generates the world's blocks in order."""

    def __init__(
        self,
        parameters: WorldParameters,
        sky: Sky | SteadySky,
        board: Blackboard,
        patterns: Mapping[str, int],
        zero_utc_ns: int,
        epoch_utc_ns: int,
        tick_ps: Fraction = TDC2_TICK_PS,
        tells_counts: bool = True,
    ) -> None:
        """`sky` counts from the whole second `zero_utc_ns`; slots count from `epoch_utc_ns`; `patterns`: the
        inputs to which H V D A sync pps are wired (0: none); `tick_ps`: the tagger's resolution; `tells_counts`:
        whether the board hears of the clicks, of which two taggers that look at the same light would tell twice."""
        self._p = parameters
        self._tick_ps = tick_ps
        self._tells_counts = tells_counts
        self._sky = sky
        self._board = board
        self._zero_utc_ns = zero_utc_ns
        self._epoch_ps = (epoch_utc_ns - zero_utc_ns) * 1000
        self._clock = SatelliteClock(parameters.clocks)
        self._states = TransmitterStates(parameters.seed, parameters.source)
        self._slot_ps = PS_PER_S // parameters.source.slot_rate_hz
        self._beacon_ps = PS_PER_S // parameters.source.beacon_rate_hz
        self._patterns = np.array([patterns[n] for n in ("H", "V", "D", "A", "sync", "pps")], np.uint8)
        self._held = _Events(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.int64))
        self._last_click_ps = np.full(4, -PS_PER_S)
        self._counts = np.zeros(4, np.int64)
        self._block = -1

    def block(self, number: int) -> LightBlock:
        """Block `number`: arrival from number x BLOCK_NS to (number + 1) x BLOCK_NS after the zero. Blocks
        that are left out were dark: nobody looked."""
        if number != self._block + 1:
            self._held = self._held.at(slice(0))
            self._last_click_ps[:] = number * _BLOCK_PS - PS_PER_S
        self._block = number
        rng = np.random.Generator(np.random.Philox(key=[self._p.seed, number]))
        start_ps, stop_ps = number * _BLOCK_PS, (number + 1) * _BLOCK_PS
        received_s = np.linspace(start_ps * 1e-12, stop_ps * 1e-12, _NODES)
        error_arcsec = self._pointing_error(received_s)
        coupled = coupling(error_arcsec, self._p.link)
        photons = self._photons(rng, start_ps, stop_ps, received_s, coupled)
        noise = self._noise(rng, start_ps, stop_ps)
        clicks = self._detect(rng, _joined(photons, noise))
        beacon = self._beacon(rng, start_ps, stop_ps, float(coupled.min()) >= _BEACON_NEEDS_COUPLING)
        events = _joined(self._held, clicks, beacon, self._pps(rng, start_ps, stop_ps))
        events = events.at(np.argsort(events.arrival_ps, kind="stable"))
        cut = int(np.searchsorted(events.arrival_ps, stop_ps - _HOLD_PS))
        self._held = events.at(slice(cut, None))
        ready = events.at(slice(cut))
        return self._deliver(ready, start_ps, stop_ps, float(error_arcsec[0]))

    def _pointing_error(self, received_s: Floats) -> Floats:
        """Angle between the telescope and the light's direction (n,) in arcsec; zero without a mount."""
        utc_ns = self._zero_utc_ns + np.rint(received_s * 1e9).astype(np.int64)
        pointing = self._board.pointing_deg(utc_ns)
        if pointing is None:
            return np.zeros(received_s.size)
        azimuth, elevation = self._sky.direction_deg(received_s)
        difference = np.mod(pointing[0] - azimuth + 180.0, 360.0) - 180.0
        across = difference * np.cos(np.radians(elevation))
        near = np.hypot(across, pointing[1] - elevation)
        return np.asarray(near * 3600.0)

    def _photons(
        self, rng: np.random.Generator, start_ps: int, stop_ps: int, received_s: Floats, coupled: Floats
    ) -> _Events:
        """Detected photons. Weak coherent pulses split into independent Poisson numbers at every loss, so
        the clicks are a Poisson process thinned by the intensity of each slot."""
        source, detectors = self._p.source, self._p.detectors
        relative, _ = self._board.detectors(self._zero_utc_ns + start_ps // 1000)
        share = channel_transmittance(self._sky.range_km(received_s), self._p.link) * coupled
        most = float(share.max()) * detectors.efficiency * float(relative.max())
        edges = self._sky.emitted_ps(np.array([start_ps, stop_ps])) - self._epoch_ps
        slots = np.floor_divide(edges + self._clock.error_ps(edges * 1e-12).astype(np.int64), self._slot_ps)
        first, last = int(max(slots[0], 0)), int(max(slots[1], 0))
        brightest = max(source.intensity_signal, source.intensity_decoy)
        count = rng.poisson(most * brightest * (last - first))
        slot = rng.integers(first, max(last, first + 1), count)
        state = self._states.of(slot)
        intensity = np.array([source.intensity_signal, source.intensity_decoy, source.intensity_vacuum])
        emitted_ps = slot * self._slot_ps
        emitted_ps = emitted_ps - np.rint(self._clock.error_ps(emitted_ps * 1e-12)).astype(np.int64)
        emitted_ps = emitted_ps + self._epoch_ps
        flight = self._sky.flight_ps(emitted_ps * 1e-12)
        now = np.interp((emitted_ps + flight) * 1e-12, received_s, share) / max(float(share.max()), 1e-300)
        detector = self._analyse(rng, state.basis, state.bit)
        chance = intensity[state.intensity] / brightest * now * relative[detector] / max(relative.max(), 1e-300)
        kept = np.flatnonzero(rng.random(count) < chance)
        laser = np.array(source.laser_delay_ps)
        which = np.minimum(state.intensity[kept], 1) * 4 + state.basis[kept] * 2 + state.bit[kept]
        sigma = np.hypot(source.pulse_fwhm_ps, detectors.jitter_fwhm_ps) / _FWHM_PER_SIGMA
        late = flight[kept] + laser[which] + rng.normal(0.0, sigma, kept.size)
        arrival = emitted_ps[kept] + np.rint(late).astype(np.int64)
        return _Events(arrival, detector[kept], slot[kept])

    def _analyse(self, rng: np.random.Generator, basis: NDArray[np.uint8], bit: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The detector that each photon reaches: passive basis choice, then Malus's law with the frame's
        misalignment and the finite contrast of the optics."""
        choice = rng.random(basis.size) < 0.5
        sent_deg = 45.0 * basis + 90.0 * bit
        analyser_deg = 45.0 * choice + self._p.link.misalignment_deg
        leak = 1.0 / (self._p.source.polarisation_contrast + 1.0)
        first = np.cos(np.radians(sent_deg - analyser_deg)) ** 2 * (1 - 2 * leak) + leak
        second = rng.random(basis.size) >= first
        return np.asarray(2 * choice + second, np.int8)

    def _noise(self, rng: np.random.Generator, start_ps: int, stop_ps: int) -> _Events:
        """Dark counts and background light: uniform in time."""
        detectors = self._p.detectors
        relative, dark_hz = self._board.detectors(self._zero_utc_ns + start_ps // 1000)
        rate_hz = dark_hz + detectors.background_hz * relative
        counts = rng.poisson(rate_hz * (stop_ps - start_ps) / PS_PER_S)
        total = int(counts.sum())
        return _Events(
            rng.integers(start_ps, stop_ps, total),
            np.repeat(np.arange(4), counts).astype(np.int8),
            np.full(total, -1, np.int64),
        )

    def _detect(self, rng: np.random.Generator, light: _Events) -> _Events:
        """Afterpulses and dead time."""
        detectors = self._p.detectors
        dead_ps = round(detectors.dead_time_ns * 1000)
        echo = np.flatnonzero(rng.random(light.slot.size) < detectors.afterpulse_probability)
        delay = dead_ps + rng.exponential(detectors.afterpulse_time_ns * 1000, echo.size)
        echoes = _Events(
            light.arrival_ps[echo] + delay.astype(np.int64),
            light.source[echo],
            np.full(echo.size, -1, np.int64),
        )
        both = _joined(light, echoes)
        alive = []
        for detector in range(4):
            mine = np.flatnonzero(both.source == detector)
            mine = mine[np.argsort(both.arrival_ps[mine], kind="stable")]
            since = np.diff(both.arrival_ps[mine], prepend=self._last_click_ps[detector])
            mine = mine[since >= dead_ps]
            if mine.size:
                self._last_click_ps[detector] = both.arrival_ps[mine[-1]]
            self._counts[detector] += mine.size
            alive.append(mine)
        kept = np.concatenate(alive)
        return both.at(kept)

    def _beacon(self, rng: np.random.Generator, start_ps: int, stop_ps: int, visible: bool) -> _Events:
        """Synchronisation pulses with jitter, dropouts and fades, and spurious ones."""
        beacon = self._p.beacon
        arrival = np.empty(0, np.int64)
        if visible:
            edges = self._sky.emitted_ps(np.array([start_ps, stop_ps])) - self._epoch_ps
            edges = edges + np.rint(self._clock.error_ps(edges * 1e-12)).astype(np.int64)
            sent_ps = np.arange(-(-edges[0] // self._beacon_ps), -(-edges[1] // self._beacon_ps)) * self._beacon_ps
            sent_ps = sent_ps[sent_ps >= 0]
            emitted = sent_ps - np.rint(self._clock.error_ps(sent_ps * 1e-12)).astype(np.int64) + self._epoch_ps
            late = self._sky.flight_ps(emitted * 1e-12) + rng.normal(0.0, beacon.jitter_rms_ps, sent_ps.size)
            arrival = emitted + np.rint(late).astype(np.int64)
            kept = rng.random(arrival.size) >= beacon.dropout_probability
            arrival = arrival[kept & ~self._in_a_fade(arrival, start_ps // _BLOCK_PS)]
        spurious = rng.integers(start_ps, stop_ps, rng.poisson(beacon.spurious_hz * (stop_ps - start_ps) / PS_PER_S))
        arrival = np.concatenate((arrival, spurious))
        return _Events(arrival, np.full(arrival.size, 4, np.int8), np.full(arrival.size, -1, np.int64))

    def _in_a_fade(self, arrival_ps: Ints, number: int) -> NDArray[np.bool_]:
        """Which beacon pulses (n,) of a block fall into a fade. At most one fade begins in a block, at a moment
        keyed by the block's number, so one that began earlier is known whatever blocks came before."""
        beacon = self._p.beacon
        lasts_ps = round(beacon.fade_duration_s * PS_PER_S)
        blocks = np.arange(max(0, number - 1 - lasts_ps // _BLOCK_PS), number + 1)
        share = philox4x32(blocks.astype(np.uint64), self._p.seed, _STREAM_FADE) / float(1 << 32)
        begins = share[0] < beacon.fade_rate_hz * _BLOCK_PS / PS_PER_S
        since_ps = arrival_ps[:, None] - ((blocks + share[1])[begins] * _BLOCK_PS).astype(np.int64)
        return np.asarray(((since_ps >= 0) & (since_ps <= lasts_ps)).any(axis=1))

    def _pps(self, rng: np.random.Generator, start_ps: int, stop_ps: int) -> _Events:
        """The GPS receiver's 1PPS."""
        seconds = np.arange(-(-start_ps // PS_PER_S), -(-stop_ps // PS_PER_S)) * PS_PER_S
        jitter = rng.normal(0.0, self._p.clocks.pps_jitter_rms_ns * 1000, seconds.size)
        arrival = seconds + np.rint(jitter).astype(np.int64)
        return _Events(arrival, np.full(arrival.size, 5, np.int8), np.full(arrival.size, -1, np.int64))

    def _deliver(self, events: _Events, start_ps: int, stop_ps: int, error_arcsec: float) -> LightBlock:
        """Events on the tagger's clock, simultaneous ones merged into one pattern, and the truth about them."""
        ticks = self._ticks(events.arrival_ps)
        first = np.flatnonzero(np.diff(ticks, prepend=-1)) if ticks.size else np.empty(0, np.int64)
        pattern = self._patterns[events.source]
        merged = np.bitwise_or.reduceat(pattern, first) if first.size else pattern
        plugged_in = merged != 0
        if self._tells_counts:
            self._board.add_counts(self._zero_utc_ns + stop_ps // 1000, self._counts)
        click = np.flatnonzero(events.source < 4)
        sifted, errors = self._perfectly_sifted(events.arrival_ps[click], events.source[click])
        truth = Truth(
            ticks[click] * self._tick_ps.numerator // self._tick_ps.denominator,
            events.slot[click],
            self._zero_utc_ns + start_ps // 1000,
            int(click.size),
            sifted,
            errors,
            error_arcsec,
        )
        complete = int(self._ticks(np.array([stop_ps - _HOLD_PS]))[0])
        return LightBlock(ticks[first][plugged_in], merged[plugged_in], complete, truth)

    def _ticks(self, arrival_ps: Ints) -> Ints:
        """The tagger's reading of these moments (n,)."""
        clocks = self._p.clocks
        device_ps = arrival_ps + np.rint(arrival_ps * clocks.tagger_frequency_offset).astype(np.int64)
        device_ps = device_ps + round(clocks.tagger_start_s * PS_PER_S)
        return np.asarray(device_ps * self._tick_ps.denominator // self._tick_ps.numerator, np.int64)

    def ticks_at(self, utc_ns: int) -> int:
        """The tagger's reading at a moment."""
        return int(self._ticks(np.array([(utc_ns - self._zero_utc_ns) * 1000]))[0])

    def _perfectly_sifted(self, arrival_ps: Ints, source: NDArray[np.int8]) -> tuple[int, int]:
        """Signal bits of same basis that a perfect clock would have gated, and how many of them are wrong."""
        emitted = self._sky.emitted_ps(arrival_ps) - self._epoch_ps
        sent = emitted + np.rint(self._clock.error_ps(emitted * 1e-12)).astype(np.int64)
        slot = np.floor_divide(sent + self._slot_ps // 2, self._slot_ps)
        inside = np.abs(sent - slot * self._slot_ps) <= _TRUE_GATE_HALF_PS
        slot, source = slot[inside], source[inside]
        state = self._states.of(slot)
        signal = (state.intensity == 0) & (state.basis == source // 2)
        return int(signal.sum()), int((signal & (state.bit != source % 2)).sum())


def _joined(*parts: _Events) -> _Events:
    return _Events(
        np.concatenate([part.arrival_ps for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.slot for part in parts]),
    )
