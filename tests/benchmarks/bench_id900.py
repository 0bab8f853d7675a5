"""How fast the ID900's driver takes tags from real sockets and merges four inputs, beside merely receiving them.

Run as `python tests/benchmarks/bench_id900.py`. A sender of its own, which speaks ZMTP by hand on plain sockets,
stands for the device and its data link and sends one message per input and period of 0.25 s, as the device does: tags
at random with a detector's dead time of 20 ns, of which 2 in 100 join within 1 ns. The figures are CPU time per tag of
the whole receiving process, the threads of ZeroMQ included, and whether it kept up with the sender in real time: the
last tags were given out within a second after they were sent.

What it decided: chunks of 2^15 tags in `id900_protocol._CHUNK`, merged by a stable sort, which finds the runs (9 ns per
tag; numpy's default sort, which does not, takes 40).
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "drivers")]

from hand_zmtp import TimeController  # noqa: E402

from drivers.tagger_id900 import connect  # noqa: E402
from drivers.transport import open_messages  # noqa: E402
from groundstation.clock import SystemClock  # noqa: E402

PERIOD_S = 0.25
DEAD_TIME_PS = 20_000


class Measured(NamedTuple):
    """One way to take the tags: their number, CPU seconds, and wall seconds from the first to the last of them."""

    name: str
    tags: int
    cpu_s: float
    wall_s: float


def send(rate_hz: float, periods: int) -> None:
    """The far end: wait for the acquisition to begin, then send the same tags in every period."""
    device = TimeController()
    rng = np.random.default_rng(5)
    count = int(rate_hz * PERIOD_S / 4)
    span_ps = int(PERIOD_S * 1e12) - 400_000 - count * DEAD_TIME_PS
    messages = {
        n: (np.sort(rng.integers(0, span_ps, count)) + np.arange(count) * DEAD_TIME_PS).astype("<u8").tobytes()
        for n in range(1, 5)
    }
    _say(json.dumps({"address": device.control.address, "settings": device.settings}))
    while device.values.get("REC:STAG") != "PLAYING":
        time.sleep(0.01)
    began = time.monotonic()
    for k in range(periods):
        time.sleep(max(0.0, began + (k + 1) * PERIOD_S - time.monotonic()))
        threads = [threading.Thread(target=device.streams[n].send, args=(message,)) for n, message in messages.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.stdin.read()


def measure(name: str, rate_hz: float, periods: int, take: Callable[[str, dict[str, object], int], int]) -> Measured:
    """Let `take` take all tags of a new sender."""
    command = [sys.executable, __file__, "--send", str(rate_hz), "--periods", str(periods)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        ready = json.loads(sender.stdout.readline())
        wanted = 4 * int(rate_hz * PERIOD_S / 4) * periods
        cpu_s, wall_s = time.process_time(), time.monotonic()
        taken = take(ready["address"], ready["settings"], wanted)
        return Measured(name, taken, time.process_time() - cpu_s, time.monotonic() - wall_s)


def by_driver(address: str, settings: dict[str, object], wanted: int) -> int:
    """`read` until all events are there, some of them of several tags."""
    tagger = connect(address, SystemClock(), {**settings, "period_s": PERIOD_S, "join_ps": 1000})
    taken = 0
    while taken < wanted * 0.95:
        taken += tagger.read(0.05).time_ps.size
    tagger.close()
    return taken


def by_receiving(address: str, settings: dict[str, object], wanted: int) -> int:
    """The messages only."""
    ports = settings["stream_ports"]
    assert isinstance(ports, list)
    streams = [open_messages(f"zmq://127.0.0.1:{port}", "pair", timeout_s=1.0) for port in ports]
    control = open_messages(address, "req", timeout_s=5.0)
    control.query(b"REC:PLAY")
    taken = 0
    while taken < wanted:
        for stream in streams:
            while (message := stream.receive(0.0)) is not None:
                taken += len(message) // 8
    for link in (*streams, control):
        link.close()
    return taken


def copy_ns() -> float:
    """Time of `np.copyto` per int64, of ten million."""
    source = np.arange(10_000_000)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - began)
    return best / source.size * 1e9


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--send", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=20.0, help="million tags per second, all inputs together")
    parser.add_argument("--periods", type=int, default=20, help="sub-acquisitions of 0.25 s")
    options = parser.parse_args()
    if options.send is not None:
        send(options.send, options.periods)
        return
    copying_ns = copy_ns()
    _say(f"sent: {options.rate:g} Mtag/s for {options.periods * PERIOD_S:g} s; one copy {copying_ns:.2f} ns")
    _say(f"{'':18}{'ns/tag':>8}{'Mtag/s':>9}{'x copy':>8}  in real time")
    for name, take in (("receive only", by_receiving), ("driver's read()", by_driver)):
        row = measure(name, options.rate * 1e6, options.periods, take)
        each_ns = row.cpu_s / row.tags * 1e9
        late_s = row.wall_s - options.periods * PERIOD_S
        kept_up = "yes" if late_s < 1.0 else f"no, {late_s:.1f} s late"
        _say(f"{row.name:18}{each_ns:8.1f}{1e3 / each_ns:9.1f}{each_ns / copying_ns:8.1f}  {kept_up}")


if __name__ == "__main__":
    main()
