"""ASCOM Alpaca, the dialect that telescopes, domes and other devices behind it share: HTTP with JSON answers.

A question is GET /api/v1/TYPE/NUMBER/METHOD, a command is PUT on the same path with a web form. Each names its client
and a transaction number; the answer repeats the number, and tells a failure by `ErrorNumber`, not by the HTTP status.
Sources: ASCOM Alpaca Device API v1 (AlpycaDevice `templates/AlpacaDeviceAPI_v1.json`, `device/shr.py`).
"""

import json
import math
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from drivers.transport import HttpLink, HttpReply
from groundstation.errors import InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import Identity

T = TypeVar("T")

NOT_IMPLEMENTED, INVALID_VALUE, NOT_CONNECTED, PARKED = 0x400, 0x401, 0x407, 0x408
_TRANSACTIONS = 1 << 32  # numbers are unsigned 32-bit
_SHOWN = 200  # characters of a text that the device sent, in our sentences


class AlpacaFault(InstrumentFault):
    """The device said why not; `number` is its error number (0x400 to 0xFFF)."""

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.number = number


# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------


def parse_answer(reply: HttpReply, transaction: int) -> object:
    """The `Value` of an answer, None when it has none.

    Raises WireError for anything but an answer to this very transaction, AlpacaFault for an error of the device,
    InstrumentFault when the server refuses the request (HTTP 400) or fails (HTTP 500).
    """
    if reply.status != 200:
        _complain_of_status(reply)
    try:
        answer = json.loads(reply.body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the answer {reply.body[:60]!r} is not the JSON of ASCOM Alpaca; check the address") from error
    if not isinstance(answer, dict):
        raise WireError(f"the answer {reply.body[:60]!r} is not an ASCOM Alpaca answer; check the address")
    number, fault = answer.get("ClientTransactionID"), answer.get("ErrorNumber")
    if type(number) is not int or number != transaction:
        raise WireError(f"the answer is for transaction {number!r}, expected {transaction}; it is another question's")
    if type(fault) is not int:
        raise WireError(f"the answer has the ErrorNumber {fault!r}, expected a whole number; check the address")
    if fault != 0:
        why = str(answer.get("ErrorMessage", ""))[:_SHOWN] or "without saying why"
        raise AlpacaFault(f"the device refused (error 0x{fault & 0xFFFFFFFF:X}): {why}", fault)
    return answer.get("Value")


def as_number(value: object) -> float:
    """A finite number. Raises WireError."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # checked just before
        raise WireError(f"the device answered {value!r} where a number was expected")
    return float(value)  # type: ignore[arg-type]  # int or float


def as_integer(value: object) -> int:
    """A whole number. Raises WireError."""
    if type(value) is not int:
        raise WireError(f"the device answered {value!r} where a whole number was expected")
    return value


def as_boolean(value: object) -> bool:
    """True or false. Raises WireError."""
    if type(value) is not bool:
        raise WireError(f"the device answered {value!r} where true or false was expected")
    return value


def as_text(value: object) -> str:
    """A text. Raises WireError."""
    if not isinstance(value, str):
        raise WireError(f"the device answered {value!r} where a text was expected")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _complain_of_status(reply: HttpReply) -> NoReturn:
    said = reply.body.decode("utf-8", "replace").strip()[:_SHOWN]
    if reply.status == 400:
        raise InstrumentFault(f'the server calls the request bad (HTTP 400): "{said}"')
    if reply.status >= 500:
        raise InstrumentFault(f'the server failed (HTTP {reply.status}): "{said}"; see its own log')
    raise WireError(f'the server answered with HTTP {reply.status} "{said}"; check address and device number')


# --- Device ----------------------------------------------------------------------------------------------


class AlpacaDevice:
    """One device behind an Alpaca server. Safe for several threads: each request has a connection of its own.

    A question is asked once more when it failed on the way; a command never is, unless the device said that it was
    not connected (the server was restarted): then it did nothing, and after `connect` it is told again.
    """

    def __init__(self, http: HttpLink, kind: str, number: int, client: int) -> None:
        self.address = http.address
        self._http, self._path, self._client = http, f"/api/v1/{kind}/{number}", client
        self._kind = kind
        self._lock = threading.RLock()
        self._transaction = 0
        self._identity: Identity | None = None

    def connect(self) -> Identity:
        """Ask who it is and have it connect to its hardware. Raises WrongInstrument for another device than before."""
        with self._lock:
            try:
                found = Identity(as_text(self._request("GET", "name")), as_text(self._request("GET", "driverversion")))
                interface = as_integer(self._request("GET", "interfaceversion"))
            except (WireError, InstrumentFault) as error:
                raise WrongInstrument(
                    f"{self.address} does not answer as an Alpaca {self._kind} ({error}); check the address and "
                    '"device_number"'
                ) from error
            if interface < 1:
                raise WrongInstrument(f"{self.address} has an {self._kind} interface of version {interface}")
            self._identity = self._identity or found
            if found.model != self._identity.model:
                raise WrongInstrument(
                    f"{self.address} now answers as {found.model}, it was {self._identity.model}; check the address"
                )
            if not as_boolean(self._request("GET", "connected")):
                self._request("PUT", "connected", Connected="True")
                if not as_boolean(self._request("GET", "connected")):
                    raise InstrumentFault(f"{found.model} at {self.address} cannot connect to its hardware")
            return found

    def get(
        self, method: str, parse: Callable[[object], T], before: Callable[[], None] | None = None, **parameters: str
    ) -> T:
        """The answer to a question; `before` is called before each time that it is asked."""

        def ask() -> T:
            if before:
                before()
            return parse(self._connected("GET", method, **parameters))

        try:
            return ask()
        except (TransportTimeout, TransportLost, WireError):
            return ask()

    def put(self, method: str, **parameters: str) -> None:
        """Carry out a command. Raises AlpacaFault when the device refuses."""
        self._connected("PUT", method, **parameters)

    def close(self) -> None:
        self._http.close()

    def _connected(self, verb: str, method: str, **parameters: str) -> object:
        try:
            return self._request(verb, method, **parameters)
        except AlpacaFault as fault:
            if fault.number != NOT_CONNECTED:
                raise
        self.connect()
        return self._request(verb, method, **parameters)

    def _request(self, verb: str, method: str, **parameters: str) -> object:
        with self._lock:
            self._transaction = self._transaction % (_TRANSACTIONS - 1) + 1
            named = {**parameters, "ClientID": str(self._client), "ClientTransactionID": str(self._transaction)}
            where, what = f"{self._path}/{method}", self._transaction
            if verb == "GET":
                return parse_answer(self._http.request(verb, where, query=named), what)
            return parse_answer(self._http.request(verb, where, form=named), what)
