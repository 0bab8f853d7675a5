"""Reads corrupted copies of a sealed file, in a process of its own: the HDF5 library may take its process with it.

`python sealed_corruption.py SEALED SCRATCH FIRST STOP` says the number of each case before it begins with it.
"""

import json
import sys
from pathlib import Path
from random import Random

from corruption import corrupt_bytes
from recorders import check_subset

from groundstation.errors import BadInput, RecordingDamaged
from groundstation.recording.reader import open_recording


def read_corrupted(sealed: Path, scratch: Path, expected: dict[str, int], first: int, stop: int) -> None:
    good = sealed.read_bytes()
    for case in range(first, stop):
        _say(str(case))
        random = Random(case)
        content = good
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            content = corrupt_bytes(content, random)
        scratch.write_bytes(content)
        try:
            recording = open_recording(scratch)
            try:
                _say(f"read {check_subset(recording, expected)}")
            finally:
                recording.close()
        except (BadInput, RecordingDamaged) as error:
            _say("refused" if str(scratch) in str(error) or "segment" in str(error) else f"unclear: {error}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sealed, scratch, expected, first, stop = sys.argv[1:]
    read_corrupted(Path(sealed), Path(scratch), json.loads(expected), int(first), int(stop))
