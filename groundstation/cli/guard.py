"""The guard program (see `groundstation.operation.guard`)."""

import argparse

from groundstation.cli.child import add_job_arguments, job_of, say
from groundstation.cli.instruments import connect
from groundstation.config import InstrumentConfig
from groundstation.operation.guard import watch

add_arguments = add_job_arguments


def run(options: argparse.Namespace) -> int:
    """Watch over the mount until dismissed."""
    clock, job = job_of(options)
    mount = connect("mount", InstrumentConfig(**job["instrument"]), clock, job["instrument"]["guard_address"])
    say({"ready": True})
    try:
        watch(mount, 0, job["timeout_s"], say)
    finally:
        mount.close()
    return 0
