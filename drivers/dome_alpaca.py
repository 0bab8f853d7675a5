"""Any dome behind ASCOM Alpaca (HTTP): azimuth and shutter.

A dome that follows a telescope by itself (`Slaved`) is told to leave that to the station before it is turned.
Sources: ASCOM Alpaca Device API v1, ASCOM Dome interface.
"""

import math
from dataclasses import dataclass
from typing import Literal

from drivers.alpaca import NOT_IMPLEMENTED, AlpacaDevice, AlpacaFault, as_boolean, as_integer, as_number
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import open_http
from groundstation.clock import Clock
from groundstation.errors import BadInput, InstrumentFault, WireError
from groundstation.instruments import Dome, DriverDescription, Identity, Settings

DRIVER = DriverDescription(
    instrument="any dome behind ASCOM Alpaca",
    capability="dome",
    schemes=("http",),
    documentation="ASCOM Alpaca Device API v1, complete for what a dome needs",
    tested_with="scripted answers of the API, and our simulator, which alpyca turns too",
)

Shutter = Literal["open", "opening", "closed", "closing", "error"]
_SHUTTERS: tuple[Shutter, ...] = ("open", "closed", "opening", "closing", "error")  # ShutterState 0 to 4


def parse_shutter(value: object) -> Shutter:
    """`ShutterStatus` 0 to 4. Raises WireError."""
    number = as_integer(value)
    if not 0 <= number < len(_SHUTTERS):
        raise WireError(f"the dome answered {number} for its shutter, expected 0 to {len(_SHUTTERS) - 1}")
    return _SHUTTERS[number]


@dataclass(frozen=True)
class AlpacaDomeSettings(LinkSettings):
    """Settings of the station file."""

    device_number: int = 0
    client_id: int = 1


class AlpacaDome:
    """A dome behind Alpaca: a `Dome`. All calls may raise TransportTimeout, TransportLost, WireError and
    InstrumentFault (the device refused, and said why)."""

    def __init__(self, device: AlpacaDevice) -> None:
        self._device = device

    def identify(self) -> Identity:
        """Name and driver version. Raises WrongInstrument for another device."""
        return self._device.connect()

    def azimuth_deg(self) -> float:
        """0 to 360, north over east."""
        angle_deg = self._device.get("azimuth", as_number)
        if not 0.0 <= angle_deg <= 360.0:
            raise WireError(f"the dome answered an azimuth of {angle_deg} deg, expected 0 to 360")
        return angle_deg

    def go_to(self, azimuth_deg: float) -> None:
        """Begin to turn. BadInput for no angle, InstrumentFault for a dome that does not turn."""
        if not math.isfinite(azimuth_deg):
            raise BadInput(f"the dome cannot turn to {azimuth_deg}; give an azimuth in degrees")
        if not self._device.get("cansetazimuth", as_boolean):
            raise InstrumentFault(f"the dome at {self._device.address} cannot be turned to an azimuth")
        self._leave_it_to_us()
        self._device.put("slewtoazimuth", Azimuth=f"{azimuth_deg % 360.0:.6f}")

    def is_moving(self) -> bool:
        """Whether dome or shutter move."""
        return self._device.get("slewing", as_boolean)

    def shutter(self) -> Shutter:
        return self._device.get("shutterstatus", parse_shutter)

    def open_shutter(self) -> None:
        self._device.put("openshutter")

    def close_shutter(self) -> None:
        self._device.put("closeshutter")

    def stop(self) -> None:
        """Stop dome and shutter at once."""
        self._device.put("abortslew")

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._device.close()

    def _leave_it_to_us(self) -> None:
        """Many domes have no `Slaved`: not implemented means that it never is."""
        try:
            if self._device.get("slaved", as_boolean):
                self._device.put("slaved", Slaved="False")
        except AlpacaFault as fault:
            if fault.number != NOT_IMPLEMENTED:
                raise


def connect(address: str, clock: Clock, settings: Settings) -> Dome:
    """Connect and identify the dome."""
    chosen = parse_settings(AlpacaDomeSettings, settings, "dome_alpaca", ("timeout_s",))
    http = open_http(address, timeout_s=chosen.timeout_s, log=chosen.log)
    dome = AlpacaDome(AlpacaDevice(http, "dome", chosen.device_number, chosen.client_id))
    with closed_on_error(dome):
        dome.identify()
    return dome
