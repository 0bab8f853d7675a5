"""Numbers as people give them, made whole picoseconds and whole bins, or refused in one sentence."""

from fractions import Fraction

from groundstation.errors import BadInput

PS_PER_S = 10**12
PS_PER_NS = 1_000
#: Bins of one histogram or rate series: 80 MB.
MOST_BINS = 10_000_000
_LONGEST_PS = 1 << 56
_BEYOND_PS = (1 << 63) - 1


def limits(start_s: float | None, stop_s: float | None) -> tuple[int | None, int | None]:
    """A range of time in ps; None is no limit. Raises BadInput for an empty one."""
    start_ps, stop_ps = (None if limit_s is None else _time_ps(limit_s) for limit_s in (start_s, stop_s))
    if start_ps is not None and stop_ps is not None and stop_ps <= start_ps:
        raise BadInput(f"the range from {start_s:g} s to {stop_s:g} s is empty; stop must be after start")
    return start_ps, stop_ps


def _time_ps(time_s: float) -> int:
    """The nearest picosecond; times that no tag can have are all alike."""
    return max(-_BEYOND_PS, min(_BEYOND_PS, round(fraction(time_s, "start_s or stop_s") * PS_PER_S)))


def period_ps(value: float | Fraction) -> Fraction:
    """A period, not always of whole picoseconds. Raises BadInput below 1 ps and above 2^56 ps (20 hours)."""
    period = fraction(value, "period_ps")
    if not 1 <= period <= _LONGEST_PS:
        raise BadInput(f"period_ps is {str(value)[:30]}; give 1 to 2^56 picoseconds")
    return period


def whole_ps(value: float, unit_ps: int, name: str, least: int = 1) -> int:
    """A length in whole picoseconds. Raises BadInput when it is none."""
    exact = fraction(value, name) * unit_ps
    if exact.denominator != 1 or not least <= exact <= _LONGEST_PS:
        raise BadInput(f"{name} is {value:g}; give a whole number of picoseconds, {least} to 2^56")
    return int(exact)


def whole_bins(range_ps: int, bin_ps: int) -> int:
    """The range, when it is a whole number of bins. Raises BadInput naming the nearest ones that are."""
    if range_ps % bin_ps:
        below, above = range_ps // bin_ps * bin_ps, (range_ps // bin_ps + 1) * bin_ps
        raise BadInput(
            f"a range of {range_ps / 1000:g} ns is no whole number of bins of {bin_ps:,} ps; "
            f"take {below / 1000:g} or {above / 1000:g} ns"
        )
    check_number(range_ps // bin_ps)
    return range_ps


def check_number(bins: int) -> None:
    """Raise BadInput for more bins than anybody can want."""
    if bins > MOST_BINS // 2:
        raise BadInput(f"{bins:,} bins are more than {MOST_BINS // 2:,}; take wider bins or a shorter range")


def fraction(value: float | Fraction, name: str) -> Fraction:
    """The number that was written, not its binary neighbour. Raises BadInput for what is no number."""
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise BadInput(f"{name} is {str(value)[:30]}, which is no number") from error


def time_text(time_ps: float) -> str:
    """A time with four digits in its natural unit."""
    for unit_ps, unit in ((1e12, "s"), (1e9, "ms"), (1e6, "µs"), (1e3, "ns")):
        if abs(time_ps) >= unit_ps:
            return f"{time_ps / unit_ps:.4g} {unit}"
    return f"{time_ps:.4g} ps"
