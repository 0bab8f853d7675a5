"""What every bias or power supply must do, whatever its model."""

import contextlib
from collections.abc import Iterator

import pytest

from groundstation.errors import GroundStationError
from groundstation.instruments import Supply


@pytest.fixture(scope="module")
def supply(device) -> Iterator[Supply]:
    """One connection for the suite; what it set is at zero and off at its end."""
    supply: Supply = device.connect()
    with contextlib.closing(supply):
        try:
            yield supply
        finally:
            if device.max_disturb >= 2:
                for output in supply.outputs:
                    supply.set_voltage_v(output, 0.0)
                    supply.switch(output, False)


def test_it_has_outputs_and_reads_them(supply: Supply) -> None:
    assert supply.outputs
    for output in supply.outputs:
        assert -2000.0 <= supply.voltage_v(output) <= 2000.0
        assert supply.is_on(output) in (True, False)


@pytest.mark.disturb(2)
def test_a_voltage_is_kept_by_its_own_output(supply: Supply) -> None:
    wanted = {output: 0.5 + 0.25 * i for i, output in enumerate(supply.outputs)}
    for output, voltage_v in wanted.items():
        supply.set_voltage_v(output, voltage_v)
    for output, voltage_v in wanted.items():
        assert supply.voltage_v(output) == pytest.approx(voltage_v, abs=0.02)


@pytest.mark.disturb(2)
def test_an_output_is_switched_on_and_off(supply: Supply) -> None:
    output = supply.outputs[0]
    for on in (True, False):
        supply.switch(output, on)
        assert supply.is_on(output) is on


@pytest.mark.disturb(2)
@pytest.mark.parametrize("voltage_v", [1e6, -1e6, float("nan")])
def test_a_voltage_out_of_range_is_refused_and_changes_nothing(supply: Supply, voltage_v: float) -> None:
    output = supply.outputs[0]
    before = supply.voltage_v(output)
    with pytest.raises(GroundStationError):
        supply.set_voltage_v(output, voltage_v)
    assert supply.voltage_v(output) == pytest.approx(before, abs=0.02)


def test_an_output_that_does_not_exist_is_refused(supply: Supply) -> None:
    with pytest.raises(GroundStationError):
        supply.voltage_v(max(supply.outputs) + 1)
