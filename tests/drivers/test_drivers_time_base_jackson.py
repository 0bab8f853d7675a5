"""The oscillator's driver against a recording of an LN Rb GPSDO and the tables of the manuals, on a pseudo-terminal."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, Reply, SocketLine, Step, reply, scripted_pty, serving

from drivers.time_base_jackson import (
    connect,
    find_reply,
    health_text,
    parse_flag,
    parse_float,
    parse_health,
    parse_holdover,
    parse_identity,
    parse_three,
    utc_ns,
)
from groundstation.clock import SystemClock
from groundstation.errors import InstrumentFault, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import TimeBaseStatus

CLOCK = SystemClock()
IDENTITY = b"Jackson Labs, LN Rb GPSDO (PRE), Firmware Rev 1.17"
RECORDED = {
    b"*IDN?": IDENTITY,
    b"SYNC:LOCK?": b"1",
    b"SYNC:HOLD:DUR?": b"150,0",
    b"SYNC:HEA?": b"0x0",
    b"SYNC:TINT?": b"6.763E-08",
    b"SYNC:FEE?": b"1.31E-11",
    b"PTIM:LEAP:ACC?": b"18",
    b"PTIM:DATE?": b"2026,9,2",
    b"PTIM:TIME?": b"7,46,13",
}


def oscillator(answers: dict[bytes, bytes], before: bytes = b"", after: bytes = b"\r\n", echo: bool = False):
    """A far end that answers each line from a table, b"" with nothing at all."""

    def talk(line: SocketLine) -> None:
        line.connection.settimeout(10.0)
        rest = b""
        while data := line.connection.recv(4096):
            *lines, rest = (rest + data).split(b"\r\n")
            for question in lines:
                answer = answers[question]
                if answer:
                    said = (question + b"\r\n" if echo else b"") + before + answer + after
                    line.connection.sendall(said)

    return talk


def status_of(answers: dict[bytes, bytes], **how) -> TimeBaseStatus:
    with (
        serving(oscillator(answers, **how)) as address,
        contextlib.closing(connect(address, CLOCK, {"timeout_s": 1.0})) as time_base,
    ):
        return time_base.status()


def test_the_recorded_answers_are_a_locked_time_base() -> None:
    found = status_of(RECORDED)
    moment = datetime(2026, 9, 2, 7, 46, 13, tzinfo=UTC)
    assert found == TimeBaseStatus(
        locked=True,
        in_holdover=False,
        utc_ns=round(moment.timestamp()) * 10**9,
        offset_ns=pytest.approx(67.63),
        frequency_error=1.31e-11,
        leap_s=18,
    )


@pytest.mark.parametrize("how", [{"after": b"\r\nscpi > "}, {"echo": True}, {"before": b"\r\n", "after": b"\r\n\r\n"}])
def test_prompt_echo_and_blank_lines_do_not_matter(how) -> None:
    assert status_of(RECORDED, **how) == status_of(RECORDED)


def test_identity_lock_and_health_byte_for_byte() -> None:
    steps: list[Step] = [Expect(b"*IDN?\r\n"), reply(IDENTITY[:9], IDENTITY[9:] + b"\r\n", pause_s=0.02)]
    for question, answer in list(RECORDED.items())[1:7]:
        steps += [Expect(question + b"\r\n"), reply(answer + b"\r\n")] * 2
    for question in (b"PTIM:DATE?", b"PTIM:TIME?") * 2:
        steps += [Expect(question + b"\r\n"), reply(RECORDED[question] + b"\r\n")]
    with scripted_pty(*steps, Expect(b"*IDN?\r\n"), reply(IDENTITY + b"\r\n")) as address:
        time_base = connect(address, CLOCK, {})
        assert time_base.status().locked
        identity = time_base.identify()
        assert (identity.model, identity.firmware) == ("Jackson Labs LN Rb GPSDO (PRE)", "Firmware Rev 1.17")
        time_base.close()


def test_holdover_and_every_health_bit_are_told() -> None:
    found = status_of(RECORDED | {b"SYNC:LOCK?": b"0", b"SYNC:HOLD:DUR?": b"75,1", b"SYNC:HEA?": b"0x1054"})
    assert (found.locked, found.in_holdover, found.holdover_s) == (False, True, 75.0)
    assert found.utc_ns is not None
    for said in (
        "holdover for 75 s",
        "250 ns",
        "more than 60 s",
        "voltage too high",
        "undocumented health bits 0x1000",
    ):
        assert said in found.trouble
    assert health_text(0) == []
    assert len(health_text(0x3FF)) == 10


def test_before_it_has_ever_locked_its_time_of_day_is_not_taken_for_utc() -> None:
    found = status_of(RECORDED | {b"SYNC:LOCK?": b"0", b"SYNC:HEA?": b"0x8", b"PTIM:DATE?": b"1999,8,22"})
    assert (found.locked, found.in_holdover, found.utc_ns) == (False, False, None)
    assert "not locked" in found.trouble


@pytest.mark.parametrize(
    "answers",
    [
        {b"SYNC:TINT?": b'-230,"Data corrupt or stale"'},
        {b"SYNC:TINT?": b"", b"SYST:ERR?": b'-230,"Data corrupt or stale"'},
    ],
)
def test_a_stale_time_interval_is_none_and_said(answers: dict[bytes, bytes]) -> None:
    errors = iter([answers.get(b"SYST:ERR?", b""), b'+0,"No error"'])

    class Answers(dict[bytes, bytes]):
        def __getitem__(self, question: bytes) -> bytes:
            return next(errors) if question == b"SYST:ERR?" else super().__getitem__(question)

    found = status_of(Answers(RECORDED | answers))
    assert found.offset_ns is None
    assert "time interval is stale" in found.trouble
    assert found.locked


def test_an_error_prompt_is_a_refusal_too() -> None:
    reply_to_none = find_reply(b"SYNC:TINT?\r\nE-230> ", "SYNC:TINT?")
    assert reply_to_none is not None
    assert (reply_to_none.refused, reply_to_none.code) == (True, -230)
    assert find_reply(b"scpi > SYNC:TINT?\r\n-5.4E-009", "SYNC:TINT?") is None
    found = status_of(RECORDED | {b"SYNC:FEE?": b"Command Error", b"PTIM:LEAP:ACC?": b"Command Error"})
    assert (found.frequency_error, found.leap_s) == (None, None)
    assert "no frequency estimate" in found.trouble


def test_what_must_be_answered_and_is_refused_is_a_fault() -> None:
    with pytest.raises(InstrumentFault, match="SYNC:LOCK"):
        status_of(RECORDED | {b"SYNC:LOCK?": b"Command Error"})


def test_two_answers_must_agree() -> None:
    garbled = iter([b"2026,9,2", b"2026,9,20", b"2026,9,2", b"2026,9,2"])
    health = iter([b"0x54", b"0x5", b"0x54"])

    class Answers(dict[bytes, bytes]):
        def __getitem__(self, question: bytes) -> bytes:
            special = {b"PTIM:DATE?": garbled, b"SYNC:HEA?": health}
            return next(special[question]) if question in special else super().__getitem__(question)

    found = status_of(Answers(RECORDED))
    assert found.utc_ns == utc_ns((2026, 9, 2), (7, 46, 13))
    assert "voltage too high" in found.trouble


def test_silence_and_another_instrument_each_have_their_error() -> None:
    with scripted_pty(Expect(b"*IDN?\r\n*IDN?\r\n")) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.1})
    other = Reply((b"SYMMETRICOM,Z3805A,3625A02931,1.01.03-A\r\nscpi > ",))
    question = Expect(b"*IDN?\r\n")
    with (
        scripted_pty(question, other, question, other) as address,
        pytest.raises((WrongInstrument, WireError), match="Z3805A"),
    ):
        connect(address, CLOCK, {"timeout_s": 0.2})


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(data: bytes) -> None:
    text = data.decode("ascii", "replace")
    find_reply(data, "SYNC:TINT?")
    for parse in (parse_identity, parse_flag, parse_float, parse_health, parse_holdover, parse_three):
        with contextlib.suppress(WireError):
            parse(text)


@given(st.tuples(*[st.integers(0, 9999)] * 3), st.tuples(*[st.integers(0, 99)] * 3))
def test_a_moment_is_one_or_a_wire_error(date: tuple[int, int, int], time: tuple[int, int, int]) -> None:
    with contextlib.suppress(WireError):
        assert utc_ns(date, time) % 10**9 == 0


def test_the_leap_second_is_a_moment() -> None:
    assert utc_ns((2016, 12, 31), (23, 59, 60)) == utc_ns((2017, 1, 1), (0, 0, 0))
