"""The rotctld simulator against what Hamlib 4.5.4 answered with its dummy rotator."""

import time

import pytest


class Client:
    def __init__(self, program):
        self._socket = program.connect()

    def send(self, text):
        self._socket.sendall(text.encode())

    def heard(self, timeout_s=0.15):
        """What comes until nothing does."""
        self._socket.settimeout(timeout_s)
        data = b""
        try:
            while more := self._socket.recv(4096):
                data += more
        except TimeoutError:
            pass
        return data.decode()

    def ask(self, text, lines=1):
        """Exactly so many lines."""
        self.send(text + "\n")
        self._socket.settimeout(3.0)
        data = b""
        while data.count(b"\n") < lines:
            data += self._socket.recv(1)
        return data.decode()


def close(client):
    client._socket.close()


@pytest.fixture
def rotator(start, fast_clock):
    client = Client(start("mount_rotctld", "--clock", fast_clock(20)))
    yield client
    close(client)


def test_it_answers_as_hamlib_did(rotator):
    for request, reply in (
        ("_", "Dummy rotator\n"),
        ("+\\get_info", "get_info:\nInfo: Dummy rotator\nRPRT 0\n"),
        ("S", "RPRT 0\n"),
        ("+S", "stop:\nRPRT 0\n"),
        ("P 1000 20", "RPRT -1\n"),
        ("P 20 -50", "RPRT -1\n"),
        ("P abc 20", "RPRT -1\n"),
        ("+P 0 0", "set_pos: 0 0\nRPRT 0\n"),
        ("R 1", "RPRT 0\n"),
        ("K", "RPRT 0\n"),
        ("M 8 50", "RPRT 0\n"),
        ("+\\stop", "stop:\nRPRT 0\n"),
        ("\\dump_state", "1\n1\nmin_az=-180.000000\nmax_az=450.000000\nmin_el=0.000000\nmax_el=90.000000\n"
         "south_zero=0\nrot_type=AzEl\ndone\n"),
        ("+\\dump_state", "dump_state:\nrotctld Protocol Ver: 1\nRotor Model: 1\nMinimum Azimuth: -180.000000\n"
         "Maximum Azimuth: 450.000000\nMinimum Elevation: 0.000000\nMaximum Elevation: 90.000000\nSouth Zero: 0\n"
         "rot_type=AzEl\ndone\nRPRT 0\n"),
    ):  # fmt: skip
        assert rotator.ask(request, reply.count("\n")) == reply


def test_positions_come_in_two_forms(rotator):
    short, long = rotator.ask("p", 2), rotator.ask("+\\get_pos", 4)
    assert [len(line.partition(".")[2]) for line in short.split()] == [2, 2]
    assert [line.split(":")[0] for line in long.splitlines()[:3]] == ["get_pos", "Azimuth", "Elevation"]
    assert long.endswith("RPRT 0\n")


def test_an_unknown_command_is_not_answered_and_missing_values_are_waited_for(rotator):
    rotator.send("C\n\\warp 9\n")
    assert rotator.heard() == ""
    rotator.send("P 10\n")
    assert rotator.heard() == ""
    rotator.send("20\n")
    assert rotator.heard() == "RPRT 0\n"
    rotator.send("p p\n")
    assert rotator.heard().count("\n") == 4


def test_it_slews_at_a_finite_rate_and_stops_when_told(rotator, eventually):
    begun = time.monotonic()
    rotator.ask("P 90 45")
    eventually(lambda: float(rotator.ask("p", 2).split()[0]) == pytest.approx(90.0, abs=0.02))
    assert 90.0 / 6.0 / 20.0 < time.monotonic() - begun < 3.0
    rotator.ask("P -90 0")
    rotator.ask("S")
    time.sleep(0.1)
    assert rotator.ask("p", 2) == rotator.ask("p", 2)


def test_an_azimuth_beyond_a_turn_reads_as_it_was_asked_for(rotator, eventually):
    rotator.ask("P -20 10")
    eventually(lambda: float(rotator.ask("p", 2).split()[0]) == pytest.approx(-20.0, abs=0.02))


def test_two_clients_talk_to_the_same_rotator(start):
    program = start("mount_rotctld")
    one, two = Client(program), Client(program)
    assert one.ask("P 0 0") == "RPRT 0\n"
    assert two.ask("_") == "Dummy rotator\n"
    one.send("q\n")
    assert one.heard(1.0) == ""
    assert two.ask("_") == "Dummy rotator\n"
    close(one)
    close(two)


def test_a_daemon_that_lost_its_rotator_says_so(start):
    client = Client(start("mount_rotctld", "--faults", '{"special": ["unknown_position"]}'))
    assert client.ask("p") == "RPRT -6\n"
    close(client)
