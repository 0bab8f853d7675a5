"""The names of a recording's channels: those of a pass are fixed, an imported recording brings its own."""

from collections.abc import Mapping

from groundstation.core.tags import CHANNELS

IMPORTED = "imported"


def is_imported(manifest: Mapping[str, object]) -> bool:
    """Whether the recording was made from a foreign file: it has tags, but no pass plan and no transmitter."""
    return manifest.get("mode") == IMPORTED


def is_without_pass(manifest: Mapping[str, object]) -> bool:
    """Whether the recording is of the tagger alone, as `acquire` makes it: no satellite, no window, no path."""
    return not is_imported(manifest) and "window" not in manifest and "satellite" not in manifest


def channel_names(manifest: Mapping[str, object]) -> dict[int, str]:
    """Channel number -> name, in the order of the numbers.

    An imported recording lists its own under "channels" ({"1": "alice", ...}); all others have `CHANNELS`.
    """
    listed = manifest.get("channels")
    if is_imported(manifest) and isinstance(listed, Mapping):
        return {number: str(listed[str(number)]) for number in sorted(int(key) for key in listed)}
    return dict(enumerate(CHANNELS))
