"""The start of a recording: its directory, and the manifest that says what it is and names the run."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.files import POSIX, Files, sync_directory, write_durably
from groundstation.recording.segment import canonical_json

FORMAT = "groundstation recording"
VERSION = 1
MANIFEST_NAME = "manifest.json"
_PART_NAME = "manifest.part"
#: The key of the checksum over all other keys; readers never see it.
_CHECKSUM = "sha256"


def create_recording(directory: Path, manifest: Mapping[str, object], files: Files = POSIX) -> str:
    """Make `directory` (mode 0700) the place of a new recording and return its run's id.

    `manifest` holds JSON values and is kept as given beside "format", "version" and "run_id" (32 hex digits,
    drawn unless given). Raises BadInput when the directory holds anything already or cannot be made,
    RecordingFailed when the manifest cannot be written; then it can be tried again.
    """
    run_id = str(manifest.get("run_id") or uuid.uuid4().hex)
    content = {**manifest, "format": FORMAT, "version": VERSION, "run_id": run_id}
    content.pop(_CHECKSUM, None)
    try:
        plain = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadInput(f"the manifest for {directory} holds something that is no JSON value ({error})") from error
    text = json.dumps({**plain, _CHECKSUM: _checksum(plain)}, indent=1)
    _make_place(directory, {_PART_NAME}, files)
    write_durably(files, directory / _PART_NAME, directory / MANIFEST_NAME, text.encode())
    return run_id


def _make_place(directory: Path, leftovers: set[str], files: Files) -> None:
    """Make an empty directory, durably; `leftovers` may be in it, of one who died before there was a manifest."""
    missing = [path for path in directory.parents if not path.exists()]
    try:
        for path in reversed(missing):
            files.make_directory(path, 0o777)
            sync_directory(files, path.parent)
        with suppress(FileExistsError):
            files.make_directory(directory, 0o700)
        if set(os.listdir(directory)) - leftovers:
            raise BadInput(f"{directory} is not empty; a recording needs a new or empty directory")
        files.chmod(directory, 0o700)
    except OSError as error:
        raise BadInput(f"cannot record into {directory} ({error.strerror}); name another directory") from error
    sync_directory(files, directory.parent)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a recording's directory. Raises as `parse_manifest` does."""
    path = directory / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{directory} is not a recording: {MANIFEST_NAME} cannot be read ({error.strerror})") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, where: str) -> dict[str, Any]:
    """The manifest in some bytes; `where` names them.

    Raises BadInput when they are none of ours, RecordingDamaged when they changed since they were written.
    """
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not the manifest of a recording: it is no JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f'{where} is not the manifest of a recording: its "format" is not "{FORMAT}"')
    checksum = content.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(content):
        raise RecordingDamaged(f"{where} is damaged: its content does not match its checksum")
    if content.get("version") != VERSION:
        raise BadInput(f"{where} has version {content.get('version')}, this software reads version {VERSION}")
    if not isinstance(content.get("run_id"), str):
        raise BadInput(f"{where} names no run_id")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON value")
