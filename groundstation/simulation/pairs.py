"""One source of entangled pairs, two receiving stations: what both time taggers record, block by block.

Polarisations follow quantum mechanics for a Bell state mixed with white noise (a Werner state of the given
visibility); of the pairs, only those of which a photon is detected are drawn, since losses thin a Poisson process.
Each block of source time has a random generator of its own (seed, block number), so the same seed gives the same
photons however fast the world runs and however it is cut.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from groundstation.core.entanglement import expected_correlations
from groundstation.core.tags import CHANNEL_NUMBER
from groundstation.simulation.pair_parameters import PairStationParameters
from groundstation.simulation.sky import PS_PER_S

BLOCK_NS = 50_000_000
_BLOCK_PS = BLOCK_NS * 1000
#: Jitter moves events across a block's edge by less than this; they are held until the next block.
_HOLD_PS = 1_000_000
_FWHM_PER_SIGMA = 2.354_820_045
_NODES = 6
_PPS = CHANNEL_NUMBER["pps"]
_NO_PAIR = -1

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


class Downlink(Protocol):
    """The light's way to one station; times since the world's zero."""

    def flight_ps(self, emitted_s: Floats) -> Floats:
        """Time of flight of light emitted at these times (n,)."""

    def range_km(self, received_s: Floats) -> Floats:
        """Length of the way (n,)."""


class PairSource(NamedTuple):
    """What is sent, and how both stations analyse it."""

    state: str
    pair_rate_hz: float
    visibility: float
    analyser_deg: tuple[float, float]


class Receiver(NamedTuple):
    """One station: its way of light, `loss_db` (n,) -> (n,) of the range in km, its numbers; `has_pps`: GPS time."""

    downlink: Downlink
    inverse_square: bool
    loss_db: float
    parameters: PairStationParameters
    has_pps: bool

    def transmittance(self, seconds: Floats) -> Floats:
        """Share of the photons sent this way that make a click (n,), detectors included."""
        loss_db = np.full(seconds.shape, self.loss_db)
        if self.inverse_square:
            loss_db += 20 * np.log10(self.downlink.range_km(seconds) / 1000.0)
        return np.asarray(10 ** (-loss_db / 10))

    def tag_time_ps(self, utc_ps: Ints) -> Ints:
        """What the tagger shows at these moments (n,) since the world's zero: the recording's time."""
        p = self.parameters
        since_ps = utc_ps - round(p.start_s * PS_PER_S)
        seconds = since_ps * 1e-12
        rate = p.tagger_frequency_offset + 0.5 * p.tagger_frequency_drift_per_s * seconds
        return since_ps + np.rint(since_ps * rate).astype(np.int64)


class StationBlock(NamedTuple):
    """Tags of one station in time order: `time_ps` (n,) of its recording, `channel` (n,); `pair` (n,) the number of
    the pair of which both photons clicked, -1 elsewhere (only the world knows it). `latest_ps`: time came so far."""

    time_ps: Ints
    channel: NDArray[np.uint8]
    pair: Ints
    latest_ps: int


class _Events(NamedTuple):
    """Events of one station, by arrival (ps since the world's zero)."""

    arrival_ps: Ints
    channel: NDArray[np.uint8]
    pair: Ints

    def at(self, rows: Ints | slice) -> "_Events":
        return _Events(self.arrival_ps[rows], self.channel[rows], self.pair[rows])


class PairLight:
    """Generates the world's blocks in order."""

    def __init__(self, source: PairSource, receivers: tuple[Receiver, Receiver], seed: int) -> None:
        self._source = source
        self._receivers = receivers
        self._seed = seed
        expected = source.visibility * expected_correlations(source.state, *source.analyser_deg)
        self._equal = (1 + expected) / 2  # probability of equal outcomes by both bases
        self._held = [_none(), _none()]
        self._last_click_ps = [np.full(4, -PS_PER_S), np.full(4, -PS_PER_S)]
        self._pairs = 0
        self._next = 0

    def block(self) -> tuple[StationBlock, StationBlock]:
        """The next BLOCK_NS of the source's time, and what arrives meanwhile."""
        number, self._next = self._next, self._next + 1
        rng = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        start_ps, stop_ps = number * _BLOCK_PS, (number + 1) * _BLOCK_PS
        photons = self._photons(rng, start_ps, stop_ps)
        a, b = (self._station(rng, which, photons[which], start_ps, stop_ps) for which in (0, 1))
        return a, b

    def _photons(self, rng: np.random.Generator, start_ps: int, stop_ps: int) -> tuple[_Events, _Events]:
        """Photons that click at either station: of full pairs first, then those whose partner is lost."""
        nodes_s = np.linspace(start_ps * 1e-12, stop_ps * 1e-12, _NODES)
        shares = [receiver.transmittance(nodes_s) for receiver in self._receivers]
        sent = self._source.pair_rate_hz * (stop_ps - start_ps) / PS_PER_S
        both = self._emitted(rng, start_ps, stop_ps, sent, nodes_s, shares[0] * shares[1])
        pair = self._pairs + np.arange(both.size)
        self._pairs += both.size
        channels = self._measured(rng, both.size)
        arriving = []
        for which, receiver in enumerate(self._receivers):
            lonely_share = shares[which] * (1 - shares[1 - which])
            lonely = self._emitted(rng, start_ps, stop_ps, sent, nodes_s, lonely_share)
            emitted = np.concatenate((both, lonely))
            # One half of a maximally entangled state alone is unpolarised, mixed with white noise or not.
            channel = np.concatenate((channels[which], rng.integers(0, 4, lonely.size, np.uint8)))
            sigma_ps = receiver.parameters.jitter_fwhm_ps / _FWHM_PER_SIGMA
            late = receiver.downlink.flight_ps(emitted * 1e-12) + rng.normal(0.0, sigma_ps, emitted.size)
            number = np.concatenate((pair, np.full(lonely.size, _NO_PAIR)))
            arriving.append(_Events(emitted + np.rint(late).astype(np.int64), channel, number))
        return arriving[0], arriving[1]

    def _emitted(
        self, rng: np.random.Generator, start_ps: int, stop_ps: int, sent: float, nodes_s: Floats, share: Floats
    ) -> Ints:
        """Times of a Poisson process with the rate of the source, thinned by a share (nodes,) that changes slowly."""
        most = float(share.max())
        time = np.sort(rng.integers(start_ps, stop_ps, rng.poisson(sent * most)))
        kept = rng.random(time.size) * most < np.interp(time * 1e-12, nodes_s, share)
        return np.asarray(time[kept])

    def _measured(self, rng: np.random.Generator, pairs: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Channels of both photons: each basis by a beam splitter, outcomes correlated as the state demands."""
        basis_a, basis_b, outcome_a = rng.integers(0, 2, (3, pairs), np.uint8)
        differs = (rng.random(pairs) >= self._equal[basis_a, basis_b]).astype(np.uint8)
        return 2 * basis_a + outcome_a, 2 * basis_b + (outcome_a ^ differs)

    def _station(
        self, rng: np.random.Generator, which: int, photons: _Events, start_ps: int, stop_ps: int
    ) -> StationBlock:
        """All tags of a station that are certain by the end of the block."""
        receiver = self._receivers[which]
        # Photons still to come arrive after the block's end: none is faster than light.
        pending = _joined(self._held[which], photons, self._noise(rng, receiver, start_ps, stop_ps))
        pending = pending.at(np.argsort(pending.arrival_ps, kind="stable"))
        cut = int(np.searchsorted(pending.arrival_ps, stop_ps - _HOLD_PS))
        self._held[which] = pending.at(slice(cut, None))
        events = pending.at(slice(cut))
        events = events.at(self._alive(which, events, receiver.parameters.dead_time_ns))
        tag_ps = receiver.tag_time_ps(events.arrival_ps)
        in_recording = np.flatnonzero(tag_ps > 0)  # before its zero the recorder was not running
        latest = int(receiver.tag_time_ps(np.array([stop_ps - _HOLD_PS]))[0])
        return StationBlock(tag_ps[in_recording], events.channel[in_recording], events.pair[in_recording], latest)

    def _noise(self, rng: np.random.Generator, receiver: Receiver, start_ps: int, stop_ps: int) -> _Events:
        """Dark counts and background light, and the 1PPS, all by arrival."""
        p = receiver.parameters
        count = rng.poisson(4 * (p.dark_hz + p.background_hz) * (stop_ps - start_ps) / PS_PER_S)
        time, channel = rng.integers(start_ps, stop_ps, count), rng.integers(0, 4, count, np.uint8)
        seconds = np.arange(-(-start_ps // PS_PER_S), -(-stop_ps // PS_PER_S)) if receiver.has_pps else np.empty(0)
        late_ns = p.pps_error_ns + rng.normal(0.0, p.pps_jitter_rms_ns, seconds.size)
        pulse = seconds.astype(np.int64) * PS_PER_S + np.rint(late_ns * 1e3).astype(np.int64)
        return _Events(
            np.concatenate((time, pulse)),
            np.concatenate((channel, np.full(pulse.size, _PPS, np.uint8))),
            np.full(time.size + pulse.size, _NO_PAIR),
        )

    def _alive(self, which: int, events: _Events, dead_time_ns: float) -> Ints:
        """Which events survive dead time: a photon soon after another one on its detector only prolongs it."""
        kept = np.ones(events.arrival_ps.size, bool)
        for detector in range(4):
            rows = np.flatnonzero(events.channel == detector)
            if rows.size:
                time = events.arrival_ps[rows]
                before = np.concatenate((self._last_click_ps[which][detector : detector + 1], time[:-1]))
                kept[rows] = time - before >= dead_time_ns * 1e3
                self._last_click_ps[which][detector] = time[-1]
        return np.flatnonzero(kept)


def _none() -> _Events:
    return _Events(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))


def _joined(*parts: _Events) -> _Events:
    return _Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
