"""Makes a sealed recording of a foreign file: the same segments, ledger and gaps as if it had been recorded.

The manifest's mode is "imported"; it keeps the device's resolution, the names of the channels and what the format
had to say. Rows that are no tags go into the stream `sifting`. Times are recorded from the zero that `zero` chooses;
`zero_device_ps` says from which.
"""

import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundstation.clock import SystemClock, utc_text
from groundstation.core.ledger import Ledger
from groundstation.core.tags import TagBlock, concatenate
from groundstation.errors import BadInput
from groundstation.recording.channels import IMPORTED
from groundstation.recording.files import POSIX, write_durably
from groundstation.recording.formats.tag_file import About, Gap, TagFile
from groundstation.recording.manifest import FORMAT, MANIFEST_NAME, VERSION, create_recording
from groundstation.recording.sealing import remove_segments, seal_in_child
from groundstation.recording.segment import Table, canonical_json
from groundstation.recording.writer import StreamWriter
from groundstation.recording.zero import since_zero, zero_of

_SEGMENT_TAGS = 1 << 17
#: A time that somebody wrote down says no more than the second.
_UTC_UNCERTAINTY_S = 1.0


class Imported(NamedTuple):
    """What was made: the sealed file, and what is worth saying about it."""

    recording: Path
    tags: int
    rows: int  # of the stream `sifting`
    channels: dict[int, str]
    resolution_ps: float
    notes: list[str]


def import_tags(
    source: TagFile, origin: Path, output: Path, names: Mapping[int, str], start_utc_ns: int | None
) -> Imported:
    """Write `output`/recording.h5 from a file that was opened.

    `names`: channel number -> name, before those that the file gives. `start_utc_ns`: UTC of the first tag.
    Raises BadInput when the file holds nothing or cannot be read to its end, or a recording is there already;
    then nothing is left behind.
    """
    target, directory = output / "recording.h5", output / "recording"
    if target.exists() or directory.exists():
        raise BadInput(f"{output} already holds a recording; choose another --output")
    first = next((b for b in source.blocks if b.time_ps.size or source.about.tables), None)
    if first is None:
        raise BadInput(f"{origin}, read as {source.about.format}, holds no tags")
    created = not output.exists()
    manifest: dict[str, object] = {
        "mode": IMPORTED,
        "created_utc": utc_text(SystemClock().utc_ns(), 0),
        "description": f"Tags of {origin.name}",
    }
    run_id = create_recording(directory, manifest)
    try:
        entry = _Import(source.about, origin.name, directory, run_id, start_utc_ns)
        entry.write(first, source)
        summary = entry.summary(target, names)
        _complete(directory, run_id, manifest, source.about, origin, summary)
        seal_in_child(directory, target)
    except BaseException:
        shutil.rmtree(output if created else directory, ignore_errors=True)
        raise
    remove_segments(directory)
    return summary


class _Import:
    """Writes the segments of one import and keeps its books."""

    def __init__(self, about: About, name: str, directory: Path, run_id: str, start_utc_ns: int | None) -> None:
        self._about, self._name, self._directory, self._run_id = about, name, directory, run_id
        self._start_utc_ns = start_utc_ns
        self._ledger = Ledger()
        self._counts = np.zeros(256, np.int64)
        self._rows = 0
        self._shift_ps: int | None = None
        self._label: dict[str, object] | None = None
        self._latest_ps = 0

    def write(self, first: TagBlock, source: TagFile) -> None:
        """Publish everything."""
        waiting: list[TagBlock] = []
        with StreamWriter(self._directory, "tags", self._run_id) as writer:
            sifting: StreamWriter | None = None
            for block in chain((first,), source.blocks):
                waiting.append(self._moved(block))
                sifting = self._publish_tables(sifting)
                if sum(b.time_ps.size for b in waiting) >= _SEGMENT_TAGS:
                    self._publish(writer, waiting, end=False)
                    waiting = []
            self._publish(writer, waiting, end=True)
            if sifting is not None:
                sifting.publish({}, end=True)
                sifting.close()

    def summary(self, target: Path, names: Mapping[int, str]) -> Imported:
        """What there is to say at the end."""
        about = self._about
        present = set(np.flatnonzero(self._counts).tolist()) | set(about.channels)
        missing = sorted(set(names) - present)
        if missing:
            known = ", ".join(str(number) for number in sorted(present)) or "none"
            raise BadInput(f"--channels names channel {missing[0]}, but the file's channels are {known}")
        channels = {n: names.get(n, about.channels.get(n, str(n))) for n in sorted(present)}
        return Imported(target, self._ledger.recorded, self._rows, channels, about.resolution_ps, about.notes)

    def _moved(self, block: TagBlock) -> TagBlock:
        """Times from the recording's zero, which the first tag decides."""
        if block.time_ps.size == 0:
            return block
        if self._shift_ps is None:
            first = int(block.time_ps[0])
            self._shift_ps = zero_of(first)
            self._label = self._label_of(first)
        self._counts += np.bincount(block.channel, minlength=256)
        return TagBlock(since_zero(block.time_ps, self._shift_ps, self._name), block.channel)

    def _label_of(self, first_ps: int) -> dict[str, object] | None:
        """Which UTC a time has: that of the first tag if it was given, of the file's zero if the file says it."""
        shift_ps = self._shift_ps or 0
        if self._start_utc_ns is not None:
            time_ps, utc_ns = first_ps - shift_ps, self._start_utc_ns
        elif self._about.zero_utc_ns is not None:
            time_ps, utc_ns = 0, self._about.zero_utc_ns + shift_ps // 1000
        else:
            return None
        return {"time_ps": time_ps, "utc_ns": utc_ns, "uncertainty_s": _UTC_UNCERTAINTY_S}

    def _publish(self, writer: StreamWriter, waiting: list[TagBlock], end: bool) -> None:
        tags, gaps = concatenate(waiting), self._about.take_gaps()
        ledger = self._ledger
        ledger.recorded += tags.time_ps.size
        ledger.dropped, ledger.missed = dict(self._about.dropped), self._about.missed
        ledger.seen = ledger.recorded + sum(ledger.dropped.values())
        if tags.time_ps.size:
            self._latest_ps = int(tags.time_ps[-1])
        tables: dict[str, Table] = {"tags": {"time_ps": tags.time_ps, "channel": tags.channel}}
        if gaps:
            tables["gaps"] = gap_table(gaps, self._shift_ps or 0)
        notes: dict[str, object] = {
            "zero_device_ps": self._about.zero_ps + (self._shift_ps or 0),
            "latest_ps": self._latest_ps,
            "ledger": ledger.as_notes(),
        }
        if self._label is not None:
            notes["utc_label"] = self._label
        writer.publish(tables, notes, end=end)

    def _publish_tables(self, sifting: StreamWriter | None) -> StreamWriter | None:
        pieces = self._about.take_tables()
        if pieces:
            sifting = sifting or StreamWriter(self._directory, "sifting", self._run_id)
            tables = {name: {c: np.concatenate([t[c] for t in many]) for c in many[0]} for name, many in pieces.items()}
            self._rows += sum(sifting.publish(tables).rows.values())
        return sifting


def gap_table(gaps: list[Gap], shift_ps: int) -> Table:
    """The table `gaps` of the stream `tags`; a number missed that nobody knows is -1."""
    return {
        "start_ps": np.array([gap.start_ps - shift_ps for gap in gaps], np.int64),
        "stop_ps": np.array([gap.stop_ps - shift_ps for gap in gaps], np.int64),
        "missed": np.array([-1 if gap.missed is None else gap.missed for gap in gaps], np.int64),
        "cause": np.array([gap.cause.encode() or b"unknown" for gap in gaps], "S"),
    }


def _complete(
    directory: Path, run_id: str, manifest: Mapping[str, object], about: About, origin: Path, summary: Imported
) -> None:
    """Write the manifest again with what only the whole file tells; nobody follows an import."""
    content = {
        **manifest,
        "channels": {str(number): name for number, name in summary.channels.items()},
        "resolution_ps": about.resolution_ps,
        "imported": {
            "file": origin.name,
            "format": about.format,
            "details": about.details,
            "notes": about.notes,
        },
        "format": FORMAT,
        "version": VERSION,
        "run_id": run_id,
    }
    target = directory / MANIFEST_NAME
    write_durably(POSIX, target.with_suffix(".part"), target, canonical_json(content))
