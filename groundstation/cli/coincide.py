"""`groundstation coincide`: the pairs of two stations' recordings, live or from the archive."""

import argparse
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from groundstation import __version__
from groundstation.clock import SystemClock, monotonic_s, sleep_wall_s, utc_text
from groundstation.core.entanglement import BELL_STATES
from groundstation.errors import BadInput
from groundstation.pipeline.pair_result import PairSettings
from groundstation.pipeline.pairs import PairAnalysis
from groundstation.recording.reader import Recording, open_recording
from groundstation.report.pairs import pairs_text, write_pairs

_IDLE_S = 0.02
_SHOW_INTERVAL_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="recording of station A, the clock of the result")
    parser.add_argument("b", type=Path, help="recording of station B")
    parser.add_argument(
        "--half-window-ps",
        type=int,
        default=PairSettings().half_window_ps,
        help="a coincidence is |t_B - t_A| <= this (default %(default)s)",
    )
    parser.add_argument("--follow", action="store_true", help="go on while the recordings grow; Ctrl-C ends it")
    parser.add_argument("--output", type=Path, help="directory of the result (default: beside recording A)")
    parser.add_argument("--state", choices=tuple(BELL_STATES), help="of the pairs, instead of what the recordings say")
    parser.add_argument(
        "--analyser-deg", type=float, nargs=2, metavar=("A", "B"), help="how each side's analyser is turned, likewise"
    )


def run(options: argparse.Namespace) -> int:
    """Find the clock and the pairs; 0 when both recordings are complete, 1 when not or when there is no clock."""
    analyser = None
    if options.analyser_deg is not None:
        if not all(math.isfinite(angle) for angle in options.analyser_deg):
            raise BadInput("--analyser-deg must be two finite angles")
        analyser = (options.analyser_deg[0], options.analyser_deg[1])
    a, b = open_recording(options.a, options.follow), open_recording(options.b, options.follow)
    settings = replace(PairSettings(), half_window_ps=options.half_window_ps)
    analysis = PairAnalysis(a, b, settings, options.state, analyser)
    _analyse(analysis, _Progress(analysis) if options.follow else lambda: None)
    result = replace(analysis.result(), provenance=_provenance(options, a, b))
    output = options.output or options.a.resolve().parent / f"{options.a.stem}-{options.b.stem}-coincidences"
    write_pairs(result, output)
    sys.stdout.write(pairs_text(result))
    sys.stdout.write(f"Result {output / 'coincidences.json'}\n")
    return 0 if result.complete else 1


def _analyse(analysis: PairAnalysis, show: Callable[[], None]) -> None:
    """Until everything is analysed. Ctrl-C: what is there is all; a second one ends at once."""
    interrupted = False
    while not analysis.finished:
        try:
            if not analysis.step():
                sleep_wall_s(_IDLE_S)
            show()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            analysis.stop_following()


class _Progress:
    """A line every other second while recordings are followed."""

    def __init__(self, analysis: PairAnalysis) -> None:
        self._analysis = analysis
        self._shown_s = monotonic_s()

    def __call__(self) -> None:
        if monotonic_s() - self._shown_s < _SHOW_INTERVAL_S:
            return
        self._shown_s = monotonic_s()
        books = self._analysis.books
        state = "following" if self._analysis.clock_found else "searching for the clock"
        sys.stdout.write(f"{state}: {books.analysed_ps * 1e-12:.0f} s, {int(books.counts.sum()):,} coincidences\n")
        sys.stdout.flush()


def _provenance(options: argparse.Namespace, a: Recording, b: Recording) -> dict[str, object]:
    return {
        "how": "live" if options.follow else "archive",
        "written_utc": utc_text(SystemClock().utc_ns()),
        "run_ids": [a.run_id, b.run_id],
        "host": platform.node(),
        "groundstation": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
