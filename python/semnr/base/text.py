"""Plain text for terminals and logs: aligned tables, numbers, and names without control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [len(cells) > 1 and all(_numeric(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = []
    for n, row in enumerate(cells):
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
        if n == 0:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _numeric(cell: str) -> bool:
    return cell in ("-", "inf") or cell.lstrip("-+")[:1].isdigit()


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; "-" where it was not evaluated or is undefined."""
    if value is None or value != value:
        return "-"
    return "inf" if value == float("inf") else f"{value:.{digits}f}"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"; "none" of nothing."""
    if not names:
        return "none"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, lone surrogates, line and paragraph separators
_TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # order of text


def printable(text: str, keep: str = "\n\t") -> str:
    """`text` for a terminal or a page: what would steer it (escape sequences in a file name) is written as \\x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _steers(c) else c.encode("unicode_escape").decode() for c in text)


def in_line(text: object) -> str:
    """A name or message inside a line: its own line breaks are escaped or become blanks too."""
    return printable(str(text), keep="")


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS or character in _TURNING
