"""The streams of qcrypto (Kurtsiefer, CQT): packets of one epoch (2^29 ns = 0.537 s) each, in one file or many.

    type 1   raw events, ended by two zero words           -> tags
    type 2   time differences in 1/8 ns with basis bits     -> tags; the channel is the bits (or the inputs)
    type 3   the result bits that one side keeps            -> table `bits` of the stream `sifting`
    type 4   indices of matching events, with bits          -> table `indices`
    type 7   key bits                                       -> table `key`

Everything is 32-bit words, little-endian; a packet begins with its type (0x100 more: the epoch counts from 1970
in units of 2^29 ns, else it is the top 17 bits of the time). Type 2 and 4 pack, in the highest bits first, the
difference and after it the basis bits: that is what chopper, costream, splicer and fpfind do, although
`filespec.txt` puts the bits before. A difference of 0 or 1 cannot be said; type 2 shifts such events by up to
1/4 ns, type 4 adds 2 to each difference. A directory is read as its files in the order of their names, which are
epochs in hexadecimal. Sources: qcrypto `filespec.txt`, `chopper.c`, `chopper2.c`, `splicer.c`.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.errors import BadInput
from groundstation.recording.formats.bit_packing import unpack, unpack_steps
from groundstation.recording.formats.events import INPUTS, UNIT_PS, ticks_of
from groundstation.recording.formats.tag_file import About, TagFile, from_patterns, in_time_order, to_ps
from groundstation.recording.segment import Table

EPOCH_NS = 1 << 29
EPOCH_PS = EPOCH_NS * 1000
EPOCH_TICKS = 1 << 37  # of 1/256 ns
EIGHTH_NS = Fraction(125)
SINCE_1970 = 0x100
LOCAL_EPOCHS = 1 << 17
#: Packet type -> names of the header's words.
HEADERS = {
    1: ("type", "epoch", "length", "time_bits", "bits"),
    2: ("type", "epoch", "length", "order", "bits", "protocol"),
    3: ("type", "epoch", "length", "bits"),
    4: ("type", "epoch", "length", "order", "bits"),
    7: ("type", "epoch", "epochs", "length"),
}
SERVICE, BB84 = 0, 1
_EPOCH_NAME = re.compile(r"[0-9a-f]{1,8}\Z")
_PIECE_WORDS = 1 << 18

Words = NDArray[np.uint32]
Fields = dict[str, int]


class _Packet(NamedTuple):
    fields: Fields
    tags: TagBlock  # times from the beginning of the epoch
    rows: dict[str, Table]
    words: int | None  # that it took; None when it is cut


def recognises(head: bytes, kind: int) -> bool:
    """Whether it begins with a possible header of this type."""
    words = np.frombuffer(head, "<u4", len(head) // 4)
    try:
        return _header(Path(), words)["type"] & ~SINCE_1970 == kind
    except BadInput:
        return False


def read(path: Path, kind: int) -> TagFile:
    """Read packets of one type from a file or a directory of files."""
    files = epoch_files(path) if path.is_dir() else [path]
    about = About(f"qcrypto-{kind}", float(UNIT_PS if kind == 1 else EIGHTH_NS))
    blocks = _blocks(files, kind, about)
    return TagFile(about, in_time_order(blocks, about, str(path)))


def epoch_files(directory: Path) -> list[Path]:
    """The files of a directory that are named as epochs, in order."""
    return sorted(
        (p for p in directory.iterdir() if _EPOCH_NAME.match(p.name) and p.is_file()), key=lambda p: int(p.name, 16)
    )


def _blocks(files: list[Path], kind: int, about: About) -> Iterator[TagBlock]:
    first: int | None = None
    last = 0
    for path in files:
        for packet in _packets(path, kind, about):
            epoch, since_1970 = packet.fields["epoch"], bool(packet.fields["type"] & SINCE_1970)
            if first is None:
                first = last = epoch if since_1970 else 0
                about.zero_ps = first * EPOCH_PS
                about.zero_utc_ns = first * EPOCH_NS if since_1970 else None
                about.details |= {name: packet.fields[name] for name in ("type", "bits", "order", "protocol")
                                  if name in packet.fields}  # fmt: skip
                about.channels |= _names(packet.fields)
            if not since_1970:  # 17 bits only: the nearest epoch that they can mean
                half = LOCAL_EPOCHS // 2
                epoch = last + (epoch - last + half) % LOCAL_EPOCHS - half if packet.tags.time_ps.size else epoch
            last = epoch
            for name, table in packet.rows.items():
                about.tables.setdefault(name, []).append(table)
            shift_ps = (epoch - first) * EPOCH_PS
            yield (
                TagBlock(packet.tags.time_ps + shift_ps, packet.tags.channel)
                if packet.tags.time_ps.size
                else (EMPTY_BLOCK)
            )


def _packets(path: Path, kind: int, about: About) -> Iterator[_Packet]:
    size = path.stat().st_size
    words: Words = np.memmap(path, "<u4", "r", shape=(size // 4,)) if size >= 4 else np.empty(0, np.uint32)
    if size % 4:
        about.notes.append(f"{path.name} ends inside a word; its last {size % 4} bytes were left out")
    place = 0
    while place < len(words):
        fields = _header(path, words[place:])
        if fields["type"] & ~SINCE_1970 != kind:
            raise BadInput(f"{path} holds packets of type {fields['type'] & 0xFF} where type {kind} is read")
        begin = place + len(HEADERS[kind])
        packet = _DECODERS[kind](path, fields, words[begin:], about)
        yield packet
        if packet.words is None:
            about.notes.append(f"{path.name} ends inside a packet of epoch {fields['epoch']:08x}")
            return
        place = begin + packet.words


def _header(path: Path, words: Words) -> Fields:
    """The header that some words begin with. Raises BadInput when it cannot be one."""
    names = HEADERS.get(int(words[0]) & ~SINCE_1970) if len(words) and int(words[0]) < 0x200 else None
    if names is None or len(words) < len(names):
        found = f"0x{int(words[0]):08x}" if len(words) else "nothing"
        raise BadInput(f"{path} holds {found} where a packet of qcrypto should begin")
    fields = dict(zip(names, (int(word) for word in words[: len(names)]), strict=True))
    order, bits = fields.get("order", 4), fields.get("bits", 1)
    right = 1 <= order <= 32 and bits <= 8 and order + bits <= 32 and fields.get("time_bits", 49) == 49
    if not right or (bits == 0 and "order" not in fields) or fields.get("protocol", 0) > 15:
        raise BadInput(f"{path} holds a packet whose header cannot be right: {fields}")
    return fields


def _events(path: Path, fields: Fields, words: Words, about: About) -> _Packet:
    pairs = words[: len(words) // 2 * 2].reshape(-1, 2)
    count = _count_of_events(pairs)
    whole = count is not None
    pairs = pairs[:count]
    if fields["length"] not in (0, len(pairs)) and whole:
        about.notes.append(f"epoch {fields['epoch']:08x} announces {fields['length']} events and holds {len(pairs)}")
    events = (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1]
    ticks = ticks_of(events)
    if np.any(ticks >> 37 != fields["epoch"] % LOCAL_EPOCHS):
        raise BadInput(f"{path} holds events in the packet of epoch {fields['epoch']:08x} that are of another epoch")
    tags = from_patterns(ticks & (EPOCH_TICKS - 1), (events & np.uint64(0xF)).astype(np.uint8), about)
    time_ps = to_ps(tags.time_ps, UNIT_PS, str(path))
    return _Packet(fields, TagBlock(time_ps, tags.channel), {}, 2 * len(pairs) + 2 if whole else None)


def _count_of_events(pairs: Words) -> int | None:
    """How many pairs there are before the one of zeros; None without one."""
    for start in range(0, len(pairs), _PIECE_WORDS):
        ends = np.flatnonzero(~pairs[start : start + _PIECE_WORDS].any(axis=1))
        if ends.size:
            return start + int(ends[0])
    return None


def _times(path: Path, fields: Fields, words: Words, about: About) -> _Packet:
    steps, bits, used = unpack_steps(_piece(words, fields), fields["order"], fields["bits"])
    _check_length(fields, steps.size, used, about)
    eighths = np.cumsum(steps)
    value = bits.astype(np.uint8)
    tags = from_patterns(eighths, value, about) if fields["protocol"] == SERVICE else TagBlock(eighths, value)
    return _Packet(fields, TagBlock(to_ps(tags.time_ps, EIGHTH_NS, str(path)), tags.channel), {}, used)


def _kept_bits(path: Path, fields: Fields, words: Words, about: About) -> _Packet:
    values, used = _fixed(fields, words, fields["length"], fields["bits"])
    table: Table = {"epoch": np.full(values.size, fields["epoch"], np.uint32), "value": values.astype(np.uint8)}
    return _Packet(fields, EMPTY_BLOCK, {"bits": table}, used)


def _indices(path: Path, fields: Fields, words: Words, about: About) -> _Packet:
    steps, bits, used = unpack_steps(_piece(words, fields), fields["order"], fields["bits"])
    _check_length(fields, steps.size, used, about)
    epoch = np.full(steps.size, fields["epoch"], np.uint32)
    table: Table = {"epoch": epoch, "index": np.cumsum(steps - 2), "value": bits.astype(np.uint8)}
    return _Packet(fields, EMPTY_BLOCK, {"indices": table}, used)


def _key(path: Path, fields: Fields, words: Words, about: About) -> _Packet:
    values, used = _fixed(fields, words, fields["length"], 1)
    epoch = np.full(values.size, fields["epoch"], np.uint32)
    epochs = np.full(values.size, fields["epochs"], np.uint32)
    return _Packet(
        fields, EMPTY_BLOCK, {"key": {"epoch": epoch, "epochs": epochs, "bit": values.astype(np.uint8)}}, used
    )


_DECODERS = {1: _events, 2: _times, 3: _kept_bits, 4: _indices, 7: _key}


def _piece(words: Words, fields: Fields) -> Words:
    """As much as a packet of the announced length can take; all there is when it announces none."""
    longest = fields["order"] + fields["bits"] + 32
    return words[: (fields["length"] + 1) * longest // 32 + 2] if fields["length"] else words


def _fixed(fields: Fields, words: Words, count: int, width: int) -> tuple[NDArray[np.int64], int | None]:
    """`count` numbers of `width` bits, or as many as there are, and the words they took."""
    needed = (count * width + 31) // 32
    there = min(count, 32 * len(words) // width)
    return unpack(words, width * np.arange(there), width), needed if needed <= len(words) else None


def _check_length(fields: Fields, found: int, used: int | None, about: About) -> None:
    if used is not None and fields["length"] not in (0, found):
        about.notes.append(f"epoch {fields['epoch']:08x} announces {fields['length']} entries and holds {found}")


def _names(fields: Fields) -> dict[int, str]:
    kind, protocol = fields["type"] & ~SINCE_1970, fields.get("protocol")
    if kind == 1 or protocol == SERVICE:
        return dict(INPUTS)
    if protocol == BB84:
        return {0: "basis HV", 1: "basis +-"}
    return {value: f"value {value}" for value in range(1 << fields["bits"])} if kind == 2 else {}
