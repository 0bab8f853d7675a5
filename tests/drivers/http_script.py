"""A scripted HTTP instrument on a real loopback socket: requests that must come, in order, and what answers them."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What came: `line` is method and target (decoded), `form` the body (decoded)."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]

    @property
    def line(self) -> str:
        return " ".join([self.method, self.path, *(f"{k}={v}" for k, v in {**self.query, **self.form}.items())])


Answer = tuple[int, bytes] | Callable[[Request], tuple[int, bytes]]


@dataclass
class Script:
    """Steps (request line, answer); a `None` line takes any request."""

    steps: list[tuple[str | None, Answer]]
    shown: Callable[[Request], str] = lambda request: request.line
    for_ever: bool = False  # the last step answers whatever comes after it
    done: int = 0
    failures: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, bytes]:
        if self.for_ever and self.done == len(self.steps):
            self.done -= 1
        if self.done == len(self.steps):
            self.failures.append(f"{self.shown(request)!r} came after the end of the script")
            return 500, b"end of script"
        wanted, answer = self.steps[self.done]
        if wanted is not None and wanted != self.shown(request):
            self.failures.append(f"expected {wanted!r}, got {self.shown(request)!r}")
            return 500, b"not in the script"
        self.done += 1
        return answer(request) if callable(answer) else answer


@contextlib.contextmanager
def scripted_http(script: Script) -> Iterator[str]:
    """The address; fails at the end when a step was not used."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode("ascii")
            query, form = ({k: v[0] for k, v in parse_qs(text).items()} for text in (parts.query, body))
            status, answer = script.answer(Request(self.command, unquote(parts.path), query, form))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = handle_any  # noqa: N815  the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test says what went wrong."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
    assert not script.failures, script.failures
    assert script.done == len(script.steps), f"unused: {script.steps[script.done :]}"


def alpaca(value: object = None, error: int = 0, message: str = "", off_by: int = 0) -> Answer:
    """An Alpaca answer to whatever transaction asked (`off_by`: to another one)."""

    def answer(request: Request) -> tuple[int, bytes]:
        transaction = int({**request.query, **request.form}["ClientTransactionID"]) + off_by
        fields = {"ClientTransactionID": transaction, "ServerTransactionID": 7, "ErrorNumber": error}
        return 200, json.dumps({**fields, "ErrorMessage": message, "Value": value}).encode()

    return answer


def without_client(request: Request) -> str:
    """An Alpaca request without path prefix, client and transaction."""
    rest = {k: v for k, v in {**request.query, **request.form}.items() if not k.startswith("Client")}
    return " ".join([request.method, request.path.rsplit("/", 1)[1], *(f"{k}={v}" for k, v in rest.items())])
