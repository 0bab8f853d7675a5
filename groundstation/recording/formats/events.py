"""S-Fifteen and CQT events: a1 (binary), its legacy word order, and the hexadecimal twins a0 and a2.

One event is 64 bits: bits 63..10 the time in 1/256 ns, bit 4 a dummy (a time without an event), bits 3..0 the set
of inputs that fired; zero is void. a1 is little-endian; the legacy order, also that of the older CQT cards, has
the two 32-bit halves swapped; a0 has one half a line, low half first; a2 one event a line. The time wraps after
19.5 h. Sources: qcrypto `readevents7.c` and `filespec.txt`, fpfind `parse_timestamps.py`.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import (
    BLOCK_RECORDS,
    About,
    TagFile,
    Unwrapper,
    from_patterns,
    in_time_order,
    records,
    require_positive,
    to_patterns,
    to_ps,
    to_ticks,
)

UNIT_PS = Fraction(125, 32)
INPUTS = {1: "1", 2: "2", 3: "3", 4: "4"}
_TIME_BITS = 54
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
_PROBE_WORDS = 1 << 13
_ODD = 0.01  # a file with more odd words than this is not taken for one of events

Words = NDArray[np.uint64]


def recognises_a1(head: bytes) -> bool:
    """Whether in one of the word orders hardly any event is odd."""
    return any(_looks_right(words) for words in _both_orders(head))


def recognises_a0(head: bytes) -> bool:
    """Whether the lines are 8 hexadecimal digits and make events."""
    lines = _complete_lines(head)
    words = _text_words(lines[: len(lines) // 2 * 2], 8)
    return words is not None and _looks_right(words)


def recognises_a2(head: bytes) -> bool:
    """Whether the lines are 16 hexadecimal digits and make events."""
    words = _text_words(_complete_lines(head), 16)
    return words is not None and _looks_right(words)


def read_a1(path: Path) -> TagFile:
    """Read a1 in whichever word order the times go forward and every event has an input."""
    with path.open("rb") as file:
        current, legacy = (_oddities(words) for words in _both_orders(file.read(8 * _PROBE_WORDS)))
    return read_a1_legacy(path) if legacy < current else _read(path, "a1", "a1")


def read_a1_legacy(path: Path) -> TagFile:
    """Read a1 with swapped halves (`-X`), which is also the raw event of the older CQT cards."""
    return _read(path, "a1-legacy", "a1 in the legacy word order")


def read_a0(path: Path) -> TagFile:
    """Read one half of an event a line, the low half first."""
    return _read(path, "a0", "a0")


def read_a2(path: Path) -> TagFile:
    """Read one event a line."""
    return _read(path, "a2", "a2")


def write_a1(path: Path, source: TagFile) -> None:
    """Write channels 1 to 4; tags at one time, channels rising, share an event."""
    with path.open("wb") as file:
        for words in _words_of(source):
            file.write(words.astype("<u8").tobytes())


def write_a1_legacy(path: Path, source: TagFile) -> None:
    """The same with swapped halves."""
    with path.open("wb") as file:
        for words in _words_of(source):
            file.write(_swapped(words).astype("<u8").tobytes())


def write_a0(path: Path, source: TagFile) -> None:
    """The same as text, 8 digits a line."""
    with path.open("w", encoding="ascii") as file:
        for words in _words_of(source):
            file.writelines(f"{word & 0xFFFFFFFF:08x}\n{word >> 32:08x}\n" for word in words.tolist())


def write_a2(path: Path, source: TagFile) -> None:
    """The same as text, 16 digits a line."""
    with path.open("w", encoding="ascii") as file:
        for words in _words_of(source):
            file.writelines(f"{word:016x}\n" for word in words.tolist())


def words_from(ticks: NDArray[np.int64], pattern: NDArray[np.uint8]) -> Words:
    """Events from times in 1/256 ns, which wrap, and sets of inputs."""
    time = (ticks & ((1 << _TIME_BITS) - 1)).astype(np.uint64)
    return (time << np.uint64(10)) | pattern


def ticks_of(words: Words) -> NDArray[np.int64]:
    """Times in 1/256 ns, as counted."""
    return (words >> np.uint64(10)).astype(np.int64)


def _read(path: Path, name: str, what: str) -> TagFile:
    about = About(name, float(UNIT_PS), dict(INPUTS))
    return TagFile(about, in_time_order(_blocks(path, about), about, f"{path}, read as {what},"))


def _blocks(path: Path, about: About) -> Iterator[TagBlock]:
    unwrapper = Unwrapper(_TIME_BITS)
    dummies = 0
    for words in _words_in(path, about):
        words = words if words.all() else words[words != 0]
        ticks = unwrapper.feed(ticks_of(words))
        low = words.astype(np.uint8) & np.uint8(0x1F)
        if low.size and low.max() > 0xF:
            events = np.flatnonzero(low <= 0xF)
            dummies += low.size - events.size
            ticks, low = ticks[events], low[events]
        tags = from_patterns(ticks, low, about)
        yield TagBlock(to_ps(tags.time_ps, UNIT_PS, str(path)), tags.channel)
    if dummies:
        about.notes.append(f"{dummies} dummy events only carried the time onward")


def _words_in(path: Path, about: About) -> Iterator[Words]:
    if about.format in ("a1", "a1-legacy"):
        for words in records(path, np.dtype("<u8"), about):
            yield words if about.format == "a1" else _swapped(words)
        return
    digits = 8 if about.format == "a0" else 16
    with path.open("rb") as file:
        while lines := file.readlines(BLOCK_RECORDS * (digits + 1)):
            if digits == 8 and len(lines) % 2:
                lines += [line for line in (file.readline(),) if line]
            yield _hexadecimal(path, lines, digits, about)


def _hexadecimal(path: Path, lines: list[bytes], digits: int, about: About) -> Words:
    lines = [line.strip() for line in lines]
    lines = [line for line in lines if line]
    if lines and (len(lines[-1]) < digits or (digits == 8 and len(lines) % 2)):
        about.notes.append("the file ends inside an event, which was left out")
        lines = lines[: (len(lines) - 1) // 2 * 2] if digits == 8 else lines[:-1]
    words = _text_words(lines, digits)
    if words is None:
        raise BadInput(f"{path} is not of format {about.format}: not every line is {digits} hexadecimal digits")
    return words


def _text_words(lines: list[bytes], digits: int) -> Words | None:
    """Events of whole lines, or None if they are anything else."""
    text = b"".join(lines)
    if len(text) != digits * len(lines) or not _HEXADECIMAL.issuperset(text):
        return None
    halves = np.frombuffer(bytes.fromhex(text.decode("ascii")), ">u8" if digits == 16 else ">u4").astype(np.uint64)
    return halves if digits == 16 else halves[0::2] | (halves[1::2] << np.uint64(32))


def _complete_lines(head: bytes) -> list[bytes]:
    lines = head.split(b"\n")
    return [line.strip() for line in (lines[:-1] or lines) if line.strip()]


def _words_of(source: TagFile) -> Iterator[Words]:
    for block in source.blocks:
        require_positive(block.time_ps, "this format")
        yield words_from(*to_patterns(to_ticks(block.time_ps, UNIT_PS), block.channel))


def _swapped(words: Words) -> Words:
    return (words << np.uint64(32)) | (words >> np.uint64(32))


def _both_orders(head: bytes) -> tuple[Words, Words]:
    words = np.frombuffer(head, "<u8", min(len(head) // 8, _PROBE_WORDS))
    words = words[words != 0]
    return words, _swapped(words)


def _oddities(words: Words) -> int:
    """How often the time goes back, an event has no input, or bits are set that mean nothing."""
    back = np.count_nonzero(np.diff(ticks_of(words)) < 0)
    return int(back + np.count_nonzero((words & np.uint64(0x1F)) == 0) + np.count_nonzero(words & np.uint64(0x3E0)))


def _looks_right(words: Words) -> bool:
    return bool(words.size) and _oddities(words) <= _ODD * words.size
