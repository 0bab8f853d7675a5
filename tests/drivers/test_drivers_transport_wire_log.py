"""What a link wrote down can take the place of the instrument, and nothing else than that can."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_proxy import simulator
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, reply, scripted_pty

from drivers import detector_spd, mount_nexstar, transmitter_sdp1
from drivers.detector_spd import SpdDetector, SpdSettings
from drivers.transport import Link, open_link
from drivers.transport.ports import ReplayPort
from drivers.transport.wire_log import Piece, Replay, WireLog, read_wire_log
from groundstation.clock import SystemClock, monotonic_s
from groundstation.errors import BadInput, GroundStationError, TransportLost, TransportTimeout

CLOCK = SystemClock()


def detector_talk(address: str, settings: dict[str, object]) -> list[object]:
    detector = detector_spd.connect(address, CLOCK, settings)
    try:
        detector.set_bias_v(200.0)
        return [detector.identify(), detector.bias_v(), detector.threshold_v(), detector.counts(0.01)]
    finally:
        detector.close()


def mount_talk(address: str, settings: dict[str, object]) -> list[object]:
    mount = mount_nexstar.connect(address, CLOCK, settings)
    try:
        told = [mount.identify(), mount.is_slewing()]
        for azimuth_deg in (3.0, 3.1):
            mount.go_to(azimuth_deg, 1.0)
            reading = mount.read_position()
            told += [reading.azimuth_deg, reading.elevation_deg]
        mount.stop()
        return told
    finally:
        mount.close()


def transmitter_talk(address: str, settings: dict[str, object]) -> list[object]:
    transmitter = transmitter_sdp1.connect(address, CLOCK, settings)
    try:
        slots = np.arange(5, dtype=np.int64)
        transmitter.ask(1, slots, (slots % 2).astype(np.uint8))
        return [transmitter.terms(), *(answer.answers.tolist() for answer in transmitter.answers(5.0))]
    finally:
        transmitter.close()


@pytest.mark.parametrize(
    ("program", "arguments", "talk"),
    [
        ("detector_spd", (), detector_talk),
        ("mount_nexstar", (), mount_talk),
        ("mount_nexstar", ("--address", "tcp://127.0.0.1:0"), mount_talk),
        ("transmitter_sdp1", ("--epoch", "2016-12-19T16:49:00Z"), transmitter_talk),
    ],
    ids=["detector, pty", "mount, pty", "mount, TCP", "transmitter, TCP"],
)
def test_the_log_of_a_driver_with_its_simulator_gives_the_same_answers(
    tmp_path: Path, program: str, arguments: tuple[str, ...], talk: Callable[[str, dict[str, object]], list[object]]
) -> None:
    log, again = tmp_path / "wire.jsonl", tmp_path / "again.jsonl"
    with simulator(program, *arguments) as address:
        told = talk(address, {"wire_log": str(log)})
    assert talk(f"wirelog://{log}", {"wire_log": str(again)}) == told
    assert _both_directions(log) == _both_directions(again)


def _both_directions(log: Path) -> tuple[bytes, bytes]:
    _, pieces = read_wire_log(log)
    out, came = (b"".join(p.data for p in pieces if p.direction == way) for way in ("out", "in"))
    return out, came


@contextlib.contextmanager
def logged(tmp_path: Path, *pieces: tuple[str, bytes]) -> Iterator[Path]:
    path = tmp_path / "by-hand.jsonl"
    lines = [{"address": "serial:///dev/x"}, *({"direction": way, "hex": data.hex()} for way, data in pieces)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    yield path


IDENTITY = (("out", b"*IDN?\r\n"), ("in", b"S-Fifteen,SPD,1,2\r\n"))


def test_other_bytes_than_were_recorded_end_the_link_and_are_named(tmp_path: Path) -> None:
    with logged(tmp_path, *IDENTITY, ("out", b"hvolt?\r\n"), ("in", b"200\r\n")) as log:
        detector = detector_spd.connect(f"wirelog://{log}", CLOCK, {})
        with pytest.raises(TransportLost, match=r"line 4 .*b'hvolt\?\\r\\n' was sent then, now it was b'temp\?\\r\\n'"):
            detector.temperature_c()
        detector.close()


def test_a_question_after_the_end_of_the_log_is_named(tmp_path: Path) -> None:
    with logged(tmp_path, *IDENTITY) as log:
        detector = detector_spd.connect(f"wirelog://{log}", CLOCK, {})
        with pytest.raises(TransportLost, match=r"ends here, but b'temp\?\\r\\n' was sent"):
            detector.temperature_c()
        detector.close()


def test_lines_that_were_not_used_can_be_seen(tmp_path: Path) -> None:
    with logged(tmp_path, *IDENTITY, ("out", b"temp?\r\n"), ("in", b"-20\r\n"), ("in", b"late")) as log:
        replay = Replay(log)
        detector = SpdDetector(Link("wirelog", ReplayPort(replay), 1.0), CLOCK, SpdSettings())
        assert replay.unused == (2, 3, 4, 5, 6)
        detector.identify()
        assert replay.unused == (4, 5, 6)
        assert detector.temperature_c() == -20.0
        assert replay.unused == (6,)


def test_silence_is_replayed_as_silence(tmp_path: Path) -> None:
    with logged(tmp_path, ("out", b"?"), ("out", b"again?"), ("in", b"yes")) as log:
        link = open_link(f"wirelog:{log}", timeout_s=0.1)
        link.write(b"?")
        started_s = monotonic_s()
        with pytest.raises(TransportTimeout):
            link.read(1)
        assert monotonic_s() - started_s >= 0.1
        link.write(b"again?")
        assert link.read(3) == b"yes"
        with pytest.raises(TransportLost, match="ends here"):
            link.read(1)


@given(cuts=st.lists(st.integers(1, 5), max_size=12), data=st.data())
def test_how_the_sent_bytes_are_cut_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], data: st.DataObject
) -> None:
    sent = bytes(range(sum(cuts) + 1))
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.unlink(missing_ok=True)
    log = WireLog(path, "tcp://h:1")
    rest = sent
    for cut in cuts:
        log.record("out", rest[:cut])
        rest = rest[cut:]
    log.record("out", rest)
    log.record("in", b"answer")
    log.close()
    replay = Replay(path)
    while sent:
        assert replay.receive(0.0) is None
        size = data.draw(st.integers(1, len(sent)))
        replay.send(sent[:size])
        sent = sent[size:]
    assert replay.receive(0.0) == b"answer"
    assert replay.unused == ()


def test_two_sessions_in_one_file_are_replayed_one_after_the_other(tmp_path: Path) -> None:
    log = tmp_path / "wire.jsonl"
    for answer in (b"one", b"two"):
        with scripted_pty(Expect(b"?"), reply(answer)) as address:
            link = open_link(address, timeout_s=2.0, log=log)
            link.write(b"?")
            link.read(3)
            link.close()
    link = open_link(f"wirelog://{log}", timeout_s=1.0)
    for answer in (b"one", b"two"):
        link.write(b"?")
        assert link.read(3) == answer


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "3",
        '{"direction": "out"}',
        '{"direction": "up", "hex": ""}',
        '{"direction": "in", "hex": "0g"}',
    ],
)
def test_a_file_that_is_no_wire_log_is_bad_input_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"address": "tcp://h:1"}\n' + text + "\n")
    with pytest.raises(BadInput, match="line 2 is no line of a wire log"):
        open_link(f"wirelog://{path}", timeout_s=1.0)


def test_a_wire_log_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        open_link(f"wirelog://{tmp_path}/absent.jsonl", timeout_s=1.0)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_wire_log_or_bad_input(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    with contextlib.suppress(GroundStationError):
        assert all(isinstance(piece, Piece) for piece in read_wire_log(path)[1])


@pytest.mark.parametrize(
    ("program", "connect", "questions"),
    [
        ("detector_spd", detector_spd.connect, (("threshold_v", 0.5), ("temperature_setpoint_c", -20.0))),
        ("mount_nexstar", mount_nexstar.connect, (("identify", "SLT"), ("is_slewing", False))),
    ],
)
def test_the_answers_to_two_threads_at_one_driver_never_cross(
    program: str, connect: Callable[..., Any], questions: tuple[tuple[str, object], ...]
) -> None:
    crossed: list[object] = []
    # The world runs fast, so that a line at 9600 baud does.
    with simulator(program, "--clock", "0:0:50.0") as address:
        instrument = connect(address, CLOCK, {})

        def ask(question: str, expected: object) -> None:
            for _ in range(200):
                answer = getattr(instrument, question)()
                if getattr(answer, "model", answer) != expected:
                    crossed.append(answer)

        threads = [threading.Thread(target=ask, args=pair) for pair in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        instrument.close()
    assert crossed == []
