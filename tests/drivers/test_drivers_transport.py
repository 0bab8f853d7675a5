"""One link over three carriers: exact reads, deadlines, and every failure as one of our two errors."""

import contextlib
import json
import socket
import stat
import threading
from pathlib import Path

import pytest
from scripted_far_end import Expect, HangUp, Reply, SocketLine, reply, scripted_pty, serving

from drivers.transport import Link, open_link
from groundstation.clock import monotonic_s
from groundstation.errors import BadInput, TransportLost, TransportTimeout, WireError


def _answer_lines(line: SocketLine) -> None:
    """Sends every line back, until the driver hangs up."""
    line.connection.settimeout(10.0)
    rest = b""
    while data := line.connection.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        line.connection.sendall(b"".join(text + b"\n" for text in lines))


def _stay_silent(line: SocketLine) -> None:
    line.connection.settimeout(10.0)
    while line.connection.recv(65536):
        pass


def test_a_reply_in_pieces_is_read_as_one_on_a_serial_line() -> None:
    with scripted_pty(Expect(b"V"), reply(b"\x04", b"\x29", b"#", pause_s=0.02)) as address:
        link = open_link(address, timeout_s=2.0)
        link.write(b"V")
        assert link.read(3) == b"\x04\x29#"
        link.close()


@pytest.mark.parametrize("spelling", ["serial:{}?baud=115200", "serial://{}?baud=115200", "serial://{}"])
def test_two_glued_replies_are_told_apart(spelling: str) -> None:
    with scripted_pty(Expect(b"ab"), reply(b"one\r\ntwo\r\nrest")) as address:
        link = open_link(spelling.format(address.removeprefix("serial:")), timeout_s=2.0)
        link.write(b"ab")
        assert link.read_until(b"\r\n") == b"one\r\n"
        assert link.read_until(b"\r\n") == b"two\r\n"
        assert link.read(4) == b"rest"
        link.close()


@pytest.mark.parametrize("carrier", ["tcp", "visa"])
def test_a_question_is_answered_over_the_network(carrier: str) -> None:
    with serving(_answer_lines) as address:
        link = open_link(_as_carrier(address, carrier), timeout_s=2.0)
        for number in range(20):
            link.write(b"question %d\n" % number)
            assert link.read_until(b"\n") == b"question %d\n" % number
        link.close()


@pytest.mark.parametrize("carrier", ["tcp", "visa"])
def test_silence_is_a_timeout_that_names_the_address_and_leaves_the_link_out_of_step(carrier: str) -> None:
    with serving(_stay_silent) as address:
        link = open_link(_as_carrier(address, carrier), timeout_s=0.1)
        link.write(b"?")
        with pytest.raises(TransportTimeout, match=r"127\.0\.0\.1.*check"):
            link.read(1)
        assert not link.in_step
        link.close()


def test_what_came_before_a_timeout_is_kept_until_it_is_flushed() -> None:
    with scripted_pty(Expect(b"?"), reply(b"hel")) as address:
        link = open_link(address, timeout_s=0.2)
        link.write(b"?")
        with pytest.raises(TransportTimeout, match="68 65 6c"):
            link.read_until(b"\n")
        assert link.read_available(0.0) == b"hel"
        link.flush_input()
        link.close()


def test_a_serial_line_is_asked_over_visa_too() -> None:
    with scripted_pty(Expect(b"*IDN?\n"), reply(b"SIM", b"900\r\n", pause_s=0.02)) as address:
        link = open_link(f"visa://ASRL{address.removeprefix('serial:')}::INSTR", timeout_s=2.0, baud=115200)
        assert _ask(link, b"*IDN?\n") == b"SIM900\r\n"
        link.close()


def test_an_unplugged_serial_line_is_lost() -> None:
    with scripted_pty(Expect(b"?"), HangUp()) as address:
        link = open_link(address, timeout_s=2.0)
        link.write(b"?")
        with pytest.raises(TransportLost, match="connect again"):
            link.read(1)
        link.close()


def test_what_arrived_before_the_far_end_closed_is_still_read() -> None:
    def last_words(line: SocketLine) -> None:
        line.send(b"bye")
        line.close()

    with serving(last_words) as address:
        link = open_link(address, timeout_s=2.0)
        assert link.read(3) == b"bye"
        with pytest.raises(TransportLost, match="closed it"):
            link.read(1)
        link.close()


def test_a_refused_connection_and_a_missing_line_are_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", "serial:/dev/no-such-line", "serial:///dev/no-such-line"):
        with pytest.raises(TransportLost, match="cannot be opened"):
            open_link(address, timeout_s=1.0)


def test_visa_shows_a_refused_connection_at_the_first_question() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    link = open_link(f"visa://TCPIP0::127.0.0.1::{port}::SOCKET", timeout_s=0.2)  # "opens" a closed port
    with pytest.raises((TransportLost, TransportTimeout)):
        _ask(link, b"*IDN?\n")
    link.close()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "serial:",
        "serial://",
        "visa://",
        "wirelog://",
        "http://h:1",
        "/dev/ttyUSB0",
        "tcp://host",
        "tcp://host:x",
        "tcp://h:1/path",
        "serial:/dev/a?speed=3",
        "udp://h:1",
    ],
)
def test_a_malformed_address_is_bad_input_that_shows_the_forms(address: str) -> None:
    with pytest.raises(BadInput, match="serial://PATH"):
        open_link(address, timeout_s=1.0)


def test_a_closed_link_says_so_and_closes_twice() -> None:
    with serving(_stay_silent) as address:
        link = open_link(address, timeout_s=1.0)
        link.close()
        link.close()
        with pytest.raises(TransportLost, match="is closed"):
            link.write(b"?")


def test_the_answers_of_two_threads_never_cross() -> None:
    crossed: list[tuple[bytes, bytes]] = []
    with serving(_answer_lines) as address:
        link = open_link(address, timeout_s=5.0)

        def ask(name: bytes) -> None:
            for number in range(200):
                question = b"%s %d\n" % (name, number)
                with link.exchange():
                    link.write(question)
                    answer = link.read_until(b"\n")
                if answer != question:
                    crossed.append((question, answer))

        threads = [threading.Thread(target=ask, args=(name,)) for name in (b"first", b"second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        link.close()
    assert crossed == []


def test_two_full_pipes_do_not_block_each_other() -> None:
    flood = bytes(8 << 20)

    def talk_before_listening(line: SocketLine) -> None:
        line.send(flood)
        line.connection.settimeout(10.0)
        left = len(flood)
        while left:
            left -= len(line.connection.recv(1 << 20))

    with serving(talk_before_listening) as address:
        link = open_link(address, timeout_s=10.0)
        link.write(flood)
        assert link.read(len(flood)) == flood
        link.close()


def test_a_far_end_that_takes_nothing_is_a_timeout() -> None:
    stop = threading.Event()
    with serving(lambda line: bool(stop.wait(10.0)) and None) as address:
        link = open_link(address, timeout_s=0.2)
        started = monotonic_s()
        with pytest.raises(TransportTimeout, match="unsent"):
            link.write(bytes(64 << 20))
        assert monotonic_s() - started < 5.0
        link.close()
        stop.set()


def test_the_wire_log_holds_every_byte_and_is_the_owners_alone(tmp_path: Path) -> None:
    log = tmp_path / "wire.jsonl"
    with scripted_pty(Expect(b"Kg"), Reply((b"g#",))) as address:
        link = open_link(address, timeout_s=2.0, log=log)
        link.write(b"Kg")
        link.read(2)
        link.close()
    first, *entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert first["address"] == address
    assert b"".join(bytes.fromhex(e["hex"]) for e in entries if e["direction"] == "out") == b"Kg"
    assert b"".join(bytes.fromhex(e["hex"]) for e in entries if e["direction"] == "in") == b"g#"
    assert [e["t_monotonic_ns"] for e in entries] == sorted(e["t_monotonic_ns"] for e in entries)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_full_disk_ends_the_wire_log_and_not_the_link() -> None:
    with serving(_answer_lines) as address:
        link = open_link(address, timeout_s=5.0, log=Path("/dev/full"))
        assert _ask(link, b"still there?\n") == b"still there?\n"
        link.close()


def test_a_wire_log_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    with serving(_stay_silent) as address, pytest.raises(BadInput, match="wire log"):
        open_link(address, timeout_s=1.0, log=tmp_path / "missing" / "wire.jsonl")


def _as_carrier(address: str, carrier: str) -> str:
    host, port = address.removeprefix("tcp://").split(":")
    return address if carrier == "tcp" else f"visa:TCPIP0::{host}::{port}::SOCKET"


def _ask(link: Link, question: bytes) -> bytes:
    link.write(question)
    return link.read_until(b"\n")


def test_a_far_end_that_never_stops_sending_is_a_wire_error_and_costs_bounded_memory() -> None:
    stop = threading.Event()

    def babble(line: SocketLine) -> None:
        line.connection.settimeout(0.2)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                line.connection.sendall(b"babble " * 100_000)

    def babbling(line: SocketLine) -> None:
        with contextlib.suppress(OSError):  # the driver hangs up
            babble(line)

    with serving(babbling) as address:
        link = open_link(address, timeout_s=20.0)
        with pytest.raises(WireError, match="does not stop sending"):
            link.read_until(b"\n")
        with contextlib.suppress(WireError):  # or it found a moment of silence
            link.flush_input()
        link.close()
        stop.set()
