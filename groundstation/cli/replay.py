"""`groundstation replay`: the same analysis on a finished recording (or its directory), no instrument loaded."""

import argparse
import math
import sys
from pathlib import Path

from groundstation.cli.analysing import Analyst, report
from groundstation.clock import monotonic_s, sleep_wall_s
from groundstation.console.status import PassStatus
from groundstation.console.terminal import TerminalView, style_for
from groundstation.errors import BadInput
from groundstation.pipeline.settings import PassPlan
from groundstation.recording.channels import is_without_pass
from groundstation.recording.reader import open_recording

_SHOW_INTERVAL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5, or the directory of one that is not")
    parser.add_argument("--speed", default="max", help="times real time, or max (default)")
    parser.add_argument("--output", type=Path, help="directory of the report (default: beside the recording)")
    parser.add_argument("--json", action="store_true", help="status as JSON lines")


def run(options: argparse.Namespace) -> int:
    """Replay a recording; 0 when it is complete and its slot numbers are confirmed, 1 otherwise."""
    speed = _speed(options.speed)
    recording = open_recording(options.recording)
    if is_without_pass(recording.manifest):
        raise BadInput(
            f"{options.recording} holds the tags of the tagger alone (groundstation acquire): without a pass and a "
            "transmitter there is nothing to analyse; look at them with rates, histogram, correlate or coincidences"
        )
    plan = PassPlan.from_manifest(recording.manifest)
    analyst = Analyst(recording)
    output = options.output or options.recording.resolve().parent / f"{options.recording.stem}-replay"
    began_s = shown_s = monotonic_s()
    with TerminalView(sys.stdout, style_for(sys.stdout, options.json)) as view:

        def idle() -> None:
            nonlocal shown_s
            status = analyst.status()
            if status.analysed_utc_ns and math.isfinite(speed):
                played_s = (status.analysed_utc_ns - plan.window_start_utc_ns) * 1e-9
                sleep_wall_s(began_s + played_s / speed - monotonic_s())
            if monotonic_s() - shown_s >= _SHOW_INTERVAL_S:
                shown_s = monotonic_s()
                view.update(
                    PassStatus(
                        mode="REPLAY",
                        state=status.state,
                        station=plan.station,
                        satellite=plan.satellite,
                        speed=speed if math.isfinite(speed) else None,
                        utc_ns=status.analysed_utc_ns or plan.window_start_utc_ns,
                        start_utc_ns=plan.window_start_utc_ns,
                        stop_utc_ns=plan.window_stop_utc_ns,
                        gated_hz=status.gated_hz,
                        sifted_hz=status.sifted_hz,
                        sifted_bits=status.sifted_bits,
                        qber=status.errors / status.bits if status.bits else None,
                    )
                )

        result = analyst.run(idle, lambda: False)
        report(result, output, "replay", recording)
        view.message(f"{int(result.sifted[0].sum())} sifted signal bits; report in {output}")
        for remark in result.remarks:
            view.message(remark)
    return 0 if result.trustworthy else 1


def _speed(text: str) -> float:
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise BadInput(f'--speed is "{text}"; give a number above 0, or max')
    return speed
