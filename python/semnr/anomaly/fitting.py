"""Fit a model to normal tiles: an autoencoder by `semnr.training`'s loop, or a feature model in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..base.outputs import apart, local
from ..base.progress import Progress
from ..denoising.models import find
from ..noise.model import check_scan_axis
from ..tiles import Problem, TileSource, open_tiles
from ..tiles.extent import extent_of
from .backbones import load_backbone
from .coreset import Nearest
from .features import Extractor, in_words
from .gaussian import Gaussians
from .model import FACTS, KINDS, AnomalyModel, save
from .normals import digest, grey, left_out, read_tiles, usable
from .seen import DENOISER

_NOISE_TILES = 16  # that a feature model's noise law is taken from


def fit(
    source: Any,
    out: str | Path,
    *,
    kind: str = "autoencoder",
    data_range: float | None = None,
    recipe: str | Path | Mapping[str, Any] = "small",
    changes: Mapping[str, Any] | None = None,
    backbone: str = "efficientnet-lite0",
    weights: str | Path | None = None,
    denoiser: str | None = DENOISER,
    dims: int = 80,
    coreset: int = 1000,
    score: str = "scan",
    statistics: tuple[str, ...] = ("scan", "mse", "mae", "ssim", "fsim"),
    scan_axis: int = -1,
    seed: int = 0,
    resume: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> AnomalyModel:
    """Fit a model to normal tiles.

    Parameters
    ----------
    source : anything that `semnr.open_tiles` takes
        Normal tiles, sides of at least 32 px. Role "noisy" is read where there is one, else "image". Tiles that cannot
        be read are left out and counted.
    out : str or Path
        Folder of the model: new, empty, or that of the run that `resume` goes on with.
    kind : {"autoencoder", "padim", "patchcore"}
        "autoencoder" (default): tiles against their reconstruction, in units of the noise. "padim": a Gaussian of
        ImageNet features at each place; all tiles of one size. "patchcore": distance to the nearest normal feature.
    data_range : float, optional
        Width of the intensity scale. Default: the source's own, or that of an integer dtype.
    recipe : str, path or mapping
        Of the autoencoder: "small", "toy", a .toml file, or its content.
    changes : mapping, optional
        Single entries of the recipe that differ, such as {"training.steps": 3000}.
    backbone : {"efficientnet-lite0", "vgg16", "alexnet"}
        Of a feature model.
    weights : path, optional
        File of the backbone's weights. Default: those that are installed, see `semnr.weights`.
    denoiser : str or None
        Of a feature model: the model of `semnr.denoise` that tiles pass through first. None: features of the tiles as
        they were recorded, which are mostly those of the noise. Of an autoencoder see "data.target" of the recipe.
    dims : int
        Channels of the backbone that are used, drawn by `seed`.
    coreset : int
        Of "patchcore": how many vectors are kept.
    score : {"scan", "mse", "mae", "ssim", "fsim", "dists", "lpips"}
        Of the autoencoder: which statistic is `anomaly_score`. "scan" (default) is the strongest place of the
        residual's scan, z.
    statistics : sequence of str
        Of the autoencoder: which statistics are columns. "dists" and "lpips" need their weights.
    scan_axis : {-1, -2}
        Along which axis the beam scans: -1 where scan lines are rows.
    seed : int
        Of everything random. Of an autoencoder, "training.seed" of `changes` goes first.
    resume : bool
        Go on with the autoencoder's training from the last checkpoint in `out`.
    quiet : bool
        No progress on stderr.
    say : callable
        Takes a line of text at a time: memory before a fit starts, and what was found.

    Returns
    -------
    AnomalyModel

    Raises
    ------
    ImportError
        An autoencoder without Lightning (`pip install 'semnr[train]'`).
    ValueError, TypeError, FileExistsError, FileNotFoundError
        The argument, what it was, what is accepted.
    WeightsUnavailable
        The backbone has no weights, or a file is none.

    Examples
    --------
    >>> model = semnr.anomaly.fit("normal.zarr", "model", changes={"training.minutes": 5})  # doctest: +SKIP
    >>> print(model.facts["generalisation"]["statement"])  # doctest: +SKIP
    no overfitting seen: the error is 0.031 on new tiles against 0.028 on the training tiles
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; accepted: {', '.join(map(repr, KINDS))}")
    check_scan_axis(scan_axis)
    folder = local("out", out)
    opened = source if isinstance(source, TileSource) else open_tiles(source)
    apart("out", folder, extent_of(opened))
    if kind == "autoencoder":
        try:
            import lightning  # noqa: F401
        except ImportError as error:
            raise ImportError("fitting an autoencoder needs Lightning: pip install 'semnr[train]'") from error
        from .training import train  # needs that extra

        return train(
            opened, folder, data_range=data_range, recipe=recipe, changes={"training.seed": seed, **(changes or {})},
            score=score, statistics=tuple(statistics), scan_axis=scan_axis, resume=resume, quiet=quiet, say=say,
        )  # fmt: skip
    if resume:
        raise ValueError(f"resume is True with kind {kind!r}, which is fitted in one pass; accepted: False")
    _new(folder)
    if denoiser is not None:
        try:
            find(denoiser)
        except ValueError as error:
            raise ValueError(f"denoiser: {error}, or None") from None
    return _features(
        opened, folder, kind, data_range, backbone, weights, denoiser, scan_axis, dims, coreset, seed, quiet, say
    )


def _new(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        what = "a model" if (folder / FACTS).is_file() else "other files"
        raise FileExistsError(f"out is {folder}, which holds {what}; accepted: a new or empty folder")


def _features(
    source: TileSource, folder: Path, kind: str, data_range: float | None, backbone: str, weights: Any,
    denoiser: str | None, scan_axis: int, dims: int, size: int, seed: int, quiet: bool, say: Callable[[str], None],
) -> AnomalyModel:  # fmt: skip
    first = _First(source, data_range)
    law = read_tiles("source", first.sample(_NOISE_TILES), data_range=first.top)
    noise = law.noise(scan_axis)
    extractor = Extractor.make(load_backbone(backbone, weights), first.top, dims, seed, denoiser, noise, scan_axis)
    shape = first.shape
    parts = (
        Gaussians.memory(extractor, shape) if kind == "padim" else Nearest.memory(extractor, shape, size)
    )  # printed before anything is allocated
    say(in_words(parts))
    with Progress("anomaly fit", None, quiet=quiet) as progress:
        tiles = first.stream(progress, one_shape=kind == "padim")
        engine: Any = Gaussians.fit(extractor, shape, tiles) if kind == "padim" else None
        engine = engine or Nearest.fit(extractor, size, seed, tiles)
    facts = {
        "data_range": first.top,
        "dtype": first.dtype,
        "noise": asdict(noise),
        "tiles": {"used": len(first.digests), "left_out": len(first.problems)},
        "problems": [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in first.problems[:100]],
        "memory": parts,
        "seed": seed,
        "source": source.name,
        "fitted_on": first.digests,
    }
    for line in left_out(first.problems):
        say(line)
    return save(folder, engine, facts)


class _First:
    """A source whose first usable tile decides size, dtype and range; it is read twice and never held whole."""

    def __init__(self, source: TileSource, data_range: float | None) -> None:
        self.source, self.problems = source, list(source.problems)
        self.digests: list[str] = []
        for _, got in usable("source", source, data_range):
            if not isinstance(got, Problem):
                pixels, self.top = got
                self.shape: tuple[int, int] = (int(pixels.shape[-2]), int(pixels.shape[-1]))
                self.dtype = pixels.dtype.name
                return
        why = f"; first {self.problems[0].tile}: {self.problems[0].reason}" if self.problems else ""
        raise ValueError(f"source has no tile that can be used{why}; accepted: finite grey tiles of 32 px and more")

    def sample(self, limit: int) -> np.ndarray:
        """(n, H, W) of the first tiles of this shape, in their dtype."""
        images = []
        for _, got in usable("source", self.source, self.top):
            if not isinstance(got, Problem) and got[0].shape[-2:] == self.shape:
                images.append(grey(got[0]))
            if len(images) == limit:
                break
        if len(images) < 2:
            raise ValueError(f"source has {len(images)} tiles that can be used; accepted: at least 2")
        return np.stack(images)

    def stream(self, progress: Progress, one_shape: bool) -> Iterator[np.ndarray]:
        for key, got in usable("source", self.source, self.top):
            progress.advance(1, self.shape[0] * self.shape[1])
            if isinstance(got, Problem):
                self.problems.append(got)
            elif one_shape and got[0].shape[-2:] != self.shape:
                size = "x".join(map(str, got[0].shape[-2:]))
                self.problems.append(Problem(key.tile, "wrong_size", f"tile is {size} px, the first one {self.shape}"))
            else:
                image = grey(got[0])
                self.digests.append(digest(image))
                yield image
