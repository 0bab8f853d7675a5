"""Messages of Single Quantum's WebSQ server and lines of its counts: bytes to meaning and back, without any I/O.

Source: the vendor's client `WebSQControl.py`.
"""

import json
from typing import NamedTuple

from groundstation.errors import WireError

SHORTEST_PERIOD_MS = 10
REQUEST_ALL = b'{"request": "labelProps", "value": "None"}'
COUNT, BIAS, TRIGGER = "NumberOfDetectors", "BiasCurrent", "TriggerLevel"
PERIOD, ENABLE = "InptMeasurementPeriod", "DetectorEnable"


class Message(NamedTuple):
    """What the server says of one label. `described`: with bounds and units, as the answer to labelProps is."""

    label: str
    value: object
    described: bool = False

    @property
    def complaint(self) -> str:
        """The text of an error that just happened, "" for any other message."""
        return str(self.value) if "Error" in self.label and not self.described and self.value else ""


def parse_message(data: bytes) -> Message:
    """One JSON object; the label is "" when it has none, or is our own that comes back. Raises WireError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WireError(f"the detector driver sent {data[:60]!r}, which is no JSON object; check the network")
    if "command" in found or "request" in found:
        return Message("", None)
    label, value = str(found.get("label", "")), found.get("value")
    if isinstance(value, dict) and "value" in value:
        return Message(label, value["value"], described=True)
    return Message(label, value)


def command(name: str, value: object, label: str | None = None) -> bytes:
    """A command; most carry the label that they change."""
    message = {"command": name, **({"label": label} if label else {}), "value": value}
    return json.dumps(message).encode("ascii")


def numbers(value: object, label: str, count: int) -> tuple[float, ...]:
    """A list of `count` finite numbers. Raises WireError."""
    if isinstance(value, list) and len(value) == count and all(_is_number(item) for item in value):
        return tuple(float(item) for item in value)
    raise WireError(f"{label} is {str(value)[:60]}, expected {count} numbers")


def number(value: object, label: str) -> float:
    """One finite number. Raises WireError."""
    if _is_number(value):
        return float(value)  # type: ignore[arg-type]  # _is_number has seen an int or a float
    raise WireError(f"{label} is {str(value)[:60]}, expected a number")


def parse_counts(line: bytes, channels: int) -> tuple[int, ...]:
    """The counts of a line `Unix time, channel 1, ...`. Raises WireError."""
    try:
        values = [float(field) for field in line.decode("ascii").split(",")]
    except ValueError:
        values = []
    if len(values) != channels + 1 or not all(0.0 <= value < 1e15 and value == round(value) for value in values[1:]):
        raise WireError(f"the detector driver sent {line[:80]!r} where the time and {channels} counts were expected")
    return tuple(int(value) for value in values[1:])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
