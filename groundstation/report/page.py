"""The pass report as one HTML page that needs nothing else: no network, no scripts, its figures inside.

Read at night, at a glance: what it is (SIMULATION or LIVE), whether it is complete and why not, the numbers
that matter, then the figures, then the accounts behind them. Made from the same document as `report.json`,
so the two never disagree. Everything that came from outside is escaped.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape

from groundstation.report.document import Document
from groundstation.report.palette import FILL, HAIRLINE, INK, MUTED, PAPER

_NOTHING = "–"
_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    HAIRLINE: "var(--line)",
    PAPER: "var(--card)",
    FILL: "var(--fill)",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --muted: #5d6875; --line: #d9dfe6; --card: #fefefe;
  --fill: #b3bfcb; --ground: #f1f4f7; --alarm: #a8440a; --alarm-ground: #fdeadd; --good: #1b6e4b;
  --good-ground: #dff2e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde4ec; --muted: #93a0af; --line: #2c3845;
  --card: #141c25; --fill: #4a5a6b; --ground: #0b1118; --alarm: #ffab73; --alarm-ground: #3a2314;
  --good: #7fd6ac; --good-ground: #14322a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1320px; margin: 0 auto; padding: 20px 16px 48px; }
header { display: flex; flex-wrap: wrap; gap: 4px 24px; align-items: baseline;
  justify-content: space-between; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 32px 0 10px; }
.mode { font-size: 34px; font-weight: 800; letter-spacing: .06em; color: var(--alarm); }
.mode.live { color: var(--good); }
.when { color: var(--muted); margin: 2px 0 14px; }
.state { border-radius: 8px; padding: 10px 14px; background: var(--good-ground); color: var(--good); }
.state.incomplete { background: var(--alarm-ground); color: var(--alarm); }
.state strong { font-size: 17px; } .state ul { margin: 6px 0 0; padding-left: 20px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(172px, 1fr)); gap: 12px;
  margin: 14px 0; }
.card, figure, table { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card { padding: 10px 14px; }
.card b { display: block; font-size: 25px; line-height: 1.25; white-space: nowrap; }
.card span { color: var(--muted); font-size: 13px; } .card b small { font-size: 15px; font-weight: 600; }
.figures { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); }
figure { margin: 0; padding: 8px; } figure svg { display: block; width: 100%; height: auto; }
.tables { columns: 3 380px; column-gap: 24px; } .tables section { break-inside: avoid; padding-top: 1px; }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; width: 100%; }
th, td { padding: 5px 12px; text-align: left; border-top: 1px solid var(--line); font-weight: normal;
  vertical-align: top; overflow-wrap: anywhere; }
tr:first-child > * { border-top: 0; } thead th { color: var(--muted); font-size: 13px; }
thead + tbody tr:first-child > * { border-top: 1px solid var(--line); }
tbody th { color: var(--muted); } td { text-align: right; white-space: nowrap; }
td.words { text-align: left; white-space: normal; }
p.note { color: var(--muted); margin: 8px 0; font-size: 13px; }
"""


def report_page(document: Document, figures: Mapping[str, str]) -> str:
    """The whole page: `document` as of `report_document`, `figures` as SVG text by name, shown in order."""
    title = f"{document['satellite']} over {document['station']}"
    day = document["window"]["start_utc"][:10]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(f'{title}, {day}')}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        _head(document, title),
        _state(document),
        _numbers(document),
        '<section class="figures">',
        *(f"<figure>{_inline(svg)}</figure>" for svg in figures.values()),
        "</section>",
        '<div class="tables">',
        _section("Bits", _table(_bits(document))),
        _section("Error rates of the disclosed signal bits", _error_rates(document["qber"])),
        _section("Ledger of tags", _table(_ledger(document["ledger"]))),
        _section("Synchronisation", _table(_synchronisation(document["synchronisation"]))),
        _simulation(document),
        "</div>",
        _section("Gaps", _gaps(document["gaps"])),
        _section("Provenance", _table(_flat(document["provenance"]), words=True)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _head(document: Document, title: str) -> str:
    window, mode = document["window"], document["mode"]
    when = f"{window['start_utc']} to {window['stop_utc']} ({_number(window['duration_s'], 1)} s within reach)"
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<div class="mode {escape(mode)}">{escape(mode.upper())}</div></header>\n'
        f'<p class="when">{escape(when)}</p>'
    )


def _state(document: Document) -> str:
    complete = document["complete"]
    verdict = (
        "Complete: the planned window was recorded without unaccounted loss."
        if complete
        else "Incomplete: part of the planned window is missing or not accounted for."
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in document["remarks"])
    listed = f"<ul>{remarks}</ul>" if remarks else ""
    kind = "complete" if complete else "incomplete"
    return f'<div class="state {kind}"><strong>{verdict}</strong>{listed}</div>'


def _numbers(document: Document) -> str:
    rates = [rate for rate in document["sifted_rate"]["rate_hz"] if rate is not None]
    ranges = [km for km in document["sifted_rate"]["range_km"] if km is not None]
    pointing = document["pointing_error_arcsec"]
    cards = (
        (_number(document["sifted_bits"]["signal"]), "sifted signal bits"),
        (_rate(document["qber"]["overall"]), "QBER ± standard error"),
        (_number(document["detections"]), "detections"),
        (_unit(max(rates, default=None), "kbit/s", 1e-3, 1), "highest sifted rate"),
        (_unit(min(ranges, default=None), "km", 1, 0), "closest range"),
        (_unit(pointing["rms"], "arcsec", 1, 1), "pointing error, rms"),
    )
    shown = "".join(f'<div class="card"><b>{value}</b><span>{name}</span></div>' for value, name in cards)
    return f'<section class="numbers">{shown}</section>'


def _bits(document: Document) -> Iterable[tuple[str, str]]:
    bits, answered = document["sifted_bits"], document["answered_slots"]
    yield "clicks of the four detectors", _number(document["detections"])
    yield "inside the gate", _number(document["gated"])
    yield "double clicks (their bit drawn by a keyed generator)", _number(document["double_clicks"])
    yield "slots without an answer of the transmitter", _number(document["unanswered"])
    for intensity in ("signal", "decoy", "vacuum"):
        yield f"answered {intensity} slots", _number(answered[intensity])
        yield f"sifted {intensity} bits", _number(bits[intensity])
    yield "disclosed (used up for estimates)", _number(bits["disclosed"])
    yield "undisclosed (left for a key)", _number(bits["undisclosed"])


def _ledger(ledger: Document) -> Iterable[tuple[str, str]]:
    yield "seen by the software", _number(ledger["seen"])
    yield "recorded", _number(ledger["recorded"])
    yield "dropped", _number(ledger["dropped"])
    for cause, count in ledger["dropped_by_cause"].items():
        yield f"dropped: {cause}", _number(count)
    yield "missed by the hardware", _number(ledger["missed"], unknown="unknown")


def _synchronisation(found: Document) -> Iterable[tuple[str, str]]:
    yield "beacon residual, rms", _unit(found["beacon_residual_rms_ps"], "ps", 1, 0)
    yield "beacon pulses used", _number(found["beacon_pulses_used"])
    yield "beacon pulses rejected", _number(found["beacon_pulses_rejected"])
    yield "without a clock solution", _unit(found["unsynchronised_s"], "s", 1, 1)
    yield "excluded from rates and key", _unit(found["excluded_s"], "s", 1, 1)


def _gaps(gaps: list[Document]) -> str:
    if not gaps:
        return '<p class="note">No gap is noted.</p>'
    rows = "".join(
        f"<tr><td>{_number(gap['start_s'], 3)}</td><td>{_number(gap['stop_s'], 3)}</td>"
        f"<td>{_number(gap['stop_s'] - gap['start_s'], 3)}</td>"
        f"<td>{_number(gap['missed'], unknown='unknown')}</td>"
        f'<td class="words">{escape(gap["cause"])}</td></tr>'
        for gap in gaps
    )
    heads = "".join(
        f'<th style="text-align:{side}">{name}</th>'
        for name, side in (
            ("from (s)", "right"), ("to (s)", "right"), ("length (s)", "right"), ("tags missed", "right"),
            ("cause", "left"),
        )
    )  # fmt: skip
    note = '<p class="note">Seconds after the start of the window.</p>'
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


def _error_rates(rates: Document) -> str:
    return _table(
        (f"{name}: {_number(rate['errors'])} errors in {_number(rate['bits'])} bits", _rate(rate))
        for name, rate in rates.items()
    )


def _simulation(document: Document) -> str:
    truth = document.get("simulation")
    if truth is None:
        return ""
    pointing = truth["pointing_error_arcsec"]
    fraction = truth["slot_error_fraction"]
    rows = (
        ("photon clicks assigned to a wrong slot", _NOTHING if fraction is None else f"{fraction:.1e}"),
        ("QBER over all sifted signal bits", _rate(truth["qber"])),
        ("true pointing error, rms", _unit(pointing["rms"], "arcsec", 1, 2)),
        ("true pointing error, rms after the first 30 s", _unit(pointing["rms_after_30_s"], "arcsec", 1, 2)),
        ("true pointing error, largest", _unit(pointing["max"], "arcsec", 1, 1)),
    )
    note = '<p class="note">Known to the simulated world only; the analysis never reads it.</p>'
    return _section("What the simulated world knows", _table(rows) + note)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(rows: Iterable[tuple[str, str]], words: bool = False) -> str:
    """Rows of (name, value); values are HTML already, names and nothing else are escaped here."""
    kind = ' class="words"' if words else ""
    shown = "".join(f"<tr><th>{escape(name)}</th><td{kind}>{value}</td></tr>" for name, value in rows)
    return f"<table><tbody>{shown}</tbody></table>" if shown else '<p class="note">Nothing is noted.</p>'


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested provenance as dotted names and escaped values."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", escape(text)


def _number(value: float | None, digits: int = 0, unknown: str = _NOTHING) -> str:
    return unknown if value is None else f"{value:,.{digits}f}"


def _unit(value: float | None, unit: str, scale: float, digits: int) -> str:
    return _NOTHING if value is None else f"{value * scale:,.{digits}f} <small>{unit}</small>"


def _rate(rate: Document) -> str:
    if rate["value"] is None:
        return _NOTHING
    return f"{rate['value'] * 100:.2f} <small>± {rate['standard_error'] * 100:.2f} %</small>"


def _inline(svg: str) -> str:
    """An SVG for use inside HTML: no XML prologue, no size of its own, colours from the page's theme."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\s(?:width|height)="[^"]*pt"', "", body, count=2)
    for colour, variable in _THEME.items():
        body = body.replace(colour, variable)
    return body.strip()
