"""Tags for exploration: of a recording (growing, finished or sealed) or of a foreign file that is read in place.

All three look the same from here: blocks in time order, the names of the channels, and the intervals of loss.
What is damaged appears as an interval of loss; nothing is kept in memory but the piece in hand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from groundstation.clock import utc_text
from groundstation.core.tags import EMPTY_BLOCK, TagBlock
from groundstation.errors import BadInput
from groundstation.recording.channels import channel_names, is_imported
from groundstation.recording.formats.registry import FORMATS, read_file, recognise
from groundstation.recording.formats.tag_file import Gap
from groundstation.recording.manifest import MANIFEST_NAME
from groundstation.recording.reader import Damage, Recording, Segment, open_recording
from groundstation.recording.sealed_reader import is_sealed_recording
from groundstation.recording.zero import since_zero, zero_of

#: What `groundstation run` and `import` call the recording in the directory that they make.
_NAMES_OF_RUN = ("recording.h5", "recording")


class Piece(NamedTuple):
    """Tags, and what has become known with them: intervals of loss, and channel number -> name."""

    block: TagBlock
    gaps: list[Gap]
    names: Mapping[int, str]


@dataclass(frozen=True)
class TagSource:
    """Tags that can be read from the beginning as often as asked.

    `names`: channel number -> name, None when only reading to the end tells; `mode` is the manifest's, "file" for a
    foreign file; `delays_ps`: channel number -> delay that the manifest lists, without zeros. `read` may raise
    RecordingDamaged or BadInput.
    """

    title: str
    mode: str
    names: Mapping[int, str] | None
    delays_ps: Mapping[int, int]
    read: Callable[[], Iterator[Piece]]


def open_tags(path: Path, name: str | None = None, resolution_ps: float | None = None) -> TagSource:
    """Find out what `path` is and be ready to read it.

    `name` and `resolution_ps` are those of `read_file`, for foreign files only. Raises BadInput when it is neither a
    recording nor a file of a known format, RecordingDamaged for a damaged sealed file.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    is_directory = path.is_dir()
    ours = (path / MANIFEST_NAME).exists() if is_directory else is_sealed_recording(path)
    if is_directory and not ours:
        inside = next((path / name for name in _NAMES_OF_RUN if (path / name).exists()), None)
        if inside is not None:
            raise BadInput(f"{path} is no recording; open {inside} instead")
    if not ours:
        return _foreign(path, name, resolution_ps)
    if name is not None or resolution_ps is not None:
        raise BadInput(f"{path} is a recording and says itself how to read it; leave out format and resolution")
    return _of_recording(path)


def _of_recording(path: Path) -> TagSource:
    recording = open_recording(path)
    manifest = recording.manifest
    recording.close()
    names = channel_names(manifest)
    listed = manifest.get("delays_ps")
    delays = listed if isinstance(listed, Mapping) else {}
    delays_ps = {number: int(delays[name]) for number, name in names.items() if delays.get(name)}
    mode = str(manifest.get("mode", "live"))
    return TagSource(_title(manifest, path), mode, names, delays_ps, lambda: _pieces(path, names))


def _title(manifest: Mapping[str, object], path: Path) -> str:
    """What a caption says of it, in the manifest's words."""
    if is_imported(manifest):
        return str(manifest.get("description", path.name))
    satellite, station, window = (manifest.get(key) for key in ("satellite", "station", "window"))
    if not (isinstance(satellite, Mapping) and isinstance(station, Mapping) and isinstance(window, Mapping)):
        return path.name
    title = f"{satellite.get('name', 'satellite')} over {station.get('name', 'station')}"
    start_utc_ns = window.get("start_utc_ns")
    return f"{title}, {utc_text(start_utc_ns, 0)[:10]}" if isinstance(start_utc_ns, int) else title


def _pieces(path: Path, names: Mapping[int, str]) -> Iterator[Piece]:
    recording = open_recording(path)
    try:
        for block, gaps in _recorded(recording):
            yield Piece(block, gaps, names)
    finally:
        recording.close()


def _recorded(recording: Recording) -> Iterator[tuple[TagBlock, list[Gap]]]:
    """The stream `tags`; a hole reaches from the last tag before it to the first one after it."""
    stream = recording.stream("tags")
    stream.stop_following()
    hole: list[Damage] = []
    last_ps = 0
    while not stream.ended:
        for item in stream.poll(limit=4):
            if isinstance(item, Damage):
                hole.append(item)
                continue
            block, gaps = _content(item)
            if hole and block.time_ps.size:
                gaps.insert(0, _gap(hole, last_ps, int(block.time_ps[0])))
                hole = []
            last_ps = int(block.time_ps[-1]) if block.time_ps.size else last_ps
            yield block, gaps
    if hole:
        yield EMPTY_BLOCK, [_gap(hole, last_ps, last_ps)]


def _gap(hole: list[Damage], start_ps: int, stop_ps: int) -> Gap:
    rows_lost = hole[0].rows_lost  # the first of several in a row counts for them all
    missed = None if rows_lost is None else rows_lost.get("tags", 0)
    return Gap(start_ps, stop_ps, missed, "; ".join(damage.sentence for damage in hole))


def _content(segment: Segment) -> tuple[TagBlock, list[Gap]]:
    tags, table = segment.tables.get("tags"), segment.tables.get("gaps")
    block = EMPTY_BLOCK if tags is None else TagBlock(tags["time_ps"], tags["channel"])
    if table is None:
        return block, []
    columns = (table[name].tolist() for name in ("start_ps", "stop_ps", "missed", "cause"))
    return block, [
        Gap(start, stop, None if missed < 0 else missed, cause.rstrip(b"\0").decode("utf-8", "replace"))
        for start, stop, missed, cause in zip(*columns, strict=True)
    ]


def _foreign(path: Path, name: str | None, resolution_ps: float | None) -> TagSource:
    try:
        chosen = name or recognise(path).name
        read_file(path, chosen, resolution_ps)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error

    def read() -> Iterator[Piece]:
        source = read_file(path, chosen, resolution_ps)
        about = source.about
        zero_ps: int | None = None
        for time_ps, channel in source.blocks:
            about.take_tables()
            if time_ps.size:
                zero_ps = zero_of(int(time_ps[0])) if zero_ps is None else zero_ps
                block = TagBlock(since_zero(time_ps, zero_ps, path.name), channel)
                yield Piece(block, _moved(about.take_gaps(), zero_ps), about.channels)
        yield Piece(EMPTY_BLOCK, _moved(about.take_gaps(), zero_ps or 0), about.channels)

    return TagSource(f"{path.name}, {FORMATS[chosen].title}", "file", None, {}, read)


def _moved(gaps: list[Gap], zero_ps: int) -> list[Gap]:
    return [gap._replace(start_ps=gap.start_ps - zero_ps, stop_ps=gap.stop_ps - zero_ps) for gap in gaps]
