"""The ID900's driver and its simulator, two programs that share no code: true times, losses as gaps, every fault."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest

from drivers.tagger_id900 import connect
from groundstation.acquisition.connection import TaggerConnection
from groundstation.acquisition.daemon import Acquisition
from groundstation.clock import SimulatedClock, monotonic_ns, monotonic_s
from groundstation.errors import GroundStationError, InstrumentFault, TransportTimeout, WrongInstrument
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter

SPEED = 5.0
PERIOD_PS = 250_000_000_000
PPS = 0b1100
PATTERNS = {"H": 1, "V": 2, "D": 4, "A": 8, "sync": 0b0011, "pps": PPS}


class Bench:
    """One simulator program and what is needed to connect to it."""

    def __init__(self, program, clock):
        self.program, self.clock = program, clock
        line = program.stdout.readline()
        assert line, program.communicate()[1]
        self._ready = json.loads(line)

    def connect(self, **more):
        settings = {**self._ready["settings"], "timeout_s": 1.0, **more}
        return connect(self._ready["address"], self.clock, settings)


@pytest.fixture
def bench():
    """Start a simulator with these faults; it ends with the test."""
    programs = []

    def begin(*options, **faults):
        clock = SimulatedClock(1_482_166_140_000_000_000, monotonic_ns(), SPEED)
        command = [sys.executable, "-m", "drivers.simulators.tagger_id900", "--clock", clock.text()]
        command += ["--faults", json.dumps(faults), *map(str, options)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return Bench(programs[-1], clock)

    yield begin
    for program in programs:
        program.terminate()
        assert program.communicate(timeout=10)[1] == ""


def read_periods(tagger, count, timeout_s=10.0):
    """Blocks until so many periods are over."""
    blocks, deadline = [], monotonic_s() + timeout_s
    while not blocks or blocks[-1].latest_ps < count * PERIOD_PS:
        assert monotonic_s() < deadline
        blocks.append(tagger.read(0.1))
    return blocks


def events(blocks):
    return np.concatenate([b.time_ps for b in blocks]), np.concatenate([b.pattern for b in blocks])


def test_every_click_of_the_world_arrives_at_its_true_time(bench, tmp_path):
    create_recording(tmp_path / "truth", {"mode": "simulation"})
    simulated = bench("--truth", tmp_path / "truth")
    with contextlib.closing(simulated.connect()) as tagger:
        assert (tagger.identify().model, tagger.resolution_ps) == ("ID Quantique ID900", 13.0)
        blocks = read_periods(tagger, 6)
    simulated.program.terminate()
    assert simulated.program.communicate(timeout=10)[1] == ""
    times, patterns = events(blocks)
    truth = columns(tmp_path / "truth", "truth", "clicks")["device_ps"]
    truth = truth[truth < blocks[-1].latest_ps]
    dark_ps = truth % PERIOD_PS >= PERIOD_PS - 400_000  # between two sub-acquisitions
    clicks = times[np.isin(patterns, (1, 2, 4, 8))]
    # A click within 1 ns of a pulse of the beacon becomes part of its event, or takes a part of it.
    assert np.isin(clicks, truth).mean() > 0.999
    assert np.isin(truth[~dark_ps], clicks).mean() > 0.995
    assert (sum(block.missed for block in blocks), [note for block in blocks for note in block.notes]) == (0, [])
    pulses = times[patterns == PPS]
    assert np.allclose(np.diff(pulses) / 1e12, 1.0, atol=1e-6)
    assert np.count_nonzero(patterns == 0b0011) == pytest.approx(15_000, rel=0.1)  # some pulses are lost in fades


def test_what_is_set_holds_and_what_is_refused_is_a_fault(bench):
    simulated = bench(special=["old_errors", "wrong_case"])
    inputs = {"1": {"threshold_v": -0.4, "edge": "falling", "coupling": "ac", "delay_ps": 1500}, "2": {}}
    with contextlib.closing(simulated.connect(inputs=inputs)) as tagger:
        read_periods(tagger, 1)
        tagger.set_counting_time(200)
        deadline = monotonic_s() + 5.0
        while min(tagger.input_counts().values()) < 1000:
            assert monotonic_s() < deadline
        tagger.start_histogram(1, 2, 1, 130, 100)
        while tagger.histogram(1).max() < 100:
            assert monotonic_s() < deadline
        assert np.argmax(tagger.histogram(1)) == 11  # 1500 ps: the beacon is on both inputs
    with pytest.raises(InstrumentFault, match=r"refuses INPU1:THRE 9V: .*scpi_err_param_overflow"):
        simulated.connect(inputs={"1": {"threshold_v": 9.0}})


def test_generators_stand_for_inputs_and_their_pulses_go_on_over_the_periods(bench):
    generators = {str(n): {"period_ps": 10_000_000 * n, "width_ps": 20_000} for n in (1, 2)}
    inputs = {str(n): {"source": f"GEN{n}"} for n in (1, 2)}
    with contextlib.closing(bench().connect(inputs=inputs, generators=generators)) as tagger:
        times, patterns = events(read_periods(tagger, 4))
    assert np.array_equal(times[:100_000], np.arange(100_000) * 10_000_000)
    assert np.array_equal(patterns[:100_000], np.tile(np.uint8([3, 1]), 50_000))


def record(tagger, clock, directory, until_s):
    """What the recorder makes of it: the gaps of the recording, and its tags."""
    run_id = create_recording(directory, {"mode": "simulation", "patterns": PATTERNS})
    with StreamWriter(directory, "tags", run_id) as writer:
        acquisition = Acquisition(tagger, PATTERNS, writer, clock, 0.1, 0.1)
        acquisition.run(until_s, lambda status: None)
    return columns(directory, "tags", "gaps"), columns(directory, "tags", "tags")


def columns(directory, stream, table):
    reader, segments = open_recording(directory).stream(stream), []
    while not reader.ended:
        segments += reader.poll()
    found = [segment.tables[table] for segment in segments if table in segment.tables]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def after_wall_s(span_s):
    deadline = monotonic_s() + span_s
    return lambda: monotonic_s() >= deadline


def test_tags_that_overflow_are_gaps_of_the_recording_with_their_number(bench, tmp_path):
    simulated = bench(special=["overflow"])
    with contextlib.closing(simulated.connect()) as tagger:
        gaps, _ = record(tagger, simulated.clock, tmp_path / "recording", after_wall_s(1.5))
    assert gaps["missed"].size >= 3
    assert np.all((gaps["missed"] > 500) & (gaps["missed"] < 5000))
    assert np.all(gaps["stop_ps"] - gaps["start_ps"] <= 3 * PERIOD_PS)
    middles = (gaps["start_ps"] + gaps["stop_ps"]) / 2
    assert np.allclose(np.diff(middles), 5 * PERIOD_PS, atol=PERIOD_PS)  # every fifth sub-acquisition


@pytest.mark.slow
def test_a_lost_sub_acquisition_is_a_gap_and_times_are_true_again_after_it(bench, tmp_path):
    simulated = bench(special=["dlt_loss"])
    with contextlib.closing(TaggerConnection(simulated.connect, PPS, simulated.clock)) as tagger:
        deadline = monotonic_s() + 20.0
        back_since_s = None

        def over():
            nonlocal back_since_s
            if tagger.outages == 1 and not tagger.trouble:
                back_since_s = back_since_s or monotonic_s()
            return monotonic_s() > deadline or (back_since_s is not None and monotonic_s() > back_since_s + 1.0)

        gaps, tags = record(tagger, simulated.clock, tmp_path / "recording", over)
    assert back_since_s is not None, tagger.trouble
    assert tagger.outages == 1
    (start_ps,), (stop_ps,) = gaps["start_ps"], gaps["stop_ps"]
    assert b"input 2 sent no message for a period" in gaps["cause"][0]
    assert b"its time was found again by the 1PPS" in gaps["cause"][0]
    within = (tags["time_ps"] > start_ps) & (tags["time_ps"] < stop_ps)
    assert not within.any()
    assert 1.0 < (stop_ps - start_ps) / 1e12 < 15.0
    pulses = tags["time_ps"][tags["channel"] == 5]
    seconds = (pulses - pulses[0]) / 1e12
    seconds = seconds[np.abs(seconds - np.rint(seconds)) < 1e-6]  # without photons that came in pairs
    after = np.rint(seconds[pulses[0] / 1e12 + seconds > stop_ps / 1e12])
    assert after.size > 5
    assert np.array_equal(np.diff(after), np.ones(after.size - 1))


def read_until_it_fails(tagger, timeout_s=10.0):
    deadline = monotonic_s() + timeout_s
    while monotonic_s() < deadline:
        tagger.read(0.1)
    raise AssertionError("it went on")


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [("1",), ("1", "2", "3", "4")])
def test_a_period_that_every_input_skips_is_seen_by_the_hosts_clock(bench, inputs):
    simulated = bench(special=["silent_period"])
    with contextlib.closing(simulated.connect(inputs={number: {} for number in inputs})) as tagger:
        read_periods(tagger, 3)
        with pytest.raises(InstrumentFault, match="every input sent no message for a period"):
            read_periods(tagger, 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("special", "complaint"),
    [
        (["silent_channel"], "input 1 sent no message for a period"),
        (["silent_channel", "empty_messages"], "input 1 sent an empty message"),
        (["dlt_loss"], "input 2 sent no message for a period"),
    ],
)
def test_times_that_are_unknown_are_refused_and_those_before_were_true(bench, special, complaint):
    with contextlib.closing(bench(special=special).connect()) as tagger:
        blocks = read_periods(tagger, 3)
        with pytest.raises(InstrumentFault, match=complaint):
            read_until_it_fails(tagger)
    times, patterns = events(blocks)
    steps = np.diff(times[patterns == 0b0011]) / 1e8
    assert np.median(np.abs(steps - np.rint(steps))) < 1e-4


@pytest.mark.slow
def test_a_service_that_is_gone_ends_in_silence_or_in_our_error_within_the_deadline(bench):
    with contextlib.closing(bench(special=["dlt_stops"]).connect()) as tagger:
        latest_ps, longest_s, deadline = 0, 0.0, monotonic_s() + 1.5
        with contextlib.suppress(TransportTimeout):
            while monotonic_s() < deadline:
                began_s = monotonic_s()
                latest_ps = max(latest_ps, tagger.read(0.1).latest_ps)
                longest_s = max(longest_s, monotonic_s() - began_s)
        assert latest_ps <= 8 * PERIOD_PS
        assert longest_s < 1.5


def test_refusals(bench):
    with pytest.raises(InstrumentFault, match="no connection to the Time Controller"):
        bench(special=["dlt_error"]).connect()
    with pytest.raises(WrongInstrument, match="DG645"):
        bench(wrong_model=True).connect()


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        {"mute_after_s": 0.0},
        {"late_every": 1, "late_by_s": 50.0},
        {"reply_delay_s": 0.1},
        {"drop_reply_every": 9},
        {"late_every": 7, "late_by_s": 6.0},
        {"hang_up_after": 5},
        {"drop_byte_every": 5},
        {"double_byte_every": 5},
    ],
    ids=lambda faults: "-".join(faults),
)
def test_no_fault_of_the_wire_hangs_the_driver_or_is_taken_for_tags(bench, faults):
    simulated = bench(**faults)
    began_s, done = monotonic_s(), False
    with contextlib.suppress(GroundStationError), contextlib.closing(simulated.connect(timeout_s=0.5)) as tagger:
        blocks = read_periods(tagger, 3)
        times, patterns = events(blocks)
        steps = np.diff(times[patterns == 0b0011]) / 1e8
        assert np.median(np.abs(steps - np.rint(steps))) < 1e-4
        done = True
    assert done or "reply_delay_s" not in faults
    assert monotonic_s() - began_s < 15.0
