"""The states of a pass and what leads from one to the next, as one table; the diagram is made from it.

Two states end a pass early. ABORT: someone or a safety rule ended it, the mount is stopped and then parked.
FAULT: something does not do what it was told; the mount is stopped where it stands and parked if it can be.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from groundstation.errors import GroundStationError


class State(StrEnum):
    """Where a pass stands."""

    IDLE = "IDLE"
    PLANNED = "PLANNED"
    PREFLIGHT = "PREFLIGHT"
    SLEW = "SLEW"
    ARMED = "ARMED"
    TRACK = "TRACK"
    END = "END"
    PARKING = "PARKING"
    PARKED = "PARKED"
    ABORT = "ABORT"
    FAULT = "FAULT"


class Event(StrEnum):
    """What happened to a pass."""

    PLANNED = "planned"
    CHECK_STARTED = "check_started"
    CHECKED = "checked"
    ON_TARGET = "on_target"
    STARTED = "started"
    WINDOW_OVER = "window_over"
    PARK_STARTED = "park_started"
    PARKED = "parked"
    OPERATOR_STOP = "operator_stop"
    UNSAFE = "unsafe"
    FAILED = "failed"


_S, _E = State, Event


def _at_rest(state: State) -> dict[Event, State]:
    """Nothing moves: there is nothing to stop, but something may still break."""
    return {_E.OPERATOR_STOP: state, _E.UNSAFE: state, _E.FAILED: _S.FAULT}


def _on_its_way(state: State) -> dict[Event, State]:
    """Parking is the safe way out already; an operator who stops even that wants no motion at all."""
    return {_E.UNSAFE: state, _E.OPERATOR_STOP: _S.FAULT, _E.FAILED: _S.FAULT}


_STOPS = {_E.OPERATOR_STOP: _S.ABORT, _E.UNSAFE: _S.ABORT, _E.FAILED: _S.FAULT}

#: state -> event -> next state. A pass that begins late catches up: SLEW to ARMED to TRACK without waiting.
#: Every state takes the three events that stop a pass, so that stopping is never an error.
TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        _S.IDLE: {_E.PLANNED: _S.PLANNED} | _at_rest(_S.IDLE),
        _S.PLANNED: {_E.CHECK_STARTED: _S.PREFLIGHT} | _STOPS,
        _S.PREFLIGHT: {_E.CHECKED: _S.SLEW} | _STOPS,
        _S.SLEW: {_E.ON_TARGET: _S.ARMED, _E.WINDOW_OVER: _S.END} | _STOPS,
        _S.ARMED: {_E.STARTED: _S.TRACK, _E.WINDOW_OVER: _S.END} | _STOPS,
        _S.TRACK: {_E.WINDOW_OVER: _S.END} | _STOPS,
        _S.END: {_E.PARK_STARTED: _S.PARKING} | _STOPS,
        _S.ABORT: {_E.PARK_STARTED: _S.PARKING} | _on_its_way(_S.ABORT),
        _S.PARKING: {_E.PARKED: _S.PARKED} | _on_its_way(_S.PARKING),
        _S.PARKED: {_E.PLANNED: _S.PLANNED} | _at_rest(_S.PARKED),
        _S.FAULT: {_E.PARK_STARTED: _S.PARKING} | dict.fromkeys(_STOPS, _S.FAULT),
    }
)


class PassState:
    """One pass on its way through the table."""

    def __init__(self) -> None:
        self._state = State.IDLE

    @property
    def state(self) -> State:
        return self._state

    def accepts(self, event: Event) -> bool:
        """Whether `event` leads anywhere from here."""
        return event in TRANSITIONS[self._state]

    def advance(self, event: Event) -> State:
        """Take the event; returns the new state, or raises GroundStationError and stays."""
        allowed = TRANSITIONS[self._state]
        if event not in allowed:
            raise GroundStationError(
                f'a pass in state {self._state} cannot take the event "{event}"; it takes {", ".join(allowed)}'
            )
        self._state = allowed[event]
        return self._state


def mermaid() -> str:
    """The table as a Mermaid state diagram: one arrow from each state to each other that it leads to."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE}"]
    for state, events in TRANSITIONS.items():
        for target in dict.fromkeys(to for to in events.values() if to is not state):
            label = ", ".join(event for event, to in events.items() if to is target)
            lines.append(f"    {state} --> {target}: {label}")
    return "\n".join(lines) + "\n"
