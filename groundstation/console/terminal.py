"""The live view of a pass in a terminal, as plain lines, or as JSON lines.

The view is a guest: it never slows the pass down, never ends it (a closed pipe or a lost terminal only makes
it silent), and leaves the terminal as it found it.
"""

import json
import os
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, TextIO

from rich.console import Console
from rich.live import Live

from groundstation.console.screen import render
from groundstation.console.status import PassStatus, json_line, one_line, plain_line

__all__ = ["PassStatus", "Style", "TerminalView", "json_line", "plain_line", "render", "style_for"]

Style = Literal["rich", "plain", "json"]


def style_for(stream: TextIO, machine: bool = False) -> Style:
    """JSON for a machine, the live view on a terminal that can show it, plain lines otherwise."""
    if machine:
        return "json"
    console = Console(file=stream)
    return "rich" if console.is_terminal and not console.is_dumb_terminal else "plain"


class TerminalView:
    """Context manager that shows `PassStatus` snapshots on a stream.

    `update` shows one snapshot: it redraws the live view, or writes one line. How often is the caller's
    choice. `message` writes one sentence, above the live view where there is one.
    """

    def __init__(self, stream: TextIO, style: Style) -> None:
        self._stream = stream
        self._style = style
        self._lost = False
        self._console = _QuietConsole(file=stream, highlight=False, markup=False, emoji=False)
        # No refresh thread: only `update` draws. Other writers' output is theirs, so nothing is redirected.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last view on the screen, the cursor visible and below it; also after Ctrl-C."""
        try:
            self._live.stop()
        except (OSError, ValueError):
            self._lose()

    def update(self, status: PassStatus) -> None:
        """Show one snapshot."""
        if self._style == "rich":
            self._draw(status)
        else:
            self._write(json_line(status) if self._style == "json" else plain_line(status))

    def message(self, text: str, **fields: str) -> None:
        """Show one sentence; in JSON style as an object with the field `message`, and those for programs beside it."""
        if self._style == "json":
            self._write(json.dumps({"message": text, **fields}, ensure_ascii=False))
        elif self._style == "plain":
            self._write(one_line(text))
        else:
            self._print(one_line(text))

    def _draw(self, status: PassStatus) -> None:
        if self._lost:
            return
        ascii_only = not self._console.encoding.lower().startswith("utf")
        try:
            if not self._live.is_started:
                self._live.start()
            self._live.update(render(status, self._console.width, ascii_only=ascii_only), refresh=True)
        except (OSError, ValueError):  # the terminal is gone; ValueError: its stream is closed
            self._lose()

    def _print(self, text: str) -> None:
        if self._lost:
            return
        try:
            self._console.print(text)
        except (OSError, ValueError):
            self._lose()

    def _write(self, line: str) -> None:
        if self._lost:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """Fall silent, and let what is still buffered go nowhere: at exit it would fail once more."""
        self._lost = True
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


class _QuietConsole(Console):
    """A console that reports a lost reader as an error; rich's own would end the whole program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError("nobody reads the terminal's output any more")
