"""From tiles to feature vectors on a grid, and the memory that a fit on them needs, known before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from semnr_kernels.errors import WeightsUnavailable

from ..base.random_streams import stream
from ..noise import NoiseModel
from .backbones import Backbone, load_backbone
from .seen import seen

GRID = 4  # px between two places of the grid
BATCH = 4  # tiles that pass through the backbone together
_CHANNELS = 82  # of the seed


class Extractor:
    """Tiles (N, H, W) to vectors (N, places, d): the maps of a backbone, averaged over 3 × 3, on one grid.

    Tiles pass through a denoiser first, unless `denoiser` is None: the features of a recorded tile are mostly those of
    its noise.

    `chosen` are the channels that are used; of many channels a seeded choice carries nearly all of what they tell
    (Defard et al. 2021).
    """

    def __init__(
        self, backbone: Backbone, top: float, chosen: Tensor, denoiser: str | None, noise: NoiseModel,
        scan_axis: int = -1,
    ) -> None:  # fmt: skip
        self.backbone, self.top, self.chosen = backbone, top, chosen
        self.denoiser, self.noise, self.scan_axis = denoiser, noise, scan_axis

    @classmethod
    def make(
        cls, backbone: Backbone, top: float, dims: int, seed: int, denoiser: str | None, noise: NoiseModel,
        scan_axis: int = -1,
    ) -> Extractor:  # fmt: skip
        """With `dims` channels drawn by a seed, all of them where there are no more."""
        total = sum(backbone.channels)
        if isinstance(dims, bool) or not isinstance(dims, int) or dims < 1:
            raise ValueError(f"dims is {dims!r}; accepted: an integer of at least 1")
        picked = np.sort(stream(seed, _CHANNELS).permutation(total)[:dims])
        return cls(backbone, top, torch.from_numpy(picked.astype(np.int64)), denoiser, noise, scan_axis)

    @classmethod
    def of(cls, facts: Mapping[str, Any], chosen: Tensor, noise: NoiseModel) -> Extractor:
        """As a model's file has it: with the backbone's weights where they lay then, or where they are installed."""
        problem = ""
        for place in (facts["backbone_source"], None):
            try:
                backbone = load_backbone(facts["backbone"], place)
            except WeightsUnavailable as error:
                problem = str(error)
                continue
            if backbone.sha256 == facts["backbone_sha256"]:
                top, scan_axis = float(facts["data_range"]), int(facts["scan_axis"])
                return cls(backbone, top, chosen, facts["denoiser"], noise, scan_axis)
            problem = (
                f"backbone {backbone.name} at {backbone.source} has SHA-256 {backbone.sha256[:16]}..., the model was "
                f"fitted on {facts['backbone_sha256'][:16]}...: its features would not compare"
            )
        raise WeightsUnavailable(problem)

    def facts(self) -> dict[str, Any]:
        backbone = self.backbone
        return {
            "backbone": backbone.name,
            "backbone_sha256": backbone.sha256,
            "backbone_source": backbone.source,
            "grid": GRID,
            "denoiser": self.denoiser,
            "scan_axis": self.scan_axis,
        }

    @property
    def dims(self) -> int:
        return len(self.chosen)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Places down and across."""
        height, width = shape
        return -(-height // GRID), -(-width // GRID)

    def batches(self, images: np.ndarray) -> Iterator[Tensor]:
        """(n, places, d) float32, a few tiles at a time."""
        for at in range(0, len(images), BATCH):
            part = images[at : at + BATCH]
            yield self(torch.from_numpy(seen(part, self.denoiser, self.noise, self.top, self.scan_axis)))

    def __call__(self, tiles: Tensor) -> Tensor:
        """Vectors of tiles that are denoised already."""
        down, across = self.grid(tuple(tiles.shape[-2:]))
        with torch.inference_mode():
            maps = self.backbone.maps(tiles[:, None] / self.top)
            parts, first = [], 0
            for made in maps:
                here = self.chosen[(self.chosen >= first) & (self.chosen < first + made.shape[1])] - first
                first += made.shape[1]
                if not len(here):
                    continue
                mean = functional.avg_pool2d(made[:, here], 3, 1, 1, count_include_pad=False)
                parts.append(functional.interpolate(mean, size=(down, across), mode="bilinear", align_corners=False))
            return torch.cat(parts, dim=1).flatten(2).transpose(1, 2).contiguous()

    def map_of(self, distances: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """(N, places) as maps of the tiles' size."""
        grid = distances.reshape(len(distances), 1, *self.grid(shape))
        made = functional.interpolate(grid, size=shape, mode="bilinear", align_corners=False)
        return np.asarray(made[:, 0].numpy(), np.float32)

    def working_bytes(self, shape: tuple[int, ...], tiles: int) -> int:
        """The backbone and what passes through it: its weights, its widest place, and the vectors of a batch."""
        pixels = tiles * int(np.prod(shape))
        vectors = tiles * int(np.prod(self.grid(shape))) * self.dims * 4
        return self.backbone.weight_bytes + 4 * self.backbone.widest * pixels + 3 * vectors


def in_words(parts: Mapping[str, int]) -> str:
    """Predicted memory as one line."""
    told = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in parts.items())
    return f"memory: {sum(parts.values()) / 2**20:.1f} MiB ({told})"
