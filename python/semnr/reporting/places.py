"""Where on the wafer, and when: means by ring, reticle field and die; alarms; the trend over lots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..columns import BY_NAME, Column
from ..runs.summaries import by_place
from ..wafers import Wafer
from .draw import letter, nice_range, tick_text
from .metrics import PLACES, TREND, number, plain, words
from .runs import RunData

DIES_SHOWN = 10
_COLUMNS = 8  # of a table: more do not fit a page


def places(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Tables by ring, reticle field and die: a row a place, a column a candidate and metric."""
    by_run = []
    for run in runs:
        layout = run.meta.get("wafer")
        by_run.append({} if run.path is None else by_place(run.path, Wafer(**layout) if layout else None))
    metrics = [BY_NAME[c] for c in PLACES if any(run.has(c) for run in runs)]
    metrics = metrics[: max(1, _COLUMNS // len(runs))]
    tables = []
    for kind, title, note in (
        ("ring", "By ring", "five rings of one width, from the centre outwards"),
        ("reticle", "By place in the reticle", "a defect of the mask repeats there"),
        ("die", "By die", ""),
    ):
        keyed = [{_key(kind, row): row for row in one.get(kind, [])} for one in by_run]
        names = list(dict.fromkeys(key for rows in keyed for key in rows))
        one_wafer = len({name[:2] for name in names}) == 1
        if len(names) < 2 or not metrics:
            continue
        total = len(names)
        if kind == "die":
            names = sorted(names, key=lambda name: _worst(name, keyed, metrics))[:DIES_SHOWN]
            note = (
                f"the {len(names)} of {total} dies with the lowest {_first(metrics).label}"
                if total > len(names)
                else ""
            )
        head = [f"{letter(k)} {m.label}" if len(runs) > 1 else m.label for m in metrics for k in range(len(runs))]
        rows = []
        for name in names:
            some = [rows_of.get(name) for rows_of in keyed]
            tiles = next(row["tiles"] for row in some if row)
            cells = [number((row or {}).get(m.name, math.nan), m.digits) for m in metrics for row in some]
            rows.append({"name": _words_of(kind, name, one_wafer), "tiles": tiles, "cells": cells})
        tables.append({"kind": kind, "title": title, "note": note, "head": head, "rows": rows})
    return tables


def _first(metrics: Sequence[Column]) -> Column:
    """What the dies are ordered by."""
    return next((m for m in metrics if m.name == "transfer"), metrics[0])


def _worst(name: tuple[Any, ...], keyed: Sequence[dict[Any, Any]], metrics: Sequence[Column]) -> float:
    values = [rows[name].get(_first(metrics).name, math.nan) for rows in keyed if name in rows]
    finite = [v for v in values if math.isfinite(v)]
    return min(finite) if finite else math.inf


def _key(kind: str, row: dict[str, Any]) -> tuple[Any, ...]:
    names = {"ring": ("ring",), "reticle": ("reticle_x", "reticle_y")}
    return tuple(row.get(name) for name in names.get(kind, ("lot_id", "wafer_id", "die_x", "die_y")))


def _words_of(kind: str, key: tuple[Any, ...], one_wafer: bool) -> str:
    if kind == "ring":
        return f"ring {key[0] + 1:.0f}" + (" (centre)" if key[0] == 0 else " (edge)" if key[0] == 4 else "")
    at = ", ".join("?" if v is None else f"{v:.0f}".replace("-", "−") for v in key[-2:])
    if kind == "reticle":
        return f"column, row {at}"
    wafer = [] if one_wafer else [str(v) for v in key[:2] if v is not None]
    return " · ".join([*wafer, f"die {at}"])


def alarms(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """What sounded while the runs were scored, in order."""
    rows = []
    for k, run in enumerate(runs):
        for alarm in run.alarms:
            place = alarm.get("place") or {}
            metric = BY_NAME.get(str(alarm.get("metric")))
            limits = [f"{name} {plain(alarm[name])}" for name in ("below", "above", "mean", "limit") if name in alarm]
            rows.append({
                "run": letter(k) if len(runs) > 1 else "",
                "name": words(str(alarm.get("alarm"))),
                "metric": metric.label if metric else str(alarm.get("metric")),
                "place": ", ".join(f"{name} {plain(v)}" for name, v in place.items() if v is not None) or "the run",
                "value": plain(alarm.get("value")),
                "limits": ", ".join(limits),
                "tiles": [str(t) for t in alarm.get("tiles") or []],
            })  # fmt: skip
    return rows


# --- trend over lots --------------------------------------------------------------------------------------------


def trend(runs: Sequence[RunData]) -> dict[str, Any] | None:
    """Means of each lot in the order in which they were scored, a line a candidate; None for fewer than two lots."""
    lots_of = [[str(lot or "") for lot in run.texts.get("lot_id", [""] * len(run.tiles))] for run in runs]
    order = sorted(range(len(runs)), key=lambda k: (str(runs[k].meta.get("created") or ""), k))
    lots = [lot for lot in dict.fromkeys(lot for k in order for lot in lots_of[k]) if lot]
    if len(lots) < 2:
        return None
    # runs of one lot each are points of one line; runs over the same lots are lines of their own
    single = len(runs) > 1 and all(len(set(some)) == 1 for some in lots_of) and len(lots) == len(runs)
    series = [("all runs", list(range(len(runs))))] if single else [(run.label, [k]) for k, run in enumerate(runs)]
    panels = []
    for metric in (BY_NAME[c] for c in TREND):
        lines = [[_of_lot([runs[k] for k in members], [lots_of[k] for k in members], lot, metric) for lot in lots]
                 for _, members in series]  # fmt: skip
        if any(math.isfinite(mean) for line in lines for mean, _ in line):
            svg = _lines(metric, lots, lines, [name for name, _ in series])
            values = [[None if math.isnan(mean) else mean for mean, _ in line] for line in lines]
            panels.append({"metric": metric, "svg": svg, "values": values})
    return {"lots": lots, "series": [name for name, _ in series], "panels": panels, "single": single}


def _of_lot(runs: Sequence[RunData], lots_of: Sequence[list[str]], lot: str, metric: Column) -> tuple[float, float]:
    """Mean of a lot's finite values and its standard error."""
    parts = [run.values(metric.name)[[one == lot for one in lots]] for run, lots in zip(runs, lots_of, strict=True)]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    se = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0
    return float(values.mean()), se


def _lines(
    metric: Column, lots: Sequence[str], lines: Sequence[Sequence[tuple[float, float]]], names: Sequence[str]
) -> Markup:
    width, height, left, bottom = 340.0, 150.0, 52.0, 26.0
    every = [(m, s) for line in lines for m, s in line if math.isfinite(m)]
    low, high, ticks = nice_range(min(m - 2 * s for m, s in every), max(m + 2 * s for m, s in every))
    step = (width - left - 14) / max(1, len(lots) - 1)

    def py(value: float) -> float:
        return 8 + (height - bottom - 8) * (high - value) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" y1="{py(tick):.1f}" x2="{width}" y2="{py(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">'
            f"{tick_text(tick, ticks)}</text>"
        )
    shown = {0, len(lots) - 1} if len(lots) > 4 else set(range(len(lots)))
    for i in sorted(shown):
        anchor = "start" if i == 0 else "end" if i == len(lots) - 1 else "middle"
        parts.append(
            f'<text class="tick" x="{left + i * step:.1f}" y="{height - 8}" text-anchor="{anchor}">'
            f"{escape(lots[i][:12])}</text>"
        )
    spoken = []
    for k, line in enumerate(lines):
        points = [(left + i * step, m, s) for i, (m, s) in enumerate(line) if math.isfinite(m)]
        path = "".join(f"{'L' if i else 'M'}{x:.1f} {py(m):.1f}" for i, (x, m, _) in enumerate(points))
        bars = "".join(f"M{x:.1f} {py(m - 2 * s):.1f}V{py(m + 2 * s):.1f}" for x, m, s in points)
        dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{py(m):.1f}" r="3.5"/>' for x, m, _ in points)
        parts.append(
            f'<g class="c{k % 6} d{k % 4}"><path class="edge" d="{path}"/><path class="whisker" d="{bars}"/>{dots}</g>'
        )
        spoken.append(
            f"{names[k]}: " + ", ".join(f"{lots[i]} {number(m, metric.digits)}" for i, (m, _) in enumerate(line))
        )
    return Markup(  # names are escaped, the rest are numbers
        f'<svg class="hist" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(metric.heading)} over lots. {escape("; ".join(spoken))}">{"".join(parts)}</svg>'
    )
