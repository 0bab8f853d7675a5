"""Whatever bytes come from outside: one of our own errors or a value, in bounded memory and time. Nothing else.

Every parser stands in one table. A module of `drivers/` or `recording/formats/` that is in none of its rows fails the
test at the end, so a new driver or format cannot be forgotten.
"""

import atexit
import contextlib
import functools
import json
import pkgutil
import shutil
import struct
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import instrument_parsers
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import drivers
from drivers import detector_spd, mount_nexstar, tagger_tdc2, transmitter_sdp1
from drivers.transport.wire_log import read_wire_log
from groundstation import clock, config
from groundstation.cli.talking import bytes_of, request_of
from groundstation.core.tags import TagBlock
from groundstation.errors import GroundStationError
from groundstation.passes.elements import read_element_file
from groundstation.recording import formats, manifest, segment
from groundstation.recording.formats import registry
from groundstation.recording.formats.tag_file import About, TagFile
from groundstation.recording.reader import open_recording
from groundstation.recording.sealing import seal
from groundstation.recording.writer import StreamWriter

#: What parsing a few kilobytes may take: a parser's working blocks are a few megabytes.
MEMORY_BYTES = 96 << 20
TIME_S = 5.0


@dataclass(frozen=True)
class Parser:
    """`parse(data, folder)`; `samples` are valid inputs; `modules`: what of drivers/ and formats/ it covers."""

    parse: Callable[[bytes, Path], object]
    samples: Callable[[], list[bytes]]
    modules: tuple[str, ...] = ()
    #: Makes the checksums right again, so that what lies behind them is reached too.
    resealed: Callable[[bytes], bytes] = bytes


def _from_file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    def parse(data: bytes, folder: Path) -> object:
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return read(path)

    return parse


# --- Samples: small and valid ------------------------------------------------------------------------------


def _a1_words() -> bytes:
    ticks = np.cumsum(np.full(64, 1 << 20, np.uint64)) + np.uint64(1 << 40)
    return (ticks << np.uint64(10) | np.arange(64, dtype=np.uint64) % np.uint64(15) + np.uint64(1)).tobytes()


def _frames() -> bytes:
    terms = {
        "protocol": "SDP", "version": 1, "transmitter": "Micius", "epoch_utc": "2016-12-19T16:49:00Z",
        "slot_rate_hz": 100_000_000, "beacon_rate_hz": 10_000, "disclosed_signal_fraction": 0.1,
        "intensities": {"signal": 0.8, "decoy": 0.1, "vacuum": 0.0},
        "probabilities": {"signal": 0.5, "decoy": 0.25, "vacuum": 0.25},
    }  # fmt: skip
    error = {"code": "slot-not-sent", "sentence": "wait", "batch": 4}
    payloads = ((2, json.dumps(terms).encode()), (4, struct.pack("<QI", 3, 4) + bytes((0, 1, 10, 26))))
    payloads += ((5, json.dumps(error).encode()), (6, b""))
    return b"".join(transmitter_sdp1.encode_frame(kind, payload) for kind, payload in payloads)


def _frames_resealed(data: bytes) -> bytes:
    """Right checksums and lengths for whatever the payloads have become."""
    sealed, rest = b"", data
    while len(rest) >= 9:
        length = min(int.from_bytes(rest[:4], "little") % 4096, len(rest) - 9)
        sealed += transmitter_sdp1.encode_frame(2 + rest[4] % 5, rest[9 : 9 + length])
        rest = rest[9 + length :]
    return sealed


def _segment() -> bytes:
    tables = {"tags": {"time_ps": np.arange(20, dtype=np.int64), "channel": np.ones(20, np.uint8)}}
    return segment.encode(
        segment.Segment("tags", 1, "ab" * 16, {"tags": 0}, tables, {"note": "x"}, False, segment.NO_HASH)
    )


def _segment_resealed(data: bytes) -> bytes:
    tail = struct.Struct(segment._TAIL.format)
    if len(data) < tail.size:
        return data
    _, image, _, _ = tail.unpack(data[-tail.size :])
    content = data[: -tail.size]
    image = min(image, len(content))
    return content + tail.pack(segment._MAGIC, image, len(content) - image, zlib.crc32(content))


@functools.cache
def _recording() -> Path:
    """A small recording's directory, with a sealed copy beside it. Lives as long as the tests."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, True)
    run_id = manifest.create_recording(folder / "recording", {"mode": "live", "patterns": {"H": 1}})
    with StreamWriter(folder / "recording", "tags", run_id) as writer:
        for number in range(3):
            times = np.arange(10, dtype=np.int64) + 10 * number
            writer.publish(
                {"tags": {"time_ps": times, "channel": np.zeros(10, np.uint8)}}, {"n": number}, end=number == 2
            )
    seal(folder / "recording", folder / "sealed.h5")
    return folder


@functools.cache
def _sealed() -> bytes:
    (part,) = _recording().glob("sealed*")
    return part.read_bytes()


@functools.cache
def _written(name: str) -> list[bytes]:
    """A file of this format with forty tags and a table of a sifting."""
    times = np.cumsum(np.full(40, 5_000_000, np.int64))
    tags = TagBlock(times, (np.arange(40) % 4 + 1).astype(np.uint8))
    about = About("test", 1.0)
    rows = np.arange(5, dtype=np.int64)
    epoch = np.full(5, 7, np.int64)
    about.tables = {
        "bits": [{"epoch": epoch, "value": rows % 2}],
        "indices": [{"epoch": epoch, "index": rows, "value": rows % 2}],
        "key": [{"epoch": epoch, "epochs": epoch, "bit": rows % 2}],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        registry.write_file(path, TagFile(about, iter([tags])), name)
        return [path.read_bytes()]


def _everything(path: Path, name: str | None) -> int:
    return sum(block.time_ps.size for block in registry.read_file(path, name).blocks)


def _all_segments(path: Path) -> int:
    recording = open_recording(path)
    try:
        for name in recording.streams():
            reader = recording.stream(name)
            while not reader.ended:
                reader.poll()
    finally:
        recording.close()
    return 0


def _a_damaged_directory(data: bytes, folder: Path) -> object:
    """A recording in whose middle these bytes lie."""
    target = folder / "recording"
    if not target.exists():
        manifest.create_recording(target, {"mode": "live", "run_id": "cd" * 16})
        (target / "tags").mkdir()
    (target / "tags" / "000001.h5").write_bytes(data)
    return _all_segments(target)


def _transmitter(data: bytes, _folder: Path) -> object:
    understood = []
    parse = {2: transmitter_sdp1.parse_terms, 4: transmitter_sdp1.parse_answer, 5: transmitter_sdp1.parse_error}
    for kind, payload in transmitter_sdp1.FrameDecoder().feed(data):
        if kind in parse:
            understood.append(parse[kind](payload))
    return understood


def _a1(data: bytes, _folder: Path) -> object:
    decoder, latest = tagger_tdc2.A1Decoder(), -1
    for start in range(0, len(data), 37):
        block = decoder.feed(data[start : start + 37])
        assert np.all(np.diff(block.time_ps) >= 0), "times go back"
        assert block.time_ps.size == 0 or block.time_ps[0] >= latest
        latest = block.latest_ps
    return decoder.words


def _each(*parsers: Callable[[bytes], object]) -> Callable[[bytes, Path], object]:
    """All of them must stand these bytes; the first error is raised when all have."""

    def parse(data: bytes, _folder: Path) -> object:
        errors = []
        for parser in parsers:
            try:
                parser(data)
            except GroundStationError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return None

    return parse


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("latin-1"))


STATION = (Path(__file__).parents[2] / "config" / "simulated.toml").read_bytes()
ELEMENTS = b"MICIUS\n" + b"\n".join(
    line.strip().strip(b'",') for line in STATION.splitlines() if line.strip().startswith((b'"1 ', b'"2 '))
)

PARSERS: dict[str, Parser] = {
    "tagger": Parser(_a1, lambda: [_a1_words()], ("drivers.tagger_tdc2",)),
    "mount": Parser(
        _each(mount_nexstar.parse_position, mount_nexstar.parse_slewing, mount_nexstar.parse_binary),
        lambda: [b"12AB0500,40000500#", b"1#", b"\x04\x15#"],
        ("drivers.mount_nexstar",),
    ),
    "detector": Parser(
        _each(detector_spd.parse_identity, detector_spd.parse_number, detector_spd.parse_counts),
        lambda: [b"S-Fifteen,SPD,0001,1.0", b"-20.013", b"123456", b"1e5"],
        ("drivers.detector_spd",),
    ),
    "classical channel": Parser(_transmitter, lambda: [_frames()], ("drivers.transmitter_sdp1",), _frames_resealed),
    "segment": Parser(
        lambda data, _folder: segment.decode(data, "000001.h5"), lambda: [_segment()], (), _segment_resealed
    ),
    "directory": Parser(_a_damaged_directory, lambda: [_segment()], (), _segment_resealed),
    "sealed file": Parser(_from_file(_all_segments, "sealed.h5"), lambda: [_sealed()]),
    "manifest": Parser(
        lambda data, _folder: manifest.parse_manifest(data, "manifest.json"),
        lambda: [(_recording() / "recording" / "manifest.json").read_bytes()],
    ),
    "station file": Parser(_from_file(config.load_config, "station.toml"), lambda: [STATION]),
    "element set": Parser(_from_file(read_element_file, "elements.tle"), lambda: [ELEMENTS]),
    "clock and time": Parser(
        _each(_text(clock.clock_from_text), _text(clock.parse_utc)),
        lambda: [b"system", b"1482166140000000000:123:10.0", b"2016-12-19T16:52:13.123456789Z"],
    ),
    "wire log": Parser(
        _from_file(read_wire_log, "wire.jsonl"),
        lambda: [b'{"address": "tcp://a:1"}\n{"direction": "out", "hex": "4b78"}\n{"direction": "in", "hex": "78"}\n'],
    ),
    "typed bytes": Parser(_each(_text(bytes_of)), lambda: [rb"SYST:ERR?\r\n\x00"]),
    "typed hexadecimal": Parser(_each(_text(lambda line: bytes_of(line, hexadecimal=True))), lambda: [b"4b 78"]),
    "typed request": Parser(_each(_text(request_of)), lambda: [b'PUT /path name=value "other=with spaces"']),
    "any foreign file": Parser(
        _from_file(lambda path: _everything(path, None), "foreign"), lambda: [_a1_words(), b"1,2\n3,4\n"]
    ),
}
for _name, _format in registry.FORMATS.items():
    _read = _format.read.func if isinstance(_format.read, functools.partial) else _format.read
    PARSERS[_name] = Parser(
        _from_file(functools.partial(_everything, name=_name), "foreign" + (_format.suffixes or ("",))[0]),
        functools.partial(_written, _name),
        (_read.__module__,),
    )
for _module, _rows in instrument_parsers.PARSERS.items():
    for _number, (_parse, _sample) in enumerate(_rows):
        PARSERS[f"{_module} {_number}"] = Parser(
            lambda data, _folder, parse=_parse: parse(data),  # type: ignore[misc]  default arguments
            lambda sample=_sample: [sample],  # type: ignore[misc]  default arguments
            (f"drivers.{_module}",),
        )

#: Modules without a parser of their own, and why.
NO_PARSER = {
    "drivers.transport": "hands on bytes as they are",
    "drivers.settings": "reads what the station file's parser has read",
    "drivers.a1_words": "used by tagger_tdc2",
    "drivers.conversation": "reads what the drivers' parsers read",
    "drivers.latching": "decides on counts",
    "drivers.mount_10micron": "its parsers are in tenmicron",
    "drivers.mount_pwi4": "its parsers are in pwi4",
    "drivers.nanowires_websq": "its parsers are in websq_messages",
    "drivers.rotator_apt": "its parsers are in apt_messages",
    "drivers.mounts": "gets numbers",
    "drivers.patterns": "joins clicks that the taggers have decoded",
    "drivers.snapi_process": "its frames are read by tagger_picoquant",
    "drivers.supply_scpi": "its parsers are in scpi",
    "drivers.tagger_id900": "its parsers are in id900_protocol",
    "drivers.tagger_tdc1": "its parsers are in tdc1_words",
    "drivers.tdc1_arrivals": "looks at times of arrival",
    "drivers.simulators": "the other end of the wires, for tests",
    "groundstation.recording.formats.bit_packing": "used by qcrypto",
    "groundstation.recording.formats.ptu_header": "used by ptu",
    "groundstation.recording.formats.qcrypto_writing": "only writes",
    "groundstation.recording.formats.registry": "every row of its table is here, and its guess as well",
    "groundstation.recording.formats.tag_file": "used by all formats",
}

arbitrary = st.one_of(
    st.binary(max_size=400), st.text(max_size=200).map(str.encode), st.binary(min_size=1024, max_size=2048)
)


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """A valid input that was cut, flipped, overwritten, repeated or had something put in."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(("flip", "cut", "zero", "ones", "insert", "repeat", "number")))
        if change == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif change in ("zero", "ones"):
            stop = min(at + draw(st.integers(1, 16)), len(data))
            data[at:stop] = (b"\0" if change == "zero" else b"\xff") * (stop - at)
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif change == "repeat":
            data[at:at] = data[at : at + 64]
        elif change == "number":
            data[at:at] = draw(
                st.sampled_from((b"9" * 400, b"1e999", b"1e999999 ", b"-1", b"NaN", b"\xff\xff\xff\x7f", b"[" * 500))
            )
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bytes lie for parsers of files."""
    return tmp_path_factory.mktemp("fuzz")


def stands(parser: Parser, data: bytes, folder: Path) -> None:
    """One of our errors or a value, in bounded memory and time."""
    tracemalloc.start()  # here only: it makes the drawing of examples several times slower
    try:
        began_s = time.monotonic()
        with contextlib.suppress(GroundStationError):
            parser.parse(data, folder)
        took_s = time.monotonic() - began_s
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES, f"{peak >> 20} MB for {len(data)} bytes"
    assert took_s < TIME_S


fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.parametrize("name", PARSERS)
def test_valid_samples_are_valid(name: str, folder: Path) -> None:
    """Else the mutations would only scratch the surface."""
    for sample in PARSERS[name].samples():
        try:
            PARSERS[name].parse(sample, folder)
        except GroundStationError:
            assert name in ("mount", "detector", "clock and time"), "these share one row, so one of them refuses"


@pytest.mark.parametrize("name", PARSERS)
@settings(fuzz, max_examples=4)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject, folder: Path) -> None:
    stands(PARSERS[name], data.draw(arbitrary), folder)


@pytest.mark.parametrize("name", PARSERS)
@settings(fuzz, max_examples=6)
@given(data=st.data())
def test_mutated_valid_bytes(name: str, data: st.DataObject, folder: Path) -> None:
    parser = PARSERS[name]
    changed = data.draw(mutated(data.draw(st.sampled_from(parser.samples()))))
    stands(parser, changed, folder)
    stands(parser, parser.resealed(changed), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
@settings(fuzz, max_examples=400)
@given(data=st.data())
def test_many_mutated_valid_bytes(name: str, data: st.DataObject, folder: Path) -> None:
    parser = PARSERS[name]
    changed = data.draw(st.one_of(arbitrary, mutated(data.draw(st.sampled_from(parser.samples())))))
    stands(parser, changed, folder)
    stands(parser, parser.resealed(changed), folder)


def test_no_driver_and_no_format_is_missing_in_the_table() -> None:
    covered = {module for parser in PARSERS.values() for module in parser.modules} | set(NO_PARSER)
    there = {
        f"{package.__name__}.{module.name}"
        for package in (drivers, formats)
        for module in pkgutil.iter_modules(package.__path__)
    }
    assert there == covered
