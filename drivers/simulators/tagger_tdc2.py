"""An S-Fifteen TDC2 time tagger from the other end of its wire: the a1 event stream of its reader program.

The reader program's standard output arrives over TCP, as when it is piped into a socket; with --reader this program
stands for `readevents7` itself, takes its options and writes the stream to its own standard output:

    python -m drivers.simulators.tagger_tdc2 --reader -a 1 -t 768 -D 0,-12,0,0

Each event is a 64-bit little-endian word: 54 bits of time in 1/256 ns, a dummy flag in bit 4, the inputs in the low
four bits. The events are those of the simulated world's light; without a scene, of a satellite that stands still.
Behind the socket the counter runs on from reader to reader; --reader resets it, as `readevents7` does.

Special faults: "void_words" (an all-zero word now and then), "rollover" (the counter starts 3 s before its end),
"slip" (two bytes missing once a second), "missing_dummies" (none at all: so does the firmware in its 64-bit format,
by `NoDummyInject` in readevents7.c).
Source: qcrypto `timestamp7/readevents7.c`. Thresholds, coincidence window and self-test are checked as it does, and
change nothing here.
"""

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from drivers.simulators.program import Loop, announce, run_program, world_of
from drivers.simulators.tagger_world import TaggerWorld, tagger_arguments
from drivers.simulators.wire import Line, serve_lines
from groundstation.errors import BadInput
from groundstation.simulation.light import TDC2_TICK_PS, LightBlock

_DUMMY = 1 << 4
_WRAP_PS = (1 << 49) * 125  # 2^54 ticks
_LATE_PS = _WRAP_PS - 3_000_000_000_000  # where the counter starts by the fault "rollover"
#: What the device and its reader program hold for a reader that stalls; what comes on top is lost.
_BACKLOG_BYTES = 32 << 20
_VOID_EVERY = 100  # words
_SLIP_EVERY = 20  # blocks


def main() -> None:
    """Serve the stream until told to end."""
    options = _options(sys.argv[1:])
    world = world_of(options)
    loop = Loop(world.clock)
    light = TaggerWorld(world, loop, options, TDC2_TICK_PS)
    faults = world.faults.special
    try:
        loop.supervise(options)
        if options.reader:
            now_ps = world.clock.utc_ns() // 1000 * 1_000_000 if options.A else 0
            reader = Reader(Words(faults, options), loop, options.q)
            light.start(reader.write, _LATE_PS if "rollover" in faults else now_ps % _WRAP_PS)
        else:
            stream = Stream(Words(faults, options), light, _LATE_PS if "rollover" in faults else None)
            address = serve_lines(loop, world.faults, options, lambda: _deaf, over_tcp=True, joined=stream.join)
            announce(address=address, model="S-Fifteen TDC2")
        loop.run()
    finally:
        light.close()


def _options(argv: Sequence[str]) -> Namespace:
    """Our options and those of `readevents7`. Raises BadInput."""
    parser = tagger_arguments("S-Fifteen TDC2 time tagger (a1 event stream over TCP)")
    parser.add_argument("--reader", action="store_true", help="be readevents7: stream to stdout; takes its options")
    _reader_options(parser)
    # A value that begins with a minus sign is an option to argparse, unless it sticks to its own option.
    options = parser.parse_args(re.sub(r"(?m)^(-[dD])\n(?=-)", r"\1", "\n".join(argv)).splitlines())
    if options.reader and options.a != 1:
        raise BadInput(f"this reader program simulates -a 1 only, not -a {options.a}")
    return options


def _reader_options(parser: ArgumentParser) -> None:
    reader = parser.add_argument_group("of readevents7, with --reader")
    skew = _integers("wrong skew format. needs -D v1,v2,v3,v4", (4,), -(1 << 31), 1 << 31)
    threshold = _integers("Threshold parameter out of range", (1, 4), 0, 4095)
    reader.add_argument("-a", type=int, default=0, help="output mode (1)")
    reader.add_argument("-t", type=threshold, nargs="?", default=[768], const=[768], help="threshold DAC")
    reader.add_argument("-d", type=skew, default=[0, 0, 0, 0], help="detector skew in 1/8 ns")
    reader.add_argument("-D", type=skew, default=[0, 0, 0, 0], help="detector skew in 1/256 ns")
    reader.add_argument("-b", type=_integers("Self-test needs 3 parameters", (3,), 0, 0xFFFF), help="self-test")
    reader.add_argument("-c", type=_integers("Coincidence value out of range (0...31)", (1,), 0, 31), help="window")
    reader.add_argument("-A", action="store_true", help="absolute time")
    reader.add_argument("-X", action="store_true", help="swap the halves of each word")
    reader.add_argument("-r", action="store_true", help="start at once (so it does)")
    reader.add_argument("-q", type=int, default=0, help="stop after so many words")
    reader.add_argument("-U", help="device node (ignored)")
    reader.add_argument("-v", help="verbosity (ignored)")


def _integers(complaint: str, lengths: tuple[int, ...], low: int, high: int) -> Callable[[str], list[int]]:
    """What reads a comma-separated list of integers from an option's text."""

    def read(text: str) -> list[int]:
        parts = text.split(",")
        if not all(re.fullmatch(r"[+-]?\d{1,9}", part) for part in parts) or len(parts) not in lengths:
            raise BadInput(complaint)
        values = [int(part) for part in parts]
        if min(values) < low or max(values) > high:
            raise BadInput(complaint)
        return values

    return read


class Words:
    """Turns light into the a1 words, with the faults of the stream."""

    def __init__(self, faults: tuple[str, ...], options: Namespace) -> None:
        self._faults, self._swapped = faults, options.X
        self._blocks = 0
        self._skews = np.zeros(16, np.int64)  # readevents7 shifts the events of one input only
        for detector in range(4):
            self._skews[1 << detector] = options.D[detector] + 32 * options.d[detector]

    def of(self, block: LightBlock) -> NDArray[np.uint64]:
        """The words of a block, and a dummy that tells how far time has come."""
        self._blocks += 1
        ticks, low = block.ticks + self._skews[block.pattern], block.pattern.astype(np.int64)
        if "missing_dummies" not in self._faults:
            ticks, low = np.append(ticks, block.complete_ticks), np.append(low, _DUMMY)
        words = (ticks << 10 | low).astype(np.uint64)  # the shift leaves 54 bits
        if "void_words" in self._faults:
            words = np.insert(words, np.arange(_VOID_EVERY, len(words), _VOID_EVERY), np.uint64(0))
        return words

    def bytes_of(self, block: LightBlock, most_words: int | None = None) -> bytes:
        """The same as the bytes that are sent."""
        words = self.of(block)[:most_words].astype("<u8")
        if self._swapped:
            words = (words << np.uint64(32)) | (words >> np.uint64(32))
        data = words.tobytes()
        if "slip" in self._faults and self._blocks % _SLIP_EVERY == 0:
            middle = len(data) // 2
            data = data[:middle] + data[middle + 2 :]
        return data


class Stream:
    """The reader program's output over a socket. One reader: the newest, for the old one may be gone unheard."""

    def __init__(self, words: Words, light: TaggerWorld, reading_ps: int | None) -> None:
        self._words, self._light, self._reading_ps = words, light, reading_ps
        self._line: Line | None = None

    def join(self, line: Line) -> None:
        if self._line is not None:
            self._line.hang_up()
        self._line = line
        self._light.start(self._deliver, self._reading_ps)
        self._reading_ps = None  # from then on the counter runs on

    def _deliver(self, block: LightBlock) -> bool:
        assert self._line is not None
        if not self._line.is_open:
            self._light.stop()
        return self._line.pour(self._words.bytes_of(block), _BACKLOG_BYTES)


class Reader:
    """The reader program itself: it waits for whoever reads its standard output, and ends with them."""

    def __init__(self, words: Words, loop: Loop, most_words: int) -> None:
        self._words, self._loop = words, loop
        self._left = most_words or sys.maxsize

    def write(self, block: LightBlock) -> bool:
        data = self._words.bytes_of(block, self._left)
        self._left -= len(data) // 8
        try:
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]
        except OSError:  # nobody reads any more
            self._left = 0
        if self._left <= 0:
            self._loop.stop()
        return not data


def _deaf(line: Line, data: bytes) -> None:
    """The stream takes no commands."""


if __name__ == "__main__":
    run_program(main)
