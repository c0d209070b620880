"""Denoises tiles of a source. A tile that is cut from a mosaic gets its halo from the tiles around it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from semnr_kernels.errors import TileError

from ..base.files import keeping, write_json
from ..base.jsonable import plain
from ..base.lock import only_writer
from ..base.outputs import apart
from ..base.progress import Progress
from ..base.threads import in_order, pool
from ..runs import Run
from ..tiles import Problem, TileKey, TileSource, TileWriter, create_tiles, open_tiles
from ..tiles.extent import extent_of
from ..tiles.planes import PlaneSource
from ..tiles.source import length_of
from ..tiles.write_image import SUFFIXES as ONE_FILE
from ..tiles.write_image import ImageWriter, may_be_one_file
from .lazy import DenoisedSource, opened
from .part import Part
from .plan import Request
from .result import Denoised
from .work import Work, input_role, planned, store


class Scores(Protocol):
    """Scores that are taken while the tiles are denoised; `semnr.pipeline` has them."""

    @property
    def device(self) -> Any:
        """The one device that tiles are scored on; None: the processor, or several."""

    def prepare(self, source: TileSource, out: Path, *, overwrite: bool, resume: bool) -> None:
        """Raise what is wrong before anything is written."""

    def clear(self) -> None:
        """Delete the scores of an earlier run."""

    def run(self, source: TileSource, *, resume: bool, workers: int, quiet: bool) -> Run:
        """Read every tile of `source` and score it."""


def denoise_source(
    src: Any,
    out: Path,
    asked: Request,
    side: int,
    workers: int,
    *,
    overwrite: bool,
    resume: bool,
    scores: Scores | None,
    frames: bool,
    crop: Any,
    mask: Any,
    root: str | Path | None,
    quiet: bool,
) -> Denoised:
    """See `semnr.denoise`."""
    started = time.monotonic()
    source = opened(src, root, side, frames)
    apart("out", out, extent_of(source))
    role = input_role(source)
    part = None if crop is None and mask is None else Part(source, role, crop, mask)
    asked, plan, keys = planned(source, asked, part)
    work = Work(source, role, asked, plan, side, part)
    summary = Denoised(
        out=str(out),
        source=source.name,
        origin=origin_of(source, src, out),
        model=asked.model.name,
        weights=asked.model.checksum(),
        params=dict(asked.params),
        role=role,
        data_range=asked.data_range,
        vst=None if plan is None else plan.vst,
        sigma=None if plan is None else plan.sigma,
        noise=None if plan is None else plan.noise,
        halo=None if plan is None else plan.runner.halo,
        tile=side,
        exact_tiling=asked.model.exact_tiling,
        crop=None if part is None else part.crop,
        mask=None if part is None else part.mask,
        counts={},
    )
    if scores is not None:  # mistakes show before anything is written over
        scores.prepare(DenoisedSource(source, work, keys, asked.model.name), out, overwrite=overwrite, resume=resume)
    total = length_of(source)
    fixed: dict[str, Any] = {"pixel_nm": source.pixel_nm, "data_range": asked.data_range}
    if isinstance(source, PlaneSource) and total:  # tiles of a mosaic differ: the largest sets the form of a stack
        fixed["shape"] = source.largest()
    alone = out.suffix.lower() in ONE_FILE
    if alone:
        may_be_one_file(out, source, resume)
    with contextlib.nullcontext() if alone else only_writer(out / "columns" if _is_zarr(out) else out, out):
        if resume:
            _same(out, summary)
        if isinstance(source, PlaneSource) and alone:
            made_by = json.dumps(plain(summary.to_dict()))
            writer: TileWriter = ImageWriter(out, source, overwrite=overwrite, made_by=made_by)
        else:
            if not _is_zarr(out):
                fixed["instrument"] = lambda key: source.instrument(key, role)
            writer = create_tiles(out, count=total, overwrite=overwrite, resume=resume, **fixed)
        if scores is not None and overwrite:
            scores.clear()
        with keeping(out, lambda: len(writer) > 0 and not alone), writer:
            record = Record(out, None if alone else writer)
            record.write(summary, "running")  # what a resumed run must ask for again
            kept, problems, run = 0, list(source.problems), None
            if scores is None:
                kept = _write(writer, work, keys, problems, workers, total, quiet)
            else:
                kept = _kept(source, writer) if resume else 0
                staying = dataclasses.replace(work, device=scores.device)
                lazily = DenoisedSource(source, staying, keys, asked.model.name, writer)
                run = scores.run(lazily, resume=resume, workers=workers, quiet=quiet)
                problems += lazily.failed
            done = len(writer)
        counts = {"tiles": done + len(problems), "ok": done, **Counter(problem.status for problem in problems)}
        summary = dataclasses.replace(
            summary, counts=counts, problems=tuple(problems), seconds=round(time.monotonic() - started, 3),
            remarks=work.remarks(), kept=kept, run=run,
        )  # fmt: skip
        record.write(summary, "finished")
    return summary


def _write(
    writer: TileWriter,
    work: Work,
    keys: Iterable[TileKey],
    problems: list[Problem],
    workers: int,
    total: int | None,
    quiet: bool,
) -> int:
    """How many tiles were kept of an earlier run."""
    kept = 0

    def wanted() -> Iterator[TileKey]:
        nonlocal kept
        for key in keys:
            if writer.keep(key):
                kept += 1
                progress.advance(1, 0)
            else:
                yield key

    with pool(workers, "denoise") as executor, Progress("denoise", total, quiet=quiet) as progress:
        for key, result in in_order(executor, work, wanted(), 2 * workers):
            progress.advance(1, 0 if isinstance(result, Problem) else result.size)
            if isinstance(result, Problem):
                problems.append(result)
                continue
            try:
                store(writer, key, result)
            except TileError as error:
                problems.append(Problem(key.tile, error.status, error.reason))
    return kept


def _kept(source: TileSource, writer: TileWriter) -> int:
    """How many tiles an earlier run has left: those that have their scores already are not read again."""
    if length_of(source) is None:
        raise ValueError(f"resume is True for {source.name}, which is read once; accepted: False with score")
    return sum(writer.keep(key) for key in source)


# what a pixel depends on: recorded before the first tile, and the same for all of a run
_SETTINGS = (
    *("source", "origin", "model", "weights", "params", "role", "data_range", "vst", "sigma", "noise", "halo", "tile"),
    *("crop", "mask"),
)


def origin_of(source: TileSource, given: Any, out: Path) -> str:
    """Which source it is: where it lies, seen from `out` so that both can move together, or what its first tile holds.

    A base name says too little: two lots may have a wafer.zarr each.
    """
    if isinstance(given, str | os.PathLike) and "://" in str(given):
        return str(given)
    if isinstance(given, str | os.PathLike):
        try:
            return Path(os.path.relpath(os.path.realpath(given), os.path.realpath(out))).as_posix()
        except ValueError:  # another drive
            return os.path.realpath(given)
    first = None if length_of(source) is None else next(iter(source), None)
    if first is None:
        return source.name
    try:
        pixels = source.read(first, input_role(source))
    except TileError:
        return source.name
    return f"{first.tile} {pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


def _same(out: Path, summary: Denoised) -> None:
    """Refuse to go on with a run of other settings, or with tiles that no run of ours says how it made."""
    before = _recorded(out)
    if before is None:
        if _holds_tiles(out):
            raise ValueError(
                f"out is {out}, whose tiles no denoise run has a record of; accepted with resume: what an interrupted "
                "run left"
            )
        return
    now = plain(summary.to_dict())
    for name in _SETTINGS:
        if name in before and before[name] != now[name]:
            raise ValueError(
                f"{name} is {now[name]!r}, but {out} was begun with {before[name]!r}; accepted: the same, "
                "or overwrite in place of resume"
            )


def _is_zarr(out: Path) -> bool:
    return out.suffix.lower() == ".zarr"


def _recorded(out: Path) -> dict[str, Any] | None:
    """What a run says of itself: run.json of a folder, the attribute "denoised" of a tile stack."""
    path = out / ("zarr.json" if _is_zarr(out) else "run.json")
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record = record["attributes"].get("denoised") if _is_zarr(out) else record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); accepted: overwrite in place of resume") from error
    return record if isinstance(record, dict) and "model" in record else None


def _holds_tiles(out: Path) -> bool:
    """Whether there is any tile of an earlier run."""
    if not out.is_dir():
        return False
    try:
        source = open_tiles(out)
        return any(True for _ in source)
    except (ValueError, FileNotFoundError):
        return False


class Record:
    """Keeps what was done with the tiles; one file (no writer) has it in a tag of its own."""

    def __init__(self, out: Path, writer: TileWriter | None) -> None:
        self._out = out
        self._in_the_file = writer is None
        self._path = None if writer is None or _is_zarr(out) else writer.claim("run.json")

    def write(self, summary: Denoised, state: str) -> None:
        if self._in_the_file:
            return
        record = plain({**summary.to_dict(), "state": state})
        if self._path is not None:
            write_json(self._path, record)
            return
        import zarr

        zarr.open_group(str(self._out), mode="r+").attrs["denoised"] = record
