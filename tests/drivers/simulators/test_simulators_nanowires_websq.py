"""The simulated nanowire driver, read as the vendor's client reads it, and byte by byte."""

import contextlib
import itertools
import json
import math
import socket
import time

import pytest

from groundstation.simulation.blackboard import Blackboard


class Control:
    """Speaks on the control port; keeps what was received, split at ETB and into glued objects."""

    def __init__(self, connection):
        self.connection, self.raw, self.objects = connection, b"", []
        connection.settimeout(3.0)

    def send(self, **given):
        self.connection.sendall(json.dumps(given).encode())

    def next(self, label):
        """The value of the next message with this label."""
        while True:
            while self.objects:
                found = self.objects.pop(0)
                if found["label"] == label:
                    return found["value"]
            self.raw += self.connection.recv(65536)
            *messages, self.raw = self.raw.split(b"\x17")
            for message in messages:
                text = message.decode()
                while text:
                    found, end = json.JSONDecoder().raw_decode(text)
                    self.objects.append(found)
                    text = text[end:]


class Counts:
    def __init__(self, program):
        host, port = program.ready["counts_address"].removeprefix("tcp://").split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=5.0)
        self.file = self.connection.makefile()

    def next(self):
        moment, *counts = map(float, self.file.readline().split(","))
        return moment, counts

    def close(self):
        self.file.close()
        self.connection.close()


@pytest.fixture
def control_of():
    """Another connection to the control port of a program."""
    with contextlib.ExitStack() as connections:
        yield lambda program: Control(connections.enter_context(program.connect()))


@pytest.fixture
def websq(start, control_of):
    """Start a program; its control and its counts."""
    with contextlib.ExitStack() as connections:

        def begin(*options):
            program = start("nanowires_websq", *options)
            return control_of(program), connections.enter_context(contextlib.closing(Counts(program)))

        yield begin


def bias(control, *currents_ua):
    control.send(command="DetectorEnable", label="DetectorEnable", value=True)
    control.send(command="SetAllBiasCurrents", label="BiasCurrent", value=list(currents_ua))
    assert control.next("BiasCurrent") == list(currents_ua)


def test_all_labels_come_with_their_properties_some_of_them_glued(websq):
    control, _ = websq("--channels", 3)
    control.send(request="labelProps", value="None")
    data = b""
    while b'"IVScanIncrement"' not in data or not data.endswith(b"\x17"):
        data += control.connection.recv(65536)
    assert b"}{" in data
    assert data.count(b"\x17") > 1
    control.send(request="labelProps", value="None")
    assert control.next("NumberOfDetectors")["value"] == 3
    assert control.next("BiasCurrent") == {"bounds": [-90.9, 90.9], "units": "uA", "value": [0.0, 0.0, 0.0]}


def test_a_change_is_broadcast_to_every_client(start, control_of):
    program = start("nanowires_websq")
    first, second = control_of(program), control_of(program)
    second.send(request="BiasVoltage")
    second.next("BiasVoltage")  # it has joined
    first.send(command="SetAllTriggerLevels", label="TriggerLevel", value=[23, 24, 25, 26])
    assert first.next("TriggerLevel") == second.next("TriggerLevel") == [23, 24, 25, 26]


def test_commands_may_come_glued_and_cut(websq):
    control, _ = websq()
    both = b'{"request":"BiasVoltage"}{"command":"SetMeasurementPeriod","label":"InptMeasurementPeriod","value":20}'
    for i in range(0, len(both), 7):
        control.connection.sendall(both[i : i + 7])
    assert control.next("BiasVoltage") == [0.0] * 4
    assert control.next("InptMeasurementPeriod") == 20


def test_what_cannot_be_done_is_an_error_and_changes_nothing(websq):
    control, _ = websq()
    for given in (
        {"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [1.0, 2.0]},
        {"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [1.0, 2.0, 3.0, 99.0]},
        {"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [1.0, 2.0, 3.0, "4"]},
        {"command": "SetMeasurementPeriod", "label": "InptMeasurementPeriod", "value": 9},
        {"command": "Nonsense", "value": 1},
        {"request": "Nonsense"},
    ):
        control.send(**given)
        assert isinstance(control.next("Error"), str)
    control.send(request="labelProps", value="None")
    assert control.next("InptMeasurementPeriod")["value"] == 100
    assert control.next("BiasCurrent")["value"] == [0.0] * 4


def test_counts_come_once_per_period_of_world_time(websq, fast_clock):
    control, counts = websq("--clock", fast_clock(10))
    control.send(command="SetMeasurementPeriod", label="InptMeasurementPeriod", value=250)
    control.next("InptMeasurementPeriod")
    counts.next()
    begun_s = time.monotonic()
    moments = [counts.next()[0] for _ in range(5)]
    assert [b - a for a, b in itertools.pairwise(moments)] == pytest.approx([0.25] * 4, abs=0.002)
    assert time.monotonic() - begun_s == pytest.approx(0.125, abs=0.06)


def test_dark_counts_grow_exponentially_with_the_bias(websq, fast_clock):
    control, counts = websq("--clock", fast_clock(1000))
    control.send(command="SetMeasurementPeriod", label="InptMeasurementPeriod", value=10_000)
    bias(control, 15.0, 17.0, 19.0, 0.0)
    while counts.next()[0] + 9.0 > counts.next()[0]:
        pass  # periods of the length before
    sums = [0.0] * 4
    for _ in range(20):
        sums = [total + count for total, count in zip(sums, counts.next()[1], strict=True)]
    for total, folds in zip(sums, (0, 1, 2), strict=False):
        expected = 25.0 * math.exp(folds) * 200
        assert total == pytest.approx(expected, abs=6 * expected**0.5)
    assert sums[3] == 0.0


def test_nothing_counts_while_disabled_above_the_pulse_and_everything_inside_the_noise(websq, fast_clock):
    control, counts = websq("--clock", fast_clock(100), "--faults", json.dumps({"special": ["disabled"]}))
    control.send(command="SetAllBiasCurrents", label="BiasCurrent", value=[15.0] * 4)
    control.next("BiasCurrent")
    assert all(counts.next()[1] == [0.0] * 4 for _ in range(3))
    bias(control, 15.0, 15.0, 15.0, 15.0)
    control.send(command="SetAllTriggerLevels", label="TriggerLevel", value=[1.0, 200.0, 20.0, 20.0])
    control.next("TriggerLevel")
    lines = (counts.next()[1] for _ in range(100))  # the first ones may be older than the settings
    next(line for line in lines if line[0] > 1000 and line[1] == 0.0)
    several = [counts.next()[1] for _ in range(5)]
    assert all(first > 1000 and second == 0.0 for first, second, *_ in several)


def test_too_much_current_latches_until_the_bias_is_cycled(websq, fast_clock):
    control, counts = websq("--clock", fast_clock(100))
    control.send(command="SetMeasurementPeriod", label="InptMeasurementPeriod", value=1000)
    bias(control, 25.0, 15.0, 15.0, 15.0)
    bias(control, 15.0, 15.0, 15.0, 15.0)
    counts.next()
    assert all(counts.next()[1][0] == 0.0 for _ in range(3))
    control.send(request="BiasVoltage")
    assert control.next("BiasVoltage")[0] > 0.0
    bias(control, 0.0, 15.0, 15.0, 15.0)
    bias(control, 15.0, 15.0, 15.0, 15.0)
    counts.next()
    assert sum(counts.next()[1][0] for _ in range(5)) > 0.0


def test_the_latch_fault_comes_once_or_again(websq, fast_clock, eventually):
    for special, comes_back in (("latch", False), ("latch_again", True)):
        control, counts = websq("--clock", fast_clock(100), "--faults", json.dumps({"special": [special]}))
        control.send(command="SetMeasurementPeriod", label="InptMeasurementPeriod", value=1000)
        bias(control, 15.0, 15.0, 15.0, 15.0)
        eventually(lambda counts=counts: counts.next()[1][0] == 0.0 == counts.next()[1][0])
        bias(control, 0.0, 15.0, 15.0, 15.0)
        bias(control, 15.0, 15.0, 15.0, 15.0)
        counts.next()
        counts.next()
        assert (sum(counts.next()[1][0] for _ in range(5)) == 0.0) is comes_back


def test_bright_light_and_a_warm_cryostat_silence_all(websq, fast_clock, eventually):
    for special in ("blinded", "warm"):
        control, counts = websq("--clock", fast_clock(100), "--faults", json.dumps({"special": [special]}))
        bias(control, 15.0, 15.0, 15.0, 15.0)
        eventually(lambda counts=counts: all(counts.next()[1] == [0.0] * 4 for _ in range(10)))
        control.send(request="TemperatureHistory")
        assert (control.next("temperature_long_memory")["T"][-1] > 3.0) is (special == "warm")


def test_auto_bias_finds_the_dark_counts_that_were_asked_for(websq, fast_clock):
    control, _ = websq("--clock", fast_clock(100))
    control.send(command="DarkCountsAutoIV", value=[25, 25, 50, 50])
    control.send(command="AutoCaliBiasCurrents", value=True)
    assert control.next("StartAutoIV") is True
    found = control.next("BiasCurrentAutoIV")
    assert found[:2] == [15.0, 15.0]
    assert found[2] == pytest.approx(15.0 + 2.0 * math.log(2))
    assert control.next("StartAutoIV") is False


def test_a_scan_gives_counts_and_voltages_over_the_bias(websq, fast_clock):
    control, _ = websq("--clock", fast_clock(100))
    for label, value in (("IVScanStart", 10), ("IVScanEnd", 24), ("IVScanIncrement", 2)):
        control.send(label=label, value=value)
    control.send(command="IVScanEnable", label="IVScanEnable", value=True)
    assert control.next("IVScanEnable") is True
    assert control.next("IVScanEnable") is False
    control.send(request="IVHistory")
    ic = control.next("ic_scan_history")["value"]
    iv = control.next("iv_scan_history")["value"]
    assert [point["biasCurrent"] for point in ic] == [10, 12, 14, 16, 18, 20, 22, 24]
    assert [point["v1"] > 0 for point in iv] == [False] * 6 + [True] * 2
    assert ic[-1]["y4"] == 0.0


def test_the_world_sees_how_sensitive_the_wires_are(websq, tmp_path, eventually):
    board = Blackboard.create(tmp_path / "world")
    control, _ = websq("--world", tmp_path / "world")
    bias(control, 15.0, 9.0, 0.0, 25.0)
    eventually(lambda: board.detectors(2**62)[0][0] > 0.99)
    assert board.detectors(2**62)[0].tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=0.003)
    assert board.detectors(2**62)[1][0] == pytest.approx(25.0)


def test_braces_in_a_text_and_settings_that_are_not_taken(websq):
    control, counts = websq("--faults", json.dumps({"special": ["braces", "silent_set", "split_lines"]}))
    control.send(command="SetAllBiasCurrents", label="BiasCurrent", value=[1.0] * 4)
    control.send(request="labelProps", value="None")
    assert control.next("BiasCurrent")["value"] == [0.0] * 4
    assert "}{" in control.next("Note")["value"]
    assert len(counts.next()[1]) == len(counts.next()[1]) == 4


def test_the_wrong_model_knows_nothing_of_detectors(start, control_of):
    control = control_of(start("nanowires_websq", "--faults", json.dumps({"wrong_model": True})))
    control.send(request="labelProps", value="None")
    control.send(command="SetAllBiasCurrents", label="BiasCurrent", value=[1.0] * 4)
    for _ in range(2):
        assert control.next("CompressorPressure") == 14.2
    assert control.objects == []
