"""A laboratory supply that speaks SCPI: VOLT, CURR, OUTP and MEAS, with an error queue.

What differs between makers is how one of several outputs is named; a setting says which way this one takes. Sources:
SCPI-99 volume 2 (VOLTage 19.23, OUTPut 15, INSTrument 10, SYSTem:ERRor 21.8); the model's own manual decides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from drivers.scpi import ROUNDING, ScpiLink, number_text, parse_integer, parse_number, parse_switch
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import open_link
from groundstation.clock import Clock
from groundstation.errors import BadInput, InstrumentFault, WrongInstrument
from groundstation.instruments import DriverDescription, Identity, Settings, Supply

T = TypeVar("T")

DRIVER = DriverDescription(
    instrument="any SCPI supply",
    capability="supply",
    schemes=("visa", "tcp", "serial"),
    documentation=(
        "SCPI-99; no model was at hand. Check in your model's manual that VOLT, CURR, OUTP, MEAS and SYST:ERR? exist, "
        "and how it names its outputs. A serial line has no checksum: settings are read until two answers agree, but a "
        "measured value can carry a bit error"
    ),
    tested_with="our simulator, which pyvisa-py drives too",
)

# --- Protocol: which text asks which output --------------------------------------------------------------

SELECT = ("none", "nsel", "list")


def commands(select: str, output: int, header: str, parameter: str = "") -> tuple[str, ...]:
    """The lines that send one command or question (`header` with its `?`) to one output.

    `none`: it has but one; `nsel`: `INST:NSEL 2` goes before; `list`: `(@2)` follows.
    """
    parameters = [*([parameter] if parameter else []), *([f"(@{output})"] if select == "list" else [])]
    text = f"{header} {','.join(parameters)}" if parameters else header
    return (f"INST:NSEL {output}", text) if select == "nsel" else (text,)


# --- Driver ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScpiSupplySettings(LinkSettings):
    """Settings of the station file.

    `outputs`: how many; `select`: "none", "nsel" or "list" (see `commands`); `idn_contains`: what the model must
    contain; the limits hold for all outputs, None: the instrument's own. What reads back differs from what was set by
    the tolerance at most, and by 1 % of the value; from 0, by 1 % of the tolerance.
    """

    outputs: int = 1
    select: str = "none"
    idn_contains: str = ""
    max_voltage_v: float | None = None
    max_current_a: float | None = None
    voltage_tolerance_v: float = 0.005
    current_tolerance_a: float = 0.005


class ScpiSupply:
    """A `Supply`. All calls may raise TransportTimeout, TransportLost and WireError."""

    def __init__(self, scpi: ScpiLink, settings: ScpiSupplySettings) -> None:
        self._scpi, self._settings = scpi, settings

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(range(1, self._settings.outputs + 1))

    def identify(self) -> Identity:
        """Raises WrongInstrument when something else answers, TransportTimeout when nothing does."""
        return self._scpi.identify()

    def prove_outputs(self) -> None:
        """Empty the error queue, then select each output once. Raises InstrumentFault when it has fewer."""
        self._scpi.errors()
        if self._settings.select != "nsel":
            return
        for output in self.outputs:
            self._scpi.command(f"INST:NSEL {output}")
            if (found := self._scpi.ask("INST:NSEL?", parse_integer)) != output:
                raise InstrumentFault(f"{self._scpi.address} selects output {found} instead of {output}; check outputs")

    def voltage_v(self, output: int) -> float:
        """The voltage that is set; what is there tells `measured_voltage_v`."""
        return self._ask(output, "VOLT?", parse_number)

    def set_voltage_v(self, output: int, voltage_v: float) -> None:
        """Raises BadInput beyond the station's limit, InstrumentFault when it is refused or does not read back."""
        _check_limit(voltage_v, self._settings.max_voltage_v, "max_voltage_v", "V")
        self._set(output, "VOLT", voltage_v, self._settings.voltage_tolerance_v, "V")

    def current_a(self, output: int) -> float:
        """The limit of the current that is set."""
        return self._ask(output, "CURR?", parse_number)

    def set_current_a(self, output: int, current_a: float) -> None:
        """Raises BadInput beyond the station's limit, InstrumentFault when it is refused or does not read back."""
        _check_limit(current_a, self._settings.max_current_a, "max_current_a", "A")
        self._set(output, "CURR", current_a, self._settings.current_tolerance_a, "A")

    def measured_voltage_v(self, output: int) -> float:
        return self._measure(output, "MEAS:VOLT?")

    def measured_current_a(self, output: int) -> float:
        return self._measure(output, "MEAS:CURR?")

    def is_on(self, output: int) -> bool:
        return self._ask(output, "OUTP?", parse_switch)

    def switch(self, output: int, on: bool) -> None:
        """Raises InstrumentFault when it is refused or does not read back."""
        with self._scpi.exchange():
            self._scpi.command(*self._lines(output, "OUTP", "ON" if on else "OFF"))
            if self.is_on(output) is not on:
                raise InstrumentFault(f"output {output} of {self._scpi.address} did not go {'on' if on else 'off'}")

    def close(self) -> None:
        """Give the link back; the outputs stay as they are. Idempotent."""
        self._scpi.close()

    def _lines(self, output: int, header: str, parameter: str = "") -> tuple[str, ...]:
        if output not in self.outputs:
            raise BadInput(f"there is no output {output} at {self._scpi.address}; it has {list(self.outputs)}")
        return commands(self._settings.select, output, header, parameter)

    def _ask(self, output: int, header: str, parse: Callable[[bytes], T]) -> T:
        return self._scpi.ask_twice("\n".join(self._lines(output, header)), parse)

    def _measure(self, output: int, header: str) -> float:
        return self._scpi.ask("\n".join(self._lines(output, header)), parse_number)

    def _set(self, output: int, header: str, value: float, tolerance: float, unit: str) -> None:
        with self._scpi.exchange():
            self._scpi.command(*self._lines(output, header, number_text(value)))
            allowed = min(tolerance, ROUNDING * (abs(value) or tolerance))
            if abs((found := self._ask(output, f"{header}?", parse_number)) - value) > allowed:
                raise InstrumentFault(
                    f"output {output} of {self._scpi.address} refused {header} {value:g} {unit}: it reads back "
                    f"{found:g} {unit}; choose a value in its range"
                )


def _check_limit(value: float, limit: float | None, key: str, unit: str) -> None:
    if not math.isfinite(value) or (limit is not None and abs(value) > limit):
        raise BadInput(f'{value} {unit} is beyond the limit "{key}" = {limit} {unit}; nothing was set')


def connect(address: str, clock: Clock, settings: Settings) -> Supply:
    """Connect and identify the supply; its outputs stay as they are. `clock` is not needed: nothing here takes time."""
    driver = "supply_scpi"
    positive = ("timeout_s", "voltage_tolerance_v", "current_tolerance_a")
    chosen = parse_settings(ScpiSupplySettings, settings, driver, positive)
    if chosen.select not in SELECT:
        raise BadInput(
            f'setting "select" of driver {driver} is "{chosen.select}"; it must be one of {", ".join(SELECT)}'
        )
    if chosen.outputs < 1 or (chosen.select == "none" and chosen.outputs != 1):
        raise BadInput(f'setting "outputs" of driver {driver} is {chosen.outputs}; more than 1 needs a way to select')

    def accept(found: Identity) -> None:
        if chosen.idn_contains.lower() not in found.model.lower():
            raise WrongInstrument(
                f'{address} is a {found.model}, expected one that contains "{chosen.idn_contains}"; check the address'
            )

    supply = ScpiSupply(ScpiLink(open_link(address, timeout_s=chosen.timeout_s, log=chosen.log), accept), chosen)
    with closed_on_error(supply):
        supply.identify()
        supply.prove_outputs()
    return supply
