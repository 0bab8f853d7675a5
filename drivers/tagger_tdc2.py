"""S-Fifteen TDC2 time tagger, read as the a1 event stream of its reader program (`readevents7 -a 1`).

The reader program is started here (`program:/path/to/readevents7`), with a command line made from the settings; or its
standard output arrives over TCP, for instance from
`socat TCP-LISTEN:7002,bind=127.0.0.1,reuseaddr,fork EXEC:"readevents7 -a 1"`, and is set up there. There is nothing to
ask: the stream itself must prove what it is. The words are those of `a1_words.py`.
Source: pyS15 `timestamp7.py`; qcrypto `timestamp7/readevents7.c`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from drivers.a1_words import RESOLUTION_PS, RUN_WORDS, WRAP_PS, A1Decoder
from drivers.settings import LinkSettings, parse_settings, require_positive
from drivers.transport import Link, open_link
from drivers.transport.program import program_address, program_command
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import BadInput, TransportTimeout, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, PatternBlock, Settings, TimeTagger

DRIVER = DriverDescription(
    instrument="S-Fifteen TDC2 (timestamp7)",
    capability="tagger",
    schemes=("tcp", "program"),
    documentation=(
        "source of the vendor's reader program (readevents7.c) and client (pyS15). Over tcp, thresholds and skews are "
        "those of the reader program there; it must not have skews of its own (-d, -D), which put words out of order: "
        "give delays of channels instead"
    ),
    tested_with="fpfind reads the same events from the same stream",
    inputs=4,
)

# --- Protocol: settings to the reader's command line, no I/O ----------------------------------------------

INPUTS = 4
_DAC_MAX, _DAC_ZERO_V, _DAC_SPAN_V = 4095, -1.024, 3.071
_SKEW_MAX_TICKS = 32767  # pyS15 holds it in 16 bits
_COINCIDENCE_MAX = 31
_GARBAGE_BYTES = 1024  # that many without a single word are no slip


@dataclass(frozen=True)
class SelfTest:
    """The engine that flashes the detectors to find out whether they are blinded; 0 to 4095 each."""

    mode: int
    level_a: int
    level_b: int


@dataclass(frozen=True)
class Tdc2Settings(LinkSettings):
    """Settings of the station file; all but those of every link need a `program:` address.

    `thresholds_v`: -1.024 to 2.047 V, of each input; -0.448 is NIM, and the polarity is negative up to 0 V.
    `skews_ps`: added to the times of each input alone. `coincidence_steps`: 0 to 31 steps of the device, within which
    inputs fire together. `absolute_time`: times since 1970 modulo 19.5 h, as the host's clock had it at the start.
    `device`: the kernel's device node, if it is not the usual one.
    """

    timeout_s: float = 5.0
    thresholds_v: tuple[float, float, float, float] | None = None
    skews_ps: tuple[float, float, float, float] | None = None
    self_test: SelfTest | None = None
    coincidence_steps: int | None = None
    absolute_time: bool = False
    device: str | None = None


def threshold_dac(threshold_v: float) -> int:
    """Volts as the reader's `-t` counts them: 0 is -1.024 V, 4095 is +2.047 V. Raises BadInput."""
    if not _DAC_ZERO_V <= threshold_v <= _DAC_ZERO_V + _DAC_SPAN_V:
        raise BadInput(f"a threshold of {threshold_v} V is outside of the TDC2's range of -1.024 to 2.047 V")
    return round((threshold_v - _DAC_ZERO_V) * _DAC_MAX / _DAC_SPAN_V)


def skew_ticks(skew_ps: float) -> int:
    """Picoseconds as the reader's `-D` counts them, in 1/256 ns. Raises BadInput."""
    if not abs(skew_ps) <= _SKEW_MAX_TICKS * RESOLUTION_PS:
        raise BadInput(f"a skew of {skew_ps} ps is outside of the TDC2's range of +-127,000 ps")
    return round(skew_ps / RESOLUTION_PS)


def reader_arguments(settings: Tdc2Settings) -> list[str]:
    """The command line of `readevents7`, without its name. Raises BadInput for values out of range."""
    arguments = ["-a", "1"]
    if settings.thresholds_v is not None:
        arguments += ["-t", ",".join(str(threshold_dac(value)) for value in settings.thresholds_v)]
    if settings.skews_ps is not None:
        arguments += ["-D", ",".join(str(skew_ticks(value)) for value in settings.skews_ps)]
    if test := settings.self_test:
        if not all(0 <= value <= _DAC_MAX for value in (test.mode, test.level_a, test.level_b)):
            raise BadInput(f"the self-test {test.mode}, {test.level_a}, {test.level_b} must be 0 to 4095 each")
        arguments += ["-b", f"{test.mode},{test.level_a},{test.level_b}"]
    if (steps := settings.coincidence_steps) is not None:
        if not 0 <= steps <= _COINCIDENCE_MAX:
            raise BadInput(f"a coincidence window of {steps} steps is outside of the TDC2's range of 0 to 31")
        arguments += ["-c", str(steps)]
    if settings.absolute_time:
        arguments.append("-A")
    if settings.device is not None:
        arguments += ["-U", settings.device]
    return arguments


# --- Driver ------------------------------------------------------------------------------------------------


class Tdc2Tagger:
    """A TDC2 behind the standard output of its reader program: a `TimeTagger`."""

    def __init__(self, link: Link, timeout_s: float, skews: Sequence[int] = (0,) * INPUTS) -> None:
        """`skews`: what the reader program adds to each input, in 1/256 ns."""
        self._link = link
        self._timeout_s = timeout_s
        self._decoder = A1Decoder(skews)
        self._kept: list[PatternBlock] = []  # what identify() watched, for the next read()

    @property
    def resolution_ps(self) -> float:
        return RESOLUTION_PS

    @property
    def wrap_ps(self) -> int:
        """When the counter behind the stream begins at 0 again; one connection unwraps it, the next cannot know."""
        return WRAP_PS

    @property
    def first_tick(self) -> int | None:
        """Device time of the first word in 1/256 ns (with `readevents7 -A`: Unix time modulo 2^54)."""
        return self._decoder.first_tick

    def identify(self) -> Identity:
        """Watch until 8 words in succession are plausible; their events come with the next `read`.

        Raises TransportTimeout when too little arrives within `timeout_s`, WrongInstrument when what arrives
        is no a1 stream.
        """
        deadline = monotonic_s() + self._timeout_s
        wanted, received = self._decoder.words + RUN_WORDS, 0
        while self._decoder.words < wanted:
            left = deadline - monotonic_s()
            data = self._link.read_available(max(0.0, left))
            received += len(data)
            self._kept.append(self._decoder.feed(data))
            if self._decoder.start_offset_bytes == 4:
                raise WrongInstrument(
                    f"{self._link.address} sends a1 words with swapped halves, or begins in the middle of one; "
                    "start its reader again as `readevents7 -a 1` without -X"
                )
            hopeless = self._decoder.words == 0 and self._decoder.dropped_bytes >= _GARBAGE_BYTES
            if hopeless or (left <= 0.0 and self._decoder.dropped_bytes):
                raise WrongInstrument(
                    f"{self._link.address} sends bytes that are no TDC2 event stream (a1); check the "
                    "address and that the reader runs as `readevents7 -a 1` without -X"
                )
            if left <= 0.0:
                raise TransportTimeout(
                    f"{self._link.address} sent {received} bytes in {self._timeout_s:g} s, too little to "
                    "know a TDC2 by; check that its reader program runs and that a signal arrives"
                )
        return Identity("S-Fifteen TDC2 (a1 event stream)")

    def read(self, timeout_s: float) -> PatternBlock:
        """What has arrived; raises TransportLost at the stream's end, WireError when its clock restarted."""
        if self._kept:
            kept, self._kept = self._kept, []
            return _joined(kept)
        return self._decoder.feed(self._link.read_available(timeout_s))

    def close(self) -> None:
        self._kept = []
        self._link.close()


def connect(address: str, clock: Clock, settings: Settings) -> TimeTagger:
    """Connect to the stream and watch it until it proves to be a TDC2's. Device time needs no `clock`."""
    driver = "tagger_tdc2"
    chosen = parse_settings(Tdc2Settings, settings, driver)
    require_positive(chosen.timeout_s, "timeout_s", driver)
    arguments = reader_arguments(chosen)
    if address.startswith("program:"):
        path, *rest = program_command(address.partition(":")[2].removeprefix("//"))
        address = program_address(path, [*rest, *arguments])
    elif set_here := [field.name for field in fields(chosen) if _is_of_reader(chosen, field.name)]:
        raise BadInput(
            f'setting "{set_here[0]}" of driver {driver} needs an address of the form program:/path/to/readevents7; '
            f"at {address} the reader program there sets it"
        )
    skews = [skew_ticks(value) for value in chosen.skews_ps or (0.0,) * INPUTS]
    link = open_link(address, timeout_s=chosen.timeout_s, log=chosen.log)
    tagger = Tdc2Tagger(link, chosen.timeout_s, skews)
    try:
        tagger.identify()
    except BaseException:
        tagger.close()
        raise
    return tagger


def _is_of_reader(settings: Tdc2Settings, name: str) -> bool:
    """Whether a setting was given that only the reader program's command line can bring to the tagger."""
    of_link = {field.name for field in fields(LinkSettings)}
    return name not in of_link and getattr(settings, name) not in (None, False)


def _joined(blocks: list[PatternBlock]) -> PatternBlock:
    return PatternBlock(
        np.concatenate([block.time_ps for block in blocks]),
        np.concatenate([block.pattern for block in blocks]),
        blocks[-1].latest_ps,
        None,
        tuple(note for block in blocks for note in block.notes),
    )
