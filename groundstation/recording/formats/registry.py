"""All formats by name, and which one a file is of: its content decides, its suffix only between several.

To add a format: a module with `read` (and `write`), and an entry here.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from groundstation.core.tags import TagBlock
from groundstation.errors import BadInput
from groundstation.recording.files import POSIX
from groundstation.recording.formats import (
    csv,
    events,
    npy,
    photon_file,
    ptu,
    qcrypto,
    qcrypto_writing,
    qutag,
    swabian,
)
from groundstation.recording.formats.tag_file import About, TagFile

_HEAD_BYTES = 1 << 16


def _never(head: bytes) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """One format. `unit_ps` is what it can resolve; `has_unit`: whether a file says its unit of time."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    read: Callable[..., TagFile]
    write: Callable[[Path, TagFile], None]
    recognises: Callable[[bytes], bool] = _never
    unit_ps: float = 1.0
    keeps_gaps: bool = False
    has_unit: bool = True
    takes_directories: bool = False


def _qcrypto(kind: int, title: str, unit_ps: float) -> Format:
    return Format(
        f"qcrypto-{kind}",
        title,
        (),
        partial(qcrypto.read, kind=kind),
        partial(qcrypto_writing.write, kind=kind),
        partial(qcrypto.recognises, kind=kind),
        unit_ps,
        takes_directories=True,
    )


_A1_PS = float(events.UNIT_PS)

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("ptu", "PicoQuant T2", (".ptu",), ptu.read, ptu.write, ptu.recognises),
        Format(
            "photon-hdf5",
            "Photon-HDF5",
            (".h5", ".hdf5"),
            photon_file.read,
            photon_file.write,
            photon_file.recognises,
            keeps_gaps=True,
        ),
        Format("npy", "numpy array", (".npy",), npy.read, npy.write, npy.recognises),
        Format("qutag", "quTAG binary", (".qutag",), qutag.read, qutag.write, qutag.recognises, has_unit=False),
        Format(
            "qutag-compressed",
            "quTAG compressed",
            (),
            qutag.read_compressed,
            qutag.write_compressed,
            qutag.recognises_compressed,
            has_unit=False,
        ),
        Format("qutag-raw", "quTAG binary without header", (), qutag.read_raw, qutag.write_raw, has_unit=False),
        _qcrypto(1, "qcrypto raw events of an epoch", _A1_PS),
        _qcrypto(2, "qcrypto times and bases", 125.0),
        _qcrypto(3, "qcrypto kept bits", 1.0),
        _qcrypto(4, "qcrypto indices of coincidences", 1.0),
        _qcrypto(7, "qcrypto key", 1.0),
        Format(
            "a2",
            "S-Fifteen events, 16 digits a line",
            (".a2",),
            events.read_a2,
            events.write_a2,
            events.recognises_a2,
            _A1_PS,
        ),
        Format(
            "a0",
            "S-Fifteen events, 8 digits a line",
            (".a0",),
            events.read_a0,
            events.write_a0,
            events.recognises_a0,
            _A1_PS,
        ),
        Format(
            "csv",
            "text: time, channel",
            (".csv", ".tsv", ".txt"),
            csv.read,
            csv.write,
            csv.recognises,
            keeps_gaps=True,
        ),
        Format("a1", "S-Fifteen events", (".a1",), events.read_a1, events.write_a1, events.recognises_a1, _A1_PS),
        Format(
            "a1-legacy",
            "S-Fifteen and CQT events, legacy word order",
            (".a1x",),
            events.read_a1_legacy,
            events.write_a1_legacy,
            unit_ps=_A1_PS,
        ),
        Format("swabian", "Swabian raw dump", (), swabian.read, swabian.write, swabian.recognises, keeps_gaps=True),
    )
}


def read_file(path: Path, name: str | None = None, resolution_ps: float | None = None) -> TagFile:
    """Open a foreign file; blocks are read as they are asked for.

    `name`: the format, found out if None. `resolution_ps`: the unit of time, only for formats that do not say it.
    Raises BadInput, also from the blocks, for what cannot be read.
    """
    try:
        chosen = _named(name) if name else recognise(path)
        _require_content(path, chosen)
        if resolution_ps is None:
            about, blocks = chosen.read(path)
        elif chosen.has_unit:
            raise BadInput(f"--resolution-ps is not for format {chosen.name}, whose files say it themselves")
        elif not 0 < resolution_ps < 1e9:
            raise BadInput(f"--resolution-ps is {resolution_ps:g}; give a number above 0 and below 1e9")
        else:
            about, blocks = chosen.read(path, resolution_ps=resolution_ps)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error
    return TagFile(about, _guarded(path, blocks))


def write_file(path: Path, source: TagFile, name: str | None = None) -> Format:
    """Write tags into a new file, for the owner only; it has its name once it is whole.

    `name`: the format, by the suffix if None. Raises BadInput when the file exists or cannot hold the tags.
    """
    chosen = _named(name) if name else _by_suffix(path)
    if chosen.takes_directories and path.is_dir():
        if any(path.iterdir()):
            raise BadInput(f"{path} is not empty; name an empty directory for the epochs")
        chosen.write(path, source)
        return chosen
    if path.exists():
        raise BadInput(f"{path} is there already; move it away or name another file")
    part = path.with_name(path.name + ".part")
    try:
        os.close(POSIX.create(part))
        chosen.write(part, source)
        part.rename(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise BadInput(f"cannot write {path} ({error.strerror or error})") from error
        raise
    return chosen


def recognise(path: Path) -> Format:
    """The format of a file, by its content. Raises BadInput when it is of none."""
    if path.is_dir():
        epochs = qcrypto.epoch_files(path)
        if not epochs:
            raise BadInput(f"{path} is a directory without files named as epochs of qcrypto; name a file")
        return recognise(epochs[0])
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise BadInput(f"{path} is empty; there is nothing to import")
    found = [entry for entry in FORMATS.values() if entry.recognises(head)]
    by_suffix = [entry for entry in found if path.suffix.lower() in entry.suffixes]
    if not found:
        raise BadInput(f"{path} is of no format that is known by its content; say which with --format ({_names()})")
    return (by_suffix or found)[0]


def _guarded(path: Path, blocks: Iterator[TagBlock]) -> Iterator[TagBlock]:
    try:
        yield from blocks
    except OSError as error:
        raise BadInput(f"{path} cannot be read to its end ({error.strerror or error})") from error


def _require_content(path: Path, chosen: Format) -> None:
    if path.is_dir() and not chosen.takes_directories:
        raise BadInput(f"{path} is a directory; format {chosen.name} is one file")
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"{path} is empty; there is nothing to import")


def _named(name: str) -> Format:
    if name not in FORMATS:
        raise BadInput(f'there is no format "{name}"; known are {_names()}')
    return FORMATS[name]


def _by_suffix(path: Path) -> Format:
    for entry in FORMATS.values():
        if path.suffix.lower() in entry.suffixes:
            return entry
    raise BadInput(f"the name {path.name} does not say a format; say which with --format ({_names()})")


def _names() -> str:
    return ", ".join(FORMATS)


__all__ = ["FORMATS", "About", "Format", "TagFile", "read_file", "recognise", "write_file"]
