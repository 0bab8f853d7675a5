"""What PWI4, PlaneWave's program for its mounts, says and is told, without any I/O.

The status is a line `key=value` each; keys come and go with the version, so what is missing is unknown (None) and never
zero. Sources: PlaneWave's `pwi4_client.py`; INDI `planewave_mount.cpp`.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from drivers.transport import HttpReply
from groundstation.clock import NS_PER_S
from groundstation.errors import InstrumentFault, WireError

Status = Mapping[str, str]
"""What PWI4 says, by key; all values are text."""

_NS_PER_DAY = 86_400 * NS_PER_S
_JD_1970_HALF_DAYS = 2 * 2_440_587 + 1  # 2440587.5
_SHOWN = 200  # characters of what PWI4 sent, in our sentences


def parse_reply(reply: HttpReply) -> Status:
    """The status that every command answers with.

    Raises InstrumentFault when PWI4 refuses (400) or fails (500), WireError when it does not know the command (404)
    or the answer is no status.
    """
    said = reply.body.decode("utf-8", "replace").strip()[:_SHOWN]
    if reply.status == 400:
        raise InstrumentFault(f'PWI4 refused the parameters of the command (HTTP 400): "{said}"')
    if reply.status >= 500:
        raise InstrumentFault(f'PWI4 failed (HTTP {reply.status}): "{said}"; see its own log')
    if reply.status == 404:
        raise WireError(f'PWI4 does not know the command (HTTP 404): "{said}"; check its version and the address')
    if reply.status != 200:
        raise WireError(f'the answer has HTTP status {reply.status}: "{said}"; check that PWI4 listens there')
    return parse_status(reply.body)


def parse_status(body: bytes) -> Status:
    """`key=value` lines. Raises WireError when there is none, or text that is no such line."""
    try:
        lines = [line.strip() for line in body.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise WireError(f"the answer {body[:40]!r} is no status of PWI4; check the address") from error
    pairs = [line.partition("=") for line in lines if line]
    if not pairs or not all(equals and "." in key for key, equals, _ in pairs):
        raise WireError(f"the answer {body[:40]!r} is no status of PWI4; check the address")
    return {key.strip(): value.strip() for key, _, value in pairs}


def number(status: Status, key: str) -> float | None:
    """A finite number, None when the key is missing. Raises WireError for anything else."""
    if (text := status.get(key)) is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise WireError(f"PWI4 answered {key}={text[:40]} where a number was expected")
    return value


def flag(status: Status, key: str) -> bool | None:
    """`true` or `false`, None when the key is missing. Raises WireError for anything else."""
    text = status.get(key)
    if text is not None and text.lower() not in ("true", "false"):
        raise WireError(f"PWI4 answered {key}={text[:40]} where true or false was expected")
    return None if text is None else text.lower() == "true"


def parse_position(status: Status) -> tuple[float, float]:
    """Azimuth 0 to 360 deg and altitude of the mount. Raises WireError when either is missing or no angle."""
    azimuth_deg, altitude_deg = number(status, "mount.azimuth_degs"), number(status, "mount.altitude_degs")
    if azimuth_deg is None or altitude_deg is None:
        raise WireError("PWI4 answered without mount.azimuth_degs and mount.altitude_degs; there is no position")
    if not (-360.0 <= azimuth_deg <= 720.0 and -180.0 <= altitude_deg <= 180.0):
        raise WireError(f"PWI4 answered azimuth {azimuth_deg} deg, altitude {altitude_deg} deg, which is no position")
    return azimuth_deg % 360.0, altitude_deg


def parse_timestamp(text: str) -> tuple[int, int]:
    """`2026-01-01 00:00:00.123` as UTC nanoseconds and the size of its last digit in ns. Raises WireError."""
    whole, _, fraction = text.partition(".")
    try:
        moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        digits = len(fraction)
        if digits and not (fraction.isascii() and fraction.isdecimal() and digits <= 12):
            raise ValueError(fraction)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except ValueError as error:
        raise WireError(f"PWI4 answered the time {text[:40]!r}, expected 2026-01-01 00:00:00.123") from error
    fraction_ns = int(fraction.ljust(9, "0")[:9]) if fraction else 0
    return (since.days * 86_400 + since.seconds) * NS_PER_S + fraction_ns, max(1, NS_PER_S // 10**digits)


def julian_date(utc_ns: int) -> str:
    """With ten decimals (9 microseconds), which a floating-point number would not hold."""
    days, rest_ns = divmod(utc_ns + _JD_1970_HALF_DAYS * (_NS_PER_DAY // 2), _NS_PER_DAY)
    tenths = (rest_ns * 10**10 + _NS_PER_DAY // 2) // _NS_PER_DAY
    return f"{days + tenths // 10**10}.{tenths % 10**10:010d}"


def path_points(utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]) -> str:
    """The lines `jd,azimuth,altitude` of `custom_path/add_point_list`; azimuth 0 to 360."""
    points = zip(utc_ns.tolist(), (azimuth_deg % 360.0).tolist(), elevation_deg.tolist(), strict=True)
    return "\n".join(f"{julian_date(t)},{azimuth:.7f},{elevation:.7f}" for t, azimuth, elevation in points)
