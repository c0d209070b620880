"""From runs and verdicts to what the templates show: one function a section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from . import _draw, _wafer
from ._images import Pixels, WorstTile, pick_worst, show
from ._metrics import AXES, BY_COLUMN, METRICS, MISSING, SUMMARY, flatten, number, plain, words
from ._runs import RunData, input_psnr, load_runs, load_verdicts, psnr_of_mean_mse, summarise
from ._verdicts import flagged_tiles, matrix, view

PROBLEMS_SHOWN = 200


def build(run_or_path: Any, compare: Any, verdict: Any, images: Any, title: str | None, worst: int) -> dict[str, Any]:
    """Everything the templates need."""
    runs = load_runs(run_or_path, compare)
    verdicts = load_verdicts(verdict, runs)
    flags = flagged_tiles(verdicts)
    pixels = Pixels(images, runs)
    layout = _wafer.lay_out(runs)
    judged = [view(v, runs) for v in verdicts]
    profiles = _profiles(runs)
    try:
        worst_tiles = _worst(runs, flags, pixels, layout, worst)
    finally:
        pixels.close()
    several = len(runs) > 1
    return {
        "title": title or _title(runs),
        "scored": _scored(runs),
        "several": several,
        "candidates": [{"label": run.label, "mark": _draw.key_mark(k)} for k, run in enumerate(runs)],
        "letters": {run.label: _draw.letter(k) for k, run in enumerate(runs)},
        "verdicts": judged,
        "signal_matrix": matrix(judged) if len(judged) > 1 else None,
        "summary": _summary(runs),
        "radar": _draw.radar([(p["label"], p["axes"]) for p in profiles]) if any(p["axes"] for p in profiles) else None,
        "profiles": profiles,
        "axes": AXES,
        "ranges": _ranges(),
        "cnr_axes": sorted({p["cnr"] for p in profiles if p["cnr"]}),
        "wafer_caption": layout.caption,
        "wafer_json": _draw.Markup(
            _wafer.script_json({**_wafer.wafer_data(runs, layout, flags), "colours": _draw.VIRIDIS})
        ),
        "histograms": _histograms(runs),
        "viridis": _draw.VIRIDIS,
        **worst_tiles,
        "problems": _problems(runs),
        "provenance": _provenance(runs),
        "version": plain(runs[0].meta.get("semnr")),
        "number": number,
        "missing": MISSING,
    }


def _title(runs: Sequence[RunData]) -> str:
    lots = {lot for run in runs for lot in run.texts.get("lot_id", []) if lot}
    wafers = {wafer for run in runs for wafer in run.texts.get("wafer_id", []) if wafer}
    if len(lots) == 1 and len(wafers) <= 1:
        return "Lot " + lots.pop() + (f", wafer {wafers.pop()}" if wafers else "")
    return runs[0].label if len(runs) == 1 else f"Comparison of {len(runs)} candidates"


def _scored(runs: Sequence[RunData]) -> list[tuple[str, str]]:
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


def _summary(runs: Sequence[RunData]) -> dict[str, Any]:
    columns = [BY_COLUMN[c] for c in SUMMARY]
    rows, notes = [], []
    noisy = next((v for v in map(input_psnr, runs) if not math.isnan(v)), None)
    for k, run in enumerate(runs):
        db = summarise(run.values("psnr"))
        cells = []
        for metric in columns:
            s = summarise(run.values(metric.column))
            spread = f"{number(s.p05, metric.digits)}–{number(s.p95, metric.digits)}" if s.n > 1 else ""
            spread = spread.replace("–", " to ") if s.p05 < 0 else spread
            cells.append({"mean": number(s.mean, metric.digits), "spread": spread})
        scored = sum(status == "ok" for status in run.status)
        rows.append({
            "label": run.label, "mark": _draw.key_mark(k) if len(runs) > 1 else "",
            "n": scored, "total": len(run.tiles),
            "psnr": number(psnr_of_mean_mse(run), 2), "mean_db": number(db.mean, 2), "cells": cells,
        })  # fmt: skip
        who = f"{run.label}: " if len(runs) > 1 else ""
        if db.infinite:
            notes.append(
                f"{who}identical to the reference (PSNR ∞), so left out of the mean of tile PSNRs: {db.infinite}."
            )
        absent = [m.label for m in (BY_COLUMN["psnr"], *columns) if not run.has(m.column)]
        if absent:
            notes.append(f"{who}not evaluated: {', '.join(absent)}.")
        for metric in columns:
            n = summarise(run.values(metric.column)).n
            if n and n < scored and metric.column != "dists":
                notes.append(f"{who}{metric.label} has a value on {n} of {scored} scored tiles.")
    return {
        "columns": [{"metric": m, "labels": _dists_labels(runs) if m.column == "dists" else []} for m in columns],
        "rows": rows,
        "noisy": number(noisy, 2) if noisy is not None else None,
        "notes": notes,
    }


def _dists_labels(runs: Sequence[RunData]) -> list[str]:
    """uncalibrated, and on which sample: said wherever a DISTS number stands."""
    evaluated = [run for run in runs if run.has("dists")]
    labels = []
    settings = [run.settings.get("dists") or {} for run in evaluated]
    if any(s.get("calibrated") is False for s in settings):
        labels.append("uncalibrated")
    counts = {summarise(run.values("dists")).n for run in evaluated}
    if any(summarise(run.values("dists")).n < sum(s == "ok" for s in run.status) for run in evaluated):
        labels.append(f"on a sample of {_range(counts)} tiles")
    return labels


def _profiles(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """The radar's axes of each run, as the profile defines them; the reason where there is no profile."""
    from semnr_kernels._errors import SemnrError

    from ..profiles import Profile

    shown = []
    for k, run in enumerate(runs):
        reason, axes, area, mean, cnr = "", {}, math.nan, math.nan, ""
        try:
            profile = Profile.from_run(run.path)
            axes, area, mean = profile.axes(), profile.area, profile.mean_axis
            cnr = BY_COLUMN[profile.cnr_axis].label
        except (ValueError, SemnrError) as error:
            reason = f"the profile of {run.label} cannot be formed: {error}"
        shown.append({
            "label": run.label, "mark": _draw.key_mark(k) if len(runs) > 1 else "", "axes": axes, "reason": reason,
            "values": [number(axes.get(key, math.nan), 2) for key, _ in AXES], "cnr": cnr,
            "lacking": [name for key, name in AXES if not math.isfinite(axes.get(key, math.nan))],
            "area": number(area, 2), "mean": number(mean, 2),
        })  # fmt: skip
    return shown


def _ranges() -> str:
    """What 0 and 1 stand for on each axis."""
    from .._axes import RANGES

    units = {"psnr": " dB"}
    return ", ".join(f"{name} {RANGES[key][0]:g} to {RANGES[key][1]:g}{units.get(key, '')}" for key, name in AXES)


def _histograms(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    panels = []
    for metric in METRICS[:8]:
        drawing = _draw.histograms(metric, [run.values(metric.column) for run in runs], [run.label for run in runs])
        if drawing is not None:
            labels = _dists_labels(runs) if metric.column == "dists" else []
            panels.append({"metric": metric, "svg": drawing, "labels": labels})
    return panels


def _worst(
    runs: Sequence[RunData], flags: Mapping[str, Any], pixels: Pixels, layout: _wafer.Layout, count: int
) -> dict[str, Any]:
    chosen, ranking = pick_worst(runs, flags, count)
    place = dict(zip(layout.tiles, layout.place, strict=True))
    columns = [m for m in METRICS[:7] if any(run.has(m.column) for run in runs)]
    tiles, notes = [], []
    for tile, why in chosen:
        pictures, note = show(pixels, runs, tile)
        entry = WorstTile(tile, place.get(tile, ""), why, pictures, scale=note)
        for run in runs:
            rows = [i for i, name in enumerate(run.tiles) if name == tile]
            if rows:
                entry.numbers[run.label] = [
                    (m.label, number(float(run.values(m.column)[rows[0]]), m.digits)) for m in columns
                ]
        tiles.append(entry)
        if note and note not in notes:
            notes.append(note)
    any_pixels = any(picture.uri for tile in tiles for picture in tile.pictures)
    reasons = list(dict.fromkeys(p.missing for t in tiles for p in t.pictures if p.missing and p.kind != "ssim_map"))
    return {
        "worst": tiles,
        "worst_rule": ranking.label if ranking else None,
        "worst_notes": notes,
        "worst_pixels": any_pixels,
        "worst_reasons": reasons[:3],
        "worst_hidden": max(0, len(runs) - 4),
        "worst_wanted": count > 0,
    }


def _problems(runs: Sequence[RunData]) -> dict[str, Any]:
    """Tiles that were not scored: those in the Parquet and those that run.json lists besides; one row for all runs."""
    who: dict[tuple[str, str, str], list[str]] = {}
    for k, run in enumerate(runs):
        reasons = run.texts.get("reason", [None] * len(run.tiles))
        found = [(t, s, r or "") for t, s, r in zip(run.tiles, run.status, reasons, strict=True) if s != "ok"]
        known = {(tile, status) for tile, status, _ in found}
        for problem in run.meta.get("problems") or []:
            entry = tuple(str(problem.get(name) or "") for name in ("tile", "status", "reason"))
            if entry[:2] not in known:
                found.append(entry)  # type: ignore[arg-type]
        for entry in dict.fromkeys(found):
            who.setdefault(entry, []).append(_draw.letter(k))
    rows = [
        ("all" if len(names) == len(runs) else ", ".join(names), tile, status.replace("_", " "), reason)
        for (tile, status, reason), names in who.items()
    ]
    counts: dict[str, int] = {}
    for _, _, status, _ in rows:
        counts[status] = counts.get(status, 0) + 1
    return {"rows": rows[:PROBLEMS_SHOWN], "more": max(0, len(rows) - PROBLEMS_SHOWN), "counts": sorted(counts.items())}


def _provenance(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """What each run says of itself; what all say alike is said once."""
    described = [_described(run) for run in runs]
    shared = [row for row in described[0] if all(row in other for other in described[1:])]
    blocks = [("" if len(runs) == 1 else "All candidates", shared)]
    if len(runs) > 1:
        blocks += [
            (f"{_draw.letter(k)} {run.label}", [row for row in rows if row not in shared])
            for k, (run, rows) in enumerate(zip(runs, described, strict=True))
        ]
    return [
        {
            "label": label,
            "groups": [(g, [row[1:] for row in rows if row[0] == g]) for g in dict.fromkeys(r[0] for r in rows)],
        }
        for label, rows in blocks
        if rows
    ]


def _described(run: RunData) -> list[tuple[str, str, str]]:
    """(group, name, value) of everything run.json records."""
    meta = run.meta
    rows = [
        ("Run", name, plain(meta.get(key)))
        for name, key in (
            ("semnr version", "semnr"),
            ("Created", "created"),
            ("Source", "source"),
            ("Reference", "reference"),
        )
    ]
    rows.append(("Run", "Folder", str(run.path)))
    if meta.get("seconds") is not None:
        rows.append(("Run", "Duration", f"{float(meta['seconds']):.1f} s"))
    for key in ("settings", "backends", "machine", "weights", "counts"):
        value = meta.get(key)
        if isinstance(value, Mapping) and value:
            rows += [(words(key), *row) for row in flatten(value)]
        else:
            rows.append((words(key), words(key), plain(value) if value else "not recorded"))
    return rows
