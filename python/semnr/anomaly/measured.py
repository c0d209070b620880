"""What an engine of a model gives, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

_PART = 2**18  # values that are looked at together


@dataclass(frozen=True)
class Measured:
    """Scores of a batch of tiles.

    Attributes
    ----------
    columns : dict of str to ndarray, (N,)
        `anomaly_score`, which thresholds are for, and the figures beside it.
    texts : dict of str to tuple of (str or None)
        `evidence_boxes`: the places, as JSON.
    map : ndarray, (N, H, W), or None
        Where it was asked for: of an autoencoder the signed z of the scan, below 0 where the tile is darker than its
        reconstruction; of a feature model the distance.

    Examples
    --------
    >>> found = semnr.anomaly.Measured({"anomaly_score": np.array([3.1, 9.5])})
    >>> found.columns["anomaly_score"] > 5
    array([False,  True])
    """

    columns: dict[str, np.ndarray]
    texts: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    map: np.ndarray | None = None


def all_finite(values: torch.Tensor) -> bool:
    """Whether all values are finite, looked at in parts: a mask of the whole would be another copy."""
    return all(bool(torch.isfinite(part).all()) for part in values.flatten().split(_PART))


class Scores(Protocol):
    """What computes the scores of one kind of model."""

    score_name: str
    map_name: str  # in maps.zarr

    def measure(self, images: np.ndarray, with_map: bool = False) -> Measured:
        """Scores of (N, H, W) float32 grey levels."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What goes into model.safetensors."""

    def facts(self) -> Mapping[str, Any]:
        """What goes into model.json beside the rest."""
