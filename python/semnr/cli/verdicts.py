"""How a verdict is shown on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..base.text import printable
from ..runs.brief import brief
from ..runs.verdict import Verdict
from .text import written_out

_WIDTH = 160  # of a line where stdout is no terminal, and at most
_COLOURS = {"bad": "31", "good": "32", "open": "33", "quiet": "2"}


def show(verdict: Verdict, *, verbose: bool = False, look_at: Path | None = None) -> None:
    """A verdict in at most 15 lines, in colour on a terminal; all of it where `verbose`."""
    width = max(60, min(shutil.get_terminal_size().columns, _WIDTH)) if sys.stdout.isatty() else _WIDTH
    lines = brief(verdict, look_at, width)
    if verbose:
        lines = [("", str(verdict)), *([("", f"report: {look_at}")] if look_at else [])]
    with written_out():
        for style, text in lines:
            code = _COLOURS.get(style) if colourful() else None
            print(f"\x1b[{code}m{printable(text)}\x1b[0m" if code else printable(text))


def colourful() -> bool:
    """Whether stdout is a terminal that nobody asked to stay plain (NO_COLOR)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
