"""The one way to read a recording: growing or finished directory and sealed file look the same from here."""

from pathlib import Path
from typing import Any, Protocol

from groundstation.errors import BadInput
from groundstation.recording.directory_reader import DirectoryRecording
from groundstation.recording.sealed_reader import SealedRecording
from groundstation.recording.segment import Damage, Segment

__all__ = ["Damage", "Recording", "Segment", "StreamReader", "open_recording"]


class StreamReader(Protocol):
    """One reader's place in one stream."""

    @property
    def ended(self) -> bool:
        """Whether everything there ever will be has been returned."""

    @property
    def complete(self) -> bool:
        """Whether it was read to its end, was not abandoned by its writer, and nothing in it was damaged."""

    def poll(self, limit: int = 16) -> list[Segment | Damage]:
        """Up to `limit` segments, in the order of their numbers, that can be had now; never waits.

        A segment that is damaged or missing appears as a `Damage` in its place, as soon as the next good
        segment (or the end) tells what it cost. Raises RecordingDamaged when a sealed file is damaged itself.
        """

    def stop_following(self) -> None:
        """From now on the end is the last segment that is there."""


class Recording(Protocol):
    """A recording that can be read, whatever its form."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What `create_recording` was given, with "format", "version" and "run_id"."""

    @property
    def run_id(self) -> str:
        """The run that every segment names."""

    def streams(self) -> tuple[str, ...]:
        """The streams begun so far, in alphabetical order."""

    def stream(self, name: str) -> StreamReader:
        """A new reader at the stream's beginning; the stream need not exist (yet)."""

    def close(self) -> None:
        """Let go of what is open."""


def open_recording(path: Path, follow: bool = False) -> Recording:
    """Open a recording's directory or its sealed file.

    With `follow` a stream of a directory ends only with its last segment (or by `stop_following`); without,
    it ends where it stops now. Raises BadInput when `path` is no recording, RecordingDamaged for a damaged
    sealed file.
    """
    if path.is_dir():
        return DirectoryRecording(path, follow)
    if not path.exists():
        raise BadInput(f"recording {path} does not exist")
    return SealedRecording(path)
