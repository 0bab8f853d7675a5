"""The programs around the main one: started, listened to, ended, and their last words kept."""

import os
import signal
import sys

import pytest
from operation_samples import eventually

from groundstation.errors import BadInput, GroundStationError
from groundstation.operation import children
from groundstation.operation.children import Child, undisturbed

SAYS_READY = "import json, sys, time\nprint(json.dumps({'ready': True}), flush=True)\n"


@pytest.fixture
def start(tmp_path):
    """Start a Python program given as text; it is ended with the test."""
    started = []

    def start_program(text):
        started.append(Child("the program", [sys.executable, "-c", text], tmp_path / "program.log"))
        return started[-1]

    yield start_program
    for child in started:
        child.end(5.0)


def test_the_first_line_says_that_it_is_ready(start):
    child = start(SAYS_READY + "sys.stdin.read()")
    assert child.wait_ready() == {"ready": True}
    assert child.running
    assert child.exit_code is None
    assert child.pid > 0


def test_the_newest_line_is_its_status_and_what_is_no_json_is_not(start):
    child = start(
        SAYS_READY + "print('noise'); print('[1]'); print(json.dumps({'tags': 7}), flush=True)\nsys.stdin.read()"
    )
    child.wait_ready()
    eventually(lambda: child.status == {"tags": 7})
    assert child.status_age_s < 10.0


def test_a_program_that_ends_before_it_is_ready_is_bad_input_with_its_last_words(start):
    child = start("import sys\nprint('warming up', file=sys.stderr)\nsys.exit('the port 7002 is in use')")
    with pytest.raises(BadInput, match="the program could not start: the port 7002 is in use"):
        child.wait_ready()
    assert child.exit_code == 1


def test_a_program_that_says_nothing_at_all_is_given_up_on(start, monkeypatch):
    monkeypatch.setattr(children, "_READY_TIMEOUT_S", 0.3)
    child = start("import sys; sys.stdin.read()")
    with pytest.raises(GroundStationError, match=r"the program did not become ready within 0 s"):
        child.wait_ready()


def test_a_program_that_spoke_and_ended_at_once_was_ready(start):
    child = start(SAYS_READY)
    assert child.wait_ready() == {"ready": True}
    assert child.join(10.0)
    assert child.exit_code == 0
    assert not child.running


def test_its_last_line_has_been_read_when_it_has_ended(start):
    child = start(SAYS_READY + "sys.stdin.readline()\nprint(json.dumps({'state': 'reported'}), flush=True)")
    child.wait_ready()
    child.say(b"\n")
    assert child.join(10.0)
    assert child.status == {"state": "reported"}


def test_asked_to_end_it_ends_in_good_order(start):
    child = start(
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n".join(("import sys\n", SAYS_READY))
        + "time.sleep(60)"
    )
    child.wait_ready()
    child.ask_to_end()
    assert child.join(10.0)
    assert child.exit_code == 3


def test_a_program_that_will_not_end_is_killed(start):
    child = start("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAYS_READY + "time.sleep(60)")
    child.wait_ready()
    child.end(0.2)
    assert child.exit_code == -signal.SIGKILL


def test_the_end_of_its_stdin_tells_it_that_nobody_is_there(start):
    child = start(SAYS_READY + "sys.stdin.read(); print(json.dumps({'orphaned': True}), flush=True)")
    child.wait_ready()
    child._process.stdin.close()
    assert child.join(10.0)
    assert child.status == {"orphaned": True}


def test_ctrl_c_at_the_terminal_does_not_reach_it(start):
    """It runs in a session of its own."""
    child = start("import os\n" + SAYS_READY + "print(json.dumps({'sid': os.getsid(0)}), flush=True); sys.stdin.read()")
    eventually(lambda: "sid" in child.status)
    assert child.status["sid"] == child.pid


def test_what_is_said_to_a_program_that_is_gone_hurts_nobody(start):
    child = start(SAYS_READY)
    child.join(10.0)
    for _ in range(3):
        child.say(b"h")
    child.ask_to_end()
    assert child.exit_code == 0


def test_ending_twice_is_no_mistake(start):
    child = start(SAYS_READY + "sys.stdin.read()")
    child.wait_ready()
    child.end()
    child.end()
    assert not child.running


def test_last_words_are_the_last_line_of_its_complaints_or_its_exit_code(start, tmp_path):
    silent = start("import sys; sys.exit(4)")
    silent.join(10.0)
    assert silent.last_words() == "it ended with exit code 4 and said nothing"
    talkative = start("import sys; sys.stderr.write('first\\nlast words\\n\\n')")
    talkative.join(10.0)
    assert talkative.last_words() == "last words"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_a_started_program_is_known(number):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = []

    def start_the_program():
        with undisturbed():
            os.kill(os.getpid(), number)
            known.append("the program")

    try:
        with pytest.raises(KeyboardInterrupt):
            start_the_program()
        assert known
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
