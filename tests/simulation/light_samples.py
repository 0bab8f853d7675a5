"""A laboratory sky for the tests of the light: every input of the tagger is wired to one channel."""

from dataclasses import replace

import numpy as np

from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.light import Light
from groundstation.simulation.parameters import (
    BeaconParameters,
    ClockParameters,
    DetectorParameters,
    LinkParameters,
    SourceParameters,
    WorldParameters,
)
from groundstation.simulation.sky import SteadySky

ZERO_UTC_NS = 1_482_166_140_000_000_000
PATTERNS = {"H": 1, "V": 2, "D": 4, "A": 8, "sync": 16, "pps": 32}
SYNC, PPS = 4, 5
BLOCKS_PER_S = 20
SLOT_PS = 10_000

#: Clocks without an error, so that the tagger's time is the world's time; it shows 1 s at the zero.
TRUE_CLOCKS = ClockParameters(
    tagger_frequency_offset=0.0,
    tagger_start_s=1.0,
    satellite_offset_s=0.0,
    satellite_frequency_offset=0.0,
    satellite_frequency_drift_per_s=0.0,
)
IDEAL = WorldParameters(
    source=SourceParameters(polarisation_contrast=1e12),
    link=LinkParameters(misalignment_deg=0.0),
    detectors=DetectorParameters(background_hz=0.0, dead_time_ns=0.0, afterpulse_probability=0.0),
    beacon=BeaconParameters(dropout_probability=0.0, fade_rate_hz=0.0, spurious_hz=0.0),
    clocks=TRUE_CLOCKS,
)


def world(base=IDEAL, **changes):
    """`base` with some fields changed: world(detectors={"dead_time_ns": 50.0})."""
    return replace(base, **{name: replace(getattr(base, name), **fields) for name, fields in changes.items()})


def light(parameters=IDEAL, sky=None, board=None, patterns=None):
    board = board or Blackboard.alone(dark_hz=0.0)
    return Light(parameters, sky or SteadySky(700.0), board, patterns or PATTERNS, ZERO_UTC_NS, ZERO_UTC_NS)


class Seen:
    """What the tagger and the truth say over a run of blocks, one input per channel."""

    def __init__(self, blocks):
        self.blocks = list(blocks)
        self.ticks = np.concatenate([b.ticks for b in self.blocks])
        self.pattern = np.concatenate([b.pattern for b in self.blocks])
        rows, self.channel = np.nonzero(np.unpackbits(self.pattern[:, None], axis=1, bitorder="little"))
        self.time_ps = self.ticks[rows] * 3.90625 - 1e12  # since the world's zero, with TRUE_CLOCKS
        self.slot = np.concatenate([b.truth.click_slot for b in self.blocks])
        self.click_ps = np.concatenate([b.truth.click_device_ps for b in self.blocks]) - 10**12

    def of(self, channel):
        """Times of one channel's tags in ps since the zero."""
        return self.time_ps[self.channel == channel]

    def tally(self, name):
        return sum(getattr(b.truth, name) for b in self.blocks)

    @property
    def detector(self):
        """The detector of each click, in the order of `slot`; needs events that never coincide."""
        clicks = self.channel[self.channel < 4]
        assert clicks.size == self.slot.size
        return clicks


def run(parameters=IDEAL, seconds=1.0, first=0, **more):
    source = light(parameters, **more)
    return Seen(source.block(first + n) for n in range(round(seconds * BLOCKS_PER_S)))
