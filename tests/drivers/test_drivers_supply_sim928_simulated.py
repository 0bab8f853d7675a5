"""The SIM928's driver and its simulator, two programs that share no code: what a bias does to a nanowire."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest

from drivers.supply_sim928 import connect
from groundstation.clock import SimulatedClock, monotonic_ns
from groundstation.errors import InstrumentFault
from groundstation.simulation.blackboard import Blackboard

BIAS_OHM = 100_000.0
BIAS_V = 1.5  # 15 uA: the wire's operating point, where it has the 25 Hz of dark counts of the simulated world


class Wire:
    """What a counter sees of the simulated detector 0."""

    def __init__(self, board, clock):
        self._board, self._clock, self._random = board, clock, np.random.default_rng(5)

    def count(self, integration_s):
        self._clock.sleep_s(integration_s)
        _, dark_hz = self._board.detectors(self._clock.utc_ns())
        return int(self._random.poisson(dark_hz[0] * integration_s))


@contextlib.contextmanager
def biased(folder, *special):
    """The supply, its first output on at the operating point, and the wire behind it."""
    clock = SimulatedClock(1_482_166_140_000_000_000, monotonic_ns(), 20.0)
    board = Blackboard.create(folder / "world.bin")
    command = [sys.executable, "-m", "drivers.simulators.supply_sim928", "--bias-ohm", str(BIAS_OHM), "--supervised"]
    command += ["--world", str(folder / "world.bin"), "--clock", clock.text(), "--linger", "0"]
    command += ["--faults", json.dumps({"special": special})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        address = json.loads(program.stdout.readline())["address"]
        supply = connect(address, clock, {"slots": [1, 2, 3, 4], "timeout_s": 2.0})
        with contextlib.closing(supply):
            supply.set_voltage_v(1, BIAS_V)
            supply.switch(1, True)
            yield supply, Wire(board, clock)
        program.stdin.close()


def counted_latched(supply, wire):
    return supply.latched(1, wire.count(supply.latch_seen_s), supply.latch_seen_s)


def test_a_healthy_wire_is_not_called_latched_and_keeps_its_bias_over_a_reset(tmp_path):
    with biased(tmp_path) as (supply, wire):
        assert not counted_latched(supply, wire)
        supply.reset(1, wire.count)
        assert supply.voltage_v(1) == BIAS_V


def test_a_latched_wire_is_seen_and_freed_by_a_reset(tmp_path):
    with biased(tmp_path, "latch") as (supply, wire):
        assert counted_latched(supply, wire)
        supply.reset(1, wire.count)
        assert not counted_latched(supply, wire)
        assert supply.voltage_v(1) == BIAS_V


def test_a_wire_that_latches_again_is_a_fault(tmp_path):
    with biased(tmp_path, "latch_again") as (supply, wire):
        with pytest.raises(InstrumentFault, match=r"slot 1 stays silent at 1\.5 V after its bias was cycled"):
            supply.reset(1, wire.count)
        assert counted_latched(supply, wire)
