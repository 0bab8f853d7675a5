"""The guard program (see `groundstation.operation.guard`)."""

import argparse
import signal
from typing import NoReturn

from groundstation.cli.child import add_job_arguments, job_of, say
from groundstation.cli.loading import connect
from groundstation.config import InstrumentConfig
from groundstation.operation.guard import stop_and_verify, watch

add_arguments = add_job_arguments


def run(options: argparse.Namespace) -> int:
    """Watch over the mount until dismissed."""
    clock, job = job_of(options)
    mount = connect("mount", InstrumentConfig(**job["instrument"]), clock, job["instrument"]["guard_address"])
    signal.signal(signal.SIGTERM, _terminated)
    say({"ready": True})
    try:
        watch(mount, 0, job["timeout_s"], say)
    except _Terminated:  # nobody guards any more, so nothing may move
        say({"guard": "terminated", "stopped": stop_and_verify(mount)})
    finally:
        mount.close()
    return 0


class _Terminated(Exception):
    """SIGTERM."""


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise _Terminated
