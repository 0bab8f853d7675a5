"""The settings table of a driver, checked: what is misspelt is named before anything is opened."""

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

from groundstation.errors import BadInput
from groundstation.instruments import Settings

T = TypeVar("T")


def parse_settings(kind: type[T], settings: Settings, driver: str) -> T:
    """Build the frozen dataclass `kind` from a table of the station file.

    Its fields are the known keys, their annotations the types (an int is accepted for a float), their
    defaults the values of absent keys. Raises BadInput that names the key, the driver and the remedy.
    """
    annotations = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
    values: dict[str, object] = {}
    for key, value in settings.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise BadInput(f'driver {driver} has no setting "{key}"; the nearest one is "{near[0]}"')
        values[key] = _checked(value, annotations[key], key, driver)
    return kind(**values)


def _checked(value: object, annotation: Any, key: str, driver: str) -> object:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if any(type(value) is option for option in options):
        return value
    names = " or ".join(option.__name__ for option in options if option is not types.NoneType)
    raise BadInput(f'setting "{key}" of driver {driver} is {value!r}; write a value of type {names}')


def require_positive(value: float, key: str, driver: str) -> None:
    """BadInput unless `value` is a finite number above zero."""
    if not 0.0 < value < float("inf"):
        raise BadInput(f'setting "{key}" of driver {driver} is {value}; it must be a number above 0')
