"""Questions and answers over a real line that falls silent, lies once, breaks, or speaks to several threads."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted_far_end import Expect, HangUp, Wait, reply, scripted_pty, serving

from drivers.conversation import Conversation, ask_until_answered, skip_late_answers
from drivers.transport import open_link
from groundstation.errors import TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import Identity

WHO, IT_IS_ME = b"who\n", b"me\n"


class Device:
    """The smallest driver: lines, and a question that only `me` answers."""

    def __init__(self, address, timeout_s):
        self.link = open_link(address, timeout_s=timeout_s)
        self.talk = Conversation(self.link, lambda: self.read(WHO), self.get_into_step)

    def get_into_step(self):
        skip_late_answers(self.link, WHO, b"\n", lambda line: line == IT_IS_ME, "me")

    def read(self, question, attempts=2):
        return self.talk.ask(question, lambda: self.link.read_until(b"\n"), attempts)

    def number(self):
        def read():
            line = self.link.read_until(b"\n")
            if not line[:-1].isdigit():
                raise WireError(f"{line!r} is no number")
            return int(line)

        return self.talk.ask(b"n?\n", read)


@contextlib.contextmanager
def device(*steps, timeout_s=0.3):
    with scripted_pty(*steps) as address:
        found = Device(address, timeout_s)
        with contextlib.closing(found.link):
            yield found


def test_a_late_answer_is_not_taken_for_the_next_one():
    late = threading.Event()
    asks, again = Expect(b"a?\n"), Expect(b"b?\n")
    with device(asks, Wait(late), reply(b"a\n"), Expect(WHO), reply(IT_IS_ME), again, reply(b"b\n")) as it:
        with pytest.raises(TransportTimeout):
            it.read(b"a?\n", attempts=1)
        late.set()
        assert it.read(b"b?\n") == b"b\n"


def test_a_garbled_answer_is_asked_for_once_more_and_only_once():
    bad, who = (Expect(b"n?\n"), reply(b"1x\n")), (Expect(WHO), reply(IT_IS_ME))
    with device(*bad, *who, Expect(b"n?\n"), reply(b"17\n")) as it:
        assert it.number() == 17
    with device(*bad, *who, *bad) as it, pytest.raises(WireError, match="no number"):
        it.number()


def test_settings_are_believed_when_two_answers_agree():
    with device(*(step for n in (b"12\n", b"1\n", b"12\n") for step in (Expect(b"n?\n"), reply(n)))) as it:
        assert it.talk.agreed(it.number, "n?") == 12
    with (
        device(*(step for n in (b"1\n", b"2\n", b"3\n", b"4\n") for step in (Expect(b"n?\n"), reply(n)))) as it,
        pytest.raises(WireError, match="never twice the same"),
    ):
        it.talk.agreed(it.number, "n?")


def test_a_broken_link_is_made_again_and_whoever_is_there_proves_itself():
    def first(line):
        assert line.receive() == b"a?\n"
        line.close()

    def second(line):
        received = b""
        while WHO not in received:
            received += line.receive()
        line.send(IT_IS_ME)
        while not received.endswith(WHO + WHO):  # into step first, then its identity
            received += line.receive()
        line.send(IT_IS_ME)
        while not received.endswith(b"b?\n"):
            received += line.receive()
        line.send(b"b\n")

    with serving(first, second) as address:
        it = Device(address, 1.0)
        with contextlib.closing(it.link):
            with pytest.raises(TransportLost):
                it.read(b"a?\n")
            assert it.read(b"b?\n") == b"b\n"


def test_another_instrument_is_not_the_one_that_was_recognised():
    with device() as it:
        one = Identity("Mount", "1.0", "7")
        assert it.talk.recognise(one) is one
        it.talk.recognise(Identity("Mount", "1.1", "7"))  # new firmware is the same instrument
        with pytest.raises(WrongInstrument, match="Mount 8, it was Mount 7"):
            it.talk.recognise(Identity("Mount", "1.0", "8"))
        assert it.talk.known is one


def test_the_answers_of_threads_are_not_crossed():
    questions = [b"%d?\n" % n for n in range(200)]

    def echo(line):
        received, told = b"", 0
        while told < len(questions):
            received += line.receive()
            *whole, received = received.split(b"\n")
            for question in whole:
                line.send(question + b"\n")
                told += 1

    with serving(echo) as address:
        it = Device(address, 5.0)
        with contextlib.closing(it.link), ThreadPoolExecutor(8) as threads:
            assert list(threads.map(it.read, questions)) == questions


def test_getting_into_step_ends_in_time_whatever_is_there():
    with device(Expect(WHO), reply(b"you\n")) as it:
        it.link.mark_in_step(False)
        with pytest.raises(WireError, match="expected me"):
            it.read(b"a?\n")
    with device(Expect(WHO)) as it:
        it.link.mark_in_step(False)
        with pytest.raises(TransportTimeout):
            it.read(b"a?\n")
    for heard, error in ((b"", TransportTimeout), (b"noise", WireError)):
        with device() as it, pytest.raises(error):
            ask_until_answered(it.link, lambda _deadline_s, heard=heard: heard, "who?", "device")


def test_a_line_that_hangs_up_is_lost_and_stays_so_for_a_moment():
    with device(Expect(b"a?\n"), HangUp()) as it:
        for _ in range(2):
            with pytest.raises(TransportLost):
                it.read(b"a?\n", attempts=1)
