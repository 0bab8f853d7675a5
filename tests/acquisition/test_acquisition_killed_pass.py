"""A pass at 1 Mtag/s whose recorder is killed 30 times: nothing acknowledged is lost, and the report is the one of
the undisturbed recording without the time in which the recorder was dead.

Both recorders listen to the same tagger. Afterwards the killed recording's gaps are cut out of the clean one, tag by
tag; what remains must be the killed recording, bit for bit, and `replay` must report the same of both.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from bright_pass import SPEED, BrightPass, Server, make_words
from daemon_process import SupervisedDaemon
from pipeline_samples import RUN_ID, InProcessTransmitter, publish

from groundstation.acquisition.receiver import INTERRUPTED
from groundstation.clock import NS_PER_S, Clock, SimulatedClock, monotonic_ns
from groundstation.pipeline.analysis import build
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.segment import Segment
from groundstation.recording.writer import StreamWriter

KILLS = 30
#: For the recorders to start, before the device's first word (wall time).
_START_S = 8.0
#: A life of the daemon until it has acknowledged something, on this machine or a slower one.
_LIFE_S = 1.5
_DEADLINE_S = 120.0


class Killed(NamedTuple):
    """What a life had acknowledged when it was killed."""

    acknowledged: int
    labelled: bool


@pytest.mark.slow
def test_thirty_kills_during_a_pass_leave_the_report_of_what_was_acknowledged(tmp_path: Path) -> None:
    bright = BrightPass()
    make_words(tmp_path / "words", bright.blocks)
    t0_utc_ns = bright.zero_utc_ns - round(SPEED * _START_S * NS_PER_S)
    clock = SimulatedClock(t0_utc_ns, monotonic_ns(), SPEED)
    server = Server(tmp_path / "words", clock)
    clean, killed = (_new_recording(bright, tmp_path / name, clock) for name in ("clean", "killed"))
    lives = _record(bright, clock, server.address, clean, killed)
    server.close()
    (tmp_path / "words").unlink()

    assert len(lives) == KILLS
    cut = _new_recording(bright, tmp_path / "cut", clock)
    tags, gaps = _columns(killed)
    assert [gap[2:] for gap in gaps] == [(-1, INTERRUPTED.encode())] * KILLS
    for life, (start_ps, *_) in zip(lives, gaps, strict=True):
        behind = int(np.searchsorted(tags["time_ps"], start_ps, side="right"))
        assert life.labelled
        assert life.acknowledged <= behind, "what was acknowledged lies before the gap"
    seconds = (tags["time_ps"][-1] - tags["time_ps"][0]) * 1e-12 / SPEED
    dead_s = sum(stop - start for start, stop, *_ in gaps) * 1e-12 / SPEED
    total = _cut_out(clean, gaps, tags, cut)
    print(  # noqa: T201  the figures, seen with -s
        f"\n{total:,} tags in {seconds:.0f} s ({total / seconds / 1e6:.2f} Mtag/s), {KILLS} kills, dead for "
        f"{dead_s:.0f} s; {tags['time_ps'].size:,} acknowledged, all there"
    )

    _be_answered(bright, killed)
    shutil.copytree(killed / "answers", cut / "answers")
    reports = _replayed(killed, cut)
    assert reports[0]["sifted_bits"]["signal"] > 1_000_000
    assert reports[0]["qber"]["overall"]["value"] < 0.02
    assert len(reports[0]["gaps"]) == KILLS
    assert reports[0]["synchronisation"]["excluded_s"] > 1.0
    # Nothing but the provenance may differ: when, where and by which program the report was made.
    for report in reports:
        report.pop("provenance")
    assert reports[0] == reports[1]


def _new_recording(bright: BrightPass, directory: Path, clock: Clock) -> Path:
    create_recording(directory, bright.manifest(clock, RUN_ID))
    publish(directory, "telemetry", [({"path": bright.planned.path.table()}, {})])
    return directory


def _record(bright: BrightPass, clock: Clock, address: str, clean: Path, killed: Path) -> list[Killed]:
    """Both recordings at the same time; what each life of the killed recorder had said."""
    at_random, lives = random.Random(30), []
    undisturbed = _daemon(bright, clock, address, clean)
    end_utc_ns = bright.planned.window_stop_utc_ns
    acknowledged = 0
    for left in range(KILLS, 0, -1):
        daemon = _daemon(bright, clock, address, killed)
        daemon.wait_for_tags(acknowledged)
        if not lives:
            _wait_for_label(daemon)
        left_s = (end_utc_ns - clock.utc_ns()) * 1e-9 / SPEED
        time.sleep(at_random.uniform(0.0, max(0.0, min(2 * (left_s / left - _LIFE_S), left_s - left * _LIFE_S))))
        daemon.kill()
        acknowledged = daemon.acknowledged
        assert clock.utc_ns() < end_utc_ns, f"this machine is too slow: {left} kills were left when the pass was over"
        lives.append(Killed(acknowledged, daemon.statuses[-1]["read_until_utc_ns"] > 0))
    daemon = _daemon(bright, clock, address, killed)
    daemon.wait_for_tags(acknowledged)
    _until(lambda: clock.utc_ns() > bright.planned.stop_utc_ns, "the pass's end")
    assert daemon.end(signal.SIGTERM) == 0, daemon.errors()
    undisturbed.wait_for_tags(daemon.acknowledged)
    assert undisturbed.end(signal.SIGTERM) == 0, undisturbed.errors()
    return lives


def _daemon(bright: BrightPass, clock: Clock, address: str, directory: Path) -> SupervisedDaemon:
    instrument = {"driver": "tagger_tdc2", "address": address, "settings": {"timeout_s": 60.0}}
    settings = asdict(bright.config.recording)
    return SupervisedDaemon(clock, {"recording": str(directory), "instrument": instrument, "settings": settings})


def _wait_for_label(daemon: SupervisedDaemon) -> None:
    """Which second a pulse is takes 20 s of the world to tell; a recorder that is killed earlier begins anew, and
    would learn it by another pulse."""
    _until(lambda: daemon.statuses[-1].get("read_until_utc_ns", 0) > 0, "the UTC label")
    daemon.wait_for_tags(daemon.acknowledged + 500_000)  # it is acknowledged, too


def _until(question: object, what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not question():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)


def _segments(directory: Path) -> Iterator[Segment]:
    reader = open_recording(directory).stream("tags")
    while not reader.ended:
        for item in reader.poll(4):
            assert isinstance(item, Segment), item
            yield item
    assert reader.complete


def _columns(directory: Path) -> tuple[dict[str, np.ndarray], list[tuple[int, int, int, bytes]]]:
    """All tags, and all gaps; every segment's ledger balances and knows of no loss."""
    parts, gaps, seen = {"time_ps": [], "channel": []}, [], 0
    for segment in _segments(directory):
        for name, column in segment.tables["tags"].items():
            parts[name].append(column)
        seen += segment.rows["tags"]
        assert segment.notes["ledger"] == {"seen": seen, "recorded": seen, "dropped": {}, "missed": None}
        if "gaps" in segment.tables:
            columns = (segment.tables["gaps"][name].tolist() for name in ("start_ps", "stop_ps", "missed", "cause"))
            gaps += list(zip(*columns, strict=True))
    return {name: np.concatenate(columns) for name, columns in parts.items()}, gaps


def _cut_out(clean: Path, gaps: list, tags: dict[str, np.ndarray], directory: Path) -> int:
    """Write the clean recording without the tags inside the gaps, and with the gaps told; how many tags it had.

    What remains of each segment must be, in time and channel, what the killed recorder has at that place."""
    starts, stops = (np.array([gap[column] for gap in gaps]) for column in (0, 1))
    last_ps, whole, kept, told = int(tags["time_ps"][-1]), 0, 0, 0
    with StreamWriter(directory, "tags", RUN_ID) as writer:
        for segment in _segments(clean):
            table, notes = segment.tables["tags"], dict(segment.notes)
            whole += segment.rows["tags"]
            time_ps = table["time_ps"]
            gap = np.searchsorted(starts, time_ps, side="left") - 1  # the last one that began before
            dead = (gap >= 0) & (time_ps < stops[gap])
            keep = ~dead & (time_ps <= last_ps)
            rest = {name: column[keep] for name, column in table.items()}
            here = slice(kept, kept + rest["time_ps"].size)
            kept = here.stop
            for name, column in rest.items():
                np.testing.assert_array_equal(column, tags[name][here])
            reached_ps = min(int(notes["latest_ps"]), last_ps)
            now = int(np.searchsorted(starts, reached_ps, side="right"))
            notes["ledger"] = {"seen": kept, "recorded": kept, "dropped": {}, "missed": None}
            writer.publish({"tags": rest, **_gap_table(gaps[told:now])}, notes, end=segment.end)
            told = now
    assert kept == tags["time_ps"].size, "every tag of the killed recorder is one of the clean one's"
    return whole


def _gap_table(gaps: list) -> dict[str, dict[str, np.ndarray]]:
    if not gaps:
        return {}
    start, stop, missed, cause = zip(*gaps, strict=True)
    columns = {"start_ps": np.array(start), "stop_ps": np.array(stop), "missed": np.array(missed)}
    return {"gaps": {**columns, "cause": np.array(cause)}}


def _be_answered(bright: BrightPass, directory: Path) -> None:
    """The live analysis: the satellite answers every slot that was asked for."""
    satellite = InProcessTransmitter(SimpleNamespace(states=bright.states, terms=bright.terms))
    with StreamWriter(directory, "answers", RUN_ID) as writer:
        analysis = build(open_recording(directory, follow=True), satellite, writer, None, open_recording(directory))
        while not analysis.finished or analysis.unanswered_batches:
            analysis.step()
        analysis.close()


def _replayed(*directories: Path) -> list[dict]:
    """What `groundstation replay` reports of each."""
    outputs = [directory.with_name(f"{directory.name}-report") for directory in directories]
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "groundstation.cli", "replay", str(directory), "--output", str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for directory, output in zip(directories, outputs, strict=True)
    ]
    said = [program.communicate(timeout=_DEADLINE_S)[0].decode() for program in programs]
    assert [program.returncode for program in programs] == [1, 1], said  # gaps: not the whole window was recorded
    return [json.loads((output / "report.json").read_text()) for output in outputs]
