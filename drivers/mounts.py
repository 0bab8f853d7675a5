"""What the drivers of mounts share: where one can be sent, of which moment a reading is, and a stop that tries all."""

import math
from collections.abc import Callable

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, GroundStationError
from groundstation.instruments import MountReading


def require_direction(azimuth_deg: float, elevation_deg: float) -> None:
    """BadInput unless it is a direction above or below the horizon."""
    if not (math.isfinite(azimuth_deg) and -90.0 <= elevation_deg <= 90.0):
        raise BadInput(
            f"the mount cannot go to azimuth {azimuth_deg} deg, elevation {elevation_deg} deg; "
            "give an azimuth in degrees and an elevation of -90 to 90 deg"
        )


def reading_between(
    azimuth_deg: float, elevation_deg: float, sent_ns: int, received_ns: int, there_ns: int = 0, back_ns: int = 0
) -> MountReading:
    """A position of some moment between question and answer, half of that being its uncertainty.

    `there_ns`, `back_ns`: what the question and the answer take on a serial line. The mount reads its encoders after
    the question's last byte has arrived and before the answer's first one leaves, so they narrow the moment down.
    """
    if received_ns - sent_ns >= there_ns + back_ns:  # else the line is faster than the settings say
        sent_ns, received_ns = sent_ns + there_ns, received_ns - back_ns
    half_ns = (received_ns - sent_ns) // 2
    return MountReading(azimuth_deg, elevation_deg, sent_ns + half_ns, half_ns / NS_PER_S)


def try_all(*commands: Callable[[], object]) -> None:
    """Each of them, whatever the others raise; then the first error is raised."""
    errors: list[GroundStationError] = []
    for command in commands:
        try:
            command()
        except GroundStationError as error:
            errors.append(error)
    if errors:
        raise errors[0]
