"""The live analysis program: follows a growing recording, asks the transmitter, writes the report."""

import argparse
from dataclasses import asdict
from pathlib import Path

from groundstation.cli.analysing import Analyst, report
from groundstation.cli.child import Ending, add_job_arguments, job_of, say
from groundstation.cli.loading import connect
from groundstation.clock import monotonic_s
from groundstation.config import InstrumentConfig
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter

add_arguments = add_job_arguments
_STATUS_INTERVAL_S = 0.25


def run(options: argparse.Namespace) -> int:
    """Analyse until the recording is over."""
    clock, job = job_of(options)
    ending = Ending()
    directory = Path(job["recording"])
    recording = open_recording(directory, follow=True)
    transmitter = connect("transmitter", InstrumentConfig(**job["instrument"]), clock)
    writer = StreamWriter(directory, "answers", recording.run_id)
    analyst = Analyst(recording, transmitter, writer, open_recording(directory))
    say({"ready": True})
    spoke_s = 0.0

    def idle() -> None:
        nonlocal spoke_s
        if monotonic_s() - spoke_s >= _STATUS_INTERVAL_S:
            spoke_s = monotonic_s()
            say(asdict(analyst.status()))

    result = analyst.run(idle, ending.asked.is_set)
    report(result, Path(job["output"]), "live", recording)
    analyst.analysis.close()  # last: until here an analysis that dies can be started again
    say(
        {
            **asdict(analyst.status()),
            "state": "reported",
            "trustworthy": result.trustworthy,
            "remarks": result.remarks,
        }
    )
    return 0
