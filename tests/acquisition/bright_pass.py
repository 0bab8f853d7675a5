"""The shipped pass with light enough for 1 Mtag/s, as words on a real wire that every client sees alike.

The world runs 3.5 times faster than the wall, and the telescope collects 21 times the light. The words are made
beforehand, so what the tagger says is a known function of time whoever listens, and since when.

    python bright_pass.py words FILE FIRST STOP     the words of some blocks of light
    python bright_pass.py serve FILE T0_NS:M0_NS:SPEED     prints its port
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from groundstation.cli.planning import PlannedPass, manifest_of, plan_pass
from groundstation.clock import NS_PER_S, Clock, clock_from_text
from groundstation.config import DEFAULT_CONFIG, load_config
from groundstation.instruments import TransmitterTerms
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.light import BLOCK_NS, Light
from groundstation.simulation.sky import Sky
from groundstation.simulation.states import TransmitterStates

SPEED = 3.5
_BRIGHTER = 21.0
#: The device goes on for so long after the pass (world time).
_AFTER_NS = 20 * NS_PER_S
_DUMMY = 1 << 4
_TURN_S = 0.002
_PARTS = 8


class BrightPass:
    """The pass, and what its light is."""

    def __init__(self) -> None:
        self.config = load_config(DEFAULT_CONFIG)
        assert self.config.simulation is not None
        link = replace(self.config.simulation.link, cloud_transmittance=_BRIGHTER)
        self.world = replace(self.config.simulation, link=link)

    @cached_property
    def planned(self) -> PlannedPass:
        return plan_pass(self.config)

    @property
    def zero_utc_ns(self) -> int:
        """When the world begins."""
        return self.planned.start_utc_ns // NS_PER_S * NS_PER_S

    @property
    def blocks(self) -> int:
        return (self.planned.stop_utc_ns + _AFTER_NS - self.zero_utc_ns) // BLOCK_NS - 1

    def utc_ns_of(self, tick: int) -> int:
        """World time of a device time of 1/256 ns, to some microseconds."""
        return self.zero_utc_ns + round((tick / 256e9 - self.world.clocks.tagger_start_s) * 1e9)

    def tick_at(self, utc_ns: int) -> int:
        """The inverse."""
        return round(((utc_ns - self.zero_utc_ns) * 1e-9 + self.world.clocks.tagger_start_s) * 256e9)

    def words(self, first: int, stop: int) -> Iterator[bytes]:
        """Of these blocks, each with a dummy that tells how far time has come."""
        zero_ns = self.zero_utc_ns
        sky = Sky(self.config.orbit(), zero_ns, zero_ns, self.planned.stop_utc_ns + _AFTER_NS)
        patterns, epoch_ns = self.config.patterns(), self.planned.epoch_utc_ns
        light = Light(self.world, sky, Blackboard.alone(), patterns, zero_ns, epoch_ns)
        for number in range(first, stop):
            block = light.block(number)
            ticks = np.append(block.ticks, block.complete_ticks).astype(np.uint64)
            low = np.append(block.pattern, np.uint8(_DUMMY)).astype(np.uint64)
            yield (ticks << np.uint64(10) | low).astype("<u8").tobytes()

    def manifest(self, clock: Clock, run_id: str) -> dict[str, object]:
        """What `run` would say; `live`, for nobody tells this recording's analysis the truth."""
        return {**manifest_of(self.config, self.planned, clock), "run_id": run_id, "mode": "live", "simulation": None}

    @property
    def states(self) -> TransmitterStates:
        return TransmitterStates(self.world.seed, self.world.source)

    @property
    def terms(self) -> TransmitterTerms:
        source = self.world.source
        return TransmitterTerms(
            "Micius",
            self.planned.epoch_utc_ns,
            source.slot_rate_hz,
            source.beacon_rate_hz,
            (source.intensity_signal, source.intensity_decoy, source.intensity_vacuum),
            (source.probability_signal, source.probability_decoy, source.probability_vacuum),
            source.disclosed_signal_fraction,
        )


def make_words(file: Path, blocks: int) -> None:
    """All words of the pass, by two processes at a time."""
    edges = np.linspace(0, blocks, _PARTS + 1).astype(int).tolist()
    parts = [file.with_suffix(f".{number}") for number in range(_PARTS)]
    for pair in range(0, _PARTS, 2):
        running = [
            subprocess.Popen([sys.executable, __file__, "words", str(parts[n]), str(edges[n]), str(edges[n + 1])])
            for n in (pair, pair + 1)
        ]
        assert [process.wait() for process in running] == [0, 0]
    with file.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
            part.unlink()


class Server:
    """Serves a file of words in a process of its own."""

    def __init__(self, file: Path, clock: Clock) -> None:
        command = [sys.executable, __file__, "serve", str(file), clock.text()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.address = f"tcp://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> None:
        self._process.communicate(timeout=60.0)


def _write_words(file: Path, first: int, stop: int) -> None:
    with file.open("wb") as out:
        for words in BrightPass().words(first, stop):
            out.write(words)


def _serve(file: Path, clock: Clock) -> None:
    """To every client what the device says from now on, in step with the world; the first ones wait for its begin."""
    words, bright = np.memmap(file, "<u8", "r"), BrightPass()
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)  # noqa: T201  the parent reads it

    def due() -> int:
        return int(np.searchsorted(words, np.uint64(max(0, bright.tick_at(clock.utc_ns())) << 10)))

    def serve(client: socket.socket) -> None:
        sent = due()
        try:
            while True:
                upto = due()
                if upto > sent:
                    client.sendall(words[sent:upto].tobytes())
                    sent = upto
                time.sleep(_TURN_S)
        except OSError:
            client.close()

    while True:
        client, _ = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    import os

    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "words":
        _write_words(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _serve(Path(sys.argv[2]), clock_from_text(sys.argv[3]))
