"""What could not be scored, and where every number comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .draw import letter
from .metrics import flatten, plain, words
from .runs import RunData

PROBLEMS_SHOWN = 200


def problems(runs: Sequence[RunData]) -> dict[str, Any]:
    """Tiles that were not scored: those in the Parquet and those that run.json lists besides; one row for all runs."""
    who: dict[tuple[str, str, str], list[str]] = {}
    for k, run in enumerate(runs):
        reasons = run.texts.get("reason", [None] * len(run.tiles))
        unscored = [(t, s, r or "") for t, s, r in zip(run.tiles, run.status, reasons, strict=True) if s != "ok"]
        known = {(tile, status) for tile, status, _ in unscored}
        for problem in run.meta.get("problems") or []:
            entry = tuple(str(problem.get(name) or "") for name in ("tile", "status", "reason"))
            if entry[:2] not in known:
                unscored.append(entry)  # type: ignore[arg-type]
        for entry in dict.fromkeys(unscored):
            who.setdefault(entry, []).append(letter(k))
    rows = [
        ("all" if len(names) == len(runs) else ", ".join(names), tile, status.replace("_", " "), reason)
        for (tile, status, reason), names in who.items()
    ]
    counts: dict[str, int] = {}
    for _, _, status, _ in rows:
        counts[status] = counts.get(status, 0) + 1
    return {"rows": rows[:PROBLEMS_SHOWN], "more": max(0, len(rows) - PROBLEMS_SHOWN), "counts": sorted(counts.items())}


def provenance(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """What each run says of itself; what all say alike is said once."""
    described = [_described(run) for run in runs]
    shared = [row for row in described[0] if all(row in other for other in described[1:])]
    blocks = [("" if len(runs) == 1 else "All candidates", shared)]
    if len(runs) > 1:
        blocks += [
            (f"{letter(k)} {run.label}", [row for row in rows if row not in shared])
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
    rows.append(("Run", "Folder", "none: rows of this process" if run.path is None else str(run.path)))
    if meta.get("seconds") is not None:
        rows.append(("Run", "Duration", f"{float(meta['seconds']):.1f} s"))
    for key in ("settings", "backends", "machine", "weights", "counts"):
        value = meta.get(key)
        if isinstance(value, Mapping) and value:
            rows += [(words(key), *row) for row in flatten(value)]
        else:
            rows.append((words(key), words(key), plain(value) if value else "not recorded"))
    return rows
