"""PicoQuant's `snAPI` in a process of its own: `python -m drivers.snapi_process '{"path": ...}'`.

The library writes to the standard output, replaces the interpreter's hook for exceptions, and waits for ever at the
end of a PTU file that is shorter than its header says, so a program that records does not load it. This one does, and
sends on its standard output what the library reports, as frames: one JSON line, then `tags` times (u64 ps, little-
endian) and `tags` channel bytes. It ends when its standard input is closed. The library's log goes to `folder`.

Source: docstrings of snAPI 1.2.5 (`Main.py`, `Constants.py`). Seen there and not documented: in blocks the channel
byte 255 is a moment without an event, where the device's 25-bit time wrapped; errors go to the log file only.
"""

import json
import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from groundstation.clock import sleep_wall_s

_POLL_S = 0.005
_FRAME_TAGS = 1 << 17
_PATIENCE_S = 3.0  # for a library that hangs, once nobody wants its tags any more
_LOG = """[Paths]
Data = {folder}
[Log]
File = true
Console = false
[LogLevel]
Api = false
Config = false
Device = true
DataFile = false
Manipulators = false
[Params]
BufferSize = 32
"""
#: What the log calls a loss of tags or of what their times hang on.
_TROUBLE = re.compile(r"overrun|fifo ?full|ref_lost|device lost", re.IGNORECASE)
_STAMP = re.compile(r"^\S+ +[A-Z]{3} +(?:Device: )?")


class Refused(Exception):
    """The library said no: the kind of error that the driver raises, and why."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Log:
    """What is new in the library's log files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def trouble(self) -> Iterator[str]:
        """New lines about losses, without their time stamps."""
        for path in sorted(self._folder.glob("[Ll]og*/*.log")):
            start = self._read.get(path, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                new = file.read()
            whole = new.rfind(b"\n") + 1
            self._read[path] = start + whole
            for line in new[:whole].decode("ascii", "replace").splitlines():
                if _TROUBLE.search(line):
                    yield re.sub(r"\x1b\[[0-9;]*m", "", _STAMP.sub("", line)).split("@")[0].strip()


def main() -> None:
    """Load the library, open what the arguments name, send until it ends or the input is closed."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the library prints
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    told = json.loads(sys.argv[1])
    try:
        library = _load(Path(told["folder"]))
        _open(library, told)
        _stream(library, told, out, Log(Path(told["folder"])))
    except Refused as error:
        _send(out, {"refused": error.kind, "why": str(error)})
    out.close()
    # The library's destructor and threads are not needed any more, and would not all end.
    os._exit(0)


def _end_with_the_parent() -> None:
    """End some time after the input is closed, whatever the library does then."""
    while os.read(0, 4096):
        pass
    sleep_wall_s(_PATIENCE_S)
    os._exit(1)


def _load(folder: Path) -> Any:
    settings = folder / "system.ini"
    settings.write_text(_LOG.format(folder=folder))
    hook = sys.excepthook
    try:
        from snAPI.Main import snAPI
    except (ImportError, OSError) as error:
        raise Refused("library", str(error)) from error
    finally:
        sys.excepthook = hook
    return snAPI(str(settings))


def _open(library: Any, told: dict[str, Any]) -> None:
    """Open the device or file, and give a device its settings. Raises Refused."""
    from snAPI.Constants import MeasMode, RefSource

    if told["path"]:
        if not library.getFileDevice(told["path"]):
            raise Refused("file", f"the library cannot open {told['path']}")
        return
    if not (library.getDevice(told["serial"]) if told["serial"] else library.getDevice()):
        raise Refused("absent", f"no PicoQuant device {told['serial']} answers")
    names = {source.name.lower(): source for source in RefSource}
    if told["reference"].lower() not in names:
        raise Refused("setting", f"reference {told['reference']}; known are {', '.join(sorted(names))}")
    if not library.initDevice(MeasMode.T2, names[told["reference"].lower()]):
        raise Refused("setting", f"T2 mode with the reference {told['reference']}")
    for what, channel, values in told["changes"]:
        device, sync = library.device, channel == 0
        change = getattr(device, {"Edge": "set{}EdgeTrig", "CFD": "set{}CFD"}.get(what, "").format(_end(sync)), None)
        change = change or getattr(device, f"set{_end(sync)}{what}")
        if not change(*([] if sync else [channel - 1]), *values):
            raise Refused("setting", f"{what} {values} for input {channel}")
    library.getDeviceConfig()


def _end(sync: bool) -> str:
    return "Sync" if sync else "Input"


def _stream(library: Any, told: dict[str, Any], out: BinaryIO, log: Log) -> None:
    _send(out, {"ready": library.deviceConfig})
    unfold = library.unfold
    if not unfold.startBlock(0, told["room"], False):
        raise Refused("setting", f"to begin a measurement with room for {told['room']} tags")
    while not select.select([0], [], [], 0.0)[0]:  # nothing is ever sent: readable is closed
        finished = unfold.isFinished()
        times, channels = unfold.getBlock()
        count = int(unfold.numRead())
        notes = list(log.trouble())
        if notes and not count:
            _send(out, {"notes": notes})
        for start in range(0, count, _FRAME_TAGS):
            part = slice(start, min(start + _FRAME_TAGS, count))
            data = times[part].astype("<u8").tobytes() + channels[part].astype("u1").tobytes()
            _send(out, {"tags": part.stop - start, "notes": [] if start else notes}, data)
        if finished and not count:
            _send(out, {"end": True})
            break
        sleep_wall_s(_POLL_S)
    unfold.stopMeasure()
    library.closeDevice()


def _send(out: BinaryIO, what: dict[str, Any], data: bytes = b"") -> None:
    """One frame; ends the program when nobody reads any more."""
    rest = memoryview(json.dumps(what).encode() + b"\n" + data)
    try:
        while rest:
            rest = rest[out.write(rest) :]
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
