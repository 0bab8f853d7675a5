"""The part that simulated SCPI instruments share, against the rules of SCPI-99 and IEEE 488.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.simulators.scpi_face import (
    CommandLines,
    ErrorQueue,
    ScpiError,
    ScpiFace,
    boolean,
    channel_list,
    number,
    split_outside,
)


@pytest.fixture
def face():
    heard = []
    face = ScpiFace(
        {
            "*IDN?": lambda given: "maker,model",
            "[SOURce:]VOLTage[:LEVel]": lambda given: heard.append(("VOLT", *given)),
            "[SOURce:]CURRent": lambda given: heard.append(("CURR", *given)),
            "[SOURce:]VOLTage[:LEVel]?": lambda given: "+1",
            "SYSTem:ERRor[:NEXT]?": lambda given: face.errors.next(),
            "SYSTem:VERSion?": lambda given: "1999.0",
            "OUTPut": lambda given: boolean(given[0]) and None,
        }
    )
    face.heard = heard
    return face


@pytest.mark.parametrize(
    "header", ["VOLT", "volt", "VOLTage", ":VOLT", "SOUR:VOLT", "source:voltage:level", ":SOURCE:VOLT:LEV"]
)
def test_short_and_long_forms_in_any_case_are_the_same_command(face, header):
    assert face.execute(f"{header} 5") is None
    assert face.heard == [("VOLT", "5")]
    assert face.errors.next() == '+0,"No error"'


@pytest.mark.parametrize("header", ["VOLTA", "VOL", "SOURC:VOLT", "LEV", "VOLT:", "::VOLT", "VOLT??", "*IDN"])
def test_other_forms_are_undefined_headers(face, header):
    assert face.execute(f"{header} 5") is None
    assert face.execute("SYST:ERR?") == '-113,"Undefined header"'
    assert not face.heard


def test_after_a_semicolon_the_path_of_the_last_header_counts(face):
    assert face.execute("SYST:VERS?;ERR?;:VOLT?;*IDN?") == '1999.0;+0,"No error";+1;maker,model'
    assert face.execute("SOUR:VOLT 1;CURR 2") is None
    assert face.heard == [("VOLT", "1"), ("CURR", "2")]
    assert face.execute("SYST:VERS?;VOLT?") == "1999.0"
    assert face.execute("SYST:ERR?") == '-113,"Undefined header"'


def test_a_command_error_discards_the_rest_of_the_line(face):
    assert face.execute("NONSENSE;*IDN?") is None
    assert face.execute("*IDN?;OUTP maybe;VOLT 3") == "maker,model"
    assert not face.heard
    assert [face.errors.next()[:4] for _ in range(3)] == ["-113", "-104", '+0,"']


def test_a_full_error_queue_ends_in_350():
    queue = ErrorQueue()
    for _ in range(25):
        queue.add(-113)
    entries = [queue.next() for _ in range(20)]
    assert entries[:19] == ['-113,"Undefined header"'] * 19
    assert entries[19] == '-350,"Queue overflow"'
    assert queue.next() == '+0,"No error"'


def test_parameters():
    assert number("5", {}) == 5.0
    assert number("-1.5e-3V", {"V": 1.0}) == -0.0015
    assert number("500 mv", {"MV": 1e-3}) == 0.5
    assert [boolean(text) for text in ("ON", "off", "1", "0")] == [True, False, True, False]
    assert channel_list("(@1,3:5)") == [1, 3, 4, 5]
    for text, suffixes, code in [("x", {}, -104), ("", {}, -104), ("5A", {"V": 1.0}, -131), ("1e999", {}, -222)]:
        with pytest.raises(ScpiError) as failed:
            number(text, suffixes)
        assert failed.value.code == code
    for text in ("1", "(@)", "(@1;2)", "(@a)"):
        with pytest.raises(ScpiError):
            channel_list(text)


@given(st.text(max_size=60), st.sampled_from([",", ";"]))
def test_splitting_loses_nothing(text, separator):
    assert separator.join(split_outside(text, separator)) == text


def test_a_separator_in_quotes_or_parentheses_does_not_split():
    assert split_outside('VOLT 1,(@1,2);NAME "a;b"', ";") == ["VOLT 1,(@1,2)", 'NAME "a;b"']
    assert split_outside("5,(@1,2)", ",") == ["5", "(@1,2)"]


@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_cut_gives_the_same_lines(data, size):
    whole, pieces = CommandLines(), CommandLines()
    cut = [line for i in range(0, len(data), size) for line in pieces.feed(data[i : i + size])]
    assert cut == whole.feed(data)


@given(st.text(max_size=60))
def test_any_message_is_answered_or_queued(text):
    face = ScpiFace({"*IDN?": lambda given: "x", "VOLTage": lambda given: None})
    answer = face.execute(text)
    assert answer is None or set(answer) <= {"x", ";"}
