"""The table of a recording's streams, as `recover` and `verify` print it."""

from collections.abc import Iterable, Mapping

from groundstation.recording.account import StreamAccount


def stream_table(accounts: Iterable[StreamAccount]) -> str:
    """A line for each stream: segments, rows, how it ended."""
    lines = [f"{'stream':10}{'segments':>9}{'damaged':>9}  {'state':28}holds\n"]
    for account in accounts:
        damaged = len(account.damages)
        lines.append(
            f"{account.stream:10}{account.segments:>9,}{damaged:>9,}  {_state(account):28}{row_counts(account.rows)}\n"
        )
    return "".join(lines)


def ledger_lines(accounts: Iterable[StreamAccount]) -> str:
    """The books of the streams that keep any: gaps by cause, and where the tags are."""
    lines = []
    for account in accounts:
        for cause, total in sorted(account.gaps.items()):
            missed = f"{total.missed:,} tags missed"
            missed += f", {total.unknown:,} gaps without a count" if total.unknown else ""
            lines.append(f"gaps      {total.gaps:,} x {cause}: {missed}, {total.lasting_ps * 1e-12:.3f} s in all\n")
        if account.ledger is None:
            continue
        ledger = account.ledger
        dropped = "".join(f" ({count:,} {cause})" for cause, count in sorted(ledger.dropped.items()))
        waiting = f" + in flight {ledger.in_flight():,}" if ledger.in_flight() else ""
        missed = "unknown" if ledger.missed is None else f"{ledger.missed:,}"
        lines.append(
            f"ledger    {account.stream}: seen {ledger.seen:,} = recorded {ledger.recorded:,} + "
            f"dropped {sum(ledger.dropped.values()):,}{dropped}{waiting}; missed by the hardware: {missed}\n"
            f"          {account.ledger_fault[1] if account.ledger_fault else 'it balances in every segment'}\n"
        )
    return "".join(lines)


def row_counts(rows: Mapping[str, int]) -> str:
    """`6,800,628 tags, 3 gaps`."""
    return ", ".join(f"{count:,} {table}" for table, count in sorted(rows.items())) or "nothing"


def _state(account: StreamAccount) -> str:
    if account.unreadable:
        return "UNREADABLE"
    if not account.ended:
        return "NO END"
    return "ended for its writer" if account.abandoned else "closed in order"
