"""JSON objects on a stream, against Python's own parser."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from drivers.json_stream import JsonSplitter

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["}{", '\\"}', "{\\", "[]{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=6), NESTED, max_size=3), max_size=6)


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def split(pieces):
    splitter = JsonSplitter()
    return [text for piece in pieces for text in splitter.feed(piece)], splitter.broken


@given(
    OBJECTS,
    st.lists(st.sampled_from([b"", b"\x17", b"\x17\n", b" "]), min_size=6, max_size=6),
    st.lists(st.integers(0)),
)
def test_objects_come_out_as_they_went_in_however_glued_and_cut(objects, separators, places):
    texts = [json.dumps(value).encode() for value in objects]
    data = b"".join(text + end for text, end in zip(texts, separators, strict=False))
    assert split(cut(data, places)) == (texts, 0)


@given(st.lists(st.sampled_from([b"{", b"}", b'"', b"\\", b"\x17", b"a", b"\xff"])), st.lists(st.integers(0)))
def test_any_cut_of_any_bytes_gives_the_same_and_an_end_mark_brings_it_in_step(parts, places):
    data = b"".join(parts)
    assert split(cut(data, places)) == split([data])
    assert split([data, b'\x17{"a": 1}'])[0][-1:] == [b'{"a": 1}']


def test_the_text_of_two_glued_objects_inside_a_string_is_no_boundary():
    data = b'{"label":"Note","value":"a}{b \\" }{"}{"label":"x"}\x17'
    assert split([data])[0] == [b'{"label":"Note","value":"a}{b \\" }{"}', b'{"label":"x"}']


def test_what_is_broken_is_counted():
    assert split([b'{"half": \x17{"a": 1}']) == ([b'{"a": 1}'], 1)
    assert split([b'noise{"a": 1}\x17more\x17']) == ([b'{"a": 1}'], 2)


def test_an_object_without_end_does_not_fill_the_memory():
    splitter = JsonSplitter()
    assert splitter.feed(b'{"a": "' + b"x" * 10_000_001) == []
    assert splitter.broken == 1
    assert splitter.feed(b'\x17{"a": 1}') == [b'{"a": 1}']
