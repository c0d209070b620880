"""One picture of a report, for a dashboard or a mail: verdicts, scores, radar and the wafer of the worst candidate."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..columns import BY_NAME
from .draw import letter, lookup_table
from .gathered import Gathered
from .metrics import AXES, number
from .profiles import profiles
from .runs import RunData
from .sections import scored, summary

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH = 1400
_MARGIN, _LINE = 48, 26
_INK, _MUTED, _RULE = "#1a1f26", "#5a6472", "#c9ced6"
_STATES = {"passed": ("#12694d", "#eef7f3"), "failed": ("#a5281b", "#fcf1ef"), "incomplete": ("#7a5200", "#fdf6e7"),
           "not-refuted": ("#7a5200", "#fdf6e7")}  # fmt: skip
_COLOURS = ("#0067a5", "#c25400", "#00805c", "#9b3f86", "#8a6d00", "#3a3f47")
_SHOWN = 6  # candidates; a picture has no place for more


def overview(gathered: Gathered) -> bytes:
    """A PNG."""
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    runs = gathered.runs[:_SHOWN]
    height = 170 + sum(_banner_height(v) for v in gathered.judged) + 46 + _LINE * (len(runs) + 3) + 560
    picture = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(picture)
    y: float = _MARGIN
    pen.text((_MARGIN, y), _fitted(pen, gathered.title, 34, WIDTH - 2 * _MARGIN), _INK, font=_font(34))
    y += 50
    facts = "  |  ".join(f"{name}: {value}" for name, value in scored(runs))
    pen.text((_MARGIN, y), _fitted(pen, facts, 16, WIDTH - 2 * _MARGIN), _MUTED, font=_font(16))
    y += 40
    if not gathered.judged:
        pen.text((_MARGIN, y), "Not judged: no verdict was given.", _MUTED, font=_font(20))
        y += 36
    for verdict in gathered.judged:
        y = _banner(pen, verdict, y)
    y = _scores(pen, gathered, runs, y + 16)
    _radar(pen, profiles(runs, gathered.profiles[:_SHOWN]), (330, y + 270), 190)
    _wafer(pen, gathered, (1000, y + 262), 232)
    buffer = io.BytesIO()
    info = PngInfo()
    info.add_text("Software", "semnr report")
    picture.save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(pen: ImageDraw, text: str, size: int, width: float) -> str:
    """`text`, cut where it would be wider than `width`."""
    text = " ".join(_plain(text).split())
    if pen.textlength(text, font=_font(size)) <= width:
        return text
    while text and pen.textlength(text + "...", font=_font(size)) > width:
        text = text[:-1]
    return text + "..."


def _plain(text: str) -> str:
    """In the characters that the built-in font has."""
    known = {"−": "-", "–": "-", "∞": "inf", "±": "+/-", "·": "-", "×": "x", "→": "->", "σ": "sigma"}
    return "".join(known.get(c, c if ord(c) < 0x250 else "?") for c in text)


def _banner_height(verdict: dict[str, Any]) -> int:
    return 76 + 24 * len(_lines(verdict)) + 10


def _lines(verdict: dict[str, Any]) -> list[str]:
    """What fired, and what had no evidence, a line each; four at most."""
    lines = []
    for reason in verdict["reasons"]:
        line = f"{reason['name']} {reason['word']} {reason['where']}".strip()
        lines.append(line + (f": {reason['advice']}" if reason["advice"] else ""))
    for group in verdict["open"]:
        names = ", ".join(signal["name"] for signal in group["signals"])
        why = f"bring {group['bring']}" if group["bring"] else group["why"]
        lines.append(f"{names} {group['word']}" + (f": {why}" if why else ""))
    return lines[:4]


def _banner(pen: ImageDraw, verdict: dict[str, Any], y: float) -> float:
    ink, paper = _STATES[verdict["state"]]
    height = _banner_height(verdict) - 10
    pen.rectangle((_MARGIN, y, WIDTH - _MARGIN, y + height), paper)
    pen.rectangle((_MARGIN, y, _MARGIN + 6, y + height), ink)
    pen.text((_MARGIN + 26, y + 10), verdict["word"], ink, font=_font(26))
    width = WIDTH - 2 * _MARGIN - 60
    pen.text((_MARGIN + 26, y + 44), _fitted(pen, verdict["sentence"], 18, width), _INK, font=_font(18))
    for i, line in enumerate(_lines(verdict)):
        pen.text((_MARGIN + 26, y + 70 + 24 * i), _fitted(pen, f"- {line}", 16, width), _INK, font=_font(16))
    return y + height + 10


def _scores(pen: ImageDraw, gathered: Gathered, runs: list[RunData], y: float) -> float:
    shown = summary(runs)
    head = ["Candidate", "Tiles", "PSNR dB", *(c["metric"].label for c in shown["columns"])]
    left = [_MARGIN, 330, 430, *(540 + 134 * i for i in range(len(shown["columns"])))]
    for x, name in zip(left, head, strict=True):
        pen.text((x, y), _fitted(pen, name, 14, 128), _MUTED, font=_font(15))
    y += _LINE
    pen.line((_MARGIN, y - 3, WIDTH - _MARGIN, y - 3), _RULE, 1)
    for k, row in enumerate(shown["rows"]):
        who = f"{letter(k)}  {row['label']}" if len(runs) > 1 else row["label"]
        cells = [who, str(row["n"]), row["psnr"], *(c["mean"] for c in row["cells"])]
        for i, (x, cell) in enumerate(zip(left, cells, strict=True)):
            colour = _COLOURS[k % len(_COLOURS)] if i == 0 else _INK
            pen.text((x, y + 2), _fitted(pen, cell, 17, 270 if i == 0 else 138), colour, font=_font(17))
        y += _LINE
    if any(c["labels"] for c in shown["columns"]):
        labels = "; ".join(f"{c['metric'].label}: {', '.join(c['labels'])}" for c in shown["columns"] if c["labels"])
        pen.text((_MARGIN, y + 4), _fitted(pen, labels, 14, WIDTH - 2 * _MARGIN), _MUTED, font=_font(14))
    return y + 16


def _radar(pen: ImageDraw, shown: list[dict[str, Any]], centre: tuple[float, float], radius: float) -> None:
    count = len(AXES)

    def at(i: int, r: float) -> tuple[float, float]:
        angle = 2 * math.pi * i / count - math.pi / 2
        return centre[0] + radius * r * math.cos(angle), centre[1] + radius * r * math.sin(angle)

    for level in (0.25, 0.5, 0.75, 1.0):
        pen.polygon([at(i, level) for i in range(count)], outline=_RULE)
    for i, (_, name) in enumerate(AXES):
        pen.line((*centre, *at(i, 1)), _RULE, 1)
        x, y = at(i, 1.13)
        pen.text((x, y), name, _INK, font=_font(17), anchor="mm")
    for k, profile in enumerate(shown):
        colour = _COLOURS[k % len(_COLOURS)]
        points = [at(i, v) if math.isfinite(v := profile["axes"].get(key, math.nan)) else None
                  for i, (key, _) in enumerate(AXES)]  # fmt: skip
        for i, point in enumerate(points):
            other = points[(i + 1) % count]
            if point and other:
                pen.line((*point, *other), colour, 3)
            if point:
                x, y = point
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
                if len(shown) > 1 and i == k % count:
                    pen.text((x + 8, y - 16), letter(k), colour, font=_font(15))


def _wafer(pen: ImageDraw, gathered: Gathered, centre: tuple[float, float], radius: float) -> None:
    """The candidate with the most flagged tiles, coloured by evidence transfer, else by SSIM."""
    run = max(gathered.runs, key=lambda r: len(gathered.flags.get(r.label, {})))
    column = next((c for c in ("transfer", "ssim", "psnr") if run.has(c)), None)
    layout, table = gathered.layout, lookup_table()
    if layout.outline:
        x, y = centre
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), "#f5f7f9", _MUTED, 2)
        pen.polygon([(x - 9, y + radius), (x + 9, y + radius), (x, y + radius - 14)], "white", _MUTED)
    values = dict(zip(run.tiles, run.values(column).tolist(), strict=True)) if column else {}
    finite = [v for v in values.values() if math.isfinite(v)]
    low, high = np.percentile(finite, (1, 99)) if finite else (0.0, 1.0)
    flags = gathered.flags.get(run.label, {})
    half_x, half_y = (max(1.5, radius * side / 2) for side in layout.size)
    for i, tile in enumerate(layout.tiles):
        if not (math.isfinite(layout.x[i]) and math.isfinite(layout.y[i])):
            continue
        x, y = centre[0] + radius * layout.x[i], centre[1] - radius * layout.y[i]
        value = values.get(tile, math.nan)
        share = 0.5 if high == low else (value - low) / (high - low)
        colour = tuple(int(v) for v in table[int(np.clip(share, 0, 1) * 255)]) if math.isfinite(value) else None
        pen.rectangle((x - half_x, y - half_y, x + half_x, y + half_y), colour, None if colour else _MUTED)
        if tile in flags:
            r = 0.7 * max(half_x, half_y) + 2
            pen.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], None, "#c4161c", 2)
    name = BY_NAME[column].label if column else "no metric"
    digits = BY_NAME[column].digits if column else 0
    text = f"{run.label}: {name}, {number(float(low), digits)} dark to {number(float(high), digits)} light"
    text += f"; {len(flags)} tiles flagged" if flags else ""
    pen.text((centre[0], centre[1] + radius + 22), _fitted(pen, text, 15, 760), _MUTED, font=_font(15), anchor="mm")
