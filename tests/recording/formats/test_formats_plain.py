"""Text, numpy arrays, and files that are nothing: what is understood, and one sentence for what is not."""

from pathlib import Path

import numpy as np
import pytest
from formats_samples import everything, source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundstation.errors import BadInput
from groundstation.recording.formats.registry import FORMATS, read_file, write_file
from groundstation.recording.formats.tag_file import Gap


def refusal(path: Path, name: str) -> str | None:
    """Read everything; what was said if it could not be."""
    try:
        everything(read_file(path, name))
    except BadInput as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1000,1\n2000,2\n", [(1000, 1), (2000, 2)]),
        ("1000;1\n2000;2", [(1000, 1), (2000, 2)]),
        ("time_ps\tchannel\n1000\t1\n", [(1000, 1)]),
        ("channel,time_ns\n3,0.0015\n4,1e3\n", [(2, 3), (1_000_000, 4)]),
        ("time_s,channel,remark\n260000.000000000001,7,x\n", None),
        ("time_s channel\n260000.000000000001 7\n", [(260_000_000_000_000_001, 7)]),
        ("# a remark\n\n5\n6\n", [(5, 0), (6, 0)]),
        ("# channel 1 alice\n# gap 10 20 - a loss\n1000,1\n", [(1000, 1)]),
        (f"{1 << 62},0\n", [(1 << 62, 0)]),
    ],
)
def test_text_is_read_exactly(text: str, rows: list[tuple[int, int]] | None, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    if rows is None:  # a third column that is no number is harmless
        rows = [(260_000_000_000_000_001, 7)]
    source = read_file(path)
    assert everything(source) == rows
    assert source.about.gaps == ([Gap(10, 20, None, "a loss")] if "gap" in text else [])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("time_ps,channel\n1000,1\n2000,x\n", 'line 3 of .* is "2000,x"; expected 2 numbers'),
        ("time_ps,channel\n1000,1\n2000\n3000,1\n", 'line 3 of .* is "2000"'),
        ("1000,1\n2000,300\n", "channels from 1 to 300"),
        ("99999999999999999999,1\n", "line 1 of"),
        (f"{(1 << 62) + 1},1\n", "beyond 2.62 ps"),
        ("time_ns,channel\nnan,1\n", "line 2 of"),
        ("time_ns,channel\n1e30,1\n", "line 2 of"),
        ("50000000000,1\n1,1\n", "tag 2 goes back by 49,999,999,999 ps"),
    ],
)
def test_text_that_cannot_be_understood_is_named_by_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=sentence):
        everything(read_file(path, "csv"))


def test_a_line_that_was_cut_is_left_out_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1000,1\n2000,2\n30")
    source = read_file(path)
    assert everything(source) == [(1000, 1), (2000, 2)]
    assert source.about.notes == ["the file ends inside a line, which was left out"]


@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (np.array([5, 6, 6]), [(5, 0), (6, 0), (6, 0)]),
        (np.array([[5, 1], [6, 2]], np.uint64), [(5, 1), (6, 2)]),
        (np.array([(5, 1)], [("channel", "i2"), ("time_ps", "<i8")]), [(1, 5)]),
        (np.array([(5, 1)], [("time_ps", ">i8"), ("channel", "u1")]), [(5, 1)]),
    ],
)
def test_arrays_of_whole_numbers_are_read(array: np.ndarray, rows: list[tuple[int, int]], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    assert everything(read_file(tmp_path / "x.npy")) == rows


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([0.5, 1.5]), "float64, which are no whole picoseconds"),
        (np.zeros((3, 3), np.int64), r"shape \(3, 3\)"),
        (np.array([[5, 300]]), "channels from 300 to 300"),
        (np.array([1 << 63], np.uint64), "beyond 2.62 ps"),
        (np.array([{}], object), "no whole .npy file"),
    ],
)
def test_other_arrays_are_refused_in_a_sentence(array: np.ndarray, sentence: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(BadInput, match=sentence):
        everything(read_file(tmp_path / "x.npy"))


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    write_file(tmp_path / "x.npy", source_of([(5, 1), (6, 255)], (1,)))
    array = np.load(tmp_path / "x.npy")
    assert array["time_ps"].tolist() == [5, 6]
    assert array["channel"].tolist() == [1, 255]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(BadInput, match="is empty; there is nothing to import"):
        read_file(tmp_path / "x", name)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_garbage_gives_tags_in_order_or_one_sentence(name: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)
    said = refusal(path, name)
    assert said is None or "\n" not in said


@pytest.mark.parametrize("name", ["ptu", "qutag", "npy", "a2", "csv", "photon-hdf5", "swabian", "qcrypto-1"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_a_changed_byte_gives_tags_in_order_or_one_sentence(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        write_file(whole, source_of([(250 * k, 1 + k % 4) for k in range(1, 40)]), name)
    content = bytearray(whole.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "changed").write_bytes(content)
    said = refusal(tmp_path / "changed", name)
    assert said is None or "\n" not in said


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        write_file(tmp_path / "x.csv", source_of([(1, 1)]))
    assert (tmp_path / "x.csv").read_text() == "mine"


def test_what_is_written_is_for_its_owner_only(tmp_path: Path) -> None:
    for name in FORMATS:
        if name not in ("qcrypto-3", "qcrypto-4", "qcrypto-7"):
            write_file(tmp_path / name, source_of([(250, 1)]), name)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_unknown_formats_and_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match='no format "ttbin"; known are ptu, '):
        read_file(tmp_path, "ttbin")
    with pytest.raises(BadInput, match="the name x does not say a format"):
        write_file(tmp_path / "x", source_of([(1, 1)]))
