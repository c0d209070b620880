"""The data bar that a microscope writes into the bottom of an image: where it begins, and how that is known.

By tags where they say it (FEI/Thermo Fisher 34682: the scan's own size; Tescan 50431: the height of its strip), else by
pixels: rows at the lower end with a background of one level and marks on it, below rows of a scanned image. Text that
is drawn over the image itself has no such background: then nothing is cut, and that is said where it can be told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .instrument import Instrument

FEI, TESCAN = 34682, 50431
LEAST, MOST = 0.02, 0.2  # of the image's height
_TOLERANCE = 1 / 25  # of the range: the background of a bar in a JPEG
_ROW = 0.5  # of a row of a bar, at least, is background, however much text stands in it
_CLEAN = 0.95  # of its first row, below a border line
_BORDER = 4  # rows of a line around the bar
_LEVELS = 12  # different levels, at least, that a row of a scanned image has
_MARKS = (0.005, 0.5)  # share of a bar that is text and scale


@dataclass(frozen=True)
class Bar:
    """What is known of an image's data bar.

    box : (left, top, right, bottom) of the image without it, in pixels, right and bottom excluded; None: all of it.
    how : by what it is known, or why nothing was cut.
    known : False where something like a bar is there that could not be told from the image.
    """

    box: tuple[int, int, int, int] | None
    how: str
    known: bool = True


def lower_end(height: int) -> int:
    """The first row of the part that `find_bar` looks at."""
    return height - round(height * (MOST + 0.1))


def find_bar(lower: np.ndarray, size: tuple[int, int], instrument: Instrument | None = None) -> Bar:
    """Where the data bar of an image begins.

    Parameters
    ----------
    lower : (h, W) or (3, h, W)
        The lower end of the image: rows `lower_end(H)` to H.
    size : (H, W)
        Of the whole image.
    instrument : Instrument, optional
        What its file says.

    Returns
    -------
    Bar
    """
    told = None if instrument is None else _by_tags(instrument, size)
    return told or _by_pixels(lower if lower.ndim == 2 else lower[1], size)


def _by_tags(instrument: Instrument, size: tuple[int, int]) -> Bar | None:
    height, width = size
    texts: dict[int, bytes] = {code: raw for code, _, _, raw, _ in instrument.options.get("extratags", ())}
    if (text := texts.get(FEI)) is not None:
        scanned = [_number(text, name) for name in (b"ResolutionX", b"ResolutionY")]
        if scanned == [width, height]:
            return Bar(None, "no data bar, by the FEI/Thermo Fisher tag 34682")
        if scanned[0] == width and scanned[1] is not None and (1 - 2 * MOST) * height <= scanned[1] < height:
            return Bar((0, 0, width, scanned[1]), "by the FEI/Thermo Fisher tag 34682")
    if (text := texts.get(TESCAN)) is not None:
        strip = _number(text, b"ImageStripSize")
        if strip == 0:
            return Bar(None, "no data bar, by the Tescan tag 50431")
        if strip is not None and 0 < strip <= 2 * MOST * height:
            return Bar((0, 0, width, height - strip), "by the Tescan tag 50431")
    return None


def _number(text: bytes, name: bytes) -> int | None:
    match = re.search(rb"(?:^|[\r\n\0])" + name + rb"\s*=\s*(\d+)", text)
    return int(match[1]) if match else None


def _by_pixels(lower: np.ndarray, size: tuple[int, int]) -> Bar:
    height, width = size
    if lower.dtype.kind == "f" or width < 64 or lower.shape[0] < 16:
        return Bar(None, "no data bar to be seen")
    values = lower.astype(np.int64)
    span = max(int(values.max() - values.min()), 1)
    background = _mode(values[-max(4, round(LEAST * height)) :])
    near = np.abs(values - background) <= max(1, round(span * _TOLERANCE))
    share = near.mean(axis=1)
    rows = _run_from_below(share)
    if rows < LEAST * height:
        return Bar(None, "no data bar to be seen")
    top = len(share) - rows
    if np.median(np.abs(np.diff(values[top:], axis=1))) > 0:
        return Bar(None, "no data bar to be seen")  # noise: nothing that was drawn
    while top > 0 and rows < MOST * height and _is_line(values[top - 1], span) and len(share) - top < rows + _BORDER:
        top -= 1
    rows = len(share) - top
    bar, above = near[top:], values[max(0, top - 3 * _BORDER) : max(0, top - _BORDER)]
    marks = 1 - bar.mean()
    if rows > MOST * height or not len(above):
        drawn = _MARKS[0] <= 1 - near[len(near) // 2 :].mean()
        return Bar(None, "text seems to be drawn over a background that is the image's own", known=not drawn)
    scanned = np.median([len(np.unique(row)) for row in above]) >= _LEVELS
    clean = share[top : top + _BORDER].max() >= _CLEAN
    if not (_MARKS[0] <= marks <= _MARKS[1]):
        return Bar(None, "no data bar to be seen: the lower end is of one level, without marks on it")
    if not (scanned and clean):
        return Bar(None, "the lower end looks like a data bar, but has no clear border", known=False)
    return Bar((0, 0, width, height - rows), "by its pixels")


def _is_line(row: np.ndarray, span: int) -> bool:
    """A border line of one level."""
    return bool((np.abs(row - _mode(row)) <= max(1, round(span * _TOLERANCE / 4))).mean() >= _CLEAN)


def _mode(values: np.ndarray) -> int:
    levels, counts = np.unique(values, return_counts=True)
    return int(levels[counts.argmax()])


def _run_from_below(share: np.ndarray) -> int:
    """Rows of the bar; a border line or a line of dense text, of other levels, does not end it."""
    rows = gap = 0
    for at, part in enumerate(share[::-1]):
        gap = 0 if part >= _ROW else gap + 1
        if gap > _BORDER:
            break
        if not gap:
            rows = at + 1
    return rows


def parse_crop(text: Any) -> tuple[int, int, int, int] | str | None:
    """ "auto", "l,t,r,b" or four integers.

    Raises
    ------
    ValueError
        What it was, and what is accepted.
    """
    if text is None or text == "auto":
        return text
    try:
        box = tuple(int(part) for part in (text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or min(box) < 0 or box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(
            f"crop is {text!r}; accepted: 'auto', or left,top,right,bottom in pixels from the upper left corner, right "
            "and bottom excluded ('0,0,1024,884')"
        )
    return box  # type: ignore[return-value]
