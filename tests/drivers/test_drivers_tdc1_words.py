"""The TDC1's words: a slow and obviously right model, any cut of the bytes, slips, silence, and any bytes at all."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.tdc1_words import Tdc1Decoder
from groundstation.instruments import PatternBlock

TURN = 1 << 27
DUMMY = 16


def encode(words: list[tuple[int, int]]) -> bytes:
    """(time in 2 ns since the start, low bits) as the device sends them."""
    return b"".join((((ticks % TURN) << 5) | low).to_bytes(4, "little") for ticks, low in words)


def model(data: bytes) -> list[tuple[int, int]]:
    """Word by word, as pyS15's `read_timestamps_bin` has it, and a dummy repeated is a turn: (ps, pattern)."""
    events, turns, before, was_dummy = [], 0, None, False
    for at in range(0, len(data), 4):
        word = int.from_bytes(data[at : at + 4], "little")
        ticks, low = word // 32, word % 32
        if before is not None and (ticks < before or (ticks == before and low == DUMMY and was_dummy)):
            turns += 1
        before, was_dummy = ticks, low == DUMMY
        if low < DUMMY:
            events.append(((ticks + turns * TURN) * 2000, low))
    return events


def a_stream(n: int, mean_ticks: int, seed: int, start: int = TURN - 30_000_000) -> list[tuple[int, int]]:
    """Events on four inputs, some together, and the dummy at 7920 ns of every turn; no two words of one time."""
    rng = np.random.default_rng(seed)
    ticks = start + np.cumsum(1 + rng.integers(0, 2 * mean_ticks, n))
    low = rng.choice([1, 2, 4, 8, 5, 12, 15], n)
    words = dict(zip(ticks.tolist(), low.tolist(), strict=True))
    for turn in range(int(ticks[0]) // TURN, int(ticks[-1]) // TURN + 1):
        if ticks[0] < turn * TURN + 3960 < ticks[-1]:
            words.setdefault(turn * TURN + 3960, DUMMY)
    return sorted(words.items())


def decode(data: bytes, cuts: list[int] | None = None) -> tuple[list[tuple[int, int]], tuple[str, ...], Tdc1Decoder]:
    decoder = Tdc1Decoder()
    blocks = [decoder.feed(data[a:b]) for a, b in pairwise([0, *sorted(cuts or []), len(data)])]
    blocks.append(decoder.settle())
    check_order(blocks)
    times, patterns = (np.concatenate([block[i] for block in blocks]).tolist() for i in (0, 1))
    return list(zip(times, patterns, strict=True)), tuple(n for b in blocks for n in b.notes), decoder


def events_of(stream: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What the decoder should make of all its words; it counts from the beginning of the first one's turn."""
    shift = stream[0][0] // TURN * TURN
    return [((ticks - shift) * 2000, low) for ticks, low in stream if low != DUMMY]


def only_lacks(events: list[tuple[int, int]], stream: list[tuple[int, int]], allowed: set[int]) -> bool:
    """Whether the events are those of the stream, but for words that may be missing."""
    may_lack = {stream[i] for i in allowed if i < len(stream)}
    got, right = set(events), set(events_of(stream))
    lacking = {(ps // 2000 + stream[0][0] // TURN * TURN, low) for ps, low in right - got}
    return got <= right and lacking <= may_lack and len(got) == len(events)


def check_order(blocks: list[PatternBlock]) -> None:
    last_ps = -1
    for block in blocks:
        assert (block.time_ps.dtype, block.pattern.dtype) == (np.int64, np.uint8)
        steps = np.diff(np.concatenate(([last_ps], block.time_ps, [block.latest_ps])))
        assert block.latest_ps < 0 or np.all(steps >= 0)
        last_ps = block.latest_ps


@settings(deadline=None)
@given(
    n=st.integers(16, 400),
    mean_ticks=st.sampled_from([100, 50_000, 2_000_000, 20_000_000, 60_000_000]),
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 1600), max_size=8),
)
def test_whole_words_give_what_the_slow_model_gives_whatever_their_rate_and_cuts(
    n: int, mean_ticks: int, seed: int, cuts: list[int]
) -> None:
    data = encode(a_stream(n, mean_ticks, seed))
    events, notes, decoder = decode(data, cuts)
    assert events == model(data)
    assert notes == ()
    assert decoder.latest_ps >= events[-1][0]


def test_the_times_are_those_that_were_sent_over_hundreds_of_turns() -> None:
    stream = a_stream(3000, 20_000_000, seed=3)
    events, _, decoder = decode(encode(stream))
    assert events == events_of(stream)
    assert decoder.words == len(stream)


def test_in_the_dark_a_dummy_once_a_turn_keeps_the_time() -> None:
    stream = [(turn * TURN + 3960, DUMMY) for turn in range(100)]
    stream += [(100 * TURN + 50, 3), (100 * TURN + 3960, DUMMY)]
    events, notes, _ = decode(encode(stream))
    assert events == [((100 * TURN + 50) * 2000, 3)]
    assert notes == ()


@settings(deadline=None)
@given(
    mean_ticks=st.sampled_from([100, 5_000, 50_000, 500_000, 20_000_000]),
    seed=st.integers(0, 2**32),
    at=st.integers(64, 1000),
    lost=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 1200), max_size=6),
)
def test_after_lost_bytes_the_words_are_found_again_whatever_the_cuts(
    mean_ticks: int, seed: int, at: int, lost: int, cuts: list[int]
) -> None:
    stream = a_stream(400, mean_ticks, seed)
    data = encode(stream)
    damaged = data[:at] + data[at + lost :]
    events, notes, _ = decode(damaged, cuts)
    assert events == decode(damaged)[0]
    wanted = [(ticks % TURN, low) for ticks, low in stream[at // 4 + 40 :] if low != DUMMY]
    assert [(ps // 2000 % TURN, low) for ps, low in events[-len(wanted) :]] == wanted
    assert any("dropped" in note for note in notes)


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("mean_ticks", [100, 5_000, 50_000])
def test_lost_bytes_cost_the_words_that_they_were_in_and_those_beside_them(lost: int, mean_ticks: int) -> None:
    """At 10 kHz (the beacon) and above. By chance a broken word looks right: at most two slips in a hundred."""
    rng, wrong = np.random.default_rng(lost), 0
    for seed in range(100):
        stream = a_stream(120, mean_ticks, seed)
        data, at = encode(stream), int(rng.integers(64, 400))
        events, _, decoder = decode(data[:at] + data[at + lost :])
        exact = only_lacks(events, stream, set(range(at // 4 - 1, (at + lost - 1) // 4 + 2)))
        wrong += not (exact and decoder.slips == 1)
    assert wrong <= 2


def test_a_hundred_slips_of_two_bytes_are_repaired_and_the_time_is_kept() -> None:
    """The slips of which the vendor's client knows, in a stream of a beacon's rate."""
    stream = a_stream(30_000, 50_000, seed=8)
    data = bytearray(encode(stream))
    hurt = set()
    for at in range(119_000, 1000, -1180):
        del data[at : at + 2]
        hurt |= set(range(at // 4 - 1, (at + 1) // 4 + 2))
    events, notes, decoder = decode(bytes(data))
    assert only_lacks(events, stream, hurt)
    assert decoder.slips == len(range(119_000, 1000, -1180)) == 100
    assert decoder.dropped_bytes <= 12 * 100
    assert "repaired a slip" in notes[0]


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), at=st.integers(16, 280), bit=st.integers(0, 31), cuts=st.lists(st.integers(0, 1200)))
def test_a_flipped_bit_costs_no_other_word(seed: int, at: int, bit: int, cuts: list[int]) -> None:
    stream = a_stream(300, 20_000, seed)
    data = bytearray(encode(stream))
    data[4 * at + bit // 8] ^= 1 << bit % 8
    events, _, _ = decode(bytes(data), cuts)
    # It may have become another possible word close by; of two in the wrong order, either may be the wrong one.
    extra = set(events) - set(events_of(stream))
    assert len(extra) <= 1
    assert only_lacks([event for event in events if event not in extra], stream, {at - 1, at, at + 1})


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_stream_that_begins_inside_a_word_is_aligned(offset: int) -> None:
    stream = a_stream(200, 20_000, seed=offset, start=1000)
    events, _, decoder = decode(encode(stream)[offset:])
    assert events == [(ticks * 2000, low) for ticks, low in stream[1:] if low != DUMMY]
    assert (decoder.slips, decoder.dropped_bytes) == (0, 4 - offset)


def test_turns_that_only_the_host_knows_of_are_added() -> None:
    decoder = Tdc1Decoder()
    decoder.feed(encode([(100, 1)] * 1 + [(200 + i, 2) for i in range(20)]))
    decoder.settle()
    decoder.add_turns(3)
    decoder.feed(encode([(300, 4), (400, 8)]))
    block = decoder.settle()
    assert block.time_ps.tolist() == [(3 * TURN + 300) * 2000, (3 * TURN + 400) * 2000]


@settings(deadline=None)
@given(st.binary(max_size=1500), st.lists(st.integers(0, 1500), max_size=4), st.integers(0, 2**32))
def test_any_bytes_give_times_that_never_decrease_whatever_the_cut_and_the_decoder_finds_the_words_again(
    noise: bytes, cuts: list[int], seed: int
) -> None:
    stream = a_stream(300, 5_000, seed, start=1000)
    data = noise + encode(stream)
    events, _, _ = decode(data, [min(cut, len(data)) for cut in cuts])
    assert events == decode(data)[0]
    wanted = [(ticks, low) for ticks, low in stream[40:] if low != DUMMY]
    got = [(ps // 2000 % TURN, low) for ps, low in events[-len(wanted) :]]
    assert got == [(ticks % TURN, low) for ticks, low in wanted]
