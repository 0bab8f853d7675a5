"""Swabian's raw dump: records of 16 bytes, with overflows and losses told in the stream itself.

Little-endian: type (uint8: 0 tag, 1 error, 2 overflow begins, 3 overflow ends, 4 missed events), reserved (uint8),
number missed (uint16), channel (int32, negative for a falling edge), time in ps (int64). There is no header.
In a recording channel c is number c, a falling edge -c is number 128 + c. Source: the header of libtcspc.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import About, Gap, TagFile, in_time_order, records

_RECORD = np.dtype([("type", "u1"), ("reserved", "u1"), ("missed", "<u2"), ("channel", "<i4"), ("time", "<i8")])
_TAG, _ERROR, _BEGIN, _END, _MISSED = range(5)
_FALLING = 128
_PROBE_RECORDS = 1000
_STEPS_BACK = 0.01


def recognises(head: bytes) -> bool:
    """Whether all types exist, tags miss nothing, channels are small, and nearly all times go forward."""
    rows = np.frombuffer(head, _RECORD, min(_PROBE_RECORDS, len(head) // _RECORD.itemsize))
    tags = rows[rows["type"] == _TAG]
    channels = np.abs(tags["channel"])
    return bool(
        tags.size
        and (rows["type"] <= _MISSED).all()
        and (rows["reserved"] == 0).all()
        and (tags["missed"] == 0).all()
        and ((channels > 0) & (channels < _FALLING)).all()
        and np.count_nonzero(np.diff(tags["time"]) < 0) <= _STEPS_BACK * tags.size
    )


def read(path: Path) -> TagFile:
    """Read a dump; what lies between the begin and the end of an overflow becomes a gap, tags in it are kept."""
    about = About("swabian", 1.0)
    return TagFile(about, in_time_order(_blocks(path, about), about, f"{path}, read as swabian,"))


def write(path: Path, source: TagFile) -> None:
    """Write tags, and each gap as the begin and end of an overflow with the number missed (on channel 0)."""
    about = source.about
    with path.open("wb") as file:
        waiting: list[Gap] = []
        for block in source.blocks:
            waiting += about.take_gaps()
            newest_ps = int(block.time_ps[-1]) if block.time_ps.size else None
            now = [gap for gap in waiting if newest_ps is None or gap.stop_ps <= newest_ps]
            waiting = [gap for gap in waiting if gap not in now]
            file.write(_woven(_tag_rows(block), now).tobytes())
        file.write(_woven(np.empty(0, _RECORD), waiting + about.take_gaps()).tobytes())


def _blocks(path: Path, about: About) -> Iterator[TagBlock]:
    losses = _Losses(about)
    for rows in records(path, _RECORD, about):
        if rows.size and rows["type"].max() > _MISSED:
            raise BadInput(f"{path} is not of format swabian: it has a record of type {rows['type'].max()}")
        tags = rows[rows["type"] == _TAG]
        losses.feed(rows[rows["type"] != _TAG])
        yield TagBlock(tags["time"].astype(np.int64), _numbers(path, tags["channel"], about))
        if tags.size:
            losses.last_ps = int(tags["time"][-1])
    losses.finish()


class _Losses:
    """Makes gaps of the records that are no tags; there are few, so one at a time."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._begin_ps: int | None = None
        self._missed: int | None = None
        self.last_ps = 0

    def feed(self, rows: NDArray[np.void]) -> None:
        for kind, missed, time_ps in zip(*(rows[n].tolist() for n in ("type", "missed", "time")), strict=True):
            if kind == _BEGIN:
                self._begin_ps = time_ps if self._begin_ps is None else self._begin_ps
            elif kind == _END:
                self._close(time_ps)
            elif kind == _MISSED:
                self._about.missed = (self._about.missed or 0) + missed
                if self._begin_ps is None:
                    self._about.gaps.append(Gap(time_ps, time_ps, missed, "missed events"))
                else:
                    self._missed = (self._missed or 0) + missed
            else:
                self._about.gaps.append(Gap(min(self.last_ps, time_ps), time_ps, None, "error of the time tagger"))
            self.last_ps = time_ps

    def finish(self) -> None:
        if self._begin_ps is not None:
            self._about.notes.append("the file ends inside an overflow")
            self._close(self.last_ps)

    def _close(self, stop_ps: int) -> None:
        begin_ps = self._begin_ps if self._begin_ps is not None else self.last_ps
        self._about.gaps.append(Gap(begin_ps, stop_ps, self._missed, "overflow"))
        self._begin_ps, self._missed = None, None


def _numbers(path: Path, channel: NDArray[np.int32], about: About) -> NDArray[np.uint8]:
    found = np.unique(channel).tolist()
    wrong = [c for c in found if not 0 < abs(c) < _FALLING]
    if wrong:
        raise BadInput(f"{path} has channel {wrong[0]}; a recording takes the channels 1 to 127 and -1 to -127")
    about.channels |= {_FALLING - c: str(c) for c in found if c < 0}
    return np.where(channel > 0, channel, _FALLING - channel).astype(np.uint8)


def _tag_rows(block: TagBlock) -> NDArray[np.void]:
    if np.any(block.channel % _FALLING == 0):
        raise BadInput("swabian has no channel 0; choose channels and their numbers with --channels NAME=N,...")
    rows = np.zeros(block.time_ps.size, _RECORD)
    number = block.channel.astype(np.int32)
    rows["time"], rows["channel"] = block.time_ps, np.where(number > _FALLING, _FALLING - number, number)
    return rows


def _woven(rows: NDArray[np.void], gaps: list[Gap]) -> NDArray[np.void]:
    """Records of tags with those of the gaps in their places: a begin before, an end after tags of equal time."""
    pieces: list[tuple[int, int, int, int, int]] = []
    places: list[int] = []
    for gap in sorted(gaps):
        begin, end = np.searchsorted(rows["time"], [gap.start_ps, gap.stop_ps], side="left")
        for kind, missed, time_ps, place in _told(gap, int(begin), max(int(begin), int(end))):
            pieces.append((kind, 0, missed, 0, time_ps))
            places.append(place)
    return np.insert(rows, places, np.array(pieces, _RECORD)) if pieces else rows


def _told(gap: Gap, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Type, missed, time and place of the records that tell a gap; a record holds a count of 16 bits."""
    yield _BEGIN, 0, gap.start_ps, begin
    left = gap.missed or 0
    while left:
        count = min(left, 0xFFFF)
        yield _MISSED, count, gap.stop_ps, end
        left -= count
    yield _END, 0, gap.stop_ps, end
