"""The end of a pass: its recording put in order, made one file, and named by a fingerprint to be written down."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from groundstation.recording.reader import open_recording
from groundstation.recording.recovery import recover
from groundstation.recording.sealing import remove_segments, seal_in_child
from groundstation.recording.verification import fingerprint


def archive(recording: Path, sealed: Path, tell: Callable[[str], None]) -> str:
    """Seal a recording's directory and remove its segments; the fingerprint, as the sealed file has it.

    Damaged segments are put into quarantine first and stay there; `tell` gets a sentence about each. Raises
    GroundStationError, and then all segments are still there.
    """
    found = recover(recording)
    for loss in found.losses:
        tell(f"DAMAGED: {loss.sentence}" + (f"; kept as {recording / loss.kept}" if loss.kept else ""))
    for sentence in found.cannot:
        tell(f"Not put in order: {sentence}")
    seal_in_child(recording, sealed)
    with closing(open_recording(sealed)) as whole:
        mark = fingerprint(whole)
    remove_segments(recording)
    return mark
