"""Frozen dataclasses from tables (TOML, JSON), strictly: what is misspelt or of another type is named.

The fields of a dataclass are the known keys, their annotations the types, their defaults the values of absent
keys. One mechanism for the station file, the settings of drivers and the parameters of simulators.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from groundstation.errors import BadInput

T = TypeVar("T")


class BadKey(BadInput):
    """A key that is unknown, missing or has a wrong value. `path`: the tables and the key that lead to it."""

    def __init__(self, path: Sequence[str], sentence: str) -> None:
        super().__init__(sentence)
        self.path = tuple(path)


def record(kind: type[T], values: object, *path: str) -> T:
    """Build `kind` from a table; `path` names where the table stands. Raises BadKey.

    Understood annotations: bool, int, float (an int will do), str, nested dataclasses, tuple[X, ...],
    tuple[X, X], dict[str, X] and X | None.
    """
    if not isinstance(values, Mapping):
        raise BadKey(path, f"{_name(path)} is {values!r}; it must be a table")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind)) if f.init}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
            known = f'; the nearest valid key is "{near[0]}"' if near else ""
            raise BadKey((*path, str(key)), f'{_name(path)} has no key "{key}"{known}')
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise BadKey((*path, name), f'{_name(path)} lacks the key "{name}"; add it')
    return kind(**{key: _value(hints[key], value, (*path, key)) for key, value in values.items()})


def _value(hint: Any, value: object, path: tuple[str, ...]) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record(typing.cast(type, hint), value, *path)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not types.NoneType), value, path)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], item, (*path, str(key))) for key, item in value.items()}
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise BadKey(path, f"{_name(path)} has {len(value)} entries; it needs {len(arguments)}")
        return tuple(_value(arguments[0], item, path) for item in value)
    if hint is float and (type(value) is float or (type(value) is int and abs(value) < 1 << 1000)):
        return float(typing.cast(float, value))
    if hint is object or type(value) is hint:
        return value
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint)
    if wanted is None:
        wanted = "a table" if origin is dict else "a list"
    raise BadKey(path, f"{_name(path)} is {value!r}; it must be {wanted}")


def _name(path: Sequence[str]) -> str:
    return f"[{'.'.join(path)}]" if path else "the file"
