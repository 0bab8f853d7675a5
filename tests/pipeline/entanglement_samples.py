"""Recordings of entangled pairs for the tests, and ways to cut, grow and change them."""

import re
from pathlib import Path

import numpy as np

from groundstation.cli import main
from groundstation.cli.pairs import DEFAULT_CONFIG
from groundstation.pipeline.pair_result import PairSettings
from groundstation.pipeline.pairs import PairAnalysis
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter
from groundstation.report.document import report_text
from groundstation.report.pairs import pairs_document

NAMES = ("delingha", "lijiang")


def experiment(stations="", **values):
    """The shipped experiment with other values for some keys that stand in it once; `stations` for both stations."""
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text)
        assert found == 1, f"{key} stands {found} times in the experiment"
    return re.sub(r"(?m)^(\[stations\.\w+\])$", rf"\1\n{stations}", text)


def recorded(directory, text, *options):
    """Both stations' recordings of an experiment, made by the command."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "experiment.toml"
    config.write_text(text, encoding="utf-8")
    assert main(["pairs", "--config", str(config), "--output", str(directory), "--keep-segments", *options]) == 0
    return tuple(directory / name for name in NAMES)


def analysis_of(a, b, follow=False, **settings):
    """The analysis of two recordings, not yet begun."""
    return PairAnalysis(open_recording(a, follow), open_recording(b, follow), PairSettings(**settings))


def analysed(a, b, **settings):
    """The result of two finished recordings."""
    analysis = analysis_of(a, b, **settings)
    while not analysis.finished:
        analysis.step()
    return analysis.result()


def text_of(result):
    """The document without its provenance, with both sifted keys: what must never differ."""
    keys = [(side.time_ps.tolist(), side.basis.tolist(), side.bit.tolist()) for side in result.sifted]
    return report_text(pairs_document(result)), keys


def segments(recording, stream):
    """All segments of a stream."""
    reader = open_recording(recording).stream(stream)
    found = []
    while not reader.ended:
        found += reader.poll()
    return found


def rewritten(source: Path, target: Path, change, **manifest):
    """A copy of a recording with other tags: `change(time_ps, channel)` of all of them gives the new ones."""
    original = open_recording(source)
    run_id = create_recording(target, {**original.manifest, **manifest})
    for stream in ("telemetry", "tags"):
        found = segments(source, stream)
        with StreamWriter(target, stream, run_id) as writer:
            if stream == "tags":
                columns = [np.concatenate([s.tables["tags"][name] for s in found]) for name in ("time_ps", "channel")]
                time_ps, channel = change(*columns)
                tables = {"tags": {"time_ps": time_ps, "channel": channel}}
                writer.publish(tables, found[-1].notes, end=True)
            else:
                for segment in found:
                    writer.publish(segment.tables, segment.notes, segment.end)
    return target


def true_pairs(a, b):
    """How many pairs there were of which both stations recorded a photon."""
    numbers = [
        np.concatenate([segment.tables["pairs"]["pair"] for segment in segments(path, "truth")]) for path in (a, b)
    ]
    return np.intersect1d(*numbers).size
