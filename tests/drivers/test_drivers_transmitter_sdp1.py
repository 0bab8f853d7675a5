"""The receiver's end of the classical channel against far ends written from its page."""

import contextlib
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import SocketLine, serving

from drivers import transmitter_sdp1
from drivers.transmitter_sdp1 import (
    FrameDecoder,
    SdpTransmitter,
    connect,
    encode_ask,
    encode_frame,
    encode_hello,
    parse_answer,
    parse_error,
    parse_terms,
)
from groundstation.clock import SystemClock, monotonic_s
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
TERMS = {  # the example of the page
    "protocol": "SDP",
    "version": 1,
    "transmitter": "Micius",
    "epoch_utc": "2016-12-19T16:49:00Z",
    "slot_rate_hz": 100000000,
    "beacon_rate_hz": 10000,
    "intensities": {"signal": 0.8, "decoy": 0.1, "vacuum": 0.0},
    "probabilities": {"signal": 0.5, "decoy": 0.25, "vacuum": 0.25},
    "disclosed_signal_fraction": 0.1,
}


# --- The far end, written from the page with struct alone


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack("<IB", len(payload), kind) + struct.pack("<I", zlib.crc32(bytes([kind]) + payload)) + payload


def frames(line: SocketLine) -> Iterator[tuple[int, bytes]]:
    """What the receiver says, until it goes or says BYE."""
    line.connection.settimeout(10.0)
    data = b""
    while True:
        while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:4], "little")):
            kind, crc, payload = data[4], int.from_bytes(data[5:9], "little"), data[9 : 9 + length]
            assert crc == zlib.crc32(bytes([kind]) + payload)
            data = data[9 + length :]
            if kind == 6:
                return
            yield kind, payload
        try:
            more = line.connection.recv(65536)
        except ConnectionError:
            return
        if not more:
            return
        data += more


def greet(talk: Iterator[tuple[int, bytes]], line: SocketLine) -> None:
    kind, payload = next(talk)
    assert kind == 1
    assert json.loads(payload)["versions"] == [1]
    line.send(frame(2, json.dumps(TERMS).encode()))


def unpack_ask(payload: bytes) -> tuple[int, list[int], list[int]]:
    batch, n, first = struct.unpack_from("<QIQ", payload)
    steps = struct.unpack_from(f"<{n - 1}I", payload, 20)
    packed = payload[20 + 4 * (n - 1) :]
    assert len(packed) == (n + 7) // 8
    slots = [first]
    for step in steps:
        slots.append(slots[-1] + step)
    return batch, slots, [packed[i // 8] >> (i % 8) & 1 for i in range(n)]


def answer_to(payload: bytes) -> bytes:
    """1 (same basis, signal, undisclosed) for basis 0, 10 (other basis, decoy, disclosed, bit 0) for basis 1."""
    batch, _, bases = unpack_ask(payload)
    return frame(4, struct.pack("<QI", batch, len(bases)) + bytes(10 if b else 1 for b in bases))


def refusal(code: str, batch: int | None) -> bytes:
    return frame(5, json.dumps({"code": code, "sentence": "no", "batch": batch}).encode())


def answering(line: SocketLine) -> None:
    talk = frames(line)
    greet(talk, line)
    for kind, payload in talk:
        assert kind == 3
        line.send(answer_to(payload))


def some_slots(n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n, dtype=np.int64) * 1000 + 7, (np.arange(n) % 2).astype(np.uint8)


@contextlib.contextmanager
def connected(*talks: Callable[[SocketLine], None]) -> Iterator[SdpTransmitter]:
    with serving(*talks) as address:
        transmitter = connect(address, CLOCK, {"timeout_s": 2.0})
        assert isinstance(transmitter, SdpTransmitter)
        try:
            yield transmitter
        finally:
            transmitter.close()
            transmitter.close()


def collect(transmitter: SdpTransmitter, n: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    deadline = monotonic_s() + 10.0
    while len(found) < n and monotonic_s() < deadline:
        found |= {answer.batch: answer.answers.tobytes() for answer in transmitter.answers(0.5)}
    return found


# --- The protocol


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=50, unique=True), st.data())
def test_an_ask_reads_back_by_the_page(batch: int, slots: list[int], data: st.DataObject) -> None:
    slots = sorted(slots)
    bases = data.draw(st.lists(st.integers(0, 1), min_size=len(slots), max_size=len(slots)))
    arguments = batch, np.array(slots, np.int64), np.array(bases, np.uint8)
    if np.any(np.diff(arguments[1]) >= 2**32):
        with pytest.raises(BadInput):
            encode_ask(*arguments)
    else:
        sent = encode_ask(*arguments)
        assert sent == frame(3, sent[9:])
        assert unpack_ask(sent[9:]) == (batch, slots, bases)


@pytest.mark.parametrize(
    ("slots", "bases"),
    [([], []), ([3, 3], [0, 0]), ([5, 4], [0, 0]), ([-1], [0]), ([1], [2]), ([1, 2], [0]), (range(65537), [0] * 65537)],
)
def test_an_ask_that_the_page_does_not_allow_is_bad_input(slots: list[int], bases: list[int]) -> None:
    with pytest.raises(BadInput):
        encode_ask(1, np.array(slots, np.int64), np.array(bases, np.uint8))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(data: bytes, cut: int) -> None:
    decoder = FrameDecoder()
    for parse in (
        lambda: [list(decoder.feed(piece)) for piece in (data[:cut], data[cut:])],
        lambda: parse_answer(data),
        lambda: parse_terms(data),
        lambda: parse_error(data),
    ):
        with contextlib.suppress(WireError):
            parse()


@given(st.lists(st.tuples(st.sampled_from([2, 4, 5, 6]), st.binary(max_size=40)), max_size=6), st.integers(1, 30))
def test_any_cut_gives_the_same_frames(messages: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(frame(kind, payload) for kind, payload in messages)
    decoder = FrameDecoder()
    found = [tuple(f) for i in range(0, len(data), size) for f in decoder.feed(data[i : i + size])]
    assert found == messages


@given(st.binary(min_size=1, max_size=50))
def test_answer_bytes_are_checked_bit_by_bit(answers: bytes) -> None:
    payload = struct.pack("<QI", 3, len(answers)) + answers
    allowed = all(b < 32 and (b >> 1 & 3) != 3 and (b & 8 or not b & 16) for b in answers)
    if allowed:
        assert parse_answer(payload).answers.tobytes() == answers
    else:
        with pytest.raises(WireError, match="batch 3"):
            parse_answer(payload)


def test_frames_are_as_the_page_says() -> None:
    assert encode_frame(6, b"") == frame(6, b"")
    assert json.loads(encode_hello("Xinglong")[9:]) == {"protocol": "SDP", "versions": [1], "station": "Xinglong"}


# --- The driver


def test_the_terms_are_learnt_at_connection() -> None:
    with connected(answering) as transmitter:
        terms = transmitter.terms()
        assert (terms.transmitter, terms.slot_rate_hz, terms.beacon_rate_hz) == ("Micius", 100_000_000, 10_000)
        assert terms.epoch_utc_ns == 1_482_166_140_000_000_000
        assert terms.intensities == (0.8, 0.1, 0.0)
        assert terms.probabilities == (0.5, 0.25, 0.25)


def test_every_batch_is_answered_in_the_order_of_its_slots() -> None:
    with connected(answering) as transmitter:
        assert transmitter.answers(0.0) == []
        for batch in range(300):  # more than the 64 that may be unanswered
            transmitter.ask(batch, *some_slots(batch + 1))
        found = collect(transmitter, 300)
        assert transmitter.unanswered == 0
    assert found == {b: bytes(10 if i % 2 else 1 for i in range(b + 1)) for b in range(300)}


def test_never_more_than_64_batches_are_under_way() -> None:
    asked: list[int] = []
    enough = threading.Event()

    def hold_back(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        held = [next(talk)[1] for _ in range(64)]
        line.connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            line.connection.recv(1)
            asked.append(65)
        enough.set()
        for payload in held:
            line.send(answer_to(payload))
        for _, payload in frames(line):
            line.send(answer_to(payload))

    with connected(hold_back) as transmitter:
        for batch in range(100):
            transmitter.ask(batch, *some_slots())
        assert len(collect(transmitter, 100)) == 100
    assert enough.is_set()
    assert asked == []


def test_large_batches_both_ways_do_not_block_each_other() -> None:
    with connected(answering) as transmitter:
        slots, bases = some_slots(65536)
        for batch in range(40):
            transmitter.ask(batch, slots, bases)
        assert len(collect(transmitter, 40)) == 40


def test_a_lost_connection_is_made_again_and_all_unanswered_is_repeated() -> None:
    first: list[bytes] = []

    def hang_up(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        first.extend(next(talk)[1] for _ in range(3))
        line.send(answer_to(first[1])[:11])  # half an answer
        line.close()

    repeated: list[bytes] = []

    def answer_and_note(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        for _, payload in talk:
            repeated.append(payload)
            line.send(answer_to(payload))

    with connected(hang_up, answer_and_note) as transmitter:
        for batch in range(3):
            transmitter.ask(batch, *some_slots())
        assert sorted(collect(transmitter, 3)) == [0, 1, 2]
    assert repeated == first


def test_an_unanswered_question_is_repeated_after_two_seconds() -> None:
    def answer_the_second(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        _, payload = next(talk)
        started = monotonic_s()
        assert next(talk)[1] == payload
        assert monotonic_s() - started > 1.5
        line.send(answer_to(payload) + answer_to(payload))
        for _ in talk:
            pass

    with connected(answer_the_second) as transmitter:
        transmitter.ask(9, *some_slots())
        assert list(collect(transmitter, 1)) == [9]
        assert transmitter.answers(0.1) == []


def test_a_slot_that_was_not_sent_yet_is_asked_for_later() -> None:
    def not_yet(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        for refused, (_, payload) in enumerate(talk):
            line.send(refusal("slot-not-sent", 5) if refused < 2 else answer_to(payload))

    with connected(not_yet) as transmitter:
        transmitter.ask(5, *some_slots())
        assert list(collect(transmitter, 1)) == [5]


def test_a_refused_batch_is_a_fault_and_the_others_go_on() -> None:
    def refuse_one(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        for _, payload in talk:
            batch = unpack_ask(payload)[0]
            line.send(refusal("batch-changed", 1) if batch == 1 else answer_to(payload))

    with connected(refuse_one) as transmitter:
        for batch in range(3):
            transmitter.ask(batch, *some_slots())
        found: dict[int, bytes] = {}
        refused = ""
        while transmitter.unanswered or not refused:
            try:
                found |= {answer.batch: answer.answers.tobytes() for answer in transmitter.answers(0.5)}
            except InstrumentFault as fault:
                refused = str(fault)
        found |= {answer.batch: answer.answers.tobytes() for answer in transmitter.answers(0.0)}
        assert sorted(found) == [0, 2]
        assert "batch-changed" in refused


def test_a_damaged_answer_is_a_wire_error_and_the_batch_is_asked_again() -> None:
    def damage(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        good = answer_to(next(talk)[1])
        line.send(good[:-1] + bytes([good[-1] ^ 1]))
        for _ in talk:
            pass

    with connected(damage, answering) as transmitter:
        transmitter.ask(1, *some_slots())
        with pytest.raises(WireError, match="CRC"):
            collect(transmitter, 1)
        assert list(collect(transmitter, 1)) == [1]


def test_an_answer_of_the_wrong_length_is_a_wire_error() -> None:
    def too_short(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        next(talk)
        line.send(frame(4, struct.pack("<QI", 1, 2) + b"\x01\x01"))
        for _ in talk:
            pass

    with connected(too_short) as transmitter:
        transmitter.ask(1, *some_slots())
        with pytest.raises(WireError, match="2 slots, asked: 5"):
            collect(transmitter, 1)


def test_a_batch_keeps_its_slots() -> None:
    with connected(answering) as transmitter:
        transmitter.ask(1, *some_slots())
        if transmitter.unanswered:
            transmitter.ask(1, *some_slots())  # safe to repeat
            if transmitter.unanswered:
                with contextlib.suppress(BadInput):
                    transmitter.ask(1, *some_slots(4))
        assert list(collect(transmitter, 1)) == [1]


def test_silence_refusal_and_another_service_each_have_their_error() -> None:
    def say_nothing(line: SocketLine) -> None:
        list(frames(line))

    def other_version(line: SocketLine) -> None:
        next(frames(line))
        line.send(refusal("version", None))

    def other_service(line: SocketLine) -> None:
        line.send(b"SSH-2.0-OpenSSH_9.2\r\n")

    with serving(say_nothing) as address, pytest.raises(TransportTimeout, match="no transmitter"):
        connect(address, CLOCK, {"timeout_s": 0.1})
    for talk in (other_version, other_service):
        with serving(talk) as address, pytest.raises(WrongInstrument, match="no SDP transmitter"):
            connect(address, CLOCK, {"timeout_s": 2.0})
    with serving() as address:
        pass
    with pytest.raises(TransportLost):
        connect(address, CLOCK, {})


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(BadInput, match='nearest valid key is "station"'):
        connect("tcp://127.0.0.1:1", CLOCK, {"statoin": "Xinglong"})


@pytest.mark.slow
def test_a_transmitter_that_falls_silent_is_connected_to_anew_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pulled cable closes nothing: the connection looks alive for ever."""
    monkeypatch.setattr(transmitter_sdp1, "_SILENT_S", 0.3)

    def fall_silent(line: SocketLine) -> None:
        talk = frames(line)
        greet(talk, line)
        next(talk)

    with connected(fall_silent, answering) as transmitter:
        transmitter.ask(1, *some_slots())
        assert list(collect(transmitter, 1)) == [1]
