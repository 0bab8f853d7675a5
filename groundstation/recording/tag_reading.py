"""One pass over the tags of a recording or file, leaving out what lies in intervals of loss, and its books."""

from collections.abc import Iterator

import numpy as np

from groundstation.core.tags import EMPTY_BLOCK, TagBlock, UnsortedTags, concatenate, require_sorted
from groundstation.errors import BadInput
from groundstation.recording.formats.tag_file import Gap
from groundstation.recording.tag_sources import TagSource


class TagReading:
    """Yields blocks in time order; the attributes are whole after the last one.

    `counts` (256,) int64 tags by channel number; `first_ps` and `last_ps` of any channel, None without tags; `from_ps`
    and `to_ps`: what was observed, up to the range's limits where there are tags beyond them; `gaps` in the range;
    `names` channel number -> name. With `usable_only` the tags inside gaps are left out: a rate or a
    correlation cannot count on them.
    """

    def __init__(
        self, source: TagSource, start_ps: int | None = None, stop_ps: int | None = None, usable_only: bool = True
    ) -> None:
        """Tags with start_ps <= t < stop_ps; None is no limit."""
        self._source = source
        self._start_ps, self._stop_ps = start_ps, stop_ps
        self._usable_only = usable_only
        self.counts = np.zeros(256, np.int64)
        self.first_ps: int | None = None
        self.last_ps: int | None = None
        self.from_ps: int | None = None
        self.to_ps: int | None = None
        self.gaps: list[Gap] = []
        self._read_up_to_ps: int | None = None
        self.names: dict[int, str] = dict(source.names or {})

    def __iter__(self) -> Iterator[TagBlock]:
        for block, gaps, names in self._source.read():
            self._extend(block)
            self._check(block)
            self.names.update(names)
            self.gaps += [gap for gap in gaps if self._in_range(gap)]
            kept = self._without_loss(self._limited(block))
            if kept.time_ps.size:
                self.counts += np.bincount(kept.channel, minlength=256)
                self.first_ps = int(kept.time_ps[0]) if self.first_ps is None else self.first_ps
                self.last_ps = int(kept.time_ps[-1])
                yield kept
            if block.time_ps.size and self._stop_ps is not None and block.time_ps[-1] >= self._stop_ps:
                break
        for number in np.flatnonzero(self.counts).tolist():
            self.names.setdefault(number, str(number))

    def read_to_end(self) -> None:
        """Only the books are wanted."""
        for _ in self:
            pass

    @property
    def duration_ps(self) -> int:
        """The time observed, without the gaps."""
        if self.from_ps is None or self.to_ps is None:
            return 0
        observed_ps, reached_ps = self.to_ps - self.from_ps, self.from_ps
        for gap in sorted(self.gaps, key=_start):
            start, stop = max(gap.start_ps, reached_ps), min(gap.stop_ps, self.to_ps)
            if stop > start:
                observed_ps -= stop - start
                reached_ps = stop
        return observed_ps

    def _extend(self, block: TagBlock) -> None:
        """What was observed reaches as far as there are tags, also those that are left out."""
        if block.time_ps.size == 0:
            return
        first, last = int(block.time_ps[0]), int(block.time_ps[-1])
        low, high = self._start_ps, self._stop_ps
        if self.from_ps is None and (low is None or last >= low):
            before = self._read_up_to_ps is not None or (low is not None and first < low)
            start = low if low is not None and before else first
            self.from_ps = start if high is None or start < high else None
        if self.from_ps is not None:
            self.to_ps = last if high is None else min(last, high)

    def _check(self, block: TagBlock) -> None:
        try:
            require_sorted(block.time_ps, self._read_up_to_ps)
        except UnsortedTags as error:
            raise BadInput(f"{self._source.title} cannot be explored: {error}") from error
        self._read_up_to_ps = int(block.time_ps[-1]) if block.time_ps.size else self._read_up_to_ps

    def _in_range(self, gap: Gap) -> bool:
        after = self._start_ps is None or gap.stop_ps >= self._start_ps
        return after and (self._stop_ps is None or gap.start_ps < self._stop_ps)

    def _limited(self, block: TagBlock) -> TagBlock:
        time_ps = block.time_ps
        low = 0 if self._start_ps is None else int(np.searchsorted(time_ps, self._start_ps))
        high = time_ps.size if self._stop_ps is None else int(np.searchsorted(time_ps, self._stop_ps))
        return block if (low, high) == (0, time_ps.size) else TagBlock(time_ps[low:high], block.channel[low:high])

    def _without_loss(self, block: TagBlock) -> TagBlock:
        """Leave out what lies strictly inside a gap; its ends are tags that were well received."""
        if not self._usable_only or block.time_ps.size == 0:
            return block
        first, last = int(block.time_ps[0]), int(block.time_ps[-1])
        touching = [gap for gap in sorted(self.gaps, key=_start) if gap.start_ps < last and gap.stop_ps > first]
        kept, begin = [], 0
        for gap in touching:
            low = int(np.searchsorted(block.time_ps, gap.start_ps, side="right"))
            high = int(np.searchsorted(block.time_ps, gap.stop_ps))
            if low > begin:
                kept.append(TagBlock(block.time_ps[begin:low], block.channel[begin:low]))
            begin = max(begin, high)
        if not touching:
            return block
        kept.append(TagBlock(block.time_ps[begin:], block.channel[begin:]))
        return concatenate(kept) if kept else EMPTY_BLOCK


def _start(gap: Gap) -> tuple[int, int]:
    return gap.start_ps, gap.stop_ps
