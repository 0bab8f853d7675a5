"""The streams of qcrypto: packets made by hand from `filespec.txt`, and fpfind as the other reader and writer."""

from pathlib import Path

import numpy as np
import pytest
from formats_samples import everything, source_of
from fpfind import TSRES
from fpfind.lib import parse_epochs

from groundstation.core.tags import EMPTY_BLOCK
from groundstation.errors import BadInput
from groundstation.recording.formats.registry import read_file, write_file
from groundstation.recording.formats.tag_file import About, TagFile

EPOCH_PS = 536_870_912_000  # 2^29 ns


def words(*numbers: int) -> bytes:
    return np.array(numbers, "<u4").tobytes()


def bits(text: str) -> bytes:
    """Words of bits, the first bit highest, zeros after the last."""
    text = text.replace(" ", "")
    text = text.ljust(-(-len(text) // 32) * 32, "0")
    return words(*(int(text[k : k + 32], 2) for k in range(0, len(text), 32)))


def of_tables(name: str, details: dict[str, int], **columns: list[int]) -> TagFile:
    """A source that has rows of sifting and no tags."""
    about = About("test", 1.0, details=dict(details))
    about.tables[name] = [{key: np.array(values) for key, values in columns.items()}]
    return TagFile(about, iter([EMPTY_BLOCK]))


def test_type_1_is_raw_events_after_each_other_until_two_zeros(tmp_path: Path) -> None:
    path = tmp_path / "00000003"
    epoch_bits = 3 << 47  # the epoch is the top 17 of 64 bits
    events = [epoch_bits | (8 << 15) | 1, epoch_bits | (16 << 15) | 0b0110]  # 1 ns and 2 ns in 1/8 ns from bit 15
    packet = words(1, 3, 2, 49, 4) + b"".join(words(e >> 32, e & 0xFFFFFFFF) for e in events) + words(0, 0)
    path.write_bytes(packet)
    source = read_file(path)
    assert source.about.format == "qcrypto-1"
    assert everything(source) == [(3 * EPOCH_PS + 1000, 1), (3 * EPOCH_PS + 2000, 2), (3 * EPOCH_PS + 2000, 3)]


def test_type_2_says_differences_and_then_the_bits_of_the_basis(tmp_path: Path) -> None:
    path = tmp_path / "times"
    # 8 bits for the difference, 1 for the basis: 200 eighths, basis 1; then a long one of 70,000, basis 0; the end.
    entries = f"{200:08b} 1  {0:08b} {70_000:032b} 0  {2:08b} 1  {1:08b} 0"
    path.write_bytes(words(2, 5, 3, 8, 1, 1) + bits(entries))
    source = read_file(path)
    assert everything(source) == [
        (5 * EPOCH_PS + 200 * 125, 1),
        (5 * EPOCH_PS + 70_200 * 125, 0),
        (5 * EPOCH_PS + 70_202 * 125, 1),
    ]
    assert source.about.channels == {0: "basis HV", 1: "basis +-"}


def test_type_2_of_the_service_protocol_holds_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "service"
    path.write_bytes(words(2, 0, 1, 12, 4, 0) + bits(f"{100:012b} 1001 {1:012b} 0000"))
    assert everything(read_file(path)) == [(12_500, 1), (12_500, 4)]


def test_packets_follow_each_other_and_local_epochs_go_on_after_their_17_bits(tmp_path: Path) -> None:
    path = tmp_path / "stream"

    def packet(epoch: int) -> bytes:
        return words(2, epoch, 1, 16, 1, 1) + bits(f"{800:016b} 1 {1:016b} 0")

    path.write_bytes(packet(0x1FFFF) + packet(0))
    (first, _), (second, _) = everything(read_file(path))
    assert second - first == EPOCH_PS


def test_extended_epochs_tell_utc(tmp_path: Path) -> None:
    path = tmp_path / "times"
    epoch = 0xBA1F36C0
    path.write_bytes(words(0x102, epoch, 1, 16, 1, 1) + bits(f"{800:016b} 1 {1:016b} 0"))
    source = read_file(path)
    assert everything(source) == [(100_000, 1)]
    assert source.about.zero_ps == epoch * EPOCH_PS
    assert source.about.zero_utc_ns == epoch << 29


def test_type_3_is_bits_and_type_7_the_key(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(words(3, 9, 5, 1) + bits("10110") + words(3, 10, 2, 1) + bits("01"))
    source = read_file(tmp_path / "kept")
    assert everything(source) == []
    tables = source.about.take_tables()["bits"]
    assert [t["epoch"].tolist() for t in tables] == [[9] * 5, [10] * 2]
    assert [t["value"].tolist() for t in tables] == [[1, 0, 1, 1, 0], [0, 1]]
    key = "1" + "0" * 31 + "1"
    (tmp_path / "key").write_bytes(words(0x107, 9, 4, 33) + bits(key))
    source = read_file(tmp_path / "key")
    assert everything(source) == []
    (table,) = source.about.take_tables()["key"]
    assert "".join(map(str, table["bit"].tolist())) == key
    assert set(table["epochs"].tolist()) == {4}


def test_type_4_is_indices_two_more_than_their_differences(tmp_path: Path) -> None:
    path = tmp_path / "indices"
    # Indices 0, 1, 300: differences 0, 1, 299 say 2, 3, 301, the last of which needs the long form.
    path.write_bytes(words(4, 9, 3, 6, 0) + bits(f"{2:06b} {3:06b} {0:06b} {301:032b} {1:06b}"))
    source = read_file(path)
    assert everything(source) == []
    (table,) = source.about.take_tables()["indices"]
    assert table["index"].tolist() == [0, 1, 300]
    indices, found = parse_epochs.read_T4(str(path))
    assert indices.tolist() == [0, 1, 300]
    assert found.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "name", "details", "columns"),
    [
        (3, "bits", {"type": 0x103, "bits": 2}, {"epoch": [7, 7, 7, 8], "value": [3, 0, 2, 1]}),
        (4, "indices", {"order": 5, "bits": 1}, {"epoch": [7, 7, 8], "index": [0, 9_999, 1], "value": [1, 0, 1]}),
        (7, "key", {}, {"epoch": [7] * 40, "epochs": [3] * 40, "bit": [1, 0] * 20}),
    ],
)
def test_rows_of_sifting_come_back(
    kind: int, name: str, details: dict[str, int], columns: dict[str, list[int]], tmp_path: Path
) -> None:
    path = tmp_path / "stream"
    write_file(path, of_tables(name, details, **columns), f"qcrypto-{kind}")
    source = read_file(path)
    assert everything(source) == []
    tables = source.about.take_tables()[name]
    assert {key: np.concatenate([t[key] for t in tables]).tolist() for key in columns} == columns
    assert {key: source.about.details[key] for key in details} == details


def test_fpfind_reads_types_1_and_2_from_a_directory_of_epochs(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    eighths = np.unique(generator.integers(4, 3 * (1 << 32), 3000)) // 2 * 2
    rows = [(int(t) * 125, 1 + int(c)) for t, c in zip(eighths, generator.integers(0, 2, eighths.size), strict=True)]
    for kind, shift in ((1, 0), (2, 1)):
        folder = tmp_path / f"t{kind}"
        folder.mkdir()
        names = {0: "basis HV", 1: "basis +-"} if kind == 2 else {}
        write_file(folder, source_of([(t, c - shift) for t, c in rows], (700,), names=names), f"qcrypto-{kind}")
        assert [p.name for p in sorted(folder.iterdir())] == ["00000000", "00000001", "00000002"]
        read = parse_epochs.read_T1 if kind == 1 else parse_epochs.read_T2
        times, found = [], []
        for path in sorted(folder.iterdir()):
            t, p = read(str(path), resolution=TSRES.PS125, fractional=False)
            times += t.tolist()
            found += p.tolist()
        assert times == eighths.tolist()
        assert found == [c if kind == 1 else c - 1 for _, c in rows]  # inputs 1 and 2 are the patterns 1 and 2
        assert everything(read_file(folder)) == [(t, c - shift) for t, c in rows]


def test_what_fpfind_writes_as_type_1_is_read(tmp_path: Path) -> None:
    ticks = np.cumsum(np.random.default_rng(2).integers(1, 1 << 20, 500))
    parse_epochs.write_T1(str(tmp_path), 0xBA1F36C0, ticks.tolist(), 2)
    source = read_file(tmp_path)
    assert everything(source) == [(tick * 125 // 32, 2) for tick in ticks.tolist()]
    assert source.about.zero_ps == 0xBA1F36C0 * EPOCH_PS


def test_events_closer_than_a_quarter_of_a_nanosecond_are_shifted_and_counted(tmp_path: Path) -> None:
    rows = [(0, 0), (125, 1), (125, 0), (10_000, 1)]
    source = source_of(rows, names={0: "basis HV", 1: "basis +-"})
    write_file(tmp_path / "t2", source, "qcrypto-2")
    assert everything(read_file(tmp_path / "t2")) == [(250, 0), (500, 1), (750, 0), (10_000, 1)]
    assert source.about.notes == ["3 events came less than 1/4 ns after another and were shifted by that"]


CUT_PACKET = words(2, 5, 3, 8, 1, 1) + bits(f"{200:08b} 1 {0:08b} {70_000:032b} 0 {1:08b} 0")


@pytest.mark.parametrize("kept", [24, 26, 30, 31])
def test_a_cut_packet_gives_its_whole_entries(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(CUT_PACKET[:kept])
    source = read_file(path, "qcrypto-2")
    assert everything(source) == [(5 * EPOCH_PS + 25_000, 1)][: kept // 4 - 6]
    assert any("ends inside" in note for note in source.about.notes)


@pytest.mark.parametrize("kept", [4, 9, 21])
def test_a_cut_header_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(CUT_PACKET[:kept])
    with pytest.raises(BadInput, match="where a packet of qcrypto should begin"):
        everything(read_file(path, "qcrypto-2"))


def test_events_in_the_packet_of_another_epoch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_bytes(words(1, 3, 1, 49, 4) + words(1 << 15, 1) + words(0, 0))
    with pytest.raises(BadInput, match="epoch 00000003 that are of another epoch"):
        everything(read_file(path))


def test_there_is_no_sifting_in_a_recording_of_tags(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no key of a sifting"):
        write_file(tmp_path / "key", source_of([(1, 1)]), "qcrypto-7")
