"""Scores of the autoencoder: the recorded tile held against its reconstruction, in units of the noise.

The score is the strongest place of the residual's scan over sizes of 3 to 24 px, each size read on the scale that
normal tiles give it (`places.py`). Noise alone does not raise it, nor does what the reconstruction always misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from .. import metrics
from ..noise import NoiseModel
from ..trust.residual import residual_tests
from .measured import Measured, all_finite
from .network import Autoencoder, Layout, reconstruct
from .places import OF_NOISE, SHAPES, Places, usual_of
from .seen import seen

STATISTICS = ("scan", "mse", "mae", "ssim", "fsim", "dists", "lpips")
USUAL = ("scan", "mse", "mae", "ssim", "fsim")
_HALF_NORMAL = float(np.sqrt(2 / np.pi))  # mean |N(0, 1)|
_LEAST = {"ssim": 11, "fsim": 48, "dists": 32, "lpips": 32}  # px that an op needs to mean something
_RISES = ("scan", "mse", "mae", "dists", "lpips")  # with the anomaly; the others fall


class Autoencoding:
    """An autoencoder, the noise law of its tiles and the statistic that is its score."""

    map_name = "evidence"  # as the residual's scan of a denoiser has it
    usual: list[float]  # of the scan, on normal tiles; what noise alone gives until `learn_usual` was called

    def __init__(
        self, network: Autoencoder, noise: NoiseModel, top: float, score: str = "scan",
        statistics: tuple[str, ...] = USUAL, scan_axis: int = -1, denoiser: str | None = None,
    ) -> None:  # fmt: skip
        for name in (score, *statistics):
            if name not in STATISTICS:
                raise ValueError(f"statistic is {name!r}; accepted: {', '.join(map(repr, STATISTICS))}")
        self.network, self.noise, self.top = network.eval(), noise, top
        self.score_name, self.statistics = score, tuple(dict.fromkeys((*statistics, score)))
        self.scan_axis, self.denoiser = scan_axis, denoiser
        self.usual = [OF_NOISE] * len(SHAPES)

    @classmethod
    def of(cls, facts: Mapping[str, Any], state: Mapping[str, torch.Tensor], noise: NoiseModel) -> Autoencoding:
        network = Autoencoder(Layout.of(facts["layout"]))
        if bad := [name for name, value in state.items() if not all_finite(value)]:
            raise ValueError(f"{bad[0]} has non-finite values")
        with torch.inference_mode(False):
            network.load_state_dict({name: value.float() for name, value in state.items()})
        network.requires_grad_(False)
        statistics = tuple(facts["statistics"])
        top, scan_axis = float(facts["data_range"]), int(facts["scan_axis"])
        made = cls(network, noise, top, facts["score"], statistics, scan_axis, facts["denoiser"])
        usual = [float(level) for level in facts["usual"]]
        if len(usual) != len(SHAPES) or not all(0 < level < np.inf for level in usual):
            raise ValueError(f"usual is {usual}; accepted: {len(SHAPES)} finite levels above 0")
        made.usual = usual
        return made

    def learn_usual(self, images: Sequence[np.ndarray]) -> None:
        """Take the scale of each size of the scan from normal (H, W) tiles that the network was not trained on."""
        made = [self.reconstruct(image[None])[0] for image in images]
        self.usual = usual_of(images, made, self.noise, self.scan_axis)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value.float() for name, value in self.network.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "autoencoder",
            "layout": asdict(self.network.layout),
            "score": self.score_name,
            "statistics": list(self.statistics),
            "scan_axis": self.scan_axis,
            "denoiser": self.denoiser,
            "usual": self.usual,
        }

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """What the normal tile looks like, (N, H, W) float32, without noise."""
        tiles = seen(images, self.denoiser, self.noise, self.top, self.scan_axis)
        return np.asarray(reconstruct(self.network, torch.from_numpy(tiles)).numpy())

    def measure(self, images: np.ndarray, with_map: bool = False) -> Measured:
        made = self.reconstruct(images)
        options: dict[str, Any] = {"data_range": self.top, "scan_axis": self.scan_axis}
        found = residual_tests(images[:, None], made[:, None], noise=self.noise, **options)
        places = Places(images, made, self.noise, self.usual, self.scan_axis)
        values = {name: self._statistic(name, images, made, places) for name in self.statistics}
        columns = {**found.columns(), **{f"anomaly_{name}": value for name, value in values.items()}}
        sign = 1.0 if self.score_name in _RISES else -1.0
        columns["anomaly_score"] = sign * values[self.score_name]
        boxes = places.boxes_json(found.threshold.tolist())
        return Measured(columns, {"evidence_boxes": boxes}, places.map if with_map else None)

    def _statistic(self, name: str, images: np.ndarray, made: np.ndarray, places: Places) -> np.ndarray:
        if name == "scan":
            return places.strongest()
        if name in ("mse", "mae"):
            units = (images - made) / self.noise.sigma(made)
            wrong = units**2 if name == "mse" else np.abs(units) / _HALF_NORMAL
            return np.asarray(wrong.mean(axis=(1, 2)))
        if min(images.shape[1:]) < _LEAST[name]:
            return np.full(len(images), np.nan)
        op = getattr(metrics, name)
        value = op(images[:, None], made[:, None], data_range=self.top, reduction="none")
        return np.asarray(value, np.float64).reshape(-1)
