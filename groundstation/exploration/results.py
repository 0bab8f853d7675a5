"""What an exploration found: small objects with arrays, `.plot(path)`, `.csv(path)` and `.as_dict()`.

They are made by the functions of `groundstation.api`. Arrays have units in their names; delays and phases are exact
to the picosecond, what is derived from them is floating point.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundstation.core.correlation import DelayHistogram
from groundstation.core.g2 import PulsedG2, g2_continuous, g2_pulsed
from groundstation.errors import BadInput
from groundstation.exploration.extreme import Extreme, most_extreme
from groundstation.exploration.quantities import time_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["phase", "sync", "intervals"]

PS_PER_S = 1e12


@dataclass(frozen=True)
class Origin:
    """What was explored: a title for captions, SIMULATION where it is one, seconds without loss, and the gaps.

    `duration_s`: from the first to the last tag, or to the limits of the range, without the gaps; `gaps_s`: (start,
    stop) of each.
    """

    title: str
    stamp: str
    duration_s: float
    gaps_s: tuple[tuple[float, float], ...]

    @property
    def text(self) -> str:
        """Title and stamp in one line."""
        return f"{self.title}, {self.stamp}" if self.stamp else self.title


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """Common to all results: `origin`, and the ways out."""

    origin: Origin

    def plot(self, path: str | Path, width_in: float = 6.2) -> None:
        """Draw it into a .svg, .png or .pdf file, `width_in` inches wide (3 or more).

        Raises BadInput for another suffix, GroundStationError when the file cannot be written.
        """
        from groundstation.report.exploration import save_figure  # matplotlib takes half a second to load

        save_figure(Path(path), lambda: self._figure(width_in))

    def csv(self, path: str | Path) -> None:
        """Write the columns as text, a line of names first. Raises GroundStationError when that fails."""
        from groundstation.report.exploration import save_content

        columns = self._columns()
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        lines = [",".join(columns), *(",".join(map(_text, row)) for row in rows)]
        save_content(Path(path), ("\n".join(lines) + "\n").encode())

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known is None."""
        numbers = {name: [_known(value) for value in column.tolist()] for name, column in self._columns().items()}
        return {
            "source": self.origin.text,
            "duration_s": self.origin.duration_s,
            "gaps_s": [list(gap) for gap in self.origin.gaps_s],
            **self._summary(),
            **numbers,
        }

    @abstractmethod
    def _columns(self) -> Mapping[str, NDArray[Any]]:
        """Arrays of equal length by name."""

    @abstractmethod
    def _summary(self) -> dict[str, Any]:
        """Single JSON values by name."""

    @abstractmethod
    def _figure(self, width_in: float) -> "Figure":
        """Drawn under the house style."""


@dataclass(frozen=True, eq=False)
class Rates(Result):
    """Count rates of some channels over time.

    `channels`; `edges_s` (n + 1,) on whole multiples of the bin since the recording's zero; `counts` (channels, n)
    of every recorded tag; `rate_hz` (channels, n), NaN in a bin that the tags do not cover from end to end or that
    touches a gap; `tags` (channels,); `mean_hz` (channels,) of the tags outside gaps over `origin.duration_s`.
    """

    channels: tuple[str, ...]
    edges_s: Floats
    counts: Int64s
    rate_hz: Floats
    tags: Int64s
    mean_hz: Floats

    def _columns(self) -> Mapping[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {"start_s": self.edges_s[:-1]}
        for name, counts, rate_hz in zip(self.channels, self.counts, self.rate_hz, strict=True):
            columns |= {f"{name}_counts": counts, f"{name}_rate_hz": rate_hz}
        return columns

    def _summary(self) -> dict[str, Any]:
        known = [_known(value) for value in self.mean_hz.tolist()]
        return {
            "bin_s": float(self.edges_s[1] - self.edges_s[0]) if self.edges_s.size > 1 else None,
            "tags": dict(zip(self.channels, self.tags.tolist(), strict=True)),
            "mean_hz": dict(zip(self.channels, known, strict=True)),
        }

    def _figure(self, width_in: float) -> "Figure":
        from groundstation.report.exploration import Caption, RateRow, rates_figure

        caption = Caption("Count rates", self.origin.title, self.origin.stamp)
        rows = [RateRow(*row) for row in zip(self.channels, self.rate_hz, self.mean_hz.tolist(), strict=True)]
        return rates_figure(caption, self.edges_s, rows, self.origin.gaps_s, width_in)


@dataclass(frozen=True, eq=False)
class Correlogram(Result):
    """Pairs of two channels by delay t_b - t_a; all pairs within the range count.

    `channels` (a, b); `edges_ps` (n + 1,) int64: bin k holds edges_ps[k] <= delay < edges_ps[k + 1]; `counts` (n,);
    `tags_a`, `tags_b`: how many tags there were.
    """

    channels: tuple[str, str]
    edges_ps: Int64s
    counts: Int64s
    tags_a: int
    tags_b: int

    @property
    def histogram(self) -> DelayHistogram:
        """The counts in the form that the functions of groundstation.core.g2 take."""
        return DelayHistogram(self.counts, int(self.edges_ps[0]), int(self.edges_ps[1] - self.edges_ps[0]))

    @property
    def delay_ps(self) -> Floats:
        """The middle of each bin (n,)."""
        return self.histogram.centres_ps

    def g2(self) -> Floats:
        """The normalised second-order correlation (n,), 1 where the channels are independent; NaN where unknown.

        counts / (tags_a tags_b bin (T - |delay|) / T^2) with T = `origin.duration_s`: for continuous light and steady
        rates (rates that change together raise all of it). Pulsed light: `g2_pulsed`.
        """
        return self._g2()[0]

    def g2_error(self) -> Floats:
        """The standard error of `g2` (n,) from counting alone; that of one count in an empty bin."""
        return self._g2()[1]

    def g2_pulsed(self, period_ps: float, half_peak_ps: float, zero_ps: float = 0.0) -> PulsedG2:
        """The area of each peak in units of the mean side peak; see `groundstation.core.g2.g2_pulsed`.

        Raises BadInput when there is no peak at zero, or no side peak with counts.
        """
        try:
            return g2_pulsed(self.histogram, period_ps, half_peak_ps, zero_ps)
        except ValueError as error:
            raise BadInput(str(error)) from error

    def expected(self) -> float:
        """Pairs per bin near delay 0 if the channels were independent and their rates steady; NaN if unknown."""
        duration_ps = self.origin.duration_s * PS_PER_S
        bin_ps = self.histogram.bin_ps
        return self.tags_a / duration_ps * self.tags_b * bin_ps if duration_ps else float("nan")

    def _g2(self) -> tuple[Floats, Floats]:
        try:
            duration_ps = round(self.origin.duration_s * PS_PER_S)
            found = g2_continuous(self.histogram, self.tags_a, self.tags_b, duration_ps)
        except ValueError:  # no tags, or delays as long as the recording: nothing to compare with
            unknown = np.full(self.counts.size, np.nan)
            return unknown, unknown
        return found.value, found.standard_error

    def extreme(self) -> Extreme:
        """The bin that stands out most from the others, up or down."""
        return most_extreme(self.counts)

    def _columns(self) -> Mapping[str, NDArray[Any]]:
        return {"delay_ps": self.delay_ps, "counts": self.counts, "g2": self.g2(), "g2_error": self.g2_error()}

    def _summary(self) -> dict[str, Any]:
        return {
            "channels": list(self.channels),
            "tags": [self.tags_a, self.tags_b],
            "pairs": int(self.counts.sum()),
            "bin_ps": self.histogram.bin_ps,
            **_extreme_summary(self.extreme(), self.delay_ps, "delay_ps"),
        }

    def _figure(self, width_in: float) -> "Figure":
        from groundstation.report.exploration import Caption, Level, correlation_figure

        a, b = self.channels
        caption = Caption(f"Delays from {a} to {b}", self.origin.title, self.origin.stamp)
        found = self.extreme()
        remark = f"{found.words} at {self.delay_ps[found.bin] / 1e3:+.6g} ns" if found.stands_out else ""
        remark = remark if found.alone else "several peaks"
        level = Level(self.expected(), "if independent", is_g2_of_one=True)
        return correlation_figure(caption, self.edges_ps / 1e3, self.counts, level, remark, width_in)


@dataclass(frozen=True, eq=False)
class TagHistogram(Result):
    """Tags of one channel by a time of theirs.

    `kind`: "phase" within a period, time since the last "sync", or "intervals" since the click before, in words in
    `axis`; `edges_ps` (n + 1,) float64; `counts` (n,); `outside`: tags that are in no bin (later than the last edge, or
    before the first sync or click); `shortest_ps`: the smallest time of all, None without tags.
    """

    channel: str
    kind: Kind
    axis: str
    edges_ps: Floats
    counts: Int64s
    outside: int
    shortest_ps: float | None

    @property
    def centre_ps(self) -> Floats:
        """The middle of each bin (n,)."""
        return (self.edges_ps[:-1] + self.edges_ps[1:]) / 2

    def extreme(self) -> Extreme:
        """The bin that stands out most from the others, up or down."""
        return most_extreme(self.counts)

    def _columns(self) -> Mapping[str, NDArray[Any]]:
        return {"start_ps": self.edges_ps[:-1], "stop_ps": self.edges_ps[1:], "counts": self.counts}

    def _summary(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "kind": self.kind,
            "axis": self.axis,
            "tags": int(self.counts.sum()),
            "outside": self.outside,
            "shortest_ps": self.shortest_ps,
            **_extreme_summary(self.extreme(), self.centre_ps, "centre_ps"),
        }

    def _figure(self, width_in: float) -> "Figure":
        from groundstation.report.exploration import Caption, histogram_figure

        caption = Caption(
            f"Arrivals of {self.channel}" if self.kind != "intervals" else f"Intervals of {self.channel}",
            self.origin.title,
            self.origin.stamp,
        )
        return histogram_figure(
            caption, self.edges_ps / 1e3, self.counts, self.axis, self.kind == "intervals", width_in
        )


@dataclass(frozen=True)
class TwoFold:
    """Tags of the first of two `channels` with a tag of the second within the window, and how many of them chance
    explains, with its standard error."""

    channels: tuple[str, str]
    count: int
    accidentals: float
    accidentals_error: float

    @property
    def car(self) -> float:
        """(count - accidentals) / accidentals; NaN with neither."""
        return _car(self.count, self.accidentals)


@dataclass(frozen=True, eq=False)
class Coincidences(Result):
    """Tags of a channel that come together with tags of others: |t_b - t_a| <= half_window_ps for each other one.

    `channels`, the first being the reference, whose tags count, each once; `veto`: channels without a tag in the
    window; `tags` (channels,) int64; `time_ps` (n,) int64 of the tags that count; `accidentals`: how many there would
    be if no channel had to do with another, and its standard error; `one_random` (channels,): how many if only this
    channel had nothing to do with the rest, which is what to subtract when two belong together and one more came by
    chance; `twofold`: each two of the channels, vetoed ones too. All of chance is counted in windows shifted by delays
    at which nothing true can be.
    """

    channels: tuple[str, ...]
    veto: tuple[str, ...]
    half_window_ps: int
    tags: Int64s
    time_ps: Int64s
    accidentals: float
    accidentals_error: float
    one_random: tuple[float, ...]
    twofold: tuple[TwoFold, ...]

    @property
    def count(self) -> int:
        """How many coincidences there are."""
        return self.time_ps.size

    @property
    def rate_hz(self) -> float:
        """Coincidences per second of usable time; NaN without any."""
        return self.count / self.origin.duration_s if self.origin.duration_s else float("nan")

    @property
    def car(self) -> float:
        """Coincidences to accidentals, (count - accidentals) / accidentals; infinite without accidentals, NaN with
        neither."""
        return _car(self.count, self.accidentals)

    @property
    def name(self) -> str:
        """The channels in words."""
        return " and ".join(self.channels) + (f" without {' or '.join(self.veto)}" if self.veto else "")

    def _columns(self) -> Mapping[str, NDArray[Any]]:
        return {"time_ps": self.time_ps}

    def _summary(self) -> dict[str, Any]:
        summary = {
            "channels": list(self.channels),
            "veto": list(self.veto),
            "tags": self.tags.tolist(),
            "half_window_ps": self.half_window_ps,
            "count": self.count,
            "rate_hz": _known(self.rate_hz),
            "accidentals": self.accidentals,
            "accidentals_error": self.accidentals_error,
            "car": _known(self.car),
        }
        if self.one_random:
            summary["one_random"] = list(self.one_random)
        if self.twofold:
            summary["twofold"] = [{**asdict(row), "car": _known(row.car)} for row in self.twofold]
        return summary

    def _figure(self, width_in: float) -> "Figure":
        from groundstation.report.exploration import Bar, Caption, coincidences_figure

        whole = TwoFold(("", ""), self.count, self.accidentals, self.accidentals_error)
        short = ", ".join(self.channels) + (f" without {', '.join(self.veto)}" if self.veto else "")
        named = [(short, whole), *((", ".join(row.channels), row) for row in self.twofold)]
        bars = [Bar(name, row.count, row.accidentals, row.accidentals_error) for name, row in named]
        title = f"Coincidences within ±{time_text(self.half_window_ps)}"
        caption = Caption(title, self.origin.title, self.origin.stamp)
        return coincidences_figure(caption, bars, width_in)


@dataclass(frozen=True, eq=False)
class Pairs(Coincidences):
    """Coincidences of just two channels, pair by pair: every pair counts that `which` gives.

    `which`: all, nearest or one_to_one, as defined in docs/tags.md; `time_ps` (n,) int64 of the tag of a, and
    `delay_ps` (n,) int64 t_b - t_a, of each pair; `accidentals`: the mean number of all pairs in shifted windows.
    `one_random` and `twofold` have nothing to add.
    """

    which: str
    delay_ps: Int64s

    @property
    def tags_a(self) -> int:
        """Tags of the first channel."""
        return int(self.tags[0])

    @property
    def tags_b(self) -> int:
        """Tags of the second channel."""
        return int(self.tags[1])

    def _columns(self) -> Mapping[str, NDArray[Any]]:
        return {"time_ps": self.time_ps, "delay_ps": self.delay_ps}

    def _summary(self) -> dict[str, Any]:
        return {**super()._summary(), "which": self.which}

    def _figure(self, width_in: float) -> "Figure":
        from groundstation.report.exploration import Caption, Level, correlation_figure

        a, b = self.channels
        whole_ps = 2 * self.half_window_ps + 1
        bin_ps = -(-whole_ps // 100)
        edges_ps = np.arange(-(-whole_ps // bin_ps) + 1) * bin_ps - self.half_window_ps
        counts = np.bincount((self.delay_ps + self.half_window_ps) // bin_ps, minlength=edges_ps.size - 1)
        caption = Caption(f"Coincidences of {a} and {b}", self.origin.title, self.origin.stamp)
        level = Level(self.accidentals * bin_ps / whole_ps, "accidentals")
        return correlation_figure(caption, edges_ps / 1e3, counts, level, f"{self.count:,} pairs", width_in)


def _car(count: int, accidentals: float) -> float:
    if accidentals:
        return (count - accidentals) / accidentals
    return float("inf") if count else float("nan")


def _extreme_summary(found: Extreme, places_ps: Floats, name: str) -> dict[str, Any]:
    return {
        "extreme": {
            name: float(places_ps[found.bin]),
            "counts": found.counts,
            "background": _known(found.background),
            "stands_out": found.stands_out,
            "alone": found.alone,
        }
    }


def _known(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _text(value: object) -> str:
    return "" if _known(value) is None else repr(value) if isinstance(value, float) else str(value)
