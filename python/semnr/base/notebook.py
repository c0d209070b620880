"""Tables and small pictures as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from .pictures import OVERVIEW_QUALITY, flat, grey, reduced, webp, window

SIDE = 128  # px of a picture
ROWS = 8  # of a table; what follows is counted


def table(heading: str, columns: Mapping[str, Any], rows: int, most: int = ROWS) -> str:
    """Columns by their titles, at most `most` rows, numbers to four digits."""
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *columns))
    lines = []
    for row in range(min(rows, most)):
        cells = (_cell(value) for value in (row, *(values[row] for values in columns.values())))
        lines.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    more = f"<div>and {rows - most} more</div>" if rows > most else ""
    return f"<div>{escape(heading)}</div><table><tr>{head}</tr>{''.join(lines)}</table>{more}"


def figure(caption: str, pictures: Iterable[str]) -> str:
    """Pictures in a row under one caption; "" without a picture."""
    shown = " ".join(pictures)
    if not shown:
        return ""
    words = f'<figcaption style="font-size:12px">{escape(caption)}</figcaption>'
    return f'<figure style="display:inline-block;margin:6px 12px 0 0">{shown}{words}</figure>'


def picture(said: str, image: np.ndarray, levels: tuple[float, float] | None = None) -> str:
    """A small picture of an image; `levels` are the grey levels of black and white."""
    uri = webp(grey(reduced(flat(image), SIDE), *(levels or window(image))), OVERVIEW_QUALITY)
    return f'<img src="{uri}" alt="{escape(said)}" style="width:{SIDE}px">'


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
