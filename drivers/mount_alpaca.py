"""Any altitude-azimuth mount behind ASCOM Alpaca (HTTP): it follows by `MoveAxis`, within its own `AxisRates`.

The primary axis is azimuth, the secondary elevation, rates in deg/s. Mounts on an equatorial axis (`AlignmentMode`)
are refused: their axes are not ours. Sources: ASCOM Alpaca Device API v1, ASCOM Telescope interface (MoveAxis,
AxisRates, Slewing, AbortSlew).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drivers.alpaca import PARKED, AlpacaDevice, AlpacaFault, as_boolean, as_integer, as_number
from drivers.mounts import require_direction
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import open_http
from groundstation.clock import NS_PER_S, Clock
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Mount, MountCapabilities, MountReading, Settings

DRIVER = DriverDescription(
    instrument="any alt-azimuth mount behind ASCOM Alpaca",
    capability="mount",
    schemes=("http",),
    documentation="ASCOM Alpaca Device API v1, complete for what a mount needs; how fast a mount takes a new rate and "
    "how fine its rates are is not part of it and stands in the settings",
    tested_with="alpyca 3.1.3 (client of the simulator)",
)

# --- Protocol: JSON values to meaning --------------------------------------------------------------------

AXES = ("0", "1")  # azimuth, elevation
ALT_AZIMUTH = 0  # AlignmentMode; 1 polar, 2 German polar
_ROUNDING = 1e-9


class RateRange(NamedTuple):
    """Rates of an axis, in both directions (deg/s)."""

    minimum_deg_s: float
    maximum_deg_s: float


def parse_axis_rates(value: object) -> tuple[RateRange, ...]:
    """`[{"Maximum": 6.0, "Minimum": 0.0}]`, in ascending order. Raises WireError."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise WireError(f"the mount answered {value!r} where a list of axis rates was expected")
    ranges = sorted(RateRange(as_number(e.get("Minimum")), as_number(e.get("Maximum"))) for e in value)
    if any(not 0.0 <= low <= high for low, high in ranges):
        raise WireError(f"the mount answered {value!r}; axis rates must not be negative nor upside down")
    return tuple(ranges)


def allowed(rate_deg_s: float, ranges: Sequence[RateRange]) -> bool:
    """Whether an axis takes this rate; every axis takes 0."""
    size = abs(rate_deg_s)
    return size == 0.0 or any(r.minimum_deg_s - _ROUNDING <= size <= r.maximum_deg_s + _ROUNDING for r in ranges)


def follows_by_rates(ranges: Sequence[RateRange]) -> bool:
    """Whether an axis takes any rate up to a limit: a mount with some fixed rates only cannot follow."""
    return any(r.maximum_deg_s > r.minimum_deg_s for r in ranges)


# --- Driver ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlpacaMountSettings(LinkSettings):
    """Settings of the station file; what Alpaca does not tell of a mount stands here."""

    device_number: int = 0
    client_id: int = 1
    max_acceleration_deg_s2: float = 5.0
    rate_quantum_arcsec_s: float = 0.1
    command_latency_s: float = 0.05


class AlpacaMount:
    """A mount behind Alpaca: a `Mount`. All calls may raise TransportTimeout, TransportLost, WireError and
    InstrumentFault (the device refused, and said why)."""

    def __init__(self, device: AlpacaDevice, clock: Clock, settings: AlpacaMountSettings) -> None:
        """Completes the identification. Raises WrongInstrument for an equatorial mount."""
        self._device, self._clock = device, clock
        self.identify()
        moves = [device.get("canmoveaxis", as_boolean, Axis=axis) for axis in AXES]
        self._ranges = [
            device.get("axisrates", parse_axis_rates, Axis=axis) if can else ()
            for axis, can in zip(AXES, moves, strict=True)
        ]
        by_rates = all(follows_by_rates(ranges) for ranges in self._ranges)
        fastest = [max((r.maximum_deg_s for r in ranges), default=0.0) for ranges in self._ranges]
        self._slews = device.get("canslewaltazasync", as_boolean)
        self._can_stop_tracking = device.get("cansettracking", as_boolean)
        self._turning = False
        self._ready = False
        self._capabilities = MountCapabilities(
            max_rate_deg_s=min(fastest),
            max_acceleration_deg_s2=settings.max_acceleration_deg_s2,
            rate_quantum_arcsec_s=settings.rate_quantum_arcsec_s,
            command_latency_s=settings.command_latency_s,
            follows="rates" if by_rates else "positions" if self._slews else "nothing",
        )

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    def identify(self) -> Identity:
        """Name and driver version. Raises WrongInstrument for another device or an equatorial mount."""
        found = self._device.connect()
        mode = self._device.get("alignmentmode", as_integer)
        if mode != ALT_AZIMUTH:
            kind = {1: "an equatorial (polar)", 2: "a German equatorial"}.get(mode, f"an unknown ({mode})")
            raise WrongInstrument(
                f"{found.model} at {self._device.address} is {kind} mount; this station needs an altitude-azimuth one"
            )
        return found

    def read_position(self) -> MountReading:
        """Both angles. They are two questions, so azimuth is asked before and after elevation and taken for the
        moment between; the uncertainty is half the longest of the three."""
        before, early_ns, first_s = self._angle("azimuth")
        elevation_deg, utc_ns, middle_s = self._angle("altitude")
        after, late_ns, last_s = self._angle("azimuth")
        part = (utc_ns - early_ns) / (late_ns - early_ns) if late_ns > early_ns else 0.5
        azimuth_deg = (before + part * ((after - before + 180.0) % 360.0 - 180.0)) % 360.0
        return MountReading(azimuth_deg, elevation_deg, utc_ns, max(first_s, middle_s, last_s) / 2)

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Turn at these rates for ever. Never repeated by itself. Raises BadInput for a rate that is not in the
        mount's own list, InstrumentFault when the mount has no free rates."""
        if self._capabilities.follows != "rates":
            raise InstrumentFault(f"the mount at {self._device.address} cannot turn at any rate; send it positions")
        rates = (azimuth_arcsec_s / 3600.0, elevation_arcsec_s / 3600.0)
        for rate, ranges, name in zip(rates, self._ranges, ("azimuth", "elevation"), strict=True):
            if not (math.isfinite(rate) and allowed(rate, ranges)):
                taken = ", ".join(f"{low:g} to {high:g}" for low, high in ranges)
                raise BadInput(f"the mount takes {name} rates of {taken} deg/s, not {rate:g}; nothing was commanded")
        self._get_ready()
        self._turning = True
        for axis, rate in zip(AXES, rates, strict=True):
            self._device.put("moveaxis", Axis=axis, Rate=_decimal(rate))

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start a slew; not repeated by itself. BadInput beyond -90..90 deg elevation."""
        require_direction(azimuth_deg, elevation_deg)
        if not self._slews:
            raise InstrumentFault(f"the mount at {self._device.address} cannot slew to azimuth and elevation")
        self._get_ready()
        if self._turning:
            self._rest()
        azimuth = _decimal(azimuth_deg % 360.0)
        self._device.put("slewtoaltazasync", Azimuth=azimuth, Altitude=_decimal(elevation_deg))

    def is_slewing(self) -> bool:
        """Whether a go-to is under way. Alpaca says the same of a turning axis; then it is none."""
        return self._device.get("slewing", as_boolean) and not self._turning

    def stop(self) -> None:
        """Abort the slew, rate zero on both axes, tracking off; tries all before it raises."""
        errors: list[GroundStationError] = []
        commands: list[tuple[str, dict[str, str]]] = [("abortslew", {})] if self._slews else []
        commands += [("moveaxis", {"Axis": axis, "Rate": "0"}) for axis, r in zip(AXES, self._ranges, strict=True) if r]
        commands += [("tracking", {"Tracking": "False"})] if self._can_stop_tracking else []
        for method, parameters in commands:
            try:
                self._device.put(method, **parameters)
            except AlpacaFault as error:
                if error.number != PARKED:  # what is parked does not move
                    errors.append(error)
            except GroundStationError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        self._turning = False

    def close(self) -> None:
        """Give the link back; commands nothing, and leaves the device connected for other clients."""
        self._device.close()

    def _angle(self, method: str) -> tuple[float, int, float]:
        """An angle in degrees, the middle of the exchange (UTC ns) and how long it took (s, world time)."""

        def parse(value: object) -> tuple[float, int]:
            return as_number(value), self._clock.utc_ns()

        sent_ns: list[int] = []
        angle_deg, received_ns = self._device.get(method, parse, before=lambda: sent_ns.append(self._clock.utc_ns()))
        limit_deg = 360.0 if method == "azimuth" else 90.0
        if not -limit_deg <= angle_deg <= limit_deg:
            raise WireError(f"the mount answered {angle_deg} deg for its {method}, which is no angle of it")
        return angle_deg, (sent_ns[-1] + received_ns) // 2, (received_ns - sent_ns[-1]) / NS_PER_S

    def _get_ready(self) -> None:
        """Before the first motion: a mount that is not parked and does not follow the stars by itself."""
        if self._ready:
            return
        if self._device.get("atpark", as_boolean):
            self._device.put("unpark")
        if self._can_stop_tracking and self._device.get("tracking", as_boolean):
            self._device.put("tracking", Tracking="False")
            if self._device.get("tracking", as_boolean):
                raise InstrumentFault(f"the mount at {self._device.address} does not stop to follow the stars")
        self._ready = True

    def _rest(self) -> None:
        for axis in AXES:
            self._device.put("moveaxis", Axis=axis, Rate="0")
        self._turning = False


def _decimal(value: float) -> str:
    """A number without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def connect(address: str, clock: Clock, settings: Settings) -> Mount:
    """Connect and identify the mount; `clock` gives the world time of each reading."""
    positive = ("timeout_s", "max_acceleration_deg_s2", "rate_quantum_arcsec_s")
    chosen = parse_settings(AlpacaMountSettings, settings, "mount_alpaca", positive)
    http = open_http(address, timeout_s=chosen.timeout_s, log=chosen.log)
    device = AlpacaDevice(http, "telescope", chosen.device_number, chosen.client_id)
    with closed_on_error(device):
        return AlpacaMount(device, clock, chosen)
