"""Plain text for terminals and logs: aligned tables and numbers."""

from __future__ import annotations

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
