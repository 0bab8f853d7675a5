"""Exploring recordings from Python: `import groundstation as gs`, then `gs.open`, `gs.rates`, `gs.correlate`, ...

A walk through all of it is groundstation/docs/exploring.md. Every function reads the tags once, block by block; the
memory it takes is that of its result. Times are integer picoseconds since the recording's zero. Unless said otherwise
channel delays are subtracted first, and tags inside intervals of loss are left out: no rate can count on them.
Whatever cannot be used is refused with `groundstation.errors.BadInput`, one sentence.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import overload

import numpy as np

from groundstation.core.coincidence import Which
from groundstation.core.correlation import Correlation
from groundstation.core.histograms import ChannelRates, IntervalHistogram, PhaseHistogram, RateRows
from groundstation.errors import BadInput
from groundstation.exploration.coinciding import find_pairs, find_pattern
from groundstation.exploration.quantities import PS_PER_NS, PS_PER_S, check_number, whole_bins, whole_ps
from groundstation.exploration.quantities import period_ps as exact_period_ps
from groundstation.exploration.results import Coincidences, Correlogram, Pairs, Rates, TagHistogram, TwoFold
from groundstation.exploration.shifted import windows
from groundstation.exploration.tag_recording import Channel, TagRecording
from groundstation.recording.tag_reading import TagReading
from groundstation.recording.tag_sources import open_tags

__all__ = ["TagRecording", "coincidences", "correlate", "histogram", "open", "rates"]

_MOST_CHANNELS = 8
_CHOSEN_BINS = 500


def open(
    path: str | Path,
    format: str | None = None,
    resolution_ps: float | None = None,
    delays_ps: Mapping[Channel, int] | None = None,
) -> TagRecording:
    """Open a sealed recording, the directory of a growing or finished one, or a tag file of another program.

    Of a growing recording every call sees what is there by then. A foreign file is read in place, in any format that
    `groundstation import` knows: `format` and `resolution_ps` are its options of these names. `delays_ps`: channel ->
    delay that all analyses subtract, instead of those in the recording's manifest; `{}` for none.
    """
    recording = TagRecording(open_tags(Path(path), format, resolution_ps), delays_ps)
    for channel, delay_ps in (delays_ps or {}).items():
        recording.number(channel)
        whole_ps(abs(delay_ps), 1, f"the delay of channel {channel}", least=0)
    return recording


def rates(
    recording: TagRecording, bin_s: float = 1.0, start_s: float | None = None, stop_s: float | None = None
) -> Rates:
    """Count rates of all channels that have tags, in bins of `bin_s`; delays do not matter here. See `Rates`."""
    bin_ps = whole_ps(bin_s, PS_PER_S, "bin_s")
    numbers = list(recording.channels.values())
    stage = ChannelRates(bin_ps, max(numbers, default=0) + 1)
    rows: list[RateRows] = []
    reading = recording.reading(start_s, stop_s, usable_only=False)
    for block in reading:
        rows.append(stage.feed(block))
        check_number((int(block.time_ps[-1]) - (reading.first_ps or 0)) // bin_ps * len(numbers))
    rows.append(stage.finish())
    usable = reading
    if reading.gaps:
        usable = recording.reading(start_s, stop_s)
        usable.read_to_end()
    present = [number for number in numbers if reading.counts[number]]
    return _rates(recording, usable, rows, present, bin_ps)


def correlate(
    recording: TagRecording,
    a: Channel,
    b: Channel,
    half_range_ns: float = 100.0,
    bin_ps: int = 100,
    start_s: float | None = None,
    stop_s: float | None = None,
) -> Correlogram:
    """Histogram of the delays t_b - t_a of all pairs within +-half_range_ns, a whole number of bins.

    `a` and `b` may be the same: then every tag pairs with every other one. See `Correlogram` for the shapes. Time
    goes with the number of tags plus pairs.
    """
    bin_ps = whole_ps(bin_ps, 1, "bin_ps")
    half_range_ps = whole_bins(whole_ps(half_range_ns, PS_PER_NS, "half_range_ns"), bin_ps)
    number_a, number_b = recording.number(a), recording.number(b)
    stage = Correlation(number_a, number_b, half_range_ps, bin_ps)
    reading = recording.reading(start_s, stop_s)
    for block in recording.compensated(reading):
        stage.feed(block)
    found = stage.finish()
    tags_a, tags_b = (int(reading.counts[number]) for number in (number_a, number_b))
    names = recording.name(a), recording.name(b)
    return Correlogram(recording.origin(reading), names, found.edges_ps, found.counts, tags_a, tags_b)


def histogram(
    recording: TagRecording,
    channel: Channel,
    *,
    period_ps: float | Fraction | None = None,
    sync: Channel | None = None,
    intervals: bool = False,
    range_ns: float | None = None,
    bin_ps: int | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
) -> TagHistogram:
    """Histogram of one channel's tags by one of three times. Give exactly one of

    `period_ps`: the time modulo a period, counted exactly; the period may have decimals, phase 0 is the recording's
    zero; 100 bins, or as many as make them about `bin_ps` wide.
    `sync`: the time since the latest tag of this channel, up to `range_ns` (by default the mean spacing of its tags).
    `intervals`: the time since the channel's own tag before, up to `range_ns` (by default 5 times the mean).
    `bin_ps` is by default a round number, for up to 500 bins. See `TagHistogram` for the shapes.
    """
    if (period_ps is not None) + (sync is not None) + bool(intervals) != 1:
        raise BadInput("give exactly one of period_ps, sync and intervals: which time of the tags is meant")
    number = recording.number(channel)
    if period_ps is not None:
        if range_ns is not None:
            raise BadInput("a histogram over a period has no range_ns; it covers the period")
        return _phase_histogram(recording, number, period_ps, bin_ps, start_s, stop_s)
    reference = number if sync is None else recording.number(sync)
    if sync is not None and reference == number:
        raise BadInput(f"channel {recording.name(number)} is its own sync; for the time between its tags ask intervals")
    range_ps, bin_ps = _chosen_bins(recording, reference, range_ns, bin_ps, 5 if intervals else 1)
    tally = IntervalHistogram(number, range_ps, bin_ps, reference)
    reading = recording.reading(start_s, stop_s)
    for block in recording.compensated(reading):
        tally.feed(block)
    edges_ps = np.arange(range_ps // bin_ps + 1, dtype=np.float64) * bin_ps
    axis = "time since the click before" if intervals else f"time since {recording.name(reference)}"
    return TagHistogram(
        recording.origin(reading),
        recording.name(number),
        "intervals" if intervals else "sync",
        axis,
        edges_ps,
        tally.counts,
        tally.longer + tally.unreferenced,
        tally.shortest_ps,
    )


@overload
def coincidences(
    recording: TagRecording,
    channels: tuple[Channel, Channel],
    half_window_ps: int = 1000,
    which: Which | None = None,
    shift_ps: int | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
) -> Pairs: ...


@overload
def coincidences(
    recording: TagRecording,
    channels: Sequence[Channel],
    half_window_ps: int = 1000,
    which: Which | None = None,
    shift_ps: int | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    veto: Sequence[Channel] = (),
) -> Coincidences: ...


def coincidences(
    recording: TagRecording,
    channels: Sequence[Channel],
    half_window_ps: int = 1000,
    which: Which | None = None,
    shift_ps: int | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    veto: Sequence[Channel] = (),
) -> Coincidences:
    """Tags of several channels within +-half_window_ps of each other, and how many of them chance explains.

    Two channels, no `veto`: pairs with |t_b - t_a| <= half_window_ps (`Pairs`), by default all of them, or as `which`
    says ("nearest", "one_to_one", defined in docs/tags.md). Otherwise: tags of the first channel with a tag of each
    other one within the window around it, and none of a `veto` channel (`Coincidences`); up to 8 channels in all.

    Accidentals are the mean over windows shifted by +-1 to +-5 times `shift_ps`, by default ten full windows. Choose
    it beyond jitter and dead time, and as a multiple of the period for a pulsed source. Memory: 16 bytes per pair.
    """
    required, vetoed = _different_channels(recording, channels, veto)
    half_window_ps = whole_ps(half_window_ps, 1, "half_window_ps", least=0)
    where = windows(half_window_ps, None if shift_ps is None else whole_ps(shift_ps, 1, "shift_ps"))
    if which not in (None, "all", "nearest", "one_to_one"):
        raise BadInput(f'which is "{which}"; give "all", "nearest" or "one_to_one"')
    reading = recording.reading(start_s, stop_s)
    blocks = recording.compensated(reading)
    names, veto_names = (tuple(map(recording.name, numbers)) for numbers in (required, vetoed))
    if len(required) == 2 and not vetoed:
        which = which or "all"
        pairs = find_pairs(blocks, required[0], required[1], where, which, recording.title)
        return Pairs(
            recording.origin(reading), names, veto_names, half_window_ps, reading.counts[required], pairs.time_ps,
            *pairs.accidentals, (), (), which, pairs.delay_ps,
        )  # fmt: skip
    if which is not None:
        raise BadInput(f'which is "{which}", but only pairs of two channels without veto have one; leave it out')
    found = find_pattern(blocks, required, vetoed, where, recording.title)
    all_names = names + veto_names
    return Coincidences(
        recording.origin(reading), names, veto_names, half_window_ps, reading.counts[required], found.time_ps,
        *found.accidentals, tuple(level.mean for level in found.one_random),
        tuple(TwoFold((all_names[i], all_names[j]), count, *level) for i, j, count, level in found.twofold),
    )  # fmt: skip


def _different_channels(
    recording: TagRecording, channels: Sequence[Channel], veto: Sequence[Channel]
) -> tuple[list[int], list[int]]:
    """Their numbers, when they are such that something can coincide."""
    for given, name in ((channels, "channels"), (veto, "veto")):
        if isinstance(given, str):
            raise BadInput(f'{name} is "{given}"; give a list of channels, even of one')
    required, vetoed = ([recording.number(channel) for channel in given] for given in (channels, veto))
    everything = required + vetoed
    if len(required) < 2:
        raise BadInput(f"coincidences are of two channels or more, {len(required)} was given")
    if len(everything) > _MOST_CHANNELS:
        raise BadInput(f"coincidences are of at most {_MOST_CHANNELS} channels, {len(everything)} were given")
    twice = next((number for number in everything if everything.count(number) > 1), None)
    if twice is not None:
        raise BadInput(f"channel {recording.name(twice)} is named twice; for its delays with itself see correlate")
    return required, vetoed


def _rates(recording: TagRecording, usable: TagReading, rows: list[RateRows], numbers: list[int], bin_ps: int) -> Rates:
    """All bins of the time observed; a rate only where that covers a bin from end to end, without a gap."""
    from_ps, to_ps = usable.from_ps or 0, usable.to_ps or 0
    beyond = max([to_ps, *(int(row.bin[-1]) * bin_ps + 1 for row in rows[-1:] if row.bin.size)])
    bins = np.arange(from_ps // bin_ps, -(-beyond // bin_ps))
    counts = np.zeros((len(numbers), bins.size), np.int64)
    for row in rows:
        counts[:, row.bin - bins[:1]] = row.counts[:, numbers].T
    edges_ps = np.append(bins, bins[-1:] + 1) * bin_ps
    covered = (edges_ps[:-1] >= from_ps) & (edges_ps[1:] <= to_ps)
    for gap in usable.gaps:
        covered &= (edges_ps[:-1] >= gap.stop_ps) | (edges_ps[1:] <= gap.start_ps)
    origin = recording.origin(usable)
    rate_hz = np.where(covered, counts * (PS_PER_S / bin_ps), np.nan)
    usable_tags = usable.counts[numbers]
    mean_hz = usable_tags / origin.duration_s if origin.duration_s else np.full(len(numbers), np.nan)
    names = tuple(recording.name(number) for number in numbers)
    return Rates(origin, names, edges_ps / PS_PER_S, counts, rate_hz, counts.sum(axis=1), mean_hz)


def _phase_histogram(
    recording: TagRecording,
    number: int,
    period_ps: float | Fraction,
    bin_ps: int | None,
    start_s: float | None,
    stop_s: float | None,
) -> TagHistogram:
    period = exact_period_ps(period_ps)
    bins = 100 if bin_ps is None else max(1, round(period / whole_ps(bin_ps, 1, "bin_ps")))
    check_number(bins)
    tally = PhaseHistogram(number, period, bins)
    reading = recording.reading(start_s, stop_s)
    for block in recording.compensated(reading):
        tally.feed(block)
    edges_ps = np.arange(bins + 1, dtype=np.float64) * (float(period) / bins)
    axis = f"time within a period of {float(period):,.10g} ps"
    name = recording.name(number)
    return TagHistogram(recording.origin(reading), name, "phase", axis, edges_ps, tally.counts, 0, None)


def _chosen_bins(
    recording: TagRecording, reference: int, range_ns: float | None, bin_ps: int | None, spacings: int
) -> tuple[int, int]:
    """Range and bins, one from the other or both from the mean spacing of the reference's tags."""
    if range_ns is None:
        tags = recording.counts[recording.name(reference)]
        range_ps = max(1, round(spacings * recording.duration_s * PS_PER_S / max(tags, 1)))
    else:
        range_ps = whole_ps(range_ns, PS_PER_NS, "range_ns")
    chosen_ps = _round_up(-(-range_ps // _CHOSEN_BINS)) if bin_ps is None else whole_ps(bin_ps, 1, "bin_ps")
    if range_ns is None or bin_ps is None:
        range_ps = -(-range_ps // chosen_ps) * chosen_ps
    return whole_bins(range_ps, chosen_ps), chosen_ps


def _round_up(bin_ps: int) -> int:
    """The next 1, 2 or 5 with zeros."""
    decade: int = 10 ** (len(str(bin_ps)) - 1)
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= bin_ps)
