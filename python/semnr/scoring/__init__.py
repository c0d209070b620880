"""Score a stream of tiles: every tile's profile in Parquet, the run's settings and counts in run.json."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from .._files import write_json
from .._progress import Progress
from ..tiles import open_tiles
from ..tiles._source import Problem, TileKey, TileSource
from . import _prepare as prepare
from ._prepare import METRICS
from ._run import Run, machine, summarise
from ._sink import ParquetSink, read_rows

__all__ = ["METRICS", "Run", "score"]

LISTED = 1000  # problems listed in run.json; all of them are rows of the Parquet and counted
BATCH_BYTES = 2**18  # of candidate pixels, a 512 x 512 tile of 8 bit: several batches are at work, larger gain nothing


def score(
    src: Any,
    *,
    reference: Any = None,
    noisy: Any = None,
    out: Any,
    metrics: Sequence[str] = METRICS,
    data_range: float | None = None,
    label: str | None = None,
    fsim_downsample: int | str = "auto",
    dists_weights: Any = None,
    dists_resize: str | None = None,
    dists_every: int = 1,
    nan: str = "error",
    rules: Any = None,
    allow_unknown: Iterable[str] | str = (),
    resume: bool = True,
    workers: int = 2,
    scheduler: None = None,
    memory_budget: int | str = "2GiB",
    root: Any = None,
    backend: str | None = "auto",
    quiet: bool = True,
) -> Run:
    """Score every tile of `src` against its reference and write `out/tiles/part-*.parquet` and `out/run.json`.

    Parameters
    ----------
    src
        What `semnr.open_tiles` takes. A plan with a `candidate` column is scored on it, else on `path`.
    reference
        Another source, paired by tile id; None: the `reference` of `src` itself.
    noisy
        The noisy input, another source or None for the `noisy` of `src`: adds fixed-noise CNR, contrast
        retention and evidence transfer.
    out
        Folder of the run.
    metrics
        Of "psnr", "ssim", "fsim", "dists", "cnr".
    data_range
        Width of the intensity scale; required for floating tiles, the source's or the dtype's otherwise.
    fsim_downsample
        "auto": the factor of the first tile, kept for the whole run, since factors do not compare.
    dists_every
        DISTS on every n-th tile only; the run says how many.
    rules, allow_unknown
        Guard rules (what `semnr.guard` takes) to hold the run against as a single candidate: the verdict is
        `Run.verdict` and verdict.json. Rules that compare with a released denoiser are `unknown` here.
    resume
        Continue the run in `out` when its settings are the same; ValueError names what differs. False: `out`
        must hold no run.
    memory_budget
        Bytes, or "2GiB": bounds the tiles held at once.
    scheduler
        Kept for runs on many machines; this version runs in one process and accepts None only.

    Returns
    -------
    Run
        `.exit_code` is 1 when a rule fired, else 3 when tiles were missing, duplicate, unreadable or wrongly
        sized: they are rows with a status and a reason, counted and listed; the rest is scored.

    Raises
    ------
    TypeError, ValueError
        Bad arguments, before anything is written.
    OSError
        The disk is full or read-only: rows already written are kept.
    """
    wanted = prepare.metrics_of(metrics)
    prepare.count_of("dists_every", dists_every)
    prepare.count_of("workers", workers)
    budget = prepare.bytes_of(memory_budget)
    if scheduler is not None:
        raise ValueError(f"scheduler is {scheduler!r}; accepted by this version: None, one process")
    source = open_tiles(src, root=root)
    inputs = prepare.inputs_of(source, reference, noisy, root)
    scale = prepare.scale_of(data_range) or source.data_range

    from semnr_kernels._registry import recording

    from ._engine import Scorer

    scorer = Scorer(wanted, scale, fsim_downsample, dists_weights, dists_resize, dists_every, nan, backend)
    folder = Path(out)
    whence = {s: prepare.whence(s, given, folder) for s, given in ((source, src), *inputs.given(reference, noisy))}
    settings: dict[str, Any] = {
        "source": whence[source],
        "reference": whence[inputs.reference[0]],
        "noisy": None if inputs.noisy is None else whence[inputs.noisy[0]],
        "metrics": list(wanted),
        "data_range": scale,
        "fsim_downsample": fsim_downsample,
        "dists": {"weights": _weights_name(dists_weights), "resize": dists_resize, "every": dists_every},
        "nan": nan,
    }
    before, done = prepare.begin(folder, settings, resume)
    sink = ParquetSink(folder)
    started = time.monotonic()
    info: dict[str, Any] = {
        "semnr": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label or _label(source, src),
        "state": "running",
        "source": settings["source"],
        "reference": settings["reference"],
        "requested": settings,  # what a resumed run must ask for again
        "settings": settings,  # what was used, once it is known
        "machine": machine(),
    }
    write_json(folder / "run.json", info)
    try:
        with recording() as used:
            _stream(source, inputs, scorer, sink, done, workers, budget, quiet)
    finally:
        sink.flush()  # whatever stopped the run, the rows that are known are kept
    rows = read_rows(folder)
    info.update(
        state="finished",
        settings={**settings, "data_range": scorer.scale_used, "fsim_downsample": scorer.fsim_downsample},
        backends={**before.get("backends", {}), **used},
        weights=scorer.weights or before.get("weights", {}),
        counts=_counts(rows),
        problems=_problems(rows),
        summary=_summary(rows, scorer.scale_used),
        seconds=round(time.monotonic() - started, 3),
    )
    if "dists" in wanted:
        calibrated = before.get("settings", {}).get("dists", {}).get("calibrated")
        info["settings"]["dists"] = {
            **settings["dists"],
            "calibrated": calibrated if scorer.calibrated is None else scorer.calibrated,
            "sample": None if dists_every == 1 else info["summary"].get("dists", {}).get("n", 0),
        }
    write_json(folder / "run.json", info)
    run = Run(folder, info)
    if rules is None:
        return run
    from ..guarding import guard

    verdict = guard(None, run.profile(), rules=rules, allow_unknown=allow_unknown)
    write_json(folder / "verdict.json", verdict.to_dict())
    return replace(run, verdict=verdict)


def _stream(
    source: TileSource,
    inputs: Any,
    scorer: Any,
    sink: ParquetSink,
    done: set[str],
    workers: int,
    budget: int,
    quiet: bool,
) -> None:
    from ._engine import unscored
    from ._stream import Batch, batches, in_parallel, prefetch

    total = _length(source)
    for problem in source.problems:
        if problem.tile not in done:
            sink.add(_problem_row(problem))
    seen: set[str] = set()
    dtype = None

    def keys() -> Iterator[TileKey]:
        for key in source:
            seen.add(key.tile)
            if key.tile not in done:
                yield key

    def work() -> Iterator[tuple[int, Callable[[], list[dict[str, Any]]]]]:
        """(pixels, job) for each batch or problem; a job returns rows."""
        nonlocal dtype
        for item in batches(prefetch(keys(), inputs, workers), tile_bytes):
            if not isinstance(item, Batch):
                key, problem = item
                yield 0, partial(unscored, [key], problem.status, problem.reason)
                continue
            x = item.parts["x"]
            if dtype is None:
                dtype = x.dtype
                scorer.begin(x)
            if x.dtype == dtype:
                yield x.size, partial(scorer.rows, item.keys, item.parts)
            else:
                yield 0, partial(unscored, item.keys, "wrong_dtype", f"tile is {x.dtype}, the run {dtype}")

    # a tile is held as candidate, reference and noisy, in the read-ahead and in the batches at work
    tile_bytes = max(1, min(BATCH_BYTES, budget // 64))
    with Progress("score", total, quiet=quiet) as progress:
        progress.tiles = len(done)
        for pixels, rows in in_parallel(work()):
            for row in rows:
                sink.add(row)
            progress.advance(len(rows), pixels)
    other = inputs.reference[0]
    if other is not source:  # tiles that only the reference has
        for key in other:
            if key.tile not in seen and key.tile not in done:
                reason = f"{source.name} has no tile {key.tile}, {other.name} has"
                sink.add(unscored([key], "missing", reason)[0])


def _problem_row(problem: Problem) -> dict[str, Any]:
    return {"tile": problem.tile, "path": None, "index": None, "status": problem.status, "reason": problem.reason}


def _length(source: TileSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def _label(source: TileSource, src: Any) -> str:
    return Path(str(src)).stem if isinstance(src, str | Path) else source.name


def _weights_name(weights: Any) -> str | None:
    return weights if weights is None or isinstance(weights, str) else type(weights).__name__


def _counts(rows: Any) -> dict[str, int]:
    statuses = Counter(rows.column("status").to_pylist())
    return {"tiles": rows.num_rows, "ok": statuses.pop("ok", 0), **dict(sorted(statuses.items()))}


def _problems(rows: Any) -> list[dict[str, str]]:
    columns = (rows.column(name).to_pylist() for name in ("tile", "status", "reason"))
    bad = [{"tile": t, "status": s, "reason": r} for t, s, r in zip(*columns, strict=True) if s != "ok"]
    return bad[:LISTED]


def _summary(rows: Any, data_range: float | None) -> dict[str, Any]:
    summary = summarise(rows)
    if "mse" in summary and data_range is not None:
        import math

        mean = summary["mse"]["mean"]
        summary["psnr_of_mean_mse"] = 10 * math.log10(data_range**2 / mean) if mean > 0 else None
    return summary
