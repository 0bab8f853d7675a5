"""The ASCOM Alpaca side of a simulated device: routes, parameters, transaction numbers and errors.

Routes are lower case. The names of parameters in a GET have no case, those in the body of a PUT do; a missing or
unreadable one is answered with HTTP 400, an unknown route with 404. Everything else is HTTP 200 with an ErrorNumber.
Special fault: "missing_keys" (every third answer has neither Value nor ErrorNumber).
Sources: ASCOMInitiative/AlpycaDevice `shr.py`, `AlpacaDeviceAPI_v1.json`; alpyca `device.py`, `management.py`.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from drivers.simulators.faults import Faults
from drivers.simulators.http_face import HttpAnswer, HttpRequest

NOT_IMPLEMENTED, INVALID_VALUE, VALUE_NOT_SET, NOT_CONNECTED = 0x400, 0x401, 0x402, 0x407
PARKED, INVALID_OPERATION, ACTION_NOT_IMPLEMENTED = 0x408, 0x40B, 0x40C
_ROUTE = re.compile(r"/api/v1/([a-z]+)/(\d+)/([a-z]+)")
_LARGEST_ID = (1 << 32) - 1


class AlpacaError(Exception):
    """What a device answers with an ErrorNumber."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class _BadParameters(Exception):
    """Answered with HTTP 400."""


class Parameters:
    """The parameters of one request, each converted when it is asked for."""

    def __init__(self, values: Mapping[str, str], with_case: bool) -> None:
        self._with_case = with_case
        self._values = dict(values) if with_case else {name.lower(): value for name, value in values.items()}

    def text(self, name: str) -> str:
        try:
            return self._values[name if self._with_case else name.lower()]
        except KeyError:
            raise _BadParameters(f"parameter {name} is missing") from None

    def number(self, name: str) -> float:
        return float(self._converted(name, float))

    def whole(self, name: str) -> int:
        return int(self._converted(name, int))

    def truth(self, name: str) -> bool:
        text = self.text(name).lower()
        if text not in ("true", "false"):
            raise _BadParameters(f"parameter {name} is {text}, neither true nor false")
        return text == "true"

    def id(self, name: str) -> int:
        """A client's number, 0 when it gives none."""
        try:
            value = self.whole(name)
        except _BadParameters:
            return 0
        return value if 0 <= value <= _LARGEST_ID else 0

    def _converted(self, name: str, kind: Callable[[str], float]) -> float:
        try:
            return kind(self.text(name))
        except ValueError:
            raise _BadParameters(f"parameter {name} is {self.text(name)}, no number") from None


class Device(NamedTuple):
    """What an Alpaca device can be asked and told, by the last part of its routes."""

    kind: str
    name: str
    interface_version: int
    get: Mapping[str, Callable[[Parameters], object]]
    put: Mapping[str, Callable[[Parameters], None]]


class AlpacaFace:
    """Answers the requests to one device, number 0 of its kind, and to the management of its server."""

    def __init__(self, device: Device, faults: Faults) -> None:
        self._device, self._faults = device, faults
        self._kind = "covercalibrator" if faults.wrong_model else device.kind
        self._connected = False
        self._transactions = 0
        self._get: dict[str, Callable[[Parameters], object]] = {
            "connected": lambda _: self._connected,
            "name": lambda _: device.name,
            "description": lambda _: f"A simulated {device.kind}",
            "driverinfo": lambda _: "Simulator of the ground station",
            "driverversion": lambda _: "1.0",
            "interfaceversion": lambda _: device.interface_version,
            "supportedactions": lambda _: [],
        }
        self._common = frozenset(self._get)
        self._get |= device.get

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """One request."""
        parameters = Parameters(
            request.query if request.method == "GET" else request.form, with_case=request.method == "PUT"
        )
        if request.path.startswith("/management/"):
            return self._manage(request.path, parameters)
        found = _ROUTE.fullmatch(request.path)
        if not found:
            return HttpAnswer(404, b"Not Found")
        if found[1] != self._kind or int(found[2]) != 0:
            return HttpAnswer(400, f"there is no {found[1]} {found[2]} here".encode())
        try:
            value, error = self._carried_out(request.method, found[3], parameters), None
        except AlpacaError as raised:
            value, error = None, raised
        except _BadParameters as raised:
            return HttpAnswer(400, str(raised).encode())
        except KeyError:
            return HttpAnswer(404, b"Not Found")
        return self._reply(parameters, value, error, has_value=request.method == "GET")

    def _carried_out(self, method: str, name: str, parameters: Parameters) -> object:
        if method == "GET":
            action = self._get[name]
            self._require_connected(name)
            return action(parameters)
        if method != "PUT":
            raise _BadParameters(f"method {method} is neither GET nor PUT")
        if name == "connected":
            self._connected = parameters.truth("Connected")
            return None
        if name in ("action", "commandblind", "commandbool", "commandstring"):
            raise AlpacaError(ACTION_NOT_IMPLEMENTED if name == "action" else NOT_IMPLEMENTED, f"{name} is not there")
        do = self._device.put[name]
        self._require_connected(name)
        do(parameters)
        return None

    def _require_connected(self, name: str) -> None:
        if not self._connected and name not in self._common:
            raise AlpacaError(NOT_CONNECTED, "The device is not connected")

    def _manage(self, path: str, parameters: Parameters) -> HttpAnswer:
        values: dict[str, object] = {
            "/management/apiversions": [1],
            "/management/v1/description": {
                "ServerName": "Simulated observatory",
                "Manufacturer": "The ground station",
                "ManufacturerVersion": "1.0",
                "Location": "nowhere",
            },
            "/management/v1/configureddevices": [
                {
                    "DeviceName": self._device.name,
                    "DeviceType": self._kind.capitalize(),
                    "DeviceNumber": 0,
                    "UniqueID": f"simulated-{self._kind}-0",
                }
            ],
        }
        if path not in values:
            return HttpAnswer(404, b"Not Found")
        return self._reply(parameters, values[path], None, has_value=True)

    def _reply(self, parameters: Parameters, value: object, error: AlpacaError | None, has_value: bool) -> HttpAnswer:
        self._transactions += 1
        body: dict[str, object] = {
            "ClientTransactionID": parameters.id("ClientTransactionID"),
            "ServerTransactionID": self._transactions,
            "ErrorNumber": error.number if error else 0,
            "ErrorMessage": str(error or ""),
        }
        if has_value and error is None:
            body["Value"] = value
        if "missing_keys" in self._faults.special and self._transactions % 3 == 0:
            body = {"ServerTransactionID": self._transactions}
        return HttpAnswer(200, json.dumps(body).encode(), "application/json; charset=utf-8")


def not_implemented(_: Parameters) -> None:
    """For what a device leaves out."""
    raise AlpacaError(NOT_IMPLEMENTED, "This device does not implement it")
