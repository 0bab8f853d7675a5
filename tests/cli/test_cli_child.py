"""Who records must not wait for who reads what it says."""

import fcntl
import os
import time

import pytest

from groundstation.cli.child import Teller


@pytest.fixture
def pipe():
    """Both ends of a pipe of one page."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_everything_is_said_to_who_listens(pipe):
    heard, said = pipe
    teller = Teller(said)
    lines = [f"line {number} ✓" for number in range(50)]
    for line in lines:
        teller.say(line)
    teller.finish()
    assert os.read(heard, 4096).decode().splitlines() == lines


def test_who_does_not_listen_holds_nobody_up_and_hears_the_newest_later(pipe):
    heard, said = pipe
    teller = Teller(said)
    for number in range(5_000):
        teller.say(f"{number:0100d}")
    teller.finish()
    os.set_blocking(heard, False)
    text, deadline = "", time.monotonic() + 30.0
    while f"{4_999:0100d}\n" not in text:
        assert time.monotonic() < deadline
        try:
            text += os.read(heard, 4096).decode()
        except BlockingIOError:
            time.sleep(0.001)
    numbers = [int(line) for line in text.splitlines()]
    assert numbers == sorted(numbers)
    assert len(numbers) < 5_000


def test_nobody_is_told_any_more_when_the_reader_is_gone(pipe):
    heard, said = pipe
    os.close(heard)
    teller = Teller(said)
    for _ in range(1_000):
        teller.say("is anybody there?")
    teller.finish()
