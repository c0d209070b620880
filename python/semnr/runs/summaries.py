"""Figures over a run's rows: of all tiles, by die, by reticle field, by ring. One part, or one column, at a time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..columns import used
from ..wafers import Wafer
from .identity import IDENTITY, same_pixels
from .parquet import Parts, parts

METRICS = used("summary")
LISTED = 1000  # problems listed in run.json; all of them are rows of the Parquet and counted
RINGS = 5  # of one width from the centre to the edge


def counts(run: Path) -> dict[str, int]:
    """Tiles in all, and by status."""
    totals: Counter[str] = Counter()
    for table in parts(run, ["status"]):
        totals.update({pair["values"]: pair["counts"] for pair in table.column("status").value_counts().to_pylist()})
    return {"tiles": totals.total(), "ok": totals.pop("ok", 0), **dict(sorted(totals.items()))}


def last_index(run: Path) -> int:
    """The highest index of a tile; -1 where there is none."""
    import pyarrow.compute as pc

    largest = [pc.max(table.column("index")).as_py() for table in parts(run, ["index"])]
    return max((index for index in largest if index is not None), default=-1)


def problems(run: Path) -> list[dict[str, str]]:
    """The first tiles that were not scored, with the reason."""
    import pyarrow.compute as pc

    listed: list[dict[str, str]] = []
    for table in parts(run, ["tile", "status", "reason"]):
        bad = table.filter(pc.not_equal(table.column("status"), "ok"))
        listed += [{name: row.get(name) for name in ("tile", "status", "reason")} for row in bad.to_pylist()]
        if len(listed) >= LISTED:
            break
    return listed[:LISTED]


def summary(run: Path, data_range: float | None) -> dict[str, Any]:
    """Mean, median, 5th and 95th percentile of each metric over the tiles that have it.

    Infinite PSNR rows are counted apart; `psnr_of_mean_mse` is the PSNR of all tiles together.
    """
    figures: dict[str, Any] = {}
    held = Parts(run)
    for name in METRICS:
        values = _column(held, name)
        if values is None:
            continue
        values.sort()  # in place, NaN last: no copy, and sums that do not depend on the order of the rows
        first = int(np.searchsorted(values, -np.inf, side="right"))
        last, known = (int(np.searchsorted(values, end)) for end in (np.inf, np.nan))
        if name == "psnr":
            figures["infinite_psnr"] = known - last
        values = values[first:last]
        if values.size:
            mean = float(values.mean())
            low, middle, high = (_quantile(values, share) for share in (0.05, 0.5, 0.95))
            figures[name] = {"mean": mean, "median": middle, "p05": low, "p95": high, "n": int(values.size)}
    if "mse" in figures and data_range is not None:
        mean = figures["mse"]["mean"]
        figures["psnr_of_mean_mse"] = 10 * math.log10(data_range**2 / mean) if mean > 0 else None
    return figures


def _column(held: Parts, name: str) -> np.ndarray | None:
    """(tiles,) float64, NaN where a row has none; None where no row has the column."""
    import pyarrow.parquet as pq

    if name not in held.names:
        return None
    rows = sum(pq.read_metadata(path).num_rows for path in held.files)
    values, at = np.full(rows, np.nan), 0  # filled in place: a million rows are 8 MB, once
    for table in held.tables(["status", name]):
        values[at : at + table.num_rows] = _floats(table.column(name))
        at += table.num_rows
    return values


def identical(run: Path) -> dict[str, int]:
    """Tiles whose reference is, pixel by pixel, the candidate, or the noisy input."""
    totals = Counter(dict.fromkeys(("candidate", "noisy"), 0))
    for table in parts(run, list(IDENTITY)):
        have, nothing = set(table.column_names), np.full(table.num_rows, np.nan)
        values = {name: _floats(table.column(name)) if name in have else nothing for name in IDENTITY}
        totals.update({name: int(where.sum()) for name, where in same_pixels(values.__getitem__).items()})
    return dict(totals)


def remarks(alike: Mapping[str, int], ok: int) -> list[str]:
    """What such tiles mean for a reader."""
    said = {"candidate": "the candidate", "noisy": "the noisy input"}
    return [
        f"on {count} of {ok} tiles {said[name]} is identical to the reference, pixel by pixel: they prove nothing"
        for name, count in alike.items()
        if count
    ]


def _quantile(values: np.ndarray, share: float) -> float:
    """Of sorted values, linear between neighbours; NumPy's own copies them."""
    at = share * (values.size - 1)
    low = int(at)
    here, there = values[low], values[min(low + 1, values.size - 1)]
    return float(here + (there - here) * (at - low))


def _floats(values: Any) -> np.ndarray:
    import pyarrow as pa

    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


# --- places on the wafer --------------------------------------------------------------------------------------


def by_place(run: Path, layout: Wafer | None = None) -> dict[str, list[dict[str, Any]]]:
    """Means of each metric by `die`, by `reticle` field and by `ring`, whichever the rows' coordinates allow.

    A die is keyed by lot, wafer and index; a reticle field by the die's place in its shot (a defect of the mask
    repeats there), a ring by its number from the centre, of five. Tiles that were not scored are counted apart.
    """
    keys = ["lot_id", "wafer_id", "die_x", "die_y", "wafer_x_um", "wafer_y_um"]
    groups: dict[str, dict[tuple[Any, ...], _Group]] = {k: defaultdict(_Group) for k in ("die", "reticle", "ring")}
    for table in parts(run, ["status", *keys, *METRICS]):
        have = set(table.column_names)
        status = np.array(table.column("status").to_pylist()) == "ok"
        values = {name: _floats(table.column(name)) for name in METRICS if name in have}
        for kind, places in _places(table, have, layout):
            for key, rows in _grouped(places):
                groups[kind][key].add(status[rows], {name: v[rows] for name, v in values.items()})
    names = {
        "die": ("lot_id", "wafer_id", "die_x", "die_y"),
        "reticle": ("reticle_x", "reticle_y"),
        "ring": ("ring",),
    }
    return {
        kind: [
            {**dict(zip(names[kind], key, strict=True)), **group.to_dict()}
            for key, group in sorted(grouped.items(), key=repr)
        ]
        for kind, grouped in groups.items()
        if grouped
    }


def _places(table: Any, have: set[str], layout: Wafer | None) -> Iterator[tuple[str, list[list[Any]]]]:
    def of(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in have else [None] * table.num_rows

    if {"die_x", "die_y"} <= have:
        yield "die", [of("lot_id"), of("wafer_id"), of("die_x"), of("die_y")]
    if layout is None:
        return
    if {"die_x", "die_y"} <= have and layout.reticle != (1, 1):
        known = [None not in pair for pair in zip(of("die_x"), of("die_y"), strict=True)]
        x, y = ([v if k else 0 for v, k in zip(of(n), known, strict=True)] for n in ("die_x", "die_y"))
        _, _, inner_x, inner_y = layout.shot(x, y)
        yield (
            "reticle",
            [[int(v) if k else None for v, k in zip(inner, known, strict=True)] for inner in (inner_x, inner_y)],
        )
    if {"wafer_x_um", "wafer_y_um"} <= have:
        radius = layout.radius_um(_floats(table.column("wafer_x_um")), _floats(table.column("wafer_y_um")))
        ring = np.minimum(radius / (layout.diameter_um / 2) * RINGS, RINGS - 1)
        yield "ring", [[None if math.isnan(r) else int(r) for r in ring]]


def _grouped(places: list[list[Any]]) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for at, key in enumerate(zip(*places, strict=True)):
        rows[key].append(at)
    for key, numbers in rows.items():
        if any(part is not None for part in key):
            yield key, np.array(numbers)


class _Group:
    """Sums of one place."""

    def __init__(self) -> None:
        self.tiles = self.ok = 0
        self.sums: dict[str, list[float]] = {}

    def add(self, ok: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        self.tiles += ok.size
        self.ok += int(ok.sum())
        for name, column in values.items():
            finite = column[np.isfinite(column)]
            if finite.size:
                total = self.sums.setdefault(name, [0.0, 0.0])
                total[0] += float(finite.sum())
                total[1] += finite.size

    def to_dict(self) -> dict[str, Any]:
        means = {name: total / count for name, (total, count) in self.sums.items()}
        return {"tiles": self.tiles, "ok": self.ok, **means}
