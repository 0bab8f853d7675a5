"""Segments keep what they were given, and damaged ones are never taken for good."""

import io
import random
import struct
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from recording_samples import tags

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.segment import NO_HASH, Segment, Table, decode, encode

_DTYPES = ["<i8", ">i8", "i4", "i2", "u1", "u4", "u8", "f4", "f8", "?", "S1", "S7"]
_NAMES = st.text("abcXYZ_09", max_size=6).map(lambda rest: "n" + rest)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def segment(tables: dict[str, Table] | None = None, **changes: object) -> Segment:
    fields = {
        "stream": "tags",
        "number": 1,
        "run_id": "r",
        "first_row": {"tags": 0},
        "tables": tags(0, 50) if tables is None else tables,
        "notes": {},
        "end": False,
        "previous_hash": NO_HASH,
    }
    return Segment(**{**fields, **changes})


@st.composite
def _tables(draw: st.DrawFn) -> dict[str, Table]:
    tables = {}
    for name in draw(st.lists(_NAMES, max_size=3, unique=True)):
        rows = draw(st.integers(0, 9))
        columns = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
        tables[name] = {c: draw(hnp.arrays(draw(st.sampled_from(_DTYPES)), rows)) for c in columns}
    return tables


@settings(max_examples=60, deadline=None)
@given(_tables(), st.dictionaries(st.text(), _JSON, max_size=4), st.booleans())
def test_a_segment_comes_back_as_it_was(tables: dict[str, Table], notes: dict[str, object], end: bool) -> None:
    before = segment(tables, notes=notes, end=end)
    after = decode(encode(before), "x")
    assert after == before
    assert (after.notes, after.end, after.rows) == (notes, end, before.rows)
    for name, table in tables.items():
        for column, values in table.items():
            read = after.tables[name][column]
            assert read.dtype == values.dtype.newbyteorder("<")
            assert read.tobytes() == values.astype(read.dtype).tobytes()


def test_any_hdf5_reader_opens_a_segment_file() -> None:
    with h5py.File(io.BytesIO(encode(segment())), "r") as file:
        assert file["tables/tags/time_ps"][()].tolist() == tags(0, 50)["tags"]["time_ps"].tolist()
        assert file["tables/tags/channel"].dtype == np.uint8
        assert file["hash"][()].decode() == segment().hash


def test_every_field_and_every_column_counts_for_the_hash() -> None:
    other_tables = tags(0, 50)
    other_tables["tags"]["time_ps"][49] += 1
    renamed = {"tags": {"time_ps": tags(0, 50)["tags"]["time_ps"], "other": tags(0, 50)["tags"]["channel"]}}
    changed = [
        segment(number=2),
        segment(run_id="s"),
        segment(stream="events"),
        segment(first_row={"tags": 1}),
        segment(notes={"a": 1}),
        segment(end=True),
        segment(previous_hash="1" * 64),
        segment(other_tables),
        segment(renamed),
    ]
    assert len({s.hash for s in [segment(), *changed]}) == 10


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_random_corruptions_are_all_refused_as_damage(seed: int) -> None:
    good = encode(segment(notes={"ledger": {"seen": 50}}))
    foreign = encode(segment(tags(7, 50)))
    draw = random.Random(seed)
    for _ in range(100):
        at = draw.randrange(len(good))
        length = draw.randrange(1, 200)
        bad = bytearray(good)
        match draw.choice(["flip", "cut", "zero", "random", "splice", "drop"]):
            case "flip":
                bad[at] ^= 1 << draw.randrange(8)
            case "cut":
                del bad[at:]
            case "zero":
                bad[at : at + length] = bytes(len(bad[at : at + length]))
            case "random":
                bad[at : at + length] = draw.randbytes(len(bad[at : at + length]))
            case "splice":
                bad[at:] = foreign[at:]
            case "drop":
                del bad[at : at + length]
        if bytes(bad) in (good, foreign):
            continue
        with pytest.raises(RecordingDamaged, match="segment 5 is damaged"):
            decode(bytes(bad), "segment 5")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_as_damage(content: bytes) -> None:
    with pytest.raises(RecordingDamaged):
        decode(content, "x")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), _JSON.map(lambda value: repr(value).encode()) | st.binary(max_size=60))
def test_forged_bytes_with_a_right_checksum_are_refused_as_damage(image: bytes, footer: bytes) -> None:
    tail = struct.pack("<8sQQI", b"GSSEGM1\n", len(image), len(footer), zlib.crc32(image + footer))
    with pytest.raises(RecordingDamaged):
        decode(image + footer + tail, "x")


def test_a_header_that_announces_more_rows_than_there_are_bytes_reserves_nothing() -> None:
    header = (
        b'{"format":1,"stream":"a","number":1,"run_id":"r","first_row":{},"rows":{"t":999999999999},'
        b'"columns":{"t":{"c":"<i8"}},"notes":{},"end":false,"previous_hash":""}'
    )
    footer = b'{"header":[0,%d],"columns":{"t":{"c":0}},"hash":""}' % len(header)
    content = header + footer
    tail = struct.pack("<8sQQI", b"GSSEGM1\n", len(header), len(footer), zlib.crc32(content))
    with pytest.raises(RecordingDamaged, match="more rows than it has bytes"):
        decode(content + tail, "x")


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"t": {}}, "has no columns"),
        ({"t": {"a": np.zeros(2), "b": np.zeros(3)}}, r"shape \(3,\), expected \(2,\)"),
        ({"t": {"a": np.zeros((2, 2))}}, "shape"),
        ({"t": {"a": np.array(["text"])}}, "dtype <U4"),
        ({"t": {"a": np.array([None])}}, "dtype object"),
        ({"t": {"../a": np.zeros(2)}}, "cannot name"),
        ({"": {"a": np.zeros(2)}}, "cannot name"),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_a_sentence(tables: dict[str, Table], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        segment(tables)


@pytest.mark.parametrize("note", [float("nan"), b"bytes", np.int64(3), object()])
def test_a_note_that_is_no_json_is_refused(note: object) -> None:
    with pytest.raises(BadInput, match="no JSON value"):
        encode(segment(notes={"a": note}))
