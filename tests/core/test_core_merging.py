"""Merging and its watermarks, against Python's own stable sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.core import merging
from groundstation.core.merging import Merger, merge
from groundstation.core.tags import EMPTY_BLOCK, TagBlock, UnsortedTags, concatenate

FAR = 1 << 62
steps = st.lists(st.tuples(st.sampled_from((0, 0, 1, 5, FAR // 40)), st.integers(0, 9)), max_size=30)
origins = st.sampled_from((-FAR, -3, 0, 1))


def block_of(origin, tags):
    time = origin + np.cumsum([d for d, _ in tags], dtype=np.int64) if tags else np.empty(0, np.int64)
    return TagBlock(time, np.array([c for _, c in tags], np.uint8))


def as_list(block):
    return list(zip(block.time_ps.tolist(), block.channel.tolist(), strict=True))


def sorted_together(blocks):
    return sorted((tag for block in blocks for tag in as_list(block)), key=lambda tag: tag[0])


@given(st.lists(st.tuples(origins, steps), min_size=1, max_size=4), st.sampled_from((1, 4, 1 << 15)))
def test_merged_blocks_are_a_stable_sort_of_all(streams, chunk):
    blocks = [block_of(*stream) for stream in streams]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_CHUNK", chunk)
        assert as_list(merge(blocks)) == sorted_together(blocks)


@given(
    st.lists(st.tuples(origins, steps), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=20),
)
def test_feeding_in_any_order_and_any_pieces_gives_the_same_stream(streams, meals):
    blocks = [block_of(*stream) for stream in streams]
    merger = Merger(len(blocks))
    eaten, out = [0] * len(blocks), []
    for stream, count in [*meals, *((k, 99) for k in range(len(blocks)))]:
        k = stream % len(blocks)
        part = slice(eaten[k], eaten[k] + count)
        eaten[k] += count
        out.append(merger.feed(k, TagBlock(blocks[k].time_ps[part], blocks[k].channel[part])))
        given_out = sum(block.time_ps.size for block in out)
        assert given_out + merger.held == sum(min(e, b.time_ps.size) for e, b in zip(eaten, blocks, strict=True))
    out.append(merger.finish())
    assert as_list(concatenate(out)) == sorted_together(blocks)


def test_a_tag_waits_until_no_other_stream_can_come_before_it():
    merger = Merger(2, channel_offsets=(0, 10))
    assert as_list(merger.feed(1, block_of(0, [(5, 1), (1, 2)]))) == []
    assert as_list(merger.feed(0, EMPTY_BLOCK, watermark_ps=6)) == [(5, 11)]
    assert merger.held == 1
    assert as_list(merger.feed(0, block_of(0, [(6, 3)]), watermark_ps=7)) == []
    assert as_list(merger.feed(1, EMPTY_BLOCK, watermark_ps=100)) == [(6, 3), (6, 12)]
    assert as_list(merger.finish(1)) == []
    assert as_list(merger.feed(0, block_of(0, [(9, 3), (1, 3)]))) == [(9, 3)]
    assert as_list(merger.finish()) == [(10, 3)]


def test_broken_promises_are_refused():
    merger = Merger(2)
    merger.feed(0, block_of(0, [(5, 1)]), watermark_ps=8)
    with pytest.raises(UnsortedTags, match="1 ps before"):
        merger.feed(0, block_of(0, [(7, 1)]))
    with pytest.raises(ValueError, match="before the 8 ps promised"):
        merger.feed(0, EMPTY_BLOCK, watermark_ps=7)
    merger.finish(1)
    with pytest.raises(ValueError, match="stream 1 has ended"):
        merger.feed(1, EMPTY_BLOCK)
    with pytest.raises(UnsortedTags, match="tag 1 is 2 ps before tag 0"):
        merger.feed(0, TagBlock(np.array([10, 8]), np.zeros(2, np.uint8)))
    with pytest.raises(ValueError, match="lower the offset"):
        Merger(1, (250,)).feed(0, block_of(0, [(0, 9)]))
    with pytest.raises(ValueError, match="at least one stream"):
        Merger(0)
