"""The SCPI supply driver: which lines go out for which output, and what a refusal becomes."""

import contextlib

import pytest
from scripted_far_end import Expect, reply, scripted_pty

from drivers.supply_scpi import commands, connect
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, InstrumentFault, WrongInstrument

CLOCK = SystemClock()
OK = reply(b'+0,"No error"\n')
START = (Expect(b"*IDN?\n"), reply(b"KEYSIGHT,E36312A,MY12345678,1.0.4\n"), Expect(b"SYST:ERR?\n"), OK)


@contextlib.contextmanager
def connected(*steps, **settings):
    with scripted_pty(*START, *steps) as address:
        supply = connect(address, CLOCK, {"timeout_s": 1.0, **settings})
        yield supply
        supply.close()
        supply.close()


def twice(question, answer):
    return (Expect(question), reply(answer)) * 2


def test_an_output_is_named_as_the_setting_says():
    assert commands("none", 1, "VOLT", "5") == ("VOLT 5",)
    assert commands("nsel", 2, "VOLT", "5") == ("INST:NSEL 2", "VOLT 5")
    assert commands("list", 2, "VOLT", "5") == ("VOLT 5,(@2)",)
    assert commands("list", 2, "VOLT?") == ("VOLT? (@2)",)


def test_a_voltage_is_set_checked_and_read_back():
    with connected(
        Expect(b"VOLT 2.5\nSYST:ERR?\n"),
        OK,
        *twice(b"VOLT?\n", b"+2.50000000E+00\n"),
        Expect(b"OUTP ON\nSYST:ERR?\n"),
        OK,
        *twice(b"OUTP?\n", b"1\n"),
        Expect(b"MEAS:VOLT?\n"),
        reply(b"+2.49870000E+00\n"),
        Expect(b"MEAS:CURR?\n"),
        reply(b"+1.2E-03\n"),
    ) as supply:
        assert supply.outputs == (1,)
        supply.set_voltage_v(1, 2.5)
        supply.switch(1, True)
        assert supply.measured_voltage_v(1) == 2.4987
        assert supply.measured_current_a(1) == 0.0012


def test_a_small_current_that_was_refused_is_not_taken_for_set():
    with (
        connected(Expect(b"CURR 0.001\nSYST:ERR?\n"), OK, *twice(b"CURR?\n", b"+0.0E+00\n")) as supply,
        pytest.raises(InstrumentFault, match=r"refused CURR 0\.001 A: it reads back 0 A"),
    ):
        supply.set_current_a(1, 0.001)


def test_a_zero_that_was_refused_is_not_taken_for_set():
    with connected(
        *(Expect(b"CURR 0\nSYST:ERR?\n"), OK, *twice(b"CURR?\n", b"+3.0E-03\n")),
        *(Expect(b"VOLT 0\nSYST:ERR?\n"), OK, *twice(b"VOLT?\n", b"+4.0E-05\n")),
    ) as supply:
        with pytest.raises(InstrumentFault, match=r"refused CURR 0 A: it reads back 0\.003 A"):
            supply.set_current_a(1, 0.0)
        supply.set_voltage_v(1, 0.0)


def test_a_current_too_small_to_be_told_is_not_sent():
    with connected() as supply, pytest.raises(BadInput, match="cannot be told"):
        supply.set_current_a(1, 1e-9)


def test_several_outputs_are_selected_before_each_line():
    with connected(
        *[
            step
            for output in (b"1", b"2")
            for step in (
                Expect(b"INST:NSEL %b\nSYST:ERR?\n" % output),
                OK,
                Expect(b"INST:NSEL?\n"),
                reply(output + b"\n"),
            )
        ],
        Expect(b"INST:NSEL 2\nCURR 0.5\nSYST:ERR?\n"),
        OK,
        *twice(b"INST:NSEL 2\nCURR?\n", b"0.5\n"),
        select="nsel",
        outputs=2,
    ) as supply:
        supply.set_current_a(2, 0.5)
    with connected(*twice(b"VOLT? (@3)\n", b"0.5\n"), select="list", outputs=3) as supply:
        assert supply.voltage_v(3) == 0.5


def test_an_output_that_cannot_be_selected_is_found_at_once():
    refused = (Expect(b"INST:NSEL 1\nSYST:ERR?\n"), reply(b'-222,"Data out of range"\n'), Expect(b"SYST:ERR?\n"), OK)
    with scripted_pty(*START, *refused) as address, pytest.raises(InstrumentFault, match=r"INST:NSEL 1.*-222"):
        connect(address, CLOCK, {"select": "nsel", "outputs": 2})


def test_a_refusal_and_a_value_that_does_not_read_back_are_faults():
    with connected(
        Expect(b"VOLT 99\nSYST:ERR?\n"),
        reply(b'-222,"Data out of range"\n'),
        Expect(b"SYST:ERR?\n"),
        OK,
        Expect(b"VOLT 5\nSYST:ERR?\n"),
        OK,
        *twice(b"VOLT?\n", b"4.9\n"),
        Expect(b"OUTP OFF\nSYST:ERR?\n"),
        OK,
        *twice(b"OUTP?\n", b"1\n"),
    ) as supply:
        with pytest.raises(InstrumentFault, match="-222"):
            supply.set_voltage_v(1, 99.0)
        with pytest.raises(InstrumentFault, match=r"VOLT 5 V.*4.9 V"):
            supply.set_voltage_v(1, 5.0)
        with pytest.raises(InstrumentFault, match="did not go off"):
            supply.switch(1, False)


def test_nothing_is_sent_for_a_value_that_is_none_or_beyond_the_limit():
    with connected(max_voltage_v=6.0, max_current_a=1.0) as supply:
        for refused in (
            lambda: supply.set_voltage_v(1, 6.1),
            lambda: supply.set_voltage_v(1, float("nan")),
            lambda: supply.set_current_a(1, 1.1),
            lambda: supply.set_voltage_v(2, 1.0),
            lambda: supply.is_on(0),
        ):
            with pytest.raises(BadInput):
                refused()


def test_a_supply_of_another_make_is_refused_by_its_identity():
    with scripted_pty(*START[:2]) as address, pytest.raises(WrongInstrument, match=r"E36312A.*n6705"):
        connect(address, CLOCK, {"idn_contains": "n6705"})
    with connected(idn_contains="e36312a") as supply:
        assert supply.outputs == (1,)


def test_settings_that_cannot_be_used_are_named():
    for settings, key in (
        ({"select": "bus"}, "select"),
        ({"outputs": 2}, "outputs"),
        ({"max_voltage": 1}, "max_voltage_v"),
    ):
        with pytest.raises(BadInput, match=key):
            connect("serial:/dev/no-such-line", CLOCK, settings)
