"""Angles as mounts of the LX200 family write and read them."""

import math
import re

_ANGLE = re.compile(r"\s*([+-]?)(\d{1,3})(?:\D(\d{1,2}))?(?:\D(\d{1,2}(?:\.\d*)?))?\s*")


def sexagesimal(value: float, digits: int, plus: str, turn: float = math.inf, ultra: bool = False) -> str:
    """Degrees or hours as text. `ultra`: ultra precision, with tenths (hundredths of a time second) and colons.

    `digits`: of the whole number; `plus`: the sign of a positive value; `turn`: where it begins anew.
    """
    places = (2 if turn == 24.0 else 1) if ultra else 0
    units = round(abs(value) * 3600 * 10**places)
    if math.isfinite(turn):
        units %= round(turn * 3600 * 10**places)
    seconds, fraction = divmod(units, 10**places)
    sign = "-" if value < 0 and units else plus
    separator = ":" if ultra or turn == 24.0 else "*"
    text = f"{sign}{seconds // 3600:0{digits}d}{separator}{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return text + (f".{fraction:0{places}d}" if places else "")


def angle_of(text: str) -> float | None:
    """`+12*34:56.7` with any separators; None for anything else."""
    found = _ANGLE.fullmatch(text)
    if found is None:
        return None
    value = int(found[2]) + int(found[3] or 0) / 60.0 + float(found[4] or 0) / 3600.0
    return -value if found[1] == "-" else value


def number_of(text: str) -> float | None:
    """A decimal number; None for anything else."""
    return float(text) if re.fullmatch(r"\s*[+-]?\d{1,6}(\.\d*)?\s*", text) else None
