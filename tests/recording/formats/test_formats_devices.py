"""Files of PicoQuant, quTAG and Swabian: records made by hand, other readers, and two published measurements."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import tables
from formats_samples import everything, reference_file, source_of
from phconvert import pqreader
from phconvert.hdf5 import assert_valid_photon_hdf5, save_photon_hdf5

from groundstation.core.tags import concatenate
from groundstation.errors import BadInput
from groundstation.recording.formats.ptu_header import HeaderWriter
from groundstation.recording.formats.registry import read_file, write_file
from groundstation.recording.formats.tag_file import Gap

QUTAG_HEADER = bytes.fromhex("87b391fa22dd28000008000073000000") + bytes(24)


def ptu(path: Path, kind: int, records: list[int], resolution_s: float = 1e-12, announced: int | None = None) -> Path:
    """A PTU file with the header entries that matter, and others of the long kinds among them."""
    with path.open("wb") as file:
        header = HeaderWriter(file)
        header.add("File_Comment", "made by hand")
        header.add("HW_Blob", None)
        file.write(struct.pack("<32siIq", b"Array", -1, 0x2001FFFF, 16) + bytes(16))
        header.add("TTResultFormat_TTTRRecType", kind)
        header.add("MeasDesc_GlobalResolution", resolution_s)
        header.add("TTResult_NumberOfRecords", len(records) if announced is None else announced)
        header.add("Header_End", None)
        file.write(np.array(records, "<u4").tobytes())
    return path


def t2(special: int, channel: int, time: int) -> int:
    return special << 31 | channel << 25 | time


HYDRAHARP_RECORDS = [
    t2(0, 0, 100),
    t2(1, 63, 0),  # one overflow
    t2(0, 3, 5),
    t2(1, 63, 7),  # seven of them
    t2(1, 0, 6),  # sync
    t2(1, 4, 7),  # marker
    t2(0, 1, 8),
]


@pytest.mark.parametrize("kind", [0x01010204, 0x00010205, 0x00010206, 0x00010207])
def test_t2_records_by_hand_are_read(kind: int, tmp_path: Path) -> None:
    source = read_file(ptu(tmp_path / "x.bin", kind, HYDRAHARP_RECORDS))
    wrap = 33_554_432
    assert everything(source) == [(100, 0), (wrap + 5, 3), (8 * wrap + 6, 64), (8 * wrap + 7, 68), (8 * wrap + 8, 1)]
    assert source.about.channels == {64: "sync", 68: "markers 4"}


def test_in_the_first_version_every_overflow_is_one(tmp_path: Path) -> None:
    source = read_file(ptu(tmp_path / "x.ptu", 0x00010204, HYDRAHARP_RECORDS[:5]))
    assert everything(source) == [(100, 0), (33_552_000 + 5, 3), (2 * 33_552_000 + 6, 64)]


def test_picoharp_has_records_of_its_own(tmp_path: Path) -> None:
    records = [1 << 28 | 1000, 15 << 28, 15 << 28 | 0x123452, 0 << 28 | 0x123460]
    source = read_file(ptu(tmp_path / "x.ptu", 0x00010203, records, 4e-12))
    wrap = 210_698_240
    assert everything(source) == [(4000, 1), (4 * (wrap + 0x123450), 66), (4 * (wrap + 0x123460), 0)]


@pytest.mark.parametrize(
    ("seconds", "time_ps", "resolution_ps"),
    [(2.5e-11, 25_000, 25), (8.0955e-11, 80_955, 80.955), (2.5e-10, 250_000, 250)],
)
def test_the_resolution_comes_from_the_header(
    seconds: float, time_ps: int, resolution_ps: float, tmp_path: Path
) -> None:
    source = read_file(ptu(tmp_path / "x.ptu", 0x00010207, [t2(0, 0, 1000)], seconds))
    assert everything(source) == [(time_ps, 0)]
    assert source.about.resolution_ps == pytest.approx(resolution_ps)


@pytest.mark.parametrize("kind", [0x00010303, 0x00010304, 0x01010304, 0x00010305, 0x00010306, 0x00010307])
def test_t3_is_refused_in_a_sentence(kind: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="T3 records: their times are relative to a sync pulse"):
        read_file(ptu(tmp_path / "x.ptu", kind, [1]))


def test_a_ptu_file_with_fewer_records_than_announced_gives_those_it_has(tmp_path: Path) -> None:
    path = ptu(tmp_path / "x.ptu", 0x01010204, HYDRAHARP_RECORDS, announced=7)
    path.write_bytes(path.read_bytes()[:-6])
    source = read_file(path)
    assert len(everything(source)) == 3
    assert source.about.notes == [
        "the file ends inside a record; its last 2 bytes were left out",
        "the header announces 7 records, the file holds 5",
    ]


@pytest.mark.parametrize("kept", [0, 7, 12, 50, 100, 200])
def test_a_ptu_header_without_an_end_is_refused(kept: int, tmp_path: Path) -> None:
    path = ptu(tmp_path / "x.ptu", 0x01010204, HYDRAHARP_RECORDS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"header has no end|does not begin with PQTTTR|is empty"):
        read_file(path, "ptu")


def sample_rows(*silences_ps: int) -> list[tuple[int, int]]:
    generator = np.random.default_rng(4)
    steps = generator.integers(0, 1 << 30, 4000)
    steps[: len(silences_ps)] = silences_ps
    return list(zip(np.cumsum(steps).tolist(), generator.integers(0, 8, 4000).tolist(), strict=True))


def test_ptufile_reads_what_is_written(tmp_path: Path) -> None:
    ptufile = pytest.importorskip("ptufile", reason="ptufile, the other reader of PTU, is not installed")
    rows = sample_rows(1 << 32, 20 * 10**12)
    write_file(tmp_path / "x.ptu", source_of(rows, (7, 2000)))
    with ptufile.PtuFile(tmp_path / "x.ptu") as file:
        assert file.record_type.name == "HydraHarp2T2"
        assert file.global_resolution == 1e-12
        assert file.number_channels == 8
        found = file.decode_records()
    photons = found[found["channel"] >= 0]  # it leaves the overflow records in
    assert list(zip(photons["time"].tolist(), photons["channel"].tolist(), strict=True)) == rows


def test_phconvert_reads_what_is_written(tmp_path: Path) -> None:
    rows = sample_rows(3 << 50, 1 << 32, 5 << 51)  # more overflows than one record can count
    write_file(tmp_path / "x.ptu", source_of(rows))
    times, channels, _, _, _ = pqreader.load_ptu(str(tmp_path / "x.ptu"))
    assert list(zip(times.tolist(), channels.tolist(), strict=True)) == rows


def test_the_published_t2_measurement_has_its_photons() -> None:
    source = read_file(reference_file("200204_HH400_T2_320MHz_HBT.timeres"))
    block = concatenate(list(source.blocks))
    assert np.bincount(block.channel).tolist() == [159_298, 224_721]
    assert block.time_ps[-1] == 999_986_166_686
    assert source.about.notes == []
    assert source.about.details["HW_Type"] == "HydraHarp 400"


def test_qutag_records_by_hand_are_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    late = 1 << 58
    rows = [(late + 100, 1), (late + 50, 2), (late + 60, 3), (late + 100, 0), (late + 200, 104)]
    path.write_bytes(QUTAG_HEADER + b"".join(struct.pack("<qH", *row) for row in rows))
    source = read_file(path)
    assert everything(source) == [(late + 50, 2), (late + 60, 3), (late + 100, 1), (late + 100, 0), (late + 200, 104)]
    assert source.about.channels == {104: "marker 4"}
    assert "1 tags came earlier than the tag before them; they were put in order of time" in source.about.notes


def test_compressed_qutag_records_are_unwrapped(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    words = [(2 << 37) | ((1 << 37) - 10), (1 << 37) | ((1 << 37) - 15), (0 << 37) | 5, (7 << 37) | 100_000]
    path.write_bytes(QUTAG_HEADER + b"".join(word.to_bytes(5, "little") for word in words))
    source = read_file(path)
    assert source.about.format == "qutag-compressed"
    end = 1 << 37
    assert everything(source) == [(end - 15, 1), (end - 10, 2), (end + 5, 0), (end + 100_000, 7)]


def test_the_unit_of_a_qutau_is_said_by_the_user(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(QUTAG_HEADER + struct.pack("<qH", 1000, 0))
    source = read_file(path, resolution_ps=80.955)
    assert everything(source) == [(80_955, 0)]
    assert source.about.notes == []
    with pytest.raises(BadInput, match="--resolution-ps is not for format csv"):
        read_file(path, "csv", resolution_ps=80.955)


def test_the_published_qutag_measurement_is_put_in_order() -> None:
    source = read_file(reference_file("19_qutag_80MHz_HBT_sync_filtered.qutag"))
    block = concatenate(list(source.blocks))
    counts = np.bincount(block.channel)
    assert {int(c): int(counts[c]) for c in np.flatnonzero(counts)} == {1: 79_314, 2: 94_287, 5: 94_200}
    assert block.time_ps.size == 267_801
    assert block.time_ps[0] > 1 << 53
    assert not np.any(np.diff(block.time_ps) < 0)
    assert (block.time_ps[-1] - block.time_ps[0]) * 1e-12 == pytest.approx(5.0439, abs=1e-4)
    assert source.about.notes[-1].startswith("173 tags")


def swabian(*rows: tuple[int, int, int, int]) -> bytes:
    """Records of type, missed, channel, time."""
    return b"".join(struct.pack("<BBHiq", kind, 0, missed, channel, time) for kind, missed, channel, time in rows)


def test_a_swabian_dump_tells_its_losses(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(
        swabian(
            (0, 0, 1, 1000),
            (2, 0, 0, 1500),  # overflow begins
            (4, 7, 1, 1600),
            (4, 65535, -2, 1700),
            (3, 0, 0, 1800),  # and ends
            (0, 0, -2, 2000),
            (4, 3, 1, 2500),
            (1, 0, 0, 3000),  # error
            (0, 0, 3, 4000),
        )
    )
    source = read_file(path)
    assert source.about.format == "swabian"
    assert everything(source) == [(1000, 1), (2000, 130), (4000, 3)]
    assert source.about.channels == {130: "-2"}
    assert source.about.gaps == [
        Gap(1500, 1800, 65_542, "overflow"),
        Gap(2500, 2500, 3, "missed events"),
        Gap(2500, 3000, None, "error of the time tagger"),
    ]
    assert source.about.missed == 65_545


def test_a_swabian_dump_may_end_inside_an_overflow(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(swabian((0, 0, 1, 1000), (2, 0, 0, 1500), (0, 0, 1, 1700)) + b"cut")
    source = read_file(path)
    assert everything(source) == [(1000, 1), (1700, 1)]
    assert source.about.gaps == [Gap(1500, 1700, None, "overflow")]
    assert len(source.about.notes) == 2


def test_falling_edges_come_back_from_a_swabian_dump(tmp_path: Path) -> None:
    write_file(tmp_path / "dump", source_of([(1, 1), (2, 130), (3, 255)]), "swabian")
    assert (tmp_path / "dump").read_bytes() == swabian((0, 0, 1, 1), (0, 0, -2, 2), (0, 0, -127, 3))


def test_phconvert_accepts_what_is_exported_and_its_files_are_read(tmp_path: Path) -> None:
    rows = [(1000 * k, 1 + k % 3) for k in range(500)]
    write_file(tmp_path / "x.h5", source_of(rows, names={1: "alice", 2: "bob", 3: "c"}))
    with tables.open_file(str(tmp_path / "x.h5")) as file:
        assert_valid_photon_hdf5(file, warnings=False, skip_measurement_specs=True, require_rootformat=True)
    path = tmp_path / "theirs.hdf5"
    ticks = np.arange(1000, dtype=np.int64) * 7
    setup = {
        "num_pixels": 2,
        "num_spots": 1,
        "num_spectral_ch": 2,
        "num_polarization_ch": 1,
        "num_split_ch": 1,
        "modulated_excitation": False,
        "lifetime": False,
        "excitation_alternated": np.array([False]),
        "excitation_cw": np.array([True]),
    }
    photons = {"timestamps": ticks, "detectors": (ticks % 2).astype(np.uint8)}
    photons["timestamps_specs"] = {"timestamps_unit": 12.5e-9}
    data = {"description": "made for a test", "photon_data": photons, "setup": setup}
    save_photon_hdf5(data, h5_fname=str(path), warnings=False, skip_measurement_specs=True)
    source = read_file(path)
    assert everything(source) == [(int(t) * 12_500, int(t) % 2) for t in ticks]
    assert source.about.resolution_ps == 12_500


@pytest.mark.parametrize("name", ["photon_data0/timestamps", "else"])
def test_other_hdf5_files_are_refused(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[name] = np.arange(3)
    with pytest.raises(BadInput, match="several spots" if "0" in name else "has no /photon_data/timestamps"):
        read_file(tmp_path / "x.h5")
