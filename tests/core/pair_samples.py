"""Planted pairs of two stations: what the tests and the benchmark of the pair clocks measure against."""

from dataclasses import dataclass

import numpy as np

START_PS = 7 * 10**12


@dataclass(frozen=True)
class Planted:
    """B shows x + frequency x + drift x^2 / 2, with x = t - start + offset, when A shows t."""

    offset_s: float = 0.73
    frequency: float = 1e-6
    drift_per_s: float = 0.0

    def to_b(self, a_ps):
        x = a_ps - START_PS + round(self.offset_s * 1e12)
        local = x.astype(float)
        return x + START_PS + np.rint(local * (self.frequency + 0.5e-12 * self.drift_per_s * local)).astype(np.int64)


@dataclass(frozen=True)
class World:
    """Rates of both stations (with the pairs in them), the share of A's tags that have a partner, and the jitter."""

    rate_hz: float = 5e4
    share: float = 0.03
    seconds: float = 10.0
    jitter_ps: float = 300.0
    rate_b_hz: float | None = None


def streams(planted, world=World(), seed=1):
    """Tags of both stations, sorted (work W4 of the reference measurements, in other sizes)."""
    rng = np.random.default_rng(seed)
    length = int(world.seconds * 1e12)
    n, m = round(world.rate_hz * world.seconds), round((world.rate_b_hz or world.rate_hz) * world.seconds)
    a_ps = np.sort(rng.integers(0, length, n))
    pairs = round(n * world.share)
    partners = rng.choice(a_ps, pairs, replace=False) + np.rint(rng.normal(0, world.jitter_ps, pairs)).astype(np.int64)
    b_ps = np.sort(np.concatenate((partners, rng.integers(0, length, m - pairs))))
    return a_ps + START_PS, planted.to_b(b_ps + START_PS)


def errors_ps(clock, planted, places=5):
    """What the clock says less what was planted, over the span that it is given for."""
    when = np.linspace(clock.start_ps, clock.stop_ps, places).astype(np.int64)
    return clock.to_b(when) - planted.to_b(when)


def write_a1(path, time_ps):
    """Events of S-Fifteen's a1 format: 54 bits of 1/256 ns, here always detector 1."""
    ticks = time_ps.astype(np.uint64) * np.uint64(32) // np.uint64(125)
    (ticks << np.uint64(10) | np.uint64(1)).astype("<u8").tofile(path)
