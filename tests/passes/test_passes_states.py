"""The table of a pass: what follows what, and that stopping works from everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.errors import GroundStationError
from groundstation.passes.states import TRANSITIONS, Event, PassState, State, mermaid

STOPS = (Event.OPERATOR_STOP, Event.UNSAFE, Event.FAILED)
MOVING = {State.SLEW, State.ARMED, State.TRACK, State.END}


def reach(state: State) -> PassState:
    """A pass in the given state, by the shortest way."""
    ways: list[tuple[State, list[Event]]] = [(State.IDLE, [])]
    for here, events in ways:
        if here is state:
            machine = PassState()
            for event in events:
                machine.advance(event)
            return machine
        known = {way[0] for way in ways}
        ways += [(to, [*events, event]) for event, to in TRANSITIONS[here].items() if to not in known]
    raise AssertionError(f"{state} cannot be reached")


def test_an_undisturbed_pass_goes_from_idle_to_parked() -> None:
    machine = PassState()
    visited = [
        machine.advance(event)
        for event in (
            Event.PLANNED,
            Event.CHECK_STARTED,
            Event.CHECKED,
            Event.ON_TARGET,
            Event.STARTED,
            Event.WINDOW_OVER,
            Event.PARK_STARTED,
            Event.PARKED,
        )
    ]
    assert visited == ["PLANNED", "PREFLIGHT", "SLEW", "ARMED", "TRACK", "END", "PARKING", "PARKED"]


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_has_a_row(state: State) -> None:
    assert reach(state).state is state


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", STOPS)
def test_stopping_is_never_an_error_and_never_leads_back_into_the_pass(state: State, event: Event) -> None:
    after = reach(state).advance(event)
    assert after in {State.ABORT, State.FAULT, State.PARKING} or after is state
    assert after not in MOVING


@pytest.mark.parametrize("state", sorted(MOVING))
def test_a_stopped_pass_parks(state: State) -> None:
    machine = reach(state)
    assert machine.advance(Event.OPERATOR_STOP) is State.ABORT
    assert machine.advance(Event.PARK_STARTED) is State.PARKING
    assert machine.advance(Event.PARKED) is State.PARKED


def test_a_second_stop_ends_even_the_parking() -> None:
    machine = reach(State.PARKING)
    assert machine.advance(Event.OPERATOR_STOP) is State.FAULT


def test_weather_does_not_interrupt_the_parking() -> None:
    assert reach(State.PARKING).advance(Event.UNSAFE) is State.PARKING


def test_an_illegal_event_names_state_event_and_what_is_possible_and_changes_nothing() -> None:
    machine = reach(State.ARMED)
    with pytest.raises(GroundStationError, match=r'state ARMED cannot take the event "parked".*started'):
        machine.advance(Event.PARKED)
    assert machine.state is State.ARMED
    assert machine.accepts(Event.STARTED)
    assert not machine.accepts(Event.PARKED)


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_parked_is_only_reached_through_parking(events: list[Event]) -> None:
    machine = PassState()
    for event in events:
        before = machine.state
        if machine.accepts(event) and machine.advance(event) is State.PARKED:
            assert before in {State.PARKING, State.PARKED}


def test_the_diagram_shows_each_transition_once() -> None:
    lines = mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    TRACK --> ABORT: operator_stop, unsafe" in lines
    assert len(lines) == len(set(lines))
    shown = sum(line.count(",") + 1 for line in lines[2:])
    assert shown == sum(to is not state for state, events in TRANSITIONS.items() for to in events.values())
