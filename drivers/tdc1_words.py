"""The event stream of the S-Fifteen TDC1: 32-bit words to events, whatever the bytes suffer on their way.

One word is a u32, little-endian: bits 31..5 the time in 2 ns, which begins again at 0 every 2^27 ticks (0.268 s, a
turn), bit 4 a dummy (time without an event), bits 3..0 the set of inputs that fired. There is no framing, and real
devices lose two bytes now and then. Source: pyS15 `usb_counter_fpga.py`, `read_timestamps_bin` and `_bin3`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.instruments import PatternBlock

Words = NDArray[np.uint32]

TICK_PS = 2000
TURN_TICKS = 1 << 27
TURN_PS = TURN_TICKS * TICK_PS
_MASK = TURN_TICKS - 1
_DUMMY = 0x10
_SURE_STEP_TICKS = 1 << 22  # 8 ms: a word that comes later is looked at twice; of misaligned words, 1 in 64 does not
_SHORT_STEP_TICKS = 1 << 17  # 0.26 ms: from here on, a step is doubtful when it is long for what came before it
_LOCAL_STEPS, _LONG = 8, 4  # longer than so many times the time of so many steps before it: by chance, 1 in 400,000
_LOOK_BACK = 3  # so many words before a doubtful one are looked at again: the slip may lie before it
_WINDOW_BYTES = 48  # what a doubtful word is judged by: those before it, itself, and at least 5 words behind any repair
_IMPOSSIBLE, _DAMAGED = 10.0, 8.0  # minus the logarithm of how often a word is so, and a window is damaged
_LONGEST_REPAIR = 8  # bytes; what a slip of 1 to 3 bytes leaves of the two words that it may touch
_GARBAGE_BYTES = 16  # dropped at once where no repair makes words
_BLOCK_WORDS = 1 << 15  # the arrays of a block stay in the cache (tests/benchmarks/bench_decoding.py)


class _Run(NamedTuple):
    """How well a run of words looks: impossible words, steps in time between the others, and their sum."""

    impossible: int
    steps: int
    span_ticks: int

    @property
    def badness(self) -> float:
        """Minus the logarithm of its probability, but for a constant.

        Steps are exponential with a mean that nobody knows beforehand, so n steps in a span have the probability
        span^-n; those which a repair or an impossible word leaves out of a window count as a turn each.
        """
        mean_ticks = (self.span_ticks + 1) / max(1, self.steps)
        left_out = _WINDOW_BYTES // 4 - self.steps
        return self.steps * math.log(mean_ticks) + left_out * math.log(TURN_TICKS) + _IMPOSSIBLE * self.impossible


class _Repair(NamedTuple):
    """Keep so many words of a window, then drop so many bytes."""

    keep_words: int
    drop_bytes: int
    run: _Run


class Tdc1Decoder:
    """Bytes of the stream to events, whatever the pieces in which the bytes come (sans-IO).

    A word whose time is less than that of the word before, dummies included, begins a new turn; so does a dummy with
    the same time as the dummy before it, for in the dark they come once a turn. A word is taken when its time lies at
    most 8 ms after the one before and no
    surprise after those before, its low bits are those of an event or of a dummy, and the three words behind it
    are no worse. Where a word is doubtful, 48 bytes are read in all ways that drop 1 to 8 bytes, and the likeliest is
    believed: few impossible low bits, short steps, and no damage unless that explains much.
    The decoder cannot know of turns in which nothing came; who knows them from elsewhere calls `add_turns`.
    """

    def __init__(self) -> None:
        self._rest = b""  # undecided
        self._last: int | None = None  # the last word that was taken
        self._turns = 0
        self._recent = np.empty(0, np.uint32)  # times of the last words that were taken
        self._drops: dict[str, int] = {}  # why -> bytes, since the last block
        self.words = 0
        """Words taken so far; dummies count."""
        self.dropped_bytes = 0
        """Bytes that belonged to no word."""
        self.slips = 0
        """Repairs that moved the word boundary."""

    @property
    def latest_ps(self) -> int:
        """Time of the last word taken, -1 before the first."""
        return -1 if self._last is None else ((self._last >> 5) + self._turns * TURN_TICKS) * TICK_PS

    @property
    def heard_ps(self) -> int:
        """Time of the last word that came, as far as can be told before it is taken; -1 before the first."""
        if self._last is None:
            return -1
        last, turns = self._last, self._turns
        for word in np.frombuffer(self._rest, "<u4", len(self._rest) // 4).tolist():
            if _is_possible(word, last):
                turns += _turns_between(last, word)
                last = word
        return ((last >> 5) + turns * TURN_TICKS) * TICK_PS

    def add_turns(self, turns: int) -> None:
        """The counter has turned so many times more than the words tell."""
        self._turns += turns

    def feed(self, data: bytes) -> PatternBlock:
        """Decode what `data` completes; three words are held until others follow. Times never decrease."""
        stream = self._rest + data if self._rest else data
        room = len(stream) // 4
        times, patterns = np.empty(room, np.int64), np.empty(room, np.uint8)
        filled = start = 0
        while len(stream) - start >= 4 * (_LOOK_BACK + 1):
            words = np.frombuffer(stream, "<u4", min(_BLOCK_WORDS, (len(stream) - start) // 4), start)
            sure = 0 if self._last is None else self._sure(words, self._last)
            taken = max(0, sure - _LOOK_BACK)
            if taken:
                filled += self._take(words[:taken], times[filled:], patterns[filled:])
                start += 4 * taken
            if sure == len(words):
                continue
            if len(stream) - start < _WINDOW_BYTES:
                break
            kept, dropped = self._examine(stream[start : start + _WINDOW_BYTES], sure - taken)
            if kept:
                words = np.frombuffer(stream, "<u4", kept, start)
                filled += self._take(words, times[filled:], patterns[filled:])
            start += 4 * kept + dropped
        self._rest = stream[start:]
        return self._block(times, patterns, filled)

    def settle(self) -> PatternBlock:
        """Decode what is held, for nothing has followed for a long while; impossible words are dropped."""
        words = np.frombuffer(self._rest, "<u4", len(self._rest) // 4).tolist()
        if self._last is None and _run(words, None).impossible:
            words = []
        self._rest = self._rest[4 * len(words) :]
        taken: list[int] = []
        for word in words:
            if _is_possible(word, taken[-1] if taken else self._last):
                taken.append(word)
            else:
                self._drop(4, "dropped words that are none")
        times, patterns = np.empty(len(taken), np.int64), np.empty(len(taken), np.uint8)
        filled = self._take(np.array(taken, np.uint32), times, patterns) if taken else 0
        return self._block(times, patterns, filled)

    def _sure(self, words: Words, last: int) -> int:
        """How many words stand before the first doubtful one."""
        ticks: Words = np.right_shift(words, np.uint32(5))
        steps: Words = np.empty(len(ticks), np.uint32)
        steps[0] = (int(ticks[0]) - (last >> 5)) & _MASK
        np.subtract(ticks[1:], ticks[:-1], out=steps[1:])
        np.bitwise_and(steps, np.uint32(_MASK), out=steps)
        low = words.view(np.uint8)[::4] & 0x1F
        if low.max() < _DUMMY and low.min() > 0 and steps.max() <= _SHORT_STEP_TICKS:
            return len(words)
        doubtful = (steps > _SURE_STEP_TICKS) | (low > _DUMMY) | (low == 0) | self._is_long(steps, ticks)
        still_dummy = (steps == 0) & (low == _DUMMY)
        if still_dummy.any():
            still_dummy[1:] &= low[:-1] == _DUMMY
            still_dummy[0] &= last & 0x1F == _DUMMY
            doubtful |= still_dummy
        return int(doubtful.argmax()) if doubtful.any() else len(words)

    def _is_long(self, steps: Words, ticks: Words) -> NDArray[np.bool_]:
        """Whether each step is long for the rate of its time: bytes lost at high rates look like a lower rate."""
        known = np.concatenate([self._recent, ticks])
        before = (known[_LOCAL_STEPS:-1] - known[: -_LOCAL_STEPS - 1]) & _MASK  # of words with so many before them
        long = np.zeros(len(steps), np.bool_)
        n = min(len(steps), len(before))
        if n:
            usual = np.maximum(before[-n:] * _LONG, _SHORT_STEP_TICKS)  # doubtful by itself where that overflows
            long[-n:] = steps[-n:] > usual
        return long

    def _take(self, words: Words, times: NDArray[np.int64], patterns: NDArray[np.uint8]) -> int:
        """Write the events among words into the output and remember the last word; how many events."""
        ticks = words >> 5
        low = words.view(np.uint8)[::4] & 0x1F
        out = times[: len(words)]
        np.multiply(ticks, TICK_PS, out=out, dtype=np.int64)
        if self._turns:
            out += self._turns * TURN_PS
        turned = ticks[1:] < ticks[:-1]
        if low.max() >= _DUMMY:
            turned |= (words[1:] == words[:-1]) & (low[1:] == _DUMMY)
        begins = (np.flatnonzero(turned) + 1).tolist() if turned.any() else []
        if self._last is not None and _turns_between(self._last, int(words[0])):
            begins.insert(0, 0)
        for begin in begins:
            out[begin:] += TURN_PS
        self._turns += len(begins)
        self._last = int(words[-1])
        self._recent = np.concatenate([self._recent, ticks[-_LOCAL_STEPS - 1 :]])[-_LOCAL_STEPS - 1 :]
        self.words += len(words)
        if low.max() < _DUMMY:
            patterns[: len(low)] = low
            return len(low)
        events = np.flatnonzero(low < _DUMMY)
        times[: len(events)] = out[events]
        patterns[: len(events)] = low[events]
        return len(events)

    def _examine(self, window: bytes, doubtful: int) -> tuple[int, int]:
        """How many words of the window to take and how many bytes then to drop; `doubtful` is the first such word."""
        as_it_is = _Repair(doubtful + 1, 0, _run(_words_of(window, 0, 0), self._last))
        if self._last is None:  # the stream has just begun, perhaps in the middle of a word
            offsets = [_Repair(0, drop, _run(_words_of(window, 0, drop), None)) for drop in range(4)]
            best = min(offsets, key=lambda repair: repair.run.badness)
            best = best if best.drop_bytes else as_it_is
        else:
            repairs = [
                _Repair(keep, drop, _run(_words_of(window, keep, drop), self._last))
                for keep in range(doubtful + 1)
                for drop in range(1, _LONGEST_REPAIR + 1)
            ]
            best = _safest(repairs)
            best = best if best.run.badness + _DAMAGED < as_it_is.run.badness else as_it_is
        if best.run.impossible > 1:
            self._drop(_GARBAGE_BYTES, "dropped bytes that make no words")
            return 0, _GARBAGE_BYTES
        if best is as_it_is:
            words = _words_of(window, 0, 0)
            before = words[doubtful - 1] if doubtful else self._last
            if not _is_possible(words[doubtful], before):
                return doubtful, self._drop(4, "dropped words that are none")
            return doubtful + 1, 0
        if best.drop_bytes % 4 == 0:
            return best.keep_words, self._drop(best.drop_bytes, "dropped words whose times make no sense")
        self.slips += self._last is not None
        drop_bytes = best.drop_bytes + (4 if self._last is not None else 0)  # the next one may be made of two
        return best.keep_words, self._drop(drop_bytes, "repaired a slip: dropped bytes to find the words again")

    def _drop(self, n_bytes: int, why: str) -> int:
        self._drops[why] = self._drops.get(why, 0) + n_bytes
        self.dropped_bytes += n_bytes
        return n_bytes

    def _block(self, times: NDArray[np.int64], patterns: NDArray[np.uint8], filled: int) -> PatternBlock:
        notes = tuple(f"{why} ({n_bytes} bytes before word {self.words})" for why, n_bytes in self._drops.items())
        self._drops = {}
        if filled < len(times) // 2:  # else a large buffer would be kept for a few events
            times, patterns = times[:filled].copy(), patterns[:filled].copy()
        return PatternBlock(times[:filled], patterns[:filled], self.latest_ps, None, notes)


def _words_of(window: bytes, keep: int, drop: int) -> list[int]:
    """The words of a window without the bytes that a repair drops."""
    if drop:
        window = window[: 4 * keep] + window[4 * keep + drop :]
    words: list[int] = np.frombuffer(window, "<u4", len(window) // 4).tolist()
    return words


def _safest(repairs: Sequence[_Repair]) -> _Repair:
    """The likeliest repair; of several that are as likely, one that takes no word which another drops."""
    likeliest = min(repair.run.badness for repair in repairs)
    tied = [repair for repair in repairs if repair.run.badness == likeliest]
    shifts = {repair.drop_bytes % 4 for repair in tied}
    if len(shifts) > 1:
        return tied[0]
    keep = min(repair.keep_words for repair in tied)
    end = max(4 * repair.keep_words + repair.drop_bytes for repair in tied)
    return _Repair(keep, end - 4 * keep, tied[0].run)


def _run(words: Sequence[int], last: int | None) -> _Run:
    impossible = steps = span = 0
    for word in words:
        if not _is_possible(word, last):
            impossible += 1
            continue
        if last is not None:
            steps += 1
            span += (word >> 5) - (last >> 5) + TURN_TICKS * _turns_between(last, word)
        last = word
    return _Run(impossible, steps, span)


def _turns_between(before: int, word: int) -> int:
    """Turns that begin between two words in succession: 0 or 1."""
    return int(word >> 5 < before >> 5 or (word == before and word & 0x1F == _DUMMY))


def _is_possible(word: int, before: int | None) -> bool:
    """An event has inputs, a dummy none; and only a dummy can come twice."""
    low = word & 0x1F
    return 0 < low <= _DUMMY and (word != before or low == _DUMMY)
