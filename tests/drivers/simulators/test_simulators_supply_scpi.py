"""The simulated SCPI supply, over a plain socket and a serial line, and once through pyvisa."""

import contextlib
import json
import math
import time

import pytest


class Client:
    def __init__(self, connection):
        self._file = connection.makefile("rw", newline="\n")

    def ask(self, text):
        self.tell(text)
        return self._file.readline().removesuffix("\n")

    def tell(self, text):
        self._file.write(text + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


@pytest.fixture
def supply(start):
    """Start a program and connect to it."""
    with contextlib.ExitStack() as connections:

        def begin(*options):
            connection = connections.enter_context(start("supply_scpi", *options).connect())
            return connections.enter_context(contextlib.closing(Client(connection)))

        yield begin


def test_it_says_who_it_is_in_four_fields(supply):
    client = supply()
    assert len(client.ask("*IDN?").split(",")) == 4
    assert client.ask("*idn?") == client.ask("*IDN?")
    other = supply("--faults", json.dumps({"wrong_model": True}))
    assert other.ask("*IDN?") != client.ask("*IDN?")


def test_a_setting_reads_back_and_leaves_no_error(supply):
    client = supply()
    client.tell("VOLT 3.5")
    assert float(client.ask("VOLT?")) == 3.5
    client.tell(":SOURCE:VOLTAGE:LEVEL:IMMEDIATE:AMPLITUDE 500 mV;:CURR 0.2;OUTP ON")
    assert [float(item) for item in client.ask("VOLT?;CURR?;:OUTP?").split(";")] == [0.5, 0.2, 1.0]
    assert client.ask("SYST:ERR?") == '+0,"No error"'


def test_outputs_are_chosen_one_by_one_or_by_a_list(supply):
    client = supply()
    client.tell("INST:NSEL 2;:VOLT 20")
    client.tell("VOLT 7,(@3);OUTP 1,(@2:3)")
    assert client.ask("INST:NSEL?") == "2"
    assert [float(item) for item in client.ask("VOLT? (@1,2,3)").split(",")] == [0.0, 20.0, 7.0]
    assert client.ask("OUTP? (@1:3)") == "0,1,1"
    assert float(client.ask("VOLT? MAX")) == 25.75
    assert client.ask("SYST:ERR?") == '+0,"No error"'


def test_a_refused_command_changes_nothing_and_is_queued(supply):
    client = supply()
    client.tell("VOLT 2")
    for command, code in [
        ("VOLT 99", -222),
        ("VOLT -1", -222),
        ("VOLT 1,(@4)", -222),
        ("INST:NSEL 0", -222),
        ("VOLT", -109),
        ("VOLT abc", -104),
        ("VOLT 1 Q", -131),
        ("OUTP ON,(@1),3", -108),
        ("VOLTA 1", -113),
        ("FREQ 3", -113),
    ]:
        client.tell(command)
        assert client.ask("SYST:ERR?").startswith(f"{code},"), command
        assert client.ask("SYST:ERR?") == '+0,"No error"'
        assert float(client.ask("VOLT?")) == 2.0


def test_an_unknown_question_gets_no_answer(supply):
    client = supply()
    client.tell("FREQ?")
    assert client.ask("SYST:ERR?") == '-113,"Undefined header"'


def test_the_error_queue_overflows_and_is_cleared(supply):
    client = supply("--faults", json.dumps({"special": ["overflow"]}))
    codes = [client.ask("SYST:ERR?").split(",")[0] for _ in range(21)]
    assert codes == ["-222"] * 19 + ["-350", "+0"]
    client.tell("NONSENSE")
    client.tell("*CLS")
    assert client.ask("SYST:ERR?").startswith("+0,")
    old = supply("--faults", json.dumps({"special": ["old_errors"]}))
    assert old.ask("SYST:ERR?").startswith("-222,")


def test_the_output_settles_exponentially_in_world_time(supply, fast_clock):
    client = supply("--clock", fast_clock(0.05))
    client.tell("CURR 1;VOLT 6;:OUTP ON")
    begun_s = time.monotonic()
    while (volts := float(client.ask("MEAS:VOLT?"))) < 3.0:
        before_s = time.monotonic()
    after_s = time.monotonic()
    bounds = [6.0 * (1.0 - math.exp(-0.05 * (s - begun_s) / 0.02)) for s in (before_s - 0.02, after_s)]
    assert bounds[0] <= volts <= bounds[1] + 0.01


def test_the_current_limit_holds_the_voltage_down(supply, fast_clock):
    client = supply("--load-ohm", 10, "--clock", fast_clock(1000))
    client.tell("VOLT 5;CURR 0.2;:OUTP ON")
    client.ask("*OPC?")
    time.sleep(0.01)
    assert float(client.ask("MEAS:VOLT?")) == pytest.approx(2.0, rel=1e-4)
    assert float(client.ask("MEAS:CURR?")) == pytest.approx(0.2, rel=1e-4)
    assert client.ask("STAT:QUES:COND?") == "1"
    assert float(client.ask("VOLT?")) == 5.0
    client.tell("OUTP OFF")
    assert client.ask("STAT:QUES:COND?") == "0"


def test_refusing_and_tripping_outputs(supply, fast_clock):
    client = supply("--faults", json.dumps({"special": ["refuses", "trips"]}), "--clock", fast_clock(100))
    client.tell("VOLT 1;:OUTP ON")
    assert client.ask("SYST:ERR?").startswith("-222,")
    assert float(client.ask("VOLT?")) == 0.0
    time.sleep(0.02)
    assert client.ask("OUTP?") == "0"


def test_it_also_sits_on_a_serial_line(start):
    line = start("supply_scpi", "--pty").line()
    line.write(b"*IDN?\r\n")
    data = b""
    while not data.endswith(b"\n"):
        data += line.read(1)
    assert data.count(b",") == 3


def test_pyvisa_can_talk_to_it(start):
    pyvisa = pytest.importorskip("pyvisa")
    host, port = start("supply_scpi").ready["address"].removeprefix("tcp://").split(":")
    manager = pyvisa.ResourceManager("@py")
    resource = manager.open_resource(
        f"TCPIP0::{host}::{port}::SOCKET", read_termination="\n", write_termination="\n", timeout=3000
    )
    assert resource.query("*IDN?").startswith("Keysight Technologies,")
    resource.write("VOLT 1.25")
    assert float(resource.query("VOLT?")) == 1.25
    resource.close()
    manager.close()
