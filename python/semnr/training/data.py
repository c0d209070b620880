"""Batches to train on: of the generator, or of the user's tiles. Batch `step` of a seed is always the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from semnr_kernels.errors import TileError

from ..base.random_streams import stream
from ..denoising.learned import law
from ..noise.model import MAX_WINDOWS, NoiseModel, array_windows, evenly, fit_noise
from ..tiles import open_tiles
from . import scenes as scene_kinds
from .clusters import add_clusters
from .config import Recipe
from .noise import Tools, charged, told

Batch = dict[str, Tensor]
_BATCHES = 72  # of the seed


class Batches(IterableDataset[Batch]):
    """Endless; starts at a step, so that a resumed run goes on where it stopped."""

    def __init__(self, recipe: Recipe, start: int = 0, rank: int = 0, source: Any = None) -> None:
        self.recipe, self.start, self.rank = recipe, start, rank
        self.make = Synthetic(recipe) if recipe.data.mode == "synthetic" else FromTiles(recipe, source)

    def __iter__(self) -> Iterator[Batch]:
        step = self.start
        while True:
            yield self.make(stream(self.recipe.training.seed, _BATCHES, self.rank, step))
            step += 1


class Synthetic:
    """Scenes kept in memory as float16, cut, turned, changed in contrast, and recorded anew each time."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        scenes, seed = recipe.scenes, recipe.training.seed
        self.scenes = np.empty((scenes.count, scenes.side, scenes.side), np.float16)
        for i in range(scenes.count):
            self.scenes[i] = scene_kinds.scene(seed, i, scenes.side, scenes.shares, scenes.roughness)

    def __call__(self, rng: np.random.Generator) -> Batch:
        data, family = self.recipe.data, self.recipe.noise
        n, side = data.batch, data.patch
        clean = np.empty((n, 1, side, side), np.float32)
        for k in range(n):
            image = self.scenes[rng.integers(len(self.scenes))]
            top, left = rng.integers(0, image.shape[0] - side + 1, 2)
            patch = _turned(image[top : top + side, left : left + side], rng).astype(np.float32)
            if rng.random() < 0.5:  # contrast, which the recording's own gain does not change against its noise
                patch = 0.5 + (patch - 0.5) * rng.uniform(0.2, 1.0) * rng.choice([1, 1, 1, -1])
            clean[k, 0] = patch
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        scene = torch.from_numpy(clean)
        scenes, blank = self.recipe.scenes, np.ptp(clean, axis=(1, 2, 3)) == 0
        if scenes.charging:
            scene = charged(scene, family, generator)
        tools = Tools.draw(n, family, generator)
        templates = torch.zeros(n, 1, side, side)
        if scenes.specks:
            sigma = (tools.sigma() / tools.gain).flatten().numpy()
            change, shapes = scene_kinds.specks(n, side, sigma, rng)
            if scenes.specks_on_blank < 1:
                without = blank & (rng.random(n) >= scenes.specks_on_blank)
                change[without] = shapes[without] = 0
            # what the clipping of the range leaves of a defect is what can be asked of it
            with_specks = (scene + torch.from_numpy(change)[:, None]).clamp(0, 1)
            kept = (with_specks - scene).abs().amax(dim=(1, 2, 3)) > 0.9 * torch.from_numpy(np.abs(change).max((1, 2)))
            templates = torch.from_numpy(shapes) * kept.reshape(-1, 1, 1, 1) * tools.gain
            scene = with_specks
        noisy, target = tools.noisy(scene, generator), tools.recorded(scene)
        if scenes.clusters:
            clustered = blank & (rng.random(n) < scenes.clusters)
            for image in map(int, np.flatnonzero(clustered)):
                noisy[image] = add_clusters(noisy[image], target[image], tools, image, rng)
        darkest = target.flatten(1).quantile(0.02, dim=1).reshape(-1, 1, 1, 1)
        return {
            "noisy": noisy,
            "target": target,
            "law": told(tools.law(darkest), family, generator),
            "sigma": tools.sigma(),
            "specks": templates,
        }


class FromTiles:
    """The tiles of a source, kept in memory (float32, on 0..1), with the noise law of the run."""

    def __init__(self, recipe: Recipe, source: Any) -> None:
        self.recipe = recipe
        self.train, self.held_out, self.noise = read_tiles(recipe, source)

    def __call__(self, rng: np.random.Generator) -> Batch:
        data = self.recipe.data
        chosen = []
        for _ in range(data.batch):
            images = self.train[int(rng.integers(len(self.train)))]
            top, left = (int(rng.integers(0, n - data.patch + 1)) for n in images.shape[-2:])
            cut = images[:, top : top + data.patch, left : left + data.patch]
            flip = (slice(None), slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1])))
            chosen.append(cut[flip])  # never turned: the noise runs along the lines
        pixels = torch.from_numpy(np.ascontiguousarray(np.stack(chosen)))
        noisy = pixels[:, :1].clone()
        centre = float(pixels.median())
        rows = torch.tensor([law(self.noise, centre)], dtype=torch.float32).repeat(len(noisy), 1)
        batch = {"noisy": noisy, "law": rows, "sigma": torch.full((len(noisy), 1, 1, 1), float(self.noise.sigma()))}
        if data.mode == "blind_spot":
            hidden, where = hide(noisy, data.hidden, data.strip, rng)
            return {**batch, "target": noisy, "noisy": hidden, "where": where}
        return {**batch, "target": pixels[:, 1:2].clone()}


def hide(noisy: Tensor, share: float, strip: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blind spots for noise that correlates along the line: (input, bool of the hidden pixels).

    A hidden pixel and `strip` px to both sides of it take the values of the line two above or below, so that neither
    it nor a neighbour that shares its noise is seen (Broaddus et al., doi 10.1109/ISBIWorkshops50223.2020.9153336).
    """
    n, _, height, width = noisy.shape
    count = max(1, int(share * height * width))
    image = np.repeat(np.arange(n), count)
    row, col = rng.integers(0, height, n * count), rng.integers(0, width, n * count)
    other = np.where(rng.random(n * count) < 0.5, row - 2, row + 2)
    other = np.where((other < 0) | (other >= height), 2 * row - other, other)
    where = torch.zeros(noisy.shape, dtype=torch.bool)
    where[image, 0, row, col] = True
    hidden = noisy.clone()
    for k in range(-strip, strip + 1):
        at = np.clip(col + k, 0, width - 1)
        hidden[image, 0, row, at] = noisy[image, 0, other, at]
    return hidden, where


def read_tiles(recipe: Recipe, source: Any = None) -> tuple[list[np.ndarray], list[np.ndarray], NoiseModel]:
    """(training, held out, noise): images (1 or 2, H, W) float32 on 0..1, the last ones held out."""
    data = recipe.data
    opened = open_tiles(data.source if source is None else source)
    first = "noisy" if "noisy" in opened.roles else "image"
    second = {"supervised": "reference", "noise2noise": "noisy_2", "blind_spot": None}[data.mode]
    if second is not None and second not in opened.roles:
        raise ValueError(
            f"data.source has the roles {', '.join(opened.roles)}; mode {data.mode!r} needs {first!r} and {second!r}"
        )
    images, top = [], data.data_range or opened.data_range
    for key in opened:
        try:
            pair = [opened.read(key, role) for role in (first, second) if role is not None]
        except TileError:
            continue
        if top is None:
            top = float(np.iinfo(pair[0].dtype).max) if pair[0].dtype.kind == "u" else None
        if top is None:
            raise ValueError("data.data_range is not given and the tiles are floating; accepted: the range's upper end")
        planes = np.stack([np.asarray(x if x.ndim == 2 else x[0], np.float32) for x in pair])
        if not np.isfinite(planes).all() or min(planes.shape[-2:]) < data.patch:
            continue
        images.append(planes / np.float32(top))
    if len(images) < 2:
        raise ValueError(
            f"data.source has {len(images)} tiles that can be used; accepted: at least 2, finite, of {data.patch} px"
        )
    kept = max(1, round(data.held_out * len(images)))
    train, held_out = images[:-kept], images[-kept:]
    return train, held_out, _noise(train)


def _noise(images: Sequence[np.ndarray]) -> NoiseModel:
    windows = [w for i in evenly(len(images), MAX_WINDOWS) for w in array_windows(images[i][0], limit=1)]
    return fit_noise(windows, data_range=1.0, name="data.source")


def _turned(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    patch = patch[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    return patch.T if rng.random() < 0.5 else patch
