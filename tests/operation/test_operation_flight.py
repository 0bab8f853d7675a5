"""A pass flown by the state table on a mount with real dynamics, in a world that runs fifty times faster."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from operation_samples import DynamicsMount, FakeDetector

from groundstation.clock import NS_PER_S, SimulatedClock, monotonic_ns
from groundstation.config import load_config
from groundstation.errors import InstrumentFault, TransportLost, WireError
from groundstation.operation import guard, pointing_watch, reach
from groundstation.operation.flight import Flight, FlightPlan
from groundstation.operation.logbook import Logbook
from groundstation.passes.prediction import fit_azimuth, predict_path
from groundstation.passes.states import State
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter

CULMINATION_NS = 1_482_166_333 * NS_PER_S
LEAD_S, TRACK_S = 13, 30
PARK_DEG = (240.0, 20.0)  # ten seconds from the path
BIAS_V, TEMPERATURE_C = 190.0, -20.0


@pytest.fixture(scope="module")
def path():
    """The published pass around its culmination."""
    config = load_config(Path(__file__).parents[2] / "config" / "simulated.toml")
    orbit = config.orbit()
    return fit_azimuth(predict_path(orbit, CULMINATION_NS - 60 * NS_PER_S, CULMINATION_NS + 60 * NS_PER_S))


@pytest.fixture
def world(path, tmp_path, request):
    """A station about to fly: mount, detectors, logbook, flight. Its thread and its logbook end with the test."""
    speed = getattr(request, "param", 50.0)
    clock = SimulatedClock(CULMINATION_NS - LEAD_S * NS_PER_S, monotonic_ns(), speed)
    run_id = create_recording(tmp_path / "recording", {"mode": "simulation"})
    directory = tmp_path / "recording"
    logbook = Logbook(StreamWriter(directory, "telemetry", run_id), StreamWriter(directory, "events", run_id), clock)
    logbook.begin(path.table())
    mount = DynamicsMount(clock, PARK_DEG)
    detectors = {name: FakeDetector() for name in "HVDA"}
    plan = FlightPlan(path, CULMINATION_NS, CULMINATION_NS + TRACK_S * NS_PER_S, *PARK_DEG, 0.1, BIAS_V, TEMPERATURE_C)
    danger, heartbeats = [""], []
    flight = Flight(plan, mount, detectors, logbook, clock, lambda: heartbeats.append(1), lambda: danger[0])
    thread = threading.Thread(target=flight.run)
    yield SimpleNamespace(
        clock=clock, mount=mount, detectors=detectors, flight=flight, thread=thread, danger=danger,
        heartbeats=heartbeats, logbook=logbook, directory=directory, path=path,
    )  # fmt: skip
    flight.stop_now()
    if thread.ident is not None:
        thread.join(20.0)
    if not (directory / "closed").exists():
        logbook.close()


def fly(world, actions=None):
    """The whole flight; an action happens in the flight's own thread, the moment it enters the action's state."""
    tell = world.logbook.event

    def event(kind, sentence, **facts):
        tell(kind, sentence, **facts)
        (actions or {}).get(facts.get("state"), lambda: None)()

    world.logbook.event = event
    world.thread.start()
    world.thread.join(60.0)
    assert not world.thread.is_alive()
    world.logbook.close()
    (world.directory / "closed").touch()


def log(world, kind):
    """The entries of a kind in the events stream."""
    segments = open_recording(world.directory).stream("events").poll(10**6)
    texts = [text for segment in segments if "events" in segment.tables for text in segment.tables["events"]["text"]]
    return [entry for entry in map(json.loads, texts) if entry["kind"] == kind]


def states(world):
    return [entry["state"] for entry in log(world, "state")]


def telemetry(world):
    segments = open_recording(world.directory).stream("telemetry").poll(10**6)
    tables = [segment.tables["mount"] for segment in segments if "mount" in segment.tables]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def assert_parked(world):
    azimuth, elevation = world.mount.pointing_deg()
    assert abs(azimuth - PARK_DEG[0]) < 0.05
    assert abs(elevation - PARK_DEG[1]) < 0.05
    assert_still(world)


def assert_still(world):
    assert world.mount.rates_deg_s == (0.0, 0.0)


def test_a_whole_pass_goes_through_the_table_and_parks(world):
    fly(world)
    assert states(world) == ["PLANNED", "PREFLIGHT", "SLEW", "ARMED", "TRACK", "END", "PARKING", "PARKED"]
    assert world.flight.ended_well
    assert world.flight.status.alarms == ()
    assert_parked(world)
    assert [detector.history for detector in world.detectors.values()] == [[BIAS_V, 0.0]] * 4
    assert world.flight.tracking_over.is_set()
    assert len(world.heartbeats) > 15


@pytest.mark.slow
@pytest.mark.parametrize("world", [20.0], indirect=True)
def test_while_it_tracks_it_follows_the_path_and_writes_it_down(world):
    fly(world)
    mount = telemetry(world)
    assert mount["utc_ns"][0] >= CULMINATION_NS
    assert mount["utc_ns"][-1] < CULMINATION_NS + (TRACK_S + 2) * NS_PER_S
    assert np.all(np.diff(mount["utc_ns"]) > 0)
    azimuth, elevation = world.path.at(mount["utc_ns"])
    off_deg = np.hypot(
        ((mount["azimuth_deg"] - azimuth + 180.0) % 360.0 - 180.0) * np.cos(np.radians(elevation)),
        mount["elevation_deg"] - elevation,
    )
    assert off_deg * 3600.0 == pytest.approx(mount["error_arcsec"], abs=0.5)
    settled = mount["utc_ns"] > CULMINATION_NS + 15 * NS_PER_S
    assert np.median(off_deg[settled]) * 3600.0 < 60.0
    assert np.all(mount["used"] == 1)


def test_an_operator_who_stops_gets_a_parked_mount(world):
    fly(world, {State.TRACK: world.flight.request_stop})
    assert states(world)[-3:] == ["ABORT", "PARKING", "PARKED"]
    assert not world.flight.ended_well
    assert world.flight.status.alarms == ()
    assert_parked(world)


@pytest.mark.parametrize("state", [State.PLANNED, State.SLEW])
def test_a_stop_before_the_pass_parks_as_well(world, state):
    fly(world, {state: world.flight.request_stop})
    assert states(world)[-3:] == ["ABORT", "PARKING", "PARKED"]
    assert "TRACK" not in states(world)
    assert_parked(world)


@pytest.mark.parametrize("state", [pytest.param(State.SLEW, marks=pytest.mark.slow), State.TRACK])
def test_an_operator_who_wants_no_motion_gets_none(world, state):
    fly(world, {state: world.flight.stop_now})
    assert states(world)[-1] == "ABORT"
    assert "PARKING" not in states(world)
    assert_still(world)
    assert not world.flight.ended_well
    assert world.mount.commands[-3:] == ["stop", "read_position", "read_position"]


def test_a_second_stop_while_parking_ends_motion_at_once(world):
    fly(world, {State.TRACK: world.flight.request_stop, State.PARKING: world.flight.stop_now})
    assert states(world)[-1] == "FAULT"
    assert_still(world)
    assert abs(world.mount.pointing_deg()[1] - PARK_DEG[1]) > 0.05, "it did not go on to its park position"


def test_a_danger_ends_the_pass_with_an_alarm_and_parks(world):
    fly(world, {State.TRACK: lambda: world.danger.__setitem__(0, "acquisition ended: disk full")})
    assert states(world)[-3:] == ["ABORT", "PARKING", "PARKED"]
    assert world.flight.status.alarms == ("acquisition ended: disk full",)
    assert [entry["sentence"] for entry in log(world, "alarm")] == ["acquisition ended: disk full"]
    assert not world.flight.ended_well
    assert_parked(world)


def lost(command):
    raise TransportLost("the mount is unplugged")


def test_a_mount_that_stays_lost_is_a_fault_with_alarms_and_attempts_to_stop(world, monkeypatch):
    monkeypatch.setattr(guard, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(reach, "_AT_MOST_S", 0.2)

    def unplug():
        world.mount.commands.clear()
        world.mount.fail = lost

    fly(world, {State.TRACK: unplug})
    assert world.flight.status.state is State.FAULT
    assert states(world)[-1] == "FAULT"
    first, *others = world.flight.status.alarms
    assert first.startswith("the mount is out of reach since 2016-12-19T16:5")
    assert others == [
        "the mount is unplugged",
        "the mount does not stand still after the stop command; stop it by hand",
    ]
    assert world.mount.commands.count("stop") >= 3
    assert world.flight.tracking_over.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("state", [State.SLEW, State.ARMED, State.TRACK, State.PARKING])
def test_a_mount_that_is_lost_for_a_moment_is_found_again_and_the_pass_goes_on(world, state):
    """Rates and slews are commanded anew; the guard hears nothing meanwhile, so that it can stop the mount."""
    failures, beats = [], []

    def shaky(command):
        if len(failures) < 3:
            failures.append(command)
            beats.append(len(world.heartbeats))
            raise TransportLost("loose plug")

    fly(world, {state: lambda: setattr(world.mount, "fail", shaky)})
    assert states(world)[-3:] == ["END", "PARKING", "PARKED"]
    (alarm,) = world.flight.status.alarms
    assert alarm.startswith("the mount answers again after ")
    assert log(world, "alarm")[0]["sentence"].startswith("the mount is out of reach since ")
    assert len(log(world, "alarm")) == 2
    assert not world.flight.ended_well, "somebody should look at that plug"
    assert beats[0] == beats[-1]
    if state in (State.SLEW, State.PARKING):
        assert world.mount.commands.count("go_to") > 2, "the guard may have stopped the slew"
    assert_parked(world)


def test_one_garbled_reply_is_a_note_and_no_alarm(world):
    failures = iter([WireError("12AB0500 is no position")])

    def garbled(command):
        if (failure := next(failures, None)) is not None:
            raise failure

    fly(world, {State.TRACK: lambda: setattr(world.mount, "fail", garbled)})
    assert world.flight.ended_well
    assert "the mount missed a turn: 12AB0500 is no position" in [entry["sentence"] for entry in log(world, "note")]


def test_a_mount_that_does_not_follow_is_an_alarm_once_and_once_more_when_it_does(world, monkeypatch):
    monkeypatch.setattr(pointing_watch, "_TOO_LARGE_S", 0.05)
    set_rates, stuck = world.mount.set_rates, threading.Event()
    world.mount.set_rates = lambda *rates: None if stuck.is_set() else set_rates(*rates)
    feed, alarms = pointing_watch.PointingWatch.feed, []

    def fed(watch, error_arcsec):
        sentence = feed(watch, error_arcsec)
        alarms.extend([sentence] if sentence else [])
        if sentence.startswith("the pointing error is above"):
            stuck.clear()
        return sentence

    monkeypatch.setattr(pointing_watch.PointingWatch, "feed", fed)
    fly(world, {State.TRACK: stuck.set})
    assert alarms[0].startswith("the pointing error is above 30 arcsec for more than 0 s: ")
    assert [entry["sentence"] for entry in log(world, "alarm")] == alarms
    assert len(world.flight.status.alarms) == 1


def test_a_mount_that_lies_about_parking_is_found_out(world):
    go_to = world.mount.go_to

    def lie():
        world.mount.go_to = lambda azimuth_deg, elevation_deg: go_to(azimuth_deg, elevation_deg + 3.0)
        world.flight.request_stop()

    fly(world, {State.TRACK: lie})
    assert world.flight.status.state is State.FAULT
    (alarm,) = world.flight.status.alarms
    assert alarm.startswith("not parked: the mount says that it arrived but stands at azimuth ")
    assert "elevation 23.0" in alarm or "elevation 22.9" in alarm
    assert_still(world)


def test_a_coarse_rotator_has_arrived_where_its_own_tolerance_says(world):
    go_to = world.mount.go_to
    world.mount.go_to = lambda azimuth_deg, elevation_deg: go_to(azimuth_deg, elevation_deg + 0.3)
    world.mount.capabilities = replace(world.mount.capabilities, tolerance_deg=0.5)
    fly(world)
    assert states(world)[-1] == "PARKED"


@pytest.mark.parametrize("world", [1000.0], indirect=True)
def test_a_mount_that_never_arrives_is_given_up_on(world):
    world.mount.is_slewing = lambda: True
    fly(world)
    alarms = world.flight.status.alarms
    assert alarms[0] == "the mount is still slewing after 180 s; look at it before you go on"
    assert alarms[1] == f"not parked: {alarms[0]}"
    assert world.flight.status.state is State.FAULT
    assert_still(world)


def test_a_detector_that_does_not_answer_before_the_pass_ends_it(world):
    world.detectors["D"].broken = True
    fly(world)
    assert states(world)[:3] == ["PLANNED", "PREFLIGHT", "FAULT"]
    assert "the detector does not answer" in world.flight.status.alarms
    assert "TRACK" not in states(world)


def test_one_broken_detector_does_not_keep_the_bias_of_the_others_on(world):

    def disturb():
        world.detectors["H"].broken = True
        world.flight.request_stop()

    fly(world, {State.TRACK: disturb})
    assert [world.detectors[name].bias for name in "VDA"] == [0.0] * 3
    assert any("detector H" in alarm for alarm in world.flight.status.alarms)
    assert_parked(world)


def test_a_detector_whose_link_comes_back_in_time_has_its_bias_switched_off(world):
    set_bias_v, refused = world.detectors["A"].set_bias_v, []

    def loose(bias_v):
        if bias_v == 0.0 and len(refused) < 3:
            refused.append(bias_v)
            raise TransportLost("loose plug")
        set_bias_v(bias_v)

    world.detectors["A"].set_bias_v = loose
    fly(world, {State.TRACK: world.flight.request_stop})
    assert (world.detectors["A"].bias, len(refused)) == (0.0, 3)
    assert world.flight.status.alarms == ()


def test_a_warm_detector_is_an_alarm_and_the_pass_is_flown(world):
    world.detectors["V"] = FakeDetector(cools=False)
    fly(world)
    assert states(world)[-1] == "PARKED"
    assert "TRACK" in states(world)
    assert world.flight.status.alarms == ("detector V is at 20.0 C, too warm",)


def test_a_mistake_in_the_program_still_stops_the_mount(world):
    def mistaken(command):
        if command == "set_rates":
            raise ZeroDivisionError("a mistake")

    world.mount.fail = mistaken
    world.flight.run()
    assert_still(world)
    assert "ZeroDivisionError: a mistake" in world.flight.status.alarms
    assert world.flight.tracking_over.is_set()
    assert not world.flight.ended_well


def test_a_pass_that_is_over_already_is_not_tracked(path, world):
    late = SimulatedClock(CULMINATION_NS + (TRACK_S + 5) * NS_PER_S, monotonic_ns(), 50.0)
    mount = DynamicsMount(late, PARK_DEG)
    flight = Flight(world.flight._plan, mount, {}, world.logbook, late, lambda: None, lambda: "")
    flight.run()
    assert flight.status.state is State.PARKED
    assert "set_rates" not in mount.commands


def test_a_log_that_can_no_longer_be_written_is_an_alarm_and_the_pass_goes_on(world):
    fly(world, {State.SLEW: lambda: setattr(world.logbook, "_failure", InstrumentFault("the disk is full"))})
    assert world.flight.status.state is State.PARKED
    (alarm,) = world.flight.status.alarms
    assert "the disk is full" in alarm
    world.logbook._failure = None
