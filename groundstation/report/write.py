"""Write the report of a pass: numbers first, each file complete or absent, never half."""

import os
from collections.abc import Iterator
from pathlib import Path

from groundstation.errors import GroundStationError
from groundstation.pipeline.result import PassResult
from groundstation.report.document import report_document, report_text
from groundstation.report.page import report_page


def write_report(result: PassResult, directory: Path) -> None:
    """Write `report.json`, the figures (`rates.svg`, `sky.svg`, `qber.svg`, `arrival.svg`) and `report.html`.

    The directory is made when it does not exist; older files of these names are replaced. The numbers are on
    the disk before the first figure is drawn. Raises `GroundStationError` when a file cannot be written.
    """
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in _files(result):
            path = directory / name
            _replace(path, text)
    except OSError as error:
        raise GroundStationError(
            f"the report could not be written: {path}: {error.strerror}; the recording is untouched, "
            "replay it to write the report elsewhere"
        ) from error


def _files(result: PassResult) -> Iterator[tuple[str, str]]:
    document = report_document(result)
    yield "report.json", report_text(document)
    # matplotlib takes half a second to load; the numbers do not wait for it.
    from groundstation.report.figures import draw_figures

    figures = draw_figures(result)
    for name, svg in figures.items():
        yield f"{name}.svg", svg
    yield "report.html", report_page(document, figures)


def _replace(path: Path, text: str) -> None:
    """Put `text` in place of `path` in one step; whoever reads it sees the old or the new file, whole."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
