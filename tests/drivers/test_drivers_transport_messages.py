"""ZeroMQ to an instrument: libzmq and a peer of plain sockets at the far end."""

import contextlib
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from zmtp_peer import ZmtpPeer

from drivers.transport import MessageLink, open_messages
from groundstation.clock import monotonic_s
from groundstation.errors import BadInput, TransportLost, TransportTimeout

zmq = pytest.importorskip("zmq")


@contextlib.contextmanager
def libzmq_rep(answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A REP socket of libzmq; it dies without a word at a question that `answer` answers with None."""
    context = zmq.Context()
    server = context.socket(zmq.REP)
    server.setsockopt(zmq.LINGER, 0)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    end = threading.Event()

    def serve() -> None:
        while not end.is_set():
            if server.poll(10):
                reply = answer(server.recv())
                if reply is None:
                    break
                server.send(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"zmq://127.0.0.1:{port}"
    finally:
        end.set()
        thread.join()
        server.close(0)
        context.term()


@contextlib.contextmanager
def plain_peers(kind: str, *talks: Callable[[ZmtpPeer], None]) -> Iterator[str]:
    """A listening socket that holds one talk per connection, in order; their failures fail the test."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)

        def serve() -> None:
            try:
                for talk in talks:
                    peer = ZmtpPeer(server.accept()[0], kind)
                    talk(peer)
                    peer.close()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"zmq://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(15.0)
    assert not failures, failures
    assert not thread.is_alive()


def answering(*pairs: tuple[bytes, bytes]) -> Callable[[ZmtpPeer], None]:
    def talk(peer: ZmtpPeer) -> None:
        for question, answer in pairs:
            assert peer.take_question() == question
            peer.answer(answer)
        with contextlib.suppress(ConnectionError):  # until the driver hangs up
            peer.take_question()

    return talk


PAIRS = ((b"*IDN?", b"ID900"), (b"DATA?", bytes(800_000)), (b"", b""))


def test_questions_and_answers_with_libzmq() -> None:
    with libzmq_rep(dict(PAIRS).__getitem__) as address:
        link = open_messages(address, "req", timeout_s=5.0)
        assert [link.query(question) for question, _ in PAIRS] == [answer for _, answer in PAIRS]
        link.close()


def test_questions_and_answers_with_a_peer_of_plain_sockets() -> None:
    with plain_peers("REP", answering(*PAIRS)) as address:
        link = open_messages(address, "req", timeout_s=5.0)
        assert [link.query(question) for question, _ in PAIRS] == [answer for _, answer in PAIRS]
        link.close()


def test_a_stream_arrives_message_by_message_and_an_empty_one_is_one() -> None:
    messages = [os.urandom(800_000), b"", b"x" * 255, b"y" * 256]

    def stream(peer: ZmtpPeer) -> None:
        for message in messages:
            peer.send(message)
        with contextlib.suppress(ConnectionError):
            peer._take(1)

    with plain_peers("PAIR", stream) as address:
        link = open_messages(address, "pair", timeout_s=5.0)
        assert [link.receive(5.0) for _ in messages] == messages
        assert link.receive(0.05) is None
        link.close()


def test_the_late_answer_to_an_old_question_is_nobodys() -> None:
    late = threading.Event()

    def too_late(peer: ZmtpPeer) -> None:
        assert peer.take_question() == b"old?"
        late.wait(10.0)
        with contextlib.suppress(OSError):
            peer.answer(b"old")

    with plain_peers("REP", too_late, answering((b"new?", b"new"))) as address:
        link = open_messages(address, "req", timeout_s=0.2)
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            link.query(b"old?")
        late.set()
        assert link.query(b"new?", timeout_s=5.0) == b"new"
        link.close()


def test_a_far_end_that_comes_back_is_found_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    link = open_messages(f"zmq://127.0.0.1:{port}", "req", timeout_s=0.2)
    with pytest.raises(TransportTimeout):
        link.query(b"?")
    context = zmq.Context()
    server = context.socket(zmq.REP)
    server.bind(f"tcp://127.0.0.1:{port}")
    thread = threading.Thread(target=lambda: server.send(server.recv() + b"!"))
    thread.start()
    assert link.query(b"new?", timeout_s=5.0) == b"new?!"
    thread.join()
    link.close()
    server.close(0)
    context.term()


def test_the_answers_of_two_threads_never_cross() -> None:
    with libzmq_rep(lambda question: question) as address:
        link = open_messages(address, "req", timeout_s=10.0)
        crossed: list[bytes] = []

        def ask(name: bytes) -> None:
            for number in range(200):
                question = b"%s %d" % (name, number)
                if link.query(question) != question:
                    crossed.append(question)

        threads = [threading.Thread(target=ask, args=(name,)) for name in (b"first", b"second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        link.close()
        assert crossed == []


def test_a_closed_link_says_so_and_closes_twice() -> None:
    link = open_messages("zmq://127.0.0.1:9", "req", timeout_s=0.1)
    link.close()
    link.close()
    for call in (lambda: link.query(b"?"), lambda: link.receive(0.1)):
        with pytest.raises(TransportLost, match="is closed"):
            call()


def test_a_call_in_another_thread_ends_when_the_link_is_closed() -> None:
    link = open_messages("zmq://127.0.0.1:9", "pair", timeout_s=0.1)
    ended = threading.Event()

    def wait() -> None:
        with contextlib.suppress(TransportLost):
            link.receive(0.5)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    started_s = monotonic_s()
    link.close()
    thread.join()
    assert ended.is_set()
    assert monotonic_s() - started_s < 3.0


@pytest.mark.parametrize("address", ["", "zmq://host", "zmq:host:1", "tcp://h:1", "zmq://h:1/path", "zmq://h:x"])
def test_an_address_that_is_none_is_bad_input(address: str) -> None:
    with pytest.raises(BadInput, match="zmq://HOST:PORT"):
        open_messages(address, "req", timeout_s=1.0)


def test_a_log_that_cannot_be_written_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="wire log"):
        open_messages("zmq://127.0.0.1:9", "req", timeout_s=1.0, log=tmp_path / "missing" / "log")
    gc.collect()  # an open context would complain here


def test_a_logged_talk_and_a_logged_stream_can_be_replayed(tmp_path: Path) -> None:
    log, messages = tmp_path / "wire.jsonl", [b"first", b"", b"last"]

    def ask(link: MessageLink) -> list[bytes]:
        answers = [link.query(question) for question, _ in PAIRS[:2]]
        link.close()
        return answers

    with libzmq_rep(dict(PAIRS).__getitem__) as address:
        told = ask(open_messages(address, "req", timeout_s=5.0, log=log))
    assert ask(open_messages(f"wirelog://{log}", "req", timeout_s=1.0)) == told
    other = open_messages(f"wirelog://{log}", "req", timeout_s=1.0)
    with pytest.raises(TransportLost, match=r"line 2 of the wire log .*b'\*IDN\?'.* now it was b'\*RST'"):
        other.query(b"*RST")
    other.close()

    def stream(peer: ZmtpPeer) -> None:
        for message in messages:
            peer.send(message)
        with contextlib.suppress(ConnectionError):
            peer._take(1)

    streamed = tmp_path / "stream.jsonl"
    with plain_peers("PAIR", stream) as address:
        link = open_messages(address, "pair", timeout_s=5.0, log=streamed)
        assert [link.receive(5.0) for _ in messages] == messages
        link.close()
    link = open_messages(f"wirelog://{streamed}", "pair", timeout_s=1.0)
    assert [link.receive(1.0) for _ in messages] == messages
    with pytest.raises(TransportLost, match="ends here"):
        link.receive(0.1)
    link.close()
