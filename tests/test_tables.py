"""Tables become dataclasses strictly: every value comes through unchanged or is named."""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.simulation.parameters import WorldParameters
from groundstation.tables import BadKey, record


@dataclass(frozen=True)
class Inner:
    number: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()
    pair: tuple[int, int] = (1, 2)
    by_name: dict[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None
    flag: bool = False
    anything: dict[str, object] = field(default_factory=dict)


WHOLE = {
    "name": "x",
    "inner": {"number": 1, "share": 2},
    "many": [{"number": 3}],
    "pair": [4, 5],
    "by_name": {"a": {"number": 6}},
    "maybe": {"number": 7},
    "flag": True,
    "anything": {"a": [1, "b", None]},
}


def test_everything_that_is_understood_is_built():
    assert record(Outer, WHOLE) == Outer(
        "x", Inner(1, 2.0), (Inner(3),), (4, 5), {"a": Inner(6)}, Inner(7), True, {"a": [1, "b", None]}
    )


def test_absent_keys_have_their_defaults():
    assert record(Outer, {"name": "x", "inner": {"number": 1}}) == Outer("x", Inner(1))


def test_nothing_may_stand_where_something_is_optional():
    assert record(Outer, {**WHOLE, "maybe": None}).maybe is None


def test_a_whole_number_will_do_where_a_number_is_wanted_and_becomes_one():
    share = record(Inner, {"number": 1, "share": 3}).share
    assert (share, type(share)) == (3.0, float)


@pytest.mark.parametrize(
    ("changes", "path", "sentence"),
    [
        ({"inner": {"number": 1.0}}, ("inner", "number"), "[inner.number] is 1.0; it must be a whole number"),
        ({"inner": {"number": True}}, ("inner", "number"), "[inner.number] is True; it must be a whole number"),
        ({"inner": {}}, ("inner", "number"), '[inner] lacks the key "number"; add it'),
        ({"inner": 5}, ("inner",), "[inner] is 5; it must be a table"),
        ({"inner": {"numbr": 1}}, ("inner", "numbr"), '[inner] has no key "numbr"; the nearest valid key is "number"'),
        ({"many": {"number": 1}}, ("many",), "[many] is {'number': 1}; it must be a list"),
        ({"many": "abc"}, ("many",), "[many] is 'abc'; it must be a list"),
        ({"many": [{"number": "1"}]}, ("many", "number"), "[many.number] is '1'; it must be a whole number"),
        ({"pair": [1]}, ("pair",), "[pair] has 1 entries; it needs 2"),
        ({"by_name": [1]}, ("by_name",), "[by_name] is [1]; it must be a table"),
        ({"by_name": {"a": {}}}, ("by_name", "a", "number"), '[by_name.a] lacks the key "number"; add it'),
        ({"maybe": 3}, ("maybe",), "[maybe] is 3; it must be a table"),
        ({"flag": 1}, ("flag",), "[flag] is 1; it must be true or false"),
        ({"name": None}, ("name",), "[name] is None; it must be a text"),
        ({"anything": 3}, ("anything",), "[anything] is 3; it must be a table"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_to_it(changes, path, sentence):
    with pytest.raises(BadKey) as caught:
        record(Outer, {**WHOLE, **changes})
    assert (str(caught.value), caught.value.path) == (sentence, path)


def test_the_way_to_a_table_inside_a_file_is_part_of_the_name():
    with pytest.raises(BadKey, match=r"\[instruments.mount\] lacks") as caught:
        record(Inner, {}, "instruments", "mount")
    assert caught.value.path == ("instruments", "mount", "number")


def strategy_of(kind):
    """Any value of a dataclass of numbers, tuples of numbers and dataclasses of the same sort."""
    return st.builds(kind, **{name: _values_of(hint) for name, hint in get_type_hints(kind).items()})


def _values_of(hint):
    if is_dataclass(hint):
        return strategy_of(hint)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is int:
        return st.integers(-(2**63), 2**64)
    if hint in (str, bool):
        return st.from_type(hint)
    first, *rest = hint.__args__
    if rest == [Ellipsis]:
        return st.lists(_values_of(first), max_size=4).map(tuple)
    return st.tuples(*(_values_of(part) for part in hint.__args__))


@settings(max_examples=60, deadline=None)
@given(strategy_of(WorldParameters))
def test_every_world_survives_the_way_through_a_table_and_through_json(world):
    assert record(WorldParameters, asdict(world)) == world
    assert record(WorldParameters, json.loads(json.dumps(asdict(world)))) == world


@given(st.sampled_from([f.name for f in fields(WorldParameters)]), st.text(min_size=1, max_size=8))
def test_a_key_that_no_world_has_is_never_taken_in_silence(table, key):
    content = asdict(WorldParameters())
    inner = content[table] if isinstance(content[table], dict) else content
    if key not in inner:
        inner[key] = 1
        with pytest.raises(BadKey):
            record(WorldParameters, content)
