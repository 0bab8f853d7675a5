"""The EasyComm II simulator against the published specification (easycomm.txt), with plain serial lines and sockets."""

import json
import time

import pytest


class Client:
    def __init__(self, program):
        self._end = program.line()

    def send(self, text):
        self._end.write(text.encode())

    def heard(self, timeout_s=0.15):
        return self._end.read(4096, timeout_s).decode()

    def ask(self, text):
        """The first line that comes."""
        self.send(text)
        data = b""
        while not data.endswith(b"\n"):
            more = self._end.read(1)
            assert more, f"no answer to {text!r}, only {data!r}"
            data += more
        return data.decode()

    def place(self):
        azimuth, elevation = self.ask("AZ EL\n").split()
        return float(azimuth.removeprefix("AZ")), float(elevation.removeprefix("EL"))


@pytest.fixture
def run(start, fast_clock):
    """A rotator in a world twenty times faster, with these faults."""
    return lambda **faults: Client(
        start("mount_easycomm", "--pty", "--clock", fast_clock(20), "--faults", json.dumps(faults))
    )


def test_an_answer_is_the_echo_of_the_command_and_the_value(run) -> None:
    rotator = run()
    for end in ("\n", "\r", "\r\n", " \n"):
        assert rotator.ask(f"AZ{end}") == "AZ0.0\n"
        assert rotator.ask(f"EL{end}") == "EL0.0\n"
        assert rotator.ask(f"AZ EL{end}") == "AZ0.0 EL0.0\n"
        assert rotator.ask(f"VE{end}") == "VESimulated-2.0\n"


def test_a_command_is_not_answered_nor_is_one_for_the_radio_or_an_unknown_one(run) -> None:
    rotator = run()
    rotator.send("AZ10.0 EL10.0\nSA SE\nUP145900000 DN435300000 UMFM\nAZ1O EL.5\nQQ\nAZ400 EL-5\n\n")
    assert rotator.heard() == ""


def test_it_goes_to_a_place_at_a_finite_rate(run, eventually) -> None:
    rotator = run()
    begun = time.monotonic()
    rotator.send("AZ120.5 EL45.3\n")
    eventually(lambda: rotator.place() == (120.5, 45.3))
    assert 120.5 / 5.0 / 20.0 < time.monotonic() - begun < 4.0


def test_a_line_of_easycomm_1_with_frequencies_moves_it_too(run, eventually) -> None:
    rotator = run()
    rotator.send("AZ20.0 EL10.0 UP000 XXX DN000 XXX\n")
    eventually(lambda: rotator.place() == (20.0, 10.0))


@pytest.mark.parametrize(("move", "index", "sign"), [("ML", 0, -1), ("MR", 0, 1), ("MU", 1, 1), ("MD", 1, -1)])
def test_it_turns_until_that_axis_is_stopped(run, eventually, move, index, sign) -> None:
    rotator = run()
    rotator.send("AZ40.0 EL45.0\n")
    eventually(lambda: rotator.place() == (40.0, 45.0))
    rotator.send(f"{move}\n")
    eventually(lambda: sign * (rotator.place()[index] - (40.0, 45.0)[index]) > 5.0)
    rotator.send(("SA\n", "SE\n")[index])
    time.sleep(0.2)  # four seconds of the world, to brake
    rest = rotator.place()
    assert rest[1 - index] == (40.0, 45.0)[1 - index]
    time.sleep(0.1)
    assert rotator.place() == pytest.approx(rest, abs=0.101)


def test_faults_of_its_own(run, eventually) -> None:
    silent = run(special=["no_version", "separate_lines"])
    assert silent.ask("VE\nAZ EL\n") == "AZ0.0\n"
    assert silent.heard() == "EL0.0\n"
    assert run(special=["acknowledging"]).ask("SA SE\n") == "AZ0.0 EL0.0\n"
    assert run(wrong_model=True).ask("VE\n") == "VEAnotherRotator-1.0\n"
    assert run(unsolicited_every=1).ask("AZ\n") == "ALjam\n"
    jammed = run(special=["jammed"])
    jammed.send("AZ10.0 EL10.0\n")
    eventually(lambda: jammed.place() == (0.0, 10.0))


def test_the_guard_has_a_line_of_its_own_and_a_bridge_several_clients(start) -> None:
    program = start("mount_easycomm", "--pty")
    guard = program.line("guard_address")
    guard.write(b"AZ EL\n")
    assert guard.read(12) == b"AZ0.0 EL0.0\n"
    bridge = start("mount_easycomm", "--address", "tcp://127.0.0.1:0")
    with bridge.connect() as one, bridge.connect() as two:
        for client in (one, two):
            client.sendall(b"EL\n")
            assert client.makefile().readline() == "EL0.0\n"
