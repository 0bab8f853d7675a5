"""`groundstation info`: what a recording holds, in a few lines."""

import argparse
import sys
from pathlib import Path

from groundstation.cli.stream_table import ledger_lines, row_counts
from groundstation.clock import utc_text
from groundstation.pipeline.settings import PassPlan
from groundstation.recording.account import StreamAccount, account_of
from groundstation.recording.channels import channel_names, is_imported, is_without_pass
from groundstation.recording.reader import Recording, open_recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5 or the directory of one that is not")


def run(options: argparse.Namespace) -> int:
    """Print it; 1 when parts of the recording are damaged."""
    recording = open_recording(options.recording)
    write = sys.stdout.write
    alone = is_without_pass(recording.manifest)
    write(_origin(recording))
    damaged = False
    for name in recording.streams():
        account = account_of(recording.stream(name), name)
        write(f"{name:10}{row_counts(account.rows)}; {account.segments:,} segments; {_state(account)}\n")
        troubles = [damage.sentence for damage in account.damages]
        troubles += [account.unreadable] if account.unreadable else []
        for trouble in troubles:
            write(f"          {trouble}\n")
        if alone:  # no report will tell it
            write(ledger_lines([account]))
        damaged |= bool(troubles)
    return int(damaged)


def _origin(recording: Recording) -> str:
    if is_imported(recording.manifest):
        return _origin_of_import(recording)
    return _origin_of_tagger(recording) if is_without_pass(recording.manifest) else _origin_of_pass(recording)


def _origin_of_tagger(recording: Recording) -> str:
    """A recording of `acquire` alone."""
    manifest = recording.manifest
    station, instruments = manifest.get("station", {}), manifest.get("instruments", {})
    tagger = instruments.get("tagger", {})
    simulated = ", simulated" if tagger.get("simulate") else ""
    wired = ", ".join(name for name in manifest.get("patterns", {}))
    return (
        f"the tagger of {station.get('name', 'an unknown station')} alone, without a pass, run {recording.run_id}\n"
        f"tagger    {tagger.get('driver', '?')} at {tagger.get('address', '?')}{simulated}\n"
        f"channels  {wired or 'none'}\n"
        f"made      {manifest.get('created_utc', 'unknown')}\n"
    )


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


def _state(account: StreamAccount) -> str:
    if not account.whole:
        return "DAMAGED"
    return "closed in order" if account.ended and not account.abandoned else "NOT closed in order"
