"""a1 and its twins: words made by hand from the published layout, and fpfind as the other reader and writer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_samples import everything, source_of
from fpfind import TSRES
from fpfind.lib import parse_timestamps

from groundstation.errors import BadInput
from groundstation.recording.formats.registry import read_file, recognise, write_file


def word(ticks: int, pattern: int) -> int:
    """The time in 1/256 ns in bits 63..10, the pattern in the lowest."""
    return (ticks << 10) | pattern


#: 1 ns on input 1; 2 ns on inputs 2 and 4 at once; a dummy; void; 1 s on input 3.
WORDS = [word(256, 1), word(512, 0b1010), word(600, 0x10), 0, word(256_000_000_000, 4)]
TAGS = [(1000, 1), (2000, 2), (2000, 4), (1_000_000_000_000, 3)]


def in_order(words: list[int]) -> bytes:
    return np.array(words, "<u8").tobytes()


def swapped(words: list[int]) -> bytes:
    return b"".join((w >> 32).to_bytes(4, "little") + (w & 0xFFFFFFFF).to_bytes(4, "little") for w in words)


def a0(words: list[int]) -> bytes:
    return b"".join(b"%08x\n%08x\n" % (w & 0xFFFFFFFF, w >> 32) for w in words)


def a2(words: list[int]) -> bytes:
    return b"".join(b"%016x\n" % w for w in words)


@pytest.mark.parametrize(("name", "encode"), [("a1", in_order), ("a1-legacy", swapped), ("a0", a0), ("a2", a2)])
def test_events_by_hand_are_read(name: str, encode: Callable[[list[int]], bytes], tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(encode(WORDS))
    source = read_file(path, name)
    assert everything(source) == TAGS
    assert source.about.notes == ["1 dummy events only carried the time onward"]
    assert source.about.resolution_ps == 3.90625


@pytest.mark.parametrize(("name", "encode"), [("a1", in_order), ("a1-legacy", swapped), ("a0", a0), ("a2", a2)])
def test_events_are_recognised_by_their_content(
    name: str, encode: Callable[[list[int]], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "without a suffix"
    path.write_bytes(encode([word(1000 * k, 1 + k % 3) for k in range(1, 2000)]))
    source = read_file(path)
    assert source.about.format == name
    assert len(everything(source)) == 1999 + 666  # every third has two inputs


def test_the_time_goes_on_when_its_54_bits_wrap(tmp_path: Path) -> None:
    path = tmp_path / "wrap.a1"
    path.write_bytes(in_order([word((1 << 54) - 256, 1), word(256, 1)]))
    (first, _), (second, _) = everything(read_file(path, "a1"))
    assert second - first == 2000


def test_an_event_without_an_input_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "odd.a1"
    path.write_bytes(in_order([word(256, 0), word(512, 1)]))
    source = read_file(path, "a1")
    assert everything(source) == [(2000, 1)]
    assert source.about.dropped == {"no input": 1}


@pytest.mark.parametrize(("name", "encode"), [("a1", in_order), ("a1-legacy", swapped), ("a0", a0), ("a2", a2)])
def test_a_cut_tail_is_left_out_and_noted(name: str, encode: Callable[[list[int]], bytes], tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(encode([word(256 * k, 1) for k in range(1, 11)])[:-3])
    source = read_file(path, name)
    assert len(everything(source)) == 9
    assert "left out" in source.about.notes[0]


def test_text_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.a2"
    path.write_bytes(a2(WORDS) + b"hello, world!!!!\n")
    with pytest.raises(BadInput, match="not every line is 16 hexadecimal digits"):
        everything(read_file(path, "a2"))


def test_garbage_is_not_events(tmp_path: Path) -> None:
    path = tmp_path / "garbage.a1"
    path.write_bytes(np.random.default_rng(3).bytes(80_000))
    with pytest.raises(BadInput, match="is of no format that is known by its content"):
        recognise(path)
    with pytest.raises(BadInput, match=r"not in order of time: tag [\d,]+ goes back by [\d,]+ ps"):
        everything(read_file(path, "a1"))


def test_channels_beyond_four_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no channel 5, only 1 to 4; choose channels"):
        write_file(tmp_path / "x.a1", source_of([(1, 1), (2, 5)]))
    assert list(tmp_path.iterdir()) == []


def sample_events() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    ticks = np.cumsum(generator.integers(0, 1 << 20, 5000)).astype(np.uint64) + np.uint64(1 << 53)
    return ticks, generator.integers(1, 16, 5000).astype(np.uint32)


@pytest.mark.parametrize(
    ("name", "write", "legacy"),
    [
        ("a1", parse_timestamps.write_a1, False),
        ("a1-legacy", parse_timestamps.write_a1, True),
        ("a0", parse_timestamps.write_a0, False),
        ("a2", parse_timestamps.write_a2, False),
    ],
)
def test_what_fpfind_writes_is_read(name: str, write: Callable[..., Any], legacy: bool, tmp_path: Path) -> None:
    ticks, patterns = sample_events()
    path = tmp_path / "fpfind"
    write(str(path), ticks, patterns, legacy=legacy, resolution=TSRES.PS4)
    source = read_file(path)
    assert source.about.format == name
    expected = [
        (int(tick) * 125 // 32, line + 1)
        for tick, pattern in zip(ticks.tolist(), patterns.tolist(), strict=True)
        for line in range(4)
        if pattern >> line & 1
    ]
    assert everything(source) == expected


@pytest.mark.parametrize(
    ("name", "read", "legacy"),
    [
        ("a1", parse_timestamps.read_a1, False),
        ("a1-legacy", parse_timestamps.read_a1, True),
        ("a0", parse_timestamps.read_a0, False),
        ("a2", parse_timestamps.read_a2, False),
    ],
)
def test_fpfind_reads_what_is_written(name: str, read: Callable[..., Any], legacy: bool, tmp_path: Path) -> None:
    ticks, _ = sample_events()
    channels = np.arange(ticks.size) % 4 + 1
    path = tmp_path / "ours"
    rows = [(tick * 125 // 32, channel) for tick, channel in zip(ticks.tolist(), channels.tolist(), strict=True)]
    write_file(path, source_of(rows), name)
    found, patterns = read(str(path), legacy=legacy, resolution=TSRES.PS4, fractional=False)
    assert found.tolist() == ticks.tolist()
    assert patterns.tolist() == [1 << (channel - 1) for channel in channels.tolist()]
