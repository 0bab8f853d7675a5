"""Two time taggers on a common reference (10 MHz) as one with eight inputs.

The inputs of the second become bits 4 to 7 of the patterns, its times are put on the scale of the first. A common
reference lets both clocks run alike, but each counts from a moment of its own: the constant between them is measured
once, on a signal that is wired to an input of both (1PPS, beacon), and watched from then on.
"""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.clock import monotonic_ns, monotonic_s
from groundstation.core.merging import Merger
from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput, InstrumentFault, WireError
from groundstation.instruments import Identity, PatternBlock, TimeTagger
from groundstation.tables import record

Ints = NDArray[np.int64]

SECOND_INPUTS_FROM_BIT = 4
_PS_PER_S = 1_000_000_000_000
_LEAST_PULSES = 5  # that must agree
_PULSES_WATCHED = 8  # before the offset is measured
_MOST_DIFFERENCES = 20_000_000
_AGREE_SHARE = 0.8  # of the pulses that both should have seen
_RIVAL_SHARE = 0.5  # of the best offset's pulses; a rival with more makes it ambiguous
#: The host's clock tells the offset to this much, as long as no read is late by more (world time).
_HOST_WITHIN_S = 0.4
_READ_S = 0.02


@dataclasses.dataclass(frozen=True)
class CommonSettings:
    """Keys in the settings of the second tagger that are not its driver's.

    `common_inputs`: of the second tagger, where the signal of `common_channel` is plugged in as well.
    `common_tolerance_ps`: by how much the two may differ about one pulse. `common_wait_s`: how long to wait for pulses.
    """

    common_inputs: tuple[int, ...]
    common_channel: str = "pps"
    common_tolerance_ps: int = 5_000
    common_wait_s: float = 30.0


def split_settings(settings: Mapping[str, object]) -> tuple[CommonSettings, dict[str, object]]:
    """What the second tagger's table says of the common signal, and the rest, for its driver. Raises BadInput."""
    names = {field.name for field in dataclasses.fields(CommonSettings)}
    mine = {key: value for key, value in settings.items() if key in names}
    common = record(CommonSettings, mine, "instruments", "tagger_2", "settings")
    if not common.common_inputs or not all(1 <= number <= 4 for number in common.common_inputs):
        raise BadInput(f"common_inputs of [instruments.tagger_2] is {list(common.common_inputs)}; give 1 to 4, or some")
    if not 0 < common.common_tolerance_ps < 1_000_000_000 or not 0.0 < common.common_wait_s < 3600.0:
        raise BadInput("common_tolerance_ps of [instruments.tagger_2] must be 1 to 999999999, common_wait_s 1 to 3600")
    return common, {key: value for key, value in settings.items() if key not in names}


class CommonSignal(NamedTuple):
    """The inputs of the first and of the second tagger that fire with it, and by how much the times may differ."""

    first_pattern: int
    second_pattern: int
    tolerance_ps: int


def common_signal(common: CommonSettings, patterns: Mapping[str, int]) -> CommonSignal:
    """Where the signal is, given the station's logical channels. BadInput when the first tagger does not get it."""
    first = patterns.get(common.common_channel, 0)
    if not 0 < first < 1 << SECOND_INPUTS_FROM_BIT:
        raise BadInput(
            f'common_channel of [instruments.tagger_2] is "{common.common_channel}"; it must be one of [channels] that '
            "is plugged into inputs 1 to 4, those of the first tagger"
        )
    return CommonSignal(first, sum(1 << (n - 1) for n in set(common.common_inputs)), common.common_tolerance_ps)


def clock_offset_ps(first_ps: Ints, second_ps: Ints, about_ps: int, within_ps: int, tolerance_ps: int) -> int:
    """The second clock's reading minus the first's, from the times at which each saw the pulses of one signal.

    `first_ps` (n,), `second_ps` (m,) sorted; pulses may be missing or added on either side. Only offsets of
    `about_ps` +- `within_ps` are looked at. The offset on which most pulses agree to `tolerance_ps` is taken, if

    * at least 5 pulses agree, and 0.8 of those that both should have seen (else the signal is noisy, or not common);
    * no other offset has more than half as many (else it is ambiguous, as when a periodic signal's period is shorter
      than the range that is looked at).

    Raises InstrumentFault otherwise.
    """
    low = second_ps.searchsorted(first_ps + (about_ps - within_ps))
    high = second_ps.searchsorted(first_ps + (about_ps + within_ps), "right")
    counts = high - low
    total = int(counts.sum())
    if total > _MOST_DIFFERENCES:
        raise InstrumentFault("the common signal has too many pulses to compare; choose one below 10 kHz")
    first = np.repeat(np.arange(first_ps.size), counts)
    second = np.arange(total) - np.repeat(counts.cumsum() - counts, counts) + np.repeat(low, counts)
    differences = np.sort(second_ps[second] - first_ps[first])
    if differences.size < _LEAST_PULSES:
        raise InstrumentFault(
            f"only {differences.size} pulses of the common signal fit together, {_LEAST_PULSES} are needed; is it "
            "wired to both taggers?"
        )
    agreeing = differences.searchsorted(differences + tolerance_ps, "right") - np.arange(differences.size)
    best = int(agreeing.argmax())
    cluster = differences[best : best + agreeing[best]]
    offset_ps = int(np.median(cluster))
    expected = min(_within(first_ps + offset_ps, second_ps), _within(second_ps, first_ps + offset_ps))
    if cluster.size < max(_LEAST_PULSES, _AGREE_SHARE * expected):
        raise InstrumentFault(
            f"only {cluster.size} of {expected} pulses of the common signal agree to {tolerance_ps} ps; is it the same "
            "signal on both taggers, and do they share a reference clock?"
        )
    elsewhere = (differences + tolerance_ps < cluster[0]) | (differences > cluster[-1])
    rival = int(agreeing[elsewhere].max(initial=0))
    if rival > _RIVAL_SHARE * cluster.size:
        raise InstrumentFault(
            f"the offset between the taggers is ambiguous: {cluster.size} pulses of the common signal agree on one and "
            f"{rival} on another; use a signal of a longer period, as 1PPS"
        )
    return offset_ps


def _within(times: Ints, other: Ints) -> int:
    """How many of `times` lie in the span of `other`."""
    return int(times.searchsorted(other[-1], "right") - times.searchsorted(other[0]))


def connect_two(
    connect_first: Callable[[], TimeTagger],
    connect_second: Callable[[], TimeTagger],
    common: CommonSignal,
    speed: float,
    wait_s: float,
) -> "TwoTaggers":
    """Connect both and measure the offset between their clocks; the events of that time are kept.

    The host's clock, which runs `speed` times faster in a simulated world, tells the offset to 0.4 s: enough to single
    out the second of a 1PPS. Raises InstrumentFault when no offset is found within `wait_s` (world time).
    """
    with ExitStack() as open_ones:
        taggers = []
        for connect in (connect_first, connect_second):
            taggers.append(connect())
            open_ones.callback(taggers[-1].close)
        watched = [_Watched(common.first_pattern), _Watched(common.second_pattern)]
        deadline = monotonic_s() + wait_s / speed
        while min(one.pulses for one in watched) < _PULSES_WATCHED:
            if monotonic_s() > deadline:
                seen = " and ".join(str(one.pulses) for one in watched)
                raise InstrumentFault(
                    f"the two taggers saw {seen} pulses of the common signal in {wait_s:g} s, {_PULSES_WATCHED} are "
                    "needed; check that it is wired to both"
                )
            for tagger, one in zip(taggers, watched, strict=True):
                one.take(tagger.read(_READ_S), round(monotonic_ns() * 1000 * speed))
        about_ps = watched[0].host_minus_device_ps - watched[1].host_minus_device_ps
        offset_ps = clock_offset_ps(
            watched[0].times(), watched[1].times(), about_ps, round(_HOST_WITHIN_S * _PS_PER_S), common.tolerance_ps
        )
        joined = TwoTaggers(taggers[0], taggers[1], common, offset_ps)
        joined.keep([one.blocks for one in watched])
        open_ones.pop_all()
        return joined


class _Watched:
    """What one tagger gave while the offset was not known yet."""

    def __init__(self, pattern: int) -> None:
        self._pattern = pattern
        self.blocks: list[PatternBlock] = []
        self.pulses = 0
        self.host_minus_device_ps = 1 << 62
        """The least seen: of the read that was late by the least."""

    def take(self, block: PatternBlock, host_ps: int) -> None:
        if block.latest_ps < 0:
            return
        self.blocks.append(block)
        self.pulses += _pulses(block, self._pattern).size
        self.host_minus_device_ps = min(self.host_minus_device_ps, host_ps - block.latest_ps)

    def times(self) -> Ints:
        return np.concatenate([np.empty(0, np.int64), *(_pulses(block, self._pattern) for block in self.blocks)])


def _pulses(block: PatternBlock, pattern: int) -> Ints:
    """Times of the events in which all inputs of `pattern` fired."""
    times: Ints = block.time_ps[(block.pattern & pattern) == pattern]
    return times


class TwoTaggers:
    """Two taggers with a known offset: a `TimeTagger` on the time scale of the first.

    Events of both come in time order, as far as both have come. The second tagger's own copy of the common signal is
    left out: it serves to see whether the offset still holds. When most pulses of the last few differ by more than the
    tolerance, a note says so (which becomes a gap), again and again until they agree.
    """

    def __init__(self, first: TimeTagger, second: TimeTagger, common: CommonSignal, offset_ps: int) -> None:
        """`offset_ps`: the second clock's reading minus the first's."""
        self._taggers = (first, second)
        self._common = common
        self.offset_ps = offset_ps
        self._merger = Merger(2)
        self._latest_ps = [-1, -1]  # of each, on the common scale
        self._heard = [False, False]
        self._pulses = [np.empty(0, np.int64), np.empty(0, np.int64)]
        self._kept: list[tuple[int, PatternBlock]] = []
        self._from_ps = -(1 << 62)

    @property
    def resolution_ps(self) -> float:
        """The coarser one."""
        return max(tagger.resolution_ps for tagger in self._taggers)

    @property
    def wrap_ps(self) -> int | None:
        """When the counter of the first, whose scale it is, begins again."""
        wrap_ps: int | None = getattr(self._taggers[0], "wrap_ps", None)
        return wrap_ps

    def identify(self) -> Identity:
        """Both, in order."""
        first, second = (tagger.identify() for tagger in self._taggers)
        return Identity(
            f"{first.model} + {second.model}",
            f"{first.firmware} + {second.firmware}",
            f"{first.serial} + {second.serial}",
        )

    def keep(self, blocks: list[list[PatternBlock]]) -> None:
        """Blocks of the first and of the second that were read before; they come with the next `read`.

        What only one of them saw, before the other began, is left out.
        """
        starts = []
        for which, mine in enumerate(blocks):
            times = [int(block.time_ps[0]) if block.time_ps.size else block.latest_ps for block in mine[:1]]
            starts += [time - which * self.offset_ps for time in times]
            self._kept += [(which, block) for block in mine]
        self._from_ps = max(starts, default=self._from_ps)

    def read(self, timeout_s: float) -> PatternBlock:
        """What both have reached. Raises what either raises, and WireError for times that go back."""
        blocks, self._kept = self._kept, []
        if not blocks:
            blocks = [(which, tagger.read(timeout_s / 2)) for which, tagger in enumerate(self._taggers)]
        parts, notes, missed = [], [], []
        for which, block in blocks:
            notes += [note if which == 0 else f"second tagger: {note}" for note in block.notes]
            missed.append(block.missed)
            if block.latest_ps >= 0:
                parts.append(self._merged(which, block))
        events = TagBlock(*(np.concatenate(c) for c in zip(*parts, strict=True))) if parts else None
        latest_ps = min(self._latest_ps) if all(self._heard) else -1
        notes += self._drift(latest_ps)
        known = [count for count in missed if count is not None]
        unknown = len(known) < len(missed) and not any(known)
        time_ps, pattern = events if events is not None else (np.empty(0, np.int64), np.empty(0, np.uint8))
        return PatternBlock(time_ps, pattern, latest_ps, None if unknown else sum(known), tuple(notes))

    def close(self) -> None:
        """Give both links back. Idempotent."""
        for tagger in self._taggers:
            tagger.close()

    def _merged(self, which: int, block: PatternBlock) -> TagBlock:
        """The events of both that may go on after this block."""
        time_ps, pattern = block.time_ps, block.pattern
        latest_ps = block.latest_ps
        wanted = self._common.second_pattern if which else self._common.first_pattern
        pulses = _pulses(block, wanted)
        if which:
            pattern = np.where((pattern & wanted) == wanted, pattern & ~np.uint8(wanted), pattern)
            pattern = pattern << np.uint8(SECOND_INPUTS_FROM_BIT)
            time_ps, pattern = time_ps[pattern != 0] - self.offset_ps, pattern[pattern != 0]
            pulses, latest_ps = pulses - self.offset_ps, latest_ps - self.offset_ps
        self._pulses[which] = np.concatenate((self._pulses[which], pulses))
        self._latest_ps[which], self._heard[which] = latest_ps, True
        begin = int(time_ps.searchsorted(self._from_ps))
        try:
            return self._merger.feed(which, TagBlock(time_ps[begin:], pattern[begin:]), latest_ps)
        except ValueError as error:
            raise WireError(f"tagger {which + 1} gave times that go back: {error}") from error

    def _drift(self, latest_ps: int) -> list[str]:
        """A note when the common signal does not come at the same time any more on both."""
        tolerance_ps = self._common.tolerance_ps
        first, second = self._pulses
        n = int(first.searchsorted(latest_ps - tolerance_ps))
        if n < _LEAST_PULSES:
            return []
        own, self._pulses[0] = first[:n], first[n:]
        self._pulses[1] = second[int(second.searchsorted(own[-1] + tolerance_ps, "right")) :]
        if not second.size:
            return [f"the second tagger did not see {n} pulses of the common signal, so its clock is unproven"]
        after = np.minimum(second.searchsorted(own), second.size - 1)
        before = np.maximum(after - 1, 0)
        apart = np.where(
            np.abs(second[after] - own) < np.abs(second[before] - own), second[after] - own, second[before] - own
        )
        if np.count_nonzero(np.abs(apart) <= tolerance_ps) > n // 2:
            return []
        return [
            f"the taggers differ by {float(np.median(apart)) / 1000:.1f} ns more than at the start: do they share a "
            "reference clock?"
        ]
