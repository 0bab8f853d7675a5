"""The a1 stream: any cut gives the same events, no damage gives wrong ones, fpfind reads the same."""

import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fpfind.lib import parse_timestamps
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_far_end import SocketLine, serving

from drivers.a1_words import A1Decoder
from drivers.tagger_tdc2 import (
    SelfTest,
    Tdc2Settings,
    Tdc2Tagger,
    connect,
    reader_arguments,
    skew_ticks,
    threshold_dac,
)
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import PatternBlock

CLOCK = SystemClock()
DUMMY = 0x10
TURN = 1 << 54


def encode(ticks: NDArray[np.int64], low: NDArray[np.int64]) -> bytes:
    return ((ticks.astype(np.uint64) << np.uint64(10)) | low.astype(np.uint64)).astype("<u8").tobytes()


def a_stream(n: int, seed: int = 1, start: int = 5_000_000_000) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Photons on four inputs, the beacon (input pattern 5), coincident inputs and dummies, about 1 Mcps."""
    rng = np.random.default_rng(seed)
    ticks = (start + np.cumsum(rng.integers(0, 512_000, n))) % TURN
    return ticks, rng.choice([1, 2, 4, 8, 5, 15, DUMMY], n, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.05, 0.05])


def decode(data: bytes, cuts: list[int] | None = None) -> tuple[PatternBlock, A1Decoder]:
    """Everything in one block, fed in the pieces that `cuts` makes."""
    decoder = A1Decoder()
    edges = [0, *sorted(cuts or []), len(data)]
    blocks = [decoder.feed(data[a:b]) for a, b in pairwise(edges)]
    notes = tuple(note for block in blocks for note in block.notes)
    times, patterns = np.concatenate([b.time_ps for b in blocks]), np.concatenate([b.pattern for b in blocks])
    return PatternBlock(times, patterns, blocks[-1].latest_ps, None, notes), decoder


def exact_ps(ticks: NDArray[np.int64]) -> list[int]:
    """floor(ticks x 125 / 32) in Python's unbounded integers."""
    return [int(tick) * 125 // 32 for tick in ticks]


def test_times_are_the_floor_of_the_ticks_and_dummies_are_no_events() -> None:
    ticks, low = a_stream(5000)
    block, decoder = decode(encode(ticks, low))
    events = low != DUMMY
    assert block.time_ps.tolist() == exact_ps(ticks[events])
    assert block.pattern.tolist() == low[events].tolist()
    assert (block.time_ps.dtype, block.pattern.dtype) == (np.int64, np.uint8)
    assert block.latest_ps == exact_ps(ticks)[-1]
    assert (block.missed, block.notes, decoder.first_tick) == (None, (), int(ticks[0]))


def test_fpfind_finds_the_same_events_in_the_same_file(tmp_path: Path) -> None:
    ticks, low = a_stream(20_000, seed=7)
    path = tmp_path / "stream.a1"
    path.write_bytes(encode(ticks, low))
    their_ticks, their_patterns = parse_timestamps.read_a1(
        str(path), resolution=parse_timestamps.TSRES.PS4, fractional=False, ignore_rollover=True
    )
    block, _ = decode(path.read_bytes())
    assert block.time_ps.tolist() == exact_ps(their_ticks)
    assert block.pattern.tolist() == their_patterns.tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 8 * 300), max_size=12), st.integers(0, 2**32), st.integers(0, 3))
def test_any_cut_of_the_bytes_gives_the_same_events(cuts: list[int], seed: int, damage: int) -> None:
    ticks, low = a_stream(300, seed, start=TURN - 40_000_000)
    data = encode(ticks, low)
    if damage == 1:
        data = data[:801] + data[804:]
    elif damage == 2:
        data = data[:800] + bytes(24) + data[800:1600] + b"\xff" * 13 + data[1600:]
    elif damage == 3:
        data = data[3:]
    whole, _ = decode(data)
    pieces, _ = decode(data, cuts)
    assert pieces.time_ps.tolist() == whole.time_ps.tolist()
    assert pieces.pattern.tolist() == whole.pattern.tolist()
    assert pieces.latest_ps == whole.latest_ps


@settings(deadline=None)
@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=4))
def test_arbitrary_bytes_raise_only_our_error_and_never_give_times_that_decrease(data: bytes, cuts: list[int]) -> None:
    decoder, last_ps = A1Decoder(), -1
    edges = [0, *sorted(cuts), len(data)]
    for a, b in pairwise(edges):
        try:
            block = decoder.feed(data[a:b])
        except WireError:
            return
        assert np.all(np.diff(np.concatenate(([last_ps], block.time_ps, [block.latest_ps]))) >= 0)
        last_ps = block.latest_ps


def test_the_time_goes_on_where_its_54_bits_wrap_around() -> None:
    ticks, low = a_stream(4000, start=TURN - 300_000_000)
    block, _ = decode(encode(ticks, low))
    unwrapped = ticks + np.where(ticks < TURN // 2, TURN, 0)
    assert (np.diff(ticks) < 0).sum() == 1
    assert block.time_ps.tolist() == exact_ps(unwrapped[low != DUMMY])
    assert np.all(np.diff(block.time_ps) >= 0)


def test_twenty_days_unwrap_without_overflow() -> None:
    step = 1 << 39  # 2.1 s, so 2^15 words a turn
    n = 25 * (1 << 15)
    low = np.random.default_rng(5).integers(1 << 20, size=n)
    block, _ = decode(encode((np.arange(n) * step + low) % TURN, np.ones(n, np.int64)))
    # The last word is held back: after 2.1 s the next one must confirm it.
    assert block.time_ps[-1] == ((n - 2) * step + int(low[-2])) * 125 // 32
    assert block.notes == ()


def test_void_words_are_skipped_silently() -> None:
    ticks, low = a_stream(1000)
    data = encode(ticks, low)
    block, decoder = decode(bytes(80) + data[:4000] + bytes(8) + data[4000:] + bytes(16))
    assert block.time_ps.tolist() == exact_ps(ticks[low != DUMMY])
    assert (block.notes, decoder.dropped_bytes) == ((), 0)


@pytest.mark.parametrize("lost", range(1, 8))
def test_lost_bytes_cost_two_words_and_are_noted(lost: int) -> None:
    ticks, low = a_stream(2000)
    data = encode(ticks, low)
    block, _ = decode(data[: 8000 + 3] + data[8000 + 3 + lost :])
    survivors = np.delete(np.arange(2000), [1000, 1001])
    expected = exact_ps(ticks[survivors[low[survivors] != DUMMY]])
    assert block.time_ps.tolist() == expected
    assert any("to find the words again" in note for note in block.notes)


@pytest.mark.parametrize("offset", range(1, 8))
def test_a_stream_that_begins_inside_a_word_is_aligned(offset: int) -> None:
    ticks, low = a_stream(500)
    block, _ = decode(encode(ticks, low)[offset:])
    assert block.time_ps.tolist() == exact_ps(ticks[1:][low[1:] != DUMMY])


def test_a_single_word_out_of_time_is_dropped_and_noted() -> None:
    ticks, low = a_stream(1000)
    low[:] = 1
    for wrong in (0, int(ticks[500]) - 1000, int(ticks[500]) + (1 << 50)):
        damaged = np.insert(ticks, 501, wrong)
        block, decoder = decode(encode(damaged, np.ones_like(damaged)))
        assert block.time_ps.tolist() == exact_ps(ticks)
        assert decoder.dropped_bytes == 8
        assert "dropped words" in block.notes[0]


def test_a_long_silence_is_noted_and_loses_nothing() -> None:
    ticks, low = a_stream(1000)
    ticks[500:] += 60 * 256 * 10**9
    block, _ = decode(encode(ticks, low))
    assert block.time_ps.tolist() == exact_ps(ticks[low != DUMMY])
    assert "silent for 60.0 s" in block.notes[0]


def test_a_restarted_clock_ends_the_stream_after_the_events_before_it() -> None:
    ticks, low = a_stream(100, start=1 << 45)
    again, low_again = a_stream(100, start=0)
    decoder = A1Decoder()
    block = decoder.feed(encode(ticks, low) + encode(again, low_again))
    assert block.time_ps.tolist() == exact_ps(ticks[low != DUMMY])
    with pytest.raises(WireError, match="restarted"):
        decoder.feed(b"")


# --- The driver, on a loopback stream


def talk(*pieces: bytes) -> tuple[threading.Event, Callable[[SocketLine], None]]:
    done = threading.Event()

    def serve(line: SocketLine) -> None:
        for piece in pieces:
            line.send(piece)
        done.wait(10.0)

    return done, serve


def test_identification_keeps_the_events_that_it_watched() -> None:
    ticks, low = a_stream(50)
    data = encode(ticks, low)
    done, serve = talk(data[:13], data[13:])
    with serving(serve) as address:
        tagger = connect(address, CLOCK, {})
        assert isinstance(tagger, Tdc2Tagger)
        times: list[int] = []
        while len(times) < (low != DUMMY).sum():
            times += tagger.read(5.0).time_ps.tolist()
        assert times == exact_ps(ticks[low != DUMMY])
        assert tagger.first_tick == ticks[0]
        assert tagger.resolution_ps == 3.90625
        assert tagger.read(0.0).time_ps.size == 0
        tagger.close()
        tagger.close()
        done.set()


def test_dummies_alone_identify_the_tagger() -> None:
    done, serve = talk(encode(np.arange(8) * 1_000_000, np.full(8, DUMMY)))
    with serving(serve) as address:
        tagger = connect(address, CLOCK, {"timeout_s": 5.0})
        block = tagger.read(0.0)
        assert (block.time_ps.size, block.latest_ps) == (0, 7_000_000 * 125 // 32)
        tagger.close()
        done.set()


def test_a_stream_that_ends_is_lost_after_its_last_event() -> None:
    ticks, low = a_stream(20)

    def send_and_close(line: SocketLine) -> None:
        line.send(encode(ticks, low))
        line.close()

    with serving(send_and_close) as address:
        tagger = connect(address, CLOCK, {})
        assert tagger.read(1.0).latest_ps == exact_ps(ticks)[-1]
        with pytest.raises(TransportLost):
            tagger.read(1.0)
        tagger.close()


def test_silence_and_a_few_bytes_are_timeouts() -> None:
    for sent in (b"", bytes(64), b"\x01\x02\x03"):
        done, serve = talk(sent)
        with serving(serve) as address:
            with pytest.raises(TransportTimeout, match=f"sent {len(sent)} bytes"):
                connect(address, CLOCK, {"timeout_s": 0.1})
            done.set()


@pytest.mark.parametrize("other", [b"HTTP/1.1 400 Bad Request\r\n" * 50, np.random.default_rng(3).bytes(4096)])
def test_anything_else_that_talks_is_the_wrong_instrument(other: bytes) -> None:
    done, serve = talk(other)
    with serving(serve) as address:
        with pytest.raises(WrongInstrument, match="no TDC2 event stream"):
            connect(address, CLOCK, {"timeout_s": 2.0})
        done.set()


def test_the_legacy_word_order_is_the_wrong_instrument() -> None:
    ticks, low = a_stream(500)
    swapped = np.frombuffer(encode(ticks, low), "<u4").reshape(-1, 2)[:, ::-1].tobytes()  # readevents7 -X
    done, serve = talk(swapped)
    with serving(serve) as address:
        with pytest.raises(WrongInstrument, match="without -X"):
            connect(address, CLOCK, {"timeout_s": 2.0})
        done.set()


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(BadInput, match='nearest valid key is "timeout_s"'):
        connect("tcp://127.0.0.1:1", CLOCK, {"time_out": 1})


# --- The reader program


def test_settings_become_the_command_line_of_the_reader() -> None:
    """The option letters, ranges and defaults of readevents7.c."""
    assert reader_arguments(Tdc2Settings()) == ["-a", "1"]
    everything = Tdc2Settings(
        thresholds_v=(-0.448, -1.024, 2.047, 0.5),
        skews_ps=(0.0, 1000.0, -1000.0, 3.90625),
        self_test=SelfTest(1, 0, 4095),
        coincidence_steps=31,
        absolute_time=True,
        device="/dev/ioboards/usbtmst1",
    )
    assert reader_arguments(everything) == [
        *("-a", "1"),
        *("-t", "768,0,4095,2032"),
        *("-D", "0,256,-256,1"),
        *("-b", "1,0,4095"),
        *("-c", "31"),
        "-A",
        *("-U", "/dev/ioboards/usbtmst1"),
    ]


def test_thresholds_are_counted_by_the_dac_and_nim_is_its_default() -> None:
    assert [threshold_dac(volts) for volts in (-1.024, -0.448, 0.0, 2.047)] == [0, 768, 1365, 4095]


@pytest.mark.parametrize(
    "settings",
    [
        {"thresholds_v": (-1.1, 0.0, 0.0, 0.0)},
        {"thresholds_v": (0.0, 0.0, 0.0, 2.1)},
        {"thresholds_v": (0.0, float("nan"), 0.0, 0.0)},
        {"thresholds_v": (0.0, 0.0)},
        {"skews_ps": (0.0, 0.0, 0.0, 200_000.0)},
        {"skews_ps": (0.0, 0.0, 0.0, float("inf"))},
        {"self_test": {"mode": 1, "level_a": 0, "level_b": 4096}},
        {"self_test": {"mode": -1, "level_a": 0, "level_b": 0}},
        {"coincidence_steps": 32},
        {"coincidence_steps": -1},
    ],
)
def test_values_out_of_range_are_refused_before_the_reader_is_started(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        connect("program:/no/such/reader", CLOCK, settings)


@pytest.mark.parametrize("settings", [{"thresholds_v": (0.5,) * 4}, {"coincidence_steps": 3}, {"absolute_time": True}])
def test_a_reader_elsewhere_is_not_set_up_from_here(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f'"{next(iter(settings))}".*the reader program there sets it'):
        connect("tcp://127.0.0.1:1", CLOCK, settings)


def a_reader(folder: Path, stream: bytes, then: str = "time.sleep(60)") -> str:
    """A program that writes down its arguments, sends a stream and ends on SIGTERM."""
    (folder / "stream").write_bytes(stream)
    program = folder / "readevents 7"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "def end(*_):\n"
        "    (folder / 'ended').write_text('in good order')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "(folder / 'arguments').write_text('|'.join(sys.argv[1:]))\n"
        "sys.stdout.buffer.write((folder / 'stream').read_bytes())\n"
        "sys.stdout.flush()\n"
        f"{then}\n"
    )
    program.chmod(0o755)
    return f"program:{program}"


def test_the_reader_is_started_with_the_settings_and_ended_on_close(tmp_path: Path) -> None:
    ticks, low = a_stream(3000)
    address = a_reader(tmp_path, encode(ticks, low))
    tagger = connect(address, CLOCK, {"thresholds_v": (-0.5,) * 4, "absolute_time": True})
    times: list[int] = []
    while len(times) < (low != DUMMY).sum():
        times += tagger.read(5.0).time_ps.tolist()
    assert times == exact_ps(ticks[low != DUMMY])
    tagger.close()
    assert (tmp_path / "arguments").read_text() == "-a|1|-t|699,699,699,699|-A"
    assert (tmp_path / "ended").read_text() == "in good order"


def test_a_reader_that_ends_says_why(tmp_path: Path) -> None:
    address = a_reader(tmp_path, b"", "sys.exit('Cannot open device.')")
    with pytest.raises(TransportLost, match=r"ended with code 1: Cannot open device\."):
        connect(address, CLOCK, {})
    with pytest.raises(TransportLost, match="cannot be opened"):
        connect("program:/no/such/reader", CLOCK, {})


def by_readevents7(ticks: NDArray[np.int64], low: NDArray[np.int64], skews: list[int]) -> NDArray[np.int64]:
    """Word by word, as `offsettime` in readevents7.c: only events of one input are shifted."""
    shifts = {1 << index: skew for index, skew in enumerate(skews)}
    return np.array([(t + shifts.get(p, 0)) % TURN for t, p in zip(ticks.tolist(), low.tolist(), strict=True)])


@settings(deadline=None)
@given(
    st.lists(st.integers(-32767, 32767), min_size=4, max_size=4),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 8 * 300), max_size=6),
)
def test_skews_of_the_reader_put_words_out_of_order_and_the_decoder_back(
    skews: list[int], seed: int, cuts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    ticks = 5_000_000_000 + np.cumsum(rng.integers(1, 4000, 300))
    low = rng.choice([1, 2, 4, 8, 5, 15, DUMMY], 300)
    shifted = by_readevents7(ticks, low, skews)
    decoder = A1Decoder(skews)
    edges = [0, *sorted(cuts), 2400]
    blocks = [decoder.feed(encode(shifted, low)[a:b]) for a, b in pairwise(edges)]
    # Words without a detector tell that nothing older comes.
    blocks.append(decoder.feed(encode(ticks[-1] + 100_000 + np.arange(9), np.full(9, DUMMY))))
    times = np.concatenate([block.time_ps for block in blocks])
    patterns = np.concatenate([block.pattern for block in blocks])
    events = low != DUMMY
    expected = sorted(zip(exact_ps(shifted[events]), low[events].tolist(), strict=True))
    assert sorted(zip(times.tolist(), patterns.tolist(), strict=True)) == expected
    assert np.all(np.diff(times) >= 0)
    for before, after in pairwise(blocks):
        assert after.time_ps.size == 0 or after.time_ps[0] >= before.latest_ps
    assert not any(block.notes for block in blocks)


def test_skews_reach_the_reader_and_the_decoder_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ticks, low = 10_000 + np.cumsum(rng.integers(1, 200, 2000)), rng.choice([1, 2, 4, 8], 2000)
    shifted = by_readevents7(ticks, low, [0, 5000, -300, 7])
    tagger = connect(a_reader(tmp_path, encode(shifted, low)), CLOCK, {"skews_ps": (0.0, 19531.25, -1171.875, 27.3)})
    assert (tmp_path / "arguments").read_text() == "-a|1|-D|0,5000,-300,7"
    times = np.concatenate([tagger.read(0.2).time_ps for _ in range(4)])
    tagger.close()
    expected = np.array(sorted(exact_ps(shifted)))
    assert times.tolist() == expected[: len(times)].tolist()
    assert len(times) > 1900
    assert skew_ticks(19531.25) == 5000


@pytest.mark.slow
def test_decoding_keeps_up_with_fifty_million_words_a_second() -> None:
    """Measured 200 million a second on one core; the limit leaves room for a busy machine."""
    import time

    ticks, low = a_stream(4_000_000)
    data = encode(ticks, low)
    best_s = 9.0
    for _ in range(3):
        decoder, started = A1Decoder(), time.perf_counter()
        for at in range(0, len(data), 1 << 20):
            decoder.feed(data[at : at + (1 << 20)])
        best_s = min(best_s, time.perf_counter() - started)
    assert len(ticks) / best_s > 50e6
