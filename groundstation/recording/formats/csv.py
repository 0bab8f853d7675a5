"""Plain text: a time and a channel on each line, with what else is known in comments.

A first line of names says the unit: `time_ps`, `time_ns`, `time_us` or `time_s` (decimal fractions are read
exactly), and `channel`; without one it is ps, channel. Separated by comma, semicolon, tab or blanks; a file
with times alone is all of channel 0. Our own comments, each understood again when read:

    # resolution_ps 3.90625
    # channel 1 alice
    # gap 1000 2000 5 overflow          start and stop in ps, number missed (- if unknown), cause
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import LIMIT_PS, About, Gap, TagFile, in_time_order

_LINE_BYTES = 1 << 21
_POWERS = {"time_ps": 0, "time_ns": 3, "time_us": 6, "time_s": 12}
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\Z")
_SEPARATORS = re.compile(r"[,;\s]+")
_WHOLE = re.compile(r"[-+0-9,;\s]*\Z", re.ASCII)


class _Columns(NamedTuple):
    time: int
    channel: int | None
    power: int
    width: int


def recognises(head: bytes) -> bool:
    """Whether the first line that is no comment is a header of ours or one or two numbers."""
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return False
    words = next(([*_split(line)] for line in text.splitlines() if line.strip() and not line.startswith("#")), [])
    return any(word in _POWERS for word in words) or (
        1 <= len(words) <= 2 and all(_NUMBER.match(word) for word in words)
    )


def read(path: Path) -> TagFile:
    """Read it. Raises BadInput naming the line that cannot be understood."""
    about = About("csv", 1.0)
    return TagFile(about, in_time_order(_blocks(path, about), about, str(path)))


def write(path: Path, source: TagFile) -> None:
    """Write time_ps and channel, and everything else as comments."""
    about = source.about
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# resolution_ps {about.resolution_ps!r}\n")
        file.writelines(f"# channel {number} {name}\n" for number, name in about.channels.items())
        file.write("time_ps,channel\n")
        for time_ps, channel in source.blocks:
            file.writelines(_comment(gap) for gap in about.take_gaps())
            file.write("".join(map("{},{}\n".format, time_ps.tolist(), channel.tolist())))
        file.writelines(_comment(gap) for gap in about.take_gaps())


def _comment(gap: Gap) -> str:
    missed = "-" if gap.missed is None else gap.missed
    return f"# gap {gap.start_ps} {gap.stop_ps} {missed} {' '.join(gap.cause.split())}\n"


def _blocks(path: Path, about: About) -> Iterator[TagBlock]:
    columns: _Columns | None = None
    line_number = 1
    with path.open(encoding="utf-8", errors="replace") as file:
        while lines := file.readlines(_LINE_BYTES):
            rows: list[tuple[int, str]] = []
            for number, line in enumerate(lines, line_number):
                if line.startswith("#"):
                    _take_comment(line, about)
                elif line.strip():
                    rows.append((number, line))
            line_number += len(lines)
            if rows and columns is None:
                columns = _columns_of(path, rows[0][1])
                rows = rows if _NUMBER.match(_split(rows[0][1])[0]) else rows[1:]
            if columns is not None:
                if rows and not rows[-1][1].endswith("\n") and len(_split(rows[-1][1])) != columns.width:
                    about.notes.append("the file ends inside a line, which was left out")
                    rows = rows[:-1]
                yield _block(path, rows, columns)


def _block(path: Path, rows: list[tuple[int, str]], columns: _Columns) -> TagBlock:
    text = "".join(line if line.endswith("\n") else line + "\n" for _, line in rows)
    if columns.power == 0 and columns.width <= 2 and _WHOLE.match(text):
        words = _split(text)
        if len(words) == columns.width * len(rows):
            try:
                return _checked(path, np.array(words, np.int64).reshape(-1, columns.width), columns)
            except (ValueError, OverflowError):
                pass  # said below, with the number of the line
    table = np.array([_row(path, number, line, columns) for number, line in rows], np.int64).reshape(-1, columns.width)
    return _checked(path, table, columns)


def _checked(path: Path, table: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", columns: _Columns) -> TagBlock:
    time = table[:, columns.time]
    channel = np.zeros(len(table), np.int64) if columns.channel is None else table[:, columns.channel]
    if channel.size and (channel.min() < 0 or channel.max() > 255):
        raise BadInput(f"{path} has channels from {channel.min()} to {channel.max()}; they must be 0 to 255")
    if time.size and (time.min() < -LIMIT_PS or time.max() > LIMIT_PS):
        raise BadInput(f"{path} has times beyond 2^62 ps (53 days) from zero")
    return TagBlock(np.ascontiguousarray(time), channel.astype(np.uint8))


def _row(path: Path, number: int, line: str, columns: _Columns) -> list[int]:
    words = _split(line)
    try:
        if len(words) != columns.width:
            raise ValueError
        row = [0] * columns.width
        time_ps = Decimal(words[columns.time]).scaleb(columns.power)
        if abs(time_ps) > LIMIT_PS:  # before it is rounded: the digits of 1e999999 take a minute
            raise ValueError
        row[columns.time] = round(time_ps)
        if columns.channel is not None:
            row[columns.channel] = int(words[columns.channel])
        if max(map(abs, row)) > LIMIT_PS:
            raise ValueError
        return row
    except (ValueError, ArithmeticError) as error:
        raise BadInput(
            f'line {number} of {path} is "{line.strip()[:60]}"; expected {columns.width} numbers, the time within '
            "2^62 ps of zero and the channel 0 to 255"
        ) from error


def _columns_of(path: Path, line: str) -> _Columns:
    words = _split(line)
    if all(_NUMBER.match(word) for word in words) and len(words) in (1, 2):
        return _Columns(0, 1 if len(words) == 2 else None, 0, len(words))
    times = [word for word in words if word in _POWERS]
    if len(times) != 1:
        raise BadInput(
            f'{path} begins with "{line.strip()[:60]}"; name the columns time_ps (or time_ns, time_us, time_s) and '
            "channel"
        )
    channel = words.index("channel") if "channel" in words else None
    return _Columns(words.index(times[0]), channel, _POWERS[times[0]], len(words))


def _split(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text) if word]


def _take_comment(line: str, about: About) -> None:
    """Understand a comment of ours; all others are left alone."""
    words = line[1:].split(maxsplit=1)
    try:
        if words[:1] == ["resolution_ps"]:
            about.resolution_ps = float(words[1])
        elif words[:1] == ["channel"]:
            number, name = words[1].split(maxsplit=1)
            about.channels[int(number)] = name.strip()
        elif words[:1] == ["gap"]:
            start, stop, missed, cause = words[1].split(maxsplit=3)
            gap = Gap(int(start), int(stop), None if missed == "-" else int(missed), cause.strip())
            if max(abs(gap.start_ps), abs(gap.stop_ps), gap.missed or 0) > LIMIT_PS:
                raise ValueError
            about.gaps.append(gap)
    except (ValueError, IndexError):
        about.notes.append(f'a comment was not understood: "{line.strip()[:60]}"')
