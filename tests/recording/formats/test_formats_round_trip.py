"""What is written and read again is the same, for all formats, whatever the blocks in which it came."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from formats_samples import everything, source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundstation.recording.formats.bit_packing import pack, pack_steps, unpack, unpack_steps
from groundstation.recording.formats.registry import FORMATS, read_file, write_file
from groundstation.recording.formats.tag_file import About, Gap, TagFile, in_time_order, to_ps, to_ticks

_COUNTER = itertools.count()
_FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: Format -> (smallest and largest channel, largest step in ps, whether times may be negative).
_RANGES = {
    "ptu": ((0, 62), 1 << 60, False),
    "photon-hdf5": ((0, 255), 1 << 60, True),
    "npy": ((0, 255), 1 << 60, True),
    "csv": ((0, 255), 1 << 60, True),
    "qutag": ((0, 7), 1 << 60, True),
    "qutag-raw": ((0, 7), 1 << 60, True),
    "qutag-compressed": ((0, 7), (1 << 36) - 1, False),
    "swabian": ((1, 127), 1 << 60, True),
}
_TICKS = {"a1": 4, "a1-legacy": 4, "a0": 4, "a2": 4, "qcrypto-1": 4}


def rows_for(draw: st.DrawFn, channels: tuple[int, int], largest_step: int, negative: bool) -> list[tuple[int, int]]:
    count = draw(st.integers(1, 30))
    small = st.integers(0, min(largest_step, 10**6))
    steps = draw(st.lists(small | st.integers(0, largest_step // 64), min_size=count, max_size=count))
    start = draw(st.integers(-(10**15), 10**15)) if negative else 0
    times = start + np.cumsum(np.array(steps, np.int64))
    return list(
        zip(times.tolist(), draw(st.lists(st.integers(*channels), min_size=count, max_size=count)), strict=True)
    )


def again(folder: Path, name: str, source: TagFile) -> TagFile:
    path = folder / f"{next(_COUNTER)}"
    write_file(path, source, name)
    return read_file(path, name)


@pytest.mark.parametrize("name", _RANGES)
@_FEW
@given(data=st.data())
def test_formats_of_whole_picoseconds_give_back_every_tag(name: str, data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(st.composite(rows_for)(*_RANGES[name]))
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=3))
    assert everything(again(tmp_path, name, source_of(rows, cuts))) == rows


@pytest.mark.parametrize("name", _TICKS)
@_FEW
@given(data=st.data())
def test_formats_of_ticks_give_back_times_on_their_grid(name: str, data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(st.composite(rows_for)((1, 4), 10**13, False))
    ticks = [time // 4 for time, _ in rows]
    on_grid = [(tick * 125 // 32, channel) for tick, (_, channel) in zip(ticks, rows, strict=True)]
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=3))
    read = everything(again(tmp_path, name, source_of(on_grid, cuts)))
    assert read == [(time, channel) for time, channel in on_grid]


@_FEW
@given(data=st.data())
def test_times_off_the_grid_move_by_half_a_tick_at_most(data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(st.composite(rows_for)((1, 1), 10**13, False))
    read = everything(again(tmp_path, "a1", source_of(rows)))
    assert all(abs(a - b) <= 3 for (a, _), (b, _) in zip(rows, read, strict=True))  # half of 3.9 ps, and whole ps


@_FEW
@given(data=st.data())
def test_times_of_sifting_come_back_on_their_eighths_of_a_nanosecond(data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(st.composite(rows_for)((0, 1), 10**12, False))
    on_grid = [(250 * (k + 1) + time // 125 * 125, channel) for k, (time, channel) in enumerate(rows)]
    source = source_of(on_grid, names={0: "basis HV", 1: "basis +-"})
    path = tmp_path / f"{next(_COUNTER)}"
    write_file(path, source, "qcrypto-2")
    assert source.about.notes == [] or "shifted" in source.about.notes[0]
    read = read_file(path, "qcrypto-2")
    found = everything(read)
    assert [channel for _, channel in found] == [channel for _, channel in on_grid]
    moved = sum(a != b for a, b in zip(found, on_grid, strict=True))
    said = int(source.about.notes[0].split()[0]) if source.about.notes else 0
    assert moved == said
    assert read.about.channels == {0: "basis HV", 1: "basis +-"}


@pytest.mark.parametrize("name", [entry.name for entry in FORMATS.values() if entry.keeps_gaps])
def test_formats_that_keep_gaps_give_them_back(name: str, tmp_path: Path) -> None:
    gaps = [Gap(150, 250, 70_000, "overflow"), Gap(350, 360, None, "overflow")]
    read = again(tmp_path, name, source_of([(100, 1), (200, 2), (300, 1), (400, 2)], (2,), gaps))
    assert everything(read) == [(100, 1), (200, 2), (300, 1), (400, 2)]
    assert read.about.gaps == gaps


@pytest.mark.parametrize("name", ["csv", "photon-hdf5"])
def test_formats_that_keep_names_give_them_back(name: str, tmp_path: Path) -> None:
    read = again(tmp_path, name, source_of([(100, 1), (200, 2)], names={1: "alice", 2: "bob"}))
    everything(read)
    assert read.about.channels == {1: "alice", 2: "bob"}


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 2**32 - 1)), max_size=40))
def test_packed_numbers_are_the_bits_one_after_the_other(entries: list[tuple[int, int]]) -> None:
    entries = [(width, value & ((1 << width) - 1)) for width, value in entries]
    text = "".join(f"{value:0{width}b}" for width, value in entries if width)
    widths = np.array([width for width, _ in entries], np.int64)
    words = pack(np.array([value for _, value in entries], np.int64), widths)
    assert "".join(f"{word:032b}" for word in words.tolist()) == text.ljust(-len(text) // 32 * -32, "0")
    starts = np.cumsum(widths) - widths
    for start, (width, value) in zip(starts.tolist(), entries, strict=True):
        assert unpack(words, np.array([start]), width).tolist() == [value]


@given(
    st.lists(st.tuples(st.integers(2, 2**32 - 1) | st.integers(2, 300), st.integers(0, 15)), max_size=60),
    st.integers(2, 28),
    st.integers(0, 4),
    st.integers(1, 9),
)
def test_packed_steps_come_back(entries: list[tuple[int, int]], order: int, width: int, room: int) -> None:
    steps = np.array([step for step, _ in entries], np.int64)
    bits = np.array([bit & ((1 << width) - 1) for _, bit in entries], np.int64)
    words = pack_steps(steps, bits, order, width)
    more = np.append(words, np.array([0xFFFFFFFF, 0], np.uint32))
    got_steps, got_bits, used = unpack_steps(more, order, width, room)
    assert (got_steps.tolist(), got_bits.tolist(), used) == (steps.tolist(), bits.tolist(), len(words))


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_nearly_ordered_tags_are_sorted_stably_whatever_the_blocks(jitter: list[int], cuts: list[int]) -> None:
    times = [1_000_000_000 * k // 4 + late for k, late in enumerate(jitter)]
    rows = [(time, k % 250) for k, time in enumerate(times)]
    about = About("test", 1.0)
    ordered = everything(TagFile(about, in_time_order(source_of(rows, cuts).blocks, about, "a file")))
    assert ordered == sorted(rows, key=lambda row: row[0])
    back = sum(b < a for a, b in itertools.pairwise(times))
    assert [note.split()[0] for note in about.notes] == ([str(back)] if back else [])


@given(st.integers(-(2**56), 2**56), st.sampled_from([(1, 1), (125, 32), (125, 1), (80955, 1000), (25, 1), (5, 2)]))
def test_ticks_come_back_from_picoseconds(tick: int, unit: tuple[int, int]) -> None:
    step = Fraction(*unit)
    tick = tick // 128
    time_ps = to_ps(np.array([tick]), step, "here")
    assert int(time_ps[0]) == int(tick * step // 1)
    assert to_ticks(time_ps, step).tolist() == [tick]
