"""What the simulators of all time taggers share: the light in front of the tagger, in step with world time.

A simulator makes one `TaggerWorld` with its own tick and turns each block of light into its own wire bytes. The
options --scene and --truth, the truth stream and the device's counter are kept here.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from drivers.simulators.program import Loop, World, arguments
from groundstation.clock import NS_PER_S, Clock, SimulatedClock, parse_utc
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.recording.manifest import read_manifest
from groundstation.recording.writer import StreamWriter
from groundstation.simulation.light import BLOCK_NS, Light, LightBlock, Truth
from groundstation.simulation.sky import Sky, SteadySky

_TRUTH_INTERVAL_S = 0.25
_LABORATORY_GRID_NS = 600 * NS_PER_S
_LABORATORY_PATTERNS = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000, "sync": 0b0011, "pps": 0b1100}

Deliver = Callable[[LightBlock], bool]
"""What a simulator does with a block of light; False: it was lost before it reached the reader."""


def tagger_arguments(description: str) -> ArgumentParser:
    """The options of every tagger's simulator; add the instrument's own ones to what is returned."""
    parser = arguments(description)
    parser.add_argument("--scene", metavar="FILE", type=Path, help="JSON: satellite, station, wiring, times")
    parser.add_argument("--truth", metavar="DIR", type=Path, help="recording that gets the truth stream")
    return parser


class TaggerWorld:
    """Generates the light block by block, each at the end of its world time, while somebody wants it.

    Without a scene, the light is that of a satellite that stands still, with the laboratory's patterns. The truth
    stream gets the truth of every block that was delivered.
    """

    def __init__(self, world: World, loop: Loop, options: Namespace, tick_ps: Fraction) -> None:
        """`tick_ps` is the tagger's resolution."""
        self._clock, self._loop, self._tick_ps = world.clock, loop, tick_ps
        self._light, self._zero_utc_ns = _light(world, options.scene, tick_ps)
        self._truth = None
        if options.truth is not None:
            self._truth = StreamWriter(options.truth, "truth", str(read_manifest(options.truth)["run_id"]))
        self._untold: list[Truth] = []
        self._deliver: Deliver | None = None
        self._block = self._starts = self._shift_ticks = self._first_tick = 0
        loop.after_wall_s(_TRUTH_INTERVAL_S, self._tell_truth)

    def start(self, deliver: Deliver, reading_ps: int | None = None) -> None:
        """Give `deliver` every block from the one of this moment on (instead of whoever got them before).

        `reading_ps`, not negative, sets the device's counter at this moment, for `LightBlock` and truth alike, and
        nothing older than that is delivered; None: the counter runs on.
        """
        utc_ns = self._clock.utc_ns()
        self._deliver = deliver
        self._block = (utc_ns - self._zero_utc_ns) // BLOCK_NS
        if reading_ps is not None:
            shift = Fraction(reading_ps) / self._tick_ps - self._light.ticks_at(utc_ns)
            # In whole picoseconds too, else the truth would be rounded otherwise than the shifted ticks.
            self._shift_ticks = int(shift) // self._tick_ps.denominator * self._tick_ps.denominator
            self._first_tick = int(reading_ps / self._tick_ps)
        self._starts += 1
        self._schedule()

    def stop(self) -> None:
        """No more light until the next start. Idempotent."""
        self._deliver = None

    def close(self) -> None:
        """Stop, and end the truth stream."""
        self.stop()
        if self._truth is not None:
            self._publish(end=True)
            self._truth.close()

    def _schedule(self) -> None:
        start = self._starts
        self._loop.at(self._zero_utc_ns + (self._block + 1) * BLOCK_NS, lambda: self._generate(start))

    def _generate(self, start: int) -> None:
        """One block, at the end of its time, for the start for which it was planned."""
        if self._deliver is None or start != self._starts:
            return
        block = self._shifted(self._light.block(self._block))
        self._block += 1
        if self._deliver(block):
            self._untold.append(block.truth)
        if start == self._starts:  # the block may have made its receiver start again
            self._schedule()

    def _shifted(self, block: LightBlock) -> LightBlock:
        """The block as the device's counter tells it, without what came before the counter was set."""
        ticks = block.ticks + self._shift_ticks
        first = int(np.searchsorted(ticks, self._first_tick))
        click_ps = block.truth.click_device_ps + int(self._shift_ticks * self._tick_ps)
        told = click_ps >= int(self._first_tick * self._tick_ps)
        truth = block.truth._replace(click_device_ps=click_ps[told], click_slot=block.truth.click_slot[told])
        complete = max(block.complete_ticks + self._shift_ticks, self._first_tick)
        return LightBlock(ticks[first:], block.pattern[first:], complete, truth)

    def _tell_truth(self) -> None:
        if self._untold and self._truth is not None:
            self._publish()
        self._untold.clear()
        self._loop.after_wall_s(_TRUTH_INTERVAL_S, self._tell_truth)

    def _publish(self, end: bool = False) -> None:
        assert self._truth is not None
        told = self._untold
        empty = np.empty(0, np.int64)
        tables = {
            "clicks": {
                "device_ps": np.concatenate([empty, *(t.click_device_ps for t in told)]),
                "slot": np.concatenate([empty, *(t.click_slot for t in told)]),
            },
            "tallies": {
                "utc_ns": np.array([t.utc_ns for t in told], np.int64),
                "detections": np.array([t.detections for t in told], np.int64),
                "signal_sifted": np.array([t.signal_sifted for t in told], np.int64),
                "signal_errors": np.array([t.signal_errors for t in told], np.int64),
            },
            "pointing": {
                "utc_ns": np.array([t.utc_ns for t in told], np.int64),
                "error_arcsec": np.array([t.pointing_error_arcsec for t in told], np.float64),
            },
        }
        self._truth.publish(tables, end=end)


def _light(world: World, scene_file: Path | None, tick_ps: Fraction) -> tuple[Light, int]:
    """The world's light, and the moment (UTC ns) at which its blocks begin to count."""
    if scene_file is None:
        zero = _laboratory_zero(world.clock)
        return Light(world.parameters, SteadySky(), world.board, _LABORATORY_PATTERNS, zero, zero, tick_ps), zero
    scene: dict[str, Any] = json.loads(scene_file.read_text())
    zero = parse_utc(scene["start_utc"]) // NS_PER_S * NS_PER_S
    orbit = Orbit(
        ElementSet.parse(scene["satellite"]["name"], *scene["satellite"]["tle"]),
        Site(**scene["station"]),
        EarthOrientation(**scene["earth_orientation"]),
        world.parameters.clocks.orbit_time_error_s,
    )
    sky = Sky(orbit, zero, zero, parse_utc(scene["stop_utc"]))
    epoch = parse_utc(scene["epoch_utc"])
    counts = bool(scene.get("tells_counts", True))
    return Light(world.parameters, sky, world.board, scene["patterns"], zero, epoch, tick_ps, counts), zero


def _laboratory_zero(clock: Clock) -> int:
    """A whole second in the past, the same for simulators that are started together: they see the same light."""
    if isinstance(clock, SimulatedClock):
        return clock.t0_utc_ns // NS_PER_S * NS_PER_S - NS_PER_S
    return clock.utc_ns() // _LABORATORY_GRID_NS * _LABORATORY_GRID_NS - NS_PER_S
