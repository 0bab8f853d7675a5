"""The acquisition program: one tagger into the `tags` stream of a recording."""

import argparse
from dataclasses import asdict
from pathlib import Path

from groundstation.acquisition.daemon import Acquisition
from groundstation.cli.child import Ending, add_job_arguments, job_of, say
from groundstation.cli.instruments import connect
from groundstation.config import InstrumentConfig
from groundstation.recording.manifest import read_manifest
from groundstation.recording.writer import StreamWriter

add_arguments = add_job_arguments


def run(options: argparse.Namespace) -> int:
    """Record until told to end."""
    clock, job = job_of(options)
    ending = Ending()
    directory = Path(job["recording"])
    manifest = read_manifest(directory)
    tagger = connect("tagger", InstrumentConfig(**job["instrument"]), clock)
    with StreamWriter(directory, "tags", str(manifest["run_id"])) as writer:
        say({"ready": True, "model": tagger.identify().model})
        acquisition = Acquisition(
            tagger, manifest["patterns"], writer, clock, job["commit_interval_s"], job["pps_uncertainty_s"]
        )
        try:
            acquisition.run(ending.asked.is_set, lambda status: say(asdict(status)))
        finally:
            tagger.close()
    return 0
