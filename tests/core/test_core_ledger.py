"""The ledger balances, and a segment's notes give it back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from groundstation.core.ledger import Ledger

counts = st.integers(0, 2**62)
ledgers = st.builds(
    Ledger, counts, counts, st.dictionaries(st.text(min_size=1), counts, max_size=4), st.none() | counts
)


@given(ledgers)
def test_notes_survive_json_and_give_the_ledger_back(ledger):
    assert Ledger.from_notes(json.loads(json.dumps(ledger.as_notes()))) == ledger


def test_no_notes_are_an_empty_ledger():
    assert Ledger.from_notes({}) == Ledger()


@given(st.lists(st.tuples(st.sampled_from(["overflow", "disk full"]), st.integers(0, 1000)), max_size=20))
def test_what_is_seen_is_recorded_dropped_or_in_flight(drops):
    ledger = Ledger(seen=50_000, recorded=10_000)
    for cause, count in drops:
        ledger.drop(count, cause)
    assert ledger.seen == ledger.recorded + sum(ledger.dropped.values()) + ledger.in_flight()
    assert sum(ledger.dropped.values()) == sum(count for _, count in drops)
    assert 0 not in ledger.dropped.values()


def test_missed_tags_stay_unknown_until_the_hardware_tells():
    ledger = Ledger()
    ledger.miss(None)
    assert ledger.missed is None
    ledger.miss(0)
    assert ledger.missed == 0
    ledger.miss(3)
    ledger.miss(None)
    assert ledger.missed == 3


def test_notes_list_causes_in_a_stable_order_and_zeros_too():
    ledger = Ledger(seen=3)
    ledger.drop(1, "overflow")
    ledger.drop(2, "disk full")
    assert list(ledger.as_notes()) == ["seen", "recorded", "dropped", "missed"]
    assert list(ledger.as_notes()["dropped"]) == ["disk full", "overflow"]
    assert ledger.as_notes()["recorded"] == 0


@given(ledgers, ledgers)
def test_the_sum_of_two_ledgers_counts_everything_once_and_leaves_the_second_alone(one, other):
    total, before = one.copy(), other.copy()
    total.add(other)
    assert (total.seen, total.recorded) == (one.seen + other.seen, one.recorded + other.recorded)
    assert sum(total.dropped.values()) == sum(one.dropped.values()) + sum(other.dropped.values())
    assert total.in_flight() == one.in_flight() + other.in_flight()
    assert (total.missed is None) == (one.missed is None and other.missed is None)
    assert other == before
