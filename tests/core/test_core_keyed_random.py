"""Philox4x32-10 against the known answers that its authors publish with Random123 (kat_vectors)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.keyed_random import philox4x32

U64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_published_known_answers_come_out(counter, key, answer):
    c, k = ([int(word, 16) for word in words.split()] for words in (counter, key))
    counters = np.array([c[0] | c[1] << 32], np.uint64)
    words = philox4x32(counters, k[0] | k[1] << 32, stream=c[2] | c[3] << 32)
    assert " ".join(f"{word:08x}" for word in words[:, 0]) == answer
    assert words.dtype == np.uint32


def one_block_in_plain_integers(counter, key, stream):
    """The definition in figure 3 of Salmon et al., one 32-bit word at a time."""
    low = 0xFFFFFFFF
    c = [counter & low, counter >> 32, stream & low, stream >> 32]
    k = [key & low, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & low, p0 >> 32 ^ c[3] ^ k[1], p0 & low]
        k = [k[0] + 0x9E3779B9 & low, k[1] + 0xBB67AE85 & low]
    return c


@given(st.lists(U64, max_size=20), U64, U64)
def test_every_counter_key_and_stream_follows_the_definition(counters, key, stream):
    words = philox4x32(np.array(counters, np.uint64), key, stream)
    assert words.shape == (4, len(counters))
    assert words.T.tolist() == [one_block_in_plain_integers(c, key, stream) for c in counters]


@given(st.lists(U64, min_size=1, max_size=20), st.data())
def test_a_counter_gives_the_same_words_in_whatever_company_it_is_asked(counters, data):
    together = philox4x32(np.array(counters, np.uint64), 7)
    which = data.draw(st.integers(0, len(counters) - 1))
    alone = philox4x32(np.array([counters[which]], np.uint64), 7)
    assert (together[:, which] == alone[:, 0]).all()


def test_bits_are_balanced_over_consecutive_counters():
    words = philox4x32(np.arange(50_000, dtype=np.uint64), key=20161219, stream=1)
    ones = np.unpackbits(words.view(np.uint8), axis=None).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(words.size * 32)
