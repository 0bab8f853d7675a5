"""The a1 event stream of S-Fifteen's TDC2 (`readevents7 -a 1`): 64-bit words to events, whatever the bytes suffer.

One word is a u64, little-endian: bits 63..10 the time in 1/256 ns, bit 4 a dummy (time without an event), bits 3..0 the
set of inputs that fired; an all-zero word is void. Source: pyS15 `timestamp7.py`; qcrypto `timestamp7/readevents7.c`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.errors import WireError
from groundstation.instruments import PatternBlock

Words = NDArray[np.int64]

RESOLUTION_PS = 1000 / 256
_TICK_BITS = 54
_TICK_MASK = (1 << _TICK_BITS) - 1
WRAP_PS = (1 << (_TICK_BITS - 5)) * 125  # 2^54 ticks, exactly
_MAX_STEP_TICKS = 1 << 40  # 4.3 s: the beacon, the 1PPS and the dummies come far more often
_SURE_STEP_TICKS = 1 << 32  # 17 ms: a longer step counts only when the next word confirms it
RUN_WORDS = 8  # as many words must agree before a new alignment is believed
_WINDOW_WORDS = 1 << 11  # in which they are looked for, with void words in between
_GARBAGE_BYTES = 1024  # that many without a single word are no slip
_JUMPS = "dropped words whose times go back or jump"
_BLOCK_WORDS = 1 << 14  # 128 kB stay in the cache; measured 200 M words/s in reads of 1 MB


class _Alignment(NamedTuple):
    """Where in a run of suspect bytes the words begin, and how well they look."""

    continues: bool  # its first time follows the last good one
    low_bits_steady: bool
    span_ticks: int
    offset_bytes: int


class A1Decoder:
    """Bytes of the a1 stream to events, whatever the pieces in which the bytes come (sans-IO).

    A word is plausible when its time lies 0 to 4.3 s after that of the last plausible one, counted modulo
    2^54 ticks (19.5 h), which unwraps the time; when it lies more than 17 ms after, the word behind it must
    be plausible as well. A word that is not plausible is dropped and noted. When 8 words in succession are
    not (as at the very start), all 8 byte offsets are tried: the one at which the words are plausible among
    themselves wins, one that continues the last time before all others; the bytes before it are dropped and
    noted, and in mid-stream one word more, which may be made of two. A run that agrees with itself but lies
    in the past is dropped when it is less than 4.3 s back (the last good time was itself wrong); otherwise
    the device's clock was restarted, its times mean nothing any more, and every further `feed` raises
    WireError.

    `readevents7 -D` adds a skew to the events of a single input after the tagger has put them in order. The decoder
    takes the known skews off, decodes, adds them again and sorts; `latest_ps` holds back what may still come.
    """

    def __init__(self, skew_ticks: Sequence[int] = (0, 0, 0, 0)) -> None:
        """`skew_ticks`: what the reader adds to the events of each input, in 1/256 ns."""
        self._skews = _Skews(skew_ticks) if any(skew_ticks) else None
        self._rest = b""  # undecided bytes: a part of a word, or a run of suspect words
        self._last_tick: int | None = None  # of the last plausible word, not unwrapped
        self._wraps = 0
        self._restarted = ""
        self._notes: list[str] = []
        self._drops: dict[str, int] = {}  # why -> bytes, since the last block
        self.first_tick: int | None = None
        """Time of the first plausible word in 1/256 ns; dummies count."""
        self.start_offset_bytes = 0
        """How far inside a word the stream began."""
        self.words = 0
        """Plausible words so far; dummies count."""
        self.dropped_bytes = 0
        """Bytes that belonged to no plausible word; void words do not count."""

    @property
    def latest_ps(self) -> int:
        """Time of the last plausible word, -1 before the first."""
        if self._last_tick is None:
            return -1
        earliest = self._skews.earliest_ticks if self._skews else 0
        return (((self._last_tick + earliest) * 125) >> 5) + self._wraps * WRAP_PS

    def feed(self, data: bytes) -> PatternBlock:
        """Decode what `data` completes. Times are floor(ticks x 125 / 32) ps, unwrapped, never decreasing.

        Raises WireError once the device's clock was restarted.
        """
        if self._restarted:
            raise WireError(self._restarted)
        stream = self._rest + data if self._rest else data
        room = len(stream) // 8
        times, patterns = np.empty(room, np.int64), np.empty(room, np.uint8)
        filled, start, block = 0, 0, _BLOCK_WORDS
        while len(stream) - start >= 8:
            words = np.frombuffer(stream, "<i8", min(block, (len(stream) - start) // 8), start)
            used, events = self._accept_plausible(words, times[filled:], patterns[filled:])
            filled += events
            start += 8 * used
            block = _BLOCK_WORDS
            if used < len(words):
                block = _WINDOW_WORDS  # where one word is bad, the next may be
                if used:
                    continue
                dropped = self._examine_suspects(stream, start)
                if dropped is None:
                    break
                start += dropped
        self._rest = b"" if self._restarted else stream[start:]
        times, patterns = _trimmed(times, patterns, filled)
        if self._skews:
            times, patterns = self._skews.in_order(times, patterns, self.latest_ps)
        return PatternBlock(times, patterns, self.latest_ps, None, self._take_notes())

    def _accept_plausible(self, words: Words, times: Words, patterns: NDArray[np.uint8]) -> tuple[int, int]:
        """Decode the plausible words that `words` begins with; how many words, how many events."""
        if self._last_tick is None:
            return (0, 0) if words[0] else (int(_leading_voids(words)), 0)
        ticks = self._ticks_of(words)
        steps = np.empty_like(ticks)
        steps[0] = ticks[0] - self._last_tick
        np.subtract(ticks[1:], ticks[:-1], out=steps[1:])
        if ticks[0] and steps.min() >= 0 and steps.max() <= _SURE_STEP_TICKS:  # then no word is void either
            return len(words), self._emit(words, ticks, times, patterns)
        if (voids := words == 0).any():
            return self._accept_without_voids(words, voids, times, patterns)
        after = steps & _TICK_MASK
        plausible, confirmed = after <= _MAX_STEP_TICKS, after <= _SURE_STEP_TICKS
        confirmed[:-1] |= plausible[:-1] & plausible[1:]
        good = len(words) if confirmed.all() else int(np.argmin(confirmed))
        wraps = np.flatnonzero(steps[:good] < 0).tolist()  # where the 54 bits wrapped around
        events = 0
        for wrapped, (begin, end) in enumerate(pairwise((0, *wraps, good))):
            self._wraps += wrapped > 0
            if begin < end:
                part = slice(begin, end)
                events += self._emit(words[part], ticks[part], times[events:], patterns[events:])
        return good, events

    def _accept_without_voids(
        self, words: Words, voids: NDArray[np.bool_], times: Words, patterns: NDArray[np.uint8]
    ) -> tuple[int, int]:
        where = np.flatnonzero(~voids)
        if len(where) == 0:
            return len(words), 0
        used, events = self._accept_plausible(words[where], times, patterns)
        return (len(words) if used == len(where) else int(where[used])), events

    def _emit(self, words: Words, ticks: Words, times: Words, patterns: NDArray[np.uint8]) -> int:
        """Write the events among plausible words into the output and remember the last time."""
        low = words.view(np.uint8)[::8] & 0x1F
        if low.max() >= 0x10:  # at least one dummy
            event = low < 0x10
            low, ticks_of_events = low[event], ticks[event]
        else:
            ticks_of_events = ticks
        if self._skews:
            ticks_of_events = ticks_of_events + self._skews.of_pattern.take(low)
        out = times[: len(low)]
        np.multiply(ticks_of_events, 125, out=out)  # below 2^61
        np.right_shift(out, 5, out=out)
        if self._wraps:
            out += self._wraps * WRAP_PS
        patterns[: len(low)] = low
        self._last_tick = int(ticks[-1])
        self.words += len(words)
        if self.first_tick is None:
            self.first_tick = int(ticks[0])
        return len(low)

    def _is_confirmed(self, ticks: list[int]) -> bool:
        """Whether the first word is plausible, by itself or because the second follows it."""
        if not ticks or not self._is_plausible(ticks[0]):
            return False
        if (ticks[0] - (self._last_tick or 0)) & _TICK_MASK <= _SURE_STEP_TICKS:
            return True
        return len(ticks) == 2 and (ticks[1] - ticks[0]) & _TICK_MASK <= _MAX_STEP_TICKS

    def _is_plausible(self, tick: int) -> bool:
        return self._last_tick is not None and (tick - self._last_tick) & _TICK_MASK <= _MAX_STEP_TICKS

    def _examine_suspects(self, stream: bytes, start: int) -> int | None:
        """How many bytes to drop from `start`, where a word is not plausible; None to wait for more bytes."""
        window = np.frombuffer(stream, "<i8", min(_WINDOW_WORDS, (len(stream) - start) // 8), start)
        where = np.flatnonzero(window)[: RUN_WORDS + 1].tolist()
        ticks = self._ticks_of(window[where]).tolist()
        for suspects, index in enumerate(where[:RUN_WORDS]):
            if self._is_plausible(ticks[suspects]):
                if self._is_confirmed(ticks[suspects : suspects + 2]):
                    return self._drop(8 * index, "dropped words whose times go back or jump")
                if suspects + 1 == len(where):
                    break  # the next word decides
            if suspects + 1 == RUN_WORDS:
                return self._realign(stream[start : start + 8 * (index + 1)])
        if len(window) == _WINDOW_WORDS:
            return self._drop(8 * len(window), "dropped bytes that hold hardly any words")
        return None

    def _realign(self, run: bytes) -> int | None:
        """Find where words begin in a run of suspects, take the time from there. How many bytes to drop."""
        found = [a for offset in range(8) if (a := self._alignment(run, offset)) is not None]
        if not found:
            return self._drop(len(run), "dropped bytes that make no words of the a1 format")
        best = min(found, key=lambda a: (not a.continues, not a.low_bits_steady, a.span_ticks, a.offset_bytes))
        skipped = best.offset_bytes
        if skipped and self._last_tick is not None:
            skipped += 8  # after a slip, the first word may be made of two
        first = self._tick_at(run, skipped)
        if self._last_tick is None:
            self.start_offset_bytes = best.offset_bytes
        elif not best.continues:
            if (self._last_tick - first) & _TICK_MASK <= _MAX_STEP_TICKS:
                return self._drop(len(run), "dropped words older than the last good one")
            if first < self._last_tick:
                self._restarted = (
                    f"the tagger's clock went back from {self._last_tick / 256e9:.3f} s to "
                    f"{first / 256e9:.3f} s: it was restarted; connect again and begin a new recording"
                )
                return None
            silence_s = (first - self._last_tick) / 256e9
            self._notes.append(f"the tagger was silent for {silence_s:.1f} s of its time")
        elif first < self._last_tick:
            self._wraps += 1
        self._last_tick = first  # as if the word before had carried the same time: the next step is 0
        return self._drop(skipped, "dropped bytes to find the words again") if skipped else 0

    def _alignment(self, run: bytes, offset: int) -> _Alignment | None:
        """The words of `run` from byte `offset`, if their times are plausible among themselves."""
        words = np.frombuffer(run, "<i8", (len(run) - offset) // 8, offset)
        words = words[words != 0]
        ticks = self._ticks_of(words)
        steps = np.diff(ticks) & _TICK_MASK
        if len(words) < RUN_WORDS - 1 or steps.max() > _MAX_STEP_TICKS:
            return None
        # Bits 9..5 are constant flags, and every word is a dummy or has an input; a byte slip breaks that.
        low = words & 0x3FF
        steady = bool(np.all(low >> 5 == low[0] >> 5) and np.all(low & 0x1F))
        return _Alignment(self._is_plausible(int(ticks[0])), steady, int(steps.sum()), offset)

    def _ticks_of(self, words: Words) -> Words:
        """When the tagger saw the events, modulo 2^54."""
        # The sign bit comes along in an arithmetic shift; the mask takes it off.
        ticks = words >> 10
        if self._skews:
            ticks -= self._skews.of_pattern.take(words.view(np.uint8)[::8] & 0x1F)
        ticks &= _TICK_MASK
        return ticks

    def _tick_at(self, run: bytes, offset: int) -> int:
        """Time of the first word of `run[offset:]` that is not void."""
        words = np.frombuffer(run, "<i8", (len(run) - offset) // 8, offset)
        return int(self._ticks_of(words[words != 0][:1])[0])  # an alignment has words

    def _drop(self, n_bytes: int, why: str) -> int:
        self._drops[why] = self._drops.get(why, 0) + n_bytes
        self.dropped_bytes += n_bytes
        return n_bytes

    def _take_notes(self) -> tuple[str, ...]:
        drops = (f"{why} ({n_bytes} bytes before word {self.words})" for why, n_bytes in self._drops.items())
        notes = (*self._notes, *drops)
        self._notes, self._drops = [], {}
        return notes


def _leading_voids(words: Words) -> int:
    present = np.flatnonzero(words)
    return int(present[0]) if len(present) else len(words)


def _trimmed(times: Words, patterns: NDArray[np.uint8], n: int) -> tuple[Words, NDArray[np.uint8]]:
    """The first `n` of both; copied when most of the buffer would be kept alive for nothing."""
    if n < len(times) // 2:
        return times[:n].copy(), patterns[:n].copy()
    return times[:n], patterns[:n]


class _Skews:
    """Events in order again after each input's were shifted."""

    def __init__(self, skew_ticks: Sequence[int]) -> None:
        self.of_pattern = np.zeros(32, np.int64)  # the reader shifts the events of one input only
        for index, ticks in enumerate(skew_ticks):
            self.of_pattern[1 << index] = ticks
        self.earliest_ticks = int(self.of_pattern.min())
        self._times, self._patterns = np.empty(0, np.int64), np.empty(0, np.uint8)

    def in_order(self, times: Words, patterns: NDArray[np.uint8], latest_ps: int) -> tuple[Words, NDArray[np.uint8]]:
        """What is no later than `latest_ps`, after which nothing older comes; the rest waits."""
        times, patterns = np.concatenate([self._times, times]), np.concatenate([self._patterns, patterns])
        order = np.argsort(times, kind="stable")
        times, patterns = times[order], patterns[order]
        ready = int(np.searchsorted(times, latest_ps, side="right"))
        self._times, self._patterns = times[ready:], patterns[ready:]
        return times[:ready], patterns[:ready]
