"""From runs and verdicts to what the templates show: one function a section."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..columns import BY_NAME, COLUMNS, Column
from ..runs.readings import limit_words
from . import draw, flowchart, wafer
from .anomalies import anomalies
from .gathered import Gathered
from .images import Pixels
from .measures import measures
from .metrics import ALONE, AXES, GROUPS, MISSING, PANELS, SUMMARY, number, plain
from .places import alarms, places, trend
from .profiles import basis, gains, profiles, ranges
from .provenance import problems, provenance
from .runs import RunData, input_psnr, psnr_of_mean_mse, summarise
from .strip import strips
from .terms import change_words, limits_of, terms
from .thumbs import thumbnails
from .verdicts import matrix
from .worst import worst_tiles
from .zones import BINS, paretos, pattern_of, zones

_RANK = ("failed", "incomplete", "not refuted", "passed")  # what needs a decision stands first


def build(gathered: Gathered, images: Any, worst: int, thumbs: int) -> dict[str, Any]:
    """Everything the templates need."""
    runs, layout, judged = gathered.runs, gathered.layout, gathered.judged
    pixels = Pixels(images, runs)
    try:
        tiles = worst_tiles(runs, gathered.flags, gathered.verdicts, pixels, layout, worst)
        places_to_look = strips(gathered.verdicts, runs, pixels) if worst else [None] * len(judged)
        first = [tile.tile for tile in tiles["worst"]]
        sheets = thumbnails(runs, pixels, layout.tiles, first, gathered.flags, thumbs) if thumbs else None
    finally:
        pixels.close()
    shown = profiles(runs, gathered.profiles)
    words = terms(runs, judged)
    limits = limits_of(judged)
    data = {**wafer.wafer_data(runs, layout, gathered.flags), "colours": draw.VIRIDIS, "thumbs": sheets}
    return {
        "title": gathered.title,
        "notes": gathered.notes,
        "scored": scored(runs),
        "several": gathered.several,
        "candidates": [{"label": run.label, "mark": draw.key_mark(k)} for k, run in enumerate(runs)],
        "letters": {run.label: draw.letter(k) for k, run in enumerate(runs)},
        "verdicts": [
            {**verdict, "strip": strip, "rank": _RANK.index(verdict["word"].lower())}
            for verdict, strip in zip(judged, places_to_look, strict=True)
        ],
        "terms": words,
        "chart": flowchart.chart(judged),
        "mapped": layout.outline,
        "zone_bins": BINS,
        "zones": zones(runs, layout, limits),
        "paretos": paretos(runs, gathered.flags, layout),
        "signal_matrix": matrix(judged) if len(judged) > 1 else None,
        "summary": summary(runs),
        "radar": draw.radar([(p["label"], p["axes"], p["bands"]) for p in shown])
        if any(p["axes"] for p in shown)
        else None,
        "profiles": shown,
        "axes": AXES,
        "ranges": ranges(),
        "cnr_axes": sorted({p["cnr"] for p in shown if p["cnr"]}),
        "gains": gains(runs, gathered.profiles, gathered.verdicts),
        "basis": basis(runs),
        "wafer_caption": layout.caption,
        "notch": layout.notch,
        "groups": GROUPS,
        "wafer_json": draw.Markup(wafer.script_json(data)),
        "places": places(runs),
        "alarms": alarms(runs),
        "anomalies": anomalies(runs),
        "histograms": _histograms(runs, limits),
        "trend": trend(runs),
        "measures": measures(runs),
        "viridis": draw.VIRIDIS,
        "diverging": draw.DIVERGING,
        **tiles,
        "problems": problems(runs),
        "provenance": provenance(runs),
        "version": plain(runs[0].meta.get("semnr")),
        "number": number,
        "missing": MISSING,
    }


def scored(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """What was scored, in a few facts under the title."""
    ok = {sum(s == "ok" for s in run.status) for run in runs}
    total = {len(run.tiles) for run in runs}
    tiles = f"{_range(ok)} of {_range(total)} scored" if ok != total else f"{_range(total)}, all scored"
    facts = [("Tiles", tiles)]
    references = {Path(str(run.meta["reference"])).name for run in runs if run.meta.get("reference")}
    facts.append(("Reference", ", ".join(sorted(references)) or "none"))
    ranges = {"not recorded" if run.data_range is None else f"{run.data_range:g}" for run in runs}
    facts.append(("Data range", ", ".join(sorted(ranges))))
    dates = sorted(str(run.meta["created"]) for run in runs if run.meta.get("created"))
    if dates:
        facts.append(("Scored", _date(dates[-1])))
    running = [run.label for run in runs if run.meta.get("state", "finished") != "finished"]
    if running:
        facts.append(("Not finished", f"{', '.join(running)}: the run was still going or was cut off"))
    return facts


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _date(text: str) -> str:
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{stamp.day} {stamp:%B %Y, %H:%M}" + (
        " UTC" if stamp.utcoffset() is not None and not stamp.utcoffset() else ""
    )


def summary(runs: Sequence[RunData]) -> dict[str, Any]:
    columns = listed = [BY_NAME[c] for c in SUMMARY]
    measured = any(run.has("psnr") for run in runs)
    estimated = [m for m in COLUMNS if m.shown and m.group == "estimated" and any(run.has(m.name) for run in runs)]
    if estimated or not measured:  # no clean reference: the estimates take the place of what they stand for
        columns = [m for m in columns if any(run.has(m.name) for run in runs)] + estimated
        listed = columns or listed
    if not columns:
        columns = [BY_NAME[c] for c in ALONE if any(run.has(c) for run in runs)]
    rows: list[dict[str, Any]] = []
    said: dict[str, list[str]] = {}  # note -> the candidates that it holds for
    noisy = next((v for v in map(input_psnr, runs) if not math.isnan(v)), None)
    for k, run in enumerate(runs):
        db = summarise(run.values("psnr"))
        cells = []
        for metric in columns:
            s = summarise(run.values(metric.name))
            spread = f"{number(s.p05, metric.digits)}–{number(s.p95, metric.digits)}" if s.n > 1 else ""
            spread = spread.replace("–", " to ") if s.p05 < 0 else spread
            cells.append({"mean": number(s.mean, metric.digits), "spread": spread})
        scored = sum(status == "ok" for status in run.status)
        rows.append({
            "label": run.label, "mark": draw.key_mark(k) if len(runs) > 1 else "",
            "n": scored, "total": len(run.tiles),
            "psnr": number(psnr_of_mean_mse(run), 2), "mean_db": number(db.mean, 2), "cells": cells,
        })  # fmt: skip
        for note in _notes(run, scored, [BY_NAME["psnr"], *listed], db.infinite):
            said.setdefault(note, []).append(run.label)
    notes = [
        note if len(labels) == len(runs) else f"{', '.join(labels)}: {note[0].lower()}{note[1:]}"
        for note, labels in said.items()
    ]
    return {
        "columns": [{"metric": m, "labels": _dists_labels(runs) if m.name == "dists" else []} for m in columns],
        "rows": rows,
        "measured": measured,
        "noisy": number(noisy, 2) if noisy is not None else None,
        "notes": notes,
    }


def _notes(run: RunData, scored: int, metrics: Sequence[Column], infinite: int) -> Iterator[str]:
    """What a reader of the means should know."""
    if infinite:
        yield f"Identical to the reference (PSNR ∞), so left out of the mean of tile PSNRs: {infinite}."
    absent = [m.label for m in metrics if not run.has(m.name)]
    if absent:
        yield f"Not evaluated: {', '.join(absent)}."
    counts: dict[int, list[str]] = {}
    for metric in metrics:
        n = summarise(run.values(metric.name)).n
        if n and n < scored and metric.name not in ("dists", "psnr"):
            counts.setdefault(n, []).append(metric.label)
    for n, names in counts.items():
        yield f"A value on {n} of {scored} scored tiles only: {'; '.join(names)}."


def _dists_labels(runs: Sequence[RunData]) -> list[str]:
    """uncalibrated, and on which sample: said wherever a DISTS number stands."""
    evaluated = [run for run in runs if run.has("dists")]
    labels = []
    settings = [run.settings.get("dists") or {} for run in evaluated]
    if any(s.get("calibrated") is False for s in settings):
        labels.append("uncalibrated")
    counts = {summarise(run.values("dists")).n for run in evaluated}
    if any(summarise(run.values("dists")).n < sum(s == "ok" for s in run.status) for run in evaluated):
        labels.append(f"on a sample of {_range(counts)} tile{'' if counts == {1} else 's'}")
    return labels


def _histograms(runs: Sequence[RunData], limits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A panel a metric: all tiles, and where tiles show several patterns, each pattern apart."""
    panels = []
    names = [run.label for run in runs]
    patterns = [pattern_of(run) for run in runs]
    kinds = sorted({kind for some in patterns if some for kind in some if kind})
    for metric in (BY_NAME[c] for c in PANELS):
        ends, said = _limits(metric, limits.get(metric.name, ()), runs)
        columns = [run.values(metric.name) for run in runs]
        drawing = draw.histograms(metric, columns, names, ends)
        if drawing is None:
            continue
        labels = _dists_labels(runs) if metric.name == "dists" else []
        panels.append({
            "metric": metric, "svg": drawing, "labels": labels, "limits": said,
            "facets": _facets(metric, columns, names, patterns, kinds, ends) if kinds else None,
        })  # fmt: skip
    return panels


def _limits(
    metric: Column, limits: Sequence[Mapping[str, Any]], runs: Sequence[RunData]
) -> tuple[list[float], list[str]]:
    """Where rules fire on a metric, as values for a line and in words; a change counts from the baseline's median."""
    ends, said = [], []
    for limit in limits:
        if text := limit_words(limit):
            ends += [float(limit[end]) for end in ("below", "above") if limit.get(end) is not None]
            said.append(f"{limit['rule']} {text}")
            continue
        base = next((run for run in runs if run.label == limit.get("before")), None)
        known = None if base is None else base.values(metric.name)[np.isfinite(base.values(metric.name))]
        way = {"up": 1.0, "down": -1.0}.get(str(limit.get("change")))
        text = f"{limit['rule']} {change_words(limit)}"
        if way is not None and known is not None and known.size:
            middle = float(np.median(known))
            ends.append(middle + way * float(limit["by"]) * (abs(middle) if limit.get("relative") else 1.0))
            text += f" than {limit['before']} (line: from its median)"
        said.append(text)
    return sorted(set(ends)), list(dict.fromkeys(said))


def _facets(
    metric: Column,
    columns: Sequence[np.ndarray],
    names: Sequence[str],
    patterns: Sequence[list[str] | None],
    kinds: Sequence[str],
    limits: Sequence[float],
) -> Any:
    """The same by pattern: a drawing a candidate, a row a pattern."""
    drawings = []
    for k, (values, pattern) in enumerate(zip(columns, patterns, strict=True)):
        if pattern is None:
            continue
        parts = [values[[one == kind for one in pattern]] for kind in kinds]
        svg = draw.histograms(metric, parts, [f"{names[k]}, {kind}" for kind in kinds], limits, keys=kinds)
        if svg is not None:
            drawings.append({"letter": draw.letter(k) if len(names) > 1 else "", "label": names[k], "svg": svg})
    return drawings or None
