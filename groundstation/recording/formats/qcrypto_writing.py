"""Writes the packets that `qcrypto` reads; into a directory, if the path is one, one file for each epoch."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.core.tags import TagBlock, concatenate
from groundstation.errors import BadInput
from groundstation.recording.formats.bit_packing import pack, pack_steps
from groundstation.recording.formats.events import UNIT_PS, words_from
from groundstation.recording.formats.qcrypto import (
    BB84,
    EIGHTH_NS,
    EPOCH_PS,
    EPOCH_TICKS,
    HEADERS,
    LOCAL_EPOCHS,
    SERVICE,
    SINCE_1970,
    Fields,
)
from groundstation.recording.formats.tag_file import (
    About,
    TagFile,
    require_channels,
    require_positive,
    to_patterns,
    to_ticks,
)
from groundstation.recording.segment import Table

_DEFAULT_ORDER = 17  # as chopper
_TABLES = {3: "bits", 4: "indices", 7: "key"}
_EIGHTHS = 1 << 32  # of a nanosecond in an epoch


class _Target:
    """One file for all packets, or one for each in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None if path.is_dir() else path.open("wb")

    def add(self, fields: Fields, data: NDArray[Any]) -> None:
        kind = fields["type"] & ~SINCE_1970
        content = np.array([fields[name] for name in HEADERS[kind]], "<u4").tobytes() + data.astype("<u4").tobytes()
        if self._file is not None:
            self._file.write(content)
        else:
            (self._path / f"{fields['epoch']:08x}").write_bytes(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Epoch(NamedTuple):
    number: int
    tags: TagBlock  # times in ticks from its beginning


def write(path: Path, source: TagFile, kind: int) -> None:
    """Write packets of one type. Raises BadInput when the recording has nothing of that kind."""
    target = _Target(path)
    try:
        if kind == 1:
            _write_events(target, source)
        elif kind == 2:
            _write_times(target, source)
        else:
            _write_tables(target, source, kind)
    finally:
        target.close()


def _write_events(target: _Target, source: TagFile) -> None:
    for epoch in _epochs(source, UNIT_PS):
        kind = 1 | _origin(source.about)
        ticks, pattern = to_patterns(epoch.tags.time_ps, epoch.tags.channel)
        words = words_from(ticks + epoch.number % LOCAL_EPOCHS * EPOCH_TICKS, pattern)
        pairs = np.stack((words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)), axis=1).reshape(-1)
        fields = {"type": kind, "epoch": _said(epoch.number, kind), "length": ticks.size, "time_bits": 49, "bits": 4}
        target.add(fields, np.append(pairs, np.zeros(2, np.uint64)))


def _write_times(target: _Target, source: TagFile) -> None:
    about = source.about
    shifted = 0
    for epoch in _epochs(source, EIGHTH_NS):
        kind = 2 | _origin(about)
        protocol = int(about.details.get("protocol", BB84 if set(about.channels) == {0, 1} else SERVICE))
        width = 4 if protocol == SERVICE else int(about.details.get("bits", 1))
        order = int(about.details.get("order", _DEFAULT_ORDER))
        if protocol == SERVICE:
            eighths, value = to_patterns(epoch.tags.time_ps, epoch.tags.channel)
        else:
            require_channels(epoch.tags.channel, range(1 << width), f"protocol {protocol} of qcrypto-2")
            eighths, value = epoch.tags
        rank = 2 * np.arange(eighths.size)
        apart = np.maximum.accumulate(np.maximum(eighths - rank, 2)) + rank
        shifted += int(np.count_nonzero(apart != eighths))
        words = pack_steps(np.diff(apart, prepend=0), value.astype(np.int64), order, width)
        fields = {"type": kind, "epoch": _said(epoch.number, kind), "length": eighths.size}
        target.add({**fields, "order": order, "bits": width, "protocol": protocol}, words)
    if shifted:
        about.notes.append(f"{shifted} events came less than 1/4 ns after another and were shifted by that")


def _write_tables(target: _Target, source: TagFile, kind: int) -> None:
    about, name = source.about, _TABLES[kind]
    written = False
    for table in _packets(source, name):
        written = True
        width = int(about.details.get("bits", 1 if kind == 3 else 0))
        order = int(about.details.get("order", _DEFAULT_ORDER))
        head = kind | _origin(about)
        fields: Fields = {"type": head, "epoch": int(table["epoch"][0]), "length": len(table["epoch"])}
        if kind == 4:
            steps = np.diff(table["index"], prepend=0) + 2
            target.add({**fields, "order": order, "bits": width}, pack_steps(steps, table["value"], order, width))
        elif kind == 3:
            target.add({**fields, "bits": width}, _packed(table["value"], width))
        else:
            target.add({**fields, "epochs": int(table["epochs"][0])}, _packed(table["bit"], 1))
    if not written:
        raise BadInput(f"the recording has no {name} of a sifting, so there is nothing to export as qcrypto-{kind}")


def _packed(values: NDArray[Any], width: int) -> NDArray[np.uint32]:
    return pack(values.astype(np.int64), np.full(len(values), width))


def _origin(about: About) -> int:
    return int(about.details.get("type", 0)) & SINCE_1970


def _said(epoch: int, kind: int) -> int:
    return epoch & 0xFFFFFFFF if kind & SINCE_1970 else epoch % LOCAL_EPOCHS


def _epochs(source: TagFile, unit: Fraction) -> Iterator[_Epoch]:
    """All tags, an epoch at a time, in ticks of `unit`."""
    span = _EIGHTHS if unit == EIGHTH_NS else EPOCH_TICKS
    waiting: list[TagBlock] = []
    base = number = 0
    for block in source.blocks:
        if block.time_ps.size == 0:
            continue
        base, rest_ps = divmod(source.about.zero_ps, EPOCH_PS)  # known with the first tag only
        require_positive(block.time_ps, "qcrypto")
        ticks = to_ticks(block.time_ps + rest_ps, unit)
        cuts = np.flatnonzero(np.diff(ticks // span, prepend=ticks[0] // span)).tolist()
        for start, stop in zip([0, *cuts], [*cuts, ticks.size], strict=True):
            found = int(ticks[start] // span)
            if waiting and found != number:
                yield _Epoch(base + number, concatenate(waiting))
                waiting = []
            number = found
            waiting.append(TagBlock(ticks[start:stop] % span, block.channel[start:stop]))
    if waiting:
        yield _Epoch(base + number, concatenate(waiting))


def _packets(source: TagFile, name: str) -> Iterator[Table]:
    """The rows of a table, an epoch at a time."""
    waiting: Table = {}
    for _ in source.blocks:
        for table in source.about.take_tables().get(name, []):
            waiting = {c: np.concatenate((waiting[c], table[c])) for c in table} if waiting else table
        while waiting and waiting["epoch"][0] != waiting["epoch"][-1]:
            cut = int(np.argmax(waiting["epoch"] != waiting["epoch"][0]))
            yield {column: values[:cut] for column, values in waiting.items()}
            waiting = {column: values[cut:] for column, values in waiting.items()}
    if waiting and len(waiting["epoch"]):
        yield waiting
