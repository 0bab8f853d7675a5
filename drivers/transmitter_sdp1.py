"""The receiver's end of the classical channel: Slot Disclosure Protocol, version 1.

Written from groundstation/docs/classical-channel.md and from nothing else. It has no thread of its own:
`ask` and `answers` send, receive, repeat and reconnect while they are called, and never raise because
a connection broke; what is unanswered is asked again.
"""

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.settings import LinkSettings, parse_settings, require_positive
from drivers.transport import Link, open_link
from groundstation.clock import Clock, monotonic_s, parse_utc, sleep_wall_s
from groundstation.errors import (
    BadInput,
    GroundStationError,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.instruments import Answer, DriverDescription, Settings, Transmitter, TransmitterTerms

DRIVER = DriverDescription(
    instrument="QKD transmitter, Slot Disclosure Protocol 1",
    capability="transmitter",
    schemes=("tcp",),
    documentation="groundstation/docs/classical-channel.md: complete, it is our own protocol",
)

# --- Protocol: bytes to meaning and back, no I/O ---------------------------------------------------------

HELLO, TERMS, ASK, ANSWER, ERROR, BYE = range(1, 7)
MAX_PAYLOAD_BYTES = 1_048_576
MAX_SLOTS = 65_536
_HEAD = struct.Struct("<IBI")
_FROM_TRANSMITTER = frozenset((TERMS, ANSWER, ERROR, BYE))
_INTENSITIES = ("signal", "decoy", "vacuum")


class Frame(NamedTuple):
    """One message."""

    kind: int
    payload: bytes


class ChannelError(NamedTuple):
    """An ERROR of the transmitter; `batch` is None when it concerns no single batch."""

    code: str
    sentence: str
    batch: int | None


def encode_frame(kind: int, payload: bytes) -> bytes:
    """Length, type, CRC-32 over type and payload, payload."""
    return _HEAD.pack(len(payload), kind, zlib.crc32(payload, zlib.crc32(bytes((kind,))))) + payload


def encode_hello(station: str) -> bytes:
    """The first message of every connection."""
    hello = {"protocol": "SDP", "versions": [1], "station": station}
    return encode_frame(HELLO, json.dumps(hello).encode("utf-8"))


def encode_ask(batch: int, slots: NDArray[np.int64], bases: NDArray[np.uint8]) -> bytes:
    """One batch of 1..65536 strictly ascending slots with their bases (0 or 1). Raises BadInput."""
    n = len(slots)
    steps = np.diff(slots)
    if not 1 <= n <= MAX_SLOTS or slots[0] < 0 or not 0 <= batch < 1 << 64:
        raise BadInput(f"batch {batch} has {n} slots; a batch has 1 to {MAX_SLOTS}, numbered from 0: cut it")
    if len(bases) != n or np.any(bases > 1):
        raise BadInput(f"batch {batch} has {n} slots and {len(bases)} bases; give each slot basis 0 or 1")
    if np.any(steps < 1) or np.any(steps >= 1 << 32):
        raise BadInput(f"the slots of batch {batch} must ascend by 1 to 2^32 - 1; sort it, cut it")
    packed = np.packbits(bases.astype(np.uint8), bitorder="little").tobytes()
    payload = struct.pack("<QIQ", batch, n, int(slots[0])) + steps.astype("<u4").tobytes() + packed
    return encode_frame(ASK, payload)


def parse_terms(payload: bytes) -> TransmitterTerms:
    """What the transmitter says of its signal. Raises WireError that names the field."""
    fields = _json_object(payload, "TERMS")
    if fields.get("protocol") != "SDP" or fields.get("version") != 1:
        raise WireError("the transmitter's TERMS are not those of SDP version 1")
    try:
        return TransmitterTerms(
            transmitter=str(fields["transmitter"]),
            epoch_utc_ns=parse_utc(fields["epoch_utc"]),
            slot_rate_hz=_positive(int(fields["slot_rate_hz"])),
            beacon_rate_hz=_positive(int(fields["beacon_rate_hz"])),
            intensities=_three(fields["intensities"]),
            probabilities=_three(fields["probabilities"]),
            disclosed_signal_fraction=float(fields["disclosed_signal_fraction"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, BadInput) as error:
        raise WireError(f"the transmitter's TERMS lack a field or have a wrong one: {error!r}") from error


def parse_answer(payload: bytes) -> Answer:
    """One batch of answer bytes; raises WireError for a wrong length or a byte that is not allowed."""
    if len(payload) < 12:
        raise WireError(f"an ANSWER has {len(payload)} bytes, expected at least 12")
    batch, n = struct.unpack_from("<QI", payload)
    answers = np.frombuffer(payload, np.uint8, offset=12)
    if len(answers) != n:
        raise WireError(f"the ANSWER to batch {batch} announces {n} slots and has {len(answers)}")
    undisclosed_bit = (answers & 0x18) == 0x10
    if np.any(answers & 0xE0) or np.any(undisclosed_bit) or np.any((answers & 6) == 6):
        raise WireError(f"the ANSWER to batch {batch} has a byte that SDP version 1 does not allow")
    return Answer(batch, answers)


def parse_error(payload: bytes) -> ChannelError:
    """Code, sentence and batch of an ERROR. Raises WireError."""
    fields = _json_object(payload, "ERROR")
    batch = fields.get("batch")
    return ChannelError(
        str(fields.get("code", "")),
        str(fields.get("sentence", "")),
        batch if isinstance(batch, int) else None,
    )


class FrameDecoder:
    """Cuts the byte stream into messages of the transmitter, whatever the pieces in which it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that `data` completes. Raises WireError; the connection is then of no more use."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind, crc = _HEAD.unpack_from(self._buffer)
            if length > MAX_PAYLOAD_BYTES or kind not in _FROM_TRANSMITTER:
                raise WireError(f"a frame of type {kind} and {length} bytes is no transmitter's (SDP version 1)")
            if len(self._buffer) < _HEAD.size + length:
                return
            payload = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            if zlib.crc32(payload, zlib.crc32(bytes((kind,)))) != crc:
                raise WireError(f"a frame of type {kind} and {length} bytes arrived damaged (CRC-32)")
            yield Frame(kind, payload)


def _json_object(payload: bytes, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"the transmitter's {what} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise WireError(f"the transmitter's {what} is not a JSON object")
    return fields


def _positive(value: int) -> int:
    if value <= 0:
        raise ValueError(f"{value} is not above 0")
    return value


def _three(table: dict[str, float]) -> tuple[float, float, float]:
    signal, decoy, vacuum = (float(table[name]) for name in _INTENSITIES)
    return signal, decoy, vacuum


# --- Driver ----------------------------------------------------------------------------------------------

MAX_UNANSWERED = 64
_REPEAT_S = 2.0
_SILENT_S = 3 * _REPEAT_S  # a far end that was asked and says nothing for so long is connected to anew
_BACK_OFF_S = (0.1, 2.0)


@dataclass(frozen=True)
class SdpSettings(LinkSettings):
    """Settings of the station file: the name under which the station says HELLO."""

    station: str = "ground station"
    timeout_s: float = 5.0


@dataclass
class _Batch:
    """An unanswered batch. `asked_s` is None while it is not under way on this connection."""

    frame: bytes
    slots: int
    asked_s: float | None = None
    not_before_s: float = 0.0
    back_off_s: float = _BACK_OFF_S[0]


class SdpTransmitter:
    """The transmitter at the far end of the classical channel: a `Transmitter`. For one thread."""

    def __init__(self, address: str, settings: SdpSettings) -> None:
        """Connects and learns the terms. Raises TransportLost, TransportTimeout, WireError."""
        self._address = address
        self._settings = settings
        self._unanswered: dict[int, _Batch] = {}
        self._ready: list[Answer] = []
        self._errors: list[GroundStationError] = []  # met in ask(), raised by answers()
        self._back_off_s = _BACK_OFF_S[0]
        self._connect_not_before_s = 0.0
        self._heard_s = monotonic_s()
        self._closed = False
        self._link, self._decoder, self._terms = self._shake_hands()

    @property
    def unanswered(self) -> int:
        """How many batches were asked and not answered yet."""
        return len(self._unanswered)

    def terms(self) -> TransmitterTerms:
        return self._terms

    def ask(self, batch: int, slots: NDArray[np.int64], bases: NDArray[np.uint8]) -> None:
        """Ask for one batch; beyond 64 unanswered ones it waits here for its turn. Raises BadInput."""
        self._check_open()
        frame = encode_ask(batch, slots, bases)
        known = self._unanswered.get(batch)
        if known is None:
            self._unanswered[batch] = _Batch(frame, len(slots))
        elif known.frame != frame:
            raise BadInput(f"batch {batch} was asked before with other slots or bases; give it a new number")
        try:
            self._turn(0.0)
        except (WireError, InstrumentFault) as error:
            self._errors.append(error)

    def answers(self, timeout_s: float) -> Sequence[Answer]:
        """What was answered since the last call; returns at once when nothing is unanswered.

        Raises WireError when the transmitter breaks the protocol (the connection is dropped, the next call
        makes a new one) and InstrumentFault when it refuses a batch, which is then no longer asked for.
        """
        self._check_open()
        if self._errors:
            raise self._errors.pop(0)
        deadline = monotonic_s() + timeout_s
        self._turn(0.0)
        while not self._ready and self._unanswered and (left := deadline - monotonic_s()) > 0.0:
            self._turn(min(left, _BACK_OFF_S[0]))
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Say BYE and give the link back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._link:
            with contextlib.suppress(TransportLost, TransportTimeout):  # then it has gone before us
                self._link.write(encode_frame(BYE, b""), timeout_s=0.1)
            self._link.close()
            self._link = None

    def _turn(self, wait_s: float) -> None:
        """Connect if need be, send what is due, take what comes within `wait_s`."""
        try:
            link = self._connected(wait_s)
            if link:
                self._send_due(link)
                data = link.read_available(wait_s)
                self._heed_silence(bool(data))
                for frame in self._decoder.feed(data):
                    self._take(frame)
        except (TransportLost, TransportTimeout):
            self._disconnect()
        except WireError:
            self._disconnect()
            raise

    def _heed_silence(self, heard: bool) -> None:
        """A pulled cable closes nothing: what was asked stays unanswered for ever, however often it is repeated."""
        now_s = monotonic_s()
        if heard or not any(batch.asked_s is not None for batch in self._unanswered.values()):
            self._heard_s = now_s
        elif now_s - self._heard_s > _SILENT_S:
            raise TransportLost(f"the transmitter at {self._address} has been silent for {_SILENT_S:g} s")

    def _connected(self, wait_s: float) -> Link | None:
        """The link, made anew if it broke; None when it is too early to try or the attempt failed."""
        if self._link:
            return self._link
        early_s = self._connect_not_before_s - monotonic_s()
        if early_s > 0.0:
            sleep_wall_s(min(early_s, wait_s))
        if monotonic_s() < self._connect_not_before_s:
            return None
        self._link, self._decoder, terms = self._shake_hands()
        self._heard_s = monotonic_s()
        if terms != self._terms:
            raise WireError(f"the transmitter at {self._address} changed its terms; begin a new recording")
        return self._link

    def _shake_hands(self) -> tuple[Link | None, FrameDecoder, TransmitterTerms]:
        """A new connection on which HELLO was answered by TERMS."""
        settings = self._settings
        link, decoder = open_link(self._address, timeout_s=settings.timeout_s, log=settings.log), FrameDecoder()
        try:
            link.write(encode_hello(self._settings.station))
            return link, decoder, self._await_terms(link, decoder)
        except BaseException:
            link.close()
            raise

    def _await_terms(self, link: Link, decoder: FrameDecoder) -> TransmitterTerms:
        deadline = monotonic_s() + self._settings.timeout_s
        while (left := deadline - monotonic_s()) > 0.0:
            for kind, payload in decoder.feed(link.read_available(left)):
                if kind == TERMS:
                    return parse_terms(payload)
                if kind == ERROR:
                    raise WireError(f"the transmitter refused the connection: {parse_error(payload).sentence}")
                raise WireError(f"the transmitter answered HELLO with a frame of type {kind}, expected TERMS")
        raise TransportTimeout(
            f"no transmitter answers at {self._address} within {self._settings.timeout_s:g} s; check the address"
        )

    def _disconnect(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
        self._connect_not_before_s = monotonic_s() + self._back_off_s
        self._back_off_s = min(2 * self._back_off_s, _BACK_OFF_S[1])
        for batch in self._unanswered.values():
            batch.asked_s = None

    def _send_due(self, link: Link) -> None:
        """Ask again what has waited 2 s, then ask what is new while fewer than 64 are under way."""
        now = monotonic_s()
        under_way = sum(batch.asked_s is not None for batch in self._unanswered.values())
        for batch in self._unanswered.values():
            if batch.asked_s is None:
                if under_way >= MAX_UNANSWERED or now < batch.not_before_s:
                    continue
                under_way += 1
            elif now < batch.asked_s + _REPEAT_S:
                continue
            batch.asked_s = now
            link.write(batch.frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind == ANSWER:
            self._take_answer(parse_answer(frame.payload))
        elif frame.kind == ERROR:
            self._take_error(parse_error(frame.payload))
        elif frame.kind == BYE:
            raise TransportLost(f"the transmitter at {self._address} said goodbye")
        else:
            raise WireError(f"the transmitter sent a frame of type {frame.kind} that nobody asked for")

    def _take_answer(self, answer: Answer) -> None:
        batch = self._unanswered.get(answer.batch)
        if batch is None:
            return  # the answer to a repeated question
        if len(answer.answers) != batch.slots:
            raise WireError(f"the ANSWER to batch {answer.batch} has {len(answer.answers)} slots, asked: {batch.slots}")
        del self._unanswered[answer.batch]
        self._ready.append(answer)
        self._back_off_s = _BACK_OFF_S[0]

    def _take_error(self, error: ChannelError) -> None:
        batch = self._unanswered.get(error.batch) if error.batch is not None else None
        if error.code == "slot-not-sent":
            if batch:
                batch.asked_s = None
                batch.not_before_s = monotonic_s() + batch.back_off_s
                batch.back_off_s = min(2 * batch.back_off_s, _BACK_OFF_S[1])
            return
        if error.batch is not None:
            self._unanswered.pop(error.batch, None)
        said = f"{self._address} refused batch {error.batch} ({error.code}): {error.sentence}"
        raise WireError(said) if error.code in ("malformed", "version") else InstrumentFault(said)

    def _check_open(self) -> None:
        if self._closed:
            raise TransportLost(f"the classical channel to {self._address} is closed; connect again")


def connect(address: str, clock: Clock, settings: Settings) -> Transmitter:
    """Connect and learn the terms; retries and back-off are wall time, so `clock` is not used."""
    driver = "transmitter_sdp1"
    chosen = parse_settings(SdpSettings, settings, driver)
    require_positive(chosen.timeout_s, "timeout_s", driver)
    try:
        return SdpTransmitter(address, chosen)
    except WireError as error:
        raise WrongInstrument(f"{address} is no SDP transmitter: {error}; check the address") from error
