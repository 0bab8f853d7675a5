"""A recording as a physicist holds it in the hand: channels by name, durations, tags, and passes over them."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from groundstation.core.filters import DelayCompensation
from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.exploration.quantities import PS_PER_S, limits
from groundstation.exploration.results import Origin
from groundstation.recording.tag_reading import TagReading
from groundstation.recording.tag_sources import TagSource

Channel = str | int


class TagRecording:
    """Tags that can be explored; made by `gs.open`. Nothing is kept open or in memory between calls."""

    def __init__(self, source: TagSource, delays_ps: Mapping[Channel, int] | None) -> None:
        self._source = source
        self._given_delays_ps = delays_ps

    def __repr__(self) -> str:
        return f"<recording: {self.title}>"

    @property
    def title(self) -> str:
        """What it is, for a caption."""
        return self._source.title

    @property
    def mode(self) -> str:
        """live, simulation, imported, or file."""
        return self._source.mode

    @cached_property
    def channels(self) -> dict[str, int]:
        """Name -> number, in the order of the numbers. A channel without a name is called by its number."""
        names = self._source.names
        names = self._whole.names if names is None else names
        return {names[number]: number for number in sorted(names)}

    @property
    def duration_s(self) -> float:
        """From the first to the last tag. Reads everything once."""
        first, last = self._whole.first_ps, self._whole.last_ps
        return 0.0 if first is None or last is None else (last - first) / PS_PER_S

    @property
    def start_s(self) -> float:
        """Time of the first tag since the recording's zero; 0 without tags. Reads everything once."""
        return (self._whole.first_ps or 0) / PS_PER_S

    @property
    def counts(self) -> dict[str, int]:
        """Tags of each channel, those in intervals of loss included. Reads everything once."""
        return {name: int(self._whole.counts[number]) for name, number in self.channels.items()}

    @property
    def gaps_s(self) -> tuple[tuple[float, float], ...]:
        """Intervals in which an unknown part of the tags is missing: (start, stop) of each. Reads everything once."""
        return _gaps_s(self._whole)

    def tags(
        self, channel: Channel | None = None, start_s: float | None = None, stop_s: float | None = None
    ) -> Iterator[TagBlock]:
        """The tags as recorded (no delay subtracted, nothing left out), block by block, start_s <= t < stop_s.

        Each block has `time_ps` (n,) int64, not decreasing, and `channel` (n,) uint8. `channel`: only this one.
        """
        number = None if channel is None else self.number(channel)
        return self._as_recorded(number, *limits(start_s, stop_s))

    def times(self, channel: Channel, start_s: float | None = None, stop_s: float | None = None) -> NDArray[np.int64]:
        """The times of one channel's tags as recorded (n,) int64 ps, all in memory: 8 bytes each."""
        blocks = [block.time_ps for block in self.tags(channel, start_s, stop_s)]
        return np.concatenate(blocks) if blocks else np.empty(0, np.int64)

    def number(self, channel: Channel) -> int:
        """The number of a channel given by name or number. Raises BadInput naming those there are."""
        if isinstance(channel, str) and channel in self.channels:
            return self.channels[channel]
        text = str(channel)
        if text.isascii() and text.isdigit() and int(text) in self.channels.values():
            return int(text)
        known = ", ".join(self.channels) or "none"
        raise BadInput(f'{self.title} has no channel "{channel}"; its channels are {known}')

    def name(self, channel: Channel) -> str:
        """The name of a channel given by name or number. Raises BadInput naming those there are."""
        number = self.number(channel)
        return next(name for name, known in self.channels.items() if known == number)

    @cached_property
    def _whole(self) -> TagReading:
        """The books of everything."""
        reading = self.reading(usable_only=False)
        reading.read_to_end()
        return reading

    @cached_property
    def _delays_ps(self) -> dict[int, int]:
        if self._given_delays_ps is None:
            return dict(self._source.delays_ps)
        return {self.number(channel): int(delay) for channel, delay in self._given_delays_ps.items() if delay}

    def _as_recorded(self, number: int | None, start_ps: int | None, stop_ps: int | None) -> Iterator[TagBlock]:
        for block in TagReading(self._source, start_ps, stop_ps, usable_only=False):
            if number is None:
                yield block
            else:
                wanted = np.flatnonzero(block.channel == number)
                yield TagBlock(block.time_ps[wanted], block.channel[wanted])

    def reading(
        self, start_s: float | None = None, stop_s: float | None = None, usable_only: bool = True
    ) -> TagReading:
        """A pass over the tags as recorded, with its books."""
        return TagReading(self._source, *limits(start_s, stop_s), usable_only)

    def compensated(self, reading: TagReading) -> Iterator[TagBlock]:
        """The blocks of a pass with the delays subtracted."""
        if not self._delays_ps:
            yield from reading
            return
        stage = DelayCompensation(self._delays_ps)
        for block in reading:
            yield stage.feed(block)
        yield stage.finish()

    def origin(self, reading: TagReading) -> Origin:
        """What a result says of where it is from."""
        stamp = "SIMULATION" if self.mode == "simulation" else ""
        return Origin(self.title, stamp, reading.duration_ps / PS_PER_S, _gaps_s(reading))


def _gaps_s(reading: TagReading) -> tuple[tuple[float, float], ...]:
    return tuple((gap.start_ps / PS_PER_S, gap.stop_ps / PS_PER_S) for gap in reading.gaps)
