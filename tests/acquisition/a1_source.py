"""A TDC2's reader program for the tests: counted tags as a1 words over TCP, in real time, to one client after another.

`python a1_source.py RATE_HZ [FIRST_S]` prints its port. Its time goes on whether anybody listens or not; within one
connection no tag is left out.
"""

import socket
import sys
import threading
import time

from acquisition_samples import Counted

_TURN_S = 0.002


def main() -> None:
    rate_hz = int(sys.argv[1])
    tags, began_s = Counted(rate_hz), time.monotonic() - 10.0
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)  # noqa: T201  the parent reads it
    while True:
        client, _ = server.accept()
        with client:
            serve(client, tags, began_s)


def serve(client: socket.socket, tags: Counted, began_s: float) -> None:
    """Until the client is gone."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    number = int((time.monotonic() - began_s) * tags.rate_hz)
    try:
        while True:
            due = int((time.monotonic() - began_s) * tags.rate_hz)
            count = min(due - number, 200_000)
            if count > 0:
                client.sendall(tags.words(number, count))
                number += count
            time.sleep(_TURN_S)
    except OSError:
        return


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
