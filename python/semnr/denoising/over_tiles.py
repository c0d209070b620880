"""Tiles in, denoised tiles out. A tile cut from a mosaic gets its halo from the tiles around it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels._errors import TileError

from ..base.files import keeping, write_json
from ..base.jsonable import plain
from ..base.lock import only_writer
from ..base.outputs import apart, local
from ..base.progress import Progress
from ..base.threads import in_order, pool
from ..noise.model import MAX_WINDOWS, NoiseModel, array_windows, evenly, sample_windows
from ..tiles import Problem, TileKey, TileSource, TileWriter, create_tiles, open_tiles
from ..tiles.extent import extent_of
from ..tiles.planes import PlaneSource
from ..tiles.source import length_of, one_range
from ..tiles.writer import IdError
from .plan import Plan, Request
from .run import Denoised
from .tiled import Tile, cut


def denoise_source(
    src: Any,
    out: Path,
    asked: Request,
    side: int,
    workers: int,
    *,
    overwrite: bool,
    resume: bool,
    score: Mapping[str, Any] | None,
    frames: bool,
    root: str | Path | None,
    quiet: bool,
) -> Denoised:
    """See `semnr.denoise`."""
    from ..runs.run import clear_run, only_a_run
    from ..scoring import score as run_scores
    from ..scoring.prepare import inputs_of, ready
    from ..scoring.resume import may_write, metrics_before
    from .lazy import DenoisedSource, opened

    started = time.monotonic()
    source = opened(src, root, side, frames)
    apart("out", out, extent_of(source))
    role = input_role(source)
    asked, plan, keys = planned(source, asked)
    work = Work(source, role, asked, plan, side)
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
        counts={},
    )
    scoring = None
    if score is not None:  # mistakes show before anything is written over
        lazily = DenoisedSource(source, work, keys, asked.model.name)
        inputs = inputs_of(lazily, *(score.get(name) for name in ("reference", "noisy", "root", "noisy_2", "noisy_3")))
        scoring = {**score, "out": local("score out", score["out"])}
        for name, place in (("out", out), ("score out", scoring["out"])):
            apart(name, place, chain.from_iterable(extent_of(one) for one in inputs.sources()))
        apart("score out", scoring["out"], [(str(out), True)])
        before = None
        if overwrite:
            only_a_run(scoring["out"])
        else:
            may_write(scoring["out"], resume)
            before = metrics_before(scoring["out"])
        weights, backend, device = (score.get(name) for name in ("dists_weights", "backend", "device"))
        ready(inputs, score.get("metrics"), weights, backend, device or "cpu", before)
    total = length_of(source)
    fixed: dict[str, Any] = {"pixel_nm": source.pixel_nm, "data_range": asked.data_range}
    if isinstance(source, PlaneSource) and total:  # tiles of a mosaic differ: the largest sets the form of a stack
        fixed["shape"] = source.largest()
    with only_writer(out / "columns" if _is_zarr(out) else out, out):
        if resume:
            _same(out, summary)
        writer = create_tiles(out, count=total, overwrite=overwrite, resume=resume, **fixed)
        if scoring is not None and overwrite:
            clear_run(scoring["out"])
        with keeping(out, lambda: len(writer) > 0), writer:
            record = Record(out, writer)
            record.write(summary, "running")  # what a resumed run must ask for again
            kept, problems, run = 0, list(source.problems), None
            if scoring is None:
                kept = _write(writer, work, keys, problems, workers, total, quiet)
            else:
                kept = _kept(source, writer) if resume else 0
                lazily = DenoisedSource(source, work, keys, asked.model.name, writer)
                run = run_scores(lazily, resume=resume, workers=workers, quiet=quiet, **scoring)
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


def store(writer: TileWriter, key: TileKey, pixels: np.ndarray) -> None:
    """Write a denoised tile; what the form cannot hold is a TileError."""
    try:
        writer.write(key, pixels)
    except TypeError as error:  # another dtype than the tiles before
        raise TileError(key.tile, str(error), "error") from error
    except ValueError as error:  # an id that is no name; or larger than the tiles before, or RGB
        raise TileError(key.tile, str(error), "error" if isinstance(error, IdError) else "wrong_size") from error


def _kept(source: TileSource, writer: TileWriter) -> int:
    """How many tiles an earlier run has left: those that have their scores already are not read again."""
    if length_of(source) is None:
        raise ValueError(f"resume is True for {source.name}, which is read once; accepted: False with score")
    return sum(writer.keep(key) for key in source)


def input_role(source: TileSource) -> str:
    """What of a source is denoised."""
    return "noisy" if "noisy" in source.roles else "image"


def planned(source: TileSource, asked: Request) -> tuple[Request, Plan | None, Iterable[TileKey]]:
    """(request, plan, keys): what is estimated once for the whole source; without a plan each tile has its own."""
    if asked.data_range is None:
        asked = dataclasses.replace(asked, data_range=one_range([source]))
    if asked.noise == "image" and _is_cut(source):
        raise ValueError(
            f"noise is 'image', but {source.name} is a mosaic that is cut into tiles; accepted: 'run' or a NoiseModel"
        )
    keys, windows = _sample(source, input_role(source)) if asked.looks else (source, [])
    # with nothing to look at, each tile is on its own: all of them turn out to be problems, or nearly so
    plan = None if asked.noise == "image" or (asked.looks and not windows) else asked.plan(lambda: windows)
    return asked, plan, keys


@dataclasses.dataclass(frozen=True)
class Work:
    """Read and denoise one tile; what stops it is its Problem, and the run goes on."""

    source: TileSource
    role: str
    asked: Request
    plan: Plan | None  # None: one for each image
    side: int
    noted: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (tile, remark), of tiles with own plans

    def settings(self) -> dict[str, Any]:
        """All that a denoised pixel depends on beside the source, as plain data."""
        asked, plan = self.asked, self.plan
        noise = asked.noise if plan is None else plan.noise
        return {
            "model": asked.model.name,
            "weights": asked.model.checksum(),
            "params": plain(dict(asked.params)),
            "role": self.role,
            "vst": asked.vst if plan is None else plan.vst,
            "sigma": None if plan is None else plain(plan.sigma),
            "noise": noise.to_dict() if isinstance(noise, NoiseModel) else noise,
            "halo": asked.halo if plan is None else plan.runner.halo,
            "tile": self.side,
            "data_range": asked.data_range,
        }

    def remarks(self) -> tuple[str, ...]:
        """What the reader of the run should know of its input."""
        if self.plan is not None:
            return self.plan.remarks
        tiles = sorted({tile for tile, _ in self.noted})
        return (f"{len(tiles)} tile(s), the first one {tiles[0]}: {min(self.noted)[1]}",) if tiles else ()

    def __call__(self, key: TileKey) -> np.ndarray | Problem:
        try:
            return self._from_mosaic(key) if _is_cut(self.source) else self._whole(key)
        except TileError as error:
            return Problem(key.tile, getattr(error, "status", "unreadable"), error.reason)
        except ValueError as error:  # non-finite pixels, or too small to take its noise from
            return Problem(key.tile, "error", str(error))

    def _whole(self, key: TileKey) -> np.ndarray:
        x = self.source.read(key, self.role)
        shape = (x.shape[-2], x.shape[-1])
        plan = self.plan or self.asked.plan(lambda: array_windows(x))
        if self.plan is None:
            self.noted.extend((key.tile, remark) for remark in plan.remarks)
        result = np.empty_like(x)
        for tile in cut(shape, self.side):
            result[..., tile.top : tile.bottom, tile.left : tile.right] = plan.runner.tile(
                lambda rows, columns: x[..., rows, columns], shape, tile, f"tile {key.tile}"
            )
        return result

    def _from_mosaic(self, key: TileKey) -> np.ndarray:
        source, plan = self.source, self.plan or self.asked.plan(list)
        assert isinstance(source, PlaneSource)  # by _is_cut
        at, rows, columns = source.place(key)
        tile = Tile(rows.start, rows.stop, columns.start, columns.stop)
        return plan.runner.tile(
            lambda rows, columns: source.window(key.tile, at, rows, columns),
            source.sizes()[at],
            tile,
            f"tile {key.tile} or its halo",
        )


def _is_cut(source: TileSource) -> bool:
    """Whether its tiles are parts of larger planes, which can be read across their borders."""
    return isinstance(source, PlaneSource) and source.is_cut


def _sample(source: TileSource, role: str) -> tuple[Iterable[TileKey], list[np.ndarray]]:
    """The keys to go through, and windows to estimate from: readable ones, spread over the source."""
    windows: list[np.ndarray] = []

    def look(key: TileKey) -> None:
        try:
            pixels = source.read(key, role)
        except TileError:
            return  # counted and listed when its turn comes
        x = pixels if pixels.ndim == 2 else pixels[0]
        windows.extend(window for window in array_windows(x, limit=1) if np.isfinite(window).all())

    if isinstance(source, PlaneSource) and _is_cut(source):

        def window(plane: int, rows: slice, columns: slice) -> np.ndarray:
            try:
                pixels = source.window("sample", plane, rows, columns)
            except TileError:
                return np.empty((0, 0))
            return pixels if pixels.ndim == 2 else pixels[0]

        found = sample_windows(source.sizes(), window)
        return source, [pixels for pixels in found if pixels.size and np.isfinite(pixels).all()]
    total = length_of(source)
    if total is None:  # a stream is read once: its first tiles stand for it
        keys = iter(source)
        head = list(islice(keys, MAX_WINDOWS))
        for key in head:
            look(key)
        return chain(head, keys), windows
    chosen = set(evenly(total)) if total else set()
    for place, key in enumerate(source):
        if place in chosen:
            look(key)
    if not windows:  # none of the chosen could be read: any other one will do
        for key in source:
            look(key)
            if windows:
                break
    return source, windows


# what a pixel depends on: recorded before the first tile, and the same for all of a run
_SETTINGS = (
    *("source", "origin", "model", "weights", "params", "role", "data_range", "vst", "sigma", "noise", "halo", "tile"),
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
        found = json.loads(path.read_text(encoding="utf-8"))
        found = found["attributes"].get("denoised") if _is_zarr(out) else found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); accepted: overwrite in place of resume") from error
    return found if isinstance(found, dict) and "model" in found else None


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
    """Keeps what was done with the tiles."""

    def __init__(self, out: Path, writer: TileWriter) -> None:
        self._out = out
        self._path = None if _is_zarr(out) else writer.claim("run.json")

    def write(self, summary: Denoised, state: str) -> None:
        record = plain({**summary.to_dict(), "state": state})
        if self._path is not None:
            write_json(self._path, record)
            return
        import zarr

        zarr.open_group(str(self._out), mode="r+").attrs["denoised"] = record
