"""How every driver's `connect` begins and ends: the settings table, checked before anything is opened, and a link that
is given back when the rest fails."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from groundstation.errors import BadInput
from groundstation.instruments import Settings
from groundstation.tables import record

T = TypeVar("T")


@dataclass(frozen=True)
class LinkSettings:
    """What every driver with a link of its own can be told: its deadline (wall time), and where to log the wire."""

    timeout_s: float = 3.0
    wire_log: str | None = None

    @property
    def log(self) -> Path | None:
        """For `open_link` and its sisters."""
        return Path(self.wire_log) if self.wire_log else None


def parse_settings(kind: type[T], settings: Settings, driver: str, positive: Sequence[str] = ()) -> T:
    """Build the frozen dataclass `kind` from a driver's table of the station file; BadInput names what is wrong.

    `positive`: keys of numbers that must be above zero.
    """
    chosen = record(kind, settings, driver, "settings")
    for key in positive:
        require_positive(getattr(chosen, key), key, driver)
    return chosen


def require_positive(value: float, key: str, driver: str) -> None:
    """BadInput unless `value` is a finite number above zero."""
    if not 0.0 < value < float("inf"):
        raise BadInput(f'setting "{key}" of driver {driver} is {value}; it must be a number above 0')


class _Closable(Protocol):
    def close(self) -> None: ...


@contextlib.contextmanager
def closed_on_error(opened: _Closable) -> Iterator[None]:
    """Close what was opened when what is done with it here fails."""
    try:
        yield
    except BaseException:
        opened.close()
        raise
