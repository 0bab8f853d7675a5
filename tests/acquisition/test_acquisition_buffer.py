"""The memory between the tagger and the disk: bounded, in order, and every tag accounted for at every moment."""

import numpy as np
from acquisition_samples import Counted
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.acquisition.buffer import BUFFER_FULL, BYTES_PER_TAG, Parcel, Progress, TagBuffer
from groundstation.core.ledger import Ledger
from groundstation.core.tags import TagBlock

TAGS = Counted()
LIMIT = 100_000


def parcel(first, count, gaps=()):
    number = np.arange(first, first + count, dtype=np.int64)
    time_ps = TAGS.time_ps(number)
    start_ps, stop_ps = int(TAGS.time_ps(np.array(first))) - 1, int(TAGS.time_ps(np.array(first + count))) - 1
    account = Ledger(seen=count)
    return Parcel(TagBlock(time_ps, TAGS.channel(number)), start_ps, Progress(0, stop_ps), account, tuple(gaps))


def taken_numbers(parcels):
    return [int(n) for p in parcels for n in TAGS.number_at(p.tags.time_ps)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 4_000)),
            st.tuples(st.just("take"), st.integers(1, 60_000)),
            st.tuples(st.just("acknowledge"), st.just(0)),
            st.tuples(st.just("give up"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_memory_is_bounded_and_every_tag_is_recorded_dropped_or_in_flight(steps):
    buffer, held, recorded, gaps, put = TagBuffer(LIMIT), [], [], [], 0
    for step, size in [*steps, ("acknowledge", 0), ("take", 10**9), ("acknowledge", 0)]:
        if step == "put":
            buffer.put(parcel(put, size))
            put += size
        elif step == "take":
            held += buffer.take(size)
        else:
            buffer.acknowledge(held, recorded=step == "acknowledge", cause="disk full")
            gaps += [gap for p in held for gap in p.gaps]
            if step == "acknowledge":
                recorded += taken_numbers(held)
            held = []
        fill = buffer.fill()
        assert fill.balances
        assert fill.used_bytes <= LIMIT + 2 * 1024  # a gap may come on top
    ledger = buffer.fill().ledger
    assert (ledger.seen, ledger.recorded) == (put, len(recorded))
    assert ledger.in_flight() == 0
    assert recorded == sorted(set(recorded))
    assert sum(gap.missed for gap in gaps) == ledger.dropped.get(BUFFER_FULL, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(200, 1_000), min_size=30, max_size=50))
def test_a_long_overload_is_one_gap_around_exactly_the_lost_tags(sizes):
    buffer, put = TagBuffer(LIMIT), 0
    for size in [*sizes, *[1_000] * 10]:
        buffer.put(parcel(put, size))
        put += size
    parcels = buffer.take(10**9)
    kept = taken_numbers(parcels)
    (gap,) = [gap for p in parcels for gap in p.gaps]
    assert kept == list(range(len(kept)))
    assert gap.missed == put - len(kept)
    assert gap.start_ps >= TAGS.time_ps(np.array(kept[-1]))
    assert gap.start_ps < TAGS.time_ps(np.array(kept[-1] + 1))
    assert gap.stop_ps >= TAGS.time_ps(np.array(put - 1))


def test_after_it_was_full_tags_are_kept_again_when_a_quarter_is_free():
    buffer = TagBuffer(LIMIT)
    for n in range(20):
        buffer.put(parcel(1_000 * n, 1_000))
    assert buffer.dropping
    first = buffer.take(1)
    buffer.acknowledge(first)
    buffer.put(parcel(20_000, 1))
    assert buffer.dropping
    buffer.acknowledge(buffer.take(LIMIT // 3))
    buffer.put(parcel(20_001, 1))
    assert not buffer.dropping
    rest = buffer.take(10**9)
    assert taken_numbers(rest)[-1] == 20_001
    assert sum(p.bytes for p in first) < BYTES_PER_TAG * 1_000 + 2_000


def test_time_that_goes_on_without_tags_takes_no_memory():
    buffer = TagBuffer(LIMIT)
    for n in range(10_000):
        buffer.put(parcel(n, 0))
    assert buffer.fill().used_bytes < 2_000
    assert not buffer.has_content
    (only,) = buffer.take(10**9)
    assert only.progress.latest_ps == parcel(9_999, 0).progress.latest_ps
