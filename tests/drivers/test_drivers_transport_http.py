"""HTTP to an instrument: the standard library's server and hand-made ones at the far end."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_far_end import SocketLine, serving

from drivers.transport import open_http
from drivers.transport.wire_log import read_wire_log
from groundstation.clock import monotonic_s
from groundstation.errors import BadInput, TransportLost, TransportTimeout, WireError


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what was asked, as JSON; HTTP/1.0, so the end of the connection ends the answer."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = {"method": self.command, "path": self.path, "form": self.rfile.read(length).decode()}
        self.send_response(404 if self.path.startswith("/nowhere") else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_PUT = do_POST = do_GET  # noqa: N815  the names that the library calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def answering(*pieces: bytes) -> Callable[[SocketLine], None]:
    """A far end that waits for a request, answers with these bytes and hangs up."""

    def talk(line: SocketLine) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += line.receive()
        for piece in pieces:
            line.send(piece)
        line.close()

    return talk


def as_http(address: str) -> str:
    return address.replace("tcp:", "http:")


def test_a_question_with_spaces_and_its_answer(server: str) -> None:
    link = open_http(server, timeout_s=5.0)
    reply = link.request("GET", "/mount/follow_tle", {"line1": "MICIUS 1", "line2": "a+b&c"})
    assert reply.status == 200
    assert json.loads(reply.body)["path"] == "/mount/follow_tle?line1=MICIUS%201&line2=a%2Bb%26c"
    link.close()


def test_a_form_is_the_body_of_a_put(server: str) -> None:
    link = open_http(server, timeout_s=5.0)
    asked = json.loads(link.request("PUT", "/moveaxis", form={"Axis": "0", "Rate": "-0.5"}).body)
    assert (asked["method"], asked["form"]) == ("PUT", "Axis=0&Rate=-0.5")
    assert json.loads(link.request("PUT", "/stop", form={}).body)["form"] == ""
    link.close()


def test_an_error_code_is_an_answer_like_any_other(server: str) -> None:
    link = open_http(server, timeout_s=5.0)
    assert link.request("GET", "/nowhere").status == 404
    link.close()


def test_the_answers_of_two_threads_never_cross(server: str) -> None:
    link = open_http(server, timeout_s=10.0)
    crossed = []

    def ask(name: str) -> None:
        for number in range(200):
            path = f"/{name}/{number}"
            if json.loads(link.request("GET", path).body)["path"] != path:
                crossed.append(path)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    link.close()
    assert crossed == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n3\r\none\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\ndone",
    ],
)
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes) -> None:
    for pieces in ([answer], [answer[i : i + 1] for i in range(len(answer))]):
        with serving(answering(*pieces)) as address:
            link = open_http(as_http(address), timeout_s=5.0)
            assert link.request("GET", "/") == (200, b"done")
            link.close()


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", WireError, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndone", TransportLost, "in the middle of its answer"),
        (b"HTTP/1.1 200", TransportLost, "in the middle of its answer"),
        (b"", TransportLost, "hung up without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", WireError, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(9 << 20), WireError, "does not stop sending"),
    ],
    ids=["no HTTP", "short body", "short head", "nothing", "length", "babble"],
)
def test_what_is_no_answer_is_one_of_our_errors(answer: bytes, error: type[Exception], sentence: str) -> None:
    with serving(answering(answer)) as address:
        link = open_http(as_http(address), timeout_s=5.0)
        with pytest.raises(error, match=sentence):
            link.request("GET", "/")
        link.close()


def test_silence_is_a_timeout_and_the_late_answer_is_nobodys() -> None:
    asked, late = threading.Event(), threading.Event()

    def too_late(line: SocketLine) -> None:
        asked.set()
        late.wait(10.0)
        answering(b"HTTP/1.0 200 OK\r\n\r\nold")(line)

    with serving(too_late, answering(b"HTTP/1.0 200 OK\r\n\r\nnew")) as address:
        link = open_http(as_http(address), timeout_s=5.0)
        started_s = monotonic_s()
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            link.request("GET", "/", timeout_s=0.2)
        assert 0.2 <= monotonic_s() - started_s < 2.0
        late.set()
        assert link.request("GET", "/").body == b"new"
        link.close()


def test_a_drip_of_bytes_does_not_extend_the_deadline() -> None:
    stop = threading.Event()

    def drip(line: SocketLine) -> None:
        while not stop.wait(0.02):
            with contextlib.suppress(OSError):
                line.connection.sendall(b"H")

    with serving(drip) as address:
        link = open_http(as_http(address), timeout_s=0.3)
        started_s = monotonic_s()
        with pytest.raises((TransportTimeout, WireError)):
            link.request("GET", "/")
        assert monotonic_s() - started_s < 2.0
        stop.set()
        link.close()


def test_a_closed_link_says_so_and_a_request_in_another_thread_ends() -> None:
    asked, end = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def silent(line: SocketLine) -> None:
        while not line.receive():
            pass
        asked.set()
        end.wait(10.0)

    with serving(silent) as address:
        link = open_http(as_http(address), timeout_s=10.0)

        def ask() -> None:
            try:
                link.request("GET", "/")
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10.0)
        link.close()
        link.close()
        thread.join(2.0)
        assert not thread.is_alive()
        end.set()
    assert isinstance(errors[0], TransportLost)
    with pytest.raises(TransportLost, match="is closed"):
        link.request("GET", "/")


@pytest.mark.parametrize("request_", [("GE T", "/"), ("GET", "/a b"), ("GET", "/\u00e9")])
def test_what_http_cannot_carry_is_bad_input(server: str, request_: tuple[str, str]) -> None:
    link = open_http(server, timeout_s=5.0)
    with pytest.raises(BadInput, match="is no request of HTTP"):
        link.request(*request_)
    link.close()


@pytest.mark.parametrize("address", ["", "http://host", "https://h:1", "http://h:1/path", "tcp://h:1", "http://h:x"])
def test_an_address_that_is_none_is_bad_input(address: str) -> None:
    with pytest.raises(BadInput, match="http://HOST:PORT"):
        open_http(address, timeout_s=1.0)


def test_a_logged_talk_can_be_replayed_with_the_same_answers(server: str, tmp_path: Path) -> None:
    log = tmp_path / "wire.jsonl"

    def talk(address: str, log: Path | None = None) -> list[tuple[int, bytes]]:
        link = open_http(address, timeout_s=2.0, log=log)
        paths = ("/status", "/nowhere", "/status")
        answers = [*(link.request("GET", path) for path in paths), link.request("PUT", "/x", form={"a": "1"})]
        link.close()
        return [tuple(answer) for answer in answers]

    told = talk(server, log)
    assert [piece.direction for piece in read_wire_log(log)[1]] == ["out", "in"] * 4
    started_s = monotonic_s()
    assert talk(f"wirelog://{log}") == told
    assert monotonic_s() - started_s < 1.0  # no answer is waited for that the log does not have
    link = open_http(f"wirelog://{log}", timeout_s=1.0)
    with pytest.raises(TransportLost, match=r"line 2 of the wire log .*GET /stat"):
        link.request("GET", "/stop")
    link.close()
