"""PicoQuant MultiHarp 150/160, HydraHarp 400/500, TimeHarp 260 and PicoHarp 330 in T2 mode, through `snAPI`.

The vendor's library is the optional extra `picoquant` (package snAPI) and runs in a process of its own (see
`drivers.snapi_process`), so that nothing it does can stop or stain this one. Addresses: `picoquant:` is any device,
`picoquant:SERIAL` that one, `picoquant:/path/file.ptu` plays a T2 file through the library, as fast as it reads.

The channels of the setting `inputs` are those of the library: 0 the sync input, 1 to 64 the others; -1 to -4 are the
markers 1 to 4. Source: docstrings of snAPI 1.2.5; the layout of a PTU header is that of PicoQuant's demo programs.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from drivers.patterns import require_inputs
from drivers.picoquant_frames import HEAD_BYTES, T2, ClickDecoder, Frame, FrameReader, parse_ptu_header
from drivers.settings import closed_on_error, parse_settings
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, PatternBlock, Settings, TimeTagger

V = TypeVar("V")

DRIVER = DriverDescription(
    instrument="PicoQuant MultiHarp, HydraHarp, TimeHarp 260, PicoHarp 330",
    capability="tagger",
    schemes=("picoquant",),
    documentation="the vendor's library snAPI and its docstrings (1.2.5). Files are tested with the library itself; "
    "devices and their settings with a stand-in only, for they need hardware. How many tags an overrun lost is "
    "not told, so it becomes a gap without a number",
    tested_with="the vendor's library, on T2 files",
)
_NAME = "tagger_picoquant"

_READ_BYTES = 1 << 20
_MOST_RECORDS = 1 << 27  # 2.4 GB in the library
_MODES = {0: "histograms", 2: "T2", 3: "T3"}


@dataclass(frozen=True)
class PicoquantSettings:
    """Settings of the station file. Keys of tables are channels (0 the sync input); times ps, voltages mV.

    `inputs`: which channels are inputs 1 to 8 of the patterns. `trigger_mv`: level of the edge trigger, on the falling
    edge (or the rising one, with `rising`); `cfd_mv`: level and zero crossing where a device has constant fraction
    discriminators. `reference`: a name of snAPI's RefSource. `join_ps`: clicks so close are one event.
    `buffer_tags`: room in the library between two reads.
    """

    inputs: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    trigger_mv: dict[str, int] = field(default_factory=dict)
    rising: bool = False
    cfd_mv: dict[str, tuple[int, int]] = field(default_factory=dict)
    offset_ps: dict[str, int] = field(default_factory=dict)
    dead_time_ps: dict[str, int] = field(default_factory=dict)
    reference: str = "Internal"
    join_ps: int = 0
    buffer_tags: int = 1 << 22
    timeout_s: float = 20.0


class PicoquantTagger:
    """A device or a file behind the library's process: a `TimeTagger`."""

    def __init__(self, address: str, order: dict[str, Any], settings: PicoquantSettings) -> None:
        """Start the process and wait until the library is ready. Raises what `connect` does."""
        self._address = address
        self._frames: deque[Frame] = deque()
        self._reader = FrameReader()
        self._decoder = ClickDecoder(settings.inputs, settings.join_ps)
        self._ended = self._closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="snapi-")  # for the library's log; ends in `close`
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "drivers.snapi_process", json.dumps({**order, "folder": self._folder.name})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        try:
            self._config = self._hear_ready(settings.timeout_s)
            self._resolution_ps = float(self._config["BaseResolution"])
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise WireError(f"the PicoQuant library describes {address} without its resolution") from error
        except BaseException:
            self.close()
            raise

    @property
    def resolution_ps(self) -> float:
        return self._resolution_ps

    @property
    def config(self) -> dict[str, Any]:
        """What the library says of the device and its settings."""
        return self._config

    def identify(self) -> Identity:
        """What the library said when it opened the device."""
        if self._closed:
            raise TransportLost(f"the connection to {self._address} is closed; connect again")
        told = self._config
        return Identity(f"PicoQuant {told.get('Model', '')}", str(told.get("Version", "")), str(told.get("ID", "")))

    def read(self, timeout_s: float) -> PatternBlock:
        """What has arrived. Raises TransportLost at the end of a file, or when the process or device is gone."""
        if not self._frames and not self._closed and not self._ended:
            self._receive(timeout_s)
        if not self._frames:
            if self._closed or self._ended:
                raise TransportLost(f"{self._address} has come to its end" if self._ended else "the link is closed")
            return PatternBlock(np.empty(0, np.int64), np.empty(0, np.uint8), self._decoder.latest_ps, 0)
        frame = self._frames.popleft()
        if "refused" in frame.says:
            raise self._refusal(frame)
        if frame.says.get("end"):
            self._ended = True
            return self._decoder.finish()
        block = self._decoder.feed(frame)
        if any("device lost" in note.lower() for note in block.notes):
            raise TransportLost(f"the PicoQuant library has lost {self._address}; is it connected and on?")
        return block

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()  # the process ends when its input does, or when it cannot write
        try:
            process.wait(2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._complaints.close()
        self._folder.cleanup()

    def _hear_ready(self, timeout_s: float) -> dict[str, Any]:
        deadline = monotonic_s() + timeout_s
        while not self._frames:
            left_s = deadline - monotonic_s()
            if left_s <= 0.0:
                raise TransportTimeout(f"the PicoQuant library did not open {self._address} within {timeout_s:g} s")
            self._receive(left_s)
        frame = self._frames.popleft()
        if "refused" in frame.says:
            raise self._refusal(frame)
        config = frame.says.get("ready")
        if not isinstance(config, dict):
            raise WireError(f"the process of the PicoQuant library began with {frame.says!r}")
        return config

    def _receive(self, timeout_s: float) -> None:
        """Take in what comes until a frame is whole. Raises TransportLost when the process has gone."""
        deadline, pipe = monotonic_s() + timeout_s, self._process.stdout
        assert pipe is not None  # it was asked for
        while not self._frames:
            if not select.select([pipe], [], [], max(0.0, deadline - monotonic_s()))[0]:
                return
            data = os.read(pipe.fileno(), _READ_BYTES)
            if not data:
                raise TransportLost(
                    f"the process of the PicoQuant library for {self._address} died: {self._last_words()}"
                )
            self._frames.extend(self._reader.feed(data))

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            self._complaints.seek(0)
            lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
            if lines:
                return lines[-1][:200]
        return "it said nothing"

    def _refusal(self, frame: Frame) -> Exception:
        """The error for what the library's process refused to do."""
        kind, why = frame.says["refused"], frame.says.get("why", "")
        if kind == "library":
            return BadInput(
                f"driver {_NAME} needs the vendor's library, which cannot be loaded ({why}); install it: "
                "pip install snAPI"
            )
        if kind == "absent":
            return TransportLost(f"{self._address}: {why}; check its cable, its power and the vendor's device driver")
        if kind == "file":
            return BadInput(f"{self._address}: {why}")
        return InstrumentFault(f"the PicoQuant library refuses {why} at {self._address}")


# --- Connection ------------------------------------------------------------------------------------------


def connect(address: str, clock: Clock, settings: Settings) -> TimeTagger:
    """Open a device or a file and start to stream. Device time needs no `clock`.

    Raises BadInput for an address, setting or file that cannot be used and without the library, TransportLost when
    there is no such device, WrongInstrument for another one, InstrumentFault when it does not take a setting.
    """
    serial, path = parse_place(address)
    chosen = parse_settings(PicoquantSettings, settings, _NAME, ("timeout_s", "buffer_tags"))
    _check(chosen)
    room = max(chosen.buffer_tags, _require_t2(path)) if path else chosen.buffer_tags
    changes = [] if path else _changes(chosen)
    order = {
        "serial": serial,
        "path": str(path) if path else "",
        "room": room,
        "reference": chosen.reference,
        "changes": changes,
    }
    tagger = PicoquantTagger(address, order, chosen)
    with closed_on_error(tagger):
        _verify(tagger, serial, changes)
    return tagger


def parse_place(address: str) -> tuple[str, Path | None]:
    """Serial number ("" is any) and file, of an address. Raises BadInput."""
    scheme, colon, rest = address.partition(":")
    rest = rest.removeprefix("//") if rest.startswith("///") else rest
    if scheme != "picoquant" or not colon or "\0" in rest or rest.startswith("//"):
        raise BadInput(f'address "{address}" is none of picoquant:, picoquant:SERIAL, picoquant:/PATH/FILE.ptu')
    if "/" in rest or rest.lower().endswith(".ptu"):
        return "", Path(rest)
    return rest, None


def _require_t2(path: Path) -> int:
    """How many records the file has. Raises BadInput for one that the library would not play to its end."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    try:
        ptu = parse_ptu_header(head)
    except BadInput as error:
        raise BadInput(f"{path} cannot be played: {error}") from error
    if ptu.mode != T2:
        raise BadInput(f"{path} was measured in {_MODES.get(ptu.mode, ptu.mode)} mode; only T2 has times of its own")
    found = (size - ptu.header_bytes) // 4
    if found != ptu.records or not 0 < found <= _MOST_RECORDS:
        raise BadInput(
            f"{path} holds {found} records and announces {ptu.records}; the vendor's library plays whole files with "
            f"1 to {_MOST_RECORDS} only: import it instead"
        )
    return found


def _check(chosen: PicoquantSettings) -> None:
    require_inputs(chosen.inputs, -4, 64, _NAME)
    if chosen.buffer_tags > _MOST_RECORDS:
        raise BadInput(f'setting "buffer_tags" of driver {_NAME} is {chosen.buffer_tags}; {_MOST_RECORDS} is the most')
    if chosen.join_ps < 0:
        raise BadInput(f'setting "join_ps" of driver {_NAME} is {chosen.join_ps}; it must not be negative')


def _changes(chosen: PicoquantSettings) -> list[tuple[str, int, list[int]]]:
    """What the library's process is to set: kind, channel, values."""
    edge = int(chosen.rising)
    changes = [("Edge", channel, [level, edge]) for channel, level in _numbered(chosen.trigger_mv, "trigger_mv")]
    changes += [("CFD", channel, list(levels)) for channel, levels in _numbered(chosen.cfd_mv, "cfd_mv")]
    changes += [("ChannelOffset", channel, [ps]) for channel, ps in _numbered(chosen.offset_ps, "offset_ps")]
    return changes + [("DeadTime", channel, [ps]) for channel, ps in _numbered(chosen.dead_time_ps, "dead_time_ps")]


def _numbered(table: dict[str, V], name: str) -> list[tuple[int, V]]:
    found = [(int(key) if key.isdecimal() else -1, value) for key, value in table.items()]
    for channel, _ in found:
        if not 0 <= channel <= 64:
            raise BadInput(f'setting "{name}" of driver {_NAME} has a key that is no channel from 0 to 64')
    return found


#: Where the library's description of a device tells what was set, for the sync input and for the others.
_TOLD = {
    "Edge": (("SyncTrigLvl", "SyncTrigEdge"), ("TrigLvl", "TrigEdge")),
    "CFD": (("SyncDiscrLvl", "SyncZeroXLvl"), ("DiscrLvl", "ZeroXLvl")),
    "ChannelOffset": (("SyncChannelOffset",), ("ChanOffs",)),
    "DeadTime": (("SyncDeadTime",), ("DeadTime",)),
}


def _verify(tagger: PicoquantTagger, serial: str, changes: list[tuple[str, int, list[int]]]) -> None:
    """That it is the device that was asked for, in T2 mode, with what was set. Raises ours."""
    config = tagger.config
    identity = tagger.identify()
    if config.get("MeasMode") != T2:
        raise WrongInstrument(
            f"{identity.model} {identity.serial} does not measure in T2 mode, but {config.get('MeasMode')}"
        )
    if serial and serial not in identity.serial:
        raise WrongInstrument(f"{identity.model} with serial number {identity.serial} answers instead of {serial}")
    step_ps = tagger.resolution_ps
    for what, channel, values in changes:
        names = _TOLD[what][channel != 0]
        told = config if channel == 0 else _of_channel(config, channel)
        near = step_ps if what in ("ChannelOffset", "DeadTime") else 3.0  # mV: the steps of its DAC are 2.34
        for name, value in zip(names, values, strict=True):
            found = told.get(name)
            if isinstance(found, int | float) and abs(found - value) > (0.0 if name.endswith("Edge") else near):
                raise InstrumentFault(f"{name} of input {channel} of {identity.model} is {found}, told was {value}")


def _of_channel(config: dict[str, Any], channel: int) -> dict[str, Any]:
    settings = config.get("ChansCfg")
    found = settings[channel - 1] if isinstance(settings, list) and channel <= len(settings) else None
    if not isinstance(found, dict):
        raise BadInput(f"the device has no input {channel}")
    return found
