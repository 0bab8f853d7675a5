"""Element sets as published, good and bad; the bad ones are real finds from public code."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sgp4.api import WGS72, Satrec

from groundstation.clock import parse_utc
from groundstation.errors import BadInput
from groundstation.passes.elements import ElementSet, read_element_file

GOOD = [
    (
        "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
        "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
    ),
    (
        "1 41731U 16051A   21117.42314584  .00000696  00000-0  30260-4 0  9998",
        "2 41731  97.3499  30.8507 0012844 347.0485 124.2616 15.25507799261429",
    ),
    (
        "1 41731U 16051A   24016.15735159  .00011450  00000-0  34540-3 0  9998",
        "2 41731  97.3167 289.0989 0012522  59.2544 300.9930 15.34373256413200",
    ),
    (
        "1 41731U 16051A   25265.33409832  .00080539  00000-0  89175-3 0  9999",
        "2 41731  97.2945 187.6583 0004596  12.3887 347.7483 15.62724089508176",
    ),
]
WRONG_CHECKSUM = (
    "1 41731U 16051A   24350.52843431  .00000969  00000-0  16238-3 0  9997",
    "2 41731  97.4024 252.3661 0008272  97.6698 262.5358 15.22855523463832",
)
TOO_LONG = (
    "1 41731U 16051A   23363.09069254  .00007725  00000+0  23616-3 0  9992",
    "2 41731  99.0000  271.1908 0012471  113.5977 246.6577 15.24069756410432",
)


def with_checksum(line: str) -> str:
    """The line with its last column made right again, so that only the other damage remains."""
    body = line[:-1]
    return body + str(sum(int(c) if c.isdigit() else c == "-" for c in body) % 10)


@pytest.mark.parametrize("lines", GOOD)
def test_published_sets_are_accepted(lines: tuple[str, str]) -> None:
    elements = ElementSet.parse("MICIUS", *lines)
    assert (elements.line1, elements.line2) == lines
    assert elements.catalogue_number == 41731


@pytest.mark.parametrize("lines", GOOD)
def test_the_epoch_is_the_one_that_sgp4_reads(lines: tuple[str, str]) -> None:
    satellite = Satrec.twoline2rv(*lines, WGS72)
    since_1970 = (satellite.jdsatepoch - 2440587.5) * 86400e9 + satellite.jdsatepochF * 86400e9
    assert ElementSet.parse("MICIUS", *lines).epoch_utc_ns == pytest.approx(since_1970, abs=50_000)


def test_the_epoch_is_exact() -> None:
    # 353.90152003 d: day 353 of 2016 is 18 December; 0.90152003 d is 77891.330592 s.
    assert ElementSet.parse("MICIUS", *GOOD[0]).epoch_utc_ns == parse_utc("2016-12-18T21:38:11.330592Z")


def test_a_wrong_checksum_is_refused_with_what_was_found_and_expected() -> None:
    with pytest.raises(BadInput, match=r'line 1 .*"MICIUS".*checksum is "7", expected 0'):
        ElementSet.parse("MICIUS", *WRONG_CHECKSUM)
    with pytest.raises(BadInput, match=r'line 2 .*checksum is "2", expected'):
        ElementSet.parse("MICIUS", with_checksum(WRONG_CHECKSUM[0]), WRONG_CHECKSUM[1])


def test_a_line_of_71_characters_is_refused() -> None:
    with pytest.raises(BadInput, match=r'line 2 .*"LEKTRON".*71 characters long, expected 69'):
        ElementSet.parse("LEKTRON", *TOO_LONG)


def test_two_lines_of_different_satellites_are_refused() -> None:
    other = with_checksum(GOOD[0][1].replace("41731", "25544"))
    with pytest.raises(BadInput, match=r'line 2 .*catalogue number is "25544", expected "41731"'):
        ElementSet.parse("MICIUS", GOOD[0][0], other)


def test_exchanged_lines_are_refused() -> None:
    with pytest.raises(BadInput, match='begins with "2 ", expected "1 "'):
        ElementSet.parse("MICIUS", GOOD[0][1], GOOD[0][0])


def test_a_character_that_is_not_printable_ascii_is_refused() -> None:
    with pytest.raises(BadInput, match=r"line 1 .*not printable ASCII"):
        ElementSet.parse("MICIUS", GOOD[0][0].replace("U", "\t"), GOOD[0][1])


def test_a_field_that_is_no_number_is_refused_even_when_the_checksum_fits() -> None:
    shifted = with_checksum(GOOD[0][1].replace(" 97.3699 ", "97.3699  "))
    with pytest.raises(BadInput, match=r'line 2 .*inclination in columns 9 to 16 is "97.3699 "'):
        ElementSet.parse("MICIUS", GOOD[0][0], shifted)


@given(column=st.integers(0, 68), digit=st.sampled_from("0123456789"), line=st.integers(0, 1))
def test_any_single_changed_digit_is_noticed(column: int, digit: str, line: int) -> None:
    lines = list(GOOD[0])
    before = lines[line][column]
    lines[line] = lines[line][:column] + digit + lines[line][column + 1 :]
    counts_as = "1" if before == "-" else before if before.isdecimal() else "0"
    if digit == counts_as:
        return  # the checksum cannot tell
    with pytest.raises(BadInput):
        ElementSet.parse("MICIUS", *lines)


@given(st.text(max_size=80), st.text(max_size=80))
def test_garbage_is_bad_input_and_nothing_else(line1: str, line2: str) -> None:
    with pytest.raises(BadInput):
        ElementSet.parse("garbage", line1, line2)


def test_files_of_two_and_three_lines_are_read(tmp_path: Path) -> None:
    two, three = tmp_path / "micius.tle", tmp_path / "named.tle"
    two.write_text("\n".join(GOOD[0]))
    three.write_bytes(("0 MICIUS (QSS)  \r\n" + "\r\n".join(GOOD[0]) + "\r\n\r\n").encode())
    assert read_element_file(two) == ElementSet("micius", *GOOD[0])
    assert read_element_file(str(three)) == ElementSet("MICIUS (QSS)", *GOOD[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has 0 lines"),
        (("\n".join(GOOD[0]) + "\n" + "\n".join(GOOD[1])).encode(), "has 4 lines"),
        (b"\xff\xfe\x00", "not ASCII"),
        (b"MICIUS\nhello\nworld\n", "line 1 .*5 characters long"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "some.tle"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_element_file(path)
