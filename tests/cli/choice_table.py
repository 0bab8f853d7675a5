"""The table in the README that says what a pass gives with each tagger and mount: read, compared, written anew.

With GROUNDSTATION_WRITE_TABLES=1 in the environment, what a test measured is written instead of compared (in one
process: without -n).
"""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from groundstation.cli.loading import described_drivers
from groundstation.instruments import DriverDescription

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- choice of instruments -->\n", "<!-- /choice of instruments -->\n"
HEADS: Mapping[str, tuple[str, ...]] = {
    "tagger": ("time tagger", "inputs", "tick", "clicks in the gate", "sifted bits", "QBER", "why"),
    "mount": ("mount", "follows by", "off the path", "sifted bits", "QBER", "why"),
}
_NONE = "-"
_WRITES = os.environ.get("GROUNDSTATION_WRITE_TABLES") == "1"


class Figure(NamedTuple):
    """A measured number as it is told, and how far another measurement may be from it."""

    text: str
    within: float


def choices(capability: str) -> dict[str, DriverDescription]:
    """The drivers of a capability, by name, as there are."""
    return {name: driver for name, driver in sorted(described_drivers().items()) if driver.capability == capability}


def has_simulator(driver: str) -> bool:
    return importlib.util.find_spec(f"drivers.simulators.{driver}") is not None


def not_flown(driver: str) -> tuple[str, ...]:
    """The row of a driver without a simulator."""
    described = described_drivers()[driver]
    own = (str(described.inputs),) if described.capability == "tagger" else ()
    empty = [_NONE] * (len(HEADS[described.capability]) - len(own) - 2)
    return (named(driver), *own, *empty, "not flown: there is no simulator of it, and its library needs the hardware")


def refused(driver: str, sentence: str) -> tuple[str, ...]:
    """The row of an instrument with which no pass begins, with what the program says of it."""
    empty = [_NONE] * (len(HEADS[described_drivers()[driver].capability]) - 2)
    return (named(driver), *empty, f"refused: {sentence}")


def named(driver: str) -> str:
    """The first cell of a row."""
    return f"{described_drivers()[driver].instrument.partition(' (')[0]} (`{driver}`)"


def told() -> dict[str, tuple[str, ...]]:
    """The README's rows, by driver."""
    lines = _region().splitlines()
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")]
    return {found[1]: row for row in cells if (found := re.search(r"\(`(\w+)`\)$", row[0]))}


def hold_against_readme(driver: str, row: tuple[str | Figure, ...]) -> None:
    """The README tells the same; or, if that is wanted, it does so from now on."""
    if _WRITES:
        _write(told() | {driver: tuple(cell.text if isinstance(cell, Figure) else cell for cell in row)})
        return
    assert driver in told(), f"the README has no row for {driver}: run this with GROUNDSTATION_WRITE_TABLES=1"
    written = told()[driver]
    assert len(written) == len(row)
    for found, cell in zip(written, row, strict=True):
        if isinstance(cell, Figure):
            assert abs(_number(found) - _number(cell.text)) <= cell.within, f"{driver}: {found} in the README, {cell}"
        else:
            assert found == cell


def is_as_rendered() -> bool:
    """Whether the README's region has the form that is written here."""
    return _region() == _rendered(told())


def _number(text: str) -> float:
    found = re.match(r"[\d,.]+", text)
    assert found, f"{text} is no number"
    return float(found[0].replace(",", ""))


def _region() -> str:
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1, "the README has lost the markers of the table"
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def _rendered(rows: Mapping[str, tuple[str, ...]]) -> str:
    tables = []
    for capability, head in HEADS.items():
        lines = [head, ("---",) * len(head)]
        lines += [rows[driver] for driver in choices(capability) if driver in rows]
        tables.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n" + "\n".join(tables) + "\n"


def _write(rows: Mapping[str, tuple[str, ...]]) -> None:
    text = README.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:start] + _rendered(rows) + text[stop:], encoding="utf-8")
