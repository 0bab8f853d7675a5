"""Numbers of some bits each, packed without gaps into 32-bit words, the first in the highest bits.

The way in which qcrypto packs time differences, bits and key.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]


def pack(values: NDArray[np.int64], widths: NDArray[np.int64]) -> Words:
    """`values` (n,) of `widths` (n,) bits each, 0 to 32, one after the other; unused bits at the end are zero."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if ends.size else 0
    starts = ends - widths
    word, offset = starts >> 5, starts & 31
    shifted = values.astype(np.uint64) << (64 - offset - widths).clip(max=63).astype(np.uint64)
    words = np.zeros((total + 31) // 32 + 2, np.uint64)
    used = np.flatnonzero(widths)
    np.bitwise_or.at(words, word[used], shifted[used] >> np.uint64(32))
    np.bitwise_or.at(words, word[used] + 1, shifted[used] & np.uint64(0xFFFFFFFF))
    return words[: (total + 31) // 32].astype(np.uint32)


def unpack(words: NDArray[Any], starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The numbers of `width` bits (0 to 32) that begin at the bits `starts` (n,), all of them inside `words`."""
    if width == 0 or starts.size == 0:
        return np.zeros(starts.size, np.int64)
    word, offset = starts >> 5, (starts & 31).astype(np.uint64)
    low = words[np.minimum(word + 1, len(words) - 1)].astype(np.uint64)
    pair = (words[word].astype(np.uint64) << np.uint64(32)) | low
    values: NDArray[np.int64] = ((pair << offset) >> np.uint64(64 - width)).astype(np.int64)
    return values


def pack_steps(steps: NDArray[np.int64], bits: NDArray[np.int64], order: int, bits_width: int) -> Words:
    """Steps of at least 2 with some bits each: a step in `order` bits, or 0 and then the step in 32; end word 1."""
    steps, bits = np.append(steps, 1), np.append(bits, 0)
    long = steps >> order != 0
    values = np.stack((np.where(long, 0, steps), steps, bits), axis=1).reshape(-1)
    widths = np.stack(
        (np.full(steps.size, order), np.where(long, 32, 0), np.full(steps.size, bits_width)), axis=1
    ).reshape(-1)
    return pack(values, widths)


def unpack_steps(
    words: NDArray[Any], order: int, bits_width: int, room: int = 1 << 10
) -> tuple[NDArray[np.int64], NDArray[np.int64], int | None]:
    """The inverse: steps, bits, and how many words they took; None when the words stop before the end word.

    Entries of equal width are taken `room` at a time, up to the next that needs more than its place.
    """
    width, available = order + bits_width, 32 * len(words)
    steps: list[NDArray[np.int64]] = []
    bits: list[NDArray[np.int64]] = []
    place = 0
    while place + width <= available:
        starts = place + width * np.arange(min(room, (available - place) // width))
        codes = unpack(words, starts, order)
        odd = np.flatnonzero(codes <= 1)
        plain = int(odd[0]) if odd.size else codes.size
        steps.append(codes[:plain])
        bits.append(unpack(words, starts[:plain] + order, bits_width))
        place += width * plain
        if plain == codes.size:
            continue
        if codes[plain] == 1:
            return np.concatenate(steps), np.concatenate(bits), (place + width + 31) // 32
        if place + width + 32 > available:
            break
        steps.append(unpack(words, np.array([place + order]), 32))
        bits.append(unpack(words, np.array([place + order + 32]), bits_width))
        place += width + 32
    empty = [np.empty(0, np.int64)]
    return np.concatenate(steps or empty), np.concatenate(bits or empty), None
