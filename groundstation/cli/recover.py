"""`groundstation recover`: put a recording in order whose station died, and say what is there."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from groundstation.cli.stream_table import ledger_lines, row_counts, stream_table
from groundstation.recording.recovery import Loss, Recovery, recover

#: So many losses are listed one by one.
_SHOWN_LOSSES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="the directory of a recording that nobody writes any more")


def run(options: argparse.Namespace) -> int:
    """Recover it; 0 when nothing is lost, 1 when something is or could not be done, 2 when it is no recording."""
    found = recover(options.directory)
    write = sys.stdout.write
    write(f"run {found.run_id}\n{stream_table(found.streams)}{ledger_lines(found.streams)}")
    for loss in found.losses[:_SHOWN_LOSSES]:
        write(f"LOST      {_loss(loss)}\n")
    if len(found.losses) > _SHOWN_LOSSES:
        write(f"LOST      and {len(found.losses) - _SHOWN_LOSSES:,} places more\n")
    for sentence in found.cannot:
        write(f"CANNOT    {sentence}\n")
    write(f"{_verdict(found)}\n")
    return int(not found.well)


def _loss(loss: Loss) -> str:
    rows = "nobody knows how many rows" if loss.rows is None else row_counts(loss.rows) if loss.rows else ""
    rows = f"; {rows} lost" if rows else "; its rows are counted above"
    kept = f"; kept as {loss.kept}" if loss.kept else ""
    return f"{loss.sentence}{rows}{kept}"


def _verdict(found: Recovery) -> str:
    parts = []
    if found.losses:
        lost = sum((Counter(loss.rows or {}) for loss in found.losses), Counter[str]())
        unknown = sum(loss.rows is None for loss in found.losses)
        what = [f"at least {row_counts(lost)}" if unknown else row_counts(lost)] if lost else []
        what += [f"what was in {unknown:,} damaged places, which nobody can count"] if unknown else []
        gone = f"LOST: {' and '.join(what)}" if what else "DAMAGED, but no rows are lost"
        parts.append(f"{gone}; everything else is here exactly as it was acknowledged.")
    if any(account.ledger_fault for account in found.streams):
        parts.append("THE LEDGER DOES NOT BALANCE: do not make a key from this recording.")
    if found.cannot:
        parts.append("NOT DONE is what the lines above say; what can be read is shown, and nothing was harmed.")
    if not parts:
        parts.append("ALL IS HERE: every tag that was acknowledged can be read.")
    if any(account.abandoned for account in found.streams):
        parts.append("The writer died before the end; what it had not acknowledged by then is not in the recording.")
    return " ".join(parts)
