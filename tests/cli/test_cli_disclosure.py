"""No bit of an undisclosed signal slot of the transmitter is on any wire or in any file of a pass.

The classical channel's bytes are read here from its specification (groundstation/docs/classical-channel.md), not
with the driver's code, and what the transmitter really sent comes from the simulated world.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from flights import FlownPass, instrument, station_text
from numpy.typing import NDArray

from groundstation.config import load_config
from groundstation.recording.reader import Segment, open_recording
from groundstation.simulation.states import TransmitterStates

pytestmark = pytest.mark.slow

_HELLO, _TERMS, _ASK, _ANSWER, _ERROR, _BYE = range(1, 7)
#: Every table that a recording of this program may hold. A new one must be looked at with this test in mind.
_TABLES = {
    "telemetry/path",
    "telemetry/mount",
    "telemetry/detectors",
    "events/events",
    "answers/answers",
    "truth/clicks",
    "truth/tallies",
    "truth/pointing",
}
#: That many bits in a row, packed or one to a byte, do not occur by chance.
_RUN_OF_BITS = 96


class Wire(NamedTuple):
    """What went over the classical channel: slots, the receiver's bases and the answers, (n,) each, and all bytes."""

    slot: NDArray[np.int64]
    basis: NDArray[np.uint8]
    answer: NDArray[np.uint8]
    bytes_out: bytes
    bytes_in: bytes


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlownPass]:
    """A pass whose classical channel is logged byte by byte."""
    folder = tmp_path_factory.mktemp("disclosure")
    setting = f'settings = {{ wire_log = "{folder / "wire.jsonl"}" }}'
    station = instrument(station_text(), "transmitter", "tcp://127.0.0.1:0", "simulate = true", setting)
    running = FlownPass(folder, station, speed=10.0)
    try:
        assert running.wait() == 0, running.stdout
        yield running
    finally:
        running.clean_up()


@pytest.fixture(scope="module")
def wire(flight: FlownPass) -> Wire:
    log = [json.loads(line) for line in (flight.config.parent / "wire.jsonl").read_text().splitlines()]
    out, inward = (b"".join(bytes.fromhex(e["hex"]) for e in log if e.get("direction") == d) for d in ("out", "in"))
    asked = dict(_question(payload) for kind, payload in frames(out) if kind == _ASK)
    answered = dict(_reply(payload) for kind, payload in frames(inward) if kind == _ANSWER)
    assert asked.keys() == answered.keys()
    assert {kind for kind, _ in frames(out)} <= {_HELLO, _ASK, _BYE}
    assert {kind for kind, _ in frames(inward)} <= {_TERMS, _ANSWER, _ERROR}
    return Wire(
        np.concatenate([asked[batch][0] for batch in asked]),
        np.concatenate([asked[batch][1] for batch in asked]),
        np.concatenate([answered[batch] for batch in asked]),
        out,
        inward,
    )


def frames(stream: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(stream):
        length, kind, crc = struct.unpack_from("<IBI", stream, at)
        payload = stream[at + 9 : at + 9 + length]
        assert zlib.crc32(bytes([kind]) + payload) == crc
        yield kind, payload
        at += 9 + length
    assert at == len(stream)


def _question(payload: bytes) -> tuple[int, tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    batch, n, first = struct.unpack_from("<QIQ", payload)
    steps = np.frombuffer(payload, "<u4", n - 1, 20).astype(np.int64)
    packed = np.frombuffer(payload, np.uint8, -1, 20 + 4 * (n - 1))
    assert packed.size == -(-n // 8), "a question holds slots and bases and not a byte more"
    return batch, (first + np.concatenate(([0], np.cumsum(steps))), np.unpackbits(packed, count=n, bitorder="little"))


def _reply(payload: bytes) -> tuple[int, NDArray[np.uint8]]:
    batch, n = struct.unpack_from("<QI", payload)
    answers = np.frombuffer(payload, np.uint8, -1, 12)
    assert answers.size == n
    return batch, answers


@pytest.fixture(scope="module")
def undisclosed_bits(flight: FlownPass, wire: Wire) -> NDArray[np.uint8]:
    """The transmitter's bits of all undisclosed slots that were asked for in its basis, in the order of slots."""
    sent, disclosed = what_was_sent(flight, wire.slot)
    secret = ~disclosed & (sent.basis == wire.basis)
    assert np.count_nonzero(secret) > 100_000
    return sent.bit[secret]


def what_was_sent(flight: FlownPass, slots: NDArray[np.int64]):  # type: ignore[no-untyped-def]  # States, and a mask
    world = load_config(flight.config).simulation
    assert world is not None
    states = TransmitterStates(world.seed, world.source)
    sent = states.of(slots)
    return sent, states.disclosed(slots, sent.intensity)


def test_the_answers_say_what_may_be_said_and_no_more(flight: FlownPass, wire: Wire) -> None:
    sent, disclosed = what_was_sent(flight, wire.slot)
    allowed = (sent.basis == wire.basis).astype(np.uint8)
    allowed |= sent.intensity << 1
    allowed |= disclosed.astype(np.uint8) << 3
    allowed |= np.where(disclosed, sent.bit, 0).astype(np.uint8) << 4
    assert np.array_equal(wire.answer, allowed)


def test_only_a_tenth_of_the_signal_slots_is_disclosed(wire: Wire) -> None:
    signal = wire.answer >> 1 & 3 == 0
    fraction = np.mean(wire.answer[signal] >> 3 & 1)
    assert fraction == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / np.count_nonzero(signal)))
    assert np.all(wire.answer[~signal] >> 3 & 1 == 1)


def test_no_slot_is_asked_for_twice(wire: Wire) -> None:
    assert np.unique(wire.slot).size == wire.slot.size


def test_the_recording_holds_the_answers_of_the_wire_and_no_other(flight: FlownPass, wire: Wire) -> None:
    reader, parts = open_recording(flight.sealed).stream("answers"), []
    while not reader.ended:
        for segment in reader.poll():
            assert isinstance(segment, Segment)
            if "answers" in segment.tables:
                parts.append(segment.tables["answers"])
    slot = np.concatenate([part["slot"] for part in parts])
    answer = np.concatenate([part["answer"] for part in parts])
    assert np.all(answer & 0x18 != 0x10)  # a bit without being disclosed
    order, expected = np.argsort(slot), np.argsort(wire.slot)
    assert np.array_equal(slot[order], wire.slot[expected])
    assert np.array_equal(answer[order], wire.answer[expected])


def test_the_recording_holds_no_table_that_nobody_thought_of(flight: FlownPass) -> None:
    with h5py.File(flight.sealed, "r") as file:
        streams = file["user/groundstation/streams"]
        tables = {f"{s}/{t}" for s in streams for t in streams[s].get("tables", ())}
    assert tables == _TABLES


def test_no_file_and_no_wire_holds_a_run_of_undisclosed_bits(
    flight: FlownPass, wire: Wire, undisclosed_bits: NDArray[np.uint8]
) -> None:
    haystacks = {"wire out": wire.bytes_out, "wire in": wire.bytes_in}
    for path in flight.output.rglob("*"):
        if path.is_file():
            haystacks[path.name] = path.read_bytes()
    haystacks |= datasets(flight.sealed)
    for start in range(0, undisclosed_bits.size - _RUN_OF_BITS, undisclosed_bits.size // 20):
        bits = undisclosed_bits[start : start + _RUN_OF_BITS]
        text = "".join(map(str, bits))
        needles = [bits.tobytes(), text.encode(), ", ".join(text).encode()]
        needles += [
            np.packbits(bits[k:], bitorder=order).tobytes()[:-1] for k in range(8) for order in ("big", "little")
        ]
        for name, content in haystacks.items():
            assert not any(needle in content for needle in needles), f"undisclosed bits in {name}"


def datasets(path: Path) -> dict[str, bytes]:
    """What is compressed in the file."""
    found: dict[str, bytes] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iufbS" and item.shape:
            found[name] = item[()].tobytes()

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return found
