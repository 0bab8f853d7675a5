"""The start of a recording: its directory, and the manifest that says what it is and names the run."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundstation.errors import BadInput
from groundstation.recording.files import POSIX, Files, sync_directory, write_durably

FORMAT = "groundstation recording"
VERSION = 1
MANIFEST_NAME = "manifest.json"


def create_recording(directory: Path, manifest: Mapping[str, object], files: Files = POSIX) -> str:
    """Make `directory` (mode 0700) the place of a new recording and return its run's id.

    `manifest` holds JSON values and is kept as given beside "format", "version" and "run_id" (32 hex digits,
    drawn unless given). Raises BadInput when the directory holds anything already or cannot be made,
    RecordingFailed when the manifest cannot be written.
    """
    run_id = str(manifest.get("run_id") or uuid.uuid4().hex)
    content = {**manifest, "format": FORMAT, "version": VERSION, "run_id": run_id}
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the manifest for {directory} holds something that is no JSON value ({error})") from error
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise BadInput(f"{directory} is not empty; a recording needs a new or empty directory")
        directory.chmod(0o700)
    except OSError as error:
        raise BadInput(f"cannot record into {directory} ({error.strerror}); name another directory") from error
    sync_directory(files, directory.parent)
    target = directory / MANIFEST_NAME
    write_durably(files, target.with_suffix(".part"), target, text.encode())
    return run_id


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a recording's directory. Raises BadInput when it is none of ours."""
    path = directory / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{directory} is not a recording: {MANIFEST_NAME} cannot be read ({error.strerror})") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, where: str) -> dict[str, Any]:
    """The manifest in some bytes; `where` names them. Raises BadInput when they are none of ours."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not the manifest of a recording: it is no JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f'{where} is not the manifest of a recording: its "format" is not "{FORMAT}"')
    if content.get("version") != VERSION:
        raise BadInput(f"{where} has version {content.get('version')}, this software reads version {VERSION}")
    if not isinstance(content.get("run_id"), str):
        raise BadInput(f"{where} names no run_id")
    return content
