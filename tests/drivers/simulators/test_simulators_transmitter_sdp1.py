"""The satellite's end of the classical channel against docs/classical-channel.md, frames written by hand."""

import json
import socket
import struct
import time
import zlib

import numpy as np
import pytest

from groundstation.core.keyed_random import philox4x32
from groundstation.simulation.parameters import SourceParameters
from groundstation.simulation.states import TransmitterStates

EPOCH = "2016-12-19T16:49:00Z"
EPOCH_NS = 1_482_166_140_000_000_000
SEED = 20161219  # of the default world
HELLO = b'{"protocol": "SDP", "versions": [1], "station": "test"}'


def frame(kind, payload):
    body = bytes([kind]) + payload
    return struct.pack("<I", len(payload)) + bytes([kind]) + struct.pack("<I", zlib.crc32(body)) + payload


def ask(batch, slots, bases):
    slots = np.asarray(slots, np.int64)
    payload = struct.pack("<QIQ", batch, len(slots), slots[0]) + np.diff(slots).astype("<u4").tobytes()
    return frame(3, payload + np.packbits(np.asarray(bases, np.uint8), bitorder="little").tobytes())


class Receiver:
    def __init__(self, program, hello=True):
        self.socket = program.connect()
        self.received = b""
        if hello:
            self.send(frame(1, HELLO))
            kind, payload = self.read()
            assert kind == 2
            self.terms = json.loads(payload)

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """The next message as (type, payload); None at the end of the connection."""
        head = self._take(9)
        if head is None:
            return None
        length, kind, crc = struct.unpack("<IBI", head)
        payload = self._take(length)
        assert zlib.crc32(bytes([kind]) + payload) == crc
        return kind, payload

    def error(self):
        kind, payload = self.read()
        assert kind == 5
        return json.loads(payload)

    def answer(self):
        kind, payload = self.read()
        assert kind == 4, payload
        batch, n = struct.unpack_from("<QI", payload)
        assert len(payload) == 12 + n
        return batch, np.frombuffer(payload, np.uint8, offset=12)

    def silent(self):
        self.socket.settimeout(0.1)
        try:
            return self.read() is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5.0)

    def _take(self, size):
        while len(self.received) < size:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.received += data
        taken, self.received = self.received[:size], self.received[size:]
        return taken


@pytest.fixture
def connect():
    receivers = []

    def make(program, hello=True):
        receivers.append(Receiver(program, hello))
        return receivers[-1]

    yield make
    for receiver in receivers:
        receiver.socket.close()


@pytest.fixture
def satellite(start, fast_clock):
    """A satellite 200 s after its epoch, so twenty billion slots are sent."""
    return lambda *options: start(
        "transmitter_sdp1", "--clock", fast_clock(1, EPOCH_NS + 200 * 10**9), "--epoch", EPOCH, *options
    )


@pytest.fixture(scope="module")
def shared(start_shared):
    """One satellite for the tests that cannot disturb each other."""
    clock = f"{EPOCH_NS + 200 * 10**9}:{time.monotonic_ns()}:1.0"
    return start_shared("transmitter_sdp1", "--clock", clock, "--epoch", EPOCH)


def test_the_terms_are_those_of_the_page(shared, connect):
    assert connect(shared).terms == {
        "protocol": "SDP",
        "version": 1,
        "transmitter": "Micius",
        "epoch_utc": EPOCH,
        "slot_rate_hz": 100_000_000,
        "beacon_rate_hz": 10_000,
        "intensities": {"signal": 0.8, "decoy": 0.1, "vacuum": 0.0},
        "probabilities": {"signal": 0.5, "decoy": 0.25, "vacuum": 0.25},
        "disclosed_signal_fraction": 0.1,
    }


def test_the_epoch_is_the_next_full_minute_unless_given(start, fast_clock, connect):
    program = start("transmitter_sdp1", "--clock", fast_clock(1, EPOCH_NS - 10 * 10**9))
    assert connect(program).terms["epoch_utc"] == program.ready["epoch_utc"] == EPOCH


def test_no_undisclosed_signal_bit_travels_and_all_else_is_true(satellite, connect):
    receiver = connect(satellite())
    random = np.random.default_rng(1)
    slots = np.unique(random.integers(0, 20_000_000_000, 200_000))
    bases = random.integers(0, 2, slots.size).astype(np.uint8)
    wire = b""
    answers = []
    for batch, start in enumerate(range(0, slots.size, 50_000)):
        part = slice(start, start + 50_000)
        receiver.send(ask(batch, slots[part], bases[part]))
        number, bytes_ = receiver.answer()
        assert number == batch
        answers.append(bytes_)
        wire += bytes_.tobytes()
    answer = np.concatenate(answers)
    assert len(wire) == slots.size
    states = TransmitterStates(SEED, SourceParameters())
    sent = states.of(slots)
    matches, intensity, disclosed, bit = answer & 1, answer >> 1 & 3, answer >> 3 & 1, answer >> 4 & 1
    assert not (answer >> 5).any()
    assert not bit[disclosed == 0].any()
    assert disclosed[intensity != 0].all()
    np.testing.assert_array_equal(matches, sent.basis == bases)
    np.testing.assert_array_equal(intensity, sent.intensity)
    np.testing.assert_array_equal(bit[disclosed == 1], sent.bit[disclosed == 1])
    np.testing.assert_array_equal(disclosed.astype(bool), states.disclosed(slots, sent.intensity))
    signal = intensity == 0
    for share, expected in ((signal.mean(), 0.5), ((intensity == 1).mean(), 0.25),
                            (disclosed[signal].mean(), 0.1), (matches.mean(), 0.5)):  # fmt: skip
        assert share == pytest.approx(expected, abs=5 * 0.5 / 100_000**0.5)
    # The hidden bits are really there to hide, and half of them are 1.
    assert sent.bit[disclosed == 0].mean() == pytest.approx(0.5, abs=0.01)


def test_one_slot_is_answered_as_the_generators_words_say(shared, connect):
    """The chain from the random words to the answer byte, once by hand for each of 64 slots."""
    receiver = connect(shared)
    slots = np.arange(1_000_000, 1_000_064)
    receiver.send(ask(9, slots, np.zeros(64)))
    _, answer = receiver.answer()
    state, disclosure = (
        philox4x32(slots.astype(np.uint64), SEED, 1),
        philox4x32(slots.astype(np.uint64), SEED, 2),
    )
    for i in range(64):
        share = int(state[1, i]) / 2**32
        intensity = 0 if share < 0.5 else 1 if share < 0.75 else 2
        shown = intensity != 0 or int(disclosure[0, i]) / 2**32 < 0.1
        basis, bit = int(state[0, i]) & 1, int(state[0, i]) >> 1 & 1
        assert answer[i] == (basis == 0) + 2 * intensity + 8 * shown + 16 * (bit if shown else 0)


def test_a_repeated_ask_gets_the_same_bytes_on_any_connection(satellite, connect):
    program = satellite()
    first, second = connect(program), connect(program)
    request = ask(3, [5, 7, 2**33], [0, 1, 1])
    first.send(request + request)
    answers = [first.read(), first.read()]
    second.send(request)
    assert answers == [second.read()] * 2


def test_a_changed_batch_is_refused_and_the_connection_stays(satellite, connect):
    receiver = connect(satellite())
    receiver.send(ask(3, [5, 7], [0, 1]))
    receiver.answer()
    for changed in (ask(3, [5, 7], [1, 1]), ask(3, [5, 8], [0, 1])):
        receiver.send(changed)
        error = receiver.error()
        assert (error["code"], error["batch"]) == ("batch-changed", 3)
    receiver.send(ask(3, [5, 7], [0, 1]))
    assert receiver.answer()[0] == 3


def test_a_slot_is_only_spoken_of_once_it_is_sent(start, fast_clock, connect):
    program = start("transmitter_sdp1", "--clock", fast_clock(1, EPOCH_NS - 10**9), "--epoch", EPOCH)
    receiver = connect(program)
    receiver.send(ask(0, [0], [0]))
    error = receiver.error()
    assert (error["code"], error["batch"]) == ("slot-not-sent", 0)
    deadline = time.monotonic() + 5
    while receiver.send(ask(0, [0], [0])) or (message := receiver.read())[0] == 5:
        assert time.monotonic() < deadline
    assert message[0] == 4
    receiver.send(ask(1, [1, 2**32], [0, 1]))  # 43 s later
    assert receiver.error()["code"] == "slot-not-sent"
    receiver.send(frame(3, struct.pack("<QIQ", 2, 1, 2**64 - 1) + b"\0"))
    assert receiver.error()["code"] == "slot-not-sent"


MALFORMED = {
    "empty": b"",
    "no slot": struct.pack("<QIQ", 1, 0, 5),
    "too many slots": struct.pack("<QIQ", 1, 65_537, 5) + b"\1\0\0\0" * 65_536 + bytes(8193),
    "no bases": struct.pack("<QIQ", 1, 2, 5) + struct.pack("<I", 1),
    "too long": struct.pack("<QIQ", 1, 2, 5) + struct.pack("<I", 1) + b"\0\0",
    "increment 0": struct.pack("<QIQ", 1, 2, 5) + struct.pack("<I", 0) + b"\0",
    "unused bit": struct.pack("<QIQ", 1, 2, 5) + struct.pack("<I", 1) + b"\4",
}


def test_a_malformed_ask_is_named_and_ends_the_connection(shared, connect):
    program = shared
    for what, payload in MALFORMED.items():
        receiver = connect(program)
        receiver.send(frame(3, payload))
        assert receiver.error()["code"] == "malformed", what
        assert receiver.read() is None, what


def test_other_messages_than_the_page_allows_end_the_connection(shared, connect):
    program = shared
    for early in (ask(1, [5], [0]), frame(4, b""), frame(1, b"[]"), frame(1, b'{"protocol": "SDP"}')):
        receiver = connect(program, hello=False)
        receiver.send(early)
        assert receiver.error()["code"] == "malformed"
        assert receiver.read() is None


def test_no_common_version_is_an_error_and_the_end(shared, connect):
    receiver = connect(shared, hello=False)
    receiver.send(frame(1, b'{"protocol": "SDP", "versions": [2, 3], "station": "test"}'))
    assert receiver.error()["code"] == "version"
    assert receiver.read() is None


def test_a_version_among_others_and_unknown_fields_are_fine(shared, connect):
    receiver = connect(shared, hello=False)
    receiver.send(frame(1, b'{"protocol": "SDP", "versions": [3, 2, 1], "station": "x", "colour": "red"}'))
    assert json.loads(receiver.read()[1])["version"] == 1


def test_broken_frames_end_the_connection(shared, connect):
    program = shared
    whole = ask(1, [5], [0])
    for broken in (
        whole[:5] + bytes([whole[5] ^ 1]) + whole[6:],  # CRC
        whole[:-1] + bytes([whole[-1] ^ 1]),
        frame(7, b""),
        frame(0, b""),
        struct.pack("<I", 1_048_577) + b"\x03",
    ):
        receiver = connect(program)
        receiver.send(broken + bytes(9))
        assert receiver.read() is None
    assert connect(program).terms["version"] == 1


def test_frames_may_arrive_in_any_pieces(shared, connect):
    receiver = connect(shared, hello=False)
    for byte in frame(1, HELLO) + ask(2, [5, 6], [0, 1]):
        receiver.send(bytes([byte]))
    assert receiver.read()[0] == 2
    assert receiver.answer()[0] == 2


def test_bye_is_followed_by_the_end_of_the_connection(shared, connect):
    receiver = connect(shared)
    receiver.send(ask(1, [5], [0]) + frame(6, b""))
    assert receiver.answer()[0] == 1
    assert receiver.read() is None


def test_64_batches_may_wait_for_a_late_satellite_and_no_more(satellite, connect):
    receiver = connect(satellite("--answer-delay", 0.5))
    asked_s = time.monotonic()
    for batch in range(65):
        receiver.send(ask(batch, [batch], [0]))
    receiver.send(ask(0, [0], [0]))  # a repetition is not one more
    error = receiver.error()
    assert (error["code"], error["batch"]) == ("too-many-unanswered", 64)
    assert sorted(receiver.answer()[0] for _ in range(65)) == [0, *range(64)]
    assert time.monotonic() - asked_s >= 0.5
    receiver.send(ask(64, [64], [0]))
    assert receiver.answer()[0] == 64


def test_dropped_answers_come_when_asked_again(satellite, connect):
    receiver = connect(satellite("--drop-answers", 2))
    receiver.send(b"".join(ask(batch, [batch], [0]) for batch in range(4)))
    assert [receiver.answer()[0], receiver.answer()[0]] == [0, 2]
    assert receiver.silent()
    receiver.send(ask(1, [1], [0]))
    assert receiver.answer()[0] == 1


def test_a_reset_link_can_be_opened_again_and_remembers_the_batches(satellite, connect):
    program = satellite("--reset-every", 2)
    receiver = connect(program)
    receiver.send(b"".join(ask(batch, [batch], [0]) for batch in range(4)))
    assert [receiver.answer()[0], receiver.answer()[0]] == [0, 1]
    assert receiver.read() is None
    again = connect(program)
    again.send(ask(0, [0], [1]))
    assert again.error()["code"] == "batch-changed"
    again.send(ask(2, [2], [0]))
    assert again.answer()[0] == 2


def test_a_receiver_that_vanishes_harms_nobody(satellite, connect):
    program = satellite("--answer-delay", 0.2)
    gone, there = connect(program), connect(program)
    gone.send(ask(1, [1], [0]))
    gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.socket.close()
    there.send(ask(1, [1], [0]))
    assert there.answer()[0] == 1


def test_a_million_slots_are_answered_within_seconds(satellite, connect):
    """A fraction of what was measured (4.7 million slots a second on one core): a busy machine passes."""
    receiver = connect(satellite())
    random = np.random.default_rng(2)
    slots = np.cumsum(random.integers(1, 10_000, 1_000_000))
    requests = [ask(b, slots[b * 10_000 : (b + 1) * 10_000], np.zeros(10_000)) for b in range(100)]
    started_s = time.monotonic()
    for batch, request in enumerate(requests):
        receiver.send(request)
        if batch >= 20:
            receiver.answer()
    for _ in range(20):
        receiver.answer()
    assert time.monotonic() - started_s < 4.0
