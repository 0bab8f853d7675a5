"""PyVISA with pyvisa-py, as anybody would use them, speak with our simulated supplies."""

import time

import pytest
import pyvisa

pytestmark = pytest.mark.counterpart("pyvisa_py")


@pytest.fixture
def manager():
    resources = pyvisa.ResourceManager("@py")
    yield resources
    resources.close()


def test_a_scpi_supply_over_a_visa_socket(start, manager):
    port = start("supply_scpi").rpartition(":")[2]
    supply = manager.open_resource(f"TCPIP0::127.0.0.1::{port}::SOCKET")
    supply.read_termination = supply.write_termination = "\n"
    supply.timeout = 5000
    assert len(supply.query("*IDN?").split(",")) == 4
    supply.write("*CLS")
    supply.write("VOLT 2.5")
    supply.write("CURR 0.25")
    assert supply.query_ascii_values("VOLT?") == [2.5]
    assert float(supply.query("VOLTAGE?")) == 2.5  # the long form
    assert float(supply.query(":volt?")) == 2.5  # case and the leading colon do not matter
    supply.write("OUTP ON")
    assert int(supply.query("OUTP?")) == 1
    deadline = time.monotonic() + 5.0
    while abs(float(supply.query("MEAS:VOLT?")) - 2.5) > 0.1:
        assert time.monotonic() < deadline, "the output does not reach its voltage"
    assert int(supply.query("SYST:ERR?").split(",")[0]) == 0


def test_the_error_queue_holds_what_was_wrong_until_it_is_read(start, manager):
    port = start("supply_scpi").rpartition(":")[2]
    supply = manager.open_resource(
        f"TCPIP0::127.0.0.1::{port}::SOCKET", read_termination="\n", write_termination="\n", timeout=5000
    )
    supply.write("*CLS")
    supply.write("NONSENSE 1")
    supply.write("VOLT 1e6")
    codes = []
    while (code := int(supply.query("SYST:ERR?").split(",")[0])) != 0:
        codes.append(code)
    assert codes == [-113, -222]  # undefined header, data out of range


@pytest.mark.parametrize("carrier", ["serial", "socket"])
def test_a_sim928_in_its_mainframe(start, manager, carrier):
    if carrier == "serial":
        path = start("supply_sim928", "--pty").removeprefix("serial:")
        resource = f"ASRL{path}::INSTR"
    else:
        resource = (
            f"TCPIP0::127.0.0.1::{start('supply_sim928', '--address', 'tcp://127.0.0.1:0').rpartition(':')[2]}::SOCKET"
        )
    mainframe = manager.open_resource(resource, read_termination="\n", write_termination="\n", timeout=5000)

    def ask_module(slot, question):
        """As the QCoDeS driver does: what ends the module's text ends the first read, so one more end follows."""
        mainframe.write(f'SNDT {slot},"{question}"')
        time.sleep(0.2)  # a module speaks at 9600 baud; GETN? takes what has come until now
        answer = mainframe.query(f"GETN? {slot},128")
        assert answer[:2] == "#3"
        assert mainframe.read().strip() == ""
        assert int(answer[2:5]) == len(answer[5:]) + 1  # its own line end counts
        return answer[5:]

    for command in ("*DCL", "FLSH", "SRST"):
        mainframe.write(command)
    time.sleep(0.5)
    assert "SIM900" in mainframe.query("*IDN?")
    slots = [slot for slot in range(1, 10) if int(mainframe.query("CTCR?")) >> slot & 1]
    for slot in slots:
        mainframe.write(f'SNDT {slot},"TERM LF"')
    sources = [slot for slot in slots if "SIM928" in ask_module(slot, "*IDN?")]
    assert sources
    for slot, volts in zip(sources, (1.5, -20.0), strict=False):
        mainframe.write(f'SNDT {slot},"VOLT {volts:.3f}"')
        assert float(ask_module(slot, "VOLT?")) == volts
    mainframe.write(f'SNDT {sources[0]},"VOLT 21"')
    assert float(ask_module(sources[0], "VOLT?")) == 1.5  # beyond +-20 V: refused
