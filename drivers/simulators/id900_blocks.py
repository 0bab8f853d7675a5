"""The blocks inside a simulated ID900: their settings by SCPI, and which tags reach which output of which block.

A signal runs INPUt# -> DELAy# -> TSCO# (combiner) -> RAW# (timestamps) and HISTogram#; GENerators may take the place of
inputs. As delivered, TSCO5 to TSCO8 pass the inputs 1 to 4 on, and RAW1 to RAW4 hang on them.

Sources: IDQ's Time Controller Python examples (commands, links, time base, time units); the Time Controller manual;
MSLNZ/pr-single-photons, `photons/equipment/idq_time_controller.py` and its test on an ID900 (long headers, ranges of
integration and delay, thresholds of 0.5 V and 1 V that read back as 0.499712 V and 0.999424 V: steps of 1.952 mV).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.simulators.scpi_face import Handler, ScpiError, boolean, number

Times = NDArray[np.int64]
Reader = Callable[[str], str]
Heard = Callable[[str, str, str], None]

CHANNELS = (1, 2, 3, 4)
NO_TIMES: Times = np.empty(0, np.int64)
_PATHS = tuple(range(1, 9))  # of delays and combiners
_TIME_UNITS = {"TB": 1.0, "KTB": 1e3, "MTB": 1e6, "GTB": 1e9}  # the time base is 1 ps
_VOLTS = {"V": 1.0, "MV": 1e-3}
_THRESHOLD_STEP_V = 0.001952
_MOST_V = 3.0  # free
_LONGEST_PS = 1 << 62  # free
_LONGEST_DELAY_PS = 10**12
_MOST_PULSES = 1 << 31  # free


class Setting(NamedTuple):
    """One setting of a block: its header, its default as the device tells it, and how a text becomes that."""

    header: str
    default: str
    read: Reader


def _choice(*names: str) -> Reader:
    """One of some words, capitals being their short form; told in its long form."""

    def read(text: str) -> str:
        for name in names:
            if text.upper() in (name.upper(), short(name)):
                return name.upper()
        raise ScpiError(-224)

    return read


def _switch(text: str) -> str:
    return "ON" if boolean(text) else "OFF"


def _time(most_ps: int = _LONGEST_PS) -> Reader:
    def read(text: str) -> str:
        value = number(text, _TIME_UNITS)
        if not 0 <= value <= most_ps:
            raise ScpiError(-222)
        return f"{round(value)}TB"

    return read


def _threshold(text: str) -> str:
    value = number(text, _VOLTS)
    if not -_MOST_V <= value <= _MOST_V:
        raise ScpiError(-222)
    return f"{round(value / _THRESHOLD_STEP_V) * _THRESHOLD_STEP_V:.6f}V"


def _integer(lowest: int, highest: int, infinite: str = "") -> Reader:
    """`infinite`: the number that means INF, if any does."""

    def read(text: str) -> str:
        if infinite and text.upper() in ("INF", "INFINITE", "INFINITY", infinite):
            return "INF"
        value = number(text, {})
        if not lowest <= value <= highest or value != int(value):
            raise ScpiError(-222)
        return str(int(value))

    return read


def _link(*blocks: str) -> Reader:
    """NONE, or a block by its short or long name."""
    names = {"NONE": "NONE"}
    for block in blocks:
        names |= {short(block): short(block), block.upper(): short(block)}

    def read(text: str) -> str:
        if text.upper() not in names:
            raise ScpiError(-224)
        return names[text.upper()]

    return read


def short(header: str) -> str:
    """The short form without what may be left out: `[INPOrt:]LINK` -> `LINK`, `COUNter:INTE` -> `COUN:INTE`."""
    while "[" in header:
        before, _, rest = header.partition("[")
        header = before + rest.partition("]")[2]
    return "".join(sign for sign in header if not sign.islower())


_INPUTS = ("STARt", *(f"INPUt{n}" for n in CHANNELS))
_DELAYED = (*_INPUTS, *(f"DELAy{n}" for n in _PATHS), *(f"GEN{n}" for n in CHANNELS))
_TAGS = (*_DELAYED, *(f"TSCO{n}" for n in _PATHS))
_EDGES = _choice("RISIng", "FALLing", "ALL")


def _blocks() -> Mapping[str, Sequence[Setting]]:
    """The settings of every block, by its name."""
    table: dict[str, Sequence[Setting]] = dict.fromkeys(
        _INPUTS,
        (
            Setting("COUPling", "DC", _choice("DC", "AC")),
            Setting("EDGE", "RISING", _choice("RISIng", "FALLing")),
            Setting("THREshold", "0.999424V", _threshold),
            Setting("SELEct", "UNSHAPED", _choice("UNSHaped", "SHAPed", "LOOP", "OUTPut")),
            Setting("ENABle", "ON", _switch),
            Setting("MODE", "HIRES", _choice("HIRES", "LOWRES")),
            Setting("RESYncpolicy", "AUTO", _choice("AUTO", "MANUal")),
            Setting("COUNter:INTEgrationtime", "1000", _integer(1, 65_535)),  # milliseconds
            Setting("COUNter:MODE", "CYCLE", _choice("CYCLe", "ACCUm")),
        ),
    )
    for n in _PATHS:
        source = (n - 1) % len(CHANNELS) + 1
        table[f"DELAy{n}"] = (
            Setting("VALUe", "0TB", _time(_LONGEST_DELAY_PS)),
            Setting("[INPOrt:]LINK", f"INPU{source}", _link(*_INPUTS)),
        )
        table[f"TSCO{n}"] = (
            Setting("FIRst:LINK", f"DELA{source}", _link(*_DELAYED)),
            Setting("OPIN", "ONLYFIR", _choice("ONLYFIR")),
            Setting("OPOUt", "ONLYFIR", _choice("ONLYFIR", "MUTE")),
            Setting("WINDow:ENABle", "OFF", _choice("OFF")),
            Setting("WINDow:BEGIn:LINK", "NONE", _link()),
            Setting("WINDow:END:LINK", "NONE", _link()),
        )
    for n in CHANNELS:
        table[f"GEN{n}"] = (
            Setting("ENABle", "OFF", _switch),
            Setting("PPER", "10000000TB", _time()),
            Setting("PWID", "20000TB", _time()),
            Setting("PNUM", "INF", _integer(1, _MOST_PULSES, "INF")),
            Setting("TRIGger:LINK", "NONE", _link()),
            Setting("TRIGger:DELAy", "0TB", _choice("0", "0TB")),
            Setting("TRIGger:ARM:MODE", "MANUAL", _choice("MANUal", "AUTO")),
        )
        table[f"HISTogram{n}"] = (
            Setting("[INPOrt:]REF:LINK", "NONE", _link(*_TAGS)),
            Setting("[INPOrt:]REF:FILTer", "RISING", _EDGES),
            Setting("[INPOrt:]STOP:LINK", f"TSCO{n + 4}", _link(*_TAGS)),
            Setting("[INPOrt:]STOP:FILTer", "RISING", _EDGES),
            Setting("[INPOrt:]ENABle:LINK", "REC", _link("RECord")),
            Setting("MINimum", "0TB", _time()),
            Setting("BWIDth", "1300TB", _time()),
            Setting("BCOUnt", "1000", _integer(1, 16_384)),
        )
        table[f"RAW{n}"] = (
            Setting("[INPOrt:]REF:LINK", "NONE", _link(*_TAGS)),
            Setting("[INPOrt:]STOP:LINK", f"TSCO{n + 4}", _link(*_TAGS)),
            Setting("ENABle", "ON", _switch),
            Setting("SEND", "OFF", _switch),
        )
        table[f"OUTPut{n}"] = (
            Setting("DELAy", "0TB", _time()),
            Setting("ENABle", "OFF", _switch),
            Setting("[INPOrt:]LINK", "NONE", _link(*_TAGS)),
            Setting("MODE", "NIM", _choice("NIM", "TTL")),
        )
    table["RECord"] = (
        Setting("TRIGger:ARM:MODE", "MANUAL", _choice("MANUal", "AUTO")),
        Setting("ENABle", "OFF", _switch),
        Setting("NUMber", "1", _integer(1, _MOST_PULSES, "0")),
        Setting("DURation", "1000000000000TB", _time()),
        Setting("PWID", "1000000000000TB", _time()),
        Setting("PPER", "1000000400000TB", _time()),
    )
    table["DEVIce"] = (
        Setting("RESolution", "HIRES", _choice("HIRES", "LOWRES")),
        Setting("SYNC", "INTERNAL", _choice("INTernal", "EXTernal")),
    )
    return table


@dataclass
class Generator:
    """The built-in source of pulses: one every `PPER` from when it was played on."""

    began_ps: int | None = None
    pulses: int | None = None  # None: without end

    def times(self, period_ps: int, start_ps: int, stop_ps: int) -> Times:
        """Its pulses from `start_ps` (included) to `stop_ps`, in the device's time."""
        if self.began_ps is None or period_ps <= 0:
            return NO_TIMES
        first = max(0, -(-(start_ps - self.began_ps) // period_ps))
        last = -(-(stop_ps - self.began_ps) // period_ps)
        if self.pulses is not None:
            last = min(last, self.pulses)
        return np.arange(first, max(first, last), dtype=np.int64) * period_ps + self.began_ps


@dataclass
class Blocks:
    """The settings of all blocks, by short block name and header, and the paths of the signals."""

    values: dict[tuple[str, str], str] = field(default_factory=dict)
    generators: dict[int, Generator] = field(default_factory=lambda: {n: Generator() for n in CHANNELS})

    def commands(self, heard: Heard) -> dict[str, Handler]:
        """The commands of all settings, which get their defaults.

        `heard` is told block, header and value of each that is about to be set, and may raise ScpiError.
        """
        found: dict[str, Handler] = {}
        for block, settings in _blocks().items():
            for setting in settings:
                key = short(block), short(setting.header)
                self.values[key] = setting.default
                found[f"{block}:{setting.header}"] = self._setter(key, setting.read, heard)
                found[f"{block}:{setting.header}?"] = self._getter(key)
        return found

    def time_ps(self, block: str, header: str) -> int:
        return int(self.values[block, header].removesuffix("TB"))

    def count(self, block: str, header: str) -> int | None:
        """A number, None for INF."""
        text = self.values[block, header]
        return None if text == "INF" else int(text)

    def is_on(self, block: str, header: str) -> bool:
        return self.values[block, header] == "ON"

    def tags(self, block: str, inputs: Mapping[int, Times], start_ps: int, stop_ps: int) -> Times:
        """What comes out of a block. `inputs`: the tags of each input, from which those of the span are taken."""
        kind, number_ = block[:4], int(block[-1]) if block[-1].isdecimal() else 0
        if kind == "TSCO" and self.values[block, "OPOU"] != "MUTE":
            return self.tags(self.values[block, "FIR:LINK"], inputs, start_ps, stop_ps)
        if kind == "DELA":
            delay_ps = self.time_ps(block, "VALU")
            return self.tags(self.values[block, "LINK"], inputs, start_ps - delay_ps, stop_ps - delay_ps) + delay_ps
        if block.startswith("GEN") and self.is_on(block, "ENAB"):
            return self.generators[number_].times(self.time_ps(block, "PPER"), start_ps, stop_ps)
        if kind == "INPU" and self.is_on(block, "ENAB"):
            first, last = np.searchsorted(inputs[number_], (start_ps, stop_ps))
            return inputs[number_][first:last]
        return NO_TIMES

    def longest_delay_ps(self) -> int:
        return max(self.time_ps(f"DELA{n}", "VALU") for n in _PATHS)

    def _setter(self, key: tuple[str, str], read: Reader, heard: Heard) -> Handler:
        def set_value(parameters: Sequence[str]) -> str:
            if len(parameters) != 1:
                raise ScpiError(-108 if parameters else -109)
            value = read(parameters[0])
            heard(*key, value)
            self.values[key] = value
            return f"Value set to {value}"

        return set_value

    def _getter(self, key: tuple[str, str]) -> Handler:
        def tell(parameters: Sequence[str]) -> str:
            if parameters:
                raise ScpiError(-108)
            return self.values[key]

        return tell
