"""The live offsets of a simulated PWI4: a total, a rate at which it grows, and a part that is still being applied.

Source: the vendor's `pwi4_client.py`, docstring of `mount_offset`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from groundstation.clock import NS_PER_S

AXES = ("ra", "dec", "axis0", "axis1", "path", "transverse")
_COMMANDS = ("reset", "stop_rate", "add_arcsec", "set_rate_arcsec_per_sec")
_LATER_COMMANDS = (  # from 4.0.11
    *("stop", "stop_gradual_offset", "set_total_arcsec", "add_gradual_offset_arcsec"),
    *("gradual_offset_rate", "gradual_offset_seconds"),
)


class Offset(NamedTuple):
    """One axis, as it was at a moment."""

    utc_ns: int = 0
    total_arcsec: float = 0.0
    rate_arcsec_s: float = 0.0
    gradual_arcsec: float = 0.0  # still to come
    gradual_s: float = 0.0  # in this time

    def progress(self, utc_ns: int) -> float:
        """Of the part that was still to come: the fraction applied, 1 when none was."""
        elapsed_s = (utc_ns - self.utc_ns) / NS_PER_S
        return min(1.0, elapsed_s / self.gradual_s) if self.gradual_s > 0.0 else 1.0

    def at(self, utc_ns: int) -> float:
        """The total then."""
        elapsed_s = (utc_ns - self.utc_ns) / NS_PER_S
        return self.total_arcsec + self.rate_arcsec_s * elapsed_s + self.gradual_arcsec * self.progress(utc_ns)

    def settled(self, utc_ns: int) -> "Offset":
        """The same, as it is then."""
        left = 1.0 - self.progress(utc_ns)
        return Offset(utc_ns, self.at(utc_ns), self.rate_arcsec_s, self.gradual_arcsec * left, self.gradual_s * left)


class Offsets:
    """All axes."""

    def __init__(self, has_later_commands: bool) -> None:
        self._commands = _COMMANDS + (_LATER_COMMANDS if has_later_commands else ())
        self._offsets = dict.fromkeys(AXES, Offset())

    def __getitem__(self, axis: str) -> Offset:
        return self._offsets[axis]

    def total(self, axis: str, utc_ns: int) -> float:
        """In arcseconds."""
        return self._offsets[axis].at(utc_ns)

    def clear(self) -> None:
        """All gone, as for a new target."""
        self._offsets = dict.fromkeys(AXES, Offset())

    def command(self, query: Mapping[str, str], utc_ns: int) -> None:
        """Carry out the parameters of `/mount/offset`. Raises ValueError when one cannot be understood."""
        wanted: dict[str, dict[str, float]] = {}
        for name, text in query.items():
            axis, _, command = name.partition("_")
            if axis not in AXES or command not in self._commands:
                raise ValueError(name)
            wanted.setdefault(axis, {})[command] = float(text)
        if not wanted:
            raise ValueError("no offset")
        changed = {axis: _changed(self._offsets[axis].settled(utc_ns), commands) for axis, commands in wanted.items()}
        self._offsets |= changed


def _changed(offset: Offset, commands: Mapping[str, float]) -> Offset:
    if "reset" in commands:
        offset = Offset(offset.utc_ns)
    if "stop" in commands or "stop_rate" in commands:
        offset = offset._replace(rate_arcsec_s=0.0)
    if "stop" in commands or "stop_gradual_offset" in commands:
        offset = offset._replace(gradual_arcsec=0.0, gradual_s=0.0)
    if "set_total_arcsec" in commands:
        offset = offset._replace(total_arcsec=commands["set_total_arcsec"])
    offset = offset._replace(
        total_arcsec=offset.total_arcsec + commands.get("add_arcsec", 0.0),
        rate_arcsec_s=commands.get("set_rate_arcsec_per_sec", offset.rate_arcsec_s),
    )
    if (gradual := commands.get("add_gradual_offset_arcsec")) is None:
        return offset
    rate = commands.get("gradual_offset_rate", 0.0)
    seconds = commands["gradual_offset_seconds"] if rate == 0.0 and "gradual_offset_seconds" in commands else 0.0
    if rate:
        seconds = abs(gradual / rate)
    if not seconds > 0.0:
        raise ValueError("a gradual offset needs a rate or a time")
    return offset._replace(gradual_arcsec=gradual, gradual_s=seconds)
