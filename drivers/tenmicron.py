"""The words of 10Micron mounts: bytes to meaning and back, no I/O; `mount_10micron` speaks them.

A command is `:NAME...#`; what answers it is nothing, one character without `#`, or text up to `#`, by its name.
Sources: INDI `lx200_10micron.cpp`, which quotes the vendor's text; MountWizzard4 `connection.py`, `satellite.py`,
`obsSite.py`; mikefsq/lx200 `tenmicron` (units and limits of `:TR`).
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, InstrumentFault, WireError

END = b"#"
IDENTITY, FIRMWARE, INFO = "GVP", "GVN", "Ginfo"

_SILENT = frozenset(("AP", "Me", "Mn", "Ms", "Mw", "PO", "Q", "Qe", "Qn", "Qs", "Qw", "RM", "RS", "SDAr", "STOP", "hP"))
_SILENT |= {"RT0", "RT1", "RT2", "RT9", "U2"}
_SILENT_WITH_VALUE = ("RC", "Rc", "RG", "Suaf")
_CHARACTER = (
    *("CM", "CMCFG", "FLIP", "shutdown", "GREF", "Guaf", "MA", "RMs", "SREF", "SRPRS", "Sa", "Sev", "Sr", "SUDT"),
    *("SRTMP", "Slmt", "Slms", "St", "Sg", "Sw", "Sz", "Sdat", "Gdat", "Sstm", "GTsid", "So", "Sh", "Sd", "MSap"),
    *("MSao", "MS", "WSS", "SWOL"),
)
SLEWS = ("MS", "MA", "MSap", "MSao", "MaX")  # `0`, or a digit and a message up to `#`
_INFO = re.compile(
    r"\d{2,3}\.\d{5},[+-]\d\d\.\d{4},[EW],(\d{3}\.\d{4}),([+-]\d\d\.\d{4}),(\d{7}\.\d{8}L?),(\d{1,2}),([01])(?:,.*)?"
)
_JULIAN_DATE = re.compile(r"(\d{7})\.(\d{8})(L?)")
LONGEST_TRAJECTORY = 900  # points, one a second
LARGEST_OFFSET_ARCSEC, LARGEST_OFFSET_MS = 1800.0, 1000.0
TIME_OFFSET, AXIS_1, AXIS_2 = 4, 1, 2
_STEPS_1970 = 244_058_750_000_000  # the Julian date 2440587.5 in its last digit
STEP_NS = 864_000  # that digit: 1e-8 day

STATES: Mapping[int, str] = MappingProxyType(
    {
        0: "tracking",
        1: "stopped",
        2: "slewing to park",
        3: "unparking",
        4: "slewing home",
        5: "parked",
        6: "slewing or coming to rest",
        7: "not tracking",
        8: "motors too cold",
        9: "tracking outside its limits",
        10: "following a satellite",
        11: "waiting for the user's OK",
        98: "in an unknown state",
        99: "in error",
    }
)
PARKED = 5
SLEWING = frozenset((2, 3, 4, 6))
MOVING = SLEWING | {0, 9, 10}
"""States in which the mount slews, comes to rest or follows the sky."""
TROUBLE: Mapping[int, str] = MappingProxyType(
    {
        8: "its motors are too cold to move; wait until its heaters have warmed them",
        11: "it waits for a user's OK; confirm it on the hand control",
        99: "it reports an error; read it on the hand control",
    }
)
SLEW_ANSWERS: Mapping[str, str] = MappingProxyType(
    {
        "F": "the slew failed, the mount is parked or blocked",
        "Q": "the pass is over",
        "E": "no pass was computed; load it again",
    }
)

ReplyClass = Literal["none", "character", "text"]


class Info(NamedTuple):
    """What `:Ginfo#` says; `utc_ns` by the mount's own clock, `leap`: a leap second runs just now."""

    azimuth_deg: float
    elevation_deg: float
    utc_ns: int
    leap: bool
    state: int
    slewing: bool


class Pass(NamedTuple):
    """What the mount computed of a path: from when to when it can follow it, and whether it turns over meanwhile."""

    start_utc_ns: int
    end_utc_ns: int
    flips: bool


def reply_class(command: str) -> ReplyClass:
    """How the command (without `:` and `#`) is answered."""
    if command in _SILENT or command.startswith(_SILENT_WITH_VALUE):
        return "none"
    return "character" if command.startswith(_CHARACTER) else "text"


def julian_date(utc_ns: int) -> str:
    """The UTC Julian date to 1e-8 day (0.864 ms), rounded to nearest, in whole numbers throughout."""
    steps = (utc_ns + STEP_NS // 2) // STEP_NS + _STEPS_1970
    return f"{steps // 10**8}.{steps % 10**8:08d}"


def parse_julian_date(text: str) -> tuple[int, bool]:
    """UTC in ns and the leap-second flag of `2457204.49998843` or `2457204.50000579L`. Raises WireError."""
    found = _JULIAN_DATE.fullmatch(text)
    if not found:
        raise WireError(f'the mount gave the Julian date "{text[:40]}", expected one like 2457204.49998843')
    return (int(found[1]) * 10**8 + int(found[2]) - _STEPS_1970) * STEP_NS, bool(found[3])


def parse_info(text: str) -> Info:
    """`RA,DEC,side,AZ,ALT,JD,state,slewing` and whatever later firmware appends. Raises WireError.

    The number of digits is documented and checked: else a lost digit would turn into another direction.
    """
    found = _INFO.fullmatch(text)
    azimuth_deg, elevation_deg = (float(found[1]), float(found[2])) if found else (math.nan, math.nan)
    if not found or azimuth_deg > 360.0 or abs(elevation_deg) > 90.0 or int(found[4]) not in STATES:
        raise WireError(
            f'the mount answered "{text[:80]}" to :Ginfo#, expected a line like '
            "19.44591,+88.0032,W,002.9803,+48.0032,2458352.10403639,5,0"
        )
    return Info(azimuth_deg % 360.0, elevation_deg, *parse_julian_date(found[3]), int(found[4]), found[5] == "1")


def parse_pass(text: str) -> Pass:
    """`JDstart,JDend,flags`. Raises WireError; InstrumentFault for `E` and `N`."""
    if text in ("E", "N"):
        raise InstrumentFault(
            "the mount finds no pass in what was loaded: it may be over, below the horizon or beyond its limits"
        )
    fields = text.split(",")
    if len(fields) != 3 or fields[2] not in ("", "F"):
        raise WireError(f'the mount answered "{text[:80]}", expected JDstart,JDend,flags')
    start, end = (parse_julian_date(field)[0] for field in fields[:2])
    return Pass(start, end, fields[2] == "F")


def parse_accepted(text: str) -> None:
    """`V` or `E`. Raises InstrumentFault, WireError."""
    if text == "E":
        raise InstrumentFault("the mount refused it")
    if text != "V":
        raise WireError(f'the mount answered "{text[:40]}", expected V or E')


def target_azimuth(azimuth_deg: float) -> str:
    """`Sz` with degrees, minutes and seconds to a tenth."""
    return f"Sz{_sexagesimal(round(azimuth_deg % 360.0 * 36_000) % (360 * 36_000), 3)}"


def target_elevation(elevation_deg: float) -> str:
    """`Sa` with sign, degrees, minutes and seconds to a tenth."""
    return f"Sa{'-' if elevation_deg < 0.0 else '+'}{_sexagesimal(round(abs(elevation_deg) * 36_000), 2)}"


def element_set(name: str, line1: str, line2: str) -> str:
    """`TLEL0` with the three lines, escaped. Raises BadInput for lines that are none of an element set."""
    for number, line in (("1", line1), ("2", line2)):
        if len(line) != 69 or line[:2] != f"{number} " or not line.isascii():
            raise BadInput(f'line {number} of the element set "{name}" is {line!r}; it must have 69 characters')
    if not (name.isascii() and name.isprintable()):
        raise BadInput(f"the satellite's name {name!r} must be plain ASCII")
    return "TLEL0" + "$0a".join(line.replace("$", "$24").replace("#", "$23") for line in (name, line1, line2))


def offset_command(number: int, value: float) -> str:
    """`TROFFSET` of axis 1 or 2 in arcseconds, of time (4) in milliseconds."""
    return f"TROFFSET{number},{value:+07.1f}"


def _sexagesimal(tenths: int, digits: int) -> str:
    degrees, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    return f"{degrees:0{digits}d}*{minutes:02d}:{rest // 10:02d}.{rest % 10}"


def resampled(
    utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]
) -> tuple[int, list[str]]:
    """The mount's start, on its grid of 0.864 ms, and `az,alt` at every second from there; by cubic splines.

    Raises BadInput for a path that is none, too short or too long.
    """
    seconds = (np.asarray(utc_ns, dtype=np.int64) - utc_ns[0]) / NS_PER_S if len(utc_ns) else np.empty(0)
    angles = np.stack((np.asarray(azimuth_deg, np.float64), np.asarray(elevation_deg, np.float64)), axis=1)
    if len(seconds) < 2 or len(seconds) != len(angles) or not (np.diff(seconds) > 0.0).all():
        raise BadInput("a trajectory needs two or more points, each later than the one before")
    if not (np.isfinite(angles).all() and (np.abs(angles[:, 1]) <= 90.0).all()):
        raise BadInput("a trajectory needs finite azimuths, and elevations of -90 to 90 deg")
    start_ns = -(-int(utc_ns[0]) // STEP_NS) * STEP_NS
    count = (int(utc_ns[-1]) - start_ns) // NS_PER_S + 1
    if not 2 <= count <= LONGEST_TRAJECTORY:
        raise BadInput(f"the mount follows 2 to {LONGEST_TRAJECTORY} s of a path, not {seconds[-1]:.0f} s; cut it")
    at = (start_ns - int(utc_ns[0])) / NS_PER_S + np.arange(count)
    path = CubicSpline(seconds, angles)(at)
    return start_ns, [f"{azimuth % 360.0:.5f},{elevation:.5f}" for azimuth, elevation in path.tolist()]


def parse_text(reply: bytes) -> str:
    try:
        return reply.removesuffix(END).decode("ascii")
    except UnicodeDecodeError as error:
        raise WireError(f"the mount answered {reply[:40]!r}, which is no text; check the line's speed") from error


def parse_flag(reply: str) -> str:
    if reply not in ("0", "1"):
        raise WireError(f'the mount answered "{reply}", expected 0 or 1')
    return reply
