"""What ties a recording to the transmitter, once UTC label, predicted path and terms are all there."""

from dataclasses import dataclass

import numpy as np

from groundstation.core.synchronisation import BeaconClock
from groundstation.core.timebase import PS_PER_NS, EmissionTime
from groundstation.instruments import TransmitterTerms


@dataclass(frozen=True)
class Link:
    """Times, the transmitter's clock, the length of its slots, and how far from its slot a click may be."""

    terms: TransmitterTerms
    emission: EmissionTime
    clock: BeaconClock
    slot_period_ps: int
    gate_half_width_ps: int

    def since_ps(self, time_ps: int, utc_ns: int) -> int:
        """From a moment in UTC to a tag time."""
        received_ps = int(self.emission.received_ps(np.array([time_ps]))[0])
        return received_ps - (utc_ns - self.terms.epoch_utc_ns) * PS_PER_NS
