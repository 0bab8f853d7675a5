"""The acquisition program: one tagger into the `tags` stream of a recording."""

import argparse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from groundstation.acquisition.daemon import Acquisition
from groundstation.cli.child import Ending, add_job_arguments, job_of, say
from groundstation.cli.instruments import connect
from groundstation.clock import Clock, monotonic_s
from groundstation.config import InstrumentConfig
from groundstation.core.timebase import PS_PER_NS
from groundstation.recording.manifest import read_manifest
from groundstation.recording.segment import Segment, Table
from groundstation.recording.writer import StreamWriter

add_arguments = add_job_arguments
#: Tags are late by a fraction of a second on a busy machine; nobody waits longer for them (wall time).
_LATE_TAGS_PATIENCE_S = 5.0


def run(options: argparse.Namespace) -> int:
    """Record until told to end."""
    clock, job = job_of(options)
    ending = Ending()
    directory = Path(job["recording"])
    manifest = read_manifest(directory)
    tagger = connect("tagger", InstrumentConfig(**job["instrument"]), clock)
    with closing(_TagsWriter(directory, "tags", str(manifest["run_id"]))) as writer:
        say({"ready": True, "model": tagger.identify().model})
        acquisition = Acquisition(
            tagger, manifest["patterns"], writer, clock, job["commit_interval_s"], job["pps_uncertainty_s"]
        )
        try:
            acquisition.run(_CaughtUp(ending, clock, writer), lambda status: say(asdict(status)))
        finally:
            tagger.close()
    return 0


class _TagsWriter(StreamWriter):
    """Also knows up to when (UTC) the tags are safe; None until the recording has its UTC label."""

    recorded_to_utc_ns: int | None = None

    def publish(
        self, tables: Mapping[str, Table], notes: Mapping[str, object] | None = None, end: bool = False
    ) -> Segment:
        segment = super().publish(tables, notes, end)
        label, latest_ps = segment.notes.get("utc_label"), segment.notes.get("latest_ps")
        if isinstance(label, dict) and isinstance(latest_ps, int):
            self.recorded_to_utc_ns = label["utc_ns"] + (latest_ps - label["time_ps"]) // PS_PER_NS
        return segment


class _CaughtUp:
    """True when the end was asked for and what happened before is recorded, for tags arrive late."""

    def __init__(self, ending: Ending, clock: Clock, writer: _TagsWriter) -> None:
        self._ending, self._clock, self._writer = ending, clock, writer
        self._asked: tuple[int, float] | None = None

    def __call__(self) -> bool:
        if not self._ending.asked.is_set():
            return False
        self._asked = self._asked or (self._clock.utc_ns(), monotonic_s())
        asked_utc_ns, asked_s = self._asked
        recorded = self._writer.recorded_to_utc_ns
        return recorded is None or recorded >= asked_utc_ns or monotonic_s() - asked_s > _LATE_TAGS_PATIENCE_S
