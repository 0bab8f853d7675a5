"""The classical exchange: what was already answered is read from the recording, the rest is asked for.

Every answer is recorded before it is used. A restarted analysis finds its predecessor's answers there and
asks only for what is missing; a replay has no transmitter and finds all of them there.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundstation.clock import parse_utc, utc_text
from groundstation.errors import InstrumentFault, WireError
from groundstation.instruments import Answer, Transmitter, TransmitterTerms
from groundstation.recording.reader import StreamReader
from groundstation.recording.segment import Segment
from groundstation.recording.writer import StreamWriter

#: The largest batch of one message (docs/classical-channel.md).
MAX_SLOTS_PER_ASK = 65_536
#: The largest step from one slot of a batch to the next: 43 s of slots.
MAX_INCREMENT = (1 << 32) - 1


class Answered(NamedTuple):
    """Answers to one batch: `position` (n,) in the batch's slots, `answer` (n,) uint8; a slot may be missing."""

    batch: int
    position: NDArray[np.int64]
    answer: NDArray[np.uint8]


class RecordedAnswers:
    """The `answers` stream of a recording, read forward only as far as it is needed."""

    def __init__(self, stream: StreamReader) -> None:
        self._stream = stream
        self._batches: dict[int, tuple[NDArray[np.int64], NDArray[np.uint8]]] = {}
        self._terms: TransmitterTerms | None = None
        #: What of the stream was damaged, a sentence each, as far as it was read.
        self.damages: list[str] = []

    def terms(self) -> TransmitterTerms | None:
        """What the transmitter said of its signal, if it was recorded."""
        while self._terms is None and self._read():
            pass
        return self._terms

    def find(self, batch: int, slots: NDArray[np.int64]) -> Answered | None:
        """The recorded answers to a batch; None when there are none."""
        while self._found(batch) < slots.size and self._read():  # a re-cutting may spread it over many segments
            pass
        recorded = self._batches.pop(batch, None)
        if recorded is None:
            return None
        known, answer = recorded
        if np.array_equal(known, slots):
            return Answered(batch, np.arange(slots.size), answer)
        _, position, which = np.intersect1d(slots, known, assume_unique=True, return_indices=True)
        return Answered(batch, position, answer[which])

    def _found(self, batch: int) -> int:
        """How many answers to a batch have been read."""
        return self._batches[batch][0].size if batch in self._batches else 0

    def _read(self) -> bool:
        """Read a few segments more; False when there are none now."""
        items = self._stream.poll()
        for item in items:
            if isinstance(item, Segment):
                self._take(item)
            else:
                self.damages.append(item.sentence)
        return bool(items)

    def _take(self, segment: Segment) -> None:
        if self._terms is None and isinstance(terms := segment.notes.get("terms"), dict):
            self._terms = _terms_from_notes(terms)
        table = segment.tables.get("answers")
        if table is None or table["batch"].size == 0:
            return
        batch = table["batch"]
        edges = np.flatnonzero(np.concatenate(([True], batch[1:] != batch[:-1], [True])))
        for start, stop in pairwise(edges):
            part = slice(int(start), int(stop))
            number = int(batch[start])
            slots, answers = table["slot"][part], table["answer"][part]
            if number in self._batches:  # a batch that a re-cutting spread over two segments
                earlier = self._batches[number]
                slots, answers = np.concatenate((earlier[0], slots)), np.concatenate((earlier[1], answers))
            self._batches[number] = (slots, answers)


class Exchange:
    """Gets every batch answered, from the recording or from the transmitter, or gives up on it."""

    def __init__(self, recorded: RecordedAnswers, transmitter: Transmitter | None, writer: StreamWriter | None) -> None:
        """Without a transmitter (a replay) the writer is not needed either."""
        self._recorded = recorded
        self._transmitter = transmitter
        self._writer = writer
        self._asked: dict[int, NDArray[np.int64]] = {}
        self._found: list[Answered] = []
        self._terms: TransmitterTerms | None = None
        #: What went wrong on the channel, a sentence each; for the log, not for the result.
        self.complaints: list[str] = []

    def terms(self) -> TransmitterTerms | None:
        """The transmitter's terms, recorded before they are used."""
        if self._terms is None:
            self._terms = self._recorded.terms()
        if self._terms is None and self._transmitter is not None and self._writer is not None:
            self._terms = self._transmitter.terms()
            self._writer.publish({}, {"terms": _terms_to_notes(self._terms)})
        return self._terms

    @property
    def damages(self) -> list[str]:
        """What of the recorded answers was damaged, a sentence each."""
        return self._recorded.damages

    @property
    def unanswered_batches(self) -> int:
        """How many batches are on their way."""
        return len(self._asked)

    def request(self, batch: int, slots: NDArray[np.int64], bases: NDArray[np.uint8]) -> None:
        """Ask for a batch of at most `MAX_SLOTS_PER_ASK` slots that ascend by 1 to `MAX_INCREMENT`."""
        answered = self._recorded.find(batch, slots)
        if answered is not None:
            self._found.append(answered)
        elif self._transmitter is not None:
            self._asked[batch] = slots
            self._transmitter.ask(batch, slots, bases)

    def poll(self, timeout_s: float = 0.0) -> list[Answered]:
        """The batches answered since the last call, safely on disk."""
        found, self._found = self._found, []
        if self._transmitter is None or self._writer is None or not self._asked:
            return found
        # One answer to each batch: a question that was repeated may have been answered twice.
        given = {a.batch: a for a in self._hear(self._transmitter, timeout_s) if a.batch in self._asked}
        if given:
            fresh = list(given.values())
            slots = [self._asked.pop(batch) for batch in given]
            self._writer.publish(
                {
                    "answers": {
                        "batch": np.repeat([a.batch for a in fresh], [s.size for s in slots]).astype(np.int64),
                        "slot": np.concatenate(slots),
                        "answer": np.concatenate([a.answers for a in fresh]),
                    }
                }
            )
            found += [Answered(a.batch, np.arange(a.answers.size), a.answers) for a in fresh]
        return found

    def _hear(self, transmitter: Transmitter, timeout_s: float) -> Sequence[Answer]:
        """What was answered. A garbled answer is asked for again by the channel; a refused batch stays unanswered."""
        try:
            return transmitter.answers(timeout_s)
        except (WireError, InstrumentFault) as error:
            self.complaints.append(str(error))
            return ()

    def close(self) -> None:
        """End the `answers` stream."""
        if self._writer is not None:
            self._writer.publish({}, end=True)
            self._writer.close()
        if self._transmitter is not None:
            self._transmitter.close()


def _terms_to_notes(terms: TransmitterTerms) -> dict[str, object]:
    return {
        "transmitter": terms.transmitter,
        "epoch_utc": utc_text(terms.epoch_utc_ns, 9),
        "slot_rate_hz": terms.slot_rate_hz,
        "beacon_rate_hz": terms.beacon_rate_hz,
        "intensities": list(terms.intensities),
        "probabilities": list(terms.probabilities),
        "disclosed_signal_fraction": terms.disclosed_signal_fraction,
    }


def _terms_from_notes(notes: dict[str, object]) -> TransmitterTerms:
    return TransmitterTerms(
        str(notes["transmitter"]),
        parse_utc(str(notes["epoch_utc"])),
        int(str(notes["slot_rate_hz"])),
        int(str(notes["beacon_rate_hz"])),
        _three(notes["intensities"]),
        _three(notes["probabilities"]),
        float(str(notes["disclosed_signal_fraction"])),
    )


def _three(values: object) -> tuple[float, float, float]:
    assert isinstance(values, list)
    signal, decoy, vacuum = (float(v) for v in values)
    return signal, decoy, vacuum
