"""What the transmitter's end of the classical channel must do. Only slots that were sent are asked for."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import pytest

from groundstation.errors import BadInput
from groundstation.instruments import Transmitter

SAME_BASIS, INTENSITY, DISCLOSED, BIT = 1, 6, 8, 16  # docs/classical-channel.md


@pytest.fixture(scope="module")
def transmitter(device) -> Iterator[Transmitter]:
    """One connection for the suite."""
    transmitter: Transmitter = device.connect()
    with contextlib.closing(transmitter):
        yield transmitter


def ask(transmitter: Transmitter, batch: int, slots: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """The answers to one batch."""
    transmitter.ask(batch, slots, bases)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        for answer in transmitter.answers(1.0):
            if answer.batch == batch:
                return answer.answers
    raise AssertionError(f"batch {batch} was not answered")


def sent_slots(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64) * 7 + 1000


def test_its_terms_are_those_of_a_decoy_state_transmitter(transmitter: Transmitter) -> None:
    terms = transmitter.terms()
    assert terms.slot_rate_hz % terms.beacon_rate_hz == 0
    assert terms.intensities[0] > terms.intensities[1] > terms.intensities[2] >= 0
    assert sum(terms.probabilities) == pytest.approx(1.0)
    assert 0 < terms.disclosed_signal_fraction < 1


def test_every_decoy_and_vacuum_slot_is_disclosed_and_of_the_signal_slots_the_announced_part(
    transmitter: Transmitter,
) -> None:
    n = 50_000
    answers = ask(transmitter, 1, sent_slots(n), np.zeros(n, np.uint8))
    terms = transmitter.terms()
    signal = (answers & INTENSITY) == 0
    assert answers.size == n
    assert np.all(answers[~signal] & DISCLOSED)
    assert not np.any(answers[(answers & DISCLOSED) == 0] & BIT)
    for found, wanted, of in (
        (signal.mean(), terms.probabilities[0], n),
        (((answers[signal] & DISCLOSED) != 0).mean(), terms.disclosed_signal_fraction, signal.sum()),
    ):
        assert found == pytest.approx(wanted, abs=5 * np.sqrt(wanted * (1 - wanted) / of))


def test_the_other_basis_gets_the_other_match_and_else_the_same_answer(transmitter: Transmitter) -> None:
    slots = sent_slots(1000)
    rectilinear = ask(transmitter, 2, slots, np.zeros(1000, np.uint8))
    diagonal = ask(transmitter, 3, slots, np.ones(1000, np.uint8))
    assert np.all((rectilinear ^ diagonal) & SAME_BASIS)
    assert np.array_equal(rectilinear & 6, diagonal & 6)


def test_the_same_question_gets_the_same_answer(transmitter: Transmitter) -> None:
    bases = (np.arange(500) % 2).astype(np.uint8)
    first = ask(transmitter, 4, sent_slots(500), bases)
    assert np.array_equal(ask(transmitter, 4, sent_slots(500), bases), first)


def test_many_batches_are_all_answered(transmitter: Transmitter) -> None:
    for batch in range(100, 250):
        transmitter.ask(batch, sent_slots(batch), np.zeros(batch, np.uint8))
    sizes: dict[int, int] = {}
    deadline = time.monotonic() + 20.0
    while len(sizes) < 150 and time.monotonic() < deadline:
        sizes |= {answer.batch: answer.answers.size for answer in transmitter.answers(1.0)}
    assert sizes == {batch: batch for batch in range(100, 250)}


def test_a_slot_of_the_near_future_is_answered_once_it_was_sent(transmitter: Transmitter, device) -> None:
    terms = transmitter.terms()
    now_s = (device.clock.utc_ns() - terms.epoch_utc_ns) * 1e-9
    slot = round((now_s + 0.5 * device.clock.speed) * terms.slot_rate_hz)
    if slot < 0:
        pytest.skip("the transmitter has not begun to send")
    ask(transmitter, 5, np.array([slot]), np.array([0], np.uint8))
    assert device.clock.utc_ns() - terms.epoch_utc_ns >= slot / terms.slot_rate_hz * 1e9


def test_slots_that_do_not_ascend_are_refused(transmitter: Transmitter) -> None:
    with pytest.raises(BadInput):
        transmitter.ask(6, np.array([5, 5]), np.array([0, 0], np.uint8))
