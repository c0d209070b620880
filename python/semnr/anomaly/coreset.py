"""PatchCore (Roth et al. 2022, doi 10.1109/CVPR52688.2022.01392): distance to the nearest of the normal features.

It knows what is normal *anywhere* in a tile, so tiles need not show the same place. A bank of stated size is kept: a
greedy coreset (the farthest point next) of a sample that a stream of tiles leaves. The score is the largest distance
over the places of a tile; the reweighting by neighbours of the paper is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.random_streams import stream
from ..noise import NoiseModel
from .features import Extractor
from .measured import Measured, all_finite

POOL = 20  # vectors of the sample for each one of the bank
_SAMPLE = 83  # of the seed
_ROWS = 1024  # places whose distances are taken together


class Nearest:
    """A bank (size, d) of normal vectors."""

    score_name, map_name = "distance", "anomaly"

    def __init__(self, extractor: Extractor, bank: Tensor) -> None:
        self.extractor, self.bank = extractor, bank

    @staticmethod
    def memory(extractor: Extractor, shape: tuple[int, ...], size: int) -> dict[str, int]:
        """Bytes that a fit needs, by what they are for."""
        return {
            "backbone and a batch": extractor.working_bytes(shape, 1),
            "sample": POOL * size * extractor.dims * 4,
            "bank and distances": size * extractor.dims * 4 + 3 * POOL * size * 4,
        }

    @classmethod
    def fit(cls, extractor: Extractor, size: int, seed: int, tiles: Iterable[np.ndarray]) -> Nearest:
        """From a stream of (H, W) tiles, each read once: every vector has the same chance to be in the sample."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"coreset is {size!r}; accepted: an integer of at least 1")
        rng = stream(seed, _SAMPLE)
        pool = torch.empty(POOL * size, extractor.dims)
        held = seen = 0
        for tile in tiles:
            vectors = next(extractor.batches(tile[None]))[0]
            fill = min(len(vectors), len(pool) - held)
            pool[held : held + fill] = vectors[:fill]
            held += fill
            seen += fill
            rest = vectors[fill:]
            if len(rest):  # reservoir sampling
                places = rng.integers(0, seen + 1 + np.arange(len(rest)))
                kept = np.flatnonzero(places < len(pool))
                pool[torch.from_numpy(places[kept])] = rest[torch.from_numpy(kept)]
                seen += len(rest)
        return cls(extractor, _farthest(pool[:held], min(size, held), int(rng.integers(held))))

    @classmethod
    def of(cls, facts: Mapping[str, Any], state: Mapping[str, Tensor], noise: NoiseModel) -> Nearest:
        extractor, bank = Extractor.of(facts, state["chosen"], noise), state["bank"]
        if bank.ndim != 2 or bank.shape[1] != extractor.dims or not all_finite(bank):
            raise ValueError(f"bank is of shape {tuple(bank.shape)} or not finite; accepted: (size, {extractor.dims})")
        return cls(extractor, bank)

    def tensors(self) -> dict[str, Tensor]:
        return {"bank": self.bank, "chosen": self.extractor.chosen}

    def facts(self) -> dict[str, Any]:
        return {"kind": "patchcore", "score": self.score_name, "coreset": len(self.bank), **self.extractor.facts()}

    def measure(self, images: np.ndarray, with_map: bool = False) -> Measured:
        rows = []
        for vectors in self.extractor.batches(images):
            flat = vectors.flatten(0, 1)
            nearest = torch.cat([torch.cdist(part, self.bank).amin(dim=1) for part in flat.split(_ROWS)])
            rows.append(nearest.reshape(vectors.shape[:2]))
        distances = torch.cat(rows)
        shape = tuple(int(n) for n in images.shape[1:])
        shown = self.extractor.map_of(distances, shape) if with_map else None
        return Measured({"anomaly_score": distances.amax(dim=1).double().numpy()}, {}, shown)


def _farthest(pool: Tensor, size: int, first: int) -> Tensor:
    """The greedy coreset: each next vector is the one farthest from those chosen."""
    chosen = [first]
    squares = torch.linalg.vector_norm(pool, dim=1).square()  # products with one vector: no second copy of the pool
    nearest = torch.full((len(pool),), torch.inf)
    for _ in range(size - 1):
        last = pool[chosen[-1]]
        nearest = torch.minimum(nearest, squares - 2 * (pool @ last) + squares[chosen[-1]])
        chosen.append(int(nearest.argmax()))
    return pool[torch.tensor(chosen)].clone()
