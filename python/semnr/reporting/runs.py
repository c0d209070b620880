"""Reads scored runs and verdicts from disk into what the report draws."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..profiles import Profile
from ..runs.info import read_info
from ..runs.parquet import part_files, parts
from ..runs.pixels import Images
from ..runs.scored import ACCEPTED


@dataclass
class RunData:
    """One scored run: run.json and the Parquet rows as columns; or the rows of a profile, which lie in no folder."""

    path: Path | None
    label: str
    meta: dict[str, Any]
    tiles: list[str]
    numbers: dict[str, np.ndarray]  # float64, NaN where null
    texts: dict[str, list[str | None]]
    images: Images | None = None  # pixels of this process, by tile and role
    rows: Profile | None = None  # the profile, where one was given

    @property
    def settings(self) -> dict[str, Any]:
        return self.meta.get("settings") or {}

    @property
    def status(self) -> list[str]:
        return [value or "ok" for value in self.texts.get("status", ["ok"] * len(self.tiles))]

    @property
    def data_range(self) -> float | None:
        value = self.settings.get("data_range")
        return float(value) if value is not None else None

    def values(self, column: str) -> np.ndarray:
        """Column as float64; all NaN where the run has no such column."""
        return self.numbers.get(column, np.full(len(self.tiles), np.nan))

    def boxes(self, row: int) -> list[dict[str, Any]]:
        """Where the evidence scan found structure removed or invented in a tile, strongest first."""
        text = (self.texts.get("evidence_boxes") or [None] * len(self.tiles))[row]
        return checked_boxes(json.loads(text)) if text else []

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """What sounded while the run was scored."""
        path = None if self.path is None else self.path / "alarms.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        return [json.loads(line) for line in lines if line.strip()]

    def has(self, column: str) -> bool:
        """Is there any value, infinite ones included?"""
        return bool((~np.isnan(self.values(column))).any())


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a metric over the finite values of a run."""

    n: int
    infinite: int
    mean: float
    p05: float
    p95: float


def checked_boxes(given: Any) -> list[dict[str, Any]]:
    """Boxes that can be drawn; others (of a file that somebody edited) are left out."""
    boxes = []
    for box in given if isinstance(given, list | tuple) else []:
        if isinstance(box, Mapping) and all(isinstance(box.get(k), int | float) for k in ("row", "col")):
            size = {k: float(box.get(k) or 6.0) for k in ("height", "width")}
            kind = "invented" if box.get("kind") == "invented" else "removed"
            z = float(box.get("z") or math.nan)
            boxes.append({"kind": kind, "row": float(box["row"]), "col": float(box["col"]), "z": z, **size})
    return boxes


def merged(boxes: Sequence[dict[str, Any]], gap: float = 8.0) -> list[dict[str, Any]]:
    """Boxes of one kind that touch, or nearly, as one: a defect larger than the scan's widest filter is one place."""
    apart: list[dict[str, Any]] = []
    for box in boxes:
        box = dict(box)
        while (other := next((o for o in apart if _touch(o, box, gap)), None)) is not None:
            apart.remove(other)
            box = _around(other, box)
        apart.append(box)
    return sorted(apart, key=lambda b: -abs(b["z"]) if math.isfinite(b["z"]) else 0.0)


def _touch(a: Mapping[str, Any], b: Mapping[str, Any], gap: float) -> bool:
    return a["kind"] == b["kind"] and all(
        abs(a[at] - b[at]) <= (a[size] + b[size]) / 2 + gap for at, size in (("row", "height"), ("col", "width"))
    )


def _around(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    ends: dict[str, float] = {}
    for at, size in (("row", "height"), ("col", "width")):
        low = min(a[at] - a[size] / 2, b[at] - b[size] / 2)
        high = max(a[at] + a[size] / 2, b[at] + b[size] / 2)
        ends |= {at: (low + high) / 2, size: high - low}
    return {"kind": a["kind"], "z": max(a["z"], b["z"], key=abs), **ends}


def summarise(values: np.ndarray) -> Summary:
    finite = values[np.isfinite(values)]
    infinite = int(np.isinf(values).sum())
    if not len(finite):
        return Summary(0, infinite, math.nan, math.nan, math.nan)
    low, high = np.quantile(finite, (0.05, 0.95))
    return Summary(len(finite), infinite, float(finite.mean()), float(low), float(high))


def psnr_of_mean_mse(run: RunData) -> float:
    """The wafer's PSNR: from the mean MSE, never a mean of dB. NaN where no MSE is at hand."""
    mse = run.values("mse")
    mse = mse[np.isfinite(mse)]
    if not len(mse):
        return math.nan
    mean = float(mse.mean())
    if mean == 0:
        return math.inf
    if run.data_range is not None:
        return 10 * math.log10(run.data_range**2 / mean)
    # the range was the dtype's and is not on record: each row's pair of MSE and PSNR holds it
    rows = run.values("mse") * 10.0 ** (run.values("psnr") / 10)
    rows = rows[np.isfinite(rows) & (rows > 0)]
    return 10 * math.log10(float(np.median(rows)) / mean) if len(rows) else math.nan


def input_psnr(run: RunData) -> float:
    """PSNR of the noisy input from its mean MSE, recovered from the per-tile dB."""
    db = run.values("psnr_noisy")
    db = db[~np.isnan(db)]
    if not len(db):
        return math.nan
    mean = float(np.mean(10.0 ** (-db / 10)))
    return math.inf if mean == 0 else -10 * math.log10(mean)


def load_runs(run_or_path: Any, compare: Sequence[Any] | None) -> list[RunData]:
    """Every run that was named, in order, with labels made unique."""
    named = list(run_or_path) if isinstance(run_or_path, list | tuple) else [run_or_path]
    if compare is not None:
        if isinstance(compare, str | Path) or not isinstance(compare, Sequence):
            raise TypeError(f"compare is {type(compare).__name__}; accepted: a list of runs or run folders")
        named += compare
    if not named:
        raise ValueError("run_or_path is an empty list; accepted: at least one run folder")
    runs = [load_run(item) for item in named]
    taken: dict[str, int] = {}
    for run in runs:
        taken[run.label] = taken.get(run.label, 0) + 1
        if taken[run.label] > 1:
            run.label = f"{run.label} ({taken[run.label]})"
    return runs


def load_run(item: Any) -> RunData:
    """One run: run.json and tiles/*.parquet of its folder; or the rows of a profile.

    Raises
    ------
    TypeError, FileNotFoundError, ValueError
        Not a path; no run there; a run that cannot be read or holds no tile.
    """
    import pyarrow as pa

    if isinstance(item, Profile):
        return _of_profile(item) if item.run is None else load_run(item.run)
    value = getattr(item, "path", item)
    if not isinstance(value, str | Path):
        raise TypeError(f"run_or_path is {type(item).__name__}; accepted: {ACCEPTED}, or a list of them")
    path = Path(value)
    if not (path / "run.json").is_file():
        raise FileNotFoundError(f"run_or_path: {path} has no run.json; accepted: a folder written by semnr score")
    try:
        meta = read_info(path)
    except ValueError as error:
        raise ValueError(f"run_or_path: {error}") from error
    if not part_files(path):
        raise ValueError(f"run_or_path: {path} holds no tiles/*.parquet; the run scored nothing, nothing to report")
    try:
        table = pa.concat_tables(list(parts(path)), promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"run_or_path: the Parquet files of {path} cannot be read: {error}") from error
    if "tile" not in table.column_names:
        raise ValueError(f"run_or_path: the Parquet files of {path} have no column 'tile'")
    if not table.num_rows:
        raise ValueError(f"run_or_path: {path} is an empty run (0 tiles), nothing to report")

    tiles = [str(tile) for tile in table.column("tile").to_pylist()]
    run = RunData(path, str(meta.get("label") or path.name), meta, tiles, {}, {}, getattr(item, "images", None))
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            # null and NaN both mean "no value" to a reader
            filled = column.cast(pa.float64(), safe=False).fill_null(float("nan"))
            run.numbers[name] = filled.to_numpy()
        elif name != "tile":
            run.texts[name] = [None if cell is None else str(cell) for cell in column.to_pylist()]
    return run


def _of_profile(profile: Profile) -> RunData:
    """A profile that comes from no run: its rows and settings, without pixels."""
    if not len(profile):
        raise ValueError("run_or_path is a profile of 0 tiles, nothing to report")
    status: list[str | None] = list(profile.status)
    return RunData(
        path=None,
        label=profile.label or "profile",
        meta={"settings": {**profile.settings, "data_range": profile.data_range}},
        tiles=list(profile.tiles),
        numbers=dict(profile.columns),
        texts={**{name: list(values) for name, values in profile.texts.items()}, "status": status},
        rows=profile,
    )


def load_verdicts(given: Any, runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Verdicts as dicts: those given, then verdict*.json of each run folder; each carries `run`, the run it judges."""
    verdicts: list[dict[str, Any]] = []

    def add(verdict: dict[str, Any], home: RunData | None) -> None:
        if any(verdict == {k: v for k, v in known.items() if k != "run"} for known in verdicts):
            return
        judged = next((run for run in runs if run.label == verdict.get("after")), home or runs[0])
        verdicts.append({**verdict, "run": judged.label})

    for item in [] if given is None else given if isinstance(given, list | tuple) else [given]:
        for verdict in _as_dicts(item):
            add(verdict, None)
    for run in runs:
        for file in [] if run.path is None else sorted(run.path.glob("verdict*.json")):
            for verdict in _as_dicts(file):
                add(verdict, run)
    return verdicts


def _as_dicts(item: Any) -> list[dict[str, Any]]:
    if isinstance(item, str | Path):
        read = _read_verdicts(Path(item))
        return [_checked(v) for v in (read if isinstance(read, list) else [read])]
    if hasattr(item, "to_dict"):
        item = item.to_dict()
    return [_checked(item)]


def _checked(verdict: Any) -> dict[str, Any]:
    accepted = "accepted: a Verdict, its to_dict(), or a path to its JSON"
    if not isinstance(verdict, Mapping):
        raise TypeError(f"verdict is {type(verdict).__name__}; {accepted}")
    if "passed" not in verdict or not isinstance(verdict.get("signals"), Sequence):
        raise ValueError(f"verdict has the keys {sorted(map(str, verdict))}, but no passed and signals; {accepted}")
    for signal in verdict["signals"]:
        if not isinstance(signal, Mapping) or "name" not in signal or "status" not in signal:
            raise ValueError(f"verdict has a signal without name and status; {accepted}")
    return dict(verdict)


def _read_verdicts(path: Path) -> Any:
    """One verdict, or a list of them."""
    if not path.is_file():
        raise FileNotFoundError(f"verdict: there is no file {path}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"verdict: {path} is not JSON: {error}") from error
    if not isinstance(value, dict | list):
        raise ValueError(f"verdict: {path} holds a JSON {type(value).__name__}; accepted: an object")
    return value
