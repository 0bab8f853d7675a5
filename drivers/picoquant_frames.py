"""What the process of the PicoQuant library sends (see `snapi_process`), and headers of PTU files, without any I/O.

A frame is a line of JSON, `{"tags": n, ...}`, and then n times as int64 picoseconds and n channels as bytes: 0 the sync
input, 1 to 64 the others, with the top bit set a pattern of the markers 1 to 4. Source of the PTU header's layout:
PicoQuant's demo programs.
"""

import json
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.patterns import Bits, Joiner, Times
from groundstation.errors import BadInput, WireError
from groundstation.instruments import PatternBlock

_MARKER = 0x80
_LONGEST_LINE = 1 << 17
_MOST_TAGS = 1 << 20
_MAGIC = b"PQTTTR\0\0"
_TAG_BYTES = 48
HEAD_BYTES = 1 << 20
_FOLLOWED_BY_DATA = (0x4001FFFF, 0x4002FFFF, 0x2001FFFF, 0xFFFFFFFF)
T2 = 2


class Frame(NamedTuple):
    """One message of the library's process: what it says, and the clicks that come with it."""

    says: dict[str, Any]
    time_ps: Times
    channel: NDArray[np.uint8]


class FrameReader:
    """Bytes to frames, whatever the pieces in which they come (sans-IO)."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Raises WireError for bytes that are no frames."""
        self._rest += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        end = self._rest.find(b"\n")
        if end < 0:
            if len(self._rest) > _LONGEST_LINE:
                raise WireError("the process of the PicoQuant library sends no frames")
            return None
        try:
            says = json.loads(bytes(self._rest[:end]))
            count = says.get("tags", 0)
        except (ValueError, AttributeError, RecursionError) as error:
            raise WireError(f"the process of the PicoQuant library sent {bytes(self._rest[:80])!r}") from error
        if type(count) is not int or not 0 <= count <= _MOST_TAGS:
            raise WireError(f"the process of the PicoQuant library announces {count!r} tags")
        begin, stop = end + 1, end + 1 + 9 * count
        if len(self._rest) < stop:
            return None
        body = bytes(self._rest[begin:stop])
        del self._rest[:stop]
        return Frame(says, np.frombuffer(body, "<i8", count), np.frombuffer(body, np.uint8, count, 8 * count))


class PtuFile(NamedTuple):
    """What a PTU header says of the records after it."""

    header_bytes: int
    records: int
    mode: int


def parse_ptu_header(head: bytes) -> PtuFile:
    """The header of a PTU file from its first bytes. Raises BadInput."""
    if not head.startswith(_MAGIC):
        raise BadInput("it is no PTU file: it does not begin with PQTTTR")
    values: dict[bytes, int] = {}
    at = 16
    while at + _TAG_BYTES <= len(head):
        name, _, kind, value = struct.unpack_from("<32siIq", head, at)
        name = name.rstrip(b"\0")
        at += _TAG_BYTES
        if name == b"Header_End":
            records, mode = values.get(b"TTResult_NumberOfRecords"), values.get(b"Measurement_Mode")
            if records is None or mode is None:
                raise BadInput("its header does not say how many records of which mode follow")
            return PtuFile(at, records, mode)
        if kind in _FOLLOWED_BY_DATA:
            if not 0 <= value <= len(head):
                break
            at += value
        values[name] = value
    raise BadInput("its header has no end")


class ClickDecoder:
    """Clicks of the library's channels to blocks; `inputs`: the channel of each bit of a pattern."""

    def __init__(self, inputs: tuple[int, ...], join_ps: int) -> None:
        self._bits: Bits = np.zeros(256, np.uint8)
        for number, channel in enumerate(inputs):
            if channel >= 0:
                self._bits[channel] |= 1 << number
            else:  # every byte in which this marker is set
                bytes_of_marker = [_MARKER | set_of for set_of in range(16) if set_of & 1 << (-channel - 1)]
                self._bits[bytes_of_marker] |= np.uint8(1 << number)
        self._joiner = Joiner(join_ps)
        self._last_ps = 0
        self.latest_ps = -1

    def feed(self, frame: Frame) -> PatternBlock:
        """Raises WireError when times go back, or notes are no sentences."""
        time_ps = frame.time_ps
        if time_ps.size:
            if time_ps[0] < self._last_ps or (time_ps[1:] < time_ps[:-1]).any():
                raise WireError("the times of the PicoQuant library go back; connect again and begin a new recording")
            self._last_ps = int(time_ps[-1])
        notes = frame.says.get("notes", [])
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise WireError(f"the process of the PicoQuant library notes {notes!r}")
        patterns = self._bits[frame.channel]
        ours = patterns != 0
        latest_ps = max(self._last_ps if time_ps.size else -1, self.latest_ps)
        events, joined, complete_ps = self._joiner.feed(time_ps[ours], patterns[ours], latest_ps)
        self.latest_ps = max(self.latest_ps, complete_ps)
        return PatternBlock(
            events, joined, self.latest_ps, None if notes else 0, tuple(f"PicoQuant: {note}" for note in notes)
        )

    def finish(self) -> PatternBlock:
        """What was still waiting for company, at the end of a file."""
        end_ps = self._last_ps + (1 << 40)
        events, joined, _ = self._joiner.feed(np.empty(0, np.int64), np.empty(0, np.uint8), end_ps)
        return PatternBlock(events, joined, max(self._last_ps, self.latest_ps), 0)
