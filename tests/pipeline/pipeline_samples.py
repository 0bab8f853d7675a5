"""Real recordings of a few seconds of the simulated pass, made without any wire, and ways to analyse them.

A `Scene` is what the world gave: tags as the acquisition would have read them, path, label, truth. `record`
writes it as acquisition, operation and the tagger's simulator write theirs. Tests change the scene in between.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundstation.clock import NS_PER_S
from groundstation.config import load_config
from groundstation.core.tags import CHANNEL_NUMBER, PatternMap, TagBlock, concatenate
from groundstation.instruments import Answer, TransmitterTerms
from groundstation.passes.prediction import find_passes, predict_path
from groundstation.pipeline.analysis import build
from groundstation.pipeline.settings import PassPlan
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import NO_HASH, Segment
from groundstation.recording.writer import StreamWriter
from groundstation.report.document import report_document, report_text
from groundstation.report.truth import TruthJudge
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.light import BLOCK_NS, Light, Truth
from groundstation.simulation.sky import Sky
from groundstation.simulation.states import TransmitterStates

CONFIG = load_config(Path(__file__).parents[2] / "config" / "simulated.toml")
PS = 10**12
RUN_ID = "0123456789abcdef0123456789abcdef"
SYNC = CHANNEL_NUMBER["sync"]
_LEAD_PS, _ZERO_GRID_PS = PS, 125


@dataclass(frozen=True)
class Scene:
    """A stretch of the pass as it could be recorded. `label`: UTC label as in the notes of a tags segment."""

    manifest: dict
    path: dict
    tags: TagBlock
    zero_device_ps: int
    label: dict
    truths: tuple[Truth, ...]
    states: TransmitterStates
    terms: TransmitterTerms

    @property
    def window_s(self):
        """Length of the counting window."""
        window = self.manifest["window"]
        return (window["stop_utc_ns"] - window["start_utc_ns"]) / NS_PER_S

    def time_ps(self, since_start_s):
        """The tag time of a moment, given in seconds after the start of the window."""
        utc_ns = self.manifest["window"]["start_utc_ns"] + round(since_start_s * NS_PER_S)
        return self.label["time_ps"] + (utc_ns - self.label["utc_ns"]) * 1000

    def between(self, start_s, stop_s):
        """Which tags (n,) lie between two moments after the start of the window."""
        return (self.tags.time_ps >= self.time_ps(start_s)) & (self.tags.time_ps < self.time_ps(stop_s))

    def keeping(self, keep):
        """The scene with some of its tags only."""
        return replace(self, tags=TagBlock(self.tags.time_ps[keep], self.tags.channel[keep]))

    def detections_in_window(self):
        """Clicks of the four detectors inside the window, counted here and not by the analysis."""
        return int(np.count_nonzero(self.between(0, self.window_s) & (self.tags.channel < 4)))

    def labelled(self, offset_ns=0, offset_ps=0, uncertainty_s=None):
        """The scene with a label that is wrong by so much: later UTC, earlier pulse."""
        label = dict(self.label)
        label["utc_ns"] += offset_ns
        label["time_ps"] -= offset_ps
        label["uncertainty_s"] = uncertainty_s or label["uncertainty_s"]
        return replace(self, label=label)


def make_scene(after_culmination_s, window_s, margin_s=1.3, seed=None):
    """Let the world shine on a telescope that points perfectly."""
    parameters = CONFIG.simulation if seed is None else replace(CONFIG.simulation, seed=seed)
    orbit = CONFIG.orbit()
    search = 1_482_163_200 * NS_PER_S  # 2016-12-19T16:00Z
    (flyby,) = find_passes(orbit, search, search + 7200 * NS_PER_S)
    start_ns = flyby.culmination.utc_ns + round(after_culmination_s * NS_PER_S)
    stop_ns = start_ns + round(window_s * NS_PER_S)
    margin_ns = round(margin_s * NS_PER_S)
    epoch_ns = start_ns // (60 * NS_PER_S) * 60 * NS_PER_S - 60 * NS_PER_S
    zero_ns = (start_ns - margin_ns) // NS_PER_S * NS_PER_S - NS_PER_S
    sky = Sky(orbit, zero_ns, zero_ns, stop_ns + margin_ns)
    light = Light(parameters, sky, Blackboard.alone(), CONFIG.patterns(), zero_ns, epoch_ns)
    first, last = ((t - zero_ns) // BLOCK_NS for t in (start_ns - margin_ns, stop_ns + margin_ns))
    blocks = [light.block(number) for number in range(first, last)]
    tags, zero_device_ps = _as_read(blocks)
    path = predict_path(orbit, (start_ns - 5 * NS_PER_S) // NS_PER_S * NS_PER_S, stop_ns + 5 * NS_PER_S)
    manifest = {
        "run_id": RUN_ID,
        "mode": "simulation",
        "station": asdict(CONFIG.station),
        "satellite": {"name": CONFIG.satellite.name},
        "window": {"start_utc_ns": start_ns, "stop_utc_ns": stop_ns},
        "patterns": CONFIG.patterns(),
        "delays_ps": CONFIG.delays_ps(),
        "analysis": asdict(CONFIG.analysis),
        "simulation": asdict(parameters),
    }
    started_ps = round(parameters.clocks.tagger_start_s * PS)
    pulse_ps = int(tags.time_ps[np.argmax(tags.channel == CHANNEL_NUMBER["pps"])])
    second = round((pulse_ps + zero_device_ps - started_ps) / PS)
    label = {"time_ps": pulse_ps, "utc_ns": zero_ns + second * NS_PER_S, "uncertainty_s": 1e-6}
    source = parameters.source
    terms = TransmitterTerms(
        "Micius",
        epoch_ns,
        source.slot_rate_hz,
        source.beacon_rate_hz,
        (source.intensity_signal, source.intensity_decoy, source.intensity_vacuum),
        (source.probability_signal, source.probability_decoy, source.probability_vacuum),
        source.disclosed_signal_fraction,
    )
    states = TransmitterStates(parameters.seed, source)
    truths = tuple(block.truth for block in blocks)
    return Scene(manifest, path.table(), tags, zero_device_ps, label, truths, states, terms)


def _as_read(blocks):
    """What the acquisition makes of the tagger's words: tags, and the device's time at the recording's zero."""
    device_ps = [block.ticks * 125 // 32 for block in blocks]
    zero_ps = int(device_ps[0][0]) // _ZERO_GRID_PS * _ZERO_GRID_PS - _LEAD_PS
    patterns = PatternMap(CONFIG.patterns())
    parts = [patterns.apply(t - zero_ps, block.pattern)[0] for t, block in zip(device_ps, blocks, strict=True)]
    return concatenate(parts), zero_ps


def tag_segments(scene, interval_s=0.37, gaps=(), missed=None):
    """Tables and notes of the `tags` stream as the acquisition publishes them, one every `interval_s`.

    `gaps`: (start_ps, stop_ps, missed, cause), each told in the first segment that reaches beyond its start.
    """
    time_ps, channel = scene.tags
    step_ps = round(interval_s * PS)
    edges_ps = np.arange(time_ps[0], time_ps[-1] + step_ps + 1, step_ps)
    cuts = np.searchsorted(time_ps, edges_ps)
    gaps = sorted(gaps)
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        latest_ps = int(min(edges_ps[number + 1] - 1, time_ps[-1]))
        tables = {"tags": {"time_ps": time_ps[start:stop], "channel": channel[start:stop]}}
        told = [gap for gap in gaps if gap[0] <= latest_ps]
        gaps = gaps[len(told) :]
        if told:
            tables["gaps"] = gap_table(told)
        ledger = {"seen": stop, "recorded": stop, "dropped": {}, "missed": missed}
        notes = {"zero_device_ps": scene.zero_device_ps, "latest_ps": latest_ps, "ledger": ledger}
        if latest_ps > scene.label["time_ps"] + PS // 2:
            notes["utc_label"] = scene.label
        yield tables, notes


def gap_table(gaps):
    """The table `gaps` of the tags stream; a number missed that nobody knows is -1."""
    return {
        "start_ps": np.array([gap[0] for gap in gaps], np.int64),
        "stop_ps": np.array([gap[1] for gap in gaps], np.int64),
        "missed": np.array([-1 if gap[2] is None else gap[2] for gap in gaps], np.int64),
        "cause": np.array([gap[3].encode() for gap in gaps], "S40"),
    }


def telemetry_tables(scene):
    """The predicted path, then a reading of the mount every 0.2 s, one in ten with a badly known time."""
    window = scene.manifest["window"]
    utc_ns = np.arange(window["start_utc_ns"] - NS_PER_S, window["stop_utc_ns"] + NS_PER_S, NS_PER_S // 5)
    number = np.arange(utc_ns.size)
    mount = {
        "utc_ns": utc_ns,
        "azimuth_deg": 285.0 + 0.1 * number,
        "elevation_deg": 47.8 + 0.0 * number,
        "uncertainty_s": np.full(utc_ns.size, 1e-3),
        "azimuth_rate_arcsec_s": np.zeros(utc_ns.size),
        "elevation_rate_arcsec_s": np.zeros(utc_ns.size),
        "error_arcsec": 1.0 + number % 3,
        "used": (number % 10 != 0).astype(np.uint8),
    }
    yield {"path": scene.path}
    for part in np.array_split(number, 4):
        yield {"mount": {name: column[part] for name, column in mount.items()}}


def truth_tables(scene, blocks_at_once=7):
    """What the tagger's simulator publishes, a few blocks of light at a time."""
    empty = np.empty(0, np.int64)
    for first in range(0, len(scene.truths), blocks_at_once):
        told = scene.truths[first : first + blocks_at_once]
        yield {
            "clicks": {
                "device_ps": np.concatenate([empty, *(t.click_device_ps for t in told)]),
                "slot": np.concatenate([empty, *(t.click_slot for t in told)]),
            },
            "tallies": {
                "utc_ns": np.array([t.utc_ns for t in told], np.int64),
                "detections": np.array([t.detections for t in told], np.int64),
                "signal_sifted": np.array([t.signal_sifted for t in told], np.int64),
                "signal_errors": np.array([t.signal_errors for t in told], np.int64),
            },
            "pointing": {
                "utc_ns": np.array([t.utc_ns for t in told], np.int64),
                "error_arcsec": np.array([t.pointing_error_arcsec for t in told], np.float64),
            },
        }


def event_tables():
    """Two lines of the log."""
    text = [json.dumps({"kind": "state", "sentence": s}).encode() for s in ("tracking", "the window is over")]
    yield {
        "events": {
            "sequence": np.arange(2),
            "utc_ns": np.array([1, 2]) * NS_PER_S,
            "text": np.array(text, "S64"),
        }
    }


def record(scene, directory, segments=None, end=True):
    """Write a whole recording; `segments`: the tags stream's, if not the scene's own."""
    create_recording(directory, scene.manifest)
    publish(directory, "telemetry", ((tables, {}) for tables in telemetry_tables(scene)))
    publish(directory, "events", ((tables, {}) for tables in event_tables()))
    publish(directory, "truth", ((tables, {}) for tables in truth_tables(scene)))
    publish(directory, "tags", segments or tag_segments(scene), end)
    return directory


def publish(directory, stream, segments, end=True):
    """Publish a stream; its END is a segment of its own."""
    with StreamWriter(directory, stream, RUN_ID) as writer:
        for tables, notes in segments:
            writer.publish(tables, notes)
        if end:
            writer.publish({}, end=True)


class InProcessTransmitter:
    """The satellite's end of docs/classical-channel.md without a wire. Counts what it is asked.

    `delay_polls`: an answer comes so many calls of `answers` after its question. `shuffle_seed`: of the
    answers that are due a random part comes, in random order. `repeat`: each answer comes twice, in the same
    call and once more later. `never`: batches that it does not answer.
    """

    def __init__(self, scene, delay_polls=0, shuffle_seed=None, repeat=False, never=lambda batch: False):
        self._states, self._terms = scene.states, scene.terms
        self._delay_polls, self._repeat, self._never = delay_polls, repeat, never
        self._random = np.random.default_rng(shuffle_seed) if shuffle_seed is not None else None
        self._polls = 0
        self._waiting: list[tuple[int, Answer]] = []
        self.asked: Counter[int] = Counter()
        self.slots: dict[int, np.ndarray] = {}
        self.closed = False

    def terms(self):
        return self._terms

    def ask(self, batch, slots, bases):
        check_ask(slots, bases)
        assert np.array_equal(self.slots.setdefault(batch, slots), slots), "batch-changed"
        self.asked[batch] += 1
        if not self._never(batch):
            self._waiting.append(
                (self._polls + self._delay_polls, Answer(batch, answers_to(self._states, slots, bases)))
            )

    def answers(self, timeout_s):
        self._polls += 1
        due = [number for number, (poll, _) in enumerate(self._waiting) if poll < self._polls]
        if self._random is not None:
            self._random.shuffle(due)
            due = due[: -(-len(due) // 2)]
        given = [self._waiting[number][1] for number in due]
        self._waiting = [entry for number, entry in enumerate(self._waiting) if number not in due]
        if self._repeat:
            self._waiting += [(self._polls + 2, answer) for answer in given if self._random is None]
            given = [answer for answer in given for _ in range(2)]
        return given

    def close(self):
        self.closed = True


def check_ask(slots, bases):
    """The limits of one ASK in the channel's specification."""
    steps = np.diff(slots)
    assert 1 <= len(slots) == len(bases) <= 65_536
    assert slots[0] >= 0
    assert np.all((steps >= 1) & (steps < 1 << 32)), "increments are 1 to 2^32 - 1"
    assert np.all(bases <= 1)


def answers_to(states, slots, bases):
    """The answer bytes of the channel's specification."""
    sent = states.of(slots)
    disclosed = states.disclosed(slots, sent.intensity).astype(np.uint8)
    matches = (sent.basis == bases).astype(np.uint8)
    return matches | sent.intensity << 1 | disclosed << 3 | (sent.bit & disclosed) << 4


class Session:
    """One analysis as the programs of `groundstation run` and `replay` drive theirs, step by step.

    With a transmitter it is a live one: it follows the directory, and owns the `answers` stream.
    """

    def __init__(self, source, transmitter=None):
        recording = open_recording(source, follow=transmitter is not None) if isinstance(source, Path) else source
        plan = PassPlan.from_manifest(recording.manifest)
        self.recording = recording
        self.writer = StreamWriter(source, "answers", RUN_ID) if transmitter is not None else None
        self.claims: list[tuple[np.ndarray, np.ndarray]] = []
        earlier = open_recording(source) if transmitter is not None else None
        self.analysis = build(recording, transmitter, self.writer, self._gated, earlier)
        self.judge = TruthJudge(recording.stream("truth"), plan.window_start_utc_ns, plan.window_stop_utc_ns)

    def _gated(self, time_ps, slot):
        self.claims.append((time_ps, slot))
        self.judge.claim(self.analysis.zero_device_ps, time_ps, slot)

    def step(self):
        busy = self.analysis.step()
        return self.judge.poll() or busy

    def until_idle(self, quiet_steps=1):
        """Step until nothing has happened so many times in a row."""
        quiet = 0
        while quiet < quiet_steps:
            quiet = 0 if self.step() else quiet + 1
        return self

    def finish(self, patience_steps=30):
        """Step to the end of the recording and wait a while for answers."""
        self.until_idle()
        assert self.analysis.finished, "the recording has no end to be found"
        quiet = 0
        while self.analysis.unanswered_batches and quiet < patience_steps:
            quiet = 0 if self.step() else quiet + 1
        if self.writer is not None:
            self.analysis.close()
        return self

    def abandon(self):
        """Be killed: the lock goes, nothing else happens."""
        self.writer.close()

    def result(self):
        return replace(self.analysis.result(), simulation=self.judge.truth())

    def report(self):
        return report_of(self.result())


def replayed(source):
    """The result of a replay."""
    return Session(source).finish().result()


def flown(directory, scene, **options):
    """The result of a live analysis of a recording that is all there already, and its transmitter."""
    transmitter = InProcessTransmitter(scene, **options)
    return Session(directory, transmitter).finish().result(), transmitter


def report_of(result):
    """`report.json` without its provenance, as text: what has to be the same."""
    document = report_document(result)
    document.pop("provenance")
    return report_text(document)


class MemoryRecording:
    """A recording in memory, for tests that cut one in many ways."""

    def __init__(self, manifest, streams):
        self.manifest, self._streams = manifest, streams
        self.run_id = RUN_ID

    def streams(self):
        return tuple(sorted(self._streams))

    def stream(self, name):
        return MemoryStream(self._streams.get(name, []))

    def close(self):
        pass


class MemoryStream:
    """Reads a list of segments and damages."""

    complete = True

    def __init__(self, items):
        self._items = list(items)

    @property
    def ended(self):
        return not self._items

    def stop_following(self):
        pass

    def poll(self, limit=16):
        taken, self._items = self._items[:limit], self._items[limit:]
        return taken


def in_memory(scene, answers, cut_tags: Callable[[], Iterator]):
    """A recording of the scene in memory, with recorded answers and tags cut as told."""
    parts = {
        "telemetry": ((tables, {}) for tables in telemetry_tables(scene)),
        "truth": ((tables, {}) for tables in truth_tables(scene)),
        "tags": cut_tags(),
    }
    streams = {name: list(_segments(name, segments)) for name, segments in parts.items()}
    return MemoryRecording(scene.manifest, {**streams, "answers": answers})


def _segments(stream, parts):
    for number, (tables, notes) in enumerate(parts, 1):
        yield Segment(stream, number, RUN_ID, {}, tables, notes, False, NO_HASH)


def read_all(recording, stream):
    """Everything in a stream."""
    reader, items = recording.stream(stream), []
    reader.stop_following()
    while not reader.ended:
        items += reader.poll()
    return items


def column(recording, stream, table, name):
    """One column of a whole stream."""
    parts = [item.tables[table][name] for item in read_all(recording, stream) if table in item.tables]
    return np.concatenate(parts)
