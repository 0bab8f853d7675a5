"""`groundstation verify`: whether an archive is as it was written, and its fingerprint."""

import argparse
import re
import sys
from pathlib import Path

from groundstation.cli.stream_table import ledger_lines, stream_table
from groundstation.errors import BadInput
from groundstation.recording.verification import Verification, verify

#: So many breaks are named; the first one matters, the others often follow from it.
_SHOWN_BREAKS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="a sealed recording.h5 or the directory of one that is not")
    parser.add_argument("--fingerprint", metavar="HEX", help="what was written down when the recording ended")


def run(options: argparse.Namespace) -> int:
    """Print it; 0 intact (and the fingerprint the one given), 1 broken, 2 no recording."""
    expected = _given(options.fingerprint)
    found = verify(options.recording)
    write = sys.stdout.write
    write(f"run {found.run_id}\n{stream_table(found.streams)}{ledger_lines(found.streams)}")
    write(f"fingerprint {found.fingerprint}\n")
    for remark in found.remarks:
        write(f"note      {remark}\n")
    for broken in found.breaks[:_SHOWN_BREAKS]:
        write(f"BROKEN    {broken.sentence}\n")
    if len(found.breaks) > _SHOWN_BREAKS:
        write(f"BROKEN    and {len(found.breaks) - _SHOWN_BREAKS:,} places more\n")
    write(f"{_verdict(found, expected)}\n")
    return int(not found.intact or expected not in (None, found.fingerprint))


def _given(text: str | None) -> str | None:
    """64 hex digits, however they were grouped on paper."""
    if text is None:
        return None
    digits = re.sub(r"[\s:-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise BadInput(f'--fingerprint is "{text}"; give the 64 digits (0-9, a-f) printed when the recording ended')
    return digits


def _verdict(found: Verification, expected: str | None) -> str:
    if not found.intact:
        return f"NOT INTACT: {found.breaks[0].sentence}."
    if expected is None:
        return (
            "INTACT in itself: every segment is whole and named by the next. Compare the fingerprint with the one "
            "written down: only that shows that nobody made it anew."
        )
    if expected != found.fingerprint:
        return (
            "NOT THE RECORDING that was written down: it is whole in itself, but its fingerprint is another one; "
            "it was made anew, cut at its end, or the digits belong to another recording."
        )
    return "INTACT: every segment is whole, and it is the recording whose fingerprint was written down."
