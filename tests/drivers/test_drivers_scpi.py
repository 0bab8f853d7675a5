"""The SCPI dialect against the examples of IEEE 488.2 and SCPI-99, and its error queue on a real socket."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Reply, reply, scripted_pty

from drivers.scpi import (
    ScpiError,
    ScpiLink,
    number_text,
    parse_block,
    parse_error,
    parse_identity,
    parse_integer,
    parse_number,
    parse_switch,
    read_block,
)
from drivers.transport import open_link
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import Identity

IDN = b"KEYSIGHT,E36312A,MY12345678,1.0.4\n"


@contextlib.contextmanager
def linked(*steps, timeout_s=0.3):
    with scripted_pty(*steps) as address:
        link = open_link(address, timeout_s=timeout_s)
        yield ScpiLink(link, lambda _: None)
        link.close()


def test_the_forms_of_the_standards_are_understood():
    assert parse_identity(b"KEYSIGHT,E36312A,MY12345678,1.0.4\r") == Identity("KEYSIGHT E36312A", "1.0.4", "MY12345678")
    assert parse_identity(b"a,b,0,x,y").firmware == "x,y"  # IEEE 488.2 allows no comma there; makers do
    assert parse_error(b'+0,"No error"') == ScpiError(0, "No error")
    assert parse_error(b'-113,"Undefined header;VOLTZ 3"') == ScpiError(-113, "Undefined header;VOLTZ 3")
    assert [parse_number(text) for text in (b"+1.500E+00", b" 2 ", b"-.5", b"7.")] == [1.5, 2.0, -0.5, 7.0]
    assert parse_integer(b"+1.0E1") == 10
    assert [parse_switch(text) for text in (b"1", b"off\r", b"ON")] == [True, False, True]
    assert parse_block(b"#15HELLO") == parse_block(b"#3005HELLO") == b"HELLO"
    assert parse_block(b"#10") == b""
    assert [number_text(value) for value in (5.0, -0.0250, -0.0, 2e-6, 1234.5)] == [
        "5",
        "-0.025",
        "0",
        "0.000002",
        "1234.5",
    ]
    for lost in (1e-9, -1e-9, 1.4e-6):
        with pytest.raises(BadInput, match="cannot be told"):
            number_text(lost)


@pytest.mark.parametrize(
    "line", [b"", b"1e999", b"+9.91000000E+37", b"-9.9E37", b"nan", b"0x10", b"1 2", b"1_0", b"9.91E37V", "１".encode()]
)
def test_what_is_no_number_is_refused(line):
    with pytest.raises(WireError):
        parse_number(line)


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(data):
    for parse in (parse_identity, parse_error, parse_number, parse_integer, parse_switch, parse_block):
        with contextlib.suppress(WireError):
            parse(data)


@given(st.binary(max_size=300))
def test_a_block_of_any_content_makes_the_round(content):
    digits = str(len(content)).encode()
    assert parse_block(b"#%d%b%b" % (len(digits), digits, content)) == content


def test_a_block_is_read_to_its_length_and_not_further():
    with scripted_pty(Expect(b"?"), Reply((b"#3007+1.2", b"34\n\nnext"), 0.02)) as address:
        link = open_link(address, timeout_s=2.0)
        link.write(b"?")
        assert read_block(link) == b"+1.234\n"
        assert link.read(5) == b"\nnext"
        link.close()
    with scripted_pty(Expect(b"?"), reply(b"#A12\n")) as address:
        link = open_link(address, timeout_s=2.0)
        link.write(b"?")
        with pytest.raises(WireError):
            read_block(link)
        assert not link.in_step
        link.close()


def test_a_command_is_followed_by_the_error_queue_until_it_is_empty():
    with linked(
        Expect(b"VOLT 99\nSYST:ERR?\n"),
        reply(b'-222,"Data out of range"\n'),
        Expect(b"SYST:ERR?\n"),
        reply(b'-350,"Queue overflow"\n'),
        Expect(b"SYST:ERR?\n"),
        reply(b'+0,"No error"\n'),
        Expect(b"VOLT 5\nSYST:ERR?\n"),
        reply(b'0,"No error"\n'),
    ) as scpi:
        with pytest.raises(InstrumentFault, match=r"VOLT 99.*-222.*out of range.*-350"):
            scpi.command("VOLT 99")
        scpi.command("VOLT 5")


def test_an_entry_of_the_queue_is_not_asked_for_twice():
    with linked(Expect(b"VOLT 99\nSYST:ERR?\n"), timeout_s=0.1) as scpi, pytest.raises(TransportTimeout):
        scpi.command("VOLT 99")  # the second answer might be 0, and the refusal forgotten


def test_a_queue_without_end_is_an_error_of_the_wire():
    with (
        linked(*[Expect(b"SYST:ERR?\n"), reply(b'-1,"again"\n')] * 65) as scpi,
        pytest.raises(WireError, match="no end"),
    ):
        scpi.errors()


def test_after_silence_it_clears_and_asks_who_it_is_before_it_asks_again():
    with linked(
        Expect(b"*IDN?\n"),
        reply(IDN),
        Expect(b"VOLT?\n"),
        Expect(b"*CLS\n*IDN?\n"),
        reply(b"1.0\n" + IDN),  # the answer that came too late
        Expect(b"VOLT?\n"),
        reply(b"2.0\n"),
    ) as scpi:
        scpi.identify()
        assert scpi.ask("VOLT?", parse_number) == 2.0


def test_a_setting_is_read_until_two_answers_agree():
    with linked(
        *[step for text in (b"55.0", b"5.0", b"5.0") for step in (Expect(b"VOLT?\n"), reply(text + b"\n"))]
    ) as s:
        assert s.ask_twice("VOLT?", parse_number) == 5.0
    with (
        linked(
            *[step for text in (b"1", b"2", b"3", b"4") for step in (Expect(b"VOLT?\n"), reply(text + b"\n"))]
        ) as scpi,
        pytest.raises(WireError, match="never twice the same"),
    ):
        scpi.ask_twice("VOLT?", parse_number)


def test_another_instrument_silence_and_hang_up_have_their_errors():
    with linked(Expect(b"*IDN?\n"), reply(IDN), Expect(b"*IDN?\n"), reply(b"KEYSIGHT,E36312A,other,1\n")) as scpi:
        scpi.identify()
        with pytest.raises(WrongInstrument, match="other"):
            scpi.identify()
    with linked(Expect(b"*IDN?\n*CLS\n*IDN?\n"), timeout_s=0.1) as scpi, pytest.raises(TransportTimeout):
        scpi.identify()
    with linked(Expect(b"*IDN?\n"), HangUp()) as scpi, pytest.raises(TransportLost):
        scpi.identify()
