"""Score a stream of tiles: every tile's profile in Parquet, the run's settings and counts in run.json."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from .._files import keeping, write_json
from .._progress import Progress
from ..tiles import open_tiles
from ..tiles._source import TileKey, TileSource, length_of
from . import _prepare as prepare
from . import _summaries as summaries
from ._ids import TileIds
from ._maps import MapSink, maps_of
from ._prepare import METRICS
from ._run import Run, machine
from ._sink import ParquetSink, part_files, parts

__all__ = ["METRICS", "Run", "score"]


def score(
    src: Any,
    *,
    reference: Any = None,
    noisy: Any = None,
    noisy_2: Any = None,
    noisy_3: Any = None,
    out: Any,
    metrics: Sequence[str] = METRICS,
    data_range: float | None = None,
    label: str | None = None,
    fsim_downsample: int | str = "auto",
    dists_weights: Any = None,
    dists_resize: str | None = None,
    dists_every: int = 1,
    nan: str = "error",
    tests: bool = True,
    metrology: str | None = None,
    scan_axis: int = -1,
    rules: Any = None,
    allow_unknown: Iterable[str] | str = (),
    alarms: Any = None,
    wafer: Any = None,
    maps: Sequence[str] = (),
    resume: bool = True,
    workers: int = 2,
    scheduler: str | None = None,
    memory_budget: int | str = "2GiB",
    root: Any = None,
    device: Any = "cpu",
    backend: str | None = "auto",
    follow: bool = False,
    quiet: bool = True,
) -> Run:
    """Score every tile of `src` against its reference and write `out/tiles/part-*.parquet` and `out/run.json`.

    Memory is set by `memory_budget`, not by the number of tiles. The rows are the same whatever the workers, the
    batches or the scheduler.

    Parameters
    ----------
    src
        What `semnr.open_tiles` takes. A plan with a `candidate` column is scored on it, else on `path`.
    reference
        Another source, paired by tile id; None: the `reference` of `src` itself.
    noisy
        The noisy input, another source or None for the `noisy` of `src`: adds fixed-noise CNR, contrast
        retention, evidence transfer and, with `tests`, the residual tests and what changed beside noise.
    noisy_2, noisy_3
        Where there is no reference: one or two more noisy frames of each site, other sources or the roles of `src`.
        The metrics then give way to what frames can tell, see `semnr.without_reference`: columns `psnr_estimated`,
        `mse_estimated`, `contrast_retention_estimated`, `structure_estimated`, their standard errors (`_se`),
        `transfer` against the second frame, and `frames_problem` where frames are not registered or not independent.
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
    tests
        Where the noisy input is known: columns `residual_variance`, `residual_spectrum`, `residual_structure_z`,
        `removed_z`, `removed_count`, `invented_z`, `invented_count` and `evidence_boxes` of `semnr.residual_tests`,
        and `gain_change`, `shift_x_px`, `overshoot`, ... They cost some 0.3 s a tile of 512² and core, more than the
        metrics but DISTS; False leaves them out.
    metrology
        "lines" or "holes": also measure CD and roughness of each tile (`cd_px`, `lwr_change_px`, ...).
    scan_axis
        Along which axis the beam scans, for the noise: -1 (default) where scan lines are rows, or -2.
    rules, allow_unknown
        Guard rules (what `semnr.guard` takes) to hold the run against as a single candidate: the verdict is
        `Run.verdict` and verdict.json. Rules that compare with a released denoiser are `unknown` here.
    alarms
        Alarm rules on the stream, a TOML file or a mapping: bounds debounced by die, wafer, lot or cluster, and
        drift of a lot by EWMA. What sounds is appended to `out/alarms.jsonl` at once.
    wafer : semnr.wafers.Wafer, optional
        Layout of the wafer: rows get what is missing of die index, in-die and absolute coordinates, and
        `Run.by_place` gives reticle fields and rings. A KLARF source knows its own.
    maps
        Of "ssim", "cnr", "evidence" (z of the residual's scan: above 0 where structure was removed, below where it was
        invented) and "image" (the candidate's pixels, for a source that denoises as it is read): also write them to
        `out/maps.zarr`, an array (tiles, h, w) each. Not with a scheduler.
    resume
        Continue the run in `out` when its settings are the same; ValueError names what differs. False: `out`
        must hold no run.
    workers
        Threads that read tiles, in each process.
    scheduler
        None: this process. "local:N": N processes on this machine. "tcp://host:8786": an existing
        dask.distributed scheduler, whose workers can open the same sources. This process alone writes.
    memory_budget
        Bytes, or "2GiB": bounds the tiles held at once, in each process.
    device
        "cpu", "cuda", "cuda:N" or "auto": where tiles are scored. Batches travel to a GPU through pinned buffers on
        a stream of their own. *Never ran on a GPU.*
    follow
        Print throughput and latency by stage (read, decode, compute, write) while the run goes on.

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
    source = open_tiles(src, root=root)
    inputs = prepare.inputs_of(source, reference, noisy, root, noisy_2, noisy_3)
    scale = prepare.scale_of(data_range) or source.data_range
    layout = prepare.layout_of(wafer, source)

    from semnr_kernels._registry import recording

    from ._alarms import Alarms, read_alarms
    from ._cluster import Cluster, Spec, cluster, workers_of
    from ._device import Upload, device_of
    from ._engine import Engine
    from ._scorer import Scorer

    alarm_rules, map_names = read_alarms(alarms), maps_of(maps)
    prepare.maps_can_be(map_names, inputs)
    trust = prepare.trust_of(tests, metrology, scan_axis)
    if scheduler is not None:
        if map_names:
            raise ValueError(
                f"maps is {list(map_names)} with scheduler={scheduler!r}; accepted: maps in one process only"
            )
        workers_of(scheduler)
        prepare.can_travel(inputs, scheduler)
    scorer = Scorer(wanted, scale, fsim_downsample, dists_weights, dists_resize, dists_every, nan, backend, trust)
    scorer.pixel_nm = source.pixel_nm
    if (target := device_of(device)) is not None and scheduler is not None:
        raise ValueError(f"device is {device!r} with scheduler={scheduler!r}; accepted: 'cpu' with a scheduler")
    upload = None if target is None else Upload(target)
    engine = Engine(inputs, scorer, workers, budget, layout, upload)
    folder = Path(out)
    whence = {
        s: prepare.whence(s, given, folder)
        for s, given in ((source, src), *inputs.given(reference, noisy, noisy_2, noisy_3))
    }
    settings: dict[str, Any] = {
        "source": whence[source],
        **{name: place and whence[place[0]] for name, place in inputs.named().items()},
        "metrics": list(wanted),
        "data_range": scale,
        "fsim_downsample": fsim_downsample,
        "dists": {"weights": _weights_name(dists_weights), "resize": dists_resize, "every": dists_every},
        "nan": nan,
        **trust.to_dict(),
    }
    before, done = prepare.begin(folder, settings, resume)
    with ExitStack() as stack:
        stack.enter_context(keeping(folder, lambda: bool(part_files(folder))))
        used = stack.enter_context(recording())
        runner: Any = engine
        if scheduler is not None:
            client, share = stack.enter_context(cluster(scheduler))
            engine.decide(key for key in source if key.tile not in done)
            runner = Cluster(client, Spec(inputs, scorer, workers, budget, share, layout), engine, used)
        folder.mkdir(parents=True, exist_ok=True)
        sink = ParquetSink(folder)
        stack.callback(sink.flush)  # whatever stops the run, the rows that are known are kept
        if map_names:
            scorer.maps = MapSink(folder, map_names)
        watch = Alarms(folder, alarm_rules, resumed=bool(before))
        watch.replay(parts(folder))
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
            "wafer": None if layout is None else layout.to_dict(),
            "machine": machine(),
        }
        write_json(folder / "run.json", info)
        total, stages = length_of(source), engine.stages if follow else None
        with Progress("score", total, quiet=quiet, stages=stages) as progress:
            progress.tiles = len(done)
            for pixels, rows in _rows(source, inputs, runner, done):
                with engine.stages.stage("write"):
                    for row in rows:
                        if source.repeats(row["tile"]):
                            sink.forget(row["tile"])
                        sink.add(row)
                        watch.watch(row)
                progress.advance(len(rows), pixels)
    sources = list({id(place[0]): place[0] for place in (inputs.candidate, *inputs.others.values())}.values())
    if scorer.maps is not None:
        scorer.maps.trim(summaries.last_index(folder) + 1)
    info.update(
        state="finished",
        settings={**settings, "data_range": scorer.scale_used, "fsim_downsample": scorer.fsim_downsample},
        backends={**before.get("backends", {}), **used},
        weights=scorer.weights or before.get("weights", {}),
        counts=summaries.counts(folder),
        problems=summaries.problems(folder),
        remarks=[remark for place in sources for remark in place.remarks],
        unjudged=[what for place in sources for what in place.unjudged],
        summary=summaries.summary(folder, scorer.scale_used),
        alarms=len(watch.raised),
        stages=engine.stages.table(),
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


def _rows(source: TileSource, inputs: Any, runner: Any, done: TileIds) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(pixels, rows): the source's own problems, its tiles, then those that only the reference has."""
    from ._engine import problem_row
    from ._scorer import unscored

    early = source.problems
    yield 0, [problem_row(problem) for problem in early if problem.tile not in done]
    other = inputs.witness[0]
    seen = TileIds() if other is not source else None

    def keys() -> Iterator[TileKey]:
        for key in source:
            if seen is not None:
                seen.add(key.tile)
            if key.tile not in done:
                yield key

    yield from runner.run(keys())
    late = [problem for problem in source.problems if problem not in early]
    yield 0, [problem_row(problem) for problem in late if problem.tile not in done]
    if seen is None:
        return
    for key in other:
        if key.tile not in seen and key.tile not in done:
            yield 0, unscored([key], "missing", f"{source.name} has no tile {key.tile}, {other.name} has")


def _label(source: TileSource, src: Any) -> str:
    return Path(str(src)).stem if isinstance(src, str | Path) else source.name


def _weights_name(weights: Any) -> str | None:
    return weights if weights is None or isinstance(weights, str) else type(weights).__name__
