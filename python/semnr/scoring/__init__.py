"""Score a stream of tiles: every tile's profile in Parquet, the run's settings and counts in run.json."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semnr_kernels.registry import recording

from .. import __version__
from ..base.files import keeping, write_json
from ..base.lock import only_writer
from ..base.machine import cores
from ..base.outputs import apart, local
from ..base.progress import Progress
from ..columns import metadata_name
from ..guarding import DEFAULT_RULES, alone, guard
from ..runs import summaries as summaries
from ..runs.parquet import ParquetSink, drop_unscored, part_files, parts
from ..runs.run import Run, machine
from ..runs.seen_ids import TileIds
from ..runs.verdict import NAME as VERDICT
from ..tiles import open_tiles
from ..tiles.extent import extent_of
from ..tiles.source import Problem, TileKey, TileSource, length_of, one_range
from . import prepare as prepare
from .alarms import Alarms, read_alarms
from .device import Upload, devices_of
from .engine import Engine, problem_row
from .maps import MapSink, maps_of
from .on_cluster import Cluster, Spec, cluster, workers_of
from .prepare import METRICS
from .resume import begin, identity, may_write, metrics_before, same_first_tile, set_aside_verdict
from .scorer import Scorer, unscored
from .several import Several
from .stream import held

__all__ = ["METRICS", "Run", "score"]
_REGISTERED = (
    "each reference was laid onto its noisy image (affine map, gain, offset); 12 px at the border are left out"
)
SAID = 5  # renamed columns that the terminal lists; run.json has all


def score(
    src: Any,
    *,
    reference: Any = None,
    noisy: Any = None,
    noisy_2: Any = None,
    noisy_3: Any = None,
    match: str | Sequence[str] | None = None,
    crop: str | Sequence[int] | None = None,
    mask: Any = None,
    out: Any,
    metrics: Sequence[str] | None = None,
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
    strict: bool | None = None,
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
    by: str = "score",
    remarks: Iterable[str] = (),
    register: bool = False,
) -> Run:
    """Score every tile of `src` against its reference and write `out/tiles/part-*.parquet` and `out/run.json`.

    Memory is set by `memory_budget`, not by the number of tiles. The rows are the same whatever the workers, the
    batches or the scheduler.

    Parameters
    ----------
    src
        What `semnr.open_tiles` takes. A plan with a `candidate` column is scored on it, else on `path`.
    reference
        Another source, paired with `src` by the names of its images (see `match`); None: the `reference` of `src`
        itself.
    noisy
        The noisy input, another source or None for the `noisy` of `src`: adds fixed-noise CNR, contrast
        retention, evidence transfer and, with `tests`, the residual tests and what changed beside noise. Without a
        reference and further frames it is all there is: no metric is scored, the rules that need no more are judged.
    noisy_2, noisy_3
        Where there is no reference: one or two more noisy frames of each site, other sources or the roles of `src`.
        The metrics then give way to what frames can tell, see `semnr.without_reference`: columns `psnr_estimated`,
        `mse_estimated`, `contrast_retention_estimated`, `structure_estimated`, their standard errors (`_se`),
        `transfer` against the second frame, and `frames_problem` where frames are not registered or not independent.
    match
        How names of other sources belong to names of `src`, where they are neither the same nor differ by a text that
        is the same for all (which is found by itself): "{name}_noisy.tif={name}_dn.tif". See `semnr.tiles.pairs.pair`.
    crop
        What counts of each image, the same of both images of a pair: "auto" leaves out the data bar that the microscope
        burnt in, by tags where they say it (FEI/Thermo Fisher, Tescan), else by pixels; `Run.remarks` say what was cut
        and how that is known, and where it is unsure the image stays whole. Or (left, top, right, bottom) in pixels,
        right and bottom excluded. None: whole images.
    mask
        An image (a path or an array) that is 0 where pixels do not count, of the size of the images. Integers are then
        scored as float32, and `nan` is "omit".
    out
        Folder of the run.
    metrics
        Of "psnr", "ssim", "fsim", "dists", "cnr", "lpips". None: the first five, but DISTS only where its weights are
        in the cache; where they are not, `Run.remarks` says how to have it. LPIPS (AlexNet) needs the published ones.
    data_range
        Width of the intensity scale of the whole run; required for floating tiles, the sources' or the dtype's
        otherwise. Sources or rows of a plan that name several are refused without it.
    label : str, optional
        Name of the candidate in tables. Default: the name of the source.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: the tile is a row with the reason, its score is NaN, or they are masked.
    fsim_downsample
        "auto": the factor of the first tile, kept for the whole run, since factors do not compare.
    dists_weights, dists_resize
        As `weights` and `resize` of `semnr.dists`.
    dists_every
        DISTS on every n-th tile only; the run says how many.
    tests
        Where the noisy input is known: columns `residual_variance`, `residual_spectrum`, `residual_structure_z`,
        `removed_z`, `removed_count`, `invented_z`, `invented_count` and `evidence_boxes` of `semnr.residual_tests`,
        and `transfer_bound`, `gain_change`, `shift_x_px`, `overshoot`, ... They cost more than the metrics but DISTS
        (docs/performance.md); False leaves them out.
    metrology
        "lines" or "holes": also measure CD and roughness of each tile (`cd_px`, `lwr_change_px`, ...).
    scan_axis
        Along which axis the beam scans, for the noise: -1 (default) where scan lines are rows, or -2.
    rules, allow_unknown
        Guard rules (what `semnr.guard` takes) to hold the run against as a single candidate: the verdict is
        `Run.verdict` and verdict.json. Rules that compare with a released denoiser are `unknown` here. None: no
        verdict, but where the noisy input is all there is, that of the built-in rules on one candidate.
    strict
        Whether a required rule without evidence makes the run incomplete (exit code 3). None: where rules are given.
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
        Continue the run in `out` when everything that its numbers depend on is the same: settings, sources, denoiser
        and its weights, layout; ValueError names what differs. Tiles that could not be scored are tried again. False:
        `out` must hold no run.
    workers
        Threads that read tiles, in each process.
    scheduler
        None: this process. "local:N": N processes on this machine. "tcp://host:8786": an existing
        dask.distributed scheduler, whose workers can open the same sources. This process alone writes.
    memory_budget
        Bytes, or "2GiB": bounds the tiles held at once, in each process. A tile that takes more than an eighth of it
        (and more than 1 MiB), reference and noisy input included, is a row with the reason; the others are scored.
    device
        "cpu", "cuda", "cuda:N" or "auto": where tiles are scored. Batches travel to a GPU through pinned buffers on
        a stream of their own. Several, as "cuda:0,cuda:1" or a list: a process for each; rows and their order are those
        of one device. A script then needs `if __name__ == "__main__":`, as the processes import it. *Never ran on a
        GPU.*
    backend : str
        Backend of the metrics: "auto", or a name of `semnr.backends()`.
    root : path, optional
        Folder that the paths of a plan may lie in, besides the plan's own.
    quiet : bool
        No progress on stderr.
    follow
        Print throughput and latency by stage (read, decode, compute, evidence, write) while the run goes on, and which
        stage limits it.
    register
        Lay each reference onto the noisy image of its tile first, by an affine map; scores are then taken without the
        border of 12 px, with gain and offset of the candidate fitted to the reference by least squares.
    by, remarks
        The command that makes the run, and what it has to say of it, for run.json.

    Returns
    -------
    Run
        `.exit_code` is 1 when a rule fired, else 3 when tiles were missing, duplicate, unreadable or wrongly
        sized: they are rows with a status and a reason, counted and listed; the rest is scored. Columns of a plan are
        kept in the rows; one that has the name of a result becomes `plan_NAME`.

    Raises
    ------
    TypeError, ValueError
        Bad arguments, or another process that writes to `out`, before anything is written.
    BackendUnavailable, WeightsUnavailable
        The backend that was named cannot run here, or DISTS is asked for and has no weights: before anything is
        written.
    OSError
        The disk is full or read-only: rows already written are kept.

    Examples
    --------
    >>> run = semnr.score(denoised, reference=clean, noisy=noisy, out="scores", metrics=("psnr", "ssim"), tests=False)
    >>> run.counts, run.exit_code
    ({'tiles': 1, 'ok': 1}, 0)
    >>> print(f"{run.summary['psnr']['mean']:.1f} dB, T {run.summary['transfer']['mean']:.2f}")
    30.7 dB, T 0.78
    """
    prepare.metrics_of(metrics)
    prepare.count_of("dists_every", dists_every)
    prepare.count_of("workers", workers)
    prepare.factor_of(fsim_downsample)
    budget = prepare.bytes_of(memory_budget)
    source = open_tiles(src, root=root)
    inputs = prepare.inputs_of(source, reference, noisy, root, noisy_2, noisy_3, match, crop, mask)
    source = inputs.candidate[0]
    nan = "omit" if mask is not None and nan == "error" else nan
    scale = prepare.scale_of(data_range) or one_range(inputs.sources()) or prepare.scale_of_masked(inputs)
    layout = prepare.layout_of(wafer, source)

    alarm_rules, map_names = read_alarms(alarms), maps_of(maps)
    prepare.maps_can_be(map_names, inputs)
    trust = prepare.trust_of(tests, metrology, scan_axis)
    targets = devices_of(device)
    target = targets[0]
    if scheduler is not None or len(targets) > 1:
        argument = f"device={device!r}" if scheduler is None else f"scheduler={scheduler!r}"
        if map_names:
            raise ValueError(f"maps is {list(map_names)} with {argument}; accepted: maps in one process only")
        if scheduler is not None:
            workers_of(scheduler)
        prepare.can_travel(inputs, argument)
    if target is not None and scheduler is not None:
        raise ValueError(f"device is {device!r} with scheduler={scheduler!r}; accepted: 'cpu' with a scheduler")
    folder = local("out", out)
    apart("out", folder, (place for one in inputs.sources() for place in extent_of(one)))
    may_write(folder, resume)
    wanted, dists, left_out = prepare.ready(inputs, metrics, dists_weights, backend, target, metrics_before(folder))
    scorer = Scorer(wanted, scale, fsim_downsample, dists_weights, dists_resize, dists_every, nan, backend, trust)
    scorer.pixel_nm, scorer.computes = source.pixel_nm, inputs.computes
    scorer.register = register and inputs.reference is not None
    upload = None if target is None else Upload(target)
    engine = Engine(inputs, scorer, workers, budget, layout, upload)
    settings: dict[str, Any] = {
        **_with_registration(identity(inputs, layout, folder), scorer.register),
        "metrics": list(wanted),
        "data_range": scale,
        "fsim_downsample": fsim_downsample,
        "dists": {"weights": _weights_name(dists_weights), "resize": dists_resize, "every": dists_every, **dists},
        "nan": nan,
        **trust.to_dict(),
        "tests": tests or "evidence" in map_names,
    }
    with ExitStack() as stack:
        stack.enter_context(only_writer(folder))
        before = begin(folder, settings, resume)
        used = stack.enter_context(recording())
        total = length_of(source)
        if before.decided is not None:
            same_first_tile(inputs, before.decided, folder)
            scorer.go_on(before.decided)
        elif total is not None:
            engine.decide(source)
        used.clear()  # a rehearsal is not the run
        runner: Any = engine
        if scheduler is not None:
            client, share = stack.enter_context(cluster(scheduler))
            runner = Cluster(client, Spec(inputs, scorer, workers, budget, share, layout), engine, used)
        if len(targets) > 1:
            share = max(1, cores() // len(targets))
            runner = Several(targets, Spec(inputs, scorer, workers, budget, share, layout), engine, used)
        started = time.monotonic()
        info: dict[str, Any] = {
            "semnr": __version__,
            "by": by,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "label": label or _label(source, src),
            "state": "running",
            "source": settings["source"],
            "reference": settings["reference"],
            "requested": settings,  # what a resumed run must ask for again
            "decided": None,  # by the first tile: what a resumed run keeps
            "settings": settings,  # what was used, once it is known
            "wafer": settings["wafer"],
            "machine": machine(target),
            "backends": before.info.get("backends", {}),
            "weights": before.info.get("weights", {}),
        }

        def note_what_was_decided() -> None:
            if (found := scorer.decided) is not None and info["decided"] is None:
                info["decided"] = found
                info["settings"] = {**settings, **{k: found[k] for k in ("data_range", "fsim_downsample")}}
                write_json(folder / "run.json", info)

        stack.enter_context(keeping(folder, lambda: bool(part_files(folder))))
        write_json(folder / "run.json", info)
        note_what_was_decided()
        drop_unscored(folder)
        sink = ParquetSink(folder)
        stack.callback(sink.flush)  # whatever stops the run, the rows that are known are kept
        if map_names:
            scorer.maps = MapSink(folder, map_names)
        watch = Alarms(folder, alarm_rules, resumed=bool(before.info))
        watch.replay(parts(folder))
        for table in parts(folder, ["tile", "index"]) if before.info else ():
            source.number(zip(*(table.column(name).to_pylist() for name in ("tile", "index")), strict=True))
        tally = Tally()
        with Progress("score", total, quiet=quiet, stages=engine.stages if follow else None) as progress:
            progress.tiles = len(before.done)
            for pixels, rows in _rows(source, inputs, runner, before.done, tally):
                note_what_was_decided()  # before any row that depends on it
                with engine.stages.stage("write"):
                    for row in rows:
                        if source.repeats(row["tile"]):
                            sink.forget(row["tile"])
                        sink.add(row)
                        watch.watch(row)
                progress.advance(len(rows), pixels)
        sink.flush()
        if scorer.maps is not None:
            scorer.maps.trim(summaries.last_index(folder) + 1)
        sources = inputs.sources()
        counts, alike = summaries.counts(folder), summaries.identical(folder)
        wrong = tally.wrong(counts, total is not None)
        info.update(
            state="incomplete" if wrong else "finished",
            backends={**info["backends"], **used},
            weights={**info["weights"], **scorer.weights},
            counts=counts,
            identical=alike,
            renamed=tally.renamed,
            remarks=[
                *(remark for place in sources for remark in place.remarks),
                *inputs.remarks,
                *(() if inputs.frame is None else inputs.frame.remarks),
                *(*remarks, *left_out, *scorer.remarks, *tally.remarks(), *([_REGISTERED] if scorer.register else [])),
                *(*summaries.remarks(alike, counts["ok"]), *([wrong] if wrong else [])),
            ],
            unjudged=[
                *(what for place in sources for what in place.unjudged),
                *watch.unjudged(sink.schema.arrow().names),
            ],
            problems=summaries.problems(folder),
            summary=summaries.summary(folder, scorer.scale_used),
            alarms=len(watch.raised),
            stages=engine.stages.table(),
            seconds=round(time.monotonic() - started, 3),
        )
        if "dists" in wanted:
            info["settings"]["dists"] = {
                "calibrated": None,  # where there is no reference it does not run
                **settings["dists"],
                "sample": None if dists_every == 1 else info["summary"].get("dists", {}).get("n", 0),
            }
        write_json(folder / "run.json", info)
        if before.info and counts != before.info.get("counts"):
            set_aside_verdict(folder)
    run = Run(folder, info, images=held(inputs))
    if rules is None and not inputs.alone:
        return run
    verdict = guard(
        None,
        run.profile(),
        rules=alone(DEFAULT_RULES) if rules is None else rules,
        allow_unknown=allow_unknown,
        strict=rules is not None if strict is None else strict,
    )
    write_json(folder / VERDICT, verdict.to_dict())
    return replace(run, verdict=verdict)


@dataclass
class Tally:
    """What a run must have rows of, counted while its tiles are gone through."""

    tiles: int = 0
    renamed: dict[str, str] = field(default_factory=dict)

    def add(self, key: TileKey) -> None:
        self.tiles += 1
        self.renamed.update((n, metadata_name(str(n))) for n in key.meta if metadata_name(str(n)) != n)

    def wrong(self, counts: dict[str, int], known: bool) -> str | None:
        """Where rows and tiles do not agree; of a source that is not known to its end, only if rows are lacking."""
        if counts["tiles"] == self.tiles or (not known and counts["tiles"] > self.tiles):
            return None
        return f"the run has {counts['tiles']} rows for {self.tiles} tiles: it is not complete"

    def remarks(self) -> list[str]:
        if not self.renamed:
            return []
        said = [f"{name} as {new}" for name, new in sorted(self.renamed.items())]
        more = f" and {len(said) - SAID} more, see `renamed` in run.json" if len(said) > SAID else ""
        return [
            f"{len(said)} columns of the plan have names of results and are kept as metadata: "
            f"{', '.join(said[:SAID])}{more}"
        ]


def _rows(
    source: TileSource, inputs: Any, runner: Any, done: TileIds, tally: Tally
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(pixels, rows): the source's own problems, its tiles, then those that only the reference has."""
    early = source.problems
    yield 0, [problem_row(problem) for problem in early]
    other = inputs.witness[0]
    seen = TileIds() if other is not source else None

    def keys() -> Iterator[TileKey]:
        for key in source:
            if not source.repeats(key.tile):
                tally.add(key)
            if seen is not None:
                seen.add(key.tile)
            if key.tile not in done:
                yield key

    yield from runner.run(keys())
    late = [problem for problem in source.problems if problem not in early]
    if seen is None:
        role = inputs.witness[1]
        late += [Problem(tile, "missing", f"{source.name} has it as {role} only") for tile in source.only_in(role)]
    yield 0, [problem_row(problem) for problem in late]
    tally.tiles += len(early) + len(late)
    if seen is None:
        return
    for key in other:
        if key.tile not in seen:
            tally.add(key)
            if key.tile in done:
                continue
            yield 0, unscored([key], "missing", f"{source.name} has no tile {key.tile}, {other.name} has")


def _with_registration(known: dict[str, Any], registered: bool) -> dict[str, Any]:
    """A run whose references were laid onto the noisy images is not gone on with by one whose were not."""
    if registered:
        known["made"]["reference"] = {**known["made"]["reference"], "registered": True}
    return known


def _label(source: TileSource, src: Any) -> str:
    return Path(str(src)).stem if isinstance(src, str | Path) else source.name


def _weights_name(weights: Any) -> str | None:
    return weights if weights is None or isinstance(weights, str) else type(weights).__name__
