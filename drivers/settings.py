"""The settings table of a driver, checked before anything is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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


def parse_settings(kind: type[T], settings: Settings, driver: str) -> T:
    """Build the frozen dataclass `kind` from a driver's table of the station file; BadInput names what is wrong."""
    return record(kind, settings, driver, "settings")


def require_positive(value: float, key: str, driver: str) -> None:
    """BadInput unless `value` is a finite number above zero."""
    if not 0.0 < value < float("inf"):
        raise BadInput(f'setting "{key}" of driver {driver} is {value}; it must be a number above 0')
