"""The autoencoder's training on `semnr.training`'s loop: its batches, its loss, and the judge of the held-out error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from ..base.random_streams import stream
from ..noise import NoiseModel
from ..training.loop import Averaged, Choosing
from ..training.scenes import specks
from .network import Autoencoder
from .normals import Tiles
from .recipe import Recipe
from .seen import denoised

Batch = dict[str, Tensor]
_BATCHES, _JUDGED, _COPIES = 81, 82, 84  # of the seed
_PARTS = ("seen", "target", "sigma", "weight")
_PASTED = (4, 20)  # px: sides of pieces of other tiles that are planted
_VISIBLE = 0.5  # of the noise: a pixel that a planted fault changes by more counts more in the loss
_LEAST_ERROR = 0.01  # of the held-out error that a better model must gain
_AFTER = 0.5  # share of `data.faults` that is planted after the denoiser, where copies have faults from before it
_BLOCK = 64  # px a side: the faults of a copy are drawn for each such block, as for a patch


@dataclass(frozen=True)
class Shown:
    """A normal tile in training: (H, W) that the network is to give back, and (copies, H, W) by which the copies with
    planted faults differ from it after the denoiser; float16, for they are kept for all tiles."""

    target: np.ndarray
    copies: np.ndarray


class Patches(IterableDataset[Batch]):
    """Endless; batch `step` of a seed is always the same one, so that a resumed run goes on where it stopped."""

    def __init__(
        self, recipe: Recipe, tiles: Sequence[Shown], noise: NoiseModel, top: float, scan_axis: int, start: int
    ) -> None:
        self.recipe, self.tiles, self.noise, self.top, self.start = recipe, tiles, noise, top, start
        self.scan_axis = scan_axis
        side = recipe.data.patch
        frequency = np.fft.rfftfreq(side)
        self.shape = np.sqrt(noise.spectrum(frequency)).astype(np.float32)  # of the noise along a line, at variance 1

    def __iter__(self) -> Iterator[Batch]:
        step = self.start
        while True:
            yield self.batch(stream(self.recipe.training.seed, _BATCHES, step))
            step += 1

    def batch(self, rng: np.random.Generator) -> Batch:
        data = self.recipe.data
        pairs = [self._patch(rng) for _ in range(data.batch)]
        target, change = (np.stack(parts).astype(np.float32) for parts in zip(*pairs, strict=True))
        sigma = self.noise.sigma(target).astype(np.float32)
        seen = self._with_faults(target, sigma, rng) + change
        faulty = np.abs(seen - target) > _VISIBLE * sigma
        if data.input == "tile" and data.target != "tile":
            seen = np.clip(seen, 0, self.top)
            white = rng.standard_normal(seen.shape, dtype=np.float32)
            lines = np.fft.irfft(np.fft.rfft(white) * self.shape, n=data.patch).astype(np.float32)
            lines = lines if self.scan_axis == -1 else lines.transpose(0, 2, 1)
            seen = seen + lines * self.noise.sigma(seen).astype(np.float32)
        seen = np.clip(seen, 0, self.top)
        weight = np.where(faulty, np.float32(1 + data.fault_weight), np.float32(1))
        arrays = {"seen": seen, "target": target, "sigma": sigma, "weight": weight}
        return {name: torch.from_numpy(value)[:, None] for name, value in arrays.items()}

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Of a random place: the target, and by how much a copy with faults differs from it (of the tile itself: 0)."""
        side, tile = self.recipe.data.patch, self.tiles[int(rng.integers(len(self.tiles)))]
        top, left = (int(rng.integers(0, n - side + 1)) for n in tile.target.shape)
        place = (slice(top, top + side), slice(left, left + side))
        target, change = tile.target[place], np.zeros((side, side), np.float16)
        if len(tile.copies) and (chosen := int(rng.integers(len(tile.copies) + 1))) < len(tile.copies):
            change = tile.copies[chosen][place]
        if self.recipe.data.turn:
            down, right = rng.choice([-1, 1]), rng.choice([-1, 1])
            target, change = target[::down, ::right], change[::down, ::right]
        return target, change

    def _with_faults(self, target: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Bumps of 2 to 9 px and pieces of other places, in a share of the patches; the others stay as they are."""
        n, side = target.shape[0], target.shape[-1]
        share = self.recipe.data.faults * (_AFTER if self.recipe.data.copies else 1.0)
        chosen = np.asarray(rng.random(n) < share)
        change, _ = specks(n, side, np.sqrt(np.mean(sigma**2, axis=(1, 2))), rng)
        seen = target + change * chosen[:, None, None]
        for at in np.flatnonzero(chosen & (rng.random(n) < 0.5)):
            height, width = (int(v) for v in rng.integers(*_PASTED, 2))
            other = self._patch(rng)[0]
            rows, columns, y, x = (int(rng.integers(0, side - extent)) for extent in (height, width, height, width))
            seen[at, y : y + height, x : x + width] = other[rows : rows + height, columns : columns + width]
        return seen.astype(np.float32)


class Reconstruction(Averaged):
    """The autoencoder and its loss, in units of the noise."""

    def __init__(
        self, recipe: Recipe, tiles: Sequence[Shown], noise: NoiseModel, top: float, scan_axis: int = -1
    ) -> None:
        torch.manual_seed(recipe.training.seed)
        levels = np.concatenate([tile.target.ravel() for tile in tiles])
        network = Autoencoder(recipe.model, float(levels.mean()), max(float(levels.std()), 1e-6 * top))
        super().__init__(network, recipe.training, recipe.training.steps)
        self.recipe, self.tiles, self.noise, self.top, self.scan_axis = recipe, tiles, noise, top, scan_axis

    def training_step(self, batch: Batch, index: int) -> Tensor:
        wrong = (self.network(batch["seen"]) - batch["target"]) / batch["sigma"]
        each = functional.smooth_l1_loss(wrong, torch.zeros_like(wrong), reduction="none")
        loss = (each * batch["weight"]).sum() / batch["weight"].sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        # the step is known by now, also of a resumed run
        made = Patches(self.recipe, self.tiles, self.noise, self.top, self.scan_axis, self.trainer.global_step)
        return DataLoader(made, batch_size=None)


class HeldOut(Choosing):
    """Compares the error of held-out tiles with that of training tiles, and keeps the weights of the least error.

    An error is that of a patch with planted faults: the mean square of reconstruction less target, in units of the
    noise and weighted as in the loss. 0 where the model takes every fault away and nothing else. The score is the
    held-out error with a minus; a model that does not gain enough on the best one is not eligible.
    """

    def __init__(self, recipe: Recipe, out: Path, batches: dict[str, list[Batch]], quiet: bool = True) -> None:
        wanted = recipe.validation
        super().__init__(out, every=wanted.every, steps=recipe.training.steps, patience=wanted.patience, quiet=quiet)
        self.batches = batches
        self.weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.weights = dict(state["weights"])

    def judged(self, module: Any, step: int, loss: float) -> tuple[dict[str, Any], bool]:
        network = module.averaged()
        errors = {f"{name}_error": float(self.errors(network, name).mean()) for name in self.batches}
        score = -errors["held_out_error"]
        gains = self.best is None or score > self.best * (1 - _LEAST_ERROR)
        return {"score": score, "eligible": gains, **errors}, False

    def save(self, network: Autoencoder, name: str, step: int) -> None:
        self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}

    def line(self, row: Mapping[str, Any]) -> str:
        told = f"held-out error {row['held_out_error']:.4g}, training error {row['training_error']:.4g}"
        return f"anomaly: step {row['step']}, {row['minutes']:.1f} min, {told}{': chosen' if row['chosen'] else ''}"

    def errors(self, network: Autoencoder, name: str) -> np.ndarray:
        """One error a patch."""
        rows = []
        with torch.inference_mode():
            for batch in self.batches[name]:
                seen, target, sigma, weight = (batch[k].to(network.centre.device) for k in _PARTS)
                wrong = ((network(seen) - target) / sigma).square() * weight
                rows.append(wrong.sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)))
        return torch.cat(rows).double().cpu().numpy()


def shown(tiles: Tiles, recipe: Recipe, noise: NoiseModel, scan_axis: int = -1) -> list[Shown]:
    """What the network learns from each tile."""
    model, count = recipe.data.target, recipe.data.copies if recipe.data.input == "denoised" else 0
    rng = stream(recipe.training.seed, _COPIES)
    made = []
    for image in tiles.images:
        target = image if model == "tile" else denoised(image, model, noise, tiles.data_range, scan_axis)
        copies = np.zeros((count, *image.shape), np.float16)
        for copy in copies:
            faulty = np.clip(image + _specks(target, noise, rng), 0, tiles.data_range).astype(np.float32)
            copy[:] = denoised(faulty, model, noise, tiles.data_range, scan_axis) - target
        made.append(Shown(target, copies))
    return made


def _specks(target: np.ndarray, noise: NoiseModel, rng: np.random.Generator) -> np.ndarray:
    """(H, W) of bumps all over a tile, as many a block as in a patch."""
    height, width = target.shape
    down, right = -(-height // _BLOCK), -(-width // _BLOCK)
    level = float(np.sqrt(np.mean(noise.variance(target))))
    change, _ = specks(down * right, _BLOCK, np.full(down * right, level), rng)
    whole = change.reshape(down, right, _BLOCK, _BLOCK).transpose(0, 2, 1, 3).reshape(down * _BLOCK, right * _BLOCK)
    top, left = (int(rng.integers(0, n)) for n in (down * _BLOCK - height + 1, right * _BLOCK - width + 1))
    return np.asarray(whole[top : top + height, left : left + width])


def fixed(recipe: Recipe, tiles: Sequence[Shown], noise: NoiseModel, top: float, scan_axis: int) -> list[Batch]:
    """The batches that every judgement is made on: as many patches as `validation.tiles`, always the same ones."""
    patches = Patches(recipe, tiles, noise, top, scan_axis, 0)
    count = -(-recipe.validation.tiles // recipe.data.batch)
    return [patches.batch(stream(recipe.training.seed, _JUDGED, k)) for k in range(count)]
