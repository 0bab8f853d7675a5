"""What can become of bytes and files on their way through years and hands."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random


def corrupt_bytes(content: bytes, random: Random) -> bytes:
    """The content with one part of it changed, lost, added or moved."""
    size = len(content)
    start = random.randrange(size + 1)
    stop = min(size, start + random.choice((1, 8, 100, 4096, size)))
    before, part, after = content[:start], content[start:stop], content[stop:]
    match random.choice(("flip", "flips", "cut", "zero", "noise", "insert", "delete", "move", "repeat", "ones")):
        case "flip":
            return before + _flipped(part[:1], random) + part[1:] + after
        case "flips":
            return before + b"".join(_flipped(part[k : k + 1], random) for k in range(len(part))) + after
        case "cut":
            return before
        case "zero":
            return before + bytes(len(part)) + after
        case "noise":
            return before + random.randbytes(len(part)) + after
        case "ones":
            return before + b"\xff" * len(part) + after
        case "insert":
            return before + random.randbytes(random.choice((1, 8, 4096))) + part + after
        case "delete":
            return before + after
        case "move":
            return before + after + part
        case _:
            return before + part + part + after


def _flipped(byte: bytes, random: Random) -> bytes:
    return bytes(b ^ 1 << random.randrange(8) for b in byte)


def corrupt_directory(directory: Path, foreign: Path, random: Random) -> None:
    """Do something to one or two of a recording's files; `foreign` is another recording with the same streams."""
    segments = [path for path in sorted(directory.glob("*/*.h5")) if path.is_file()]
    if not segments:
        return
    path, other = random.choice(segments), random.choice(segments)
    another = random.choice(sorted(foreign.glob("*/*.h5")))
    acts: dict[str, Callable[[], object]] = {
        "bytes": lambda: path.write_bytes(corrupt_bytes(path.read_bytes(), random)),
        "delete": path.unlink,
        "delete many": lambda: [each.unlink() for each in random.sample(segments, len(segments) // 2)],
        "swap": lambda: _swap(path, other),
        "duplicate": lambda: _new_name(path, random).write_bytes(path.read_bytes()),
        "rename": lambda: path.rename(_new_name(path, random)),
        "replace": lambda: other.write_bytes(path.read_bytes()),
        "foreign": lambda: path.write_bytes(another.read_bytes()),
        "foreign, same name": lambda: (directory / another.relative_to(foreign)).write_bytes(another.read_bytes()),
        "foreign, new name": lambda: _new_name(path, random).write_bytes(another.read_bytes()),
        "shift": lambda: _shift(path),
        "directory": lambda: (path.unlink(), path.mkdir()),
        "empty": lambda: path.write_bytes(b""),
        "manifest": lambda: _manifest(directory).write_bytes(corrupt_bytes(_manifest(directory).read_bytes(), random)),
    }
    # Bytes go bad more often than people do.
    with suppress(IsADirectoryError):
        acts[random.choice([*acts, *["bytes"] * len(acts)])]()


def _manifest(directory: Path) -> Path:
    return directory / "manifest.json"


def _swap(path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _new_name(path: Path, random: Random) -> Path:
    """A name that no segment has."""
    number = random.choice((0, random.randint(1, 30), random.randint(30, 10**6), 10**17))
    new = path.with_name(f"{number:06d}.h5")
    return new if not new.exists() else path.with_name("999999.h5")


def _shift(path: Path) -> None:
    """A segment is lost, and those behind it are numbered anew."""
    content = [each.read_bytes() for each in sorted(path.parent.glob("*.h5")) if each.is_file() and each > path]
    for number, each in enumerate(content):
        path.with_name(f"{int(path.stem) + number:06d}.h5").write_bytes(each)
