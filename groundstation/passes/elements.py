"""Two-line element sets, checked before anything is pointed by them.

A damaged element set still propagates: it only points somewhere else. Of six published sets for one satellite
two were damaged, so every line is checked for length, characters, number, checksum and fields.
Format: https://celestrak.org/columns/v04n03/
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sgp4.alpha5 import from_alpha5

from groundstation.errors import BadInput

_LINE_LENGTH = 69
_NS_PER_DAY = 86_400_000_000_000
_NS_PER_EPOCH_DIGIT = 864_000  # the epoch's last digit is 1e-8 day
_UNIX_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_ADVICE = "copy the element set again from its source"
_CATALOGUE_NUMBER = r"[ 0-9A-HJ-NP-Z][ \d]{3}\d"
_EXPONENT = r"[ +-]\d{5}[ +-]\d"
_ANGLE = r" *\d+\.\d{4}"

#: (line, name, first column, last column, pattern), columns counted from 1 as in the format's description.
_FIELDS = (
    (1, "catalogue number", 3, 7, _CATALOGUE_NUMBER),
    (1, "epoch's year", 19, 20, r"\d\d"),
    (1, "epoch's day", 21, 32, r" *\d+\.\d{8}"),
    (1, "mean motion's first derivative", 34, 43, r"[ +-][ 0]?\.\d{8}"),
    (1, "mean motion's second derivative", 45, 52, _EXPONENT),
    (1, "drag term", 54, 61, _EXPONENT),
    (2, "catalogue number", 3, 7, _CATALOGUE_NUMBER),
    (2, "inclination", 9, 16, _ANGLE),
    (2, "ascending node", 18, 25, _ANGLE),
    (2, "eccentricity", 27, 33, r"\d{7}"),
    (2, "argument of perigee", 35, 42, _ANGLE),
    (2, "mean anomaly", 44, 51, _ANGLE),
    (2, "mean motion", 53, 63, r" *\d+\.\d{8}"),
)


@dataclass(frozen=True)
class ElementSet:
    """A satellite's mean orbital elements as published; make one with `parse`, which checks it."""

    name: str
    line1: str
    line2: str

    @classmethod
    def parse(cls, name: str, line1: str, line2: str) -> "ElementSet":
        """Check both lines and keep them; raises BadInput with line, finding and expectation."""
        for number, line in ((1, line1), (2, line2)):
            _check_line(name, number, line)
        for number, field, first, last, pattern in _FIELDS:
            text = (line1, line2)[number - 1][first - 1 : last]
            if not re.fullmatch(pattern, text):
                what = f'the {field} in columns {first} to {last} is "{text}", expected a number'
                raise _bad(name, number, what)
        if line1[2:7] != line2[2:7]:
            what = f'the catalogue number is "{line2[2:7]}", expected "{line1[2:7]}" as in line 1'
            raise _bad(name, 2, what)
        return cls(name, line1, line2)

    @property
    def catalogue_number(self) -> int:
        """The number in the catalogue of NORAD."""
        return int(from_alpha5(self.line1[2:7]))

    @property
    def epoch_utc_ns(self) -> int:
        """When the elements hold, exact to the last printed digit (864 microseconds)."""
        year = int(self.line1[18:20])
        day, fraction = self.line1[20:32].split(".")
        first_day = date(year + (1900 if year >= 57 else 2000), 1, 1).toordinal()
        days = first_day + int(day) - 1 - _UNIX_EPOCH_ORDINAL
        return days * _NS_PER_DAY + int(fraction) * _NS_PER_EPOCH_DIGIT


def read_element_file(path: Path | str) -> ElementSet:
    """The one element set of a file of two lines, or three with the satellite's name first.

    Raises BadInput when the file cannot be read, holds no set or more than one, or holds a damaged one.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise BadInput(f'element file "{path}" cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise BadInput(f'element file "{path}" holds a byte that is not ASCII at {error.start}') from error
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) not in (2, 3):
        raise BadInput(
            f'element file "{path}" has {len(lines)} lines that are not empty, expected 2 (the element set)'
            " or 3 (its name first); keep only the satellite of this station"
        )
    name = lines[0].removeprefix("0 ").strip() if len(lines) == 3 else Path(path).stem
    return ElementSet.parse(name, lines[-2], lines[-1])


def _check_line(name: str, number: int, line: str) -> None:
    if len(line) != _LINE_LENGTH:
        raise _bad(name, number, f"it is {len(line)} characters long, expected {_LINE_LENGTH}")
    if not (line.isascii() and line.isprintable()):
        raise _bad(name, number, "it holds a character that is not printable ASCII")
    if line[:2] != f"{number} ":
        raise _bad(name, number, f'it begins with "{line[:2]}", expected "{number} "')
    expected = sum(int(c) if c.isdigit() else c == "-" for c in line[:-1]) % 10
    if line[-1] != str(expected):
        raise _bad(name, number, f'its checksum is "{line[-1]}", expected {expected} from its other digits')


def _bad(name: str, number: int, what: str) -> BadInput:
    return BadInput(f'line {number} of the element set "{name}" is damaged: {what}; {_ADVICE}')
