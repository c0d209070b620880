"""Score a stream of tiles with a model: the folder of a run as `semnr.score` writes it, with the flagged tiles."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.registry import recording

from .. import __version__
from ..base.files import keeping, write_json
from ..base.lock import only_writer
from ..base.outputs import apart, local
from ..base.progress import Progress
from ..columns import BY_NAME
from ..runs import summaries
from ..runs.parquet import ParquetSink, drop_unscored, part_files, parts
from ..runs.run import Run, machine
from ..runs.verdict import CLEAR, FIRED, UNKNOWN, Signal, Verdict
from ..runs.verdict import NAME as VERDICT
from ..scoring.engine import Engine, problem_row
from ..scoring.maps import MapSink
from ..scoring.prepare import bytes_of, count_of, layout_of
from ..scoring.resume import begin, identity, may_write, same_first_tile
from ..scoring.scorer import Scorer, row_of
from ..scoring.stream import Inputs
from ..tiles import open_tiles
from ..tiles.extent import extent_of
from ..tiles.source import TileKey, length_of
from .model import AnomalyModel, load
from .normals import LEAST_SIDE, grey, input_role, range_of
from .thresholds import Threshold, finite

SIGNAL = "anomaly"
_PLACE = ("die_x", "die_y", "x_um", "y_um", "wafer_x_um", "wafer_y_um")


def score(
    model: Any,
    source: Any,
    out: str | Path,
    *,
    threshold: float | Threshold | None = None,
    data_range: float | None = None,
    label: str | None = None,
    maps: bool = False,
    wafer: Any = None,
    resume: bool = True,
    workers: int = 2,
    memory_budget: int | str = "2GiB",
    root: Any = None,
    quiet: bool = True,
) -> Run:
    """Score every tile of a source and write the folder of a run: rows, run.json, verdict.json.

    Each tile is a row with its location, `anomaly_score` and the figures beside it. Tiles whose score is above the
    threshold are the regions of the signal `anomaly`: the report shows them, and `Run.write_klarf` writes them. Rows do
    not depend on the threshold: the same call with another one scores nothing again.

    Parameters
    ----------
    model : path or AnomalyModel
        The model.
    source : anything that `semnr.open_tiles` takes
        Tiles of the model's range. Role "noisy" is read where there is one, else "image".
    out : str or Path
        Folder of the run.
    threshold : float or Threshold, optional
        Default: the one beside the model.
    data_range : float, optional
        Width of the intensity scale; another one than the model's is refused.
    label : str, optional
        Name of the run in tables. Default: the name of the source.
    maps : bool
        Also a map of each tile in maps.zarr: of an autoencoder `evidence`, the signed z of the scan, which the report
        shows; of a feature model `anomaly`, its distances.
    wafer : semnr.wafers.Wafer, optional
        Layout of the wafer: rows get what is missing of their coordinates.
    resume : bool
        Continue the run in `out` where model, source and settings are the same; False: `out` must hold no run.
    workers : int
        Threads that read tiles.
    memory_budget : int or str
        Bytes, or "2GiB": bounds the tiles held at once.
    root : path, optional
        Folder that the paths of a plan may lie in.
    quiet : bool
        No progress on stderr.

    Returns
    -------
    Run
        `.verdict["anomaly"]` names the flagged tiles. `.exit_code` is 1 where there are some, else 3 where tiles could
        not be scored or there is no threshold, else 0.

    Raises
    ------
    ValueError, TypeError
        The argument, what it was, what is accepted.
    WeightsUnavailable
        No model, or one that cannot be read.

    Examples
    --------
    >>> run = semnr.anomaly.score("model", "wafer.zarr", "run")  # doctest: +SKIP
    >>> run.flagged()  # doctest: +SKIP
    {'t000017': ['anomaly']}
    """
    fitted = model if isinstance(model, AnomalyModel) else load(model)
    limit = _limit(fitted, threshold)
    count_of("workers", workers)
    opened = open_tiles(source, root=root)
    role = input_role(opened)
    inputs = Inputs((opened, role), None, None)
    layout, folder = layout_of(wafer, opened), local("out", out)
    given = data_range if data_range is not None else opened.data_range
    if given is not None:
        fitted.check_range(given)
    apart("out", folder, [*extent_of(opened), (str(fitted.path), True)])
    may_write(folder, resume)
    scorer = AnomalyScorer(
        (), given, 1, None, None, 1, "error", "auto", anomaly=fitted, source_range=lambda kind: range_of(
            opened, kind, data_range
        ),
    )  # fmt: skip
    engine = Engine(inputs, scorer, workers, bytes_of(memory_budget), layout)
    named = identity(inputs, layout, folder)
    settings: dict[str, Any] = {
        **named,
        "noisy": named["source"],
        "metrics": [],
        "data_range": given,
        "fsim_downsample": 1,
        "tests": True,
        "metrology": None,
        "scan_axis": fitted.facts.get("scan_axis", -1),
        "anomaly": {"kind": fitted.kind, "score": fitted.score_name, "sha256": fitted.facts["sha256"]},
    }
    with ExitStack() as stack:
        stack.enter_context(only_writer(folder))
        before = begin(folder, settings, resume)
        used = stack.enter_context(recording())
        total = length_of(opened)
        if before.decided is not None:
            same_first_tile(inputs, before.decided, folder)
            scorer.go_on(before.decided)
        elif total is not None:
            engine.decide(opened)
        started = time.monotonic()
        info: dict[str, Any] = {
            "semnr": __version__,
            "by": "anomaly score",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "label": label or (Path(str(source)).stem if isinstance(source, str | Path) else opened.name),
            "state": "running",
            "source": settings["source"],
            "reference": None,
            "requested": settings,
            "decided": scorer.decided,
            "settings": {**settings, "data_range": fitted.data_range},
            "wafer": settings["wafer"],
            "machine": machine(),
            "backends": before.info.get("backends", {}),
            "weights": {},
            "anomaly": about(fitted, limit),
        }
        stack.enter_context(keeping(folder, lambda: bool(part_files(folder))))
        write_json(folder / "run.json", info)
        drop_unscored(folder)
        sink = ParquetSink(folder)
        stack.callback(sink.flush)
        if maps:
            scorer.maps = MapSink(folder, (fitted.engine.map_name,))
        with Progress("anomaly score", total, quiet=quiet) as progress:
            early = opened.problems
            for problem in early:
                sink.add(problem_row(problem))
            progress.tiles = len(before.done)
            for pixels, rows in engine.run(key for key in opened if key.tile not in before.done):
                if info["decided"] is None and scorer.decided is not None:
                    info["decided"] = scorer.decided
                    write_json(folder / "run.json", info)  # before any row that depends on it
                for row in rows:
                    sink.add(row)
                progress.advance(len(rows), pixels)
            for problem in opened.problems:  # a stream knows them by its end only
                if problem not in early:
                    sink.add(problem_row(problem))
        sink.flush()
        if scorer.maps is not None:
            scorer.maps.trim(summaries.last_index(folder) + 1)
        counts = summaries.counts(folder)
        short = total is not None and counts["tiles"] < total
        info.update(
            state="incomplete" if short else "finished",
            backends={**info["backends"], **used},
            counts=counts,
            identical={},
            renamed={},
            remarks=[*opened.remarks, *_remarks(fitted, limit)],
            unjudged=list(opened.unjudged),
            problems=summaries.problems(folder),
            summary=summaries.summary(folder, fitted.data_range),
            alarms=0,
            stages=engine.stages.table(),
            seconds=round(time.monotonic() - started, 3),
        )
        write_json(folder / "run.json", info)
        verdict = judged(folder, info, limit)
        write_json(folder / VERDICT, verdict.to_dict())
    return replace(Run(folder, info), verdict=verdict)


class AnomalyScorer(Scorer):
    """Rows of a batch by a model of normal tiles, where `semnr.score` takes the profile."""

    def __init__(self, *arguments: Any, anomaly: AnomalyModel, source_range: Any) -> None:
        super().__init__(*arguments)
        self.anomaly, self.source_range = anomaly, source_range

    def begin(self, tile: str, first: dict[str, np.ndarray]) -> None:
        if self.decided is None:
            self.data_range = self.source_range(first["x"].dtype)
            self.anomaly.check_range(self.data_range)
        super().begin(tile, first)

    def _batch(self, keys: list[TileKey], parts: dict[str, Any], host: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        images = np.stack([grey(tile) for tile in parts["x"]])
        if min(images.shape[1:]) < LEAST_SIDE:
            size = "x".join(map(str, images.shape[1:]))
            raise ValueError(f"tile is {size} px; accepted: sides of at least {LEAST_SIDE}")
        if not np.isfinite(images).all():
            raise ValueError("tile has non-finite pixels; accepted: finite grey levels")
        found = self.anomaly.engine.measure(images, self.maps is not None)
        if self.maps is not None and found.map is not None:
            for key, values in zip(keys, found.map, strict=True):
                self.maps.write(self.anomaly.engine.map_name, key.index, values)
        rows = []
        for i, key in enumerate(keys):
            numbers = {name: _number(column[i]) for name, column in found.columns.items()}
            texts = {name: column[i] for name, column in found.texts.items()}
            rows.append({**row_of(key), **numbers, **texts, "status": "ok", "reason": None})
        return rows


def judged(folder: Path, info: Mapping[str, Any], limit: Threshold | None) -> Verdict:
    """The verdict on a run: which tiles are above the threshold."""
    column = BY_NAME["anomaly_score"]
    flagged, scored = list(_above(folder, limit)), 0
    for table in parts(folder, ["anomaly_score", "status"]):
        if "anomaly_score" in table.column_names:
            scored += table.num_rows - table.column("anomaly_score").null_count
    flagged.sort(key=lambda region: -region["anomaly_score"])
    evidence: dict[str, Any] = {"tiles_judged": scored, "tiles_fired": len(flagged)}
    limits: tuple[Mapping[str, Any], ...] = ()
    if limit is None:
        status, line = UNKNOWN, "no threshold beside the model -> unknown"
        evidence["reason"] = "the model has no threshold yet"
    else:
        status = FIRED if flagged else CLEAR
        evidence |= {"threshold": limit.value, "share_fired": len(flagged) / scored if scored else 0.0}
        line = f"{column.label} above {limit.value:.4g}? {len(flagged)} of {scored} tiles -> {status}"
        limits = ({"column": "anomaly_score", "above": limit.value},)
    signal = Signal(
        SIGNAL,
        status,
        "high",
        ("anomaly_score",),
        evidence,
        tuple(flagged),
        "Look at these tiles: they hold what the model of normal tiles does not explain." if flagged else "",
        required=limit is None,
        needs="a threshold: `semnr anomaly calibrate`, or --threshold" if limit is None else "",
        question="Does a tile hold what normal tiles do not?",
        limits=limits,
    )
    notes = () if limit is None else (f"threshold {limit.value:.4g}: {limit.statement}",)
    path = (f"{SIGNAL}: {line}",)
    return Verdict((signal,), path, after=str(info["label"]), tiles=scored, notes=notes)


def _above(folder: Path, limit: Threshold | None) -> Iterator[dict[str, Any]]:
    if limit is None:
        return
    for table in parts(folder, ["tile", "anomaly_score", *_PLACE]):
        if "anomaly_score" not in table.column_names:
            continue
        values = np.array([np.nan if v is None else v for v in table.column("anomaly_score").to_pylist()], np.float64)
        for at in np.flatnonzero(limit.flags(values)):
            row = table.slice(int(at), 1).to_pylist()[0]
            yield {name: value for name, value in row.items() if value is not None}


def about(model: AnomalyModel, limit: Threshold | None) -> dict[str, Any]:
    """What the report says of a model and its threshold."""
    facts = model.facts
    told = facts.get("generalisation")
    return {
        "kind": model.kind,
        "score": model.score_name,
        "sha256": facts["sha256"],
        "tiles": facts.get("tiles", {}),
        "generalisation": None if told is None else told["statement"],
        "threshold": None if limit is None else limit.to_dict(),
    }


def _limit(model: AnomalyModel, threshold: Any) -> Threshold | None:
    if threshold is None:
        limit = model.threshold
    elif isinstance(threshold, Threshold):
        limit = threshold
    else:
        limit = Threshold(finite("threshold", threshold), score=model.score_name)
    if limit is not None and limit.score not in ("", model.score_name):
        raise ValueError(
            f"threshold is for the score {limit.score!r}, the model's is {model.score_name!r}; accepted: a threshold "
            "of this score"
        )
    return limit


def _remarks(model: AnomalyModel, limit: Threshold | None) -> list[str]:
    told = model.facts.get("generalisation") or {}
    said = [told["statement"]] if told.get("overfits") else []
    none = ["no threshold: nothing is flagged; `semnr anomaly calibrate` chooses one, --threshold gives one"]
    return [*said, *(none if limit is None else [])]


def _number(value: float) -> float | None:
    return None if value != value else float(value)
