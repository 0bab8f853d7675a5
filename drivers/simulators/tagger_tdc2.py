"""An S-Fifteen TDC2 time tagger from the other end of its wire: the a1 event stream of its reader program.

The reader program's standard output arrives over TCP, as when it is piped into a socket. Each event is a
64-bit little-endian word: 54 bits of time in 1/256 ns, a dummy flag in bit 4, the inputs in the low four bits.
The events are those of the simulated world's light; without a scene, of a satellite that stands still.
"""

import json
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import listen, tcp_address_of
from groundstation.clock import NS_PER_S, parse_utc
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.recording.manifest import read_manifest
from groundstation.recording.writer import StreamWriter
from groundstation.simulation.light import BLOCK_NS, Light, LightBlock, Truth
from groundstation.simulation.sky import Sky, SteadySky

_DUMMY = 1 << 4
#: What the device and its reader program hold for a reader that stalls; what comes on top is lost.
_BACKLOG_BYTES = 32 << 20
_TRUTH_INTERVAL_S = 0.25
_LABORATORY_PATTERNS = {"H": 0b0001, "V": 0b0010, "D": 0b0100, "A": 0b1000, "sync": 0b0011, "pps": 0b1100}


def main() -> None:
    """Serve the stream until told to end."""
    parser = arguments("S-Fifteen TDC2 time tagger (a1 event stream over TCP)")
    parser.add_argument("--scene", metavar="FILE", type=Path, help="JSON: satellite, station, wiring, times")
    parser.add_argument("--truth", metavar="DIR", type=Path, help="recording that gets the truth stream")
    options = parser.parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    server = listen(options.address)
    tagger = Tagger(world, loop, server, _light(world, options), _truth_writer(options))
    loop.supervise(options)
    announce(address=tcp_address_of(server), model="S-Fifteen TDC2")
    try:
        loop.run()
    finally:
        tagger.close()


def _light(world: World, options: Namespace) -> tuple[Light, int]:
    """The world's light, and the moment (UTC ns) at which its blocks begin to count."""
    if options.scene is None:
        zero = world.clock.utc_ns() // NS_PER_S * NS_PER_S - NS_PER_S
        return Light(world.parameters, SteadySky(), world.board, _LABORATORY_PATTERNS, zero, zero), zero
    scene: dict[str, Any] = json.loads(options.scene.read_text())
    zero = parse_utc(scene["start_utc"]) // NS_PER_S * NS_PER_S
    orbit = Orbit(
        ElementSet.parse(scene["satellite"]["name"], *scene["satellite"]["tle"]),
        Site(**scene["station"]),
        EarthOrientation(**scene["earth_orientation"]),
        world.parameters.clocks.orbit_time_error_s,
    )
    sky = Sky(orbit, zero, zero, parse_utc(scene["stop_utc"]))
    epoch = parse_utc(scene["epoch_utc"])
    return Light(world.parameters, sky, world.board, scene["patterns"], zero, epoch), zero


def _truth_writer(options: Namespace) -> StreamWriter | None:
    if options.truth is None:
        return None
    return StreamWriter(options.truth, "truth", str(read_manifest(options.truth)["run_id"]))


class Tagger:
    """Generates the world block by block, in step with world time, and sends it to whoever is connected."""

    def __init__(
        self,
        world: World,
        loop: Loop,
        server: socket.socket,
        light: tuple[Light, int],
        truth: StreamWriter | None,
    ) -> None:
        self._clock, self._loop, self._server = world.clock, loop, server
        self._light, self._zero_utc_ns = light
        self._truth = truth
        self._untold: list[Truth] = []
        self._client: socket.socket | None = None
        self._backlog = bytearray()
        self._block = 0
        self._connections = 0
        loop.watch(server.fileno(), self._accept)
        loop.after_wall_s(_TRUTH_INTERVAL_S, self._tell_truth)

    def close(self) -> None:
        """Hang up and end the truth stream."""
        self._hang_up()
        if self._truth is not None:
            self._publish(end=True)
            self._truth.close()

    def _accept(self) -> None:
        client, _ = self._server.accept()
        self._hang_up()  # one reader program, one reader: the newest, for the old one may be gone without a word
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self._watch_client()
        self._block = (self._clock.utc_ns() - self._zero_utc_ns) // BLOCK_NS
        self._connections += 1
        self._schedule()

    def _schedule(self) -> None:
        connection = self._connections
        self._loop.at(self._zero_utc_ns + (self._block + 1) * BLOCK_NS, lambda: self._generate(connection))

    def _generate(self, connection: int) -> None:
        """One block, at the end of its time, for the connection for which it was planned."""
        if self._client is None or connection != self._connections:
            return
        block = self._light.block(self._block)
        self._block += 1
        words = _words(block)
        if len(self._backlog) + len(words) <= _BACKLOG_BYTES:
            self._backlog += words
            self._untold.append(block.truth)
        self._flush()
        self._schedule()

    def _flush(self) -> None:
        if self._client is None or not self._backlog:
            return
        try:
            sent = self._client.send(self._backlog)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hang_up()
            return
        del self._backlog[:sent]
        self._watch_client()

    def _watch_client(self) -> None:
        assert self._client is not None
        self._loop.watch(self._client.fileno(), self._heard, self._flush if self._backlog else None)

    def _heard(self) -> None:
        """The reader program takes no commands; all that can come is the end of the connection."""
        assert self._client is not None
        try:
            gone = not self._client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._loop.watch(self._client.fileno(), None)
            self._client.close()
            self._client = None
            self._backlog.clear()

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


def _words(block: LightBlock) -> bytes:
    """The a1 words of a block, and a dummy that tells how far time has come."""
    ticks = np.append(block.ticks, block.complete_ticks).astype(np.uint64)
    low = np.append(block.pattern, np.uint8(_DUMMY)).astype(np.uint64)
    return (ticks << np.uint64(10) | low).astype("<u8").tobytes()


if __name__ == "__main__":
    run_program(main)
