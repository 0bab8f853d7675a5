"""Messages of Thorlabs' APT protocol for rotation stages: bytes to meaning and back, without any I/O.

A message is a header of six bytes, `id p1 p2 dest source` or, with the top bit of dest set, `id length dest source`
and so many bytes of data; all little-endian. There is no checksum and no start mark. Sources: Thorlabs APT protocol,
issue 25; pyLabLib `Thorlabs/kinesis.py`; thorlabs-apt-protocol 29.0.0 `functions.py`, `parsing.py`.
"""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from groundstation.errors import WireError

HOST, DEVICE, CHANNEL = 0x01, 0x50, 1
STOP_UPDATES, ASK_INFO, INFO = 0x0012, 0x0005, 0x0006
HOME, HOMED, MOVE_TO, MOVED, STOP, STOPPED = 0x0443, 0x0444, 0x0453, 0x0464, 0x0465, 0x0466
ASK_STEPPER_STATUS, STEPPER_STATUS, ASK_SERVO_STATUS, SERVO_STATUS = 0x0480, 0x0481, 0x0490, 0x0491
COMPLAINT, RICH_COMPLAINT = 0x0080, 0x0081
_DATA_BYTES: Mapping[int, int] = MappingProxyType({INFO: 84, STEPPER_STATUS: 14, SERVO_STATUS: 14, RICH_COMPLAINT: 68})
_LONGEST_DATA = 512  # no message of the document is longer
_HEADER_BYTES = 6

COUNTS_PER_DEG: Mapping[str, float] = MappingProxyType({"K10CR1": 409600 / 3, "PRM1Z8": 1919.6418578623391})
"""Counts of the position per degree: pyLabLib `_get_step_scale`, the latter "what it says in the manual"."""
SERVOS = ("KDC101", "TDC001")
PRM1Z8 = 6  # number of the stage that a servo controller says is connected: pyLabLib `_autodetect_stage`

MOVING, HOMING, IS_HOMED = 0x200000F0, 0x200, 0x400
_TROUBLES: Mapping[int, str] = MappingProxyType(
    {
        0x4000: "excessive position error",
        0x10000: "interlock open",
        0x20000: "too hot",
        0x40000: "supply voltage too low",
        0x1000000: "motor current limit",
        0x2000000: "encoder fault",
        0x4000000: "motor current too high",
        0x8000000: "supply current too high",
        0x40000000: "error",
    }
)


class Message(NamedTuple):
    """One message of the device."""

    number: int
    parameters: bytes
    data: bytes


class StageInfo(NamedTuple):
    """What the device says of itself; `stage` is the number of what hangs on a servo controller."""

    model: str
    serial: int
    firmware: str
    stage: int


class StageStatus(NamedTuple):
    """Where the stage is and the bits of its state."""

    position: int
    bits: int


def short_message(number: int, first: int = 0, second: int = 0) -> bytes:
    """A message to the device that is a header alone."""
    return struct.pack("<HBBBB", number, first, second, DEVICE, HOST)


def long_message(number: int, data: bytes) -> bytes:
    """A message to the device with data."""
    return struct.pack("<HHBB", number, len(data), DEVICE | 0x80, HOST) + data


def move_request(position: int) -> bytes:
    """Move to a position in counts."""
    return long_message(MOVE_TO, struct.pack("<Hl", CHANNEL, position))


def split_message(received: bytes) -> tuple[Message | None, bytes]:
    """The first message and what follows it; None while it is not complete. Raises WireError on what is none."""
    if len(received) < _HEADER_BYTES:
        return None, received
    number, length, destination, source = struct.unpack_from("<HHBB", received)
    long = destination == HOST | 0x80
    if (destination & 0x7F) != HOST or source != DEVICE or (long and length > _LONGEST_DATA):
        raise WireError(f"the stage sent {received[:_HEADER_BYTES].hex(' ')}, which is no header of a message to us")
    end = _HEADER_BYTES + (length if long else 0)
    if number in _DATA_BYTES and end - _HEADER_BYTES != _DATA_BYTES[number]:
        raise WireError(f"message {number:#06x} has {end - _HEADER_BYTES} bytes of data, not {_DATA_BYTES[number]}")
    if len(received) < end:
        return None, received
    return Message(number, received[2:4] if not long else b"", received[_HEADER_BYTES:end]), received[end:]


def parse_info(data: bytes) -> StageInfo:
    """The 84 bytes of data of hw_get_info. Raises WireError."""
    if len(data) != _DATA_BYTES[INFO]:
        raise WireError(f"the stage's description has {len(data)} bytes, not {_DATA_BYTES[INFO]}")
    serial, model = struct.unpack_from("<I8s", data)
    try:
        name = model.partition(b"\0")[0].decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise WireError(f"the stage calls itself {model!r}, which is no name") from error
    return StageInfo(name, serial, ".".join(map(str, data[16:13:-1])), struct.unpack_from("<H", data, 76)[0])


def parse_status(data: bytes) -> StageStatus:
    """The 14 bytes of data of either status message. Raises WireError."""
    if len(data) != _DATA_BYTES[STEPPER_STATUS]:
        raise WireError(f"the stage's status has {len(data)} bytes, not {_DATA_BYTES[STEPPER_STATUS]}")
    channel, position = struct.unpack_from("<Hl", data)
    if channel != CHANNEL:
        raise WireError(f"the stage's status is that of channel {channel}, not of channel {CHANNEL}")
    return StageStatus(position, struct.unpack_from("<L", data, 10)[0])


def troubles(bits: int) -> str:
    """What the bits complain of, "" when nothing."""
    return ", ".join(text for bit, text in _TROUBLES.items() if bits & bit)
