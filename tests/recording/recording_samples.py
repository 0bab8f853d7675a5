"""Small contents for the tests of recordings, and ways to look at what was read."""

import numpy as np

from groundstation.recording.reader import Recording
from groundstation.recording.segment import Damage, Segment, Table


def tags(first: int, count: int) -> dict[str, Table]:
    """Tags whose times say which they are, so that a lost, doubled or changed one shows."""
    number = np.arange(first, first + count, dtype=np.int64)
    return {"tags": {"time_ps": (number + 1) * 1000, "channel": (number % 6).astype(np.uint8)}}


def read_all(recording: Recording, stream: str) -> list[Segment | Damage]:
    reader = recording.stream(stream)
    reader.stop_following()
    items = []
    while not reader.ended:
        items += reader.poll()
    return items


def times_in(items: list[Segment | Damage]) -> list[int]:
    """The times of all tags in some segments."""
    return [t for item in items if isinstance(item, Segment) for t in item.tables["tags"]["time_ps"].tolist()]
