"""The satellite's end of the classical channel, written from docs/classical-channel.md and nothing else.

    python -m drivers.simulators.transmitter_sdp1 --epoch 2016-12-19T16:49:00Z

It answers over TCP what was sent in the slots that the receiver names, and keeps the rules of that page. The
states come from the seed, so a batch can be answered again without having been stored; of each batch only a
digest is kept, to notice when it changes.
"""

import argparse
import contextlib
import hashlib
import json
import socket
import struct
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import listen, tcp_address_of
from groundstation.clock import NS_PER_S, parse_utc, utc_text
from groundstation.errors import BadInput
from groundstation.simulation.parameters import SourceParameters
from groundstation.simulation.states import TransmitterStates

_HELLO, _TERMS, _ASK, _ANSWER, _ERROR, _BYE = 1, 2, 3, 4, 5, 6
_HEADER = struct.Struct("<IBI")  # payload length, type, CRC-32
_MAX_PAYLOAD = 1_048_576
_MAX_SLOTS = 65_536
_MAX_UNANSWERED = 64
_VERSION = 1
_CLOCK_TOLERANCE_NS = 1_000_000  # between this program's clock and the station's
_REMEMBERED_BATCHES = 1 << 18  # digests, about 50 MB; many passes' worth


class RefusedError(Exception):
    """A request that gets an ERROR; `fatal` ones end the connection."""

    def __init__(self, code: str, sentence: str, batch: int | None = None, fatal: bool = False) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.batch, self.fatal = code, sentence, batch, fatal


class Satellite:
    """What was sent, when, and who may know: everything but the link."""

    def __init__(self, states: TransmitterStates, source: SourceParameters, epoch_utc_ns: int) -> None:
        self._states, self._source, self._epoch_utc_ns = states, source, epoch_utc_ns
        self._digests: OrderedDict[int, bytes] = OrderedDict()

    def terms(self) -> dict[str, object]:
        source = self._source
        return {
            "protocol": "SDP",
            "version": _VERSION,
            "transmitter": "Micius",
            "epoch_utc": _epoch_text(self._epoch_utc_ns),
            "slot_rate_hz": source.slot_rate_hz,
            "beacon_rate_hz": source.beacon_rate_hz,
            "intensities": {
                "signal": source.intensity_signal,
                "decoy": source.intensity_decoy,
                "vacuum": source.intensity_vacuum,
            },
            "probabilities": {
                "signal": source.probability_signal,
                "decoy": source.probability_decoy,
                "vacuum": source.probability_vacuum,
            },
            "disclosed_signal_fraction": source.disclosed_signal_fraction,
        }

    def answer(self, payload: bytes, utc_ns: int) -> tuple[int, bytes]:
        """The batch number and the ANSWER to an ASK at `utc_ns`. Raises RefusedError."""
        batch, n, first, increments, packed = _parse_ask(payload)
        self._check_unchanged(batch, payload)
        last = first + int(increments.sum(dtype=np.uint64))
        sent = (utc_ns + _CLOCK_TOLERANCE_NS - self._epoch_utc_ns) * self._source.slot_rate_hz // NS_PER_S
        if last > sent:
            raise RefusedError("slot-not-sent", f"slot {last} is not sent yet", batch)
        slots = np.full(n, first, np.int64)
        slots[1:] += np.cumsum(increments, dtype=np.int64)
        bases = np.unpackbits(packed, count=n, bitorder="little")
        return batch, struct.pack("<QI", batch, n) + self._answers(slots, bases).tobytes()

    def _answers(self, slots: NDArray[np.int64], bases: NDArray[np.uint8]) -> NDArray[np.uint8]:
        states = self._states.of(slots)
        disclosed = self._states.disclosed(slots, states.intensity).astype(np.uint8)
        matches = (states.basis == bases).astype(np.uint8)
        answers: NDArray[np.uint8] = matches | states.intensity << 1
        answers |= disclosed << 3 | (states.bit & disclosed) << 4
        return answers

    def _check_unchanged(self, batch: int, payload: bytes) -> None:
        digest = hashlib.sha256(payload).digest()
        if self._digests.setdefault(batch, digest) != digest:
            raise RefusedError("batch-changed", f"batch {batch} was asked before with other slots or bases", batch)
        self._digests.move_to_end(batch)
        if len(self._digests) > _REMEMBERED_BATCHES:
            self._digests.popitem(last=False)


def _epoch_text(utc_ns: int) -> str:
    return utc_text(utc_ns, 9 if utc_ns % NS_PER_S else 0)


def _parse_ask(payload: bytes) -> tuple[int, int, int, NDArray[np.uint32], NDArray[np.uint8]]:
    """Batch, n, first slot, increments (n - 1,), packed bases. Raises RefusedError."""
    if len(payload) < 20:
        raise RefusedError("malformed", f"an ASK of {len(payload)} bytes is too short", fatal=True)
    batch, n, first = struct.unpack_from("<QIQ", payload)
    if not 1 <= n <= _MAX_SLOTS:
        raise RefusedError("malformed", f"an ASK names 1 to {_MAX_SLOTS} slots, not {n}", batch, fatal=True)
    expected = 20 + 4 * (n - 1) + (n + 7) // 8
    if len(payload) != expected:
        sentence = f"an ASK of {n} slots has {expected} bytes, not {len(payload)}"
        raise RefusedError("malformed", sentence, batch, fatal=True)
    increments = np.frombuffer(payload, "<u4", n - 1, 20)
    packed = np.frombuffer(payload, np.uint8, -1, 20 + 4 * (n - 1))
    if not increments.all():
        raise RefusedError("malformed", "an increment between slots is 0", batch, fatal=True)
    if n % 8 and packed[-1] >> n % 8:
        raise RefusedError("malformed", "an unused bit of the bases is not 0", batch, fatal=True)
    return batch, n, first, increments, packed


class Connection:
    """One receiver: frames in, frames out. Injected faults: late, lost and cut-off answers."""

    def __init__(self, link: socket.socket, satellite: Satellite, loop: Loop, faults: argparse.Namespace) -> None:
        self._link, self._satellite, self._loop, self._faults = link, satellite, loop, faults
        self._received, self._to_send = bytearray(), bytearray()
        self._greeted = self._closing = self._closed = False
        self._unanswered: Counter[int] = Counter()
        self._answered = 0
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def _watch(self) -> None:
        readable: Callable[[], None] | None = None if self._closing else self._read
        self._loop.watch(self._link.fileno(), readable, self._write if self._to_send else None)

    def _read(self) -> None:
        try:
            data = self._link.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._received += data
        while not self._closing and not self._closed and self._take_frame():
            pass

    def _take_frame(self) -> bool:
        """Handle the first whole frame; False when there is none."""
        if len(self._received) < _HEADER.size:
            return False
        length, kind, crc = _HEADER.unpack_from(self._received)
        if length > _MAX_PAYLOAD or not _HELLO <= kind <= _BYE:
            self._close()
            return False
        end = _HEADER.size + length
        if len(self._received) < end:
            return False
        payload = bytes(self._received[_HEADER.size : end])
        del self._received[:end]
        if zlib.crc32(payload, zlib.crc32(bytes((kind,)))) != crc:
            self._close()
            return False
        try:
            self._handle(kind, payload)
        except RefusedError as refused:
            error = {"code": refused.code, "sentence": refused.sentence, "batch": refused.batch}
            self._send(_ERROR, json.dumps(error).encode())
            if refused.fatal:
                self._close_after_sending()
        return True

    def _handle(self, kind: int, payload: bytes) -> None:
        if kind == _BYE:
            self._close_after_sending()
        elif kind == _HELLO:
            _check_hello(payload)
            self._greeted = True
            self._send(_TERMS, json.dumps(self._satellite.terms()).encode())
        elif kind != _ASK:
            raise RefusedError("malformed", f"a message of type {kind} does not come from a receiver", fatal=True)
        elif not self._greeted:
            raise RefusedError("malformed", "the first message of a connection is a HELLO", fatal=True)
        else:
            self._ask(payload)

    def _ask(self, payload: bytes) -> None:
        batch, answer = self._satellite.answer(payload, self._loop.clock.utc_ns())
        if len(self._unanswered) >= _MAX_UNANSWERED and batch not in self._unanswered:
            sentence = f"{_MAX_UNANSWERED} batches are unanswered on this connection; wait for an answer"
            raise RefusedError("too-many-unanswered", sentence, batch)
        self._unanswered[batch] += 1
        if self._faults.answer_delay > 0:
            self._loop.after_wall_s(self._faults.answer_delay, lambda: self._answer(batch, answer))
        else:
            self._answer(batch, answer)

    def _answer(self, batch: int, answer: bytes) -> None:
        if self._closed:
            return
        self._unanswered[batch] -= 1
        if not self._unanswered[batch]:
            del self._unanswered[batch]
        self._answered += 1
        if not (self._faults.drop_answers and self._answered % self._faults.drop_answers == 0):
            self._send(_ANSWER, answer)
        if self._faults.reset_every and self._answered >= self._faults.reset_every:
            self._close_after_sending()

    def _send(self, kind: int, payload: bytes) -> None:
        crc = zlib.crc32(payload, zlib.crc32(bytes((kind,))))
        self._to_send += _HEADER.pack(len(payload), kind, crc) + payload
        self._write()

    def _write(self) -> None:
        if self._closed:
            return
        try:
            sent = self._link.send(self._to_send) if self._to_send else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        del self._to_send[:sent]
        if self._closing and not self._to_send:
            self._close()
        else:
            self._watch()

    def _close_after_sending(self) -> None:
        self._closing = True
        self._write()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.watch(self._link.fileno(), None)
            self._link.close()


def _check_hello(payload: bytes) -> None:
    try:
        hello = json.loads(payload)
        protocol, versions = hello["protocol"], list(hello["versions"])
    except (ValueError, TypeError, LookupError):
        raise RefusedError("malformed", "HELLO is not a JSON object with protocol and versions", fatal=True) from None
    if protocol != "SDP" or _VERSION not in versions:
        raise RefusedError("version", f"this transmitter speaks SDP version {_VERSION} only", fatal=True)


def _serve(server: socket.socket, satellite: Satellite, loop: Loop, faults: argparse.Namespace) -> None:
    def accept() -> None:
        with contextlib.suppress(OSError):  # gone again already
            Connection(server.accept()[0], satellite, loop, faults)

    loop.watch(server.fileno(), accept)


def _epoch_ns(text: str | None, world: World) -> int:
    """The epoch given, else the next full minute."""
    if text is not None:
        return parse_utc(text)
    minute_ns = 60 * NS_PER_S
    return -(-world.clock.utc_ns() // minute_ns) * minute_ns


def main() -> None:
    parser = arguments("The transmitter's end of the classical channel, on a loopback port.")
    parser.add_argument("--epoch", metavar="UTC", help="when slot 0 is sent (default: the next full minute)")
    parser.add_argument("--answer-delay", metavar="S", type=float, default=0.0, help="answer late (wall time)")
    parser.add_argument("--drop-answers", metavar="N", type=int, default=0, help="lose every N-th answer")
    parser.add_argument("--reset-every", metavar="N", type=int, default=0, help="close after N answers")
    options = parser.parse_args()
    if min(options.answer_delay, options.drop_answers, options.reset_every) < 0:
        raise BadInput("--answer-delay, --drop-answers and --reset-every must not be negative")
    world = world_of(options)
    epoch_ns = _epoch_ns(options.epoch, world)
    source = world.parameters.source
    satellite = Satellite(TransmitterStates(world.parameters.seed, source), source, epoch_ns)
    loop = Loop(world.clock)
    server = listen(options.address)
    _serve(server, satellite, loop, options)
    loop.supervise(options)
    announce(address=tcp_address_of(server), epoch_utc=_epoch_text(epoch_ns))
    loop.run()


if __name__ == "__main__":
    run_program(main)
