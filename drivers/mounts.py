"""What the drivers of mounts share: where one can be sent, of which moment a reading is, whether a
rotator is on its way, and a stop that tries all."""

import math
from collections.abc import Callable

from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput, GroundStationError, InstrumentFault
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


class Way:
    """The way of a rotator that tells where it is, but neither whether it moves nor whether it has arrived."""

    def __init__(
        self, address: str, still_deg: float, tolerance_deg: float, rests_after_s: float, gives_up_after_s: float
    ) -> None:
        """Two readings within `still_deg` are the same place. After `rests_after_s` (world time) without motion it
        has arrived if it is within `tolerance_deg` of its target; after `gives_up_after_s` elsewhere it has failed."""
        self._address, self._still_deg, self._tolerance_deg = address, still_deg, tolerance_deg
        self._rests_after_ns, self._gives_up_after_ns = rests_after_s * NS_PER_S, gives_up_after_s * NS_PER_S
        self._target: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None
        self._moved_ns = 0

    def begin(self, azimuth_deg: float, elevation_deg: float, utc_ns: int) -> None:
        """It is sent there now."""
        self._target, self._last, self._moved_ns = (azimuth_deg, elevation_deg), None, utc_ns

    def end(self) -> None:
        """It has no target any more."""
        self._target = None

    def goes_on(self, read_position: Callable[[], MountReading]) -> bool:
        """Whether it is still on its way. InstrumentFault when it rests elsewhere; then it has no target any more."""
        if self._target is None:
            return False
        reading = read_position()
        here = reading.azimuth_deg, reading.elevation_deg
        if self._last is None or _distance_deg(here, self._last) > self._still_deg:
            self._last, self._moved_ns = here, reading.utc_ns
        still_ns, wanted = reading.utc_ns - self._moved_ns, self._target
        near = _distance_deg(here, wanted) <= self._tolerance_deg
        if still_ns <= (self._rests_after_ns if near else self._gives_up_after_ns):
            return True
        self.end()
        if near:
            return False
        raise InstrumentFault(
            f"the rotator at {self._address} rests at azimuth {here[0]:g} deg, elevation {here[1]:g} deg, but was sent "
            f"to {wanted[0]:g}, {wanted[1]:g}; check its limits and its power"
        )


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


def _distance_deg(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The larger of both axes' angles; a rotator may answer with an azimuth of another turn."""
    return max(abs((a[0] - b[0] + 180.0) % 360.0 - 180.0), abs(a[1] - b[1]))
