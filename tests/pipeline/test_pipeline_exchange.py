"""The classical exchange: recorded before it is used, asked for once, given up on when no answer comes."""

import numpy as np
import pytest
from pipeline_samples import (
    RUN_ID,
    InProcessTransmitter,
    Session,
    answers_to,
    column,
    read_all,
    record,
    replayed,
    report_of,
)

from groundstation.clock import parse_utc
from groundstation.core.sifting import one_click_per_slot
from groundstation.instruments import TransmitterTerms
from groundstation.pipeline.analysis import _pieces
from groundstation.pipeline.exchange import MAX_INCREMENT, MAX_SLOTS_PER_ASK, Exchange, RecordedAnswers
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter


@pytest.fixture
def directory(tmp_path):
    create_recording(tmp_path / "recording", {"run_id": RUN_ID})
    return tmp_path / "recording"


@pytest.fixture
def exchange(directory, scene):
    """An exchange with an empty recording and a transmitter that answers at once."""
    writer = StreamWriter(directory, "answers", RUN_ID)
    transmitter = InProcessTransmitter(scene)
    yield Exchange(RecordedAnswers(open_recording(directory).stream("answers")), transmitter, writer), writer
    writer.close()


def slots_from(first, count, step=1_000):
    return first + step * np.arange(count, dtype=np.int64)


# --- what is never answered -------------------------------------------------------------------------------


@pytest.mark.parametrize("never", [lambda batch: batch % 2_000 == 0, lambda batch: True], ids=["some", "all"])
def test_batches_that_are_never_answered_are_left_out_and_said_to_be(near_pass, tmp_path, never):
    directory = record(near_pass.scene, tmp_path / "recording")
    transmitter = InProcessTransmitter(near_pass.scene, never=never)
    session = Session(directory, transmitter).finish()
    result = session.result()
    silent = sum(slots.size for batch, slots in transmitter.slots.items() if never(batch))
    assert silent > 20_000
    assert result.unanswered == silent
    assert f"The transmitter did not answer for {silent} slots; they are left out." in result.remarks
    assert int(result.answered.sum()) == int(near_pass.result.answered.sum()) - silent
    assert result.complete, "the recording is; what was not answered is not part of it"
    assert report_of(replayed(directory)) == session.report()


def test_a_successor_asks_again_for_what_was_never_answered(near_pass, tmp_path):
    directory = record(near_pass.scene, tmp_path / "recording")
    deaf = InProcessTransmitter(near_pass.scene, never=lambda batch: batch % 2_000 == 0)
    session = Session(directory, deaf)
    session.until_idle(quiet_steps=3)
    session.abandon()
    well = InProcessTransmitter(near_pass.scene)
    assert Session(directory, well).finish().report() == near_pass.report
    assert set(well.asked) == {batch for batch in deaf.asked if batch % 2_000 == 0}


# --- what is recorded -------------------------------------------------------------------------------------


def test_the_terms_are_recorded_before_they_are_used(exchange, directory, scene):
    ours, _ = exchange
    assert ours.terms() == scene.terms
    assert RecordedAnswers(open_recording(directory).stream("answers")).terms() == scene.terms


def test_terms_survive_the_recording_to_the_last_digit(directory):
    terms = TransmitterTerms(
        "Jinan-1",
        parse_utc("2023-01-02T03:04:05Z") + 123_456_789,
        625_000_000,
        9_999,
        (0.5, 0.08, 1e-17),
        (0.7, 0.2, 0.1),
        1 / 3,
    )

    class Talker:
        def terms(self):
            return terms

    with StreamWriter(directory, "answers", RUN_ID) as writer:
        Exchange(RecordedAnswers(open_recording(directory).stream("answers")), Talker(), writer).terms()
    assert Exchange(RecordedAnswers(open_recording(directory).stream("answers")), None, None).terms() == terms


def test_answers_are_on_the_disk_when_they_are_handed_out(exchange, directory, scene):
    ours, writer = exchange
    slots, bases = slots_from(5_000_000_000, 300), (np.arange(300) % 2).astype(np.uint8)
    ours.request(7, slots, bases)
    assert ours.unanswered_batches == 1
    (answered,) = ours.poll()
    assert ours.unanswered_batches == 0
    assert answered.batch == 7
    assert answered.position.tolist() == list(range(300))
    assert np.array_equal(answered.answer, answers_to(scene.states, slots, bases))
    assert writer.acknowledged["answers"] == 300
    assert np.array_equal(column(open_recording(directory), "answers", "answers", "slot"), slots)


def test_an_answer_to_a_question_nobody_asked_is_not_recorded(exchange, directory, scene):
    ours, writer = exchange
    slots, bases = slots_from(5_000_000_000, 3), np.zeros(3, np.uint8)
    ours._transmitter.ask(99, slots, bases)
    ours.request(7, slots + 1, bases)
    assert [answered.batch for answered in ours.poll()] == [7]
    assert writer.acknowledged["answers"] == 3


def test_a_replay_never_waits_for_a_recording_that_may_still_grow(directory):
    """A follower without a transmitter gets what is there and is not held up by what is not."""
    with StreamWriter(directory, "answers", RUN_ID) as writer:
        writer.publish({"answers": {"batch": np.array([1]), "slot": np.array([10]), "answer": np.array([1], np.uint8)}})
    recorded = RecordedAnswers(open_recording(directory, follow=True).stream("answers"))
    assert recorded.terms() is None
    assert recorded.find(2, np.array([20])) is None
    assert recorded.find(1, np.array([10])).answer.tolist() == [1]


def test_of_a_batch_that_was_recorded_in_part_the_part_is_used(directory):
    answers = {"batch": np.full(3, 4), "slot": np.array([10, 12, 13]), "answer": np.array([1, 2, 3], np.uint8)}
    with StreamWriter(directory, "answers", RUN_ID) as writer:
        writer.publish({"answers": answers}, end=True)
    recorded = RecordedAnswers(open_recording(directory).stream("answers"))
    found = recorded.find(4, np.array([9, 10, 11, 12]))
    assert found.position.tolist() == [1, 3]
    assert found.answer.tolist() == [1, 2]


def test_closing_ends_the_stream_and_the_connection(near_pass):
    assert near_pass.transmitter.closed
    assert read_all(open_recording(near_pass.directory), "answers")[-1].end


# --- how questions are cut --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slots",
    [
        slots_from(0, 3),
        slots_from(17, MAX_SLOTS_PER_ASK, 1),
        slots_from(17, 2 * MAX_SLOTS_PER_ASK + 1, 1),
        np.array([5]),
        np.array([5, 5 + MAX_INCREMENT]),
        np.array([5, 6 + MAX_INCREMENT]),
        np.concatenate((slots_from(0, 70_000), slots_from(10**11, 70_000), [10**13])),
    ],
)
def test_every_question_keeps_the_limits_of_the_channel_and_none_is_lost(slots):
    pieces = [slots[part] for part in _pieces(slots)]
    assert np.array_equal(np.concatenate(pieces), slots)
    for piece in pieces:
        assert 1 <= piece.size <= MAX_SLOTS_PER_ASK
        assert np.all(np.diff(piece) <= MAX_INCREMENT)


def test_no_clicks_make_no_question():
    assert _pieces(np.empty(0, np.int64)) in ([], [slice(0, 0)])
    assert one_click_per_slot(np.empty(0, np.int64), np.empty(0, np.uint8), 1).slot.size == 0
