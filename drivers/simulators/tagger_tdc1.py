"""An S-Fifteen TDC1 time tagger from the other end of its USB serial line.

    python -m drivers.simulators.tagger_tdc1 --pty

Commands end with ";", CR LF or LF, in any case; answers end with CR LF. In the mode "timestamp", `counts?` starts a
stream without framing: 32-bit little-endian words, 27 bits of time in 2 ns (it begins again at 0 every 268 ms),
a dummy flag in bit 4, the inputs in the low four bits. The time is 0 when the stream starts (free).

Special faults: "slip" (two bytes missing once a second), "missing_dummies" (0.6 s without a word in every 5 s),
"lost_words" (every 1000th event is missing without a sign).
Source: pyS15 `usb_counter_fpga.py`, Timestamp_TDC1 `usbcount_class.py`. What they do not say (answers to unknown
commands and to HELP, thresholds of NIM and TTL, the coincidence window, what INPKT changes) is ours.
"""

import re
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from drivers.simulators.program import Loop, World, announce, run_program, world_of
from drivers.simulators.tagger_world import TaggerWorld, tagger_arguments
from drivers.simulators.wire import Line, serve_lines
from groundstation.simulation.light import BLOCK_NS, LightBlock

TICK_PS = Fraction(2000)
_TICK_NS = 2
_TURN = 1 << 27  # ticks after which the time begins again at 0
_DUMMY = 1 << 4
_ROLLOVER_DUMMY_TICKS = 3960  # 7920 ns after the turn: usbcount_class.py looks for it there
_USB_WORDS_PER_BLOCK = 125_000_000 * BLOCK_NS // (32 * 10**9)  # 125 Mbit/s
_BACKLOG_BYTES = 1 << 20  # free
_REPLY_LATENCY_S = 0.002  # free
_PAIR_WINDOW_TICKS = 5  # free: 10 ns to either side
_PAIRS = ((0, 2), (0, 3), (1, 2), (1, 3))
_MODES = {"singles": 0, "pairs": 1, "timestamp": 3}
_LEVELS_V = {"nim": -0.5, "ttl": 1.5}  # free
_MOST_MS = 65_535
_MAX_COMMAND = 80
_SLIP_EVERY = 20  # blocks
_LOSE_EVERY = 1000  # events
_SILENT_BLOCKS, _SILENCE_EVERY = range(40, 52), 100
_COMMANDS = ("*IDN?", "*RST", "HELP", "MODE?", *_MODES, "time <ms>", "time?", "counts?", "NIM", "TTL", "NEG <V>")
_HELP = (*_COMMANDS, "POS <V>", "LEVEL?", "REFCLK <0|1|2>", "REFCLK?", "ECLOCK?", "INPKT", "abort")


def main() -> None:
    """Serve the device until told to end."""
    options = tagger_arguments("S-Fifteen TDC1 time tagger").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    light = TaggerWorld(world, loop, options, TICK_PS)
    tagger = Tdc1(world, light)
    address = serve_lines(loop, world.faults, options, tagger.receiver)
    loop.supervise(options)
    announce(address=address, model="S-Fifteen TDC1")
    try:
        loop.run()
    finally:
        light.close()


class Tdc1:
    """The device: its settings, and what it is busy with."""

    def __init__(self, world: World, light: TaggerWorld) -> None:
        self._faults, self._light = world.faults, light
        self._line: Line | None = None  # that asked for the stream or the counts
        self._reset()

    def receiver(self) -> "Commands":
        """What takes the bytes of one line."""
        return Commands(self)

    def _reset(self) -> None:
        self.abort()
        self._mode, self._integration_ms, self._level_v, self._reference = "singles", 1000, -0.5, "0"

    def obey(self, line: Line, name: str, value: str) -> None:
        """One command; `name` in lower case, with its question mark."""
        if name in _MODES and not value:
            self.abort()
            self._mode = name
        elif name in _LEVELS_V and not value:
            self._level_v = _LEVELS_V[name]
        elif name == "time" and value.isdecimal() and int(value) <= _MOST_MS:
            self._integration_ms = int(value)
        elif name in ("neg", "pos") and re.fullmatch(r"[+-]?\d*\.?\d+", value):
            self._level_v = abs(float(value)) * (-1 if name == "neg" else 1)
        elif name == "refclk" and value in ("0", "1", "2"):
            self._reference = value
        elif name == "abort":
            self.abort()
        elif name == "*rst":
            self._reset()
        elif name == "counts?":
            self._start(line)
        elif name != "inpkt":
            line.reply(self._answer(name).encode() + b"\r\n", _REPLY_LATENCY_S)

    def abort(self) -> None:
        """End the stream, or the integration, without a word."""
        self._light.stop()
        if self._line is not None:
            self._line.stop_pouring()
            self._line = None

    def _answer(self, name: str) -> str:
        signed_ms = self._integration_ms - (1 << 16 if self._integration_ms >= 1 << 15 else 0)  # as the device does
        answers = {
            "*idn?": "Optical power meter" if self._faults.wrong_model else "TDC1 simulated",
            "help": "\r\n".join(_HELP),
            "mode?": str(_MODES[self._mode]),
            "time?": str(signed_ms),
            "level?": f"{self._level_v:.3f} V",
            "refclk?": self._reference,
            "eclock?": "1",
        }
        return answers.get(name, f"Unknown command: {name}")

    def _start(self, line: Line) -> None:
        """Begin the stream, or an integration."""
        self.abort()
        self._line = line
        self._blocks, self._events = 0, 0
        self._turns = 0
        self._stop_tick = self._integration_ms * 1_000_000 // _TICK_NS or None
        self._counted: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []
        self._light.start(self._stream if self._mode == "timestamp" else self._count, 0)

    def _stream(self, block: LightBlock) -> bool:
        assert self._line is not None
        ticks, pattern, complete = self._until_stop(block)
        data = self._words(ticks, pattern, complete)
        if self._blocks % _SILENCE_EVERY in _SILENT_BLOCKS and "missing_dummies" in self._faults.special:
            data = b""
        self._blocks += 1
        delivered = bool(data) and self._line.pour(data, _BACKLOG_BYTES)
        if complete == self._stop_tick or not self._line.is_open:
            self._light.stop()
        return delivered

    def _until_stop(self, block: LightBlock) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """What of a block belongs to the stream or integration, and how far its time has come."""
        if self._stop_tick is None or block.complete_ticks < self._stop_tick:
            return block.ticks, block.pattern, block.complete_ticks
        n = int(np.searchsorted(block.ticks, self._stop_tick))
        return block.ticks[:n], block.pattern[:n], self._stop_tick

    def _words(self, ticks: NDArray[np.int64], pattern: NDArray[np.uint8], complete: int) -> bytes:
        if "lost_words" in self._faults.special:
            kept = (self._events + np.arange(ticks.size)) % _LOSE_EVERY != _LOSE_EVERY - 1
            self._events += ticks.size
            ticks, pattern = ticks[kept], pattern[kept]
        turns = (complete - _ROLLOVER_DUMMY_TICKS) // _TURN
        dummies = np.arange(self._turns + 1, turns + 1) * _TURN + _ROLLOVER_DUMMY_TICKS
        self._turns = max(self._turns, turns)
        ticks = np.concatenate((ticks, dummies, [complete]))
        low = np.concatenate((pattern, np.full(dummies.size + 1, _DUMMY)))
        order = np.argsort(ticks, kind="stable")[:_USB_WORDS_PER_BLOCK]
        data: bytes = ((ticks % _TURN) << 5 | low)[order].astype("<u4").tobytes()
        if "slip" in self._faults.special and self._blocks % _SLIP_EVERY == _SLIP_EVERY - 1:
            middle = len(data) // 2
            data = data[:middle] + data[middle + 2 :]
        return data

    def _count(self, block: LightBlock) -> bool:
        assert self._line is not None
        ticks, pattern, complete = self._until_stop(block)
        self._counted.append((ticks, pattern))
        if complete == self._stop_tick:
            self._light.stop()
            self._line.reply(" ".join(map(str, self._sums())).encode() + b"\r\n", _REPLY_LATENCY_S)
        return True

    def _sums(self) -> list[int]:
        """The four singles and, in the mode "pairs", the four coincidences."""
        ticks = np.concatenate([part[0] for part in self._counted])
        pattern = np.concatenate([part[1] for part in self._counted])
        inputs = [ticks[(pattern >> bit & 1) != 0] for bit in range(4)]
        pairs = _PAIRS if self._mode == "pairs" else ()
        return [times.size for times in inputs] + [_coincidences(inputs[a], inputs[b]) for a, b in pairs]


def _coincidences(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """How many of `first` have one of `second` within the window."""
    begin = np.searchsorted(second, first - _PAIR_WINDOW_TICKS)
    end = np.searchsorted(second, first + _PAIR_WINDOW_TICKS, "right")
    return int((end > begin).sum())


class Commands:
    """Cuts the bytes of one line into commands."""

    def __init__(self, tagger: Tdc1) -> None:
        self._tagger = tagger
        self._received = b""

    def __call__(self, line: Line, data: bytes) -> None:
        *commands, rest = re.split(rb"[;\r\n]", self._received + data)
        self._received = rest[-_MAX_COMMAND:]
        for command in commands:
            text = command.decode("ascii", "replace").strip().lower()
            # The older vendor driver writes TIME900, without a space.
            parts = re.fullmatch(r"(\*?[a-z0-9]*?\??)\s*([+-]?[\d.]*)", text)
            if text:
                self._tagger.obey(line, *(parts.groups() if parts else (text, "")))


if __name__ == "__main__":
    run_program(main)
