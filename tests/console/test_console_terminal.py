"""The view on real streams: a pty that is interrupted, a pipe whose reader leaves, plain files."""

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from console_samples import MID_PASS

from groundstation.console.terminal import TerminalView, style_for

PROGRAM = """
import sys, time
from console_samples import MID_PASS
from groundstation.console.terminal import TerminalView, style_for
assert style_for(sys.stdout) == "rich"
try:
    with TerminalView(sys.stdout, "rich") as view:
        view.message("the mount is parked")
        for _ in range(3):
            view.update(MID_PASS)
        view.message("READY")
        for _ in range(300):
            time.sleep(0.1)  # a signal that comes just before a sleep is seen after it
except KeyboardInterrupt:
    print("interrupted")
"""


def test_plain_style_prints_one_line_per_call_and_nothing_else():
    stream = io.StringIO()
    with TerminalView(stream, "plain") as view:
        view.update(MID_PASS)
        view.message("slewing to\nthe start")
        view.update(replace(MID_PASS, state="ended"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "tracking" in lines[0]
    assert lines[1] == "slewing to the start"
    assert "ended" in lines[2]
    assert "\x1b" not in stream.getvalue()


def test_json_style_prints_one_object_per_call():
    stream = io.StringIO()
    with TerminalView(stream, "json") as view:
        view.update(MID_PASS)
        view.message('quoted "so"')
    snapshot, message = map(json.loads, stream.getvalue().splitlines())
    assert snapshot["mode"] == "SIMULATION"
    assert message == {"message": 'quoted "so"'}


def test_a_file_gets_plain_lines_and_a_machine_json():
    assert style_for(io.StringIO()) == "plain"
    assert style_for(io.StringIO(), machine=True) == "json"


@pytest.mark.parametrize("style", ["plain", "json", "rich"])
def test_a_reader_that_leaves_ends_the_output_and_not_the_pass(style):
    read_end, write_end = os.pipe()
    with open(write_end, "w", encoding="utf-8") as stream, TerminalView(stream, style) as view:
        view.update(MID_PASS)
        os.close(read_end)
        for _ in range(3):
            view.update(MID_PASS)
            view.message("still flying")


@pytest.mark.parametrize("style", ["plain", "json", "rich"])
def test_a_closed_stream_does_not_end_the_pass(style):
    stream = io.StringIO()
    with TerminalView(stream, style) as view:
        view.update(MID_PASS)
        stream.close()
        view.update(MID_PASS)
        view.message("still flying")


def test_ctrl_c_leaves_the_terminal_as_it_was():
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(terminal)
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parent)}
    environment = {name: value for name, value in environment.items() if name not in ("NO_COLOR", "COLUMNS")}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, preexec_fn=_own_terminal(terminal),
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    try:
        shown = _read_until(controller, b"READY")
        os.write(controller, b"\x03")
        shown += _read_until(controller, b"interrupted")
        assert program.wait(10) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        program.kill()
        program.wait()
        os.close(controller)
        os.close(terminal)
    text = shown.decode()
    assert text.index("the mount is parked") < text.index("time left")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor must be visible again"
    assert text.rindex("interrupted") > text.rindex("last event"), "the last view stays above"


def _own_terminal(terminal):
    """Makes the pty the child's controlling terminal, so that Ctrl-C on it becomes a SIGINT."""

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may have it ignored
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return prepare


def _read_until(controller, sign):
    shown, deadline = b"", time.monotonic() + 15
    while sign not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([controller], [], [], 0.2)[0]:
            with suppress(OSError):
                shown += os.read(controller, 65536)
    return shown
