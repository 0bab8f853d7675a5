"""`groundstation info`: what a recording holds, in a few lines."""

import argparse
import sys
from pathlib import Path

from groundstation.cli.stream_table import row_counts
from groundstation.clock import utc_text
from groundstation.pipeline.settings import PassPlan
from groundstation.recording.account import StreamAccount, account_of
from groundstation.recording.channels import channel_names, is_imported
from groundstation.recording.reader import Recording, open_recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5 or the directory of one that is not")


def run(options: argparse.Namespace) -> int:
    """Print it; 1 when parts of the recording are damaged."""
    recording = open_recording(options.recording)
    write = sys.stdout.write
    write(_origin_of_import(recording) if is_imported(recording.manifest) else _origin_of_pass(recording))
    damaged = False
    for name in recording.streams():
        line, troubles = _stream(recording, name)
        write(f"{name:10}{line}\n")
        for trouble in troubles:
            write(f"          {trouble}\n")
        damaged |= bool(troubles)
    return int(damaged)


def _origin_of_pass(recording: Recording) -> str:
    plan = PassPlan.from_manifest(recording.manifest)
    return (
        f"{plan.satellite} over {plan.station}, {plan.mode}, run {recording.run_id}\n"
        f"window    {utc_text(plan.window_start_utc_ns)} to {utc_text(plan.window_stop_utc_ns)}\n"
        f"made      {recording.manifest.get('created_utc', 'unknown')} on the recording's own clock\n"
    )


def _origin_of_import(recording: Recording) -> str:
    manifest = recording.manifest
    source = manifest.get("imported", {})
    named = channel_names(manifest).items()
    channels = ", ".join(name if name == str(number) else f"{number} {name}" for number, name in named)
    return (
        f"imported from {source.get('file', 'an unfinished import')} ({source.get('format', '?')}), "
        f"run {recording.run_id}\n"
        f"made      {manifest.get('created_utc', 'unknown')}\n"
        f"device    resolution {manifest.get('resolution_ps', '?')} ps\n"
        f"channels  {channels or 'none'}\n" + "".join(f"note      {note}\n" for note in source.get("notes", ()))
    )


def _stream(recording: Recording, name: str) -> tuple[str, list[str]]:
    """One line about a stream, and what is damaged in it."""
    account = account_of(recording.stream(name), name)
    troubles = [damage.sentence for damage in account.damages]
    troubles += [account.unreadable] if account.unreadable else []
    return f"{row_counts(account.rows)}; {account.segments:,} segments; {_state(account)}", troubles


def _state(account: StreamAccount) -> str:
    if not account.whole:
        return "DAMAGED"
    return "closed in order" if account.ended and not account.abandoned else "NOT closed in order"
