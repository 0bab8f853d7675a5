"""Small recordings for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from recording_samples import tags

from groundstation.recording.manifest import create_recording
from groundstation.recording.writer import StreamWriter


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a new, empty recording of run "r"."""
    path = tmp_path / "recording"
    create_recording(path, {"run_id": "r", "mode": "simulation"})
    return path


@pytest.fixture
def record_tags(directory: Path) -> Callable[..., None]:
    """Records segments of ten tags each into the stream `tags`."""

    def record(segments: int, end: bool = True) -> None:
        with StreamWriter(directory, "tags", "r") as writer:
            for k in range(segments):
                writer.publish(tags(10 * k, 10), {"k": k}, end=end and k == segments - 1)

    return record
