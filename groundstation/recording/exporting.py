"""Reads a recording as if it were a foreign file, so that every format can be written from it.

Times are the device's own again: the recording's plus its `zero_device_ps`.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.channels import channel_names
from groundstation.recording.formats.tag_file import LIMIT_PS, About, Gap, TagFile
from groundstation.recording.reader import Damage, Recording, Segment


def tag_file(recording: Recording) -> TagFile:
    """The tags, gaps and sifted rows of a recording. The blocks raise RecordingDamaged where it is damaged."""
    manifest = recording.manifest
    imported = manifest.get("imported")
    imported = imported if isinstance(imported, Mapping) else {}
    about = About(
        str(imported.get("format", "recording")),
        float(manifest.get("resolution_ps", 1.0)),
        channel_names(manifest),
        details=dict(imported.get("details", {})),
    )
    return TagFile(about, _blocks(recording, about))


def renumbered(source: TagFile, numbers: Mapping[str, int]) -> TagFile:
    """Only the channels named in `numbers` (name -> number in the new file). Raises BadInput for unknown names."""
    about = source.about
    by_name = {name: number for number, name in about.channels.items()}
    unknown = sorted(set(numbers) - set(by_name))
    if unknown:
        raise BadInput(f'the recording has no channel "{unknown[0]}"; it has {", ".join(by_name)}')
    table = np.full(256, -1, np.int16)
    for name, number in numbers.items():
        table[by_name[name]] = number
    about.channels = {number: name for name, number in numbers.items()}

    def blocks() -> Iterator[TagBlock]:
        for time_ps, channel in source.blocks:
            new = table[channel]
            kept = np.flatnonzero(new >= 0)
            about.drop(new.size - kept.size, "channel not chosen")
            yield TagBlock(time_ps[kept], new[kept].astype(np.uint8))

    return TagFile(about, blocks())


def _blocks(recording: Recording, about: About) -> Iterator[TagBlock]:
    for segment in _segments(recording, "sifting"):
        for name, table in segment.tables.items():
            about.tables.setdefault(name, []).append(table)
        yield EMPTY_BLOCK
    shift_ps: int | None = None
    for segment in _segments(recording, "tags"):
        if shift_ps is None:
            shift_ps = _shift(segment, about)
        gaps = segment.tables.get("gaps")
        if gaps is not None:
            columns = (gaps[name].tolist() for name in ("start_ps", "stop_ps", "missed", "cause"))
            for start, stop, missed, cause in zip(*columns, strict=True):
                text = cause.rstrip(b"\0").decode("utf-8", "replace")
                about.gaps.append(Gap(start + shift_ps, stop + shift_ps, None if missed < 0 else missed, text))
        tags = segment.tables.get("tags")
        yield EMPTY_BLOCK if tags is None else TagBlock(tags["time_ps"] + shift_ps, tags["channel"])


def _shift(segment: Segment, about: About) -> int:
    """What to add to the recording's times; a zero too far away for int64 is left to `about`."""
    zero = segment.notes.get("zero_device_ps")
    zero_ps = zero if isinstance(zero, int) else 0
    if abs(zero_ps) < LIMIT_PS // 2:
        return zero_ps
    about.zero_ps = zero_ps
    return 0


def _segments(recording: Recording, stream: str) -> Iterator[Segment]:
    if stream not in recording.streams():
        return
    reader = recording.stream(stream)
    reader.stop_following()
    while not reader.ended:
        for item in reader.poll(limit=4):
            if isinstance(item, Damage):
                raise RecordingDamaged(f"a damaged recording is not exported: {item.sentence}")
            yield item
