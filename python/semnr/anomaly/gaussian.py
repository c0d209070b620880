"""PaDiM (Defard et al. 2021, doi 10.1007/978-3-030-68799-1_35): a Gaussian of the features at each place of the tile.

It knows what is normal *at each place*, so all tiles must have one size and show the same design at the same place, as
the same site of each die does. The score is the largest Mahalanobis distance over the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..noise import NoiseModel
from .features import Extractor
from .measured import Measured, all_finite

_REGULARISED = 0.01  # added to the diagonal, as in the paper
_AT_ONCE = 16  # places whose covariance is factorised together
_BLOCKS = 6  # arrays of that many (d, d) matrices that are alive at once


class Gaussians:
    """Means (places, d) and whitening matrices (places, d, d) on the grid of tiles of one shape."""

    score_name, map_name = "mahalanobis", "anomaly"

    def __init__(self, extractor: Extractor, shape: tuple[int, int], mean: Tensor, whitening: Tensor) -> None:
        self.extractor, self.shape, self.mean, self.whitening = extractor, shape, mean, whitening

    @staticmethod
    def memory(extractor: Extractor, shape: tuple[int, ...]) -> dict[str, int]:
        """Bytes that a fit needs, by what they are for."""
        places, d = int(np.prod(extractor.grid(shape))), extractor.dims
        return {
            "backbone and a batch": extractor.working_bytes(shape, 1),
            "sums": places * d * (d + 1) * 8,
            "factors": _BLOCKS * min(places, _AT_ONCE) * d * d * 8,
            "result": places * d * (d + 1) * 4,
        }

    @classmethod
    def fit(cls, extractor: Extractor, shape: tuple[int, int], tiles: Iterable[np.ndarray]) -> Gaussians:
        """From a stream of (H, W) tiles, each read once."""
        places, d = int(np.prod(extractor.grid(shape))), extractor.dims
        total = torch.zeros(places, d, dtype=torch.float64)
        products = torch.zeros(places, d, d, dtype=torch.float64)
        count = 0
        for tile in tiles:
            vector = next(extractor.batches(tile[None]))[0]
            for at in range(0, places, _AT_ONCE):  # in place: a second array of products would double the memory
                part = vector[at : at + _AT_ONCE].double()
                products[at : at + _AT_ONCE].baddbmm_(part[:, :, None], part[:, None, :])
                total[at : at + _AT_ONCE] += part
            count += 1
        mean = total / count
        whitening = torch.empty(places, d, d, dtype=torch.float32)
        eye = _REGULARISED * torch.eye(d, dtype=torch.float64)
        for at in range(0, places, _AT_ONCE):
            centre = mean[at : at + _AT_ONCE]
            spread = products[at : at + _AT_ONCE]  # in place: these sums are not needed again
            spread.baddbmm_(centre[:, :, None], centre[:, None, :], alpha=-count).div_(max(1, count - 1)).add_(eye)
            factor = torch.linalg.cholesky(spread)
            whitening[at : at + _AT_ONCE] = torch.linalg.solve_triangular(
                factor, torch.eye(d, dtype=torch.float64).expand_as(factor), upper=False
            ).float()
        return cls(extractor, shape, mean.float(), whitening)

    @classmethod
    def of(cls, facts: Mapping[str, Any], state: Mapping[str, Tensor], noise: NoiseModel) -> Gaussians:
        extractor = Extractor.of(facts, state["chosen"], noise)
        height, width = (int(n) for n in facts["shape"])
        places, d = int(np.prod(extractor.grid((height, width)))), extractor.dims
        for name, shape in (("mean", (places, d)), ("whitening", (places, d, d))):
            if tuple(state[name].shape) != shape or not all_finite(state[name]):
                raise ValueError(f"{name} is of shape {tuple(state[name].shape)} or not finite; accepted: {shape}")
        return cls(extractor, (height, width), state["mean"], state["whitening"])

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "whitening": self.whitening, "chosen": self.extractor.chosen}

    def facts(self) -> dict[str, Any]:
        return {"kind": "padim", "score": self.score_name, "shape": list(self.shape), **self.extractor.facts()}

    def measure(self, images: np.ndarray, with_map: bool = False) -> Measured:
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"tile is {images.shape[1]} x {images.shape[2]} px; accepted by this model: {self.shape[0]} x "
                f"{self.shape[1]}, as it knows what is normal at each place"
            )
        rows = []
        for vectors in self.extractor.batches(images):
            away = (vectors - self.mean).transpose(0, 1)  # (places, n, d)
            rows.append(torch.bmm(away, self.whitening.transpose(1, 2)).norm(dim=2).transpose(0, 1))
        distances = torch.cat(rows)
        shown = self.extractor.map_of(distances, self.shape) if with_map else None
        return Measured({"anomaly_score": distances.amax(dim=1).double().numpy()}, {}, shown)
